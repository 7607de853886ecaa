# SPDX-License-Identifier: Apache-2.0
"""The command line that exports a live Flax module and compares it with Flax."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from command_lines import load_tool

import gru_engine as ge

TOOL = Path(__file__).parents[2] / "tools" / "export_flax.py"

MODELS = """
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx


def sequential():
    rngs = nnx.Rngs(0)
    cell = nnx.GRUCell(4, 5, rngs=rngs)
    return nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.relu, nnx.RNN(cell), nnx.Linear(5, 2, rngs=rngs))


def tokens():
    module = nn.Sequential([nn.Embed(7, 4), nn.RNN(nn.GRUCell(5)), nn.Dense(3), nn.log_softmax])
    return module, module.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))


class Own(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.rnn, self.head = nnx.RNN(nnx.GRUCell(3, 5, rngs=rngs)), nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(self.rnn(x)[:, -1])
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "flax_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = load_tool("export_flax")
    return lambda *arguments: CliRunner().invoke(module.main, ["m.gru", "--factory", *arguments])


@pytest.mark.parametrize("name", ["sequential", "tokens"])
def test_factory(run, tmp_path, name):
    result = run(f"flax_models:{name}")
    assert result.exit_code == 0, result.output
    assert "engine and Flax: difference" in result.output
    assert ge.load(tmp_path / "m.gru").metadata["source"]["factory"] == f"flax_models:{name}"


def test_a_class_of_ones_own_is_compared(run, tmp_path):
    result = run("flax_models:Own")
    assert result.exit_code == 1 and "is a class of its own" in result.output
    result = run("flax_models:Own", "--layers", "gru(rnn/cell) linear(head)")
    assert result.exit_code == 1 and "the outputs have the shapes" in result.output
    result = run("flax_models:Own", "--layers", "gru(rnn/cell) tanh last linear(head)")
    assert result.exit_code == 1 and "is accepted" in result.output
    assert not (tmp_path / "m.gru").exists()
    result = run("flax_models:Own", "--layers", "gru(rnn/cell) last linear(head)")
    assert result.exit_code == 0, result.output
