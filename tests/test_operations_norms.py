# SPDX-License-Identifier: Apache-2.0
"""Normalisation and values per sequence: what they compute, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import Network
from gru_engine.layers import Norm
from gru_engine.numerics import fma32

from .helpers import Array, uniform
from .test_operations import ONE, check_bits, exp32, network

# ---- normalisation


def tree_sum(rows: Array) -> Array:
    """The sums of rows in 16 partial sums and a tree; a function of each row is summed as it comes."""
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 16)))
    partial = np.zeros((len(rows), 16), np.float32)
    for i in range(0, padded.shape[1], 16):
        partial = partial + padded[:, i : i + 16]
    return tree(partial)


def tree(partial: Array) -> Array:
    while partial.shape[1] > 1:
        half = partial.shape[1] // 2
        partial = partial[:, :half] + partial[:, half:]
    return partial


def norm32(x: Array, scale: Array, shift: Array, epsilon: float, rms: bool) -> Array:
    """Normalisation as docs/NUMERICS.md has it."""
    n = np.float32(x.shape[1])
    d = x if rms else x - tree_sum(x) / n
    partial = np.zeros((len(x), 16), np.float32)
    padded = np.pad(d, ((0, 0), (0, -d.shape[1] % 16)))
    for i in range(0, padded.shape[1], 16):
        partial = fma32(padded[:, i : i + 16], padded[:, i : i + 16], partial)
    v = tree(partial) / n + np.float32(epsilon)
    with np.errstate(divide="ignore", invalid="ignore"):
        return fma32(d * (ONE / np.sqrt(v)), scale, shift)


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 33, 48, 100, 257])
def test_norms(rms: bool, width: int) -> None:
    """Promise: the equations, to the bit; against float64, as far as the input allows."""
    rng = np.random.default_rng(width)
    x = uniform(rng, 2, 9, width)
    x[3], x[4] = 0, 7
    scale, shift = uniform(rng, 1, width), uniform(rng, 1, width)
    epsilon = 1e-3
    if rms:
        shift[:] = 0
        net = network(width, lambda net, v: net.rms_norm(v, scale, epsilon))
        exact = x / np.sqrt((x.astype(float) ** 2).mean(axis=1, keepdims=True) + epsilon) * scale
    else:
        net = network(width, lambda net, v: net.layer_norm(v, scale, shift, epsilon))
        wide = x.astype(float)
        centred = wide - wide.mean(axis=1, keepdims=True)
        exact = centred / np.sqrt(wide.var(axis=1, keepdims=True) + epsilon) * scale + shift
    check_bits(net, x, norm32(x, scale, shift, epsilon, rms), f"norm of {width}")
    np.testing.assert_allclose(ge.reference.run(net, x), exact, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ge.load(net.tobytes()).run(x), exact, rtol=0, atol=3e-5)


@pytest.mark.parametrize(("width", "parts"), [(6, 2), (34, 2), (48, 3), (20, 20), (99, 9)])
def test_norms_of_parts(width: int, parts: int) -> None:
    """Promise: each part has its own mean and variance."""
    rng = np.random.default_rng(width)
    x, scale, shift = uniform(rng, 2, 5, width), uniform(rng, 1, width), uniform(rng, 1, width)
    for rms in (False, True):
        net = network(
            width,
            lambda net, v, rms=rms: (
                net.rms_norm(v, scale, 0.01, parts) if rms else net.layer_norm(v, scale, shift, 0.01, parts)
            ),
        )
        columns = [slice(i, i + width // parts) for i in range(0, width, width // parts)]
        wanted = [norm32(x[:, c], scale[c], 0 * shift[c] if rms else shift[c], 0.01, rms) for c in columns]
        check_bits(net, x, np.concatenate(wanted, axis=1), f"{parts} parts")
        np.testing.assert_allclose(ge.reference.run(net, x), np.concatenate(wanted, axis=1), rtol=0, atol=3e-5)


def test_a_norm_without_epsilon() -> None:
    """Promise: where there is no variance and no epsilon, the result is NaN: in the engine as in the reference."""
    x = np.ones((1, 4), np.float32)
    net = network(4, lambda net, v: net.layer_norm(v, epsilon=0))
    assert np.isnan(ge.load(net.tobytes()).run(x)).all() and np.isnan(ge.reference.run(net, x)).all()
    given = net.layers[1]
    assert isinstance(given, Norm) and (given.scale == 1).all() and not given.shift.any()


# ---- values per sequence


def test_means_and_maxima() -> None:
    """Promise: over the valid steps of each sequence, added in order; NaN stays."""
    rng = np.random.default_rng(0)
    x, lengths = uniform(rng, 3, 3, 200, 19), np.array([200, 70, 1])
    net = Network()
    v = net.input(19)
    net.output(net.mean(v), "mean")
    net.output(net.max(v), "max")
    assert not net.causal and net.per_sequence and net.state_size == 0
    wanted = []
    for rows, length in zip(x, lengths):
        total = rows[0]
        for row in rows[1:length]:
            total = total + row
        wanted.append(np.concatenate([total / np.float32(length), rows[:length].max(axis=0)]))
    check_bits(net, x, np.array(wanted), "mean and max", lengths=lengths)
    np.testing.assert_allclose(ge.reference.run(net, x, lengths=lengths), wanted, rtol=0, atol=2e-6)
    x[0, 5, 3] = np.nan
    y = ge.load(net.tobytes()).run(x[0])
    assert list(np.flatnonzero(np.isnan(y))) == [3, 22] == list(np.flatnonzero(np.isnan(ge.reference.run(net, x[0]))))


def softmax32(scores: Array) -> Array:
    """Softmax of a vector, docs/NUMERICS.md, section 4."""
    e = exp32(scores - scores.max())
    return np.asarray(e / tree_sum(e[np.newaxis])[0])


@pytest.mark.parametrize(("heads", "width"), [(1, 1), (1, 20), (4, 20), (20, 20), (3, 51)])
def test_attention(heads: int, width: int) -> None:
    """Promise: the softmax of the scores over the steps, then the weighted values in order."""
    rng = np.random.default_rng(heads)
    x, lengths = uniform(rng, 3, 3, 150, heads + width), np.array([150, 17, 1])
    net = network(heads + width, lambda net, v: net.attend(v[:heads], v[heads:]))
    wanted, exact = [], []
    for rows, length in zip(x, lengths):
        weights = np.stack([softmax32(rows[:length, s]) for s in range(heads)], axis=1)
        spread, values = np.repeat(weights, width // heads, axis=1), rows[:length, heads:]
        total = np.zeros(width, np.float32)
        for weight, value in zip(spread, values):
            total = fma32(weight, value, total)
        wanted.append(total)
        scores = rows[:length, :heads].astype(float)
        e = np.exp(scores - scores.max(axis=0))
        exact.append((np.repeat(e / e.sum(axis=0), width // heads, axis=1) * values).sum(axis=0))
    check_bits(net, x, np.array(wanted), f"attention, {heads} heads", lengths=lengths)
    np.testing.assert_allclose(ge.reference.run(net, x, lengths=lengths), exact, rtol=0, atol=1e-12)
    np.testing.assert_allclose(wanted, exact, rtol=0, atol=3e-6)


def test_values_per_sequence_need_a_step() -> None:
    net = network(2, lambda net, v: net.mean(v))
    with pytest.raises(ValueError, match=r"values per sequence \(last, first, mean ...\); an empty sequence has none"):
        ge.reference.run(net, np.zeros((1, 3, 2)), lengths=[0])
    with pytest.raises(ValueError, match="lengths"):
        ge.load(net.tobytes()).run(np.zeros((1, 3, 2)), lengths=[0])
    with pytest.raises(ValueError, match="needs later steps"):
        ge.reference.step(net, np.zeros(2))
