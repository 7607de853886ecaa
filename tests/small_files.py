# SPDX-License-Identifier: Apache-2.0
"""Small networks and their files, for the tests of the file format."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine import Network, reference
from gru_engine.format import read, unpack

Array = npt.NDArray[Any]


def random_arrays(seed: int, *shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def gru_arrays(seed: int, H: int, columns: int, gates: int = 3) -> list[Array]:
    return random_arrays(seed, (gates * H, columns), (gates * H, H), (gates * H,), (gates * H,))


def small_network() -> Network:
    """Two floats -> GRU of 3 -> "p" of 2 and "h" of 3."""
    net = Network()
    h = net.gru(
        net.input(2, name="x"),
        *gru_arrays(1, 3, 2),
        clip=2,
        activation=("scaled_tanh", 1.5),
        h0=np.array([1, 2, 3], np.float32),
    )
    net.output(net.dense(h, *random_arrays(2, (2, 3), (2,)), activation="softmax", name="head"), name="p")
    net.output(h, name="h")
    net.metadata["about"] = "small"
    return net


def embedding_network(V: int = 7, D: int = 4) -> tuple[Network, Any, Any]:
    net = Network()
    t = net.tokens(V)
    return net, t, net.embedding(t, random_arrays(20, (V, D))[0])


def kinds(data: bytes) -> list[str]:
    return [node.kind.__name__ for node in read(data).nodes]


REDUCED = ("bfloat16", "float16", "int8")
"""Types of weights of fewer bits than float32."""


def dense_network(M: Array, b: Array | None = None) -> Network:
    """Sums and nothing else."""
    net = Network()
    net.output(net.dense(net.input(M.shape[1]), M, b))
    return net


class FakeModel:
    """Stands for the compiled engine: runs what was packed, in float64."""

    def __init__(self, data: bytes) -> None:
        self.net = unpack(read(data))

    def run(self, x: Array, context: Array | None = None) -> Array:
        return np.asarray(reference.run(self.net, x, context=context), np.float32)
