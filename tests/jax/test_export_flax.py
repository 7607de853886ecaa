# SPDX-License-Identifier: Apache-2.0
"""Flax modules, linen and nnx: the networks made of them beside Flax itself in float64."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_engine as ge
from gru_engine.activations import activation
from gru_engine.export import flax as export
from gru_engine.export.common import ExportError

I, H, B, T, V = 3, 5, 2, 9, 11
ACTIVATIONS = [
    ("relu", jax.nn.relu),
    ("elu:1.0", jax.nn.elu),
    ("leaky_relu:0.01", jax.nn.leaky_relu),
    ("leaky_relu:0.2", functools.partial(jax.nn.leaky_relu, negative_slope=0.2)),
    ("softplus", jax.nn.softplus),
    ("softsign", jax.nn.soft_sign),
    ("silu", jax.nn.silu),
    ("silu", jax.nn.swish),
    ("gelu_tanh", jax.nn.gelu),
    ("gelu_tanh", functools.partial(jax.nn.gelu, approximate=True)),
    ("gelu", functools.partial(jax.nn.gelu, approximate=False)),
    ("tanh", jnp.tanh),
    ("sigmoid", jax.nn.sigmoid),
    (f"hard_sigmoid:{1 / 6!r}:0.5", jax.nn.hard_sigmoid),
]

# The state of a cell has its param_dtype.
gru = functools.partial(nn.GRUCell, param_dtype=jnp.float64)
mgu = functools.partial(nn.MGUCell, param_dtype=jnp.float64)
nnx_linear, nnx_embed, nnx_batchnorm = (
    functools.partial(layer, param_dtype=jnp.float64) for layer in (nnx.Linear, nnx.Embed, nnx.BatchNorm)
)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((B, T, I))


def randomised(tree):
    """Arrays of normal numbers instead of the initial ones, most of which are zeros and ones; variances positive."""
    random = np.random.default_rng(2)

    def draw(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        values = random.normal(0, 0.5, leaf.shape)
        return jnp.asarray(np.abs(values) + 0.1 if "var" in jax.tree_util.keystr(path) else values, jnp.float64)

    return jax.tree_util.tree_map_with_path(draw, tree)


def linen(module, x):
    """The module's variables, and a function that runs it."""
    variables = randomised(jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(x)))
    apply = jax.jit(module.apply)
    return variables, lambda x: np.asarray(apply(variables, jnp.asarray(x)))


def check(built, run, x, tolerance=1e-12):
    expected = run(x)
    got = ge.reference.run(built.network, x)
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)
    engine = ge.load(built.network.tobytes()).run(x.astype(np.float32) if x.dtype.kind == "f" else x)
    np.testing.assert_allclose(engine, expected, rtol=0, atol=3e-6 * max(1, np.abs(expected).max()))


def check_linen(module, x, text=None):
    variables, run = linen(module, x)
    built, layers, own_run = export.describe(module, variables)
    assert text is None or layers == text
    check(built, run, x)
    np.testing.assert_allclose(own_run(x), run(x), rtol=0, atol=1e-12)
    assert export.from_params(variables, layers).same(built.network)
    return built


# ---- linen


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("reset_gate", [None, True, False])
def test_linen_cells(x, reverse, reset_gate):
    cell = gru(H) if reset_gate is None else mgu(H, reset_gate=reset_gate)
    built = check_linen(nn.RNN(cell, reverse=reverse, keep_order=True), x)
    assert built.network.layers[-1].reset == ("none" if reset_gate is False else "after")
    assert built.network.causal != reverse


@pytest.mark.parametrize(("name", "function"), ACTIVATIONS)
def test_activations(name, function):
    a = np.linspace(-4, 4, 101)
    assert export.activation_of(function) == name
    kind, *parameters = name.split(":")
    np.testing.assert_allclose(
        activation((kind, *map(float, parameters)))(a), function(jnp.asarray(a)), rtol=0, atol=1e-12
    )


def test_linen_activations(x):
    built = check_linen(nn.RNN(gru(H, activation_fn=ACTIVATIONS[3][1])), x)
    assert "activation=leaky_relu:0.2" in built.lines[1]
    check_linen(nn.RNN(mgu(H, gate_fn=jax.nn.hard_sigmoid, activation_fn=jax.nn.soft_sign)), x)


