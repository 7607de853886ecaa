# SPDX-License-Identifier: Apache-2.0
"""A Network as an ONNX model, for the peers that read ONNX: its GRU operator, MatMul and Add.

Inputs: x [T, B, I] (or tokens [T, B] int64), h0, h1 ... [1, B, H]; outputs: y [T, B, O], n0, n1 ... [1, B, H]. Where the network
is nothing but a GRU that takes one step, the output is its new state n0 alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

import gru_engine as ge
from gru_engine.layers import Add, Concat, Dense, Embedding, Gru, Input, Tokens

OPERATORS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "softmax": "Softmax"}
IN_GRU = {"sigmoid": "Sigmoid", "tanh": "Tanh", "hard_sigmoid": "HardSigmoid", "linear": "Affine"}
ALPHA_BETA = {"sigmoid": (0.0, 0.0), "tanh": (0.0, 0.0), "hard_sigmoid": (0.2, 0.5), "linear": (1.0, 0.0)}


class Builder:
    """Collects nodes and weights."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, array: Any) -> str:
        """The name of a constant."""
        array = np.asarray(array)
        array = np.ascontiguousarray(array.astype(np.float32) if array.dtype.kind == "f" else array)
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> str:
        """The name of the first output of a node."""
        outputs = outputs or [f"v{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def gru(self, layer: Gru, x: str, number: int, steps: int) -> str:
        """The GRU operator: gates in the order z r n."""

        def zrn(array: Any) -> Any:
            r, z, n = np.split(np.asarray(array), 3)
            return np.concatenate([z, r, n])

        inputs = [x, self.weight(zrn(layer.W)[None]), self.weight(zrn(layer.U)[None])]
        inputs += [self.weight(np.concatenate([zrn(layer.b_x), zrn(layer.b_h)])[None]), "", f"h{number}"]
        names = [layer.gate_activation.name, layer.activation.name]
        attributes: dict[str, Any] = {"hidden_size": layer.width, "linear_before_reset": int(layer.reset == "after")}
        if names != ["sigmoid", "tanh"]:
            attributes |= {"activations": [IN_GRU[name] for name in names]}
            attributes |= {
                f"activation_{what}": [ALPHA_BETA[name][i] for name in names]
                for i, what in enumerate(("alpha", "beta"))
            }
        if steps == 1:
            return self.node("GRU", inputs, ["", f"n{number}"], **attributes) or f"n{number}"
        y = self.node("GRU", inputs, [f"s{number}", f"n{number}"], **attributes)
        return self.node("Squeeze", [y, self.weight(np.array([1]))], [f"q{number}"])


def convert(net: ge.Network, batch: int = 1, steps: int = 1) -> bytes:
    """The bytes of an ONNX file of fixed sizes."""
    build = Builder()
    names: list[str] = []
    states: list[int] = []
    for layer in net.layers:
        ins = [names[i] for i in layer.inputs]
        if isinstance(layer, (Input, Tokens)):
            name = "x"
        elif isinstance(layer, Embedding):
            name = build.node("Gather", [build.weight(layer.E), *ins])
        elif isinstance(layer, Gru):
            name = build.gru(layer, ins[0], len(states), steps)
            states.append(layer.width)
        elif isinstance(layer, Dense):
            product = build.node("MatMul", [ins[0], build.weight(layer.W.T)])
            name = build.node("Add", [product, build.weight(layer.b)])
            if layer.activation.name != "linear":
                name = build.node(OPERATORS[layer.activation.name], [name])
        elif isinstance(layer, Concat):
            name = build.node("Concat", ins, axis=2)
        elif isinstance(layer, Add):
            name = build.node("Add", ins)
        else:
            raise NotImplementedError(f"{layer.operation} in ONNX")
        names.append(name)

    def value(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))

    (last,) = net.output_layers.values()
    outputs = [value(f"n{i}", 1, batch, width) for i, width in enumerate(states)]
    if names[last] != "n0":
        build.node("Identity", [names[last]], ["y"])
        outputs = [value("y", steps, batch, net.output_size), *outputs]
    if net.vocab_size is None:
        x = value("x", steps, batch, net.input_size)
    else:
        x = helper.make_tensor_value_info("x", TensorProto.INT64, [steps, batch])
    inputs = [x, *(value(f"h{i}", 1, batch, width) for i, width in enumerate(states))]
    graph = helper.make_graph(build.nodes, "gru", inputs, outputs, build.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return model.SerializeToString()
