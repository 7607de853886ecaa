# SPDX-License-Identifier: Apache-2.0
"""Keras's layers along the time and over the features that a network has by itself: convolutions, pooling, normalisation.

A convolution must keep the number of steps: ``padding="causal"`` or ``"same"``, or zeros that ``ZeroPadding1D`` puts before the
sequence for ``padding="valid"``.

What depends on where a sequence ends notes in ``Masks`` whether Keras's mask has reached it: the mean does what ``lengths=`` does
where it has a mask; a maximum, a convolution that looks ahead and a softmax over the time read padding as data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gru_engine.export import operations, over_time
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import AxisError, Tensor, is_features
from gru_engine.export.keras_activations import activate
from gru_engine.export.keras_layers import Context, Value, handles, only
from gru_engine.export.keras_model import Spec
from gru_engine.export.keras_space import convolved, padded_features, pooled_features, pooled_steps, same_steps
from gru_engine.export.over_time import goes_back, is_time
from gru_engine.export.traced import has_time

READS_TIME = (
    "Conv1D",
    "Convolution1D",
    "DepthwiseConv1D",
    "SeparableConv1D",
    "SeparableConvolution1D",
    "ZeroPadding1D",
    "Cropping1D",
    "AveragePooling1D",
    "MaxPooling1D",
    "Conv2D",
    "Convolution2D",
    "DepthwiseConv2D",
    "SeparableConv2D",
    "GlobalAveragePooling1D",
    "GlobalMaxPooling1D",
    "GlobalAvgPool1D",
    "GlobalMaxPool1D",
)
"""The classes that tell a time axis from features."""


def _one(spec: Spec, name: str, default: int) -> int:
    """A number that Keras also writes as a list of one."""
    value = spec.option(name, default)
    value = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
    if isinstance(value, bool) or not isinstance(value, int):
        raise ExportError(f"{name} must be a number, it is {value!r}")
    return value


def _axes(spec: Spec, t: Tensor) -> tuple[int, int]:
    """Which axes are the time and the channels."""
    if t.rank != 3 or t.dims[0] != ("B",):
        raise AxisError(f"it reads [batch, time, features], but its input is {t}")
    if spec.option("data_format", "channels_last") == "channels_first":
        return 2, 1
    return 1, 2


def _is_table(t: Tensor, axis: int) -> bool:
    """Whether the axis that Keras takes for the time is one of features: inside TimeDistributed, where a step is a table."""
    return is_features(t.dims[axis]) and not has_time(t)


def _read_as_data(c: Context, spec: Spec, t: Tensor) -> None:
    """Note that padding, where a model has some, would be read as data."""
    if c.masks.sources:
        c.masks.read(spec, Value(t))


# ---- convolutions


def _convolved(c: Context, spec: Spec, t: Tensor, W: Array, b: Array | None, groups: int) -> Tensor:
    time, channels = _axes(spec, t)
    stride, dilation = _one(spec, "strides", 1), _one(spec, "dilation_rate", 1)
    if _is_table(t, time):
        return convolved(c, spec, t, [time], channels, W, b, groups, [stride], [dilation])
    span, padding = (W.shape[2] - 1) * dilation, spec.option("padding", "valid")
    if padding not in ("causal", "same", "valid"):
        raise ExportError(f"padding={padding!r} is not known")
    sides = (span, 0) if padding == "causal" else (0, 0)
    if padding == "same":
        sides = same_steps(c, t, time, span, stride)
    if (
        padding == "valid" or stride > 1 or sides[not goes_back(t.dims[time])]
    ):  # it looks ahead, in whatever direction it runs
        _read_as_data(c, spec, t)
    return over_time.conv1d(
        c.graph,
        c.sizes,
        t,
        W,
        b,
        channels=channels,
        time=time,
        padding=sides,
        dilation=dilation,
        groups=groups,
        stride=stride,
    )


def _bias(spec: Spec) -> Array | None:
    return spec.array("bias") if spec.option("use_bias", True) else None


def _activated(c: Context, spec: Spec, y: Tensor) -> Value:
    """No convolution passes a mask on."""
    return Value(activate(c, y, spec.config.get("activation"), c.major))


def _kernel(spec: Spec, name: str) -> Array:
    kernel = spec.array(name)
    if kernel.ndim != 3:
        raise ExportError(f"{name} has the shape {list(kernel.shape)}, expected three axes")
    return kernel


@handles("Conv1D", "Convolution1D")
def _conv1d(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    if spec.option("lora_rank") or spec.option("quantization_config"):
        raise ExportError("it has a LoRA or quantised kernel; merge it and save the model again")
    W = _kernel(spec, "kernel").transpose(2, 1, 0)
    return _activated(c, spec, _convolved(c, spec, x.tensor, W, _bias(spec), _one(spec, "groups", 1)))


def _depthwise(kernel: Array) -> Array:
    """[C * M, 1, K] of [K, C, M]: M outputs of each channel, side by side."""
    return kernel.transpose(1, 2, 0).reshape(-1, 1, kernel.shape[0])


@handles("DepthwiseConv1D")
def _depthwise_conv1d(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x, kernel = only(spec, inputs), _kernel(spec, "kernel")
    return _activated(c, spec, _convolved(c, spec, x.tensor, _depthwise(kernel), _bias(spec), kernel.shape[1]))


@handles("SeparableConv1D", "SeparableConvolution1D")
def _separable_conv1d(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x, depthwise = only(spec, inputs), _kernel(spec, "depthwise_kernel")
    pointwise = _kernel(spec, "pointwise_kernel")
    if len(pointwise) != 1:
        raise ExportError(f"pointwise_kernel has the shape {list(pointwise.shape)}, expected [1, channels, filters]")
    y = _convolved(c, spec, x.tensor, _depthwise(depthwise), None, depthwise.shape[1])
    time, channels = _axes(spec, x.tensor)
    order = [0, time, channels]
    y = c.graph.dense(y.permute(order), pointwise[0].T, _bias(spec)).permute(order)
    return _activated(c, spec, y)


@handles("ZeroPadding1D")
def _zero_padding(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    left, right = _sides(spec, "padding")
    return _padded(c, spec, only(spec, inputs).tensor, left, right)


@handles("Cropping1D")
def _cropping(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    left, right = _sides(spec, "cropping")
    return _padded(c, spec, only(spec, inputs).tensor, -left, -right)


def _sides(spec: Spec, name: str) -> tuple[int, int]:
    value = spec.option(name, 1)
    left, right = (value, value) if isinstance(value, int) else value
    return int(left), int(right)


def _padded(c: Context, spec: Spec, t: Tensor, left: int, right: int) -> Value:
    time, _ = _axes(spec, t)
    if _is_table(t, time):
        return Value(padded_features(c, t, time, left, right))
    _read_as_data(c, spec, t)
    return Value(over_time.padded(c.graph, c.sizes, t, time, left, right))


# ---- one value per sequence


@handles("GlobalAveragePooling1D", "GlobalAvgPool1D")
def _mean(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    time, _ = _axes(spec, x.tensor)
    if _is_table(x.tensor, time):
        return Value(operations.mean(c, x.tensor, [time], bool(spec.option("keepdims", False))))
    if x.masked and goes_back(x.tensor.dims[time]):
        raise ExportError("it reads a reversed sequence with a mask, and Keras does not reverse the mask")
    if c.masks.sources:
        c.masks.read(spec, x)
    if c.steps is not None and over_time.is_weighted(
        c.graph, x.tensor
    ):  # a weighted sum, divided by the number of steps
        c.exact_every(0)
        y = c.graph.affine(over_time.summed(c.graph, x.tensor, time), 1 / x.tensor.shape(c.sizes)[time], 0.0)
        return Value(y.unsqueeze(time) if spec.option("keepdims", False) else y)
    return _pooled(c, spec, x.tensor, "mean")


@handles("GlobalMaxPooling1D", "GlobalMaxPool1D")
def _max(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    """Keras takes the maximum over padding too."""
    t = only(spec, inputs).tensor
    _read_as_data(c, spec, t)
    return _pooled(c, spec, t, "max")


def _pooled(c: Context, spec: Spec, t: Tensor, operation: str) -> Value:
    time, _ = _axes(spec, t)
    y = over_time.pooled(c.graph, t, time, operation)
    return Value(y.unsqueeze(time) if spec.option("keepdims", False) else y)


@handles("AveragePooling1D", "AvgPool1D")
def _average_pooling(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    return _pooling(c, spec, only(spec, inputs).tensor, "mean")


@handles("MaxPooling1D", "MaxPool1D")
def _max_pooling(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    return _pooling(c, spec, only(spec, inputs).tensor, "max")


def _pooling(c: Context, spec: Spec, t: Tensor, operation: str) -> Value:
    axis, _ = _axes(spec, t)
    taps = _one(spec, "pool_size", 2)
    stride = _one(spec, "strides", taps)
    if _is_table(t, axis):
        return Value(pooled_features(c, spec, t, axis, taps, stride, operation))
    _read_as_data(c, spec, t)
    return Value(pooled_steps(c, spec, t, axis, taps, stride, operation))


@handles("Dot")
def _dot(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    """Over the time, of weights and values: attention pooling."""
    if len(inputs) != 2:
        raise ExportError(f"it reads {len(inputs)} values, expected 2")
    tensors = [value.tensor for value in inputs]
    given = spec.option("axes", 0)
    axes = [operations.axis_of(t, int(a)) for t, a in zip(tensors, [given] * 2 if isinstance(given, int) else given)]
    if any(t.rank != 3 or t.dims[0] != ("B",) or axis == 0 for t, axis in zip(tensors, axes)):
        raise AxisError(
            f"it multiplies {tensors[0]} and {tensors[1]} along the axes {axes}; expected [batch, ...] of rank 3"
        )
    if not all(is_time(t.dims[axis]) for t, axis in zip(tensors, axes)):
        raise ExportError(
            f"it multiplies along axis {axes[0]} of {tensors[0]} and axis {axes[1]} of {tensors[1]}; supported is the time of "
            "both, where one is a softmax over it (attention pooling)"
        )
    if spec.option("normalize", False):
        raise ExportError("normalize=True divides by the length of a vector over the time")
    for t in tensors:
        _read_as_data(c, spec, t)
    a, b = tensors
    a = a.permute([0, 3 - axes[0], axes[0]])  # [batch, M, time]
    b = b.permute([0, axes[1], 3 - axes[1]])  # [batch, time, N]
    return Value(operations.matrix_product(c, a, b))


# ---- normalisation over the features


@handles("LayerNormalization")
def _layer_normalization(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    if spec.option("rms_scaling", False):
        raise ExportError(
            "rms_scaling=True divides by the deviation without taking the mean away, which is neither a layer normalisation nor "
            "one by the root mean square (RMSNormalization)"
        )
    gamma = spec.array("gamma") if spec.option("scale", True) else 1.0
    beta = spec.array("beta") if spec.option("center", True) else 0.0
    return x.but(_normalised(c, spec, x.tensor, gamma, beta, 1e-3, rms=False))


@handles("RMSNormalization")
def _rms_normalization(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    return x.but(_normalised(c, spec, x.tensor, spec.array("scale"), 0.0, 1e-6, rms=True))


@handles("GroupNormalization")
def _group_normalization(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    t = x.tensor
    if t.rank != 2 or not is_features(t.dims[1]):
        raise ExportError(
            f"it reads {t} and takes mean and variance over all axes but the batch; only over the features is supported "
            "([batch, features], or LayerNormalization at each step)"
        )
    size = t.ids.size
    groups = int(spec.option("groups", 32))
    groups = size if groups == -1 else groups
    gamma = spec.array("gamma") if spec.option("scale", True) else np.ones(size)
    beta = spec.array("beta") if spec.option("center", True) else np.zeros(size)
    grouped = t.reshape([c.sizes["B"], groups, size // groups], c.sizes)
    y = c.graph.norm(grouped, [2], epsilon=float(spec.option("epsilon", 1e-3)))
    y = y.reshape([c.sizes["B"], size], c.sizes)
    return x.but(operations.affine(c, operations.affine(c, y, gamma, 0.0), 1.0, beta))


def _normalised(c: Context, spec: Spec, t: Tensor, scale: Any, shift: Any, epsilon: float, rms: bool) -> Tensor:
    given = spec.option("axis", -1)
    axes = [operations.axis_of(t, int(a)) for a in (given if isinstance(given, (list, tuple)) else [given])]
    scale, shift = (np.asarray(a, np.float64) for a in (scale, shift))
    return c.graph.norm(t, sorted(axes), scale, shift, epsilon=float(spec.option("epsilon", epsilon)), rms=rms)
