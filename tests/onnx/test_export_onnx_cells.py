# SPDX-License-Identifier: Apache-2.0
"""GRU cells that are written out in elementary operators: recognised in any form, and nothing else is taken for one."""

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import H, I, Model, O, V, check


def linear(m, v, inputs, outputs=H, bias=True):
    if bias:
        return m.node("Gemm", v, m.weight(outputs, inputs), m.weight(outputs), transB=1)
    return m.node("MatMul", v, m.weight(inputs, outputs))


def blend(m, z, a, b, formula):
    """z a + (1 - z) b."""
    if formula == "products":
        return m.node("Add", m.node("Mul", z, a), m.node("Mul", m.node("Sub", m.constant(1.0), z), b))
    if formula == "difference":
        return m.node("Add", m.node("Mul", m.node("Sub", a, b), z), b)
    return m.node("Sub", b, m.node("Mul", m.node("Sub", b, a), z))


def cell(m, x, h, reset="after", keep="old", formula="products", order=None, gate="Sigmoid", act="Tanh", inputs=I):
    """The new state. With ``order`` matrices act on the concatenation of input and state."""

    def joined(a, b):
        return m.node("Concat", *((a, b) if order == "xh" else (b, a)), axis=1)

    def make_gate():
        if order is not None:
            return m.node(gate, linear(m, joined(x, h), inputs + H))
        return m.node(gate, m.node("Add", linear(m, x, inputs), linear(m, h, H)))

    z = make_gate()
    r = make_gate() if reset != "none" else None
    if order is not None:
        a = linear(m, joined(x, m.node("Mul", r, h)), inputs + H)
    elif reset == "after":
        a = m.node("Add", linear(m, x, inputs), m.node("Mul", r, linear(m, h, H)))
    elif reset == "before":
        a = m.node("Add", linear(m, x, inputs), linear(m, m.node("Mul", h, r), H, bias=False))
    elif reset == "all":
        a = m.node("Mul", m.node("Add", linear(m, x, inputs), linear(m, h, H, bias=False)), r)
    else:
        a = m.node("Add", linear(m, x, inputs), linear(m, h, H, bias=False))
    n = m.node(act, a)
    return blend(m, z, *((h, n) if keep == "old" else (n, h)), formula)


def step(**options):
    m = Model()
    x, h = m.input("x", ["b", I]), m.input("h", ["b", H])
    after = cell(m, x, h, **options)
    return m.build(linear(m, after, H, O), after)


@pytest.mark.parametrize("formula", ["products", "difference", "subtraction"])
@pytest.mark.parametrize("keep", ["old", "new"])
@pytest.mark.parametrize("reset", ["after", "before", "all", "none"])
def test_forms(reset, keep, formula):
    traced = check(step(reset=reset, keep=keep, formula=formula))
    assert traced.inputs() == {"x": "x", "h": "state"}
    assert [layer.operation for layer in traced.network.layers] == ["input", "gru", "dense"]
    assert traced.network.layers[1].reset == reset


@pytest.mark.parametrize("order", ["xh", "hx"])
def test_matrices_on_the_concatenation(order):
    assert check(step(order=order, keep="new")).network.layers[1].reset == "before"


@pytest.mark.parametrize(("gate", "act"), [("HardSigmoid", "Relu"), ("Sigmoid", "Softsign"), ("HardSigmoid", "Elu")])
def test_activations(gate, act):
    gru = check(step(gate=gate, act=act)).network.layers[1]
    assert [gru.gate_activation.name, gru.activation.name] == [
        {"HardSigmoid": "hard_sigmoid"}.get(gate, gate.lower()), act.lower()
    ]  # fmt: skip


def test_the_state_may_come_first_and_both_may_be_as_wide():
    m = Model()
    h, x = m.input("h", [1, H]), m.input("x", [1, H])
    after = cell(m, x, h, inputs=H)
    assert check(m.build(after)).inputs() == {"x": "x", "h": "state"}


