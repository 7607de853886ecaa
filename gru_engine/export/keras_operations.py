# SPDX-License-Identifier: Apache-2.0
"""Operations on values between Keras's layers: ``x * 2``, ``x[:, -1]``, ``keras.ops.mean(x, axis=1)``, ``tf.concat``.

Keras 3 has them in a functional model beside the layers, tf.keras as layers ``TFOpLambda`` and ``SlicingOpLambda`` that name the
function. Both are called by the names of Keras 3 here: a short function for each, with the values and constants that it is
called with, and a table of what it was made with. No operation passes a mask on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gru_engine.export import operations
from gru_engine.export.common import ExportError
from gru_engine.export.graph import AxisError, Tensor, axis_text, cat, is_features
from gru_engine.export.keras_activations import activate, softmax
from gru_engine.export.keras_calls import Argument
from gru_engine.export.keras_layers import Context, Value, refusal
from gru_engine.export.keras_model import Spec

Options = dict[str, Any]
Handler = Callable[[Context, list[Any], Options], Any]

OPERATIONS: dict[str, Handler] = {}
"""For each operation of Keras 3, by the name of its class, what to do."""

_TF = {
    "math.add": ("Add", "y"), "__operators__.add": ("Add", "y"), "math.subtract": ("Subtract", "y"),
    "math.multiply": ("Multiply", "y"), "math.truediv": ("Divide", "y"), "math.divide": ("Divide", "y"),
    "math.pow": ("Power", "y"), "math.negative": ("Negative",), "math.square": ("Square",), "math.abs": ("Absolute",),
    "math.maximum": ("Maximum", "y"), "math.minimum": ("Minimum", "y"),
    "math.reduce_sum": ("Sum",), "math.reduce_mean": ("Mean",), "math.reduce_max": ("Max",),
    "math.tanh": ("Tanh",), "math.sigmoid": ("Sigmoid",), "math.softplus": ("Softplus",), "math.exp": ("Exp",),
    "nn.relu": ("Relu",), "nn.relu6": ("Relu6",), "nn.elu": ("Elu",), "nn.selu": ("Selu",), "nn.silu": ("Silu",),
    "nn.leaky_relu": ("LeakyRelu",), "nn.softmax": ("Softmax",), "nn.log_softmax": ("LogSoftmax",),
    "nn.softsign": ("Softsign",), "nn.sigmoid": ("Sigmoid",), "nn.tanh": ("Tanh",), "nn.softplus": ("Softplus",),
    "concat": ("Concatenate",), "stack": ("Stack",), "split": ("Split",), "unstack": ("Unstack",),
    "reshape": ("Reshape",), "transpose": ("Transpose",), "compat.v1.transpose": ("Transpose",), "squeeze": ("Squeeze",),
    "compat.v1.squeeze": ("Squeeze",), "expand_dims": ("ExpandDims",), "reverse": ("Flip",), "identity": ("Copy",),
    "stop_gradient": ("StopGradient",), "cast": ("Cast",), "clip_by_value": ("Clip",), "one_hot": ("OneHot",),
    "linalg.matmul": ("Matmul", "b"), "einsum": ("Einsum",), "__operators__.getitem": ("GetItem", "slice_spec"),
}  # fmt: skip
"""TensorFlow's functions: the operation, and the arguments behind the first that are values."""

_TF_OPTIONS = {
    "shape": "newshape", "perm": "axes", "clip_value_min": "x_min", "clip_value_max": "x_max", "depth": "num_classes",
    "num_or_size_splits": "sections", "alpha": "negative_slope",
}  # fmt: skip


def handles(*kinds: str) -> Callable[[Handler], Handler]:
    """Enter a function into the table, for one or several operations."""

    def register(handler: Handler) -> Handler:
        OPERATIONS.update(dict.fromkeys(kinds, handler))
        return handler

    return register


