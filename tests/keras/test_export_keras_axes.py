# SPDX-License-Identifier: Apache-2.0
"""Models of Keras whose values have other steps than the input: strides, pooling, repeated values; and attention layers."""

import keras
import pytest
from keras import layers as L
from keras import ops
from keras_models import H, I, O, V, check, functional, sequential, shaken, tokens

from gru_engine.export.common import ExportError
from gru_engine.export.keras import export
from gru_engine.layers import Axis


@pytest.fixture(autouse=True)
def _fresh_names():
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)


def gru(x, **options):
    return L.GRU(H, return_sequences=True, **options)(x)


@pytest.mark.parametrize(
    ("layers", "axis"),
    [
        (lambda: [L.Conv1D(O, 3, activation="relu")], Axis(2, 1)), (lambda: [L.Conv1D(O, 4, strides=3)], Axis(3, 3)),
        (lambda: [L.Conv1D(O, 3, strides=2, padding="causal")], Axis(0, 2)),
        (lambda: [L.Conv1D(O, 1, strides=2, padding="same")], Axis(0, 2)),
        (lambda: [L.Conv1D(O, 3, dilation_rate=2)], Axis(4, 1)), (lambda: [L.SeparableConv1D(O, 3, strides=2)], Axis(2, 2)),
        (lambda: [L.DepthwiseConv1D(3, strides=2)], Axis(2, 2)), (lambda: [L.MaxPooling1D(3)], Axis(2, 3)),
        (lambda: [L.AveragePooling1D(4, strides=2)], Axis(3, 2)),
        (lambda: [L.MaxPooling1D(3, strides=1, padding="same")], Axis()),
        (lambda: [L.Cropping1D((2, 1))], Axis(3, 1)), (lambda: [L.ZeroPadding1D(1), L.Conv1D(O, 4, strides=2)], Axis(1, 2)),
        (lambda: [L.Conv1D(O, 3, strides=2), L.BatchNormalization(), L.ReLU(), L.MaxPooling1D(2)], Axis(4, 4)),
        (lambda: [L.Conv1D(O, 3), L.Cropping1D((0, 1)), L.Bidirectional(L.GRU(3, return_sequences=True))], Axis(3, 1)),
    ],
)  # fmt: skip
def test_fewer_steps(tmp_path, layers, axis):
    model = sequential(*layers(), L.GRU(H, return_sequences=True), L.TimeDistributed(L.Dense(2)))
    assert check(model, tmp_path).network.axis == axis
    check(sequential(*layers(), L.GRU(H), L.Dense(2)))


def test_steps_of_operations(tmp_path):
    check(functional(lambda x: gru(x)[:, 1:-1:2]), tmp_path)
    check(functional(lambda x: gru(x)[:, 2:] - gru(x)[:, :-2]))
    check(functional(lambda x: L.GRU(3)(x[:, ::3])))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.Conv1D(O, 4, strides=3, padding="same"), lambda: L.MaxPooling1D(3, strides=2, padding="same"),
        lambda: L.Conv1D(O, 3, strides=2, padding="same"),
    ],
)  # fmt: skip
def test_padding_that_depends_on_the_number_of_steps(tmp_path, layer):
    model = sequential(layer(), L.GRU(H), L.Dense(2), shape=(14, I))
    exported = check(model, tmp_path)
    assert exported.steps == 14 and exported.every in (2, 3)
    others = f"numbers of steps that differ from it by a multiple of {exported.every}"
    assert any(note.startswith(f"exact for sequences of 14 steps and {others}") for note in exported.notes())
    open_model = sequential(layer(), L.GRU(H), L.Dense(2))
    with pytest.raises(
        ExportError, match=r"what padding='same' is with strides=. depends on the number of steps; say what it is"
    ):
        export(open_model)
    check(open_model, steps=15)
    with pytest.raises(ExportError, match=r"steps=3, but .* is made for sequences of 14 steps"):
        export(model, steps=3)
    with pytest.raises(ValueError, match=r"steps must be from 1 to .*, got 0"):
        export(model, steps=0)


def test_the_mean_of_some_steps_with_padding_is_refused():
    with pytest.raises(
        ExportError,
        match=r"AveragePooling1D .*: padding='same' divides by the number of steps that are of the sequence",
    ):
        export(sequential(L.AveragePooling1D(3, padding="same"), L.GRU(H), shape=(14, I)))


