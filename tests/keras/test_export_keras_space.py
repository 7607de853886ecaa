# SPDX-License-Identifier: Apache-2.0
"""Convolutions and pooling over the features of a step, alone and together with the time; TimeDistributed of them."""

import keras
import pytest
from keras import layers as L
from keras_models import H, I, check, functional, sequential

from gru_engine.export.common import ExportError
from gru_engine.export.keras import export


@pytest.fixture(autouse=True)
def _fresh_names():
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)


def image(*inner, shape=(None, 6, 5, 2)):
    """Layers at each step of a sequence of images, then a GRU."""
    return sequential(*map(L.TimeDistributed, inner), L.TimeDistributed(L.Flatten()), L.GRU(H), shape=shape)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [L.Conv2D(3, 3, activation="relu")], lambda: [L.Conv2D(3, (3, 2), strides=2, padding="same")],
        lambda: [L.Conv2D(3, 3, dilation_rate=2, padding="same", use_bias=False)], lambda: [L.Conv2D(4, (1, 2), groups=2)],
        lambda: [L.DepthwiseConv2D(3, depth_multiplier=2)], lambda: [L.SeparableConv2D(3, 2, strides=2, padding="same")],
        lambda: [L.AveragePooling2D(2)], lambda: [L.AveragePooling2D((3, 2), strides=(2, 1), padding="same")],
        lambda: [L.GlobalAveragePooling2D()], lambda: [L.Conv2D(3, 3), L.BatchNormalization(), L.ReLU()],
        lambda: [L.ZeroPadding2D(((1, 0), (2, 1))), L.Conv2D(2, 3)], lambda: [L.Cropping2D(((1, 0), (0, 2)))],
        lambda: [L.Reshape((6, 10)), L.Conv1D(3, 2, strides=2)], lambda: [L.Reshape((6, 10)), L.Conv1D(3, 3, padding="same")],
        lambda: [L.Reshape((6, 10)), L.AveragePooling1D(2)], lambda: [L.Reshape((6, 10)), L.GlobalAveragePooling1D()],
        lambda: [L.Reshape((6, 10)), L.ZeroPadding1D((1, 2)), L.Conv1D(2, 3, padding="valid")],
        lambda: [L.Permute((2, 1, 3)), L.Conv2D(2, (2, 3))],
        lambda: [keras.Sequential([keras.Input((6, 5, 2)), L.Conv2D(3, 3), L.AveragePooling2D(2), L.Flatten(), L.Dense(4)])],
    ],
)  # fmt: skip
def test_images_at_each_step(tmp_path, layers):
    check(image(*layers()), tmp_path)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [L.Conv2D(3, 3, padding="same")], lambda: [L.Conv2D(3, (5, 3), strides=(1, 2), padding="same")],
        lambda: [L.Conv2D(3, (1, 3), strides=(1, 2))], lambda: [L.Conv2D(4, 3, padding="same", groups=2)],
        lambda: [L.DepthwiseConv2D(3, padding="same")], lambda: [L.SeparableConv2D(3, 3, padding="same")],
        lambda: [L.ZeroPadding2D(((2, 0), (1, 1))), L.Conv2D(3, 3)], lambda: [L.AveragePooling2D((1, 2))],
        lambda: [L.Conv2D(3, 3, padding="same", dilation_rate=(2, 1)), L.BatchNormalization(), L.AveragePooling2D((1, 3))],
    ],
)  # fmt: skip
def test_spectrograms(tmp_path, layers):
    def do(x):
        for layer in layers():
            x = layer(x)
        return L.Bidirectional(L.GRU(H, return_sequences=True))(L.Reshape((-1, x.shape[2] * x.shape[3]))(x))

    check(functional(do, shape=(None, 6, 2)), tmp_path)


def test_only_steps_before_make_a_network_that_can_be_stepped(tmp_path):
    def do(x):
        x = L.Conv2D(3, 3)(L.ZeroPadding2D(((2, 0), (1, 1)))(x))
        return L.GRU(H, return_sequences=True)(L.Reshape((-1, 18))(x))

    assert check(functional(do, shape=(None, 6, 2)), tmp_path).network.causal


def test_models_at_each_step(tmp_path):
    inner = keras.Sequential([keras.Input((I,)), L.Dense(8, activation="relu"), L.BatchNormalization(), L.Dense(3)])
    check(sequential(L.TimeDistributed(inner), L.GRU(H), L.Dense(2)), tmp_path)
    shared = functional(lambda x: L.GRU(H)(L.Add()([L.TimeDistributed(inner)(x), L.TimeDistributed(inner)(-x)])))
    check(shared, tmp_path)
    words = keras.Sequential([keras.Input((4, 2)), L.GRU(3)])
    with pytest.raises(
        ExportError, match=r"TimeDistributed .*: it wraps Sequential .*, with GRU 'gru[_\d]*': a sequence at each"
    ):
        export(sequential(L.TimeDistributed(words), L.GRU(H), shape=(None, 4, 2)))


def test_the_time_as_the_second_axis_of_an_image(tmp_path):
    """[batch, frequencies, time, channels], as images are kept, and [batch, channels, time, frequencies]."""

    def columns(x):
        x = L.Permute((2, 1, 3))(L.Conv2D(3, 3, padding="same", activation="relu")(x))
        return L.GRU(H)(L.Reshape((-1, 18))(x))

    check(functional(columns, shape=(6, None, 2)), tmp_path)


def test_normalisations_of_one_value(tmp_path):
    check(sequential(L.GRU(H), L.GroupNormalization(2), L.Dense(3)), tmp_path)
    check(sequential(L.GRU(H), L.GroupNormalization(-1, epsilon=0.1, scale=False)), tmp_path)
    with pytest.raises(ExportError, match=r"GroupNormalization .*: it reads .* over all axes but the batch"):
        export(sequential(L.GRU(H, return_sequences=True), L.GroupNormalization(2)))
