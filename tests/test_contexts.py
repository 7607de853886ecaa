# SPDX-License-Identifier: Apache-2.0
"""Contexts: what a sequence is given once, and what is computed of it once."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import format
from gru_engine.layers import Dense, Gru

from .helpers import Array, assert_bits, each_isa, gru_arrays, token_network, uniform
from .random_networks import random_input, random_network
from .test_random_networks import check_outputs


def speaker_network(rng: np.random.Generator, hidden: int = 19, reset: str = "after", **options: Any) -> ge.Network:
    """A GRU that reads a context, then its input; a head that reads it too."""
    net = ge.Network()
    x, speaker = net.input(5, name="x"), net.context(7, name="speaker")
    c = net.repeat(speaker, like=x)
    h = net.gru([c, x], reset=reset, **gru_arrays(rng, hidden, 12, reset), **options)
    net.output(net.dense([h, c], uniform(rng, 0.2, 4, h.width + 7), uniform(rng, 1, 4), activation="tanh"), "y")
    return net


def two_contexts(rng: np.random.Generator) -> ge.Network:
    """Values of two contexts: in front of a GRU, behind its input, alone before two gates, in a loop, as an output."""
    net = ge.Network()
    a, x, b = net.context(3, name="a"), net.input(4, name="x"), net.context(33, name="b")
    both = net.dense([b, a], uniform(rng, 0.3, 17, 36), uniform(rng, 1, 17), activation="tanh")
    ra, rboth = net.repeat(a, like=x), net.repeat(net.layer_norm(both), like=x)
    h = net.gru([rboth, ra, x], **gru_arrays(rng, 16, 24))
    behind = net.gru([x, ra], reset="before", **gru_arrays(rng, 5, 7, "before"))
    alone = net.gru(net.dense(ra, uniform(rng, 1, 6, 3)), reset="none", **gru_arrays(rng, 8, 6, "none"))
    s = net.state(6, uniform(rng, 1, 6))
    looped = net.gru([ra, s, x], **gru_arrays(rng, 6, 13))
    net.feed(s, looped)
    net.output(net.dense([h, behind, alone, looped], uniform(rng, 0.2, 3, 35)), "y")
    net.output(ra[1:], "a")
    return net


def summary_network(rng: np.random.Generator) -> ge.Network:
    """One output per sequence, of the last step and of a context."""
    net = ge.Network()
    x, c = net.input(3), net.context(18)
    d = net.dense(c, uniform(rng, 0.3, 9, 18), activation="relu")
    h = net.gru([net.repeat(d, like=x), x], **gru_arrays(rng, 9, 12))
    net.output(net.dense([net.last(h), d], uniform(rng, 0.2, 4, 18), activation="softmax"), "p")
    net.output(c, "c")
    return net


def decoder(rng: np.random.Generator, vocabulary: int = 9) -> ge.Network:
    """Tokens, conditioned on a context: scores of the next one."""
    net = ge.Network()
    t, c = net.tokens(vocabulary), net.context(6)
    e = net.embedding(t, uniform(rng, 1, vocabulary, 5))
    h = net.gru([net.repeat(c, like=t), e], **gru_arrays(rng, 16, 11))
    net.output(net.dense(h, uniform(rng, 2, vocabulary, 16), activation="log_softmax"))
    return net


def bidirectional(rng: np.random.Generator) -> ge.Network:
    """Not causal."""
    net = ge.Network()
    x, c = net.input(4), net.context(5)
    arrays = [gru_arrays(rng, 17, 9) for _ in range(2)]
    both = {name: np.stack([each[name] for each in arrays]) for name in arrays[0]}
    net.output(net.gru([net.repeat(c, like=x), x], direction="bidirectional", **both))
    return net


def starting(rng: np.random.Generator) -> ge.Network:
    """Initial states of contexts: of a GRU, one in a loop, a state; of a context itself, a part of it, and what is computed."""
    net = ge.Network()
    x, c = net.input(3), net.context(20)
    e = net.dense(c, uniform(rng, 0.3, 17, 20), uniform(rng, 1, 17), activation="tanh")
    h = net.gru([net.repeat(e, like=x), x], **{**gru_arrays(rng, 17, 20), "h0": e})
    s = net.state(5, c[3:8])
    looped = net.gru([s, x], **{**gru_arrays(rng, 20, 8), "h0": c})
    net.feed(s, net.dense(looped, uniform(rng, 0.2, 5, 20), activation="softsign"))
    net.output([h, looped, s])
    return net


def starting_both(rng: np.random.Generator) -> ge.Network:
    """Both directions start from a context."""
    net = ge.Network()
    x, c = net.input(3), net.context(12)
    arrays = [gru_arrays(rng, 6, 3) for _ in range(2)]
    both: dict[str, Any] = {name: np.stack([each[name] for each in arrays]) for name in arrays[0]}
    net.output(net.gru(x, direction="bidirectional", **{**both, "h0": [c[:6], c[6:]]}))
    return net


NETWORKS: tuple[Callable[[np.random.Generator], ge.Network], ...] = (
    speaker_network,
    two_contexts,
    summary_network,
    decoder,
    bidirectional,
    starting,
    starting_both,
)


def made(make: Callable[[np.random.Generator], ge.Network], seed: int = 0) -> ge.Network:
    return make(np.random.default_rng(seed))


def random_context(rng: np.random.Generator, net: ge.Network, *shape: int) -> Array:
    return rng.normal(size=(*shape, net.context_size or 0)).astype(np.float32)


def kinds(data: bytes) -> list[str]:
    return [node.kind.__name__ for node in format.read(data).nodes]


def check_all_ways(net: ge.Network, data: bytes, x: Array, c: Array, what: str) -> Array:
    """One run of a batch, threads, each sequence alone, a pool, steps with and without prepare, blocks: the same bits."""
    model = ge.load(data)
    streams, steps = x.shape[:2]
    wanted, states = model.run(x, context=c, return_state=True)
    assert_bits(model.run(x, context=c, threads=3), wanted, f"{what}, threads")
    for i in range(streams):
        assert_bits(model.run(x[i], context=c[i]), wanted[i], f"{what}, sequence {i} alone")
    shared = model.run(x, context=c[0])
    assert_bits(shared, model.run(x, context=np.repeat(c[:1], streams, axis=0)), f"{what}, one context for all")
    if not model.causal or model.per_sequence:
        return wanted
    pool, stream, blocks = model.pool(streams), model.stream(), model.stream(threads=2, context=c[0])
    slots = [pool.open() for _ in range(streams)]
    order = np.random.default_rng(0).permutation(streams)
    pool.set_context(np.array(slots)[order], c[order])
    stream.set_context(c[0])
    for t in range(steps):
        got = pool.step(np.array(slots)[order], x[order, t])
        assert_bits(got, wanted[order, t], f"{what}, pool, step {t}")
        if t % 3 == 1:
            stream.prepare()
            pool.prepare(slots)
        stream.set_context(c[0])  # the same again
        assert_bits(stream.step(x[0, t] if x.ndim == 3 else int(x[0, t])), wanted[0, t], f"{what}, step {t}")
    assert_bits(stream.state, states[0], f"{what}, state")
    middle = steps // 2
    for part in (slice(0, middle), slice(middle, steps)):
        assert_bits(blocks.run(x[0, part]), wanted[0, part], f"{what}, block {part}")
    return wanted


# ---- bits, and the reference


@pytest.mark.parametrize("make", NETWORKS)
def test_every_way_to_run_gives_the_same_bits(make: Callable[..., ge.Network]) -> None:
    """Promise: step == run == pool == threads, folded or not, on every instruction set; and near the reference."""
    net, rng = made(make), np.random.default_rng(1)
    x, c = random_input(rng, net, 5, 9), random_context(rng, net, 5)
    wanted = ge.load(net.tobytes()).run(x, context=c)
    reference = ge.reference.run(net, x, context=c)
    np.testing.assert_allclose(wanted, reference, atol=2e-6 * max(1, np.abs(reference).max()))
    for isa in each_isa():
        for fold in (False, True):
            got = check_all_ways(net, net.tobytes(fold=fold), x, c, f"{isa}, fold={fold}")
            assert_bits(got, wanted, f"{isa}, fold={fold}, beside others")


@pytest.mark.parametrize("reset", ["after", "before", "all", "none"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_folding_changes_no_bit(reset: str, dtype: str) -> None:
    """Promise: whether a product is kept or computed at each step is the same, for every cell and type but int8."""
    for hidden in (1, 16, 37):
        net = speaker_network(np.random.default_rng(hidden), hidden, reset, activation="softsign", clip=2.5)
        rng = np.random.default_rng(2)
        x, c = random_input(rng, net, 4, 20), 3 * random_context(rng, net, 4)
        folded, whole = net.tobytes(dtype, fold=True), net.tobytes(dtype, fold=False)
        assert ("Sums" in kinds(folded)) == (reset != "none"), "two gates sum in two chains"
        assert "Sums" not in kinds(whole)
        wanted = ge.load(whole).run(x, context=c)
        assert_bits(ge.load(folded).run(x, context=c), wanted, f"{reset}, {dtype}, {hidden}")
        assert_bits(check_all_ways(net, folded, x, c, f"{reset}, {dtype}"), wanted, f"{reset}, {dtype}, {hidden}")
        reference = ge.reference.run(net, x, context=c, dtype=dtype)
        np.testing.assert_allclose(wanted, reference, atol=3e-6)


def test_int8() -> None:
    """Promise: of int8 each of two vectors has a scale of its own; near the float32 network, the same bits in all ways."""
    net, rng = made(speaker_network, 3), np.random.default_rng(3)
    x, c = random_input(rng, net, 4, 20), random_context(rng, net, 4)
    exact = ge.reference.run(net, x, context=c)
    for fold in (False, True):
        data = net.tobytes("int8", fold=fold)
        for isa in each_isa():
            got = check_all_ways(net, data, x, c, f"{isa}, fold={fold}")
            np.testing.assert_allclose(got, exact, atol=0.03)
    meant = ge.reference.run(net, x, context=c, dtype="int8")
    np.testing.assert_allclose(ge.load(net.tobytes("int8", fold=False)).run(x, context=c), meant, atol=1e-4)


@pytest.mark.parametrize("seed", range(3000, 3060))
def test_random_networks(seed: int) -> None:
    """Promise: near the reference, the same bits in every way, back from a file bit for bit."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=100, contexts=True, discontinuous=False)
    data, what = net.tobytes(), f"seed {seed}, {net!r}"
    model = ge.load(data)
    x, c = random_input(rng, net, 3, 20), random_context(rng, net, 3)
    options: dict[str, Any] = {"return_state": True, "lengths": rng.integers(1, 21, 3), "context": c}
    options["reset"] = rng.random((3, 20)) < 0.1
    got = model.run(x, **options)
    check_outputs(net, got, ge.reference.run(net, x, **options), what)
    assert_bits(ge.load(net.tobytes(fold=False)).run(x, **options)[0], got[0], f"{what}, not folded")
    assert_bits(ge.load(net.tobytes(fold=True)).run(x, **options)[0], got[0], f"{what}, folded")
    check_all_ways(net, data, x[:, :7], c, what)
    back = format.unpack(format.read(net.tobytes(fold=False)))
    assert back.same(net), what
    for dtype in ("float32", "int8"):
        folded = net.tobytes(dtype, fold=True)
        assert format.unpack(format.read(folded)).tobytes(dtype, fold=True) == folded, what
    assert back.inputs == model.inputs == net.inputs, what
    assert back.contexts == model.contexts == net.contexts, what
    assert (model.context_size, model.state_size) == (net.context_size, net.state_size), what


