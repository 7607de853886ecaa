# SPDX-License-Identifier: Apache-2.0
"""What operations mean for tensors of known axes, whatever framework they come from.

The exporters that follow a model operation by operation share this: constants beside values, slices, initial states, activations
that the engine does not have by itself but that are exactly made of others. Constants are NumPy arrays here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.export import gelu, norms, over_time
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import AxisError, Dim, Graph, Ids, Tensor, axis_text, cat, is_features

SELU = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
"""alpha and scale of the SELU activation."""

_LARGEST = float(np.finfo(np.float32).max)


class Handlers(dict[str, Callable[..., Any]]):
    """For each operation of a framework, by name, the function that says what it means."""

    def handles(self, *names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Enter a function, for one or several operations."""

        def register(handler: Callable[..., Any]) -> Callable[..., Any]:
            self.update(dict.fromkeys(names, handler))
            return handler

        return register


@dataclass
class Context:
    """The graph in the making, and the example sizes of batch and time.

    ``absolute`` and ``one_more`` remember, by their ids, which tensors are abs(x) and abs(x) + 1 of which x; ``written`` what
    belongs to a layer normalisation that is written out. ``states`` are those of GRU cells that may be written out; with
    ``elementary`` GRU cells are made of elementary operations, because their state is not simply what they return.
    """

    graph: Graph
    sizes: dict[str, int]
    absolute: dict[bytes, Tensor] = field(default_factory=dict)
    one_more: dict[bytes, Tensor] = field(default_factory=dict)
    written: norms.Written = field(default_factory=dict)
    states: list[Tensor] = field(default_factory=list)
    elementary: bool = False

    def snapshot(self) -> Any:
        """What ``restore`` needs to forget all that comes from here on."""
        return len(self.graph.nodes), dict(self.absolute), dict(self.one_more), dict(self.written)

    def restore(self, snapshot: Any) -> None:
        """Forget what was done since the snapshot."""
        nodes, self.absolute, self.one_more, self.written = snapshot
        self.graph.forget(nodes)


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
    norms.note_sum(c.written, t, constant, total)
    return total


def minus(c: Context, a: Tensor, b: Tensor) -> Tensor:
    """``a - b``."""
    result = c.graph.add(a, c.graph.affine(b, -1.0, 0.0))
    norms.note_difference(c.written, a, b, result)
    return result


def product(c: Context, a: Tensor, b: Tensor) -> Tensor:
    """``a * b``."""
    for x, y in ((a, b), (b, a)):
        found = norms.normalised(c.graph, c.written, x, y, "inverse")
        if found is not None:
            return found
    activated = gelu.product(c.graph, a, b)
    if activated is not None:
        return activated
    result = c.graph.multiply(a, b)
    if a.same(b):
        norms.note_square(c.written, a, result)
    return result


def matrix_product(c: Context, a: Tensor, b: Tensor) -> Tensor:
    """The product of two stacks of matrices, the inner axis of which is the time: attention pooling."""
    if min(a.rank, b.rank) < 2 or not (over_time.is_time(a.dims[-1]) and over_time.is_time(b.dims[-2])):
        raise ExportError(
            "both factors of a matrix product depend on the input; that is supported for a softmax over time and values at "
            "every step (attention pooling)"
        )
    left = a.unsqueeze(a.rank - 1)  # [..., M, 1, time]
    order = [*range(b.rank - 2), b.rank - 1, b.rank - 2]
    right = b.permute(order).unsqueeze(b.rank - 2)  # [..., 1, N, time]
    return over_time.weighted_sum(c.graph, left, right, max(left.rank, right.rank) - 1)


