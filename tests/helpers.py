# SPDX-License-Identifier: Apache-2.0
"""What several test modules need: comparing bits, small networks, running on every instruction set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import gru_engine as ge
from gru_engine.numerics import int8_sums, sums
from gru_engine.precision import rounded, to_int8

Array = npt.NDArray[Any]


def bits(a: npt.ArrayLike) -> Array:
    """The bits of float32 values as int32; all NaN alike, because NUMERICS.md leaves a NaN's sign and payload open."""
    a = np.asarray(a)
    assert a.dtype == np.float32, a.dtype
    return np.where(np.isnan(a), np.int32(0x7FC00000), np.ascontiguousarray(a).view(np.int32))


def assert_bits(got: npt.ArrayLike, wanted: npt.ArrayLike, what: str) -> None:
    """Fail unless both have the same shape and bits; ``what`` must say how to replay it."""
    a, b = bits(got), bits(wanted)
    assert a.shape == b.shape, f"{what}: shape {a.shape}, expected {b.shape}"
    if not np.array_equal(a, b):
        at = tuple(np.argwhere(a != b)[0].tolist())
        x, y = float(np.asarray(got)[at]), float(np.asarray(wanted)[at])
        raise AssertionError(
            f"{what}: {np.sum(a != b)} of {a.size} differ, first at {at}: {x.hex()}, expected {y.hex()}"
        )


def each_isa() -> Iterator[str]:
    """The names of all usable instruction sets, each in use while the caller's loop is at it."""
    used = ge.cpu_info()["used"]
    try:
        for name in ge.cpu_info()["usable"]:
            ge.set_isa(name)
            yield name
    finally:
        ge.set_isa(used)


def uniform(rng: np.random.Generator, limit: float, *shape: int) -> Array:
    """Random float32 from -limit to limit."""
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def sigmoid(a: Array) -> Array:
    """The logistic function in the precision of its argument, for cells that tests write down by hand."""
    return np.asarray(1 / (1 + np.exp(-a)))


def normalised(a: Array, epsilon: float) -> Array:
    """Layer normalisation without scale and shift, likewise."""
    return np.asarray((a - a.mean()) / np.sqrt(a.var() + epsilon))


def specified_sums(bias: Array, matrix: Array, x: Array, dtype: str = "float32") -> Array:
    """``sums(b, M, x)`` of docs/NUMERICS.md in NumPy: [N, G, H] of a matrix [G, H, K] that is kept as this type."""
    if dtype == "int8":
        return int8_sums(bias, *to_int8(matrix, "the matrix"), x)
    return sums(bias, rounded(matrix, dtype, "the matrix"), x)


def gru_arrays(rng: np.random.Generator, hidden: int, columns: int, reset: str = "after") -> dict[str, Array]:
    """Weights and an initial state for ``Network.gru`` whose values stay of the order of 1."""
    rows = (2 if reset == "none" else 3) * hidden
    return {
        "W": uniform(rng, max(hidden, columns) ** -0.5, rows, columns),
        "U": uniform(rng, hidden**-0.5, rows, hidden),
        "b_x": uniform(rng, 0.5, rows),
        "b_h": uniform(rng, 0.5, rows),
        "h0": uniform(rng, 1, hidden),
    }


def gru_network(
    rng: np.random.Generator, hidden: int, columns: int, reset: str = "after", **options: Any
) -> ge.Network:
    """Input, one GRU layer, and a dense head of 5; the outputs are "y" and the hidden state, "h"."""
    net = ge.Network()
    h = net.gru(net.input(columns), reset=reset, **gru_arrays(rng, hidden, columns, reset), **options)
    net.output(net.dense(h, uniform(rng, hidden**-0.5, 5, hidden), uniform(rng, 1, 5), activation="tanh"), "y")
    net.output(h, "h")
    return net


def token_network(rng: np.random.Generator, vocabulary: int, hidden: int) -> ge.Network:
    """Tokens, an embedding of 6, a GRU layer and a log-softmax over the vocabulary."""
    net = ge.Network()
    e = net.embedding(net.tokens(vocabulary), uniform(rng, 1, vocabulary, 6))
    h = net.gru(e, **gru_arrays(rng, hidden, 6))
    net.output(net.dense(h, uniform(rng, 1, vocabulary, hidden), activation="log_softmax"))
    return net
