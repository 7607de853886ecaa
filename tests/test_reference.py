# SPDX-License-Identifier: Apache-2.0
"""The reference against the published equations, written out here once more with Python's floats, one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gru_engine import Network, reference
from gru_engine.activations import activation

from .random_networks import random_input, random_network

Array = npt.NDArray[Any]
Floats = list[float]
Matrix = list[list[float]]


# ---- an independent GRU: no arrays, one number at a time


def sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def dot(row: Floats, x: Floats) -> float:
    return math.fsum(a * b for a, b in zip(row, x))


def scalar_gru_step(W: Matrix, U: Matrix, b_x: Floats, b_h: Floats, x: Floats, h: Floats, reset: str) -> Floats:
    """Rows in the order r, z, n (reset none: z, n); sigmoid and tanh."""
    H = len(h)
    first = {"r": 0, "z": H, "n": 2 * H} if reset != "none" else {"z": 0, "n": H}

    def s_x(gate: str, i: int) -> float:
        return dot(W[first[gate] + i], x) + b_x[first[gate] + i]

    def s_h(gate: str, i: int, h: Floats) -> float:
        return dot(U[first[gate] + i], h) + b_h[first[gate] + i]

    new = []
    r = [sigmoid(s_x("r", i) + s_h("r", i, h)) for i in range(H)] if reset != "none" else []
    for i in range(H):
        z = sigmoid(s_x("z", i) + s_h("z", i, h))
        if reset == "after":
            a = s_x("n", i) + r[i] * s_h("n", i, h)
        elif reset == "before":
            a = s_x("n", i) + s_h("n", i, [r[j] * h[j] for j in range(H)])
        elif reset == "all":
            a = r[i] * (s_x("n", i) + s_h("n", i, h))
        else:
            a = s_x("n", i) + s_h("n", i, h)
        new.append((1 - z) * math.tanh(a) + z * h[i])
    return new


def gru_arrays(seed: int, H: int, columns: int, gates: int = 3) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=s) for s in ((gates * H, columns), (gates * H, H), (gates * H,), (gates * H,))]


def gru_network(columns: int, *arrays: Any, **options: Any) -> Network:
    net = Network()
    net.output(net.gru(net.input(columns), *arrays, **options))
    return net


@pytest.mark.parametrize("reset", ["after", "before", "all", "none"])
def test_gru_is_that_of_the_equations(reset: str) -> None:
    arrays = gru_arrays(1, 4, 3, gates=2 if reset == "none" else 3)
    x = np.random.default_rng(2).normal(size=(6, 3))
    h: Floats = [0.5, -0.25, 0.0, 1.0]
    y, state = reference.run(gru_network(3, *arrays, reset=reset, h0=h), x, return_state=True)
    for t in range(6):
        W, U, b_x, b_h = (a.tolist() for a in arrays)
        h = scalar_gru_step(W, U, b_x, b_h, x[t].tolist(), h, reset)
        np.testing.assert_allclose(y[t], h, rtol=1e-13)
    np.testing.assert_array_equal(state, y[-1])


def test_reset_modes_differ() -> None:
    """The test above can tell them apart."""
    arrays = gru_arrays(1, 4, 3)
    x = np.random.default_rng(2).normal(size=(6, 3))
    results = [reference.run(gru_network(3, *arrays, reset=reset), x) for reset in ("after", "before", "all")]
    for i in range(3):
        assert np.abs(results[i] - results[i - 1]).max() > 0.05


def test_small_numbers_by_hand() -> None:
    """One unit, one input, every weight a power of two; the gates by their definitions."""
    net = gru_network(1, [[1], [2], [0.5]], [[0.5], [-1], [2]], [0, 0.5, 0.25], [0.25, 0, 1], h0=[0.5])
    y = reference.run(net, [[1.0]])
    r = sigmoid(1 + 0.5 * 0.5 + 0.25)
    z = sigmoid(2 - 0.5 + 0.5)
    n = math.tanh(0.5 + 0.25 + r * (2 * 0.5 + 1))
    assert y[0, 0] == pytest.approx(z * 0.5 + (1 - z) * n, rel=1e-15)
    assert y[0, 0] == pytest.approx(0.55759728216313745, rel=1e-15)  # 40 digits of Python's decimal


def test_keep_new_is_the_other_sense_of_z() -> None:
    """h' = (1 - z) h + z n with the arrays as given (Chung et al. 2014, arXiv:1412.3555)."""
    W, U, b_x, b_h = gru_arrays(3, 4, 3)
    x = np.random.default_rng(4).normal(size=(5, 3))
    y = reference.run(gru_network(3, W, U, b_x, b_h, keep="new", reset="before"), x)
    h = np.zeros(4)
    for t in range(5):
        Wr, Wz, Wn = np.split(W @ x[t] + b_x, 3)
        Ur, Uz, Un = np.split(U, 3)
        br, bz, bn = np.split(b_h, 3)
        r, z = 1 / (1 + np.exp(-(Wr + Ur @ h + br))), 1 / (1 + np.exp(-(Wz + Uz @ h + bz)))
        h = (1 - z) * h + z * np.tanh(Wn + Un @ (r * h) + bn)
        np.testing.assert_allclose(y[t], h, rtol=1e-12)


