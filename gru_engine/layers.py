# SPDX-License-Identifier: Apache-2.0
"""The layers that a network is made of: one small immutable record per operation.

A layer reads the values of earlier layers (``inputs``, by number) and has one value: ``width`` floats per time step, or
per sequence. ``Network`` builds and checks layers, ``reference`` says what they compute, ``format`` writes them to a
file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.activations import Activation

Array = npt.NDArray[Any]

NOT_FED = -1
"""The source of a ``State`` that has none yet."""

RESETS = ("after", "before", "all", "none")
"""Where the reset gate of a GRU acts, in the order of their codes in a file."""


@dataclass(frozen=True)
class Axis:
    """A time axis: how many steps there are where a sequence has T.

    ``ceil((T - lost) / stride)``, and none if that is negative; or always ``steps``, if that is given.
    """

    lost: int = 0
    stride: int = 1
    steps: int | None = None

    def count(self, steps: Any) -> Any:
        """Steps of a sequence of ``steps``, or of each of an array of such numbers."""
        if self.steps is not None:
            return np.full_like(steps, self.steps) if isinstance(steps, np.ndarray) else self.steps
        count = -((self.lost - steps) // self.stride)
        return np.maximum(count, 0) if isinstance(steps, np.ndarray) else max(count, 0)

    def subsampled(self, lost: int, stride: int) -> Axis:
        """The axis of every ``stride``-th of its steps, without ``lost`` of them."""
        if self.steps is not None:
            return Axis(steps=Axis(lost, stride).count(self.steps))
        return Axis(self.lost + self.stride * lost, self.stride * stride)

    @property
    def least(self) -> int:
        """Steps that a sequence has at least if there is one on this axis."""
        return self.lost + 1 if self.steps is None else 0

    def __str__(self) -> str:
        if self.steps is not None:
            return f"{self.steps} steps"
        steps = f"T - {self.lost}" if self.lost else "T"
        return f"{steps} steps" if self.stride == 1 else f"ceil(({steps}) / {self.stride}) steps"


INPUT_AXIS = Axis()
"""That of the network's inputs: T steps."""


