# SPDX-License-Identifier: Apache-2.0
"""Same bits everywhere: alone, in batches, in chunks, prepared, on any instruction set, on any number of threads."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest

import gru_engine as ge
from gru_engine.precision import DTYPES

from .helpers import (
    Array,
    assert_bits,
    each_isa,
    gru_arrays,
    gru_network,
    token_network,
    uniform,
)
from .random_networks import random_input, random_network

SIZES = (1, 15, 16, 17, 31, 32, 33, 47, 48, 64, 65, 127, 129)
"""Around the edges of vectors, panels and tiles."""
BATCHES = (*range(1, 21), 63, 64, 65, 130)
RESETS = ("after", "before", "all", "none")


# ---- one network, every way to run it


def stepped(model: ge.Model, x: Array) -> tuple[Array, Array]:
    """Outputs of all steps and the states after them, [T, O] and [T, state_size], one step at a time: the yardstick."""
    stream = model.stream()
    pairs = [(stream.step(frame), stream.state) for frame in x]
    return np.array([y for y, _ in pairs]), np.array([state for _, state in pairs])


def chunk_sizes(rng: np.random.Generator, steps: int) -> list[int]:
    """Sizes of consecutive chunks that make ``steps``; from 0 to more than a block of the core."""
    sizes: list[int] = []
    while sum(sizes) < steps:
        sizes.append(int(min(rng.choice([0, 1, 2, 3, 7, 33, 64, 65, 100]), steps - sum(sizes))))
    return sizes


def check_chunks(rng: np.random.Generator, model: ge.Model, x: Array, y: Array, states: Array, what: str) -> None:
    """A stream that is run in chunks, prepared and forked, saved and restored at random."""
    stream = model.stream(threads=int(rng.integers(1, 3)))
    done = 0
    for size in chunk_sizes(rng, len(x)):
        if model.per_sequence and size == 0:
            continue
        for _ in range(rng.integers(0, 3)):
            stream.prepare()
        match rng.integers(8):
            case 0:
                stream = stream.copy()
            case 1:
                stream = copy.deepcopy(stream)
            case 2:
                stream = pickle.loads(pickle.dumps(stream))
            case 3:
                stream = model.stream(stream.state_bytes())
            case 4:
                stream.state = stream.state
            case 5:  # another history in between
                kept = stream.state
                stream.run(x[: 1 + len(x) // 2])
                stream.prepare()
                stream.state = kept
        if rng.random() < 0.3:
            stream.prepare()
        if size == 1 and rng.random() < 0.5:
            got = stream.step(x[done])[np.newaxis]
        else:
            got = stream.run(x[done : done + size])
        part = y[done : done + size]
        done += size
        assert_bits(got, part[-1] if got.ndim == 1 else part, f"{what}: steps {done - size} to {done}")
        if done:
            assert_bits(stream.state, states[done - 1], f"{what}: state after {done} steps")


def check_pool(rng: np.random.Generator, model: ge.Model, xs: Array, ys: Array, states: Array, what: str) -> None:
    """Streams of a pool that are stepped in random subsets and orders until all are through."""
    streams, steps = ys.shape[:2]
    pool = model.pool(streams + 2, threads=int(rng.integers(1, 3)))
    pool.open()
    slots = [pool.open() for _ in range(streams)]
    done = np.zeros(streams, int)
    while (done < steps).any():
        ready = np.flatnonzero(done < steps)
        chosen = rng.permutation(ready)[: rng.integers(1, len(ready) + 1)]
        if rng.random() < 0.3:
            pool.prepare([slots[i] for i in rng.permutation(chosen)[: rng.integers(0, len(chosen) + 1)]])
        got = pool.step([slots[i] for i in chosen], np.array([xs[i, done[i]] for i in chosen]))
        assert_bits(
            got, np.array([ys[i, done[i]] for i in chosen]), f"{what}: pool, streams {chosen} at {done[chosen]}"
        )
        done[chosen] += 1
    for i in range(streams):
        assert_bits(pool.get_state(slots[i]), states[i, -1], f"{what}: pool, state of stream {i}")


def check_all_ways(net: ge.Network, seed: int, streams: int = 3, steps: int = 70, dtype: str = "float32") -> None:
    """Every way of running a causal network gives the bits of stepping it."""
    rng = np.random.default_rng(seed)
    data = [net.tobytes(dtype, fold=fold) for fold in (True, False)]
    models = [ge.load(d) for d in (data if data[0] != data[1] else data[:1])]
    xs = random_input(rng, net, streams, steps)
    # The tables of folded embeddings have other bits in int8 files: they are not rounded.
    for alike in [[model] for model in models] if dtype == "int8" else [models]:
        check_models(rng, alike, xs, f"seed {seed}, {net!r}, {dtype}")


def check_models(rng: np.random.Generator, models: list[ge.Model], xs: Array, what: str) -> None:
    """All models give the bits of stepping the first."""
    per_sequence = models[0].per_sequence
    ys, states = map(np.array, zip(*(stepped(models[0], x) for x in xs)))
    for isa in each_isa():
        for number, model in enumerate(models):
            where = f"{what}, {isa}, model {number}"
            wanted = ys[:, -1] if per_sequence else ys
            for threads in (1, 2):
                batch, after = model.run(xs, threads=threads, return_state=True)
                assert_bits(batch, wanted, f"{where}: batch, {threads} threads")
                assert_bits(after, states[:, -1], f"{where}: batch, {threads} threads, states")
            assert_bits(model.run(xs[0]), wanted[0], f"{where}: one sequence")
            check_chunks(rng, model, xs[1], ys[1], states[1], where)
            check_pool(rng, model, xs[:, :20], ys[:, :20], states[:, :20], where)


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("dtype", DTYPES)
def test_random_networks_every_way(dtype: str, seed: int) -> None:
    """Promise: step == run == chunks == pool == batch == instruction set == threads == prepared == folded == restored."""
    net = random_network(np.random.default_rng(seed), max_size=100, allow_reverse=False)
    check_all_ways(net, seed, dtype=dtype, steps=70 if dtype == "float32" else 20)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes_at_the_edges_every_way(dtype: str, hidden: int, reset: str) -> None:
    """Promise: the same for every place of the reset gate at sizes around panel and tile edges."""
    rng = np.random.default_rng(hidden)
    columns = int(rng.choice(SIZES[:8]))
    check_all_ways(gru_network(rng, hidden, columns, reset), seed=hidden, streams=2, steps=12, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_sequences_cross_blocks(dtype: str) -> None:
    """Promise: sequences and batches that cross the core's blocks of 64 rows have the bits of their steps."""
    rng = np.random.default_rng(1)
    for columns, hidden in ((5, 33), (3, 16)):
        check_all_ways(gru_network(rng, hidden, columns), seed=hidden, streams=5, steps=200, dtype=dtype)
    check_all_ways(token_network(rng, 40, 17), seed=2, streams=9, steps=130, dtype=dtype)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_of_any_size(dtype: str, reset: str) -> None:
    """Promise: a row of a batch has the bits that it has alone, whatever the size of the batch and the threads."""
    rng = np.random.default_rng(7)
    net = gru_network(rng, 33, 17, reset)
    model = ge.load(net.tobytes(dtype))
    xs = random_input(rng, net, max(BATCHES), 5)
    ys, states = map(np.array, zip(*(stepped(model, x) for x in xs)))
    for isa in each_isa():
        for n in BATCHES:
            rows = rng.permutation(len(xs))[:n]
            for threads in (1, 2):
                y, state = model.run(xs[rows], threads=threads, return_state=True)
                assert_bits(y, ys[rows], f"reset {reset}, {isa}, {threads} threads, batch of {n}, rows {rows}")
                assert_bits(state, states[rows, -1], f"reset {reset}, {isa}, {threads} threads, batch of {n}, states")
            pool = model.pool(n, threads=1 + n % 2)
            slots = rng.permutation([pool.open() for _ in range(n)])
            for t in range(xs.shape[1]):
                if rng.random() < 0.5:
                    pool.prepare(slots)
                assert_bits(pool.step(slots, xs[rows, t]), ys[rows, t], f"reset {reset}, {isa}, pool of {n}, step {t}")