def test_update_gate_inside_the_candidate() -> None:
    """System S3 of the design: one gate z, n = tanh(Wn x + Un (z * h) + bn), h' = (1 - z) h + z n, and its worked example."""
    Wz, Uh, bz = [[0.4, 0.3], [-0.2, 0.5]], [[0.6, 0.1], [0.2, 0.7]], [0.3, -0.1]
    Wn, Un, bn = [[0.8, 0.2], [0.3, 0.5]], [[0.4, 0.3], [0.2, 0.5]], [0.1, -0.2]
    x, h = [0.1, 0.2], [0.5, 0.6]
    z = [sigmoid(dot(Wz[i], x) + dot(Uh[i], h) + bz[i]) for i in range(2)]
    gated = [z[i] * h[i] for i in range(2)]
    n = [math.tanh(dot(Wn[i], x) + dot(Un[i], gated) + bn[i]) for i in range(2)]
    expected = [(1 - z[i]) * h[i] + z[i] * n[i] for i in range(2)]

    # The reset gate carries z's weights, and z is reversed.
    negated = [-np.array(a) for a in (Wz, Uh, bz)]
    W, U, b = (np.concatenate([gate, minus, last]) for gate, minus, last in zip((Wz, Uh, bz), negated, (Wn, Un, bn)))
    net = gru_network(2, W, U, b, reset="before")
    y, _ = reference.step(net, x, h)
    np.testing.assert_allclose(y, expected, rtol=1e-14)

    both = [np.concatenate([gate, gate, last]) for gate, last in zip((Wz, Uh, bz), (Wn, Un, bn))]
    assert gru_network(2, *both, reset="before", keep="new").same(net)


def test_gate_activations_and_clip() -> None:
    """hard_sigmoid gates, a relu candidate, sums limited to 0.7 before every activation."""
    W, U, b_x, b_h = gru_arrays(5, 4, 3)
    options: dict[str, Any] = {"activation": "relu", "gate_activation": ("hard_sigmoid", 0.3, 0.4), "clip": 0.7}
    x = np.random.default_rng(6).normal(size=(5, 3))
    y = reference.run(gru_network(3, W, U, b_x, b_h, **options), x)

    def gate(a: Array) -> Array:
        return np.minimum(1, np.maximum(0, 0.3 * np.minimum(0.7, np.maximum(-0.7, a)) + 0.4))

    h = np.zeros(4)
    clipped = 0
    for t in range(5):
        xr, xz, xn = np.split(W @ x[t] + b_x, 3)
        hr, hz, hn = np.split(U @ h + b_h, 3)
        r, z, a = gate(xr + hr), gate(xz + hz), xn + gate(xr + hr) * hn
        clipped += int((a > 0.7).sum())
        assert (r >= 0.4 - 0.21 - 1e-12).all()
        h = z * h + (1 - z) * np.minimum(0.7, np.maximum(a, 0))
        np.testing.assert_allclose(y[t], h, rtol=1e-12)
    assert clipped > 0


# ---- activations


def gelu_tanh(a: float) -> float:
    v = math.sqrt(8 / math.pi) * a * (1 + 0.044715 * a * a)
    return a * sigmoid(v) if v > 0 else a * math.exp(v) / (1 + math.exp(v))


