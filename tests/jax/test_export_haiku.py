# SPDX-License-Identifier: Apache-2.0
"""Params of Haiku: the networks made of them beside Haiku itself in float64."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_engine as ge
from gru_engine.export import haiku as export
from gru_engine.export.common import ExportError

I, B, T, V = 3, 2, 9, 11


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((B, T, I))


def transformed(function, x):
    """Random params of a model, and a function that runs it."""
    model = hk.without_apply_rng(hk.transform(function))
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(x))
    random = np.random.default_rng(2)
    params = jax.tree.map(lambda a: jnp.asarray(random.normal(0, 0.5, a.shape), jnp.float64), params)
    apply = jax.jit(model.apply)
    return params, lambda x: np.asarray(apply(params, jnp.asarray(x)))


def unrolled(core, x):
    y, _ = hk.dynamic_unroll(core, x, core.initial_state(len(x)), time_major=False)
    return y


def check(net, run, x):
    expected = run(x)
    np.testing.assert_allclose(ge.reference.run(net, x), expected, rtol=0, atol=1e-12)
    engine = ge.load(net.tobytes()).run(x.astype(np.float32) if x.dtype.kind == "f" else x)
    np.testing.assert_allclose(engine, expected, rtol=0, atol=3e-6 * max(1, np.abs(expected).max()))


def test_gru(x):
    params, run = transformed(lambda x: unrolled(hk.GRU(5), x), x)
    check(export.from_params(params), run, x)


def test_deep_rnn_and_linear(x):
    params, run = transformed(lambda x: hk.Linear(2)(unrolled(hk.DeepRNN([hk.GRU(5), hk.GRU(4)]), x)), x)
    check(export.from_params(params), run, x)


def test_deep_rnn_with_functions_between(x):
    """A DeepRNN may hold layers and functions that are no cores."""

    def model(x):
        core = hk.DeepRNN([hk.Linear(4), jax.nn.relu, hk.GRU(4), jnp.tanh, hk.GRU(4)])
        return unrolled(core, x)

    params, run = transformed(model, x)
    check(export.from_params(params, "linear(linear) relu gru(gru) tanh gru(gru_1)"), run, x)
    with pytest.raises(ExportError, match="fit into more than one chain"):
        export.from_params(params)


def test_skip_connections(x):
    def model(x):
        core = hk.deep_rnn_with_skip_connections([hk.GRU(5), hk.GRU(4), hk.GRU(2)])
        return unrolled(core, x)

    params, run = transformed(model, x)
    check(export.from_params(params, skip_connections=True), run, x)
    params, run = transformed(lambda x: hk.Linear(3)(model(x)), x)
    check(export.from_params(params, "linear(linear)", skip_connections=True), run, x)


def test_tokens():
    tokens = np.random.default_rng(3).integers(V, size=(B, T))
    model = lambda x: hk.Linear(V)(unrolled(hk.GRU(5), hk.Embed(V, 4)(x)))  # noqa: E731
    params, run = transformed(model, tokens)
    check(export.from_params(params), run, tokens)


def test_lstm(x):
    params, _ = transformed(lambda x: unrolled(hk.LSTM(5), x), x)
    with pytest.raises(
        ExportError, match=r"gru\(lstm\): there is no GRU 'lstm'; the arrays are lstm.linear.b, lstm.linear.w"
    ):
        export.from_params(params, "gru(lstm)")
