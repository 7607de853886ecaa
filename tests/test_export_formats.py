# SPDX-License-Identifier: Apache-2.0
"""GRU4Rec's parameters and RTNeural's JSON, against their equations in float64, and what is refused."""

import copy
import json

import numpy as np
import pytest

import gru_engine as ge
from gru_engine.export import gru4rec, rtneural
from gru_engine.export.common import ExportError

from .helpers import sigmoid

ITEMS = 9


@pytest.fixture
def draw():
    random = np.random.default_rng(31)
    return lambda *shape: random.normal(0, 0.5, shape)


def check(net, x, expected):
    np.testing.assert_allclose(ge.reference.run(net, x), expected, rtol=0, atol=1e-12)
    got = ge.load(net.tobytes()).run(x.astype(np.float32) if x.dtype.kind == "f" else x)
    np.testing.assert_allclose(got, expected, rtol=0, atol=3e-6)


# ---- GRU4Rec

TOKENS = np.random.default_rng(30).integers(ITEMS, size=(3, 6))


def theano(draw, layers, inputs, embedding=None):
    p = {"Wy": draw(ITEMS, layers[-1]), "By": draw(ITEMS, 1)}
    if embedding is not None:
        p["E"] = draw(ITEMS, embedding)
    for i, (width, hidden) in enumerate(zip([inputs, *layers], layers)):
        p |= {f"Wx{i}": draw(width, 3 * hidden), f"Wrz{i}": draw(hidden, 2 * hidden), f"Wh{i}": draw(hidden, hidden)}
        p[f"Bh{i}"] = draw(3 * hidden)
    return p


def theano_scores(p, y, layers, act=np.tanh):
    """What the class computes, step by step; y are the vectors that items are turned into."""
    for i, n in enumerate(layers):
        h, rows = np.zeros((len(y), n)), []
        for t in range(y.shape[1]):
            vec = y[:, t] @ p[f"Wx{i}"] + p[f"Bh{i}"]
            rz = sigmoid(vec[:, n:] + h @ p[f"Wrz{i}"])
            r, z = rz[:, :n], rz[:, n:]
            new = act((h * r) @ p[f"Wh{i}"] + vec[:, :n])
            h = (1 - z) * h + z * new
            rows.append(h)
        y = np.stack(rows, 1)
    return y @ p["Wy"].T + p["By"].ravel()


def test_theano_constrained_embedding(draw):
    p = theano(draw, [4], 4)
    check(gru4rec.from_parameters(p), TOKENS, theano_scores(p, p["Wy"][TOKENS], [4]))


def test_theano_embedding_of_its_own_and_two_layers(draw):
    p = theano(draw, [5, 4], 3, embedding=3)
    check(gru4rec.from_parameters(p), TOKENS, theano_scores(p, p["E"][TOKENS], [5, 4]))


def test_theano_one_row_for_each_item(draw):
    p = theano(draw, [4], ITEMS)
    net = gru4rec.from_parameters(p)
    check(net, TOKENS, theano_scores(p, np.eye(ITEMS)[TOKENS], [4]))
    assert [layer.operation for layer in net.layers] == ["tokens", "gru", "dense"]


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("linear", lambda a: a),
        ("relu", lambda a: np.maximum(a, 0)),
        ("leaky-0.3", lambda a: np.where(a >= 0, a, 0.3 * a)),
        ("elu-0.5", lambda a: np.where(a >= 0, a, 0.5 * np.expm1(a))),
    ],
)
def test_theano_hidden_activation(draw, name, function):
    p = theano(draw, [4], 4)
    check(gru4rec.from_parameters(p, hidden_act=name), TOKENS, theano_scores(p, p["Wy"][TOKENS], [4], function))


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("softmax", softmax),
        ("softmax_logit", softmax),
        ("tanh", np.tanh),
        ("elu-0.5", lambda a: np.where(a >= 0, a, 0.5 * np.expm1(a))),
        ("selu-1.5-0.7", lambda a: 1.5 * np.where(a >= 0, a, 0.7 * np.expm1(a))),
    ],
)
def test_final_activation(draw, name, function):
    p = theano(draw, [4], 4)
    check(gru4rec.from_parameters(p, final_act=name), TOKENS, function(theano_scores(p, p["Wy"][TOKENS], [4])))


