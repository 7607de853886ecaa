# SPDX-License-Identifier: Apache-2.0
"""The layers that a network is made of: one small immutable record per operation.

A layer reads the values of earlier layers (``inputs``, by number) and has one value: ``width`` floats per time step, or
per sequence. ``Network`` builds and checks layers, ``reference`` says what they compute, ``format`` writes them to a
file.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.activations import Activation

Array = npt.NDArray[Any]

RESETS = ("after", "before", "all", "none")
"""Where the reset gate of a GRU acts, in the order of their codes in a file."""


@dataclass(frozen=True, eq=False)
class Layer:
    """What all layers have."""

    inputs: tuple[int, ...]
    width: int
    name: str
    per_sequence: bool  # one value per sequence instead of one per time step

    @property
    def operation(self) -> str:
        """The layer's kind in lower case, for instance ``"gru"``."""
        return type(self).__name__.lower()

    @property
    def arrays(self) -> dict[str, Array]:
        """The layer's weights by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


@dataclass(frozen=True, eq=False)
class Input(Layer):
    """The input vector of a step."""


@dataclass(frozen=True, eq=False)
class Tokens(Layer):
    """The input token of a step: one integer, 0 <= token < width."""


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

    @property
    def gates(self) -> str:
        """The gates in the order of the rows of W and U."""
        return "zn" if self.reset == "none" else "rzn"


@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """The inputs one after the other."""


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """``a + b``."""


@dataclass(frozen=True, eq=False)
class Multiply(Layer):
    """``a * b``, element by element."""


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
