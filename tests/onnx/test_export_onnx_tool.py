# SPDX-License-Identifier: Apache-2.0
"""The command line tools/export_onnx.py."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from command_lines import load_tool
from onnx_models import TBF, H, I, Model, O

import gru_engine as ge
from gru_engine.export import onnx_run
from gru_engine.export.onnx import trace
from gru_engine.read import read

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tests" / "data" / "onnx"


@pytest.fixture(scope="module")
def tool():
    return load_tool("export_onnx")


def run(tool, *arguments):
    return CliRunner().invoke(tool.main, [str(a) for a in arguments])


def test_export(tool, tmp_path):
    out = tmp_path / "m.gru"
    (tmp_path / "about.json").write_text(json.dumps({"words": ["a", "b"]}))
    result = run(tool, FILES / "torch_script_streaming.onnx", out, "--metadata", tmp_path / "about.json")
    assert result.exit_code == 0, result.output
    assert "x: [batch, time, 5 features], input\n" in result.output
    assert "h: [2 features, batch, 6 features], initial state: state= when the model runs\n" in result.output
    assert "engine and ONNX Runtime: difference" in result.output
    assert f"{out}: {out.stat().st_size} bytes" in result.output
    model = ge.load(out)
    assert model.metadata["words"] == ["a", "b"]
    source = model.metadata["source"]
    assert source["framework"] == "ONNX"
    assert source["model"] == "torch_script_streaming.onnx"
    assert source["producer"].startswith("pytorch")
    assert source["inputs"] == {"x": "x", "h": "state"}
    from gru_engine.__main__ import main

    assert main(["verify", str(out)]) in (None, 0)


@pytest.mark.parametrize("name", ["torch_script_policy", "torch_script_tagger", "torch_script_packed", "keras_fixed"])
def test_every_kind_of_model(tool, tmp_path, name):
    result = run(tool, FILES / f"{name}.onnx", tmp_path / "m.gru")
    assert result.exit_code == 0, result.output
    lengths = [len(case.x) for case in read(tmp_path / "m.gru").golden]
    assert lengths == ([7] if name == "keras_fixed" else [24, 5])


def test_without_onnx_runtime(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_run.importlib.util, "find_spec", lambda name: None)
    result = run(tool, FILES / "torch_script_last.onnx", tmp_path / "m.gru")
    assert result.exit_code == 0, result.output
    assert "engine and onnx in float64: difference" in result.output


def test_outputs_and_axes(tool, tmp_path):
    m = Model(*TBF)
    y = m.flat(m.gru(m.x)[0])
    model = m.build(m.node("MatMul", y, m.weight(H, O)), m.node("Sigmoid", y))
    onnx.save(model, tmp_path / "m.onnx")
    name = model.graph.output[1].name
    result = run(tool, tmp_path / "m.onnx", tmp_path / "m.gru", "--outputs", name, "--axes", "TBF")
    assert result.exit_code == 0, result.output
    assert list(ge.load(tmp_path / "m.gru").outputs) == [name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--outputs", "p"], "the model has no output 'p'"),
        (["--axes", "BT"], "axes 'BT' do not describe an input of shape"),
        (["--threshold", "1e-12"], "at most 1e-12 is accepted"),
        (["--metadata", "{about}"], "is not JSON"),
    ],
)
def test_errors(tool, tmp_path, arguments, message):
    (tmp_path / "about").write_text("no JSON")
    arguments = [a.format(about=tmp_path / "about") for a in arguments]
    result = run(tool, FILES / "torch_script_last.onnx", tmp_path / "m.gru", *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "m.gru").exists()


def test_what_is_refused_is_not_written(tool, tmp_path):
    result = run(tool, FILES / "keras_before.onnx", tmp_path / "m.gru")
    assert result.exit_code == 1
    assert "Error: " in result.output
    assert not (tmp_path / "m.gru").exists()
    (tmp_path / "m.onnx").write_bytes(b"nonsense")
    assert "cannot be read as an ONNX model" in run(tool, tmp_path / "m.onnx", tmp_path / "m.gru").output


def test_running_the_model():
    traced = trace(FILES / "torch_script_fixed.onnx").with_runtime()
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    y, state = traced.run(x)
    assert y.shape == (3, 3)
    assert state.shape == (3, 6)
    with pytest.raises(ValueError, match="the model takes sequences of 4 steps, got 5"):
        traced.run(np.zeros((1, 5, 5)))
    m = Model("t", 4, I)
    traced = trace(m.build(m.gru(m.x)[0])).with_runtime()
    x = np.random.default_rng(0).standard_normal((6, 9, I))
    np.testing.assert_allclose(traced.run(x)[0], ge.reference.run(traced.network, x), atol=1e-5)
