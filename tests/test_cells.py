# SPDX-License-Identifier: Apache-2.0
"""Published cells against their equations, written down once more in NumPy, step by step, in float64."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import Network, cells, format
from gru_engine.layers import Gru, State
from gru_engine.network import Value

from .documentation import python_blocks, text_of
from .helpers import Array, assert_bits, normalised, sigmoid

I, H, STEPS = 5, 7, 30
TOLERANCE = 3e-6

Step = Callable[..., tuple[Array, ...]]
"""One step: the input and the states before -> the output and the states after."""


def arrays(*shapes: tuple[int, ...], seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.7, shape) for shape in shapes]


def per_gate(gates: str, hidden: int = H, columns: int = I, seed: int = 0) -> dict[str, dict[str, Array]]:
    """W, U and a bias b of each gate by itself."""
    made = arrays(*[shape for _ in gates for shape in ((hidden, columns), (hidden, hidden), (hidden,))], seed=seed)
    return {kind: dict(zip(gates, made[i::3])) for i, kind in enumerate("WUb")}


def stacked(parts: dict[str, Array], gates: str) -> Array:
    return np.concatenate([parts[gate] for gate in gates])


def check(build: Callable[[Network, Value], Value], step: Step, *states: Array, inputs: int = I) -> Network:
    """The cell follows the equations: the reference to rounding in float64, the engine in float32, run and stepped."""
    net = Network()
    net.output(build(net, net.input(inputs)), "y")
    x = np.random.default_rng(9).normal(size=(STEPS, inputs))
    wanted = []
    for frame in x:
        y, *states = step(frame, *states)
        wanted.append(y)
    np.testing.assert_allclose(ge.reference.run(net, x), wanted, rtol=0, atol=1e-12 * max(1, np.abs(wanted).max()))
    model = ge.load(net.tobytes())
    single = x.astype(np.float32)
    y = model.run(single)
    scale = max(1, float(np.abs(wanted).max()))
    np.testing.assert_allclose(y, ge.reference.run(net, single), rtol=0, atol=TOLERANCE * scale)
    stream = model.stream()
    assert_bits(np.array([stream.step(frame) for frame in single]), y, "stepped")
    assert model.state_size == net.state_size == len(net.initial_state)
    back = format.unpack(format.read(net.tobytes(fold=False)))
    assert back.same(net.rounded("float32"))
    return net


def test_the_example_of_the_minimal_gated_unit() -> None:
    """A text that lets its update gate reset the state, with the example's numbers: one gate in two roles."""
    f = {"W": [[0.4, 0.3], [-0.2, 0.5]], "U": [[0.6, 0.1], [0.2, 0.7]], "b": [0.3, -0.1]}
    n = {"W": [[0.2, 0.8], [0.3, 0.5]], "U": [[0.4, 0.3], [0.2, 0.5]], "b": [0.1, -0.2]}
    W, U, b = (np.concatenate([f[kind], n[kind]]) for kind in "WUb")

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        z = sigmoid(np.array(f["W"]) @ x + np.array(f["U"]) @ h + np.array(f["b"]))
        new = np.tanh(np.array(n["W"]) @ x + np.array(n["U"]) @ (z * h) + np.array(n["b"]))
        h = (1 - z) * h + z * new
        return h, h

    h0 = np.array([0.5, 0.6])
    check(lambda net, x: cells.mgu(net, x, W, U, b, h0=h0), step, h0, inputs=2)


