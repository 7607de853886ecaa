# SPDX-License-Identifier: Apache-2.0
"""ONNX models as networks: graphs as converters write them, every operator, states and lengths."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import BTF, TBF, H, I, Model, O, V, check, fc, steps

import gru_engine as ge
from gru_engine.export.common import ExportError
from gru_engine.export.onnx import from_model, trace

FILES = Path(__file__).parents[1] / "data" / "onnx"
INT64 = TensorProto.INT64

# ---- what converters write: the outputs' sizes, the states' size, the roles of the inputs

X = {"x": "x"}
STATE = {"x": "x", "h": "state"}
CONVERTED = {
    "torch_script_tagger": ([3], 24, X),
    "torch_script_classifier": ([3], 12, X),
    "torch_script_last": ([3], 6, X),
    "torch_script_fixed": ([3], 6, X),
    "torch_script_streaming": ([3, 1], 12, STATE),
    "torch_script_policy": ([3], 6, STATE),
    "torch_script_learned": ([6], 6, X),
    "torch_script_packed": ([3], 12, {"x": "x", "n": "lengths"}),
    "torch_dynamo_tagger": ([3], 24, X),
    "torch_dynamo_classifier": ([3], 12, X),
    "torch_dynamo_last": ([3], 6, X),
    "torch_dynamo_fixed": ([3], 6, X),
    "torch_dynamo_streaming": ([3, 1], 12, STATE),
    "torch_dynamo_policy": ([3], 6, STATE),
    "torch_dynamo_learned": ([6], 6, X),
    "torch_script_inputs": ([3, 1], 6, {"words": "x", "shape": "x", "h": "state"}),
    "torch_script_cell": ([6], 6, STATE),
    "torch_dynamo_cell": ([6], 6, STATE),
    "keras_stack": ([1], 12, X),
    "keras_bidirectional": ([3], 12, X),
    "keras_embedding": ([3], 6, X),
    "keras_fixed": ([3], 6, X),
}
REFUSED_FILES = {
    "keras_before": r"Loop 'sequential_1/gru_2/while_loop': a loop over time; export the loop's body",
}


def test_every_file_is_tested():
    assert {path.stem for path in FILES.glob("*.onnx")} == {*CONVERTED, *REFUSED_FILES}


@pytest.mark.parametrize("name", CONVERTED)
def test_converted(name):
    widths, state, roles = CONVERTED[name]
    traced = check(FILES / f"{name}.onnx")
    assert [part.stop - part.start for part in traced.network.outputs.values()] == widths
    assert traced.network.state_size == state
    assert traced.inputs() == roles
    assert len(traced.notes()) >= len(roles) + len(widths)


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_converted_but_refused(name):
    with pytest.raises(ExportError, match=REFUSED_FILES[name]):
        from_model(FILES / f"{name}.onnx")


def test_a_model_as_path_bytes_or_object():
    path = FILES / "torch_script_last.onnx"
    nets = [from_model(m) for m in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), onnx.load(path))]
    assert all(net.same(nets[0]) for net in nets)


def test_large_weights_in_a_file_of_their_own(tmp_path):
    m = Model(*TBF)
    model = m.build(m.gru(m.x))
    expected = from_model(model)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert from_model(tmp_path / "m.onnx").same(expected)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises((ExportError, OSError), match=r"weights\.bin"):
        from_model(tmp_path / "m.onnx")


# ---- operators


OPERATORS = {
    "MatMul and Add": lambda m, x: m.node("Add", m.node("MatMul", x, m.weight(I, O)), m.weight(O)),
    "MatMul with a vector": lambda m, x: m.node("Unsqueeze", m.node("MatMul", x, m.weight(I)), np.array([-1])),
    "MatMul from the left": lambda m, x: m.node(
        "Transpose", m.node("MatMul", m.weight(O, I), m.node("Transpose", x, perm=[0, 2, 1])), perm=[0, 2, 1]
    ),
    "MatMul with a stack of one": lambda m, x: m.node("MatMul", x, m.weight(1, I, O)),
    "Gemm": lambda m, x: m.node("Gemm", m.node("Reshape", x, np.array([-1, I])), m.weight(O, I), m.weight(O), transB=1),
    "Gemm scaled": lambda m, x: m.node(
        "Gemm", m.node("Reshape", x, np.array([-1, I])), m.weight(I, O), m.weight(1, O), alpha=0.5, beta=2.0
    ),
    "Gemm without bias": lambda m, x: m.node("Gemm", m.node("Reshape", x, np.array([-1, I])), m.weight(I, O)),
    "Gemm of another value": lambda m, x: m.node(
        "Gemm", m.node("Reshape", x, np.array([-1, I])), m.weight(I, I), m.node("Reshape", x, np.array([-1, I])), beta=0.3
    ),
    "Identity and Cast": lambda m, x: m.node("Cast", m.node("Identity", fc(m, x)), to=TensorProto.FLOAT),
    "Dropout": lambda m, x: m.node("Dropout", fc(m, x)),
    "Dropout with arguments": lambda m, x: m.node("Dropout", fc(m, x), np.float32(0.5), np.array(False)),
    "Sub and Mul": lambda m, x: m.node("Mul", m.node("Sub", x, m.weight(I)), m.weight(1, 1, I)),
    "Sub from a constant": lambda m, x: m.node("Sub", m.constant(1.0), fc(m, x)),
    "Div": lambda m, x: m.node("Div", x, m.constant(np.arange(1.0, 1 + I))),
    "Neg and Abs": lambda m, x: m.node("Abs", m.node("Neg", fc(m, x))),
    "values with values": lambda m, x: m.node(
        "Mul", m.node("Sub", fc(m, x), fc(m, x)), m.node("Add", fc(m, x), fc(m, x, 1))
    ),
    "Sum and Mean": lambda m, x: m.node("Sum", m.node("Mean", fc(m, x), fc(m, x), m.weight(O)), m.weight(O), fc(m, x)),
    "Pow": lambda m, x: m.node("Pow", fc(m, x), m.constant(3.0)),
    "ReduceSum": lambda m, x: m.node("ReduceSum", m.node("Mul", x, m.weight(I)), np.array([-1])),
    "ReduceMean": lambda m, x: m.node("ReduceMean", fc(m, x), axes=[2]),
    "ReduceSumSquare": lambda m, x: m.node("ReduceSumSquare", fc(m, x), axes=[2]),
    "no reduction": lambda m, x: m.node("ReduceSum", fc(m, x), noop_with_empty_axes=1),
    "softsign in parts": lambda m, x: (lambda y: m.node("Div", y, m.node("Add", m.node("Abs", y), m.constant(1.0))))(fc(m, x)),
    "log of a softmax": lambda m, x: m.node("Log", m.node("Softmax", fc(m, x), axis=-1)),
    "log of a sigmoid": lambda m, x: m.node("Log", m.node("Sigmoid", fc(m, x))),
    "softplus with a threshold": lambda m, x: (
        lambda y: m.node("Where", m.node("Greater", y, m.constant(20.0)), y, m.node("Softplus", y))
    )(fc(m, x)),
    "swish": lambda m, x: (lambda y: m.node("Mul", y, m.node("Sigmoid", y)))(fc(m, x)),
    "BatchNormalization": lambda m, x: m.node(
        "Transpose",
        m.node(
            "BatchNormalization", m.node("Transpose", x, perm=[0, 2, 1]), m.weight(I), m.weight(I), m.weight(I),
            np.linspace(0.5, 2, I).astype(np.float32), epsilon=1e-3
        ),
        perm=[0, 2, 1],
    ),
    "Transpose": lambda m, x: m.node("Transpose", m.node("Transpose", fc(m, x)), perm=[2, 1, 0]),
    "Reshape with 0 and -1": lambda m, x: m.node("Reshape", fc(m, x), np.array([0, -1, 2, O // 2])),
    "Reshape by Shape": lambda m, x: m.node(
        "Reshape",
        fc(m, m.node("Reshape", x, np.array([-1, I]))),
        m.node("Concat", m.node("Slice", m.node("Shape", x), np.array([0]), np.array([2])), np.array([O]), axis=0),
    ),
    "Flatten": lambda m, x: m.node("Flatten", fc(m, x), axis=2),
    "Squeeze and Unsqueeze": lambda m, x: m.node("Squeeze", m.node("Unsqueeze", fc(m, x), np.array([0, -1])), np.array([0, 4])),
    "Squeeze of everything": lambda m, x: m.node("Squeeze", m.node("Unsqueeze", fc(m, x), np.array([1]))),
    "Slice": lambda m, x: fc(m, m.node("Slice", x, np.array([1]), np.array([2**31]), np.array([2]), np.array([2])), O, 3),
    "Slice backwards": lambda m, x: m.node("Slice", x, np.array([-1]), np.array([-(2**31)]), np.array([-1]), np.array([-1])),
    "Slice of the whole time": lambda m, x: m.node("Slice", fc(m, x), np.array([0]), np.array([2**62]), np.array([1])),
    "Split": lambda m, x: m.node("Mul", *m.node("Split", x, n=2, axis=-1)),
    "Split with sizes": lambda m, x: m.node("Concat", *m.node("Split", x, np.array([1, 5]), n=2, axis=2)[::-1], axis=-1),
    "Gather": lambda m, x: m.node("Gather", x, np.array([3, -1, 3]), axis=2),
    "Gather of a matrix": lambda m, x: m.node("Gather", x, np.array([[3, 0], [1, 1]]), axis=-1),
    "Gather of one": lambda m, x: m.node("Unsqueeze", m.node("Gather", x, np.array(2), axis=2), np.array([2])),
    "Expand": lambda m, x: m.node("Mul", m.node("Expand", fc(m, x, 1), np.array([1, 1, I])), x),
    "Expand by Shape": lambda m, x: m.node("Expand", x, m.node("Shape", x)),
    "Tile": lambda m, x: m.node("Tile", x, np.array([1, 1, 2])),
    "If": lambda m, x: m.node(
        "If",
        m.node("Equal", m.node("Gather", m.node("Shape", x), np.array(2)), np.array(I)),
        then_branch=helper.make_graph([helper.make_node("Relu", [x], ["a"])], "t", [],
                                      [helper.make_tensor_value_info("a", 1, None)]),
        else_branch=helper.make_graph([helper.make_node("Erf", [x], ["b"])], "e", [],
                                      [helper.make_tensor_value_info("b", 1, None)]),
    ),
    "weights that are computed": lambda m, x: m.node(
        "MatMul", x, m.node("Transpose", m.node("Mul", m.weight(O, I), m.node("Sqrt", m.constant(2.0))))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name):
    steps(OPERATORS[name])


ACTIVATIONS = {
    "Sigmoid": {}, "Tanh": {}, "Relu": {}, "Softplus": {}, "Softsign": {}, "LeakyRelu": {"alpha": 0.2}, "Elu": {"alpha": 0.7},
    "Selu": {}, "Celu": {"alpha": 1.3}, "ThresholdedRelu": {"alpha": 0.4}, "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "HardSwish": {}, "Softmax": {"axis": 2}, "LogSoftmax": {}, "Mish": {},
}  # fmt: skip


@pytest.mark.parametrize("defaults", [True, False])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, defaults):
    attributes = {} if defaults else ACTIVATIONS[name]
    steps(lambda m, x: m.node(name, fc(m, x), **attributes), opset=18 if name == "Mish" else 17)


LARGEST = float(np.finfo(np.float32).max)
LIMITS = [(-0.5, 0.25), (0.0, 6.0), (-100.0, 100.0), (-20.0, 0.0), (0.0, 30.0), (None, 0.5), (-0.3, None), (0.0, None),
          (-LARGEST, 1.0), (-1.0, LARGEST), (None, None)]  # fmt: skip


@pytest.mark.parametrize("limits", LIMITS)
def test_clip(limits):
    bounds = ["" if bound is None else np.float32(bound) for bound in limits]
    steps(lambda m, x: m.node("Clip", m.node("Mul", x, m.constant(60.0)), *bounds))
    if None not in limits:
        steps(lambda m, x: m.node("Max", m.node("Min", x, np.float32(limits[1])), np.float32(limits[0])))


def test_values_within_wide_limits_keep_their_bits():
    m = Model(*BTF)
    net = from_model(m.build(m.node("Clip", m.x, np.float32(-100), np.float32(100))))
    x = np.random.default_rng(0).standard_normal((9, I)).astype(np.float32)
    x[0] = [-100, 100, 99.99999, -1e-30, -200, 3e38]
    np.testing.assert_array_equal(ge.load(net.tobytes()).run(x), np.clip(x, -100, 100))


@pytest.mark.parametrize("slopes", [(1,), (O,), (1, 1, O)])
def test_prelu(slopes):
    steps(lambda m, x: m.node("PRelu", fc(m, x), m.weight(*slopes)))


def test_softmax_before_operator_set_13_goes_over_all_axes():
    shape = np.array([0, 0, 2, 2])
    steps(lambda m, x: m.node("Softmax", m.node("Reshape", fc(m, x), shape), axis=2), opset=12)
    steps(lambda m, x: m.node("Softmax", m.node("Reshape", fc(m, x), np.array([-1, O]))), opset=12)
    steps(lambda m, x: m.node("Softmax", m.node("Reshape", fc(m, x), shape), axis=2), opset=13)
    m = Model(*BTF, opset=11)
    with pytest.raises(
        ExportError, match=r"Softmax 'Softmax_1': before operator set 13 it goes over all axes from 1 on"
    ):
        from_model(m.build(m.node("Softmax", fc(m, m.x))))


def test_attributes_of_old_operator_sets():
    def make(m, x):
        x = m.node("Squeeze", m.node("Unsqueeze", x, axes=[0]), axes=[0])
        a, b = m.node("Split", m.node("Slice", x, starts=[0], ends=[4], axes=[2]), n=2, axis=2, split=[1, 3])
        return m.node("Clip", m.node("ReduceSum", m.node("Concat", a, b, axis=2), axes=[2]), min=-1.0, max=2.0)

    steps(make, opset=9)
    # The alignment of operator sets before 7, which ONNX Runtime does not run.
    m = Model(*BTF, opset=6)
    x = m.node("Reshape", m.x, np.array([0, 0, 2, 3]))
    check(
        m.build(m.node("Reshape", m.node("Add", x, m.weight(3), broadcast=1, axis=3), np.array([0, 0, I]))),
        runtime=None,
    )


def test_embeddings_and_one_hot_vectors():
    kind = {"kind": INT64}
    steps(lambda m, x: m.flat(m.gru(m.node("Gather", m.weight(V, I), x))[0]), "t", "b", **kind)
    steps(lambda m, x: m.node("Gather", m.weight(V, I), m.node("Cast", x, to=TensorProto.INT32)), "b", "t", **kind)
    traced = steps(
        lambda m, x: fc(m, m.node("OneHot", x, np.array(V), np.array([0, 1], np.float32)), O, V), "b", "t", **kind
    )
    assert traced.network.vocab_size == V
    steps(lambda m, x: m.node("OneHot", x, np.array(V), np.array([0.5, 2], np.float32), axis=-1), "b", "t", **kind)
    steps(lambda m, x: m.node("Gather", m.weight(V), x), "b", "t", **kind)
    # Keras takes tokens as floats.
    steps(lambda m, x: m.node("Gather", m.weight(V, I), m.node("Cast", x, to=TensorProto.INT32)), "b", "t")


def test_local_functions():
    m = Model(*BTF)
    model = m.build(m.node("Gate", m.x, domain="own"))
    body = [helper.make_node("Sigmoid", ["a"], ["s"]), helper.make_node("Mul", ["a", "s"], ["b"])]
    model.functions.append(helper.make_function("own", "Gate", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    check(model)


def test_weights_that_are_listed_as_inputs():
    m = Model(*BTF)
    model = m.build(fc(m, m.x))
    weight = model.graph.initializer[0]
    model.graph.input.append(helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    assert check(model).arguments == ["x"]


def test_what_reaches_no_output_does_not_matter():
    m = Model(*BTF)
    m.node("Erf", m.input("unused", ["k"]))
    assert check(m.build(fc(m, m.x))).arguments == ["x"]


# ---- sequences


def test_layers_and_directions():
    def make(m, x):
        Y, _ = m.gru(m.node("Transpose", x, perm=[1, 0, 2]), direction="bidirectional")
        x = m.node("Reshape", m.node("Transpose", Y, perm=[0, 2, 1, 3]), np.array([0, 0, -1]))
        Y, _ = m.gru(x, inputs=2 * H, hidden=3, direction="reverse", linear_before_reset=1)
        return m.node("Transpose", m.flat(Y), perm=[1, 0, 2])

    traced = steps(make)
    assert traced.network.state_size == 2 * H + 3
    assert [layer.name for layer in traced.network.layers if layer.name] == ["x", "GRU_1", "GRU_1_reverse", "GRU_4"]


ENDS = {
    "Y_h": lambda m, Y, Y_h: m.node("Squeeze", Y_h, np.array([0])),
    "Gather": lambda m, Y, Y_h: m.node("Gather", m.flat(Y), np.array(-1), axis=0),
    "Gather of a list": lambda m, Y, Y_h: m.node("Gather", m.flat(Y), np.array([-1]), axis=0),
    "first": lambda m, Y, Y_h: m.node("Gather", m.flat(Y), np.array(0), axis=0),
    "Slice": lambda m, Y, Y_h: m.node("Slice", m.flat(Y), np.array([-1]), np.array([2**62]), np.array([0])),
    "Slice and Squeeze": lambda m, Y, Y_h: m.node(
        "Squeeze", m.node("Slice", m.flat(Y), np.array([-1]), np.array([2**62]), np.array([0])), np.array([0])
    ),
    "Shape": lambda m, Y, Y_h: m.node(
        "Gather", m.flat(Y), m.node("Sub", m.node("Gather", m.node("Shape", Y), np.array(0)), np.array(1)), axis=0
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_values_of_whole_sequences(name):
    traced = steps(lambda m, x: fc(m, ENDS[name](m, *m.gru(x)), O, H), *TBF)
    assert traced.network.per_sequence
    assert traced.network.causal == (name != "first")


def test_reversed_by_slices():
    def make(m, x):
        backwards = [np.array([-1]), np.array([-(2**62)]), np.array([0]), np.array([-1])]
        Y, _ = m.gru(m.node("Slice", x, *backwards))
        return m.node("Slice", m.flat(Y), *backwards)

    assert not steps(make, *TBF).network.causal


def test_initial_states_that_depend_on_the_batch_only():
    def zeros(m, x):
        batch = m.node("Slice", m.node("Shape", x), np.array([1]), np.array([2]))
        shape = m.node("Concat", np.array([1]), batch, np.array([H]), axis=0)
        return m.flat(m.gru(x, h0=m.node("ConstantOfShape", shape))[0])

    assert not steps(zeros, *TBF).network.initial_state.any()

    def learned(m, x):
        batch = m.node("Slice", m.node("Shape", x), np.array([1]), np.array([2]))
        shape = m.node("Concat", np.array([1]), batch, np.array([H]), axis=0)
        return m.flat(m.gru(x, h0=m.node("Expand", m.weight(1, 1, H), shape))[0])

    assert steps(learned, *TBF).network.initial_state.all()


def test_the_batch_of_tracing_is_no_part_of_the_network():
    # The batch is one row inside, whatever the input says.
    m = Model(*TBF)
    Y, _ = m.gru(m.x, h0=m.weight(1, 1, H))
    model = m.build(m.flat(Y))
    net = from_model(model)
    x = np.random.default_rng(0).standard_normal((1, 9, I))
    assert ge.reference.run(net, x).shape == (1, 9, H)
    for shape in (["t", 1, I], [9, 1, I], [9, 4, I], ["t", 4, I]):
        m = Model(*shape)
        Y, _ = m.gru(m.x, h0=m.weight(1, 1 if shape[1] == 1 else 4, H) if shape[1] == 1 else "")
        y = m.node("Reshape", m.flat(Y), np.array([-1, *shape[1:2], H]))
        fixed = check(m.build(y)).fixed
        assert fixed == {k: n for k, n in zip("TB", shape) if isinstance(n, int) and n > 1}


def test_several_inputs_side_by_side():
    m = Model("t", "b", 2)
    other = m.input("y", ["t", "b", I - 2])
    traced = check(m.build(m.flat(m.gru(m.node("Concat", other, m.x, axis=2))[0])))
    assert traced.inputs() == {"x": "x", "y": "x"}
    assert traced.network.input_size == I


# ---- states and lengths


def test_outputs_without_a_name():
    m = Model(*TBF)
    for inputs in (I, H):
        weights = [m.weight(1, 3 * H, inputs), m.weight(1, 3 * H, H), "", ""]
        m.nodes.append(helper.make_node("GRU", [m.x, *weights], ["", f"h{inputs}"], hidden_size=H))
        m.nodes.append(helper.make_node("GRU", [m.x, *weights], [f"y{inputs}"], hidden_size=H))
        m.x = m.flat(f"y{inputs}")
    check(m.build(f"h{H}"))


def test_two_states():
    m = Model(*TBF)
    a, b = m.input("a", [1, "b", H]), m.input("b", [1, "b", H])
    Y, first = m.gru(m.x, h0=a)
    Y, second = m.gru(m.flat(Y), inputs=H, h0=b)
    traced = check(m.build(m.flat(Y), first, second))
    assert traced.inputs() == {"x": "x", "a": "state", "b": "state"}
    assert list(traced.network.outputs) == [traced.model.graph.output[0].name]
    assert sorted(traced.finals) == [1, 2]


def test_one_state_for_all_layers_whatever_its_axes():
    m = Model(*TBF)
    both = m.node("Transpose", m.node("Reshape", m.input("h", ["b", 2 * H]), np.array([0, 2, H])), perm=[1, 0, 2])
    a, b = m.node("Split", both, n=2, axis=0)
    Y, first = m.gru(m.x, h0=a)
    Y, second = m.gru(m.flat(Y), inputs=H, h0=b)
    after = m.node(
        "Reshape", m.node("Transpose", m.node("Concat", first, second, axis=0), perm=[1, 0, 2]), np.array([0, -1])
    )
    assert check(m.build(m.flat(Y), after)).network.state_size == 2 * H


@pytest.mark.parametrize("batch", ["b", 1])
def test_one_step_with_its_state(batch):
    m = Model(batch, I)
    Y, Y_h = m.gru(m.node("Unsqueeze", m.x, np.array([0])), h0=m.input("h_in", [1, batch, H]))
    action = fc(m, m.node("Squeeze", Y, np.array([0, 1])), O, H)
    traced = check(m.build(action, Y_h))
    assert traced.network.causal
    assert traced.network.output_size == O
    assert not traced.network.per_sequence
    stream = ge.load(traced.network.tobytes()).stream()
    x = np.random.default_rng(0).standard_normal((5, I)).astype(np.float32)
    expected = traced.run(x[np.newaxis])[0][0]
    np.testing.assert_allclose([stream.step(row) for row in x], expected, atol=1e-6)


def test_lengths():
    m = Model(*TBF)
    n = m.node("Cast", m.input("n", ["b"], INT64), to=TensorProto.INT32)
    Y, _ = m.gru(m.x, lengths=n, direction="bidirectional")
    x = m.node("Reshape", m.node("Transpose", Y, perm=[0, 2, 1, 3]), np.array([0, 0, -1]))
    Y, Y_h = m.gru(x, inputs=2 * H, lengths=n)
    traced = check(m.build(fc(m, m.node("Squeeze", Y_h, np.array([0])), O, H)))
    assert traced.takes_lengths
    assert traced.network.per_sequence
    assert traced.inputs() == {"x": "x", "n": "lengths"}


def test_lengths_of_everything():
    def make(m, x):
        size = m.node("Slice", m.node("Shape", x), np.array([0]), np.array([1]))
        batch = m.node("Slice", m.node("Shape", x), np.array([1]), np.array([2]))
        n = m.node("Cast", m.node("Expand", size, batch), to=TensorProto.INT32)
        return m.flat(m.gru(x, lengths=n)[0])

    assert not steps(make, *TBF).takes_lengths


def test_reverse_sequence():
    def make(m, x):
        n = m.input("n", ["b"], INT64)
        own = m.node("Cast", n, to=TensorProto.INT32)
        Y, _ = m.gru(m.node("ReverseSequence", x, n), lengths=own)
        return m.node("ReverseSequence", m.flat(Y), n)

    traced = steps(make, *TBF)
    assert traced.takes_lengths
    assert not traced.network.causal


def test_outputs_can_be_chosen():
    m = Model(*TBF)
    Y, Y_h = m.gru(m.x)
    y = m.flat(Y)
    model = m.build(fc(m, y, O, H), m.node("Sigmoid", fc(m, y, 1, H)), Y_h)
    names = [output.name for output in model.graph.output]
    assert list(from_model(model).outputs) == names[:2]
    assert list(from_model(model, outputs=[names[1]]).outputs) == names[1:2]
    assert list(from_model(model, outputs=["1", 0]).outputs) == names[1::-1]
    assert from_model(model, outputs=[2]).per_sequence
    with pytest.raises(ExportError, match=f"the model has no output 'p'; it has {', '.join(names)}"):
        from_model(model, outputs=["p"])
    with pytest.raises(ExportError, match="returns 3 values, there is no value 3"):
        from_model(model, outputs=[3])


def test_axes_can_be_given():
    m = Model("a", "b", I)
    model = m.build(m.node("Gather", fc(m, m.x), np.array(-1), axis=0))
    assert trace(model).notes()[0] == "x: [time, batch, 6 features], input"
    assert from_model(model, axes="TBF").per_sequence
    with pytest.raises(ExportError, match=r"Gather 'Gather_1': one row of the axis batch .* is read by itself"):
        from_model(model, axes="BTF")
    with pytest.raises(ExportError, match=r"axes 'BT' do not describe an input of shape"):
        from_model(model, axes="BT")
