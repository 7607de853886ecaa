# SPDX-License-Identifier: Apache-2.0
"""Keras's convolutions and pooling over two axes, one of which may be the time, and over the features of one step.

What stands before a GRU: spectrograms [batch, time, frequencies, channels], and images at each step inside ``TimeDistributed``.
Of an axis of features everything is known, so strides, padding and pooling along it are exact (``export.planes``); along
the time the rules of ``keras_time`` hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gru_engine.export import operations, over_time, planes
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import AxisError, Tensor, cat, is_features, steps_axis
from gru_engine.export.keras_activations import activate
from gru_engine.export.keras_layers import Context, Value, handles, only
from gru_engine.export.keras_model import Spec


def _two(spec: Spec, name: str, default: Any) -> tuple[int, int]:
    value = spec.option(name, default)
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) for n in pair):
        raise ExportError(f"{name} must be one or two numbers, it is {value!r}")
    return pair


def _axes(spec: Spec, t: Tensor) -> tuple[list[int], int]:
    """The two axes of the kernel, and that of the channels."""
    if t.rank != 4 or t.dims[0] != ("B",):
        raise AxisError(f"it reads [batch, height, width, channels], but its input is {t}")
    first = spec.option("data_format", "channels_last") == "channels_first"
    return ([2, 3], 1) if first else ([1, 2], 3)


def _read_as_data(c: Context, spec: Spec, t: Tensor) -> None:
    """Note that padding, where a model has some, would be read as data."""
    if c.masks.sources:
        c.masks.read(spec, Value(t))


# ---- padding


def _same(size: int, taps: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """The zeros before and behind an axis with which a kernel gives ceil(size / stride) outputs."""
    total = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def same_steps(c: Context, t: Tensor, axis: int, span: int, stride: int) -> tuple[int, int]:
    """The zeros before and behind a sequence that ``padding="same"`` stands for: as many outputs as ceil(steps / stride).

    With a stride they depend on the remainder of the number of steps, so the network is exact for some numbers alone.
    """
    if stride == 1 or span == 0:
        return span // 2, span - span // 2
    if c.steps is None:
        raise ExportError(
            f"what padding='same' is with strides={stride} depends on the number of steps; say what it is (steps=), or give "
            "the model's Input a fixed number of them"
        )
    c.exact_every(steps_axis(str(t.dims[axis][0])).stride * stride)
    return _same(t.shape(c.sizes)[axis], span + 1, stride)


def pooled_steps(c: Context, spec: Spec, t: Tensor, axis: int, taps: int, stride: int, operation: str) -> Tensor:
    """The mean or the maximum of some steps at a time."""
    sides = (0, 0)
    if spec.option("padding", "valid") == "same":
        sides = same_steps(c, t, axis, taps - 1, stride)
    if operation == "max":
        return over_time.max_pooled(c.graph, c.sizes, t, axis, taps, stride, sides)
    if any(sides):
        raise ExportError(
            "padding='same' divides by the number of steps that are of the sequence, which differs at its ends; "
            "use padding='valid'"
        )
    return over_time.mean_pooled(c.graph, c.sizes, t, axis, taps, stride)


# ---- convolutions


def convolved(
    c: Context,
    spec: Spec,
    t: Tensor,
    axes: list[int],
    channels: int,
    W: Array,
    b: Array | None,
    groups: int,
    strides: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """A convolution with the padding that a layer's configuration says; W is [O, I / groups, ...]."""
    padding, sides = spec.option("padding", "valid"), []
    if padding not in ("valid", "same"):
        raise ExportError(f"padding={padding!r} is not known")
    for axis, taps, stride, step in zip(axes, W.shape[2:], strides, dilation):
        span = (taps - 1) * step
        if padding == "valid":
            sides.append((0, 0))
        elif is_features(t.dims[axis]):
            sides.append(_same(t.shape(c.sizes)[axis], taps, stride, step))
        else:
            sides.append(same_steps(c, t, axis, span, stride))
        if (span or stride > 1) and not is_features(t.dims[axis]):
            _read_as_data(c, spec, t)
    order = [0, channels, *axes]
    y = planes.convolution(c, t.permute(order), W, b, padding=sides, dilation=dilation, stride=strides, groups=groups)
    return y.permute([order.index(axis) for axis in range(t.rank)])


