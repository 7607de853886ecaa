# SPDX-License-Identifier: Apache-2.0
"""ONNX models with several inputs and several outputs, beside ONNX Runtime."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto
from onnx_models import BTF, TBF, H, I, Model, V, check, fc

import gru_engine as ge
from gru_engine.__main__ import main as command_line
from gru_engine.export.common import ExportError
from gru_engine.export.onnx import from_model
from gru_engine.format import read

ROOT = Path(__file__).parents[2]
INT64 = TensorProto.INT64


def inputs_of(traced):
    return {
        n: p.vocab_size if isinstance(p, ge.TokenInput) else p.stop - p.start for n, p in traced.network.inputs.items()
    }


def tagger(words=("t", "b"), shape=("t", "b", 2), h0=None, lengths=None):
    """Words and numbers of each step: two named outputs."""
    m = Model()
    w, x = m.input("words", list(words), INT64), m.input("shape", list(shape))
    h = "" if h0 is None else m.input("h0", h0)
    n = "" if lengths is None else m.input("n", lengths, TensorProto.INT32)
    e = m.node("Gather", m.weight(V, I - 2), w)
    Y, Y_h = m.gru(m.node("Concat", x, e, axis=2), h0=h, lengths=n)
    y = m.flat(Y)
    m.nodes.append(onnx.helper.make_node("Softmax", [fc(m, y, inputs=H)], ["tag"], axis=-1))
    m.nodes.append(onnx.helper.make_node("Concat", [y, x], ["both"], axis=2))
    return m.build(["tag", "both", *([Y_h] if h else [])])


def test_words_and_numbers_by_name():
    traced = check(tagger())
    assert inputs_of(traced) == {"words": V, "shape": 2}
    assert traced.inputs() == {"words": "x", "shape": "x"}
    assert list(traced.network.outputs) == ["tag", "both"]
    assert traced.notes()[:2] == ["words: [time, batch], input", "shape: [time, batch, 2 features], input"]
    model = ge.load(traced.network.tobytes())
    x = {"words": np.arange(6) % V, "shape": np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)}
    y, _ = traced.run({name: array[np.newaxis] for name, array in x.items()})
    np.testing.assert_allclose(model.run(x), y[0], atol=1e-5)
    np.testing.assert_array_equal(model.stream().run(x)[:, model.outputs["both"]][:, H:], x["shape"])


def test_what_torch_writes():
    traced = check(ROOT / "tests/data/onnx/torch_script_inputs.onnx")
    assert traced.network.inputs == {"words": ge.TokenInput(7), "shape": slice(0, 2)}
    assert traced.network.outputs == {"tag": slice(0, 3), "score": slice(3, 4)}


def test_states_and_lengths_beside_several_inputs():
    traced = check(tagger(h0=[1, "b", H]))
    assert traced.inputs() == {"words": "x", "shape": "x", "h0": "state"}
    assert traced.network.state_size == H
    m = Model()
    x, y, n = m.input("x", TBF), m.input("y", ["t", "b", 2]), m.input("n", ["b"], TensorProto.INT32)
    traced = check(m.build(m.flat(m.gru(m.node("Concat", x, y, axis=2), inputs=I + 2, lengths=n)[0])))
    assert traced.inputs() == {"x": "x", "y": "x", "n": "lengths"}


@pytest.mark.parametrize(
    ("words", "shape"),
    [
        (("t", "b"), ("u", "c", 2)),  # names of sizes that say nothing
        ((None, None), (None, None, 2)),
        ((7, "b"), (7, "b", 2)),
        ((7, 3), (7, 3, 2)),
    ],
)
def test_sizes(words, shape):
    traced = check(tagger(words, shape))
    assert traced.fixed == {c: n for c, n in zip("TB", words) if isinstance(n, int)}


def test_forms():
    m = Model(*BTF)
    y = m.input("y", ["b", "t"])  # one number per step
    product = m.node("Mul", m.x, m.node("Unsqueeze", y, np.array([2])))
    traced = check(m.build(m.flat(m.gru(m.node("Transpose", product, perm=[1, 0, 2]))[0])))
    assert inputs_of(traced) == {"x": I, "y": 1}
    m = Model(*TBF)  # one with the batch first
    y = m.input("y", ["b", "t", I])
    traced = check(m.build(m.flat(m.gru(m.node("Add", m.x, m.node("Transpose", y, perm=[1, 0, 2])))[0])))
    assert list(traced.network.inputs) == ["x", "y"]
    m = Model("b", "t", kind=INT64)  # two tokens, of which one is made one-hot
    other = m.input("other", ["b", "t"], INT64)
    hot = m.node("OneHot", other, np.array(4), np.array([0, 1], np.float32))
    both = m.node("Concat", m.node("Gather", m.weight(V, I - 4), m.x), hot, axis=2)
    traced = check(m.build(m.flat(m.gru(m.node("Transpose", both, perm=[1, 0, 2]))[0])))
    assert inputs_of(traced) == {"x": V, "other": 4}
    m = Model(*TBF)  # a value of the sequence of each
    y = m.input("y", ["t", "b", 2])
    (_, a), (_, b) = m.gru(m.x), m.gru(y, inputs=2)
    assert check(m.build(m.node("Concat", a, b, axis=2))).network.per_sequence


def test_one_step_with_several_inputs():
    m = Model("b", I - 2)
    action, h = m.input("action", ["b", 2]), m.input("h", [1, "b", H])
    x = m.node("Unsqueeze", m.node("Concat", m.x, action, axis=1), np.array([0]))
    Y, Y_h = m.gru(x, h0=h)
    traced = check(m.build(fc(m, m.node("Squeeze", Y, np.array([0, 1])), 3, H), Y_h))
    assert traced.inputs() == {"x": "x", "action": "x", "h": "state"}
    assert inputs_of(traced) == {"x": I - 2, "action": 2}
    assert traced.network.causal


def test_what_is_returned_too_may_be_a_state_unless_axes_say_otherwise():
    def model(width):
        m = Model("b", I - 2)
        c, h = m.input("c", ["b", 2]), m.input("h", [1, "b", H])
        x = m.node("Unsqueeze", m.node("Concat", m.x, c, axis=1), np.array([0]))
        Y, Y_h = m.gru(x, h0=h)
        return m.build(fc(m, m.node("Squeeze", Y, np.array([0, 1])), width, H), Y_h)

    assert inputs_of(check(model(3))) == {"x": I - 2, "c": 2}
    with pytest.raises(ExportError, match=r"new state|may be a state"):
        from_model(model(2))
    traced = check(model(2), axes={"x": "BF", "c": "BF"})
    assert traced.inputs() == {"x": "x", "c": "x", "h": "state"}


def test_axes_by_name():
    model = tagger()
    assert check(model, axes={"words": "TB", "shape": "TBF"}).network.same(from_model(model))
    with pytest.raises(ExportError, match="axes: the model has no input 'word'; it has 'words', 'shape'"):
        from_model(model, axes={"word": "TB"})
    with pytest.raises(ExportError):
        from_model(model, axes={"words": "BT", "shape": "TBF"})
    with pytest.raises(ExportError, match="do not have the same batch and time axes"):
        from_model(tagger((7, 3), (7, 3, 2)), axes={"words": "TB", "shape": "BTF"})


def test_inputs_without_a_time_axis_are_refused():
    for shape, kind in ((["b", 4], TensorProto.FLOAT), (["b"], INT64)):
        m = Model(*BTF)
        c = m.input("c", shape, kind)
        c = m.node("Gather", m.weight(V, I), c) if kind == INT64 else fc(m, c, I, 4)
        model = m.build(m.node("Add", m.x, m.node("Unsqueeze", c, np.array([1]))))
        with pytest.raises(
            ExportError, match=r"the model has the inputs 'x' float\[b, t, 6\] and 'c' .*; 'c' has no time axis"
        ):
            from_model(model)
    m = Model("b", "t", kind=INT64)
    c = m.node("Unsqueeze", fc(m, m.input("c", ["b", 4]), I, 4), np.array([1]))
    with pytest.raises(
        ExportError, match=r"the model has the inputs 'x' int\[b, t\] and 'c' float\[b, 4\]; 'c' has no time axis"
    ):
        from_model(m.build(m.node("Add", m.node("Gather", m.weight(V, I), m.x), c)))


def test_inputs_that_no_chosen_output_depends_on():
    m = Model(*TBF)
    y = m.input("y", ["t", "b", 2])
    a, b = m.flat(m.gru(m.x)[0]), m.flat(m.gru(y, inputs=2)[0])
    traced = check(m.build(a, b), outputs=[b])
    assert list(traced.network.inputs) == ["y"]
    assert traced.unread() == ["x"]
    assert "x: [time, batch, 6 features], input, which no output depends on: left out" in traced.notes()


def test_command_line(tmp_path):
    spec = importlib.util.spec_from_file_location("export_onnx_tool", ROOT / "tools" / "export_onnx.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    onnx.save(tagger((7, "b"), (7, "b", 2)), tmp_path / "fixed.onnx")
    onnx.save(tagger(), tmp_path / "open.onnx")
    for name, lengths in (("fixed", [7]), ("open", [24, 5])):
        arguments = [str(tmp_path / f"{name}.onnx"), str(tmp_path / "m.gru")]
        for axes in ([], ["--axes", "words=TB,shape=TBF"], ["--axes", "TB"]):
            result = CliRunner().invoke(tool.main, [*arguments, *axes])
            assert result.exit_code == 0, result.output
            assert "words: [time, batch], input\n" in result.output
            assert "shape: [time, batch, 2 features], input\n" in result.output
            assert "engine and ONNX Runtime: difference" in result.output
        assert [len(case.x["words"]) for case in read(tmp_path / "m.gru").golden] == lengths
        assert command_line(["verify", str(tmp_path / "m.gru")]) in (None, 0)
        assert ge.load(tmp_path / "m.gru").metadata["source"]["inputs"] == {"words": "x", "shape": "x"}
    for axes, message in (
        ("words=TB,shape", "must be as"),
        ("words=TB,words=BT", "must be as"),
        ("=TB", "must be as"),
        ("shape=TBF", "input 'words' int[t, b] is not named in axes"),
    ):
        result = CliRunner().invoke(tool.main, [*arguments, "--axes", axes])
        assert result.exit_code == 1, result.output
        assert message in result.output
