# SPDX-License-Identifier: Apache-2.0
"""ONNX models to networks.

A model is followed node by node (``gru_engine.export.onnx_record``) with tensors that know what their axes mean
(``gru_engine.export.graph``); ``gru_engine.export.onnx_ops`` says what each operator does to them. Nodes with constant inputs are
evaluated. A node that is not known there, or not exact, is refused by its name.

Sizes of batch and time that the model leaves open get values of our own, prime numbers that occur nowhere else in it; sizes that
are numbers in the model stay as they are. The network has neither. It is compared with the model, in float64, before it is
returned.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from gru_engine.export import common, traced
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import AxisError, Dim, Graph, Tensor
from gru_engine.export.onnx_ops import LENGTHS, Context
from gru_engine.export.onnx_record import Argument, Record, load
from gru_engine.export.onnx_run import Runner, evaluator, runtime
from gru_engine.export.traced import THRESHOLD_FLOAT64, Outputs, example_sizes, input_dims, layouts, state_dims
from gru_engine.network import Network

_STEPS = 20  # of a comparison where the model takes any number


def from_model(model: Any, *, axes: str | None = None, outputs: Sequence[int | str] | None = None) -> Network:
    """Turn an ONNX model into a network, exactly, or refuse.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
        Beside its input (several of the same axes count as one, side by side) it may take initial states of its GRUs and
        the sequences' lengths: those become ``state=`` and ``lengths=`` when the network runs.
    axes : str, optional
        What the axes of the input mean, a letter each: ``B`` batch, ``T`` time, ``F`` features, ``1`` an axis of size 1. By
        default it is found out; where batch and time cannot be told apart (there is no GRU) the batch comes first.
    outputs : sequence of int or str, optional
        Names (or numbers) of the model's outputs that become outputs. By default all, except states that are returned beside
        other values: those a stream carries by itself.

    Returns
    -------
    Network
        Compared with the model on random inputs. Its outputs have the model's names.

    Raises
    ------
    ExportError
        If a node has no exact counterpart; the message says which one.
    TypeError
        If ``model`` is none of these.
    OSError
        If the file cannot be read.
    """
    return trace(model, axes=axes, outputs=outputs).network


def trace(model: Any, *, axes: str | None = None, outputs: Sequence[int | str] | None = None) -> Traced:
    """Like ``from_model``, and return what is needed to run the model beside its network."""
    record = Record(load(model))
    chosen = _chosen(record, outputs)
    errors: list[ExportError] = []
    for only_input in (None, *_possible_inputs(record)):
        try:
            task = _Task(record, chosen, only_input)
            possible = [axes] if axes is not None else task.layouts()
        except ExportError as error:
            errors.append(error)
            continue
        for layout in possible:
            try:
                return task.trace_as(layout)
            except ExportError as error:
                errors.append(error)
    # Of all guesses at the axes the one that came furthest was most likely right; at a tie, one that the axes fitted.
    raise max(errors, key=lambda error: (error.progress, not isinstance(error, AxisError)))


def _possible_inputs(record: Record) -> list[str]:
    """If the others may be states of cells that are written out, not of GRU nodes: what can be the input."""
    states, lengths = record.roles()
    rest = [argument for argument in record.arguments if argument.name not in (*states, *lengths)]
    one_step = len({n for argument in rest for n in argument.shape if isinstance(n, str)}) <= 1  # the batch, no time
    names = [a.name for a in rest if all(b.floats for b in rest if b is not a)]
    return names if one_step and len(rest) > 1 else []


def _chosen(record: Record, outputs: Sequence[int | str] | None) -> list[int] | None:
    """The numbers of the chosen outputs."""
    if outputs is None:
        return None
    names = [output.name for output in record.model.graph.output]
    chosen = []
    for wanted in outputs:
        if isinstance(wanted, str) and wanted not in names and not wanted.isdecimal():
            raise ExportError(f"outputs: the model has no output {wanted!r}; it has {', '.join(names)}")
        chosen.append(names.index(wanted) if wanted in names else int(wanted))
    return chosen


class _Task:
    """A model that is about to be followed: what its arguments are for.

    With ``only_input`` the model takes one time step of this input, and what else it takes are states, also of written-out cells.
    """

    def __init__(self, record: Record, outputs: list[int] | None, only_input: str | None):
        self.record = record
        self.outputs = outputs
        states, lengths = record.roles()
        self.states, self.lengths = set(states), set(lengths)
        names = [argument.name for argument in record.arguments]
        self.written = {n for n in names if only_input is not None and n != only_input} - self.states - self.lengths
        self.states |= self.written
        self.inputs = [a for a in record.arguments if a.name not in self.states | self.lengths]
        if not self.inputs:
            raise ExportError("the model has no input beside states and lengths")
        if len(lengths) > 1:
            raise ExportError(f"the lengths of the sequences are several inputs: {', '.join(lengths)}")
        first = self.inputs[0]
        self.tokens = record.are_tokens(first)
        for other in self.inputs[1:]:
            if self.tokens or record.are_tokens(other) or len(other.shape) != len(first.shape):
                raise ExportError(
                    f"the model has the inputs {first} and {other}; a network has one input, and only inputs of floats with "
                    "the same axes can be taken as one"
                )
        self.names = dict(zip(self._open_sizes(), traced.PRIMES[::-1]))

    def _open_sizes(self) -> list[str]:
        return list(dict.fromkeys(n for a in self.record.arguments for n in a.shape if isinstance(n, str)))

    def _example(self, argument: Argument) -> list[int]:
        return [self.names[n] if isinstance(n, str) else n for n in argument.shape]

    def layouts(self) -> list[str]:
        """What the axes of the input may mean, as far as sizes that are open or 1 allow."""
        first = self.inputs[0]
        possible = layouts(self._example(first), not self.tokens, bool(self.states))
        if self.written:
            possible = [layout for layout in possible if "T" not in layout]
        if any(node.op_type == "GRU" for node in self.record.nodes):
            # A batch of open size may be one row after all, where states inside have that size. Which axis it is, GRUs tell.
            possible += [layout.replace("B", "1") for layout in possible]
        kept = []
        for layout in dict.fromkeys(possible):
            pairs = list(zip(layout, first.shape))
            if any(letter in "BT" and size == 1 for letter, size in pairs):
                continue  # an axis of size 1 is none
            if any(letter == "F" and isinstance(size, str) for letter, size in pairs):
                continue
            kept.append(layout)
        if not kept:
            raise ExportError(
                f"the axes of the input {first} are not understood: expected batch, time and features, the features' number fixed"
            )
        return kept

    def _sizes(self, layout: str) -> dict[str, int]:
        """The sizes of batch and time: those of the model, or primes."""
        sizes = example_sizes(self.record.numbers(), [c for c in layout if c in "BT"])
        for letter, size in zip(layout, self.inputs[0].shape):
            if letter in "BT" and isinstance(size, int):
                sizes[letter] = size
        sizes["R"] = sizes["T"]
        return sizes

    def _dims(self, layout: str, argument: Argument) -> list[Dim]:
        dims = input_dims(layout, self._example(argument))
        for letter, own, first in zip(layout, argument.shape, self.inputs[0].shape):
            if letter in "BT1" and isinstance(own, int) and isinstance(first, int) and own != first:
                raise ExportError(f"the inputs {self.inputs[0]} and {argument} do not have the same axes")
            if letter == "F" and isinstance(own, str):
                raise ExportError(f"the input {argument} has an open number of features")
        return dims

    def _state_dims(self, layout: str, argument: Argument) -> list[Dim]:
        """Axes of an initial state: an open size is the batch's."""
        first = self.inputs[0].shape
        batch = first[layout.index("B")] if "B" in layout else None
        size = 1 if batch is None else self.names[batch] if isinstance(batch, str) else batch
        shape = [size if isinstance(n, str) else n for n in argument.shape]
        return state_dims(shape, None if batch is None else size)

    def trace_as(self, layout: str) -> Traced:
        """Follow the model with one meaning of the input's axes."""
        if len(self.inputs) > 1 and ("T" not in layout or len(layout) < 3):
            raise ExportError(
                f"the model takes one time step, and {', '.join(map(str, self.inputs))}; a network has one input, and states "
                "that GRU nodes take as initial_h or that GRU cells written out in elementary operators carry"
            )
        sizes = self._sizes(layout)
        graph = Graph()
        places: dict[str, Any] = {}
        dims = [self._dims(layout, argument) for argument in self.inputs]
        widths = [math.prod(n for d in own for n in d if isinstance(n, int)) for own in dims]
        name = self.inputs[0].name if len(self.inputs) == 1 else ""
        source = graph.source("tokens" if self.tokens else "input", [(sum(widths),)], name)
        start = 0
        for argument, own, width in zip(self.inputs, dims, widths):
            shape = [n for d in own for n in d if isinstance(n, int)]
            places[argument.name] = Tensor.of(own, source.ids.reshape(-1)[start : start + width].reshape(shape))
            start += width
        for argument in self.record.arguments:
            if argument.name in self.states:
                title = f"input {argument.name!r}, of shape {list(argument.shape)},"
                places[argument.name] = graph.source("state", self._state_dims(layout, argument), title)
                if argument.name in self.written:
                    graph.nodes[-1].options["open"] = True
            elif argument.name in self.lengths:
                places[argument.name] = LENGTHS
        written = [place for n, place in places.items() if n in self.written]
        returned, context = self.record.follow(graph, places, sizes, written)
        try:
            _check_lengths(context)
            names = [output.name for output in self.record.model.graph.output]
            labels = [f"output {name!r}" for name in names]
            chooser = Outputs(graph, list(places.values()), returned, "the model", labels)
            try:
                network, fields = chooser.lowered(names, self.outputs)
            except ExportError:
                raise
            except ValueError as error:  # of Network, about weights that are not finite
                raise ExportError(f"the model has no network: {error}") from error
            fixed = {c: n for c, n in zip(layout, self.inputs[0].shape) if c in "BT" and isinstance(n, int)}
            result = Traced(network, **fields, record=self.record, arguments=list(places), fixed=fixed)
            result.check()
            return result
        except ExportError as error:
            if self.written:
                named = ", ".join(map(repr, sorted(self.written)))
                error = ExportError(
                    f"{error}; {named} would have to be the state of a GRU cell that is written out in elementary operators, "
                    "because a network has one input"
                )
            error.progress = math.inf  # the whole model was followed
            raise error from None