def test_repeated_values(tmp_path):
    """Autoencoders and translation with a fixed number of steps: the end of one GRU is the input of each step of another."""
    decoder = [L.RepeatVector(4), L.GRU(3, return_sequences=True), L.TimeDistributed(L.Dense(O))]
    assert check(sequential(L.GRU(H), *decoder, shape=(7, I)), tmp_path).network.axis == Axis(steps=4)
    both = L.Bidirectional(L.GRU(3, return_sequences=True))
    exported = check(tokens(L.Bidirectional(L.GRU(H)), L.RepeatVector(5), both, L.Dense(V, "softmax")), tmp_path)
    assert exported.padding == 0  # the steps of the second have none


def test_values_per_sequence_beside_steps(tmp_path):
    def excitation(x):
        y = L.Conv1D(O, 3, padding="same")(x)
        scale = L.Dense(O, activation="sigmoid")(L.Dense(2, activation="relu")(L.GlobalAveragePooling1D()(y)))
        return L.GRU(H)(L.Multiply()([y, L.Reshape((1, O))(scale)]))

    check(functional(excitation), tmp_path)
    check(functional(lambda x: gru(x) - ops.mean(gru(x), axis=1, keepdims=True)))


def test_spectrograms_with_fewer_steps(tmp_path):
    def do(x):
        x = L.MaxPooling2D(2)(L.Conv2D(3, 3, activation="relu", padding="same")(x))
        x = L.Conv2D(2, 3, strides=(2, 1))(x)
        return gru(L.Reshape((-1, x.shape[2] * x.shape[3]))(x))

    assert check(functional(do, shape=(None, 8, 1)), tmp_path, 1e-5).network.axis == Axis(5, 4)


def test_a_sequence_as_one_value(tmp_path):
    exported = check(sequential(L.GRU(H, return_sequences=True), L.Flatten(), L.Dense(O), shape=(9, I)), tmp_path)
    assert (exported.steps, exported.every) == (9, 0)
    assert "exact for sequences of 9 steps, to which the model's padding or size belongs" in exported.notes()
    check(sequential(L.GRU(H), L.RepeatVector(4), L.GRU(3, return_sequences=True), L.Flatten(), L.Dense(O)))

    def weighted(x):
        y = gru(x)
        return L.GlobalAveragePooling1D()(L.Multiply()([y, L.Softmax(axis=1)(L.Dense(1)(y))]))

    check(functional(weighted, shape=(9, I)), tmp_path)
    with pytest.raises(
        ExportError, match=r"Flatten .*: it joins all steps of .* where the model's Input has a fixed number of steps"
    ):
        export(sequential(L.GRU(H, return_sequences=True), L.Flatten()))


@pytest.mark.parametrize(
    "attend",
    [
        lambda q, v: L.Attention()([q, v]), lambda q, v: L.Attention(use_scale=True)([q, v, L.Dense(H)(v)]),
        lambda q, v: L.Attention(use_scale=True, score_mode="concat")([q, v]), lambda q, v: L.AdditiveAttention()([q, v]),
        lambda q, v: L.AdditiveAttention(use_scale=False)([q, v]), lambda q, v: L.MultiHeadAttention(2, 3)(q, v),
        lambda q, v: L.MultiHeadAttention(2, 3, use_bias=False, output_shape=5)(q, v, key=v),
    ],
)  # fmt: skip
@pytest.mark.parametrize("one", [False, True])
def test_attention(tmp_path, attend, one):
    def do(x):
        values = gru(x)
        query = L.Reshape((1, H))(L.GRU(H)(x)) if one else gru(x)
        return L.GlobalAveragePooling1D()(attend(query, values)) if not one else L.Flatten()(attend(query, values))

    kinds = [layer.operation for layer in check(functional(do), tmp_path).network.layers]
    assert ("attend" if one else "attention") in kinds


def test_causal_attention_and_steps_of_keys(tmp_path):
    check(functional(lambda x: L.Attention()([gru(x), gru(x)], use_causal_mask=True)), tmp_path)
    check(functional(lambda x: L.MultiHeadAttention(2, 3)(gru(x), gru(L.MaxPooling1D(2)(x)))))
    with pytest.raises(ExportError, match="it is called with return_attention_scores=True"):
        export(functional(lambda x: L.Attention()([x, x], return_attention_scores=True)[0]))


def test_attention_of_masked_sequences(tmp_path):
    def do(x):
        y = gru(L.Masking(-7.0)(x))
        return L.GRU(3)(L.Add()([L.Attention()([y, y]), y]))

    assert check(functional(do), tmp_path).padding == -7


def test_sequences_in_opposite_order():
    """What old programs for text recognition compute: step t of the one and step L - 1 - t of the other."""
    model = shaken(functional(lambda x: L.Add()([gru(x), gru(x, go_backwards=True)])))
    with pytest.raises(ExportError, match=r"Add 'add': .*a sequence in reversed order and one in order would meet"):
        export(model)
