# SPDX-License-Identifier: Apache-2.0
"""Models of Keras 3 as networks: beside Keras itself and the float64 reference, live and from both kinds of file."""

import itertools
import warnings

import keras
import numpy as np
import pytest
from keras import layers as L
from keras_models import TOLERANCE, H, I, O, V, check, functional, sequential, shaken, tokens

import gru_engine as ge
from gru_engine.export import common
from gru_engine.export.common import ExportError
from gru_engine.export.keras import export, from_model, lengths
from gru_engine.export.keras_check import inputs, run_beside


@pytest.fixture(autouse=True)
def _fresh_names():
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)


# ---- the GRU: all options


@pytest.mark.jax_backend
@pytest.mark.parametrize(
    ("backwards", "sequences", "reset_after", "use_bias", "masked"), list(itertools.product([False, True], repeat=5))
)
def test_options(tmp_path, backwards, sequences, reset_after, use_bias, masked):
    gru = L.GRU(H, go_backwards=backwards, return_sequences=sequences, reset_after=reset_after, use_bias=use_bias)
    front = [L.Masking(-7.0)] if masked else []
    model = sequential(*front, gru)
    if backwards and sequences:
        with pytest.raises(ExportError, match=r"output 0 \(gru.*\) that the model returns is in reversed time order"):
            export(shaken(model))
        return
    exported = check(model, tmp_path)
    assert exported.network.per_sequence == (not sequences)
    assert exported.network.causal == (not backwards)
    assert exported.padding == (-7.0 if masked else None)


@pytest.mark.parametrize(("activation", "recurrent"), list(itertools.product(
    ["tanh", "relu", "linear", "softsign", None, "hard_sigmoid"], ["sigmoid", "hard_sigmoid"]
)))  # fmt: skip
def test_activations_of_the_gru(tmp_path, activation, recurrent):
    for reset_after in (False, True):
        model = sequential(
            L.GRU(
                H, activation=activation, recurrent_activation=recurrent, return_sequences=True, reset_after=reset_after
            )
        )
        shaken(model)
        weights = [w * 0.4 for w in model.get_weights()]  # an unbounded activation would grow
        x = np.random.default_rng(0).normal(size=(2, 8, I)).astype(np.float32)
        model.set_weights(weights)
        model.save(tmp_path / "m.keras")
        net = from_model(tmp_path / "m.keras")
        expected = np.asarray(model(x))
        common.compare("reference and Keras", ge.reference.run(net, x), expected, TOLERANCE)
        common.compare("engine and Keras", ge.load(net.tobytes()).run(x), expected, TOLERANCE)


@pytest.mark.parametrize(
    "activation",
    "elu softplus silu swish leaky_relu celu sparse_sigmoid relu6 hard_tanh exponential gelu".split(),
)
def test_more_activations_of_the_gru(activation):
    model = sequential(L.GRU(H, activation=activation, recurrent_activation=activation, return_sequences=True))
    x = np.random.default_rng(0).normal(size=(2, 6, I)).astype(np.float32)
    shaken(model)
    model.set_weights([w * 0.3 for w in model.get_weights()])
    common.compare("reference and Keras", ge.reference.run(from_model(model), x), np.asarray(model(x)), TOLERANCE)


@pytest.mark.parametrize("activation", ["mish", "selu", "softmax", "hard_silu"])
def test_activations_that_a_gru_cannot_have(activation):
    model = sequential(L.GRU(H, activation=activation))
    with pytest.raises(ExportError, match=f"GRU 'gru': activation '{activation}' cannot be used inside a GRU"):
        export(model)
    model = sequential(L.GRU(H, recurrent_activation=activation))
    with pytest.raises(ExportError, match=f"recurrent_activation '{activation}' cannot"):
        export(model)


@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_bidirectional(tmp_path, mode, sequences, masked):
    def do(x):
        x = L.Masking(-7.0)(x) if masked else x
        y = L.Bidirectional(L.GRU(H, return_sequences=sequences), merge_mode=mode)(x)
        return y if mode is not None else L.Subtract()([y[0], y[1]])

    exported = check(functional(do), tmp_path)
    assert exported.network.state_size == 2 * H


