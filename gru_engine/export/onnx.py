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

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from gru_engine.export import common, traced
from gru_engine.export.common import Array, ExportError, Inputs
from gru_engine.export.graph import AxisError, Dim, Graph, Tensor
from gru_engine.export.onnx_ops import LENGTHS, Context
from gru_engine.export.onnx_record import Argument, Record, load
from gru_engine.export.onnx_run import Runner, evaluator, runtime
from gru_engine.export.roles import beside, certain, named_axes, without_time
from gru_engine.export.traced import (
    THRESHOLD_FLOAT64,
    Outputs,
    example_sizes,
    input_dims,
    layouts,
    selected,
    state_dims,
)
from gru_engine.network import Network
from gru_engine.reference_arguments import by_name

_STEPS = 20  # of a comparison where the model takes any number
_MOST_READINGS = 16  # of the axes of several inputs

Axes = str | Mapping[str, str] | None


def from_model(model: Any, *, axes: Axes = None, outputs: Sequence[int | str] | None = None) -> Network:
    """Turn an ONNX model into a network, exactly, or refuse.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
        Beside its inputs, vectors and tokens of the same batch and time, it may take initial states of its GRUs and the
        sequences' lengths: those become ``state=`` and ``lengths=`` when the network runs.
    axes : str or dict of str to str, optional
        What the axes of the (first) input mean, a letter each: ``B`` batch, ``T`` time, ``F`` features, ``1`` an axis of size
        1. A dict says it of each input, by name; whatever else the model takes are states then, or lengths. By default it
        is found out; where batch and time cannot be told apart (there is no GRU) the batch comes first.
    outputs : sequence of int or str, optional
        Names (or numbers) of the model's outputs that become outputs. By default all, except states that are returned beside
        other values: those a stream carries by itself.

    Returns
    -------
    Network
        Compared with the model on random inputs. Its inputs and outputs have the model's names.

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


def trace(model: Any, *, axes: Axes = None, outputs: Sequence[int | str] | None = None) -> Traced:
    """Like ``from_model``, and return what is needed to run the model beside its network."""
    record = Record(load(model))
    chosen = selected(outputs, [output.name for output in record.model.graph.output])
    if isinstance(axes, Mapping):
        named_axes(axes, [argument.name for argument in record.arguments])
        return _said(_Task(record, chosen, list(axes)), dict(axes))
    errors: list[ExportError] = []
    for inputs in (*_possible_inputs(record), None):
        try:
            task = _Task(record, chosen, inputs)
            for reading in task.readings(axes):
                try:
                    return task.trace_as(reading)
                except ExportError as error:
                    errors.append(error)
        except ExportError as error:
            errors.append(error)
    found = [traced for inputs in _possible_inputs(record) for traced in _steps(record, chosen, inputs, axes, errors)]
    if len(found) > 1:
        raise ExportError(
            "which of the inputs of a model of one time step is the state is not certain: more than one could be, because values "
            "with the same axes are returned; say it with axes= for each input"
        )
    if found:
        return found[0]
    # Of all guesses at the axes the one that came furthest was most likely right; at a tie, one that the axes fitted.
    raise max(errors, key=lambda error: (error.progress, not isinstance(error, AxisError)))


def _said(task: _Task, reading: dict[str, str]) -> Traced:
    """The model with the meanings of its inputs' axes that the caller knows."""
    try:
        return task.trace_as(reading)
    except ExportError:
        if not task.written:
            raise
    try:
        return task.trace_as(reading, generic=True)
    except ExportError:
        return task.trace_as(reading, generic=True, elementary=True)


def _steps(
    record: Record, chosen: list[int] | None, inputs: list[str], axes: str | None, errors: list[ExportError]
) -> Iterator[Traced]:
    """A model of one time step of this input as a network, where other inputs are states of any kind."""
    try:
        task = _Task(record, chosen, inputs)
        for reading, elementary in itertools.product(task.readings(axes), (False, True)):
            try:
                yield task.trace_as(reading, generic=True, elementary=elementary)
                return
            except ExportError as error:
                errors.append(error)
    except ExportError as error:
        errors.append(error)


def _possible_inputs(record: Record) -> list[list[str]]:
    """If the others may be states of cells that are written out, not of GRU nodes: what can be the only input."""
    states, lengths = record.roles()
    rest = [argument for argument in record.arguments if argument.name not in (*states, *lengths)]
    one_step = len({n for argument in rest for n in argument.shape if isinstance(n, str)}) <= 1  # the batch, no time
    names = [[a.name] for a in rest if all(b.floats for b in rest if b is not a)]
    return names if one_step and len(rest) > 1 else []


