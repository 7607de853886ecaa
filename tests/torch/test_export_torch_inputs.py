# SPDX-License-Identifier: Apache-2.0
"""Modules with several inputs and several outputs, beside the modules themselves."""

import collections
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch_models import STEPS, TOLERANCE, H, I, Net, O, V, check, floats, gru, tokens

import gru_engine as ge
from gru_engine.__main__ import main as command_line
from gru_engine.export import common
from gru_engine.export.common import ExportError
from gru_engine.export.torch import from_module, trace
from gru_engine.format import read

ROOT = Path(__file__).parents[2]


class Tagger(nn.Module):
    """Words and numbers of each step; perhaps an initial state."""

    def __init__(self, batch_first=True):
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(V, 3)
        self.gru = nn.GRU(3 + I, H, batch_first=batch_first)
        self.tag, self.score = nn.Linear(H, O), nn.Linear(H + I, 1)

    def forward(self, words, shape, h=None):
        y, h = self.gru(torch.cat([self.embedding(words), shape], -1), h)
        return {"tag": torch.softmax(self.tag(y), -1), "score": self.score(torch.cat([y, shape], -1)), "h": h}


def inputs_of(traced):
    return {
        n: p.vocab_size if isinstance(p, ge.TokenInput) else p.stop - p.start for n, p in traced.network.inputs.items()
    }


def test_words_and_numbers_by_name_or_place():
    module = Tagger()
    traced = check(module, tokens(2, 3), floats(2, 3, I))
    assert inputs_of(traced) == {"words": V, "shape": I}
    assert list(traced.network.outputs) == ["tag", "score"]
    assert traced.notes()[:2] == ["input 'words': [batch, time]", "input 'shape': [batch, time, 6 features]"]
    for example in (
        {"words": tokens(2, 3), "shape": floats(2, 3, I)},
        {"shape": floats(2, 3, I), "words": tokens(2, 3)},
        {"h": None, "shape": floats(2, 3, I), "words": tokens(2, 3)},
    ):
        assert from_module(module, example).same(traced.network)
    x = {"words": torch.randint(V, (2, 9)), "shape": torch.randn(2, 9, I)}
    y = module(**x)
    model = ge.load(traced.network.tobytes())
    got = model.run({name: value.numpy() for name, value in x.items()})
    for name in ("tag", "score"):
        np.testing.assert_allclose(got[..., model.outputs[name]], y[name].detach(), atol=1e-5)
    stream = model.stream()
    for t in range(9):
        step = stream.step({"words": int(x["words"][1, t]), "shape": x["shape"][1, t].numpy()})
        np.testing.assert_array_equal(step, got[1, t])


def test_a_state_beside_several_inputs():
    for batch_first, shape in ((True, (2, 3)), (False, (3, 2))):
        traced = check(Tagger(batch_first), tokens(*shape), floats(*shape, I), floats(1, 2, H))
        assert inputs_of(traced) == {"words": V, "shape": I}
        assert traced.takes_state
        assert traced.main.dims == ((("B",), ("T",)) if batch_first else (("T",), ("B",)))
    x = common.random_inputs(traced.network, 2, 5)
    h = np.random.default_rng(0).uniform(-1, 1, (2, H)).astype(np.float32)
    y = traced.module(
        *(torch.from_numpy(np.swapaxes(x[n], 0, 1)) for n in ("words", "shape")), torch.from_numpy(h)[None]
    )
    got, after = ge.load(traced.network.tobytes()).run(x, state=h, return_state=True)
    np.testing.assert_allclose(after, y["h"][0].detach(), atol=1e-5)
    np.testing.assert_allclose(got[..., :O], np.swapaxes(y["tag"].detach().numpy(), 0, 1), atol=1e-5)


