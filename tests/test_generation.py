# SPDX-License-Identifier: Apache-2.0
"""Generating tokens: token for token what docs/GENERATION.md says, on every instruction set, in Python and in C."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine.generation import SCORES

from .documentation import ROOT, python_blocks
from .helpers import Array, assert_bits, each_isa, gru_arrays, token_network, uniform
from .token_models import constant_model, language_model, loaded

LIBRARY = ROOT / os.environ.get("OUT", "build/c") / "libgru_engine.so"


# ---------------------------------------------------------------------------------------------------- the specification


def specified_log(p: Array) -> Array:
    m, e = np.frexp(p)
    low = m < float.fromhex("0x1.6a09e667f3bcdp-1")
    f, e = np.where(low, 2 * m, m), e - low
    s = (f - 1) / (f + 1)
    u = s * s
    total = np.full_like(u, 1 / 13)
    for i in (11, 9, 7, 5, 3, 1):
        total = total * u + 1 / i
    return e * math.log(2) + (s + s) * total


def specified_weights(scores: Array, probabilities: bool, temperature: float) -> Array:
    s = scores.astype(np.float64)
    if probabilities:
        s = np.where(s > 0, specified_log(np.where(s > 0, s, 1)), -np.inf)
    x = np.maximum((s - s.max()) * min(1 / temperature, 2.0**1000), -40)
    k = np.rint(x * (1 / math.log(2)))
    r = x - k * math.log(2)
    p = np.full_like(r, 1 / math.factorial(10))
    for i in range(9, -1, -1):
        p = p * r + 1 / math.factorial(i)
    return np.rint(np.ldexp(p, k.astype(int) + 35)).astype(np.uint64)


def specified_token(
    scores: Array,
    random: int,
    probabilities: bool,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """One choice, with Python's integers."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    if temperature == 0:
        return order[0]
    weights = [int(w) for w in specified_weights(scores, probabilities, temperature)]
    if top_k is not None:
        for i in order[top_k:]:
            weights[i] = 0
    if top_p is not None and top_p < 1:
        total = sum(weights)
        needed = min(math.ceil(float(total) * top_p), total)
        for i in order:
            if needed <= 0:
                weights[i] = 0
            needed -= weights[i]
    rest = random * sum(weights) >> 64
    for i, weight in enumerate(weights):
        if rest < weight:
            return i
        rest -= weight
    raise AssertionError("random is below 2**64")


def randoms(seed: int, offset: int, n: int) -> list[int]:
    """NumPy's own generator."""
    return [int(r) for r in np.random.Philox(key=seed).random_raw(offset + n)[offset:]]


def choice(
    probabilities: bool,
    random: list[int],
    part: slice = slice(None),
    by: Callable[..., int] = specified_token,
    **options: Any,
) -> Callable[[Array, int], int]:
    """The i-th choice, by the i-th random number."""
    return lambda y, i: int(by(y[part], random[i], probabilities, **options))


def by_hand(
    stream: ge.Stream, n: int, prompt: list[int], stop: tuple[int, ...] = (), choose: Callable[..., int] | None = None
) -> list[int]:
    """The loop over stream.step that generate stands for; choose(scores, i) makes the i-th choice."""
    tokens: list[int] = []
    fed = [*prompt] if n else prompt[:-1]
    y = None
    for token in fed:
        y = stream.step(token)
    while len(tokens) < n:
        assert y is not None and choose is not None
        tokens.append(choose(y, len(tokens)))
        if tokens[-1] in stop or len(tokens) == n:
            break
        y = stream.step(tokens[-1])
    return tokens


# ---------------------------------------------------------------------------------------------------- the tokens


@pytest.mark.parametrize("activation", ["linear", "log_softmax", "softmax"])
def test_tokens_are_the_specified_ones(activation: str, tmp_path: Path) -> None:
    """Promise: token for token what docs/GENERATION.md says, whatever the arguments, on every instruction set."""
    for vocabulary in (2, 16, 37, 300):
        model = language_model(tmp_path, vocabulary, activation, sharpness=2)
        for options in (
            {},
            {"temperature": 0.7},
            {"temperature": 3},
            {"temperature": 0.01},
            {"temperature": 0.0},
            {"top_k": 1},
            {"top_k": 5},
            {"top_k": vocabulary},
            {"top_k": 10**30, "top_p": 1.0},
            {"top_p": 0.9},
            {"top_p": 0.3, "temperature": 2.5},
            {"top_p": 1e-9},
            {"top_k": 7, "top_p": 0.6, "temperature": 1.3},
        ):
            wanted = by_hand(
                model.stream(),
                30,
                [1, 0],
                choose=choice(activation == "softmax", randoms(99, 3, 30), **options),
            )
            for isa in each_isa():
                got = model.stream().generate(30, [1, 0], seed=99, offset=3, **options)
                assert got.dtype == np.int32
                assert got.tolist() == wanted, (isa, vocabulary, options)


