# SPDX-License-Identifier: Apache-2.0
"""A model of Keras makes the same bytes of a network as every other framework, live and from both kinds of file."""

import keras
import numpy as np
import pytest
from keras import layers as L
from same_weights import HIDDEN, INPUTS, OUTPUTS, check

from gru_engine.export.keras import from_model


def model(net):
    gru = L.GRU(HIDDEN, return_sequences=True, reset_after=net.reset == "after")
    made = keras.Sequential([keras.Input((None, INPUTS)), gru, L.Dense(OUTPUTS)])
    b = np.stack([net.ordered("b_x", "zrn"), net.ordered("b_h", "zrn")])
    gru.set_weights([net.ordered("W", "zrn").T, net.ordered("U", "zrn").T, b if net.reset == "after" else b[0]])
    made.layers[-1].set_weights([net.W_y.T, net.b_y])
    return made


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("kind", ["live", ".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:.*HDF5 file.*")
def test_same_weights(tmp_path, reset, kind):
    def exporter(net):
        if kind == "live":
            return from_model(model(net))
        path = tmp_path / f"model{kind}"
        model(net).save(path)
        return from_model(path)

    check(exporter, reset)
