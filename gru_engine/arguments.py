# SPDX-License-Identifier: Apache-2.0
"""What the methods of ``Network`` do with their arguments: checks, copies, and the canonical form of a GRU's arrays."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np

from gru_engine.activations import activation as parse_activation
from gru_engine.activations import as_number
from gru_engine.layers import RESETS, Array

MAX_WIDTH = 2**24  # of a value; docs/FORMAT.md
MAX_VOCABULARY = 2**28


def as_size(value: Any, argument: str, most: int = MAX_WIDTH) -> int:
    """A checked width or vocabulary size."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{argument} must be an integer, got {value!r}")
    if not 1 <= value <= most:
        raise ValueError(f"{argument} must be from 1 to {most}, got {value}")
    return int(value)


def as_name(name: Any) -> str:
    """A checked name; None stands for the empty one."""
    if name is None:
        return ""
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}")
    if "\0" in name or any("\ud800" <= c <= "\udfff" for c in name):
        raise ValueError(f"name must be valid UTF-8 without zero bytes, got {name!r}")
    return name


def as_file(path: Any) -> Path:
    """A checked path of a file that is going to be written."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a str or a path, got {type(path).__name__}")
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(file))
    if not file.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(file.parent))
    return file


def as_array(value: Any, argument: str, axes: tuple[str, ...], shape: tuple[int | None, ...]) -> Array:
    """A checked, read-only copy: float16 and float32 as float32, float64 and integers as float64.

    ``axes`` name the axes of ``shape`` in the error message; None in ``shape`` is any positive size.
    """
    given = np.asarray(value)
    if given.dtype.kind not in "fiu":
        raise TypeError(f"{argument} must be an array of real numbers, got dtype {given.dtype}")
    if given.ndim != len(shape) or any(n == 0 or want not in (None, n) for n, want in zip(given.shape, shape)):
        sizes = ", ".join(axis if want is None else f"{axis} = {want}" for axis, want in zip(axes, shape))
        raise ValueError(f"{argument} must have the shape [{sizes}], got {list(given.shape)}")
    single = given.dtype.type in (np.float16, np.float32)
    array: Array = np.array(given, dtype=np.float32 if single else np.float64, order="C")
    if not np.isfinite(array).all():
        position = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{argument} must be finite, got {array[position]} at {list(position)}")
    array.setflags(write=False)
    return array


def as_vector(value: Any, argument: str, axis: str, size: int, dtype: np.dtype[Any]) -> Array:
    """A checked bias or initial state; None stands for zeros of ``dtype``."""
    return as_array(np.zeros(size, dtype) if value is None else value, argument, (axis,), (size,))


def fold_bias(W: Array, b: Array) -> tuple[Array, Array]:
    """W and b of a one-hot input: only sums of b and a column of W are ever used, so they take W's place."""
    if b.any():
        with np.errstate(over="ignore"):  # as_array refuses it
            W = as_array(W + b[:, np.newaxis], "W + bias", ("O", "I"), W.shape)
    return W, as_vector(None, "b", "O", len(W), W.dtype)


def as_clip(clip: Any) -> float | None:
    """A checked limit, or None."""
    if clip is None:
        return None
    if not np.float32(as_number(clip, "clip")) > 0:
        raise ValueError(f"clip must be positive as a float32, got {clip!r}")
    return float(clip)


def gru_fields(
    *,
    width: int,
    one_hot: bool,
    W: Any,
    U: Any,
    b_x: Any,
    b_h: Any,
    h0: Any,
    reset: Any,
    gates: Any,
    keep: Any,
    activation: Any,
    gate_activation: Any,
    clip: Any,
) -> dict[str, Any]:
    """The fields of a ``Gru`` layer from the arguments of ``Network.gru``.

    The layer's input is ``width`` floats, or one-hot tokens of a vocabulary of that size.
    """
    if reset not in RESETS:
        raise ValueError(f"reset must be one of {', '.join(map(repr, RESETS))}, got {reset!r}")
    if keep not in ("old", "new"):
        raise ValueError(f"keep must be 'old' or 'new', got {keep!r}")
    canonical = "zn" if reset == "none" else "rzn"
    gates = canonical if gates is None else gates
    if not isinstance(gates, str) or sorted(gates) != sorted(canonical):
        raise ValueError(f"gates must be a permutation of {canonical!r} with reset={reset!r}, got {gates!r}")
    act = parse_activation(activation)
    gate_act = parse_activation(gate_activation, "gate_activation")
    for a, argument in ((act, "activation"), (gate_act, "gate_activation")):
        if not a.elementwise:
            raise ValueError(f"{argument} of a GRU cannot be {a.name!r}")
    if keep == "new" and not gate_act.complementary:
        raise ValueError(
            f"keep='new' cannot be expressed with gate_activation {str(gate_act)!r}: it needs f(-a) = 1 - f(a), "
            "as sigmoid and hard_sigmoid with beta 0.5 have it"
        )

    U = as_array(U, "U", (f"{len(gates)}*H", "H"), (None, None))
    rows, hidden = U.shape
    axis = f"{len(gates)}*H"
    if rows != len(gates) * hidden:
        raise ValueError(f"U must have the shape [{axis}, H] for the gates {gates!r}, got {list(U.shape)}")
    W = as_array(W, "W", (axis, "I"), (rows, width))
    b_x = as_vector(b_x, "b_x", axis, rows, W.dtype)
    b_h = as_vector(b_h, "b_h", axis, rows, U.dtype)
    if one_hot:
        W, b_x = fold_bias(W, b_x)
    arrays = {"W": W, "U": U, "b_x": b_x, "b_h": b_h}
    if gates != canonical or keep == "new":
        arrays = {name: _canonical_gates(array, gates, canonical, keep) for name, array in arrays.items()}
    return {
        **arrays,
        "h0": as_vector(h0, "h0", "H", hidden, U.dtype),
        "reset": reset,
        "activation": act,
        "gate_activation": gate_act,
        "clip": as_clip(clip),
    }


def _canonical_gates(array: Array, gates: str, canonical: str, keep: str) -> Array:
    """The rows of the gates in canonical order; those of an update gate that keeps the new state negated."""
    blocks = dict(zip(gates, np.split(array, len(gates))))
    if keep == "new":
        blocks["z"] = 0 - blocks["z"]  # exact, and zeros stay positive
    array = np.concatenate([blocks[gate] for gate in canonical])
    array.setflags(write=False)
    return array


def halves(arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The forward and the reverse half of arrays with a leading axis of 2."""
    for argument, array in arrays.items():
        shape = list(np.shape(array))
        if array is not None and shape[:1] != [2]:
            raise ValueError(
                f"{argument} must have a leading axis of 2 (forward, reverse) with direction='bidirectional', "
                f"got the shape {shape}"
            )
    forward, reverse = ({name: None if a is None else a[i] for name, a in arrays.items()} for i in (0, 1))
    return forward, reverse
