# SPDX-License-Identifier: Apache-2.0
"""Dictionaries of arrays, nested or not, to networks.

The ``--layers`` language says what is done with the arrays (``gru_engine.export.chain``); without it, whatever names and shapes
leave no choice about is inferred.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gru_engine.export import chain
from gru_engine.export.common import ExportError
from gru_engine.export.words import Arrays
from gru_engine.network import Network


def flatten(tree: Mapping[str, Any], *, separator: str = ".") -> Arrays:
    """The arrays of nested dictionaries under one name each.

    Parameters
    ----------
    tree : mapping
        Arrays, or whatever ``numpy.asarray`` turns into one, by name; nested as deep as you like. ``/`` in a name separates
        as well, and the ``:0`` behind the names of TensorFlow's variables goes.
    separator : str
        What stands between the names of the levels.

    Returns
    -------
    dict
        In the order of the tree. bfloat16 and other floats that NumPy does not have by itself become float32, exactly.

    Raises
    ------
    TypeError
        If ``tree`` is no mapping, a name is no string, or a value is neither a mapping nor an array of numbers.
    ExportError
        If two arrays get the same name.
    """
    if not isinstance(tree, Mapping):
        raise TypeError(f"arrays must be a mapping of names to arrays, got {type(tree).__name__}")
    arrays: Arrays = {}
    for path, value in _leaves(tree, ()):
        name = separator.join(path).replace("/", separator)
        name = name[:-2] if name.endswith(":0") else name
        if name in arrays:
            raise ExportError(f"two arrays are named {name!r}")
        arrays[name] = _as_array(name, value)
    return arrays


def _leaves(tree: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if not isinstance(key, (str, int)):
            raise TypeError(f"the names of arrays must be strings, got {key!r} below {'.'.join(path)!r}")
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, str(key)))
        elif value is not None:
            yield (*path, str(key)), value


def _as_array(name: str, value: Any) -> np.ndarray[Any, Any]:
    detach = getattr(value, "detach", None)  # a tensor of PyTorch that is being trained
    array = np.asarray(value if detach is None else detach().cpu())
    if array.dtype.kind == "V" and array.dtype.names is None:  # bfloat16 and the like, of ml_dtypes
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name!r} must be an array of real numbers, got {type(value).__name__} of dtype {array.dtype}")
    return array


def from_arrays(arrays: Mapping[str, Any], layers: str | None = None) -> Network:
    """Turn arrays into a network.

    Parameters
    ----------
    arrays : mapping
        Arrays by name, nested or not; see ``flatten``. Of a layer's arrays the names and shapes are those of its framework
        (docs/export/ARRAYS.md), or any: ``layers`` can name them one by one.
    layers : str, optional
        The chain of layers, for instance ``"embedding(emb) gru(gru) linear(fc) log_softmax"``; see ``gru_engine.export.chain``.

    Returns
    -------
    Network

    Raises
    ------
    TypeError
        If ``arrays`` holds something else than arrays.
    ExportError
        If an array is missing or does not fit, if some are not used, or if ``layers`` is not given and not certain.

    Examples
    --------
    >>> net = from_arrays(dict(np.load("model.npz")), "gru(W=enc/W, U=enc/U, gates=zrn, reset=before) linear(out)")
    """
    return build(arrays, layers).network


def build(arrays: Mapping[str, Any], layers: str | None = None, ignore_unused: bool = False) -> chain.Built:
    """Like ``from_arrays``, with what was understood in words."""
    flat = flatten(arrays)
    words = chain.infer(flat) if layers is None else chain.parse(layers.replace("/", "."))
    built = chain.build(words, flat)
    if built.unused and not ignore_unused:
        raise ExportError(
            f"the chain {' '.join(map(str, words))} does not use {', '.join(built.unused)}; leave out what is not needed, or "
            "describe what is done with it"
        )
    return built