def test_choice_of_the_documentation(tmp_path: Path) -> None:
    """Promise: the choice that docs/GENERATION.md writes down in NumPy is the one that is made."""
    names: dict[str, Any] = {}
    exec(python_blocks("docs/GENERATION.md")[-1], names)
    for activation in ("linear", "softmax"):
        model = language_model(tmp_path, 33, activation)
        for options in ({"top_p": 0.8}, {"temperature": 1.7, "top_k": 12}):
            by_docs = choice(activation == "softmax", randoms(1, 0, 40), by=names["choose"], **options)
            wanted = by_hand(model.stream(), 40, [5], choose=by_docs)
            assert model.stream().generate(40, 5, seed=1, **options).tolist() == wanted


def test_random_numbers_are_those_of_numpy(tmp_path: Path) -> None:
    """Promise: NumPy's Philox. Of 4096 equally probable tokens the upper 12 bits are the one chosen."""
    stream = constant_model(tmp_path, np.zeros(4096)).stream()
    for seed in (0, 1, 2**32, 2**63 + 5, 2**64 - 1):
        for offset in (0, 1, 3, 4, 1001):
            wanted = [r >> 52 for r in randoms(seed, offset, 50)]
            assert stream.generate(50, 0, seed=seed, offset=offset).tolist() == wanted


def test_committed_sequence(tmp_path: Path) -> None:
    """Promise: these tokens, for ever and everywhere: logits that need no arithmetic of the network's."""
    stream = constant_model(tmp_path, np.arange(12) / 4, columns=np.arange(12) % 5 / 8, scale=0.5).stream()
    assert stream.generate(24, 0, seed=2026).tolist() == SEQUENCE
    assert stream.generate(24, 0, seed=2026, temperature=0.5, top_k=6, top_p=0.9).tolist() == SHARP_SEQUENCE