def einsum(c: Context, equation: str, factors: Sequence[Any]) -> Tensor:
    """A sum in Einstein's notation of two factors: with a matrix, of none of the axes, or over time (attention pooling)."""
    equation = equation.replace(" ", "")
    terms, arrow, result = equation.partition("->")
    letters = terms.split(",")
    if (
        not arrow
        or "." in equation
        or len(letters) != 2
        or any(len(set(term)) < len(term) for term in (*letters, result))
    ):
        raise ExportError(f"the sum {equation!r} is not supported, only two factors with the axes of the result named")
    ordered = sorted(zip(factors, letters), key=lambda pair: not isinstance(pair[0], Tensor))
    (first, of_first), (second, of_second) = ordered
    summed = [letter for letter in dict.fromkeys(of_first + of_second) if letter not in result]
    if not isinstance(second, Tensor):
        return _with_constant(c, equation, first, of_first, np.asarray(second), of_second, result)
    axes = [*result, *summed]
    one, other = (_with_axes(t, of, axes) for t, of in ((first, of_first), (second, of_second)))
    if not summed:
        return product(c, one, other)
    if len(summed) > 1 or not any(over_time.is_time(t.dims[-1]) for t in (one, other)):
        raise ExportError(f"the sum {equation!r} is not supported for factors that depend on the input: only over time, of a "
                          "softmax over time and values (attention pooling)")  # fmt: skip
    return over_time.weighted_sum(c.graph, one, other, len(axes) - 1)


def _with_constant(
    c: Context, equation: str, t: Tensor, letters: str, constant: Array, of_constant: str, result: str
) -> Tensor:
    """The sum of a tensor and a constant: products with matrices, one for each place of the axes that both have."""
    summed = [x for x in of_constant if x not in result]
    shared = [x for x in of_constant if x in result and x in letters]
    kept = [x for x in of_constant if x in result and x not in letters]
    others = [x for x in letters if x in result and x not in shared]
    if not kept and not summed:
        return affine(c, _with_axes(t, letters, result), _array_with_axes(constant, of_constant, result), 0.0)
    if any(x not in result and x not in summed for x in letters) or any(x not in letters for x in summed):
        raise ExportError(f"the sum {equation!r} with a constant is no product with matrices")
    sizes = dict(zip(of_constant, constant.shape))
    W = constant.transpose([of_constant.index(x) for x in (*shared, *kept, *summed)])
    W = W.reshape(math.prod(sizes[x] for x in shared), -1, math.prod(sizes[x] for x in summed))
    t = t.permute([letters.index(x) for x in (*others, *shared, *summed)])
    shape = t.shape(c.sizes)[: len(others)]
    for x, dim in zip((*shared, *summed), t.dims[len(others) :]):
        if not is_features(dim):
            raise AxisError(f"the sum {equation!r} with a constant is over {x!r}, the {axis_text(dim)} axis of {t}")
    t = t.reshape([*shape, len(W), W.shape[2]], c.sizes)
    parts = [c.graph.dense(t.select(len(others), i), W[i]).unsqueeze(len(others)) for i in range(len(W))]
    made = cat(parts, len(others)).reshape([*shape, *(sizes[x] for x in (*shared, *kept))], c.sizes)
    axes = [*others, *shared, *kept]
    return made.permute([axes.index(x) for x in result])


def _array_with_axes(array: Array, letters: str, axes: Sequence[str]) -> Array:
    array = array.transpose([letters.index(x) for x in axes if x in letters])
    shape = iter(array.shape)
    return array.reshape([next(shape) if x in letters else 1 for x in axes])


def stacked_product(c: Context, t: Tensor, stack: Array) -> Tensor:
    """``t @ stack``: a matrix for each place of some axes of features; axes are matched from the end."""
    names = [chr(ord("a") + i) for i in range(max(t.rank, stack.ndim))]
    of_t, of_stack = names[len(names) - t.rank :], names[len(names) - stack.ndim :]
    kept = [i for i, n in enumerate(stack.shape) if n > 1 or i >= stack.ndim - 2]
    missing = [of_stack[i] for i in kept[:-2] if of_stack[i] not in of_t or not t.dims[of_t.index(of_stack[i])]]
    if missing or t.rank < 2:
        raise ExportError(
            f"a product of {t} with a stack of matrices of the shape {list(stack.shape)} is not supported"
        )
    array = stack.reshape([stack.shape[i] for i in kept])
    constant = "".join([of_stack[i] for i in kept[:-2]] + [of_t[-1], "z"])
    result = "".join([*of_t[:-1], "z"])
    equation = f"{''.join(of_t)},{constant}->{result}"
    return _with_constant(c, equation, t, "".join(of_t), array, constant, result)


