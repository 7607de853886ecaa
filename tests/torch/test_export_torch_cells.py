# SPDX-License-Identifier: Apache-2.0
"""Modules around hand-written cells: what the cell computes must be found by running it."""

import copy

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from command_lines import load_tool
from torch import nn

import gru_engine as ge
from gru_engine.export.common import ExportError
from gru_engine.export.torch_cells import describe, from_module, identify

I, H, B, T = 3, 5, 2, 12


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(4)


class Textbook(nn.Module):
    """Cho et al.: matrices on the concatenation of state and input."""

    def __init__(self, inputs=I, hidden=H, order="hx", keep="new", reset="before"):
        super().__init__()
        self.order, self.keep, self.reset, self.hidden = order, keep, reset, hidden
        self.W_r, self.W_z, self.W_h = (nn.Linear(inputs + hidden, hidden) for _ in range(3))

    def join(self, x, h):
        return torch.cat([h, x] if self.order == "hx" else [x, h], -1)

    def forward(self, x, h):
        r, z = torch.sigmoid(self.W_r(self.join(x, h))), torch.sigmoid(self.W_z(self.join(x, h)))
        n = torch.tanh(self.W_h(self.join(x, r * h)))
        return (1 - z) * h + z * n if self.keep == "new" else z * h + (1 - z) * n


class Separate(nn.Module):
    """A linear layer for each half of each gate."""

    def __init__(self, reset="after", keep="old", gated="r", activation=torch.tanh, inputs=I):
        super().__init__()
        self.reset, self.keep, self.gated, self.activation = reset, keep, gated, activation
        for gate in "rzn":
            setattr(self, f"W_i{gate}", nn.Linear(inputs, H))
            setattr(self, f"W_h{gate}", nn.Linear(H, H))

    def forward(self, x, h):
        r, z = (torch.sigmoid(getattr(self, f"W_i{g}")(x) + getattr(self, f"W_h{g}")(h)) for g in "rz")
        g = {"r": r, "z": z}[self.gated]
        i, d = self.W_in(x), self.W_hn
        n = {
            "before": lambda: self.activation(i + d(g * h)),
            "after": lambda: self.activation(i + g * d(h)),
            "all": lambda: self.activation(g * (i + d(h))),
            "none": lambda: self.activation(i + d(h)),
        }[self.reset]()
        return (1 - z) * h + z * n if self.keep == "new" else z * h + (1 - z) * n


class Bare(nn.Module):
    """Parameters that multiply from the left or from the right."""

    def __init__(self, columns, inputs):
        super().__init__()
        self.columns = columns
        for g in "rzh":
            shape = (inputs, H) if columns else (H, inputs)
            setattr(self, f"W_x{g}", nn.Parameter(torch.randn(*shape) / 2))
            setattr(self, f"W_h{g}", nn.Parameter(torch.randn(H, H) / 2))
            setattr(self, f"b_{g}", nn.Parameter(torch.randn(H)))

    def half(self, kind, gate, v):
        W = getattr(self, f"W_{kind}{gate}")
        return v @ W if self.columns else v @ W.T

    def forward(self, h, x):
        """The state comes first."""
        r, z = (torch.sigmoid(self.half("x", g, x) + self.half("h", g, h) + getattr(self, f"b_{g}")) for g in "rz")
        n = torch.tanh(self.half("x", "h", x) + self.half("h", "h", r * h) + self.b_h)
        return z * h + (1 - z) * n


class UpdateInside(nn.Module):
    """One recurrent matrix for both gates; the candidate is gated by z."""

    def __init__(self):
        super().__init__()
        self.W_r, self.W_z, self.W_n = (nn.Linear(I, H) for _ in range(3))
        self.U_h, self.U_n = (nn.Linear(H, H, bias=False) for _ in range(2))

    def forward(self, x, h):
        z = torch.sigmoid(self.W_z(x) + self.U_h(h))
        torch.sigmoid(self.W_r(x) + self.U_h(h))  # r, which influences nothing
        n = torch.tanh(self.W_n(x) + self.U_n(z * h))
        return (1 - z) * h + z * n


def loop(cell, x):
    """The cell in float64 over a sequence, from zeros."""
    cell = copy.deepcopy(cell).double()
    h, rows = torch.zeros(len(x), H, dtype=torch.float64), []
    with torch.inference_mode():
        for t in range(x.shape[1]):
            now = torch.from_numpy(x[:, t])
            h = cell(h, now) if isinstance(cell, Bare) else cell(now, h)
            rows.append(h.numpy())
    return np.stack(rows, 1)


def check(net, expected, x):
    np.testing.assert_allclose(ge.reference.run(net, x), expected, rtol=0, atol=1e-10)
    engine = ge.load(net.tobytes()).run(x.astype(np.float32))
    np.testing.assert_allclose(engine, expected, rtol=0, atol=2e-6)