def test_bidirectional_of_different_layers(tmp_path):
    both = L.Bidirectional(
        L.GRU(H, return_sequences=True),
        backward_layer=L.GRU(H, return_sequences=True, go_backwards=True, reset_after=False, activation="relu"),
    )
    check(sequential(both, L.Dense(O)), tmp_path)
    swapped = L.Bidirectional(
        L.GRU(H, return_sequences=True, go_backwards=True),
        backward_layer=L.GRU(H, return_sequences=True),
        merge_mode="sum",
    )
    with pytest.raises(ExportError, match="reversed time order"):
        export(sequential(swapped))
    check(sequential(swapped, L.GRU(3, go_backwards=True)))


def test_backwards_twice_is_forwards(tmp_path):
    exported = check(
        sequential(
            L.GRU(H, go_backwards=True, return_sequences=True), L.Dense(O, activation="relu"),
            L.GRU(H, return_sequences=True, go_backwards=True), L.Dense(O),
        ),
        tmp_path,
    )  # fmt: skip
    assert [layer.reverse for layer in exported.network.layers if layer.operation == "gru"] == [True, False]
    check(sequential(L.GRU(H, go_backwards=True, return_sequences=True), L.GRU(H)), tmp_path)


def test_a_reversed_sequence_with_a_mask_is_refused():
    model = sequential(L.Masking(), L.GRU(H, go_backwards=True, return_sequences=True), L.GRU(H))
    with pytest.raises(ExportError, match="GRU 'gru_1': it reads a reversed sequence with a mask"):
        export(model)


def test_stacks(tmp_path):
    both = [L.GRU(H, return_sequences=True), L.Dropout(0.5), L.GRU(3, return_sequences=True)]
    check(tokens(*both, L.Dense(V, activation="softmax")), tmp_path)
    two = [L.Bidirectional(L.GRU(H, return_sequences=True)), L.Bidirectional(L.GRU(3))]
    check(tokens(L.SpatialDropout1D(0.3), *two, L.Dense(1, activation="sigmoid")), tmp_path)
    options = {"return_sequences": True, "unroll": True, "dropout": 0.2, "recurrent_dropout": 0.1}
    check(sequential(*[L.GRU(units, **options) for units in (3, 4)], shape=(7, I)), tmp_path)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_cells(tmp_path, masked, backwards):
    front = [L.Masking(-7.0)] if masked else []
    cells = [L.GRUCell(H), L.GRUCell(3, reset_after=False, activation="relu"), L.GRUCell(4, use_bias=False)]
    exported = check(sequential(*front, L.RNN(cells, go_backwards=backwards), L.Dense(O)), tmp_path)
    assert exported.network.state_size == H + 3 + 4
    check(sequential(*front, L.RNN(L.GRUCell(H, dropout=0.2), return_sequences=not backwards)), tmp_path)
    check(sequential(L.Bidirectional(L.RNN([L.GRUCell(H), L.GRUCell(3)], return_sequences=True))), tmp_path)


# ---- states


def test_return_state(tmp_path):
    def do(x):
        y, h = L.GRU(H, return_sequences=True, return_state=True)(x)
        return [L.Dense(O)(y), h]

    exported = check(functional(do), tmp_path)
    assert list(exported.network.outputs) == ["y"]
    assert (
        "value 1: [batch, 6 features], no output (a final state: return_state= when the model runs)" in exported.notes()
    )
    exported = check(functional(do), tmp_path, outputs=[1])
    assert exported.network.per_sequence
    exported = check(functional(lambda x: L.GRU(H, return_state=True, name="g")(x)), tmp_path)
    assert list(exported.network.outputs) == ["g", "g.1"]


def test_states_of_cells_and_directions(tmp_path):
    def do(x):
        _, a, b = L.RNN([L.GRUCell(H), L.GRUCell(3)], return_state=True)(x)
        _, c, d = L.Bidirectional(L.GRU(H, return_state=True))(x)
        return L.Concatenate()([d, b, a, c])

    check(functional(do), tmp_path)


