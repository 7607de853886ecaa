# SPDX-License-Identifier: Apache-2.0
"""States, windows, element by element: what they build and refuse, what they compute, and its bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import Network, format
from gru_engine.layers import Activate, Dense, State
from gru_engine.network import Value
from gru_engine.numerics import fma32

from .helpers import Array, assert_bits, each_isa, gru_arrays, uniform

ONE = np.float32(1)


def network(width: int, build: Callable[[Network, Value], Any]) -> Network:
    """One input and whatever is made of it."""
    net = Network()
    net.output(build(net, net.input(width)))
    return net


def check_bits(net: Network, x: Array, wanted: Array, what: str, **options: Any) -> None:
    """On every instruction set, run and, if it can be, stepped."""
    model = ge.load(net.tobytes())
    for isa in each_isa():
        assert_bits(model.run(x, **options), wanted, f"{what}, {isa}")
        if model.causal and not model.per_sequence and not options:
            stream = model.stream()
            assert_bits(np.array([stream.step(frame) for frame in x]), wanted, f"{what}, {isa}, stepped")


# ---- element by element


def test_blend_add_multiply_and_subtract() -> None:
    """Promise: z a + (1 - z) b with one subtraction and one fused operation; sums and products with a width of 1."""
    rng = np.random.default_rng(0)
    x = uniform(rng, 2, 9, 3 * 17 + 1)
    z, a, b, one = x[:, :17], x[:, 17:34], x[:, 34:51], x[:, 51:]
    net = Network()
    v = net.input(52)
    parts = [v[i * 17 : i * 17 + 17] for i in range(3)]
    net.output(net.blend(*parts), "blend")
    net.output(net.add(parts[1], v[51:]), "add")
    net.output(net.multiply(v[51:], parts[1]), "multiply")
    net.output(net.subtract(parts[1], parts[2]), "subtract")
    net.output(net.subtract(v[51:], parts[2]), "from one")
    wanted = np.concatenate([fma32(z, a - b, b), a + one, a * one, a - b, one - b], axis=1)
    check_bits(net, x, wanted, "pairs")
    np.testing.assert_allclose(
        ge.reference.run(net, x)[:, :17], z.astype(float) * a + (1 - z.astype(float)) * b, rtol=0, atol=1e-14
    )
    np.testing.assert_allclose(ge.reference.run(net, x), wanted, rtol=0, atol=2e-6)


def exp32(x: Array) -> Array:
    """exp of docs/NUMERICS.md, section 5."""
    f = np.float32
    with np.errstate(all="ignore"):
        x = np.where(x > -110, x, f(-110)).astype(f) if not np.isnan(x).any() else x
        x = np.where(x < 90, x, f(90)).astype(f)
    magic = f(1.5 * 2**23)
    t = fma32(x, f(float.fromhex("0x1.715476p+0")), magic)
    k = t - magic
    r = fma32(-k, f(float.fromhex("0x1.62e43p-1")), x)
    fine = fma32(-k, f(float.fromhex("-0x1.05c61p-29")), r)
    u = fine * fine
    a = fma32(f(float.fromhex("0x1.5554aap-3")), fine, f(float.fromhex("0x1.fffffep-2")))
    b = fma32(f(float.fromhex("0x1.122c38p-7")), fine, f(float.fromhex("0x1.55579ap-5")))
    b = fma32(f(float.fromhex("0x1.6ac05p-10")), u, b)
    p = fma32(fma32(b, u, a), u, fine) + ONE
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.ldexp(p.astype(float), k.astype(int)).astype(f))


SPECIAL = np.array(
    [0, -0.0, 1, -1, 0.5, -0.5, 88.7, 88.73, 90, 1e30, -87.4, -104, -200, 1e-40, np.inf, -np.inf], np.float32
)


def test_exp() -> None:
    """Promise: the exp of softmax; infinity above the range of float32, as float64's exp rounded to it."""
    x = np.concatenate([SPECIAL, uniform(np.random.default_rng(0), 100, 600)])[:, np.newaxis]
    net = network(1, lambda net, x: net.activation(x, "exp"))
    check_bits(net, x, exp32(x), "exp")
    y, exact = ge.load(net.tobytes()).run(x), ge.reference.run(net, x)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(y, exact.astype(np.float32), rtol=3e-7, atol=2e-45)
    assert np.isnan(ge.load(net.tobytes()).run(np.full((1, 1), np.nan, np.float32))).all()


