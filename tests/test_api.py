# SPDX-License-Identifier: Apache-2.0
"""The Python interface: what it takes, what it refuses and how it says it, what it leaves alone."""

from __future__ import annotations

import array
import enum
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gru_engine as ge

from .helpers import Array, assert_bits, gru_arrays, gru_network, token_network, uniform

WIDTH, HIDDEN, VOCABULARY = 5, 9, 11
OUTPUTS = 5 + HIDDEN
VECTORS = ge.load(gru_network(np.random.default_rng(0), HIDDEN, WIDTH).tobytes())
TOKENS = ge.load(token_network(np.random.default_rng(0), VOCABULARY, HIDDEN).tobytes())
X = uniform(np.random.default_rng(1), 1, 7, WIDTH)
T = np.random.default_rng(2).integers(0, VOCABULARY, 7)


def reverse_network() -> ge.Network:
    net = ge.Network()
    net.output(net.gru(net.input(WIDTH), direction="reverse", **gru_arrays(np.random.default_rng(0), HIDDEN, WIDTH)))
    return net


def last_network() -> ge.Network:
    net = ge.Network()
    net.output(net.last(net.gru(net.input(WIDTH), **gru_arrays(np.random.default_rng(0), HIDDEN, WIDTH))))
    return net


# ---- names


def test_public_names() -> None:
    """Promise: exactly the names of DESIGN.md 6 (and the exception and the version that go with them)."""
    names = "load Model Stream Pool Network reference cpu_info set_isa FormatError __version__".split()
    names += ["beam_search", "Hypothesis", "TokenInput", "cells"]
    assert sorted(ge.__all__) == sorted(names)
    assert all(hasattr(ge, name) for name in names)
    public = {
        ge.Model: "causal context_size contexts digest input_size inputs least_steps metadata nbytes output_size output_steps "
        "outputs path per_sequence pool run state_size stream summary vocab_size",
        ge.Stream: "context copy generate model prepare reset run set_context state state_bytes step",
        ge.Pool: "capacity close get_context get_state model open prepare reset set_context set_state state_bytes step",
    }
    for kind, wanted in public.items():
        assert [name for name in dir(kind) if not name.startswith("_")] == sorted(wanted.split())
        for name in wanted.split():
            if callable(getattr(kind, name)):
                assert getattr(kind, name).__doc__, f"{kind.__name__}.{name} has no docstring"


def test_model_attributes() -> None:
    """Promise: a model tells its sizes, its outputs and where it came from, and repr() is one line."""
    assert (VECTORS.input_size, VECTORS.vocab_size, VECTORS.output_size) == (WIDTH, None, OUTPUTS)
    assert (TOKENS.input_size, TOKENS.vocab_size, TOKENS.output_size) == (None, VOCABULARY, VOCABULARY)
    assert VECTORS.outputs == {"y": slice(0, 5), "h": slice(5, OUTPUTS)}
    assert (VECTORS.state_size, VECTORS.causal, VECTORS.per_sequence, VECTORS.path) == (HIDDEN, True, False, None)
    assert (VECTORS.metadata, len(VECTORS.digest)) == ({}, 64)
    assert not ge.load(reverse_network().tobytes()).causal
    assert ge.load(last_network().tobytes()).per_sequence
    for thing in (VECTORS, TOKENS, VECTORS.stream(), VECTORS.pool(3)):
        assert "\n" not in repr(thing)
        assert "gru_engine." in repr(thing)
    assert "gru" in VECTORS.summary()
    assert len(VECTORS.summary().splitlines()) > 4
    for kind in (ge.Model, ge.Stream, ge.Pool):
        with pytest.raises(TypeError):
            kind()
    with pytest.raises(AttributeError):
        VECTORS.output_size = 3