def operate(c: Context, spec: Spec, arguments: tuple[list[Any], Options], values: Sequence[Value]) -> list[Value]:
    """What an operation returns.

    Parameters
    ----------
    spec : Spec
        An operation of Keras 3, or a TFOpLambda or SlicingOpLambda.
    arguments : (list, dict)
        The positional and the named ones as ``keras_calls.Call.arguments``.
    values : sequence of Value
        Those that stand there, in order.

    Raises
    ------
    ExportError
        If it is none of the table, or cannot be expressed exactly.
    """
    if c.major < 3 and any(value.masked for value in values):
        raise ExportError("it reads a value with a mask, and whether it passes that on depends on the version of Keras")
    waiting = iter([value.tensor for value in values])
    positional, named = _filled(arguments[0], waiting), _filled(arguments[1], waiting)
    kind, options = spec.kind, {**spec.config, **named}
    if not spec.is_operation:
        kind, positional, options = _of_tensorflow(spec, positional, named)
    if kind not in OPERATIONS:
        raise ExportError(refusal(spec))
    result = OPERATIONS[kind](c, positional, options)
    results = result if isinstance(result, list) else [result]
    return [Value(t) for t in results]


def _filled(value: Any, tensors: Any) -> Any:
    """The arguments of a call with values and constants in their places."""
    if isinstance(value, Argument):
        return next(tensors)
    if isinstance(value, dict):
        kind, config = value.get("class_name"), value.get("config") or {}
        if kind in ("__tensor__", "__numpy__"):
            dtype = config.get("dtype")
            return np.asarray(config["value"], dtype if dtype in ("float16", "float32", "float64", "int32") else None)
        if kind == "__slice__" or ("start" in value and "stop" in value):
            config = config if kind else value
            return slice(config.get("start"), config.get("stop"), config.get("step"))
        return ... if kind == "__ellipsis__" else {key: _filled(item, tensors) for key, item in value.items()}
    return [_filled(item, tensors) for item in value] if isinstance(value, (list, tuple)) else value


def _of_tensorflow(spec: Spec, positional: list[Any], named: Options) -> tuple[str, list[Any], Options]:
    """TensorFlow's function as the operation of Keras 3."""
    function = str(spec.config.get("function", ""))
    if function not in _TF:
        raise ExportError(f"the function tf.{function} is not among the operations that are supported")
    kind, *values = _TF[function]
    if kind == "Einsum":
        positional, named = positional[1:], {"subscripts": positional[0], **named}
        positional = positional[0] if positional and isinstance(positional[0], list) else positional
    options = {_TF_OPTIONS.get(name, name): value for name, value in named.items() if name != "name"}
    return kind, [*positional, *(options.pop(name) for name in values if name in options)], options


# ---- what the handlers share


def _variable(value: Any) -> Tensor:
    return operations.variable(value, "what it reads")


def _axes(t: Tensor, axis: Any) -> list[int] | None:
    if axis is None:
        return None
    return [operations.axis_of(t, int(a)) for a in (axis if isinstance(axis, (list, tuple)) else [axis])]


def _one_axis(t: Tensor, axis: Any) -> int:
    axes = _axes(t, axis)
    if axes is None or len(axes) != 1:
        raise ExportError(f"it acts along the axes {axis}; only one is supported")
    return axes[0]


def _read_as_data(c: Context, t: Tensor, axes: Sequence[int] | None) -> None:
    """Note that padding, where a model has some, would be read as data: no operation knows of masks."""
    over = range(t.rank) if axes is None else axes
    if c.masks.sources and any(not is_features(t.dims[dim]) for dim in over):
        c.masks.missed.append(f"the operation {c.graph.name!r}")


# ---- arithmetic


@handles("Add")
def _add(c: Context, args: list[Any], options: Options) -> Tensor:
    a, b = args
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return c.graph.add(a, b)
    return operations.plus(c, *((a, b) if isinstance(a, Tensor) else (_variable(b), a)))


@handles("Subtract")
def _subtract(c: Context, args: list[Any], options: Options) -> Tensor:
    a, b = args
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return operations.minus(c, a, b)
    if isinstance(a, Tensor):
        return operations.plus(c, a, -np.asarray(b))
    return operations.affine(c, _variable(b), -1.0, a)


@handles("Multiply")
def _multiply(c: Context, args: list[Any], options: Options) -> Tensor:
    a, b = args
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return operations.product(c, a, b)
    return operations.affine(c, *((a, b) if isinstance(a, Tensor) else (_variable(b), a)), 0.0)


@handles("Divide", "TrueDivide")
def _divide(c: Context, args: list[Any], options: Options) -> Tensor:
    a, b = args
    if isinstance(b, Tensor):
        return operations.quotient(c, a, b)
    return operations.affine(c, _variable(a), 1 / np.asarray(b, np.float64), 0.0)


@handles("Negative")
def _negative(c: Context, args: list[Any], options: Options) -> Tensor:
    return c.graph.affine(_variable(args[0]), -1.0, 0.0)