def large_network(reset: str, whole: bool) -> ge.Network:
    """Products so large that threads share the panels of one stream; ``whole``: with a reverse layer and its ends."""
    rng = np.random.default_rng(13)
    net = ge.Network()
    x = net.input(90)
    h = net.gru(x, reset=reset, **gru_arrays(rng, 330, 90, reset))
    g = net.gru([h, x], reset=reset, direction="reverse" if whole else "forward", **gru_arrays(rng, 65, 420, reset))
    y = net.dense(g, uniform(rng, 1, 300, 65), activation="softmax")
    for value in (net.first(y), net.last(net.concat([g, h]))) if whole else (y, net.add(h, h), net.concat([x, h])):
        net.output(value)
    return net


@pytest.mark.parametrize(
    ("dtype", "reset"),
    [*(("float32", r) for r in RESETS), ("bfloat16", "none"), ("float16", "all")] + [("int8", r) for r in RESETS],
)
def test_threads_that_share_one_stream(dtype: str, reset: str) -> None:
    """Promise: threads that share the panels of large layers give the same bits, whatever their number."""
    rng = np.random.default_rng(17)
    model, whole = (ge.load(large_network(reset, w).tobytes(dtype)) for w in (False, True))
    xs = uniform(rng, 1, 70, 90)
    y, states = stepped(model, xs)
    ends, ends_state = whole.run(xs, return_state=True)
    for isa in each_isa():
        steps = 3 if isa == "generic" else len(xs)
        for threads in (2, 3, 5):
            what = f"{dtype}, reset {reset}, {isa}, {threads} threads"
            stream = model.stream(threads=threads)
            for t in range(min(steps, 9)):
                if rng.random() < 0.3:
                    stream.prepare()
                assert_bits(stream.step(xs[t]), y[t], f"{what}, step {t}")
            assert_bits(stream.state, states[t], f"{what}, state")
            got, state = model.run(xs[:steps], threads=threads, return_state=True)
            assert_bits(got, y[:steps], f"{what}, run")
            assert_bits(state, states[steps - 1], f"{what}, run, state")
            got = model.run(xs[np.newaxis, :steps], lengths=[steps - 2], padding="carry", threads=threads)[0]
            assert_bits(got, y[np.minimum(np.arange(steps), steps - 3)], f"{what}, padded")
            if steps == len(xs):
                got, state = whole.run(xs, threads=threads, return_state=True)
                assert_bits(got, ends, f"{what}, reverse")
                assert_bits(state, ends_state, f"{what}, reverse, state")