def test_two_cells_and_a_token():
    m = Model()
    x = m.input("x", ["b"], TensorProto.INT64)
    a, b = m.input("a", ["b", H]), m.input("b", ["b", H])
    first = cell(m, m.node("Gather", m.weight(V, I), x), a)
    second = cell(m, first, b, reset="before", inputs=H)
    traced = check(m.build(linear(m, m.node("Concat", first, second, axis=1), 2 * H, O), first, second))
    assert traced.inputs() == {"x": "x", "a": "state", "b": "state"}
    assert traced.network.state_size == 2 * H
    assert traced.network.vocab_size == V


def test_a_cell_beside_a_gru_node():
    m = Model()
    x, a, b = m.input("x", ["b", I]), m.input("a", [1, "b", H]), m.input("b", ["b", H])
    Y, Y_h = m.gru(m.node("Unsqueeze", x, np.array([0])), h0=a)
    after = cell(m, m.node("Squeeze", Y, np.array([0, 1])), b, inputs=H)
    assert check(m.build(linear(m, after, H, O), Y_h, after)).inputs() == {"x": "x", "a": "state", "b": "state"}


def with_output_gate(m, x, h):
    after = cell(m, x, h)
    return [
        m.node("Mul", m.node("Sigmoid", m.node("Add", linear(m, x, I), linear(m, h, H))), m.node("Tanh", after)),
        after,
    ]


def independent_gates(m, x, h):
    i, f = (m.node("Sigmoid", m.node("Add", linear(m, x, I), linear(m, h, H))) for _ in "if")
    after = m.node("Add", m.node("Mul", f, h), m.node("Mul", i, m.node("Tanh", linear(m, x, I))))
    return [linear(m, after, H, O), after]


def two_times(m, x, h):
    after = cell(m, x, cell(m, x, h))
    return [linear(m, after, H, O), after]


def other_factor(m, x, h):
    z, n = (m.node(f, m.node("Add", linear(m, x, I), linear(m, h, H))) for f in ("Sigmoid", "Tanh"))
    after = m.node("Add", m.node("Mul", z, h), m.node("Mul", m.node("Sub", m.constant(0.9), z), n))
    return [linear(m, after, H, O), after]


def mixed_gates(m, x, h):
    z = m.node("Sigmoid", m.node("Add", linear(m, x, I), linear(m, h, H)))
    r = m.node("HardSigmoid", m.node("Add", linear(m, x, I), linear(m, h, H)))
    n = m.node("Tanh", m.node("Add", linear(m, x, I), m.node("Mul", r, linear(m, h, H))))
    after = blend(m, z, h, n, "products")
    return [linear(m, after, H, O), after]


def both_resets(m, x, h):
    z, r = (m.node("Sigmoid", m.node("Add", linear(m, x, I), linear(m, h, H))) for _ in "zr")
    n = m.node("Tanh", m.node("Sum", linear(m, x, I), linear(m, h, H), m.node("Mul", r, linear(m, h, H))))
    after = blend(m, z, h, n, "products")
    return [linear(m, after, H, O), after]


def a_plain_network(m, x, h):
    after = m.node("Tanh", m.node("Add", linear(m, x, I), linear(m, h, H)))
    return [linear(m, after, H, O), after]


OTHERS = [with_output_gate, independent_gates, two_times, other_factor, mixed_gates, both_resets, a_plain_network]


@pytest.mark.parametrize("make", OTHERS)
def test_what_is_no_gru(make):
    m = Model()
    x, h = m.input("x", ["b", I]), m.input("h", ["b", H])
    traced = check(m.build(*make(m, x, h)))
    assert traced.inputs() == {"x": "x", "h": "state"}
    assert traced.network.state_size == H
    assert "state" in [layer.operation for layer in traced.network.layers]


def test_a_gate_of_other_symmetry_is_no_gru():
    m = Model()
    x, h = m.input("x", ["b", I]), m.input("h", ["b", H])
    z, n = (m.node(f, m.node("Add", linear(m, x, I), linear(m, h, H))) for f in ("Softsign", "Tanh"))
    after = blend(m, z, n, h, "products")
    traced = check(m.build(linear(m, after, H, O), after))
    assert "state" in [layer.operation for layer in traced.network.layers]
