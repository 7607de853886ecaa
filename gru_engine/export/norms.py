# SPDX-License-Identifier: Apache-2.0
"""Layer normalisation that a model writes out in elementary operations.

Many exporters know no operator for it: a mean over features, a difference, its square, the mean of that, a small number added, a
square root, a quotient. Each of these steps is remembered by the ids of its result, as a ``Statistic`` of the value that is
normalised; the quotient at the end becomes a node of its own, and the steps are needed no more. Without the difference it is
the normalisation by the root mean square. Roots and reciprocals are of no other use in a network, and refused elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gru_engine.export.common import ExportError
from gru_engine.export.graph import Graph, Tensor


@dataclass(frozen=True, eq=False)
class Statistic:
    """What a value is of another one.

    ``kind`` is "mean"; "centred", the value minus its mean; "square"; "power", the mean of the squares; "root" of that;
    "inverse" of the root. From the square on, ``rms`` tells that the value was not centred, and ``epsilon``
    is what was added to the mean of the squares.
    """

    kind: str
    of: Tensor
    dims: tuple[int, ...] = ()
    rms: bool = False
    epsilon: float = 0.0


Written = dict[bytes, Statistic]
"""For the ids of a value what it is."""


def _key(t: Tensor) -> bytes:
    return t.ids.tobytes()


def note_mean(written: Written, t: Tensor, dims: Sequence[int], result: Tensor) -> None:
    """``result`` is the mean of ``t`` over some axes of features."""
    square = written.get(_key(t))
    axes = tuple(sorted(dims))
    if square is None or square.kind != "square":
        written[_key(result)] = Statistic("mean", t, axes)
    elif square.rms or square.dims == axes:
        written[_key(result)] = replace(square, kind="power", dims=axes)


def note_difference(written: Written, a: Tensor, b: Tensor, result: Tensor) -> None:
    """``result`` is ``a - b``."""
    mean = written.get(_key(b))
    if mean is not None and mean.kind == "mean" and mean.of.same(a):
        written[_key(result)] = replace(mean, kind="centred")


def note_square(written: Written, t: Tensor, result: Tensor) -> None:
    """``result`` is the square of ``t``."""
    centred = written.get(_key(t))
    if centred is not None and centred.kind == "centred":
        written[_key(result)] = replace(centred, kind="square")
    else:
        written[_key(result)] = Statistic("square", t, rms=True)


def note_sum(written: Written, t: Tensor, constant: npt.ArrayLike, result: Tensor) -> None:
    """``result`` is ``t + constant``."""
    power, value = written.get(_key(t)), np.asarray(constant)
    if power is not None and power.kind == "power" and value.size == 1 and value.item() >= 0:
        written[_key(result)] = replace(power, epsilon=power.epsilon + float(value.item()))


def variance(graph: Graph, written: Written, t: Tensor, dims: Sequence[int]) -> Tensor:
    """The variance over some axes of features, which stay with size 1: no value itself, but a part of a normalisation."""
    result = _intermediate(graph, _reduced(t, dims), "a variance")
    written[_key(result)] = Statistic("power", t, tuple(sorted(dims)))
    return result


def _reduced(t: Tensor, dims: Sequence[int]) -> Tensor:
    for dim in sorted(dims, reverse=True):
        t = t.select(dim, 0).unsqueeze(dim)
    return t


def _intermediate(graph: Graph, t: Tensor, what: str) -> Tensor:
    refusal = f"{what} is supported only as a part of a layer normalisation over features"
    return graph.pointwise("intermediate", [t], {}, kind="statistic", refusal=refusal)


def root(graph: Graph, written: Written, t: Tensor, inverse: bool = False) -> Tensor:
    """The square root of a mean of squares, or the inverse of the root."""
    power = written.get(_key(t))
    if power is None or power.kind != "power":
        raise ExportError("a square root is supported only as a part of a layer normalisation over features")
    result = _intermediate(graph, t, "a square root")
    written[_key(result)] = replace(power, kind="inverse" if inverse else "root")
    return result


def reciprocal(graph: Graph, written: Written, t: Tensor) -> Tensor:
    """``1 / t``, of a root."""
    found = written.get(_key(t))
    if found is None or found.kind != "root":
        raise ExportError("the reciprocal of a value that depends on the input is not supported")
    result = _intermediate(graph, t, "a reciprocal")
    written[_key(result)] = replace(found, kind="inverse")
    return result


def normalised(graph: Graph, written: Written, a: Tensor, b: Tensor, kind: str) -> Tensor | None:
    """If it is one, the normalisation ``a / b`` (``kind`` "root") or ``a * b`` ("inverse")."""
    found = written.get(_key(b))
    if found is None or found.kind != kind:
        return None
    if not found.rms:
        centred = written.get(_key(a))
        fits = centred is not None and centred.kind == "centred" and centred.dims == found.dims
        if not (centred and fits and centred.of.same(found.of) and a.dims == found.of.dims):
            return None
    elif not a.same(found.of):
        return None
    return graph.norm(found.of, found.dims, epsilon=found.epsilon, rms=found.rms)