SCALAR: dict[Any, Callable[[float], float]] = {
    "linear": lambda a: a,
    "sigmoid": sigmoid,
    "tanh": math.tanh,
    "relu": lambda a: max(a, 0.0),
    ("affine", 2.0, -1.0): lambda a: 2 * a - 1,
    "leaky_relu": lambda a: a if a >= 0 else 0.01 * a,
    ("leaky_relu", 0.3): lambda a: a if a >= 0 else 0.3 * a,
    "thresholded_relu": lambda a: a if a > 1 else 0.0,
    ("scaled_tanh", 1.7159, 0.6667): lambda a: 1.7159 * math.tanh(0.6667 * a),
    "hard_sigmoid": lambda a: min(1.0, max(0.0, 0.2 * a + 0.5)),
    ("hard_sigmoid", 1 / 6): lambda a: min(1.0, max(0.0, a / 6 + 0.5)),
    "elu": lambda a: a if a >= 0 else math.expm1(a),
    ("elu", 0.5): lambda a: a if a >= 0 else 0.5 * math.expm1(a),
    "softsign": lambda a: a / (1 + abs(a)),
    "softplus": lambda a: max(a, 0.0) + math.log1p(math.exp(-abs(a))),
    "silu": lambda a: a * sigmoid(a),
    "gelu": lambda a: a * math.erfc(-a / math.sqrt(2)) / 2,
    "gelu_tanh": gelu_tanh,
}


@pytest.mark.parametrize("spec", SCALAR, ids=str)
def test_activations(spec: Any) -> None:
    a = np.concatenate([np.linspace(-30, 30, 241), [1e-300, -1e-300, 1e-9, -1e-9]])
    np.testing.assert_allclose(activation(spec)(a), [SCALAR[spec](v) for v in a.tolist()], rtol=1e-14, atol=0)


@pytest.mark.parametrize("spec", SCALAR, ids=str)
def test_activations_of_large_arguments_and_nan(spec: Any) -> None:
    a = np.array([-1e30, 1e30, np.nan])
    with np.errstate(invalid="ignore"):  # NumPy 1 warns of NaN in expm1
        result = activation(spec)(a)
    assert np.isfinite(result[:2]).all()
    assert np.isnan(result[2])


def test_softmax() -> None:
    net = Network()
    x = net.input(3)
    net.output(net.activation(x, "softmax"))
    net.output(net.dense(x, np.eye(3), [1, 2, 3], activation="log_softmax"))
    y = reference.run(net, [[0.0, 1.0, 2.0], [1000.0, 1000.0, 0.0]])
    e = [math.exp(v) for v in (0, 1, 2)]
    np.testing.assert_allclose(y[0, :3], [v / sum(e) for v in e], rtol=1e-14)
    logs = [a - math.log(sum(math.exp(v) for v in (1, 3, 5))) for a in (1, 3, 5)]
    np.testing.assert_allclose(y[0, 3:], logs, rtol=1e-14)
    np.testing.assert_allclose(y[1, :3], [0.5, 0.5, 0], atol=1e-14)


# ---- the other layers


def test_layers_by_hand() -> None:
    net = Network()
    x = net.input(2)
    d = net.dense([x, x], [[1, 2, 3, 4], [0, 1, 0, -1]], [10, 20])
    net.output(d, name="dense")
    net.output(net.add(x, d), name="add")
    net.output(net.multiply(x, d), name="multiply")
    net.output(net.affine(x, [2, 3], [-1, 1]), name="affine")
    net.output([d, x], name="concat")
    y = reference.run(net, [[5, 7]])[0]
    parts = {name: y[part].tolist() for name, part in net.outputs.items()}
    dense = [5 + 14 + 15 + 28 + 10, 7 - 7 + 20]
    assert parts == {
        "dense": dense,
        "add": [77, 27],
        "multiply": [360, 140],
        "affine": [9, 22],
        "concat": [*dense, 5, 7],
    }


def test_tokens_are_one_hot_vectors() -> None:
    rng = np.random.default_rng(7)
    tokens = rng.integers(0, 5, (2, 6))
    W, U, b_x, b_h = gru_arrays(8, 4, 5)
    D, d, E = rng.normal(size=(3, 5)), rng.normal(size=3), rng.normal(size=(5, 2))
    by_token, by_vector = Network(), Network()
    t, v = by_token.tokens(5), by_vector.input(5)
    by_token.output([by_token.gru(t, W, U, b_x, b_h), by_token.dense(t, D, d), by_token.embedding(t, E)])
    by_vector.output([by_vector.gru(v, W, U, b_x, b_h), by_vector.dense(v, D, d), by_vector.dense(v, E.T)])
    one_hot = np.eye(5)[tokens]
    np.testing.assert_allclose(reference.run(by_token, tokens), reference.run(by_vector, one_hot), rtol=1e-12)