@handles("Square")
def _square(c: Context, args: list[Any], options: Options) -> Tensor:
    return operations.power(c, _variable(args[0]), 2)


@handles("Power")
def _power(c: Context, args: list[Any], options: Options) -> Tensor:
    exponent = args[1]
    if isinstance(exponent, Tensor):
        raise ExportError("its exponent depends on the input; only the powers 1, 2 and 3 are supported")
    return operations.power(c, _variable(args[0]), np.asarray(exponent).item())


@handles("Absolute", "Abs", "Fabs")
def _absolute(c: Context, args: list[Any], options: Options) -> Tensor:
    return operations.absolute(c, _variable(args[0]))


@handles("Clip")
def _clip(c: Context, args: list[Any], options: Options) -> Tensor:
    low, high = (options.get(name) for name in ("x_min", "x_max"))
    if any(isinstance(limit, (Tensor, list)) for limit in (low, high)):
        raise ExportError("its limits must be numbers")
    return operations.limited(c, _variable(args[0]), low, high)


@handles("Matmul", "Dot")
def _matmul(c: Context, args: list[Any], options: Options) -> Tensor:
    a, b = args
    if any(options.get(name) for name in ("transpose_a", "transpose_b", "adjoint_a", "adjoint_b")):
        raise ExportError("a product with a transposed factor is not supported; transpose it before")
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return operations.matrix_product(c, a, b)
    matrix = np.asarray(b)
    if not isinstance(a, Tensor) or matrix.ndim > 2:
        raise ExportError("a product with a constant is supported where the right side is a matrix")
    product = c.graph.dense(a, matrix.T if matrix.ndim == 2 else matrix[np.newaxis])
    return product if matrix.ndim == 2 else product.squeeze([product.rank - 1])


@handles("Einsum")
def _einsum(c: Context, args: list[Any], options: Options) -> Tensor:
    return operations.einsum(c, str(options["subscripts"]), args)


# ---- reductions


@handles("Sum")
def _sum(c: Context, args: list[Any], options: Options) -> Tensor:
    t = _variable(args[0])
    axes = _axes(t, options.get("axis"))
    _read_as_data(c, t, axes)
    return operations.total(c, t, axes, bool(options.get("keepdims", False)))[0]


@handles("Mean")
def _mean(c: Context, args: list[Any], options: Options) -> Tensor:
    t = _variable(args[0])
    axes = _axes(t, options.get("axis"))
    _read_as_data(c, t, axes)
    return operations.mean(c, t, axes, bool(options.get("keepdims", False)))


@handles("Max", "Amax")
def _max(c: Context, args: list[Any], options: Options) -> Tensor:
    t = _variable(args[0])
    axes = _axes(t, options.get("axis"))
    if options.get("initial") is not None:
        raise ExportError("a maximum with initial= is not supported")
    _read_as_data(c, t, axes)
    return operations.largest(c, t, axes, bool(options.get("keepdims", False)))


def _softmax_of(log: bool) -> Handler:
    def handler(c: Context, args: list[Any], options: Options) -> Tensor:
        t = _variable(args[0])
        axis = options.get("axis", -1)
        axis = -1 if axis is None else axis
        _read_as_data(c, t, _axes(t, axis))
        return softmax(c, t, axis, log)

    return handler


OPERATIONS["Softmax"], OPERATIONS["LogSoftmax"] = _softmax_of(False), _softmax_of(True)


# ---- activations


def _activation_of(entry: str) -> Handler:
    def handler(c: Context, args: list[Any], options: Options) -> Tensor:
        return activate(c, _variable(args[0]), entry, c.major)

    return handler


for _kind, _entry in {
    "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Softplus": "softplus", "Softsign": "softsign", "Tanh": "tanh",
    "Silu": "silu", "LogSigmoid": "log_sigmoid", "HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu", "Selu": "selu",
    "TanhShrink": "tanh_shrink", "HardTanh": "hard_tanh", "Exp": "exponential", "SparseSigmoid": "sparse_sigmoid",
}.items():  # fmt: skip
    OPERATIONS[_kind] = _activation_of(_entry)


@handles("LeakyRelu")
def _leaky_relu(c: Context, args: list[Any], options: Options) -> Tensor:
    return c.graph.activation(_variable(args[0]), ("leaky_relu", float(options.get("negative_slope", 0.2))))


