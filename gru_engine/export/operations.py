# SPDX-License-Identifier: Apache-2.0
"""What operations mean for tensors of known axes, whatever framework they come from.

The exporters that follow a model operation by operation share this: constants beside values, slices, initial states, activations
that the engine does not have by itself but that are exactly made of others. Constants are NumPy arrays here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import AxisError, Dim, Graph, Ids, Tensor, axis_text, cat, is_features

SELU = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
"""alpha and scale of the SELU activation."""

_LARGEST = float(np.finfo(np.float32).max)
_WIDE = 16.0  # widest interval whose values may be rounded to its width's precision


@dataclass
class Context:
    """The graph in the making, and the example sizes of batch and time.

    ``absolute`` and ``one_more`` remember, by their ids, which tensors are abs(x) and abs(x) + 1 of which x.
    """

    graph: Graph
    sizes: dict[str, int]
    absolute: dict[bytes, Tensor] = field(default_factory=dict)
    one_more: dict[bytes, Tensor] = field(default_factory=dict)


def axis_of(t: Tensor, dim: int) -> int:
    """The number of an axis that may be counted from the end."""
    return dim % t.rank if t.rank else 0


def variable(value: Any, what: str) -> Tensor:
    """The value, which must depend on the input."""
    if not isinstance(value, Tensor):
        raise ExportError(f"{what} is a constant")
    return value


def all_variable(values: Sequence[Any], what: str) -> list[Tensor]:
    """The values, all of which must depend on the input."""
    for value in values:
        if not isinstance(value, Tensor):
            raise ExportError(f"{what} joins a constant to values that depend on the input")
    return list(values)


# ---- constants beside values


def beside(c: Context, t: Tensor, constant: npt.ArrayLike) -> tuple[Tensor, Array]:
    """A tensor and a constant broadcast to each other: the constant as an array that fits ``ids``."""
    value = np.asarray(constant)
    rank = max(t.rank, value.ndim)
    own = [()] * (rank - t.rank) + list(t.dims)
    value = value.reshape((1,) * (rank - value.ndim) + value.shape)
    dims, shape = [], []
    for axis, dim in enumerate(own):
        if not is_features(dim):
            if not (value == value.take([0], axis)).all():
                raise ExportError(f"a constant that is combined with {t} differs along the {axis_text(dim)} axis")
            value = value.take([0], axis)
        elif not dim and value.shape[axis] in c.sizes.values():
            raise AxisError(f"a constant repeats {t} over batch or time")
        elif not dim and value.shape[axis] > 1:
            dim = (value.shape[axis],)
        dims.append(dim)
        shape += [value.shape[axis] if is_features(dim) else 1 for f in dim if isinstance(f, int)]
    return t.expand(dims), value.reshape(shape)


def affine(c: Context, t: Tensor, scale: npt.ArrayLike, shift: npt.ArrayLike) -> Tensor:
    """``t * scale + shift``, of which at most one is more than a number."""
    t, scale = beside(c, t, scale)
    t, shift = beside(c, t, shift)
    return c.graph.affine(t, scale, shift)


def plus(c: Context, t: Tensor, constant: npt.ArrayLike) -> Tensor:
    """``t + constant``."""
    total = affine(c, t, 1.0, constant)
    value = np.asarray(constant)
    if value.size == 1 and value.item() == 1 and t.ids.tobytes() in c.absolute:
        c.one_more[total.ids.tobytes()] = c.absolute[t.ids.tobytes()]
    return total


def quotient(c: Context, a: Any, b: Tensor) -> Tensor:
    """``a / b``: softsign, written as x / (|x| + 1), is the only quotient there is."""
    source = c.one_more.get(b.ids.tobytes())
    if source is not None and isinstance(a, Tensor) and np.array_equal(source.ids, a.ids):
        return c.graph.activation(source, "softsign")
    raise ExportError("a division by a value that depends on the input is not supported")


def normalised(c: Context, t: Tensor, statistics: tuple[Array, Array], weight: Any, bias: Any, eps: float) -> Tensor:
    """Batch normalisation over axis 1 with fixed mean and variance; ``weight`` and ``bias`` may be None."""
    if t.rank < 2 or not is_features(t.dims[1]):
        kind = axis_text(t.dims[1]) if t.rank > 1 else "missing"
        raise AxisError(f"batch normalisation is over axis 1, which is {kind} in {t}; it must be the features")
    mean, variance = (np.asarray(a, np.float64) for a in statistics)
    scale = (1 if weight is None else np.asarray(weight, np.float64)) / np.sqrt(variance + eps)
    shift = (0 if bias is None else np.asarray(bias, np.float64)) - mean * scale
    shape = [-1 if axis == 1 else 1 for axis in range(t.rank)]
    return affine(c, affine(c, t, scale.reshape(shape), 0.0), 1.0, shift.reshape(shape))


# ---- choosing and repeating


def select(c: Context, t: Tensor, dim: int, index: int) -> Tensor:
    """One place of an axis, which disappears: a feature, or the last or the first step of the time."""
    if is_features(t.dims[dim]):
        size = t.shape(c.sizes)[dim]
        if not -size <= index < size:
            raise ExportError(f"place {index} is read of axis {dim}, which has {size}")
        return t.select(dim, index)
    return c.graph.end(t, dim, index, t.shape(c.sizes)[dim])


def sliced(c: Context, t: Tensor, dim: int, part: slice) -> Tensor:
    """A part of an axis: some features; of another axis all of it, all of it reversed, or one end."""
    size = t.shape(c.sizes)[dim]
    start, stop, step = part.indices(size)
    if is_features(t.dims[dim]):
        return t.take(dim, slice(start, None if stop < 0 else stop, step))
    places = range(start, stop, step)
    if places == range(size):
        return t
    if places == range(size - 1, -1, -1):
        return c.graph.flip(t, dim)
    if len(places) == 1 and t.dims[dim] in (("T",), ("R",)) and places[0] in (0, size - 1):
        return c.graph.end(t, dim, places[0], size).unsqueeze(dim)
    raise ExportError(
        f"a part of the {axis_text(t.dims[dim])} axis is taken ({start}:{stop}:{step}), only features can be"
    )


def parts(c: Context, t: Tensor, sizes: Sequence[int], dim: int) -> list[Tensor]:
    """Pieces of the given sizes along an axis of features."""
    dim, start, pieces = axis_of(t, dim), 0, []
    if not is_features(t.dims[dim]) and len(sizes) > 1:
        raise ExportError(f"the {axis_text(t.dims[dim])} axis is split; only features can be")
    if not is_features(t.dims[dim]):
        return [t]
    for size in sizes:
        pieces.append(t.take(dim, slice(start, start + size)))
        start += size
    return pieces


def expanded(c: Context, t: Tensor, sizes: Sequence[int]) -> Tensor:
    """Axes of size 1 repeated to the given sizes; 1 and -1 leave an axis as it is, missing axes are added in front."""
    for _ in range(len(sizes) - t.rank):
        t = t.unsqueeze(0)
    have = t.shape(c.sizes)
    sizes = [1] * (t.rank - len(sizes)) + list(sizes)
    wanted = [n if size in (-1, 1) else size for n, size in zip(have, sizes)]
    if any(size in c.sizes.values() for n, size in zip(have, wanted) if size != n):
        raise AxisError(f"{t} is repeated over batch or time")
    return t.expand([d if size == n else (size,) for d, n, size in zip(t.dims, have, wanted)])


def repeated(c: Context, t: Tensor, repeats: Sequence[int]) -> Tensor:
    """Axes of features repeated as a whole; missing axes are added in front."""
    for _ in range(len(repeats) - t.rank):
        t = t.unsqueeze(0)
    for dim, n in enumerate([1] * (t.rank - len(repeats)) + list(repeats)):
        if n != 1:
            if n in c.sizes.values():
                raise AxisError(f"{t} is repeated over batch or time")
            t = cat([t] * n, dim)
    return t


def total(c: Context, t: Tensor, dims: Sequence[int] | None, keepdim: bool) -> tuple[Tensor, int]:
    """The sum over the given axes of features (None: all), and the number of terms."""
    terms = 1
    for dim in sorted({axis_of(t, d) for d in (range(t.rank) if dims is None else dims)}, reverse=True):
        if not is_features(t.dims[dim]):
            raise ExportError(f"a sum or mean over the {axis_text(t.dims[dim])} axis is not supported (of the time, only the "
                              "last and the first step can be taken)")  # fmt: skip
        terms *= t.shape(c.sizes)[dim]
        t = c.graph.sum(t, dim)
        t = t.unsqueeze(dim) if keepdim else t
    return t, terms


# ---- initial states


def initial_states(c: Context, hx: Any, batch: Dim) -> tuple[list[Array | None], list[Ids | None]]:
    """The initial states of all layers and directions: constants, or ids of a state that is an input. hx is [L*D, B, H]."""
    if isinstance(hx, Tensor):
        if hx.rank != 3 or hx.dims[1] != batch or not is_features(hx.dims[0]):
            raise AxisError(f"the initial state of a GRU is {hx}, expected [layers, {axis_text(batch)}, units]")
        ids, _ = hx.spread(0)
        numbers = c.graph.node_numbers(ids.reshape(-1))
        if any(c.graph.nodes[n].operation != "state" for n in np.unique(numbers)):
            raise ExportError(
                "the initial state of a GRU is computed from the input; export the two parts (such as encoder and decoder) by "
                "themselves and pass the state between them"
            )
        rows = [row.reshape(-1) for row in ids]
        return [None] * len(rows), list(rows)
    states = np.asarray(hx)
    if not (states == states[:, :1]).all():
        raise ExportError("the initial state of a GRU is a constant that differs along the batch axis")
    return [row if row.any() else None for row in states[:, 0]], [None] * len(states)


# ---- activations made of others


def absolute(c: Context, t: Tensor) -> Tensor:
    """|t|."""
    negative = c.graph.activation(c.graph.affine(t, -1.0, 0.0), "relu")
    result = c.graph.add(c.graph.activation(t, "relu"), negative)  # one of them is zero, so exactly
    c.absolute[result.ids.tobytes()] = t
    return result


def power(c: Context, t: Tensor, exponent: Any) -> Tensor:
    """``t ** exponent`` for 1, 2 and 3."""
    if exponent not in (1, 2, 3):
        raise ExportError("only the powers 1, 2 and 3 are supported")
    result = t
    for _ in range(int(exponent) - 1):
        result = c.graph.multiply(result, t)
    return result


def selu(c: Context, t: Tensor, alpha: float = SELU[0], scale: float = SELU[1]) -> Tensor:
    """A scaled ELU."""
    return c.graph.affine(c.graph.activation(t, ("elu", alpha)), scale, 0.0)


def celu(c: Context, t: Tensor, alpha: float) -> Tensor:
    """Alpha * elu(t / alpha)."""
    return c.graph.affine(c.graph.activation(c.graph.affine(t, 1 / alpha, 0.0), "elu"), alpha, 0.0)


def mish(c: Context, t: Tensor) -> Tensor:
    """T * tanh(softplus(t))."""
    return c.graph.multiply(t, c.graph.activation(c.graph.activation(t, "softplus"), "tanh"))


def hardswish(c: Context, t: Tensor) -> Tensor:
    """T * hard_sigmoid(t), with the slope 1/6."""
    return c.graph.multiply(t, c.graph.activation(t, ("hard_sigmoid", 1 / 6, 0.5)))


def limited(c: Context, t: Tensor, low: float | None, high: float | None) -> Tensor:
    """The values limited to an interval: a hard sigmoid of its width, or made of ReLUs; None and float32's ends are no limits."""
    low = None if low is not None and low <= -_LARGEST else low
    high = None if high is not None and high >= _LARGEST else high
    if low is not None and high is not None:
        if not high > low:
            raise ExportError(f"values are limited to the empty interval {low:g} to {high:g}")
        width = high - low
        if width > _WIDE and low <= 0 <= high:
            return _clipped(c, t, low, high)
        scaled = c.graph.activation(t, ("hard_sigmoid", 1 / width, -low / width))
        return c.graph.affine(scaled, width, low)
    if low is not None:
        return c.graph.activation(t, "relu") if low == 0 else _shifted_relu(c, t, 1.0, low)
    return t if high is None else _shifted_relu(c, t, -1.0, high)