def test_against_numpy() -> None:
    """Promise: a step by hand, without the reference."""
    net, rng = made(speaker_network), np.random.default_rng(4)
    (gru,) = (layer for layer in net.layers if isinstance(layer, Gru))
    (head,) = (layer for layer in net.layers if isinstance(layer, Dense))
    x, c = random_input(rng, net, 2)[0].astype(np.float64), random_context(rng, net).astype(np.float64)
    s_x, s_h = gru.W @ np.concatenate([c, x]) + gru.b_x, gru.U @ gru.h0 + gru.b_h
    r, z = (1 / (1 + np.exp(-(a + b))) for a, b in zip(np.split(s_x, 3)[:2], np.split(s_h, 3)[:2]))
    h = z * gru.h0 + (1 - z) * np.tanh(np.split(s_x, 3)[2] + r * np.split(s_h, 3)[2])
    y = np.tanh(head.W @ np.concatenate([h, c]) + head.b)
    np.testing.assert_allclose(ge.load(net.tobytes()).stream(context=c).step(x), y, atol=1e-6)


def test_reference_steps() -> None:
    """Promise: ``reference.step`` takes the context of one stream, or of each of several."""
    net, rng = made(two_contexts), np.random.default_rng(5)
    x, c = random_input(rng, net, 3, 6), random_context(rng, net, 3)
    wanted, one, three = ge.reference.run(net, x, context=c), None, None
    named = {"a": c[:, :3], "b": c[:, 3:]}
    np.testing.assert_array_equal(ge.reference.run(net, x, context=named), wanted)
    for t in range(6):
        y, one = ge.reference.step(net, x[0, t], one, context=c[0])
        np.testing.assert_allclose(y, wanted[0, t], rtol=1e-12, atol=1e-15)
        y, three = ge.reference.step(net, x[:, t], three, context=named)
        np.testing.assert_allclose(y, wanted[:, t], rtol=1e-12, atol=1e-15)


