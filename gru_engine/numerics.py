# SPDX-License-Identifier: Apache-2.0
"""float32 arithmetic of docs/NUMERICS.md in NumPy, bit for bit, without compiled code.

It computes the tables of folded embeddings when a file is written, and is an independent check of the kernels. Weights of
a file that are not float32 are those of ``gru_engine.precision``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

CHAINS = {1: 4, 2: 2, 3: 1, 4: 1}
"""Number of interleaved chains per output, for each number of gates."""

_BLOCK = 1 << 15  # sums that are computed together: their temporaries stay in the cache


def fma32(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> Float32:
    """The sum a * b + c with one rounding, for float32 arrays of any shapes that broadcast.

    The product of two float32 is exact in float64, the sum is rounded to odd there, and rounding that to float32 is
    then the rounding of the exact result (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved
    algorithms using rounding to odd", IEEE Transactions on Computers 57(4), 2008): 53 bits are more than 24 + 2, in the
    subnormals as well.

    Raises
    ------
    TypeError
        If an argument is no float32.
    """
    a, b, c = np.asarray(a), np.asarray(b), np.asarray(c)
    for x in (a, b, c):
        if x.dtype != np.float32:
            raise TypeError(f"fma32 needs float32 arrays, got {x.dtype}")
    with np.errstate(all="ignore"):  # overflow to infinity and NaN are results like others
        product = a.astype(np.float64) * b
        return np.asarray(_add_to_odd(product, c.astype(np.float64)).astype(np.float32))


def _add_to_odd(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The sum a + b in float64, rounded to odd: where it is not exact, the neighbour whose last bit is 1."""
    total = np.atleast_1d(a + b)
    # Knuth's two-sum: error = a + b - total, exactly; NaN where total is infinite or NaN.
    b_part = total - a
    error = (a - (total - b_part)) + (b - b_part)
    bits = total.view(np.int64)
    even = (bits & 1) == 0
    away = (error > 0) == (total > 0)  # the exact result is farther from zero than total
    bits += np.where(even & ((error > 0) | (error < 0)), np.where(away, 1, -1), 0)
    return total.reshape(np.broadcast_shapes(a.shape, b.shape))


def sums(bias: Float32, matrix: Float32, x: Float32) -> Float32:
    """``sums(b, M, x)`` of docs/NUMERICS.md, section 1, for rows of inputs.

    Parameters
    ----------
    bias : float32 [G, H]
    matrix : float32 [G, H, K]
    x : float32 [N, K]

    Returns
    -------
    float32 [N, G, H]

    Raises
    ------
    ValueError
        If the shapes do not fit or G is not 1 to 4.
    """
    gates, width, columns = matrix.shape
    if gates not in CHAINS or bias.shape != (gates, width) or x.ndim != 2 or x.shape[1] != columns:
        raise ValueError(
            "sums needs bias [G, H], matrix [G, H, K] and x [N, K] with G = 1 to 4, "
            f"got {bias.shape}, {matrix.shape} and {x.shape}"
        )
    result = np.empty((len(x), gates, width), np.float32)
    step = max(1, _BLOCK // (gates * width))
    for start in range(0, len(x), step):
        result[start : start + step] = _sums_of_block(bias, matrix, x[start : start + step])
    return result


def _sums_of_block(bias: Float32, matrix: Float32, x: Float32) -> Float32:
    gates, width, columns = matrix.shape
    count = CHAINS[gates]
    chains = np.zeros((count, len(x), gates, width), np.float32)
    chains[0] = bias
    by_column = np.ascontiguousarray(np.moveaxis(matrix, 2, 0))
    for k in range(columns):
        chains[k % count] = fma32(by_column[k], x[:, k, np.newaxis, np.newaxis], chains[k % count])
    while len(chains) > 1:  # (s_0 + s_1) + (s_2 + s_3)
        with np.errstate(all="ignore"):
            chains = chains[0::2] + chains[1::2]
    return np.asarray(chains[0])


LEAST_MAGNITUDE = np.float32(2.0**-100)
"""To which at least a vector is scaled when it is rounded to int8."""

_MAGIC = np.float32(1.5 * 2**23)  # a float32 near it has no digits behind the point


def quantised(x: Float32) -> tuple[npt.NDArray[np.int8], Float32]:
    """Vectors rounded to int8 with one step each: x is about step * q (docs/NUMERICS.md, section 6).

    Parameters
    ----------
    x : float32 [N, K]

    Returns
    -------
    q : int8 [N, K]
        From -127 to 127; 0 where the step is NaN.
    step : float32 [N]
        The largest magnitude of the vector / 127; NaN where an element is NaN or infinite.
    """
    magnitude = np.maximum(np.abs(x).max(axis=1, initial=0), LEAST_MAGNITUDE)
    finite: npt.NDArray[np.bool_] = np.asarray(np.isfinite(x).all(axis=1))
    magnitude[~finite] = 1
    inverse, step = np.float32(127) / magnitude, magnitude / np.float32(127)
    shifted = fma32(np.where(finite[:, np.newaxis], x, np.float32(0)), inverse[:, np.newaxis], _MAGIC)
    step[~finite] = np.nan
    return (shifted - _MAGIC).astype(np.int8), step


def int8_sums(bias: Float32, scales: Float32, integers: npt.NDArray[np.int8], x: Float32) -> Float32:
    """``sums(b, M, x)`` of an int8 matrix, docs/NUMERICS.md, section 6, for rows of inputs.

    Parameters
    ----------
    bias : float32 [G, H]
    scales : float32 [G, H]
    integers : int8 [G, H, K]
        The matrix is scales times integers.
    x : float32 [N, K]

    Returns
    -------
    float32 [N, G, H]

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    gates, width, columns = integers.shape
    if not bias.shape == scales.shape == (gates, width) or x.ndim != 2 or x.shape[1] != columns:
        raise ValueError(
            "int8_sums needs bias and scales [G, H], integers [G, H, K] and x [N, K], "
            f"got {bias.shape}, {scales.shape}, {integers.shape} and {x.shape}"
        )
    q, step = quantised(x)
    total = np.einsum("nk,ghk->ngh", q.astype(np.float64), integers.astype(np.float64))  # integers below 2^53: exact
    with np.errstate(all="ignore"):
        factor = scales * step[:, np.newaxis, np.newaxis]
    return fma32(total.astype(np.float32), factor, bias)


def as_float32(array: npt.NDArray[Any], what: str) -> Float32:
    """The array rounded to float32.

    Raises
    ------
    ValueError
        If a finite value is beyond the range of float32; ``what`` names the array.
    """
    with np.errstate(over="ignore"):
        rounded = array.astype(np.float32)
    if not np.isfinite(rounded).all():
        position = tuple(int(i) for i in np.argwhere(~np.isfinite(rounded))[0])
        raise ValueError(f"{what} is {array[position]} at {list(position)}, beyond the range of float32")
    return rounded