@pytest.mark.parametrize("reset", ["before", "after", "none"])
@pytest.mark.parametrize("keep", ["new", "old"])
def test_mgu(reset: str, keep: str) -> None:
    """Zhou et al. 2016; after, and keep="old", as Flax has it. It is one GRU layer."""
    p = per_gate("fn")
    (b_h,) = arrays((H,), seed=3)

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        f = sigmoid(p["W"]["f"] @ x + p["U"]["f"] @ h + p["b"]["f"])
        if reset == "before":
            s_n = p["U"]["n"] @ (f * h) + b_h
        else:
            s_n = (f if reset == "after" else 1) * (p["U"]["n"] @ h + b_h)
        n = np.tanh(p["W"]["n"] @ x + p["b"]["n"] + s_n)
        h = (1 - f) * h + f * n if keep == "new" else (1 - f) * n + f * h
        return h, h

    def build(net: Network, x: Value) -> Value:
        W, U, b = (stacked(p[kind], "nf") for kind in "WUb")
        biases = np.concatenate([b_h, np.zeros(H)])
        return cells.mgu(net, x, W, U, b, biases, gates="nf", reset=reset, keep=keep)

    net = check(build, step, np.zeros(H))
    assert [type(layer) for layer in net.layers[1:]] == [Gru]


@pytest.mark.parametrize("recurrent_norm", [None, 1e-5])
def test_li_gru(recurrent_norm: float | None) -> None:
    """Ravanelli et al. 2018, with batch normalisation of W x; the stabilised one normalises U h as well."""
    p = {kind: {gate: 0.3 * array for gate, array in parts.items()} for kind, parts in per_gate("nz").items()}
    scale, shift, mean, variance = arrays(*[(2 * H,)] * 4, seed=1)
    variance = variance**2

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        wx = (np.concatenate([p["W"]["n"] @ x, p["W"]["z"] @ x]) - mean) / np.sqrt(variance + 1e-3) * scale + shift
        uh = np.concatenate([p["U"]["n"] @ h, p["U"]["z"] @ h])
        uh = uh if recurrent_norm is None else normalised(uh, recurrent_norm)
        a, z = wx[:H] + uh[:H], sigmoid(wx[H:] + uh[H:])
        h = z * h + (1 - z) * np.maximum(a, 0)
        return h, h

    def build(net: Network, x: Value) -> Value:
        norm = (scale, shift, mean, variance)
        W, U = stacked(p["W"], "nz"), stacked(p["U"], "nz")
        return cells.li_gru(net, x, W, U, batch_norm=norm, epsilon=1e-3, recurrent_norm=recurrent_norm)

    net = check(build, step, np.zeros(H))
    assert any(isinstance(layer, State) for layer in net.layers) == (recurrent_norm is not None)


def gate_sums(p: dict[str, dict[str, Array]], gate: str, x: Array, h: Array) -> Array:
    return np.asarray(p["W"][gate] @ x + p["U"][gate] @ h + p["b"][gate])


@pytest.mark.parametrize("output_gate", [False, True])
def test_gate_memory_gru(output_gate: bool) -> None:
    gates = "zrno" if output_gate else "zrn"
    p = per_gate(gates)
    h0, r0 = arrays((H,), (H,), seed=1)

    def step(x: Array, h: Array, z: Array, r: Array) -> tuple[Array, ...]:
        z = sigmoid(gate_sums(p, "z", x, h)) * z
        r = sigmoid(gate_sums(p, "r", x, h)) * r
        candidate = np.tanh(p["W"]["n"] @ x + p["U"]["n"] @ (r * h) + p["b"]["n"])
        new = (1 - z) * h + z * candidate
        y = sigmoid(gate_sums(p, "o", x, h)) * np.tanh(new) if output_gate else new
        return y, new, z, r

    W, U, b = (stacked(p[kind], gates) for kind in "WUb")
    net = check(
        lambda net, x: cells.gate_memory_gru(net, x, W, U, b, gates=gates, h0=h0, r0=r0), step, h0, np.ones(H), r0
    )
    assert net.state_size == 3 * H


@pytest.mark.parametrize("output_gate", [False, True])
def test_input_forget_gru(output_gate: bool) -> None:
    """Weights of the concatenation [h, x], cut in two."""
    gates = "ifon" if output_gate else "ifn"
    matrices = dict(zip(gates, arrays(*[(H, H + I)] * len(gates))))
    biases = dict(zip(gates, arrays(*[(H,)] * len(gates), seed=1)))

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        s = {gate: matrices[gate] @ np.concatenate([h, x]) + biases[gate] for gate in gates}
        new = sigmoid(s["f"]) * h + sigmoid(s["i"]) * np.tanh(s["n"])
        return (sigmoid(s["o"]) * np.tanh(new) if output_gate else new), new

    whole, b = stacked(matrices, gates), stacked(biases, gates)
    check(
        lambda net, x: cells.input_forget_gru(net, x, whole[:, H:], whole[:, :H], b, gates=gates, name="cell"),
        step,
        np.zeros(H),
    )


