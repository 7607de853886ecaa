# SPDX-License-Identifier: Apache-2.0
"""Arrays of Flax, Haiku, TensorFlow 1 and Keras, against the equations of their layers in float64, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

import gru_engine as ge
from gru_engine.export import chain, flax, haiku, tf1
from gru_engine.export.arrays import build, flatten, from_arrays
from gru_engine.export.common import ExportError

from .helpers import sigmoid

DATA = Path(__file__).parent / "data"
I, H, T, B = 3, 4, 6, 2


def relu(a):
    return np.maximum(a, 0)


@pytest.fixture
def draw():
    random = np.random.default_rng(8)
    return lambda *shape: random.normal(0, 0.6, shape)


@pytest.fixture
def x():
    return np.random.default_rng(9).standard_normal((B, T, I))


def run(step, x, hidden, reverse=False):
    """A cell over a sequence, from zeros."""
    h, rows = np.zeros((len(x), hidden)), []
    order = range(x.shape[1])[:: -1 if reverse else 1]
    for t in order:
        h = step(x[:, t], h)
        rows.append(h)
    return np.stack(rows[:: -1 if reverse else 1], axis=1)


def check(net, x, expected):
    """Reference and engine, against float64 done by hand."""
    np.testing.assert_allclose(ge.reference.run(net, x), expected, rtol=0, atol=1e-12)
    got = ge.load(net.tobytes()).run(x.astype(np.float32) if x.dtype.kind == "f" else x)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


# ---- Flax


def linen_cell(draw, inputs=I, hidden=H, gates="rzn", bias="n"):
    cell = {f"i{g}": {"kernel": draw(inputs, hidden), "bias": draw(hidden)} for g in gates}
    cell |= {f"h{g}": {"kernel": draw(hidden, hidden)} for g in gates}
    for g in bias:
        cell[f"h{g}"]["bias"] = draw(hidden)
    return cell


def linen_gru(cell, x, h, g=np.tanh, s=sigmoid):
    dense = lambda name, v: v @ cell[name]["kernel"] + cell[name].get("bias", 0)  # noqa: E731
    r, z = s(dense("ir", x) + dense("hr", h)), s(dense("iz", x) + dense("hz", h))
    return (1 - z) * g(dense("in", x) + r * dense("hn", h)) + z * h


def linen_mgu(cell, x, h):
    dense = lambda name, v: v @ cell[name]["kernel"] + cell[name].get("bias", 0)  # noqa: E731
    f = sigmoid(dense("if", x) + dense("hf", h))
    gated = dense("hn", h) * (f if "bias" in cell["hn"] else 1)
    return (1 - f) * np.tanh(dense("in", x) + gated) + f * h


def test_linen(draw, x):
    cell, head = linen_cell(draw), {"kernel": draw(H, 2), "bias": draw(2)}
    expected = run(lambda a, h: linen_gru(cell, a, h), x, H)
    check(flax.from_params({"params": {"rnn": {"cell": cell}}}), x, expected)
    net = flax.from_params({"params": {"rnn": {"cell": cell}, "head": head}}, "gru(rnn/cell) relu linear(head)")
    check(net, x, relu(expected) @ head["kernel"] + head["bias"])


def test_linen_activations(draw, x):
    cell = linen_cell(draw)
    net = flax.from_params({"c": cell}, "gru(c, activation=relu, gate_activation=hard_sigmoid:0.25:0.5)")
    s = lambda a: np.clip(0.25 * a + 0.5, 0, 1)  # noqa: E731
    check(net, x, run(lambda a, h: linen_gru(cell, a, h, relu, s), x, H))


@pytest.mark.parametrize("reset_gate", [True, False])
def test_linen_mgu(draw, x, reset_gate):
    cell = linen_cell(draw, gates="fn", bias="n" if reset_gate else "")
    net = flax.from_params({"params": {"cell": cell}})
    check(net, x, run(lambda a, h: linen_mgu(cell, a, h), x, H))
    assert net.layers[-1].reset == ("after" if reset_gate else "none")


def test_linen_collections(draw, x):
    norm = {"scale": draw(H), "bias": draw(H)}
    stats = {"mean": draw(H), "var": draw(H) ** 2 + 0.1}
    cell = linen_cell(draw)
    net = flax.from_params(
        {"params": {"cell": cell, "norm": norm}, "batch_stats": {"norm": stats}}, "gru(cell) batchnorm(norm)"
    )
    y = run(lambda a, h: linen_gru(cell, a, h), x, H)
    check(net, x, (y - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * norm["scale"] + norm["bias"])
    with pytest.raises(ExportError, match="the collections 'cache' are not supported"):
        flax.from_params({"params": {"cell": cell}, "cache": {"a": draw(2)}})
    flat = flatten({"params": {"cell": cell, "norm": norm}, "batch_stats": {"norm": stats}}, separator="/")
    assert flax.from_params(flat, "gru(cell) batchnorm(norm)").same(net)


@pytest.mark.parametrize(("words", "reverse"), [("flip gru(c) flip", True), ("flip flip gru(c)", False)])
def test_flip(draw, x, words, reverse):
    cell = linen_cell(draw)
    check(flax.from_params({"c": cell}, words), x, run(lambda a, h: linen_gru(cell, a, h), x, H, reverse))


def test_flip_without_keep_order(draw, x):
    """The last output in reversed order is the value at the first step; all of them in that order are no network."""
    cell, other = linen_cell(draw), linen_cell(draw, H)
    y = run(lambda a, h: linen_gru(cell, a, h), x, H, reverse=True)
    for end in ("last", "summary"):
        check(flax.from_params({"c": cell}, f"flip gru(c) {end}"), x, y[:, 0])
    check(flax.from_params({"c": cell}, "flip gru(c) flip last"), x, y[:, -1])
    with pytest.raises(ExportError, match="in reversed order of time; end with flip, last or summary"):
        flax.from_params({"c": cell}, "flip gru(c)")
    # a second layer that reads it goes on backwards
    z = run(lambda a, h: linen_gru(other, a, h), y, H, reverse=True)
    check(flax.from_params({"c": cell, "d": other}, "flip gru(c) gru(d) last"), x, z[:, 0])


def test_bidirectional(draw, x):
    one, two = linen_cell(draw), linen_cell(draw, hidden=5)
    net = flax.from_params({"f": one, "b": two}, "bidirectional(f, b)")
    forward = run(lambda a, h: linen_gru(one, a, h), x, H)
    backward = run(lambda a, h: linen_gru(two, a, h), x, 5, reverse=True)
    check(net, x, np.concatenate([forward, backward], -1))
    net = flax.from_params({"f": one, "b": two}, "bidirectional(f, b) summary")
    check(net, x, np.concatenate([forward[:, -1], backward[:, 0]], -1))


def test_nnx(draw, x):
    cell = {"dense_i": {"kernel": draw(I, 3 * H), "bias": draw(3 * H)}, "dense_h": {"kernel": draw(H, 3 * H)}}

    def step(a, h):
        i, d = (
            np.split(v, 3, -1)
            for v in (a @ cell["dense_i"]["kernel"] + cell["dense_i"]["bias"], h @ cell["dense_h"]["kernel"])
        )
        r, z = sigmoid(i[0] + d[0]), sigmoid(i[1] + d[1])
        return (1 - z) * np.tanh(i[2] + r * d[2]) + z * h

    state = {"layers": {0: {"cell": cell, "rngs": {"count": np.zeros((), np.uint32)}}}}
    check(flax.from_params(state), x, run(step, x, H))


def test_flax_embedding(draw):
    cell, table = linen_cell(draw), draw(9, I)
    tokens = np.random.default_rng(2).integers(9, size=(B, T))
    net = flax.from_params({"params": {"embed": {"embedding": table}, "cell": cell}})
    check(net, tokens, run(lambda a, h: linen_gru(cell, a, h), table[tokens], H))


# ---- Haiku


def haiku_params(draw, inputs=I, hidden=H):
    return {"w_i": draw(inputs, 3 * hidden), "w_h": draw(hidden, 3 * hidden), "b": draw(3 * hidden)}


def haiku_gru(p, x, h):
    n = h.shape[-1]
    zr = sigmoid(x @ p["w_i"][:, : 2 * n] + h @ p["w_h"][:, : 2 * n] + p["b"][: 2 * n])
    z, r = np.split(zr, 2, -1)
    a = np.tanh(x @ p["w_i"][:, 2 * n :] + (r * h) @ p["w_h"][:, 2 * n :] + p["b"][2 * n :])
    return (1 - z) * h + z * a


def test_haiku(draw, x):
    one, two, head = haiku_params(draw), haiku_params(draw, H, 5), {"w": draw(5, 2), "b": draw(2)}
    params = {"model/~/gru": one, "model/~/gru_1": two, "model/~/linear": head}
    y = run(lambda a, h: haiku_gru(one, a, h), x, H)
    y = run(lambda a, h: haiku_gru(two, a, h), y, 5) @ head["w"] + head["b"]
    check(haiku.from_params(params), x, y)
    check(haiku.from_params(params, "gru(model/~/gru) gru(model/~/gru_1) linear(model/~/linear)"), x, y)


def test_haiku_skip_connections(draw, x):
    """gru_10 comes behind gru_2."""
    one, two, three = haiku_params(draw), haiku_params(draw, I + H, 5), haiku_params(draw, I + 5, 2)
    params = {"gru_10": three, "gru": one, "gru_2": two}
    a = run(lambda v, h: haiku_gru(one, v, h), x, H)
    b = run(lambda v, h: haiku_gru(two, v, h), np.concatenate([x, a], -1), 5)
    c = run(lambda v, h: haiku_gru(three, v, h), np.concatenate([x, b], -1), 2)
    y = np.concatenate([a, b, c], -1)
    check(haiku.from_params(params, skip_connections=True), x, y)
    check(haiku.from_params(params, "skip_connections(gru, gru_2, gru_10)"), x, y)
    head = {"w": draw(H + 5 + 2, 2), "b": draw(2)}
    net = haiku.from_params(params | {"linear": head}, "linear(linear)", skip_connections=True)
    check(net, x, y @ head["w"] + head["b"])
    with pytest.raises(ExportError, match="skip connections need at least two GRUs, there are: gru"):
        haiku.from_params({"gru": one}, skip_connections=True)
    with pytest.raises(ExportError, match="gru_10 reads 8 numbers, but gets 7"):
        haiku.from_params(params, "skip_connections(gru, gru_10, gru_2)")


def test_haiku_lstm_is_named(draw):
    with pytest.raises(ExportError, match=r"w_h has the shape \[4, 16\], expected \[H, 3\*H\]; this is an LSTM"):
        haiku.from_params({"lstm": {"w_i": draw(3, 16), "w_h": draw(4, 16), "b": draw(16)}})


# ---- TensorFlow 1


def tf1_cell(draw, name, inputs=I, hidden=H):
    shapes = {"gates/kernel": (inputs + hidden, 2 * hidden), "gates/bias": (2 * hidden,)}
    shapes |= {"candidate/kernel": (inputs + hidden, hidden), "candidate/bias": (hidden,)}
    return {f"{name}/{key}": draw(*shape) for key, shape in shapes.items()}


def tf1_gru(v, name, x, h, g=np.tanh):
    ru = sigmoid(np.concatenate([x, h], -1) @ v[f"{name}/gates/kernel"] + v[f"{name}/gates/bias"])
    r, u = np.split(ru, 2, -1)
    c = g(np.concatenate([x, r * h], -1) @ v[f"{name}/candidate/kernel"] + v[f"{name}/candidate/bias"])
    return u * h + (1 - u) * c


def test_tf1_stack_of_eleven(draw, x):
    """cell_10 is the eleventh, not the second."""
    names = [f"rnn/multi_rnn_cell/cell_{i}/gru_cell" for i in range(11)]
    v = {}
    for i, name in enumerate(names):
        v |= tf1_cell(draw, name, I if i == 0 else H)
    v = dict(sorted(v.items()))
    y = x
    for name in names:
        y = run(lambda a, h, name=name: tf1_gru(v, name, a, h), y, H)
    dense = {"dense/kernel": draw(H, 2), "dense/bias": draw(2)}
    training = {f"{name}/Adam": array for name, array in v.items()} | {
        "beta1_power": np.ones(()),
        "global_step": np.int64(7),
    }
    net = tf1.from_variables(training | v | dense)
    check(net, x, y @ dense["dense/kernel"] + dense["dense/bias"])
    assert len(net.layers) == 13


@pytest.mark.parametrize(
    ("scope", "words"),
    [("stack", None), ("both", None), ("block", None), ("relu", "gru(relu/rnn/gru_cell, activation=relu)")],
)
def test_what_tensorflow_computes(scope, words):
    """The cells themselves, run by TensorFlow (tests/data/make_tf1_golden.py)."""
    with np.load(DATA / "tf1.npz") as file:
        start = f"variables/{scope}/"
        variables = {name.removeprefix("variables/"): file[name] for name in file.files if name.startswith(start)}
        net = tf1.from_variables(variables, words)
        np.testing.assert_allclose(ge.reference.run(net, file["x"]), file[f"outputs/{scope}"], rtol=0, atol=1e-6)
    assert {layer.operation for layer in net.layers} >= {"input", "gru"}


def test_tf1_bidirectional(draw, x):
    v = tf1_cell(draw, "birnn/fw/gru_cell") | tf1_cell(draw, "birnn/bw/gru_cell")
    forward = run(lambda a, h: tf1_gru(v, "birnn/fw/gru_cell", a, h), x, H)
    backward = run(lambda a, h: tf1_gru(v, "birnn/bw/gru_cell", a, h), x, H, reverse=True)
    check(tf1.from_variables(v), x, np.concatenate([forward, backward], -1))
    check(tf1.from_variables(v, "gru(birnn) summary"), x, np.concatenate([forward[:, -1], backward[:, 0]], -1))


def test_tf1_bidirectional_stacks(draw, x):
    """Each direction is a stack of its own, which the directions of an nn.GRU are not."""
    names = [f"rnn/{d}/multi_rnn_cell/cell_{i}/gru_cell" for d in ("fw", "bw") for i in (0, 1)]
    v = {}
    for name in names:
        v |= tf1_cell(draw, name, I if "cell_0" in name else H)
    ys = []
    for direction in ("fw", "bw"):
        y = x
        for name in names:
            if f"/{direction}/" in name:
                y = run(lambda a, h, name=name: tf1_gru(v, name, a, h), y, H, direction == "bw")
        ys.append(y)
    net = tf1.from_variables(v, "bidirectional(rnn/fw/multi_rnn_cell, rnn/bw/multi_rnn_cell)")
    check(net, x, np.concatenate(ys, -1))


def test_tf1_names_before_1_2_and_activation(draw, x):
    v = tf1_cell(draw, "c")
    old = {name.replace("kernel", "weights").replace("bias", "biases"): array for name, array in v.items()}
    check(tf1.from_variables(old, "gru(c, activation=relu)"), x, run(lambda a, h: tf1_gru(v, "c", a, h, relu), x, H))


def test_tf1_shapes(draw):
    v = tf1_cell(draw, "c")
    v["c/candidate/kernel"] = draw(I + H + 1, H)
    with pytest.raises(
        ExportError, match=r"'c.gates.kernel' \[7, 8\] and 'c.candidate.kernel' \[8, 4\] do not fit together"
    ):
        tf1.from_variables(v)
    with pytest.raises(ExportError, match=r"no array 'c\.candidate\.bias'"):
        tf1.from_variables({k: a for k, a in tf1_cell(draw, "c").items() if k != "c/candidate/bias"})


# ---- Keras


def keras_gru(p, x, h, reset_after):
    n = h.shape[-1]
    b = np.reshape(p["bias"], (-1, 3 * n))
    i = x @ p["kernel"] + b[0]
    U = p["recurrent_kernel"]
    d = h @ U + (b[1] if reset_after else 0)
    z, r = sigmoid(i[:, :n] + d[:, :n]), sigmoid(i[:, n : 2 * n] + d[:, n : 2 * n])
    gated = r * d[:, 2 * n :] if reset_after else (r * h) @ U[:, 2 * n :]
    return z * h + (1 - z) * np.tanh(i[:, 2 * n :] + gated)


@pytest.mark.parametrize("reset_after", [True, False])
def test_keras_arrays(draw, x, reset_after):
    p = {"kernel": draw(I, 3 * H), "recurrent_kernel": draw(H, 3 * H), "bias": draw(*[2] * reset_after, 3 * H)}
    check(from_arrays({"gru": p}), x, run(lambda a, h: keras_gru(p, a, h, reset_after), x, H))
    bare = {name: p[name] for name in ("kernel", "recurrent_kernel")}
    with pytest.raises(
        ExportError, match="without biases nothing tells reset_after=True from False; say it with reset=after"
    ):
        from_arrays({"gru": bare})
    p["bias"] = np.zeros_like(p["bias"])
    net = from_arrays({"gru": bare}, f"gru(gru, reset={'after' if reset_after else 'before'})")
    check(net, x, run(lambda a, h: keras_gru(p, a, h, reset_after), x, H))


def test_keras_arrays_of_other_shapes(draw):
    p = {"kernel": draw(I, 3 * H), "recurrent_kernel": draw(H, 3 * H)}
    with pytest.raises(ExportError, match="a bias of 24 numbers is a CuDNNGRU's"):
        from_arrays({"gru": p | {"bias": draw(6 * H)}})
    with pytest.raises(ExportError, match=r"bias has the shape \[2, 8\], expected \[2, 12\] \(reset_after\) or \[12\]"):
        from_arrays({"gru": p | {"bias": draw(2, 2 * H)}})
    with pytest.raises(ExportError, match=r"a bias of shape \[12\] is one of reset=before"):
        from_arrays({"gru": p | {"bias": draw(3 * H)}}, "gru(gru, reset=after)")
    with pytest.raises(ExportError, match=r"recurrent_kernel has the shape \[4, 16\], expected \[H, 3\*H\]"):
        from_arrays({"lstm": {"kernel": draw(I, 16), "recurrent_kernel": draw(H, 16), "bias": draw(16)}})


@pytest.mark.parametrize(
    ("names", "eps"),
    [
        (("gamma", "beta", "moving_mean", "moving_variance"), 1e-3),  # Keras
        (("scale", "bias", "mean", "var"), 1e-5),  # Flax
        (("weight", "bias", "running_mean", "running_var"), 1e-5),  # PyTorch
    ],
)
def test_batch_normalisation_and_its_eps(draw, x, names, eps):
    """Small variances show which eps was taken where none is said."""
    p = dict(zip(names, (draw(I), draw(I), draw(I), draw(I) ** 2 * eps)))
    scale, shift, mean, variance = p.values()
    normalised = lambda eps: (x - mean) / np.sqrt(variance + eps) * scale + shift  # noqa: E731
    net = from_arrays({"n": p}, "batchnorm(n)")
    np.testing.assert_allclose(ge.reference.run(net, x), normalised(eps), rtol=1e-12)
    net = from_arrays({"n": p}, "batchnorm(n, eps=0.5)")
    np.testing.assert_allclose(ge.reference.run(net, x), normalised(0.5), rtol=1e-12)
    bare = {names[2]: mean, names[3]: variance}
    net = from_arrays({"n": bare}, "batchnorm(n)")
    np.testing.assert_allclose(ge.reference.run(net, x), (x - mean) / np.sqrt(variance + eps), rtol=1e-12)


# ---- arrays named one by one


def test_named_arrays(draw, x):
    W, U, b, y = draw(3 * H, I), draw(3 * H, H), draw(3 * H), draw(2, H)
    expected = ge.Network()
    h = expected.gru(expected.input(I), W, U, b, gates="zrn", reset="all", keep="new", clip=0.9, activation="softsign")
    expected.output(expected.dense(h, y))
    said = "gates=zrn, reset=all, keep=new, clip=0.9, activation=softsign"
    net = from_arrays({"a": W, "b": U, "c": b, "d": y}, f"gru(W=a, U=b, b_x=c, {said}) linear(W=d)")
    assert net.same(expected)
    words = f"gru(W=a, U=b, b_x=c, orientation=columns, {said}) linear(W=d, orientation=columns)"
    net = from_arrays({"a": W.T, "b": U.T, "c": b, "d": y.T}, words)
    assert net.same(expected)
    net = from_arrays(
        {"a": np.concatenate([U, W], 1), "c": b, "d": y}, f"gru(W=a, b_x=c, concatenated=hx, {said}) linear(W=d)"
    )
    assert net.same(expected)
    net = from_arrays({"g": {"W": W, "U": U, "b_x": b}, "d": {"W": y}}, f"gru(g, {said}) linear(d)")
    assert net.same(expected)


def test_one_matrix_for_two_gates(draw, x):
    W, U, b = ({g: draw(*shape) for g in "zn"} for shape in ((H, I), (H, H), (H,)))
    arrays = {f"{kind}{g}": a[g] for kind, a in (("W", W), ("U", U), ("b", b)) for g in "zn"}
    words = "gru(W_r=Wz, U_r=Uz, b_r=bz, W_z=Wz, U_z=Uz, b_z=bz, W_n=Wn, U_n=Un, b_n=bn, reset=before)"

    def step(a, h):
        z = sigmoid(a @ W["z"].T + h @ U["z"].T + b["z"])
        return z * h + (1 - z) * np.tanh(a @ W["n"].T + (z * h) @ U["n"].T + b["n"])

    check(from_arrays(arrays, words), x, run(step, x, H))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("gru(W=a, U=b, gates=zrx)", "gates must be a permutation of 'rzn'"),
        ("gru(W=a, U=b, reset=never)", "reset must be one of 'after'"),
        ("gru(W=a, U=b, keep=both)", "keep must be 'old' or 'new'"),
        ("gru(W=a, U=q)", "no array 'q'"),
        ("gru(W=a, U=b, b_x=q)", "no array 'q'"),
        ("gru(W=a, U=b, orientation=up)", "orientation of .* must be rows or columns, got 'up'"),
        ("gru(W=a, U=b, concatenated=xx)", "concatenated of .* must be xh or hx, got 'xx'"),
        ("gru(W=b, concatenated=xh)", r"'b' \[12, 4\] has no room for input and state side by side"),
        ("gru(W=a, U=b, clip=often)", "clip of .* must be a number"),
        ("gru(W=a, U=b, activation=glu)", "activation 'glu' is not known"),
        ("gru(W=a, U=b, activation=elu:x)", "the parameters of activation of .* must be numbers"),
        ("gru(W=a, U=b, reset_gate=z)", "a GRU of named arrays has no choice of reset_gate"),
        ("gru(W=a, U=b, color=red)", "gru has no option 'color'"),
        ("gru(W_r=a, W_z=a)", r"does not name U_r"),
        ("gru(W=a, U=b) linear(b=c)", "b is for a matrix that is named by W"),
        ("gru(W=a, U=b) linear(W=e, b=c)", "a bias of 12 numbers for 2 outputs"),
        ("gru(W=a, U=b) add_input", r"add_input: 3 of 3 inputs cannot be added to a value of 4 numbers"),
        ("bidirectional(a)", "must name two modules"),
        ("skip_connections(a)", "must name at least two modules"),
        ("flip", "flip cannot be the first word"),
    ],
)
def test_wrong_words(draw, words, message):
    arrays = {"a": draw(3 * H, I), "b": draw(3 * H, H), "c": draw(3 * H), "e": draw(2, H)}
    with pytest.raises(ValueError, match=message):
        build(arrays, words, ignore_unused=True)


@pytest.mark.parametrize(
    ("option", "layout"), [("activation=relu", "nn.GRU of PyTorch"), ("gates=zrn", "nn.GRU of PyTorch")]
)
def test_a_framework_without_the_choice(draw, option, layout):
    arrays = {"gru.weight_ih_l0": draw(3 * H, I), "gru.weight_hh_l0": draw(3 * H, H)}
    with pytest.raises(ExportError, match=f"a {layout} has no choice of {option.partition('=')[0]}"):
        from_arrays(arrays, f"gru(gru, {option})")


def test_prelu(draw, x):
    arrays = {"fc.weight": draw(H, I), "act.weight": draw(H)}
    y = x @ arrays["fc.weight"].T
    check(from_arrays(arrays, "linear(fc) prelu(act)"), x, np.where(y > 0, y, arrays["act.weight"] * y))
    arrays["act.weight"] = np.float32([0.25])
    check(from_arrays(arrays, "linear(fc) prelu(act)"), x, np.where(y > 0, y, 0.25 * y))


def test_add_input(draw, x):
    arrays = {"fc.weight": draw(I, I)}
    check(from_arrays(arrays, "linear(fc) add_input"), x, x @ arrays["fc.weight"].T + x)
    arrays = {"fc.weight": draw(1, I)}
    check(from_arrays(arrays, "linear(fc) tanh add_input(1)"), x, np.tanh(x @ arrays["fc.weight"].T) + x[..., :1])
    with pytest.raises(ExportError, match="needs vectors as input"):
        from_arrays({"fc.weight": draw(2, I), "E.weight": draw(5, I)}, "embedding(E) linear(fc) add_input")


# ---- dictionaries


def test_flatten():
    bfloat16 = np.dtype([("raw", "V2")])
    arrays = flatten({"a": {"b/c:0": [1.0, 2.0], 3: np.float16(2)}, "none": None})
    assert list(arrays) == ["a.b.c", "a.3"]
    assert arrays["a.b.c"].tolist() == [1, 2]
    with pytest.raises(TypeError, match="arrays must be a mapping of names to arrays, got list"):
        flatten([1])
    with pytest.raises(TypeError, match=r"the names of arrays must be strings, got \(1, 2\) below 'a'"):
        flatten({"a": {(1, 2): 3}})
    with pytest.raises(TypeError, match=r"'a\.b' must be an array of real numbers, got str of dtype"):
        flatten({"a": {"b": "text"}})
    with pytest.raises(TypeError, match="'a' must be an array of real numbers"):
        flatten({"a": np.zeros(2, bfloat16)})
    with pytest.raises(ExportError, match=r"two arrays are named 'a.b'"):
        flatten({"a": {"b": 1.0}, "a/b": 2.0})


def test_arrays_that_are_left_over_are_refused(draw):
    cell = linen_cell(draw)
    with pytest.raises(ExportError, match=r"the chain gru\(c\) does not use d.kernel; leave out"):
        flax.from_params({"c": cell, "d": {"kernel": draw(H, H)}}, "gru(c)")
    assert build({"c": cell, "d": {"kernel": draw(H, H)}}, "gru(c)", ignore_unused=True).unused == ["d.kernel"]


def test_a_choice_is_shown(draw):
    """Two layers of one size can stand either way round."""
    with pytest.raises(ExportError, match=r'--layers "gru\(a\) gru\(b\)"\n  --layers "gru\(b\) gru\(a\)"'):
        haiku.from_params({"a": haiku_params(draw, H), "b": haiku_params(draw, H)})


def test_words_are_written_as_they_are_read():
    text = "flip gru(a, activation=hard_sigmoid:0.2:0.5) flip bidirectional(b, c) skip_connections(d, e) prelu(f) add_input(1)"
    assert " ".join(map(str, chain.parse(text))) == text