def test_linen_sequential(x):
    layers = [nn.Dense(4), nn.relu, nn.RNN(gru(H)), nn.BatchNorm(use_running_average=True, epsilon=1e-3)]
    layers += [nn.Dropout(0.3, deterministic=True), nn.RNN(mgu(4)), functools.partial(nn.elu, alpha=0.5)]
    layers += [nn.Sequential([nn.Dense(3, use_bias=False), nn.log_softmax])]
    text = (
        "linear(layers_0) relu gru(layers_2.cell) batchnorm(layers_3, eps=0.001) gru(layers_5.cell) elu(0.5) "
        "linear(layers_7.layers_0) log_softmax"
    )
    check_linen(nn.Sequential(layers), x, text)


def test_linen_prelu(x):
    check_linen(nn.Sequential([nn.Dense(4), nn.PReLU()]), x, "linear(layers_0) prelu(layers_1)")


def test_linen_bidirectional(x):
    module = nn.Sequential([nn.Bidirectional(nn.RNN(gru(H)), nn.RNN(gru(4))), nn.RNN(gru(3))])
    check_linen(module, x)


def test_linen_tokens():
    tokens = np.random.default_rng(3).integers(V, size=(B, T))
    check_linen(nn.Sequential([nn.Embed(V, 4), nn.RNN(gru(H)), nn.Dense(V)]), tokens)


