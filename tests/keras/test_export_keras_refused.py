# SPDX-License-Identifier: Apache-2.0
"""Models of Keras that have no exact counterpart: what the message says."""

import keras
import pytest
from keras import layers as L
from keras_models import I, functional, sequential, shaken

from gru_engine.export.common import ExportError
from gru_engine.export.keras import export


@pytest.fixture(autouse=True)
def _fresh_names():
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)


# ---- what is refused


@keras.saving.register_keras_serializable("own")
def halved(x):
    return x / 2


def halved_again(x):
    return x / 2


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda x: L.LayerNormalization(axis=1)(x), "LayerNormalization .*: a normalisation is over axis 1, time"),
        (lambda x: L.LayerNormalization(axis=[1, 2])(x), "LayerNormalization .*: a normalisation is over axis 1, time"),
        (lambda x: L.GRU(3)(L.ZeroPadding1D(1)(x)), "GRU .*"),
        (lambda x: L.Conv1DTranspose(2, 3)(x), "Conv1DTranspose .*: it makes more steps"),
        (lambda x: L.LSTM(3)(x), "LSTM 'lstm': of the recurrent layers only GRUs are supported"),
        (lambda x: L.Bidirectional(L.LSTM(3))(x), "Bidirectional 'bidirectional': it wraps LSTM"),
        (lambda x: L.RNN(L.LSTMCell(3))(x), "RNN 'rnn': its cell LSTMCell 'lstm_cell' is not supported"),
        (lambda x: L.RNN([L.GRUCell(3), L.SimpleRNNCell(3)])(x), "its cell SimpleRNNCell"),
        (lambda x: L.Dot(axes=2)([x, x]), "Dot 'dot': it multiplies along axis 2 of"),
        (lambda x: L.ZeroPadding1D(2)(x), "4 steps of padding .2 before, 2 behind. make the sequence longer"),
        (lambda x: L.UnitNormalization()(x), "UnitNormalization .* are not supported"),
        (lambda x: L.Dense(3, activation=halved)(x), "Dense 'dense': the activation 'own>halved' is a function of its own"),
        (lambda x: L.GRU(3, activation=halved_again)(x), "GRU 'gru': the activation .*halved_again' is a function of its own"),
        (lambda x: L.Dropout(0.5)(x, training=True), "Dropout 'dropout': it is called with training=True"),
        (lambda x: L.BatchNormalization()(x, training=True), "it is called with training=True"),
        (lambda x: L.GRU(3, dropout=0.5)(x, training=True), "it is called with training=True"),
        (lambda x: L.BatchNormalization(axis=1)(x), "BatchNormalization .*: it acts along axis 1, which is the time"),
        (lambda x: L.Softmax(axis=1)(x), "a softmax over time is supported as the weights of a sum over time"),
        (lambda x: L.Concatenate(axis=1)([x, x]), "Concatenate 'concatenate': it joins values along the time"),
        (lambda x: L.Dense(2)(L.Reshape((7 * I,))(x)), "Dense 'dense': axis 1 is time x 5 features in .*, expected features"),
        (lambda x: L.GRU(3)(L.Embedding(4, 3)(x[..., 0])), "but there is an Embedding, which reads tokens"),
        (lambda x: L.GRU(3)(L.Reshape((-1, 3))(L.GRU(6)(x))), "GRU 'gru.*': it reads .*, but its input is .batch, 2 features"),
        (lambda x: L.GRU(4)(x, initial_state=L.GRU(4)(x)), "GRU .*: the initial state of a GRU is computed from the input"),
        (lambda x: L.PReLU()(x), "PReLU 'p_re_lu': a constant that is combined with .* differs along the time axis"),
    ],
)  # fmt: skip
def test_refusals(do, message):
    model = shaken(functional(do, shape=(7, I)))
    with pytest.raises(ExportError, match=message):
        export(model)


def test_inputs_that_are_refused():
    a, h = keras.Input((None, I), name="a"), keras.Input((3,), name="h")
    model = keras.Model([a, h], [L.GRU(3, return_sequences=True)(a, initial_state=h), L.Dense(2)(h)])
    with pytest.raises(ExportError, match=r"has the inputs 'a' .*, 'h' of shape \[None, 3\]; 'h' has no time axis"):
        export(model)
    model = keras.Model([a, h], [L.GRU(3)(a, initial_state=h), L.GRU(3)(a, initial_state=h)])
    with pytest.raises(ExportError, match="two GRUs start from the same state"):
        export(model)


def test_models_that_are_refused(tmp_path):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.gru = L.GRU(3)

        def call(self, x):
            return self.gru(x)

    with pytest.raises(ExportError, match=r"Own .* was never called, so the shape of its input is not known"):
        export(Own())
    with pytest.raises(ExportError, match="is not built: give it an Input"):
        export(keras.Sequential([L.GRU(3)]))
    with pytest.raises(TypeError, match="model must be a model of Keras or the path of a file, got GRU"):
        export(L.GRU(3))
    model = sequential(L.GRU(3))
    model.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ExportError, match="holds weights, but not the model that they belong to"):
        export(tmp_path / "m.weights.h5")
    with pytest.raises(FileNotFoundError):
        export(tmp_path / "none.keras")