def data(inputs=I):
    return np.random.default_rng(5).standard_normal((B, T, inputs))


def options(cell):
    """What is said of a cell that is a GRU."""
    word = identify(cell)
    assert (word.name, word.arguments) == ("gru", ())
    return dict(word.options)


# ---- cells


@pytest.mark.parametrize("order", ["hx", "xh"])
@pytest.mark.parametrize("keep", ["new", "old"])
def test_textbook(order, keep):
    cell = Textbook(order=order, keep=keep)
    assert options(cell) == {"concatenated": order, "keep": keep, "reset": "before"}
    check(from_module(cell), loop(cell, data()), data())


@pytest.mark.parametrize("keep", ["new", "old"])
@pytest.mark.parametrize("reset", ["before", "after", "all", "none"])
@pytest.mark.parametrize("gated", ["r", "z"])
def test_separate(reset, keep, gated):
    cell = Separate(reset, keep, gated)
    expected = {"keep": keep, "reset": reset} | ({"reset_gate": "z"} if gated == "z" and reset != "none" else {})
    assert options(cell) == expected
    check(from_module(cell), loop(cell, data()), data())


def test_update_gate_inside_the_candidate():
    """It influences nothing what is computed of W_r; found without a description."""
    cell = UpdateInside()
    assert options(cell) == {"keep": "new", "reset": "before", "reset_gate": "z"}
    check(from_module(cell), loop(cell, data()), data())


@pytest.mark.parametrize("inputs", [I, H])
def test_relu(inputs):
    cell = Separate("before", "new", activation=torch.relu, inputs=inputs)
    assert options(cell)["activation"] == "relu"
    check(from_module(cell), loop(cell, data(inputs)), data(inputs))


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize("inputs", [I, H])
def test_parameters(columns, inputs):
    """Square matrices do not show by their shape which way they multiply."""
    cell = Bare(columns, inputs)
    check(from_module(cell), loop(cell, data(inputs)), data(inputs))


def test_a_cell_that_is_no_gru():
    class Wrong(Textbook):
        def forward(self, x, h):
            return super().forward(x, h) + 0.001 * h

    with pytest.raises(
        ExportError, match=r"Wrong computes none of the known forms of a GRU: \d+ were tried, the closest differs"
    ):
        from_module(Wrong())

    class Silu(Textbook):
        def forward(self, x, h):
            return nn.functional.silu(super().forward(x, h))

    with pytest.raises(ExportError, match="computes none of the known forms"):
        identify(Silu())


# ---- gates with a memory; independent input and forget gates


class GateMemory(nn.Module):
    """The gates are multiplied with what they were; ``form`` says how state and gates come in and go out."""

    def __init__(self, output=True, form="flat", bias=True, changed=0.0):
        super().__init__()
        self.gates, self.form, self.changed = "zrho" if output else "zrh", form, changed
        for gate in self.gates:
            setattr(self, f"W_{gate}", nn.Linear(I, H, bias=bias))
            setattr(self, f"U_{gate}", nn.Linear(H, H, bias=False))

    def step(self, x, h, r, z):
        W, U = ({g: getattr(self, f"{M}_{g}") for g in self.gates} for M in "WU")
        o = torch.sigmoid(W["o"](x) + U["o"](h)) if "o" in self.gates else None
        r = torch.sigmoid(W["r"](x) + U["r"](h)) * r
        z = torch.sigmoid(W["z"](x) + U["z"](h)) * z
        n = torch.tanh(W["h"](x) + U["h"](r * h))
        h = (1 - z) * h + z * n + self.changed * h
        return (h if o is None else o * torch.tanh(h)), h, r, z

    def forward(self, *arguments):
        if self.form == "flat":  # x, h, z, r -> y, h, z, r
            x, h, z, r = arguments
            y, h, r, z = self.step(x, h, r, z)
            return y, h, z, r
        if self.form == "tuple":  # x, (h, r, z) -> y, (h, r, z)
            x, (h, r, z) = arguments
            y, *states = self.step(x, h, r, z)
            return y, tuple(states)
        h, r, z, x = arguments  # h, r, z, x -> h, r, z
        return self.step(x, h, r, z)[1:]


class InputForget(nn.Module):
    def __init__(self, order="hx", output="y"):
        super().__init__()
        self.order, self.output = order, output
        self.W_i, self.W_f, self.W_o, self.W_z = (nn.Linear(I + H, H) for _ in range(4))

    def forward(self, x, h):
        joined = torch.cat([h, x] if self.order == "hx" else [x, h], -1)
        i, f, o = (torch.sigmoid(W(joined)) for W in (self.W_i, self.W_f, self.W_o))
        h = f * h + i * torch.tanh(self.W_z(joined))
        return h if self.output == "h" else (o * torch.tanh(h), h)


