# SPDX-License-Identifier: Apache-2.0
"""The graph that exporters share: operations over time and normalisation, compared with NumPy, and what is refused."""

import numpy as np
import pytest

import gru_engine as ge
from gru_engine.export import norms, over_time
from gru_engine.export import operations as op
from gru_engine.export.common import ExportError
from gru_engine.export.graph import AxisError, Graph, cat
from gru_engine.export.lowering import lower

C, STEPS = 6, 11


def network(function):
    """The network of a function of the graph's input [batch, time, 6]."""
    graph = Graph()
    c = op.Context(graph, {"B": 5, "T": 7, "R": 7})
    return lower(graph, [(None, function(c, graph.source("input", [("B",), ("T",), (C,)])).ids)]).network


def compare(net, expected, steps=STEPS):
    """A network of the input [batch, time, 6] with a function of NumPy."""
    x = np.random.default_rng(1).normal(size=(2, steps, C)).astype(np.float32)
    want = expected(x.astype(np.float64))
    np.testing.assert_allclose(ge.reference.run(net, x), want, rtol=0, atol=1e-12 * np.abs(want).max())
    np.testing.assert_allclose(ge.load(net.tobytes()).run(x), want, rtol=0, atol=5e-6 * np.abs(want).max())


def check(function, expected):
    net = network(function)
    compare(net, expected)
    return [type(layer).__name__ for layer in net.layers[1:]]


def convolved(x, W, left, right, dilation=1):
    """A convolution over time written down once more, group by group and tap by tap."""
    padded = np.pad(x, ((0, 0), (left, right), (0, 0)))
    steps = padded.shape[1] - (W.shape[2] - 1) * dilation
    groups = x.shape[2] // W.shape[1]
    y = np.zeros((len(x), steps, len(W)))
    for o, kernel in enumerate(W):
        g = o // (len(W) // groups)
        for k in range(W.shape[2]):
            y[:, :, o] += (
                padded[:, k * dilation : k * dilation + steps, g * W.shape[1] : (g + 1) * W.shape[1]] @ kernel[:, k]
            )
    return y


KERNEL = np.random.default_rng(0).normal(size=(4, 3, 3)).astype(np.float32)


