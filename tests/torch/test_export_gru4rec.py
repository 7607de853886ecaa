# SPDX-License-Identifier: Apache-2.0
"""GRU4Rec's PyTorch version: its layers made of PyTorch's own modules, beside the network made of their state_dict."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import gru_engine as ge
from gru_engine.export.checkpoint import read_arrays
from gru_engine.export.gru4rec import from_parameters

ITEMS, B, T = 9, 2, 8


class First(nn.Module):
    """The layer in the place of an embedding: one row of three blocks for each item."""

    def __init__(self, hidden):
        super().__init__()
        self.Wx0 = nn.Embedding(ITEMS, 3 * hidden)
        self.Wrz0 = nn.Parameter(torch.randn(hidden, 2 * hidden) / 2)
        self.Wh0 = nn.Parameter(torch.randn(hidden, hidden) / 2)
        self.Bh0 = nn.Parameter(torch.randn(3 * hidden))

    def forward(self, items, h):
        candidate, reset, update = (self.Wx0(items) + self.Bh0).chunk(3, 1)
        from_r, from_z = (h @ self.Wrz0).chunk(2, 1)
        r, z = torch.sigmoid(reset + from_r), torch.sigmoid(update + from_z)
        return (1 - z) * h + z * torch.tanh((r * h) @ self.Wh0 + candidate)


class Model(nn.Module):
    def __init__(self, layers, embedding=0, constrained=False):
        super().__init__()
        self.layers, self.constrained = layers, constrained
        width = layers[-1] if constrained else embedding
        if embedding:
            self.E = nn.Embedding(ITEMS, embedding)
        elif not constrained:
            self.GE = First(layers[0])
        widths = [width, *layers] if width else layers
        self.G = nn.ModuleList(nn.GRUCell(a, b) for a, b in itertools.pairwise(widths))
        self.Wy, self.By = nn.Embedding(ITEMS, layers[-1]), nn.Embedding(ITEMS, 1)

    def forward(self, tokens):
        states = [torch.zeros(len(tokens), n, dtype=torch.float64) for n in self.layers]
        rows = []
        for t in range(tokens.shape[1]):
            own = not hasattr(self, "GE")
            value = (self.Wy if self.constrained else self.E)(tokens[:, t]) if own else self.GE(tokens[:, t], states[0])
            if not own:
                states[0] = value
            for i, cell in enumerate(self.G, 0 if own else 1):
                value = states[i] = cell(value, states[i])
            rows.append(value @ self.Wy.weight.T + self.By.weight.T)
        return torch.stack(rows, 1)


@pytest.mark.parametrize("options", [{"constrained": True}, {"embedding": 3}, {}])
@pytest.mark.parametrize("layers", [[5], [6, 5]])
def test_scores(tmp_path, layers, options):
    torch.manual_seed(1)
    model = Model(layers, **options).double()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    net = from_parameters(read_arrays(tmp_path / "model.pt"))
    tokens = np.random.default_rng(2).integers(ITEMS, size=(B, T))
    with torch.inference_mode():
        expected = model(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(ge.reference.run(net, tokens), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ge.load(net.tobytes()).run(tokens), expected, rtol=0, atol=5e-6)