def variant_loop(cell, x, states):
    """The cell over a sequence in float64: its first result; the others are the new states."""
    cell, rows = copy.deepcopy(cell).double(), []
    states = [torch.full((len(x), H), float(s), dtype=torch.float64) for s in states]
    with torch.inference_mode():
        for t in range(x.shape[1]):
            y, *states = cell(torch.from_numpy(x[:, t]), *states)
            rows.append(y.numpy())
    return np.stack(rows, 1)


class Steps(nn.Module):
    """Runs a cell with gate memory over a sequence."""

    def __init__(self, cell):
        super().__init__()
        self.cell, self.fc = cell, nn.Linear(H, 4)

    def forward(self, x):
        h = torch.zeros(len(x), H, dtype=x.dtype)
        r, z, rows = torch.ones_like(h), torch.ones_like(h), []
        for t in range(x.shape[1]):
            y, h, r, z = self.cell.step(x[:, t], h, r, z)
            rows.append(self.fc(y))
        return torch.stack(rows, 1)


@pytest.mark.parametrize("output", [True, False])
@pytest.mark.parametrize("form", ["flat", "tuple"])
def test_gate_memory(output, form):
    cell = GateMemory(output, form)
    word = identify(cell)
    assert (word.name, word.options) == ("gate_memory_gru", ())
    built, said, run = describe(cell)
    assert said == "gate_memory_gru()"
    flat = copy.deepcopy(cell)
    flat.form = "flat"
    expected = variant_loop(flat, data(), (0, 1, 1))
    check(built.network, expected, data())
    np.testing.assert_allclose(run(data().astype(np.float32)), expected, rtol=0, atol=2e-6)


def test_gate_memory_whose_output_gate_enters_nothing():
    cell = GateMemory(form="states")
    assert str(identify(cell)) == "gate_memory_gru(gates=rzn)"
    check(from_module(cell), variant_loop_of_states(cell), data())


def variant_loop_of_states(cell):
    cell, rows = copy.deepcopy(cell).double(), []
    h, r, z = (torch.full((B, H), float(s), dtype=torch.float64) for s in (0, 1, 1))
    with torch.inference_mode():
        for t in range(T):
            h, r, z = cell(h, r, z, torch.from_numpy(data()[:, t]))
            rows.append(h.numpy())
    return np.stack(rows, 1)


@pytest.mark.parametrize("said", ["gru(cell) linear(fc)", "gate_memory_gru(cell) linear(fc)"])
def test_a_module_around_gate_memory(said):
    net = Steps(GateMemory())
    built, text, run = describe(net, said)
    assert text == "gate_memory_gru(cell) linear(fc)"
    y = copy.deepcopy(net).double()(torch.from_numpy(data())).detach().numpy()
    check(built.network, y, data())
    np.testing.assert_allclose(run(data().astype(np.float32)), y, rtol=0, atol=2e-6)


@pytest.mark.parametrize("order", ["hx", "xh"])
def test_input_and_forget_gates(order):
    cell = InputForget(order)
    assert str(identify(cell)) == f"input_forget_gru(concatenated={order})"
    check(from_module(cell), variant_loop(cell, data(), (0,)), data())
    cell = InputForget(order, "h")
    assert str(identify(cell)) == f"input_forget_gru(gates=ifn, concatenated={order})"
    check(from_module(cell), loop(cell, data()), data())


def test_variants_that_are_changed():
    with pytest.raises(ExportError, match=r"GateMemory computes none of the known forms .* the closest differs by"):
        from_module(GateMemory(changed=0.01))
    with pytest.raises(ExportError, match="GateMemory computes none of the known forms"):
        describe(Steps(GateMemory(changed=0.01)), "gru(cell) linear(fc)")
    with pytest.raises(ExportError, match="Steps computes something else than the chain that was understood"):
        describe(Steps(GateMemory(changed=0.01)), "gate_memory_gru(cell) linear(fc)")

    class LSTM(InputForget):
        def forward(self, x, h, c):
            i, f, o = (torch.sigmoid(W(torch.cat([h, x], -1))) for W in (self.W_i, self.W_f, self.W_o))
            c = f * c + i * torch.tanh(self.W_z(torch.cat([h, x], -1)))
            return o * torch.tanh(c), c

    with pytest.raises(ExportError, match="LSTM computes none of the known forms"):
        from_module(LSTM())


# ---- modules around a cell