def test_cpu_info_and_set_isa() -> None:
    """Promise: built, usable and used kernels are told; forcing one that cannot run is an error that says which can."""
    info = ge.cpu_info()
    assert set(info) == {"built", "usable", "used", "threads", "version"}
    assert "generic" in info["usable"]
    assert set(info["usable"]) <= set(info["built"])
    assert info["version"] == ge.__version__
    for name in ("sse9", "", "AVX2", "avx2 ", "größer"):
        with pytest.raises(ValueError, match=r"name is .*unknown; usable are 'generic'"):
            ge.set_isa(name)
    for wrong in (3, b"avx2", ["avx2"]):
        with pytest.raises(TypeError, match="name must be a string or None"):
            ge.set_isa(wrong)
    assert ge.cpu_info()["used"] == info["used"]
    ge.set_isa(None)
    assert ge.cpu_info()["used"] == info["usable"][-1]
    ge.set_isa(info["used"])


# ---- inputs


class Subclass(np.ndarray):
    pass


def unaligned(a: Array) -> Array:
    """The same values at an address that is no multiple of 4."""
    buffer = np.zeros(a.nbytes + 1, np.uint8)[1:]
    view = buffer.view(a.dtype).reshape(a.shape)
    view[...] = a
    assert not view.flags.aligned
    return view


def read_only(a: Array) -> Array:
    a = a.copy()
    a.setflags(write=False)
    return a


VECTOR_FORMS: dict[str, Callable[[Array], Any]] = {
    "float32": lambda a: a,
    "list": lambda a: a.tolist(),
    "tuple": lambda a: tuple(map(tuple, a.tolist())) if a.ndim == 2 else tuple(a.tolist()),
    "float64": lambda a: a.astype(np.float64),
    "float16 and back": lambda a: a.astype(np.float64).astype(">f8"),
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: a[..., ::-1].copy()[..., ::-1],
    "Fortran order": np.asfortranarray,
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape))[1],
    "read-only": read_only,
    "byte-swapped": lambda a: a.astype(">f4"),
    "unaligned": unaligned,
    "subclass": lambda a: a.view(Subclass),
    "memoryview": memoryview,
    "long double": lambda a: a.astype(np.longdouble),
    "list of arrays": list,
}


@pytest.mark.parametrize("form", VECTOR_FORMS)
def test_vectors_of_every_kind(form: str) -> None:
    """Promise: whatever holds real numbers of the right shape is taken and gives the bits of its float32 values."""
    convert = VECTOR_FORMS[form]
    wanted = VECTORS.run(X)
    assert_bits(VECTORS.run(convert(X)), wanted, f"Model.run of {form}")
    assert_bits(VECTORS.run(np.stack([X, X]))[1], wanted, "batch")
    stream, pool = VECTORS.stream(), VECTORS.pool(2)
    slot = pool.open()
    assert_bits(np.array([stream.step(convert(x)) for x in X]), wanted, f"Stream.step of {form}")
    stream.reset()
    assert_bits(stream.run(convert(X)), wanted, f"Stream.run of {form}")
    got = np.array([pool.step([slot], convert(x[np.newaxis]))[0] for x in X])
    assert_bits(got, wanted, f"Pool.step of {form}")


def test_vectors_of_integers_and_other_buffers() -> None:
    """Promise: integers, booleans, float16 and array.array are numbers too."""
    whole = np.arange(WIDTH)
    wanted = VECTORS.stream().step(whole.astype(np.float32))
    forms = (whole, whole.tolist(), whole.astype(np.uint8), whole.astype(np.float16), array.array("d", whole.tolist()))
    for x in (*forms, array.array("f", whole.tolist()), memoryview(array.array("i", whole.tolist())), range(WIDTH)):
        assert_bits(VECTORS.stream().step(x), wanted, repr(x))
    assert_bits(VECTORS.stream().step(whole > 2), VECTORS.stream().step((whole > 2).astype(np.float32)), "booleans")
    one = ge.load(gru_network(np.random.default_rng(0), 3, 1).tobytes())
    assert one.stream().step([1.5]).shape == (8,)


class Color(enum.IntEnum):
    RED = 3


TOKEN_FORMS: dict[str, Callable[[int], Any]] = {
    "int": int,
    "int64": np.int64,
    "int32": np.int32,
    "uint8": np.uint8,
    "int8": np.int8,
    "0-d array": np.array,
    "0-d byte-swapped": lambda t: np.array(t, ">i4"),
    "IntEnum": lambda t: Color.RED if t == 3 else t,
}


