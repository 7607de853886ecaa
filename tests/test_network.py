# SPDX-License-Identifier: Apache-2.0
"""Network: what its methods build, what they refuse and how they say it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from random_networks import random_input, random_network

from gru_engine import Network, reference
from gru_engine.activations import NAMES, Activation, activation
from gru_engine.layers import Concat, Dense, Embedding, Gru

Array = npt.NDArray[Any]


def arrays(seed: int, *shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def gru_arrays(seed: int, H: int, columns: int, gates: int = 3) -> list[Array]:
    return arrays(seed, (gates * H, columns), (gates * H, H), (gates * H,), (gates * H,))


def gru(net: Network, index: int) -> Gru:
    layer = net.layers[index]
    assert isinstance(layer, Gru)
    return layer


# ---- values and layers


def test_values_know_their_layer() -> None:
    net = Network()
    x = net.input(40, name="frame")
    h = net.gru(x, *gru_arrays(0, 8, 40))
    y = net.last(net.dense([h, x], np.ones((3, 48))), name="y")
    assert (x.width, x.kind, x.name, x.index, x.network) == (40, "vector", "frame", 0, net)
    assert (h.width, h.name, h.per_sequence) == (8, "", False)
    assert (y.width, y.name, y.per_sequence) == (3, "y", True)
    assert repr(x) == "<Value 0: input 'frame', vector of 40>"
    assert repr(h) == "<Value 1: gru, vector of 8>"
    with pytest.raises(AttributeError):
        x.index = 3  # type: ignore[misc]


def test_tokens() -> None:
    net = Network()
    t = net.tokens(2**28)
    assert (t.width, t.kind) == (2**28, "tokens")
    assert (net.vocab_size, net.input_size) == (2**28, None)


def test_layers_keep_private_read_only_copies() -> None:
    net = Network()
    W = np.ones((3, 2))
    net.dense(net.input(2), W)
    W[:] = 7
    layer = net.layers[1]
    assert isinstance(layer, Dense)
    np.testing.assert_array_equal(layer.W, np.ones((3, 2)))
    with pytest.raises(ValueError, match="read-only"):
        layer.W[0, 0] = 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [("float16", "float32"), ("float32", "float32"), ("float64", "float64"), ("int8", "float64"), ("uint64", "float64")],
)
def test_types_of_arrays(given: str, kept: str) -> None:
    net = Network()
    net.embedding(net.tokens(3), np.array([[1], [2], [3]], given))
    layer = net.layers[1]
    assert isinstance(layer, Embedding) and layer.E.dtype == kept and layer.E[2, 0] == 3


def test_missing_biases_and_initial_state_are_zeros_of_the_same_type() -> None:
    net = Network()
    W, U, _, _ = gru_arrays(0, 4, 2)
    net.gru(net.input(2), W, U)
    layer = gru(net, 1)
    for array, size in ((layer.b_x, 12), (layer.b_h, 12), (layer.h0, 4)):
        assert array.dtype == np.float32 and array.tolist() == [0] * size


def test_concat_of_a_list() -> None:
    net = Network()
    x = net.input(2)
    y = net.dense(x, np.ones((3, 2)))
    z = net.dense([x, y], np.ones((1, 5)))
    concat = net.layers[z.layer.inputs[0]]
    assert isinstance(concat, Concat) and concat.inputs == (x.index, y.index)
    assert net.concat([x, y]).index == z.layer.inputs[0], "the same concatenation is made once"
    assert net.concat((y, x)).index != z.layer.inputs[0], "the order matters"
    assert net.concat([x]) == x
    both = net.concat([net.concat([x, y]), x])
    assert both.layer.inputs == (x.index, y.index, x.index), "a concatenation of concatenations is one"
    assert both.width == 7
    assert net.concat([x, y], name="named").name == "named"


# ---- GRU conventions


@pytest.mark.parametrize("gates", ["rzn", "rnz", "zrn", "znr", "nrz", "nzr"])
def test_order_of_gates(gates: str) -> None:
    W, U, b_x, b_h = gru_arrays(1, 4, 3)
    expected = Network()
    expected.output(expected.gru(expected.input(3), W, U, b_x, b_h))
    shuffled = [np.concatenate([np.split(a, 3)["rzn".index(gate)] for gate in gates]) for a in (W, U, b_x, b_h)]
    net = Network()
    net.output(net.gru(net.input(3), *shuffled, gates=gates))
    assert net.same(expected)


def test_order_of_two_gates() -> None:
    W, U, b_x, b_h = gru_arrays(1, 4, 3, gates=2)
    net, swapped = Network(), Network()
    net.output(net.gru(net.input(3), W, U, b_x, b_h, reset="none"))
    halves = [np.concatenate([a[4:], a[:4]]) for a in (W, U, b_x, b_h)]
    swapped.output(swapped.gru(swapped.input(3), *halves, reset="none", gates="nz"))
    assert net.same(swapped)


@pytest.mark.parametrize("gates", ["rzn", "nzr"])
def test_keep_new_negates_the_rows_of_z(gates: str) -> None:
    given = gru_arrays(2, 2, 3)
    net = Network()
    net.gru(net.input(3), *given, gates=gates, keep="new")
    layer = gru(net, 1)
    for array, original in zip((layer.W, layer.U, layer.b_x, layer.b_h), given):
        for gate, rows in zip("rzn", np.split(array, 3)):
            source = np.split(original, 3)[gates.index(gate)]
            np.testing.assert_array_equal(rows, -source if gate == "z" else source)


def test_keep_new_makes_no_negative_zeros() -> None:
    net = Network()
    net.gru(net.input(1), np.zeros((3, 1)), np.zeros((3, 1)), keep="new")
    assert not any(np.signbit(array).any() for array in gru(net, 1).arrays.values())


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid", ("hard_sigmoid", 1 / 6, 0.5), ("affine", 0.3, 0.5)])
def test_keep_new_is_accepted_where_it_is_exact(gate: Any) -> None:
    a = np.linspace(-9, 9, 101)
    act = activation(gate)
    np.testing.assert_allclose(act(-a), 1 - act(a), atol=1e-15)
    net = Network()
    net.gru(net.input(1), np.ones((3, 1)), np.ones((3, 1)), keep="new", gate_activation=gate)


@pytest.mark.parametrize("gate", ["tanh", "relu", "softsign", ("hard_sigmoid", 0.2, 0.4), "affine", "linear"])
def test_keep_new_is_refused_by_name_elsewhere(gate: Any) -> None:
    net = Network()
    name = gate if isinstance(gate, str) else gate[0]
    with pytest.raises(ValueError, match=f"keep='new'.*{name}"):
        net.gru(net.input(1), np.ones((3, 1)), np.ones((3, 1)), keep="new", gate_activation=gate)
    assert len(net.layers) == 1


def test_bidirectional_is_forward_and_reverse_one_after_the_other() -> None:
    halves = [gru_arrays(seed, 4, 3) for seed in (3, 4)]
    h0 = arrays(5, (2, 4))[0]
    net = Network()
    y = net.gru(
        net.input(3), *(np.stack(pair) for pair in zip(*halves)), direction="bidirectional", h0=h0, name="bi"
    )
    net.output(y)
    expected = Network()
    x = expected.input(3)
    expected.output(
        [
            expected.gru(x, *halves[0], h0=h0[0]),
            expected.gru(x, *halves[1], h0=h0[1], direction="reverse"),
        ]
    )
    assert net.same(expected)
    assert [layer.name for layer in net.layers] == ["", "bi.forward", "bi.reverse", "bi"]
    assert (y.width, net.state_size, net.causal) == (8, 8, False)


def test_bidirectional_without_biases() -> None:
    W, U, _, _ = gru_arrays(3, 4, 3)
    net = Network()
    net.gru(net.input(3), np.stack([W, W]), np.stack([U, U]), direction="bidirectional")
    assert not gru(net, 1).b_x.any() and gru(net, 2).reverse


def test_one_hot_input_takes_the_bias_into_its_columns() -> None:
    W, U, b_x, b_h = gru_arrays(6, 4, 5)
    net = Network()
    net.gru(net.tokens(5), W, U, b_x, b_h)
    layer = gru(net, 1)
    np.testing.assert_array_equal(layer.W, W + b_x[:, np.newaxis])
    assert not layer.b_x.any()
    np.testing.assert_array_equal(layer.b_h, b_h)


# ---- what the network is


def small_network() -> Network:
    net = Network()
    x = net.input(3, name="x")
    h = net.gru(x, *gru_arrays(7, 4, 3), h0=np.arange(4))
    unused = net.gru(h, *gru_arrays(8, 5, 4), direction="reverse")
    net.first(unused)
    y = net.dense([h, x], arrays(9, (2, 7))[0], activation="softmax")
    net.output(y, name="p")
    net.output(h)
    return net


def test_properties() -> None:
    net = small_network()
    assert (net.input_size, net.vocab_size, net.output_size) == (3, None, 6)
    assert net.outputs == {"p": slice(0, 2), "y1": slice(2, 6)}
    assert list(net.outputs) == ["p", "y1"]
    assert not net.per_sequence


def test_layers_that_reach_no_output_do_not_count() -> None:
    net = small_network()
    assert net.causal and net.state_size == 4
    assert net.initial_state.tolist() == [0, 1, 2, 3]
    pruned = net.pruned()
    assert [layer.operation for layer in pruned.layers] == ["input", "gru", "concat", "dense"]
    assert [layer.inputs for layer in pruned.layers] == [(), (0,), (1, 0), (2,)]
    assert pruned.outputs == net.outputs and pruned.same(net)
    assert len(net.layers) == 6, "the network itself is unchanged"


def test_empty_network() -> None:
    net = Network()
    assert (net.input_size, net.vocab_size, net.output_size, net.state_size, net.outputs) == (None, None, 0, 0, {})
    assert repr(net) == "<Network: empty>"
    net.input(2)
    with pytest.raises(ValueError, match="no output"):
        net.pruned()


def test_default_names_of_outputs() -> None:
    net = Network()
    x = net.input(2)
    for _ in range(3):
        net.output(x)
    assert list(net.outputs) == ["y", "y1", "y2"]


def test_repr_and_summary() -> None:
    net = small_network()
    weights = 12 * 3 + 12 * 4 + 12 + 12 + 4 + 2 * 7 + 2
    assert repr(net) == f"<Network: input 3 -> p 2, y1 4; 6 layers, {weights} weights, state 4>"
    lines = net.summary().splitlines()
    assert len(lines) == 1 + 6 + 1
    assert lines[0].split() == ["layer", "name", "reads", "width", "weights", "details"]
    assert lines[2].split() == ["1", "gru", "0", "4", "112", "tanh,", "sigmoid,", "reset", "after"]
    assert "reverse" in lines[3] and "softmax" in lines[6]
    assert lines[-1] == f"outputs: p = [0:2], y1 = [2:6]; {weights} weights, state 4, causal"
    assert all(len(line) == len(line.rstrip()) for line in lines)


def test_same_sees_every_difference() -> None:
    def build(**change: Any) -> Network:
        options: dict[str, Any] = {"seed": 0, "h0": None, "clip": None, "act": "tanh", "direction": "forward"}
        options |= {"name": "y", "reset": "after", "zero": 0.0, "dtype": np.float32, **change}
        net = Network()
        W, U, b_x, _ = gru_arrays(options["seed"], 4, 3)
        b_x[0] = options["zero"]
        h = net.gru(
            net.input(3),
            W.astype(options["dtype"]),
            U,
            b_x,
            reset=options["reset"],
            clip=options["clip"],
            activation=options["act"],
            direction=options["direction"],
            h0=options["h0"],
        )
        net.output(h, name=options["name"])
        return net

    assert build().same(build())
    changes: list[dict[str, Any]] = [
        {"seed": 1},
        {"h0": np.ones(4)},
        {"clip": 3.0},
        {"act": ("scaled_tanh", 1.0)},
        {"direction": "reverse"},
        {"name": "other"},
        {"reset": "before"},
        {"zero": -0.0},
        {"dtype": np.float64},
    ]
    for change in changes:
        assert not build().same(build(**change)), change
    assert build(act=("scaled_tanh", 0.1)).same(build(act=("scaled_tanh", float(np.float32(0.1)))))
    assert not build(act=("scaled_tanh", 0.1)).same(build(act=("scaled_tanh", 0.1001)))
    assert build(clip=0.1).same(build(clip=float(np.float32(0.1)))) and not build(clip=0.1).same(build(clip=0.2))


def test_same_does_not_compare_names_of_layers_and_metadata() -> None:
    a, b = Network(), Network()
    a.output(a.input(2, name="a"))
    b.output(b.input(2, name="b"))
    b.metadata["x"] = 1
    assert a.same(b)
    c = Network()
    c.output(c.tokens(2) and c.embedding(c.tokens_value, [[1], [2]])) if False else None
    d = Network()
    d.input(2)
    assert not a.same(copy.deepcopy(small_network()))


def test_copies_are_independent() -> None:
    net = small_network()
    other = copy.deepcopy(net)
    assert other.same(net)
    other.output(other.concat([]) if False else other.pruned() and Network_value(other), name="more")
    assert "more" not in net.outputs


def Network_value(net: Network) -> Any:
    from gru_engine.network import Value

    return Value(net, 0)
