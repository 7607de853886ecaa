# SPDX-License-Identifier: Apache-2.0
"""ONNX operators over time and over all features: convolution, normalisation, pooling, attention, compared with ONNX Runtime."""

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import BTF, TBF, H, I, Model, O, fc, steps

from gru_engine.export.common import ExportError
from gru_engine.export.onnx import from_model

BFT = ["b", I, "t"]
SWAP = [0, 2, 1]


def kinds(traced):
    return [type(layer).__name__ for layer in traced.network.layers]


def swapped(m, x):
    return m.node("Transpose", x, perm=SWAP)


def conv(m, x, outputs=O, kernel=3, inputs=I, bias=True, **attributes):
    """Over [batch, channels, time], for a value [batch, time, channels]."""
    W = m.weight(outputs, inputs // attributes.get("group", 1), kernel)
    return m.node("Conv", x, W, *([m.weight(outputs)] if bias else []), **attributes)


# ---- convolution


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("attributes", "ahead"),
    [
        ({"pads": [2, 0]}, 0),
        ({"pads": [1, 1]}, 1),
        ({"pads": [0, 2]}, 2),
        ({"pads": [6, 0], "dilations": [3]}, 0),
        ({"auto_pad": "SAME_UPPER", "kernel": 4}, 2),
        ({"auto_pad": "SAME_LOWER", "kernel": 4}, 1),
        ({"auto_pad": "SAME_UPPER", "kernel": 5}, 2),
        ({"pads": [2, 0], "group": 2}, 0),
        ({"pads": [2, 0], "group": I, "outputs": I}, 0),
        ({"kernel": 1}, 0),
        ({"kernel": 1, "auto_pad": "VALID", "strides": [1]}, 0),
    ],
)
def test_convolution(attributes, ahead, bias):
    traced = steps(lambda m, x: swapped(m, conv(m, swapped(m, x), bias=bias, **attributes)))
    windows = [layer for layer in traced.network.layers if type(layer).__name__ == "Window"]
    assert {window.ahead for window in windows} <= {ahead}
    assert traced.network.causal == (ahead == 0)


def test_channels_before_time():
    steps(lambda m, x: conv(m, x, pads=[2, 0]), *BFT)


def test_zeros_of_their_own_and_parts_cut_off():
    pads = np.array([0, 0, 2, 0, 0, 0])
    steps(lambda m, x: swapped(m, conv(m, m.node("Pad", swapped(m, x), pads))))
    steps(
        lambda m, x: swapped(m, conv(m, m.node("Pad", swapped(m, x), np.array([2, 0]), 0.0, np.array([2])))), opset=18
    )
    steps(lambda m, x: swapped(m, conv(m, m.node("Pad", swapped(m, x), pads=[0, 0, 2, 0, 0, 0]))), opset=10)

    def cut(m, x):
        y = conv(m, swapped(m, x), pads=[2, 2])
        return swapped(m, m.node("Slice", y, np.array([0]), np.array([-2]), np.array([2])))

    traced = steps(cut)
    assert traced.network.causal and kinds(traced) == ["Input", "Window", "Dense"]


def test_two_dimensional():
    """As tf2onnx writes a Conv1D: with an axis of size 1 that is put in and taken out."""

    def make(m, x):
        y = m.node("Unsqueeze", swapped(m, x), np.array([2]))
        y = m.node("Conv", y, m.weight(O, I, 1, 3), m.weight(O), pads=[0, 2, 0, 0])
        return swapped(m, m.node("Squeeze", y, np.array([2])))

    assert steps(make).network.causal


def test_before_a_gru_with_batch_normalisation():
    def make(m, x):
        y = conv(m, swapped(m, x), outputs=H, pads=[2, 0])
        y = m.node("BatchNormalization", y, *(m.weight(H) for _ in "123"), m.constant(np.linspace(0.5, 2, H)))
        y = m.node("Transpose", m.node("Relu", y), perm=[2, 0, 1])
        return m.flat(m.gru(y, inputs=H)[0])

    traced = steps(make)
    assert kinds(traced) == ["Input", "Window", "Dense", "Gru"]


def test_reversed_time():
    def make(m, x):
        flip = [np.array([-1]), np.array([-(2**60)]), np.array([2]), np.array([-1])]
        y = conv(m, m.node("Slice", swapped(m, x), *flip), pads=[2, 0])
        return swapped(m, m.node("Slice", y, *flip))

    assert not steps(make).network.causal