@pytest.mark.parametrize("form", TOKEN_FORMS)
def test_tokens_of_every_kind(form: str) -> None:
    """Promise: any integer type is a token."""
    wanted = TOKENS.run(T)
    stream = TOKENS.stream()
    assert_bits(np.array([stream.step(TOKEN_FORMS[form](int(t))) for t in T]), wanted, f"Stream.step of {form}")


@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "<u2", "i4", ">i4", "u4", "i8", "u8", "longlong"])
def test_token_arrays_of_every_kind(dtype: str) -> None:
    """Promise: token arrays of any integer type, order and stride give the same."""
    wanted = TOKENS.run(T.astype(np.int32))
    tokens = T.astype(dtype)
    for x in (tokens, np.repeat(tokens, 2)[::2], tokens.tolist(), tuple(tokens.tolist()), read_only(tokens)):
        assert_bits(TOKENS.run(x), wanted, f"run of {dtype}")
        assert_bits(TOKENS.stream().run(x), wanted, f"Stream.run of {dtype}")
        assert_bits(TOKENS.run([x, x])[1], wanted, f"batch of {dtype}")
    pool = TOKENS.pool(2)
    slots = np.array([pool.open(), pool.open()], "i2")
    for t, y in zip(tokens, wanted):
        assert_bits(pool.step(slots, np.array([t, t])), np.array([y, y]), f"pool of {dtype}")


