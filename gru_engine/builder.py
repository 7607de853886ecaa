# SPDX-License-Identifier: Apache-2.0
"""Values of a network, and how layers are added to it: what all the methods that do so build on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeGuard

from gru_engine.arguments import MAX_VOCABULARY, MAX_WIDTH, as_name, as_size
from gru_engine.layers import Attention, Axis, Concat, Context, Input, Layer, Repeat, Tokens, is_network_input
from gru_engine.order import units

MAX_CONCAT = 1024  # docs/FORMAT.md

_SEVERAL_AXES = (Repeat, Attention)
"""Layers whose inputs need not have the same number of steps."""


@dataclass(frozen=True)
class Value:
    """The value of a layer: what the methods of ``Network`` take and return.

    ``value[a:b]`` are some of its columns, as of ``Network.slice``.
    """

    network: Builder
    index: int

    @property
    def layer(self) -> Layer:
        """The layer whose value it is."""
        return self.network._layers[self.index]

    @property
    def width(self) -> int:
        """Floats per time step (or per sequence); of tokens the size of the vocabulary."""
        return self.layer.width

    @property
    def kind(self) -> str:
        """``"tokens"`` or ``"vector"``."""
        return "tokens" if isinstance(self.layer, Tokens) else "vector"

    @property
    def per_sequence(self) -> bool:
        """Whether there is one value per sequence instead of one per time step."""
        return self.layer.per_sequence

    @property
    def axis(self) -> Axis:
        """How many steps there are, of one value per time step."""
        return self.layer.axis

    @property
    def name(self) -> str:
        """The name given to the layer, or an empty string."""
        return self.layer.name

    def __getitem__(self, columns: slice) -> Value:
        # Checked, as a value is no sequence: v[0], and with it a loop over v, is a mistake.
        if getattr(columns, "step", 0) not in (None, 1):
            raise TypeError(f"the columns of a value are a slice without a step, such as [3:7], got {columns!r}")
        start, stop, _ = columns.indices(self.width)
        return self.network._columns(self, start, stop, None)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<Value {self.index}: {self.layer.operation}{name}, {self.kind} of {self.width}>"


Vector = Value | Sequence[Value]
"""A value, or several that stand for their concatenation."""


class Builder:
    """The layers of a network in the making."""

    def __init__(self) -> None:
        self._layers: list[Layer] = []
        self._outputs: dict[str, int] = {}
        self._concats: dict[tuple[tuple[int, ...], str], Value] = {}

    def concat(self, values: Sequence[Value], *, name: str | None = None) -> Value:
        """The values one after the other; of one value, the value itself.

        A concatenation of concatenations is made one; the same concatenation of the same values is made once.
        """
        if not _is_list(values) or not values:
            raise TypeError(f"concat needs a list of at least one Value, got {values!r}")
        given = [self._step_vector(value, f"values[{i}]") for i, value in enumerate(values)]
        parts = [part for value in given for part in self._parts(value)]
        if len(parts) == 1:
            return parts[0]
        if len(parts) > MAX_CONCAT:
            raise ValueError(f"concat of {len(parts)} values, expected at most {MAX_CONCAT}")
        key = (tuple(part.index for part in parts), as_name(name))
        if key not in self._concats:
            self._concats[key] = self._append(Concat, parts, sum(part.width for part in parts), name)
        return self._concats[key]

    def _append(self, kind: type[Layer], inputs: list[Value], width: int, name: str | None, **fields: Any) -> Value:
        """Adds a layer: the one place where layers come into being."""
        method = kind.__name__.lower()
        for value in inputs[: 0 if kind in _SEVERAL_AXES else None]:
            self._check_same_rate(method, inputs[0], value)
        fields.setdefault("per_sequence", any(value.per_sequence for value in inputs))
        if (fields["per_sequence"] or kind is Repeat) and inputs:
            fields.setdefault("held", all(value.layer.held for value in inputs[: 1 if kind is Repeat else None]))
        if inputs and not fields["per_sequence"]:
            fields.setdefault("axis", inputs[0].axis)
        indices = tuple(value.index for value in inputs)
        most = MAX_VOCABULARY if kind is Tokens else MAX_WIDTH
        layer = kind(inputs=indices, width=as_size(width, f"{method}: the width", most), name=as_name(name), **fields)
        self._layers.append(layer)
        return Value(self, len(self._layers) - 1)

    def _columns(self, v: Value, start: int, stop: int, name: str | None) -> Value:
        """Columns start to stop of a value: a ``Slice``."""
        raise NotImplementedError

    def _value(self, value: Any, argument: str) -> Value:
        if not isinstance(value, Value):
            raise TypeError(f"{argument} must be a Value of this network or a list of them, got {type(value).__name__}")
        if value.network is not self:
            raise ValueError(f"{argument} is a value of another network: {value!r}")
        return value

    def _step_vector(self, value: Any, argument: str) -> Value:
        if self._value(value, argument).kind == "tokens":
            raise ValueError(f"{argument} must be a vector, got the tokens; only embedding, dense and gru read tokens")
        return self._value(value, argument)

    def _vector(self, v: Vector, argument: str, tokens: bool = False) -> Value:
        """One value, a list being concatenated; the tokens themselves only where allowed."""
        if _is_list(v):
            return self.concat(v)
        return self._value(v, argument) if tokens else self._step_vector(v, argument)

    def _per_step(self, v: Vector, argument: str, method: str) -> Value:
        """One value per time step."""
        value = self._vector(v, argument)
        if value.per_sequence:
            raise ValueError(f"{method}: {argument} is one value per sequence ({value!r}); it needs one per time step")
        return value

    def _initial(self, value: Any, argument: str) -> Value | None:
        """An initial state that is a value, of contexts alone; None if it is an array or nothing."""
        if not isinstance(value, Value) and not (
            _is_list(value) and value and all(isinstance(part, Value) for part in value)
        ):
            return None
        start = self._vector(value, argument)
        if not (start.layer.held and start.per_sequence):
            raise ValueError(
                f"{argument} must be an array or a value that is computed of contexts alone, got {start!r}"
            )
        return start

    @staticmethod
    def _check_initial(argument: str, start: Value, width: int) -> None:
        if start.width != width:
            raise ValueError(f"{argument} must be of width {width}, got {start!r}")

    def _parts(self, value: Value) -> list[Value]:
        return [Value(self, i) for i in value.layer.inputs] if isinstance(value.layer, Concat) else [value]

    @staticmethod
    def _check_same_rate(method: str, a: Value, b: Value) -> None:
        if a.per_sequence != b.per_sequence:
            step, sequence = (b, a) if a.per_sequence else (a, b)
            raise ValueError(f"{method}: {step!r} is one value per time step, but {sequence!r} is one per sequence")
        if not a.per_sequence and a.axis != b.axis:
            raise ValueError(f"{method}: {a!r} has {a.axis}, but {b!r} has {b.axis}")

    def _reached_indices(self) -> list[int]:
        """The inputs and the layers that reach an output, in the order of a file.

        That is: inputs, then contexts; loops as short as they can be.
        """
        given = range(len(self._given_layers()))
        reached = set(given)
        found = list(self._outputs.values())
        while found:
            index = found.pop()
            if index not in reached:
                reached.add(index)
                found += self._layers[index].reads
        first = sorted(given, key=lambda index: isinstance(self._layers[index], Context))
        return first + [i for unit in units(self._layers, reached) for i in unit if i not in given]

    def _given_layers(self) -> list[Layer]:
        """The inputs and the contexts, which are the first layers."""
        return list(takewhile(is_network_input, self._layers))

    def _input_layers(self) -> list[Input | Tokens]:
        """The inputs of every step."""
        return [layer for layer in self._given_layers() if isinstance(layer, (Input, Tokens))]

    def _context_layers(self) -> list[Context]:
        """What is given once per sequence."""
        return [layer for layer in self._given_layers() if isinstance(layer, Context)]

    def _reached(self) -> list[Layer]:
        return [self._layers[i] for i in self._reached_indices()]


def _is_list(values: object) -> TypeGuard[Sequence[Value]]:
    return isinstance(values, (list, tuple))
