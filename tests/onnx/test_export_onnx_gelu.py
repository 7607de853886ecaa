# SPDX-License-Identifier: Apache-2.0
"""GELU, as an operator and written out, and the extrema of several values in ONNX models."""

import math

import numpy as np
import pytest
from onnx_models import BTF, I, Model, O, fc, steps

from gru_engine.export.common import ExportError
from gru_engine.export.onnx import from_model

HALF, ONE = np.float32(0.5), np.float32(1)
ROOT2, ROOT, CUBIC = np.float32(math.sqrt(2)), np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)


def erf(m, y):
    return m.node("Add", m.node("Erf", m.node("Div", y, ROOT2)), ONE)


def tanh(m, y):
    cube = m.node("Pow", y, np.float32(3))
    inner = m.node("Mul", m.node("Add", y, m.node("Mul", cube, CUBIC)), ROOT)
    return m.node("Add", m.node("Tanh", inner), ONE)


def tanh_by_products(m, y):
    square = m.node("Mul", y, y)
    inner = m.node("Mul", m.node("Mul", ROOT, y), m.node("Add", ONE, m.node("Mul", CUBIC, square)))
    return m.node("Add", ONE, m.node("Tanh", inner))


ORDERS = {
    "x (1 + f) 0.5": lambda m, y, f: m.node("Mul", m.node("Mul", y, f), HALF),
    "0.5 (f x)": lambda m, y, f: m.node("Mul", HALF, m.node("Mul", f, y)),
    "(0.5 x) f": lambda m, y, f: m.node("Mul", m.node("Mul", HALF, y), f),
    "x (f 0.5)": lambda m, y, f: m.node("Mul", y, m.node("Mul", f, HALF)),
    "(f / 2) x": lambda m, y, f: m.node("Mul", m.node("Div", f, np.float32(2)), y),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("gate", [erf, tanh, tanh_by_products])
def test_written_out(order, gate):
    """Promise: one activation, in the dense layer before it, whatever the order of the factors."""

    def make(m, x):
        y = fc(m, x)
        return ORDERS[order](m, y, gate(m, y))

    net = steps(make).network
    assert [layer.operation for layer in net.layers] == ["input", "dense"]
    assert net.layers[1].activation.name == ("gelu" if gate is erf else "gelu_tanh")


@pytest.mark.parametrize(
    ("attributes", "name"), [({}, "gelu"), ({"approximate": "none"}, "gelu"), ({"approximate": "tanh"}, "gelu_tanh")]
)
def test_operator(attributes, name):
    net = steps(lambda m, x: m.node("Gelu", fc(m, x), **attributes), opset=20).network
    assert [layer.operation for layer in net.layers] == ["input", "dense"]
    assert net.layers[1].activation.name == name


def test_an_unknown_approximation():
    m = Model(*BTF, opset=20)
    with pytest.raises(ExportError, match="Gelu 'Gelu_0': the approximation 'fast' is not known; known are none, tanh"):
        from_model(m.build(m.node("Gelu", m.x, approximate="fast")))


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_extrema(op):
    def make(m, x):
        a, b = fc(m, x), fc(m, x)
        return [
            m.node(op, a, b),
            m.node(op, a, fc(m, x, 1), np.float32(0.1), b),
            m.node(op, np.array([[0.2]], np.float32), a),
            m.node(op, a),
            m.node(op, m.node("Slice", x, np.array([0]), np.array([2]), np.array([2])), fc(m, x, 1)),
        ]

    net = steps(make).network
    assert [part.stop - part.start for part in net.outputs.values()] == [O, O, O, O, 2]
    assert "maximum" in [layer.operation for layer in net.layers]
    assert I > 2