class Net(nn.Module):
    """Runs the cell over a sequence, and a linear layer on every state or on the last."""

    def __init__(self, cell, last, tuple_=False, time_first=False, outputs=4):
        super().__init__()
        self.cell, self.fc = cell, nn.Linear(H, outputs)
        self.last, self.tuple_, self.time_first = last, tuple_, time_first

    def forward(self, x):
        x = x.transpose(0, 1) if self.time_first else x
        h, rows = torch.zeros(len(x), H, dtype=x.dtype), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            rows.append(self.fc(torch.tanh(h)))
        y = rows[-1] if self.last else torch.stack(rows, 0 if self.time_first else 1)
        return (y, h) if self.tuple_ else y


@pytest.mark.parametrize("tuple_", [False, True])
@pytest.mark.parametrize("time_first", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_module_around_a_cell(tuple_, time_first, last):
    net = Net(Textbook(), last, tuple_, time_first)
    text = f"gru(cell) tanh {'last ' * last}linear(fc)"
    built, said, run = describe(net, text)
    assert said == text.replace("gru(cell)", "gru(cell, concatenated=hx, keep=new, reset=before)")
    y = loop(net.cell, data())
    y = (
        np.tanh(y[:, -1] if last else y) @ net.fc.weight.double().detach().numpy().T
        + net.fc.bias.double().detach().numpy()
    )
    check(built.network, y, data())
    np.testing.assert_allclose(run(data().astype(np.float32)), y, rtol=0, atol=2e-6)


def test_another_chain_than_the_modules():
    net = Net(Textbook(), False)
    with pytest.raises(
        ExportError, match=r"Net computes something else than the chain that was understood.*closest differs by"
    ):
        from_module(net)
    with pytest.raises(ExportError, match="returned nothing of the right shape"):
        from_module(net, "gru(cell) tanh last linear(fc)")


def test_an_inferred_chain():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.gru_cell, self.out = nn.Embedding(11, I), Textbook(), nn.Linear(H, 11)

        def forward(self, tokens, h):
            h = self.gru_cell(self.embedding(tokens), h)
            return self.out(h), h

    module = Plain()
    net = from_module(module)
    tokens = np.random.default_rng(6).integers(11, size=(B, T))
    x = module.embedding.weight.double().detach().numpy()[tokens]
    y = (
        loop(module.gru_cell, x) @ module.out.weight.double().detach().numpy().T
        + module.out.bias.double().detach().numpy()
    )
    np.testing.assert_allclose(ge.reference.run(net, tokens), y, rtol=0, atol=1e-10)


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"module must be an nn\.Module, got int"):
        from_module(3)


# ---- the command line

MODULE = """
import torch
from torch import nn


class Cell(nn.Module):
    def __init__(self, inputs, hidden):
        super().__init__()
        self.W_r, self.W_z, self.W_h = (nn.Linear(inputs + hidden, hidden) for _ in range(3))

    def forward(self, x, h):
        joined = torch.cat([h, x], -1)
        r, z = torch.sigmoid(self.W_r(joined)), torch.sigmoid(self.W_z(joined))
        return (1 - z) * h + z * torch.tanh(self.W_h(torch.cat([r * h, x], -1)))
"""


def test_command_line(tmp_path, monkeypatch):
    (tmp_path / "hand_written.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    cell = Textbook()
    torch.save(cell.state_dict(), tmp_path / "cell.pt")
    tool = load_tool("export_cells")
    arguments = ["cell.pt", "m.gru", "--module", "hand_written:Cell", "--args"]
    result = CliRunner().invoke(tool.main, [*arguments, f"{I}, hidden={H}"])
    assert result.exit_code == 0, result.output
    assert '--layers "gru(concatenated=hx, keep=new, reset=before)"' in result.output
    assert "engine and PyTorch: difference" in result.output
    np.testing.assert_allclose(ge.load("m.gru").run(data().astype(np.float32)), loop(cell, data()), rtol=0, atol=2e-6)
    result = CliRunner().invoke(tool.main, [*arguments, "4, hidden=4"])
    assert result.exit_code == 1 and "the checkpoint does not fit hand_written:Cell" in result.output


def test_torch_tool_with_a_description(tmp_path):
    """Without the module: the description says what the cell computes."""
    cell = Textbook()
    torch.save(cell.state_dict(), tmp_path / "cell.pt")
    tool = load_tool("export_torch")
    arguments = [str(tmp_path / "cell.pt"), str(tmp_path / "m.gru")]
    result = CliRunner().invoke(tool.main, arguments)
    assert result.exit_code == 1 and "do not say reset and keep and concatenated" in result.output
    result = CliRunner().invoke(tool.main, [*arguments, "--layers", "gru(, concatenated=hx, reset=before, keep=new)"])
    assert result.exit_code == 0, result.output
    assert "not made of PyTorch's own layers: it is compared with the float64 reference alone" in result.output
    got = ge.load(tmp_path / "m.gru").run(data().astype(np.float32))
    np.testing.assert_allclose(got, loop(cell, data()), rtol=0, atol=2e-6)
