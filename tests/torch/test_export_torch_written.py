# SPDX-License-Identifier: Apache-2.0
"""GRU cells that a module writes out in elementary operations."""

import pytest
import torch
from torch import nn
from torch_models import H, I, check, floats


class Cell(nn.Module):
    """A policy with a cell of its own: forward(x, h) -> (y, h)."""

    def __init__(self, step):
        super().__init__()
        torch.manual_seed(0)
        self.step = step
        self.x, self.h = nn.Linear(I, 3 * H), nn.Linear(H, 3 * H)
        self.xh, self.cand = nn.Linear(I + H, 2 * H), nn.Linear(I + H, H)
        self.head = nn.Linear(H, 2)

    def forward(self, x, h):
        h = self.step(self, x, h)
        return self.head(h), h


def after(m, x, h):
    (xr, xz, xn), (hr, hz, hn) = m.x(x).chunk(3, -1), m.h(h).chunk(3, -1)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    return torch.tanh(xn + r * hn), z


def before(m, x, h):
    r, z = torch.sigmoid(m.xh(torch.cat([x, h], -1))).chunk(2, -1)
    return torch.tanh(m.cand(torch.cat([x, r * h], -1))), z


FORMS = {
    "sum": lambda n, z, h: (1 - z) * n + z * h,
    "difference": lambda n, z, h: n + z * (h - n),
    "other sense": lambda n, z, h: (1 - z) * h + z * n,
    "lerp": lambda n, z, h: torch.lerp(n, h, z),
    "addcmul": lambda n, z, h: torch.addcmul(n, z, h - n),
    "subtracted": lambda n, z, h: n - z * (n - h),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("parts", [after, before])
def test_cells(parts, form):
    def step(m, x, h):
        n, z = parts(m, x, h)
        return FORMS[form](n, z, h)

    traced = check(Cell(step), floats(3, I), floats(3, H))
    assert [type(layer).__name__ for layer in traced.network.layers] == ["Input", "Gru", "Dense"]
    assert traced.network.layers[1].reset == parts.__name__
    assert traced.network.state_size == H and traced.takes_state


def test_another_cell_is_a_loop():
    def step(m, x, h):
        n, z = after(m, x, h)
        return z * h + torch.sigmoid(z) * n

    traced = check(Cell(step), floats(3, I), floats(3, H))
    assert "state" in [layer.operation for layer in traced.network.layers]
