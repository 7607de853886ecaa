# SPDX-License-Identifier: Apache-2.0
"""The types that the weights of a file can have, and how weights are rounded to them (docs/NUMERICS.md, section 6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.layers import Array, Layer
from gru_engine.numerics import Float32, as_float32

DTYPES = ("float32", "bfloat16", "float16", "int8")
"""The names; a type's code in a file is its place here."""
FLOAT32, BFLOAT16, FLOAT16, INT8 = range(4)

MAX_INT8_COLUMNS = 2**17
"""Of an int8 matrix: 2^17 products of -128 and 127 are less than 2^31, so that int32 sums cannot overflow."""


def as_dtype(dtype: Any) -> str:
    """The checked name of a type of weights.

    Raises
    ------
    ValueError
        If it is none.
    """
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(repr, DTYPES))}, got {dtype!r}")
    return dtype


def rounded(weights: Array, dtype: str, what: str) -> Array:
    """The values that a matrix of weights has in a file.

    Parameters
    ----------
    weights : float32 or float64 [..., rows, columns]
    dtype : {"float32", "bfloat16", "float16", "int8"}
    what : str
        What to call the matrix in an error message.

    Returns
    -------
    float32 [..., rows, columns]
        Of int8: float64, which holds the product of a scale and an int8 exactly.

    Raises
    ------
    ValueError
        If a weight is beyond the range of the type, or an int8 matrix has too many columns.
    """
    if dtype == "int8":
        scales, integers = to_int8(weights, what)
        return from_int8(scales, integers)
    if dtype == "bfloat16":
        return from_bfloat16(to_bfloat16(weights, what))
    return as_float32(weights, what) if dtype == "float32" else from_float16(to_float16(weights, what))


def rounded_layer(layer: Layer, one_hot: bool, dtype: str) -> Layer:
    """The layer with its weights rounded: matrices to the type, everything else to float32.

    Parameters
    ----------
    layer : Layer
    one_hot : bool
        Whether it reads tokens, so that W is a table of sums, which stays float32.
    dtype : {"float32", "bfloat16", "float16", "int8"}

    Raises
    ------
    ValueError
        As ``rounded`` does.
    """
    arrays: dict[str, Any] = {}
    for name, array in layer.arrays.items():
        matrix = name == "U" or (name == "W" and not one_hot)
        arrays[name] = rounded(array, dtype if matrix else "float32", called(layer, name))
        arrays[name].setflags(write=False)
    return replace(layer, **arrays)


def called(layer: Layer, name: str) -> str:
    """One of a layer's arrays, for a message."""
    return f"{name} of {layer.operation} {layer.name!r}"


# ---- one type each: what is stored, and back


def to_bfloat16(weights: Array, what: str) -> npt.NDArray[np.uint16]:
    """The upper halves of the bits of float32 numbers, rounded to nearest, ties to even.

    Parameters
    ----------
    weights : float32, or float64, which is rounded to float32 first
    what : str
        What to call the array in an error message.

    Raises
    ------
    ValueError
        If a number becomes infinite.
    """
    # Adding to the bits of a float32 carries into the exponent as rounding up must. A NaN cannot come here.
    bits = as_float32(weights, what).view(np.uint32)
    halves = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    _check_finite(weights, from_bfloat16(halves), what, "bfloat16")
    return halves


def from_bfloat16(halves: npt.NDArray[np.uint16]) -> Float32:
    """The float32 numbers whose upper halves these are; exact."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def to_float16(weights: Array, what: str) -> npt.NDArray[np.float16]:
    """The nearest float16 of float32 numbers, ties to even, subnormals kept.

    Parameters
    ----------
    weights : float32, or float64, which is rounded to float32 first
    what : str
        What to call the array in an error message.

    Raises
    ------
    ValueError
        If a number becomes infinite.
    """
    with np.errstate(all="ignore"):
        halves = as_float32(weights, what).astype(np.float16)
    _check_finite(weights, halves, what, "float16")
    return halves


def from_float16(halves: npt.NDArray[np.float16]) -> Float32:
    """The same numbers as float32; exact."""
    with np.errstate(invalid="ignore"):  # a file may hold what is not a number
        return halves.astype(np.float32)


def to_int8(weights: Array, what: str) -> tuple[Float32, npt.NDArray[np.int8]]:
    """A scale for each row, and the multiples of it that are nearest to the weights, from -127 to 127.

    Parameters
    ----------
    weights : float32 or float64 [..., rows, columns]
    what : str
        What to call the matrix in an error message.

    Returns
    -------
    scales : float32 [..., rows]
        The largest magnitude of the row / 127.
    integers : int8 [..., rows, columns]

    Raises
    ------
    ValueError
        If there are more than ``MAX_INT8_COLUMNS`` columns, or a weight is beyond the range of float32.
    """
    if weights.shape[-1] > MAX_INT8_COLUMNS:
        raise ValueError(f"{what} has {weights.shape[-1]} columns; an int8 matrix has at most {MAX_INT8_COLUMNS}")
    as_float32(weights, what)
    wide = weights.astype(np.float64)
    scales = (np.abs(wide).max(axis=-1) / 127).astype(np.float32)
    # A row that is zero, or so small that its scale is, is divided by 1 and becomes zeros.
    divisors = np.where(scales > 0, scales, np.float32(1)).astype(np.float64)
    integers = np.clip(np.rint(wide / divisors[..., np.newaxis]), -127, 127).astype(np.int8)
    return scales, integers


def from_int8(scales: Float32, integers: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """Scale times integer, exactly, in float64."""
    with np.errstate(invalid="ignore"):  # a file may hold scales that are not finite
        return np.asarray(scales.astype(np.float64)[..., np.newaxis] * integers)


def _check_finite(weights: Array, result: Array, what: str, dtype: str) -> None:
    if not np.isfinite(result).all():
        position = tuple(int(i) for i in np.argwhere(~np.isfinite(result))[0])
        raise ValueError(f"{what} is {weights[position]} at {list(position)}, beyond the range of {dtype}")