# ---- whole sequences: directions, lengths, resets


@pytest.mark.parametrize("seed", range(100, 116))
@pytest.mark.parametrize("dtype", DTYPES)
def test_networks_with_reverse_layers(dtype: str, seed: int) -> None:
    """Promise: whole-sequence networks give the same bits alone, in any batch, on any instruction set and threads."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=80)
    model, unfolded = (ge.load(net.tobytes(dtype, fold=fold)) for fold in (dtype != "int8", False))
    xs = random_input(rng, net, 11, int(rng.choice([1, 2, 64, 65, 90])))
    ys, states = map(np.array, zip(*(model.run(x, return_state=True) for x in xs)))
    for isa in each_isa():
        for n, threads, m in ((1, 1, model), (11, 1, unfolded), (11, 2, model), (9, 2, unfolded)):
            rows = rng.permutation(len(xs))[:n]
            y, state = m.run(xs[rows], threads=threads, return_state=True)
            assert_bits(y, ys[rows], f"seed {seed}, {net!r}, {isa}, {threads} threads, rows {rows}")
            assert_bits(state, states[rows], f"seed {seed}, {net!r}, {isa}, {threads} threads, states of rows {rows}")


def run_in_parts(model: ge.Model, x: Array, begins: Array) -> Array:
    """One sequence that is cut where ``begins`` is true and whose parts are run as sequences of their own."""
    cuts = [0, *(np.flatnonzero(begins[1:]) + 1).tolist(), len(x)]
    return np.concatenate([model.run(x[a:b]) for a, b in itertools.pairwise(cuts)])


@pytest.mark.parametrize("seed", range(200, 220))
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_lengths_and_resets(dtype: str, seed: int) -> None:
    """Promise: lengths cut sequences and resets split them, for all directions; padding is zeros or the last output."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=70, per_sequence=False)
    model = ge.load(net.tobytes(dtype))
    streams, steps = int(rng.integers(1, 70)), int(rng.choice([1, 3, 10, 66]))
    xs = random_input(rng, net, streams, steps)
    lengths = rng.integers(0, steps + 1, streams)
    begins = rng.random((streams, steps)) < 0.15
    dirty = xs.copy()  # what stands in the padding does not matter
    for i, length in enumerate(lengths):
        dirty[i, length:] = -5 if net.vocab_size else np.nan
    zeros = np.zeros((streams, steps, model.output_size), np.float32)
    carried = zeros.copy()
    for i, length in enumerate(lengths):
        if length:
            zeros[i, :length] = carried[i, :length] = run_in_parts(model, xs[i, :length], begins[i, :length])
            carried[i, length:] = carried[i, length - 1]
    for isa in each_isa():
        for padding, wanted in (("zero", zeros), ("carry", carried)):
            threads = int(rng.integers(1, 3))
            got = model.run(dirty, lengths=lengths, reset=begins, padding=padding, threads=threads)
            assert_bits(got, wanted, f"seed {seed}, {net!r}, {isa}, padding {padding}, {threads} threads")
    i = int(rng.integers(streams))
    got = model.run(dirty[i], lengths=int(lengths[i]), reset=begins[i])
    assert_bits(got, zeros[i], f"seed {seed}, {net!r}: sequence {i} alone")