def conv(c, t, W=KERNEL, b=None, **options):
    return over_time.conv1d(c.graph, c.sizes, t, W, b, channels=2, time=1, groups=C // W.shape[1], **options)


def pad(c, t, left, right):
    return over_time.padded(c.graph, c.sizes, t, 1, left, right)


def test_padding_before_a_convolution_and_what_follows_it_is_fused():
    function = lambda c, t: c.graph.activation(c.graph.affine(conv(c, pad(c, t, 4, 0), dilation=2), 2.0, 1.0), "tanh")  # noqa: E731
    layers = check(function, lambda x: np.tanh(2 * convolved(x, KERNEL, 4, 0, 2) + 1))
    assert layers == ["Window", "Dense"]


def test_too_much_padding_cut_off_in_two_steps():
    def function(c, t):
        y = conv(c, pad(c, t, 1, 0), dilation=2, padding=(4, 4))
        return op.sliced(c, op.sliced(c, y, 1, slice(2, None)), 1, slice(None, -3))

    check(function, lambda x: convolved(x, KERNEL, 3, 1, 2))


def test_padding_cut_off_again():
    check(lambda c, t: conv(c, pad(c, pad(c, t, 3, 2), -1, -2)), lambda x: convolved(x, KERNEL, 2, 0))
    check(lambda c, t: pad(c, pad(c, t, 3, 2), -3, -2), lambda x: x)


def test_reversed_time_turns_the_kernel_round():
    function = lambda c, t: c.graph.flip(conv(c, pad(c, c.graph.flip(t, 1), 2, 0)), 1)  # noqa: E731
    check(function, lambda x: convolved(x[:, ::-1], KERNEL, 2, 0)[:, ::-1])


def test_a_part_of_a_convolution_is_a_slice():
    layers = check(lambda c, t: op.parts(c, conv(c, t, padding=(2, 0)), [3, 1], 2)[0],
                   lambda x: convolved(x, KERNEL, 2, 0)[..., :3])  # fmt: skip
    assert layers == ["Window", "Dense", "Slice"]


def test_a_convolution_read_at_the_last_step():
    check(lambda c, t: op.select(c, conv(c, t, padding=(2, 0)), 1, -1), lambda x: convolved(x, KERNEL, 2, 0)[:, -1])


def test_channels_in_another_order_and_at_several_places():
    order = np.array([3, 0, 5, 1, 4, 2])
    check(lambda c, t: conv(c, t.take(2, order), padding=(1, 1)), lambda x: convolved(x[..., order], KERNEL, 1, 1))

    def function(c, t):
        t = t.reshape([5, 7, 2, 3], c.sizes)
        W = KERNEL[:, :3]
        y = over_time.conv1d(c.graph, c.sizes, t, W, None, channels=3, time=1, padding=(2, 0))
        return y.reshape([5, 7, 8], c.sizes)

    once = lambda x: convolved(x, KERNEL[:, :3], 2, 0)  # noqa: E731
    check(function, lambda x: np.concatenate([once(x[..., :3]), once(x[..., 3:])], -1))


def softmax(s):
    e = np.exp(s - s.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_pooling():
    M = np.random.default_rng(2).normal(size=(1, C))

    def function(c, t):
        weights = op.softmax(c, c.graph.dense(t, M), 1, False)
        a = op.matrix_product(c, weights.permute([0, 2, 1]), t)
        b, _ = op.total(c, op.product(c, weights, t), [1], True)
        e = op.einsum(c, "bth, btk -> bkh", [t, weights])
        return cat([a, b, e, op.mean(c, t, [1], True), op.largest(c, t, [1], True)], 2)

    def expected(x):
        a = (softmax(x @ M.T) * x).sum(1)
        return np.concatenate([a, a, a, x.mean(1), x.max(1)], -1)

    assert check(function, expected).count("Attend") == 3


def test_heads_of_different_sizes():
    """Two columns have the one score, four the other: no heads of equal size, so each column has its own."""

    def function(c, t):
        weights = op.softmax(c, c.graph.activation(t.take(2, np.array([0, 1])), "tanh"), 1, False)
        weights = weights.take(2, np.array([0, 1, 1, 0, 1, 1]))
        return op.total(c, op.product(c, weights, t), [1], False)[0]

    check(function, lambda x: (softmax(np.tanh(x[..., :2]))[..., [0, 1, 1, 0, 1, 1]] * x).sum(1))


def test_norms():
    scale, shift = np.arange(6.0).reshape(2, 3) + 1, np.arange(6.0).reshape(2, 3) - 2

    def normalised(x, axes):
        d = x - x.mean(axes, keepdims=True)
        return d / np.sqrt((d * d).mean(axes, keepdims=True) + 0.01)

    def function(dims):
        def make(c, t):
            y = c.graph.norm(t.reshape([5, 7, 2, 3], c.sizes), dims, 1.0, 0.0, epsilon=0.01)
            return op.affine(c, op.affine(c, y, scale, 0.0), 1.0, shift)

        return make

    for dims in ([2], [3], [2, 3]):
        want = lambda x: (normalised(x.reshape(2, STEPS, 2, 3), tuple(dims)) * scale + shift).reshape(2, STEPS, 6)  # noqa: B023, E731
        layers = check(function(dims), want)
        assert layers.count("Norm") == 1


def test_the_width_1_is_broadcast():
    layers = check(lambda c, t: c.graph.multiply(t.take(2, slice(0, 1)), c.graph.activation(t, "exp")),
                   lambda x: x[..., :1] * np.exp(x))  # fmt: skip
    assert layers == ["Slice", "Activate", "Multiply"]


@pytest.mark.parametrize(("low", "high", "spec"), [(-1, 0.5, "clip(-1, 0.5)"), (0, None, "relu"), (0, 6, "clip(0, 6)"),
                                                    (None, 2, "clip(-3.40282e+38, 2)"), (3, 3, "clip(3, 3)")])  # fmt: skip
def test_limits(low, high, spec):
    net = network(lambda c, t: op.limited(c, t, low, high))
    assert [str(layer.activation) for layer in net.layers[1:]] == [spec]


@pytest.mark.parametrize(("function", "kind", "message"), [
    (lambda c, t: conv(c, t, padding=(2, 1)), ExportError, "makes 1 step more than the sequence has"),
    (lambda c, t: conv(c, conv(c, t, padding=(2, 2)), W=KERNEL[:, :4, :1]), ExportError, "which another one made longer"),
    (lambda c, t: conv(c, t, padding=(3, -1)), ExportError, "makes shifted steps"),
    (lambda c, t: conv(c, t, padding=(2, 1), stride=2), ExportError, "with stride 2 has more padding than its kernel covers"),
    (lambda c, t: c.graph.activation(pad(c, t, 1, 0), "tanh"), ExportError, "1 step of padding"),
    (lambda c, t: pad(c, conv(c, t), 2, 0), ExportError, "2 steps of padding .2 before, 0 behind. make the sequence longer"),
    (lambda c, t: op.mean(c, pad(c, t, 1, 0), [1], False), ExportError, "it must be over the steps of the sequence"),
    (lambda c, t: over_time.conv1d(c.graph, c.sizes, t, KERNEL, channels=1, time=2), AxisError, "it must be the time"),
    (lambda c, t: op.softmax(c, t, 1, False), ExportError, "a softmax over time is supported as the weights"),
    (lambda c, t: op.total(c, t, [1], False)[0], ExportError, "a sum over time is supported for values times"),
    (lambda c, t: op.total(c, op.product(c, t, t), [1], False)[0], ExportError, "one factor is a softmax over time"),
    (lambda c, t: op.largest(c, t, [2], False), ExportError, "a maximum over the 6 features axis"),
    (lambda c, t: op.mean(c, t, [0], False), ExportError, "a mean over the batch axis"),
    (lambda c, t: c.graph.norm(t, [1], epsilon=1.0), AxisError, "a normalisation is over axis 1, time"),
    (lambda c, t: norms.root(c.graph, c.written, t), ExportError, "a square root is supported only"),
    (lambda c, t: op.limited(c, t, 1.0, 0.0), ExportError, "the empty interval 1 to 0"),
    (lambda c, t: op.einsum(c, "bth,bsh->bts", [t, t]), ExportError, "a sum|cannot be repeated|differ|not supported"),
])  # fmt: skip
def test_refused(function, kind, message):
    with pytest.raises(ExportError, match=message) as caught:
        network(function)
    assert type(caught.value) is kind
