# SPDX-License-Identifier: Apache-2.0
"""The words for cells of ``gru_engine.cells``, by the names of the arrays in the programs that they come from, against NumPy."""

import numpy as np
import pytest

import gru_engine as ge
from gru_engine.export.arrays import from_arrays
from gru_engine.export.common import ExportError
from gru_engine.export.words import VARIANTS, parse

from .helpers import normalised, sigmoid

I, H = 3, 4


@pytest.fixture
def draw():
    random = np.random.default_rng(31)
    return lambda *shape: random.normal(0, 0.6, shape)


def check(net, step, head=lambda h: h, x=None, hidden=H):
    """A network's outputs, and those of one step after the other."""
    x = np.random.default_rng(32).standard_normal((8, I)) if x is None else x
    h, expected = np.zeros(hidden), []
    for row in x:
        h = step(row, h)
        expected.append(head(h))
    np.testing.assert_allclose(ge.reference.run(net, x), expected, rtol=0, atol=1e-11)
    np.testing.assert_allclose(ge.load(net.tobytes()).run(x.astype(np.float32)), expected, rtol=0, atol=3e-6)


# ---- minGRU


@pytest.mark.parametrize("bias", [False, True])
def test_min_gru(draw, bias):
    p = {"rnn.to_hidden_and_gate.weight": draw(2 * H, I), "rnn.to_out.weight": draw(2, H)}
    if bias:
        p["rnn.to_hidden_and_gate.bias"] = draw(2 * H)

    def step(x, h):
        n, z = np.split(p["rnn.to_hidden_and_gate.weight"] @ x + p.get("rnn.to_hidden_and_gate.bias", 0), 2)
        return h + sigmoid(z) * (np.where(n >= 0, n + 0.5, sigmoid(n)) - h)

    check(from_arrays(p, "min_gru(rnn) linear(rnn.to_out)"), step, lambda h: p["rnn.to_out.weight"] @ h)


@pytest.mark.parametrize("names", [("linear_z", "linear_h"), ("W_z", "W_n")])
def test_plain_min_gru_with_a_matrix_for_each_gate(draw, names):
    z, n = names
    p = {f"{z}.weight": draw(H, I), f"{z}.bias": draw(H), f"{n}.weight": draw(H, I), f"{n}.bias": draw(H)}

    def step(x, h):
        open_now = sigmoid(p[f"{z}.weight"] @ x + p[f"{z}.bias"])
        return (1 - open_now) * h + open_now * (p[f"{n}.weight"] @ x + p[f"{n}.bias"])

    check(from_arrays(p, "min_gru(, activation=linear)"), step)
    bare = {"W_z": p[f"{z}.weight"].T, "b_z": p[f"{z}.bias"], "W_n": p[f"{n}.weight"].T, "b_n": p[f"{n}.bias"]}
    check(from_arrays(bare, "min_gru(, activation=linear, orientation=columns)"), step)
    with pytest.raises(ExportError, match="say orientation=rows"):
        from_arrays(bare, "min_gru(, activation=linear)")
    p[f"{n}.weight"] = draw(H, I + 1)
    with pytest.raises(ExportError, match=r"matrices of the gates zn have the shapes \[4, 3\] and \[4, 4\]"):
        from_arrays(p, "min_gru()")


# ---- haste


def haste(draw, gamma):
    p = {"cell.kernel": draw(I, 3 * H), "cell.recurrent_kernel": draw(H, 3 * H)}
    p |= {"cell.bias": draw(3 * H), "cell.recurrent_bias": draw(3 * H)}
    return p | ({"cell.gamma": draw(2, 3 * H) + 1} if gamma else {})