def test_nothing_given_is_changed() -> None:
    """Promise: inputs are never written to, whatever is done with them."""
    x, lengths, begins, state = X.copy(), np.array([3]), np.zeros((1, 7), bool), np.zeros(HIDDEN, np.float32)
    kept = [a.copy() for a in (x, lengths, begins, state)]
    VECTORS.run(x[np.newaxis], lengths=lengths, reset=begins, state=state, padding="carry")
    VECTORS.stream(state).run(x)
    for a, b in zip((x, lengths, begins, state), kept):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: VECTORS.run(np.zeros((3, 4))), ValueError, r"x must have the shape .*5.*got \(3, 4\)"),
        (lambda: VECTORS.run(np.zeros(5)), ValueError, r"x must have the shape .*got \(5,\)"),
        (lambda: VECTORS.run(np.zeros((1, 1, 1, 5))), ValueError, r"x must have the shape .*got \(1, 1, 1, 5\)"),
        (lambda: VECTORS.run(3.0), ValueError, r"x must have the shape .*got \(\)"),
        (lambda: VECTORS.run(None), TypeError, "x must be an array of real numbers, got None"),
        (lambda: VECTORS.run("abc"), TypeError, "x must be an array of real numbers, got 'abc'"),
        (lambda: VECTORS.run(np.zeros((3, 5), complex)), TypeError, "x must be an array of real numbers.*complex128"),
        (lambda: VECTORS.run(np.zeros((3, 5), "M8[s]")), TypeError, "x must be an array of real numbers.*datetime64"),
        (lambda: VECTORS.run([[None] * 5]), TypeError, "x must be an array of real numbers.*object"),
        (lambda: VECTORS.stream().step(np.zeros(4, "f")), ValueError, r"x must have the shape .*5.*got \(4,\)"),
        (lambda: VECTORS.stream().step(np.zeros((1, 5), "f")), ValueError, r"x must have the shape .*got \(1, 5\)"),
        (lambda: VECTORS.stream().step(3), ValueError, r"x must have the shape .*got \(\)"),
        (lambda: VECTORS.stream().run(np.zeros(5, "f")), ValueError, r"x must have the shape .*got \(5,\)"),
        (lambda: VECTORS.run(X, lengths=[3]), None, ""),
        (lambda: VECTORS.run(X, lengths=8), ValueError, "lengths must be from 0 to 7, got 8"),
        (lambda: VECTORS.run(X, lengths=-1), ValueError, "lengths must be from 0 to 7, got -1"),
        (lambda: VECTORS.run(X, lengths=[1, 2]), ValueError, r"lengths must have the shape \(1,\), got \(2,\)"),
        (lambda: VECTORS.run(X, lengths=2.0), TypeError, "lengths must be integers"),
        (lambda: VECTORS.run(X, lengths=2**64), TypeError, "lengths must be integers"),
        (lambda: VECTORS.run(X, reset=[True]), ValueError, r"reset must have the shape \(7,\), got \(1,\)"),
        (lambda: VECTORS.run(X, reset=[0.5] * 7), TypeError, "reset must be booleans"),
        (lambda: VECTORS.run(X, reset=[2] * 7), TypeError, "reset must be booleans"),
        (lambda: VECTORS.run(X, state=np.zeros(8)), ValueError, r"state must have the shape \(9,\), got \(8,\)"),
        (lambda: VECTORS.run([X], state=np.zeros((2, 9))), ValueError, r"state must have the shape .*got \(2, 9\)"),
        (lambda: VECTORS.run(X, state="x" * 9), TypeError, "state must be an array of real numbers"),
        (lambda: VECTORS.run(X, padding="none"), ValueError, "padding must be 'zero' or 'carry', got 'none'"),
        (lambda: VECTORS.run(X, threads=0), ValueError, "threads must be from 1 to 1024, got 0"),
        (lambda: VECTORS.run(X, threads=1.0), TypeError, "threads must be an integer, got 1.0"),
        (lambda: VECTORS.run(X, threads=True), TypeError, "threads must be an integer, got True"),
        (lambda: VECTORS.stream(threads=-1), ValueError, "threads must be from 1 to 1024, got -1"),
        (lambda: VECTORS.stream(np.zeros(3)), ValueError, r"state must have the shape \(9,\), got \(3,\)"),
        (lambda: VECTORS.pool(0), ValueError, "capacity must be from 1 to"),
        (lambda: VECTORS.pool(2**31), ValueError, "capacity must be from 1 to"),
        (lambda: VECTORS.pool(2.0), TypeError, r"capacity must be an integer, got 2\.0"),
        (lambda: VECTORS.pool(True), TypeError, "capacity must be an integer, got True"),
        (lambda: ge.load(reverse_network().tobytes()).stream(), ValueError, "reverse.*Model.run"),
        (lambda: ge.load(reverse_network().tobytes()).pool(3), ValueError, "reverse.*Model.run"),
        (lambda: ge.load(last_network().tobytes()).run(X, lengths=0), ValueError, "lengths must be from 1 to 7.*got 0"),
        (lambda: ge.load(last_network().tobytes()).run(X[:0]), ValueError, r"x has no steps, its shape is \(0, 5\)"),
        (
            lambda: ge.load(last_network().tobytes()).stream().run(X[:0]),
            ValueError,
            r"x has no steps, its shape is \(0, 5\)",
        ),
    ],
)
def test_refusals_name_the_argument(call: Callable[[], Any], kind: type[Exception] | None, message: str) -> None:
    """Promise: an argument that does not fit is an error that names it, what came and what was expected."""
    if kind is None:
        call()
        return
    with pytest.raises(kind, match=message):
        call()


BAD_TOKENS: tuple[tuple[Any, type[Exception], str], ...] = (
    (-1, ValueError, "got -1"),
    (VOCABULARY, ValueError, f"x must be .* from 0 to {VOCABULARY - 1}, got {VOCABULARY}"),
    (2**31, ValueError, f"got {2**31}"),
    (2**32, ValueError, f"got {2**32}"),
    (2**40, ValueError, f"got {2**40}"),
    (2**63, ValueError, f"got {2**63}"),
    (-(2**63), ValueError, "got -"),
    (2**200, (ValueError, TypeError), "x must be"),
    (3.0, TypeError, "integer"),
    (np.float32(3), TypeError, "integer"),
    (math.nan, TypeError, "integer"),
    (True, TypeError, "integer"),
    (np.True_, TypeError, "integer"),
    (None, TypeError, "integer"),
    ("3", TypeError, "integer"),
    (b"3", TypeError, "integer"),
    (3 + 0j, TypeError, "integer"),
)