@pytest.mark.parametrize("spec", [("clip", -0.5, 0.75), ("clip", 0.0, 6.0), "clip", ("clip", 2.0, 2.0)])
def test_clip(spec: Any) -> None:
    """Promise: the limits themselves, the value between them, NaN for NaN."""
    x = np.concatenate([SPECIAL, uniform(np.random.default_rng(0), 3, 100)])[:, np.newaxis]
    low, high = (np.float32(limit) for limit in (spec[1:] if isinstance(spec, tuple) else (-1, 1)))
    inner = np.where(high < x, high, x)
    net = network(1, lambda net, x: net.activation(x, spec))
    check_bits(net, x, np.where(low > inner, low, inner), str(spec))
    np.testing.assert_array_equal(ge.reference.run(net, x), np.clip(x.astype(float), low, high))
    assert np.isnan(ge.load(net.tobytes()).run(np.full((1, 1), np.nan, np.float32))).all()


def test_min_gru_activation() -> None:
    """Promise: x + 0.5 where x >= 0, -0 included, sigmoid below."""
    x = np.concatenate([SPECIAL, uniform(np.random.default_rng(0), 20, 300)])[:, np.newaxis]
    sigmoid = ge.load(network(1, lambda net, x: net.activation(x, "sigmoid")).tobytes()).run(x)
    net = network(1, lambda net, x: net.activation(x, "min_gru"))
    check_bits(net, x, np.where(x >= 0, x + np.float32(0.5), sigmoid), "min_gru")
    np.testing.assert_allclose(ge.load(net.tobytes()).run(x), ge.reference.run(net, x), rtol=1e-6, atol=1e-44)
    assert np.isnan(ge.load(net.tobytes()).run(np.full((1, 1), np.nan, np.float32))).all()


# ---- columns and steps


def test_slices() -> None:
    """Promise: some columns of anything, bit for bit; all of them are the value itself."""
    x = uniform(np.random.default_rng(0), 1, 6, 40)
    net = Network()
    v = net.input(40)
    assert v[:] == v == net.slice(v, 0, 40)
    inner = v[3:30][5:21]
    net.output(inner, "twice")
    net.output(net.activation(inner[2:], "linear"), "three times")
    net.output(net.concat([v[39:], inner, v[:1]]), "mixed")
    net.output(v[-2:], "from the end")
    wanted = [x[:, 8:24], x[:, 10:24], x[:, 39:], x[:, 8:24], x[:, :1], x[:, 38:]]
    check_bits(net, x, np.concatenate(wanted, axis=1), "slices")
    np.testing.assert_array_equal(ge.reference.run(net, x), np.concatenate(wanted, axis=1))


def shifted(x: Array, steps: int) -> Array:
    """x so many steps later, zeros where there is nothing."""
    moved = np.zeros_like(x)
    if steps > 0:
        moved[steps:] = x[:-steps] if steps < len(x) else 0
    elif steps < 0:
        moved[:steps] = x[-steps:] if -steps < len(x) else 0
    else:
        moved[:] = x
    return moved


@pytest.mark.parametrize(
    ("taps", "dilation", "ahead"), [(2, 1, 0), (3, 2, 0), (3, 2, 1), (4, 1, 3), (2, 5, 5), (5, 30, 0)]
)
def test_windows(taps: int, dilation: int, ahead: int) -> None:
    """Promise: the steps around the present one, zeros outside of the sequence; parts of sequences in between resets."""
    x = uniform(np.random.default_rng(0), 1, 23, 5)
    net = network(5, lambda net, v: net.window(v, taps, dilation, ahead))
    assert net.causal == (ahead == 0)
    assert net.state_size == ((taps - 1) * dilation - ahead) * 5
    delays = [(taps - 1 - j) * dilation - ahead for j in range(taps)]

    def windows(x: Array) -> Array:
        return np.concatenate([shifted(x, delay) for delay in delays], axis=1)

    check_bits(net, x, windows(x), "windows")
    np.testing.assert_array_equal(ge.reference.run(net, x), windows(x))
    reset = np.isin(np.arange(23), [4, 5, 15])
    wanted = np.concatenate([windows(part) for part in np.split(x, [4, 5, 15])])
    check_bits(net, x, wanted, "resets", reset=reset)
    np.testing.assert_array_equal(ge.reference.run(net, x, reset=reset), wanted)
    batch, lengths = np.stack([x, x, x]), [23, 9, 0]
    padded = np.stack([np.concatenate([windows(x[:n]), np.zeros((23 - n, taps * 5), np.float32)]) for n in lengths])
    check_bits(net, batch, padded, "lengths", lengths=lengths)
    np.testing.assert_array_equal(ge.reference.run(net, batch, lengths=lengths), padded)


