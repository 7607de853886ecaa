# SPDX-License-Identifier: Apache-2.0
"""Writing and reading ``.gru`` files in NumPy (docs/FORMAT.md), independently of the C reader.

``pack`` makes the bytes of a file from a network, ``read`` checks a file to the last byte and gives its contents,
``unpack`` makes a network of them again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gru_engine.errors import FormatError
from gru_engine.layers import (
    Activate,
    Add,
    Affine,
    Array,
    Attend,
    Attention,
    Blend,
    Concat,
    Context,
    Dense,
    Embedding,
    First,
    Gru,
    Input,
    Last,
    Layer,
    Max,
    Maximum,
    Mean,
    Multiply,
    Norm,
    Repeat,
    Slice,
    State,
    Subsample,
    Sums,
    Tokens,
    Window,
)
from gru_engine.network import Network, Value
from gru_engine.pack import pack
from gru_engine.read import File, Golden, Node, Output, Tensor, read

__all__ = ["File", "FormatError", "Golden", "Node", "Output", "Tensor", "pack", "read", "unpack"]


def unpack(file: File) -> Network:
    """The network of a file.

    Of a network that was packed with ``fold=False`` it is the same network (``Network.same``) with the weights of the
    file's type (``Network.rounded``). A folded embedding cannot be had back; an equivalent network stands for it: the
    table as the weights of one-hot tokens or, in front of other inputs, as an embedding that goes through an identity
    matrix. Products of repeated values become parts of the matrices that they were folded out of. Either makes the same
    file again when it is packed in the same way.

    Raises
    ------
    ValueError
        If a weight is not finite.
    """
    net = Network()
    values: list[Value] = []
    for node in file.nodes:
        inputs = [values[i] for i in node.inputs]
        begin = file.nodes[node.inputs[0]].sums if node.inputs else None
        start = None if node.start is None else values[node.start]
        if node.kind is Sums:  # what is multiplied stands for it
            values.append(inputs[0])
        elif node.kind is Gru and begin is not None:
            values.append(_gru_layer(net, node, inputs, _tensors(file, node), start, _tensors(file, file.nodes[begin])))
        else:
            values.append(_layer(net, node, inputs, _tensors(file, node), start))
    for value, node in zip(values, file.nodes):
        if node.kind is State:
            net.feed(value, values[node.parameters[0]])
    for output in file.outputs:
        net.output(values[output.node], output.name)
    net.metadata = dict(file.metadata)
    return net


def _tensors(file: File, node: Node) -> dict[int, Array]:
    """The arrays by slot."""
    return {slot: file.tensors[number].array for slot, number in node.tensors.items()}


def _layer(net: Network, node: Node, inputs: list[Value], tensors: dict[int, Array], start: Value | None) -> Value:
    """Adds the layer of a node; ``start`` is what it starts from in place of an array."""
    name = node.name or None
    if node.kind is Input:
        return net.input(node.width, name=name)
    if node.kind is Context:
        return net.context(node.width, name=name)
    if node.kind is Tokens:
        return net.tokens(node.width, name=name)
    if node.kind is Embedding:
        return net.embedding(inputs[0], tensors[0], name=name)
    if node.kind is Dense:
        x, W, b = _input_arguments(net, inputs, tensors)
        return net.dense(x, W, b, activation=node.activation, name=name)
    if node.kind is Gru:
        return _gru_layer(net, node, inputs, tensors, start)
    if node.kind is Concat:
        return net.concat(inputs, name=name)
    if node.kind is Affine:
        return net.affine(inputs[0], tensors[0][0], tensors[1][0], name=name)
    if node.kind is Activate:
        return net.activation(inputs[0], node.activation, name=name)
    if node.kind is State:
        return net.state(
            node.width, tensors[0][0] if start is None else start, like=inputs[0] if inputs else None, name=name
        )
    if node.kind is Slice:
        first = node.parameters[0]
        return net.slice(inputs[0], first, first + node.width, name=name)
    if node.kind is Window:
        return net.window(inputs[0], *node.parameters[:3], name=name)
    if node.kind is Norm:
        rms, parts, *_ = node.parameters
        return net._norm("norm", inputs[0], tensors[0][0], tensors[1][0], node.factor, parts, bool(rms), name)
    if node.kind is Subsample:
        first, stride, dropped, _ = node.parameters
        return net.subsample(inputs[0], stride, first, dropped, name=name)
    if node.kind is Repeat:
        like = inputs[1] if len(inputs) > 1 else None
        return net.repeat(inputs[0], node.parameters[0] or None, like=like, name=name)
    if node.kind is Attention:
        additive, heads, causal, rows = node.parameters
        options: dict[str, Any] = {"scale": node.factor, "v": tensors[0][0] if additive else None, "heads": heads}
        if rows:
            options |= {"rows": rows, "count": inputs[3] if len(inputs) > 3 else None}
        return net.attention(*inputs[:3], causal=bool(causal), **options, name=name)
    methods: dict[type[Layer], Callable[..., Value]] = {
        Add: net.add,
        Multiply: net.multiply,
        Maximum: net.maximum,
        Last: net.last,
        First: net.first,
        Blend: net.blend,
        Mean: net.mean,
        Max: net.max,
        Attend: net.attend,
    }
    return methods[node.kind](*inputs, name=name)


def _gru_layer(
    net: Network,
    node: Node,
    inputs: list[Value],
    tensors: dict[int, Array],
    start: Value | None,
    begin: dict[int, Array] | None = None,
) -> Value:
    """Adds a GRU; ``begin`` has the tensors of the SUMS with which its own begin."""
    if begin is None:
        x, W, b_x = _input_arguments(net, inputs, tensors)
    else:
        matrices = [begin[0], tensors[0]] if 0 in tensors else [begin[0]]
        W = np.concatenate([matrix.reshape(-1, matrix.shape[-1]) for matrix in matrices], axis=1)
        x, b_x = net.concat(inputs), begin[1].ravel()
    U, b_h = tensors[3], tensors[4][0]
    if node.reset == "before":
        U, b_h = np.concatenate([U, tensors[5]]), np.concatenate([b_h, tensors[6][0]])
    return net.gru(
        x,
        W,
        U.reshape(-1, node.width),
        b_x,
        b_h.ravel(),
        reset=node.reset,
        activation=node.activation,
        gate_activation=node.gate_activation,
        clip=node.clip,
        direction="reverse" if node.reverse else "forward",
        h0=tensors[7][0] if start is None else start,
        name=node.name or None,
    )


def _input_arguments(net: Network, inputs: list[Value], tensors: dict[int, Array]) -> tuple[Value, Array, Array | None]:
    """Input, W and b of a dense or GRU layer."""
    if 2 not in tensors:  # matrix and bias
        gates, width, columns = tensors[0].shape
        return inputs[0], tensors[0].reshape(gates * width, columns), tensors[1].ravel()
    table = tensors[2].reshape(len(tensors[2]), -1)  # [V, G*H]
    if len(inputs) == 1:
        return inputs[0], table.T, None
    W = tensors[0].reshape(table.shape[1], -1)
    identity = np.eye(table.shape[1], dtype=table.dtype)
    x = net.concat([net.embedding(inputs[0], table), inputs[1]])
    return x, np.concatenate([identity, W], axis=1), None
