# SPDX-License-Identifier: Apache-2.0
"""Files of several versions of Keras, read without Keras: beside the outputs that were kept with them; and bad files."""

import io
import json
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import gru_engine as ge
from gru_engine.export import common
from gru_engine.export.common import ExportError
from gru_engine.export.keras import export, from_model, lengths
from gru_engine.export.keras_model import Spec, make_spec, read
from gru_engine.export.keras_recurrent import cell_arrays, reset_of

from .command_lines import load_tool

DATA = Path(__file__).parent / "data" / "keras"
FILES = sorted(path.name for path in DATA.iterdir() if path.suffix != ".npz")
TOLERANCE = 2e-6


def expected(name):
    with np.load(DATA / f"{Path(name).stem}.npz") as file:
        kept = dict(file)
    several = {key[2:]: kept.pop(key) for key in list(kept) if key.startswith("x.")}
    return {"x": several, **kept} if several else kept


@pytest.mark.parametrize("name", FILES)
def test_files(name):
    exported, kept = export(DATA / name), expected(name)
    net, y = exported.network, kept["y"]
    engine = ge.load(net.tobytes())
    given = {} if "lengths" not in kept else {"lengths": kept["lengths"]}
    if given:
        np.testing.assert_array_equal(lengths(kept["x"], exported.padding), kept["lengths"])
    common.compare("reference and Keras", ge.reference.run(net, kept["x"], **given), y, TOLERANCE)
    common.compare("engine and Keras", engine.run(kept["x"], **given), y, TOLERANCE)
    paddings = {"masked": -1, "tokens": 0, "inputs": {"words": 0, "shape": -1}}
    assert exported.padding == paddings.get(Path(name).stem.partition("_")[2])


@pytest.mark.parametrize("name", sorted({Path(name).stem for name in FILES}))
def test_both_kinds_of_file_give_the_same_network(name):
    nets = [from_model(DATA / file) for file in FILES if Path(file).stem == name]
    assert all(net.same(nets[0]) for net in nets)


def test_the_version_decides_the_slope_of_hard_sigmoid(tmp_path):
    def slopes(net):
        return {layer.gate_activation.parameters[0] for layer in net.layers if layer.operation == "gru"
                if layer.gate_activation.name == "hard_sigmoid"}  # fmt: skip

    assert slopes(from_model(DATA / "v22_gru.h5")) == slopes(from_model(DATA / "v2_masked.keras")) == {0.2}
    assert slopes(from_model(DATA / "v3_masked.keras")) == slopes(from_model(DATA / "v3_masked.h5")) == {1 / 6}
    shutil.copy(DATA / "v22_gru.h5", tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        file.attrs["keras_version"] = "3.0.0"
    assert slopes(from_model(tmp_path / "m.h5")) == {1 / 6}


def test_several_inputs_and_outputs_have_the_models_names():
    net = from_model(DATA / "v3_inputs.keras")
    assert net.inputs == {"words": ge.TokenInput(7), "shape": slice(0, 2)}
    assert net.outputs == {"tag": slice(0, 3), "score": slice(3, 4)}


def test_float64_is_kept():
    net = from_model(DATA / "v2_float64.h5")
    kept = expected("v2_float64.h5")
    assert kept["y"].dtype == np.float64
    common.compare("reference and Keras", ge.reference.run(net, kept["x"]), kept["y"], 1e-12)


def test_kept_initial_state_of_streams():
    net = from_model(DATA / "v3_stateful.keras")
    assert not net.per_sequence and net.causal
    x, y = expected("v3_stateful")["x"], expected("v3_stateful")["y"]
    stream = ge.load(net.tobytes()).stream()
    np.testing.assert_allclose([stream.step(frame) for frame in x[0]], y[0], atol=2e-6)


# ---- weights


def cell(bias, kind="GRUCell", **config):
    random = np.random.default_rng(0)
    arrays = {"kernel": random.normal(size=(3, 6)), "recurrent_kernel": random.normal(size=(2, 6))}
    if bias is not None:
        arrays["bias"] = random.normal(size=bias)
    return Spec(kind, "", "g", {"units": 2, **config}, arrays=arrays)


def test_the_shape_of_the_bias_decides_the_reset_mode():
    assert reset_of(cell((2, 6))) == "after"
    assert reset_of(cell((6,))) == "before"
    assert reset_of(cell(None, reset_after=True)) == "after"
    assert reset_of(cell(None, reset_after=False)) == reset_of(cell(None)) == "before"
    assert reset_of(cell((12,), "CuDNNGRU")) == "after"
    with pytest.raises(ExportError, match=r"GRUCell 'g' has reset_after=True, but a bias of shape \[6\]"):
        reset_of(cell((6,), reset_after=True))
    with pytest.raises(ExportError, match=r"has reset_after=False, but a bias of shape \[2, 6\]"):
        reset_of(cell((2, 6), reset_after=False))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (cell((2, 9)), r"bias has the shape \[2, 9\], expected \[2, 6\]"),
        (cell((7,)), r"bias has the shape \[7\], expected \[6\]"),
        (cell((6,), "CuDNNGRU"), r"bias has the shape \[6\], expected \[12\]"),
        (cell((6,), units=4), "has 4 units, but arrays for 2"),
    ],
)
def test_weights_that_do_not_fit(spec, message):
    with pytest.raises(ExportError, match=message):
        cell_arrays(spec)