def test_the_state_of_a_window() -> None:
    """Promise: the inputs of the steps before, the oldest first; a sequence goes on from there."""
    x = uniform(np.random.default_rng(0), 1, 12, 2)
    net = network(2, lambda net, v: net.window(v, 3, 2))
    model = ge.load(net.tobytes())
    assert not net.initial_state.any() and len(net.initial_state) == 4 * 2
    for steps in range(12):
        state = np.concatenate([np.zeros((4, 2), np.float32), x[:steps]])[-4:].ravel()
        for run in (model.run, lambda *a, **options: ge.reference.run(net, *a, **options)):
            y, after = run(x[:steps], return_state=True)
            np.testing.assert_array_equal(after, state)
            np.testing.assert_array_equal(np.concatenate([y, run(x[steps:], state=state)]), model.run(x))


def convolution(x: Array, W: Array, b: Array, dilation: int, groups: int, left: int) -> Array:
    """A convolution, written out."""
    outputs, columns, taps = W.shape
    y = np.tile(b.astype(float), (len(x), 1))
    for t in range(len(x)):
        for o in range(outputs):
            first = o // (outputs // groups) * columns
            for k in range(taps):
                step = t - left + k * dilation
                if 0 <= step < len(x):
                    y[t, o] += W[o, :, k].astype(float) @ x[step, first : first + columns]
    return y