REFUSED = {
    "more": (lambda m, x: m.node("Relu", conv(m, x, pads=[2, 2])), r"makes 2 steps more .*\(in 'Relu_"),
    "mode": (lambda m, x: conv(m, m.node("Pad", x, np.array([0, 0, 2, 0, 0, 0]), mode="edge")), "the mode 'edge'"),
    "value": (
        lambda m, x: conv(m, m.node("Pad", x, np.array([0, 0, 2, 0, 0, 0]), 1.0)),
        "padding with 1 is not supported",
    ),
    "transposed": (lambda m, x: m.node("ConvTranspose", x, m.weight(I, O, 3)), "ConvTranspose .* is not supported"),
    "kernel": (lambda m, x: m.node("Conv", x, m.node("Relu", x)), "Conv .*: the kernel is computed from the input"),
    "instance": (lambda m, x: m.node("InstanceNormalization", x, m.weight(I), m.weight(I)), "InstanceNormalization"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    make, message = REFUSED[name]
    m = Model(*TBF)
    h = m.node("Transpose", m.flat(m.gru(m.x, hidden=I)[0]), perm=[1, 2, 0])  # a GRU tells which axis is the time
    with pytest.raises(ExportError, match=message.replace("_1'", "_3'").replace("_2'", "_4'")):
        from_model(m.build(make(m, h)))


@pytest.mark.parametrize("op", ["Conv", "ReduceMean", "ReduceMax"])
def test_what_reads_behind_the_end_of_a_sequence(op):
    """Where the lengths are an input, the model reads its padding, and the network does not."""
    m = Model(*TBF)
    Y, _ = m.gru(m.x, lengths=m.input("n", ["b"], TensorProto.INT32))
    h = m.node("Transpose", m.flat(Y), perm=[1, 2, 0])
    y = conv(m, h, inputs=H, pads=[1, 1]) if op == "Conv" else m.node("ReduceMean", h, axes=[2], name="pool")
    with pytest.raises(ExportError, match=r"'(Conv_3|pool)' reads the steps behind a sequence's end too"):
        from_model(m.build(y))


# ---- normalisation


@pytest.mark.parametrize("attributes", [{}, {"axis": 2, "epsilon": 0.01}])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_normalization(attributes, bias):
    traced = steps(lambda m, x: m.node("LayerNormalization", x, m.weight(I), *[m.weight(I)] * bias, **attributes))
    assert kinds(traced) == ["Input", "Norm"]


def test_layer_normalization_over_two_axes():
    def make(m, x):
        y = m.node("Reshape", x, np.array([0, 0, 2, 3]))
        y = m.node("LayerNormalization", y, m.weight(2, 3), m.weight(2, 3), axis=-2)
        return m.node("Reshape", y, np.array([0, 0, 6]))

    assert "Norm" in kinds(steps(make))


def written(m, x, how, axis=-1):
    """Layer normalisation as exporters wrote it before there was an operator."""
    mean = m.node("ReduceMean", x, axes=[axis])
    d = m.node("Sub", x, mean)
    if how == "keras":
        d2 = m.node("Sub", x, mean)
        variance = m.node("ReduceMean", m.node("Mul", d2, d2), axes=[axis])
    else:
        variance = m.node("ReduceMean", m.node("Pow", d, 2.0), axes=[axis])
    deviation = m.node("Add", variance, 1e-3)
    deviation = m.node("Pow", deviation, 0.5) if how == "pow" else m.node("Sqrt", deviation)
    if how == "reciprocal":
        y = m.node("Mul", d, m.node("Reciprocal", deviation))
    elif how == "one over":
        y = m.node("Mul", d, m.node("Div", 1.0, deviation))
    else:
        y = m.node("Div", d, deviation)
    return m.node("Add", m.node("Mul", y, m.weight(I)), m.weight(I))


@pytest.mark.parametrize("how", ["sqrt", "keras", "pow", "reciprocal", "one over"])
def test_layer_normalisation_written_out(how):
    assert kinds(steps(lambda m, x: written(m, x, how))) == ["Input", "Norm"]


def test_root_mean_square_written_out():
    def make(m, x):
        power = m.node("Add", m.node("ReduceMean", m.node("Pow", x, 2.0), axes=[-1]), 1e-6)
        return m.node("Mul", m.node("Div", x, m.node("Sqrt", power)), m.weight(I))

    assert kinds(steps(make)) == ["Input", "Norm"]


def test_normalisation_written_out_that_is_another():
    """The deviation of one value does not normalise another."""
    m = Model(*BTF)
    y = fc(m, m.x, I)
    d = m.node("Sub", m.x, m.node("ReduceMean", y, axes=[-1]))
    root = m.node("Sqrt", m.node("ReduceMean", m.node("Mul", y, y), axes=[-1]))
    with pytest.raises(ExportError, match=r"Div .*: a division by a value that depends on the input"):
        from_model(m.build(m.node("Div", d, root)))
    m = Model(*BTF)
    with pytest.raises(
        ExportError, match=r"Sqrt .*: a square root is supported only as a part of a layer normalisation"
    ):
        from_model(m.build(m.node("Sqrt", m.x)))


# ---- one value per sequence


def after_gru(function):
    def make(m, x):
        return function(m, m.node("Transpose", m.flat(m.gru(x)[0]), perm=[1, 0, 2]))

    return make


@pytest.mark.parametrize("function", [
    lambda m, h: m.node("ReduceMean", h, axes=[1], keepdims=0),
    lambda m, h: m.node("ReduceMax", h, axes=[1], keepdims=0),
    lambda m, h: m.node("Squeeze", m.node("GlobalAveragePool", swapped(m, h)), np.array([2])),
    lambda m, h: m.node("Squeeze", m.node("GlobalMaxPool", swapped(m, h)), np.array([2])),
    lambda m, h: m.node("Concat", *(m.node(f"Reduce{how}", h, axes=[1], keepdims=0) for how in ("Max", "Mean")), axis=1),
])  # fmt: skip
def test_pooling(function):
    assert steps(after_gru(function), *TBF).network.per_sequence


ATTENTION = {
    "matmul": lambda m, h, w: m.node("Squeeze", m.node("MatMul", swapped(m, w), h), np.array([1])),
    "matmul from the left": lambda m, h, w: m.node("Squeeze", m.node("MatMul", swapped(m, h), w), np.array([2])),
    "sum": lambda m, h, w: m.node("ReduceSum", m.node("Mul", h, w), np.array([1]), keepdims=0),
    "einsum": lambda m, h, w: m.node("Squeeze", m.node("Einsum", h, w, equation="bth,btk->bkh"), np.array([1])),
}


@pytest.mark.parametrize("opset", [17, 12])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_pooling(name, opset):
    if opset < 13 and name != "matmul from the left":
        name = "matmul from the left"

    def attend(m, h):
        scores = fc(m, m.node("Tanh", fc(m, h, 8, H)), 1, 8)
        if opset < 13:
            weights = m.node("Softmax", scores, axis=1)  # over all axes from this one on
            y = m.node("MatMul", swapped(m, h), weights)
            return m.node("Squeeze", y, axes=[2])
        return ATTENTION[name](m, h, m.node("Softmax", scores, axis=1))

    def make(m, x):
        Y = m.gru(x)[0]
        Y = m.node("Squeeze", Y, axes=[1]) if opset < 13 else m.flat(Y)
        return attend(m, m.node("Transpose", Y, perm=[1, 0, 2]))

    traced = steps(make, *TBF, opset=opset)
    assert "Attend" in kinds(traced) and traced.network.per_sequence


@pytest.mark.parametrize(("function", "message"), [
    (lambda m, h: m.node("Softmax", h, axis=1), "a softmax over time is supported as the weights"),
    (lambda m, h: m.node("ReduceSum", h, np.array([1])), "ReduceSum .*: a sum over time is supported for values"),
    (lambda m, h: m.node("ReduceMax", h, axes=[2]), "ReduceMax .*: a maximum over the 5 features axis"),
    (lambda m, h: m.node("ReduceMin", h, axes=[1]), "ReduceMin .*: this operator is not supported"),
])  # fmt: skip
def test_pooling_refused(function, message):
    m = Model(*TBF)
    with pytest.raises(ExportError, match=message):
        from_model(m.build(after_gru(function)(m, m.x)))


# ---- functions


def test_exp_and_clip():
    traced = steps(lambda m, x: m.node("Exp", m.node("Clip", fc(m, x), -0.75, 1.5)))
    assert [str(layer.activation) for layer in traced.network.layers[1:]] == ["clip(-0.75, 1.5)", "exp"]
    traced = steps(lambda m, x: m.node("Min", m.node("Max", fc(m, x), -2000.0), 0.25))
    assert len(traced.network.layers) == 3


# ---- other time axes


@pytest.mark.parametrize(
    "make",
    [
        lambda m, x: conv(m, x, pads=[1, 1], strides=[2]),
        lambda m, x: conv(m, x),
        lambda m, x: m.node("MaxPool", conv(m, x), kernel_shape=[2], strides=[2]),
        lambda m, x: m.node("AveragePool", conv(m, x, pads=[1, 1]), kernel_shape=[3], strides=[1]),
    ],
)
def test_fewer_steps(make):
    steps(lambda m, x: swapped(m, make(m, swapped(m, x))))


def test_a_value_of_the_sequence_at_each_step():
    steps(after_gru(lambda m, h: m.node("Sub", h, m.node("ReduceMean", h, axes=[1]))), *TBF)