@pytest.mark.parametrize(("token", "kind", "message"), BAD_TOKENS, ids=[repr(token) for token, _, _ in BAD_TOKENS])
def test_bad_tokens(token: Any, kind: type[Exception], message: str) -> None:
    """Promise: a token out of range, or none at all, is an error and no state changes; nothing is read out of bounds."""
    stream, pool = TOKENS.stream(), TOKENS.pool(2)
    slots = [pool.open(), pool.open()]
    stream.run(T)
    pool.step(slots, [1, 2])
    before = stream.state, pool.get_state(0), pool.get_state(1)
    two: Any = (
        [1, token] if not isinstance(token, (bool, np.bool_)) else np.array([token, token])
    )  # [1, True] is integers
    for call in (
        lambda: stream.step(token),
        lambda: stream.run(two),
        lambda: pool.step(slots, two),
        lambda: TOKENS.run(two),
        lambda: TOKENS.run([[1, 2], two] if isinstance(two, list) else two[np.newaxis]),
        lambda: TOKENS.run(two, lengths=2),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        assert str(caught.value).startswith("x must be "), caught.value
    with pytest.raises(kind, match=message):
        stream.step(token)
    for a, b in zip(before, (stream.state, pool.get_state(0), pool.get_state(1))):
        assert_bits(b, a, f"state after the token {token!r}")


def test_token_shapes_and_padding() -> None:
    """Promise: wrong shapes are named; tokens in the padding may be anything, also out of range."""
    for wrong in (np.zeros((1, 1, 1), int), np.array(3)):
        with pytest.raises(ValueError, match="x must have the shape"):
            TOKENS.run(wrong)
    for wrong in (np.zeros(1, int), np.zeros((2, 2), int)):
        with pytest.raises(ValueError, match="x must have the shape"):
            TOKENS.stream().step(wrong)
    padded = np.array([[1, 2, -7, 10**9], [3, 4, 5, 6]])
    y = TOKENS.run(padded, lengths=[2, 4])
    assert_bits(y[0, :2], TOKENS.run([1, 2]), "before the padding")
    assert not y[0, 2:].any()
    assert_bits(TOKENS.run(padded[0], lengths=2)[:2], TOKENS.run([1, 2]), "one sequence")
    with pytest.raises(ValueError, match="x must be tokens from 0 to 10, got -7"):
        TOKENS.run(padded, lengths=[3, 4])
    assert TOKENS.run([]).shape == (0, VOCABULARY)
    assert TOKENS.run(np.zeros((0, 3), int)).shape == (0, 3, VOCABULARY)


def test_empty_sequences_and_batches() -> None:
    """Promise: no steps and no sequences are fine where outputs are per step."""
    assert VECTORS.run(np.zeros((0, WIDTH))).shape == (0, OUTPUTS)
    assert VECTORS.run(np.zeros((3, 0, WIDTH))).shape == (3, 0, OUTPUTS)
    y, state = VECTORS.run(np.zeros((0, 4, WIDTH)), return_state=True, threads=2)
    assert (y.shape, state.shape) == ((0, 4, OUTPUTS), (0, HIDDEN))
    y, state = VECTORS.run(np.zeros((2, 0, WIDTH)), state=np.ones((2, HIDDEN)), return_state=True)
    assert (state == 1).all()
    pool = VECTORS.pool(1)
    assert pool.step([], np.zeros((0, WIDTH))).shape == (0, OUTPUTS)
    assert TOKENS.pool(1).step([], []).shape == (0, VOCABULARY)
    assert VECTORS.stream().run(np.zeros((0, WIDTH), np.float32)).shape == (0, OUTPUTS)
    last = ge.load(last_network().tobytes())
    assert last.run(np.zeros((0, 0, WIDTH))).shape == (0, HIDDEN)


# ---- out=


@pytest.mark.parametrize(
    ("out", "kind", "message"),
    [
        (np.zeros(OUTPUTS), TypeError, "out must have dtype float32, got float64"),
        (np.zeros(OUTPUTS, ">f4"), TypeError, "out must have dtype float32, got >f4"),
        (np.zeros(OUTPUTS - 1, "f"), ValueError, rf"out must have the shape \({OUTPUTS},\), got \({OUTPUTS - 1},\)"),
        (np.zeros((2, OUTPUTS), "f"), ValueError, "out must have the shape"),
        (read_only(np.zeros(OUTPUTS, "f")), ValueError, "out is read-only"),
        ([0.0] * OUTPUTS, TypeError, "out must be a NumPy array, got list"),
        (memoryview(np.zeros(OUTPUTS, "f")), TypeError, "out must be a NumPy array, got memoryview"),
        (bytearray(4 * OUTPUTS), TypeError, "out must be a NumPy array, got bytearray"),
    ],
)
def test_out_is_refused_where_it_cannot_be_filled(out: Any, kind: type[Exception], message: str) -> None:
    """Promise: out is never converted, because the caller would not see it; the state does not change then."""
    stream, pool = VECTORS.stream(), VECTORS.pool(1)
    slot = pool.open()
    with pytest.raises(kind, match=message):
        stream.step(X[0], out=out)
    assert_bits(stream.state, VECTORS.stream().state, "state")
    with pytest.raises(kind, match="out "):
        pool.step([slot], X[:1], out=out[np.newaxis] if isinstance(out, np.ndarray) and out.ndim == 1 else out)
    assert_bits(pool.get_state(slot), VECTORS.stream().state, "pool's state")


def test_out_of_every_kind() -> None:
    """Promise: out is filled and returned, also strided, unaligned, a subclass, and overlapping the input."""
    wanted = VECTORS.stream().step(X[0])
    wide = np.zeros((OUTPUTS, 3), np.float32)
    for out in (
        np.zeros(OUTPUTS, np.float32),
        wide[:, 1],
        np.zeros(OUTPUTS, np.float32)[::-1],
        unaligned(np.zeros(OUTPUTS, np.float32)),
        np.zeros(OUTPUTS, np.float32).view(Subclass),
    ):
        assert VECTORS.stream().step(X[0], out=out) is out
        assert_bits(np.array(out), wanted, "Stream.step")
        pool = VECTORS.pool(1)
        out[...] = 0
        rows = out[np.newaxis]
        assert pool.step([pool.open()], X[:1], out=rows) is rows
        assert_bits(np.array(rows[0]), wanted, "Pool.step")
    assert not wide[:, [0, 2]].any()


@pytest.mark.parametrize("shift", range(-4, 5))
def test_out_overlaps_the_input(shift: int) -> None:
    """Promise: where x and out share memory the result is that of separate arrays."""
    net = gru_network(np.random.default_rng(3), 3, 8)  # 8 in, 8 out
    model = ge.load(net.tobytes())
    memory = uniform(np.random.default_rng(4), 1, 4, 40)
    x, out = memory[0, 10:18], memory[0, 10 + shift : 18 + shift]
    wanted = model.stream().step(x.copy())
    assert_bits(model.stream().step(x, out=out), wanted, f"stream, shift {shift}")
    pool = model.pool(3)
    slots = [pool.open() for _ in range(3)]
    flat = memory.ravel()
    rows, out_rows = flat[16:40].reshape(3, 8), flat[16 + shift : 40 + shift].reshape(3, 8)
    wanted_rows = np.array([model.stream().step(row) for row in rows.copy()])
    assert_bits(pool.step(slots, rows, out=out_rows), wanted_rows, f"pool, shift {shift}")


def test_results_are_new_arrays() -> None:
    """Promise: without out every result is an array of its own, C-contiguous and writable."""
    stream = VECTORS.stream()
    a, b = stream.step(X[0]), stream.step(X[0])
    assert not np.shares_memory(a, b)
    for y in (a, VECTORS.run(X), stream.state, stream.run(X)):
        assert y.dtype == np.float32
        assert y.flags.carray
        assert y.flags.owndata