def _with_axes(t: Tensor, letters: str, axes: Sequence[str]) -> Tensor:
    """A tensor with the given axes in order; those that it does not have are of size 1."""
    t = t.permute([letters.index(letter) for letter in axes if letter in letters])
    for number, letter in enumerate(axes):
        t = t if letter in letters else t.unsqueeze(number)
    return t


def quotient(c: Context, a: Any, b: Tensor) -> Tensor:
    """``a / b``, of which there are two: layer normalisation, and softsign, written as x / (|x| + 1)."""
    if isinstance(a, Tensor):
        found = norms.normalised(c.graph, c.written, a, b, "root")
        if found is not None:
            return found
    elif np.asarray(a).size == 1 and np.asarray(a).item() == 1:
        return norms.reciprocal(c.graph, c.written, b)
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
    if over_time.is_stretched(t.dims[dim]):
        raise ExportError(f"one step of {axis_text(t.dims[dim])} is read by itself")
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
    if over_time.is_stretched(t.dims[dim]) and step == 1:
        return over_time.part(c.graph, c.sizes, t, dim, start, len(places))
    if places == range(size - 1, -1, -1):
        return c.graph.flip(t, dim)
    if len(places) == 1 and over_time.is_steps(t.dims[dim]) and places[0] in (0, size - 1):
        return c.graph.end(t, dim, places[0], size).unsqueeze(dim)
    if over_time.is_steps(t.dims[dim]) and step > 0 and stop > start:
        # Where batch and time have sizes of our own, a place is counted from the end that it is nearer to.
        if stop == size and step == 1 and start > size // 2:
            return over_time.last_steps(c.graph, c.sizes, t, dim, size - start)
        if start <= size // 2 and size - stop <= size // 2:
            return over_time.part_of_steps(c.graph, c.sizes, t, dim, start, step, size - stop)
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
    for dim, (n, size) in enumerate(zip(have, sizes)):
        if n == 1 != size == c.sizes["T"]:
            t = _over_time(c, t, dim)
    have = t.shape(c.sizes)
    wanted = [n if size in (-1, 1) else size for n, size in zip(have, sizes)]
    if any(size in c.sizes.values() for n, size in zip(have, wanted) if size != n):
        raise AxisError(f"{t} is repeated over batch or time")
    return t.expand([d if size == n else (size,) for d, n, size in zip(t.dims, have, wanted)])


def _over_time(c: Context, t: Tensor, dim: int) -> Tensor:
    """A value of a whole sequence at each of the input's steps, along an axis of size 1."""
    numbers = np.unique(c.graph.node_numbers(t.ids.reshape(-1)))
    steps = next((n for n in c.graph.nodes if n.per_sequence is False and n.operation not in ("tokens", "state")), None)
    if steps is None or not all(c.graph.nodes[n].per_sequence for n in numbers):
        raise AxisError(f"{t} is repeated over batch or time")
    like = Tensor((*t.dims[:dim], ("T",), *t.dims[dim + 1 :]), steps.ids[:1])
    return c.graph.repeated(t, dim, like)


def repeated(c: Context, t: Tensor, repeats: Sequence[int]) -> Tensor:
    """Axes of features repeated as a whole; missing axes are added in front."""
    for _ in range(len(repeats) - t.rank):
        t = t.unsqueeze(0)
    for dim, n in enumerate([1] * (t.rank - len(repeats)) + list(repeats)):
        if n != 1:
            if n == c.sizes["T"] and t.dims[dim] == ():
                t = _over_time(c, t, dim)
                continue
            if n in c.sizes.values():
                raise AxisError(f"{t} is repeated over batch or time")
            t = cat([t] * n, dim)
    return t


def total(c: Context, t: Tensor, dims: Sequence[int] | None, keepdim: bool) -> tuple[Tensor, int]:
    """The sum over the given axes (None: all), and the number of terms; over time, of attention pooling's products alone."""
    terms = 1
    for dim in _reduced_axes(t, dims, "a sum"):
        if over_time.is_time(t.dims[dim]):
            t = over_time.summed(c.graph, t, dim)
        else:
            terms *= t.shape(c.sizes)[dim]
            t = c.graph.sum(t, dim)
        t = t.unsqueeze(dim) if keepdim else t
    return t, terms