@handles("Elu")
def _elu(c: Context, args: list[Any], options: Options) -> Tensor:
    return c.graph.activation(_variable(args[0]), ("elu", float(options.get("alpha", 1.0))))


@handles("Celu")
def _celu(c: Context, args: list[Any], options: Options) -> Tensor:
    return operations.celu(c, _variable(args[0]), float(options.get("alpha", 1.0)))


# ---- moving axes and choosing features


@handles("Copy", "StopGradient", "Identity")
def _same(c: Context, args: list[Any], options: Options) -> Tensor:
    return _variable(args[0])


@handles("Cast", "ConvertToTensor")
def _cast(c: Context, args: list[Any], options: Options) -> Tensor:
    t, dtype = _variable(args[0]), options.get("dtype")
    name = str(dtype.get("config", {}).get("name", "") if isinstance(dtype, dict) else dtype or "")
    wanted = ("int",) if c.graph.is_tokens(t) else ("float32", "float64")
    if dtype is not None and not name.startswith(wanted):
        raise ExportError(f"{'tokens' if c.graph.is_tokens(t) else 'values'} are converted to {name}")
    return t


@handles("Reshape")
def _reshape(c: Context, args: list[Any], options: Options) -> Tensor:
    t, shape = _variable(args[0]), list(args[1] if len(args) > 1 else options["newshape"])
    if not all(isinstance(n, int) for n in shape):
        raise ExportError(f"the shape {shape} is computed; it must be numbers, of which one may be -1")
    sizes, open_axes = t.shape(c.sizes), [i for i, n in enumerate(shape) if n == -1]
    if len(open_axes) > 1:
        raise ExportError(f"the shape {shape} has several -1")
    if t.dims[0] == ("B",) and shape and shape[0] == -1:  # of the batch, as everywhere in Keras
        shape[0] = sizes[0]
    elif open_axes:
        shape[open_axes[0]] = math.prod(sizes) // max(-math.prod(shape), 1)
    return t.reshape(shape, c.sizes)


@handles("Transpose")
def _transpose(c: Context, args: list[Any], options: Options) -> Tensor:
    t, axes = _variable(args[0]), options.get("axes")
    return t.permute(list(range(t.rank))[::-1] if axes is None else [operations.axis_of(t, int(a)) for a in axes])


@handles("Swapaxes")
def _swapaxes(c: Context, args: list[Any], options: Options) -> Tensor:
    t = _variable(args[0])
    order = list(range(t.rank))
    i, j = (operations.axis_of(t, int(options[name])) for name in ("axis1", "axis2"))
    order[i], order[j] = j, i
    return t.permute(order)


@handles("Squeeze")
def _squeeze(c: Context, args: list[Any], options: Options) -> Tensor:
    t = _variable(args[0])
    axes = _axes(t, options.get("axis"))
    for dim in axes or []:
        if t.dims[dim] != ():
            raise AxisError(f"axis {dim} of {t}, {axis_text(t.dims[dim])}, is taken for an axis of size 1")
    return t.squeeze(range(t.rank) if axes is None else axes)


@handles("ExpandDims")
def _expand_dims(c: Context, args: list[Any], options: Options) -> Tensor:
    t, axis = _variable(args[0]), options["axis"]
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    for dim in sorted(int(a) % (t.rank + len(axes)) for a in axes):
        t = t.unsqueeze(dim)
    return t


@handles("Flip")
def _flip(c: Context, args: list[Any], options: Options) -> Tensor:
    t = _variable(args[0])
    axes = _axes(t, options.get("axis"))
    _read_as_data(c, t, axes)
    for dim in range(t.rank) if axes is None else axes:
        t = c.graph.flip(t, dim)
    return t


def _joined(values: Any, tensors_of: str) -> list[Tensor]:
    return operations.all_variable(values if isinstance(values, list) else [values], tensors_of)


@handles("Concatenate")
def _concatenate(c: Context, args: list[Any], options: Options) -> Tensor:
    tensors = _joined(args[0], "a concatenation")
    dim = _one_axis(tensors[0], options.get("axis", 0))
    if not is_features(tensors[0].dims[dim]):
        raise ExportError(f"it joins values along the {axis_text(tensors[0].dims[dim])}; only features can be joined")
    return cat(tensors, dim)


@handles("Stack")
def _stack(c: Context, args: list[Any], options: Options) -> Tensor:
    tensors = _joined(args[0], "a stack")
    dim = int(options.get("axis", 0)) % (tensors[0].rank + 1)
    return cat([t.unsqueeze(dim) for t in tensors], dim)