@pytest.mark.parametrize("activation", ["min_gru", "linear"])
def test_min_gru(activation: str) -> None:
    W, b, h0 = arrays((2 * H, I), (2 * H,), (H,))

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        hidden, gate = W[:H] @ x + b[:H], W[H:] @ x + b[H:]
        if activation == "min_gru":
            hidden = np.where(hidden >= 0, hidden + 0.5, sigmoid(hidden))
        h = (1 - sigmoid(gate)) * h + sigmoid(gate) * hidden
        return h, h

    net = check(lambda net, x: cells.min_gru(net, x, W, b, gates="nz", h0=h0, activation=activation), step, h0)
    assert [layer.operation for layer in net.pruned().layers] == ["input", "dense", "dense", "state", "blend"]


@pytest.mark.parametrize("zoneout", [0.0, 0.15])
def test_layer_norm_gru(zoneout: float) -> None:
    """As in haste: W x and U h are normalised over all three gates, z r h, by themselves; then biases; zoneout."""
    kernel, recurrent, b, rb, g0, g1 = arrays((3 * H, I), (3 * H, H), *[(3 * H,)] * 4)

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        wx = normalised(kernel @ x, 1e-5) * g0 + b
        rh = normalised(recurrent @ h, 1e-5) * g1 + rb
        z, r = sigmoid(wx[:H] + rh[:H]), sigmoid(wx[H : 2 * H] + rh[H : 2 * H])
        g = np.tanh(wx[2 * H :] + r * rh[2 * H :])
        new = z * h + (1 - z) * g
        h = zoneout * h + (1 - zoneout) * new
        return h, h

    def build(net: Network, x: Value) -> Value:
        scales = {"scale_x": g0, "scale_h": g1}
        return cells.layer_norm_gru(net, x, kernel, recurrent, b, rb, **scales, gates="zrn", zoneout=zoneout)

    check(build, step, np.zeros(H))


def test_layer_norm_sum_gru() -> None:
    """As in DreamerV2: one matrix for [x, h], normalised over reset, cand, update; update bias -1."""
    W, b, scale, shift = arrays((3 * H, I + H), (3 * H,), (3 * H,), (3 * H,))

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        parts = normalised(W @ np.concatenate([x, h]) + b, 1e-3) * scale + shift
        reset, cand, update = np.split(parts, 3)
        cand, update = np.tanh(sigmoid(reset) * cand), sigmoid(update - 1)
        h = update * cand + (1 - update) * h
        return h, h

    def build(net: Network, x: Value) -> Value:
        return cells.layer_norm_sum_gru(net, x, W[:, :I], W[:, I:], b, scale=scale, shift=shift)

    check(build, step, np.zeros(H))


@pytest.mark.parametrize("norm", ["rms", "layer", None])
def test_norm_input_gru(norm: str | None) -> None:
    """As the GRU of DreamerV3's library: [h, x] is normalised before the product."""
    W, b, scale, shift = arrays((3 * H, H + I), (3 * H,), (H + I,), (H + I,))

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        both = np.concatenate([h, x])
        if norm == "rms":
            both = both / np.sqrt((both**2).mean() + 1e-4) * scale
        elif norm == "layer":
            both = normalised(both, 1e-4) * scale + shift
        reset, cand, update = np.split(W @ both + b, 3)
        cand, update = np.tanh(sigmoid(reset) * cand), sigmoid(update - 1)
        h = update * cand + (1 - update) * h
        return h, h

    options = {"rms": {"scale": scale}, "layer": {"scale": scale, "shift": shift}}.get(norm or "", {})
    check(lambda net, x: cells.norm_input_gru(net, x, W, b, norm=norm, **options), step, np.zeros(H))


