# SPDX-License-Identifier: Apache-2.0
"""PyTorch modules to networks.

``torch.export`` runs the module once on fake tensors and records every ATen operation, in plain functional form; whatever
Python does in ``forward`` has been done by then. It is preferred to ``torch.fx``, which fails on ordinary Python and leaves
each operation under many names (``nn.Tanh``, ``F.tanh``, ``x.tanh()``). ``nn.GRU`` stays one operation, ``aten.gru``. The
record is followed with tensors that know what their axes mean (``gru_engine.export.graph``), operation by operation
(``gru_engine.export.torch_ops``); an operation that is not known there, or not exact, is refused with its place in the source.

The record holds the example's sizes as plain numbers. So batch and time get sizes of our own, prime numbers that occur nowhere
else in the module, and the network is compared with the module at other sizes before it is returned.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from gru_engine import reference
from gru_engine.export import common
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import AxisError, Dim, Graph, Ids, Node, Tensor
from gru_engine.export.lowering import Lowered, lower
from gru_engine.export.torch_record import Record, record
from gru_engine.network import Network

_PRIMES = [n for n in range(5, 1000) if all(n % k for k in range(2, n))]

THRESHOLD_FLOAT64 = 1e-6
"""Largest accepted relative difference between the module in float64 and the reference; its constants are float32."""


def from_module(
    module: nn.Module, example_input: Any, *, axes: str | None = None, outputs: Sequence[int] | None = None
) -> Network:
    """Turn a module into a network, exactly, or refuse.

    Parameters
    ----------
    module : nn.Module
        It is copied; the copy is put into eval mode.
    example_input : Tensor or tuple
        What ``forward`` takes: sequences (``[batch, time, features]``, ``[time, batch, features]``, without the batch, or of one
        step ``[batch, features]``), or integer tokens; and after it the initial states of GRUs, if forward takes them. Only
        shapes and data types are used; batch and time may have any size.
    axes : str, optional
        What the axes of the input mean, a letter each: ``B`` batch, ``T`` time, ``F`` features, ``1`` an axis of size 1. By
        default it is found out; where batch and time cannot be told apart (there is no GRU) the batch comes first.
    outputs : sequence of int, optional
        Which of the values that forward returns (counted through nested tuples) become outputs. By default all, except
        states that are returned beside other values: those a stream carries by itself.

    Returns
    -------
    Network
        Compared with the module on random inputs.

    Raises
    ------
    ExportError
        If an operation has no exact counterpart; the message says which one, in which submodule and line.
    """
    return trace(module, example_input, axes=axes, outputs=outputs).network


def trace(
    module: nn.Module, example_input: Any, *, axes: str | None = None, outputs: Sequence[int] | None = None
) -> Traced:
    """Like ``from_module``, and return what is needed to run the module beside its network."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        raise ExportError("the module is TorchScript, a program; export the nn.Module that it was made from")
    module = _copied(module).cpu().eval().requires_grad_(False)
    example = example_input if isinstance(example_input, tuple) else (example_input,)
    leaves, spec = pytree.tree_flatten(example)
    if not leaves or not isinstance(leaves[0], torch.Tensor):
        raise ExportError("the first example input must be a tensor: the sequences, or tokens")

    errors: list[ExportError] = []
    records: dict[tuple[Any, ...], Record] = {}
    for layout in [axes] if axes is not None else _layouts(leaves):
        try:
            traced = _trace_as(layout, module, leaves, spec, outputs, records)
        except ExportError as error:
            errors.append(error)
        else:
            traced.check()
            return traced
    # Of all guesses at the axes the one that came furthest was most likely right.
    raise max(errors, key=lambda error: error.progress)


