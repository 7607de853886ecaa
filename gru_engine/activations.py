# SPDX-License-Identifier: Apache-2.0
"""The one table of activation functions: names, codes in a ``.gru`` file, default parameters and definitions.

Names, parameters and defaults are those of the ONNX operators (https://onnx.ai/onnx/operators/onnx__GRU.html), in
snake case, where there is one. The functions here are the definitions, written for float64; what the engine computes
in float32 is within a few ulp of them (docs/NUMERICS.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def _sigmoid(a: Array) -> Array:
    e = np.exp(-np.abs(a))  # never overflows
    return np.asarray(np.where(a < 0, e, 1) / (1 + e))


def _elu(a: Array, alpha: float) -> Array:
    return np.where(a >= 0, a, alpha * np.expm1(np.minimum(a, 0)))


def _exp(a: Array) -> Array:
    with np.errstate(over="ignore"):  # infinity is a result like others
        return np.asarray(np.exp(a))


_erfc = np.vectorize(math.erfc, otypes=[np.float64])  # NumPy has none; of zero elements too


def _gelu(a: Array) -> Array:
    # With erfc the left tail keeps its relative accuracy; below -40 it is 0 in float64, and -infinity * 0 is NaN.
    result = 0.5 * np.maximum(a, -40) * _erfc(a / -math.sqrt(2))
    return np.asarray(result, a.dtype if a.dtype.kind == "f" else None)


def _gelu_tanh(a: Array) -> Array:
    """0.5 a (1 + tanh(y)) with y = sqrt(2 / pi) (a + 0.044715 a^3): in other words a * sigmoid(2 y)."""
    x = np.maximum(a, -40)  # where it is 0 in float64
    with np.errstate(over="ignore"):
        return np.asarray(x * _sigmoid(math.sqrt(8 / math.pi) * x * (1 + 0.044715 * x * x)))


def _softmax(a: Array) -> Array:
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def _log_softmax(a: Array) -> Array:
    shifted = a - a.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


@dataclass(frozen=True)
class _Definition:
    code: int  # docs/FORMAT.md, src_c/opcodes.h
    defaults: tuple[float, ...]  # of alpha, beta: as many as the function has
    function: Callable[..., Array]


_DEFINITIONS = {
    "linear": _Definition(0, (), lambda a: a),
    "sigmoid": _Definition(1, (), _sigmoid),
    "tanh": _Definition(2, (), np.tanh),
    "relu": _Definition(3, (), lambda a: np.maximum(a, 0)),
    "affine": _Definition(4, (1.0, 0.0), lambda a, alpha, beta: alpha * a + beta),
    "leaky_relu": _Definition(5, (0.01,), lambda a, alpha: np.where(a >= 0, a, alpha * a)),
    "thresholded_relu": _Definition(6, (1.0,), lambda a, alpha: np.where(a <= alpha, 0, a)),
    "scaled_tanh": _Definition(7, (1.0, 1.0), lambda a, alpha, beta: alpha * np.tanh(beta * a)),
    "hard_sigmoid": _Definition(8, (0.2, 0.5), lambda a, alpha, beta: np.maximum(0, np.minimum(1, alpha * a + beta))),
    "elu": _Definition(9, (1.0,), _elu),
    "softsign": _Definition(10, (), lambda a: a / (1 + np.abs(a))),
    "softplus": _Definition(11, (), lambda a: np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))),
    "silu": _Definition(12, (), lambda a: a * _sigmoid(a)),
    "clip": _Definition(13, (-1.0, 1.0), lambda a, alpha, beta: np.maximum(alpha, np.minimum(beta, a))),
    "exp": _Definition(14, (), _exp),
    "min_gru": _Definition(15, (), lambda a: np.where(a >= 0, a + 0.5, _sigmoid(a))),
    "gelu": _Definition(16, (), _gelu),
    "gelu_tanh": _Definition(17, (), _gelu_tanh),
    "softmax": _Definition(64, (), _softmax),
    "log_softmax": _Definition(65, (), _log_softmax),
}

NAMES: dict[int, str] = {definition.code: name for name, definition in _DEFINITIONS.items()}
"""The name for each code."""


@dataclass(frozen=True)
class Activation:
    """An activation function with its parameters; call it with an array of any shape ``[..., width]``.

    ``parameters`` are alpha and beta, as many of them as the function has.
    """

    name: str
    parameters: tuple[float, ...] = ()

    def __call__(self, a: Array) -> Array:
        """The function of an array of any shape [..., width]."""
        return _DEFINITIONS[self.name].function(a, *self.parameters)

    def __str__(self) -> str:
        return self.name + (f"({', '.join(f'{p:g}' for p in self.parameters)})" if self.parameters else "")

    @property
    def code(self) -> int:
        """The number that stands for it in a file."""
        return _DEFINITIONS[self.name].code

    @property
    def elementwise(self) -> bool:
        """Whether each output depends on one input only (all but softmax and log_softmax)."""
        return self.code < 64

    @property
    def complementary(self) -> bool:
        """Whether f(-a) = 1 - f(a), so that a reversed gate is the same gate with negated weights."""
        return self.name == "sigmoid" or (self.name in ("hard_sigmoid", "affine") and self.parameters[1] == 0.5)


ActivationLike = str | tuple[str | float, ...] | Activation
"""What describes an activation: see ``activation``."""


def number_of_parameters(name: str) -> int:
    """How many of alpha, beta the activation ``name`` uses: 0, 1 or 2."""
    return len(_DEFINITIONS[name].defaults)


def activation(spec: ActivationLike, argument: str = "activation") -> Activation:
    """The activation that ``spec`` describes: a name, or ``(name, alpha)``, ``(name, alpha, beta)``.

    Parameters that are not given have the ONNX defaults: ``affine`` (1, 0), ``leaky_relu`` 0.01,
    ``thresholded_relu`` 1, ``scaled_tanh`` (1, 1), ``hard_sigmoid`` (0.2, 0.5), ``elu`` 1; ``clip``, which limits to
    the range from alpha to beta, has (-1, 1).

    Parameters
    ----------
    spec : str or tuple
        For instance ``"tanh"`` or ``("hard_sigmoid", 1 / 6, 0.5)``.
    argument : str
        What to call it in an error message.

    Raises
    ------
    TypeError
        If it is neither a name nor a tuple that begins with one, or a parameter is no number.
    ValueError
        If the name is not known, there are too many parameters, one is not a finite float32, or the range of a clip is
        empty.
    """
    if isinstance(spec, Activation):
        return spec
    name, *given = spec if isinstance(spec, (tuple, list)) else (spec,)
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be a name or (name, alpha[, beta]), got {spec!r}")
    if name not in _DEFINITIONS:
        raise ValueError(f"{argument} {name!r} is not known; known are {', '.join(_DEFINITIONS)}")
    defaults = _DEFINITIONS[name].defaults
    if len(given) > len(defaults):
        raise ValueError(f"{argument} {name!r} has {len(defaults)} parameters, got {len(given)}: {spec!r}")
    values = tuple(as_number(value, f"a parameter of {argument} {name!r}") for value in given)
    values += defaults[len(values) :]
    if name == "clip" and not np.float32(values[0]) <= np.float32(values[1]):
        raise ValueError(f"{argument} 'clip' needs alpha <= beta, got {values[0]:g} and {values[1]:g}")
    return Activation(name, values)


def as_number(value: Any, what: str) -> float:
    """A checked scalar parameter, which a file keeps as float32."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{what} must be a number, got {value!r}")
    if not abs(float(value)) <= float(np.finfo(np.float32).max):
        raise ValueError(f"{what} must be a finite float32, got {value!r}")
    return float(value)
