# SPDX-License-Identifier: Apache-2.0
"""ONNX operators that are over time, or over all features together: convolution, padding, pooling, normalisation, Einsum."""

from __future__ import annotations

from typing import Any

import numpy as np

from gru_engine.export import operations, over_time, planes
from gru_engine.export.common import ExportError
from gru_engine.export.graph import axis_text, is_features
from gru_engine.export.onnx_ops import Call, Context, axes_of, handles, plain
from gru_engine.export.operations import variable

# ---- convolution


@handles("Conv")
def _conv(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the input")
    W = call.constant(1, "the kernel")
    b = None if call.input(2) is None else call.constant(2, "the bias")
    spatial = W.ndim - 2
    ones = [1] * spatial
    dilations, strides = ([int(n) for n in call.attributes.get(name, ones)] for name in ("dilations", "strides"))
    return planes.convolution(
        c, t, W, b, padding=_pads(call, W.shape[2:], dilations, strides), dilation=dilations, stride=strides,
        groups=int(call.attributes.get("group", 1)),
    )  # fmt: skip


def _pads(call: Call, kernel: Any, dilations: Any, strides: Any) -> list[tuple[int, int]]:
    """Zeros before and behind each spatial axis."""
    given = call.attributes.get("auto_pad", "NOTSET")
    auto = given.decode() if isinstance(given, bytes) else given
    spans = [(int(n) - 1) * int(d) for n, d in zip(kernel, dilations)]
    if auto in ("SAME_UPPER", "SAME_LOWER") and any(stride != 1 for stride in strides):
        raise ExportError(f"with a stride, auto_pad {auto} depends on the number of steps; pads must be numbers")
    if auto == "SAME_UPPER":
        return [(span // 2, span - span // 2) for span in spans]
    if auto == "SAME_LOWER":
        return [(span - span // 2, span // 2) for span in spans]
    if auto not in ("NOTSET", "VALID", ""):
        raise ExportError(f"auto_pad is {auto!r}, which the specification does not know")
    pads = [int(n) for n in call.attributes.get("pads", [0] * (2 * len(spans)))]
    return [(0, 0)] * len(spans) if auto == "VALID" else list(zip(pads[: len(spans)], pads[len(spans) :]))


@handles("Pad")
def _pad(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the value that is padded")
    mode = call.attributes.get("mode", "constant")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    pads = call.option("pads", 1) or call.attributes["paddings"]
    axes = axes_of(t, call.option("axes", 3) or range(t.rank))
    value = call.attributes.get("value", 0.0) if call.input(2) is None else call.constant(2, "the value").item()
    if mode != "constant":
        raise ExportError(f"padding of the mode {mode!r} is not supported, only zeros")
    for axis, left, right in zip(axes, pads[: len(axes)], pads[len(axes) :]):
        if (left > 0 or right > 0) and value:
            raise ExportError(f"padding with {value:g} is not supported, only zeros")
        if is_features(t.dims[axis]) and left <= 0 and right <= 0:
            t = operations.sliced(c, t, axis, slice(-left, right or None))
        elif is_features(t.dims[axis]) and (left or right):
            raise ExportError(
                f"axis {axis} of {t}, {axis_text(t.dims[axis])}, is padded by itself, not by a convolution"
            )
        elif left or right:
            t = over_time.padded(c.graph, c.sizes, t, axis, int(left), int(right))
    return t


@handles("AveragePool", "MaxPool")
def _pool(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the value")
    kernel = [int(n) for n in call.attributes["kernel_shape"]]
    ones = [1] * len(kernel)
    dilations, strides = ([int(n) for n in call.attributes.get(name, ones)] for name in ("dilations", "strides"))
    pads = _pads(call, kernel, dilations, strides)
    if call.attributes.get("ceil_mode"):
        raise ExportError("pooling with ceil_mode is not supported")
    if call.op == "MaxPool":
        return [planes.largest_pool(c, t, kernel, strides, pads, dilations)] + [None] * (call.outputs - 1)
    if any(d != 1 for d in dilations) or (any(map(any, pads)) and not call.attributes.get("count_include_pad")):
        raise ExportError("a mean over windows with dilation, or with padding that is not counted, is not supported")
    return planes.mean_pool(c, t, kernel, strides, pads)


# ---- one value per sequence


@handles("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the value")
    reduced = operations.mean if call.op == "GlobalAveragePool" else operations.largest
    return reduced(c, t, range(2, t.rank), True)


@handles("Einsum")
def _einsum(c: Context, call: Call) -> Any:
    equation = call.attributes["equation"]
    equation = equation.decode() if isinstance(equation, bytes) else equation
    return operations.einsum(c, equation, [plain(v) if isinstance(v, np.ndarray) else v for v in call.inputs])


# ---- normalisation


@handles("LayerNormalization", "RMSNormalization")
def _layer_norm(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the value")
    (axis,) = axes_of(t, [call.attributes.get("axis", -1)])
    dims = list(range(axis, t.rank))
    scale = call.constant(1, "the scale")
    shift = 0.0 if call.input(2) is None else call.constant(2, "the shift")
    epsilon, rms = float(call.attributes.get("epsilon", 1e-5)), call.op == "RMSNormalization"
    if call.attributes.get("stash_type", 1) not in (1, 11):  # float32, double
        raise ExportError("its statistics are in a type of less precision")
    result = c.graph.norm(t, dims, scale, shift, epsilon=epsilon, rms=rms)
    return [result] + [None] * (call.outputs - 1)
