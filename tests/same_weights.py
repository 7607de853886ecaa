# SPDX-License-Identifier: Apache-2.0
"""One network as every framework would hold it, to see that each exporter makes the same bytes of it.

An exporter joins in with a function that turns the canonical arrays into its framework's and exports them::

    def my_framework(net: Canonical) -> ge.Network: ...

    def test_same_weights():
        check(my_framework, "after")

The weights are small multiples of a power of two, so that negating, adding zero and float64 change nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import gru_engine as ge

Array = npt.NDArray[Any]

INPUTS, HIDDEN, OUTPUTS = 5, 7, 3


@dataclass(frozen=True)
class Canonical:
    """Input -> GRU -> dense, in the arrays of ``Network.gru`` and ``Network.dense``: gates r, z, n; z keeps the old state."""

    reset: str
    W: Array  # [3H, I]
    U: Array  # [3H, H]
    b_x: Array  # [3H]
    b_h: Array  # [3H], of which reset "after" has the last third alone and "before" nothing
    W_y: Array  # [O, H]
    b_y: Array  # [O]

    def gates(self, name: str) -> dict[str, Array]:
        """The blocks of an array, ``gates("W")["z"]``."""
        return dict(zip("rzn", np.split(getattr(self, name), 3)))

    def ordered(self, name: str, gates: str, new: bool = False) -> Array:
        """The blocks in another order; with ``new`` those of an update gate that keeps the new state."""
        blocks = self.gates(name)
        return np.concatenate([-blocks[g] if new and g == "z" else blocks[g] for g in gates])


def canonical(reset: str) -> Canonical:
    random = np.random.default_rng(12)
    draw = lambda *shape: (random.integers(-400, 400, shape) / 1024).astype(np.float32)  # noqa: E731
    H = HIDDEN
    b_h = np.zeros(3 * H, np.float32)
    if reset == "after":
        b_h[2 * H :] = draw(H)
    return Canonical(reset, draw(3 * H, INPUTS), draw(3 * H, H), draw(3 * H), b_h, draw(OUTPUTS, H), draw(OUTPUTS))


def by_hand(net: Canonical) -> ge.Network:
    """What every exporter must make of it."""
    made = ge.Network()
    h = made.gru(made.input(net.W.shape[1]), net.W, net.U, net.b_x, net.b_h, reset=net.reset)
    made.output(made.dense(h, net.W_y, net.b_y))
    return made


def weight_section(net: ge.Network) -> bytes:
    """The bytes of section 6, the weights, of a file (docs/FORMAT.md)."""
    data = net.tobytes()
    kind, _, offset, size, _ = struct.unpack_from("<IIQQQ", data, 128 + 5 * 32)
    assert kind == 6
    return data[offset : offset + size]


def check(exporter: Callable[[Canonical], ge.Network], reset: str) -> None:
    """Fail unless an exporter makes the same weights, byte for byte, and so the same outputs, bit for bit.

    Parameters
    ----------
    exporter : callable
        Turns the canonical arrays into those of a framework, and these into a network.
    reset : {"after", "before"}
        Where the reset gate acts: which of the two forms the framework is to express.
    """
    net = canonical(reset)
    made, expected = exporter(net), by_hand(net)
    assert weight_section(made) == weight_section(expected)
    x = np.random.default_rng(1).standard_normal((2, 9, net.W.shape[1])).astype(np.float32)
    assert ge.load(made.tobytes()).run(x).tobytes() == ge.load(expected.tobytes()).run(x).tobytes()
