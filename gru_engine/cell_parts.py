# SPDX-License-Identifier: Apache-2.0
"""What the cells of cells.py are made of: checked weights by gate, and a GRU as a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gru_engine.activations import ActivationLike, as_number
from gru_engine.arguments import as_array, as_size
from gru_engine.layers import RESETS, Array
from gru_engine.network import Network, Value, Vector


@dataclass(frozen=True)
class Weights:
    """Arrays whose first axis is the gates one after the other."""

    arrays: dict[str, Array]
    gates: str
    hidden: int

    @staticmethod
    def of(W: Any, U: Any, gates: Any, wanted: str, *biases: Any, **vectors: Any) -> Weights:
        """Checked arrays; one bias is called b, two b_x and b_h. Of vectors, scales are ones where there is none."""
        order = as_order(gates, wanted)
        axis = f"{len(order)}*H"
        U = as_array(U, "U", (axis, "H"), (None, None))
        rows, hidden = U.shape
        if rows != len(order) * hidden:
            raise ValueError(f"U must have the shape [{axis}, H] for the gates {gates!r}, got {list(U.shape)}")
        arrays = {"W": as_array(W, "W", (axis, "I"), (rows, None)), "U": U}
        vectors |= dict(zip(("b",) if len(biases) == 1 else ("b_x", "b_h"), biases))
        for name, value in vectors.items():
            default = (np.ones if name.startswith("scale") else np.zeros)(rows, U.dtype)
            arrays[name] = as_array(default if value is None else value, name, (axis,), (rows,))
        return Weights(arrays, order, hidden)

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def rows(self, name: str, gates: str) -> Array:
        """The rows of some gates, in this order."""
        parts = dict(zip(self.gates, np.split(self.arrays[name], len(self.gates))))
        return np.concatenate([parts[gate] for gate in gates])


def as_order(gates: Any, wanted: str) -> str:
    """A checked order of gates."""
    if not isinstance(gates, str) or sorted(gates) != sorted(wanted):
        raise ValueError(f"gates must be a permutation of {wanted!r}, got {gates!r}")
    return gates


def as_blocks(W: Any, b: Any) -> tuple[Array, Array]:
    """Matrices [B, 3*H/B, K] and biases [B, 3*H/B]; B = 1 if there are no blocks."""
    if np.ndim(W) == 3:
        W = as_array(W, "W", ("B", "3*H/B", "H/B + I"), (None, None, None))
    else:
        W = as_array(W, "W", ("3*H", "H + I"), (None, None))[np.newaxis]
    blocks, rows, _ = W.shape
    if rows % 3:
        raise ValueError(f"W must have rows for 3 gates, got {rows}")
    if b is None:
        return W, np.zeros((blocks, rows), W.dtype)
    axes, shape = (("B", "3*H/B"), (blocks, rows)) if np.ndim(b) == 2 else (("3*H",), (blocks * rows,))
    if np.ndim(b) == 1 and blocks > 1:
        raise ValueError(
            f"b must have the shape [B, 3*H/B] = {[blocks, rows]}, as W has blocks, got {list(np.shape(b))}"
        )
    return W, as_array(b, "b", axes, shape).reshape(blocks, rows)


def as_probability(zoneout: Any) -> float:
    """A checked probability of zoneout."""
    p = as_number(zoneout, "zoneout")
    if not 0 <= p <= 1:
        raise ValueError(f"zoneout must be from 0 to 1, got {p}")
    return p


def hidden_state(net: Network, width: int, h0: Any, name: str | None) -> Value:
    """The hidden state before the step."""
    initial = None if h0 is None else as_array(h0, "h0", ("H",), (width,))
    return net.state(as_size(width, "H"), initial, name=f"{name}.before" if name else None)


def fed(net: Network, h: Value, new: Value) -> Value:
    """The new hidden state, which is the old one of the next step."""
    net.feed(h, new)
    return new


def equal_parts(v: Value, count: int) -> list[Value]:
    """Equal parts of a value."""
    size = v.width // count
    return [v[i * size : (i + 1) * size] for i in range(count)]


def activated(net: Network, values: Sequence[Value], specs: Sequence[ActivationLike]) -> list[Value]:
    """An activation of each value."""
    return [net.activation(value, spec) for value, spec in zip(values, specs)]


def scaled(net: Network, v: Value, scale: float, shift: float) -> Value:
    """``v * scale + shift`` with numbers."""
    return net.affine(v, np.full(v.width, scale), np.full(v.width, shift))


def reset_after(
    net: Network, s_x: Value, s_h: Value, activation: ActivationLike, gate_activation: ActivationLike
) -> tuple[Value, Value]:
    """Z and n of sums with the gates r, z, n and the reset after the product."""
    H = s_x.width // 3
    r, z = equal_parts(net.activation(net.add(s_x[: 2 * H], s_h[: 2 * H]), gate_activation), 2)
    return z, net.activation(net.add(s_x[2 * H :], net.multiply(r, s_h[2 * H :])), activation)


def gru_loop(
    net: Network,
    x: Vector,
    W: Any,
    U: Any,
    b_x: Any,
    b_h: Any,
    *,
    update: Callable[[Value], Value],
    gates: str | None = None,
    reset: str = "after",
    keep: str = "old",
    activation: ActivationLike = "tanh",
    gate_activation: ActivationLike = "sigmoid",
    h0: Any = None,
    name: str | None = None,
) -> Value:
    """The GRU of ``Network.gru`` as a loop, with an update gate (which keeps the old state) that is changed by ``update``."""
    if reset not in RESETS:
        raise ValueError(f"reset must be one of {', '.join(map(repr, RESETS))}, got {reset!r}")
    if keep not in ("old", "new"):
        raise ValueError(f"keep must be 'old' or 'new', got {keep!r}")
    order = "zn" if reset == "none" else "rzn"
    w = Weights.of(W, U, order if gates is None else gates, order, b_x, b_h)
    H = w.hidden
    h = hidden_state(net, H, h0, name)
    s_x = net.dense(x, w.rows("W", order), w.rows("b_x", order))
    if reset == "after":
        s_h = net.dense(h, w.rows("U", order), w.rows("b_h", order))
        z, n = reset_after(net, s_x, s_h, activation, gate_activation)
    elif reset == "before":
        s = net.add(s_x[: 2 * H], net.dense(h, w.rows("U", "rz"), w.rows("b_h", "rz")))
        r, z = equal_parts(net.activation(s, gate_activation), 2)
        s_n = net.add(s_x[2 * H :], net.dense(net.multiply(r, h), w.rows("U", "n"), w.rows("b_h", "n")))
        n = net.activation(s_n, activation)
    else:
        s = net.add(s_x, net.dense(h, w.rows("U", order), w.rows("b_h", order)))
        opened = equal_parts(net.activation(s[:-H], gate_activation), len(order) - 1)
        z = opened[-1]
        n = net.activation(net.multiply(opened[0], s[-H:]) if reset == "all" else s[-H:], activation)
    z = z if keep == "old" else scaled(net, z, -1, 1)
    return fed(net, h, net.blend(update(z), h, n, name=name))
