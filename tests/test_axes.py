# SPDX-License-Identifier: Apache-2.0
"""Values with other steps than the inputs: strides, convolutions without padding, repeated values, attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import Network
from gru_engine.layers import Axis, Subsample
from gru_engine.network import Value
from gru_engine.numerics import fma32
from gru_engine.precision import DTYPES

from .helpers import Array, assert_bits, each_isa, gru_arrays, uniform
from .random_networks import random_input, random_network
from .test_operations import check_bits, network
from .test_operations_norms import softmax32, tree
from .test_specified import activate

X = uniform(np.random.default_rng(0), 1, 23, 6)


# ---- how many steps


@pytest.mark.parametrize(("lost", "stride"), [(0, 1), (0, 2), (3, 1), (5, 3), (2, 7)])
def test_axes(lost: int, stride: int) -> None:
    """Promise: what an axis of an axis is, is what taking steps twice gives."""
    axis = Axis(lost, stride)
    for steps in range(40):
        assert axis.count(steps) == len(range(lost, steps, stride))
        for other_lost, other_stride in ((0, 1), (1, 2), (4, 3)):
            both = axis.subsampled(other_lost, other_stride)
            assert both.count(steps) == len(range(lost, steps, stride)[other_lost::other_stride])
    assert axis.count(np.arange(5)).tolist() == [axis.count(n) for n in range(5)]
    assert axis.least == min(n for n in range(40) if axis.count(n))
    assert Axis(steps=7).subsampled(lost, stride) == Axis(steps=len(range(lost, 7, stride)))


@pytest.mark.parametrize(("stride", "first", "dropped"), [(1, 2, 0), (2, 0, 0), (3, 1, 2), (4, 0, 5), (30, 22, 0)])
def test_subsample(stride: int, first: int, dropped: int) -> None:
    """Promise: every stride-th step from the first on that is below T - dropped, of each sequence by itself."""
    net = network(6, lambda net, v: net.subsample(v, stride, first, dropped))
    model = ge.load(net.tobytes())
    assert not net.causal and not model.causal
    wanted = X[first : len(X) - dropped : stride]
    check_bits(net, X, wanted, "every step that is wanted")
    np.testing.assert_array_equal(ge.reference.run(net, X), wanted)
    lengths = np.array([23, 9, 22, 0, 1])
    batch = np.repeat(X[np.newaxis], len(lengths), axis=0)
    for run in (model.run, lambda *a, **options: ge.reference.run(net, *a, **options)):
        for padding in ("zero", "carry"):
            got = run(batch, lengths=lengths, padding=padding)
            assert got.shape == (5, model.output_steps(23), 6) == (5, net.axis.count(23), 6)
            for y, length in zip(got, lengths):
                part = X[first : max(length - dropped, 0) : stride]
                behind = part[-1] if padding == "carry" and len(part) else np.zeros(6)
                np.testing.assert_array_equal(y[: len(part)], part)
                assert (y[len(part) :] == behind).all()


@pytest.mark.parametrize("taps", [1, 2, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_convolutions(taps: int, stride: int, dilation: int, groups: int) -> None:
    """Promise: floor((T + left + right - span - 1) / stride) + 1 outputs, as in all frameworks, whatever the padding."""
    rng = np.random.default_rng(taps)
    W, b = uniform(rng, 1, 12, 6 // groups, taps), uniform(rng, 1, 12)
    span = (taps - 1) * dilation
    for left, right in {(0, 0), (span, 0), (0, span), (span // 2, span // 3), (span // 2, span - span // 2)}:
        options: dict[str, Any] = {"dilation": dilation, "groups": groups, "stride": stride, "padding": (left, right)}
        net = network(6, lambda net, v, options=options: net.conv1d(v, W, b, **options))
        for steps in (23, 9, 1):
            padded = np.pad(X[:steps].astype(float), ((left, right), (0, 0)))
            rows = range(0, max(len(padded) - span, 0), stride)
            wanted = np.zeros((len(rows), 12))
            for t, row in enumerate(rows):
                for o in range(12):
                    part = slice(o // (12 // groups) * (6 // groups), (o // (12 // groups) + 1) * (6 // groups))
                    wanted[t, o] = b[o] + sum(W[o, :, k] @ padded[row + k * dilation, part] for k in range(taps))
            got = ge.load(net.tobytes()).run(X[:steps])
            np.testing.assert_allclose(got, wanted, rtol=0, atol=5e-6, err_msg=f"{options}, {steps} steps")
            np.testing.assert_allclose(ge.reference.run(net, X[:steps]), wanted, rtol=0, atol=1e-12)
    for name, padding in (("valid", (0, 0)), ("causal", (span, 0))):
        nets = [Network(), Network()]
        for net, given in zip(nets, (name, padding)):
            net.output(net.conv1d(net.input(6), W, dilation=dilation, groups=groups, stride=stride, padding=given))
        assert nets[0].same(nets[1])


def test_least_steps() -> None:
    """Promise: a value per sequence needs a step there; what is too short is refused, in a batch too, by its number."""
    net = network(6, lambda net, v: net.last(net.subsample(v, 4, 3)))
    model = ge.load(net.tobytes())
    assert net.least_steps == model.least_steps == 4
    assert model.output_steps(4) == 1
    np.testing.assert_array_equal(model.run(X[:4]), X[3])
    for run in (model.run, lambda *a, **options: ge.reference.run(net, *a, **options)):
        with pytest.raises(ValueError, match=r"of at least 4 steps|at least 4 steps, got 3"):
            run(X[:3])
        with pytest.raises(ValueError, match=r"lengths must be from 4 to 23 .* got 3 at \[1\]|at least 4 steps, got 3"):
            run(np.stack([X, X]), lengths=[23, 3])
    per_step = network(6, lambda net, v: net.subsample(v, 4, 3))
    assert per_step.least_steps == ge.load(per_step.tobytes()).least_steps == 0
    assert ge.load(per_step.tobytes()).run(X[:3]).shape == (0, 6)
    with pytest.raises(TypeError, match=r"n_steps must be an integer, got 2\.0"):
        model.output_steps(2.0)
    with pytest.raises(ValueError, match="n_steps must not be negative, got -1"):
        model.output_steps(-1)


# ---- attention


def specified_attention(q: Array, k: Array, a: Array, v: Array | None, scale: float, heads: int, back: bool) -> Array:
    """docs/NUMERICS.md, section 4.3, of one sequence."""
    out = np.zeros((len(q), a.shape[1]), np.float32)
    key, part = k.shape[1] // heads, a.shape[1] // heads
    for t in range(len(q)):
        for h in range(heads):
            columns, parts = slice(h * key, (h + 1) * key), slice(h * part, (h + 1) * part)
            seen = t + 1 if back else len(k)
            partial = np.zeros((seen, 16), np.float32)
            query = np.repeat(q[t : t + 1, columns], seen, axis=0)
            factors = (query, k[:seen, columns])
            if v is not None:
                factors = (np.repeat(v[np.newaxis, columns], seen, axis=0), activate("tanh", factors[0] + factors[1]))
            padded = [np.pad(x, ((0, 0), (0, -key % 16))) for x in factors]
            for i in range(0, padded[0].shape[1], 16):
                partial = fma32(padded[0][:, i : i + 16], padded[1][:, i : i + 16], partial)
            scores = tree(partial)[:, 0] * np.float32(scale)
            weights = softmax32(scores)
            total = np.zeros(part, np.float32)
            for s in range(seen):
                total = fma32(np.broadcast_to(weights[s], total.shape), a[s, parts], total)
            out[t, parts] = total
    return out


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize(("width", "heads"), [(1, 1), (6, 2), (17, 1), (64, 4), (99, 3)])
def test_attention(additive: bool, width: int, heads: int) -> None:
    """Promise: the equations, to the bit, for keys on the query's axis, before it, and on another one."""
    rng = np.random.default_rng(width)
    W = [uniform(rng, 1, rows, 6) for rows in (width, width, 2 * heads)]
    v, scale = (uniform(rng, 1, width), 1.0) if additive else (None, 0.3)
    for stride, back in ((1, False), (1, True), (3, False)):

        def build(net: Network, x: Value, stride: int = stride, back: bool = back) -> list[Value]:
            q, k, a = (net.dense(x, w) for w in W)
            k, a = (net.subsample(value, stride) for value in (k, a))
            return [net.attention(q, k, a, scale=scale, v=v, heads=heads, causal=back), q]

        net, given = network(6, build), network(6, lambda net, x: [net.dense(x, w) for w in W])
        q, k, a = np.split(ge.load(given.tobytes()).run(X), np.cumsum([width, width]), axis=1)
        wanted = specified_attention(q, k[::stride], a[::stride], v, scale, heads, back)
        check_bits(net, X, np.concatenate([wanted, q], axis=1), f"width {width}, stride {stride}")
        np.testing.assert_allclose(ge.reference.run(net, X)[:, : 2 * heads], wanted, rtol=0, atol=2e-5)