def test_last_and_first() -> None:
    net = Network()
    x = net.input(2)
    net.output(net.dense([net.last(x), net.first(x)], np.eye(4)))
    x_values = np.arange(16.0).reshape(2, 4, 2)
    assert reference.run(net, x_values, lengths=[2, 4]).tolist() == [[2, 3, 0, 1], [14, 15, 8, 9]]
    assert reference.run(net, x_values[0]).tolist() == [6, 7, 0, 1]


def test_float32_arithmetic_on_request() -> None:
    net = gru_network(3, *gru_arrays(1, 4, 3))
    x = np.random.default_rng(2).normal(size=(6, 3))
    y, state = reference.run(net, x, arithmetic=np.float32, return_state=True)
    assert y.dtype == state.dtype == np.float32
    np.testing.assert_allclose(y, reference.run(net, x), rtol=1e-5, atol=1e-6)
    assert reference.run(net, x.astype(np.float32)).dtype == np.float64


# ---- time: direction, lengths, resets, state


def both_ways(seed: int = 9) -> tuple[Network, Network]:
    """The same GRU forward and in reverse, with an initial state."""
    arrays = gru_arrays(seed, 4, 3)
    h0 = [0.1, -0.2, 0.3, 0.4]
    return gru_network(3, *arrays, h0=h0), gru_network(3, *arrays, h0=h0, direction="reverse")


def test_reverse_is_forward_over_the_flipped_sequence() -> None:
    forward, reverse = both_ways()
    x = np.random.default_rng(10).normal(size=(4, 7, 3))
    lengths = np.array([7, 1, 4, 0])
    y, state = reference.run(reverse, x, lengths=lengths, return_state=True)
    for row, length in enumerate(lengths):
        flipped, after = reference.run(forward, x[row, :length][::-1], return_state=True)
        np.testing.assert_allclose(y[row, :length], flipped[::-1], rtol=1e-13)
        np.testing.assert_allclose(state[row], after, rtol=1e-13)
        assert not y[row, length:].any()


def test_given_state_of_a_reverse_layer_is_that_before_its_last_step() -> None:
    _, reverse = both_ways()
    x = np.random.default_rng(10).normal(size=(7, 3))
    right, middle = reference.run(reverse, x[4:], return_state=True)
    left, end = reference.run(reverse, x[:4], state=middle, return_state=True)
    y, state = reference.run(reverse, x, return_state=True)
    np.testing.assert_allclose(np.concatenate([left, right]), y, rtol=1e-13)
    np.testing.assert_allclose(end, state, rtol=1e-13)


