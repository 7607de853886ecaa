# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models for the tests, and the comparison of a model with its network."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import gru_engine as ge
from gru_engine.export import common
from gru_engine.export.onnx import trace

I, H, O, V = 6, 5, 4, 13
TOLERANCE = 5e-6  # of float32 on both sides, relative to the largest magnitude

BTF = ["b", "t", I]
TBF = ["t", "b", I]


class Model:
    """Collects nodes; a method call makes a node, and returns the name of its value, or of its values."""

    def __init__(self, *shape, opset=17, kind=TensorProto.FLOAT, name="x"):
        self.nodes, self.weights, self.inputs, self.opset = [], [], [], opset
        self.random = np.random.default_rng(0)
        self.x = self.input(name, shape, kind) if shape else None

    def input(self, name, shape, kind=TensorProto.FLOAT):
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def constant(self, value, dtype=None):
        value = np.asarray(value, dtype)
        value = value.astype(np.float32) if dtype is None and value.dtype.kind == "f" else value
        self.weights.append(numpy_helper.from_array(np.asarray(value), f"c{len(self.weights)}"))
        return self.weights[-1].name

    def weight(self, *shape):
        return self.constant(self.random.normal(0, 0.5, shape))

    def node(self, op, *inputs, n=1, name=None, domain="", **attributes):
        inputs = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        outputs = [f"v{len(self.nodes)}" + "abcdefgh"[k] * (n > 1) for k in range(n)]
        name = f"{op}_{len(self.nodes)}" if name is None else name
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs[0] if n == 1 else outputs

    def gru(self, x, inputs=I, hidden=H, direction="forward", lengths="", h0="", bias=True, **attributes):
        D = 2 if direction == "bidirectional" else 1
        weights = [self.weight(D, 3 * hidden, inputs), self.weight(D, 3 * hidden, hidden)]
        weights.append(self.weight(D, 6 * hidden) if bias else "")
        options = {"hidden_size": hidden, "direction": direction, **attributes}
        return self.node("GRU", x, *weights, lengths, h0, n=2, **options)

    def flat(self, Y):
        """[time, direction, batch, units] of one direction as [time, batch, units]."""
        return self.node("Squeeze", Y, np.array([1]))

    def build(self, *outputs):
        if not isinstance(outputs[0], str):
            outputs = outputs[0]
        infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
        for info in infos:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
        graph = helper.make_graph(self.nodes, "model", self.inputs, infos, self.weights)
        domains = {node.domain for node in self.nodes if node.domain}
        imports = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in domains)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


def check(model, runtime="ONNX Runtime", tolerance=TOLERANCE, **options):
    """The network of a model (compared with it in float64 by then), beside ONNX Runtime: the reference and the engine."""
    traced = trace(model, **options).with_runtime()
    assert runtime in (None, traced.runner.name), f"it is run by {traced.runner.name}"
    net = traced.network
    batch, steps = 4, traced.fixed.get("T", 30)
    x = common.random_inputs(net, batch, steps, seed=3)
    random = np.random.default_rng(1)
    state = random.uniform(-1, 1, (batch, net.state_size)) if traced.takes_state else None
    if state is not None:  # what is no input stays as it is
        given = np.zeros(net.state_size, bool)
        given[list(traced.state_places.values())] = True
        state = np.where(given, state, net.initial_state).astype(np.float32)
    lengths = random.integers(1, steps + 1, batch) if traced.takes_lengths else None
    y, after = traced.run(x, state, lengths)
    if lengths is not None and not net.per_sequence:
        y = np.where(np.arange(steps)[:, None] < lengths[:, None, None], y, 0)
    assert np.isfinite(y).all()
    for run in (lambda *a, **k: ge.reference.run(net, *a, **k), ge.load(net.tobytes()).run):
        got, got_after = run(x, state=state, lengths=lengths, return_state=True)
        np.testing.assert_allclose(got, y, rtol=0, atol=tolerance * max(np.abs(y).max(), 1e-3))
        known = ~np.isnan(after)
        np.testing.assert_allclose(
            got_after[known], after[known], rtol=0, atol=tolerance * max(1, np.abs(got_after).max(initial=0))
        )
    return traced


def steps(make, *shape, outputs=1, **options):
    """Check a model that ``make`` builds of the input."""
    m = Model(*(shape or BTF), **options)
    result = make(m, m.x)
    return check(m.build(result if isinstance(result, list) else [result]))


def fc(m, x, outputs=O, inputs=I):
    return m.node("MatMul", x, m.weight(inputs, outputs))