@dataclass(frozen=True, eq=False)
class Layer:
    """What all layers have."""

    inputs: tuple[int, ...]
    width: int
    name: str
    per_sequence: bool  # one value per sequence instead of one per time step
    axis: Axis = field(default=INPUT_AXIS, kw_only=True)  # of one value per time step
    held: bool = field(
        default=False, kw_only=True
    )  # one value per sequence, or repeated, that is computed of contexts alone

    @property
    def operation(self) -> str:
        """The layer's kind in lower case, for instance ``"gru"``."""
        return type(self).__name__.lower()

    @property
    def arrays(self) -> dict[str, Array]:
        """The layer's weights by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    @property
    def initial_state(self) -> Array:
        """The layer's part of a stream's state at the start of a sequence: [n], n = 0 for most layers."""
        return np.zeros(0)

    @property
    def reads(self) -> tuple[int, ...]:
        """The layers it depends on: its inputs and, of a ``State``, its source."""
        return self.inputs

    def renumbered(self, number: Mapping[int, int]) -> Layer:
        """The layer in a network whose layers have other numbers."""
        return replace(self, inputs=tuple(number[i] for i in self.inputs))


@dataclass(frozen=True, eq=False)
class Input(Layer):
    """An input vector: some columns of the vector of a step, ``width`` of them."""

    first: int = 0  # of the columns: the inputs stand side by side


@dataclass(frozen=True, eq=False)
class Tokens(Layer):
    """An input token: one integer per step, 0 <= token < width."""

    first: int = 0  # its place among the tokens of a step


@dataclass(frozen=True, eq=False)
class Context(Layer):
    """An input that is given once per sequence: some columns of the context vector, ``width`` of them."""

    first: int = 0  # of the columns: the contexts stand side by side


@dataclass(frozen=True, eq=False)
class Embedding(Layer):
    """Row of the token: ``E[token]``."""

    E: Array  # [vocabulary, width]


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """``activation(W x + b)``; where the input is a token, x is its one-hot vector and b is zero."""

    W: Array  # [width, I]
    b: Array  # [width]
    activation: Activation


@dataclass(frozen=True, eq=False)
class Gru(Layer):
    """A GRU in canonical form: gates r, z, n (z, n without reset), z keeps the old state.

    G is the number of gates, H the width. Where the input is a token, x is its one-hot vector and b_x is zero.
    """

    W: Array  # [G*H, I]
    U: Array  # [G*H, H]
    b_x: Array  # [G*H]
    b_h: Array  # [G*H]
    h0: Array  # [H], the hidden state at the start of a sequence
    reset: str  # one of RESETS
    activation: Activation  # of the candidate n
    gate_activation: Activation  # of r and z
    clip: float | None  # sums are limited to +-clip before an activation
    reverse: bool  # from the end of the sequence to its start
    start: int = NOT_FED  # number of the layer, of contexts alone, whose value stands for h0; NOT_FED: none

    @property
    def reads(self) -> tuple[int, ...]:
        """The input and, if there is one, what it starts from."""
        return self.inputs if self.start == NOT_FED else (*self.inputs, self.start)

    def renumbered(self, number: Mapping[int, int]) -> Layer:
        """The layer in a network whose layers have other numbers."""
        start = self.start if self.start == NOT_FED else number[self.start]
        return replace(self, inputs=tuple(number[i] for i in self.inputs), start=start)

    @property
    def gates(self) -> str:
        """The gates in the order of the rows of W and U."""
        return "zn" if self.reset == "none" else "rzn"

    @property
    def initial_state(self) -> Array:
        """h0."""
        return self.h0


@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """The inputs one after the other."""


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """``a + b``; b may have the width 1."""


@dataclass(frozen=True, eq=False)
class Multiply(Layer):
    """``a * b``, element by element; b may have the width 1."""


@dataclass(frozen=True, eq=False)
class Maximum(Layer):
    """The larger of ``a`` and ``b``, element by element, NaN if one of them is; b may have the width 1."""


@dataclass(frozen=True, eq=False)
class Affine(Layer):
    """``a * scale + shift``, element by element."""

    scale: Array  # [width]
    shift: Array  # [width]


@dataclass(frozen=True, eq=False)
class Activate(Layer):
    """``activation(a)``."""

    activation: Activation


@dataclass(frozen=True, eq=False)
class Last(Layer):
    """The value at the last step of the sequence."""


@dataclass(frozen=True, eq=False)
class First(Layer):
    """The value at the first step of the sequence."""


@dataclass(frozen=True, eq=False)
class State(Layer):
    """The value that a later layer, the source, had at the step before.

    An input, if there is one, is not read: it says how many steps there are.
    """

    initial: Array  # [width], the value at the start of a sequence
    source: int  # number of the later layer; NOT_FED as long as there is none
    start: int = (
        NOT_FED  # number of the layer, of contexts alone, whose value stands for the initial one; NOT_FED: none
    )

    @property
    def initial_state(self) -> Array:
        """The initial value."""
        return self.initial

    @property
    def reads(self) -> tuple[int, ...]:
        """What has as many steps, if it is said; what it starts from; the source, once there is one."""
        return (*self.inputs, *(index for index in (self.start, self.source) if index != NOT_FED))

    def renumbered(self, number: Mapping[int, int]) -> Layer:
        """The layer in a network whose layers have other numbers."""
        inputs = tuple(number[i] for i in self.inputs)
        start = self.start if self.start == NOT_FED else number[self.start]
        return replace(self, inputs=inputs, source=number[self.source], start=start)


@dataclass(frozen=True, eq=False)
class Blend(Layer):
    """``z * a + (1 - z) * b``, element by element, of the inputs z, a, b."""


@dataclass(frozen=True, eq=False)
class Slice(Layer):
    """Some columns of the input, ``width`` of them."""

    first: int  # of the columns


@dataclass(frozen=True, eq=False)
class Window(Layer):
    """The input at ``taps`` steps, one after the other, the oldest first.

    Tap j is the input at step ``t + (j - (taps - 1)) * dilation + ahead``, zeros where the sequence has no such step.
    """

    taps: int
    dilation: int
    ahead: int  # steps; 0 <= ahead <= (taps - 1) * dilation

    @property
    def history(self) -> int:
        """Steps before the present one that it reads: the state has their inputs, the oldest first."""
        return (self.taps - 1) * self.dilation - self.ahead

    @property
    def initial_state(self) -> Array:
        """Zeros for the steps before the beginning."""
        return np.zeros(self.history * (self.width // self.taps))


@dataclass(frozen=True, eq=False)
class Norm(Layer):
    """Layer or root-mean-square normalisation of each of ``parts`` equal parts, then ``a * scale + shift``."""

    scale: Array  # [width]
    shift: Array  # [width]
    epsilon: float
    rms: bool  # the mean is not subtracted
    parts: int


@dataclass(frozen=True, eq=False)
class Mean(Layer):
    """The mean over the steps of the sequence."""


@dataclass(frozen=True, eq=False)
class Max(Layer):
    """The largest value over the steps of the sequence."""


@dataclass(frozen=True, eq=False)
class Attend(Layer):
    """Means of the second input over the steps, weighted by the softmax over the steps of the first, the scores.

    With scores of width S, score s weighs the s-th of S equal parts of the values.
    """


@dataclass(frozen=True, eq=False)
class Subsample(Layer):
    """Every ``stride``-th step of the input from step ``first`` on, without its last ``dropped`` steps."""

    first: int
    stride: int
    dropped: int


@dataclass(frozen=True, eq=False)
class Repeat(Layer):
    """A value per sequence at each of the steps of an axis: ``steps`` of them, or those of the second input."""

    steps: int  # 0: those of the second input


@dataclass(frozen=True, eq=False)
class Attention(Layer):
    """For each step of the first input, the query, a mean of the third, weighted by the softmax of scores of the second.

    The mean is over the steps of the keys and values, which are on one axis, or over the rows of what is stored per sequence;
    score and softmax are of each of ``heads`` equal parts of all three.
    """

    v: Array  # [width of the query]; additive: score = sum of v * tanh(query + key)
    additive: bool  # else score = scale * (sum of query * key), and v is ones
    scale: float
    heads: int
    causal: bool  # only keys of the query's step and those before
    rows: int  # of keys and values that are one value per sequence, one row behind the other; 0: they are per step
    stored: bool  # these are computed of contexts alone, so that it can be stepped

    @property
    def arrays(self) -> dict[str, Array]:
        """v, where it counts."""
        return {"v": self.v} if self.additive else {}


@dataclass(frozen=True, eq=False)
class Sums(Layer):
    """The sums ``W x + b`` of a value per sequence, with which those of a GRU begin: only ``fold_repeats`` makes them.

    The value is in the layout SUMS of docs/FORMAT.md, [panel][gate][lane].
    """

    W: Array  # [gates*rows, I]
    b: Array  # [gates*rows]
    rows: int  # outputs per gate
    gates: int


def is_network_input(layer: Layer) -> bool:
    """Whether the layer's value is given, with every step or with the sequence."""
    return isinstance(layer, (Input, Tokens, Context))


def sees_ahead(layer: Layer) -> bool:
    """Whether the layer needs later steps, so that it cannot go step by step."""
    if isinstance(layer, Gru):
        return layer.reverse
    if isinstance(layer, Window):
        return layer.ahead > 0
    if isinstance(layer, Repeat):
        return not (layer.held and layer.axis == INPUT_AXIS)
    if isinstance(layer, Attention):
        return not layer.stored
    return isinstance(layer, (First, Mean, Max, Attend, Subsample))


def ends_sequence(layer: Layer) -> bool:
    """Whether the layer makes one value per sequence of the values of its steps."""
    return isinstance(layer, (Last, First, Mean, Max, Attend))


def same_layer(a: Layer, b: Layer) -> bool:
    """Whether two layers compute the same: arrays equal bit for bit, scalar parameters equal as float32.

    The names are not compared.
    """
    return type(a) is type(b) and all(
        _same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a) if field.name != "name"
    )


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, Activation) and isinstance(b, Activation):
        return a.name == b.name and all(map(_same, a.parameters, b.parameters))
    if isinstance(a, float) and isinstance(b, float):
        return np.float32(a).tobytes() == np.float32(b).tobytes()
    return a == b