def _copied(module: nn.Module) -> nn.Module:
    """A copy with tensors of its own. Computed ones (of weight_norm, or a state that was kept) become plain tensors."""
    memo: dict[int, Any] = {}
    for child in module.modules():
        for value in child.__dict__.values():
            for leaf in pytree.tree_leaves(value) if isinstance(value, (torch.Tensor, list, tuple)) else ():
                if isinstance(leaf, torch.Tensor) and not leaf.is_leaf:
                    memo[id(leaf)] = leaf.detach().clone()
    return copy.deepcopy(module, memo)


# ---- what the axes of the inputs may mean


def _layouts(leaves: list[Any]) -> list[str]:
    """The possible meanings of the input's axes, the likely ones first."""
    example = leaves[0]
    rank, states = example.dim(), any(isinstance(leaf, torch.Tensor) for leaf in leaves[1:])
    if not example.dtype.is_floating_point:
        plain = {0: [""], 1: ["B", "T"] if states else ["T", "B"], 2: ["BT", "TB"]}.get(rank, [])
    elif rank < 3:
        plain = {1: ["F", "T"], 2: ["BF", "TF", "BT", "TB"]}.get(rank, [])
    else:
        features = "F" * (rank - 2)
        plain = [f"BT{features}", f"TB{features}", f"B{features}T"]
    if not plain:
        raise ExportError(f"an example input of shape {list(example.shape)} and type {example.dtype} is not supported")

    def without(letters: str) -> list[str]:
        """The layouts in which all the given axes have size 1 in the example and are taken for no axes."""
        ones = [{c for c, n in zip(layout, example.shape) if n == 1} for layout in plain]
        return [
            "".join("1" if c in letters else c for c in layout)
            for layout, one in zip(plain, ones)
            if set(letters) <= one
        ]

    # A module that takes one step and its state may really mean an axis of size 1 where the time stands.
    ordered = [*without("T"), *plain, *without("BT"), *without("B")] if states else [*plain, *without("B")]
    return list(dict.fromkeys(ordered))


def _input_dims(layout: str, example: torch.Tensor) -> list[Dim]:
    if len(layout) != example.dim() or not set(layout) <= set("BTF1") or layout.count("B") > 1 or layout.count("T") > 1:
        raise ExportError(
            f"axes {layout!r} do not describe an input of shape {list(example.shape)}: one of B, T, F, 1 for each"
        )
    return [(c,) if c in "BT" else () if c == "1" else (n,) for c, n in zip(layout, example.shape)]


def _state_dims(state: torch.Tensor, batch: int | None) -> list[Dim]:
    """The axes of an initial state: [layers, batch, units] or [batch, units], where there is a batch."""
    dims: list[Dim] = [(n,) for n in state.shape]
    if batch is not None:
        likely = [1, 0, 2] if state.dim() == 3 else range(state.dim())
        found = [i for i in likely if state.shape[i] == batch]
        if not found:
            raise AxisError(f"an initial state of shape {list(state.shape)} has no axis of the batch's size {batch}")
        dims[found[0]] = ("B",)
    return dims