def test_norm_input_gru_in_blocks() -> None:
    """As DreamerV3's sequence model: each of 4 blocks reads its part of the state and all of the input."""
    blocks, part = 4, 3
    W, b, scale, h0 = arrays((blocks, 3 * part, part + I), (blocks, 3 * part), (blocks * part + I,), (blocks * part,))

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        both = np.concatenate([h, x])
        both = both / np.sqrt((both**2).mean() + 1e-4) * scale
        grouped = both[: len(h)].reshape(blocks, part)
        sums = np.stack([W[g] @ np.concatenate([grouped[g], both[len(h) :]]) + b[g] for g in range(blocks)])
        reset, cand, update = (a.ravel() for a in np.split(sums, 3, axis=1))
        cand, update = np.tanh(sigmoid(reset) * cand), sigmoid(update - 1)
        h = update * cand + (1 - update) * h
        return h, h

    check(lambda net, x: cells.norm_input_gru(net, x, W, b, scale=scale, h0=h0), step, h0)


def plain_gru(p: dict[str, dict[str, Array]], b_h: Array, reset: str, x: Array, h: Array) -> tuple[Array, Array]:
    """z, which keeps the old state, and n; gates r, z, n of b_h."""
    r, z = (sigmoid(gate_sums(p, gate, x, h) + part) for gate, part in zip("rz", np.split(b_h, 3)))
    s_x, U, b = p["W"]["n"] @ x + p["b"]["n"], p["U"]["n"], b_h[2 * H :]
    if reset == "after":
        return z, np.tanh(s_x + r * (U @ h + b))
    if reset == "before":
        return z, np.tanh(s_x + U @ (r * h) + b)
    return z, np.tanh(r * (s_x + U @ h + b) if reset == "all" else s_x + U @ h + b)


@pytest.mark.parametrize("reset", ["after", "before", "all", "none"])
def test_zoneout_gru(reset: str) -> None:
    """Krueger et al. 2017: at inference the expectation, a blend of the old state and the GRU's new one."""
    p = per_gate("rzn")
    (b_h,) = arrays((3 * H,), seed=1)
    gates = "zn" if reset == "none" else "zrn"

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        z, n = plain_gru(p, b_h, reset, x, h)
        h = 0.2 * h + 0.8 * (z * h + (1 - z) * n)
        return h, h

    biases = dict(zip("rzn", np.split(b_h, 3)))
    given = [*(stacked(p[kind], gates) for kind in "WUb"), stacked(biases, gates)]
    check(lambda net, x: cells.zoneout_gru(net, x, *given, zoneout=0.2, gates=gates, reset=reset), step, np.zeros(H))
    # Without zoneout it is Network.gru.
    x = np.random.default_rng(5).normal(size=(STEPS, I))
    outputs = []
    for make in (
        lambda net, x: cells.zoneout_gru(net, x, *given, zoneout=0, gates=gates, reset=reset, keep="new"),
        lambda net, x: net.gru(x, *given, gates=gates, reset=reset, keep="new"),
    ):
        net = Network()
        net.output(make(net, net.input(I)))
        outputs.append(ge.reference.run(net, x))
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scales", ["old", "new"])
def test_au_gru(scales: str) -> None:
    """Zhou et al. 2019: as their program computes it, and as their paper says."""
    p = per_gate("rzn")

    def step(frame: Array, h: Array) -> tuple[Array, ...]:
        x, a = frame[:I], sigmoid(frame[I:])
        z, n = plain_gru(p, np.zeros(3 * H), "before", x, h)
        if scales == "old":
            u = (1 - a) * z
            h = u * h + (1 - u) * n
        else:
            u = a * (1 - z)
            h = (1 - u) * h + u * n
        return h, h

    def build(net: Network, x: Value) -> Value:
        a = net.activation(x[I:], "sigmoid")
        return cells.au_gru(net, x[:I], a, *(stacked(p[kind], "rzn") for kind in "WUb"), scales=scales)

    check(build, step, np.zeros(H), inputs=I + 1)