def test_an_encoder_and_a_decoder_in_one_network() -> None:
    """Promise: the last state of one GRU, repeated, is the input of another, which attends to the first one's states."""
    rng = np.random.default_rng(0)
    net = Network()
    h = net.gru(net.input(6), **gru_arrays(rng, 9, 6), direction="forward")
    again = net.repeat(net.last(h), 4)
    g = net.gru(again, **gru_arrays(rng, 9, 9))
    y = net.attention(g, h, h, scale=9**-0.5)
    net.output([g, y])
    assert net.axis == Axis(steps=4)
    assert net.least_steps == 1
    model = ge.load(net.tobytes())
    batch = np.stack([X, X[::-1], X * 2])
    got = model.run(batch, lengths=[23, 1, 7])
    np.testing.assert_allclose(got, ge.reference.run(net, batch, lengths=[23, 1, 7]), rtol=0, atol=2e-6)
    for i, length in enumerate((23, 1, 7)):
        assert_bits(got[i], model.run(batch[i, :length]), f"sequence {i}")


# ---- random networks


@pytest.mark.parametrize("seed", range(900, 960))
def test_random_networks(seed: int) -> None:
    """Promise: any mixture of axes has the same bits alone, in a batch, with lengths, threads and on any instruction set,

    and is within 4e-6 of float64.
    """
    rng = np.random.default_rng(seed)
    dtype = DTYPES[int(rng.integers(8)) % 4 if seed % 2 else 0]
    net = random_network(rng, max_size=60, axes=True, tokens=False if seed % 2 else None, discontinuous=False)
    model = ge.load(net.tobytes(dtype, fold=dtype != "int8"))
    assert (model.causal, model.per_sequence, model.least_steps) == (net.causal, net.per_sequence, net.least_steps)
    streams, steps = 7, net.least_steps + int(rng.integers(1, 50))
    xs = random_input(rng, net, streams, steps)
    lengths = rng.integers(net.least_steps, steps + 1, streams)
    lengths[0] = steps
    what = f"seed {seed}, {net!r}, {dtype}"
    ys, states = zip(*(model.run(x[:n], return_state=True) for x, n in zip(xs, lengths)))
    rows = () if net.per_sequence else (net.axis.count(steps),)
    wanted = np.zeros((streams, *rows, net.output_size), np.float32)
    for i, y in enumerate(ys):
        wanted[i, : len(y)] = y
        assert y.shape == rows[:0] + (() if net.per_sequence else (model.output_steps(int(lengths[i])),)) + y.shape[-1:]
    for isa in each_isa():
        for threads in (1, 2):
            got, after = model.run(xs, lengths=lengths, threads=threads, return_state=True)
            assert_bits(got, wanted, f"{what}, {isa}, {threads} threads")
            assert_bits(after, np.array(states), f"{what}, {isa}, {threads} threads, states")
    if dtype == "float32":
        exact = ge.reference.run(net, xs, lengths=lengths)
        np.testing.assert_allclose(
            got, exact, rtol=4e-6, atol=4e-6 * max(1, np.abs(exact).max(initial=0)), err_msg=what
        )