@pytest.mark.parametrize("seed", range(300, 312))
def test_states_of_padded_sequences(seed: int) -> None:
    """Promise: padding steps change no state, and a given state is that before the first step (reverse: the last)."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=50)
    model = ge.load(net.tobytes())
    streams, steps = 19, 9
    xs = random_input(rng, net, streams, steps)
    lengths = rng.integers(1 if net.per_sequence else 0, steps + 1, streams)
    before = uniform(rng, 1, streams, model.state_size)
    for isa in each_isa():
        y, after = model.run(xs, lengths=lengths, state=before, return_state=True, threads=2)
        for i, length in enumerate(lengths):
            what = f"seed {seed}, {net!r}, {isa}, sequence {i} of {length} steps"
            alone, state = model.run(xs[i, :length], state=before[i], return_state=True)
            assert_bits(y[i] if net.per_sequence else y[i, :length], alone, what)
            assert_bits(after[i], state, f"{what}: state")
            if length == 0:
                assert_bits(after[i], before[i], f"{what}: state")


def test_per_sequence_outputs_follow_lengths() -> None:
    """Promise: values of the last and the first step are those of each sequence's own ends."""
    rng = np.random.default_rng(5)
    net = ge.Network()
    x = net.input(4)
    h = net.gru(x, direction="bidirectional", **{k: np.stack([v, -v]) for k, v in gru_arrays(rng, 17, 4).items()})
    net.output(net.last(h), "last")
    net.output(net.first(h), "first")
    every = ge.Network()
    every.output(every.gru(every.input(4), direction="bidirectional", **_both(net)), "h")
    xs, lengths = random_input(rng, net, 70, 12), rng.integers(1, 13, 70)
    h_all = ge.load(every.tobytes()).run(xs, lengths=lengths)
    wanted = np.concatenate([h_all[np.arange(70), lengths - 1], h_all[:, 0]], axis=1)
    for isa in each_isa():
        assert_bits(ge.load(net.tobytes()).run(xs, lengths=lengths, threads=2), wanted, f"{isa}: ends of sequences")


def _both(net: ge.Network) -> dict[str, Array]:
    forward, reverse = (layer for layer in net.layers if hasattr(layer, "reverse"))
    return {name: np.stack([getattr(forward, name), getattr(reverse, name)]) for name in ("W", "U", "b_x", "b_h", "h0")}


# ---- NaN and infinity


POISON = (np.nan, np.inf, -np.inf, 3e38, -3e38)


@pytest.mark.parametrize("seed", range(400, 410))
@pytest.mark.parametrize("dtype", DTYPES)
def test_poison_stays_in_its_stream(dtype: str, seed: int) -> None:
    """Promise: NaN and infinity in some streams' inputs change no bit of the others', and theirs are as they are alone."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=40, tokens=False)
    model = ge.load(net.tobytes(dtype))
    streams, steps = int(rng.choice([3, 8, 21, 66])), 6
    xs = random_input(rng, net, streams, steps)
    for i in rng.permutation(streams)[: rng.integers(1, streams)]:
        xs[i, rng.integers(steps), rng.integers(xs.shape[2])] = rng.choice(POISON)
    ys, states = map(np.array, zip(*(model.run(x, return_state=True) for x in xs)))
    for isa in each_isa():
        what = f"seed {seed}, {net!r}, {isa}"
        for threads in (1, 2):
            got, after = model.run(xs, threads=threads, return_state=True)
            assert_bits(got, ys, f"{what}, {threads} threads")
            assert_bits(after, states, f"{what}, {threads} threads, states")
        if not model.causal:
            continue
        pool = model.pool(streams)
        slots = rng.permutation([pool.open() for _ in range(streams)])
        for t in range(steps):
            y = pool.step(slots, xs[:, t])
            if not net.per_sequence:
                assert_bits(y, ys[:, t], f"{what}, pool, step {t}")
        assert_bits(np.array([pool.get_state(slot) for slot in slots]), states, f"{what}, pool")


def test_a_poisoned_slot_is_clean_again() -> None:
    """Promise: after reset, close and open, or a new state, nothing is left of a NaN."""
    rng = np.random.default_rng(3)
    for reset in RESETS:
        net = gru_network(rng, 33, 5, reset)
        model = ge.load(net.tobytes())
        x = random_input(rng, net, 4)
        wanted, _ = stepped(model, x)
        stream, pool = model.stream(), model.pool(1)
        slot = pool.open()
        for clean in ("reset", "reopen", "state"):
            assert np.isnan(stream.step(np.full(5, np.nan, np.float32))).all()
            assert np.isnan(pool.step([slot], np.full((1, 5), np.nan, np.float32))).all()
            stream.prepare()
            pool.prepare([slot])
            if clean == "reset":
                stream.reset()
                pool.reset(slot)
            elif clean == "reopen":
                stream = model.stream()
                pool.close(slot)
                slot = pool.open()
            else:
                stream.state = model.stream().state
                pool.set_state(slot, model.stream().state_bytes())
            assert_bits(stream.run(x), wanted, f"stream, {reset}, {clean}")
            assert_bits(np.array([pool.step([slot], v[np.newaxis])[0] for v in x]), wanted, f"pool, {reset}, {clean}")