def test_theano_constrained_or_not_where_shapes_do_not_say(draw):
    p = theano(draw, [ITEMS], ITEMS)
    with pytest.raises(ExportError, match=r"as many items as units \(9\); say constrained_embedding"):
        gru4rec.from_parameters(p)
    check(gru4rec.from_parameters(p, constrained_embedding=True), TOKENS, theano_scores(p, p["Wy"][TOKENS], [ITEMS]))
    one_hot = gru4rec.from_parameters(p, constrained_embedding=False)
    check(one_hot, TOKENS, theano_scores(p, np.eye(ITEMS)[TOKENS], [ITEMS]))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"Wy": None}, {}, "expected one array Wy or Wy.weight"),
        ({"By": None}, {}, "there is no array 'By'"),
        ({"Wx0": None}, {}, "there is no array Wx0"),
        ({"Wrz0": None}, {}, "there is no array 'Wrz0'"),
        (
            {"Wh0": np.zeros((4, 5))},
            {},
            r"Wh \[4, 5\] do not fit together, expected \[I, 3\*H\], \[H, 2\*H\] and \[H, H\]",
        ),
        ({"Wx0": np.zeros((5, 12))}, {}, "the first layer reads 5 numbers, which does not fit one row for each item"),
        ({"more": np.zeros(3)}, {}, "does not use more"),
        (
            {},
            {"hidden_act": "selu-1-2"},
            r"hidden_act is 'selu-1-2' \(a scaled elu, which a GRU of the engine does not have\)",
        ),
        ({}, {"hidden_act": "gelu"}, "hidden_act is 'gelu'; expected tanh, relu"),
        ({}, {"hidden_act": "elu"}, "hidden_act is 'elu'"),
        ({}, {"final_act": "elu-x"}, "final_act is 'elu-x'"),
        ({"E": np.zeros((ITEMS, 4))}, {"constrained_embedding": True}, "there is an embedding E of its own"),
    ],
)
def test_theano_refusals(draw, change, options, message):
    p = theano(draw, [4], 4) | change
    with pytest.raises(ExportError, match=message):
        gru4rec.from_parameters({name: array for name, array in p.items() if array is not None}, **options)


def torch_cell_step(p, name, x, h):
    """An nn.GRUCell."""
    i, d = (np.split(v @ p[f"{name}.weight_{k}"].T + p[f"{name}.bias_{k}"], 3, -1) for v, k in ((x, "ih"), (h, "hh")))
    r, z = sigmoid(i[0] + d[0]), sigmoid(i[1] + d[1])
    return (1 - z) * np.tanh(i[2] + r * d[2]) + z * h


def torch_cell(draw, name, inputs, hidden):
    shapes = {
        "weight_ih": (3 * hidden, inputs),
        "weight_hh": (3 * hidden, hidden),
        "bias_ih": (3 * hidden,),
        "bias_hh": (3 * hidden,),
    }
    return {f"{name}.{key}": draw(*shape) for key, shape in shapes.items()}


def over_time(step, y, hidden):
    h, rows = np.zeros((len(y), hidden)), []
    for t in range(y.shape[1]):
        h = step(y[:, t], h)
        rows.append(h)
    return np.stack(rows, 1)


