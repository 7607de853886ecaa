# SPDX-License-Identifier: Apache-2.0
"""The command lines of the exporters of named arrays: every example of their docstrings, files, and errors."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import gru_engine as ge
from gru_engine import format
from gru_engine.export import flax, gru4rec, haiku, rtneural, tf1
from gru_engine.export.arrays import flatten, from_arrays
from gru_engine.export.common import random_inputs

from .command_lines import load_tool

TOOLS = Path(__file__).parents[1] / "tools"
NAMES = ["arrays", "flax", "gru4rec", "haiku", "rtneural", "tf1"]

I, H, V = 3, 4, 7


def tool(name):
    return load_tool(f"export_{name}").main


def run(name, *arguments):
    return CliRunner().invoke(tool(name), list(map(str, arguments)))


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(0, 0.5, shape).astype(np.float32)


HAIKU = {
    "gru": {"w_i": draw(I, 3 * H), "w_h": draw(H, 3 * H), "b": draw(3 * H)},
    "linear": {"w": draw(H, 2), "b": draw(2)},
}
TF1 = {f"rnn/multi_rnn_cell/cell_0/gru_cell/{name}": array for name, array in {
    "gates/kernel": draw(I + H, 2 * H), "gates/bias": draw(2 * H),
    "candidate/kernel": draw(I + H, H), "candidate/bias": draw(H),
}.items()} | {"dense/kernel": draw(H, 2), "dense/bias": draw(2),
       "dense/kernel/Adam": draw(H, 2), "global_step": np.int64(3)}  # fmt: skip
FLAX = {"params": {"rnn": {"cell": {
    "dense_i": {"kernel": draw(I, 3 * H), "bias": draw(3 * H)}, "dense_h": {"kernel": draw(H, 3 * H)},
}}, "head": {"kernel": draw(H, 2), "bias": draw(2)}}}  # fmt: skip
GRU4REC = {
    "Wx0": draw(H, 3 * H),
    "Wrz0": draw(H, 2 * H),
    "Wh0": draw(H, H),
    "Bh0": draw(3 * H),
    "Wy": draw(V, H),
    "By": draw(V, 1),
}
RTNEURAL = {"gru.weight_ih_l0": draw(3 * H, I), "gru.weight_hh_l0": draw(3 * H, H), "gru.bias_ih_l0": draw(3 * H),
            "gru.bias_hh_l0": draw(3 * H), "dense.weight": draw(2, H), "dense.bias": draw(2)}  # fmt: skip
ARRAYS = {"enc_w": draw(3 * H, I), "enc_u": draw(3 * H, H), "enc_b": draw(3 * H), "out_w": draw(2, H), "out_b": draw(2)}
WORDS = "gru(W=enc_w, U=enc_u, b_x=enc_b, gates=zrn, reset=before) last linear(W=out_w, b=out_b) softmax"


@pytest.fixture
def source(tmp_path):
    """For each tool a file and the options that go with it, and the network that should come out."""

    def npz(name, tree):
        np.savez(tmp_path / f"{name}.npz", **flatten(tree, separator="/"))
        return tmp_path / f"{name}.npz"

    path = tmp_path / "rtneural.json"
    path.write_text(json.dumps({name: array.tolist() for name, array in RTNEURAL.items()}))
    flax_words, tf1_words = (
        "gru(rnn/cell) tanh linear(head) log_softmax",
        "gru(rnn/multi_rnn_cell) last linear(dense) softmax",
    )
    return {
        "arrays": ([npz("a", ARRAYS), "--layers", WORDS], from_arrays(ARRAYS, WORDS)),
        "flax": ([npz("f", FLAX), "--layers", flax_words], flax.from_params(FLAX, flax_words)),
        "gru4rec": (
            [npz("g", GRU4REC), "--hidden-act", "elu-0.5", "--final-act", "softmax"],
            gru4rec.from_parameters(GRU4REC, hidden_act="elu-0.5", final_act="softmax"),
        ),
        "haiku": ([npz("h", HAIKU)], haiku.from_params(HAIKU)),
        "rtneural": (
            [path, "--layers", "gru(gru) linear(dense) tanh"],
            rtneural.from_json(path, "gru(gru) linear(dense) tanh"),
        ),
        "tf1": ([npz("t", TF1), "--layers", tf1_words], tf1.from_variables(TF1, tf1_words)),
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_written(tmp_path, source, name):
    (file, *options), net = source[name]
    metadata = tmp_path / "meta.json"
    metadata.write_text('{"letters": "abc"}')
    out = tmp_path / "model.gru"
    result = run(name, file, out, *options, "--metadata", metadata)
    assert result.exit_code == 0, result.output
    assert "engine and float64 reference: difference" in result.output
    assert "output: " in result.output
    model = ge.load(out)
    assert model.metadata["letters"] == "abc"
    assert Path(file).name in model.metadata["source"].values()
    assert len(format.read(out).golden) == 2
    x = (
        np.random.default_rng(0).standard_normal((2, 9, I)).astype(np.float32)
        if model.input_size
        else np.arange(6)[None] % V
    )
    assert model.run(x).tobytes() == ge.load(net.tobytes()).run(x).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_messages(tmp_path, source, name):
    (file, *options), _ = source[name]
    out = tmp_path / "no.gru"
    nothing = tmp_path / "nothing.npz"
    np.savez(nothing, a=draw(3))
    no_object = tmp_path / "list.json"
    no_object.write_text("[1]")
    if name == "rtneural":
        nothing.write_text('{"a": [1, 2, 3]}')
    wrong = [
        ([nothing, out], ""),
        ([file, out, *options, "--threshold", "1e-12"], "at most 1e-12 is accepted"),
        ([file, out, *options, "--metadata", no_object], "must be a JSON object, got list"),
    ]
    for arguments, message in wrong:
        result = run(name, *arguments)
        assert result.exit_code == 1, result.output
        assert "Error: " in result.output and message in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert not out.exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_weights_of_fewer_bits(tmp_path, source, name, dtype):
    """The checks are those of float32; the golden vectors allow what the type changes, and no more than needed."""
    (file, *options), net = source[name]
    out = tmp_path / "model.gru"
    result = run(name, file, out, *options, "--dtype", dtype)
    assert result.exit_code == 0, result.output
    assert f"{dtype} and float32 weights: difference " in result.output
    assert f"golden vectors: {dtype} weights may differ from the float64 reference by " in result.output
    assert out.read_bytes() != net.tobytes()
    x = random_inputs(net)
    assert ge.load(out).run(x).tobytes() == ge.load(net.tobytes(dtype)).run(x).tobytes()
    assert all(case.tolerance > 0 for case in format.read(out).golden)


@pytest.mark.parametrize("name", ["cells", "keras", "onnx", "torch", *NAMES])
def test_types_that_there_are_not(tmp_path, name):
    """An option with a wrong value is a usage error: the exit code is that of click, and the possible values are listed."""
    file = tmp_path / "file"
    file.write_bytes(b"")
    options = ["--module", "a:b"] if name == "cells" else []
    result = run(name, file, tmp_path / "m.gru", *options, "--dtype", "int4")
    assert result.exit_code == 2, result.output
    assert "'int4' is not one of 'float32', 'bfloat16', 'float16', 'int8'" in result.output
    assert not (tmp_path / "m.gru").exists()


@pytest.mark.parametrize("name", [*NAMES, "cells"])
def test_help(name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    assert "Export " in result.output and "--metadata" in result.output


def test_arrays_left_over(tmp_path, source):
    (file, _, words), _ = source["arrays"]
    short = words.partition(" last")[0]
    result = run("arrays", file, tmp_path / "m.gru", "--layers", short)
    assert result.exit_code == 1
    assert "does not use out_w, out_b" in result.output
    result = run("arrays", file, tmp_path / "m.gru", "--layers", short, "--ignore-unused")
    assert result.exit_code == 0, result.output
    assert "not used: out_w, out_b" in result.output


def test_haiku_skip_connections(tmp_path):
    params = {"gru": HAIKU["gru"], "gru_1": {"w_i": draw(I + H, 6), "w_h": draw(2, 6), "b": draw(6)}}
    np.savez(tmp_path / "p.npz", **flatten(params, separator="/"))
    result = run("haiku", tmp_path / "p.npz", tmp_path / "m.gru", "--skip-connections")
    assert result.exit_code == 0, result.output
    assert "skip_connections(gru, gru_1): 3 -> 6" in result.output


def test_flax_takes_a_file_or_a_factory(tmp_path, source):
    (file, *_), _ = source["flax"]
    for arguments in ([file, tmp_path / "m.gru", "--factory", "a:b"], [tmp_path / "m.gru"], []):
        result = run("flax", *arguments)
        assert result.exit_code == 2
        assert "expected PARAMS OUT, or OUT alone with --factory" in result.output
    result = run("flax", tmp_path / "missing.npz", tmp_path / "m.gru")
    assert result.exit_code == 2 and "there is no file" in result.output
    result = run("flax", tmp_path / "m.gru", "--factory", "nowhere")
    assert "--factory 'nowhere' must be package.module:function" in result.output
    result = run("flax", tmp_path / "m.gru", "--factory", "no.such.module:f")
    assert "--factory no.such.module:f: No module named" in result.output


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("arrays", ["missing/model.gru"], "there is no such folder: 'missing'"),
        ("arrays", ["model.gru", "--threshold", "-1"], "-1.0 is not in the range x>=0"),
        (
            "arrays",
            ["model.gru", "--layers", "gru(gru) linaer(dense)"],
            "'linaer' is not known; known are embedding, gru,",
        ),
        ("arrays", ["model.gru", "--layer", "gru(gru)"], "No such option"),
        ("arrays", ["model.gru", "--dtype", "int4"], "'int4' is not one of 'float32', 'bfloat16', 'float16', 'int8'"),
        ("arrays", ["model.gru", "--metadata", "list.json"], "--metadata list.json must be a JSON object, got list"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, name, arguments, message):
    """Promise: whatever is wrong is a message of the command, no traceback, and no file is left."""
    monkeypatch.chdir(tmp_path)
    np.savez("model.npz", **RTNEURAL)
    Path("list.json").write_text("[1]")
    result = run(name, "model.npz", *arguments)
    assert result.exit_code in (1, 2) and not isinstance(result.exception, Exception), result.output
    assert message in " ".join(result.output.split())
    assert not list(tmp_path.glob("**/*.gru"))


def test_a_file_without_arrays(tmp_path):
    (tmp_path / "model.json").write_text("{}")
    result = run("rtneural", tmp_path / "model.json", tmp_path / "model.gru")
    assert result.exit_code == 1 and "there are no arrays to make a network of" in result.output


def test_a_missing_framework_is_named(tmp_path, monkeypatch):
    """Promise: a command that needs a framework says which, and how to get it."""
    monkeypatch.setitem(sys.modules, "torch", None)
    np.savez(tmp_path / "model.npz", **RTNEURAL)
    for module in [name for name in sys.modules if name.startswith("gru_engine.export.torch")]:
        monkeypatch.delitem(sys.modules, module)
    result = run("cells", tmp_path / "model.npz", tmp_path / "model.gru", "--module", "json:JSONDecoder")
    assert result.exit_code == 1 and "torch" in result.output and "pip install torch" in result.output, result.output