def test_initial_state(tmp_path):
    def do(x, h, g):
        y, new = L.GRU(H, return_sequences=True, return_state=True)(x, initial_state=h)
        z, newer = L.GRU(3, return_sequences=True, return_state=True)(y, initial_state=[g])
        return [L.Dense(O)(z), new, newer]

    model = functional(do, states=(H, 3))
    exported = check(model, tmp_path)
    net = exported.network
    assert sorted(exported.state_places.values()) == list(range(H + 3))
    random = np.random.default_rng(0)
    x, h, g = (random.normal(size=s).astype(np.float32) for s in ((2, 7, I), (2, H), (2, 3)))
    y, new, newer = (np.asarray(v) for v in model([x, h, g]))
    got, state = ge.load(net.tobytes()).run(x, state=np.concatenate([h, g], 1), return_state=True)
    np.testing.assert_allclose(got, y, atol=2e-6)
    np.testing.assert_allclose(state, np.concatenate([new, newer], 1), atol=2e-6)


def test_initial_state_of_bidirectional(tmp_path):
    model = functional(
        lambda x, a, b: L.Bidirectional(L.GRU(H, return_sequences=True))(x, initial_state=[a, b]), states=(H, H)
    )
    net = check(model, tmp_path).network
    random = np.random.default_rng(0)
    x, a, b = (random.normal(size=s).astype(np.float32) for s in ((2, 7, I), (2, H), (2, H)))
    expected = np.asarray(model([x, a, b]))
    np.testing.assert_allclose(ge.load(net.tobytes()).run(x, state=np.concatenate([a, b], 1)), expected, atol=2e-6)


def test_stateful_models_are_streams(tmp_path):
    model = shaken(sequential(L.GRU(H, stateful=True, return_sequences=True), L.Dense(O), batch_size=1))
    exported = check(model, tmp_path)
    assert "stateful: a stream carries the state; it starts from zero" in exported.notes()
    stream = ge.load(exported.network.tobytes()).stream()
    x = np.random.default_rng(0).normal(size=(1, 12, I)).astype(np.float32)
    model.layers[0].reset_state()
    for part in (x[:, :5], x[:, 5:6], x[:, 6:]):
        expected = np.asarray(model(part))[0]
        np.testing.assert_allclose([stream.step(frame) for frame in part[0]], expected, atol=2e-6)


def test_stateful_models_of_one_step(tmp_path):
    model = sequential(
        L.GRU(H, stateful=True, return_sequences=True), L.GRU(3, stateful=True), L.Dense(O, "softmax"), shape=(1, I), batch_size=1
    )  # fmt: skip
    exported = check(model, tmp_path)
    assert not exported.network.per_sequence
    assert exported.layout == "B1F"

    def step(x, h):
        y, new = L.GRU(H, return_state=True)(x, initial_state=h)
        return L.Dense(O)(y), new

    exported = check(functional(step, (1, I), (H,)), tmp_path)
    assert not exported.network.per_sequence
    assert list(exported.network.outputs) == ["y"]


# ---- the layers around


ACTIVATIONS = [
    "relu", "leaky_relu", "relu6", "softmax", "elu", "selu", "softplus", "softsign", "soft_shrink", "silu", "tanh", "tanh_shrink",
    "sigmoid", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "hard_shrink", "linear", "mish", "log_softmax",
    "log_sigmoid", "celu", "glu", "sparse_sigmoid", "gelu", None,
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation):
    net = check(sequential(L.Dense(O, activation=activation), L.Activation(activation or "linear"))).network
    if activation == "linear":
        assert len(net.layers) == 2


def test_exponential():
    """Once: twice would be beyond float32."""
    net = check(sequential(L.Dense(O, activation="exponential"))).network
    assert [layer.operation for layer in net.layers] == ["input", "dense"]