FORMS = {
    "two vectors": (
        Net(lambda m, x, y: m.f(torch.cat([y, m.g(torch.cat([x, y], -1))[0]], -1)), g=gru(I + 2), f=nn.Linear(H + 2, O)),
        (floats(2, 3, I), floats(2, 3, 2)),
    ),
    "two recurrent layers": (
        Net(lambda m, x, y: m.a(x)[0] * m.b(y)[0], a=gru(), b=gru(2, H)),
        (floats(2, 3, I), floats(2, 3, 2)),
    ),
    "two tokens": (
        Net(lambda m, x, y: m.g(m.e(x) + m.f(y))[0], e=nn.Embedding(V, I), f=nn.Embedding(V + 4, I), g=gru()),
        (tokens(2, 3), tokens(2, 3)),
    ),
    "tokens without a batch": (
        Net(lambda m, x, y: m.g(m.e(x) + m.f(y))[0], e=nn.Embedding(V, I), f=nn.Embedding(V + 4, I), g=gru()),
        (tokens(3), tokens(3)),
    ),
    "one of them as features before time": (
        Net(lambda m, x, y: m.g(x + y.transpose(1, 2))[0], g=gru()),
        (floats(2, 3, I), floats(2, I, 3)),
    ),
    "one of them with the time first": (
        Net(lambda m, x, y: m.g(x + m.f(y).transpose(0, 1))[0], g=gru(), f=nn.Linear(4, I)),
        (floats(2, 3, I), floats(3, 2, 4)),
    ),
    "one number per step": (
        Net(lambda m, x, y: m.g(x * y.unsqueeze(-1))[0], g=gru()),
        (floats(2, 3, I), floats(2, 3)),
    ),
    "a value of the sequence of each": (
        Net(lambda m, x, y: torch.cat([m.a(x)[1][-1], m.b(y)[0][:, -1]], -1), a=gru(), b=gru(2, H)),
        (floats(2, 3, I), floats(2, 3, 2)),
    ),
    "a list": (
        Net(lambda m, xs: m.g(torch.cat(xs, -1))[0], g=gru(I + 2)),
        ([floats(2, 3, I), floats(2, 3, 2)],),
    ),
    "sizes that say nothing": (
        Net(lambda m, x, h, y: m.g(torch.cat([x, y], -1), h)[0], g=gru(8)),
        (floats(1, 1, 4), floats(1, 1, H), floats(1, 1, 4)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_forms(name):
    module, example = FORMS[name]
    traced = check(module, *example)
    assert len(traced.network.inputs) == 2
    assert traced.takes_state == (name == "sizes that say nothing")


def test_names_of_nested_arguments():
    net = Net(lambda m, batch: m.g(m.e(batch["words"]) + batch["shape"])[0], e=nn.Embedding(V, I), g=gru())
    traced = check(net, {"words": tokens(2, 3), "shape": floats(2, 3, I)})
    assert sorted(inputs_of(traced)) == ["shape", "words"]
    net = Net(lambda m, x, more: m.g(x + more["y"][0])[0], g=gru())
    traced = check(net, floats(2, 3, I), {"y": [floats(2, 3, I)]})
    assert list(traced.network.inputs) == ["args.0", "args.1.y.0"]


def test_keywords_only():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = gru(I + 2)

        def forward(self, x, scale=2.0, *, left, right=None):
            y, _ = self.gru(torch.cat([x * scale, left - left * 0.5 if right is None else right], -1))
            return y

    traced = trace(Two(), {"left": floats(2, 3, 2), "x": floats(2, 3, I)})
    assert inputs_of(traced) == {"x": I, "left": 2}
    x = common.random_inputs(traced.network, 3, STEPS)
    y = traced.run(x)[0]
    np.testing.assert_allclose(ge.reference.run(traced.network, x), y, atol=TOLERANCE * np.abs(y).max())
    with pytest.raises(
        ExportError, match=r"forward of Two does not take the example inputs: missing a required argument: 'x'"
    ):
        trace(Two(), {"left": floats(2, 3, 2)})


def step(m, x, action, h):
    h = m.cell(torch.cat([x, action], -1), h)
    return torch.tanh(m.out(h)), h


def test_one_step_with_several_inputs():
    module = Net(step, cell=nn.GRUCell(I + 3, H), out=nn.Linear(H, 2))
    traced = check(module, floats(2, I), floats(2, 3), floats(2, H))
    assert list(traced.network.inputs) == ["args.0", "args.1"]
    assert traced.network.state_size == H
    assert traced.network.causal
    assert not traced.network.per_sequence
    token = Net(
        lambda m, x, w, h: step(m, x, m.e(w), h), cell=nn.GRUCell(I + 3, H), out=nn.Linear(H, 2), e=nn.Embedding(V, 3)
    )
    traced = check(token, floats(2, I), tokens(2), floats(2, H))
    assert inputs_of(traced) == {"args.0": I, "args.1": V}


def test_what_is_returned_too_may_be_a_state_unless_axes_say_otherwise():
    module = Net(step, cell=nn.GRUCell(I + 3, H), out=nn.Linear(H, 3))  # the action that is returned is as wide
    example = floats(2, I), floats(2, 3), floats(2, H)
    with pytest.raises(ExportError, match=r"new states .* is not certain"):
        from_module(module, example)
    traced = check(module, *example, axes={"args.0": "BF", "args.1": "BF"})
    assert inputs_of(traced) == {"args.0": I, "args.1": 3}
    assert traced.network.state_size == H

    def lstm(m, x, action, h, c):
        i, f, g, o = m.gates(torch.cat([x, action, h], -1)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return m.out(h), h, c

    module = Net(lstm, gates=nn.Linear(I + 3 + H, 4 * H), out=nn.Linear(H, 4))
    traced = check(module, floats(2, I), floats(2, 3), floats(2, H), floats(2, H))
    assert inputs_of(traced) == {"args.0": I, "args.1": 3}
    assert traced.network.state_size == 2 * H


def test_axes_by_name():
    module = Net(lambda m, x, y: torch.cat([x, m.f(y)], -1)[-1], f=nn.Linear(I, O))
    net = from_module(module, (floats(2, 3, I), floats(2, 3, I)), axes={"args.0": "TBF", "args.1": "TBF"})
    assert net.per_sequence
    with pytest.raises(ExportError, match=r"one row of the axis batch .* is read by itself"):
        from_module(module, (floats(2, 3, I), floats(2, 3, I)), axes="BTF")
    with pytest.raises(ExportError, match=r"axes: the model has no input 'z'; it has 'args.0', 'args.1'"):
        from_module(module, (floats(2, 3, I), floats(2, 3, I)), axes={"z": "TBF"})
    with pytest.raises(ExportError, match=r"argument 1 of forward, 'args.1', of shape \[2, 3\] .*is not named in axes"):
        from_module(module, (floats(2, 3, I), tokens(2, 3)), axes={"args.0": "TBF"})


def test_a_state_may_come_first_where_axes_say_so():
    def sequence(m, h, x, y):
        return m.g(torch.cat([x, y], -1), h)

    traced = check(
        Net(sequence, g=gru(I + 2)),
        floats(1, 2, H),
        floats(2, 3, I),
        floats(2, 3, 2),
        axes={"args.1": "BTF", "args.2": "BTF"},
    )
    assert inputs_of(traced) == {"args.1": I, "args.2": 2}
    assert traced.takes_state
    cell = Net(lambda m, h, x, y: m.c(torch.cat([x, y], -1), h), c=nn.GRUCell(I + 2, H))
    traced = check(cell, floats(2, H), floats(2, I), floats(2, 2), axes={"args.1": "BF", "args.2": "BF"})
    assert inputs_of(traced) == {"args.1": I, "args.2": 2}
    assert traced.network.state_size == H


def test_inputs_without_a_time_axis_are_refused():
    module = Net(lambda m, x, c: m.g(torch.cat([x, c.unsqueeze(1).expand(-1, x.shape[1], -1)], -1))[0], g=gru(I + 3))
    with pytest.raises(ExportError, match=r"argument 1 of forward, 'args.1', of shape \[2, 3\] has no time axis"):
        from_module(module, (floats(2, 5, I), floats(2, 3)))
    module = Net(lambda m, x, c: m.g(x)[0] * m.e(c).unsqueeze(1), g=gru(), e=nn.Embedding(V, H))
    with pytest.raises(
        ExportError, match=r"'args.1', of shape \[2\] and type torch.int64 has no time axis.*lengths are given"
    ):
        from_module(module, (floats(2, 5, I), tokens(2)))
    with pytest.raises(ExportError, match=r"type torch.bool is no input of tokens"):
        from_module(
            Net(lambda m, x, mask: m.g(x)[0] * mask.unsqueeze(-1), g=gru()),
            (floats(2, 5, I), torch.zeros(2, 5, dtype=torch.bool)),
        )


def test_inputs_that_no_output_depends_on():
    module = Net(lambda m, x, y, z: (m.g(x)[0], m.f(y)), g=gru(), f=nn.Linear(2, 3))
    example = floats(2, 3, I), floats(2, 3, 2), floats(2, 3, 4)
    traced = check(module, *example)
    assert list(traced.network.inputs) == ["args.0", "args.1"]
    assert traced.unread() == ["args.2"]
    assert "input 'args.2': [batch, time, 4 features], which no output depends on: left out" in traced.notes()
    traced = check(module, *example, outputs=[0])
    assert list(traced.network.inputs) == ["args.0"]


# ---- outputs


def test_names_of_outputs():
    Pair = collections.namedtuple("Pair", "mean spread")
    example = floats(2, 3, I)
    for do, names in (
        (lambda m, x: {"p": m.f(x), "q": m.g(x)[0]}, ["p", "q"]),
        (lambda m, x: Pair(m.f(x), m.g(x)[0]), ["mean", "spread"]),
        (lambda m, x: (m.f(x), m.g(x)[0]), ["y", "y1"]),
        (lambda m, x: (m.f(x), {"y": m.g(x)[0], "z": x}), ["y_", "y", "z"]),
        (lambda m, x: {"a": [m.f(x), m.g(x)[0]], "b": {"a": x}}, ["a.0", "a.1", "b.a"]),
    ):
        traced = check(Net(do, f=nn.Linear(I, O), g=gru()), example)
        assert list(traced.network.outputs) == names


def test_outputs_by_name():
    module = Tagger()
    example = tokens(2, 3), floats(2, 3, I)
    assert list(from_module(module, example, outputs=["score"]).outputs) == ["score"]
    with pytest.raises(ExportError, match="the model has no output 'scores'; it has"):
        from_module(module, example, outputs=["scores"])


# ---- files and the command line


def test_saving_with_golden_cases(tmp_path):
    traced = trace(Tagger(), (tokens(2, 3), floats(2, 3, I)))
    comparisons = common.save(traced.network, tmp_path / "m.gru", lambda x: traced.run(x)[0], "PyTorch")
    assert len(comparisons) == 3
    cases = read(tmp_path / "m.gru").golden
    assert [sorted(case.x) for case in cases] == [["shape", "words"]] * 2
    assert [case.x["shape"].shape for case in cases] == [(24, I), (5, I)]
    assert all(case.framework is not None for case in cases)
    assert command_line(["verify", str(tmp_path / "m.gru")]) == 0
    for dtype in ("bfloat16", "int8"):
        common.save(traced.network, tmp_path / "m.gru", lambda x: traced.run(x)[0], "PyTorch", dtype=dtype)
        assert command_line(["verify", str(tmp_path / "m.gru")]) == 0
    with pytest.raises(ExportError, match="float64 reference and PyTorch"):
        common.save(traced.network, tmp_path / "m.gru", lambda x: traced.run(x)[0] * 1.001, "PyTorch")


MODEL = """
import torch
from torch import nn

class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.gru = nn.GRU(5, 4, batch_first=True)

    def forward(self, words, shape, h=None):
        y, h = self.gru(torch.cat([self.embedding(words), shape], -1), h)
        return {"y": y, "sum": y.sum(-1, keepdim=True)}
"""


def test_command_line(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("export_torch_tool", ROOT / "tools" / "export_torch.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    (tmp_path / "several_inputs.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.save(importlib.import_module("several_inputs").Tagger().state_dict(), "m.pt")
    base = ["m.pt", "m.gru", "--module", "several_inputs:Tagger"]
    by_place = ["--input", "int64[B,T]", "--input", "float32[B,T,2]"]
    by_name = ["--input", "shape=float32[B,T,2]", "--input", "words=int64[B,T]"]
    for arguments in (
        by_place,
        by_name,
        [*by_place, "--state", "float32[1,B,4]"],
        [*by_name, "--state", "h=float32[1,B,4]"],
    ):
        result = CliRunner().invoke(tool.main, [*base, *arguments])
        assert result.exit_code == 0, result.output
        for line in ("input 'words': [batch, time]\n", "input 'shape': [batch, time, 2 features]\n",
                     "inputs: words = a token below 7, shape = [0:2]", "engine and PyTorch: difference"):  # fmt: skip
            assert line in result.output
        assert list(ge.load("m.gru").inputs) == ["words", "shape"]
    result = CliRunner().invoke(tool.main, [*base, *by_name, "--outputs", "sum"])
    assert list(ge.load("m.gru").outputs) == ["sum"], result.output
    for arguments, message in (
        ([*by_name, "--state", "float32[1,B,4]"], "each must have a name of its own"),
        ([*by_name, "--input", "words=int64[B,T]"], "each must have a name of its own"),
        (["--input", "word=int64[B,T]", "--input", "shape=float32[B,T,2]"], "torch.export fails on Tagger"),
        (by_place[:2], "torch.export fails on Tagger"),
    ):
        result = CliRunner().invoke(tool.main, [*base, *arguments])
        assert result.exit_code == 1
        assert message in result.output