def _check_lengths(c: Context) -> None:
    """Whether lengths given at run time do in the model what they do in the network."""
    takers = [name for name, takes in c.lengths if takes]
    others = [name for name, takes in c.lengths if not takes]
    if takers and others:
        raise ExportError(f"GRU {takers[0]!r} takes the lengths of the sequences, but GRU {others[0]!r} does not")
    ahead = [
        node
        for node in c.graph.nodes
        if node.operation in ("mean", "max", "attend") or (node.operation == "conv1d" and node.options["padding"][1])
    ]
    if takers and ahead:
        raise ExportError(
            f"the model takes the lengths of the sequences, but {ahead[0].name or ahead[0].operation!r} reads the steps behind a "
            "sequence's end too"
        )
    if takers and c.ends:
        raise ExportError(
            f"the model takes the lengths of the sequences, but {c.ends[0]!r} reads the end of the time axis whatever they are; "
            "the state at a sequence's own end is Y_h"
        )


# ---- the model beside its network


@dataclass(frozen=True, eq=False)
class Traced(traced.Traced):
    """An ONNX model beside its network."""

    record: Record
    arguments: list[str]  # names of the model's inputs, one for each of ``places``
    fixed: dict[str, int]  # of batch "B" and time "T" the sizes that are numbers in the model
    runner: Runner | None = None  # what runs the model; None: onnx's evaluator in float64

    @property
    def model(self) -> onnx.ModelProto:
        """The model."""
        return self.record.model

    @property
    def takes_lengths(self) -> bool:
        """Whether the model takes the lengths of the sequences."""
        return any(place is LENGTHS for place in self.places)

    def inputs(self) -> dict[str, str]:
        """For each input of the model what it is for a network: ``"x"``, ``"state"`` or ``"lengths"``."""
        kinds = ["lengths" if p is LENGTHS else "state" if self._is_state(p) else "x" for p in self.places]
        return dict(zip(self.arguments, kinds))

    def notes(self) -> list[str]:
        """What was understood, in lines for people."""
        texts = {
            "x": "input",
            "state": "initial state: state= when the model runs",
            "lengths": "lengths= when the model runs",
        }
        lines = []
        for (name, kind), place in zip(self.inputs().items(), self.places):
            lines.append(f"{name}: " + f"{place}, " * isinstance(place, Tensor) + texts[kind])
        names = [output.name for output in self.model.graph.output]
        lines += [f"{names[i]}: {t}, output" for i, t in self.outputs.items()]
        finals = {i: t for i, (t, _) in self.finals.items() if i not in self.outputs}
        lines += [f"{names[i]}: {t}, final state: return_state= when the model runs" for i, t in finals.items()]
        fixed = {"B": "rows", "T": "time steps"}
        return lines + [
            f"the model takes {n} {fixed[k]} at a time; the network any number" for k, n in self.fixed.items()
        ]

    def source(self, name: str) -> dict[str, Any]:
        """Where the network comes from, for its metadata."""
        model = self.model
        producer = f"{model.producer_name} {model.producer_version}".strip()
        return {"framework": "ONNX", "model": name, "producer": producer, "opset": self.record.opsets.get("", 1),
                "inputs": self.inputs()}  # fmt: skip

    # ---- running

    def with_runtime(self) -> Traced:
        """The same with ONNX Runtime to run the model, if it is installed and can."""
        runner = runtime(self.model) or evaluator(self.model)
        return Traced(**{**vars(self), "runner": runner})

    def run(self, x: Array, state: Array | None = None, lengths: Array | None = None) -> tuple[Array, Array]:
        """Run the model on what the network takes, and lay its results out as the network's (see the base class)."""
        steps = self.fixed.get("T")
        if steps is not None and x.shape[1] != steps:
            raise ExportError(f"the model takes sequences of {steps} steps, got {x.shape[1]}")
        rows, group = len(x), self.fixed.get("B", 1)

        def filled(a: Array | None) -> Array | None:
            return None if a is None else np.concatenate([a, np.repeat(a[-1:], -rows % group, 0)])

        y, after = super().run(np.asarray(filled(x)), filled(state), filled(lengths))
        return y[:rows], after[:rows]

    def save(
        self, path: str | os.PathLike[str], *, dtype: str = "float32", threshold: float = common.THRESHOLD
    ) -> list[common.Comparison]:
        """Check the network beside the model, and write it with golden vectors: ``gru_engine.export.common.save``.

        Without ``with_runtime`` the model is run by onnx's evaluator.
        """
        runner = self.runner or self._evaluator()
        options: dict[str, Any] = {"dtype": dtype, "threshold": threshold}
        if "T" in self.fixed:
            steps = self.fixed["T"]
            options |= {"inputs": common.random_inputs(self.network, steps=steps), "golden_steps": (steps,)}
        return common.save(self.network, path, lambda x: self.run(x)[0], runner.name, **options)

    def _batches(self, rows: int) -> list[slice]:
        group = self.fixed.get("B", rows)
        return [slice(i, i + group) for i in range(0, rows, group)]

    def call(self, arguments: list[Any], lengths: Array | None) -> list[Any]:
        """Run the model."""
        runner = self.runner or self._evaluator()
        first = next(a for a, place in zip(arguments, self.places) if isinstance(place, Tensor))
        feed = {}
        for name, place, argument in zip(self.arguments, self.places, arguments):
            if place is LENGTHS:
                argument = self._lengths(lengths, first.shape)
            feed[name] = argument
        return runner(feed)

    def _lengths(self, lengths: Array | None, shape: tuple[int, ...]) -> Array:
        sizes = {f: n for dim, n in zip(self.places[0].dims, shape) for f in dim}
        return np.full(sizes.get("B", 1), sizes.get("T", 1)) if lengths is None else np.asarray(lengths)

    def _evaluator(self) -> Runner:
        runner = evaluator(self.model)
        object.__setattr__(self, "runner", runner)  # made once
        return runner

    def check(self) -> common.Comparison:
        """Compare the model with the network, executed by the reference, on random inputs and random initial states.

        The model runs in float64.

        Raises
        ------
        ExportError
            If it fails at the sizes of the comparison, or differs.
        """
        batch, steps = self.fixed.get("B", 3), self.fixed.get("T", _STEPS)
        timed = traced.has_time(self.places[0])
        lengths = 1 + np.arange(batch) * 7 % steps if self.takes_lengths and timed else None
        return self.compare(batch, steps, THRESHOLD_FLOAT64, "model", lengths)
