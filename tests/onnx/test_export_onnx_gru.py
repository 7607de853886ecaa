# SPDX-License-Identifier: Apache-2.0
"""ONNX's operator GRU with all of its attributes: against ONNX Runtime, onnx's own test cases, and in float64."""

import itertools
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx_models import BTF, TBF, H, I, Model, check

import gru_engine as ge
from gru_engine.export.common import ExportError
from gru_engine.export.onnx import from_model, trace

DIRECTIONS = ["forward", "reverse", "bidirectional"]
BOUNDED = ["Sigmoid", "Tanh", "HardSigmoid", "Softsign", "ScaledTanh"]
PARAMETERS = {
    "Affine": (0.6, 0.1), "LeakyRelu": (0.2,), "ThresholdedRelu": (0.3,), "ScaledTanh": (1.3, 0.7), "HardSigmoid": (0.3, 0.4),
    "Elu": (0.8,),
}  # fmt: skip
WITHOUT_DEFAULTS = ["Affine", "ScaledTanh", "ThresholdedRelu"]
ACTIVATIONS = ["Sigmoid", "Tanh", "Relu", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu",
               "Softsign", "Softplus"]  # fmt: skip


def lists(names):
    """alpha and beta for functions, in the order in which they are taken."""
    values = [PARAMETERS.get(name, ()) for name in names]
    alpha, beta = [v[0] for v in values if v], [v[1] for v in values if len(v) > 1]
    return {"activations": list(names)} | {f"activation_{k}": v for k, v in (("alpha", alpha), ("beta", beta)) if v}


def model(direction="forward", lengths=False, h0=False, opset=17, layout=0, **attributes):
    D = 2 if direction == "bidirectional" else 1
    m = Model(*(BTF if layout else TBF), opset=opset)
    given = {}
    if lengths:
        given["lengths"] = m.input("n", ["b"], TensorProto.INT32)
    if h0:
        given["h0"] = m.input("h", ["b", D, H] if layout else [D, "b", H])
    if layout:
        attributes["layout"] = layout
    return m.build(m.gru(m.x, direction=direction, **given, **attributes))


# ---- attributes, against ONNX Runtime

COMBINATIONS = list(itertools.product(DIRECTIONS, [0, 1], [None, 0.3], [True, False], [False, True], [False, True]))


@pytest.mark.parametrize(("direction", "lbr", "clip", "bias", "lengths", "h0"), COMBINATIONS)
def test_attributes(direction, lbr, clip, bias, lengths, h0):
    attributes = {} if clip is None else {"clip": clip}
    traced = check(model(direction, lengths, h0, bias=bias, linear_before_reset=lbr, **attributes))
    D = 2 if direction == "bidirectional" else 1
    assert traced.network.state_size == D * H
    assert list(traced.network.outputs) == ["v0a"]
    assert traced.takes_state == h0
    assert traced.takes_lengths == lengths
    gru = traced.network.layers[1]
    assert (gru.reset, gru.clip) == ("after" if lbr else "before", None if clip is None else float(np.float32(clip)))


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("lbr", [0, 1])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, lbr, given):
    for names in (["Sigmoid", name], [name, "Tanh"]):
        attributes = lists(names) if given else {"activations": names}
        if not given and name in WITHOUT_DEFAULTS:
            with pytest.raises(ExportError, match=f"{name!r} needs activation_alpha.*; runtimes do not agree"):
                from_model(model(**attributes))
            continue
        clip = {} if {*names} <= {*BOUNDED} else {"clip": 0.9}  # gates beyond 1 let the state grow without limit
        check(model(linear_before_reset=lbr, **attributes, **clip), tolerance=2e-5)