# ---- streams


def test_another_context_in_the_middle_of_a_stream() -> None:
    """Promise: it changes what comes from then on, nothing of the state; prepared sums stay valid."""
    net, rng = made(two_contexts), np.random.default_rng(6)
    model = ge.load(net.tobytes())
    x, (c, d) = random_input(rng, net, 10), random_context(rng, net, 2)
    first, state = model.run(x[:4], context=c, return_state=True)
    wanted = np.concatenate([first, model.run(x[4:], context=d, state=state)])
    assert not np.array_equal(wanted, model.run(x, context=c))
    for prepared in (False, True):
        stream, pool = model.stream(context=c), model.pool(2)
        pool.open(context=d)
        slot = pool.open(context=c)
        for t in range(10):
            if t == 4:
                if prepared:
                    stream.prepare()
                    pool.prepare([slot])
                before = stream.state
                stream.set_context({"b": d[3:], "a": d[:3]})
                pool.set_context(slot, d)
                assert_bits(stream.state, before, "the state")
                assert_bits(pool.get_state(slot), before, "the state of a slot")
                assert_bits(stream.context, d, "the context")
            assert_bits(stream.step(x[t]), wanted[t], f"step {t}, prepared {prepared}")
            assert_bits(pool.step([slot], x[t : t + 1])[0], wanted[t], f"pool, step {t}, prepared {prepared}")


