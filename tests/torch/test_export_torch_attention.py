# SPDX-License-Identifier: Apache-2.0
"""Attention with a query per step in PyTorch: written out, by function, and nn.MultiheadAttention, beside torch."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_models import H, I, Net, check, floats, gru

from gru_engine.export.common import ExportError
from gru_engine.export.torch import from_module


def sigmoids(m, x):
    o, _ = m.g(x)
    return torch.sigmoid(m.q(o) @ m.k(o).transpose(1, 2)) @ m.v(o)


def written(m, x):
    o, _ = m.g(x)
    q, k, v = m.q(o), m.k(o), m.v(o)
    return torch.bmm(F.softmax(torch.bmm(q, k.transpose(1, 2)) / math.sqrt(6), dim=-1), v) + o


def by_heads(m, x):
    o, _ = m.g(x)
    q, k, v = (linear(o).view(o.size(0), -1, 2, H // 2).transpose(1, 2) for linear in (m.q, m.k, m.v))
    a = torch.softmax(q @ k.transpose(-2, -1) * 0.5, -1) @ v
    return a.transpose(1, 2).reshape(o.size(0), -1, H)


def later_hidden(m, x):
    o, _ = m.g(x)
    mask = torch.triu(torch.full((x.size(1), x.size(1)), float("-inf")), 1)
    scores = m.q(o) @ m.k(o).transpose(-2, -1) + mask
    return torch.softmax(scores, -1) @ m.v(o)


def by_function(m, x):
    o, _ = m.g(x)
    return F.scaled_dot_product_attention(m.q(o), m.k(o), m.v(o))


def causal(m, x):
    o, _ = m.g(x)
    q, k, v = (linear(o).unflatten(-1, (2, H // 2)).transpose(1, 2) for linear in (m.q, m.k, m.v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3).transpose(1, 2).flatten(2)


def strided(m, x):
    o, _ = m.g(x)
    short = m.c(x.transpose(1, 2)).transpose(1, 2)
    return torch.softmax(m.q(o) @ m.k(short).transpose(1, 2), -1) @ m.v(short)


def layers():
    return {"g": gru(), "q": nn.Linear(H, H), "k": nn.Linear(H, H), "v": nn.Linear(H, H)}


@pytest.mark.parametrize("do", [written, by_heads, later_hidden, by_function, causal], ids=lambda do: do.__name__)
def test_attention(do):
    net = check(Net(do, **layers()), floats(2, 9, I)).network
    assert [layer.operation for layer in net.layers].count("attention") == 1


def test_keys_of_fewer_steps():
    net = check(Net(strided, **layers(), c=nn.Conv1d(I, H, 3, stride=2)), floats(2, 9, I)).network
    assert "attention" in [layer.operation for layer in net.layers]


@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention(batch_first):
    def do(m, x):
        o, _ = m.g(x)
        o = o if batch_first else o.transpose(0, 1)
        a, _ = m.a(o, o, o)
        y = m.n(o + a)
        return y if batch_first else y.transpose(0, 1)

    check(Net(do, g=gru(), a=nn.MultiheadAttention(H, 2, batch_first=batch_first), n=nn.LayerNorm(H)), floats(2, 9, I))


def product(m, x):
    o, _ = m.g(x)
    return o @ o.transpose(1, 2)


def no_softmax(m, x):
    return product(m, x) @ m.g(x)[0]


def softmax_over_queries(m, x):
    return torch.softmax(product(m, x), 1) @ m.g(x)[0]


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (product, r"value 0 .* is the scores of an attention, which have two time axes"),
        (sigmoids, r"aten.sigmoid.*this operation on the scores of an attention is not supported"),
        (no_softmax, "without a softmax"),
        (softmax_over_queries, "over the keys, their last axis"),
    ],
)
def test_refused(do, message):
    with pytest.raises(ExportError, match=message):
        from_module(Net(do, **layers()), floats(2, 9, I))
