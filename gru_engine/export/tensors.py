# SPDX-License-Identifier: Apache-2.0
"""Tensors of a model that is followed: what their axes mean, which features stand in them (``gru_engine.export.graph``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.export.common import ExportError
from gru_engine.layers import Axis

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]

Factor = str | int
"""``"B"`` the batch, ``"T"`` the time, ``"R"`` the time from its end to its start, or a number of features.

``"T:2:4"`` is a time axis of ceil((T - 2) / 4) steps, behind a convolution with a stride; likewise ``"R:2:1"``. ``"T:=9"`` is one
that always has 9 steps. ``"T+4"`` and the like is a time with another number of steps, between a padding and the convolution that
removes it.
"""
Dim = tuple[Factor, ...]
"""An axis: the product of its factors, the first the slowest; () is an axis of size 1."""

_NAMES = {"B": "batch", "T": "time", "R": "reversed time"}


class AxisError(ExportError):
    """An axis has another meaning than an operation needs: batch and time may have been taken for each other."""


class SharedState(ExportError):
    """Two GRUs have the same state."""


def time_parts(factor: str) -> tuple[str, int]:
    """A time axis without what padding added to it, and how many steps that is."""
    sign = "-" if "-" in factor else "+"
    base, _, extra = factor.partition(sign)
    return base, int(sign + extra) if extra else 0


def steps_axis(factor: str) -> Axis:
    """How many steps a time axis has."""
    _, *numbers = time_parts(factor)[0].split(":")
    return Axis(steps=int(numbers[0][1:])) if numbers and numbers[0][0] == "=" else Axis(*map(int, numbers))


def subsampled(factor: str, lost: int, stride: int) -> str:
    """The time axis of every ``stride``-th of the steps of another one, without ``lost`` of them."""
    axis = steps_axis(factor).subsampled(lost, stride)
    if axis.steps is not None:
        return f"{factor[0]}:={axis.steps}"
    return factor[0] if axis == Axis() else f"{factor[0]}:{axis.lost}:{axis.stride}"


def _size(factor: Factor, sizes: dict[str, int]) -> int:
    if not isinstance(factor, str):
        return factor
    return sizes["B"] if factor == "B" else int(steps_axis(factor).count(sizes["T"])) + time_parts(factor)[1]


def _factor_text(f: Factor) -> str:
    if not isinstance(f, str):
        return f"{f} features"
    if f in _NAMES:
        return _NAMES[f]
    base, extra = time_parts(f)
    axis = "" if base in _NAMES else f" of {steps_axis(f)}"
    return f"{_NAMES[f[0]]}{axis}" + (f" {'+-'[extra < 0]} {abs(extra)} steps" if extra else "")


def axis_text(dim: Dim) -> str:
    """An axis in words."""
    return " x ".join(map(_factor_text, dim)) or "1"


def is_features(dim: Dim) -> bool:
    """Whether an axis is made of features alone."""
    return not any(isinstance(f, str) for f in dim)


def _normal(dims: Sequence[Sequence[Factor]], ids: Ids) -> tuple[tuple[Dim, ...], Ids]:
    """Adjacent numbers of features within an axis made one, ones dropped."""
    new_dims, shape = [], []
    for dim in dims:
        factors: list[Factor] = []
        for f in dim:
            if isinstance(f, str) or not (factors and isinstance(factors[-1], int)):
                factors.append(f)
            else:
                factors[-1] = int(factors[-1]) * f
        factors = [f for f in factors if f != 1]
        new_dims.append(tuple(factors))
        shape += [f for f in factors if isinstance(f, int)]
    return tuple(new_dims), ids.reshape(shape)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor: the meaning of its axes, and which features stand in it.

    Attributes
    ----------
    dims : tuple of Dim
    ids : int array
        One axis for each number of features in ``dims``, in order.
    """

    dims: tuple[Dim, ...]
    ids: Ids

    @classmethod
    def of(cls, dims: Sequence[Sequence[Factor]], ids: Ids) -> Tensor:
        """Make one in normal form: no ones, no two numbers of features side by side within an axis."""
        return cls(*_normal(dims, ids))

    def __str__(self) -> str:
        return f"[{', '.join(map(axis_text, self.dims))}]"

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.dims)

    def shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        """The shape where batch and time have the given sizes."""
        return tuple(int(np.prod([_size(f, sizes) for f in dim])) for dim in self.dims)

    def position(self, dim: int) -> int:
        """Which axis of ``ids`` the first features of axis ``dim`` are."""
        return sum(isinstance(f, int) for d in self.dims[:dim] for f in d)

    def spread(self, dim: int) -> tuple[Ids, int]:
        """``ids`` with exactly one axis for axis ``dim``, which must be features alone; and which one it is."""
        if not is_features(self.dims[dim]):
            raise AxisError(f"axis {dim} is {axis_text(self.dims[dim])} in {self}, expected features")
        axis = self.position(dim)
        return (self.ids if self.dims[dim] else np.expand_dims(self.ids, axis)), axis

    def replaced(self, dim: int, ids: Ids) -> Tensor:
        """The tensor whose axis ``dim`` is the one axis that ``ids`` has more than the others need."""
        dims = list(self.dims)
        dims[dim] = (ids.shape[self.position(dim)],)
        return Tensor.of(dims, ids)

    # ---- arrays

    def _factors(self) -> list[Factor]:
        return [f for dim in self.dims for f in dim]

    def _canonical_order(self) -> list[int]:
        """The places of batch, time and features among the factors, in this order."""
        factors = self._factors()
        rank = [0 if f == "B" else 1 if isinstance(f, str) else 2 for f in factors]
        return sorted(range(len(factors)), key=lambda i: rank[i])  # stable: features stay in order

    def unpack(self, array: Array, sizes: dict[str, int]) -> Array:
        """An array with this tensor's axes as [batch, time, features], or [batch, features] where it has no time axis."""
        factors = self._factors()
        array = array.reshape([_size(f, sizes) for f in factors])
        array = array.transpose(self._canonical_order())
        time = [f for f in factors if isinstance(f, str) and f != "B"]
        steps = [_size(f, sizes) for f in time]
        array = array.reshape([sizes["B"] if "B" in factors else 1, *steps, self.ids.size])
        return array[:, ::-1] if time and time[0][0] == "R" else array

    def pack(self, array: Array, sizes: dict[str, int]) -> Array:
        """The other way round."""
        factors = self._factors()
        array = array[:, ::-1] if "R" in factors else array
        order = self._canonical_order()
        array = array.reshape([_size(factors[i], sizes) for i in order])
        return array.transpose(np.argsort(order)).reshape(self.shape(sizes))

    # ---- moving axes

    def same(self, other: Tensor) -> bool:
        """Whether it is the same value: the same features on the same axes."""
        return self.dims == other.dims and np.array_equal(self.ids, other.ids)

    def permute(self, order: Sequence[int]) -> Tensor:
        """The axes in another order."""
        axes: list[int] = []
        for dim in order:
            start = self.position(dim)
            axes += range(start, start + sum(isinstance(f, int) for f in self.dims[dim]))
        return Tensor(tuple(self.dims[dim] for dim in order), self.ids.transpose(axes))

    def unsqueeze(self, dim: int) -> Tensor:
        """An axis of size 1 more, before axis ``dim``."""
        return Tensor((*self.dims[:dim], (), *self.dims[dim:]), self.ids)

    def squeeze(self, dims: Sequence[int]) -> Tensor:
        """The given axes left out where they have size 1."""
        return Tensor(tuple(d for i, d in enumerate(self.dims) if d or i not in dims), self.ids)

    def reshape(self, shape: Sequence[int], sizes: dict[str, int]) -> Tensor:
        """Another grouping of the same factors; batch and time stay whole, features may be divided."""
        left = [(f, _size(f, sizes)) for dim in self.dims for f in dim]
        left.reverse()
        dims: list[list[Factor]] = []
        for size in shape:
            dim: list[Factor] = []
            while size > 1:
                f, n = left.pop() if left else (0, 0)
                if n and size % n == 0:
                    dim.append(f)
                    size //= n
                elif n and isinstance(f, int) and n % size == 0:
                    dim.append(size)
                    left.append((n // size, n // size))
                    size = 1
                else:
                    raise AxisError(
                        f"{self} cannot be regrouped to the shape {list(shape)} without tearing an axis apart"
                    )
            dims.append(dim)
        numbers = [f for dim in dims for f in dim if isinstance(f, int)]
        return Tensor.of(dims, self.ids.reshape(numbers))

    # ---- choosing features

    def take(self, dim: int, indices: Any) -> Tensor:
        """Some of the features along an axis: ``indices`` is a slice, or an array of integers."""
        ids, axis = self.spread(dim)
        return self.replaced(dim, ids[(slice(None),) * axis + (indices,)])

    def select(self, dim: int, index: int) -> Tensor:
        """One feature along an axis, which disappears."""
        ids, axis = self.spread(dim)
        return Tensor((*self.dims[:dim], *self.dims[dim + 1 :]), ids[(slice(None),) * axis + (index,)])

    def expand(self, dims: Sequence[Dim]) -> Tensor:
        """Axes of size 1 repeated, so that the axes become ``dims``; missing axes are added in front."""
        own: list[Dim] = [()] * (len(dims) - self.rank) + list(self.dims)
        if len(own) != len(dims):
            raise AxisError(f"{self} has more axes than {Tensor(tuple(dims), self.ids)}")
        shape, index, axis = [], [], 0
        for have, want in zip(own, dims):
            if have != want and (have or not is_features(want)):
                repeated = "they differ"
                if not have:
                    repeated = f"a value without {axis_text(want)} cannot be repeated over it"
                elif {str(have[0])[0], str(want[0])[0]} == {"T", "R"} and str(have[0])[1:] == str(want[0])[1:]:
                    repeated = "a sequence in reversed order and one in order would meet"
                raise AxisError(f"{self} does not fit the axes {Tensor(tuple(dims), self.ids)}: {repeated}")
            for f in want:
                if isinstance(f, int):
                    shape.append(f)
                    index.append(slice(None) if have else np.newaxis)
                    axis += bool(have)
        return Tensor(tuple(dims), np.broadcast_to(self.ids[tuple(index)], shape))


def broadcast(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors with the same axes, as NumPy and all frameworks broadcast."""
    rank = max(a.rank, b.rank)
    padded = [[()] * (rank - t.rank) + list(t.dims) for t in (a, b)]
    dims = [x or y for x, y in zip(*padded)]
    return a.expand(dims), b.expand(dims)


def cat(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Tensors one after the other along an axis of features."""
    first = tensors[0]
    for t in tensors:
        others = [(*u.dims[:dim], *u.dims[dim + 1 :]) for u in (first, t)]
        if others[0] != others[1]:
            raise AxisError(f"values with the axes {first} and {t} cannot stand side by side")
    parts = [t.spread(dim) for t in tensors]
    return first.replaced(dim, np.concatenate([ids for ids, _ in parts], axis=parts[0][1]))
