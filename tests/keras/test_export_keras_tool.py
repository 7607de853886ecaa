# SPDX-License-Identifier: Apache-2.0
"""The command line where Keras is installed."""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from command_lines import load_tool
from keras import layers as L

import gru_engine as ge
from gru_engine.export import keras_check

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    return load_tool("export_keras")


@pytest.fixture
def model(tmp_path):
    model = keras.Sequential(
        [keras.Input((29, 13)), L.Masking(), L.GRU(20, activation="linear", reset_after=False), L.Dense(1, "sigmoid")]
    )
    model.save(tmp_path / "m.keras")
    return model


def test_command_line_compares_with_keras(tool, model, tmp_path):
    result = CliRunner().invoke(tool.main, [str(tmp_path / "m.keras"), str(tmp_path / "m.gru")])
    assert result.exit_code == 0, result.output
    for line in (
        "float64 reference and Keras: difference",
        "engine and Keras: difference",
        "engine with lengths= and Keras",
    ):
        assert line in result.output
    x = np.random.default_rng(0).normal(size=(2, 29, 13)).astype(np.float32)
    np.testing.assert_allclose(ge.load(tmp_path / "m.gru").run(x), np.asarray(model(x)), atol=1e-6)


def test_nothing_is_written_where_keras_differs(tool, model, tmp_path, monkeypatch):
    run = keras_check.Running.outputs_for
    monkeypatch.setattr(keras_check.Running, "outputs_for", lambda self, x: run(self, x) * 1.001)
    result = CliRunner().invoke(tool.main, [str(tmp_path / "m.keras"), str(tmp_path / "m.gru")])
    assert result.exit_code == 1
    assert "engine with lengths= and Keras with its mask: difference" in result.output
    assert "at most 1e-05 is accepted" in result.output
    assert not (tmp_path / "m.gru").exists()


def test_files_of_keras_2_are_not_compared_with_keras_3():
    if importlib.util.find_spec("tf_keras") is None:
        assert keras_check.package_for("2.15.0") is None
    assert keras_check.package_for("3.1.0") is keras