def haste_step(p, zoneout, epsilon=1e-5):
    def step(x, h):
        s_x, s_h = x @ p["cell.kernel"], h @ p["cell.recurrent_kernel"]
        if "cell.gamma" in p:
            s_x, s_h = (normalised(s, epsilon) * gamma for s, gamma in zip((s_x, s_h), p["cell.gamma"]))
        s_x, s_h = np.split(s_x + p["cell.bias"], 3), np.split(s_h + p["cell.recurrent_bias"], 3)
        z, r = (sigmoid(s_x[g] + s_h[g]) for g in (0, 1))
        new = z * h + (1 - z) * np.tanh(s_x[2] + r * s_h[2])
        return zoneout * h + (1 - zoneout) * new

    return step


@pytest.mark.parametrize("zoneout", [0, 0.1])
def test_haste(draw, zoneout):
    p = haste(draw, gamma=False)
    net = from_arrays(p, f"zoneout_gru(cell, zoneout={zoneout})")
    check(net, haste_step(p, zoneout))
    assert any(layer.operation == "gru" for layer in net.layers) == (zoneout == 0)  # without zoneout it is a GRU
    p = haste(draw, gamma=True)
    check(from_arrays(p, f"layer_norm_gru(cell, zoneout={zoneout})"), haste_step(p, zoneout))
    check(from_arrays(p, f"layer_norm_gru(cell, zoneout={zoneout}, epsilon=0.1)"), haste_step(p, zoneout, 0.1))


def test_zoneout_is_never_guessed(draw):
    """It is at work at inference, but no array shows it."""
    p = haste(draw, gamma=False)
    for text in (None, "gru(cell)"):
        with pytest.raises(
            ExportError, match=r"a layer of haste, whose zoneout acts .* zoneout_gru\(cell, zoneout=0.1\)"
        ):
            from_arrays(p, text)
    with pytest.raises(ExportError, match="the arrays do not say the probability"):
        from_arrays(p, "zoneout_gru(cell)")
    with pytest.raises(ExportError, match=r"zoneout must be from 0 to 1, got 1\.5"):
        from_arrays(p, "zoneout_gru(cell, zoneout=1.5)")
    with pytest.raises(ExportError, match=r"say it: layer_norm_gru\(cell\)"):
        from_arrays(haste(draw, gamma=True))


# ---- Dreamer


def test_dreamer_v2(draw):
    p = {"layers.GRU_linear.weight": draw(3 * H, I + H), "layers.GRU_norm.weight": draw(3 * H) + 1}
    p["layers.GRU_norm.bias"] = draw(3 * H)

    def step(x, h):
        s = normalised(p["layers.GRU_linear.weight"] @ np.concatenate([x, h]), 1e-3)
        r, n, z = np.split(s * p["layers.GRU_norm.weight"] + p["layers.GRU_norm.bias"], 3)
        z = sigmoid(z - 1)
        return z * np.tanh(sigmoid(r) * n) + (1 - z) * h

    check(from_arrays(p, "layer_norm_sum_gru(layers)"), step)
    named = "W=layers.GRU_linear.weight, scale=layers.GRU_norm.weight, shift=layers.GRU_norm.bias, concatenated=xh"
    assert from_arrays(p, f"layer_norm_sum_gru({named})").same(from_arrays(p, "layer_norm_sum_gru(layers)"))
    turned = {**p, "layers.GRU_linear.weight": p["layers.GRU_linear.weight"].T}
    net = from_arrays(turned, f"layer_norm_sum_gru({named}, orientation=columns)")
    np.testing.assert_array_equal(
        ge.reference.run(net, np.ones((5, I))),
        ge.reference.run(from_arrays(p, "layer_norm_sum_gru(layers)"), np.ones((5, I))),
    )


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("norm", ["rms", "layer", "none"])
def test_normalised_input(draw, blocks, norm):
    rows, columns = 3 * H // blocks, H // blocks + I
    p = {"m": draw(blocks, rows, columns), "c": draw(blocks, rows), "g": draw(H + I), "s": draw(H + I)}
    if blocks == 1:
        p["m"], p["c"] = p["m"][0], p["c"][0]
    said = {"rms": ", scale=g", "layer": ", scale=g, shift=s", "none": ""}[norm]
    used = {k: v for k, v in p.items() if k in ("m", "c") or f"={k}" in said}

    def step(x, h):
        v = np.concatenate([h, x])
        if norm == "rms":
            v = v / np.sqrt((v * v).mean() + 1e-4) * p["g"]
        elif norm == "layer":
            v = normalised(v, 1e-4) * p["g"] + p["s"]
        new = []
        for i, old in enumerate(np.split(h, blocks)):
            M, b = (p["m"], p["c"]) if blocks == 1 else (p["m"][i], p["c"][i])
            seen = np.concatenate([np.split(v[:H], blocks)[i], v[H:]])
            r, n, z = np.split(M @ seen + b, 3)
            z = sigmoid(z - 1)
            new.append(z * np.tanh(sigmoid(r) * n) + (1 - z) * old)
        return np.concatenate(new)

    check(from_arrays(used, f"norm_input_gru(W=m, b=c, norm={norm}{said})"), step)