def _trace_as(
    layout: str,
    module: nn.Module,
    leaves: list[Any],
    spec: Any,
    outputs: Sequence[int] | None,
    records: dict[tuple[Any, ...], Record],
) -> Traced:
    """Trace the module with one meaning of the input's axes."""
    dims = _input_dims(layout, leaves[0])
    numbers = {
        n for t in (*module.parameters(), *module.buffers(), *leaves) if isinstance(t, torch.Tensor) for n in t.shape
    }
    primes = [p for p in _PRIMES if all(n % p for n in numbers if n)]
    letters = [c for c in layout if c in "BT"]
    sizes = dict(zip(letters, primes))  # by position, so that BTF and TBF have the same record
    sizes.setdefault("B", primes[2])
    sizes["R"] = sizes.setdefault("T", primes[3])

    graph = Graph()
    kind = "input" if leaves[0].dtype.is_floating_point else "tokens"
    places: list[Any] = [graph.source(kind, dims)]
    batch = leaves[0].shape[layout.index("B")] if "B" in layout else None
    for number, leaf in enumerate(leaves[1:], 1):
        if isinstance(leaf, torch.Tensor) and leaf.dtype.is_floating_point:
            name = f"argument {number} of forward, of shape {list(leaf.shape)},"
            places.append(graph.source("state", _state_dims(leaf, batch), name))
        elif isinstance(leaf, torch.Tensor):
            raise ExportError(
                f"argument {number} of forward is a tensor of {leaf.dtype}: a network has one input and initial states; "
                "lengths are given when the model runs"
            )
        else:
            places.append(leaf)

    shapes = tuple(place.shape(sizes) if isinstance(place, Tensor) else None for place in places)
    if shapes not in records:
        values = [
            torch.zeros(shape, dtype=leaf.dtype) if shape is not None else leaf for shape, leaf in zip(shapes, leaves)
        ]
        records[shapes] = record(_copied(module), pytree.tree_unflatten(values, spec))
    returned = records[shapes].follow(graph, places, sizes)
    try:
        return _Outputs(graph, places, returned).traced(module, spec, records[shapes].output_names, outputs)
    except ExportError as error:
        error.progress = math.inf  # the whole record was followed
        raise


# ---- outputs and states


@dataclass(frozen=True, eq=False)
class _Outputs:
    """Which of the returned values are outputs, and which are the states of the GRUs."""

    graph: Graph
    places: list[Any]
    returned: list[Any]

    def _grus(self, value: Any) -> list[tuple[Node, int]] | None:
        """If a value is nothing but new states of GRUs: for each feature the GRU and the unit."""
        if not isinstance(value, Tensor) or self._has_time(value):
            return None
        found = []
        for id, number in zip(value.ids.reshape(-1).tolist(), self.graph.node_numbers(value.ids.reshape(-1)).tolist()):
            node, unit = self.graph.nodes[number], id - self.graph.nodes[number].first
            if node.operation in ("last", "first"):
                source = self.graph.nodes[int(self.graph.node_numbers(node.inputs[0][:1])[0])]
                if source.options.get("direction") != {"last": "forward", "first": "reverse"}[node.operation]:
                    return None
                node = source
            if node.operation != "gru":
                return None
            found.append((node, unit))
        return found

    @staticmethod
    def _has_time(value: Any) -> bool:
        return isinstance(value, Tensor) and any(f in ("T", "R") for dim in value.dims for f in dim)

    def _continues(self, value: Any, state: Tensor) -> bool:
        """Whether a value is the new state of exactly what ``state`` was the old one of."""
        units = self._grus(value)
        if units is None or value.dims != state.dims:
            return False
        return [node.options.get("state", {unit: -1})[unit] for node, unit in units] == state.ids.reshape(-1).tolist()

    def choose(self) -> list[int]:
        """The numbers of the returned values that are outputs."""
        steps = self._has_time(self.places[0])
        tensors = [i for i, value in enumerate(self.returned) if value is not None]
        states = [place for place in self.places[1:] if isinstance(place, Tensor)]
        if not steps:
            for state in states:
                if not any(self._continues(value, state) for value in self.returned):
                    raise ExportError(
                        f"forward takes one time step and a state of shape {state}, but returns no new state with the same axes"
                    )
            values = [i for i in tensors if not any(self._continues(self.returned[i], state) for state in states)]
            distinct = {
                str(self.returned[i].ids.tolist()): i for i in reversed(tensors) if isinstance(self.returned[i], Tensor)
            }
            return values or sorted(distinct.values())
        if not any(self._has_time(self.returned[i]) for i in tensors):
            return tensors
        chosen = []
        for i in tensors:
            if self._grus(self.returned[i]) is None:
                chosen.append(i)
            elif states and not any(self._continues(self.returned[i], state) for state in states):
                raise ExportError(
                    f"the state that forward returns as value {i} is arranged in another way than the one it takes"
                )
        return chosen

    def traced(self, module: nn.Module, spec: Any, names: list[str | None], outputs: Sequence[int] | None) -> Traced:
        chosen = self.choose() if outputs is None else list(outputs)
        for i in chosen:
            if not 0 <= i < len(self.returned):
                raise ExportError(f"outputs: forward returns {len(self.returned)} values, there is no value {i}")
            if not isinstance(self.returned[i], Tensor):
                raise ExportError(f"value {i} that forward returns does not depend on the input")
            if any("R" in dim for dim in self.returned[i].dims):
                raise ExportError(f"value {i} that forward returns is in reversed time order")
        rates = {self._has_time(self.returned[i]) for i in chosen}
        if len(rates) > 1 and self._has_time(self.places[0]):
            raise ExportError(
                f"forward returns values of every time step and values of the whole sequence "
                f"({', '.join(f'{i}: {self.returned[i]}' for i in chosen)}); choose with outputs="
            )
        if not chosen:
            raise ExportError("forward returns nothing that depends on the input")
        lowered = lower(self.graph, [(names[i], self.returned[i].ids) for i in chosen])
        positions = _positions(lowered)
        finals = {}
        for i, value in enumerate(self.returned):
            units = self._grus(value)
            if units is not None:
                finals[i] = np.array(
                    [positions[id(node)] + unit if id(node) in positions else -1 for node, unit in units]
                )
        return Traced(
            lowered.network,
            module,
            spec,
            self.places,
            {i: self.returned[i] for i in chosen},
            {id: positions_of[unit] for id, positions_of, unit in _state_ids(lowered, positions)},
            {i: (self.returned[i], places) for i, places in finals.items()},
        )