@pytest.mark.parametrize("width", [1, H])
def test_a_gru(width: int) -> None:
    """Zhou et al. 2019: the score in the place of the update gate."""
    p = per_gate("nr")

    def step(frame: Array, h: Array) -> tuple[Array, ...]:
        x, a = frame[:I], sigmoid(frame[I:])
        r = sigmoid(gate_sums(p, "r", x, h))
        n = np.tanh(p["W"]["n"] @ x + p["U"]["n"] @ (r * h) + p["b"]["n"])
        h = (1 - a) * h + a * n
        return h, h

    def build(net: Network, x: Value) -> Value:
        a = net.activation(x[I:], "sigmoid")
        return cells.a_gru(net, x[:I], a, *(stacked(p[kind], "nr") for kind in "WUb"), gates="nr")

    check(build, step, np.zeros(H), inputs=I + width)


def test_grouped_gru() -> None:
    """Two GRUs, each of its half of the input."""
    p = [per_gate("rzn", columns=3, seed=seed) for seed in (1, 2)]
    b_h = arrays((2, 3 * H), seed=3)[0]

    def step(x: Array, *h: Array) -> tuple[Array, ...]:
        new = []
        for i in range(2):
            z, n = plain_gru(p[i], b_h[i], "after", x[3 * i : 3 * i + 3], h[i])
            new.append(z * h[i] + (1 - z) * n)
        return np.concatenate(new), *new

    W, U, b = ([stacked(p[i][kind], "rzn") for i in range(2)] for kind in "WUb")
    net = check(
        lambda net, x: cells.grouped_gru(net, x, W, U, b, b_h, name="pair"), step, np.zeros(H), np.zeros(H), inputs=6
    )
    assert [layer.name for layer in net.layers if isinstance(layer, Gru)] == ["pair.0", "pair.1"]


def test_cells_read_tokens_and_lists() -> None:
    """Promise: a cell reads one-hot tokens, and a list as a concatenation, as Network.gru does."""
    W, U, b = arrays((3 * H, I), (3 * H, H), (3 * H,))
    tokens = np.array([3, 0, 4, 4, 1])
    one_hot, by_token, by_list = Network(), Network(), Network()
    one_hot.output(cells.gate_memory_gru(one_hot, one_hot.input(I), W, U, b))
    by_token.output(cells.gate_memory_gru(by_token, by_token.tokens(I), W, U, b))
    x = by_list.input(I)
    by_list.output(cells.gate_memory_gru(by_list, [x[:2], x[2:]], W, U, b))
    vectors = np.eye(I)[tokens]
    wanted = ge.reference.run(one_hot, vectors)
    np.testing.assert_allclose(ge.reference.run(by_token, tokens), wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ge.reference.run(by_list, vectors), wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ge.load(by_token.tobytes()).run(tokens), wanted, rtol=0, atol=TOLERANCE)


def test_only_products_with_the_state_stand_in_the_loop() -> None:
    """Promise: the product with the input, the larger half as a rule, is outside and computed for many steps at once."""
    W, U = arrays((3 * H, I), (3 * H, H))
    net = Network()
    x = net.input(I)
    net.output(net.dense(cells.layer_norm_gru(net, x, W, U), arrays((2, H))[0]))
    nodes = format.read(net.tobytes()).nodes
    kinds = [node.kind.__name__ for node in nodes]
    state = kinds.index("State")
    assert kinds[:state] == ["Input", "Dense", "Norm", "Slice", "Slice"] or "Dense" in kinds[:state]
    assert kinds[nodes[state].parameters[0]] == "Blend"
    assert kinds[state:].count("Dense") == 2  # of the state, and the head
    assert kinds[-1] == "Dense"