def test_what_keeps_a_context() -> None:
    """Promise: reset, a new state, copy and pickle keep it; the state's bytes do not have it."""
    net, rng = made(speaker_network), np.random.default_rng(7)
    model = ge.load(net.tobytes())
    x, c = random_input(rng, net, 3), random_context(rng, net)
    wanted = model.run(x, context=c)
    stream = model.stream()
    assert stream.context is None
    stream.set_context(c)
    assert_bits(stream.step(x[0]), wanted[0], "first step")
    for other in (stream.copy(), copy.copy(stream), copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        assert_bits(other.step(x[1]), wanted[1], "a copy")
        assert_bits(other.context, c, "its context")
    state, data = stream.state, stream.state_bytes()
    assert len(data) == 8 + 32 + 4 * model.state_size + 4
    stream.reset()
    assert_bits(stream.step(x[0]), wanted[0], "after reset")
    stream.state = np.zeros(model.state_size)
    stream.state = data
    assert_bits(stream.step(x[1]), wanted[1], "after another state")
    with pytest.raises(ValueError, match="no context has been set"):
        model.stream(data).step(x[1])
    assert_bits(model.stream(data, context=c).step(x[1]), wanted[1], "from bytes")

    pool = model.pool(3)
    slots = [pool.open(context=c), pool.open(state, context=c), pool.open()]
    assert_bits(pool.step(slots[:2], x[:2]), wanted[:2], "a pool")
    pool.reset(slots[0])
    pool.set_state(slots[1], state)
    for same in (pool, copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert_bits(same.step(slots[:2], x[:2]), wanted[:2], "a pool with its contexts")
        assert_bits(same.get_context(slots[0]), c, "get_context")
        assert same.get_context(slots[2]) is None
    pool.close(slots[0])
    assert pool.open() == slots[0]
    assert pool.get_context(slots[0]) is None, "a new stream has none"


def test_initial_states() -> None:
    """Promise: they are the context's when it is set at the start and after ``reset``, not in the middle or of a given state."""
    net, rng = made(starting), np.random.default_rng(14)
    model = ge.load(net.tobytes())
    x, (c, d) = random_input(rng, net, 8), random_context(rng, net, 2)
    wanted = model.run(x, context=c)
    assert not np.array_equal(wanted[0], model.run(x, context=d)[0])
    (e,) = (layer for layer in net.layers if isinstance(layer, Dense) and layer.width == 17)
    stream = model.stream(context=c)
    np.testing.assert_allclose(stream.state[:17], np.tanh(e.W @ c + e.b), atol=1e-6)
    assert_bits(stream.state[17:22], c[3:8], "a part of the context")
    assert_bits(stream.state[22:], c, "all of it")
    stream.set_context(d)
    stream.prepare()
    stream.set_context(c)  # still at the start: what was prepared is not valid any more
    assert_bits(stream.run(x[:4]), wanted[:4], "the last context before the first step")
    state = stream.state
    stream.set_context(d)
    assert_bits(stream.state, state, "in the middle the state stays")
    assert_bits(stream.run(x[4:]), model.run(x[4:], state=state, context=d), "a given state stays")
    stream.reset()
    assert_bits(stream.run(x), model.run(x, context=d), "reset starts from the context")
    stream.state = state
    stream.set_context(c)
    assert_bits(stream.run(x[4:]), wanted[4:], "a state that was set stays")

    pool = model.pool(2)
    slots = [pool.open(), pool.open(context=d)]
    pool.set_context(slots, c)
    assert_bits(pool.step(slots, x[[0, 0]])[1], wanted[0], "a pool")
    pool.reset(slots[0])
    assert_bits(pool.step(slots, x[[0, 1]]), wanted[:2], "after reset")
    begins = np.zeros((2, 8), bool)
    begins[0, 3] = begins[1, 5] = True
    contexts = np.stack([c, d])
    y = model.run(np.stack([x, x]), context=contexts, reset=begins)
    assert_bits(y[0, 3:], model.run(x[3:], context=c), "a new sequence in the middle")
    assert_bits(y[1, 5:], model.run(x[5:], context=d), "of another stream")
    reference = ge.reference.run(net, np.stack([x, x]), context=contexts, reset=begins)
    np.testing.assert_allclose(y, reference, atol=2e-6)
    np.testing.assert_allclose(
        ge.reference.run(net, x[4:], state=state, context=d), model.run(x[4:], state=state, context=d), atol=2e-6
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda n, x, c: n.gru(x, np.ones((9, 2)), np.ones((9, 3)), h0=c), "gru: h0 must be of width 3, got <Value 1"),
        (
            lambda n, x, c: n.gru(x, np.ones((9, 2)), np.ones((9, 3)), h0=x),
            "gru: h0 must be an array or a value that is",
        ),
        (lambda n, x, c: n.state(3, c), "state: initial must be of width 3, got <Value 1"),
        (
            lambda n, x, c: n.state(2, n.last(x)),
            "state: initial must be an array or a value that is computed of contexts",
        ),
        (
            lambda n, x, c: n.state(4, n.repeat(c, like=x)),
            "state: initial must be an array or a value that is computed",
        ),
        (
            lambda n, x, c: n.gru(x, np.ones((2, 9, 2)), np.ones((2, 9, 3)), direction="bidirectional", h0=c),
            "gru: h0 must be of width 6, got <Value 1",
        ),
    ],
)
def test_initial_states_that_are_refused(build: Callable[..., Any], message: str) -> None:
    net = ge.Network()
    with pytest.raises(ValueError, match=message):
        build(net, net.input(2), net.context(4))


