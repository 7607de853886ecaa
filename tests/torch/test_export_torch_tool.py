# SPDX-License-Identifier: Apache-2.0
"""Chains of a checkpoint beside PyTorch's own layers, and the command line where PyTorch is installed."""

import importlib
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from command_lines import load_tool
from torch import nn

import gru_engine as ge
from gru_engine.__main__ import main as command_line
from gru_engine.export import chain, common
from gru_engine.export.checkpoint import read_arrays
from gru_engine.export.torch_chain import run_chain

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
I, H, O, V = 6, 10, 4, 13


@pytest.mark.parametrize(
    "text",
    [
        "embedding(e) gru(g) linear(f) log_softmax",
        "embedding(e) gru(g, h0=h0) summary linear(f) tanh",
        "embedding(e) gru(g) last batchnorm(n, eps=0.01) linear(f) softplus leaky_relu(0.3) softsign",
        "embedding(e) gru(c) linear(d) hard_sigmoid(0.3, 0.4) scaled_tanh(2, 3) elu(0.5) affine(2, 1) silu thresholded_relu(0.1)",
        "one_hot gru(o) relu sigmoid softmax",
        "one_hot linear(v) gru(g) gru(k)",
    ],
)
def test_chains_give_what_torch_gives(tmp_path, text):
    torch.manual_seed(0)
    module = nn.ModuleDict(
        {
            "e": nn.Embedding(V, I),
            "g": nn.GRU(I, H, 2, bidirectional=True),
            "n": nn.BatchNorm1d(2 * H),
            "f": nn.Linear(2 * H, O),
            "c": nn.GRUCell(I, H),
            "d": nn.Linear(H, O, bias=False),
            "o": nn.GRU(V, H),
            "v": nn.Linear(V, I),
            "k": nn.GRU(2 * H, H),
        }
    )
    module["n"].running_mean.normal_()
    module["n"].running_var.uniform_(0.5, 2)
    torch.save({**module.state_dict(), "h0": torch.randn(4, 1, H)}, tmp_path / "m.pt")
    arrays, words = read_arrays(tmp_path / "m.pt"), chain.parse(text)
    built = chain.build(words, arrays)
    comparisons = common.save(built.network, tmp_path / "m.gru", run_chain(words, arrays), "PyTorch")
    assert all(comparison.relative < 2e-6 for comparison in comparisons)


@pytest.fixture(scope="module")
def tool():
    return load_tool("export_torch")


MODEL = """
import torch
from torch import nn

class Tagger(nn.Module):
    def __init__(self, vocab, hidden=4):
        super().__init__()
        self.embedding = nn.Embedding(vocab, 3)
        self.gru = nn.GRU(3, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 2)

    def forward(self, x, h=None):
        y, h = self.gru(self.embedding(x), h)
        return torch.softmax(self.head(y), -1), h
"""


@pytest.fixture
def tagger(tmp_path, monkeypatch):
    (tmp_path / "tagger_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("tagger_model").Tagger(V, 5)
    torch.save(module.state_dict(), "tagger.pt")
    return ["tagger.pt", "tagger.gru", "--module", "tagger_model:Tagger"]


def test_command_line_exports_modules(tool, tagger):
    arguments = [*tagger, "--args", f"{V}, hidden=5"]
    result = CliRunner().invoke(tool.main, arguments)
    assert result.exit_code == 0, result.output
    assert "input int64[B,T] (guessed from the first layer; --input says otherwise)" in result.output
    assert "engine and PyTorch: difference" in result.output
    digest = ge.load("tagger.gru").digest
    result = CliRunner().invoke(
        tool.main, [*arguments, "--input", "int64[B,T]", "--state", "float32[1,B,5]", "--outputs", "0"]
    )
    assert result.exit_code == 0, result.output
    assert "argument 1: [1, batch, 5 features], initial state" in result.output
    assert ge.load("tagger.gru").digest == digest
    result = CliRunner().invoke(
        tool.main, ["tagger.pt", "tagger.gru", "--layers", "embedding(embedding) gru(gru) linear(head) softmax"]
    )
    assert result.exit_code == 0, result.output
    assert ge.load("tagger.gru").digest == digest


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_command_line_writes_weights_of_fewer_bits(tool, tagger, dtype):
    result = CliRunner().invoke(tool.main, [*tagger, "--args", f"{V}, hidden=5", "--dtype", dtype])
    assert result.exit_code == 0, result.output
    assert "engine and PyTorch: difference" in result.output
    assert f"{dtype} and float32 weights: difference" in result.output
    assert f"golden vectors: {dtype} weights may differ from PyTorch by" in result.output
    assert command_line(["verify", "tagger.gru"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--args", "13"], "the checkpoint does not fit tagger_model:Tagger"),
        (["--args", "vocab=13, hidden=5, depth=2"], "unexpected keyword argument 'depth'"),
        (["--args", "open('x')"], "are not Python literals"),
        (["--module", "tagger_model"], "must be package.module:Class"),
        (["--module", "tagger_model:Parser"], "Parser"),
        (["--module", "no_such_module:A"], "No module named 'no_such_module'"),
        (["--args", "13, 5", "--input", "int64(B,T)"], "does not describe a tensor"),
        (["--args", "13, 5", "--input", "int64[N,T]"], "does not describe a tensor"),
        (["--args", "13, 5", "--outputs", "5"], "there is no value 5"),
    ],
)
def test_command_line_errors(tool, tagger, arguments, message):
    result = CliRunner().invoke(tool.main, [*tagger, *arguments])
    assert result.exit_code == 1
    assert message in result.output
    assert not Path("tagger.gru").exists()
