# SPDX-License-Identifier: Apache-2.0
"""Turns what users pass to a model at run time into the arrays that the core reads, or says what is wrong with it.

The common case (a float32 C-contiguous array of the right shape) does not come here: ``_core`` takes it as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

INT32 = np.iinfo(np.int32)


def _array(value: Any, name: str) -> npt.NDArray[Any]:
    """Return anything as an array."""
    try:
        return np.asarray(value)
    except ValueError as error:  # rows of different lengths, for instance
        raise ValueError(f"{name} cannot be made an array: {error}") from None


def vectors(x: Any, name: str, size: int, ndims: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return x as a plain float32 array with ``size`` floats in its last axis and one of ``ndims`` axes."""
    array = _array(x, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of real numbers, got {_described(x, array)}")
    if array.ndim not in ndims or array.shape[-1] != size:
        shapes = " or ".join(str((*"BT"[2 - n + 1 :], size)).replace("'", "") for n in ndims)
        raise ValueError(f"{name} must have the shape {shapes}, got {array.shape}")
    return np.require(array, np.float32, ["C", "A"])


def tokens(x: Any, name: str, vocab: int, ndims: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """Return x as a C-contiguous int32 array of tokens that has one of ``ndims`` axes; their range is checked."""
    array = _array(x, name)
    if array.size == 0 and not isinstance(x, np.ndarray):
        array = array.astype(np.int32)  # [] is an array of floats to NumPy
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integer tokens, got {_described(x, array)}")
    if array.ndim not in ndims:
        shapes = " or ".join({0: "()", 1: "(T,)", 2: "(B, T)"}[n] for n in ndims)
        raise ValueError(f"{name} must have the shape {shapes}, got {array.shape}")
    check_tokens(array, name, vocab)
    return np.require(array, np.int32, ["C", "A"])


def check_tokens(array: npt.NDArray[Any], name: str, vocab: int) -> None:
    """Refuse tokens below 0 or from ``vocab`` on."""
    if array.size and (array.min() < 0 or array.max() >= vocab):
        position = np.argwhere((array < 0) | (array >= vocab))[0].tolist()
        where = f" at {position}" if position else ""
        raise ValueError(f"{name} must be tokens from 0 to {vocab - 1}, got {array[tuple(position)]}{where}")


def state(value: Any, name: str, size: int, n_streams: int | None) -> npt.NDArray[np.float32]:
    """A state [size], or with ``n_streams`` states [n_streams, size] (one state stands for all)."""
    array = _array(value, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of real numbers, got {_described(value, array)}")
    wanted = f"({size},)" if n_streams is None else f"({n_streams}, {size}) or ({size},)"
    if n_streams is not None and array.shape == (size,):
        array = np.broadcast_to(array, (n_streams, size))
    if array.shape != ((size,) if n_streams is None else (n_streams, size)):
        raise ValueError(f"{name} must have the shape {wanted}, got {array.shape}")
    return np.require(array, np.float32, ["C", "A"])


def lengths(value: Any, n_streams: int, n_steps: int, least: int) -> npt.NDArray[np.uintp]:
    """Lengths [n_streams], each from ``least`` to ``n_steps``."""
    array = _array(value, "lengths")
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths must be integers, got {_described(value, array)}")
    if array.shape != (n_streams,):
        raise ValueError(f"lengths must have the shape ({n_streams},), got {array.shape}")
    if array.size and (array.min() < least or array.max() > n_steps):
        i = int(np.argmax((array < least) | (array > n_steps)))
        why = "" if least == 0 else " (the network's outputs are one per sequence)"
        raise ValueError(f"lengths must be from {least} to {n_steps}{why}, got {array[i]} at [{i}]")
    return np.require(array, np.uintp, ["C", "A"])


def reset(value: Any, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """A reset mask of just this shape: booleans, or integers 0 and 1."""
    array = _array(value, "reset")
    if array.dtype.kind not in "biu" or (
        array.dtype.kind != "b" and array.size and (array.min() < 0 or array.max() > 1)
    ):
        raise TypeError(f"reset must be booleans, got {_described(value, array)}")
    if array.shape != shape:
        raise ValueError(f"reset must have the shape {shape}, got {array.shape}")
    return np.require(array, np.uint8, ["C", "A"])


def slots(value: Any, capacity: int) -> npt.NDArray[np.intp]:
    """Slot numbers [n] below ``capacity``."""
    array = _array(value, "slots")
    if array.size == 0 and not isinstance(value, np.ndarray):
        array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        raise TypeError(f"slots must be integers, got {_described(value, array)}")
    if array.ndim != 1:
        raise ValueError(f"slots must have the shape (n,), got {array.shape}")
    if array.size and (array.min() < 0 or array.max() >= capacity):
        i = int(np.argmax((array < 0) | (array >= capacity)))
        raise ValueError(f"slots must be from 0 to {capacity - 1}, got {array[i]} at [{i}]")
    return np.require(array, np.intp, ["C", "A"])


def _described(value: Any, array: npt.NDArray[Any]) -> str:
    if isinstance(value, (np.ndarray, list, tuple)) or array.ndim:
        return f"dtype {array.dtype}"
    return f"{value!r}"
