# SPDX-License-Identifier: Apache-2.0
"""The exporters' graph of features: moving ids is what NumPy does to arrays, and the network made of it computes the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gru_engine as ge
from gru_engine.export.common import ExportError
from gru_engine.export.graph import AxisError, Graph, Tensor, broadcast, cat
from gru_engine.export.lowering import lower
from gru_engine.layers import Dense

SIZES = {"B": 7, "T": 11, "R": 11}


def source(width, graph=None):
    return (graph or Graph()).source("input", [("B",), ("T",), (width,)])


def filled(t, x):
    """The array that a tensor of the input's features is, for the input x [B, T, n]."""
    return t.pack(x[:, :, t.ids.reshape(-1)], SIZES)


@given(st.data())
def test_moving_axes_is_what_numpy_does(data):
    draw = data.draw
    t = source(24)
    x = np.random.default_rng(0).standard_normal((7, 11, 24))
    value = x
    for _ in range(draw(st.integers(1, 8))):
        rank = t.rank
        operation = draw(
            st.sampled_from(["permute", "unsqueeze", "squeeze", "split", "merge", "take", "select", "cat", "expand"])
        )
        features = [i for i, d in enumerate(t.dims) if len(d) == 1 and isinstance(d[0], int)]
        if operation == "permute":
            order = draw(st.permutations(range(rank)))
            t, value = t.permute(order), value.transpose(order)
        elif operation == "unsqueeze":
            dim = draw(st.integers(0, rank))
            t, value = t.unsqueeze(dim), np.expand_dims(value, dim)
        elif operation == "squeeze":
            ones = tuple(i for i, n in enumerate(value.shape) if n == 1)
            t, value = t.squeeze(ones), value.squeeze(ones)
        elif operation == "split" and features:
            dim = draw(st.sampled_from(features))
            n = value.shape[dim]
            k = draw(st.sampled_from([k for k in range(1, n + 1) if n % k == 0]))
            shape = (*value.shape[:dim], k, n // k, *value.shape[dim + 1 :])
            t, value = t.reshape(shape, SIZES), value.reshape(shape)
        elif operation == "merge" and rank > 1:
            dim = draw(st.integers(0, rank - 2))
            shape = (*value.shape[:dim], value.shape[dim] * value.shape[dim + 1], *value.shape[dim + 2 :])
            t, value = t.reshape(shape, SIZES), value.reshape(shape)
        elif operation in ("take", "select") and features:
            dim = draw(st.sampled_from(features))
            n = value.shape[dim]
            if operation == "select":
                index = draw(st.integers(-n, n - 1))
                t, value = t.select(dim, index), value.take(index, dim)
            else:
                part = slice(*draw(st.sampled_from([(0, n, 2), (n // 2, n, 1), (None, None, -1), (0, 1, 1)])))
                t, value = t.take(dim, part), value[(slice(None),) * dim + (part,)]
        elif operation == "cat" and features:
            dim = draw(st.sampled_from(features))
            t, value = cat([t, t], dim), np.concatenate([value, value], dim)
        elif operation == "expand":
            wide = [(3,) if d == () else d for d in t.dims]
            value = np.broadcast_to(value, [3 if d == () else n for d, n in zip(t.dims, value.shape)])
            t = t.expand(wide)
        assert t.shape(SIZES) == value.shape
        np.testing.assert_array_equal(filled(t, x), value)
        if t.ids.size > 500:
            break


def test_batch_and_time_stay_whole():
    t = source(24)
    merged = t.reshape((77, 24), SIZES)
    assert str(merged) == "[batch x time, 24 features]"
    assert merged.reshape((7, 11, 24), SIZES).dims == t.dims
    for shape in ((11, 7, 24), (7, 24, 11), (7, 4, 66)):
        with pytest.raises(AxisError, match="without tearing an axis apart"):
            t.reshape(shape, SIZES)
    with pytest.raises(AxisError, match=r"axis 1 is time in .*, expected features"):
        t.take(1, slice(0, 3))


def test_pack_and_unpack_are_inverse():
    t = source(6).permute([1, 0, 2]).reshape((77, 2, 3), SIZES).permute([1, 0, 2])
    x = np.random.default_rng(0).standard_normal((7, 11, 6))
    np.testing.assert_array_equal(t.unpack(t.pack(x, SIZES), SIZES), x)
    flipped = Tensor((("R",), ("B",), (6,)), np.arange(6))
    np.testing.assert_array_equal(flipped.pack(x, SIZES), x[:, ::-1].transpose(1, 0, 2))
    np.testing.assert_array_equal(flipped.unpack(flipped.pack(x, SIZES), SIZES), x)


def test_values_do_not_repeat_over_time():
    graph = Graph()
    t = source(3, graph)
    last = graph.end(t, 1, -1, 11)
    with pytest.raises(AxisError):
        graph.add(t, last)
    with pytest.raises(AxisError, match="a value without time cannot be repeated over it"):
        broadcast(t, last.unsqueeze(1))
    with pytest.raises(AxisError, match="cannot stand side by side"):
        cat([t, graph.flip(t, 1)], 2)


# ---- networks


def run(graph, out, x):
    """The network's output for x [B, T, n], laid out as the tensor ``out``."""
    net = lower(graph, [(None, out.ids)]).network
    y = ge.reference.run(net, x)
    np.testing.assert_allclose(ge.load(net.tobytes()).run(x.astype(np.float32)), y, rtol=0, atol=2e-5)
    return net, y


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((7, 11, 6)).astype(np.float32).astype(np.float64)


def matrix(rows, columns):
    return np.random.default_rng(rows + columns).standard_normal((rows, columns))


def test_a_part_of_a_dense_layer_is_a_smaller_one(x):
    graph = Graph()
    W = matrix(8, 6)
    wide = graph.dense(source(6, graph), W)
    gate = graph.activation(wide.take(2, slice(4, 8)), "sigmoid")
    net, y = run(graph, graph.multiply(wide.take(2, slice(0, 4)), gate), x)
    a = x @ W.T
    np.testing.assert_allclose(y, a[..., :4] / (1 + np.exp(-a[..., 4:])))
    assert [layer.width for layer in net.layers if isinstance(layer, Dense)] == [4, 4]


def test_features_of_the_input_in_any_order(x):
    graph = Graph()
    W = matrix(3, 5)
    t = source(6, graph)
    _, y = run(graph, graph.dense(t.take(2, [5, 1, 1, 0, 3]), W), x)
    np.testing.assert_allclose(y, x[..., [5, 1, 1, 0, 3]] @ W.T)
    _, y = run(graph, t.take(2, [5, 1, 1, 0, 3]), x)
    np.testing.assert_array_equal(y, x[..., [5, 1, 1, 0, 3]])
    many = np.random.default_rng(2).integers(6, size=50)
    net, y = run(graph, graph.activation(t.take(2, many), "tanh"), x)
    np.testing.assert_allclose(y, np.tanh(x[..., many]))
    assert len(net.layers) < 6


def test_products_broadcast(x):
    graph = Graph()
    t = source(6, graph).reshape((7, 11, 2, 3), SIZES)
    gate = t.take(2, slice(0, 1)).take(3, slice(0, 1))
    _, y = run(graph, graph.multiply(gate, t), x)
    np.testing.assert_allclose(y, x * x[..., :1])


def test_a_matrix_along_a_further_axis(x):
    graph = Graph()
    W, b = matrix(4, 3), np.arange(4.0)
    t = graph.dense(source(6, graph).reshape((7, 11, 2, 3), SIZES), W, b)
    assert t.shape(SIZES) == (7, 11, 2, 4)
    _, y = run(graph, t, x)
    np.testing.assert_allclose(y.reshape(7, 11, 2, 4), x.reshape(7, 11, 2, 3) @ W.T + b)
    _, y = run(graph, graph.softmax(t, 2, log=False), x)
    e = np.exp(x.reshape(7, 11, 2, 3) @ W.T + b)
    np.testing.assert_allclose(y.reshape(7, 11, 2, 4), e / e.sum(2, keepdims=True))


@pytest.mark.parametrize(("dim", "size"), [(2, 2), (3, 12)])
def test_sums(x, dim, size):
    graph = Graph()
    t = graph.dense(source(6, graph), matrix(24, 6)).reshape((7, 11, 2, 12), SIZES)
    assert t.shape(SIZES)[dim] == size
    _, y = run(graph, graph.sum(t, dim), x)
    expected = (x @ matrix(24, 6).T).reshape(7, 11, 2, 12).sum(dim)
    np.testing.assert_allclose(y, expected, atol=1e-12)


def test_scales_and_activations_become_part_of_the_dense_layer(x):
    graph = Graph()
    W, scale, shift = matrix(4, 6), np.arange(1.0, 5), np.arange(4.0)
    t = graph.affine(graph.dense(source(6, graph), W), scale, shift)
    net, y = run(graph, graph.activation(graph.affine(t, 2.0, 1.0), "relu"), x)
    np.testing.assert_allclose(y, np.maximum(2 * (x @ W.T * scale + shift) + 1, 0), atol=1e-12)
    assert [layer.operation for layer in net.layers] == ["input", "dense"]


def test_but_not_where_something_else_reads_it(x):
    graph = Graph()
    W = matrix(4, 6)
    linear = graph.dense(source(6, graph), W)
    net, y = run(graph, graph.add(linear, graph.activation(linear, "tanh")), x)
    np.testing.assert_allclose(y, x @ W.T + np.tanh(x @ W.T))
    assert [layer.operation for layer in net.layers] == ["input", "dense", "activate", "add"]


def test_what_stands_before_the_last_step_is_computed_there_only(x):
    graph = Graph()
    W = matrix(4, 6)
    t = graph.activation(graph.dense(source(6, graph), W), "tanh")
    net, y = run(graph, graph.end(t, 1, 10, 11), x)
    np.testing.assert_allclose(y, np.tanh(x[:, -1] @ W.T))
    assert [layer.operation for layer in net.layers] == ["input", "last", "dense"]
    net, y = run(graph, graph.end(graph.flip(t, 1), 1, -1, 11), x)
    np.testing.assert_allclose(y, np.tanh(x[:, 0] @ W.T))
    net, y = run(graph, graph.end(t, 1, -1, 11).take(1, [3, 0]), x)
    np.testing.assert_allclose(y, np.tanh(x[:, -1] @ W.T)[:, [3, 0]])


def test_only_the_ends_of_a_sequence_can_be_read():
    graph = Graph()
    with pytest.raises(ExportError, match=r"time step 3 is read by itself; .* forward\(x, h\) -> \(y, h\)"):
        graph.end(source(6, graph), 1, 3, 11)


def test_tokens_read_in_two_ways():
    graph = Graph()
    tokens = graph.source("tokens", [("B",), ("T",)])
    both = graph.add(graph.dense(graph.one_hot(tokens, 5), matrix(4, 5)), graph.embedding(tokens, matrix(5, 4)))
    x = np.array([[0, 4, 2], [1, 1, 3]])
    net = lower(graph, [("p", both.ids)]).network
    np.testing.assert_allclose(ge.reference.run(net, x), matrix(4, 5).T[x] + matrix(5, 4)[x])
    assert list(net.outputs) == ["p"]
    with pytest.raises(ExportError, match="vocabularies of 5 and of 6"):
        graph.embedding(tokens, matrix(6, 4))
    with pytest.raises(ExportError, match="only the input itself can be tokens"):
        graph.embedding(both, matrix(5, 4))


def test_a_network_needs_its_input():
    graph = Graph()
    tokens = graph.source("tokens", [("B",), ("T",)])
    with pytest.raises(ExportError, match="tokens are used as numbers"):
        graph.end(tokens, 1, -1, 11)
    with pytest.raises(ExportError, match="size of their vocabulary is not known"):
        lower(graph, [(None, tokens.ids)])