GOOD: dict[str, Any] = {"W": np.ones((3 * H, I)), "U": np.ones((3 * H, H))}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("mgu", {**GOOD}, r"U must have the shape \[2\*H, H\] for the gates 'fn', got \[21, 7\]"),
    ("mgu", {"W": np.ones((4, I)), "U": np.ones((4, 2)), "reset": "all"}, "reset must be 'before', 'after' or 'none'"),
    ("mgu", {"W": np.ones((4, I)), "U": np.ones((4, 2)), "gates": "zn"}, "gates must be a permutation of 'fn'"),
    ("li_gru", {"W": np.ones((4, I)), "U": np.ones((4, 2)), "batch_norm": np.ones((4, 4))}, "four arrays"),
    (
        "li_gru",
        {"W": np.ones((4, I)), "U": np.ones((4, 2)), "recurrent_scale": np.ones(4)},
        "need recurrent_norm, the eps",
    ),
    ("li_gru", {"W": np.ones((4, I)), "U": np.ones((4, 2)), "batch_norm": [np.ones(3)] * 4}, "batch_norm: scale must"),
    ("li_gru", {"W": np.ones((4, I)), "U": np.ones((4, 2)), "batch_norm": [-np.ones(4)] * 4}, "must be positive"),
    ("gate_memory_gru", {**GOOD, "gates": "rzo"}, "gates must be a permutation of 'rzno', got 'rzo'"),
    ("gate_memory_gru", {**GOOD, "z0": np.ones(3)}, r"z0 must have the shape \[H = 7\], got \[3\]"),
    ("gate_memory_gru", {**GOOD, "W": np.ones((3 * H, 4))}, r"W must have the shape \[O = 21, I = 5\]|W must have"),
    ("input_forget_gru", {**GOOD, "b": np.ones(3)}, r"b must have the shape \[3\*H = 21\], got \[3\]"),
    ("min_gru", {"W": np.ones((3, I))}, r"W must have the shape \[2\*H, I\], got \[3, 5\]"),
    ("layer_norm_gru", {**GOOD, "scale_x": np.ones(2)}, r"scale_x must have the shape \[3\*H = 21\], got \[2\]"),
    ("layer_norm_gru", {**GOOD, "zoneout": 1.5}, r"zoneout must be from 0 to 1, got 1.5"),
    ("layer_norm_gru", {**GOOD, "epsilon": -1}, "epsilon must not be negative"),
    ("layer_norm_sum_gru", {**GOOD, "h0": np.ones(2)}, r"h0 must have the shape \[H = 7\], got \[2\]"),
    ("norm_input_gru", {"W": np.ones((6, 3))}, "W must have 7 columns, 2 for the state and 5 for x, got 3"),
    ("norm_input_gru", {"W": np.ones((5, 7))}, "W must have rows for 3 gates, got 5"),
    ("norm_input_gru", {"W": np.ones((6, 7)), "norm": "batch"}, "norm must be 'rms', 'layer' or None, got 'batch'"),
    ("norm_input_gru", {"W": np.ones((6, 7)), "shift": np.ones(7)}, "norm='rms' has no shift"),
    ("norm_input_gru", {"W": np.ones((2, 6, 7)), "b": np.ones(12)}, r"b must have the shape \[B, 3\*H/B\]"),
    ("zoneout_gru", {**GOOD, "zoneout": -0.1}, "zoneout must be from 0 to 1, got -0.1"),
    ("zoneout_gru", {**GOOD, "zoneout": 0.1, "reset": "late"}, "reset must be one of"),
    ("zoneout_gru", {**GOOD, "zoneout": 0.1, "keep": "all"}, "keep must be 'old' or 'new', got 'all'"),
    ("grouped_gru", {"W": [1, 2], "U": [1, 2]}, "W must be as many arrays as divide the width of x, 5, got 2"),
    ("grouped_gru", {"W": [1], "U": [1, 2]}, "U must be 1 arrays, as W is, got 2"),
]


@pytest.mark.parametrize(("cell", "arguments", "message"), WRONG)
def test_wrong_arguments(cell: str, arguments: dict[str, Any], message: str) -> None:
    """Promise: what does not fit is named."""
    net = Network()
    with pytest.raises(ValueError, match=message):
        getattr(cells, cell)(net, net.input(I), **arguments)


