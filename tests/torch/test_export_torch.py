# SPDX-License-Identifier: Apache-2.0
"""Modules of PyTorch as networks: parity with float64 PyTorch, and everything that must be refused."""

import collections
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch_models import STEPS, TOLERANCE, H, I, Net, O, V, check, floats, gru, tokens

import gru_engine as ge
from gru_engine.export.common import ExportError
from gru_engine.export.torch import from_module

# ---- recurrent layers


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_gru(layers, bidirectional, batch_first, bias):
    options = {"bidirectional": bidirectional, "batch_first": batch_first, "bias": bias}
    traced = check(gru(layers=layers, dropout=0.2 if layers > 1 else 0, **options), floats(2, 3, I))
    assert traced.network.state_size == layers * (1 + bidirectional) * H
    assert traced.network.output_size == (1 + bidirectional) * H
    assert traced.network.causal != bidirectional


@pytest.mark.parametrize("example", [(3, I), (1, I)])
def test_gru_without_batch(example):
    check(nn.GRU(I, H), floats(*example))


@pytest.mark.parametrize("example", [(1, 5, I), (4, 1, I), (1, 1, I)])
def test_examples_with_axes_of_size_one(example):
    for batch_first in (True, False):
        traced = check(gru(batch_first=batch_first), floats(*example))
        assert not traced.network.per_sequence


def test_learned_initial_state():
    h0 = nn.Parameter(torch.randn(4, 1, H))
    do = lambda m, x: m.gru(x, m.h0.expand(-1, x.shape[0], -1).contiguous())[0]  # noqa: E731
    traced = check(Net(do, gru=gru(layers=2, bidirectional=True), h0=h0), floats(2, 3, I))
    np.testing.assert_array_equal(traced.network.initial_state, h0.detach().numpy().astype(np.float64).reshape(-1))


def test_initial_state_of_zeros():
    do = lambda m, x: m.gru(x, x.new_zeros(1, len(x), H))[0]  # noqa: E731
    assert not check(Net(do, gru=gru()), floats(2, 3, I)).network.initial_state.any()


@pytest.mark.parametrize(
    "do",
    [
        lambda m, x: m.gru(x)[0][:, -1],
        lambda m, x: m.gru(x)[0][:, 0],
        lambda m, x: m.gru(x)[0][:, x.shape[1] - 1],
        lambda m, x: m.gru(x)[0].transpose(0, 1)[-1],
        lambda m, x: m.gru(x)[1][-1],
        lambda m, x: torch.cat([m.gru(x)[1][-2], m.gru(x)[1][-1]], 1),
        lambda m, x: torch.cat((m.gru(x)[0][:, -1, :H], m.gru(x)[0][:, 0, H:]), -1),
        lambda m, x: m.gru(x)[1].permute(1, 0, 2).flatten(1),
        lambda m, x: m.gru(x)[1].view(2, 2, -1, H)[-1].sum(0),
        lambda m, x: m.gru(x)[1].mean(0),
    ],
)
def test_values_of_whole_sequences(do):
    assert check(Net(do, gru=gru(layers=2, bidirectional=True)), floats(2, 3, I)).network.per_sequence


def test_reverse_by_flipping():
    do = lambda m, x: torch.cat([m.a(x)[0], m.b(x.flip(1))[0].flip(1)], -1)  # noqa: E731
    assert not check(Net(do, a=gru(), b=gru()), floats(2, 3, I)).network.causal
    do = lambda m, x: m.b(x.flip(1))[1][-1]  # noqa: E731
    assert check(Net(do, b=gru(bidirectional=True)), floats(2, 3, I)).network.per_sequence


# ---- states


def test_state_in_and_out():
    traced = check(gru(layers=2), floats(2, 3, I), floats(2, 2, H))
    assert traced.takes_state
    assert list(traced.network.outputs) == ["y"]
    assert traced.network.output_size == H


def test_state_of_zeros_by_default():
    do = lambda m, x, h=None: m.gru(x, h)  # noqa: E731
    check(Net(do, gru=gru()), floats(2, 3, I), floats(1, 2, H))
    check(Net(do, gru=gru()), floats(2, 3, I))
    check(Net(do, gru=gru()), floats(2, 3, I), None)