def _positions(lowered: Lowered) -> dict[int, int]:
    """For each GRU node (by ``id``) where its hidden state starts in the network's state."""
    positions, start = {}, 0
    for node in lowered.grus:
        positions[id(node)] = start
        start += node.width
    return positions


def _state_ids(lowered: Lowered, positions: dict[int, int]) -> Iterator[tuple[int, range, int]]:
    for node in lowered.grus:
        start = positions[id(node)]
        for unit, state_id in enumerate(node.options.get("state", ())):
            yield state_id, range(start, start + node.width), unit


# ---- the module beside its network


@dataclass(frozen=True, eq=False)
class Traced:
    """A module, the network made from it, and how the arrays of the one correspond to those of the other."""

    network: Network
    module: nn.Module  # a copy, in eval mode
    spec: Any  # of the arguments of forward
    places: list[Any]  # the arguments: axes, or constants
    outputs: dict[int, Tensor]  # by number among the returned values
    state_places: dict[int, int]  # id of a feature of an initial state -> its place in the network's state
    finals: dict[int, tuple[Tensor, Ids]]  # returned states: axes, and places in the network's state (-1: none)

    @property
    def takes_state(self) -> bool:
        """Whether forward takes initial states."""
        return bool(self.state_places)

    def notes(self) -> list[str]:
        """What was understood, in lines for people."""
        lines = [f"input: {self.places[0]}"]
        for i, place in enumerate(self.places[1:], 1):
            if isinstance(place, Tensor):
                lines.append(f"argument {i}: {place}, initial state: state= when the model runs")
        lines += [
            f"value {i}: {t}, output {name!r}" for (i, t), name in zip(self.outputs.items(), self.network.outputs)
        ]
        states = {i: t for i, (t, _) in self.finals.items() if i not in self.outputs}
        return lines + [f"value {i}: {t}, final state: return_state= when the model runs" for i, t in states.items()]

    def run(self, x: Array, state: Array | None = None) -> tuple[Array, Array]:
        """Run the module on what the network takes, and lay its results out as the network's.

        Parameters
        ----------
        x : array [B, T, I], or tokens [B, T]
        state : array [B, state_size], optional
            Used where forward takes a state; by default the network's initial one.

        Returns
        -------
        y : array [B, T, O] or [B, O]
        state : array [B, state_size]
            NaN where the module does not return it.
        """
        state = np.tile(self.network.initial_state, (len(x), 1)) if state is None else state
        factors = [f for dim in self.places[0].dims for f in dim]
        if "B" not in factors:
            runs = [self._run(x[i : i + 1], state[i : i + 1], "T" in factors) for i in range(len(x))]
        else:
            runs = [self._run(x, state, "T" in factors)]
        return np.concatenate([y for y, _ in runs]), np.concatenate([after for _, after in runs])

    def _run(self, x: Array, state: Array, sequences: bool) -> tuple[Array, Array]:
        if sequences:
            return self._call(x, state)
        ys = []
        for t in range(x.shape[1]):
            y, state = self._call(x[:, t], state)
            ys.append(y)
        return np.stack(ys, axis=1), state

    def _call(self, x: Array, state: Array) -> tuple[Array, Array]:
        steps = x.shape[1] if x.ndim > 1 else 1
        sizes = {"B": len(x), "T": steps, "R": steps}
        dtype = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)
        arguments = []
        for place in self.places:
            if not isinstance(place, Tensor):
                arguments.append(place)
            elif place is self.places[0]:
                argument = torch.from_numpy(place.pack(x, sizes).copy())
                arguments.append(argument.to(dtype) if argument.is_floating_point() else argument)
            else:
                features = [self.state_places.get(i) for i in place.ids.reshape(-1).tolist()]
                values = np.stack([np.zeros(len(x)) if f is None else state[:, f] for f in features], axis=1)
                arguments.append(torch.from_numpy(place.pack(values, sizes).copy()).to(dtype))
        with torch.inference_mode():
            returned = pytree.tree_leaves(self.module(*pytree.tree_unflatten(arguments, self.spec)))
        arrays = [value.to(torch.float64).numpy() if isinstance(value, torch.Tensor) else value for value in returned]
        after = np.full((len(x), self.network.state_size), np.nan)
        for i, (t, places) in self.finals.items():
            after[:, places[places >= 0]] = t.unpack(arrays[i], sizes)[:, places >= 0]
        y = np.concatenate([t.unpack(arrays[i], sizes) for i, t in self.outputs.items()], axis=-1)
        return y, after

    def check(self, batch: int = 3, steps: int = 20) -> common.Comparison:
        """Compare the module with the network, executed by the reference, on random inputs and random initial states.

        The module runs in float64 if it can.

        Raises
        ------
        ExportError
            If it fails at these sizes, or differs.
        """
        try:
            with _default_dtype(torch.float64):
                return replace(self, module=_copied(self.module).double())._check(batch, steps, THRESHOLD_FLOAT64)
        except ExportError:
            raise
        except Exception:  # it mixes in a type of its own
            try:
                return self._check(batch, steps, common.THRESHOLD)
            except ExportError:
                raise
            except Exception as error:
                raise ExportError(
                    f"the module fails with batch {batch} and time {steps}, so it needs certain sizes: {error}"
                ) from error

    def _check(self, batch: int, steps: int, threshold: float) -> common.Comparison:
        x = common.random_inputs(self.network, batch, steps)
        state = None
        if self.takes_state:
            state = np.tile(self.network.initial_state, (batch, 1))
            places = list(self.state_places.values())
            state[:, places] = np.random.default_rng(1).uniform(-1, 1, (batch, len(places)))
        y, after = self.run(x, state)
        if not np.array_equal(y, self.run(x, state)[0]):
            raise ExportError(
                "forward gives other outputs when it is called again: it is random, or keeps a state in the module; "
                "a state must be an argument and be returned, forward(x, h) -> (y, h)"
            )
        y_reference, after_reference = reference.run(self.network, x, state=state, return_state=True)
        comparison = common.compare("module and float64 reference", y_reference, y, threshold)
        returned = ~np.isnan(after)
        sides = "final state of the module and of the float64 reference"
        common.compare(sides, after_reference[returned], after[returned], threshold)
        return comparison


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
