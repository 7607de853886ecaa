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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from gru_engine.export import common, traced
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import Graph, Tensor
from gru_engine.export.roles import without_time
from gru_engine.export.torch_arguments import Arguments, Reading
from gru_engine.export.torch_record import Record, RecordError, record
from gru_engine.export.traced import THRESHOLD_FLOAT64, Outputs, example_sizes, input_dims, selected, state_dims
from gru_engine.network import Network

Axes = str | Mapping[str, str] | None
Chosen = Sequence[int | str] | None

_LONG = 400  # steps that are enough for kernels and strides of a front end


def from_module(module: nn.Module, example_input: Any, *, axes: Axes = None, outputs: Chosen = None) -> Network:
    """Turn a module into a network, exactly, or refuse.

    Parameters
    ----------
    module : nn.Module
        It is copied; the copy is put into eval mode.
    example_input : Tensor, tuple or dict
        What ``forward`` takes, by position or by the names of its parameters: sequences (``[batch, time, features]``, ``[time,
        batch, features]``, without the batch, or of one step ``[batch, features]``), or integer tokens; perhaps more of
        them, with the same batch and time; and behind the first one the initial states of GRUs, if forward takes them.
        Only shapes and data types are used; batch and time may have any size, best two different ones.
    axes : str or dict of str to str, optional
        What the axes of the (first) input mean, a letter each: ``B`` batch, ``T`` time, ``F`` features, ``1`` an axis of size
        1. A dict says it of each input, by name; then all other tensors are states. By default it is found out; where
        batch and time cannot be told apart (there is no GRU) the batch comes first.
    outputs : sequence of int or str, optional
        Which of the values that forward returns (counted through nested tuples, or by their keys in a dictionary) become
        outputs. By default all, except states that are returned beside other values: those a stream carries by itself.

    Returns
    -------
    Network
        Compared with the module on random inputs. Several inputs have the names of forward's parameters, or the keys where
        it takes one dictionary; those that no output depends on are left out.

    Raises
    ------
    ExportError
        If an operation has no exact counterpart; the message says which one, in which submodule and line.
    """
    return trace(module, example_input, axes=axes, outputs=outputs).network


