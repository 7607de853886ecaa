# SPDX-License-Identifier: Apache-2.0
"""Layers of Keras along the time and over the features: convolutions, pooling, attention pooling, normalisation."""

import itertools
import warnings

import keras
import numpy as np
import pytest
from keras import layers as L
from keras_models import H, I, O, V, check, functional, sequential, shaken, tokens

import gru_engine as ge
from gru_engine.export.common import ExportError
from gru_engine.export.keras import export, from_model


@pytest.fixture(autouse=True)
def _fresh_names():
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)


# ---- convolutions


@pytest.mark.parametrize(
    ("padding", "kernel", "dilation"), list(itertools.product(["causal", "same"], [1, 2, 5], [1, 3]))
)
def test_convolutions(tmp_path, padding, kernel, dilation):
    conv = L.Conv1D(O, kernel, padding=padding, dilation_rate=dilation, activation="relu")
    exported = check(sequential(conv, L.GRU(H, return_sequences=True)), tmp_path)
    assert exported.network.causal == (padding == "causal" or kernel == 1)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("use_bias", [False, True])
def test_groups(tmp_path, groups, use_bias):
    conv = L.Conv1D(8, 3, padding="causal", groups=groups, use_bias=use_bias)
    check(sequential(conv, L.GRU(H), shape=(None, 4)), tmp_path)


@pytest.mark.parametrize("padding", ["same", "causal"])
@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise_and_separable(tmp_path, multiplier, padding):
    options = {"depth_multiplier": multiplier, "dilation_rate": 2, "activation": "tanh"}
    if padding == "causal":  # these layers have no such padding of their own
        front, options = [L.ZeroPadding1D((4, 0))], options | {"padding": "valid"}
    else:
        front, options = [], options | {"padding": "same"}
    exported = check(sequential(*front, L.DepthwiseConv1D(3, **options), L.GRU(H)), tmp_path)
    assert exported.network.causal == (padding == "causal")
    check(sequential(*front, L.DepthwiseConv1D(3, use_bias=False, **options)), tmp_path)
    check(sequential(*front, L.SeparableConv1D(7, 3, **options), L.GRU(H)), tmp_path)
    check(sequential(*front, L.SeparableConv1D(7, 3, use_bias=False, **options)), tmp_path)


def test_padding_that_a_convolution_takes_away_again(tmp_path):
    check(sequential(L.ZeroPadding1D((2, 0)), L.Conv1D(O, 3), L.GRU(H)), tmp_path)
    check(sequential(L.ZeroPadding1D(1), L.Conv1D(O, 3)), tmp_path)
    exported = check(sequential(L.ZeroPadding1D(4), L.Conv1D(O, 5), L.Cropping1D((0, 4)), L.GRU(H)), tmp_path)
    assert exported.network.causal


def test_stacked_dilated_convolutions_with_skips(tmp_path):
    def do(x):
        y = L.Dense(H)(x)
        for rate in (1, 2, 4):
            kinds = ("tanh", "sigmoid")
            gated = [L.Conv1D(H, 2, padding="causal", dilation_rate=rate, activation=kind)(y) for kind in kinds]
            y = L.Add()([y, L.Conv1D(H, 1)(L.Multiply()(gated))])
        return L.Dense(O)(L.LayerNormalization()(L.GRU(H, return_sequences=True)(y)))

    net = check(functional(do), tmp_path).network
    x = np.random.default_rng(0).normal(size=(20, I)).astype(np.float32)
    stream, model = ge.load(net.tobytes()).stream(), ge.load(net.tobytes())
    np.testing.assert_array_equal([stream.step(row) for row in x], model.run(x))


def test_a_convolution_of_a_reversed_sequence(tmp_path):
    """Causal in the order in which the layer before it computes: it looks ahead."""
    layers = [L.Conv1D(O, 3, padding="causal"), L.GRU(3, return_sequences=True, go_backwards=True)]
    exported = check(sequential(L.GRU(H, return_sequences=True, go_backwards=True), *layers), tmp_path)
    assert not exported.network.causal


def test_channels_first():
    model = sequential(
        L.Conv1D(O, 3, padding="causal", data_format="channels_first"), L.Permute((2, 1)), L.GRU(H), shape=(I, None)
    )
    check(model)


def test_embedding_and_convolution(tmp_path):
    check(tokens(L.Conv1D(O, 3, padding="causal"), L.GRU(H), mask_zero=False), tmp_path)
    exported = check(tokens(L.Conv1D(O, 3, padding="causal"), L.GRU(H), L.Dense(1, "sigmoid"), mask_zero=False))
    assert exported.padding is None


# ---- one value per sequence


@pytest.mark.parametrize("pooling", [L.GlobalAveragePooling1D, L.GlobalMaxPooling1D])
@pytest.mark.parametrize("keepdims", [False, True])
def test_pooling(tmp_path, pooling, keepdims):
    back = [L.Flatten()] if keepdims else []
    exported = check(
        sequential(L.GRU(H, return_sequences=True), pooling(keepdims=keepdims), *back, L.Dense(O)), tmp_path
    )
    assert exported.network.per_sequence
    backwards = L.GRU(H, return_sequences=True, go_backwards=True)
    check(sequential(backwards, pooling()), tmp_path)
    check(sequential(pooling(), L.Dense(O, "softmax")), tmp_path)