def test_no_context_no_step() -> None:
    """Promise: without a context nothing runs, and the message says what to do."""
    net, rng = made(two_contexts), np.random.default_rng(8)
    model = ge.load(net.tobytes())
    x, c = random_input(rng, net, 3), random_context(rng, net)
    stream, pool = model.stream(), model.pool(2)
    slots = [pool.open(context=c), pool.open()]
    before = pool.get_state(slots[0])
    message = r"no context has been set, and the network has the contexts 'a', 'b': set_context\(\) comes before"
    for call in (
        lambda: stream.step(x[0]),
        lambda: stream.run(x),
        stream.prepare,
        lambda: pool.step(slots, x[:2]),
        lambda: pool.prepare(slots[1:]),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert_bits(pool.get_state(slots[0]), before, "no state has changed")
    stream.set_context(c)
    assert_bits(stream.run(x), model.run(x, context=c), "and then it runs")
    with pytest.raises(ValueError, match="context must be given: the network has the contexts 'a', 'b', once per seq"):
        model.run(x)
    with pytest.raises(ValueError, match="context must be given: the network has the contexts 'a', 'b', once per seq"):
        ge.reference.run(net, x)
    generator = ge.load(decoder(rng).tobytes())
    with pytest.raises(ValueError, match="no context has been set"):
        generator.stream().generate(3, 0)
    with pytest.raises(ValueError, match="context must be given"):
        ge.beam_search(generator, None, 2, first=0, n=3)


BAD: tuple[tuple[Callable[[Array], Any], type[Exception], str], ...] = (
    (lambda c: c[:-1], ValueError, r"context must have the shape \(36,\).*, got \(35,\)"),
    (lambda c: c[np.newaxis, np.newaxis], ValueError, r"context must have the shape \(36,\).*, got \(1, 1, 36\)"),
    (lambda c: np.stack([c, c, c]), ValueError, r"context must have the shape \(36,\).*, got \(3, 36\)"),
    (lambda c: c.astype(complex), TypeError, "context must be an array of real numbers, got dtype complex128"),
    (lambda c: "who", TypeError, "context must be an array of real numbers"),
    (lambda c: [[1], [2, 3]], ValueError, "context cannot be made an array"),
    (lambda c: {"a": c[:3]}, ValueError, "context lacks 'b'; the contexts are 'a', 'b'"),
    (lambda c: {"a": c[:3], "b": c[3:], "x": 1}, ValueError, "context has 'x', which is no context; the contexts are"),
    (lambda c: {"a": c[:3], "b": c}, ValueError, r"context\['b'\] must have the shape \(33,\).*, got \(36,\)"),
    (lambda c: {"a": c[:3], "b": "who"}, TypeError, r"context\['b'\] must be an array of real numbers"),
)


@pytest.mark.parametrize(("change", "kind", "message"), BAD, ids=[message[:40] for _, _, message in BAD])
def test_bad_contexts_are_refused_by_name(change: Callable[[Array], Any], kind: type[Exception], message: str) -> None:
    """Promise: the message names the argument, what came and what was expected; nothing has changed."""
    net, rng = made(two_contexts), np.random.default_rng(9)
    model = ge.load(net.tobytes())
    x, c = random_input(rng, net, 2, 4), random_context(rng, net)
    stream, pool = model.stream(context=c), model.pool(2)
    slots = [pool.open(context=c), pool.open(context=c)]
    bad = change(c)
    for call in (
        lambda: model.run(x, context=bad),
        lambda: model.run(x[0], context=bad),
        lambda: model.stream(context=bad),
        lambda: stream.set_context(bad),
        lambda: pool.set_context(slots, bad),
        lambda: pool.set_context(slots[0], bad),
        lambda: ge.reference.run(net, x, context=bad),
        lambda: net.tobytes(golden=[(x[0], None, 0.0, bad)]),
    ):
        with pytest.raises(kind, match=message):
            call()
    assert_bits(stream.context, c, "the context")
    assert_bits(pool.get_context(slots[0]), c, "that of a slot")


def test_contexts_of_networks_without() -> None:
    """Promise: refused by name; and the other way round the properties say that there are none."""
    net = token_network(np.random.default_rng(0), 5, 8)
    model = ge.load(net.tobytes())
    assert model.contexts == net.contexts == {}
    assert model.context_size is net.context_size is None
    stream, pool = model.stream(), model.pool(1)
    slot = pool.open()
    assert stream.context is pool.get_context(slot) is None
    for call in (
        lambda: model.run([1], context=[1.0]),
        lambda: model.stream(context=[1.0]),
        lambda: stream.set_context([1.0]),
        lambda: pool.open(context={}),
        lambda: pool.set_context([slot], [1.0]),
        lambda: ge.beam_search(model, None, 1, first=0, n=1, context=[1.0]),
        lambda: ge.reference.run(net, [1], context=[1.0]),
        lambda: net.tobytes(golden=[([1], None, 0.0, [1.0])]),
    ):
        with pytest.raises(ValueError, match="context must be None: the network has no contexts"):
            call()
    assert model.run([1], context=None).shape == (1, 5)
    for call in (lambda: stream.set_context(None), lambda: pool.set_context([slot], None)):
        with pytest.raises(TypeError, match="context must be an array or a dict of arrays, got None"):
            call()
    with pytest.raises(ValueError, match="slot 3 is not open"):
        pool.set_context(3, [1.0])


def test_what_a_context_may_be() -> None:
    """Promise: anything that can be converted; NaN goes through like in other inputs; shapes broadcast by name."""
    net, rng = made(two_contexts), np.random.default_rng(10)
    model = ge.load(net.tobytes())
    x, c = random_input(rng, net, 2, 4), random_context(rng, net, 2)
    wanted = model.run(x, context=c)
    assert_bits(model.run(x, context=c.astype(np.float64)), wanted, "float64")
    assert_bits(model.run(x, context=c.tolist()), wanted, "lists")
    assert_bits(model.run(x, context=np.repeat(c, 2, axis=1)[:, ::2]), wanted, "not contiguous")
    mixed = model.run(x, context={"b": c[:, 3:], "a": c[0, :3]})
    same = np.concatenate([np.repeat(c[:1, :3], 2, axis=0), c[:, 3:]], axis=1)
    assert_bits(mixed, model.run(x, context=same), "one part for all, the other for each")
    stream = model.stream(context=np.where(np.arange(36) == 1, np.nan, c[0]))
    assert np.isnan(stream.step(x[0, 0])[:3]).all()
    stream.reset()
    stream.set_context(c[0])
    assert_bits(stream.run(x[0]), wanted[0], "afterwards")
    (only,) = [made(decoder)]
    assert_bits(
        ge.load(only.tobytes()).run([1, 2], context={"": np.ones(6)}),
        ge.load(only.tobytes()).run([1, 2], context=np.ones(6)),
        "an only context without a name",
    )


def test_generation_with_a_context() -> None:
    """Promise: what is generated depends on the context as it does on an input that is the same at every step."""
    rng = np.random.default_rng(11)
    net = decoder(rng)
    model = ge.load(net.tobytes())
    contexts = 2 * random_context(rng, net, 4)
    found = []
    for c in contexts:
        tokens, stream = [1], model.stream(context=c)
        for _ in range(12):  # greedily, by hand
            tokens.append(int(np.argmax(stream.step(tokens[-1]))))
        got = model.stream(context=c).generate(12, 1, temperature=0)
        assert got.tolist() == tokens[1:]
        (best,) = ge.beam_search(model, None, 1, first=1, n=12, context=c)
        assert best.tokens.tolist() == tokens[1:]
        found.append(got.tolist())
    assert len({tuple(tokens) for tokens in found}) > 1, "contexts matter"
