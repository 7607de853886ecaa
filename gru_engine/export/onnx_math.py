# SPDX-License-Identifier: Apache-2.0
"""ONNX operators that compute feature by feature: arithmetic and activation functions (see ``gru_engine.export.onnx_ops``).

Whatever is no activation of the engine by itself is made of them where that is exact: SELU is a scaled ELU, HardSwish a product.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gru_engine.export import gelu, norms, operations
from gru_engine.export.common import ExportError
from gru_engine.export.graph import Tensor, is_features
from gru_engine.export.onnx_ops import HANDLERS, Above, Call, Context, axes_of, handles, plain
from gru_engine.export.operations import variable

# ---- arithmetic


def _operands(call: Call) -> list[Any]:
    """The inputs, constants in a type to compute with, and with the alignment of old operator sets."""
    values = [plain(v) if isinstance(v, np.ndarray) else v for v in call.inputs]
    axis = call.attributes.get("axis")
    if call.opset < 7 and call.attributes.get("broadcast") and axis is not None and isinstance(values[1], np.ndarray):
        rank = values[0].rank if isinstance(values[0], Tensor) else values[0].ndim
        missing = rank - axis % rank - values[1].ndim
        values[1] = values[1].reshape(values[1].shape + (1,) * missing)
    return values


def _sum_of(c: Context, a: Any, b: Any) -> Tensor:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return c.graph.add(a, b)
    return operations.plus(c, a, b) if isinstance(a, Tensor) else operations.plus(c, b, a)


@handles("Add")
def _add(c: Context, call: Call) -> Any:
    return _sum_of(c, *_operands(call))


@handles("Sum", "Mean")
def _sum(c: Context, call: Call) -> Any:
    values = _operands(call)
    total = values[0]
    for value in values[1:]:
        both = isinstance(total, np.ndarray) and isinstance(value, np.ndarray)
        total = total + value if both else _sum_of(c, total, value)
    return total if call.op == "Sum" or len(values) == 1 else c.graph.affine(total, 1 / len(values), 0.0)


@handles("Sub")
def _sub(c: Context, call: Call) -> Any:
    a, b = _operands(call)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return operations.minus(c, a, b)
    return _sum_of(c, a, c.graph.affine(b, -1.0, 0.0) if isinstance(b, Tensor) else -b)


@handles("Mul")
def _mul(c: Context, call: Call) -> Any:
    a, b = _operands(call)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return operations.product(c, a, b)
    return operations.affine(c, a, b, 0.0) if isinstance(a, Tensor) else operations.affine(c, b, a, 0.0)


@handles("Div")
def _div(c: Context, call: Call) -> Any:
    a, b = _operands(call)
    if isinstance(b, Tensor):
        return operations.quotient(c, a, b)
    if not b.all():
        raise ExportError("it divides by zero")
    return operations.affine(c, a, 1 / b.astype(np.float64), 0.0)


@handles("Neg")
def _neg(c: Context, call: Call) -> Any:
    return c.graph.affine(call.inputs[0], -1.0, 0.0)


HANDLERS["Abs"] = lambda c, call: operations.absolute(c, call.inputs[0])


@handles("Pow")
def _pow(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the base of a power")
    exponent = call.constant(1, "the exponent")
    number = exponent.item() if exponent.size == 1 else None
    if number in (0.5, -0.5):
        return norms.root(c.graph, c.written, t, inverse=number == -0.5)
    return operations.power(c, t, number)


HANDLERS["Sqrt"] = lambda c, call: norms.root(c.graph, c.written, call.inputs[0])
HANDLERS["Reciprocal"] = lambda c, call: norms.reciprocal(c.graph, c.written, call.inputs[0])


@handles("ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceMax")
def _reduce(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the value")
    axes = call.option("axes", 1)
    if not axes and call.attributes.get("noop_with_empty_axes"):
        return t
    t = c.graph.multiply(t, t) if call.op == "ReduceSumSquare" else t
    dims, keep = axes_of(t, axes) if axes else None, bool(call.attributes.get("keepdims", 1))
    if call.op in ("ReduceMean", "ReduceMax"):
        return (operations.mean if call.op == "ReduceMean" else operations.largest)(c, t, dims, keep)
    return operations.total(c, t, dims, keep)[0]


# ---- activations

for _name in ("Tanh", "Relu", "Softsign", "Exp"):
    HANDLERS[_name] = lambda c, call: c.graph.activation(call.inputs[0], call.op.lower())


@handles("Sigmoid", "Softplus")
def _remembered(c: Context, call: Call) -> Any:
    result = c.graph.activation(call.inputs[0], call.op.lower())
    c.made[result.ids.tobytes()] = call.op, call.inputs[0]
    return result


@handles("Log")
def _log(c: Context, call: Call) -> Any:
    made = c.made.get(call.inputs[0].ids.tobytes())
    if made is not None and made[0] == "Sigmoid":
        negative = c.graph.affine(made[1], -1.0, 0.0)
        return c.graph.affine(c.graph.activation(negative, "softplus"), -1.0, 0.0)
    if made is not None and made[0].startswith("Softmax "):
        return c.graph.softmax(made[1], int(made[0].split()[1]), log=True)
    raise ExportError("only the logarithm of a sigmoid or of a softmax is supported")


@handles("Greater")
def _greater(c: Context, call: Call) -> Any:
    number = call.constant(1, "the right side of a comparison")
    if number.size != 1:
        raise ExportError("a comparison with an array is not supported")
    return Above(variable(call.inputs[0], "the left side of a comparison"), float(number.reshape(-1)[0]))


def _is_identity_above(threshold: float) -> bool:
    """Whether softplus is its argument in float32 from the threshold on."""
    return math.log1p(math.exp(-min(threshold, 700.0))) <= 2**-24 * threshold


@handles("Where")
def _where(c: Context, call: Call) -> Any:
    condition, chosen, other = call.inputs
    if isinstance(condition, Above) and isinstance(chosen, Tensor) and isinstance(other, Tensor):
        made = c.made.get(other.ids.tobytes())
        same = made is not None and all(np.array_equal(t.ids, made[1].ids) for t in (chosen, condition.value))
        if made is not None and same and made[0] == "Softplus" and _is_identity_above(condition.number):
            return other
    raise ExportError("a choice that depends on values is not supported")


for _name, _own, _defaults in (
    ("LeakyRelu", "leaky_relu", {"alpha": 0.01}),
    ("Elu", "elu", {"alpha": 1.0}),
    ("ThresholdedRelu", "thresholded_relu", {"alpha": 1.0}),
    ("HardSigmoid", "hard_sigmoid", {"alpha": 0.2, "beta": 0.5}),
):

    def _parametric(c: Context, call: Call, own: str = _own, defaults: dict[str, float] = _defaults) -> Any:
        parameters = [float(call.attributes.get(name, default)) for name, default in defaults.items()]
        return c.graph.activation(call.inputs[0], (own, *parameters))

    HANDLERS[_name] = _parametric


@handles("Selu")
def _selu(c: Context, call: Call) -> Any:
    defaults = (1.6732, 1.0507) if call.opset < 6 else operations.SELU
    alpha, gamma = (float(call.attributes.get(name, d)) for name, d in zip(("alpha", "gamma"), defaults))
    return operations.selu(c, call.inputs[0], alpha, gamma)


@handles("Celu")
def _celu(c: Context, call: Call) -> Any:
    return operations.celu(c, call.inputs[0], float(call.attributes.get("alpha", 1.0)))


@handles("Gelu")
def _gelu(c: Context, call: Call) -> Any:
    form = call.attributes.get("approximate", "none")
    form = form.decode() if isinstance(form, bytes) else form
    if form not in ("none", "tanh"):
        raise ExportError(f"the approximation {form!r} is not known; known are none, tanh")
    return c.graph.activation(call.inputs[0], "gelu" if form == "none" else "gelu_tanh")


HANDLERS["Erf"] = lambda c, call: gelu.error_function(c.graph, call.inputs[0])
HANDLERS["Mish"] = lambda c, call: operations.mish(c, call.inputs[0])
HANDLERS["HardSwish"] = lambda c, call: operations.hardswish(c, call.inputs[0])


@handles("Swish")
def _swish(c: Context, call: Call) -> Any:
    alpha, t = float(call.attributes.get("alpha", 1.0)), call.inputs[0]
    if alpha == 1:
        return c.graph.activation(t, "silu")
    return c.graph.multiply(t, c.graph.activation(c.graph.affine(t, alpha, 0.0), "sigmoid"))


@handles("PRelu")
def _prelu(c: Context, call: Call) -> Any:
    return operations.prelu(c, variable(call.inputs[0], "the value"), call.constant(1, "the slope"))


def _bound(call: Call, name: str, number: int) -> float | None:
    if call.input(number) is None:
        return None if name not in call.attributes else float(call.attributes[name])
    value = call.constant(number, f"the limit {name!r}")
    if value.size != 1:
        raise ExportError(f"the limit {name!r} must be one number, got the shape {list(value.shape)}")
    return float(value.reshape(-1)[0])


@handles("Clip")
def _clip(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the value")
    return operations.limited(c, t, _bound(call, "min", 1), _bound(call, "max", 2))


@handles("Max", "Min")
def _extremum(c: Context, call: Call) -> Any:
    return operations.extremum(c, _operands(call), call.op == "Max")


@handles("Softmax", "LogSoftmax")
def _softmax(c: Context, call: Call) -> Any:
    t, log = variable(call.inputs[0], "the value"), call.op == "LogSoftmax"
    (axis,) = axes_of(t, [call.attributes.get("axis", -1 if call.opset >= 13 else 1)])
    if call.opset >= 13 or not any(t.dims[axis + 1 :]):
        result = operations.softmax(c, t, axis, log)
        c.made[result.ids.tobytes()] = f"{call.op} {axis}", t
        return result
    # Before operator set 13 it went over all axes from this one on.
    shape = t.shape(c.sizes)
    if not all(is_features(dim) for dim in t.dims[axis:]):
        raise ExportError(
            f"before operator set 13 it goes over all axes from {axis} on, which are not all features in {t}"
        )
    flat = c.graph.softmax(t.reshape([*shape[:axis], math.prod(shape[axis:])], c.sizes), axis, log)
    return flat.reshape(shape, c.sizes)