@pytest.mark.parametrize("embedding", [None, 3])
@pytest.mark.parametrize("stem", ["", "model."])
def test_torch_version_with_an_embedding(draw, embedding, stem):
    """Its layers are nn.GRUCell: another GRU than the Theano version's."""
    p = {"Wy.weight": draw(ITEMS, 4), "By.weight": draw(ITEMS, 1)}
    p |= torch_cell(draw, "G.0", embedding or 4, 5) | torch_cell(draw, "G.1", 5, 4)
    if embedding:
        p["E.weight"] = draw(ITEMS, embedding)
    y = p["E.weight" if embedding else "Wy.weight"][TOKENS]
    y = over_time(lambda x, h: torch_cell_step(p, "G.0", x, h), y, 5)
    y = over_time(lambda x, h: torch_cell_step(p, "G.1", x, h), y, 4)
    net = gru4rec.from_parameters({stem + name: array for name, array in p.items()})
    check(net, TOKENS, y @ p["Wy.weight"].T + p["By.weight"].ravel())
    with pytest.raises(ExportError, match="the PyTorch version of GRU4Rec has tanh alone"):
        gru4rec.from_parameters(p, hidden_act="relu")


@pytest.mark.parametrize("reset", ["before", "after"])
def test_torch_version_without_an_embedding(draw, reset):
    """The class GRUEmbedding: reset gate before the matrix; in its first version behind it, with one matrix Wh0."""
    n = 4
    Wx, Wh, Bh, Wrz = draw(ITEMS, 3 * n), draw(n, n), draw(3 * n), draw(n, 2 * n)
    p = {"GE.Wx0.weight": Wx, "GE.Bh0": Bh, "Wy.weight": draw(ITEMS, 5), "By.weight": draw(ITEMS, 1)}
    p |= {"GE.Wrz0": Wrz, "GE.Wh0": Wh} if reset == "before" else {"GE.Wh0": np.concatenate([Wh, Wrz], 1)}
    p |= torch_cell(draw, "G.0", n, 5)

    def first(vector, h):
        x_h, x_r, x_z = np.split(vector + Bh, 3, -1)
        h_r, h_z = np.split(h @ Wrz, 2, -1)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        new = np.tanh(((r * h) @ Wh if reset == "before" else r * (h @ Wh)) + x_h)
        return (1 - z) * h + z * new

    y = over_time(first, Wx[TOKENS], n)
    y = over_time(lambda x, h: torch_cell_step(p, "G.0", x, h), y, 5)
    check(gru4rec.from_parameters(p), TOKENS, y @ p["Wy.weight"].T + p["By.weight"].ravel())


# ---- RTNeural


@pytest.fixture
def model(draw):
    """Dense 2 -> 3 tanh, PReLU, GRU 3 -> 4, batch normalisation, dense 4 -> 1."""
    layers = [
        {
            "type": "time-distributed-dense",
            "activation": "tanh",
            "shape": [None, None, 3],
            "weights": [draw(2, 3), draw(3)],
        },
        {"type": "prelu", "activation": "", "shape": [None, None, 3], "weights": [draw(1, 3)]},
        {
            "type": "gru",
            "activation": "tanh",
            "shape": [None, None, 4],
            "weights": [draw(3, 12), draw(4, 12), draw(2, 12)],
        },
        {
            "type": "batchnorm",
            "epsilon": 0.01,
            "shape": [None, None, 4],
            "weights": [draw(4), draw(4), draw(4), draw(4) ** 2],
        },
        {"type": "activation", "activation": "elu", "shape": [None, None, 4], "weights": []},
        {"type": "dense", "activation": "", "shape": [None, None, 1], "weights": [draw(4, 1), draw(1)]},
    ]
    return {"in_shape": [None, None, 2], "layers": layers}


def plain(model):
    """As json.load gives it."""
    return json.loads(json.dumps(model, default=lambda array: array.tolist()))


