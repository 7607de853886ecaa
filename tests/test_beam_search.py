# SPDX-License-Identifier: Apache-2.0
"""Beam search: against all sequences, against a search by hand, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gru_engine as ge

from .helpers import gru_arrays, uniform
from .token_models import constant_model, language_model, loaded


def every_sequence(model: ge.Model, n: int, stop: set[int]) -> list[tuple[float, tuple[int, ...]]]:
    """All sequences that end with a stop token or have n tokens, with their log-probabilities (of float64)."""
    found = []

    def go_on(stream: ge.Stream, last: int, tokens: tuple[int, ...], total: float) -> None:
        y = stream.step(last).astype(np.float64)
        y -= y.max()
        y -= np.log(np.exp(y).sum())
        for token, log_p in enumerate(y):
            if token in stop or len(tokens) + 1 == n:
                found.append((total + float(log_p), (*tokens, token)))
            else:
                go_on(stream.copy(), token, (*tokens, token), total + float(log_p))

    go_on(model.stream(), 0, (), 0.0)
    return found


@pytest.mark.parametrize("penalty", [0.0, 1.0, 0.6, -1.0])
@pytest.mark.parametrize("activation", ["linear", "log_softmax"])
def test_a_beam_wide_enough_finds_the_best_of_all(penalty: float, activation: str, tmp_path: Path) -> None:
    """Promise: with room for everything the search is exhaustive, and its ranking that of log-probability / length^penalty."""
    model = language_model(tmp_path, 4, activation)
    n, stop = 5, {2}
    sequences = every_sequence(model, n, stop)
    finished = sorted(((s / len(t) ** penalty, t) for s, t in sequences if t[-1] in stop), reverse=True)
    cut_off = sorted(((s / len(t) ** penalty, t) for s, t in sequences if t[-1] not in stop), reverse=True)
    wanted = [(s, t, True) for s, t in finished] + [(s, t, False) for s, t in cut_off]
    for n_best in (1, 3, 30, 10**5):
        got = ge.beam_search(model, None, 4**n, first=0, n=n, stop=sorted(stop), length_penalty=penalty, n_best=n_best)
        assert [(tuple(h.tokens.tolist()), h.finished) for h in got] == [(t, f) for _, t, f in wanted[:n_best]]
        assert np.allclose([h.score for h in got], [s for s, _, _ in wanted[: len(got)]], rtol=1e-6)
        assert all(h.score == h.log_probability / len(h.tokens) ** penalty for h in got)


def test_a_beam_of_one_is_greedy(tmp_path: Path) -> None:
    for activation in ("linear", "log_softmax", "softmax"):
        model = language_model(tmp_path, 30, activation)
        (found,) = ge.beam_search(model, None, 1, first=[2, 3], n=40, stop=7)
        assert found.tokens.tolist() == model.stream().generate(40, [2, 3], temperature=0, stop=7).tolist()
        assert found.finished == (found.tokens[-1] == 7)


def beam_by_hand(model: ge.Model, width: int, n: int, stop: int) -> tuple[float, tuple[int, ...]]:
    """The best finished hypothesis, with a stream for each and Python's sort."""
    live: list[tuple[float, tuple[int, ...], ge.Stream]] = [(0.0, (), model.stream())]
    finished = []
    for _ in range(n):
        candidates = []
        for rank, (total, tokens, stream) in enumerate(live):
            y = stream.step(tokens[-1] if tokens else 0)
            candidates += [(-(total + float(p)), rank, token) for token, p in enumerate(y)]
        kept, live_before, live = sorted(candidates)[:width], live, []
        for minus, rank, token in kept:
            entry = (-minus, (*live_before[rank][1], token), live_before[rank][2].copy())
            (finished if token == stop else live).append(entry)
        if not live:
            break
    return max(finished, key=lambda h: h[0])[:2]


def test_beam_search_is_that_by_hand(tmp_path: Path) -> None:
    """Promise: the scores to the bit, though the search by hand never ends early."""
    for vocabulary in (5, 12, 40):
        model = language_model(tmp_path, vocabulary, sharpness=0.5)
        for width in (1, 2, 3, 8):
            for stop in range(0, vocabulary, 4):
                (found,) = ge.beam_search(model, None, width, first=0, n=60, stop=stop)
                if found.finished:
                    wanted = beam_by_hand(model, width, 60, stop)
                    assert (found.score, tuple(found.tokens.tolist())) == wanted, (vocabulary, width, stop)


def test_beam_search_takes_a_state_and_breaks_ties_by_order(tmp_path: Path) -> None:
    model = language_model(tmp_path)
    stream = model.stream()
    stream.run([1, 2, 3])
    a = ge.beam_search(model, None, 4, first=[1, 2, 3, 4], n=6, n_best=4)
    b = ge.beam_search(model, stream.state, 4, first=4, n=6, n_best=4, threads=2)
    c = ge.beam_search(model, stream.state_bytes(), 4, first=[4], n=6, n_best=4)
    for x, y, z in zip(a, b, c):
        assert x.tokens.tolist() == y.tokens.tolist() == z.tokens.tolist() and x.score == y.score == z.score
    assert ge.beam_search(model, None, 4, first=0, n=0) == []
    equal = constant_model(tmp_path, np.zeros(3))
    found = ge.beam_search(equal, None, 4, first=0, n=2, n_best=9)
    assert [h.tokens.tolist() for h in found] == [[0, 0], [0, 1], [0, 2], [1, 0]]
    assert all(h.log_probability == found[0].log_probability for h in found)
    assert found[0].log_probability == pytest.approx(-2 * math.log(3), abs=1e-14)
    sure = constant_model(tmp_path, [0, -300, -300], "softmax")
    assert [h.tokens.tolist() for h in ge.beam_search(sure, None, 4, first=0, n=3, n_best=9)] == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"width": 0}, ValueError, "width must be from 1 to"),
        ({"width": 1.5}, TypeError, "width must be an integer, got 1.5"),
        ({"n": -1}, ValueError, "n must be from 0"),
        ({"n_best": 0}, ValueError, "n_best must be from 1"),
        ({"length_penalty": math.nan}, ValueError, "length_penalty must be from -100 to 100, got nan"),
        ({"length_penalty": None}, TypeError, "length_penalty must be a real number"),
        ({"first": []}, ValueError, "first must be a token or a sequence"),
        ({"stop": [-1]}, ValueError, "stop must be tokens from 0 to 39"),
        ({"state": [1.0]}, ValueError, "state must have the shape"),
        ({"threads": 0}, ValueError, "threads must be from 1"),
    ],
)
def test_bad_arguments_of_beam_search(
    arguments: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        ge.beam_search(language_model(tmp_path), **{"state": None, "width": 2, "first": 0, "n": 3, **arguments})


def test_a_network_with_a_reverse_layer_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    net = ge.Network()
    h = net.gru(net.embedding(net.tokens(4), uniform(rng, 1, 4, 2)), **gru_arrays(rng, 3, 2), direction="reverse")
    net.output(net.dense(h, uniform(rng, 1, 4, 3)))
    with pytest.raises(ValueError, match="not causal"):
        ge.beam_search(loaded(net, tmp_path), None, 2, first=0, n=3)
