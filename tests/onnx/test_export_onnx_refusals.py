# SPDX-License-Identifier: Apache-2.0
"""Whatever of an ONNX model has no exact counterpart is refused, by the name of its node."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import BTF, TBF, H, I, Model, O, V, fc, steps

from gru_engine.export.common import ExportError
from gru_engine.export.onnx import from_model

INT64 = TensorProto.INT64


def loop(m, x):
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["s"], ["e"])], "body",
        [info("i", INT64, []), info("c", TensorProto.BOOL, []), info("s", 1, None)],
        [info("d", TensorProto.BOOL, []), info("e", 1, None)],
    )  # fmt: skip
    return m.node("Loop", np.array(3), np.array(True), x, body=body)


def conditional(m, x):
    branch = helper.make_graph(
        [helper.make_node("Relu", [x], ["a"])], "b", [], [helper.make_tensor_value_info("a", 1, None)]
    )
    return m.node("If", m.node("Cast", m.node("ReduceSum", x, keepdims=0), to=TensorProto.BOOL), then_branch=branch,
                  else_branch=branch)  # fmt: skip


TRANSPOSED = [np.array([1]), np.array([3]), np.array([1])]
REFUSALS = {
    "LSTM": (
        lambda m, x: m.node("LSTM", x, m.weight(1, 4 * H, I), m.weight(1, 4 * H, H), n=2)[0],
        "LSTM 'LSTM_0': an LSTM; only GRUs are supported",
    ),
    "RNN": (lambda m, x: m.node("RNN", x, m.weight(1, H, I), m.weight(1, H, H), n=2)[0], "RNN 'RNN_0': a plain RNN"),
    "Loop": (loop, "Loop 'Loop_0': a loop over time; export the loop's body"),
    "If": (
        conditional,
        "If 'If_2': |Cast 'Cast_1': values are converted to bool|ReduceSum 'ReduceSum_0': a sum over (the batch axis|time)",
    ),
    "GroupNormalization": (
        lambda m, x: m.node("GroupNormalization", x, m.weight(I), m.weight(I), num_groups=1),
        "GroupNormalization 'GroupNormalization_0': this operator is not supported",
    ),
    "Sin": (lambda m, x: m.node("Sin", x), "Sin 'Sin_0': this operator is not supported"),
    "Erf": (
        lambda m, x: m.node("Erf", x),
        r"an error function is supported only as a part of a GELU, .*\(in 'Erf_0'\)",
    ),
    "other domain": (
        lambda m, x: m.node("FusedGemm", x, domain="com.microsoft"),
        "com.microsoft.FusedGemm 'FusedGemm_0': this operator of the domain 'com.microsoft' is not supported",
    ),
    "no name": (lambda m, x: m.node("Sin", x, name=""), "Sin -> 'v0': this operator is not supported"),
    "attention": (
        lambda m, x: m.node("MatMul", x, m.node("Transpose", x, perm=[0, 2, 1])),
        "MatMul 'MatMul_1': both factors of a matrix product depend on the input",
    ),
    "stack of matrices": (
        lambda m, x: m.node("MatMul", m.node("Unsqueeze", x, np.array([1])), m.weight(2, I, O)),
        "a product of .* with a stack of matrices of the shape .* is not supported",
    ),
    "sum over time": (
        lambda m, x: m.node("ReduceSum", x, np.array([1])),
        "ReduceSum 'ReduceSum_0': a sum over (the batch axis|time) is ",
    ),
    "maximum with an array": (
        lambda m, x: m.node("Max", x, m.weight(I)),
        r"Max 'Max_0': the maximum of a value and an array of the shape \[6\]",
    ),
    "minimum with NaN": (
        lambda m, x: m.node("Min", x, np.float32("nan")),
        "Min 'Min_0': the minimum of a value and NaN",
    ),
    "softmax over time": (lambda m, x: m.node("Softmax", x, axis=1), r"a softmax over time is .*\(in 'Softmax_0'\)"),
    "part of the time": (
        lambda m, x: m.node("Slice", x, *TRANSPOSED),
        "Slice 'Slice_0': a part of the (time|batch) axis is taken",
    ),
    "one step": (
        lambda m, x: m.node("Gather", fc(m, x), np.array(3), axis=1),
        "Gather 'Gather_1': (time step 3 is read by itself|one row of the axis batch)",
    ),
    "some steps": (
        lambda m, x: m.node("Gather", x, np.array([0, 1]), axis=1),
        "Gather 'Gather_0': 2 places of the .* axis",
    ),
    "split time": (
        lambda m, x: m.node("Split", x, np.array([1, 2]), n=2, axis=1)[0],
        "Split 'Split_0': the (time|batch) axis is split",
    ),
    "mixed axes": (
        lambda m, x: m.node("Reshape", m.node("Transpose", x, perm=[0, 2, 1]), np.array([0, -1, I])),
        "Reshape 'Reshape_1': .*without tearing an axis apart",
    ),
    "shape that does not fit": (
        lambda m, x: m.node("Reshape", x, np.array([7, 9, I])),
        "does not fit the shape .*a size of its own",
    ),
    "squeezed batch": (
        lambda m, x: m.node("Add", m.node("Squeeze", m.node("Sin", x), np.array([0])), m.constant(1.0)),
        "Sin 'Sin_0'",
    ),
    "context expanded": (
        lambda m, x: m.node(
            "Expand",
            fc(m, m.node("Gather", x, np.array(-1), axis=1)),
            m.node("Slice", m.node("Shape", x), np.array([0]), np.array([2])),
        ),
        "Expand|Gather",
    ),
    "position": (
        lambda m, x: m.node(
            "Add",
            x,
            m.node(
                "Unsqueeze",
                m.node(
                    "Cast",
                    m.node("Range", np.array(0), m.node("Gather", m.node("Shape", x), np.array(1)), np.array(1)),
                    to=1,
                ),
                np.array([1]),
            ),
        ),
        "Add '.*differs along the time axis",
    ),
    "quotient": (
        lambda m, x: m.node("Div", x, fc(m, x, I)),
        "Div 'Div_1': a division by a value that depends on the input",
    ),
    "power": (lambda m, x: m.node("Pow", x, np.float32(0.5)), "Pow 'Pow_0': a square root is supported only"),
    "another power": (lambda m, x: m.node("Pow", x, np.float32(1.5)), "Pow 'Pow_0': only the powers 1, 2 and 3"),
    "logarithm": (lambda m, x: m.node("Log", x), "Log 'Log_0': only the logarithm of a sigmoid or of a softmax"),
    "choice": (
        lambda m, x: m.node("Where", m.node("Greater", x, np.float32(0)), x, fc(m, x, I)),
        "Where 'Where_2': a choice that depends on values",
    ),
    "softplus with a low threshold": (
        lambda m, x: m.node("Where", m.node("Greater", x, np.float32(3)), x, m.node("Softplus", x)),
        "Where 'Where_2': a choice that depends on values",
    ),
    "training": (
        lambda m, x: m.node("Dropout", x, np.float32(0.5), np.array(True)),
        "Dropout 'Dropout_0': it is in training mode",
    ),
    "random": (
        lambda m, x: m.node("Add", x, m.node("RandomNormal", shape=[I])),
        "RandomNormal 'RandomNormal_0': it is random",
    ),
    "batch statistics": (
        lambda m, x: m.node(
            "BatchNormalization",
            m.node("Transpose", x, perm=[0, 2, 1]),
            *(m.weight(I) for _ in "1234"),
            training_mode=1,
        ),
        "uses the statistics of the batch",
    ),
    "batch norm over time": (
        lambda m, x: m.node("BatchNormalization", x, *(m.constant(np.ones(9)) for _ in "1234")),
        "it must be the features",
    ),
    "joined constant": (
        lambda m, x: m.node("Concat", x, m.weight(1, 1, 2), axis=2),
        "Concat 'Concat_0': it joins a constant",
    ),
    "integers": (
        lambda m, x: m.node("Cast", m.node("Cast", fc(m, x), to=INT64), to=1),
        "values are converted to int64",
    ),
    "boolean": (lambda m, x: m.node("Equal", x, np.float32(1)), "Equal 'Equal_0': this operator is not supported"),
    "table in another axis": (
        lambda m, x: m.node("Gather", fc(m, x), np.array([9]), axis=-1),
        r"Gather 'Gather_1': it reads the places \[9\] of axis 2 of .*, which has 4",
    ),
    "reversed output": (
        lambda m, x: m.node("Slice", fc(m, x), np.array([-1]), np.array([-(2**62)]), np.array([1]), np.array([-1])),
        "output 'v1' that the model returns is in reversed time order|part of the batch",
    ),
    "constant output": (
        lambda m, x: [m.node("Add", m.weight(3), m.weight(3)), fc(m, x)],
        "output 'v0' .* does not depend on the input",
    ),
    "one step without state": (
        lambda m, x: m.node(
            "GRU",
            m.node("Unsqueeze", m.node("Gather", x, np.array(-1), axis=1), np.array([0])),
            m.weight(1, 3 * H, I),
            m.weight(1, 3 * H, H),
            n=2,
        )[0],
        "GRU 'GRU_2': it runs for a single time step|reads a value of a whole sequence|one row",
    ),
    "steps and ends": (
        lambda m, x: [fc(m, x), m.node("Gather", fc(m, x), np.array(-1), axis=1)],
        "values of every time step and values of the whole sequence .*choose with outputs=",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name):
    make, message = REFUSALS[name]
    m = Model(*BTF)
    result = make(m, m.x)
    with pytest.raises(ExportError, match=f"(?s){message}"):
        from_model(m.build(result if isinstance(result, list) else [result]))


def test_refusals_of_states():
    m = Model(*TBF)
    Y, _ = m.gru(m.x, h0=m.gru(m.x)[1])
    with pytest.raises(ExportError, match="GRU 'GRU_1': the initial state of a GRU is computed from the input"):
        from_model(m.build(m.flat(Y)))
    m = Model(*TBF)
    Y, _ = m.gru(m.x, h0=m.weight(1, 3, H))
    with pytest.raises(ExportError, match=r"GRU 'GRU_0': .* is a constant that differs along the batch axis"):
        from_model(m.build(m.flat(Y)))
    m = Model(*TBF)
    h = m.input("h", [1, "b", H])
    Y, _ = m.gru(m.x, h0=h)
    with pytest.raises(ExportError, match=r"the input 'h', of shape .* is used in the computation"):
        from_model(m.build(m.flat(Y), fc(m, h, O, H)))
    m = Model(*TBF)
    h = m.input("h", [1, "b", H])
    with pytest.raises(ExportError, match="GRU 'GRU_1': two GRUs start from the same state"):
        from_model(m.build(m.node("Add", m.gru(m.x, h0=h)[0], m.gru(m.x, h0=h)[0])))
    m = Model("b", I)
    Y, _ = m.gru(m.node("Unsqueeze", m.x, np.array([0])), h0=m.input("h", [1, "b", H]))
    with pytest.raises(
        ExportError, match=r"takes one time step and a state .* but returns no new state with the same axes"
    ):
        from_model(m.build(m.node("Relu", m.node("Squeeze", Y, np.array([0, 1])))))


def test_refusals_of_lengths():
    m = Model(*TBF)
    n = m.input("n", ["b"], TensorProto.INT32)
    Y, _ = m.gru(m.x, lengths=n)
    Y, _ = m.gru(m.flat(Y), inputs=H)
    with pytest.raises(ExportError, match="GRU 'GRU_0' takes the lengths of the sequences, but GRU 'GRU_2' does not"):
        from_model(m.build(m.flat(Y)))
    m = Model(*TBF)
    Y, _ = m.gru(m.x, lengths=m.input("n", ["b"], TensorProto.INT32))
    with pytest.raises(
        ExportError, match=r"takes the lengths .*, but 'Gather_2' reads the end of the time axis whatever they are"
    ):
        from_model(m.build(m.node("Gather", m.flat(Y), np.array(-1), axis=0)))
    m = Model(*TBF)
    Y, _ = m.gru(m.x, lengths=m.node("Add", m.input("n", ["b"], TensorProto.INT32), np.array(1, np.int32)))
    with pytest.raises(ExportError, match=r"the model has the inputs 'x' float\[t, b, 6\] and 'n' int\[b\]"):
        from_model(m.build(m.flat(Y)))
    m = Model("t", 2, I)
    Y, _ = m.gru(m.x, lengths=np.array([3, 4], np.int32))
    with pytest.raises(
        ExportError, match=r"sequence_lens is a constant, \[3, 4\]; lengths are given when the model runs"
    ):
        from_model(m.build(m.flat(Y)))


def test_refusals_of_inputs():
    m = Model(*BTF)
    with pytest.raises(ExportError, match=r"the model has the inputs 'x' float\[b, t, 6\] and 'c' float\[b, 6\]"):
        from_model(m.build(m.node("Add", m.x, m.input("c", ["b", I]))))
    m = Model("b", I)
    with pytest.raises(
        ExportError, match="which of the inputs of a model of one time step is the state is not certain"
    ):
        from_model(m.build(m.node("Add", m.x, m.input("c", ["b", I]))))
    m = Model("b", "t", "f")
    with pytest.raises(ExportError, match=r"the axes of the input 'x' float\[b, t, f\] are not understood"):
        from_model(m.build(m.node("Relu", m.x)))
    m = Model()
    with pytest.raises(ExportError, match="no output of the model depends on an input"):
        from_model(m.build(m.node("Relu", m.weight(3))))
    m = Model(*BTF, kind=TensorProto.BOOL)
    with pytest.raises(ExportError, match="input 'x' is neither a tensor of floats nor one of integers"):
        from_model(m.build(m.node("Cast", m.x, to=1)))
    m = Model(*BTF)
    model = m.build(m.node("Relu", m.x))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ExportError, match="input 'x' has no shape"):
        from_model(model)


def test_refusals_of_tokens():
    for make, message in (
        (lambda m, x: m.node("Add", m.node("Gather", m.weight(V, I), x), m.node("Gather", m.weight(V + 1, I), x)),
         "Gather 'Gather_1': the tokens 'x' are read with vocabularies of 13 and of 14"),
        (lambda m, x: m.node("Gather", m.weight(V, I), m.node("Add", x, np.array(1))), "Add 'Add_0': tokens are used as numbers"),
        (lambda m, x: m.node("Cast", x, to=1), "Cast 'Cast_0': tokens are converted to float32"),
        (lambda m, x: m.node("Gather", m.weight(V, I), x, axis=1), "rows of a table are looked up along another axis"),
        (lambda m, x: m.node("OneHot", x, np.array(V), np.array([0, 1], np.float32), axis=0), "along another axis than the last"),
    ):  # fmt: skip
        m = Model("b", "t", kind=INT64)
        with pytest.raises(ExportError, match=message):
            from_model(m.build(make(m, m.x)))


def test_what_the_specification_does_not_allow():
    for make, message in (
        (lambda m, x: m.node("Div", x, np.float32(0)), "Div 'Div_0': it divides by zero"),
        (
            lambda m, x: m.node("Transpose", x, perm=[0, 1, 5]),
            "Transpose 'Transpose_0': it is not as the specification says: IndexError",
        ),
        (lambda m, x: m.node("Squeeze", x, np.array([4])), r"Squeeze 'Squeeze_0': axis 4 of \[.*\] does not exist"),
        (
            lambda m, x: m.node("Relu", m.node("Greater", x, np.float32(1))),
            "Relu 'Relu_1': a comparison is used for something else",
        ),
        (
            lambda m, x: m.node("MatMul", x, m.constant(np.full((I, O), np.nan))),
            "the model has no network: W must be finite",
        ),
        (
            lambda m, x: m.node("MatMul", x, m.weight(I + 1, O)),
            r"MatMul 'MatMul_0': a matrix of 7 columns multiplies \[batch, time",
        ),
        (
            lambda m, x: m.node("Gemm", m.node("Reshape", x, np.array([-1, I])), m.weight(I, O), m.weight(3)),
            "Gemm 'Gemm_1': ",
        ),
    ):
        m = Model(*BTF)
        with pytest.raises(ExportError, match=message):
            from_model(m.build(make(m, m.x)))


def test_what_is_no_model(tmp_path):
    with pytest.raises(TypeError, match=r"model must be a path, bytes or an onnx\.ModelProto, got GraphProto"):
        from_model(onnx.GraphProto())
    with pytest.raises(ExportError, match="this is not an ONNX model, or it has no operations"):
        from_model(onnx.ModelProto())
    with pytest.raises(ExportError, match="the bytes cannot be read as an ONNX model"):
        from_model(b"\x89GRU nonsense")
    (tmp_path / "m.onnx").write_text("not a model")
    with pytest.raises(ExportError, match=r"m\.onnx cannot be read as an ONNX model"):
        from_model(tmp_path / "m.onnx")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        from_model(tmp_path / "nowhere.onnx")


def test_sparse_weights():
    m = Model(*BTF)
    model = m.build(m.node("MatMul", m.x, m.constant(np.eye(I))))
    dense = model.graph.initializer.pop()
    values = numpy_helper.from_array(np.ones(I, np.float32), dense.name)
    places = numpy_helper.from_array(np.arange(I) * (I + 1), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [I, I]))
    with pytest.raises(ExportError, match=f"initializer '{dense.name}' is sparse; it must be dense"):
        from_model(model)


def test_a_model_that_needs_its_sizes():
    def make(m, x):
        time = m.node("Cast", m.node("Gather", m.node("Shape", x), np.array(1)), to=1)
        return m.node("Mul", x, m.node("Div", m.constant(1.0), time))

    with pytest.raises(ExportError, match=r"model and float64 reference: difference .*; at most 1e-06 is accepted"):
        steps(make)