@pytest.mark.parametrize("activation", ["squareplus", "sparsemax", "sparse_plus"])
def test_activations_that_are_refused(activation):
    with pytest.raises(ExportError, match=f"Dense 'dense': the activation '{activation}' cannot be expressed exactly"):
        export(sequential(L.Dense(O, activation=activation)))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.ReLU(), lambda: L.ReLU(max_value=6), lambda: L.ReLU(max_value=0.7), lambda: L.ReLU(negative_slope=0.1),
        lambda: L.ReLU(threshold=0.3), lambda: L.ReLU(max_value=1, negative_slope=0.2),
        lambda: L.ReLU(max_value=1, negative_slope=0.2, threshold=0.1), lambda: L.ReLU(negative_slope=0.2, threshold=0.5),
        lambda: L.LeakyReLU(), lambda: L.LeakyReLU(negative_slope=0.05), lambda: L.ELU(), lambda: L.ELU(alpha=0.7),
        lambda: L.PReLU(shared_axes=[1]), lambda: L.PReLU(shared_axes=[1, 2]), lambda: L.Softmax(), lambda: L.Softmax(axis=[2]),
        lambda: L.Dense(O, activation=L.LeakyReLU(negative_slope=0.2)), lambda: L.Dense(O, activation=L.ReLU(max_value=2)),
        lambda: L.Dense(O, activation=L.Softmax()), lambda: L.Dense(O, use_bias=False),
        lambda: L.BatchNormalization(), lambda: L.BatchNormalization(scale=False, center=False, epsilon=0.1),
        lambda: L.BatchNormalization(axis=2, scale=False), lambda: L.Rescaling(1 / 3, offset=-1),
        lambda: L.Rescaling(list(range(1, I + 1)), offset=[0.5] * I), lambda: L.Identity(), lambda: L.GaussianNoise(0.1),
        lambda: L.GaussianDropout(0.1), lambda: L.AlphaDropout(0.1), lambda: L.ActivityRegularization(0.1),
        lambda: L.Normalization(mean=[1.0] * I, variance=[2.0] * I), lambda: L.Normalization(mean=0.5, variance=3.0, invert=True),
        lambda: L.TimeDistributed(L.Dense(O, activation="tanh")), lambda: L.TimeDistributed(L.BatchNormalization()),
        lambda: L.TimeDistributed(L.Activation("softmax")),
    ],
)  # fmt: skip
def test_layers(tmp_path, layer):
    check(
        sequential(layer(), L.GRU(H, return_sequences=True), layer() if "PReLU" in str(layer) else L.ReLU()), tmp_path
    )


def test_adapted_normalization(tmp_path):
    norm = L.Normalization()
    norm.adapt(np.random.default_rng(0).normal(3, 2, (50, 7, I)).astype(np.float32))
    model = sequential(norm, L.GRU(H))
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(1).normal(3, 2, (2, 6, I)).astype(np.float32)
    expected = np.asarray(model(x))
    for source in (model, tmp_path / "m.keras"):
        common.compare("reference and Keras", ge.reference.run(from_model(source), x), expected, TOLERANCE)


def test_batch_normalization_is_folded():
    net = check(sequential(L.Dense(O), L.BatchNormalization(), L.ReLU())).network
    assert [layer.operation for layer in net.layers] == ["input", "dense"]


MERGES = [
    lambda a, b, x: L.Add()([a, b, a]), lambda a, b, x: L.Multiply()([a, b]), lambda a, b, x: L.Average()([a, b, b]),
    lambda a, b, x: L.Subtract()([a, b]), lambda a, b, x: L.Concatenate()([b, x, a]),
    lambda a, b, x: L.Concatenate(axis=2)([x, x]), lambda a, b, x: L.GRU(3, return_sequences=True)(L.Concatenate()([a, x])),
    lambda a, b, x: L.Add()([L.Dense(1)(a), b]), lambda a, b, x: L.Maximum()([a, b, L.Dense(H)(x)]),
    lambda a, b, x: L.Minimum()([a, b]), lambda a, b, x: L.Maximum()([L.Dense(1)(a), b]),
]  # fmt: skip


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("masked", [False, True])
def test_merges(tmp_path, merge, masked):
    def do(x):
        x = L.Masking(-7.0)(x) if masked else x
        return merge(L.GRU(H, return_sequences=True)(x), L.GRU(H, return_sequences=True)(x), x)

    check(functional(do), tmp_path)


