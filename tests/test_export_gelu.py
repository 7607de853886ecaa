# SPDX-License-Identifier: Apache-2.0
"""GELU activations that are written out in elementary operations, and the larger and the smaller of values, in a graph."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import gru_engine as ge
from gru_engine.export import gelu
from gru_engine.export import operations as op
from gru_engine.export.common import ExportError
from gru_engine.export.graph import Graph
from gru_engine.export.lowering import lower

SIZES = {"B": 7, "T": 11}
ROOT, CUBIC = math.sqrt(2 / math.pi), 0.044715
F32_ROOT = float(np.float32(ROOT))
erf = np.vectorize(math.erf)


def exact(v):
    return v * (1 + erf(v / math.sqrt(2))) / 2


def approximated(v):
    return v * (1 + np.tanh(ROOT * (v + CUBIC * v**3))) / 2


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(0, 2, (7, 11, 6))


def check(make, wanted, x, layers, rtol=1e-12):
    """The network of what ``make`` builds of a context and the input: its layers behind the input, its values."""
    c = op.Context(Graph(), SIZES)
    out = make(c, c.graph.source("input", [("B",), ("T",), (6,)]))
    net = lower(c.graph, [(None, out.ids)]).network
    assert [
        layer.activation.name if layer.operation == "activate" else layer.operation for layer in net.layers[1:]
    ] == layers
    y = ge.reference.run(net, x)
    assert_allclose(y, wanted(x), rtol=rtol, atol=1e-14)
    assert_allclose(ge.load(net.tobytes()).run(x.astype(np.float32)), y, rtol=0, atol=1e-5)


def half(c, t, number=0.5):
    return op.affine(c, t, number, 0.0)


def opened(c, t, scale=0.5**0.5, factor=1.0):
    """Factor times 1 + erf(scale * t)."""
    return half(c, op.plus(c, gelu.error_function(c.graph, half(c, t, scale)), 1.0), factor)


WRITTEN = {
    "x (1 + erf) 0.5": lambda c, t: half(c, op.product(c, t, opened(c, t))),
    "(1 + erf) x 0.5": lambda c, t: half(c, op.product(c, opened(c, t), t)),
    "0.5 x (1 + erf)": lambda c, t: op.product(c, half(c, t), opened(c, t)),
    "(1 + erf) 0.5 x": lambda c, t: op.product(c, opened(c, t), half(c, t)),
    "x 0.5 (1 + erf)": lambda c, t: op.product(c, t, opened(c, t, factor=0.5)),
    "x (0.5 erf + 0.5)": lambda c, t: op.product(
        c, op.affine(c, gelu.error_function(c.graph, half(c, t, 0.5**0.5)), 0.5, 0.5), t
    ),
    "x (1 - erf(-x)) 0.5": lambda c, t: half(
        c, op.product(c, t, op.affine(c, gelu.error_function(c.graph, half(c, t, -(0.5**0.5))), -1.0, 1.0))
    ),
    "-x (-1 - erf) 0.5": lambda c, t: half(c, op.product(c, half(c, t, -1.0), opened(c, t, factor=-1.0))),
    "x through float32": lambda c, t: half(c, op.product(c, t, opened(c, t, float(np.float32(0.5**0.5))))),
    "the scale in two steps": lambda c, t: half(c, op.product(c, t, opened(c, half(c, t, 2.0), 0.5**1.5))),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_exact(name, x):
    check(WRITTEN[name], exact, x, ["gelu"], rtol=1e-6 if "float32" in name else 1e-12)


@pytest.mark.parametrize("name", WRITTEN)
def test_of_a_scaled_value(name, x):
    """Promise: it is the value that stands in both places, also where that is an affine function of another one."""
    check(
        lambda c, t: WRITTEN[name](c, op.affine(c, t, 0.5, 0.25)),
        lambda x: exact(0.5 * x + 0.25),
        x,
        ["affine", "gelu"],
        rtol=1e-6 if "float32" in name else 1e-12,
    )


def test_other_factors(x):
    """Promise: any scale inside and outside, also negative ones, exactly."""
    check(
        lambda c, t: op.product(c, half(c, t, 3.0), opened(c, t, 1.0)),
        lambda x: 3 * x * (1 + erf(x)),
        x,
        ["affine", "gelu", "affine"],
    )
    check(
        lambda c, t: op.product(c, t, opened(c, t, -0.3)),
        lambda x: x * (1 + erf(-0.3 * x)),
        x,
        ["affine", "gelu", "affine"],
    )
    check(lambda c, t: op.product(c, t, opened(c, t)), lambda x: 2 * exact(x), x, ["gelu", "affine"])
    scales = np.arange(1.0, 7)
    check(
        lambda c, t: half(c, op.product(c, op.affine(c, t, scales, 0.0), opened(c, t))),
        lambda x: scales * exact(x),
        x,
        ["gelu", "affine"],
    )


def cube(c, t):
    return op.product(c, op.product(c, t, t), t)


def cubic(c, t, root=ROOT):
    return half(c, c.graph.add(t, half(c, cube(c, t), CUBIC)), root)


def factored(c, t):
    return op.product(c, half(c, t, ROOT), op.affine(c, op.product(c, t, t), CUBIC, 1.0))


def power(c, t):
    return c.graph.add(half(c, op.power(c, t, 3), ROOT * CUBIC), half(c, t, ROOT))


TANH = {
    "as published": lambda c, t: op.product(c, half(c, t), op.plus(c, c.graph.activation(cubic(c, t), "tanh"), 1.0)),
    "the half last": lambda c, t: half(c, op.product(c, t, op.plus(c, c.graph.activation(cubic(c, t), "tanh"), 1.0))),
    "the gate halved": lambda c, t: op.product(
        c, op.affine(c, c.graph.activation(factored(c, t), "tanh"), 0.5, 0.5), t
    ),
    "power": lambda c, t: half(c, op.product(c, op.plus(c, c.graph.activation(power(c, t), "tanh"), 1.0), t)),
    "sigmoid": lambda c, t: op.product(c, t, c.graph.activation(half(c, cubic(c, t), 2.0), "sigmoid")),
    "sigmoid in front": lambda c, t: op.product(c, c.graph.activation(cubic(c, t, 2 * ROOT), "sigmoid"), t),
    "through float32": lambda c, t: half(
        c, op.product(c, t, op.plus(c, c.graph.activation(cubic(c, t, F32_ROOT), "tanh"), 1.0))
    ),
}


@pytest.mark.parametrize("name", TANH)
def test_approximated(name, x):
    check(TANH[name], approximated, x, ["gelu_tanh"], rtol=1e-5 if "float32" in name else 1e-11)


def test_approximation_of_a_stretched_value(x):
    def make(c, t):
        y = cubic(c, half(c, t, 1.5))
        return half(c, op.product(c, t, op.plus(c, c.graph.activation(y, "tanh"), 1.0)))

    check(make, lambda x: approximated(1.5 * x) / 1.5, x, ["affine", "gelu_tanh", "affine"], rtol=1e-11)


ALIKE = {
    "another cubic": lambda c, t: op.product(
        c, t, op.plus(c, c.graph.activation(half(c, c.graph.add(t, half(c, cube(c, t), 0.05)), ROOT), "tanh"), 1.0)
    ),
    "a constant": lambda c, t: op.product(
        c, t, op.plus(c, c.graph.activation(op.plus(c, cubic(c, t), 0.1), "tanh"), 1.0)
    ),
    "not one": lambda c, t: op.product(c, t, op.plus(c, c.graph.activation(cubic(c, t), "tanh"), 0.9)),
    "another value": lambda c, t: op.product(
        c, op.plus(c, t, 1.0), op.plus(c, c.graph.activation(cubic(c, t), "tanh"), 1.0)
    ),
    "sigmoid of a line": lambda c, t: op.product(c, t, c.graph.activation(half(c, t, 1.702), "sigmoid")),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_only_looks_like_it(name, x):
    """Promise: a product like others."""
    c = op.Context(Graph(), SIZES)
    out = ALIKE[name](c, c.graph.source("input", [("B",), ("T",), (6,)]))
    layers = lower(c.graph, [(None, out.ids)]).network.layers
    assert "multiply" in [layer.operation for layer in layers]
    assert "gelu_tanh" not in [layer.activation.name for layer in layers if layer.operation == "activate"]


@pytest.mark.parametrize(
    "make",
    [
        lambda c, t: gelu.error_function(c.graph, t),
        lambda c, t: opened(c, t),
        lambda c, t: op.product(c, t, gelu.error_function(c.graph, t)),
        lambda c, t: op.product(c, op.plus(c, t, 1.0), opened(c, t)),
        lambda c, t: op.product(c, t, op.plus(c, gelu.error_function(c.graph, t), 2.0)),
        lambda c, t: op.product(c, t, opened(c, cube(c, t))),
        lambda c, t: op.product(c, t, opened(c, op.plus(c, t, 0.1))),
        lambda c, t: op.product(c, t.take(2, slice(0, 3)), opened(c, t.take(2, slice(3, 6)))),
    ],
)
def test_other_error_functions(make):
    c = op.Context(Graph(), SIZES)
    out = make(c, c.graph.source("input", [("B",), ("T",), (6,)]))
    with pytest.raises(ExportError, match="an error function is supported only as a part of a GELU"):
        lower(c.graph, [(None, out.ids)])


def test_extrema(x):
    """Promise: of any number of values and numbers; columns that are not needed are not computed."""
    parts = [slice(0, 2), slice(2, 4), slice(4, 6)]

    def several(largest, *numbers):
        return lambda c, t: op.extremum(c, [t.take(2, part) for part in parts] + list(numbers), largest)

    check(several(True), lambda x: np.max([x[..., part] for part in parts], axis=0), x, ["slice"] * 3 + ["maximum"] * 2)
    c = op.Context(Graph(), SIZES)
    t = c.graph.source("input", [("B",), ("T",), (6,)])
    out = op.extremum(c, [t, op.affine(c, t, -2.0, 0.5), 0.25, np.float32([1.5])], False).take(2, slice(1, 3))
    net = lower(c.graph, [(None, out.ids)]).network
    assert {layer.width for layer in net.layers[1:]} == {2}
    assert_allclose(ge.reference.run(net, x), np.minimum(np.minimum(x, 0.5 - 2 * x), 0.25)[..., 1:3])
    out = op.extremum(c, [t, t.take(2, [3]), -0.5], True)
    assert_allclose(
        ge.reference.run(lower(c.graph, [(None, out.ids)]).network, x), np.maximum(np.maximum(x, x[..., 3:4]), -0.5)
    )
    with pytest.raises(ExportError, match=r"the minimum of a value and an array of the shape \[6\] is not supported"):
        op.extremum(c, [t, np.ones(6)], False)
    with pytest.raises(ExportError, match="the maximum of a value and NaN is NaN"):
        op.extremum(c, [t, float("nan")], True)


def test_gates_of_other_kinds(x):
    """Promise: products with whatever else the graph has stay products: matrices, norms, parts of several values."""
    c = op.Context(Graph(), SIZES)
    t = c.graph.source("input", [("B",), ("T",), (6,)])
    W = np.random.default_rng(0).normal(size=(9, 6))
    wide = c.graph.dense(t, W)
    gate = c.graph.activation(wide, "sigmoid")
    normed = c.graph.norm(wide, [2], epsilon=0.1)
    mixed = c.graph.activation(c.graph.add(wide, normed), ("elu", 0.5))
    y = op.product(c, op.product(c, op.product(c, wide, gate), normed), mixed)
    y = op.product(c, y, c.graph.softmax(wide, 2, False))
    net = lower(c.graph, [(None, op.product(c, y.take(2, [8, 0]), y.take(2, [1, 7])).ids)]).network
    assert "multiply" in [layer.operation for layer in net.layers]
    assert_allclose(ge.load(net.tobytes()).run(x.astype(np.float32)), ge.reference.run(net, x), rtol=1e-5, atol=1e-4)
