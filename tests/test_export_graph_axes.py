# SPDX-License-Identifier: Apache-2.0
"""The graph that exporters share: pooling of some steps, repeated values, attention; compared with NumPy."""

import numpy as np
import pytest

from gru_engine.export import operations as op
from gru_engine.export import over_time
from gru_engine.export.common import ExportError
from gru_engine.export.graph import AxisError, Graph
from gru_engine.export.lowering import lower
from gru_engine.export.tensors import steps_axis, subsampled
from gru_engine.layers import Axis

from .test_export_graph_time import C, compare

STEPS = 13


def network(function):
    graph = Graph()
    c = op.Context(graph, {"B": 5, "T": 997, "R": 997})
    x = graph.source("input", [("B",), ("T",), (C,)])
    return lower(graph, [(None, function(c, x).ids)]).network


def check(function, expected):
    net = network(function)
    compare(net, expected, STEPS)
    return net


@pytest.mark.parametrize("sides", [(0, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pooling(stride, sides):
    def windows(x, value):
        x = np.pad(x, ((0, 0), sides, (0, 0)), constant_values=value)
        return np.lib.stride_tricks.sliding_window_view(x, 3, axis=1)[:, ::stride]

    check(lambda c, t: over_time.max_pooled(c.graph, c.sizes, t, 1, 3, stride, sides),
          lambda x: windows(x, -np.inf).max(axis=-1))  # fmt: skip
    if sides == (0, 0):
        check(
            lambda c, t: over_time.mean_pooled(c.graph, c.sizes, t, 1, 3, stride), lambda x: windows(x, 0).mean(axis=-1)
        )


def test_pooling_of_a_reversed_sequence():
    reverse = lambda c, t: c.graph.flip(over_time.max_pooled(c.graph, c.sizes, c.graph.flip(t, 1), 1, 2, 1), 1)  # noqa: E731
    check(reverse, lambda x: np.maximum(x[:, 1:], x[:, :-1]))
    with pytest.raises(ExportError, match="pooling with a stride goes from the end of the sequence"):
        network(lambda c, t: over_time.max_pooled(c.graph, c.sizes, c.graph.flip(t, 1), 1, 2, 2))
    with pytest.raises(ExportError, match=r"pooling of 2 steps .* with a padding of 1 and 1"):
        network(lambda c, t: over_time.max_pooled(c.graph, c.sizes, t, 1, 2, 1, (1, 1)))


def test_an_axis_of_a_fixed_number_of_steps():
    assert steps_axis("T:=9") == Axis(steps=9)
    assert subsampled("R:=9", 2, 3) == "R:=3"


def test_a_value_per_sequence_at_a_number_of_steps():
    ends = lambda c, t: c.graph.end(t, 1, 0, 997).unsqueeze(1)  # noqa: E731
    net = check(lambda c, t: c.graph.repeated_times(ends(c, t), 1, 4), lambda x: np.repeat(x[:, :1], 4, axis=1))
    assert net.axis == Axis(steps=4)
    with pytest.raises(AxisError, match="is no value of a whole sequence"):
        network(lambda c, t: c.graph.repeated_times(t, 1, 4))


def softmax(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_attention():
    v = np.linspace(-1, 1, C)
    dot = lambda c, t: over_time.attention(c.graph, t, t, t, heads=2, scale=0.3)  # noqa: E731

    def heads(x):
        parts = np.split(x, 2, axis=-1)
        return np.concatenate([softmax(0.3 * p @ p.transpose(0, 2, 1)) @ p for p in parts], axis=-1)

    check(dot, heads)
    shorter = lambda c, t: op.sliced(c, t, 1, slice(2, None))  # noqa: E731
    check(lambda c, t: over_time.attention(c.graph, t, shorter(c, t), shorter(c, t), v=v),
          lambda x: softmax(np.tanh(x[:, :, None] + x[:, None, 2:]) @ v) @ x[:, 2:])  # fmt: skip
    with pytest.raises(ExportError, match="whose steps do not fit"):
        network(lambda c, t: over_time.attention(c.graph, t, t, shorter(c, t)))


@pytest.mark.parametrize("additive", [False, True])
def test_attention_with_one_query(additive):
    v = np.linspace(-1, 1, C)
    options = {"v": v} if additive else {"heads": 3, "scale": 0.7}
    function = lambda c, t: over_time.attention(c.graph, c.graph.end(t, 1, -1, 997).unsqueeze(1), t, t, **options)  # noqa: E731

    def expected(x):
        q = x[:, -1:]
        if additive:
            return (softmax(np.tanh(q + x) @ v)[:, None] @ x)[:, 0]
        scores = [softmax(0.7 * (q[..., i : i + 2] * x[..., i : i + 2]).sum(axis=-1)) for i in (0, 2, 4)]
        return np.concatenate([(s[:, None] @ x[..., i : i + 2])[:, 0] for s, i in zip(scores, (0, 2, 4))], axis=-1)

    check(function, expected)