def test_wrong_scales_and_attention() -> None:
    net = Network()
    x = net.input(I)
    with pytest.raises(ValueError, match="scales must be 'old' or 'new', got 'both'"):
        cells.au_gru(net, x, x[:1], **GOOD, scales="both")
    with pytest.raises(ValueError, match=r"multiply: a and b must have the same width, got 7 and 2"):
        cells.au_gru(net, x, x[:2], **GOOD)
    with pytest.raises(ValueError, match="reset must be 'before' or 'after', got 'all'"):
        cells.a_gru(net, x, x[:1], np.ones((2 * H, I)), np.ones((2 * H, H)), reset="all")


def test_all_cells_are_documented() -> None:
    """Promise: every public cell has its equations and parameters in its docstring."""
    for name in cells.__all__:
        text = getattr(cells, name).__doc__
        assert "Parameters\n" in text, name
        assert "h'" in text or name == "grouped_gru", name


def test_dreamer_v3_gru() -> None:
    """DreamerV3's sequence model: a projection of the state, two hidden layers in blocks, gates r, c, u in blocks."""
    blocks, part, projected, inner = 3, 4, 5, 6
    size = blocks * part
    P, b_p, scale_p = arrays((projected, size), (projected,), (projected,))
    M1, b1, scale1 = arrays((blocks, inner, part + projected + I), (blocks, inner), (blocks * inner,), seed=1)
    M2, b2, scale2 = arrays((blocks, 2, inner), (blocks, 2), (blocks * 2,), seed=2)
    W, b = arrays((blocks, 3 * part, 2), (blocks, 3 * part), seed=3)

    def act(a: Array, scale: Array) -> Array:
        a = a / np.sqrt((a**2).mean() + 1e-4) * scale
        return np.asarray(a * sigmoid(a))

    def blockwise(kernels: Array, biases: Array, groups: Array) -> Array:
        return np.stack([kernel @ group + bias for kernel, bias, group in zip(kernels, biases, groups)])

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        rest = np.concatenate([act(P @ h + b_p, scale_p), x])
        groups = np.concatenate([h.reshape(blocks, part), np.tile(rest, (blocks, 1))], axis=1)
        v = act(blockwise(M1, b1, groups).ravel(), scale1)
        v = act(blockwise(M2, b2, v.reshape(blocks, inner)).ravel(), scale2)
        reset, cand, update = (a.ravel() for a in np.split(blockwise(W, b, v.reshape(blocks, 2)), 3, axis=1))
        cand, update = np.tanh(sigmoid(reset) * cand), sigmoid(update - 1)
        h = update * cand + (1 - update) * h
        return h, h

    def build(net: Network, x: Value, **changed: Any) -> Value:
        given = {"projection": (P, b_p, scale_p), "hidden": [(M1, b1, scale1), (M2, b2, scale2)], **changed}
        return cells.dreamer_v3_gru(net, x, W, b, **given)

    check(build, step, np.zeros(size))
    for changed, message in (
        ({"projection": (P,)}, r"projection must be \(matrix, bias, scale\)"),
        ({"hidden": []}, "hidden at least one"),
        ({"projection": (P[:, 1:], None, None)}, r"projection: P must have the shape \[Q, H = 12\], got \[5, 11\]"),
        ({"hidden": [(M2, None, None)]}, r"hidden\[0\]: M must have the shape \[B = 3, V/B, K = 14\], got \[3, 2, 6\]"),
        ({"hidden": [(M1, None, None)]}, "W must have 6 columns, as the last hidden layer has rows, got 2"),
    ):
        net = Network()
        with pytest.raises(ValueError, match=message):
            build(net, net.input(I), **changed)


def test_the_example_of_the_documentation() -> None:
    """Promise: the cell that docs/VARIANTS.md puts together by hand is what it says."""
    names: dict[str, Any] = {}
    exec(python_blocks("docs/VARIANTS.md")[-1], names)
    W, U, b = arrays((H, I), (H, H), (H,))

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        h = np.tanh(W @ x + U @ h + b)
        return h, h

    check(lambda net, x: names["elman"](net, x, W, U, b), step, np.zeros(H))
    assert {f"cells.{name}" for name in cells.__all__} <= set(re.findall(r"cells\.\w+", text_of("docs/VARIANTS.md")))