def test_two_kinds_of_pooling(tmp_path):
    def do(x):
        y = L.Bidirectional(L.GRU(H, return_sequences=True))(x)
        pooled = [L.GlobalAveragePooling1D()(y), L.GlobalMaxPooling1D()(y), L.GRU(3)(y)]
        return L.Dense(2, "sigmoid")(L.Concatenate()(pooled))

    check(functional(do), tmp_path)


def test_the_mean_with_a_mask_is_that_of_the_steps(tmp_path):
    exported = check(tokens(L.GRU(H, return_sequences=True), L.GlobalAveragePooling1D(), L.Dense(2)), tmp_path)
    assert exported.padding == 0
    exported = check(sequential(L.Masking(-7.0), L.LayerNormalization(), L.GlobalAveragePooling1D()), tmp_path)
    assert exported.padding == -7


def test_a_maximum_with_a_mask_reads_the_padding():
    """Keras has no mask there, so one model cannot skip padding in the GRU and read it in the maximum."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tokens(L.GRU(H, return_sequences=True), L.GlobalMaxPooling1D())
        with pytest.raises(ExportError, match=r"GRU 'gru' has the mask .* but GlobalMaxPooling1D .* reads it as data"):
            export(shaken(model))
        exported = check(tokens(L.Dense(3), L.GlobalMaxPooling1D()))
    assert exported.padding is None


def test_a_convolution_loses_the_mask():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = check(tokens(L.Conv1D(O, 3, padding="causal"), L.GRU(H)))
        assert exported.padding is None
        assert any("give no lengths=" in note for note in exported.notes())
        both = functional(
            lambda x: L.Concatenate()(
                [L.GRU(H)(L.Masking()(x)), L.GRU(2)(L.Conv1D(3, 3, padding="same")(L.Masking()(x)))]
            )
        )
        with pytest.raises(ExportError, match=r"has the mask of Masking .* and skips padding, but"):
            export(shaken(both))


# ---- attention pooling


def by_softmax(y, heads=1):
    return L.Softmax(axis=1)(L.Dense(heads)(y))


def by_permute(y, heads=1):
    return L.Permute((2, 1))(L.Activation("softmax")(L.Permute((2, 1))(L.Dense(heads)(L.Dense(5, "tanh")(y)))))


@pytest.mark.parametrize("weights", [by_softmax, by_permute])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("turned", [False, True])
def test_attention_pooling(tmp_path, weights, heads, turned):
    def do(x):
        y = L.GRU(H, return_sequences=True)(x)
        pair = [y, weights(y, heads)] if turned else [weights(y, heads), y]
        return L.Dense(O)(L.Flatten()(L.Dot(axes=1)(pair)))

    exported = check(functional(do), tmp_path)
    assert any(layer.operation == "attend" for layer in exported.network.layers)


def test_dot_with_two_axes(tmp_path):
    def do(x):
        y = L.Bidirectional(L.GRU(H, return_sequences=True))(x)
        scores = L.Activation("softmax")(L.Permute((2, 1))(L.Dense(1)(y)))
        return L.Dense(O)(L.Flatten()(L.Dot(axes=(2, 1))([scores, y])))

    check(functional(do), tmp_path)


# ---- normalisation


@pytest.mark.parametrize(("center", "scale"), list(itertools.product([False, True], repeat=2)))
def test_layer_normalization(tmp_path, center, scale):
    norm = {"center": center, "scale": scale, "epsilon": 0.01}
    layers = [L.LayerNormalization(**norm), L.GRU(H, return_sequences=True), L.LayerNormalization(**norm)]
    check(sequential(*layers), tmp_path)
    check(tokens(*layers, L.Dense(V)), tmp_path)


def test_normalization_of_several_axes(tmp_path):
    check(sequential(L.GRU(2 * H), L.Reshape((2, H)), L.LayerNormalization(axis=[1, 2]), L.Flatten()), tmp_path)
    check(sequential(L.GRU(2 * H), L.Reshape((2, H)), L.LayerNormalization(axis=1), L.Flatten()), tmp_path)
    check(sequential(L.GRU(2 * H), L.Reshape((2, H)), L.LayerNormalization(), L.Flatten()), tmp_path)
    check(sequential(L.TimeDistributed(L.LayerNormalization()), L.GRU(H)), tmp_path)


def test_root_mean_square(tmp_path):
    check(sequential(L.Dense(H), L.RMSNormalization(), L.GRU(H), L.RMSNormalization(epsilon=0.1)), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sequential(L.LayerNormalization(rms_scaling=True), L.GRU(H))
    with pytest.raises(ExportError, match="rms_scaling=True divides by the deviation without taking the mean away"):
        export(shaken(model))
    assert model.layers[0].name in from_model_error(model)


def from_model_error(model):
    with pytest.raises(ExportError) as caught:
        from_model(model)
    return str(caught.value)


# ---- limits


def test_limits_are_one_layer():
    for layer in (L.ReLU(max_value=6), L.Activation("relu6"), L.Activation("hard_tanh")):
        net = check(sequential(L.GRU(H, return_sequences=True), layer)).network
        assert [x.operation for x in net.layers] == ["input", "gru", "activate"]
    net = check(sequential(L.GRU(H, activation=L.ReLU(max_value=2), recurrent_activation="hard_sigmoid"))).network
    assert net.layers[1].operation == "gru"
