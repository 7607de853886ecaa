# SPDX-License-Identifier: Apache-2.0
"""Turns what users pass to a model at run time into the arrays that the core reads, or says what is wrong with it.

The common case (a float32 C-contiguous array of the right shape) does not come here: ``_core`` takes it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class TokenInput:
    """An input that is one token per step, as ``Model.inputs`` and ``Network.inputs`` have it.

    Attributes
    ----------
    vocab_size : int
        The tokens are integers from 0 to ``vocab_size - 1``.
    """

    vocab_size: int


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


Inputs = Mapping[str, "slice | TokenInput"]
"""The inputs of a model by name: parts of the input vector, and tokens."""


def listed(inputs: Inputs) -> str:
    """The names of inputs, for a message."""
    return ", ".join(map(repr, inputs))


def check_names(x: Mapping[Any, Any], inputs: Inputs) -> None:
    """Refuse a dict that has not just an entry for each input."""
    for name in inputs:
        if name not in x:
            raise ValueError(f"x lacks the input {name!r}; the inputs are {listed(inputs)}")
    for name in x:
        if name not in inputs:
            raise ValueError(f"x has {name!r}, which is no input; the inputs are {listed(inputs)}")


def not_named(x: Any, inputs: Inputs) -> TypeError:
    """What is wrong with something other than a dict where there are several inputs."""
    return TypeError(f"x must be a dict with an entry for each of the inputs {listed(inputs)}, got {type(x).__name__}")


def side_by_side(
    x: Mapping[str, Any], inputs: Inputs, axes: tuple[int, ...], lengths: Any = None
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.int32] | None, tuple[int, ...]]:
    """Join several inputs, whose names were checked, as the core reads them.

    Parameters
    ----------
    x : dict of array_like
        Vectors [..., width] and tokens [...], with the same axes in front.
    inputs : dict
    axes : tuple of int
        How many axes there may be in front.
    lengths : array_like, optional
        Valid steps of each sequence: tokens behind are not looked at.

    Returns
    -------
    vectors : float32 [..., total width], or None if there are none
    tokens : int32 [..., number of tokens], or None if there are none
    shape : tuple of int
        Of the axes in front.
    """
    floats: list[npt.NDArray[np.float32]] = []
    integers: list[npt.NDArray[np.int32]] = []
    shapes: dict[str, tuple[int, ...]] = {}
    for name, part in inputs.items():
        what, value = f"x[{name!r}]", x[name]
        if isinstance(part, slice):
            floats.append(vectors(value, what, part.stop - part.start, tuple(n + 1 for n in axes)))
            shapes[what] = floats[-1].shape[:-1]
        else:
            value = value if lengths is None else without_padding(value, lengths)
            integers.append(tokens(value, what, part.vocab_size, axes))
            shapes[what] = integers[-1].shape
    first, shape = next(iter(shapes.items()))
    for what, other in shapes.items():
        if other != shape:
            raise ValueError(f"{what} is for streams and steps of the shape {other}, but {first} for {shape}")
    return (
        np.concatenate(floats, axis=-1) if floats else None,
        np.stack(integers, axis=-1) if integers else None,
        shape,
    )


def as_context(value: Any, contexts: Mapping[str, slice], n_streams: int | None) -> npt.NDArray[np.float32] | None:
    """What a sequence, or each of several, is given once.

    Parameters
    ----------
    value : array_like [C] or [n_streams, C], or dict of str to array_like
        The context vector, or each of its parts by name. None where there are no contexts.
    contexts : dict
        The contexts by name: parts of the context vector.
    n_streams : int or None
        None: there is one stream.

    Returns
    -------
    float32 [C] or [n_streams, C], or None if there are no contexts
    """
    if not contexts:
        if value is not None:
            raise ValueError("context must be None: the network has no contexts")
        return None
    names = listed(contexts)
    if value is None:
        raise ValueError(f"context must be given: the network has the contexts {names}, once per sequence")
    size = max(part.stop for part in contexts.values())
    if not isinstance(value, Mapping):
        return _context_part(value, "context", size, n_streams)
    for name in contexts:
        if name not in value:
            raise ValueError(f"context lacks {name!r}; the contexts are {names}")
    for name in value:
        if name not in contexts:
            raise ValueError(f"context has {name!r}, which is no context; the contexts are {names}")
    parts = [
        _context_part(value[name], f"context[{name!r}]", part.stop - part.start, n_streams)
        for name, part in contexts.items()
    ]
    most = max((part.shape[:-1] for part in parts), key=len)
    return np.concatenate([np.broadcast_to(part, (*most, part.shape[-1])) for part in parts], axis=-1)


def _context_part(value: Any, name: str, size: int, n_streams: int | None) -> npt.NDArray[np.float32]:
    array = _array(value, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of real numbers, got {_described(value, array)}")
    if array.shape != (size,) and (n_streams is None or array.shape != (n_streams, size)):
        wanted = f"({size},)" if n_streams is None else f"({size},) or ({n_streams}, {size})"
        raise ValueError(f"{name} must have the shape {wanted}, got {array.shape}")
    return np.require(array, np.float32, ["C", "A"])


def without_padding(x: Any, lengths: Any) -> Any:
    """Tokens [T] or [B, T] with zeros after a sequence's end, where they may be anything."""
    try:
        array, lengths = np.asarray(x), np.asarray(lengths)
    except ValueError:
        return x  # refused later, by name
    integers = array.dtype.kind in "iu" and lengths.dtype.kind in "iu"
    if not integers or array.ndim not in (1, 2) or lengths.size != (1 if array.ndim == 1 else len(array)):
        return x  # likewise
    return np.where(np.arange(array.shape[-1]) < lengths.reshape((*array.shape[:-1], 1)), array, 0)


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
        why = "" if least == 0 else " (the network makes values per sequence of the steps)"
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
