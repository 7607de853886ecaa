# SPDX-License-Identifier: Apache-2.0
"""States, streams and pools: copies, pickles, bytes, slots."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gru_engine as ge

from .helpers import Array, assert_bits, gru_network, uniform

WIDTH, HIDDEN = 5, 9
OUTPUTS = 5 + HIDDEN
VECTORS = ge.load(gru_network(np.random.default_rng(0), HIDDEN, WIDTH).tobytes())
X = uniform(np.random.default_rng(1), 1, 7, WIDTH)


# ---- states


def test_states_are_copies() -> None:
    """Promise: a state read is a copy, one set is copied; setting the one read changes nothing."""
    stream = VECTORS.stream()
    stream.run(X)
    state = stream.state
    state[:] = 0
    assert stream.state.any()
    given = stream.state
    other = VECTORS.stream(given)
    given[:] = 0
    assert_bits(other.state, stream.state, "state given")
    assert_bits(VECTORS.stream(stream.state.tolist()).state, stream.state, "state as a list")
    assert_bits(VECTORS.stream(stream.state.astype(np.float64)).state, stream.state, "state as float64")
    one, many = VECTORS.run(X, return_state=True)[1], VECTORS.run([X, X], return_state=True)[1]
    assert_bits(one, stream.state, "Model.run's state")
    assert_bits(many, np.array([one, one]), "Model.run's states")
    assert_bits(VECTORS.run([X, X], state=one)[1], VECTORS.run(X, state=one), "one state for all")
    with pytest.raises((AttributeError, NotImplementedError)):
        del stream.state


def test_state_bytes_know_their_model() -> None:
    """Promise: state bytes carry the model's digest; another model, and a single changed bit, is refused."""
    stream = VECTORS.stream()
    stream.run(X)
    data = stream.state_bytes()
    pool = VECTORS.pool(1)
    slot = pool.open(data)
    assert pool.state_bytes(slot) == data
    for taken in (bytearray(data), memoryview(data)):
        assert_bits(VECTORS.stream(taken).state, stream.state, "bytes of another kind")
    assert_bits(VECTORS.run(X, state=data), stream.copy().run(X), "Model.run from bytes")
    twin = ge.load(gru_network(np.random.default_rng(9), HIDDEN, WIDTH).tobytes())
    with pytest.raises(
        ValueError, match=f"state belongs to the model {VECTORS.digest[:12]}, this one is {twin.digest[:12]}"
    ):
        twin.stream(data)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 4
        with pytest.raises(ValueError, match="state"):
            stream.state = bytes(damaged)
        with pytest.raises(ValueError, match="state"):
            pool.set_state(slot, data[:at])
    with pytest.raises(ValueError, match="state"):
        pool.set_state(slot, data + b"\0")
    assert_bits(stream.state, pool.get_state(slot), "nothing has changed")


# ---- copies and pickles


def test_models_are_pickled_by_path_or_bytes(tmp_path: Path) -> None:
    """Promise: a mapped model is pickled as path and digest, one from bytes or a copy as its bytes; a changed file is refused."""
    path = tmp_path / "m.gru"
    path.write_bytes(VECTORS._file())
    mapped, copied = ge.load(path), ge.load(path, copy=True)
    assert len(pickle.dumps(mapped)) < 500
    for model in (mapped, copied, VECTORS):
        again = pickle.loads(pickle.dumps(model))
        assert (again.digest, again.path) == (model.digest, model.path if model is mapped else None)
        assert_bits(again.run(X), VECTORS.run(X), "unpickled")
        assert copy.copy(model) is copy.deepcopy(model) is model  # immutable
    data, data_of_copy = pickle.dumps(mapped), pickle.dumps(copied)
    gru_network(np.random.default_rng(5), HIDDEN, WIDTH).save(path)
    with pytest.raises(ValueError, match=r"m\.gru has changed since .*digest"):
        pickle.loads(data)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)
    assert pickle.loads(data_of_copy).digest == VECTORS.digest