# ---- bad files


def archive(path, config, weights=None, version="3.0.0"):
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        for name, array in (weights or {}).items():
            file[name] = array
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        out.writestr("metadata.json", json.dumps({"keras_version": version}))
        out.writestr("model.weights.h5", data.getvalue())
    return path


def entry(kind, name, **config):
    return {"module": "keras.layers", "class_name": kind, "config": {"name": name, **config}, "registered_name": None}


def sequential(*layers, shape=(None, None, 3)):
    first = entry("InputLayer", "x", batch_shape=list(shape))
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": [first, *layers]}}


DENSE = entry("Dense", "d", units=2, activation="linear", use_bias=True)
W = {"layers/dense/vars/0": np.ones((3, 2), np.float32), "layers/dense/vars/1": np.ones(2, np.float32)}


def test_the_smallest_file(tmp_path):
    net = from_model(archive(tmp_path / "m.keras", sequential(DENSE), W))
    np.testing.assert_array_equal(ge.reference.run(net, np.ones((1, 2, 3))), np.full((1, 2, 2), 4.0))


@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        ("{", W, "config.json is not JSON"),
        ({"class_name": "Sequential", "config": {"layers": -1}}, W, "the configuration is damaged: TypeError"),
        ([], W, r"a layer is described by \[\], which has no class_name"),
        ({"class_name": "Sequential", "config": 3}, W, "a layer Sequential is described by 3, which is no configuration"),
        (entry("Own", "m"), W, "Own 'm' is a model of a class of its own"),
        (sequential(DENSE), {}, r"Dense 'd' has 0 arrays at layers/dense/vars, expected 2 \(kernel, bias\)"),
        (sequential(DENSE), {"layers/dense/vars/0": W["layers/dense/vars/0"]}, "has 1 arrays"),
        (sequential(DENSE, shape=(None, None, None)), W, "the number of its features must be known"),
        (sequential(DENSE, shape=(None,)), W, r"the input of Sequential 's' has the shape \[None\]"),
        (sequential(DENSE, shape=(None, None, 4)), W, "Dense 'd': a matrix of 3 columns multiplies"),
        (sequential(entry("Odd", "o")), {}, "Odd 'o': layers of this class are not supported"),
        ({**sequential(DENSE), "registered_name": "mine>Net"}, W, "mine>Net 's' is a model of a class of its own"),
        ({**sequential(DENSE), "module": "mine"}, W, "mine>Sequential 's' is a model of a class of its own"),
        (sequential({**DENSE, "module": "mine"}), W, "mine>Dense 'd': it is a class of its own"),
        (sequential({**DENSE, "registered_name": "mine>Dense"}), W, "mine>Dense 'd': it is a class of its own"),
        (sequential(entry("Dense", "d", units=2, lora_rank=3)), W, "Dense 'd': it has a LoRA or quantised matrix"),
        (sequential(entry("Dense", "d", activation={"class_name": "__lambda__", "config": {}})), W, "is a function of its own"),
        (sequential({**DENSE, "config": {**DENSE["config"], "dtype": "int8_from_float32"}}), W, "quantised layers are not"),
        (sequential(entry("Activation", "a", activation="relu7")), {}, "the activation 'relu7' cannot be expressed exactly"),
        (sequential(entry("ReLU", "r", max_value=-1.0, negative_slope=0.0, threshold=0.0)), {}, "max_value=-1 must be above 0"),
        (sequential(entry("LeakyReLU", "l", negative_slope="x")), {}, "'x' is no number"),
        (sequential(entry("RNN", "r")), {}, "RNN 'r': it has no cell"),
        (sequential(entry("Bidirectional", "b", layer=None)), {}, "a layer is described by None"),
        (sequential(entry("TimeDistributed", "t")), {}, "TimeDistributed 't': it has no layer"),
        (sequential(entry("Subtract", "a")), {}, "Subtract 'a': it reads 1 values, expected 2"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path, config, weights, message):
    with pytest.raises(ExportError, match=message):
        from_model(archive(tmp_path / "m.keras", config, weights))