SEQUENCE = [8, 8, 4, 11, 9, 9, 4, 8, 9, 8, 8, 4, 8, 1, 9, 9, 9, 10, 8, 10, 9, 9, 7, 9]
SHARP_SEQUENCE = [10, 9, 8, 11, 9, 9, 8, 9, 9, 9, 9, 8, 9, 8, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("activation", ["linear", "softmax"])
def test_frequencies_are_the_probabilities(temperature: float, activation: str, tmp_path: Path) -> None:
    """Promise: the distribution. Chi-square with 9 degrees of freedom; the temperature of another test would fail."""
    logits = np.log(np.array([0.3, 0.2, 0.15, 0.1, 0.08, 0.07, 0.05, 0.03, 0.015, 0.005]))
    stream = constant_model(tmp_path, logits, activation).stream()
    n = 100_000
    counts = np.bincount(stream.generate(n, 0, temperature=temperature, seed=1), minlength=10)

    def chi_square(t: float) -> float:
        p = np.exp(logits / t)
        expected = n * p / p.sum()
        return float(((counts - expected) ** 2 / expected).sum())

    assert chi_square(temperature) < 27.9  # exceeded once in 1000 seeds
    assert chi_square(temperature * 1.05) > 27.9


def test_top_k_and_top_p_with_equal_scores(tmp_path: Path) -> None:
    """Promise: of equal scores the smaller tokens stay; top_p takes the fewest that reach the share."""
    stream = constant_model(tmp_path, [0, 1, 0, 1, 1, 0, 1, -0.0]).stream()

    def drawn(**options: Any) -> list[int]:
        return sorted(set(stream.generate(500, 0, seed=3, **options).tolist()))

    assert drawn(top_k=1) == [1]
    assert drawn(top_k=3) == [1, 3, 4]
    assert drawn(top_k=4) == [1, 3, 4, 6]
    assert drawn(top_k=6) == [0, 1, 2, 3, 4, 6]
    equal = constant_model(tmp_path, np.zeros(8)).stream()
    for share, most in ((0.125, 1), (math.nextafter(0.125, 1), 2), (0.5, 4), (0.51, 5), (1.0, 8), (1e-300, 1)):
        tokens = equal.generate(500, 0, seed=3, top_p=share)
        assert sorted(set(tokens.tolist())) == list(range(most)), share
    assert set(equal.generate(500, 0, seed=3, top_k=4, top_p=0.5).tolist()) == {0, 1}


def test_greedy_is_the_largest_score_and_the_smallest_such_token(tmp_path: Path) -> None:
    """Promise: temperature 0 is argmax, as a loop in Python has it."""
    for activation in ("linear", "log_softmax", "softmax"):
        for vocabulary in (2, 15, 16, 17, 100):
            model = language_model(tmp_path, vocabulary, activation)
            wanted = by_hand(model.stream(), 60, [0], choose=lambda y, i: int(np.argmax(y)))
            assert model.stream().generate(60, 0, temperature=0).tolist() == wanted
    ties = constant_model(tmp_path, [-1, -0.0, 0, 0]).stream()
    assert ties.generate(2, 0, temperature=0).tolist() == [1, 1]


def test_extreme_temperatures(tmp_path: Path) -> None:
    """Promise: nothing overflows; no token of probability 0 ever comes, however hot it is."""
    stream = constant_model(tmp_path, [3, 1, 2, 3]).stream()
    for temperature in (5e-324, 1e-310, 1e-30):
        assert set(stream.generate(100, 0, temperature=temperature, seed=0).tolist()) == {0, 3}
    assert set(stream.generate(100, 0, temperature=1.7e308, seed=0).tolist()) == {0, 1, 2, 3}
    impossible = constant_model(tmp_path, [0, -3e38, 3e38], "log_softmax").stream()
    assert impossible.step(0)[1] == -np.inf
    assert 1 not in impossible.generate(200, 0, temperature=1.7e308, seed=0)
    never = constant_model(tmp_path, [0, -200, 0], "softmax").stream()
    assert never.step(0)[1] == 0
    assert set(never.generate(200, 0, temperature=1.7e308, seed=0).tolist()) == {0, 2}


# ---------------------------------------------------------------------------------------------------- the stream


def test_state_is_that_of_stepping_by_hand(tmp_path: Path) -> None:
    """Promise: all but the last token has been fed, prompts of any length, to the bit."""
    model = language_model(tmp_path)
    rng = np.random.default_rng(0)
    for n_prompt in (1, 2, 3, 31, 32, 33, 34, 64, 65, 100):
        for n in (0, 1, 2, 20):
            prompt = rng.integers(0, 40, n_prompt).tolist()
            stream, other = model.stream(), model.stream()
            if n_prompt % 2:
                stream.prepare()
            tokens = stream.generate(n, prompt, seed=5)
            assert len(tokens) == n
            for token in [*prompt, *tokens.tolist()][:-1]:
                other.step(token)
            assert_bits(stream.state, other.state, f"prompt of {n_prompt}, n = {n}")


def test_parts_make_the_whole(tmp_path: Path) -> None:
    """Promise: the last token and offset= carry a generation on, also across the slices of a long one."""
    model = language_model(tmp_path)
    stream = model.stream()
    whole = stream.generate(20_000, [1, 2, 3], seed=11, top_k=20)
    other, tokens = model.stream(), [1, 2, 3]
    for i, n in enumerate((0, 1, 0, 2, 997, 10_000, 9_000)):
        tokens += other.generate(n, tokens[-1] if i else tokens, seed=11, offset=len(tokens) - 3, top_k=20).tolist()
    assert tokens[3:] == whole.tolist()
    assert_bits(stream.state, other.state, "after 20,000 tokens")
    prompt = np.tile(whole, 3)
    stream, other = model.stream(), model.stream()
    other.run(prompt[:-1])
    assert np.array_equal(other.generate(3, prompt[-1], seed=0), stream.generate(3, prompt, seed=0))
    assert_bits(stream.state, other.state, "after a prompt of 60,000 tokens")


def test_stop(tmp_path: Path) -> None:
    """Promise: a stop token is the last one returned and has not been fed; one in the prompt does not count."""
    model = language_model(tmp_path)
    whole = model.stream().generate(200, 3, seed=2).tolist()
    cases: list[tuple[Any, set[int]]] = [(whole[i], {whole[i]}) for i in (0, 20, 50, 199)]
    cases += [({whole[50], whole[30]}, {whole[50], whole[30]}), (np.array([whole[9]]), {whole[9]})]
    cases += [([], set()), ((), set()), (set(), set()), (None, set())]
    for stop, stops in cases:
        end = next((i + 1 for i, t in enumerate(whole) if t in stops), 200)
        stream, other = model.stream(), model.stream()
        tokens = stream.generate(200, 3, seed=2, stop=stop)
        assert tokens.tolist() == whole[:end]
        assert tokens.flags.owndata and tokens.flags.writeable
        for token in [3, *whole[: end - 1]]:
            other.step(token)
        assert_bits(stream.state, other.state, f"stop={stop!r}")
    assert len(model.stream().generate(5, [3, whole[40]], seed=2, stop=whole[40])) >= 1


def test_seeds(tmp_path: Path) -> None:
    """Promise: a seed repeats itself, another differs, and without one each call does."""
    stream = constant_model(tmp_path, np.zeros(64)).stream()
    draws = [tuple(stream.generate(40, 0, seed=seed).tolist()) for seed in (0, 0, 1, 2**64 - 1, None, None)]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 5


def test_several_outputs(tmp_path: Path) -> None:
    """Promise: output= names the one that counts, scores= says what it holds."""
    rng = np.random.default_rng(1)
    net = ge.Network()
    h = net.gru(net.embedding(net.tokens(9), uniform(rng, 1, 9, 4)), **gru_arrays(rng, 9, 4))
    W = uniform(rng, 3, 9, 9)
    net.output(h, "h")
    net.output(net.dense(h, W), "logits")
    net.output(net.dense(h, W, activation="softmax"), "p")
    net.output(net.dense(h, uniform(rng, 1, 4, 9)), "other")
    net.output(net.dense(h, W, activation="sigmoid"), "each")
    model = loaded(net, tmp_path)
    options: dict[str, Any] = {"seed": 4, "temperature": 0.8}
    for name, scores, probabilities in (
        ("logits", None, False),
        ("p", None, True),
        ("p", "probabilities", True),
        ("p", "logits", False),
        ("h", "logits", False),
        ("h", "log_probabilities", False),
        ("each", "probabilities", True),
    ):
        part = model.outputs[name]
        wanted = by_hand(
            model.stream(), 25, [0], choose=choice(probabilities, randoms(4, 0, 25), part, temperature=0.8)
        )
        assert model.stream().generate(25, 0, output=name, scores=scores, **options).tolist() == wanted, (name, scores)
    for arguments, message in (
        ({}, "output must be the name of one of the model's outputs, 'h', 'logits'"),
        ({"output": "q"}, "output must be one of 'h', 'logits', .*, got 'q'"),
        ({"output": "other"}, "output 'other' has 4 values, not one for each of the model's 9 tokens"),
        ({"output": "h"}, "scores must be given, one of 'logits', .*: output 'h' comes neither"),
        ({"output": "each"}, "scores must be given"),
        ({"output": "p", "scores": "x"}, "scores must be one of 'logits', .*, got 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            model.stream().generate(3, 0, **arguments)
        with pytest.raises(ValueError, match=message):
            ge.beam_search(model, None, 2, first=0, n=3, **arguments)


def test_output_of_the_last_step(tmp_path: Path) -> None:
    """Promise: a network with one output per sequence generates like one with an output per step."""
    models = []
    for last in (False, True):
        rng = np.random.default_rng(8)
        net = ge.Network()
        h = net.gru(net.embedding(net.tokens(20), uniform(rng, 1, 20, 4)), **gru_arrays(rng, 10, 4))
        W = uniform(rng, 2, 20, 10)
        net.output(net.dense(net.last(h) if last else h, W, activation="softmax"))
        models.append(loaded(net, tmp_path, f"last{last}"))
    prompt = np.arange(70) % 20
    a, b = (model.stream().generate(50, prompt, seed=1) for model in models)
    assert np.array_equal(a, b)
    a, b = (ge.beam_search(model, None, 3, first=prompt, n=5)[0] for model in models)
    assert np.array_equal(a.tokens, b.tokens) and a.score == b.score


def test_threads_change_nothing(tmp_path: Path) -> None:
    """Promise: a stream with threads generates the same tokens."""
    rng = np.random.default_rng(3)
    model = loaded(token_network(rng, 50, 400), tmp_path)  # large enough for threads to share its panels
    prompt = rng.integers(0, 50, 50)
    one, two = model.stream(), model.stream(threads=2)
    assert np.array_equal(one.generate(60, prompt, seed=1), two.generate(60, prompt, seed=1))
    assert_bits(two.state, one.state, "two threads")


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": -1}, ValueError, "n must be from 0 to .*, got -1"),
        ({"n": 2.0}, TypeError, "n must be an integer, got 2.0"),
        ({"n": True}, TypeError, "n must be an integer, got True"),
        ({"first": []}, ValueError, "first must be a token or a sequence of at least one"),
        ({"first": 40}, ValueError, "first must be tokens from 0 to 39, got 40"),
        ({"first": [3, -1]}, ValueError, r"first must be tokens from 0 to 39, got -1 at \[1\]"),
        ({"first": 1.5}, TypeError, "first must be integer tokens"),
        ({"first": [[1]]}, ValueError, "first must have the shape"),
        ({"temperature": -0.1}, ValueError, "temperature must be finite and at least 0, got -0.1"),
        ({"temperature": math.nan}, ValueError, "temperature must be finite"),
        ({"temperature": math.inf}, ValueError, "temperature must be finite"),
        ({"temperature": "1"}, TypeError, "temperature must be a real number, got '1'"),
        ({"temperature": None}, TypeError, "temperature must be a real number"),
        ({"top_k": 0}, ValueError, "top_k must be at least 1 or None, got 0"),
        ({"top_k": 2.5}, TypeError, "top_k must be an integer or None, got 2.5"),
        ({"top_p": 0}, ValueError, "top_p must be above 0 and at most 1, or None, got 0"),
        ({"top_p": 1.01}, ValueError, "top_p must be above 0"),
        ({"top_p": math.nan}, ValueError, "top_p must be above 0"),
        ({"seed": -1}, ValueError, "seed must be from 0 to 18446744073709551615 or None, got -1"),
        ({"seed": 2**64}, ValueError, "seed must be from 0"),
        ({"seed": 1.0}, TypeError, "seed must be an integer or None"),
        ({"offset": -1}, ValueError, "offset must be from 0"),
        ({"offset": None}, TypeError, "offset must be an integer"),
        ({"stop": 40}, ValueError, "stop must be tokens from 0 to 39, got 40"),
        ({"stop": "a"}, TypeError, "stop must be integer tokens"),
        ({"output": 1}, TypeError, "output must be a string or None, got 1"),
        ({"scores": 1}, TypeError, "scores must be a string or None, got 1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    """Promise: the message names the argument; the state has not changed."""
    stream = language_model(tmp_path).stream()
    stream.step(7)
    state = stream.state
    with pytest.raises(error, match=message):
        stream.generate(**{"n": 3, "first": 0, **arguments})
    assert_bits(stream.state, state, "after an error")


def test_a_model_of_vectors_cannot_generate(tmp_path: Path) -> None:
    net = ge.Network()
    net.output(net.dense(net.input(3), np.eye(3), activation="softmax"))
    model = loaded(net, tmp_path)
    with pytest.raises(ValueError, match="only a model that reads one token per step"):
        model.stream().generate(3, 0)
    with pytest.raises(ValueError, match="only a model that reads one token per step"):
        ge.beam_search(model, None, 2, first=0, n=3)


def test_scores_that_are_no_distribution(tmp_path: Path) -> None:
    """Promise: FloatingPointError that says which output and when, and a state as before."""
    huge = {"columns": [0, 0, 3e38, 0], "scale": 2.0}  # token 0 is harmless, any other makes the third score infinite
    for activation, scores, at in (
        ("linear", None, 1),
        ("log_softmax", None, 1),
        ("linear", "probabilities", 0),
    ):
        model = constant_model(tmp_path, [-1, 5, -2, -9], activation, **huge)
        stream = model.stream()
        for temperature in (0, 1):
            with pytest.raises(FloatingPointError, match=f"output 'scores' is no distribution .* after {at} generated"):
                stream.generate(10, 0, temperature=temperature, top_k=1, scores=scores)
        with pytest.raises(FloatingPointError, match=f"after {at} generated"):
            ge.beam_search(model, None, 1, first=0, n=10, scores=scores)
    with pytest.raises(FloatingPointError):
        constant_model(tmp_path, [0, 0, 0], "linear").stream().generate(1, 0, scores="probabilities")

    rng = np.random.default_rng(0)
    net = ge.Network()
    t = net.tokens(4)
    h = net.gru(net.embedding(t, uniform(rng, 1, 4, 2)), **gru_arrays(rng, 5, 2))
    e = net.embedding(t, np.array([[0], [0], [0], [9]]))
    W = np.zeros((4, 6))
    W[2, 5] = 3e38
    net.output(net.dense([h, e], W, [0, 0, 0, 1]))
    stream = loaded(net, tmp_path).stream()
    stream.step(1)
    state = stream.state
    with pytest.raises(FloatingPointError, match="after 1 generated"):
        stream.generate(5, [0, 1, 2], temperature=0)
    assert_bits(stream.state, state, "after a FloatingPointError")


def test_a_second_thread_is_refused_and_signals_get_through(tmp_path: Path) -> None:
    """Promise: the GIL is released; Ctrl-C ends a generation without end and leaves the state as it was."""
    stream = language_model(tmp_path).stream()
    stream.step(1)
    state = stream.state
    refused = []

    def other() -> None:
        try:
            stream.step(0)
        except RuntimeError as error:
            refused.append(str(error))
        os.kill(os.getpid(), signal.SIGINT)

    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, other)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            stream.generate(10**9, 0, seed=0)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, old)
    assert len(refused) == 1 and "in use by another thread" in refused[0]
    assert_bits(stream.state, state, "after KeyboardInterrupt")
    assert len(stream.generate(3, 0)) == 3


# ---------------------------------------------------------------------------------------------------- C


class _Args(ctypes.Structure):
    _fields_ = (
        ("struct_nbytes", ctypes.c_size_t),
        ("first", ctypes.c_void_p),
        ("n_first", ctypes.c_size_t),
        ("tokens", ctypes.c_void_p),
        ("n_tokens", ctypes.c_size_t),
        ("output", ctypes.c_size_t),
        ("scores", ctypes.c_int),
        ("temperature", ctypes.c_double),
        ("top_k", ctypes.c_size_t),
        ("top_p", ctypes.c_double),
        ("seed", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("stop", ctypes.c_void_p),
        ("n_stop", ctypes.c_size_t),
        ("team", ctypes.c_void_p),
    )


@pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY} was not built; `make test` builds it")
def test_the_c_library_generates_the_same_tokens(tmp_path: Path) -> None:
    """Promise: C and Python choose the same tokens."""
    lib = ctypes.CDLL(str(LIBRARY))
    lib.gru_generate_workspace_nbytes.restype = ctypes.c_size_t
    for name in ("log_softmax", "softmax"):
        model = language_model(tmp_path, 40, name)
        handle = ctypes.c_void_p()
        assert lib.gru_open(os.fsencode(model.path or ""), None, ctypes.byref(handle), None) == 0
        nbytes = lib.gru_generate_workspace_nbytes(handle, 1)
        workspace, state = ctypes.create_string_buffer(nbytes), ctypes.create_string_buffer(1 << 16)
        first, tokens, stop = np.array([3, 1, 4], np.int32), np.zeros(50, np.int32), np.array([39], np.int32)
        for options in ({}, {"temperature": 0.0}, {"top_k": 9}, {"top_p": 0.7, "temperature": 1.5}):
            lib.gru_state_init(handle, state)
            args = _Args(
                ctypes.sizeof(_Args), first.ctypes.data, 3, tokens.ctypes.data, 50, 0, 0, 1.0, 0, 0.0, 2**63 + 9, 5
            )
            args.stop, args.n_stop = stop.ctypes.data, 1
            for field, value in options.items():
                setattr(args, field, value)
            n = ctypes.c_size_t()
            assert lib.gru_generate(handle, state, ctypes.byref(args), ctypes.byref(n), workspace, nbytes) == 0
            wanted = model.stream().generate(50, first, seed=2**63 + 9, offset=5, stop=39, **options)
            assert tokens[: n.value].tolist() == wanted.tolist(), (name, options)
        lib.gru_close(handle)


def test_names_of_scores_are_the_numbers_of_the_header() -> None:
    header = (ROOT / "src_c" / "gru_engine.h").read_text()
    for number, name in enumerate(SCORES, 1):
        assert f"GRU_SCORES_{name.upper()} = {number}" in header
