# SPDX-License-Identifier: Apache-2.0
"""ATen operations that compute feature by feature: arithmetic and activation functions (see ``gru_engine.export.torch_ops``).

Whatever is no activation of the engine by itself is made of them where that is exact: SELU is a scaled ELU, GLU a product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from gru_engine.activations import ActivationLike
from gru_engine.export import gelu, norms, operations
from gru_engine.export.common import ExportError
from gru_engine.export.graph import AxisError, Tensor, axis_text
from gru_engine.export.operations import Context, axis_of, limited, parts
from gru_engine.export.torch_ops import HANDLERS, Arguments, affine, beside_array, constant, extremum, handles, to_numpy

# ---- arithmetic


@handles("add", "add_")
def _add(c: Context, a: Arguments) -> Any:
    x, y = a.self, a.other
    alpha = getattr(a, "alpha", 1)
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        if alpha == -1:
            return operations.minus(c, x, y)
        return c.graph.add(x, y if alpha == 1 else c.graph.affine(y, alpha, 0.0))
    if isinstance(x, Tensor):
        return operations.plus(c, x, beside_array(y * alpha))
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
        return operations.product(c, a.self, a.other)
    return affine(c, a.self, a.other, 0.0) if isinstance(a.self, Tensor) else affine(c, a.other, a.self, 0.0)


@handles("addcmul")
def _addcmul(c: Context, a: Arguments) -> Any:
    product = (
        _mul(c, Arguments(self=a.tensor1, other=a.tensor2)) if _any(a.tensor1, a.tensor2) else a.tensor1 * a.tensor2
    )
    return _add(c, Arguments(self=a.self, other=product, alpha=a.value))


@handles("lerp")
def _lerp(c: Context, a: Arguments) -> Any:
    weight = a.weight
    difference = _sub(c, Arguments(self=a.end, other=a.self)) if _any(a.end, a.self) else a.end - a.self
    step = _mul(c, Arguments(self=difference, other=weight)) if _any(difference, weight) else difference * weight
    return _add(c, Arguments(self=a.self, other=step))


def _any(*values: Any) -> bool:
    return any(isinstance(value, Tensor) for value in values)


@handles("div", "true_divide")
def _div(c: Context, a: Arguments) -> Any:
    if getattr(a, "rounding_mode", None) is not None:
        raise ExportError("division with rounding is not supported")
    if isinstance(a.other, Tensor):
        return operations.quotient(c, a.self, a.other)
    other = a.other.double() if isinstance(a.other, torch.Tensor) else a.other
    return affine(c, a.self, 1 / other, 0.0)


@handles("neg")
def _neg(c: Context, a: Arguments) -> Any:
    return c.graph.affine(a.self, -1.0, 0.0)


@handles("abs")
def _abs(c: Context, a: Arguments) -> Any:
    return operations.absolute(c, a.self)


@handles("square")
def _square(c: Context, a: Arguments) -> Any:
    return operations.power(c, a.self, 2)


@handles("pow")
def _pow(c: Context, a: Arguments) -> Any:
    if not isinstance(a.self, Tensor) or isinstance(a.exponent, (Tensor, torch.Tensor)):
        raise ExportError("only the powers 1, 2 and 3 are supported")
    if a.exponent in (0.5, -0.5):
        return norms.root(c.graph, c.written, a.self, inverse=a.exponent < 0)
    return operations.power(c, a.self, a.exponent)


def _axes(a: Arguments) -> Any:
    """The axes that a sum or a mean is over; None stands for all."""
    dim = getattr(a, "dim", None)
    return [dim] if isinstance(dim, int) else dim or None


@handles("sum")
def _sum(c: Context, a: Arguments) -> Any:
    return operations.total(c, a.self, _axes(a), getattr(a, "keepdim", False))[0]


@handles("mean")
def _mean(c: Context, a: Arguments) -> Any:
    return operations.mean(c, a.self, _axes(a), getattr(a, "keepdim", False))


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


HANDLERS["selu"] = lambda c, a: operations.selu(c, a.self)
HANDLERS["celu"] = lambda c, a: operations.celu(c, a.self, float(a.alpha))


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


@handles("gelu")
def _gelu(c: Context, a: Arguments) -> Any:
    form = getattr(a, "approximate", "none")
    if form not in ("none", "tanh"):
        raise ExportError(f"the approximation {form!r} is not known; known are none, tanh")
    return c.graph.activation(a.self, "gelu" if form == "none" else "gelu_tanh")


@handles("erf", "special_erf")
def _erf(c: Context, a: Arguments) -> Any:
    return gelu.error_function(c.graph, a.self)


@handles("maximum")
def _maximum(c: Context, a: Arguments) -> Any:
    return extremum(c, a, True)


@handles("minimum")
def _minimum(c: Context, a: Arguments) -> Any:
    return extremum(c, a, False)


HANDLERS["mish"] = lambda c, a: operations.mish(c, a.self)
HANDLERS["hardswish"] = lambda c, a: operations.hardswish(c, a.self)


@handles("clamp", "clip")
def _clamp(c: Context, a: Arguments) -> Any:
    if any(isinstance(bound, (Tensor, torch.Tensor)) for bound in (a.min, a.max)):
        raise ExportError("limits that are tensors are not supported")
    return limited(c, a.self, a.min, a.max)


HANDLERS["clamp_min"] = lambda c, a: limited(c, a.self, a.min, None)
HANDLERS["clamp_max"] = lambda c, a: limited(c, a.self, None, a.max)
HANDLERS["hardtanh"] = lambda c, a: limited(c, a.self, a.min_val, a.max_val)
HANDLERS["relu6"] = lambda c, a: limited(c, a.self, 0.0, 6.0)


@handles("threshold")
def _threshold(c: Context, a: Arguments) -> Any:
    if a.value != 0:
        raise ExportError(f"threshold with value={a.value:g} is not supported, only 0")
    return c.graph.activation(a.self, ("thresholded_relu", float(a.threshold)))


@handles("prelu", "_prelu_kernel")
def _prelu(c: Context, a: Arguments) -> Any:
    weight = to_numpy(constant(a.weight, "the slope of prelu")).reshape(-1)
    if weight.size == 1:
        return operations.prelu(c, a.self, weight)
    dim = min(1, a.self.rank - 1)  # torch's channel axis
    if a.self.dims[dim] != (weight.size,):
        raise AxisError(f"prelu has {weight.size} slopes for the {axis_text(a.self.dims[dim])} axis of {a.self}")
    return operations.prelu(c, a.self, weight.reshape([-1 if i == dim else 1 for i in range(a.self.rank)]))


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
    return operations.softmax(c, a.self, axis_of(a.self, a.dim), log=False)


@handles("log_softmax", "_log_softmax")
def _log_softmax(c: Context, a: Arguments) -> Any:
    return operations.softmax(c, a.self, axis_of(a.self, a.dim), log=True)