def test_loops_on_another_axis() -> None:
    """Promise: a state can be on any axis; its first step there is the sequence's beginning."""
    net = Network()
    thin = net.subsample(net.input(6), 3, 2)
    s = net.state(6, np.full(6, 0.5), like=thin)
    h = net.add(s, thin)
    net.feed(s, h)
    net.output(h)
    wanted = np.float32(0.5) + np.zeros(6, np.float32)
    rows = [wanted := wanted + x for x in X[2::3]]
    assert_bits(ge.load(net.tobytes()).run(X), np.array(rows), "a running sum of every third step")
    y, state = ge.load(net.tobytes()).run(X[:2], return_state=True)
    assert y.shape == (0, 6) and (state == 0.5).all()


# ---- what is refused


def made() -> tuple[Network, Value]:
    net = Network()
    return net, net.input(4)


REFUSED: list[tuple[Callable[[Network, Value], Any], type[Exception], str]] = [
    (lambda n, x: n.subsample(x, 0), ValueError, "stride must be from 1 to 1048576, got 0"),
    (lambda n, x: n.subsample(x, 2, -1), ValueError, "first must be from 0 to 1048576, got -1"),
    (lambda n, x: n.subsample(x, 2, 1.0), TypeError, r"first must be an integer, got 1\.0"),
    (lambda n, x: n.subsample(x, 2, dropped=True), TypeError, "dropped must be an integer, got True"),
    (lambda n, x: n.subsample(n.mean(x), 2), ValueError, "subsample: v is one value per sequence"),
    (lambda n, x: n.subsample(n.repeat(n.mean(x), 3), 1, 3), ValueError, "of the 3 steps of .* 0 steps would be left"),
    (lambda n, x: n.repeat(x, 3), ValueError, "repeat: v is one value per time step already"),
    (lambda n, x: n.repeat(n.mean(x)), TypeError, "either steps or like is given"),
    (lambda n, x: n.repeat(n.mean(x), 3, like=x), TypeError, "either steps or like is given"),
    (lambda n, x: n.repeat(n.mean(x), 0), ValueError, "steps must be from 1 to 1048576, got 0"),
    (lambda n, x: n.repeat(n.mean(x), like=n.mean(x)), ValueError, "repeat: like is one value per sequence"),
    (
        lambda n, x: n.add(x, n.subsample(x, 2)),
        ValueError,
        r"has T steps, but .* has ceil\(\(T steps\) / 2\)|has T steps",
    ),
    (lambda n, x: n.concat([x, n.subsample(x, 1, 3)]), ValueError, "has T steps, but .* has T - 3 steps"),
    (lambda n, x: n.attention(x, x[:2], x), ValueError, "query and keys must have the same width, got 4 and 2"),
    (lambda n, x: n.attention(x, x, n.subsample(x, 2)), ValueError, "attention: .* has T steps, but"),
    (lambda n, x: n.attention(n.subsample(x, 2), x, x, causal=True), ValueError, "attention, causal: "),
    (
        lambda n, x: n.attention(x, x, x, heads=3),
        ValueError,
        "heads must divide the widths of query and values, 4 and 4",
    ),
    (lambda n, x: n.attention(x, x, x, v=np.ones(3)), ValueError, r"v must have the shape \[K = 4\], got \[3\]"),
    (lambda n, x: n.attention(x, x, x, v=np.ones(4), scale=2), ValueError, "scale is for a dot product"),
    (lambda n, x: n.attention(x, x, x, scale="2"), TypeError, "attention: scale must be"),
    (lambda n, x: n.attention(n.mean(x), x, x), ValueError, "attention: query is one value per sequence"),
    (lambda n, x: n.feed(n.state(4), n.subsample(x, 2)), ValueError, "feed: .* has T steps, but"),
    (lambda n, x: n.state(4, like=n.mean(x)), ValueError, "state: like is one value per sequence"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refused(call: Callable[[Network, Value], Any], error: type[Exception], message: str) -> None:
    """Promise: what cannot be is refused by name, and the network is as it was."""
    net, x = made()
    with pytest.raises(error, match=message):
        call(net, x)
    assert not any(isinstance(layer, Subsample) and layer.stride == 0 for layer in net.layers)


def test_outputs_have_the_same_steps() -> None:
    net, x = made()
    net.output(x)
    with pytest.raises(ValueError, match=r"output: .* has T steps, but .* has T - 1 steps"):
        net.output(net.subsample(x, 1, 1))


def test_no_new_sequence_begins_where_steps_are_left_out() -> None:
    net = network(6, lambda net, v: net.subsample(v, 2))
    for run in (ge.load(net.tobytes()).run, lambda *a, **options: ge.reference.run(net, *a, **options)):
        with pytest.raises(ValueError, match="reset: "):
            run(X, reset=np.ones(23, bool))


def test_at_most_256_axes() -> None:
    net = Network()
    x = net.input(1)
    ends = [net.last(net.subsample(x, 1, first)) for first in range(257)]
    net.output(net.concat(ends[:256]))
    assert ge.load(net.tobytes()).run(np.arange(300.0)[:, np.newaxis]).tolist() == [299] * 256
    net.output(ends[256])
    with pytest.raises(ValueError, match="values of 257 different numbers of steps, a file has at most 256"):
        net.tobytes()