def _reduced_axes(t: Tensor, dims: Sequence[int] | None, what: str) -> list[int]:
    """The axes of features and of the time that a value is reduced over, from the last to the first."""
    axes = sorted({axis_of(t, d) for d in (range(t.rank) if dims is None else dims)}, reverse=True)
    for dim in axes:
        if not (is_features(t.dims[dim]) or over_time.is_time(t.dims[dim])):
            raise ExportError(f"{what} over the {axis_text(t.dims[dim])} axis is not supported")
    return axes


def mean(c: Context, t: Tensor, dims: Sequence[int] | None, keepdim: bool) -> Tensor:
    """The mean over the given axes (None: all), of features or the time."""
    axes = _reduced_axes(t, dims, "a mean")
    source, over = t, [dim for dim in axes if is_features(t.dims[dim])]
    for dim in axes:
        if not is_features(t.dims[dim]):
            t = over_time.pooled(c.graph, t, dim, "mean").unsqueeze(dim)
    if over:
        t, terms = total(c, t, over, True)
        t = c.graph.affine(t, 1 / terms, 0.0)
        if over == axes:
            norms.note_mean(c.written, source, over, t)
    return t if keepdim else t.squeeze(axes)


def largest(c: Context, t: Tensor, dims: Sequence[int] | None, keepdim: bool) -> Tensor:
    """The maximum over the time."""
    axes = _reduced_axes(t, dims, "a maximum")
    for dim in axes:
        if not over_time.is_time(t.dims[dim]):
            if t.dims[dim]:
                raise ExportError(f"a maximum over the {axis_text(t.dims[dim])} axis is not supported, only over time")
            continue
        t = over_time.pooled(c.graph, t, dim, "max").unsqueeze(dim)
    return t if keepdim else t.squeeze(axes)


def softmax(c: Context, t: Tensor, dim: int, log: bool) -> Tensor:
    """The softmax over features, or over the time, where it is the weights of attention pooling."""
    if not over_time.is_time(t.dims[dim]):
        return c.graph.softmax(t, dim, log)
    if log:
        raise ExportError("a log-softmax over time is not supported")
    return over_time.softmax(c.graph, t, dim)


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
        result = product(c, result, t)
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
    """The values limited to an interval; None and float32's ends are no limits."""
    low = -_LARGEST if low is None else max(float(low), -_LARGEST)
    high = _LARGEST if high is None else min(float(high), _LARGEST)
    if not high >= low:
        raise ExportError(f"values are limited to the empty interval {low:g} to {high:g}")
    if (low, high) == (-_LARGEST, _LARGEST):
        return t
    return c.graph.activation(t, "relu" if (low, high) == (0, _LARGEST) else ("clip", low, high))


def extremum(c: Context, values: Sequence[Any], largest: bool) -> Tensor:
    """The largest, or the smallest, of several values element by element; constants among them are numbers."""
    what = "maximum" if largest else "minimum"
    tensors = [value for value in values if isinstance(value, Tensor)]
    constants = [np.asarray(value) for value in values if not isinstance(value, Tensor)]
    for constant in constants:
        if constant.size != 1:
            raise ExportError(
                f"the {what} of a value and an array of the shape {list(constant.shape)} is not supported"
            )
        if np.isnan(constant).any():
            raise ExportError(f"the {what} of a value and NaN is NaN")
    result = tensors[0]
    for t in tensors[1:]:
        result = c.graph.extremum(result, t, largest)
    bounds = [float(constant.reshape(-1)[0]) for constant in constants]
    if largest:
        return limited(c, result, max(bounds, default=None), None)
    return limited(c, result, None, min(bounds, default=None))


def prelu(c: Context, t: Tensor, slopes: Array) -> Tensor:
    """T where it is positive, slopes * t elsewhere; the slopes broadcast to t."""
    slopes = np.asarray(slopes)
    if slopes.size == 1:
        return c.graph.activation(t, ("leaky_relu", float(slopes.reshape(-1)[0])))
    negative = c.graph.activation(c.graph.affine(t, -1.0, 0.0), "relu")
    return c.graph.add(c.graph.activation(t, "relu"), affine(c, negative, -slopes, 0.0))
