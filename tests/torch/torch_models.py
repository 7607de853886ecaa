# SPDX-License-Identifier: Apache-2.0
"""Small modules, and the comparison that every test of the PyTorch exporter makes."""

import copy

import numpy as np
import torch
from torch import nn

import gru_engine as ge
from gru_engine.export import common
from gru_engine.export.torch import trace

torch.manual_seed(0)
torch.set_num_threads(1)  # the threads of a larger pool wait for each other longer than they compute
STEPS = 50
TOLERANCE = 2e-6  # of the engine in float32, relative to the largest magnitude, after 50 steps

I, H, O, V = 6, 10, 4, 13


class Net(nn.Module):
    """Layers by name, and what forward does with them."""

    def __init__(self, do, **layers):
        super().__init__()
        torch.manual_seed(len(layers))
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.do = do
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d) and module.track_running_stats:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                for parameter in module.parameters():
                    parameter.data.normal_()

    def forward(self, *args):
        return self.do(self, *args)


def gru(inputs=I, hidden=H, layers=1, **options):
    torch.manual_seed(layers)
    return nn.GRU(inputs, hidden, layers, **{"batch_first": True, **options})


def floats(*shape):
    return torch.zeros(*shape)


def tokens(*shape):
    return torch.zeros(*shape, dtype=torch.int64)


def check(module, *example, **options):
    """The network of a module, and both executed on random inputs: the float64 reference and the engine."""
    traced = trace(module, example, **options)
    wide = copy.deepcopy(traced.module)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        traced_wide = type(traced)(**{**vars(traced), "module": wide.double()})
        x = common.random_inputs(traced.network, 3, STEPS, seed=7)
        expected, _ = traced_wide.run(x)
    finally:
        torch.set_default_dtype(default)
    magnitude = np.abs(expected).max()
    reference = ge.reference.run(traced.network, x)
    np.testing.assert_allclose(reference, expected, rtol=0, atol=1e-9 * magnitude)
    engine = ge.load(traced.network.tobytes()).run(x)
    np.testing.assert_allclose(engine, expected, rtol=0, atol=TOLERANCE * magnitude)
    return traced
