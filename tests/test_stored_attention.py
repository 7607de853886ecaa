# SPDX-License-Identifier: Apache-2.0
"""Attention to keys and values that are stored: given as contexts, one row behind the other, and looked at by every step."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import Network, format

from .helpers import Array, assert_bits, each_isa, gru_arrays, uniform
from .test_axes import specified_attention
from .test_files import check_agreement
from .test_format_damage import edited

ROWS, X = 9, uniform(np.random.default_rng(0), 1, 3, 12, 6)


def attending(rng: np.random.Generator, width: int, heads: int, v: Array | None, scale: float, part: int) -> Network:
    """A query made of the input, attending to contexts; its output and the query."""
    net = Network()
    x = net.input(6, name="x")
    keys, values = (net.context(ROWS * n, name=name) for name, n in (("keys", width), ("values", part)))
    count = net.context(1, name="count")
    query = net.dense(x, uniform(rng, 1, width, 6))
    net.output(net.attention(query, keys, values, v=v, scale=scale, heads=heads, rows=ROWS, count=count), "seen")
    net.output(query, "query")
    return net


def decoder(rng: np.random.Generator, hidden: int = 10) -> Network:
    """A cell whose state is the query: the attention stands in a loop."""
    net = Network()
    x = net.input(6, name="x")
    rows = net.context(ROWS * 2 * hidden, name="rows")
    keys, values = rows[: ROWS * hidden], rows[ROWS * hidden :]
    s = net.state(hidden, np.full(hidden, 0.25))
    seen = net.attention(
        net.dense(s, uniform(rng, 1, hidden, hidden)), keys, values, v=uniform(rng, 1, hidden), rows=ROWS
    )
    h = net.gru([x, seen], **gru_arrays(rng, hidden, 6 + hidden))
    net.feed(s, h)
    net.output(net.concat([h, seen]))
    return net


def contexts(rng: np.random.Generator, net: Network, counts: Array | None = None) -> Array:
    """One context for each of three sequences."""
    c = uniform(rng, 1, 3, net.context_size or 0)
    if counts is not None:
        c[:, -1] = counts
    return c


def check_all_ways(net: Network, c: Array, what: str) -> Array:
    """Stepping, sequences, batches, pools and threads give the same bits; returns them."""
    model = ge.load(net.tobytes())
    assert net.causal and model.causal and not net.least_steps
    wanted = np.array([[stream.step(v) for v in x] for x, stream in zip(X, (model.stream(context=row) for row in c))])
    for isa in each_isa():
        for threads in (1, 2):
            assert_bits(model.run(X, context=c, threads=threads), wanted, f"{what}, {isa}, {threads} threads")
        pool = model.pool(3)
        slots = [pool.open(context=row) for row in c]
        for t in range(X.shape[1]):
            pool.prepare(slots)
            assert_bits(pool.step(slots, X[:, t]), wanted[:, t], f"{what}, {isa}, pool, step {t}")
        stream = model.stream(context=c[0])
        assert_bits(np.concatenate([stream.run(X[0, :5]), stream.run(X[0, 5:])]), wanted[0], f"{what}, {isa}, chunks")
    exact = ge.reference.run(net, X, context=c)
    np.testing.assert_allclose(wanted, exact, rtol=0, atol=2e-5, err_msg=what)
    back = format.unpack(format.read(net.tobytes(fold=False)))
    assert_bits(ge.load(back.tobytes()).run(X, context=c), wanted, f"{what}, read and written again")
    return wanted


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize(("width", "heads", "part"), [(1, 1, 1), (6, 2, 8), (17, 1, 40), (64, 4, 4)])
def test_bits(additive: bool, width: int, heads: int, part: int) -> None:
    """Promise: the equations of docs/NUMERICS.md, section 4.3, over the rows that count, to the bit."""
    rng = np.random.default_rng(width)
    v, scale = (uniform(rng, 1, width), 1.0) if additive else (None, 0.3)
    net = attending(rng, width, heads, v, scale, part)
    for counts in ([9, 3, 1], [100, 0, -7], [np.nan, 2.9, np.inf]):
        c = contexts(rng, net, np.array(counts, np.float32))
        got = check_all_ways(net, c, f"width {width}, counts {counts}")
        for i, count in enumerate(counts):
            rows = ROWS if not count < ROWS else max(int(count), 1)
            keys, values = c[i, : ROWS * width].reshape(ROWS, -1), c[i, ROWS * width : -1].reshape(ROWS, -1)
            query = got[i, :, part:]
            wanted = specified_attention(query, keys[:rows], values[:rows], v, scale, heads, False)
            assert_bits(got[i, :, :part], wanted, f"width {width}, {count} rows")


def test_attention_in_a_loop() -> None:
    """Promise: a decoder whose query is its own state can be stepped, with a fork that goes on by itself."""
    net = decoder(np.random.default_rng(1))
    c = contexts(np.random.default_rng(2), net)
    wanted = check_all_ways(net, c, "decoder")
    stream = ge.load(net.tobytes()).stream(context=c[1])
    stream.run(X[1, :4])
    fork = stream.copy()
    assert_bits(fork.run(X[1, 4:]), wanted[1, 4:], "a copy has the rows too")
    stream.set_context(c[2])
    assert not np.array_equal(stream.run(X[1, 4:]), wanted[1, 4:])


def test_stored_values_that_are_no_context() -> None:
    """Promise: what is stored can be made of the sequence itself; such a network is run over whole sequences."""
    rng = np.random.default_rng(3)
    net = Network()
    x = net.input(6)
    h = net.gru(x, **gru_arrays(rng, 8, 6))
    rows = net.dense(net.last(h), uniform(rng, 1, 4 * 5, 8))
    net.output(net.attention(h[:5], rows, rows, rows=4))
    assert not net.causal and net.least_steps == 1
    model = ge.load(net.tobytes())
    got = model.run(X, lengths=[12, 5, 1])
    np.testing.assert_allclose(got, ge.reference.run(net, X, lengths=[12, 5, 1]), rtol=0, atol=1e-5)
    for i, length in enumerate((12, 5, 1)):
        assert_bits(got[i, :length], model.run(X[i, :length]), f"sequence {i}")


REFUSED: list[tuple[Callable[..., Any], type[Exception], str]] = [
    (lambda n, x, c: n.attention(x, c, c, rows=7), ValueError, "values must have a width that 7 rows divide, got 18"),
    (lambda n, x, c: n.attention(x, c, c, rows=9), ValueError, "query and keys .* got 6 and 18 in 9 rows"),
    (lambda n, x, c: n.attention(x, c, c, rows=3, causal=True), TypeError, "causal is for keys and values per step"),
    (lambda n, x, c: n.attention(x, x, x, count=c), TypeError, "count is for stored keys and values; say rows"),
    (lambda n, x, c: n.attention(x, x, x, rows=1), ValueError, "with rows, keys is one value per sequence, got"),
    (lambda n, x, c: n.attention(x, c, c, rows=3, count=c), ValueError, "count must have the width 1, got 18"),
    (lambda n, x, c: n.attention(x, c, c, rows=3, count=x), ValueError, "with rows, count is one value per sequence"),
    (lambda n, x, c: n.attention(x, c, c, rows=0), ValueError, "rows must be from 1 to"),
    (
        lambda n, x, c: n.attention(x, c, c, rows=3, heads=4),
        ValueError,
        "heads must divide the widths .* 6 and 6, got 4",
    ),
    (lambda n, x, c: n.attention(c, c, c, rows=3), ValueError, "attention: query is one value per sequence"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refused(call: Callable[..., Any], error: type[Exception], message: str) -> None:
    net = Network()
    x, c = net.input(6, name="x"), net.context(18, name="c")
    with pytest.raises(error, match=message):
        call(net, x, c)


@pytest.mark.parametrize("make", [decoder, lambda rng: attending(rng, 6, 2, None, 0.5, 8)], ids=["decoder", "query"])
def test_forged_files(make: Callable[[np.random.Generator], Network]) -> None:
    """Promise: both readers take and refuse the same values of every field and every edge of such a node."""
    data = make(np.random.default_rng(0)).tobytes()
    nodes = format.read(data).nodes
    which = next(i for i, node in enumerate(nodes) if node.kind.__name__ == "Attention")
    for field in ("width", "edges", "p0", "p1", "p2", "p3", "slot0", "flags", "activation", "operation"):
        for value in (0, 1, 2, 3, 4, 5, 8, 9, 10, 18, 24, 90, 2**24, 2**31, 2**32 - 1):
            check_agreement(edited(data, "NODES", which, field, value), f"{field} = {value}")
    start = struct.unpack_from("<Q", data, 128 + 32 * 2 + 8)[0]
    first = sum(len(node.inputs) for node in nodes[:which])
    for edge in range(first, first + len(nodes[which].inputs)):
        for source in range(len(nodes)):
            forged = bytearray(data)
            struct.pack_into("<I", forged, start + 4 * edge, source)
            check_agreement(edited(bytes(forged), "NODES", which, "flags", 0), f"edge {edge} = {source}")
