# SPDX-License-Identifier: Apache-2.0
"""Models of Keras for tests, and their comparison with the networks made of them. It imports Keras."""

import warnings

import keras
import numpy as np
from keras import layers as L

import gru_engine as ge
from gru_engine.export import common
from gru_engine.export.keras import export
from gru_engine.export.keras_check import compare_padded, inputs, run_beside
from gru_engine.export.keras_model import to_numpy

TOLERANCE = 3e-6  # of two float32 sides, relative to the largest output, after 50 steps
I, H, O, V = 5, 6, 4, 9


def shaken(model, scale=0.5):
    """The model with random numbers everywhere, also where Keras starts from zeros and ones."""
    random = np.random.default_rng(3)
    for weight in model.weights:
        if "rnn_state" in weight.path:
            continue
        value = to_numpy(weight)
        if "variance" in weight.path:
            new = random.uniform(0.5, 2, value.shape)
        elif "count" in weight.path:
            continue
        else:
            fan = value.shape[0] if value.ndim > 1 else 1
            new = random.normal(0, 1.2 / np.sqrt(max(fan, 1)) if value.ndim > 1 else scale, value.shape)
        weight.assign(new.astype(np.float32))
    return model


def check(model, tmp_path=None, tolerance=TOLERANCE, **options):
    """The network of a model, beside Keras and the reference; from both kinds of file it must be the same."""
    shaken(model)
    exported = export(model, **options)
    net = exported.network
    if tmp_path is not None:
        for name in ("m.keras", "m.h5"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.save(tmp_path / name)
            assert export(tmp_path / name, **options).network.same(net), name
    x, running = inputs(exported), run_beside(exported, model)
    y_keras, y_reference = running.outputs_for(x), ge.reference.run(net, x)
    engine = ge.load(net.tobytes())
    common.compare("float64 reference and Keras", y_reference, y_keras, tolerance)
    common.compare("engine and Keras", np.asarray(engine.run(x)), y_keras, tolerance)
    compare_padded(running, engine.run, tolerance)
    return exported


def sequential(*inner, shape=(None, I), **options):
    return keras.Sequential([keras.Input(shape, **options), *inner])


def tokens(*inner, mask_zero=True):
    return sequential(L.Embedding(V, I, mask_zero=mask_zero), *inner, shape=(None,))


def functional(do, shape=(None, I), states=(), **options):
    x = keras.Input(shape, **options)
    given = [keras.Input((units,)) for units in states]
    return keras.Model([x, *given] if given else x, do(x, *given))
