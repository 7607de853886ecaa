# SPDX-License-Identifier: Apache-2.0
"""Convolutions and pooling with axes of features beside the time, as of spectra: a plane of time and frequency.

Along the time they are ``gru_engine.export.over_time``; along an axis of features all places are known, so each place of the
result reads features of its own: a product with the same kernel at each, in which what is padding does not occur.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from gru_engine.export import over_time
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import AxisError, Tensor, axis_text, cat, is_features
from gru_engine.export.operations import Context

_MOST_WEIGHTS = 1 << 26
Pad = tuple[int, int]
Pads = Sequence[Pad]


def _spatial(t: Tensor, number: int, what: str) -> tuple[list[int], list[int]]:
    """Which of the axes behind the channels are the time, and which are features."""
    if t.rank != number + 2:
        raise AxisError(
            f"{what} over {number} axes reads {t}, expected [batch, channels, {'time' if number == 1 else '...'}]"
        )
    times = [axis for axis in range(number) if over_time.is_time(t.dims[2 + axis])]
    others = [axis for axis in range(number) if axis not in times]
    for axis in others:
        if not is_features(t.dims[2 + axis]):
            raise AxisError(f"{what} is along axis {2 + axis} of {t}, {axis_text(t.dims[2 + axis])}")
    if len(times) > 1:
        raise AxisError(f"{what} has two time axes in {t}")
    return times, others


def places(size: int, taps: int, pads: Sequence[int], dilation: int, stride: int) -> list[list[tuple[int, int]]]:
    """For each place of the result the taps that are no padding, and where they read."""
    count = (size + sum(pads) - (taps - 1) * dilation - 1) // stride + 1
    if count < 1:
        raise ExportError(f"a kernel of {taps} taps does not fit an axis of {size}")
    found = []
    for place in range(count):
        read = [(tap, place * stride - pads[0] + tap * dilation) for tap in range(taps)]
        found.append([(tap, at) for tap, at in read if 0 <= at < size])
    return found


def convolution(
    c: Context,
    t: Tensor,
    W: Array,
    b: Array | None,
    *,
    padding: Pads,
    dilation: Sequence[int],
    stride: Sequence[int],
    groups: int,
) -> Tensor:
    """A convolution, cross-correlation, of [batch, channels, axes ...] with the kernel [O, I / groups, taps ...].

    Raises
    ------
    AxisError
        If the axes behind the channels are not the time, and features.
    """
    number = W.ndim - 2
    times, others = _spatial(t, number, "a convolution")
    if not is_features(t.dims[1]):
        raise AxisError(f"the channels of a convolution are axis 1 of {t}, {axis_text(t.dims[1])}")
    if times and all(W.shape[2 + a] == 1 and not any(padding[a]) and stride[a] == 1 for a in others):
        kernel = W.reshape(*W.shape[:2], W.shape[2 + times[0]])
        return _along(c, t, kernel, b, times[0], padding, dilation, stride, groups)
    read = [places(t.shape(c.sizes)[2 + a], W.shape[2 + a], padding[a], dilation[a], stride[a]) for a in others]
    if math.prod(map(len, read)) * W.size > _MOST_WEIGHTS:
        raise ExportError(
            f"a convolution with the kernel {list(W.shape)} at {' x '.join(str(len(p)) for p in read)} places"
        )
    order = [0, *(2 + a for a in times), 1, *(2 + a for a in others)]
    moved = t.permute(order)
    first = 2 + len(times)  # the first of the other axes
    kernel = W.transpose([0, 1, *(2 + a for a in others), *(2 + a for a in times)])
    results = []
    for place in itertools.product(*read):
        part, own = moved, kernel
        for i, taps in enumerate(place):
            taps = taps or [(0, 0)]
            own = own.take([tap for tap, _ in taps], 2 + i) * bool(place[i])
            part = part.take(first + i, np.array([at for _, at in taps]))
        shape = part.shape(c.sizes)
        flat = part.reshape([*shape[: first - 1], math.prod(shape[first - 1 :])], c.sizes)
        own = own.reshape(W.shape[0], -1, *(W.shape[2 + a] for a in times))
        if times:
            along = flat.permute([0, 2, 1])
            result = _along(c, along, own, b, 0, [padding[a] for a in times], [dilation[a] for a in times],
                            [stride[a] for a in times], groups)  # fmt: skip
        else:
            result = _product(c, flat, own, b, groups)
        results.append(result.unsqueeze(result.rank))
    stacked = cat(results, results[0].rank - 1)  # [batch, outputs, time, places]
    counts = [len(p) for p in read]
    shape = stacked.shape(c.sizes)
    stacked = stacked.reshape([*shape[:-1], *counts], c.sizes)
    axes = [0, 1, *(2 + a for a in times), *(2 + a for a in others)]
    return stacked.permute(np.argsort(axes).tolist())


def _along(
    c: Context, t: Tensor, W: Array, b: Array | None, axis: int, padding: Pads, dilation: Sequence[int],
    stride: Sequence[int], groups: int,
) -> Tensor:  # fmt: skip
    return over_time.conv1d(
        c.graph, c.sizes, t, W, b, channels=1, time=2 + axis, padding=padding[axis], dilation=dilation[axis],
        groups=groups, stride=stride[axis],
    )  # fmt: skip


def _product(c: Context, t: Tensor, W: Array, b: Array | None, groups: int) -> Tensor:
    """A product along the last axis with the matrices of groups of the features."""
    if groups == 1:
        return c.graph.dense(t, W, b)
    size = t.shape(c.sizes)[-1] // groups
    parts = [t.take(t.rank - 1, slice(g * size, (g + 1) * size)) for g in range(groups)]
    biases = [None] * groups if b is None else np.split(b, groups)
    return cat([c.graph.dense(*part) for part in zip(parts, np.split(W, groups), biases)], t.rank - 1)


def mean_pool(
    c: Context, t: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Pads, divisor: int | None = None
) -> Tensor:
    """The means of windows over the axes behind the channels, padding counted as zeros."""
    _spatial(t, len(kernel), "pooling")
    channels = t.shape(c.sizes)[1]
    weight = np.full((channels, 1, *kernel), 1 / (divisor or math.prod(kernel)))
    return convolution(c, t, weight, None, padding=padding, dilation=[1] * len(kernel), stride=stride, groups=channels)


def largest_pool(
    c: Context, t: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Pads, dilation: Sequence[int]
) -> Tensor:
    """The maxima of windows over the axes behind the channels; what is padding does not count."""
    times, others = _spatial(t, len(kernel), "pooling")
    for a in others:
        size = t.shape(c.sizes)[2 + a]
        found = places(size, kernel[a], padding[a], dilation[a], stride[a])
        # A tap that is padding reads what another one reads too, which changes no maximum.
        read = np.array([[dict(taps).get(tap, taps[0][1]) for taps in found] for tap in range(kernel[a])])
        t = _largest(c, [t.take(2 + a, at) for at in read])
    for a in times:
        span = (kernel[a] - 1) * dilation[a]
        if any(padding[a]):
            raise ExportError(f"a maximum over windows of the time with padding ({padding[a][0]}, {padding[a][1]})")
        if kernel[a] == stride[a] == 1:
            continue
        steps = range(0, span + 1, dilation[a])
        parts = [over_time.part_of_steps(c.graph, c.sizes, t, 2 + a, i, stride[a], span - i) for i in steps]
        t = _largest(c, parts)
    return t


def _largest(c: Context, tensors: Sequence[Tensor]) -> Tensor:
    result = tensors[0]
    for t in tensors[1:]:
        result = c.graph.extremum(result, t, largest=True)
    return result