def decode(m, x, state=None):
    if state is not None:
        state = state.unflatten(1, (2, H)).transpose(0, 1).contiguous()
    hidden, state = m.gru(m.embedding(x), state)
    return torch.log_softmax(m.output(hidden), -1), state.transpose(0, 1).flatten(1)


@pytest.mark.parametrize("example", [(2, 3), (2, 1), (1, 1), (1, 4)])
def test_decoder_with_a_flat_state(example):
    module = Net(decode, embedding=nn.Embedding(V, I), gru=gru(layers=2), output=nn.Linear(H, V))
    traced = check(module, tokens(*example), floats(example[0], 2 * H))
    assert traced.network.vocab_size == V
    assert traced.network.causal
    check(module, tokens(*example))


def test_cells():
    assert check(nn.GRUCell(I, H), floats(2, I), floats(2, H)).network.state_size == H
    assert check(nn.GRUCell(I, H, bias=False), floats(I), floats(H)).network.causal

    def step(m, x, states):
        a = m.a(x, states[0])
        b = m.b(a, states[1])
        return m.out(torch.cat([x, b], 1)), (a, b)

    module = Net(step, a=nn.GRUCell(I, H), b=nn.GRUCell(H, 3), out=nn.Linear(I + 3, O))
    traced = check(module, floats(2, I), (floats(2, H), floats(2, 3)))
    assert traced.network.state_size == H + 3
    assert len(traced.notes()) == 6


def test_step_with_an_axis_of_one():
    def step(m, x, h):
        y, h = m.gru(x.unsqueeze(1), h)
        return m.out(y.squeeze(1)), h

    check(Net(step, gru=gru(layers=2), out=nn.Linear(H, O)), floats(3, I), floats(2, 3, H))

    def first(m, x, h):
        y, h = m.gru(x, h)
        return m.out(y[:, 0]), h

    traced = check(Net(first, gru=gru(), out=nn.Linear(H, O)), floats(1, 1, I), floats(1, 1, H))
    assert not traced.network.per_sequence


# ---- around the recurrent layers


WITH_TOKENS = [
    nn.Sequential(nn.Embedding(V, I), nn.Dropout(0.5), nn.Linear(I, O), nn.Softmax(-1)),
    Net(lambda m, x: m.fc(F.dropout(m.g(m.e(x))[0], 0.5, m.training)), e=nn.Embedding(V, I), g=gru(), fc=nn.Linear(H, V)),
    Net(lambda m, x: m.g(F.one_hot(x, V).to(m.g.weight_hh_l0.dtype))[0], g=gru(V)),
    Net(lambda m, x: F.one_hot(x, V) * 0.5 + m.e(x), e=nn.Embedding(V, V)),
]  # fmt: skip