def run_layers(model, x):
    y = x
    for layer in model["layers"]:
        w = layer["weights"]
        if "dense" in layer["type"]:
            y = y @ w[0] + w[1]
            y = np.tanh(y) if layer["activation"] == "tanh" else y
        elif layer["type"] == "prelu":
            y = np.where(y > 0, y, w[0][0] * y)
        elif layer["type"] == "batchnorm":
            y = w[0] * (y - w[2]) / np.sqrt(w[3] + layer["epsilon"]) + w[1]
        elif layer["type"] == "activation":
            y = np.where(y >= 0, y, np.expm1(y))
        else:
            n = layer["shape"][-1]

            def step(v, h, w=w, n=n):
                i, d = np.split(v @ w[0] + w[2][0], 3, -1), np.split(h @ w[1] + w[2][1], 3, -1)
                z, r = sigmoid(i[0] + d[0]), sigmoid(i[1] + d[1])
                return (1 - z) * np.tanh(i[2] + r * d[2]) + z * h

            y = over_time(step, y, n)
    return y


def test_rtneural_layers(model, tmp_path):
    x = np.random.default_rng(33).standard_normal((2, 7, 2))
    expected = run_layers(model, x)
    check(rtneural.from_json(plain(model)), x, expected)
    (tmp_path / "model.json").write_text(json.dumps(plain(model)))
    check(rtneural.from_json(tmp_path / "model.json"), x, expected)


def test_rtneural_batchnorm_without_scale_and_shift(model):
    x = np.random.default_rng(33).standard_normal((2, 7, 2))
    layer = model["layers"][3]
    layer["weights"] = [np.ones(4), np.zeros(4), *layer["weights"][2:]]
    expected = run_layers(model, x)
    layer["weights"] = layer["weights"][2:]
    check(rtneural.from_json(plain(model)), x, expected)


def test_rtneural_prelu_with_one_slope(model):
    x = np.random.default_rng(33).standard_normal((2, 7, 2))
    model["layers"][1]["weights"] = [np.full((1, 1), 0.3)]
    expected = run_layers(model, x)
    check(rtneural.from_json(plain(model)), x, expected)


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (0, {"activation": "gelu"}, "layer 0, time-distributed-dense: the activation 'gelu' is not known; known are tanh, relu"),
        (2, {"activation": "relu"}, "layer 2, gru: the activation 'relu'; RTNeural computes tanh whatever it says"),
        (2, {"type": "lstm"}, "layer 2, lstm: an LSTM, which the exporter does not have"),
        (2, {"type": "conv1d"}, "layer 2, conv1d: a convolution over time, which the exporter does not have"),
        (2, {"type": "unknown"}, "layer 2, unknown is not known"),
        (2, {"type": None}, "layer 2, None is not known"),
        (2, {"shape": [None, 5]}, r"the weights have the shapes \[\[3, 12\], \[4, 12\], \[2, 12\]\], expected \[\[3, 15\]"),
        (2, {"shape": None}, "layer 2, gru: shape must be a list"),
        (2, {"weights": None}, "layer 2, gru: weights must be a list, got NoneType"),
        (2, {"weights": [[1, 2], [[1], [2, 3]], 3]}, r"layer 2, gru: weights\[1\] is no array of numbers"),
        (2, {"weights": ["x"]}, r"weights\[0\] is no array of numbers"),
        (3, {"epsilon": None}, "layer 3, batchnorm: expected 2 or 4 arrays and a number epsilon"),
        (3, {"weights": [[1.0]]}, "layer 3, batchnorm: expected 2 or 4 arrays"),
        (1, {"weights": [[[1.0, 2.0]]]}, r"layer 1, prelu: the weights have the shapes \[\[1, 2\]\], expected \[\[1, 3\]\]"),
    ],
)  # fmt: skip
def test_rtneural_refusals(model, number, change, message):
    content = plain(model)
    content["layers"][number] |= change
    with pytest.raises(ExportError, match=message):
        rtneural.from_json(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_shape": 3}, "in_shape must be a list that ends with the number of inputs, got 3"),
        ({"in_shape": [None]}, "in_shape must be a list"),
        ({"layers": []}, "layers must be a list of at least one layer"),
    ],
)
def test_rtneural_head(model, change, message):
    with pytest.raises(ExportError, match=message):
        rtneural.from_json(plain(model) | change)