def test_axes_that_are_only_moved(tmp_path):
    check(sequential(L.Reshape((-1, 2 * I)), L.GRU(H), shape=(None, 2, I)), tmp_path)
    check(sequential(L.TimeDistributed(L.Dense(3)), L.Reshape((-1, 6)), L.GRU(H), shape=(None, 2, I)), tmp_path)
    check(sequential(L.Reshape((7, 2 * I)), L.GRU(H), shape=(7, 2, I)), tmp_path)
    check(sequential(L.Permute((1, 3, 2)), L.Reshape((-1, 2 * I)), L.GRU(H), shape=(None, 2, I)), tmp_path)
    check(sequential(L.Permute((2, 1)), L.GRU(H), shape=(I, None)), tmp_path)
    check(sequential(L.Reshape((-1, 1)), L.GRU(H), shape=(None,)), tmp_path)
    check(sequential(L.GRU(2 * H), L.Reshape((2, H)), L.Dense(3), L.Flatten(), L.Dense(2)), tmp_path)
    check(sequential(L.GRU(H), L.Flatten(), L.Dense(2)), tmp_path)


def test_a_network_without_time(tmp_path):
    net = check(sequential(L.Dense(7, "relu"), L.Dense(O), shape=(I,)), tmp_path).network
    assert net.input_size == I and not net.per_sequence


def test_several_outputs(tmp_path):
    def do(x):
        y = L.GRU(H, return_sequences=True)(x)
        return {"z": L.Dense(2, name="second")(y), "a": L.Dense(3, name="first")(y), "m": L.Softmax(name="third")(y)}

    net = check(functional(do)).network
    assert set(net.outputs) == {"z", "a", "m"}  # as the model returns them; the layers' names are not seen there
    net = check(functional(lambda x: [L.Dense(2)(x), L.Dense(3)(x)]), tmp_path).network
    assert list(net.outputs) == ["dense", "dense_1"]
    assert check(functional(lambda x: [L.Dense(2)(x), L.GRU(3)(x)]), tmp_path).network.output_size == 2

    def mixed(x):
        return [L.Dense(2)(x), L.Dense(2)(L.GRU(3)(x))]

    with pytest.raises(
        ExportError, match=r"values of every time step and values of the whole sequence .* choose with outputs="
    ):
        export(functional(mixed))
    check(functional(mixed), tmp_path, outputs=[1])
    with pytest.raises(ExportError, match="returns 2 values, there is no value 2"):
        export(functional(mixed), outputs=[2])
    with pytest.raises(ExportError, match="choose at least one"):
        export(functional(mixed), outputs=[])


def test_nested_and_shared_layers(tmp_path):
    inner = keras.Sequential(
        [keras.Input((None, I)), L.Dense(I), L.BatchNormalization(), L.Dense(I, trainable=False)], name="inner"
    )
    deep_in = keras.Input((None, I))
    deep = keras.Model(deep_in, L.Add()([inner(deep_in), deep_in]), name="deep")
    gru, head = L.GRU(H, return_sequences=True), L.Dense(I)

    def do(x):
        y = head(gru(deep(inner(x))))
        return L.Concatenate()([head(gru(y)), inner(y)])

    model = functional(do)
    inner.layers[1].trainable = False
    exported = check(model, tmp_path)
    assert exported.network.state_size == 2 * H
    check(keras.Sequential([keras.Input((None, I)), deep, keras.Sequential([L.GRU(H), L.Dense(2)])]), tmp_path)


def test_embeddings(tmp_path):
    exported = check(tokens(L.GRU(H, return_sequences=True), L.Dense(V, "softmax"), mask_zero=False), tmp_path)
    assert exported.network.vocab_size == V
    assert exported.padding is None

    def two(x):
        return L.GRU(H)(L.Concatenate()([L.Embedding(V, 3, mask_zero=True)(x), L.Embedding(V, 2, mask_zero=True)(x)]))

    assert check(functional(two, shape=(11,), dtype="int32"), tmp_path).padding == 0


# ---- masks