def trace(module: nn.Module, example_input: Any, *, axes: Axes = None, outputs: Chosen = None) -> Traced:
    """Like ``from_module``, and return what is needed to run the module beside its network."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        raise ExportError("the module is TorchScript, a program; export the nn.Module that it was made from")
    module = _copied(module).cpu().eval().requires_grad_(False)
    arguments = Arguments.of(module, example_input)
    readings, errors = arguments.readings(axes)
    records: dict[tuple[Any, ...], Record] = {}
    n_tensors = sum(isinstance(leaf, torch.Tensor) for leaf in arguments.leaves)
    for reading in readings:
        try:
            attempt = partial(_traced, reading, module, arguments, outputs, records, isinstance(axes, Mapping))
            found = _trace_as(attempt, "T" in next(iter(reading.values())), n_tensors > len(reading))
        except ExportError as error:
            errors.append(error)
        else:
            found.check()
            return found
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
    copied = copy.deepcopy(module, memo)
    for child in copied.modules():
        if isinstance(child, nn.RMSNorm) and child.eps is None:
            child.eps = torch.finfo(torch.float32).eps  # otherwise another one when the copy runs in float64
    return copied


def _trace_as(attempt: Callable[..., Traced], timed: bool, stateful: bool) -> Traced:
    """Trace with one meaning of the arguments, ``attempt``, which may have to be made in another way.

    With a time, ``timed``: if it fails by itself, its sequences may be too short, so then it gets longer ones. Without one,
    and with states beside the inputs: first so that cells of GRUs become GRUs; if that fails because of what is done with
    their states, in elementary operations.
    """
    try:
        try:
            return attempt()
        except RecordError:
            if not timed:
                raise
            return attempt(least=_LONG)
    except ExportError as error:
        if timed or not stateful:
            raise
        try:
            return attempt(elementary=True)
        except ExportError as other:
            raise max((other, error), key=lambda e: e.progress) from None


def _traced(
    reading: Reading,
    module: nn.Module,
    arguments: Arguments,
    outputs: Chosen,
    records: dict[tuple[Any, ...], Record],
    given: bool,
    elementary: bool = False,
    least: int = 0,
) -> Traced:
    leaves = arguments.leaves
    first, layout = next(iter(reading.items()))
    numbers = {
        n for t in (*module.parameters(), *module.buffers(), *leaves) if isinstance(t, torch.Tensor) for n in t.shape
    }
    # By position, so that BTF and TBF have the same record.
    sizes = example_sizes(numbers, [c for c in layout if c in "BT"], least)

    graph = Graph()
    places: list[Any] = list(leaves)
    batch = leaves[first].shape[layout.index("B")] if "B" in layout else None
    for number, leaf in enumerate(leaves):
        if number in reading:
            kind = "input" if leaf.dtype.is_floating_point else "tokens"
            name = arguments.names[number] if len(reading) > 1 else ""
            places[number] = graph.source(kind, input_dims(reading[number], leaf.shape), name)
        elif isinstance(leaf, torch.Tensor):
            places[number] = graph.source("state", state_dims(leaf.shape, batch), f"{arguments.title(number)},")
            if "T" not in layout:  # of one step: the GRU's cell may be written out in elementary operations
                graph.nodes[-1].options.update(open=True, argument=graph.nodes[-1].ids.tolist())

    shapes = tuple(place.shape(sizes) if isinstance(place, Tensor) else None for place in places)
    if shapes not in records:
        values = [
            torch.zeros(shape, dtype=leaf.dtype) if shape is not None else leaf for shape, leaf in zip(shapes, leaves)
        ]
        records[shapes] = record(_copied(module), *arguments.values(values))
    try:
        returned = records[shapes].follow(graph, places, sizes, elementary)
    except ExportError as error:
        vectors = [
            n for n, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor) and n not in reading and leaf.ndim < 3
        ]
        if "T" not in layout or not vectors:
            raise
        described = type(error)(f"{error}; {without_time(arguments.title(vectors[0]))}")
        described.progress = error.progress
        raise described from None
    try:
        labels = [f"value {i}" for i in range(len(returned))]
        chooser = Outputs(graph, places, returned, "forward", labels)
        if not given and "T" not in layout:
            for number in [n for n in reading if n != first and leaves[n].dtype.is_floating_point]:
                chooser.check_no_state(places[number], arguments.title(number))
        names = records[shapes].output_names
        network, fields = chooser.lowered(names, selected(outputs, names))
        return Traced(network, module=module, arguments=arguments, **fields)
    except ExportError as error:
        error.progress = math.inf  # the whole record was followed
        raise


# ---- the module beside its network


@dataclass(frozen=True, eq=False)
class Traced(traced.Traced):
    """A module beside its network."""

    module: nn.Module  # a copy, in eval mode
    arguments: Arguments  # of the example

    def notes(self) -> list[str]:
        """What was understood, in lines for people."""
        lines = []
        for i, (place, node) in enumerate(zip(self.places, self.sources)):
            if node is not None and node.operation == "state":
                lines.append(f"argument {i}: {place}, initial state: state= when the model runs")
            elif node is not None:
                lines.append(self.input_note(place, node))
        lines += [
            f"value {i}: {t}, output {name!r}" for (i, t), name in zip(self.outputs.items(), self.network.outputs)
        ]
        states = {i: t for i, (t, _) in self.finals.items() if i not in self.outputs}
        return lines + [f"value {i}: {t}, final state: return_state= when the model runs" for i, t in states.items()]

    def call(self, arguments: list[Any], lengths: Array | None) -> list[Any]:
        """Run the module; ``lengths`` are never given."""
        dtype = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), None)
        dtype = dtype or torch.get_default_dtype()
        tensors = []
        for place, argument in zip(self.places, arguments):
            if isinstance(place, Tensor):
                argument = torch.from_numpy(np.array(argument))
                argument = argument.to(dtype) if argument.is_floating_point() else argument
            tensors.append(argument)
        with torch.inference_mode():
            args, kwargs = self.arguments.values(tensors)
            returned = pytree.tree_leaves(self.module(*args, **kwargs))
        return [value.to(torch.float64).numpy() if isinstance(value, torch.Tensor) else value for value in returned]

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
                wide = replace(self, module=_copied(self.module).double())
                return wide.compare(batch, steps, THRESHOLD_FLOAT64, "module")
        except ExportError:
            raise
        except Exception:  # it mixes in a type of its own
            try:
                return self.compare(batch, steps, common.THRESHOLD, "module")
            except ExportError:
                raise
            except Exception as error:
                raise ExportError(
                    f"the module fails with batch {batch} and time {steps}, so it needs certain sizes: {error}"
                ) from error


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
