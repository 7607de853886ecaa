# SPDX-License-Identifier: Apache-2.0
"""Spectra and other time axes in PyTorch: convolutions over frequency, strides, pooling, GRUs of bands, repeated values."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_models import H, I, Net, O, check, floats, gru

C, BINS = 3, 8


def recurrent(t):
    """[batch, channels, time, bins] as the input of a GRU."""
    return t.permute(0, 2, 1, 3).flatten(2)


@pytest.mark.parametrize(
    ("conv", "bins"),
    [
        (nn.Conv2d(1, C, 3, padding=1), BINS),
        (nn.Conv2d(1, C, (1, 3), stride=(1, 2), padding=(0, 1)), 4),
        (nn.Conv2d(1, C, 3, dilation=(1, 2), padding=(1, 0)), 4),
        (nn.Conv2d(1, C, (1, BINS)), 1),
        (nn.Conv2d(1, C, (3, 3), padding=1, bias=False), BINS),
    ],
)
def test_convolution_over_frequency(conv, bins):
    do = lambda m, x: m.g(recurrent(torch.relu(m.n(m.c(x.unsqueeze(1))))))[0]  # noqa: E731
    check(Net(do, c=conv, n=nn.BatchNorm2d(C), g=gru(C * bins)), floats(2, 9, BINS))


def test_depthwise_and_pointwise():
    do = lambda m, x: m.g(recurrent(m.b(m.a(m.c(x)))))[0]  # noqa: E731
    depthwise = nn.Conv2d(4, 4, (1, 3), stride=(1, 2), padding=(0, 1), groups=4)
    module = Net(do, c=nn.Conv2d(1, 4, 1), a=depthwise, b=nn.Conv2d(4, C, 1), g=gru(C * 4))
    check(module, floats(2, 1, 9, BINS), axes="BFTF")


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d((1, 4)), nn.MaxPool2d((1, 2)), nn.MaxPool2d((1, 3), stride=(1, 2), padding=(0, 1)), nn.AvgPool2d((2, 2)),
     nn.MaxPool2d(2)],
)  # fmt: skip
def test_pooling(pool):
    bins = pool(floats(1, C, 20, BINS)).shape[3]
    do = lambda m, x: m.g(recurrent(m.p(m.c(x.unsqueeze(1)))))[0]  # noqa: E731
    check(Net(do, c=nn.Conv2d(1, C, 3, padding=1), p=pool, g=gru(C * bins)), floats(2, 9, BINS))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(I, O, 3),
        nn.Conv1d(I, O, 5, stride=2, padding=2),
        nn.Conv1d(I, O, 4, stride=4),
        nn.Sequential(nn.Conv1d(I, O, 3), nn.Tanh(), nn.MaxPool1d(2)),
        nn.Sequential(nn.Conv1d(I, O, 25, stride=5), nn.ReLU(), nn.Conv1d(O, O, 3, stride=2)),
    ],
)
def test_fewer_steps(layer):
    do = lambda m, x: m.g(m.c(x.transpose(1, 2)).transpose(1, 2))[1][-1]  # noqa: E731
    check(Net(do, c=layer, g=gru(O, bidirectional=True)), floats(2, 60, I))


def test_activation_before_padding_is_cut_off():
    do = lambda m, x: m.g(torch.tanh(m.c(x.transpose(1, 2)))[:, :, :-4].transpose(1, 2))[0]  # noqa: E731
    assert check(Net(do, c=nn.Conv1d(I, O, 5, padding=4), g=gru(O)), floats(2, 9, I)).network.causal


def test_last_steps_beside_a_state():
    do = lambda m, x: m.f(x[:, -3:].flatten(1)) + m.g(x)[1][-1]  # noqa: E731
    check(Net(do, f=nn.Linear(3 * I, H), g=gru()), floats(2, 9, I))


def bands(m, x):
    """[batch, time, bands, features]: one GRU along the time for all bands."""
    batch, steps, number, width = x.shape
    y, _ = m.g(x.transpose(1, 2).reshape(batch * number, steps, width))
    return y.view(batch, number, steps, -1).transpose(1, 2).flatten(2)


def test_one_gru_for_all_bands():
    traced = check(Net(bands, g=gru(layers=2)), floats(2, 9, 5, I))
    assert traced.network.state_size == 5 * 2 * H


def across(m, x):
    """Along the bands of each step, in both directions."""
    batch, steps, number, width = x.shape
    y, _ = m.g(x.reshape(batch * steps, number, width))
    return y.reshape(batch, steps, -1)


def test_a_gru_along_the_bands():
    assert check(Net(across, g=gru(bidirectional=True)), floats(2, 9, 5, I)).network.causal


def test_grouped_linear_layers():
    do = lambda m, x: m.g(torch.einsum("btgi,gih->btgh", x.view(*x.shape[:2], 2, -1), m.w).flatten(2))[0]  # noqa: E731
    check(Net(do, w=nn.Parameter(torch.randn(2, I // 2, 5)), g=gru(10)), floats(2, 9, I))


def attention(m, x):
    """NARM: scores of each step and the last one, not normalised over time but bounded."""
    y, h = m.g(x)
    scores = m.v(torch.sigmoid(m.a(y) + m.b(h[-1]).unsqueeze(1)))
    return torch.cat([F.adaptive_avg_pool1d((scores * y).transpose(1, 2), 1).squeeze(2), h[-1]], 1)


def test_a_value_of_the_sequence_at_each_step():
    module = Net(attention, g=gru(), a=nn.Linear(H, H), b=nn.Linear(H, H), v=nn.Linear(H, 1))
    check(module, floats(2, 9, I))


@pytest.mark.parametrize(
    "do",
    [
        lambda m, x: m.g(x)[0] + m.g(x)[0][:, -1:],
        lambda m, x: m.g(x)[0] + m.g(x)[0][:, -1].unsqueeze(1).expand(-1, x.shape[1], -1),
        lambda m, x: m.g(x)[0] + m.g(x)[1].transpose(0, 1),
    ],
)
def test_the_last_step_at_each_step(do):
    check(Net(do, g=gru()), floats(2, 9, I))


def test_an_autoencoder():
    do = lambda m, x: m.d(m.e(x)[1][-1].unsqueeze(1).repeat(1, x.shape[1], 1))[0]  # noqa: E731
    check(Net(do, e=gru(), d=gru(H, 4)), floats(2, 9, I))