def test_lengths_are_what_the_mask_says():
    model = shaken(tokens(L.Bidirectional(L.GRU(H, return_sequences=True)), L.GRU(3), L.Dense(2)))
    x = np.array([[1, 2, 3, 4, 5, 6], [3, 4, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0]])
    engine = ge.load(from_model(model).tobytes())
    np.testing.assert_allclose(engine.run(x, lengths=lengths(x)), np.asarray(model(x)), atol=2e-6)
    assert lengths(x).tolist() == [6, 2, 1]
    with pytest.raises(ValueError, match="sequence 0 has padding at step 1 and valid steps after it"):
        lengths([[3, 0, 4]])
    with pytest.raises(ValueError, match="sequence 1 has padding at step 0"):
        lengths([[3, 1, 4], [0, 0, 4]])
    with pytest.raises(ValueError, match=r"got an array of shape \[3\]"):
        lengths([1, 2, 0])
    assert lengths(np.array([[[1.0, -7], [-7, -7]]]), -7).tolist() == [1]


@pytest.mark.parametrize(("zeros", "padding"), [(True, "zero"), (False, "carry")])
def test_outputs_of_padding_steps(zeros, padding):
    model = shaken(sequential(L.Masking(), L.GRU(H, return_sequences=True, zero_output_for_mask=zeros)))
    x = np.random.default_rng(0).normal(size=(2, 8, I)).astype(np.float32)
    x[1, 5:] = 0
    engine = ge.load(from_model(model).tobytes())
    np.testing.assert_allclose(engine.run(x, lengths=[8, 5], padding=padding), np.asarray(model(x)), atol=2e-6)


def test_zero_output_for_mask_of_the_last_step():
    model = shaken(sequential(L.Masking(), L.GRU(H, zero_output_for_mask=True)))
    with pytest.raises(
        ExportError, match="zero_output_for_mask makes its output zero where a sequence ends with padding"
    ):
        export(model)
    x = np.ones((1, 4, I), np.float32)
    x[:, 2:] = 0
    assert not np.asarray(model(x)).any()  # so Keras does
    check(sequential(L.GRU(H, zero_output_for_mask=True)))


def test_masks_that_do_not_reach_every_layer():
    def lost(x):
        y = L.Reshape((-1, I))(L.Masking()(x))
        return L.GRU(H)(y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says that the mask is lost
        exported = check(functional(lost))
        assert exported.padding is None
        assert any("give no lengths=" in note for note in exported.notes())
        both = functional(lambda x: L.Add()([lost(x), L.GRU(H)(L.Masking()(x))]))
    with pytest.raises(ExportError, match=r"GRU 'gru[_\d]*' has the mask of Masking .* and skips padding, but GRU"):
        export(both)
    merged = functional(lambda x: L.GRU(H)(L.Add()([L.Masking()(x), x])))  # a sum has no mask where one part has none
    assert check(merged).padding is None
    forward = functional(lambda x: L.GRU(3)(L.Masking()(L.Identity()(x))))
    assert check(forward).padding == 0


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda x: L.GRU(H)(L.Masking()(L.Dense(3)(x))), "Masking 'masking': it masks computed values"),
        (
            lambda x: L.Add()([L.GRU(H)(L.Masking(1.0)(x)), L.GRU(H)(L.Masking(2.0)(x))]),
            "masks of different values meet",
        ),
        (
            lambda x: L.Softmax()(L.GRU(H, return_sequences=True)(L.Masking()(x))),
            "Softmax 'softmax': with a mask this layer",
        ),
    ],
)
def test_masks_that_are_refused(do, message):
    with pytest.raises(ExportError, match=message):
        export(functional(do))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_data_types(tmp_path, policy):
    try:
        keras.config.set_dtype_policy(policy)
        model = sequential(L.Dense(I), L.GRU(H, return_sequences=True, recurrent_initializer="zeros"), L.Dense(O))
    finally:
        keras.config.set_dtype_policy("float32")
    model = shaken(model)
    for name in ("m.keras", "m.h5"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(tmp_path / name)
        assert from_model(tmp_path / name).same(from_model(model))
    exported = export(model)
    x = inputs(exported)
    y = ge.reference.run(exported.network, x)
    common.compare("reference and Keras in float32", y, run_beside(exported, model).outputs_for(x), TOLERANCE)
    common.compare("reference and Keras as it is", y, np.asarray(model(x).astype("float32")), 0.05)
    assert f"Keras computes it in {policy}, the network in float32" in exported.notes()