@handles("Split")
def _split(c: Context, args: list[Any], options: Options) -> list[Tensor]:
    t = _variable(args[0])
    dim = _one_axis(t, options.get("axis", 0))
    size = t.shape(c.sizes)[dim]
    sections = options.get("sections", options.get("indices_or_sections"))
    if isinstance(sections, int):
        if size % sections:
            raise ExportError(f"{size} features are split into {sections} equal parts")
        pieces = [size // sections] * sections
    else:
        given = list(sections or [])  # TensorFlow gives sizes, Keras where the parts begin
        places = [0, *given, size]
        pieces = given if "sections" in options else [after - before for before, after in itertools.pairwise(places)]
    return operations.parts(c, t, pieces, dim)


@handles("Unstack")
def _unstack(c: Context, args: list[Any], options: Options) -> list[Tensor]:
    t = _variable(args[0])
    dim = _one_axis(t, options.get("axis", 0))
    if not is_features(t.dims[dim]):
        raise ExportError(f"the {axis_text(t.dims[dim])} axis is taken apart; only features can be")
    return [t.select(dim, i) for i in range(t.shape(c.sizes)[dim])]


@handles("Repeat")
def _repeat(c: Context, args: list[Any], options: Options) -> Tensor:
    t, repeats = _variable(args[0]), options.get("repeats")
    dim = _one_axis(t, options.get("axis"))
    if not isinstance(repeats, int) or not is_features(t.dims[dim]):
        raise ExportError(f"the {axis_text(t.dims[dim])} axis is repeated {repeats} times; only features can be")
    return t.take(dim, np.repeat(np.arange(t.shape(c.sizes)[dim]), repeats))


@handles("Tile")
def _tile(c: Context, args: list[Any], options: Options) -> Tensor:
    repeats = options.get("repeats")
    return operations.repeated(c, _variable(args[0]), [repeats] if isinstance(repeats, int) else list(repeats or ()))


@handles("OneHot")
def _one_hot(c: Context, args: list[Any], options: Options) -> Tensor:
    if options.get("sparse") or options.get("axis", -1) not in (None, -1):
        raise ExportError("one-hot vectors are supported along a new last axis, and not sparse")
    return c.graph.one_hot(_variable(args[0]), int(options["num_classes"]))


@handles("GetItem")
def _get_item(c: Context, args: list[Any], options: Options) -> Tensor:
    t, key = _variable(args[0]), args[1] if len(args) > 1 else options["key"]
    keys = list(key) if isinstance(key, (list, tuple)) else [key]
    if ... in keys:
        place = keys.index(...)
        missing = t.rank - sum(k is not None and k is not ... for k in keys)
        keys[place : place + 1] = [slice(None)] * missing
    dim = 0
    for k in keys:
        if k is None:
            t = t.unsqueeze(dim)
            dim += 1
        elif isinstance(k, slice) and all(n is None or isinstance(n, int) for n in (k.start, k.stop, k.step)):
            if k != slice(None):
                _ends_as_data(c, t, dim)
                _check_counted(c, t, dim, k)
                t = operations.sliced(c, t, dim, k)
            dim += 1
        elif isinstance(k, int) and not isinstance(k, bool):
            _ends_as_data(c, t, dim)
            t = operations.select(c, t, dim, k)
        else:
            raise ExportError("it is indexed with something else than numbers and slices")
    return t


def _check_counted(c: Context, t: Tensor, dim: int, part: slice) -> None:
    """Of a time axis steps are counted from the end that they are nearer to; so many from the start are not among them."""
    if is_features(t.dims[dim]) or part in (slice(0, 1), slice(None, 1)):
        return
    if part.stop is not None and part.stop >= 0:
        raise ExportError(
            f"the steps {part.start}:{part.stop} of {t} are so many, whatever the length of the sequence; what can be taken "
            "is all but some steps at its ends, every n-th, and the last ones"
        )


def _ends_as_data(c: Context, t: Tensor, dim: int) -> None:
    """Note that a step is read that may be padding. Of a GRU it is what it was at the sequence's own end."""
    numbers = np.unique(c.graph.node_numbers(t.ids.reshape(-1)))
    carried = all(c.graph.nodes[n].first in c.masks.carried for n in numbers)
    if not (carried and t.dims[dim] == ("T",)):
        _read_as_data(c, t, [dim])