def test_linen_time_major(x):
    reverse = nn.RNN(gru(4), time_major=True, reverse=True, keep_order=True)
    module = nn.Sequential([nn.RNN(gru(H), time_major=True), reverse])
    variables, run = linen(module, x.swapaxes(0, 1))
    built, _, own_run = export.describe(module, variables)
    expected = run(x.swapaxes(0, 1)).swapaxes(0, 1)
    np.testing.assert_allclose(ge.reference.run(built.network, x), expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(own_run(x), expected)
    mixed = nn.Sequential([nn.RNN(gru(H), time_major=True), nn.RNN(gru(4))])
    with pytest.raises(ExportError, match="has time_major=False, another one before it has not"):
        export.describe(mixed, linen(mixed, x)[0])


def test_linen_module_of_ones_own(x):
    """What __call__ does cannot be read from the parts; said in words it can be exported, and is compared."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.RNN(gru(H, name="cell"), name="rnn")(x)
            return nn.Dense(2, name="head")(jnp.tanh(y)[:, -1])

    module = Net()
    variables, run = linen(module, x)
    with pytest.raises(
        ExportError, match="Net '' is a class of its own; what it computes cannot be read from its parts"
    ):
        export.from_module(module, variables)
    name = "cell" if "cell" in variables["params"] else "rnn.cell"
    check(export.describe(module, variables, f"gru({name}) tanh last linear(head)")[0], run, x)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: nn.RNN(nn.LSTMCell(H)), "LSTMCell 'cell' is no GRU; only GRUCell and MGUCell"),
        (lambda: nn.RNN(gru(H), reverse=True), "in reversed order of time"),
        (lambda: nn.RNN(gru(H, activation_fn=jax.nn.glu)), "the function glu is no activation of the engine"),
        (lambda: nn.RNN(gru(H, activation_fn=lambda a: a)), "the function <lambda> is no activation"),
        (lambda: nn.RNN(gru(H, carry_init=nn.initializers.normal())), "has a carry_init that is not zeros"),
        (lambda: nn.Sequential([nn.Dense(3), nn.LayerNorm()]), "LayerNorm 'layers_1' is a class of its own"),
        (lambda: nn.Sequential([nn.Dense(3), jax.nn.glu]), "the function glu is no activation of the engine"),
        (lambda: nn.Sequential([nn.Dense(3), functools.partial(nn.softmax, axis=1)]), "softmax is no activation of the engine"),
        (lambda: nn.Sequential([nn.BatchNorm(use_running_average=False)]), "is not in eval mode"),
        (lambda: nn.Sequential([nn.BatchNorm(use_running_average=True, axis=1)]), "normalises axis 1"),
        (lambda: nn.Sequential([nn.RNN(gru(3), return_carry=True), nn.relu]), "returns its carry too"),
        (
            lambda: nn.Bidirectional(nn.RNN(gru(3)), nn.RNN(gru(3)), merge_fn=lambda a, b: a + b),
            "has a merge_fn of its own; only concatenation",
        ),
        (
            lambda: nn.Bidirectional(nn.RNN(gru(3)), nn.RNN(gru(3, activation_fn=nn.relu))),
            "its directions have different activations",
        ),
    ],
)  # fmt: skip
def test_linen_refusals(x, module, message):
    made = module()
    try:
        variables = randomised(jax.eval_shape(made.init, jax.random.key(0), jnp.asarray(x)))
    except Exception:  # a module whose layers do not fit together; the exporter must refuse it before
        variables = {"params": {}}
    with pytest.raises(ExportError, match=message):
        export.from_module(made, variables)


def test_wrong_arguments(x):
    with pytest.raises(TypeError, match=r"module must be a flax\.linen\.Module or a flax\.nnx\.Module, got int"):
        export.from_module(3)
    with pytest.raises(ExportError, match="a linen module has no arrays of its own; pass its variables"):
        export.from_module(nn.Dense(3))


def test_bfloat16(x):
    wide, _ = linen(nn.RNN(gru(H)), x)
    variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), wide)
    net = export.from_params(variables)
    wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), variables)
    expected = jax.jit(nn.RNN(gru(H)).apply)(wide, jnp.asarray(x))
    np.testing.assert_allclose(ge.reference.run(net, x), expected, rtol=0, atol=1e-12)


# ---- nnx


def nnx_randomised(module):
    state = nnx.state(module)
    nnx.update(module, randomised(state))
    module.eval()
    return module


def check_nnx(module, x, text=None):
    module = nnx_randomised(module)
    built, layers, run = export.describe(module)
    assert text is None or layers == text
    check(built, lambda x: np.asarray(module(jnp.asarray(x))), x)
    np.testing.assert_allclose(run(x), module(jnp.asarray(x)), rtol=0, atol=1e-12)
    assert export.from_params(nnx.to_pure_dict(nnx.state(module)), layers).same(built.network)
    return built


def nnx_gru(inputs, hidden, seed=0, **options):
    return nnx.GRUCell(inputs, hidden, rngs=nnx.Rngs(seed), param_dtype=jnp.float64, **options)


@pytest.mark.parametrize("reverse", [True, False])
def test_nnx_cell(x, reverse):
    module = nnx.RNN(nnx_gru(I, H, activation_fn=jax.nn.elu), reverse=reverse, keep_order=True)
    built = check_nnx(module, x)
    assert not built.network.layers[-1].b_h.any()


def test_nnx_sequential(x):
    rngs = nnx.Rngs(0)
    module = nnx.Sequential(
        nnx_linear(I, 4, rngs=rngs),
        nnx.relu,
        nnx.RNN(nnx_gru(4, H)),
        nnx_batchnorm(H, rngs=rngs, epsilon=1e-3),
        nnx.Dropout(0.5, rngs=rngs),
        nnx.Bidirectional(nnx.RNN(nnx_gru(H, 4, 1)), nnx.RNN(nnx_gru(H, 3, 2))),
        nnx.Sequential(nnx_linear(7, 2, use_bias=False, rngs=rngs), nnx.softmax),
    )
    text = (
        "linear(layers.0) relu gru(layers.2.cell) batchnorm(layers.3, eps=0.001) "
        "bidirectional(layers.5.forward_rnn.cell, layers.5.backward_rnn.cell) linear(layers.6.layers.0) softmax"
    )
    check_nnx(module, x, text)


def test_nnx_tokens():
    tokens = np.random.default_rng(3).integers(V, size=(B, T))
    rngs = nnx.Rngs(0)
    module = nnx.Sequential(nnx_embed(V, 4, rngs=rngs), nnx.RNN(nnx_gru(4, H)), nnx_linear(H, V, rngs=rngs))
    check_nnx(module, tokens)


def test_nnx_module_of_ones_own(x):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.rnn = nnx.RNN(nnx_gru(I, H))
            self.head = nnx_linear(H, 2, rngs=rngs)

        def __call__(self, x):
            return self.head(nnx.relu(self.rnn(x)))

    module = nnx_randomised(Net(nnx.Rngs(0)))
    with pytest.raises(ExportError, match="Net '' is a class of its own"):
        export.from_module(module)
    built, _, run = export.describe(module, layers="gru(rnn.cell) relu linear(head)")
    check(built, run, x)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda r: nnx.RNN(nnx.LSTMCell(I, H, rngs=r)), "LSTMCell 'cell' is no GRU"),
        (lambda r: nnx.Sequential(nnx_linear(I, 3, rngs=r), nnx.LayerNorm(3, rngs=r)), "LayerNorm 'layers.1' is a class of"),
        (lambda r: nnx.Sequential(nnx_gru(I, H)), "GRUCell 'layers.0' is a cell by itself: put it into an RNN"),
        (lambda r: nnx.RNN(nnx_gru(I, H), reverse=True), "in reversed order of time"),
    ],
)  # fmt: skip
def test_nnx_refusals(module, message):
    with pytest.raises(ExportError, match=message):
        export.from_module(module(nnx.Rngs(0)))
