# SPDX-License-Identifier: Apache-2.0
"""Modules with convolutions, normalisation, pooling over time and attention as networks, compared with torch."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_models import H, I, check, floats, gru

from gru_engine.export.common import ExportError
from gru_engine.export.torch import from_module


class Do(nn.Module):
    """A module made of others and of a function."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def conv(inputs=I, outputs=H, kernel=3, **options):
    torch.manual_seed(kernel)
    return nn.Conv1d(inputs, outputs, kernel, **options)


def kinds(traced):
    return [type(layer).__name__ for layer in traced.network.layers]


def along_time(function):
    """A function of [batch, channels, time] for values [batch, time, channels]."""
    return lambda m, x: function(m, x.transpose(1, 2)).transpose(1, 2)


# ---- convolution


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (3, 1), (3, 4), (5, 2)])
def test_causal_by_padding(kernel, dilation, bias):
    left = (kernel - 1) * dilation
    do = along_time(lambda m, x: m.c(F.pad(x, (left, 0))))
    traced = check(Do(do, c=conv(kernel=kernel, dilation=dilation, bias=bias)), floats(2, 9, I))
    assert traced.network.causal
    assert traced.network.state_size == left * I


@pytest.mark.parametrize(("kernel", "dilation"), [(2, 1), (3, 4)])
def test_causal_by_cutting_off(kernel, dilation):
    p = (kernel - 1) * dilation
    ways = [
        along_time(lambda m, x: m.c(x)[:, :, :-p]),
        along_time(lambda m, x: m.c(x)[..., : x.shape[-1]].contiguous()),
        along_time(lambda m, x: F.pad(m.c(x), (0, -p))),
        lambda m, x: m.c(x.transpose(1, 2)).transpose(1, 2)[:, :-p],
    ]
    for do in ways:
        traced = check(Do(do, c=conv(kernel=kernel, dilation=dilation, padding=p)), floats(2, 9, I))
        assert traced.network.causal
        assert kinds(traced) == ["Input", "Window", "Dense"]


def test_the_other_half_cut_off_sees_ahead():
    traced = check(Do(along_time(lambda m, x: m.c(x)[:, :, 4:]), c=conv(kernel=5, padding=4)), floats(2, 9, I))
    assert not traced.network.causal and traced.network.state_size == 0


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (4, 1), (4, 3), (5, 2)])
def test_same(kernel, dilation):
    c = conv(kernel=kernel, dilation=dilation, padding="same")
    traced = check(Do(along_time(lambda m, x: m.c(x)), c=c), floats(2, 30, I))
    assert not traced.network.causal


@pytest.mark.parametrize(("groups", "outputs"), [(2, 4), (3, 3), (I, I), (I, 2 * I)])
def test_groups(groups, outputs):
    check(Do(along_time(lambda m, x: m.c(x)), c=conv(outputs=outputs, groups=groups, padding=1)), floats(2, 9, I))


def test_pad_twice_and_both_sides():
    check(Do(along_time(lambda m, x: m.c(F.pad(F.pad(x, (1, 0)), (2, 1)))), c=conv(kernel=5)), floats(2, 9, I))
    check(Do(along_time(lambda m, x: m.c(F.pad(x, (3, 0))[..., 1:])), c=conv(kernel=3)), floats(2, 9, I))


def test_channels_before_time():
    traced = check(Do(lambda m, x: m.g(m.c(x).transpose(1, 2))[0], c=conv(padding=1), g=gru(H)), floats(2, I, 9))
    assert traced.places[0].dims == (("B",), (I,), ("T",))


def test_without_batch():
    check(Do(lambda m, x: m.c(x.T).T, c=conv(padding=1)), floats(9, I))


def test_two_dimensional_kernel_of_one_row():
    c = nn.Conv2d(I, H, (1, 3), padding=(0, 1))
    check(Do(along_time(lambda m, x: m.c(x.unsqueeze(2)).squeeze(2)), c=c), floats(2, 9, I))


def test_reversed_time():
    check(Do(along_time(lambda m, x: m.c(F.pad(x.flip(2), (2, 0))).flip(2)), c=conv()), floats(2, 9, I))


class Residual(nn.Module):
    """A block of a temporal convolutional network."""

    def __init__(self, width, dilation):
        super().__init__()
        self.pad = 2 * dilation
        self.a = nn.Conv1d(width, width, 3, dilation=dilation, padding=self.pad)
        self.b = nn.Conv1d(width, 2 * width, 3, dilation=dilation)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x):
        y = torch.relu(self.norm(self.a(x)[:, :, : -self.pad]))
        return x + F.glu(self.b(F.pad(y, (self.pad, 0))), dim=1)