@pytest.mark.parametrize(
    ("outputs", "inputs", "taps", "dilation", "groups", "padding", "kind"),
    [
        (7, 5, 3, 1, 1, "causal", "matrix"),
        (7, 5, 3, 2, 1, "same", "matrix"),
        (7, 5, 4, 3, 1, "same", "matrix"),
        (7, 5, 4, 1, 1, (1, 2), "matrix"),
        (6, 4, 1, 7, 1, "causal", "matrix"),
        (4, 6, 3, 2, 2, "causal", "matrix"),
        (128, 128, 3, 1, 2, "causal", "groups"),
        (6, 3, 3, 1, 3, "same", "matrix"),
        (200, 200, 3, 1, 200, "causal", "taps"),
        (200, 200, 2, 4, 200, (0, 4), "taps"),
        (200, 200, 1, 1, 200, "causal", "taps"),
    ],
)
def test_convolutions(
    outputs: int, inputs: int, taps: int, dilation: int, groups: int, padding: Any, kind: str
) -> None:
    """Promise: a convolution as in all frameworks, whether as one matrix, by groups or tap by tap."""
    rng = np.random.default_rng(0)
    W, b = uniform(rng, 1, outputs, inputs // groups, taps), uniform(rng, 1, outputs)
    x, span = uniform(rng, 1, 14, inputs), (taps - 1) * dilation
    left = {"causal": span, "same": span // 2}.get(padding) if isinstance(padding, str) else padding[0]
    assert left is not None
    options = {"dilation": dilation, "groups": groups, "padding": padding}
    net = network(inputs, lambda net, v: net.conv1d(v, W, b, **options, activation="tanh", name="conv"))
    wanted = np.tanh(convolution(x, W, b, dilation, groups, left))
    np.testing.assert_allclose(ge.reference.run(net, x), wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ge.load(net.tobytes()).run(x), wanted, rtol=0, atol=3e-6)
    dense = sum(isinstance(layer, Dense) for layer in net.layers)
    assert dense == {"matrix": 1, "groups": groups, "taps": 0}[kind]
    assert net.layers[-1].name == "conv"
    assert net.causal == (left == span)
    plain = network(inputs, lambda net, v: net.conv1d(v, W, **options, name="conv"))
    np.testing.assert_allclose(
        ge.reference.run(plain, x), convolution(x, W, 0 * b, dilation, groups, left), rtol=0, atol=1e-12
    )
    assert plain.layers[-1].name == "conv"


# ---- states


def test_a_running_sum() -> None:
    """Promise: a state is what its source was one step before, at first its initial value, after a reset too."""
    x = np.arange(1, 9, dtype=np.float32)[:, np.newaxis]
    net = Network()
    v = net.input(1)
    before = net.state(1, [10], name="before")
    total = net.add(before, v)
    net.feed(before, total)
    net.output(total, "sum")
    net.output(before, "before")
    sums = 10 + np.cumsum(x, axis=0)
    wanted = np.concatenate([sums, sums - x], axis=1).astype(np.float32)
    check_bits(net, x, wanted, "sum")
    np.testing.assert_array_equal(ge.reference.run(net, x), wanted)
    again = np.concatenate([wanted[:3], 10 + np.cumsum(x[3:], axis=0), 10 + np.cumsum(x[3:], axis=0) - x[3:]][:1])
    reset = np.arange(8) == 3
    for y in (ge.load(net.tobytes()).run(x, reset=reset), ge.reference.run(net, x, reset=reset)):
        np.testing.assert_array_equal(y[:3], again)
        np.testing.assert_array_equal(y[3:, 0], 10 + np.cumsum(x[3:]))
    for run in (ge.load(net.tobytes()).run, lambda *a, **o: ge.reference.run(net, *a, **o)):
        y, state = run(x[:5], return_state=True, state=[2])
        assert state == y[-1, 0] == 2 + x[:5].sum()
        y, state = run(np.stack([x, x]), lengths=[3, 0], return_state=True)
        assert state.tolist() == [[16], [10]]


def test_delays() -> None:
    """Promise: what is fed may be older than the state, an input, a slice or a state itself."""
    x = uniform(np.random.default_rng(0), 1, 9, 3)
    net = Network()
    v = net.input(3)
    made = net.affine(v, np.full(3, 2), np.zeros(3))
    one, part, two, old, constant = net.state(3), net.state(2), net.state(3), net.state(3), net.state(1, [5])
    net.feed(one, v)
    net.feed(part, v[1:])
    net.feed(two, one)
    net.feed(old, made)
    net.feed(constant, constant)
    for value in (one, part, two, old, constant):
        net.output(value)
    wanted = [shifted(x, 1), shifted(x, 1)[:, 1:], shifted(x, 2), shifted(2 * x, 1), np.full((9, 1), 5, np.float32)]
    check_bits(net, x, np.concatenate(wanted, axis=1), "delays")
    np.testing.assert_array_equal(ge.reference.run(net, x), np.concatenate(wanted, axis=1))
    for layer in net.layers:
        assert not isinstance(layer, State) or isinstance(net.layers[layer.source], Activate)


def test_a_window_of_a_state_is_stepped() -> None:
    """A fault once: the history of a window must be kept before the state that it reads goes on."""
    rng = np.random.default_rng(0)
    net = Network()
    v = net.input(2)
    s = net.state(3)
    seen = net.window(s, 2, 2)
    h = net.dense([seen, s, v], uniform(rng, 0.5, 3, 11), activation="tanh")
    net.feed(s, h)
    net.output(h)
    x = uniform(rng, 1, 40, 2)
    model = ge.load(net.tobytes())
    check_bits(net, x, model.run(x), "window of a state")
    np.testing.assert_allclose(model.run(x), ge.reference.run(net, x), rtol=0, atol=2e-6)
    stream = model.stream()
    chunks = [stream.run(x[a : a + 3]) for a in range(0, 40, 3)]
    assert_bits(np.concatenate(chunks), model.run(x), "in chunks")


def two_loops() -> Network:
    """Two cells, one on top of the other, made in an order that mixes them with what is outside."""
    rng = np.random.default_rng(0)
    net = Network()
    v: dict[str, Value] = {"x": net.input(4)}
    v["s"], v["t"] = net.state(4, name="s"), net.state(4, name="t")
    v["unused"] = net.state(2, name="unused")
    v["inside"] = net.dense(v["s"], uniform(rng, 0.5, 4, 4), name="inside")
    v["before"] = net.dense(v["x"], uniform(rng, 0.5, 4, 4), name="before")
    v["h"] = net.activation(net.add(v["before"], v["inside"]), "tanh", name="h")
    v["side"] = net.dense(v["inside"], uniform(rng, 0.5, 2, 4), name="side")
    v["g"] = net.dense([v["t"], v["h"]], uniform(rng, 0.5, 4, 8), activation="tanh", name="g")
    net.feed(v["t"], v["g"])
    net.feed(v["s"], v["h"])
    net.output(net.add(v["g"], v["before"], name="last"), "y")
    net.output(v["side"], "side")
    return net


def test_the_order_of_a_file() -> None:
    """Promise: loops are as short as they can be; what does not need them stands before, what they do not need behind."""
    net = two_loops()
    x = uniform(np.random.default_rng(1), 1, 60, 4)
    wanted = ge.reference.run(net, x)
    file = format.read(net.tobytes())
    names = [node.name or node.kind.__name__ for node in file.nodes]
    assert names == ["Input", "before", "s", "inside", "Add", "h", "t", "Concat", "g", "side", "last"]
    assert [node.parameters[0] for node in file.nodes if node.kind is State] == [5, 8]
    pruned = net.pruned()
    assert [layer.name or type(layer).__name__ for layer in pruned.layers] == names
    assert pruned.same(net) and pruned.pruned().same(pruned)
    assert pruned.state_size == net.state_size == 8
    np.testing.assert_array_equal(ge.reference.run(pruned, x), wanted)
    model = ge.load(net.tobytes())
    check_bits(net, x, model.run(x), "two loops")
    np.testing.assert_allclose(model.run(x), wanted, rtol=0, atol=2e-6)
    assert format.unpack(file).same(net) and format.unpack(file).tobytes() == net.tobytes()


def test_a_source_that_a_folded_embedding_needs_too() -> None:
    """Promise: a concatenation that is made for a folded embedding and is also the source of a later state stands behind it."""
    rng = np.random.default_rng(0)
    net = Network()
    tokens = net.tokens(7)
    one, two = net.dense(tokens, uniform(rng, 1, 3, 7)), net.dense(tokens, uniform(rng, 1, 2, 7))
    h = net.gru([net.embedding(tokens, uniform(rng, 1, 7, 4)), one, two], **gru_arrays(rng, 5, 9))
    late = net.state(5)
    net.feed(late, net.concat([one, two]))
    net.output(net.add(h, late))
    x = rng.integers(0, 7, 20)
    wanted = ge.load(net.tobytes(fold=False)).run(x)
    np.testing.assert_allclose(wanted, ge.reference.run(net, x), rtol=0, atol=2e-6)
    for fold in (True, "auto"):
        assert_bits(ge.load(net.tobytes(fold=fold)).run(x), wanted, f"fold={fold}")
        assert format.read(net.tobytes(fold=fold)).outputs


def test_a_chain_of_many_states() -> None:
    """Promise: the search for loops does not run out of stack: 3000 of them, one behind the other, are put in order."""
    net = Network()
    value = net.input(1)
    for _ in range(3000):
        state = net.state(1)
        value = net.add(state, value)
        net._layers[state.index] = replace(state.layer, source=value.index)  # feed would look at all layers each time
    net.output(value)
    assert net.state_size == 3000
    assert [layer.operation for layer in net.pruned().layers] == ["input"] + ["state", "add"] * 3000


def test_summaries_show_the_parameters() -> None:
    net = Network()
    v = net.input(4)
    s = net.state(4)
    text = net.summary()
    assert "not fed" in text
    net.feed(s, net.layer_norm(net.add(s, net.slice(net.window(v, 2, 3, 1), 1, 5)), parts=2))
    net.output(net.rms_norm(s))
    text = net.summary()
    for part in (
        "of 5, one step before",
        "2 taps, dilation 3, 1 ahead",
        "columns 1 to 4",
        "layer, epsilon 1e-05, 2 parts",
    ):
        assert part in text, text
    assert "root mean square, epsilon 1e-06" in text and "not causal" in text
    assert "state 12" in text  # 4, and two steps of 4


# ---- what is refused


def made(width: int = 4) -> tuple[Network, Value]:
    net = Network()
    return net, net.input(width)


REFUSED: list[tuple[Callable[[Network, Value], Any], type[Exception], str]] = [
    (lambda n, x: n.state(0), ValueError, "width must be from 1 to 16777216, got 0"),
    (lambda n, x: n.state(3, np.ones(2)), ValueError, r"initial must have the shape \[width = 3\], got \[2\]"),
    (lambda n, x: n.state(1, [np.nan]), ValueError, "initial must be finite"),
    (lambda n, x: n.feed(x, x), ValueError, r"feed: state must be the value of state\(\), got <Value 0: input"),
    (
        lambda n, x: n.feed(n.state(3), x),
        ValueError,
        r"feed: <Value 1: state, .* of 3> needs a value of its width, got",
    ),
    (lambda n, x: n.feed(n.state(4), n.last(x)), ValueError, "feed: value is one value per sequence"),
    (lambda n, x: n.feed(n.state(4), 3), TypeError, "value must be a Value of this network"),
    (lambda n, x: n.output(n.state(4, name="left")) or n.tobytes(), ValueError, "'left'.* is not fed; feed"),
    (
        lambda n, x: n.slice(x, 2, 2),
        ValueError,
        "slice: columns 2 to 2 of <Value 0: .*; expected 0 <= start < stop <= 4",
    ),
    (lambda n, x: n.slice(x, -1, 2), ValueError, "slice: columns -1 to 2"),
    (lambda n, x: n.slice(x, 0, 5), ValueError, "slice: columns 0 to 5"),
    (lambda n, x: n.slice(x, 0.0, 2), TypeError, "slice: start must be an integer, got 0.0"),  # type: ignore[arg-type]
    (lambda n, x: x[2], TypeError, r"the columns of a value are a slice without a step, such as \[3:7\], got 2"),
    (lambda n, x: x[::2], TypeError, r"slice without a step"),
    (lambda n, x: list(x), TypeError, r"slice without a step"),  # type: ignore[call-overload]
    (lambda n, x: x[3:3], ValueError, "slice: columns 3 to 3"),
    (lambda n, x: n.blend(x, x, x[1:]), ValueError, "blend: z, a and b must have the same width, got 4, 4, 3"),
    (lambda n, x: n.add(x, x[1:]), ValueError, "add: a and b must have the same width, got 4 and 3; one of them may"),
    (lambda n, x: n.subtract(x[1:], x), ValueError, "subtract: a and b must have the same width, got 3 and 4"),
    (lambda n, x: n.window(x, 0), ValueError, "taps must be from 1"),
    (lambda n, x: n.window(x, 2, 0), ValueError, "dilation must be from 1"),
    (lambda n, x: n.window(x, 3, 2, 5), ValueError, r"ahead must be from 0 to \(taps - 1\) \* dilation = 4, got 5"),
    (lambda n, x: n.window(x, 3, 2, -1), ValueError, "ahead must be from 0"),
    (lambda n, x: n.window(x, 3, 2, 1.0), TypeError, "ahead must be an integer, got 1.0"),  # type: ignore[arg-type]
    (lambda n, x: n.window(x, 3, 2**20), ValueError, r"\(taps - 1\) \* dilation is 2097152, expected at most 1048576"),
    (lambda n, x: n.window(n.mean(x), 2), ValueError, "window: v is one value per sequence"),
    (lambda n, x: n.conv1d(x, np.ones((2, 3, 2))), ValueError, r"W must have the shape \[O, I / groups = 4, K\], got"),
    (
        lambda n, x: n.conv1d(x, np.ones((2, 4, 2)), np.ones(3)),
        ValueError,
        r"b must have the shape \[O = 2\], got \[3\]",
    ),
    (lambda n, x: n.conv1d(x, np.ones((2, 4, 2)), stride=0), ValueError, "stride must be from 1 to 1048576, got 0"),
    (
        lambda n, x: n.conv1d(x, np.ones((2, 4, 2)), stride=2, padding="same"),
        ValueError,
        r"'same' is depends on the number of steps with a stride of 2; give \(left, right\)",
    ),
    (
        lambda n, x: n.conv1d(x, np.ones((2, 2, 2)), groups=3),
        ValueError,
        "groups must divide the 4 channels of v, got 3",
    ),
    (
        lambda n, x: n.conv1d(x, np.ones((3, 2, 2)), groups=2),
        ValueError,
        "groups must divide the 3 outputs of W, got 2",
    ),
    (lambda n, x: n.conv1d(x, np.ones((2, 4, 3)), padding=(2, 1)), ValueError, r"make more steps of them.* = 2"),
    (lambda n, x: n.conv1d(x, np.ones((2, 4, 3)), padding=(3, -1)), ValueError, "make more steps of them"),
    (lambda n, x: n.conv1d(x, np.ones((2, 4, 3)), padding="full"), ValueError, "must be 'causal', 'same', 'valid' or"),
    (lambda n, x: n.conv1d(x, np.ones((2, 4, 3)), padding=(1.0, 1)), TypeError, "padding must be two integers"),  # type: ignore[arg-type]
    (lambda n, x: n.layer_norm(x, np.ones(3)), ValueError, r"scale must have the shape \[width = 4\], got \[3\]"),
    (lambda n, x: n.layer_norm(x, None, np.ones(3)), ValueError, "shift must have the shape"),
    (lambda n, x: n.layer_norm(x, epsilon=-1e-5), ValueError, "layer_norm: epsilon must not be negative, got -1e-05"),
    (lambda n, x: n.rms_norm(x, epsilon=np.inf), ValueError, "rms_norm: epsilon must be a finite float32, got inf"),
    (lambda n, x: n.rms_norm(x, parts=3), ValueError, "rms_norm: parts must divide the width 4, got 3"),
    (lambda n, x: n.mean(n.max(x)), ValueError, "mean: v is one value per sequence"),
    (lambda n, x: n.attend(x[:3], x), ValueError, "width of values must be a multiple of that of scores, got 4 and 3"),
    (lambda n, x: n.activation(x, ("clip", 1, 0)), ValueError, "spec 'clip' needs alpha <= beta, got 1 and 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refused(call: Callable[[Network, Value], Any], error: type[Exception], message: str) -> None:
    net, x = made()
    with pytest.raises(error, match=message):
        call(net, x)


def test_a_state_is_fed_once_and_comes_after_the_input() -> None:
    net, x = made()
    s = net.state(4, name="s")
    net.feed(s, x)
    with pytest.raises(
        ValueError, match=r"feed: <Value 1: state 's', vector of 4> is fed already, by <Value 2: activate"
    ):
        net.feed(s, x)
    with pytest.raises(ValueError, match=r"the network has no input yet; input\(\) or tokens\(\) come first"):
        Network().state(3)


def test_what_cannot_stand_in_a_loop() -> None:
    """Promise: a loop that would need later steps is refused when it is closed, and the network stays as it was."""
    rng = np.random.default_rng(0)
    bad: list[Callable[[Network, Value], Value]] = [
        lambda net, s: net.gru(s, **gru_arrays(rng, 4, 4), direction="reverse"),
        lambda net, s: net.window(s, 2, 1, 1)[4:],
    ]
    for build in bad:
        net, x = made()
        s = net.state(4)
        wrong = build(net, net.add(s, x))
        good = net.activation(net.add(s, x), "tanh")
        count = len(net.layers)
        with pytest.raises(ValueError, match=r"cannot stand in the loop of <Value 1: state, .*it needs later steps"):
            net.feed(s, wrong)
        assert len(net.layers) == count
        net.feed(s, good)
        net.output(wrong)
        assert not net.causal
        x = uniform(rng, 1, 12, 4)
        np.testing.assert_allclose(ge.load(net.tobytes()).run(x), ge.reference.run(net, x), rtol=0, atol=2e-6)