def test_streams_and_pools_are_copied_and_pickled() -> None:
    """Promise: a copy goes on from the same state by itself; a pool's copy has the same open slots."""
    stream = VECTORS.stream(threads=2)
    stream.run(X)
    stream.prepare()
    wanted = stream.copy().run(X)
    for other in (stream.copy(), copy.copy(stream), copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        assert_bits(other.run(X), wanted, "copy")
        assert other.model.digest == VECTORS.digest
    assert_bits(stream.run(X), wanted, "the original has not moved")
    pool = VECTORS.pool(5)
    slots = [pool.open() for _ in range(4)]
    pool.close(slots[1])
    pool.step([slots[3], slots[0]], X[:2])
    for other in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert (len(other), other.capacity) == (3, 5)
        for slot in (slots[0], slots[2], slots[3]):
            assert_bits(other.get_state(slot), pool.get_state(slot), f"slot {slot}")
        with pytest.raises(ValueError, match=f"slot {slots[1]} is not open"):
            other.get_state(slots[1])
        assert_bits(other.step([slots[0]], X[:1]), copy.deepcopy(pool).step([slots[0]], X[:1]), "step of a copy")
        assert [other.open(), other.open()] == [copy.deepcopy(pool).open(), 4] or len(other) == 5


# ---- pools


def test_pool_slots() -> None:
    """Promise: slots are opened, closed and used again; what is not open is refused and nothing changes."""
    pool = VECTORS.pool(3)
    slots = [pool.open() for _ in range(3)]
    assert (sorted(slots), len(pool)) == ([0, 1, 2], 3)
    with pytest.raises(RuntimeError, match="all 3 slots of the pool are open"):
        pool.open()
    pool.step(slots, X[:3])
    pool.close(1)
    assert len(pool) == 2
    for call in (
        pool.close,
        pool.reset,
        pool.get_state,
        pool.state_bytes,
        lambda s: pool.set_state(s, np.zeros(HIDDEN)),
    ):
        for slot in (1, -1, 3, 2**70):
            with pytest.raises(ValueError, match=f"slot {slot} is not open"):
                call(slot)
        for slot in (1.0, "0", None, True, [0]):
            with pytest.raises(TypeError, match="slot must be an integer, got"):
                call(slot)
    states = [pool.get_state(0), pool.get_state(2)]
    for wrong, message in (
        ([0, 1], r"slots\[1\] is 1, which is not open"),
        ([0, 2, 0], r"slots\[2\] is 0, which is given twice"),
        ([0, 3], r"slots must be from 0 to 2, got 3 at \[1\]"),
        ([0, -1], r"slots must be from 0 to 2, got -1 at \[1\]"),
        ([0, 2**62], r"slots must be from 0 to 2, got"),
        ([[0, 2]], r"slots must have the shape \(n,\), got \(1, 2\)"),
    ):
        for given in (wrong, np.array(wrong)):
            with pytest.raises(ValueError, match=message):
                pool.step(given, X[: len(wrong)])
            with pytest.raises(ValueError, match=message):
                pool.prepare(given)
    for wrong in ([0.0], ["0"], [True], None):
        with pytest.raises(TypeError, match="slots must be integers"):
            pool.step(wrong, X[:1])
    with pytest.raises(ValueError, match=r"x must have a row for each of the 2 slots, got the shape \(3, 5\)"):
        pool.step([0, 2], X[:3])
    assert_bits(pool.get_state(0), states[0], "state 0")
    assert_bits(pool.get_state(2), states[1], "state 2")
    assert pool.open(states[0]) == 1
    assert_bits(pool.get_state(1), states[0], "opened with a state")
    assert pool.step([2, 0], X[:2]).shape == (2, OUTPUTS)  # the marks of refused calls are gone
    with pytest.raises(ValueError, match="state must have the shape"):
        VECTORS.pool(1).open(np.zeros(3))


def test_a_pool_that_calls_itself_stays_usable() -> None:
    """Promise: whatever an argument's own conversion does with the pool, it ends in an exception or a right result."""
    pool = VECTORS.pool(1)

    class Opens:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
            pool.open()
            return np.zeros(HIDDEN, np.float32)

    with pytest.raises(RuntimeError, match="all 1 slots of the pool are open"):
        pool.open(Opens())
    assert len(pool) == 1
    assert pool.step([0], X[:1]).shape == (1, OUTPUTS)

    class Closes:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
            pool.close(0)
            return X[:1]

    with pytest.raises(ValueError, match="not open"):
        pool.step([0], Closes())
    assert pool.open() == 0