@pytest.mark.parametrize("seed", range(12))
def test_activations_of_both_directions(seed):
    random = np.random.default_rng(seed)
    gates = ["Sigmoid", "HardSigmoid"]  # gates below 0 let rounding errors grow
    names = [str(random.choice(BOUNDED if k % 2 else gates)) for k in range(4)]
    names = [n.upper() if k == seed % 4 else n.lower() if k == seed % 3 else n for k, n in enumerate(names)]
    proper = {n.lower(): n for n in ACTIVATIONS}
    attributes = {**lists([proper[n.lower()] for n in names]), "activations": names}
    traced = check(model("bidirectional", bool(seed % 2), linear_before_reset=seed // 2 % 2, **attributes))
    own = [layer for layer in traced.network.layers if layer.operation == "gru"]
    for gru, pair in zip(own, (names[:2], names[2:])):
        assert [gru.gate_activation.name.replace("_", ""), gru.activation.name.replace("_", "")] == [
            n.lower() for n in pair
        ]


@pytest.mark.parametrize("opset", [7, 13, 14, 17, 21, 22])
def test_operator_sets(opset):
    check(model("bidirectional", True, True, opset=opset, linear_before_reset=1), runtime="ONNX Runtime")


@pytest.mark.parametrize("opset", [1, 3])
def test_first_operator_sets(opset):
    attributes = {"output_sequence": 1} | ({"linear_before_reset": 1} if opset == 3 else {})
    check(model("reverse", opset=opset, **attributes), runtime=None)


@pytest.mark.parametrize(
    ("direction", "lengths", "h0"), list(itertools.product(DIRECTIONS, [False, True], [False, True]))
)
def test_batch_first(direction, lengths, h0):
    # ONNX Runtime does not implement layout=1; onnx's evaluator does, in float64.
    check(model(direction, lengths, h0, layout=1), runtime="onnx in float64")


def test_alpha_and_beta_of_every_function():
    # Some write a value for every function, also for those that take none.
    both = {"activations": ["HardSigmoid", "Affine"], "activation_alpha": [0.25, 1.0], "activation_beta": [0.5, 0.0]}
    check(model(**both))
    same = {"activations": ["Sigmoid", "LeakyRelu"], "activation_alpha": [0.1, 0.1], "clip": 0.9}
    check(model(**same))
    other = {"activations": ["Sigmoid", "LeakyRelu"], "activation_alpha": [0.0, 0.1]}
    with pytest.raises(
        ExportError, match=r"GRU 'GRU_0': activation_alpha has 2 values for 1 functions .*Sigmoid, LeakyRelu"
    ):
        from_model(model(**other))
    net = from_model(model(activations=["HardSigmoid", "LeakyRelu"], activation_alpha=[0.3]))
    assert net.layers[1].gate_activation.parameters == (pytest.approx(0.3), 0.5)
    assert net.layers[1].activation.parameters == (0.01,)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_types_of_weights(dtype):
    wide = model("bidirectional")
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for tensor in wide.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for info in (*wide.graph.input, *wide.graph.output):
        info.type.tensor_type.elem_type = kind
    net = check(wide, runtime="onnx in float64").network
    W = numpy_helper.to_array(wide.graph.initializer[0])
    z, r, n = np.split(W[0], 3)
    assert net.layers[1].W.dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_array_equal(net.layers[1].W, np.concatenate([r, z, n]).astype(net.layers[1].W.dtype))


# ---- onnx's own cases

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it makes the cases of all operators
    CASES = {case.name: case for case in collect_testcases("GRU")}


def test_there_are_cases():
    assert {"test_gru_defaults", "test_gru_seq_length", "test_gru_with_initial_bias", "test_gru_batchwise"} <= set(
        CASES
    )


@pytest.mark.parametrize("name", sorted(CASES))
def test_cases_of_onnx(name):
    """Weights are inputs there; time and batch are opened, because a network of one step without its state is refused."""
    case = CASES[name]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    inputs, expected = case.data_sets[0]
    values = dict(zip((i.name for i in model.graph.input), inputs))
    x = values.pop("X")
    for info in list(model.graph.input):
        if info.name in values:
            model.graph.input.remove(info)
    model.graph.initializer.extend(numpy_helper.from_array(value, n) for n, value in values.items())
    for axis, letter in enumerate("tb"):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = letter
    traced = trace(model)
    batch_first = dict(a for a in ((a.name, a.i) for a in model.graph.node[0].attribute)).get("layout", 0)
    x = x if batch_first else x.swapaxes(0, 1)
    y, after = ge.load(traced.network.tobytes()).run(np.ascontiguousarray(x), return_state=True)
    results = {n: np.asarray(e) for n, e in zip((o.name for o in model.graph.output), expected)}
    for number, output in enumerate(model.graph.output):
        value = traced.outputs.get(number)
        got = value.unpack(results[output.name], {"B": x.shape[0], "T": x.shape[1], "R": x.shape[1]}) if value else None
        if got is not None:
            np.testing.assert_allclose(y, got, rtol=0, atol=1e-6)
        if number in traced.finals:
            axes, places = traced.finals[number]
            got = axes.unpack(results[output.name], {"B": x.shape[0], "T": 1, "R": 1})
            np.testing.assert_allclose(after[:, places], got, rtol=0, atol=1e-6)


# ---- what does not fit


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"direction": "backward"}, "direction must be 'forward', 'reverse' or 'bidirectional', got 'backward'"),
        ({"hidden_size": 7}, r"hidden_size is 7, but R has the shape \[1, 15, 5\]"),
        ({"clip": 0.0}, "clip must be positive, got 0"),
        ({"activations": ["Sigmoid"]}, "activations must name 2 functions, got Sigmoid"),
        ({"activations": ["Sigmoid", "Cosine"]}, "the activation 'Cosine' is not supported; supported are affine"),
        ({"activations": ["Sigmoid", "Softmax"]}, "the activation 'Softmax' is not supported"),
        ({"activation_alpha": [0.1]}, "activation_alpha has 1 values for 0 functions that take one"),
    ],
)
def test_attributes_that_do_not_fit(attributes, message):
    with pytest.raises(ExportError, match=f"^GRU 'GRU_0': {message}"):
        from_model(model(**attributes))


def test_shapes_that_do_not_fit():
    for shapes, message in (
        ([(1, 3 * H, I), (1, 3 * H, H + 1)], r"W \[1, 15, 6\] and R \[1, 15, 6\] must have the shapes \[1, 3\*H, I\]"),
        ([(2, 3 * H, I), (2, 3 * H, H)], r"W \[2, 15, 6\] and R .* must have the shapes \[1, 3\*H, I\] .*\(forward\)"),
        ([(1, 3 * H, I), (1, 3 * H, H), (1, 3 * H)], r"B must have the shape \[1, 30\], got \[1, 15\]"),
        ([(1, 3 * H, I + 1), (1, 3 * H, H)], r"W has 7 columns, but its input is \[time, batch, 6 features\]"),
    ):
        m = Model(*TBF)
        Y, _ = m.node("GRU", m.x, *(m.weight(*shape) for shape in shapes), n=2)
        with pytest.raises(ExportError, match=f"GRU 'GRU_0': {message}"):
            from_model(m.build(Y))


def test_weights_that_are_computed_from_the_input():
    m = Model(*TBF)
    Y, _ = m.node("GRU", m.x, m.weight(1, 3 * H, I), m.node("Relu", m.x), n=2)
    with pytest.raises(ExportError, match="GRU 'GRU_1': R is computed from the input; it must be a constant"):
        from_model(m.build(Y))
    m = Model(*TBF)
    Y, _ = m.node("GRU", m.x, m.weight(1, 3 * H, I), "", n=2, name="")
    with pytest.raises(ExportError, match="GRU -> 'v0a': R is missing"):
        from_model(m.build(Y))