def test_convolutional_network_before_a_gru():
    torch.manual_seed(0)
    m = Do(
        lambda m, x: m.head(m.g(m.blocks(m.first(x.transpose(1, 2))).transpose(1, 2))[0]),
        first=nn.Conv1d(I, H, 1), blocks=nn.Sequential(Residual(H, 1), Residual(H, 2), Residual(H, 4)), g=gru(H),
        head=nn.Linear(H, 3),
    )  # fmt: skip
    for block in m.blocks:
        nn.init.uniform_(block.norm.running_mean), nn.init.uniform_(block.norm.running_var, 0.5, 2)
    traced = check(m, floats(2, 9, I))
    assert traced.network.causal
    for block in m.blocks:
        nn.utils.parametrizations.weight_norm(block.a)
    assert from_module(m, (floats(2, 9, I),)).state_size == traced.network.state_size


def test_states_beside_windows():
    """The GRU's state is not at the beginning of the network's: the convolution's window is."""

    class Streaming(nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.g = conv(), gru(H)

        def forward(self, x, h):
            return self.g(self.c(F.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2), h)

    traced = check(Streaming(), floats(2, 9, I), floats(1, 2, H))
    assert traced.network.state_size == 2 * I + H
    traced.check()


REFUSED = {
    "longer": (
        along_time(lambda m, x: torch.relu(m.c(x))),
        conv(padding=2),
        "makes 2 steps more than the sequence has",
    ),
    "transposed": (along_time(lambda m, x: m.c(x)), nn.ConvTranspose1d(I, H, 3), r"conv_transpose1d.*not supported"),
    "mode": (along_time(lambda m, x: m.c(x)), conv(padding=1, padding_mode="reflect"), "padding of the mode 'reflect'"),
    "value": (along_time(lambda m, x: m.c(F.pad(x, (2, 0), value=1.0))), conv(), "padding with 1 is not supported"),
    "padding alone": (along_time(lambda m, x: torch.tanh(F.pad(x, (2, 0)))), conv(), "2 steps of padding"),
    "shifted": (along_time(lambda m, x: m.c(F.pad(x, (4, 0)))[:, :, :-2]), conv(), "shifted steps"),
    "group norm": (along_time(lambda m, x: m.c(x)), nn.GroupNorm(1, I), "group_norm"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    do, c, message = REFUSED[name]
    with pytest.raises(ExportError, match=message):
        from_module(Do(do, c=c), (floats(2, 30, I),))


# ---- normalisation


def random_norm(norm):
    torch.manual_seed(1)
    for p in norm.parameters():
        nn.init.normal_(p)
    return norm


@pytest.mark.parametrize("norm", [nn.LayerNorm(H), nn.LayerNorm(H, 1e-2, bias=False), nn.LayerNorm(H, elementwise_affine=False),
                                  nn.RMSNorm(H), nn.RMSNorm(H, 1e-3), nn.RMSNorm(H, elementwise_affine=False)])  # fmt: skip
def test_norms(norm):
    traced = check(Do(lambda m, x: m.n(m.g(x)[0]), g=gru(), n=random_norm(norm)), floats(2, 5, I))
    assert kinds(traced) == ["Input", "Gru", "Norm"]


def test_norm_over_two_axes_and_within_one():
    for shape in ([2, 3], [3]):
        n = random_norm(nn.LayerNorm(shape))
        traced = check(Do(lambda m, x: m.n(x.reshape(*x.shape[:2], 2, 3)).flatten(2), n=n), floats(2, 5, 6))
        assert kinds(traced) == ["Input", "Norm"]


WRITTEN = {
    "sqrt": lambda x: (x - x.mean(-1, True)) / torch.sqrt(((x - x.mean(-1, True)) ** 2).mean(-1, True) + 1e-3),
    "rsqrt": lambda x: (x - x.mean(2, True)) * torch.rsqrt((x - x.mean(2, True)).square().mean(2, True) + 1e-3),
    "var": lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt(),
    "power": lambda x: x * (x.pow(2).mean(-1, keepdim=True) + 1e-3) ** -0.5,
    "rms": lambda x: x / (x * x).mean(-1, keepdim=True).sqrt(),
}  # fmt: skip


@pytest.mark.parametrize("width", [6, 20])
@pytest.mark.parametrize("name", WRITTEN)
def test_written_out(name, width):
    scale, shift = torch.randn(width), torch.randn(width)
    traced = check(Do(lambda m, x: WRITTEN[name](x) * scale + shift), floats(2, 5, width))
    assert "Norm" in kinds(traced) and len(kinds(traced)) <= 3


@pytest.mark.parametrize(("name", "do", "message"), [
    ("std", lambda m, x: x / x.std(-1, keepdim=True), "std"),
    ("unbiased", lambda m, x: x / x.var(-1, keepdim=True).sqrt(), "correction"),
    ("other", lambda m, x: x / (torch.tanh(x) ** 2).mean(-1, keepdim=True).sqrt(), "a division by a value"),
    ("root", lambda m, x: torch.sqrt(x * x), "square root"),
    ("root of powers", lambda m, x: torch.sqrt((x * x).mean(-1, keepdim=True)), "square root"),
    ("time", lambda m, x: x / (x * x).mean(1, keepdim=True).sqrt(), "square root"),
])  # fmt: skip
def test_written_out_refused(name, do, message):
    with pytest.raises(ExportError, match=message):
        from_module(Do(lambda m, x: do(m, m.g(x)[0]), g=gru()), (floats(2, 5, I),))


# ---- one value per sequence


@pytest.mark.parametrize("do", [
    lambda m, x: m.g(x)[0].mean(1), lambda m, x: m.g(x)[0].mean(dim=1, keepdim=True).squeeze(1),
    lambda m, x: m.g(x)[0].amax(1), lambda m, x: m.g(x)[0].max(dim=1).values, lambda m, x: torch.max(m.g(x)[0], 1)[0],
    lambda m, x: F.adaptive_avg_pool1d(m.g(x)[0].transpose(1, 2), 1).squeeze(-1),
    lambda m, x: F.adaptive_max_pool1d(m.g(x)[0].transpose(1, 2), 1).squeeze(-1),
    lambda m, x: torch.cat([m.g(x)[0].mean(1), m.g(x)[0].amax(1), m.g(x)[0][:, -1], m.g(x)[1][0]], -1),
    lambda m, x: m.g(x)[0].mean((1, 2)).unsqueeze(-1),
])  # fmt: skip
@pytest.mark.parametrize("bidirectional", [False, True])
def test_pooling(do, bidirectional):
    assert check(Do(do, g=gru(bidirectional=bidirectional)), floats(2, 5, I)).network.per_sequence


HEADS, WIDTH = 2, 3
ATTENTION = {
    "sum": lambda h, s: (torch.softmax(s, 1) * h).sum(1),
    "bmm": lambda h, s: torch.bmm(torch.softmax(s, 1).transpose(1, 2), h).squeeze(1),
    "squeezed": lambda h, s: torch.bmm(F.softmax(s.squeeze(-1), -1).unsqueeze(1), h).squeeze(1),
    "matmul": lambda h, s: (h.transpose(1, 2) @ F.softmax(s, 1)).squeeze(-1),
    "einsum": lambda h, s: torch.einsum("bth,bt->bh", h, F.softmax(s.squeeze(-1), -1)),
    "mean of heads": lambda h, s: torch.einsum("bth,btk->bhk", h, F.softmax(torch.cat([s, -s], -1), 1)).flatten(1),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_pooling(name):
    torch.manual_seed(2)
    do = lambda m, x: m.head((lambda h: ATTENTION[name](h, m.score(torch.tanh(m.hidden(h)))))(m.g(x)[0]))  # noqa: E731
    head = nn.LazyLinear(4)
    module = Do(do, g=gru(), hidden=nn.Linear(H, 8), score=nn.Linear(8, 1, bias=False), head=head)
    module(floats(2, 5, I))
    traced = check(module, floats(2, 5, I))
    assert "Attend" in kinds(traced) and traced.network.per_sequence


def test_heads():
    torch.manual_seed(3)

    def do(m, x):
        weights = F.softmax(m.score(x), 1)  # [B, T, heads]
        values = m.value(x).view(*x.shape[:2], HEADS, WIDTH)
        return torch.einsum("bth,bthw->bhw", weights, values).flatten(1)

    traced = check(Do(do, score=nn.Linear(I, HEADS), value=nn.Linear(I, HEADS * WIDTH)), floats(2, 5, I))
    assert kinds(traced).count("Attend") == 1


@pytest.mark.parametrize(("do", "message"), [
    (lambda m, x: torch.softmax(x, 1), "a softmax over time is supported as the weights"),
    (lambda m, x: x.sum(1), "a sum over time is supported for values times a softmax"),
    (lambda m, x: (x * x).sum(1), "one factor is a softmax over time"),
    (lambda m, x: torch.log_softmax(x, 1), "log-softmax over time"),
    (lambda m, x: torch.softmax(x @ x.transpose(1, 2), -1), "the weights of an attention, which have two time axes"),
    (lambda m, x: x * x.mean(1, keepdim=True), "a value without time cannot be repeated over it"),
    (lambda m, x: x.mean(0), "the batch axis|a mean over"),
    (lambda m, x: x.amax(2), "a maximum over the .* features axis"),
])  # fmt: skip
def test_attention_refused(do, message):
    with pytest.raises(ExportError, match=message):
        from_module(Do(lambda m, x: do(m, m.g(x)[0]), g=gru()), (floats(2, 5, I),))


# ---- functions


@pytest.mark.parametrize("do", [
    torch.exp, lambda x: x.clamp(-0.3, 0.7), lambda x: x.clamp(min=-0.2), lambda x: x.clamp(max=0.1), F.relu6,
    lambda x: F.hardtanh(x, -30, 40), lambda x: x.clip(0.5, 0.5), lambda x: torch.exp(-x.clamp(-1, 1)),
])  # fmt: skip
def test_functions(do):
    traced = check(Do(lambda m, x: do(3 * x)), floats(2, 5, I))
    assert len(traced.network.layers) <= 5


def test_limits_are_exact():
    net = from_module(Do(lambda m, x: x.clamp(-1000.1, 3e5)), (floats(2, 5, I),))
    assert [str(layer.activation) for layer in net.layers[1:]] == ["clip(-1000.1, 300000)"]