class _Task:
    """A model that is about to be followed: what its arguments are for.

    With ``inputs`` whatever else the model takes are states, also of cells that are written out, or lengths.
    """

    def __init__(self, record: Record, outputs: list[int] | None, inputs: list[str] | None):
        self.record = record
        self.outputs = outputs
        states, lengths = record.roles()
        self.given = inputs is not None
        self.states, self.lengths = set(states) - set(inputs or ()), set(lengths) - set(inputs or ())
        names = [argument.name for argument in record.arguments]
        self.written = {n for n in names if inputs is not None and n not in inputs} - self.states - self.lengths
        self.states |= self.written
        self.inputs = [a for a in record.arguments if a.name not in self.states | self.lengths]
        integers = [a for a in self.record.arguments if a.name in self.written and not a.floats]
        if self.given and integers:
            raise ExportError(f"input {integers[0]} is not named in axes, and tokens are no state")
        if not self.inputs:
            raise ExportError("the model has no input beside states and lengths")
        if len(lengths) > 1:
            raise ExportError(f"the lengths of the sequences are several inputs: {', '.join(lengths)}")
        self.tokens = {argument.name for argument in self.inputs if record.are_tokens(argument)}
        self.names = dict(zip(self._open_sizes(), traced.PRIMES[::-1]))

    def _open_sizes(self) -> list[str]:
        return list(dict.fromkeys(n for a in self.record.arguments for n in a.shape if isinstance(n, str)))

    def _example(self, argument: Argument) -> list[int]:
        return [self.names[n] if isinstance(n, str) else n for n in argument.shape]

    def readings(self, axes: str | None) -> Iterator[dict[str, str]]:
        """What the axes of all inputs may mean, the likely meanings first; ``axes`` are those of the first input.

        Raises
        ------
        ExportError
            If an input cannot be one.
        """
        first, *others = self.inputs
        found, errors = 0, []
        for layout in [axes] if axes is not None else self._possible(first):
            choices = [beside(layout, first.shape, self._possible(other), other.shape) for other in others]
            errors += [self._misfit(layout, other) for other, fitting in zip(others, choices) if not fitting]
            for chosen in itertools.islice(itertools.product(*choices), _MOST_READINGS):
                reading = dict(zip((a.name for a in self.inputs), (layout, *chosen)))
                if others and not self._can_be(reading):
                    errors.append(self._misfit(layout, others[0]))
                else:
                    found += 1
                    yield reading
        if errors and not found:
            raise errors[0]

    def _can_be(self, reading: dict[str, str]) -> bool:
        """Whether arguments are inputs for certain: of one step, where there are states of GRU nodes beside them."""
        if not any("T" in layout for layout in reading.values()):
            return bool(self.states)
        return certain([(layout, name not in self.tokens) for name, layout in reading.items()])

    def _misfit(self, layout: str, other: Argument) -> ExportError:
        """Why an argument is no input beside the first one."""
        first, rank, least = self.inputs[0], len(other.shape), sum(letter in "BT" for letter in layout)
        both = f"the model has the inputs {first} and {other}"
        vector = rank == least and other.name not in self.tokens and isinstance(other.shape[-1], int)
        if "T" in layout and (rank < least or vector):
            return without_time(f"{both}; {other.name!r}")
        if "T" in layout and len(layout) > 2:
            return ExportError(f"{both}, which do not have the same batch and time axes")
        return ExportError(
            f"the model takes one time step, and {', '.join(map(str, self.inputs))}; beside its inputs a network has only "
            "states that GRU nodes take as initial_h or that GRU cells written out in elementary operators carry (axes= for each "
            "input says which they are)"
        )

    def _possible(self, argument: Argument) -> list[str]:
        """What the axes of an input may mean, as far as sizes that are open or 1 allow."""
        possible = layouts(self._example(argument), argument.name not in self.tokens, bool(self.states))
        if self.written:
            possible = [layout for layout in possible if "T" not in layout]
        if any(node.op_type == "GRU" for node in self.record.nodes):
            # A batch of open size may be one row after all, where states inside have that size. Which axis it is, GRUs tell.
            possible += [layout.replace("B", "1") for layout in possible]
        kept = []
        for layout in dict.fromkeys(possible):
            pairs = list(zip(layout, argument.shape))
            if any(letter in "BT" and size == 1 for letter, size in pairs):
                continue  # an axis of size 1 is none
            if any(letter == "1" and isinstance(size, int) and size != 1 for letter, size in pairs):
                continue
            if any(letter == "F" and isinstance(size, str) for letter, size in pairs):
                continue
            kept.append(layout)
        if not kept:
            raise ExportError(
                f"the axes of the input {argument} are not understood: expected batch, time and features, the features' number "
                "fixed"
            )
        return kept

    def _fixed(self, reading: dict[str, str]) -> dict[str, int]:
        """Of batch and time the sizes that are numbers in the model."""
        fixed: dict[str, int] = {}
        for argument in self.inputs:
            for letter, size in zip(reading[argument.name], argument.shape):
                if letter in "BT" and isinstance(size, int) and fixed.setdefault(letter, size) != size:
                    raise ExportError(
                        f"the inputs {', '.join(map(str, self.inputs))} do not have the same batch and time axes"
                    )
        return fixed

    def _dims(self, layout: str, argument: Argument) -> list[Dim]:
        dims = input_dims(layout, self._example(argument))
        if any(letter == "F" and isinstance(size, str) for letter, size in zip(layout, argument.shape)):
            raise ExportError(f"the input {argument} has an open number of features")
        return dims

    def _state_dims(self, layout: str, argument: Argument) -> list[Dim]:
        """Axes of an initial state: an open size is the batch's."""
        first = self.inputs[0].shape
        batch = first[layout.index("B")] if "B" in layout else None
        size = 1 if batch is None else self.names[batch] if isinstance(batch, str) else batch
        shape = [size if isinstance(n, str) else n for n in argument.shape]
        return state_dims(shape, None if batch is None else size)

    def trace_as(self, reading: dict[str, str], generic: bool = False, elementary: bool = False) -> Traced:
        """Follow the model with one meaning of the inputs' axes.

        With ``generic`` states may be others than those of GRUs; ``elementary`` as of ``Context``.
        """
        layout, fixed = reading[self.inputs[0].name], self._fixed(reading)
        sizes = {**example_sizes(self.record.numbers(), [c for c in layout if c in "BT"]), **fixed}
        sizes["R"] = sizes["T"]
        graph = Graph()
        places: dict[str, Any] = {}
        for argument in self.inputs:
            kind = "tokens" if argument.name in self.tokens else "input"
            places[argument.name] = graph.source(kind, self._dims(reading[argument.name], argument), argument.name)
        for argument in self.record.arguments:
            if argument.name in self.states:
                title = f"input {argument.name!r}, of shape {list(argument.shape)},"
                places[argument.name] = graph.source("state", self._state_dims(layout, argument), title)
                if argument.name in self.written:
                    graph.nodes[-1].options.update(open=True, argument=graph.nodes[-1].ids.tolist())
            elif argument.name in self.lengths:
                places[argument.name] = LENGTHS
        written = [place for n, place in places.items() if n in self.written]
        returned, context = self.record.follow(graph, places, sizes, written, elementary)
        try:
            _check_lengths(context)
            names = [output.name for output in self.record.model.graph.output]
            labels = [f"output {name!r}" for name in names]
            chooser = Outputs(graph, list(places.values()), returned, "the model", labels)
            if not self.given and "T" not in layout:
                doubtful = [a for a in self.inputs if a.name not in self.tokens]
                for argument in doubtful if len(self.inputs) > 1 else ():
                    chooser.check_no_state(places[argument.name], f"input {argument}")
            try:
                network, fields = chooser.lowered(names, self.outputs, generic)
            except ExportError:
                raise
            except ValueError as error:  # of Network, about weights that are not finite
                raise ExportError(f"the model has no network: {error}") from error
            result = Traced(network, **fields, record=self.record, arguments=list(places), fixed=fixed)
            result.check()
            return result
        except ExportError as error:
            error.progress = math.inf  # the whole model was followed
            raise


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
        kinds = {"input": "x", "tokens": "x", "state": "state"}
        found = ["lengths" if node is None else kinds[node.operation] for node in self.sources]
        return dict(zip(self.arguments, found))

    def notes(self) -> list[str]:
        """What was understood, in lines for people."""
        texts = {
            "x": "input",
            "unread": "input, which no output depends on: left out",
            "state": "initial state: state= when the model runs",
            "lengths": "lengths= when the model runs",
        }
        lines = []
        for (name, kind), place in zip(self.inputs().items(), self.places):
            kind = "unread" if name in self.unread() else kind
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

    def run(self, x: Inputs, state: Array | None = None, lengths: Array | None = None) -> tuple[Array, Array]:
        """Run the model on what the network takes, and lay its results out as the network's (see the base class)."""
        given = by_name(self.network, x)
        rows, steps = next(iter(given.values())).shape[:2]
        if steps != self.fixed.get("T", steps):
            raise ExportError(f"the model takes sequences of {self.fixed['T']} steps, got {steps}")
        # A fixed number of rows is filled up with the last one.
        filled = np.minimum(np.arange(rows + -rows % self.fixed.get("B", 1)), rows - 1)
        some = [None if a is None else a[filled] for a in (state, lengths)]
        y, after = super().run(common.cut(given, filled), *some)
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
        first = next(a for a, place in zip(arguments, self.places) if place is self.main)
        feed = {}
        for name, place, argument in zip(self.arguments, self.places, arguments):
            if place is LENGTHS:
                argument = self._lengths(lengths, first.shape)
            feed[name] = argument
        return runner(feed)

    def _lengths(self, lengths: Array | None, shape: tuple[int, ...]) -> Array:
        sizes = {f: n for dim, n in zip(self.main.dims, shape) for f in dim}
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
        timed = traced.has_time(self.main)
        lengths = 1 + np.arange(batch) * 7 % steps if self.takes_lengths and timed else None
        return self.compare(batch, steps, THRESHOLD_FLOAT64, "model", lengths)