# ---- SpeechBrain


def light(draw, inputs=I, prefix="rnn.0."):
    p = {
        "w.weight": draw(2 * H, inputs),
        "u.weight": draw(2 * H, H),
        "norm.weight": draw(2 * H),
        "norm.bias": draw(2 * H),
    }
    p |= {"norm.running_mean": draw(2 * H), "norm.running_var": draw(2 * H) ** 2 + 0.1, "h_init": np.zeros((1, H))}
    p["norm.num_batches_tracked"] = np.array(7)
    return {prefix + name: array for name, array in p.items()}


def light_step(p, prefix="rnn.0.", act=lambda a: np.maximum(a, 0)):
    def step(x, h):
        w = (p[prefix + "w.weight"] @ x - p[prefix + "norm.running_mean"]) / np.sqrt(
            p[prefix + "norm.running_var"] + 1e-5
        )
        a, z = np.split(w * p[prefix + "norm.weight"] + p[prefix + "norm.bias"] + p[prefix + "u.weight"] @ h, 2)
        return sigmoid(z) * h + (1 - sigmoid(z)) * act(a)

    return step


def test_light_gru(draw):
    p = light(draw)
    for text in (None, "gru(rnn.0)"):
        net = from_arrays(p, text)
        check(net, light_step(p))
        assert [layer.operation for layer in net.layers] == ["input", "gru"]
    check(from_arrays(p, "gru(rnn.0, activation=tanh)"), light_step(p, act=np.tanh))
    with pytest.raises(ExportError, match="h_init is not zero"):
        from_arrays(p | {"rnn.0.h_init": np.ones((1, H))})


def test_light_grus_of_two_directions_share_their_weights(draw):
    p = light(draw)
    net = from_arrays(p, "bidirectional(rnn.0, rnn.0)")
    x = np.random.default_rng(1).standard_normal((6, I))
    both = []
    for sequence in (x, x[::-1]):
        h, rows = np.zeros(H), []
        for row in sequence:
            h = light_step(p)(row, h)
            rows.append(h)
        both.append(np.array(rows))
    np.testing.assert_allclose(
        ge.reference.run(net, x), np.concatenate([both[0], both[1][::-1]], 1), rtol=0, atol=1e-12
    )


# ---- the language