def _kernel(spec: Spec, name: str) -> Array:
    kernel = spec.array(name)
    if kernel.ndim != 4:
        raise ExportError(f"{name} has the shape {list(kernel.shape)}, expected four axes")
    return kernel


def _bias(spec: Spec) -> Array | None:
    return spec.array("bias") if spec.option("use_bias", True) else None


def _convolution(c: Context, spec: Spec, t: Tensor, W: Array, b: Array | None, groups: int) -> Tensor:
    axes, channels = _axes(spec, t)
    return convolved(c, spec, t, axes, channels, W, b, groups, _two(spec, "strides", 1), _two(spec, "dilation_rate", 1))


@handles("Conv2D", "Convolution2D")
def _conv2d(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    if spec.option("lora_rank") or spec.option("quantization_config"):
        raise ExportError("it has a LoRA or quantised kernel; merge it and save the model again")
    W = _kernel(spec, "kernel").transpose(3, 2, 0, 1)
    y = _convolution(c, spec, only(spec, inputs).tensor, W, _bias(spec), int(spec.option("groups", 1)))
    return Value(activate(c, y, spec.config.get("activation"), c.major))


def _depthwise(kernel: Array) -> Array:
    """[C * M, 1, K, L] of [K, L, C, M]: M outputs of each channel, side by side."""
    return kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])