@pytest.mark.parametrize("seed", range(12))
def test_lengths_are_the_same_as_shorter_sequences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=20)
    x = random_input(rng, net, 4, 6)
    lengths = np.array([6, 1, 3, 2])
    state = rng.normal(size=(4, net.state_size))
    y, after = reference.run(net, x, lengths=lengths, state=state, return_state=True)
    for row, length in enumerate(lengths):
        alone, alone_after = reference.run(net, x[row, :length], state=state[row], return_state=True)
        np.testing.assert_allclose(y[row] if net.per_sequence else y[row, :length], alone, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(after[row], alone_after, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("seed", range(12))
def test_resets_are_the_same_as_separate_sequences(seed: int) -> None:
    """Each direction: what lies on the other side of a reset has no influence."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=20, per_sequence=False)
    x = random_input(rng, net, 2, 9)
    reset = np.zeros((2, 9), bool)
    reset[0, [3, 4, 8]] = reset[1, 5] = True  # the last in row 0 stands in the padding
    reset[1, 0] = True
    y = reference.run(net, x, reset=reset, lengths=[8, 9])
    for row, borders in ((0, [0, 3, 4, 8]), (1, [0, 5, 9])):
        for start, stop in itertools.pairwise(borders):
            alone = reference.run(net, x[row, start:stop])
            np.testing.assert_allclose(y[row, start:stop], alone, rtol=1e-9, atol=1e-11)


def test_states_at_resets() -> None:
    """A forward layer's given state is dropped by a reset at step 0; a reverse layer's returned state is not."""
    forward, reverse = both_ways()
    x = np.random.default_rng(11).normal(size=(3, 3))
    reset = [True, False, False]
    given = np.full(4, 0.7)
    np.testing.assert_array_equal(reference.run(forward, x, state=given, reset=reset), reference.run(forward, x))
    assert (reference.run(forward, x, state=given) != reference.run(forward, x)).any()
    with_reset = reference.run(reverse, x, state=given, reset=reset, return_state=True)
    without = reference.run(reverse, x, state=given, return_state=True)
    for a, b in zip(with_reset, without):
        np.testing.assert_array_equal(a, b)


def test_a_reset_in_the_padding_changes_nothing() -> None:
    forward, _ = both_ways()
    x = np.random.default_rng(11).normal(size=(1, 4, 3))
    reset = np.array([[False, False, True, True]])
    y, state = reference.run(forward, x, lengths=[2], reset=reset, return_state=True)
    np.testing.assert_array_equal(y[0, :2], reference.run(forward, x[0, :2]))
    np.testing.assert_array_equal(state[0], y[0, 1])


def test_one_row_of_resets_is_for_all_sequences() -> None:
    forward, _ = both_ways()
    x = np.random.default_rng(11).normal(size=(2, 4, 3))
    reset = np.array([False, True, False, True])
    expected = reference.run(forward, x, reset=np.stack([reset, reset]))
    np.testing.assert_array_equal(reference.run(forward, x, reset=reset), expected)


def test_what_stands_in_the_padding_does_not_matter() -> None:
    for net in both_ways():
        x = np.random.default_rng(12).normal(size=(2, 5, 3))
        expected = reference.run(net, x, lengths=[2, 4], padding="carry")
        x[0, 2:] = np.nan
        x[1, 4:] = np.inf
        np.testing.assert_array_equal(reference.run(net, x, lengths=[2, 4], padding="carry"), expected)
    tokens = Network()
    tokens.output(tokens.embedding(tokens.tokens(2), [[1], [2]]))
    assert reference.run(tokens, [[1, -1, 99]], lengths=[1]).tolist() == [[[2], [0], [0]]]


def test_outputs_of_padding_steps() -> None:
    net = Network()
    x = net.input(1)
    net.output(net.dense(x, [[1]], [100]))  # not zero for zero inputs
    values = np.arange(6.0).reshape(2, 3, 1)
    zero = reference.run(net, values, lengths=[2, 0])
    carry = reference.run(net, values, lengths=[2, 0], padding="carry")
    assert zero[..., 0].tolist() == [[100, 101, 0], [0, 0, 0]]
    assert carry[..., 0].tolist() == [[100, 101, 101], [0, 0, 0]]


@pytest.mark.parametrize("seed", range(12))
def test_steps_are_the_same_as_a_run(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=20, allow_reverse=False)
    x = random_input(rng, net, 3, 5)
    run, after = reference.run(net, x, return_state=True)
    state = None
    for t in range(5):
        y, state = reference.step(net, x[:, t], state)
        if not net.per_sequence:
            np.testing.assert_allclose(y, run[:, t], rtol=1e-9, atol=1e-11)
    if net.per_sequence:
        np.testing.assert_allclose(y, run, rtol=1e-9, atol=1e-11)
    assert state is not None
    np.testing.assert_allclose(state, after, rtol=1e-9, atol=1e-11)
    y, state = reference.step(net, x[0, 0])
    assert y.shape == (net.output_size,)
    assert state.shape == (net.state_size,)


@pytest.mark.parametrize("seed", range(12))
def test_chunks_are_the_same_as_a_run(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=20, allow_reverse=False, per_sequence=False)
    x = random_input(rng, net, 7)
    y, after = reference.run(net, x, return_state=True)
    first, state = reference.run(net, x[:3], return_state=True)
    second, state = reference.run(net, x[3:], state=state, return_state=True)
    np.testing.assert_allclose(np.concatenate([first, second]), y, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(state, after, rtol=1e-9, atol=1e-11)


def test_state_is_the_hidden_states_in_the_order_of_the_layers() -> None:
    net = Network()
    x = net.input(3)
    a = net.gru(x, *gru_arrays(1, 2, 3), h0=[1, 2])
    unused = net.gru(x, *gru_arrays(1, 5, 3), h0=[9] * 5)
    b = net.gru(a, *(np.stack([w, w]) for w in gru_arrays(2, 1, 2)), h0=[[3], [4]], direction="bidirectional")
    net.output([b, a])
    assert unused.width == 5
    y, state = reference.run(net, np.zeros((0, 3)), return_state=True)
    assert y.shape == (0, 4)
    assert state.tolist() == [1, 2, 3, 4]
    y, state = reference.run(net, np.ones((2, 3)), return_state=True)
    assert state.tolist() == [*y[1, 2:], y[1, 0], y[0, 1]]


def test_empty_sequences_and_batches() -> None:
    forward, _ = both_ways()
    assert reference.run(forward, np.zeros((0, 3))).shape == (0, 4)
    assert reference.run(forward, np.zeros((2, 0, 3)), padding="carry").shape == (2, 0, 4)
    y, state = reference.run(forward, np.zeros((0, 5, 3)), return_state=True)
    assert y.shape == (0, 5, 4)
    assert state.shape == (0, 4)


# ---- what is refused


def refused(message: str, error: type[Exception] = ValueError, tokens: bool = False, **arguments: Any) -> None:
    net = Network()
    if tokens:
        net.output(net.embedding(net.tokens(5), np.ones((5, 2))))
    else:
        net.output(net.gru(net.input(3), *gru_arrays(1, 4, 3)))
    with pytest.raises(error, match=message):
        reference.run(net, **{"x": np.zeros((2, 6, 3)), **arguments})


def test_refused_arguments() -> None:
    refused(r"x must have the shape \[T, I\] or \[B, T, I\] with I = 3, got \[6, 2\]", x=np.zeros((6, 2)))
    refused(r"x must have the shape .* got \[3\]", x=np.zeros(3))
    refused("x must be an array of real numbers, got dtype bool", TypeError, x=np.zeros((6, 3), bool))
    refused("x must be integer tokens, got dtype float64", TypeError, tokens=True, x=np.zeros(6))
    refused(r"x must have the shape \[T\] or \[B, T\], got \[1, 1, 6\]", tokens=True, x=np.zeros((1, 1, 6), int))
    refused("tokens must be from 0 to 4, got 5", tokens=True, x=np.array([0, 5]))
    refused("tokens must be from 0 to 4, got -1", tokens=True, x=np.array([0, -1]))
    refused(r"lengths must be 2 integers from 0 to T = 6, got \[7, 1\]", lengths=[7, 1])
    refused(r"lengths must be 2 integers from 0 to T = 6, got \[-1, 1\]", lengths=[-1, 1])
    refused("lengths must be 2 integers", lengths=[1])
    refused("lengths must be 2 integers", lengths=3)
    refused("lengths must be integers, got dtype float64", TypeError, lengths=[1.0, 2.0])
    refused(r"reset must have the shape \[T\] = \[6\] or \[B, T\] = \[2, 6\], got \[2\]", reset=[True, False])
    refused(r"reset must have the shape \[T\] = \[6\], got \[1, 6\]", x=np.zeros((6, 3)), reset=np.zeros((1, 6), bool))
    refused("reset must be boolean, got dtype int", TypeError, reset=[0] * 6)
    refused(r"state must have the shape \[B, state_size\] = \[2, 4\], got \[4\]", state=np.zeros(4))
    refused(r"state must have the shape \[state_size\] = \[4\], got \[3\]", x=np.zeros((6, 3)), state=np.zeros(3))
    refused("state must be an array of real numbers", TypeError, state=np.zeros((2, 4), complex))
    refused("padding must be 'zero' or 'carry', got 'none'", padding="none")


def test_empty_sequences_have_no_last_step() -> None:
    net = Network()
    net.output(net.last(net.input(2)))
    for arguments in ({"x": np.zeros((0, 2))}, {"x": np.zeros((2, 3, 2)), "lengths": [3, 0]}):
        with pytest.raises(ValueError, match="an empty sequence has none"):
            reference.run(net, **arguments)


def test_networks_that_cannot_be_stepped() -> None:
    _, reverse = both_ways()
    with pytest.raises(ValueError, match="cannot be stepped"):
        reference.step(reverse, np.zeros(3))
    first = Network()
    first.output(first.first(first.input(2)))
    with pytest.raises(ValueError, match="cannot be stepped"):
        reference.step(first, np.zeros(2))


def test_a_network_without_outputs_cannot_be_run() -> None:
    net = Network()
    net.input(2)
    with pytest.raises(ValueError, match="no output"):
        reference.run(net, np.zeros((1, 2)))