WITH_FLOATS = [
    nn.Sequential(nn.Linear(I, H), nn.Sequential(nn.ReLU(inplace=True), nn.Sequential(nn.Linear(H, O)), nn.Identity())),
    Net(lambda m, x: m.b(m.a(x)[0])[0] + m.a(x)[0], a=gru(), b=gru(H)),
    Net(lambda m, x: m.b(torch.cat([x, m.a(x)[0]], -1))[0] * 2 - 1, a=gru(), b=gru(I + H)),
    Net(lambda m, x: {"p": torch.softmax(m.p(m.g(x)[0]), -1), "q": m.q(m.g(x)[0])}, g=gru(), p=nn.Linear(H, O),
        q=nn.Linear(H, 1)),
    Net(lambda m, x: m.n(m.g(x)[0].transpose(1, 2)).transpose(1, 2), g=gru(), n=nn.BatchNorm1d(H)),
    Net(lambda m, x: torch.relu(m.n(m.f(x).transpose(1, 2)).transpose(1, 2)), f=nn.Linear(I, H), n=nn.BatchNorm1d(H)),
    Net(lambda m, x: m.n(m.g(x)[0].reshape(-1, H)).view(*x.shape[:2], H), g=gru(), n=nn.BatchNorm1d(H, affine=False)),
    Net(lambda m, x: m.fc(m.g(x)[0].contiguous().view(-1, H)), g=gru(batch_first=False), fc=nn.Linear(H, O)),
    Net(lambda m, x: (x - m.mean) / m.std, mean=nn.Parameter(torch.randn(I)), std=nn.Parameter(torch.rand(I) + 0.5)),
    Net(lambda m, x: 1 - m.f(x) / 4 + torch.tensor(3.0) * (2 - x.sum(-1, keepdim=True)), f=nn.Linear(I, I)),
    Net(lambda m, x: torch.sigmoid(m.a(x)) * torch.tanh(m.b(x)), a=nn.Linear(I, O), b=nn.Linear(I, O, bias=False)),
    Net(lambda m, x: F.glu(m.f(m.g(x)[0])), g=gru(), f=nn.Linear(H, 2 * O)),
    Net(lambda m, x: m.g(x)[0].chunk(2, -1)[0] * m.g(x)[0].chunk(2, -1)[1].sigmoid(), g=gru()),
    Net(lambda m, x: m.f(m.g(x)[0][..., 2:7]), g=gru(), f=nn.Linear(5, O)),
    Net(lambda m, x: m.b(m.g(x)[0][..., ::2])[0], g=gru(), b=gru(H // 2)),
    Net(lambda m, x: m.g(x)[0].view(*x.shape[:2], 2, H).sum(2), g=gru(bidirectional=True)),
    Net(lambda m, x: m.g(x)[0].unflatten(-1, (2, H)).mean(-2) + m.g(x)[0][:, :, :H], g=gru(bidirectional=True)),
    Net(lambda m, x: torch.stack([m.f(x), m.f(2 * x)]).sum(0), f=nn.Linear(I, O)),
    Net(lambda m, x: x @ m.w + torch.matmul(x, m.w).square() ** 2, w=nn.Parameter(torch.randn(I, O) / 4)),
    Net(lambda m, x: torch.addmm(m.b, x.flatten(0, 1), m.w).unflatten(0, x.shape[:2]),
        w=nn.Parameter(torch.randn(I, O)), b=nn.Parameter(torch.randn(O))),
    Net(lambda m, x: m.f(x).split([1, 3], -1)[1] * m.f(x).unbind(-1)[0].unsqueeze(-1), f=nn.Linear(I, O)),
    Net(lambda m, x: x.index_select(-1, torch.tensor([3, 1])) + x[..., [0, 0]], f=nn.Linear(1, 1)),
    Net(lambda m, x: m.f(x.view(*x.shape[:2], 2, 3)).flatten(2), f=nn.Linear(3, O)),
    Net(lambda m, x: F.softmax(m.f(x).view(*x.shape[:2], 2, 2), -1).flatten(2), f=nn.Linear(I, O)),
    Net(lambda m, x: m.f(x).permute(2, 0, 1).permute(1, 2, 0).swapaxes(0, 1).movedim(0, 1), f=nn.Linear(I, O)),
    Net(lambda m, x: x.repeat(1, 1, 2) * m.f(x).expand(-1, -1, 2 * I), f=nn.Linear(I, 1)),
    Net(lambda m, x: torch.hstack([x[:, -1], m.f(x)[:, -1]]), f=nn.Linear(I, O)),
    Net(lambda m, x: m.f(x).flip(-1).detach().clone().to(torch.get_default_dtype()), f=nn.Linear(I, O)),
]  # fmt: skip


@pytest.mark.parametrize("module", WITH_TOKENS)
def test_layers_around_tokens(module):
    check(module, tokens(2, 3))


@pytest.mark.parametrize("module", WITH_FLOATS)
def test_layers_around(module):
    check(module, floats(2, 3, I))


@pytest.mark.parametrize(
    "function",
    [
        nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.LeakyReLU(0.3), nn.ELU(0.7), nn.SELU(), nn.CELU(1.3), nn.Hardsigmoid(),
            nn.Softplus(),
        nn.Softplus(2.0), nn.Softsign(), nn.SiLU(), nn.Mish(), nn.Hardswish(), nn.Hardtanh(-0.5, 2), nn.ReLU6(),
            nn.LogSigmoid(),
        nn.Softmax(-1), nn.LogSoftmax(2), nn.Softmin(-1), nn.Identity(), nn.GLU(), nn.PReLU(), nn.RReLU(), nn.Tanhshrink(),
        nn.Threshold(0.3, 0.0), torch.sigmoid, torch.tanh, torch.relu, F.elu, F.silu,
        lambda x: x.sigmoid().tanh(), lambda x: x.clamp(min=0), lambda x: x.clamp(-0.5, 0.25), lambda x: x.clamp(max=0.5),
        lambda x: x.clamp_min(-0.3), lambda x: x**3, lambda x: x.mul_(2).add_(1).relu_(),
    ],
)  # fmt: skip
def test_activations(function):
    layers = {"f": function} if isinstance(function, nn.Module) else {}
    do = (lambda m, x: m.f(m.fc(x))) if layers else (lambda m, x: function(m.fc(x)))
    check(Net(do, fc=nn.Linear(I, O), **layers), floats(2, 3, I))


def test_prelu_per_channel():
    module = Net(lambda m, x: m.p(m.fc(x).transpose(1, 2)).transpose(1, 2), fc=nn.Linear(I, O), p=nn.PReLU(O))
    module.p.weight.data.uniform_(0, 1)
    check(module, floats(2, 3, I))


def test_an_encoder_and_a_classifier():
    def encode(m, x):
        _, final = m.gru(m.drop(m.embedding(x)))
        return torch.tanh(m.output(m.drop(torch.cat([final[-2], final[-1]], dim=-1))))

    module = Net(
        encode,
        embedding=nn.Embedding(V, I),
        gru=gru(layers=2, bidirectional=True),
        output=nn.Linear(2 * H, O),
        drop=nn.Dropout(0.3),
    )
    traced = check(module, tokens(2, 3))
    names = [layer.name for layer in traced.network.layers if layer.name]
    assert names[:3] == ["embedding", "gru.l0", "gru.l0_reverse"]
    assert [layer.operation for layer in traced.network.layers][-1] == "dense"


def test_rnnoise_like_network_with_skips_and_heads():
    def do(m, x):
        a = torch.tanh(m.dense(x))
        vad, _ = m.vad(a)
        noise, _ = m.noise(torch.cat([a, vad, x], -1))
        denoise, _ = m.denoise(torch.cat([vad, noise, x], -1))
        return torch.sigmoid(m.gain(denoise)), torch.sigmoid(m.active(vad))

    module = Net(
        do,
        dense=nn.Linear(I, 8),
        vad=gru(8, 8),
        noise=gru(16 + I, 12),
        denoise=gru(20 + I, 16),
        gain=nn.Linear(16, 5),
        active=nn.Linear(8, 1),
    )
    traced = check(module, floats(2, 3, I))
    assert traced.network.outputs == {"y": slice(0, 5), "y1": slice(5, 6)}
    assert list(traced.outputs) == [0, 1]
    assert from_module(module, floats(2, 3, I), outputs=[1]).output_size == 1


def test_names_of_outputs():
    Result = collections.namedtuple("Result", "speech noise")
    module = Net(lambda m, x: Result(m.f(x), {"a": x}), f=nn.Linear(I, O))
    assert list(from_module(module, floats(2, 3, I)).outputs) == ["speech", "noise.a"]


def test_the_module_stays_as_it_is():
    module = Net(lambda m, x: m.n(m.g(x)[0].transpose(1, 2)), g=gru(layers=2, dropout=0.5), n=nn.BatchNorm1d(H))
    module.train()
    module.g.eval()
    before = {name: (parameter, parameter.clone()) for name, parameter in module.state_dict(keep_vars=True).items()}
    from_module(module, floats(2, 3, I))
    assert module.training
    assert module.n.training
    assert not module.g.training
    for name, parameter in module.state_dict(keep_vars=True).items():
        assert parameter is before[name][0]
        assert torch.equal(parameter, before[name][1])
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types_of_weights(dtype):
    module = Net(lambda m, x: m.f(m.g(x)[0]), g=gru(), f=nn.Linear(H, O)).to(dtype)
    net = from_module(module, torch.zeros(2, 3, I, dtype=dtype))
    dense = net.layers[-1]
    assert dense.W.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    np.testing.assert_array_equal(dense.W, module.f.weight.detach().double().numpy())


def test_computed_weights():
    old = nn.Linear(H, O)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.utils.weight_norm(old)
    new = nn.utils.parametrizations.weight_norm(nn.Linear(H, O))
    recurrent = nn.utils.parametrizations.weight_norm(gru(), "weight_hh_l0")
    for module in (
        Net(lambda m, x: m.old(m.g(x)[0]) + m.new(m.g(x)[0]), g=gru(), old=old, new=new),
        Net(lambda m, x: m.g(x)[0], g=recurrent),
    ):
        net = from_module(module, floats(2, 3, I))
        x = torch.randn(3, STEPS, I)
        y = module(x).detach().numpy()
        np.testing.assert_allclose(ge.load(net.tobytes()).run(x.numpy()), y, rtol=0, atol=TOLERANCE * np.abs(y).max())


def test_axes_can_be_given():
    module = Net(lambda m, x: m.f(x)[-1], f=nn.Linear(I, O))
    assert from_module(module, floats(2, 3, I), axes="TBF").per_sequence
    with pytest.raises(ExportError, match=r"one row of the axis batch .* is read by itself"):
        from_module(module, floats(2, 3, I), axes="BTF")
    with pytest.raises(ExportError, match=r"axes 'BT' do not describe an input of shape \[2, 3, 6\]"):
        from_module(module, floats(2, 3, I), axes="BT")


def test_features_before_time():
    traced = check(Net(lambda m, x: m.g(x.transpose(1, 2))[0].transpose(1, 2), g=gru()), floats(2, I, 3))
    assert traced.network.input_size == I


def test_one_number_per_step():
    check(Net(lambda m, x: m.f(m.g(x.unsqueeze(-1))[0]).squeeze(-1), g=gru(1), f=nn.Linear(H, 1)), floats(2, 9))
    check(Net(lambda m, x: m.f(m.g(x)[0]), g=gru(1, 1), f=nn.Linear(1, 1)), floats(2, 9, 1))


# ---- refusals


def packed(m, x):
    lengths = [x.shape[1]] * len(x)
    return pad_packed_sequence(m.g(pack_padded_sequence(x, lengths, batch_first=True))[0], batch_first=True)[0]


def keeps_state(m, x):
    y, m.h = m.g(x, getattr(m, "h", None))
    return y


def writes_buffer(m, x):
    m.count.add_(1)
    return m.f(x)


def seq2seq(m, x):
    return m.b(x, m.a(x)[1])[0]


def data_dependent(m, x):
    return m.f(x) if x.sum() > 0 else x


def batch_dependent_state(m, x):
    return m.g(x, torch.arange(len(x) * H, dtype=x.dtype).view(1, len(x), H))[0]


f = nn.Linear(I, I)
REFUSALS = {
    "packed sequence": (Net(packed, g=gru()), "packed sequences are not supported: .* give lengths="),
    "state in the module": (Net(keeps_state, g=gru()), "keeps a state in the module"),
    "buffer": (Net(writes_buffer, f=f, count=nn.Parameter(torch.zeros(1), False)), "forward changes 'count'"),
    "initial state from the input": (Net(seq2seq, a=gru(), b=gru()),
        r"aten.gru in 'b' .*initial state of a GRU is computed from the input"),
    "initial state differs": (Net(batch_dependent_state, g=gru()), "a constant that differs along the batch axis"),
    "LSTM": (nn.LSTM(I, H), "aten.lstm.*this operation is not supported"),
    "plain RNN": (nn.RNN(I, H), "aten.rnn_tanh.*this operation is not supported"),
    "GroupNorm": (Net(lambda m, x: m.n(m.g(x)[0].transpose(1, 2)), g=gru(), n=nn.GroupNorm(2, H)),
        r"aten.*group_norm.* in 'n'.*not supported"),
    "sine": (Net(lambda m, x: torch.sin(m.f(x)), f=f), r"aten.sin \(\w+.py:\d+.*not supported"),
    "sum over time": (Net(lambda m, x: m.g(x)[0].sum(1), g=gru()), "aten.sum .*a sum over time is supported for values times"),
    "mean over everything": (Net(lambda m, x: m.g(x)[0].mean(), g=gru()), "aten.mean .*a mean over the batch axis"),
    "median over time": (Net(lambda m, x: m.g(x)[0].median(1)[0], g=gru()), "aten.median.*not supported"),
    "softmax over time": (Net(lambda m, x: m.g(x)[0].softmax(1), g=gru()), "a softmax over time is supported as the weights"),
    "softmax over the batch": (Net(lambda m, x: m.g(x)[0].softmax(0), g=gru()), "axis 0 is batch"),
    "cumulative sum": (Net(lambda m, x: m.g(x)[0].cumsum(1), g=gru()), "aten.cumsum.*not supported"),
    "part of the batch": (Net(lambda m, x: m.g(x)[0][1:], g=gru()), "a part of the batch axis is taken"),
    "one step": (Net(lambda m, x: m.g(x)[0][:, 3], g=gru()), "time step 3 is read by itself"),
    "one row": (Net(lambda m, x: m.g(x)[0][0], g=gru()), "one row of the axis batch"),
    "split time": (Net(lambda m, x: m.g(x)[0].chunk(2, 1)[0], g=gru()), "the time axis is split"),
    "mixed batch and features": (Net(lambda m, x: m.f(x.transpose(0, 2).reshape(I, -1).view(-1, I)), f=f),
        "tearing an axis apart"),
    "window": (Net(lambda m, x: F.linear(m.g(x)[0].flatten(1), torch.zeros(O, x.shape[1] * H)), g=gru()), "features"),
    "shift in time": (Net(lambda m, x: F.pad(m.f(x), (0, 0, 1, 0)), f=f), "1 step of padding"),
    "concatenation over time": (Net(lambda m, x: torch.cat([x, m.f(x)], 1), f=f), "aten.cat.*axis 1 is time"),
    "padding with a constant": (Net(lambda m, x: torch.cat([m.f(x), torch.zeros(*x.shape[:2], 1)], -1), f=f),
        "joins a constant"),
    "position": (Net(lambda m, x: m.f(x) + torch.arange(x.shape[1])[:, None], f=f), "differs along the time axis"),
    "quotient": (Net(lambda m, x: m.f(x) / x, f=f), "a division by a value that depends on the input"),
    "comparison": (Net(lambda m, x: torch.where(m.f(x) > 0, x, -x), f=f), "aten.gt.*not supported"),
    "half precision inside": (Net(lambda m, x: m.f(x).half().float(), f=f), "values are converted to torch.float16"),
    "random": (Net(lambda m, x: m.f(x) + torch.rand(I), f=f), r"aten.rand.*it is random"),
    "active dropout": (Net(lambda m, x: F.dropout(m.f(x), 0.5, True), f=f),
        "dropout is active although the module is in eval mode|not supported"),
    "batch statistics": (Net(lambda m, x: m.n(x.transpose(1, 2)), n=nn.BatchNorm1d(I, track_running_stats=False)),
        "statistics of the batch"),
    "batch norm over time": (Net(lambda m, x: m.n(x.reshape(len(x), -1, I)[:, :, :1]), n=nn.BatchNorm1d(5)),
        "torch.export fails on Net"),
    "softplus with a low threshold": (Net(lambda m, x: F.softplus(m.f(x), 1, 5), f=f),
        "softplus with beta=1, threshold=5 is no softplus"),
    "elementwise threshold": (Net(lambda m, x: F.threshold(m.f(x), 0.1, 7), f=f), "threshold with value=7"),
    "matrix from the input": (
        Net(lambda m, x: F.linear(x, m.f(x)[0]), f=f),
        "aten.linear .*matrix of a linear layer is computed from the input",
    ),
    "power": (Net(lambda m, x: m.f(x) ** 0.5, f=f), "aten.pow .*a square root is supported only"),
    "another power": (Net(lambda m, x: m.f(x) ** 1.5, f=f), "only the powers 1, 2 and 3"),
    "power of two": (Net(lambda m, x: m.f(x).exp2(), f=f), "aten.exp2.*not supported"),
    "control flow": (Net(data_dependent, f=f), r"torch.export fails on Net at test_export_torch.py:\d+: return m.f\(x\) if"),
    "constant output": (Net(lambda m, x: torch.ones(3), f=f), "depends on the input|does not depend"),
    "steps and ends": (Net(lambda m, x: (m.g(x)[0], m.f(m.g(x)[1][-1])), g=gru(), f=nn.Linear(H, O)), r"choose with outputs="),
    "reversed output": (Net(lambda m, x: m.f(x).flip(1), f=f), "reversed time order"),
    "flipped halves": (Net(lambda m, x: m.f(x) + m.f(x).flip(1), f=f), "does not fit the axes"),
    "complex": (Net(lambda m, x: torch.fft.rfft(m.f(x)).abs(), f=f), "aten.*fft.*not supported"),
    "wrong size": (Net(lambda m, x: m.f(x[..., :3]), f=f), "torch.export fails on Net"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name):
    module, message = REFUSALS[name]
    with pytest.raises(ExportError, match=f"(?s){message}"):
        from_module(module, floats(2, 3, I))


def test_refusals_with_states():
    with pytest.raises(ExportError, match=r"a GRUCell's state is a constant here.*return the new state"):
        from_module(nn.GRUCell(I, H), floats(2, I))
    with pytest.raises(ExportError, match="returns no new state with the same axes"):
        from_module(Net(lambda m, x, h: m.f(m.cell(x, h)), cell=nn.GRUCell(I, H), f=nn.Linear(H, O)),
                    (floats(2, I), floats(2, H)))  # fmt: skip
    with pytest.raises(ExportError, match=r"argument 1 of forward, .* of shape .* is used in the computation"):
        from_module(
            Net(lambda m, x, h: (m.g(x, h)[0] + h.tanh().mean(), h), g=gru()), (floats(2, 3, I), floats(1, 2, H))
        )
    with pytest.raises(ExportError, match="start from the same state"):
        from_module(
            Net(lambda m, x, h: m.a(x, h)[0] + m.b(x, h)[0], a=gru(), b=gru()), (floats(2, 3, I), floats(1, 2, H))
        )

    def do(m, x, h):
        y, h = m.g(x, h)
        return y, h.flip(0)

    with pytest.raises(ExportError, match="arranged in another way than the one it takes"):
        from_module(Net(do, g=gru(layers=2)), (floats(2, 3, I), floats(2, 2, H)))
    with pytest.raises(
        ExportError,
        match=r"argument 1 of forward, .* type torch.int64 has no time axis.*lengths are given when the model runs",
    ):
        from_module(Net(lambda m, x, n: m.g(x)[0], g=gru()), (floats(2, 3, I), tokens(2)))
    with pytest.raises(ExportError, match="its state is not carried on"):
        from_module(Net(lambda m, x: m.g(x.unsqueeze(1))[0].squeeze(1), g=gru()), floats(2, I), axes="BF")


def test_refusals_of_tokens():
    embedding = nn.Embedding(V, I)
    with pytest.raises(ExportError, match="vocabularies of 13 and of 14"):
        from_module(Net(lambda m, x: m.a(x) + m.b(x), a=embedding, b=nn.Embedding(V + 1, I)), tokens(2, 3))
    with pytest.raises(ExportError, match=r"aten.add.*tokens are used as numbers"):
        from_module(Net(lambda m, x: m.a(x + 1), a=embedding), tokens(2, 3))
    with pytest.raises(ExportError, match=r"tokens are converted to torch.float32"):
        from_module(Net(lambda m, x: m.f(x.float().unsqueeze(-1)), f=nn.Linear(1, 2)), tokens(2, 3))
    with pytest.raises(ExportError, match="renorm"):
        from_module(nn.Embedding(V, I, max_norm=0.5), tokens(2, 3))
    with pytest.raises(ExportError, match=r"shape \[2, 3, 4\] and type torch.int64 is not supported"):
        from_module(embedding, tokens(2, 3, 4))
    with pytest.raises(ExportError, match="first example input must be a tensor"):
        from_module(embedding, (None,))


def test_what_is_no_module():
    with pytest.raises(TypeError, match=r"module must be an nn.Module, got function"):
        from_module(lambda x: x, floats(2, 3, I))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(nn.Linear(3, 4))
    with pytest.raises(ExportError, match=r"the module is TorchScript, a program"):
        from_module(script, floats(2, 3))


def test_a_module_that_needs_its_sizes():
    module = Net(lambda m, x: m.f(x) * (2 if x.shape[1] == 20 else 1), f=f)
    with pytest.raises(ExportError, match=r"module and float64 reference: difference .*; at most 1e-06 is accepted"):
        from_module(module, floats(2, 3, I))
