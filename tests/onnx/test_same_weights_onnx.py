# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph makes the same bytes of a network as every other framework, for both places of the reset gate."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from same_weights import HIDDEN, INPUTS, OUTPUTS, check

from gru_engine.export.onnx import from_model


def graph(net):
    """GRU of the order z, r, h on [T, B, I], its directions squeezed away, and a product."""
    b = np.concatenate([net.ordered("b_x", "zrn"), net.ordered("b_h", "zrn")])
    arrays = {"W": net.ordered("W", "zrn")[np.newaxis], "R": net.ordered("U", "zrn")[np.newaxis], "B": b[np.newaxis]}
    arrays |= {"axis": np.array([1], np.int64), "V": np.ascontiguousarray(net.W_y.T), "c": net.b_y}
    nodes = [
        helper.make_node(
            "GRU", ["x", "W", "R", "B"], ["h"], hidden_size=HIDDEN, linear_before_reset=net.reset == "after"
        ),
        helper.make_node("Squeeze", ["h", "axis"], ["s"]),
        helper.make_node("MatMul", ["s", "V"], ["p"]),
        helper.make_node("Add", ["p", "c"], ["y"]),
    ]
    value = lambda name, width: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["T", "B", width])  # noqa: E731
    made = helper.make_graph(
        nodes,
        "same",
        [value("x", INPUTS)],
        [value("y", OUTPUTS)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 22)])


@pytest.mark.parametrize("reset", ["after", "before"])
def test_same_weights(reset):
    check(lambda net: from_model(graph(net)), reset)
