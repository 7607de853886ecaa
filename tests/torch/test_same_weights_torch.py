# SPDX-License-Identifier: Apache-2.0
"""A module of PyTorch makes the same bytes of a network as every other framework, followed as well as read."""

import torch
from same_weights import HIDDEN, INPUTS, OUTPUTS, check
from torch import nn

from gru_engine.export.torch import from_module


class Model(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.gru, self.fc = nn.GRU(INPUTS, HIDDEN, batch_first=True), nn.Linear(HIDDEN, OUTPUTS)
        values = {"weight_ih_l0": net.W, "weight_hh_l0": net.U, "bias_ih_l0": net.b_x, "bias_hh_l0": net.b_h}
        self.load_state_dict(
            {f"gru.{name}": torch.from_numpy(value.copy()) for name, value in values.items()}
            | {"fc.weight": torch.from_numpy(net.W_y.copy()), "fc.bias": torch.from_numpy(net.b_y.copy())}
        )

    def forward(self, x):
        return self.fc(self.gru(x)[0])


def followed(net):
    return from_module(Model(net).eval(), torch.zeros(2, 9, INPUTS))


def test_same_weights():
    check(followed, "after")


def test_of_float64_too():
    example = torch.zeros(2, 9, INPUTS, dtype=torch.float64)
    check(lambda net: from_module(Model(net).double().eval(), example), "after")