def _clipped(c: Context, t: Tensor, low: float, high: float) -> Tensor:
    """The values limited to an interval that holds 0: exactly, which a hard sigmoid of a great width is not.

    What is beyond a limit is subtracted, which leaves exactly zero, and the limit put in its place.
    """
    result = t
    for sign, limit in ((1.0, high), (-1.0, -low)):
        if limit == 0:
            signed = c.graph.affine(result, sign, 0.0)
            result = c.graph.affine(c.graph.activation(c.graph.affine(signed, -1.0, 0.0), "relu"), -sign, 0.0)
            continue
        over = c.graph.activation(c.graph.affine(result, sign, 0.0), ("thresholded_relu", limit))
        beyond = c.graph.activation(over, ("hard_sigmoid", 2 / limit, 0.0))  # 1 where there is something, else 0
        within = c.graph.add(result, c.graph.affine(over, -sign, 0.0))
        result = c.graph.add(within, c.graph.affine(beyond, sign * limit, 0.0))
    return result


def _shifted_relu(c: Context, t: Tensor, sign: float, bound: float) -> Tensor:
    relu = c.graph.activation(c.graph.affine(t, sign, -sign * bound), "relu")
    return c.graph.affine(relu, sign, bound)


def prelu(c: Context, t: Tensor, slopes: Array) -> Tensor:
    """T where it is positive, slopes * t elsewhere; the slopes broadcast to t."""
    slopes = np.asarray(slopes)
    if slopes.size == 1:
        return c.graph.activation(t, ("leaky_relu", float(slopes.reshape(-1)[0])))
    negative = c.graph.activation(c.graph.affine(t, -1.0, 0.0), "relu")
    return c.graph.add(c.graph.activation(t, "relu"), affine(c, negative, -slopes, 0.0))