@handles("DepthwiseConv2D")
def _depthwise_conv2d(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    kernel = _kernel(spec, "kernel")
    y = _convolution(c, spec, only(spec, inputs).tensor, _depthwise(kernel), _bias(spec), kernel.shape[2])
    return Value(activate(c, y, spec.config.get("activation"), c.major))


@handles("SeparableConv2D", "SeparableConvolution2D")
def _separable_conv2d(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x, depthwise, pointwise = only(spec, inputs), _kernel(spec, "depthwise_kernel"), _kernel(spec, "pointwise_kernel")
    if pointwise.shape[:2] != (1, 1):
        raise ExportError(f"pointwise_kernel has the shape {list(pointwise.shape)}, expected [1, 1, channels, filters]")
    y = _convolution(c, spec, x.tensor, _depthwise(depthwise), None, depthwise.shape[2])
    axes, channels = _axes(spec, x.tensor)
    order = [0, *axes, channels]
    y = c.graph.dense(y.permute(order), pointwise[0, 0].T, _bias(spec)).permute([order.index(d) for d in range(4)])
    return Value(activate(c, y, spec.config.get("activation"), c.major))


# ---- layers that pad and cut


def padded_features(c: Context, t: Tensor, axis: int, left: int, right: int) -> Tensor:
    """Zeros before and behind an axis of features; negative numbers cut places off."""
    size = t.shape(c.sizes)[axis]
    t = t.take(axis, slice(max(-left, 0), size - max(-right, 0)))
    for count, before in ((left, True), (right, False)):
        if count > 0:
            zeros = c.graph.affine(t.take(axis, [0]), 0.0, 0.0).take(axis, [0] * count)
            t = cat([zeros, t] if before else [t, zeros], axis)
    return t


def _four_sides(spec: Spec, name: str, default: Any) -> list[tuple[int, int]]:
    value = spec.option(name, default)
    pairs = [value, value] if isinstance(value, int) else list(value)
    return [(n, n) if isinstance(n, int) else (int(n[0]), int(n[1])) for n in pairs]


def _padded(c: Context, spec: Spec, t: Tensor, sides: list[tuple[int, int]]) -> Value:
    axes, _ = _axes(spec, t)
    for axis, (left, right) in sorted(zip(axes, sides), key=lambda side: not is_features(t.dims[side[0]])):
        if is_features(t.dims[axis]):
            t = padded_features(c, t, axis, left, right)
        elif (left, right) != (0, 0):
            _read_as_data(c, spec, t)
            t = over_time.padded(c.graph, c.sizes, t, axis, left, right)
    return Value(t)


@handles("ZeroPadding2D")
def _zero_padding(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    return _padded(c, spec, only(spec, inputs).tensor, _four_sides(spec, "padding", 1))


@handles("Cropping2D")
def _cropping(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    sides = [(-left, -right) for left, right in _four_sides(spec, "cropping", 0)]
    return _padded(c, spec, only(spec, inputs).tensor, sides)


# ---- pooling


def pooled_features(c: Context, spec: Spec, t: Tensor, axis: int, taps: int, stride: int, operation: str) -> Tensor:
    """The mean or the maximum of some places of an axis of features at a time."""
    same = spec.option("padding", "valid") == "same"
    padding = _same(t.shape(c.sizes)[axis], taps, stride) if same else (0, 0)
    return _some_pooled(c, t, axis, taps, stride, padding, operation)


def _some_pooled(
    c: Context, t: Tensor, axis: int, taps: int, stride: int, padding: tuple[int, int], operation: str
) -> Tensor:
    """What Keras computes: padding does not count, neither for the maximum nor for the mean."""
    read = [[at for _, at in place] for place in planes.places(t.shape(c.sizes)[axis], taps, padding, 1, stride)]
    parts = []
    for _, run in itertools.groupby(read, key=len):  # outputs that read equally many places
        columns = np.array(list(run)).T
        total = t.take(axis, columns[0])
        for column in columns[1:]:
            other = t.take(axis, column)
            total = c.graph.extremum(total, other, True) if operation == "max" else c.graph.add(total, other)
        parts.append(total if operation == "max" else c.graph.affine(total, 1 / len(columns), 0.0))
    return cat(parts, axis)


def _pooled(c: Context, spec: Spec, t: Tensor, operation: str) -> Value:
    axes, _ = _axes(spec, t)
    taps = _two(spec, "pool_size", 2)
    strides = _two(spec, "strides", taps)
    for axis, size, stride in zip(axes, taps, strides):
        if size == stride == 1:
            continue
        if not is_features(t.dims[axis]):
            _read_as_data(c, spec, t)
            t = pooled_steps(c, spec, t, axis, size, stride, operation)
            continue
        t = pooled_features(c, spec, t, axis, size, stride, operation)
    return Value(t)


@handles("AveragePooling2D", "AvgPool2D")
def _average_pooling(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    return _pooled(c, spec, only(spec, inputs).tensor, "mean")


@handles("MaxPooling2D", "MaxPool2D")
def _max_pooling(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    return _pooled(c, spec, only(spec, inputs).tensor, "max")


@handles("GlobalAveragePooling2D", "GlobalAvgPool2D")
def _global_average(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    t = only(spec, inputs).tensor
    axes, _ = _axes(spec, t)
    if not all(is_features(t.dims[axis]) for axis in axes):
        _read_as_data(c, spec, t)
    return Value(operations.mean(c, t, axes, bool(spec.option("keepdims", False))))


@handles("GlobalMaxPooling2D", "GlobalMaxPool2D")
def _global_max(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    t = only(spec, inputs).tensor
    axes, _ = _axes(spec, t)
    for axis in axes:
        if is_features(t.dims[axis]):
            t = _some_pooled(c, t, axis, t.shape(c.sizes)[axis], 1, (0, 0), "max")
        else:
            _read_as_data(c, spec, t)
            t = over_time.pooled(c.graph, t, axis, "max").unsqueeze(axis)
    return Value(t if spec.option("keepdims", False) else t.squeeze(axes))