def test_rtneural_file(tmp_path, model):
    path = tmp_path / "model.json"
    path.write_text("{")
    with pytest.raises(ExportError, match=r"model.json is not JSON"):
        rtneural.from_json(path)
    path.write_text("[1]")
    with pytest.raises(ExportError, match="must be a JSON object, got list"):
        rtneural.from_json(path)
    with pytest.raises(ExportError, match="the model says its layers itself"):
        rtneural.from_json(plain(model), "gru(gru)")


def amplifier(draw, inputs=1, hidden=5):
    state = {f"{name}_l0": array for name, array in torch_cell(draw, "rec", inputs, hidden).items()} | {
        "lin.weight": draw(1, hidden),
        "lin.bias": draw(1),
    }
    data = {
        "model": "SimpleRNN",
        "input_size": inputs,
        "skip": 1,
        "output_size": 1,
        "unit_type": "GRU",
        "hidden_size": hidden,
    }
    return plain({"model_data": data, "state_dict": state})


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("skip", [0, 1])
def test_amplifier(draw, inputs, skip):
    """The input sample is added to the output; further inputs are positions of knobs."""
    content = amplifier(draw, inputs)
    content["model_data"]["skip"] = skip
    p = {name.replace("_l0", ""): np.array(value) for name, value in content["state_dict"].items()}
    x = np.random.default_rng(34).standard_normal((2, 8, inputs))
    y = over_time(lambda a, h: torch_cell_step(p, "rec", a, h), x, 5) @ p["lin.weight"].T + p["lin.bias"]
    check(rtneural.from_json(content), x, y + skip * x[..., :1])


def test_amplifier_refusals(draw):
    content = amplifier(draw)
    lstm = copy.deepcopy(content)
    lstm["model_data"]["unit_type"] = "LSTM"
    with pytest.raises(ExportError, match="the model's unit_type is 'LSTM'; only GRU is supported"):
        rtneural.from_json(lstm)
    other = copy.deepcopy(content)
    other["model_data"]["model"] = "ConvRNN"
    with pytest.raises(
        ExportError, match="the model is a 'ConvRNN', only SimpleRNN is known; say its chain with --layers"
    ):
        rtneural.from_json(other)
    content["model_data"]["skip"] = 2
    with pytest.raises(ExportError, match="2 of 1 inputs cannot be added to a value of 1 numbers"):
        rtneural.from_json(content)


def test_state_dict_as_json(draw):
    content = amplifier(draw, 2)["state_dict"]
    p = {name.replace("_l0", ""): np.array(value) for name, value in content.items()}
    x = np.random.default_rng(34).standard_normal((2, 8, 2))
    y = over_time(lambda a, h: torch_cell_step(p, "rec", a, h), x, 5) @ p["lin.weight"].T + p["lin.bias"]
    check(rtneural.from_json(content), x, y)
    check(rtneural.from_json(content, "gru(rec) linear(lin) tanh"), x, np.tanh(y))
    with pytest.raises(ExportError, match=r'"gru\(rec\) linear\(lin\)"\n  --layers "linear\(lin\) gru\(rec\)"'):
        rtneural.from_json(amplifier(draw)["state_dict"])  # 1 -> 5, 5 -> 1: either may come first


def test_numbers_keep_their_precision(draw):
    """JSON has decimal numbers: float32 where they are that exactly, else float64."""
    content = amplifier(draw, 2)["state_dict"]
    assert rtneural.from_json(content).layers[1].W.dtype == np.float64
    single = {name: np.array(value, np.float32).tolist() for name, value in content.items()}
    assert rtneural.from_json(single).layers[1].W.dtype == np.float32
