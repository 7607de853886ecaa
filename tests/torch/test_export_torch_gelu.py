# SPDX-License-Identifier: Apache-2.0
"""GELU, as a module and written out, and the larger and the smaller of two values in modules of PyTorch."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_models import H, I, Net, O, check, floats, gru

from gru_engine.export.common import ExportError
from gru_engine.export.torch import from_module

ROOT = math.sqrt(2 / math.pi)
GELUS = {
    "gelu": [
        nn.GELU(),
        F.gelu,
        lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
        lambda x: x * 0.5 * (1.0 + torch.erf(x * math.sqrt(0.5))),
        lambda x: (1 + torch.special.erf(x / 2**0.5)) * x / 2,
        lambda x: 0.5 * (1 - torch.erf(-x / 2**0.5)) * x,
    ],
    "gelu_tanh": [
        nn.GELU("tanh"),
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: 0.5 * x * (1.0 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x, 3.0)))),
        lambda x: 0.5 * x * (1 + torch.tanh(x * ROOT * (1 + 0.044715 * x * x))),
        lambda x: x * torch.sigmoid(2 * ROOT * (x + 0.044715 * x**3)),
    ],
}


@pytest.mark.parametrize(("name", "number"), [(name, i) for name, group in GELUS.items() for i in range(len(group))])
def test_gelu(name, number):
    """Promise: one activation, in the dense layer before it."""
    function = GELUS[name][number]
    layers = {"a": function} if isinstance(function, nn.Module) else {}
    do = (lambda m, x: m.a(m.fc(x))) if layers else (lambda m, x: function(m.fc(x)))
    net = check(Net(do, fc=nn.Linear(I, O), **layers), floats(2, 3, I)).network
    assert [layer.operation for layer in net.layers] == ["input", "dense"]
    assert net.layers[1].activation.name == name


def test_a_feed_forward_block_behind_a_gru():
    def do(m, x):
        y = m.gru(x)[0]
        return m.norm(y + m.down(F.gelu(m.up(y))))

    check(Net(do, gru=gru(), up=nn.Linear(H, 3 * H), down=nn.Linear(3 * H, H), norm=nn.LayerNorm(H)), floats(2, 3, I))


@pytest.mark.parametrize(
    ("do", "operations"),
    [
        (lambda m, x: torch.maximum(m.f(x), m.g(x)), {"maximum"}),
        (lambda m, x: torch.minimum(m.f(x), m.g(x)), {"maximum", "affine"}),
        (lambda m, x: torch.max(m.f(x), m.g(x)[..., :1]), {"maximum"}),
        (lambda m, x: torch.min(m.f(x)[:, -1], m.g(x)[:, -1]), {"maximum", "affine"}),
        (lambda m, x: torch.maximum(m.f(x), torch.tensor(0.25)), {"activate"}),
        (lambda m, x: torch.maximum(torch.tensor([0.0]), m.f(x)), set()),
        (lambda m, x: torch.minimum(m.f(x), torch.tensor(-0.25)), {"activate"}),
    ],
)
def test_extrema(do, operations):
    net = check(Net(do, f=nn.Linear(I, O), g=nn.Linear(I, O)), floats(2, 3, I)).network
    found = {layer.operation for layer in net.layers} - {"input", "dense", "slice", "last"}
    assert found <= operations


REFUSED = {
    "maxout over a constant": (lambda m, x: torch.maximum(m.f(x), torch.arange(4.0)), r"an array of the shape \[4\]"),
    "the least over an axis": (lambda m, x: m.f(x).min(-1).values, "a minimum over an axis is not supported"),
    "the least of all": (lambda m, x: m.f(x).min().view(1, 1), "a minimum over an axis is not supported"),
    "the largest of all": (lambda m, x: m.f(x).max().view(1, 1), r"only the maximum over time is supported, max\(dim="),
    "erf": (lambda m, x: torch.erf(m.f(x)), "an error function is supported only as a part of a GELU"),
    "erf with another constant": (
        lambda m, x: x * (1.1 + torch.erf(x)),
        "an error function is supported only as a part",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    do, message = REFUSED[name]
    with pytest.raises(ExportError, match=message):
        from_module(Net(do, f=nn.Linear(I, O)), (floats(2, 3, I),))
