# SPDX-License-Identifier: Apache-2.0
"""Loops over time in Python, and modules of one time step with any states: parity with float64 PyTorch, and refusals."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_models import H, I, Net, O, check, floats, tokens

from gru_engine import layers
from gru_engine.export.common import ExportError
from gru_engine.export.torch import from_module


def kinds(traced):
    return [layer.operation for layer in traced.network.layers]


def stacked(m, x):
    h, ys = x.new_zeros(len(x), H), []
    for t in range(x.shape[1]):
        h = m.cell(x[:, t], h)
        ys.append(h)
    return torch.stack(ys, 1)


def unbound(m, x):
    h = x.new_zeros(len(x), H)
    for step in x.unbind(1):
        h = m.cell(step, h)
    return h


def grown(m, x):
    h, ys = x.new_zeros(len(x), H), x.new_zeros(len(x), 0, H)
    for t in range(x.shape[1]):
        h = m.cell(x[:, t, :], h)
        ys = torch.cat([ys, h.unsqueeze(1)], 1)
    return ys


def written(m, x):
    h, ys = x.new_zeros(len(x), H), x.new_zeros(len(x), x.shape[1], H)
    for t in range(x.shape[1]):
        h = m.cell(x[:, t], h)
        ys[:, t] = h
    return ys


def turned(m, x):
    h, ys = x.new_zeros(len(x), H), []
    for t in reversed(range(x.shape[1])):
        h = m.cell(x[:, t], h)
        ys.insert(0, h)
    return torch.stack(ys, 1)


def layer_of_one_step(m, x):
    h, ys = x.new_zeros(1, len(x), H), []
    for t in range(x.shape[1]):
        y, h = m.gru(x[:, t : t + 1], h)
        ys.append(y)
    return torch.cat(ys, 1)


@pytest.mark.parametrize("do", [stacked, unbound, grown, written, turned])
def test_loop_over_a_cell(do):
    traced = check(Net(do, cell=nn.GRUCell(I, H)), floats(2, 3, I))
    assert "gru" in kinds(traced)
    assert "state" not in kinds(traced)
    assert traced.network.causal == (do is not turned)


def test_loop_over_a_gru_of_one_step():
    traced = check(Net(layer_of_one_step, gru=nn.GRU(I, H, batch_first=True)), floats(2, 3, I))
    assert kinds(traced).count("gru") == 1


def test_both_directions():
    do = lambda m, x: torch.cat([stacked(m.a, x), turned(m.b, x)], -1)  # noqa: E731
    module = Net(do, a=Net(stacked, cell=nn.GRUCell(I, H)), b=Net(turned, cell=nn.GRUCell(I, H)))
    assert kinds(check(module, floats(2, 3, I))).count("gru") == 2


def stack_of_cells(m, x):
    states, ys = [m.h0.expand(x.shape[1], H)] * 2, []
    for step in x:
        for i, cell in enumerate(m.cells):
            states[i] = cell(step, states[i])
            step = states[i] + step if i else states[i]
        ys.append(step)
    return torch.stack(ys)


def test_layers_and_a_learned_initial_state():
    module = Net(
        stack_of_cells, cells=nn.ModuleList([nn.GRUCell(I, H), nn.GRUCell(H, H)]), h0=nn.Parameter(torch.randn(H))
    )
    assert kinds(check(module, floats(3, 2, I), axes="TBF")).count("gru") == 2


def normalised(m, x):
    """Layer normalisation of both products: no GRU, so a loop."""
    h, ys = x.new_zeros(len(x), H), []
    for t in range(x.shape[1]):
        a, b = m.n1(m.w(x[:, t])).chunk(3, -1), m.n2(m.u(h)).chunk(3, -1)
        z, r = torch.sigmoid(a[0] + b[0]), torch.sigmoid(a[1] + b[1])
        h = (1 - z) * torch.tanh(a[2] + r * b[2]) + z * h
        ys.append(m.out(h))
    return torch.stack(ys, dim=1)


def feedback(m, x):
    h, y, ys = x.new_zeros(len(x), H), x.new_zeros(len(x), O), []
    for t in range(x.shape[1]):
        h = m.cell(torch.cat([x[:, t], y], 1), h)
        y = m.out(h)
        ys.append(y)
    return torch.stack(ys, 1)


def decayed(m, x):
    """The state is changed before the cell reads it (GRU-D)."""
    h = x.new_zeros(len(x), H)
    for t in range(x.shape[1]):
        h = m.cell(x[:, t], h * torch.exp(-torch.relu(m.decay(x[:, t]))))
    return m.out(h)


def from_embedding(m, x):
    h, ys = torch.zeros(len(x), H), []
    for t in range(x.shape[1]):
        h = torch.tanh(m.w(m.embedding(x[:, t])) + m.u(h))
        ys.append(h)
    return torch.stack(ys, 1)


@pytest.mark.parametrize(
    ("module", "example"),
    [
        (Net(normalised, w=nn.Linear(I, 3 * H), u=nn.Linear(H, 3 * H), n1=nn.LayerNorm(3 * H), n2=nn.LayerNorm(3 * H),
             out=nn.Linear(H, O)), floats(2, 3, I)),
        (Net(feedback, cell=nn.GRUCell(I + O, H), out=nn.Linear(H, O)), floats(2, 3, I)),
        (Net(decayed, cell=nn.GRUCell(I, H), decay=nn.Linear(I, H), out=nn.Linear(H, O)), floats(2, 3, I)),
        (Net(from_embedding, embedding=nn.Embedding(7, I), w=nn.Linear(I, H), u=nn.Linear(H, H)), tokens(2, 3)),
    ],
)  # fmt: skip
def test_other_loops(module, example):
    traced = check(module, example)
    assert "state" in kinds(traced)
    assert traced.network.causal


def test_a_state_beside_sequences():
    def do(m, x, h):
        ys = []
        for t in range(x.shape[1]):
            h = torch.tanh(m.w(x[:, t]) + m.u(h))
            ys.append(h)
        return torch.stack(ys, 1), h

    traced = check(Net(do, w=nn.Linear(I, H), u=nn.Linear(H, H)), floats(2, 3, I), floats(2, H))
    assert traced.takes_state
    assert traced.network.output_size == H


# ---- one step


def dreamer(m, x, h):
    r, n, z = m.norm(m.w(torch.cat([x, h], -1))).chunk(3, -1)
    z = torch.sigmoid(z - 1)
    h = z * torch.tanh(torch.sigmoid(r) * n) + (1 - z) * h
    return m.out(h), h


def cached(m, x, cache, h):
    window = torch.cat([cache, x.transpose(1, 2)], 2)
    y, h = m.gru(torch.relu(m.conv(window)).transpose(1, 2), h)
    return m.out(y), window[:, :, 1:], h


def test_a_step_with_a_state():
    module = Net(dreamer, w=nn.Linear(I + H, 3 * H), norm=nn.LayerNorm(3 * H), out=nn.Linear(H, O))
    traced = check(module, floats(2, I), floats(2, H))
    assert traced.network.state_size == H
    assert list(traced.network.outputs) == ["y"]


def test_a_cell_applied_twice():
    traced = check(Net(lambda m, x, h: m.cell(x, m.cell(x, h)), cell=nn.GRUCell(I, H)), floats(2, I), floats(2, H))
    assert traced.network.state_size == H


def test_a_step_with_two_states():
    module = Net(cached, conv=nn.Conv1d(I, O, 3), gru=nn.GRU(O, H, batch_first=True), out=nn.Linear(H, O))
    traced = check(module, floats(2, 1, I), floats(2, I, 2), floats(1, 2, H))
    assert traced.network.state_size == 2 * I + H
    assert any(isinstance(layer, layers.Gru) for layer in traced.network.layers)


def test_which_value_is_the_state_must_be_certain():
    do = lambda m, x, h: (torch.tanh(m.w(x)), torch.tanh(m.w(x) + m.u(h)))  # noqa: E731
    module = Net(do, w=nn.Linear(I, H), u=nn.Linear(H, H))
    with pytest.raises(ExportError, match=r"new states \(1\) is not certain.*outputs="):
        from_module(module, (floats(2, I), floats(2, H)))
    assert from_module(module, (floats(2, I), floats(2, H)), outputs=[1]).state_size == H


# ---- refusals


def counts(m, x):
    h = x.new_zeros(len(x), H)
    for t in range(x.shape[1]):
        h = m.cell(x[:, t] * (t + 1), h)
    return h


def encoded(m, x):
    h, ys = m.gru(x)[1][0], []
    for t in range(x.shape[1]):
        h = torch.tanh(m.w(x[:, t]) + m.u(h))
        ys.append(h)
    return torch.stack(ys, 1)


def backwards(m, x):
    h, ys = x.new_zeros(len(x), H), []
    for t in reversed(range(x.shape[1])):
        h = torch.tanh(m.w(x[:, t]) + m.u(h))
        ys.append(h)
    return torch.stack(ys[::-1], 1)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Net(counts, cell=nn.GRUCell(I, H)), "of a loop over time the steps are not alike"),
        (Net(encoded, gru=nn.GRU(I, H, batch_first=True), w=nn.Linear(I, H), u=nn.Linear(H, H)),
            "initial state of a loop is computed from the input"),
        (Net(backwards, w=nn.Linear(I, H), u=nn.Linear(H, H)), "from the end of the sequence to its beginning"),
    ],
)  # fmt: skip
def test_refusals(module, message):
    with pytest.raises(ExportError, match=message):
        from_module(module, floats(2, 3, I), axes="BTF")


def test_the_recurrence_is_that_of_the_loop():
    net = from_module(Net(stacked, cell=nn.GRUCell(I, H)), floats(2, 3, I))
    assert net.state_size == H
    assert not np.any(net.initial_state)