def test_tokens_and_chains(draw):
    """A cell reads one-hot tokens, an embedding, another cell; it can be followed by a summary."""
    p = light(draw, prefix="a.") | {f"b.W_{g}.weight": draw(5, H + 5) for g in "ifz"}
    p |= {"emb.weight": draw(9, I), "fc.weight": draw(2, 5)}
    net = from_arrays(p, "embedding(emb) gru(a) input_forget_gru(b, concatenated=hx) summary linear(fc)")
    tokens = np.random.default_rng(3).integers(9, size=(2, 6))
    h, g = np.zeros((2, H)), np.zeros((2, 5))
    for t in range(6):
        h = np.array([light_step(p, "a.")(p["emb.weight"][tokens[i, t]], h[i]) for i in range(2)])
        v = np.concatenate([g, h], 1)
        i, f, z = (v @ p[f"b.W_{gate}.weight"].T for gate in "ifz")
        g = sigmoid(f) * g + sigmoid(i) * np.tanh(z)
    np.testing.assert_allclose(ge.reference.run(net, tokens), g @ p["fc.weight"].T, rtol=0, atol=1e-12)
    q = {f"W_{k}.weight": draw(H, H + I) for k in "ifz"}
    net = from_arrays(q, "one_hot input_forget_gru(, concatenated=hx)")
    eye = from_arrays(q, "input_forget_gru(, concatenated=hx)")
    np.testing.assert_allclose(
        ge.reference.run(net, np.array([0, 2, 1])), ge.reference.run(eye, np.eye(I)[[0, 2, 1]]), rtol=0, atol=1e-12
    )


def test_initial_state(draw):
    p = haste(draw, gamma=True) | {"start": draw(1, 1, H)}
    net = from_arrays(p, "layer_norm_gru(cell, zoneout=0.2, h0=start)")
    x = np.random.default_rng(4).standard_normal(I)
    np.testing.assert_allclose(
        ge.reference.run(net, x[None])[0], haste_step(p, 0.2)(x, p["start"].reshape(-1)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min_gru(fc)", r"there are no arrays with the names of gates below 'fc'"),
        ("layer_norm_gru(fc)", r"no arrays of such a cell below 'fc' \(fc.kernel, fc.recurrent_kernel, fc.gamma\); name them"),
        ("norm_input_gru(fc)", r"below 'fc' \(fc.linear.kernel\); name them, as in norm_input_gru\(W=NAME, ...\), of W, b,"),
        ("norm_input_gru(W=nowhere)", "the checkpoint has no array 'nowhere'"),
        ("norm_input_gru(W=fc.weight)", "must have rows for 3 gates, got 5"),
        ("layer_norm_gru(W=fc.weight)", "there is no U; where W holds it say concatenated=xh"),
        ("layer_norm_gru(W=fc.weight, concatenated=no)", "concatenated of .* must be xh or hx, got 'no'"),
        ("layer_norm_gru(W=fc.weight, concatenated=xh)", r"\[3\*H, I\+H\], got \[5, 7\]"),
        ("norm_input_gru(W=fc.weight, concatenated=xh)", "concatenated of .* is for a matrix that holds W and U"),
        ("layer_norm_gru(cell, zoneout=x)", "zoneout of .* must be a number"),
        ("min_gru(fc, zoneout=1)", "min_gru has no option 'zoneout'"),
        ("flip layer_norm_gru(cell) flip", "only a GRU can run from the end of the sequence to its start"),
        ("bidirectional(cell, cell)", "a layer of haste"),
        ("layer_norm_gru(W=cell.bias)", "'cell.bias' has the shape .* expected 2 axes"),
        ("layer_norm_gru(cell, orientation=rows)", "the names of the arrays leave no choice of orientation"),
        ("layer_norm_gru(cell, gates=rz)", "gates must be a permutation of 'rzn', got 'rz'"),
    ],
)  # fmt: skip
def test_what_is_refused(draw, text, message):
    with pytest.raises(ExportError, match=message):
        from_arrays(haste(draw, gamma=True) | {"fc.weight": draw(5, 7)}, text)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_words_have_the_arguments_of_the_functions(name):
    import inspect

    parameters = set(inspect.signature(getattr(ge.cells, name)).parameters) - {"net", "x", "name", "h0", "options"}
    more = {"gates", "reset", "keep", "activation", "gate_activation"} if name in ("zoneout_gru", "au_gru") else set()
    too_many = {"W", "b", "projection", "hidden"} if name == "dreamer_v3_gru" else set()
    assert VARIANTS[name] == (parameters | more) - too_many
    assert str(parse(f"{name}(a, h0=b)")[0]) == f"{name}(a, h0=b)"