def test_files_of_another_kind(tmp_path):
    with pytest.raises(ExportError, match="is a folder"):
        read(tmp_path)
    (tmp_path / "a").write_bytes(b"hello")
    with pytest.raises(ExportError, match=r"is neither a \.keras file"):
        read(tmp_path / "a")
    (tmp_path / "a").write_text("{}")
    with pytest.raises(ExportError, match="holds no weights"):
        read(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(ExportError, match="is not a readable zip archive"):
        read(tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a", "w") as file:
        file.writestr("b", "c")
    with pytest.raises(ExportError, match="no model of Keras: it has b"):
        read(tmp_path / "a")
    (tmp_path / "a").write_bytes((DATA / "v2_graph.h5").read_bytes()[:600])
    with pytest.raises(ExportError, match="is not a readable HDF5 file"):
        read(tmp_path / "a")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(ExportError, match="holds weights, but not the model"):
        read(tmp_path / "b.h5")
    with pytest.raises(TypeError, match="model must be a model of Keras or the path of a file, got int"):
        from_model(3)


def changed(tmp_path, change, name="v2_masked.h5"):
    shutil.copy(DATA / name, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        change(file)
    return tmp_path / "m.h5"


def test_damaged_lists_of_weights(tmp_path):
    def fewer(file):
        file["model_weights/gru_1"].attrs["weight_names"] = list(file["model_weights/gru_1"].attrs["weight_names"])[:2]

    names = json.loads(h5py.File(DATA / "v2_masked.h5").attrs["model_config"])
    gru = next(layer["config"]["name"] for layer in names["config"]["layers"] if layer["class_name"] == "GRU")
    assert gru == "gru_1"
    with pytest.raises(ExportError, match=r"GRU 'gru_1' has 2 arrays in the file .*, expected 3"):
        from_model(changed(tmp_path, fewer))

    def swapped(file):
        group = file["model_weights/gru_1"]
        group.attrs["weight_names"] = list(group.attrs["weight_names"])[::-1]

    with pytest.raises(ExportError, match=r"has the array '.*bias:0' where 'kernel' of GRU 'gru_1' was expected"):
        from_model(changed(tmp_path, swapped))

    def gone(file):
        del file["model_weights/gru_1"]

    with pytest.raises(ExportError, match="the file has no arrays of GRU 'gru_1'"):
        from_model(changed(tmp_path, gone))

    def old(file):
        file.attrs["keras_version"] = "1.2.2"

    with pytest.raises(ExportError, match=r"written by Keras 1.2.2; load it with Keras 2"):
        from_model(changed(tmp_path, old))


def mutated(value, random):
    """A configuration in which one thing is something else."""
    if isinstance(value, (dict, list)) and value and random.random() < 0.97:
        copied = dict(value) if isinstance(value, dict) else list(value)
        key = random.choice(list(copied)) if isinstance(copied, dict) else random.randrange(len(copied))
        if random.random() < 0.05:
            del copied[key]
        else:
            copied[key] = mutated(copied[key], random)
        return copied
    return random.choice(
        [None, -1, 0, 3, 2.5, "x", [], {}, [[]], True, ["d", 0, 0], {"class_name": "Dense", "config": {}}]
    )


@pytest.mark.parametrize("name", ["v2_graph.keras", "v3_graph.keras", "v3_masked.keras", "v2_tokens.keras"])
def test_damaged_configurations(tmp_path, name):
    random = Random(5)
    with zipfile.ZipFile(DATA / name) as file:
        content = {part: file.read(part) for part in file.namelist()}
    config = json.loads(content["config.json"])
    results = Counter()
    for _ in range(150):
        with zipfile.ZipFile(tmp_path / "m.keras", "w") as file:
            for part, data in content.items():
                file.writestr(part, json.dumps(mutated(config, random)) if part == "config.json" else data)
        try:
            from_model(tmp_path / "m.keras")
            results["exported"] += 1
        except ExportError as error:
            results["refused"] += bool(str(error))
    assert results["refused"] > 20 and results["exported"] > 5


def test_deep_nesting_is_refused():
    config = entry("Dense", "d")
    for _ in range(100):
        config = entry("TimeDistributed", "t", layer=config)
    with pytest.raises(ExportError, match="nested more than 64 deep"):
        make_spec(config)


# ---- the command line


@pytest.fixture(scope="module")
def tool():
    return load_tool("export_keras")


def test_command_line(tool, tmp_path, monkeypatch):
    import gru_engine.export.keras_check as keras_check

    monkeypatch.setattr(keras_check, "package_for", lambda version: None)
    (tmp_path / "about.json").write_text('{"classes": ["a"]}')
    arguments = [DATA / "v3_tokens.keras", tmp_path / "m.gru", "--metadata", tmp_path / "about.json"]
    result = CliRunner().invoke(tool.main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert "engine and float64 reference: difference" in result.output
    assert "steps of 0 at the end of a sequence are padding: lengths= when the model runs" in result.output
    assert "it was not compared with (pip install keras)" in result.output
    model = ge.load(tmp_path / "m.gru")
    assert model.metadata["classes"] == ["a"] and model.metadata["padding"] == 0
    assert model.metadata["source"]["model"] == "v3_tokens.keras"
    kept = expected("v3_tokens")
    np.testing.assert_allclose(model.run(kept["x"], lengths=kept["lengths"]), kept["y"], atol=2e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--outputs", "a"], "outputs: the model has no output 'a'; its 1 outputs have numbers alone"),
        (["--outputs", "1"], "there is no value 1"),
        (["--threshold", "1e-12"], "at most 1e-12 is accepted"),
        (["--metadata", str(DATA / "v3_tokens.npz")], "is not JSON"),
    ],
)
def test_command_line_errors(tool, tmp_path, monkeypatch, arguments, message):
    import gru_engine.export.keras_check as keras_check

    monkeypatch.setattr(keras_check, "package_for", lambda version: None)
    result = CliRunner().invoke(tool.main, [str(DATA / "v3_graph.keras"), str(tmp_path / "m.gru"), *arguments])
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert not (tmp_path / "m.gru").exists()
