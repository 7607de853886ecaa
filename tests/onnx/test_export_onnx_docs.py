# SPDX-License-Identifier: Apache-2.0
"""The code of docs/export/ONNX.md."""

import textwrap
from pathlib import Path

from documentation import ROOT, run_blocks, text_of

import gru_engine as ge
from gru_engine.export.onnx import trace


def test_code(tmp_path, monkeypatch, capsys):
    """Promise: the code of the page runs, both ways give the same network, and what is named beside it is there."""
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes((ROOT / "tests/data/onnx/torch_script_streaming.onnx").read_bytes())
    Path("tagger.onnx").write_bytes((ROOT / "tests/data/onnx/torch_script_inputs.onnx").read_bytes())
    names = run_blocks("docs/export/ONNX.md")
    assert textwrap.indent(capsys.readouterr().out, "    ") in text_of("docs/export/ONNX.md")
    assert list(ge.load("tagger.gru").inputs) == ["words", "shape"]
    net, traced = names["net"], trace("model.onnx")
    assert isinstance(net, ge.Network) and traced.network.same(net)
    assert traced.notes() and traced.inputs() is not None
    traced.save("model.gru")
    assert ge.load("model.gru").output_size == net.output_size
