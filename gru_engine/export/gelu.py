# SPDX-License-Identifier: Apache-2.0
"""GELU activations that a model writes out in elementary operations, as exporters do whose target knows none.

They are the product of a value x and of a gate made of it, whatever the order of the factors: ``x (1 + erf(x / sqrt 2)) / 2``,
or the approximation ``x (1 + tanh(y)) / 2`` and ``x sigmoid(2 y)``, where y is ``sqrt(2 / pi) (x + 0.044715 x^3)`` in any way of
writing this polynomial. The graph already has the operations that lead to both factors, so a product is read backwards.
"""

from __future__ import annotations

import math

import numpy as np

from gru_engine.export.graph import Array, Graph, Ids, Node, Tensor, broadcast

_LINEAR, _CUBIC = math.sqrt(2 / math.pi), 0.044715  # of y
_ROUNDED = 2.0**-22  # how far a constant may be off that is the product of some that went through float32
_DEEPEST = 10  # operations between y and x

_REFUSAL = "an error function is supported only as a part of a GELU, x * (1 + erf(x / sqrt(2))) / 2"


def error_function(graph: Graph, t: Tensor) -> Tensor:
    """``erf(t)``: no value by itself, but a part of a GELU."""
    return graph.pointwise("intermediate", [t], {}, kind="erf", refusal=_REFUSAL)


def product(graph: Graph, a: Tensor, b: Tensor) -> Tensor | None:
    """The GELU, perhaps scaled, that the product ``a * b`` is; None if it is none."""
    a, b = broadcast(a, b)
    for factor, gate in ((a, b), (b, a)):
        read = _gate(graph, gate.ids.reshape(-1))
        if read is None:
            continue
        function, argument, outer, inner = read
        ids, scale = factor.ids.reshape(-1), np.ones(factor.ids.size)
        while True:  # x itself may be scaled on its way to the product
            found = _read(function, _polynomial(graph, argument, ids, inner))
            if found is not None:
                x = Tensor(factor.dims, ids.reshape(factor.ids.shape))
                return _made(graph, x, function, found, outer * scale / found)
            node = _one_node(graph, ids)
            if node is None or node.operation != "affine" or node.arrays["shift"][ids - node.first].any():
                break
            scale = scale * node.arrays["scale"][ids - node.first]
            ids = node.inputs[0][ids - node.first]
    return None


def _made(graph: Graph, x: Tensor, function: str, stretch: Array, scale: Array) -> Tensor:
    """``scale * function(stretch * x)``."""
    if (stretch != 1).any():
        x = graph.affine(x, stretch.reshape(x.ids.shape), 0.0)
    t = graph.activation(x, function)
    return t if np.allclose(scale, 1, rtol=0, atol=1e-12) else graph.affine(t, scale.reshape(x.ids.shape), 0.0)


def _one_node(graph: Graph, ids: Ids) -> Node | None:
    """The node that all the ids are outputs of."""
    numbers = graph.node_numbers(ids)
    return graph.nodes[int(numbers[0])] if ids.size and (numbers == numbers[0]).all() else None


def _gate(graph: Graph, ids: Ids) -> tuple[str, Ids, Array, Array] | None:
    """A gate ``outer * (1 + f(inner * argument)) / 2``, f an error function or tanh: the GELU's name, argument, outer, inner."""
    scale, shift = np.ones(ids.size), np.zeros(ids.size)
    node = _one_node(graph, ids)
    while node is not None and node.operation == "affine":
        places = ids - node.first
        shift = shift + scale * node.arrays["shift"][places]
        scale = scale * node.arrays["scale"][places]
        ids = node.inputs[0][places]
        node = _one_node(graph, ids)
    if node is None or node.operation not in ("intermediate", "activation"):
        return None
    kind = node.options["kind"] if node.operation == "intermediate" else node.options["activation"]
    if kind == "sigmoid" and scale.all() and not shift.any():  # sigmoid(y) = (1 + tanh(y / 2)) / 2
        return "gelu_tanh", node.inputs[0][ids - node.first], scale, np.full(ids.size, 0.5)
    if kind in ("erf", "tanh") and shift.all() and np.allclose(abs(scale), abs(shift), rtol=_ROUNDED, atol=0):
        function = "gelu" if kind == "erf" else "gelu_tanh"
        return function, node.inputs[0][ids - node.first], 2 * shift, np.sign(scale) * np.sign(shift)
    return None


def _read(function: str, polynomial: Array | None) -> Array | None:
    """The number s for which the argument of the gate is that of a GELU of ``s x``; None if there is none."""
    if polynomial is None or polynomial[:, 0].any() or polynomial[:, 2].any() or not polynomial[:, 1].all():
        return None
    stretch = polynomial[:, 1] * (math.sqrt(2) if function == "gelu" else 1 / _LINEAR)
    stretch = np.where(abs(stretch - 1) <= _ROUNDED, 1.0, stretch)
    cubic = 0 * stretch if function == "gelu" else _LINEAR * _CUBIC * stretch**3
    return stretch if np.allclose(polynomial[:, 3], cubic, rtol=4 * _ROUNDED, atol=0) else None


def _polynomial(graph: Graph, ids: Ids, x: Ids, scale: Array, depth: int = 0) -> Array | None:
    """``scale`` times the value ids as polynomials in x, up to the third degree: [n, 4], the constants first."""
    if np.array_equal(ids, x):
        return np.stack([0 * scale, scale, 0 * scale, 0 * scale], axis=1)
    node = _one_node(graph, ids)
    if node is None or depth == _DEEPEST or node.operation not in ("affine", "add", "multiply"):
        return None
    places = ids - node.first
    parts = []
    for number, read in enumerate(node.inputs):
        part = _polynomial(graph, read[places], x, np.ones(len(ids)) if number else scale, depth + 1)
        if part is None:
            return None
        parts.append(part)
    if node.operation == "affine":
        result = parts[0] * node.arrays["scale"][places, np.newaxis]
        result[:, 0] += scale * node.arrays["shift"][places]
        return result
    if node.operation == "add":
        return np.asarray(parts[0] + parts[1] * scale[:, np.newaxis])
    result = np.zeros((len(ids), 7))
    for i in range(4):
        for j in range(4):
            result[:, i + j] += parts[0][:, i] * parts[1][:, j]
    return None if result[:, 4:].any() else result[:, :4]
