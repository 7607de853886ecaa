# SPDX-License-Identifier: Apache-2.0
"""Models of Keras with several Input layers and several outputs, beside Keras: live and from both kinds of file."""

import importlib.util
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers as L
from keras_models import TOLERANCE, H, I, O, V, check, shaken

import gru_engine as ge
from gru_engine.__main__ import main as command_line
from gru_engine.export import common
from gru_engine.export.common import ExportError
from gru_engine.export.keras import export, from_model, lengths
from gru_engine.format import read

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _fresh_names():
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)


def inputs_of(net):
    return {n: p.vocab_size if isinstance(p, ge.TokenInput) else p.stop - p.start for n, p in net.inputs.items()}


def tagger(mask_zero=False, steps=None, state=False, named=False, joined=None):
    """Words and numbers of each step: two named outputs."""
    words, shape = keras.Input((steps,), name="words", dtype="int32"), keras.Input((steps, 2), name="shape")
    h = [keras.Input((H,), name="h")] if state else []
    e = L.Embedding(V, I, mask_zero=mask_zero)(words)
    x = L.Concatenate()([e, shape]) if joined is None else joined(e, shape)
    y = L.GRU(H, return_sequences=True)(x, initial_state=h[0] if h else None)
    outputs = [L.Dense(O, "softmax", name="tag")(y), L.Dense(1, name="score")(L.Concatenate()([y, shape]))]
    if named:
        return keras.Model({"shape": shape, "words": words}, {"tags": outputs[0], "scores": outputs[1]})
    return keras.Model([words, shape, *h], outputs)


@pytest.mark.parametrize("steps", [None, 7])
def test_words_and_numbers_by_name(tmp_path, steps):
    model = tagger(steps=steps)
    exported = check(model, tmp_path)
    assert inputs_of(exported.network) == {"words": V, "shape": 2}
    assert list(exported.network.outputs) == ["tag", "score"]
    assert exported.notes()[:2] == ["input 'words': [batch, time]", "input 'shape': [batch, time, 2 features]"]
    engine = ge.load(exported.network.tobytes())
    random = np.random.default_rng(0)
    x = {"words": random.integers(0, V, (3, 7)), "shape": random.normal(size=(3, 7, 2)).astype(np.float32)}
    tag, score = model([x["words"], x["shape"]])
    got = engine.run(x)
    np.testing.assert_allclose(got[..., engine.outputs["tag"]], tag, atol=2e-6)
    np.testing.assert_allclose(got[..., engine.outputs["score"]], score, atol=1e-5)
    stream = engine.stream()
    for t in range(7):
        step = stream.step({"shape": x["shape"][1, t], "words": int(x["words"][1, t])})
        np.testing.assert_array_equal(step, got[1, t])


def test_inputs_and_outputs_in_dictionaries(tmp_path):
    exported = check(tagger(named=True), tmp_path)
    assert sorted(inputs_of(exported.network)) == ["shape", "words"]
    assert sorted(exported.network.outputs) == ["scores", "tags"]
    assert list(from_model(tagger(named=True), outputs=["scores"]).outputs) == ["y"]
    with pytest.raises(ExportError, match="the model has no output 'score'; it has"):
        export(tagger(named=True), outputs=["score"])


def test_a_state_beside_several_inputs(tmp_path):
    exported = check(tagger(state=True), tmp_path)
    assert inputs_of(exported.network) == {"words": V, "shape": 2}
    assert exported.takes_state
    assert exported.is_state("h")
    assert not exported.is_state("shape")


def test_forms(tmp_path):
    a, b = keras.Input((None, I), name="a"), keras.Input((None, 2), name="b")
    both = keras.Model([a, b], L.Concatenate()([L.GRU(3)(a), L.GRU(4, go_backwards=True)(b)]))
    exported = check(both, tmp_path)
    assert inputs_of(exported.network) == {"a": I, "b": 2}
    assert exported.network.per_sequence
    a, b = keras.Input((None,), name="a"), keras.Input((None,), name="b")  # a shared table
    table = L.Embedding(V, I)
    exported = check(keras.Model([a, b], L.GRU(H, return_sequences=True)(L.Add()([table(a), table(b)]))), tmp_path)
    assert inputs_of(exported.network) == {"a": V, "b": V}
    a, b = keras.Input((None, I), name="a"), keras.Input((None,), name="b")  # one number of each step
    check(keras.Model([a, b], L.GRU(H)(L.Concatenate()([a, L.Reshape((-1, 1))(b)]))), tmp_path)
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")  # one step, no time at all
    check(keras.Model([a, b], L.Dense(2)(L.Concatenate()([a, b]))), tmp_path)


def test_models_inside(tmp_path):
    words, shape = keras.Input((None,), name="w"), keras.Input((None, 2), name="s")
    e = keras.Sequential([L.Dropout(0.2), L.Embedding(V, I)], name="table")(words)
    inner = keras.Model([words, shape], L.Concatenate()([L.Dense(2)(e), shape]), name="inner")
    a, b = keras.Input((None, 2), name="a"), keras.Input((None,), name="b")
    exported = check(keras.Model([a, b], L.GRU(H)(inner([b, a]))), tmp_path)
    assert inputs_of(exported.network) == {"a": 2, "b": V}


def test_stateful_step_with_several_inputs():
    a, b = keras.Input((1, 4), name="a", batch_size=1), keras.Input((1, 3), name="b", batch_size=1)
    exported = check(keras.Model([a, b], L.GRU(H, stateful=True)(L.Concatenate()([a, b]))))
    assert exported.layouts == {"a": "B1F", "b": "B1F"}
    assert exported.network.causal
    assert not exported.network.per_sequence


