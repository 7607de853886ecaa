# SPDX-License-Identifier: Apache-2.0
"""ATen operations that compute feature by feature: arithmetic and activation functions (see ``gru_engine.export.torch_ops``).

Whatever is no activation of the engine by itself is made of them where that is exact: SELU is a scaled ELU, GLU a product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gru_engine.activations import ActivationLike
from gru_engine.export.common import ExportError
from gru_engine.export.graph import AxisError, Tensor, axis_text, is_features
from gru_engine.export.torch_ops import (
    HANDLERS,
    Arguments,
    Context,
    affine,
    axis_of,
    constant,
    handles,
    parts,
    to_numpy,
)

# ---- arithmetic


@handles("add", "add_")
def _add(c: Context, a: Arguments) -> Any:
    x, y = a.self, a.other
    alpha = getattr(a, "alpha", 1)
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return c.graph.add(x, y if alpha == 1 else c.graph.affine(y, alpha, 0.0))
    if isinstance(x, Tensor):
        total = affine(c, x, 1.0, y * alpha)
        if not isinstance(y, torch.Tensor) and y * alpha == 1 and x.ids.tobytes() in c.absolute:
            c.one_more[total.ids.tobytes()] = c.absolute[x.ids.tobytes()]
        return total
    return affine(c, affine(c, y, alpha, 0.0), 1.0, x)


@handles("sub")
def _sub(c: Context, a: Arguments) -> Any:
    return _add(c, Arguments(self=a.self, other=a.other, alpha=-getattr(a, "alpha", 1)))


@handles("rsub")
def _rsub(c: Context, a: Arguments) -> Any:
    return _add(c, Arguments(self=a.other, other=a.self, alpha=-getattr(a, "alpha", 1)))


@handles("mul")
def _mul(c: Context, a: Arguments) -> Any:
    if isinstance(a.self, Tensor) and isinstance(a.other, Tensor):
        return c.graph.multiply(a.self, a.other)
    return affine(c, a.self, a.other, 0.0) if isinstance(a.self, Tensor) else affine(c, a.other, a.self, 0.0)


@handles("div", "true_divide")
def _div(c: Context, a: Arguments) -> Any:
    if getattr(a, "rounding_mode", None) is not None:
        raise ExportError("division with rounding is not supported")
    if isinstance(a.other, Tensor):
        source = c.one_more.get(a.other.ids.tobytes())
        if source is not None and isinstance(a.self, Tensor) and np.array_equal(source.ids, a.self.ids):
            return c.graph.activation(source, "softsign")  # torch writes it as x / (|x| + 1)
        raise ExportError("a division by a value that depends on the input is not supported")
    other = a.other.double() if isinstance(a.other, torch.Tensor) else a.other
    return affine(c, a.self, 1 / other, 0.0)


@handles("neg")
def _neg(c: Context, a: Arguments) -> Any:
    return c.graph.affine(a.self, -1.0, 0.0)


@handles("abs")
def _abs(c: Context, a: Arguments) -> Any:
    negative = c.graph.activation(c.graph.affine(a.self, -1.0, 0.0), "relu")
    absolute = c.graph.add(c.graph.activation(a.self, "relu"), negative)  # one of them is zero, so exactly
    c.absolute[absolute.ids.tobytes()] = a.self
    return absolute


@handles("square")
def _square(c: Context, a: Arguments) -> Any:
    return c.graph.multiply(a.self, a.self)


@handles("pow")
def _pow(c: Context, a: Arguments) -> Any:
    if not isinstance(a.self, Tensor) or isinstance(a.exponent, (Tensor, torch.Tensor)) or a.exponent not in (1, 2, 3):
        raise ExportError("only the powers 1, 2 and 3 are supported")
    power = a.self
    for _ in range(int(a.exponent) - 1):
        power = c.graph.multiply(power, a.self)
    return power


def _sum_over(c: Context, a: Arguments) -> tuple[Tensor, int]:
    """The sum over the given axes of features, and the number of terms."""
    t, terms = a.self, 1
    dims = getattr(a, "dim", None)
    for dim in sorted({axis_of(t, d) for d in (range(t.rank) if dims is None else dims)}, reverse=True):
        if not is_features(t.dims[dim]):
            raise ExportError(f"a sum or mean over the {axis_text(t.dims[dim])} axis is not supported (of the time, only the "
                              "last and the first step can be taken)")  # fmt: skip
        terms *= t.shape(c.sizes)[dim]
        t = c.graph.sum(t, dim)
        t = t.unsqueeze(dim) if getattr(a, "keepdim", False) else t
    return t, terms


@handles("sum")
def _sum(c: Context, a: Arguments) -> Any:
    return _sum_over(c, a)[0]


@handles("mean")
def _mean(c: Context, a: Arguments) -> Any:
    t, terms = _sum_over(c, a)
    return c.graph.affine(t, 1 / terms, 0.0)


# ---- activations


def _activation(name: str, spec: Callable[[Arguments], ActivationLike]) -> None:
    HANDLERS[name] = lambda c, a: c.graph.activation(a.self, spec(a))


for _name in ("sigmoid", "tanh", "relu", "softsign", "silu"):
    _activation(_name, lambda a, name=_name: name)  # type: ignore[misc]
_activation("hardsigmoid", lambda a: ("hard_sigmoid", 1 / 6, 0.5))
_activation("leaky_relu", lambda a: ("leaky_relu", float(a.negative_slope)))


@handles("elu")
def _elu(c: Context, a: Arguments) -> Any:
    # scale * elu(alpha)(input_scale * x) below zero, scale * x above; SELU and CELU come as this too
    if a.input_scale != 1:
        raise ExportError(f"elu with input_scale={a.input_scale} is not supported")
    t = c.graph.activation(a.self, ("elu", float(a.alpha)))
    return t if a.scale == 1 else c.graph.affine(t, float(a.scale), 0.0)


@handles("selu")
def _selu(c: Context, a: Arguments) -> Any:
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946  # of torch.nn.SELU
    return c.graph.affine(c.graph.activation(a.self, ("elu", alpha)), scale, 0.0)


@handles("celu")
def _celu(c: Context, a: Arguments) -> Any:
    alpha = float(a.alpha)
    return c.graph.affine(c.graph.activation(c.graph.affine(a.self, 1 / alpha, 0.0), "elu"), alpha, 0.0)


@handles("softplus")
def _softplus(c: Context, a: Arguments) -> Any:
    beta, threshold = float(a.beta), float(a.threshold)
    # Above the threshold torch returns the argument itself; where float32 sees that, the two functions differ.
    if not (beta > 0 and math.log1p(math.exp(-min(threshold, 700.0))) <= 2**-24 * threshold):
        raise ExportError(
            f"softplus with beta={beta:g}, threshold={threshold:g} is no softplus in float32 (default: 1, 20)"
        )
    t = c.graph.activation(a.self if beta == 1 else c.graph.affine(a.self, beta, 0.0), "softplus")
    return t if beta == 1 else c.graph.affine(t, 1 / beta, 0.0)


@handles("log_sigmoid")
def _log_sigmoid(c: Context, a: Arguments) -> Any:
    return c.graph.affine(c.graph.activation(c.graph.affine(a.self, -1.0, 0.0), "softplus"), -1.0, 0.0)


@handles("mish")
def _mish(c: Context, a: Arguments) -> Any:
    return c.graph.multiply(a.self, c.graph.activation(c.graph.activation(a.self, "softplus"), "tanh"))


@handles("hardswish")
def _hardswish(c: Context, a: Arguments) -> Any:
    return c.graph.multiply(a.self, c.graph.activation(a.self, ("hard_sigmoid", 1 / 6, 0.5)))


def _limited(c: Context, t: Tensor, low: float | None, high: float | None) -> Tensor:
    """The values limited to an interval: a hard sigmoid of its width, or a ReLU."""
    if low is not None and high is not None:
        if not high > low:
            raise ExportError(f"values are limited to the empty interval {low:g} to {high:g}")
        width = high - low
        limited = c.graph.activation(t, ("hard_sigmoid", 1 / width, -low / width))
        return c.graph.affine(limited, width, low)
    if low is not None:
        return c.graph.activation(t, "relu") if low == 0 else _shifted_relu(c, t, 1.0, low)
    return t if high is None else _shifted_relu(c, t, -1.0, high)


def _shifted_relu(c: Context, t: Tensor, sign: float, bound: float) -> Tensor:
    relu = c.graph.activation(c.graph.affine(t, sign, -sign * bound), "relu")
    return c.graph.affine(relu, sign, bound)


@handles("clamp", "clip")
def _clamp(c: Context, a: Arguments) -> Any:
    if any(isinstance(bound, (Tensor, torch.Tensor)) for bound in (a.min, a.max)):
        raise ExportError("limits that are tensors are not supported")
    return _limited(c, a.self, a.min, a.max)


HANDLERS["clamp_min"] = lambda c, a: _limited(c, a.self, a.min, None)
HANDLERS["clamp_max"] = lambda c, a: _limited(c, a.self, None, a.max)
HANDLERS["hardtanh"] = lambda c, a: _limited(c, a.self, a.min_val, a.max_val)
HANDLERS["relu6"] = lambda c, a: _limited(c, a.self, 0.0, 6.0)


@handles("threshold")
def _threshold(c: Context, a: Arguments) -> Any:
    if a.value != 0:
        raise ExportError(f"threshold with value={a.value:g} is not supported, only 0")
    return c.graph.activation(a.self, ("thresholded_relu", float(a.threshold)))


@handles("prelu", "_prelu_kernel")
def _prelu(c: Context, a: Arguments) -> Any:
    weight = to_numpy(constant(a.weight, "the slope of prelu")).reshape(-1)
    if weight.size == 1:
        return c.graph.activation(a.self, ("leaky_relu", float(weight[0])))
    dim = min(1, a.self.rank - 1)  # torch's channel axis
    if a.self.dims[dim] != (weight.size,):
        raise AxisError(f"prelu has {weight.size} slopes for the {axis_text(a.self.dims[dim])} axis of {a.self}")
    slopes = torch.from_numpy(weight.reshape([-1 if i == dim else 1 for i in range(a.self.rank)]))
    negative = c.graph.activation(c.graph.affine(a.self, -1.0, 0.0), "relu")
    return c.graph.add(c.graph.activation(a.self, "relu"), affine(c, negative, -slopes, 0.0))


@handles("rrelu")
def _rrelu(c: Context, a: Arguments) -> Any:
    if a.training:
        raise ExportError("rrelu is random although the module is in eval mode")
    return c.graph.activation(a.self, ("leaky_relu", (a.lower + a.upper) / 2))


@handles("glu")
def _glu(c: Context, a: Arguments) -> Any:
    dim = axis_of(a.self, a.dim)
    half = a.self.shape(c.sizes)[dim] // 2
    value, gate = parts(c, a.self, [half, half], dim)
    return c.graph.multiply(value, c.graph.activation(gate, "sigmoid"))


@handles("softmax", "_softmax")
def _softmax(c: Context, a: Arguments) -> Any:
    return c.graph.softmax(a.self, axis_of(a.self, a.dim), log=False)


@handles("log_softmax", "_log_softmax")
def _log_softmax(c: Context, a: Arguments) -> Any:
    return c.graph.softmax(a.self, axis_of(a.self, a.dim), log=True)
