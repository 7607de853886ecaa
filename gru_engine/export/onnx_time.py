# SPDX-License-Identifier: Apache-2.0
"""ONNX operators that are over time, or over all features together: convolution, padding, pooling, normalisation, Einsum."""

from __future__ import annotations

from typing import Any

import numpy as np

from gru_engine.export import operations, over_time
from gru_engine.export.common import ExportError
from gru_engine.export.graph import AxisError, axis_text, is_features
from gru_engine.export.onnx_ops import Call, Context, axes_of, handles, plain
from gru_engine.export.operations import variable

# ---- convolution


@handles("Conv")
def _conv(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the input")
    W = call.constant(1, "the kernel")
    b = None if call.input(2) is None else call.constant(2, "the bias")
    spatial = W.ndim - 2
    times = [axis for axis in range(spatial) if t.rank == spatial + 2 and t.dims[2 + axis]]
    if len(times) != 1:
        raise AxisError(f"a convolution with the kernel {list(W.shape)} reads {t}, expected [batch, channels, time]")
    (time,) = times
    ones = [1] * spatial
    dilations, strides = call.attributes.get("dilations", ones), call.attributes.get("strides", ones)
    pads = _pads(call, W.shape[2:], dilations)
    for axis in range(spatial):
        if axis != time and (W.shape[2 + axis] != 1 or pads[axis] != (0, 0)):
            raise AxisError(f"a convolution is along axis {2 + axis} of {t}, {axis_text(t.dims[2 + axis])}")
    return over_time.conv1d(
        c.graph, c.sizes, t, W.reshape(*W.shape[:2], W.shape[2 + time]), b, channels=1, time=2 + time, padding=pads[time],
        dilation=int(dilations[time]), groups=int(call.attributes.get("group", 1)), stride=int(strides[time]),
    )  # fmt: skip


def _pads(call: Call, kernel: Any, dilations: Any) -> list[tuple[int, int]]:
    """Zeros before and behind each spatial axis."""
    given = call.attributes.get("auto_pad", "NOTSET")
    auto = given.decode() if isinstance(given, bytes) else given
    spans = [(int(n) - 1) * int(d) for n, d in zip(kernel, dilations)]
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
        elif left or right:
            t = over_time.padded(c.graph, c.sizes, t, axis, int(left), int(right))
    return t


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