def test_inputs_that_no_chosen_output_depends_on():
    a, b = keras.Input((None, I), name="a"), keras.Input((None, 2), name="b")
    model = keras.Model([a, b], [L.GRU(3, return_sequences=True)(a), L.GRU(4, return_sequences=True)(b)])
    exported = check(model, outputs=[1])
    assert list(exported.network.inputs) == ["b"]
    assert "input 'a': [batch, time, 5 features], which no output depends on: left out" in exported.notes()


# ---- masks


def both_masked(e, shape):
    return L.Concatenate()([e, L.Masking(-3.0)(shape)])


def test_masks_of_several_inputs(tmp_path):
    exported = check(tagger(mask_zero=True), tmp_path)  # a part without a mask takes it away
    assert exported.padding is None
    exported = check(tagger(mask_zero=True, joined=both_masked), tmp_path)
    assert exported.padding == {"words": 0.0, "shape": -3.0}
    assert any("steps of 0 in 'words' and -3 in 'shape' at the end" in note for note in exported.notes())
    a, b = keras.Input((None,), name="a"), keras.Input((None,), name="b")
    table = L.Embedding(V, I, mask_zero=True)
    model = shaken(keras.Model([a, b], L.Concatenate()([L.GRU(3)(table(a)), L.GRU(4)(table(b))])))
    exported = check(model, tmp_path)
    assert exported.padding == {"a": 0.0, "b": 0.0}
    x = {"a": np.array([[1, 2, 0, 0], [3, 0, 0, 0]]), "b": np.array([[5, 2, 0, 0], [1, 0, 0, 0]])}
    counts = lengths(x, exported.padding)
    assert counts.tolist() == [2, 1]
    engine = ge.load(exported.network.tobytes())
    np.testing.assert_allclose(engine.run(x, lengths=counts), model([x["a"], x["b"]]), atol=2e-6)
    assert lengths(x).tolist() == [2, 1]
    x["b"][0, 1] = 0
    with pytest.raises(ValueError, match=r"x\['b'\] has sequences of \[1, 1\] steps .*, but x\['a'\] of \[2, 1\]"):
        lengths(x, exported.padding)
    with pytest.raises(ValueError, match="x lacks the input 'b'"):
        lengths({"a": x["a"]}, exported.padding)
    with pytest.raises(ValueError, match="padding is given by the names of inputs"):
        lengths(x["a"], exported.padding)


# ---- what is refused


def test_inputs_without_a_time_axis_are_refused():
    words = keras.Input((None,), name="words")
    y = L.GRU(H)(L.Embedding(V, I)(words))
    for other, name in ((keras.Input((4,), name="about"), "about"), (keras.Input((1,), name="who"), "who")):
        z = L.Flatten()(L.Embedding(3, 4)(other)) if name == "who" else other
        model = keras.Model([words, other], L.Dense(2)(L.Concatenate()([y, z])))
        with pytest.raises(ExportError, match=rf"has the inputs 'words' .*, '{name}' .*; '{name}' has no time axis"):
            export(shaken(model))


def test_inputs_of_different_length_are_refused():
    a, b = keras.Input((7, I), name="a"), keras.Input((9, I), name="b")
    with pytest.raises(
        ExportError,
        match=r"'a' of shape \[None, 7, 5\], 'b' of shape \[None, 9, 5\], which do not have the same number",
    ):
        export(keras.Model([a, b], L.Add()([L.GRU(3)(a), L.GRU(3)(b)])))


# ---- files and the command line


def test_command_line(tmp_path):
    spec = importlib.util.spec_from_file_location("export_keras_tool", ROOT / "tools" / "export_keras.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    shaken(tagger(mask_zero=True, joined=both_masked)).save(tmp_path / "m.keras")
    shaken(tagger(steps=7)).save(tmp_path / "plain.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shaken(tagger(steps=7)).save(tmp_path / "plain.h5")
    for name in ("m.keras", "plain.keras", "plain.h5"):
        result = CliRunner().invoke(tool.main, [str(tmp_path / name), str(tmp_path / "m.gru")])
        assert result.exit_code == 0, result.output
        for line in ("input 'words': [batch, time]\n", "input 'shape': [batch, time, 2 features]\n",
                     "inputs: words = a token below 9, shape = [0:2]", "engine and Keras: difference"):  # fmt: skip
            assert line in result.output
        assert [case.x["shape"].shape for case in read(tmp_path / "m.gru").golden] == [(24, 2), (5, 2)]
        assert command_line(["verify", str(tmp_path / "m.gru")]) in (None, 0)
        assert ("engine with lengths= and Keras with its mask" in result.output) == (name == "m.keras")
        padding = ge.load(tmp_path / "m.gru").metadata.get("padding")
        assert padding == ({"words": 0, "shape": -3} if name == "m.keras" else None)
    result = CliRunner().invoke(tool.main, [str(tmp_path / "m.keras"), str(tmp_path / "m.gru"), "--outputs", "score"])
    assert result.exit_code == 0, result.output
    assert ge.load(tmp_path / "m.gru").output_size == 1


def test_saving_with_golden_cases(tmp_path):
    exported = export(shaken(tagger()))
    net = exported.network
    with pytest.raises(ExportError, match="float64 reference and Keras"):
        common.save(net, tmp_path / "m.gru", lambda x: ge.reference.run(net, x) * (1 + 10 * TOLERANCE), "Keras")
    assert not (tmp_path / "m.gru").exists()
