# SPDX-License-Identifier: Apache-2.0
"""The words for cells with a score of attention, and for the cells of SLi-GRU and DreamerV3, by their names, against NumPy."""

import numpy as np
import pytest

import gru_engine as ge
from gru_engine.__main__ import verify
from gru_engine.export import common
from gru_engine.export.arrays import build, from_arrays
from gru_engine.export.common import ExportError

from .helpers import assert_bits, normalised, sigmoid

I, H = 3, 4


def rms(a, epsilon=1e-4):
    return a / np.sqrt((a * a).mean() + epsilon)


@pytest.fixture
def draw():
    random = np.random.default_rng(41)
    return lambda *shape: random.normal(0, 0.6, shape)


def check(net, step, inputs, hidden=H, score=None, steps=8):
    """Outputs of the reference against one step after the other in NumPy, and the engine's: run and stepped, to the bit."""
    x = np.random.default_rng(42).standard_normal((steps, inputs))
    if score is not None:
        x[:, score] = np.random.default_rng(43).random(steps)
    h, expected = np.zeros(hidden), []
    for row in x:
        h = step(row, h)
        expected.append(h)
    assert net.input_size == inputs
    np.testing.assert_allclose(ge.reference.run(net, x), expected, rtol=0, atol=1e-11)
    model, x32 = ge.load(net.tobytes()), x.astype(np.float32)
    y = model.run(x32)
    np.testing.assert_allclose(y, expected, rtol=0, atol=3e-6)
    stream = model.stream()
    assert_bits(np.array([stream.step(row) for row in x32]), y, "stepped")


# ---- attention


def attentional(x, h, r, z, n, a, scales):
    """One step of AUGRU; z keeps the old state; n is a function of r."""
    kept = (1 - a) * z if scales == "old" else 1 - a * (1 - z)
    return kept * h + (1 - kept) * n(r)


@pytest.mark.parametrize(("column", "where"), [(I, "-1"), (0, "0"), (1, "1"), (I, str(I))])
@pytest.mark.parametrize("scales", ["old", "new"])
def test_augru_of_dien(draw, scales, column, where):
    """TensorFlow 1's names; the score is any column of the input."""
    p = {"rnn_2/gru2/vec_att_gru_cell/gates/kernel": draw(I + H, 2 * H)}
    p |= {"rnn_2/gru2/vec_att_gru_cell/gates/bias": draw(2 * H)}
    p |= {"rnn_2/gru2/vec_att_gru_cell/candidate/kernel": draw(I + H, H)}
    p |= {"rnn_2/gru2/vec_att_gru_cell/candidate/bias": draw(H)}
    G, g, C, c = p.values()

    def step(row, h):
        a, x = row[column], np.delete(row, column)
        r, u = np.split(sigmoid(np.concatenate([x, h]) @ G + g), 2)
        return attentional(x, h, r, u, lambda r: np.tanh(np.concatenate([x, r * h]) @ C + c), a, scales)

    words = f"au_gru(rnn_2/gru2/vec_att_gru_cell, attention={where}, scales={scales})"
    check(from_arrays(p, words.replace("/", ".")), step, I + 1, score=column)


@pytest.mark.parametrize("biases", [False, True])
def test_agru_of_dien(draw, biases):
    """The update gate's columns influence nothing."""
    p = {"cell.gates.kernel": draw(I + H, 2 * H), "cell.candidate.kernel": draw(I + H, H)}
    p |= {"cell.gates.bias": draw(2 * H) * biases, "cell.candidate.bias": draw(H) * biases}

    def step(row, h):
        x, a = row[:I], row[I]
        r = sigmoid(np.concatenate([x, h]) @ p["cell.gates.kernel"] + p["cell.gates.bias"])[:H]
        n = np.tanh(np.concatenate([x, r * h]) @ p["cell.candidate.kernel"] + p["cell.candidate.bias"])
        return (1 - a) * h + a * n

    check(from_arrays(p, "a_gru(cell, attention=-1)"), step, I + 1, score=I)
    changed = {**p, "cell.gates.kernel": p["cell.gates.kernel"].copy()}
    changed["cell.gates.kernel"][:, H:] = 7
    assert from_arrays(changed, "a_gru(cell, attention=-1)").same(from_arrays(p, "a_gru(cell, attention=-1)"))


@pytest.mark.parametrize("cell", ["au_gru", "a_gru"])
def test_cells_with_names_of_pytorch(draw, cell):
    """DeepCTR's: the reset gate behind the product, the score times the gate of the new state."""
    p = {"rnn.weight_ih": draw(3 * H, I), "rnn.weight_hh": draw(3 * H, H), "rnn.bias_ih": draw(3 * H)}
    p["rnn.bias_hh"] = draw(3 * H)

    def step(row, h):
        x, a = row[:I], row[I]
        i, s = p["rnn.weight_ih"] @ x + p["rnn.bias_ih"], p["rnn.weight_hh"] @ h + p["rnn.bias_hh"]
        (i_r, i_u, i_n), (s_r, s_u, s_n) = np.split(i, 3), np.split(s, 3)
        n = np.tanh(i_n + sigmoid(i_r + s_r) * s_n)
        u = a * (sigmoid(i_u + s_u) if cell == "au_gru" else 1)
        return (1 - u) * h + u * n

    said = ", keep=new, scales=new" if cell == "au_gru" else ""
    check(from_arrays(p, f"{cell}(rnn, attention=-1{said})"), step, I + 1, score=I)
    named = "W=rnn.weight_ih, U=rnn.weight_hh, b_x=rnn.bias_ih, b_h=rnn.bias_hh, reset=after, gates=rzn"
    assert from_arrays(p, f"{cell}({named}, attention=-1{said})").same(
        from_arrays(p, f"{cell}(rnn, attention=-1{said})")
    )
    if cell == "au_gru":
        with pytest.raises(ExportError, match=r"the arrays do not say keep; say scales=old .* keep=new if"):
            from_arrays(p, "au_gru(rnn, attention=-1, scales=new)")


def test_agru_of_two_gates(draw):
    p = {"w": draw(2 * H, H + I), "b": draw(2 * H), "start": draw(H)}

    def step(row, h):
        a, x = row[0], row[1:]
        (n_h, r_h), (n_x, r_x) = np.split(p["w"][:, :H], 2), np.split(p["w"][:, H:], 2)
        b_n, b_r = np.split(p["b"], 2)
        r = sigmoid(r_x @ x + r_h @ h + b_r)
        return (1 - a) * h + a * np.maximum(n_x @ x + n_h @ (r * h) + b_n, 0)

    words = "a_gru(W=w, b_x=b, gates=nr, concatenated=hx, reset=before, activation=relu, attention=0{})"
    used = {name: array for name, array in p.items() if name != "start"}
    check(from_arrays(used, words.format("")), step, I + 1, score=0)
    net = from_arrays(p, words.format(", h0=start"))
    x = np.random.default_rng(5).random((1, I + 1))
    np.testing.assert_allclose(ge.reference.run(net, x)[0], step(x[0], p["start"]), rtol=0, atol=1e-12)


def test_hand_written_cells(draw):
    p = {f"cell.W_{side}{gate}.weight": draw(H, {"i": I, "h": H}[side]) for side in "ih" for gate in "rzn"}

    def gates(x, h):
        i, s = ({g: p[f"cell.W_{side}{g}.weight"] @ v for g in "rzn"} for side, v in (("i", x), ("h", h)))
        r = sigmoid(i["r"] + s["r"])
        return sigmoid(i["z"] + s["z"]), np.tanh(i["n"] + r * s["n"])

    def augru(row, h):
        z, n = gates(row[:I], h)
        z = row[I] * z
        return (1 - z) * h + z * n

    def agru(row, h):
        return (1 - row[I]) * h + row[I] * gates(row[:I], h)[1]

    words = "au_gru(cell, attention=-1, reset=after, keep=new, scales=new)"
    check(from_arrays(p, words), augru, I + 1, score=I)
    check(from_arrays(p, "a_gru(cell, attention=-1, reset=after)"), agru, I + 1, score=I)


def test_scores_in_a_chain(draw, tmp_path):
    """Interests, then their evolution: the first layer does not read the scores; a second cell may have its own."""
    p = {"gru.weight_ih_l0": draw(3 * H, I), "gru.weight_hh_l0": draw(3 * H, H)}
    for cell in "ab":
        p |= {f"{cell}.gates.kernel": draw(2 * H, 2 * H), f"{cell}.gates.bias": draw(2 * H)}
        p |= {f"{cell}.candidate.kernel": draw(2 * H, H), f"{cell}.candidate.bias": draw(H)}
    p["fc.weight"] = draw(2, H)
    words = "gru(gru) au_gru(a, attention=1, scales=old) a_gru(b, attention=-1) summary linear(fc)"
    built = build(p, words)
    assert built.lines[0] == f"input: {I}, beside 2 of attention: column 1, {I + 1}"
    assert built.network.input_size == I + 2

    def tf(cell, v, h):
        r, u = np.split(sigmoid(np.concatenate([v, h]) @ p[f"{cell}.gates.kernel"] + p[f"{cell}.gates.bias"]), 2)
        joined = np.concatenate([v, r * h])
        return u, np.tanh(joined @ p[f"{cell}.candidate.kernel"] + p[f"{cell}.candidate.bias"])

    x = np.random.default_rng(6).random((7, I + 2))
    h1 = h2 = h3 = np.zeros(H)
    for row in x:
        i, s = p["gru.weight_ih_l0"] @ row[[0, 2, 3]], p["gru.weight_hh_l0"] @ h1
        r, z = (sigmoid(i[at : at + H] + s[at : at + H]) for at in (0, H))
        h1 = z * h1 + (1 - z) * np.tanh(i[2 * H :] + r * s[2 * H :])
        u, c = tf("a", h1, h2)
        u = (1 - row[1]) * u
        h2 = u * h2 + (1 - u) * c
        h3 = (1 - row[-1]) * h3 + row[-1] * tf("b", h2, h3)[1]
    np.testing.assert_allclose(ge.reference.run(built.network, x), p["fc.weight"] @ h3, rtol=0, atol=1e-12)
    common.save(built.network, tmp_path / "dien.gru")
    assert verify(str(tmp_path / "dien.gru")) == 0


# ---- SpeechBrain's SLiGRU


def light(draw):
    p = {"rnn.0.w.weight": draw(2 * H, I), "rnn.0.u.weight": draw(2 * H, H), "rnn.0.h_init": np.zeros((1, H))}
    p |= {"rnn.0.norm.weight": draw(2 * H), "rnn.0.norm.bias": draw(2 * H), "rnn.0.norm.running_mean": draw(2 * H)}
    return p | {"rnn.0.norm.running_var": draw(2 * H) ** 2 + 0.1, "rnn.0.norm.num_batches_tracked": np.array(7)}


def light_step(p, epsilon=1e-5, recurrent=1e-5, scale=1, shift=0, act=lambda a: np.maximum(a, 0)):
    def step(x, h):
        w = p["rnn.0.w.weight"] @ x - p["rnn.0.norm.running_mean"]
        w = w / np.sqrt(p["rnn.0.norm.running_var"] + epsilon) * p["rnn.0.norm.weight"] + p["rnn.0.norm.bias"]
        a, z = np.split(w + normalised(p["rnn.0.u.weight"] @ h, recurrent) * scale + shift, 2)
        return sigmoid(z) * h + (1 - sigmoid(z)) * act(a)

    return step


def test_stabilised_light_gru(draw):
    p = light(draw)
    check(from_arrays(p, "li_gru(rnn.0, recurrent_norm=1e-5)"), light_step(p), I)
    words = "li_gru(rnn.0, recurrent_norm=0.1, epsilon=0.01, activation=tanh)"
    check(from_arrays(p, words), light_step(p, 0.01, 0.1, act=np.tanh), I)
    named = "li_gru(W=rnn.0.w.weight, U=rnn.0.u.weight, batch_norm=rnn.0.norm, recurrent_norm=1e-5)"
    bare = {name: array for name, array in p.items() if "h_init" not in name}
    assert from_arrays(bare, named).same(from_arrays(p, "li_gru(rnn.0, recurrent_norm=1e-5)"))


def test_stabilised_light_gru_with_scale_and_shift(draw):
    p = light(draw) | {"g": draw(2 * H) + 1, "s": draw(2 * H)}
    words = "li_gru(rnn.0, recurrent_norm=1e-5, recurrent_scale=g, recurrent_shift=s)"
    check(from_arrays(p, words), light_step(p, scale=p["g"], shift=p["s"]), I)
    with pytest.raises(ExportError, match="does not use g, s"):
        from_arrays(p, "li_gru(rnn.0, recurrent_norm=1e-5)")


# ---- DreamerV3


@pytest.mark.parametrize("norm", ["rms", "layer", "none"])
def test_embodied_gru(draw, norm):
    p = {"enc/gru/linear/kernel": draw(H + I, 3 * H), "enc/gru/linear/bias": draw(3 * H)}
    if norm != "none":
        p["enc/gru/norm/scale"] = draw(H + I) + 1
    if norm == "layer":
        p["enc/gru/norm/shift"] = draw(H + I)

    def step(x, h):
        v = np.concatenate([h, x])
        if norm == "rms":
            v = rms(v) * p["enc/gru/norm/scale"]
        elif norm == "layer":
            v = normalised(v, 1e-4) * p["enc/gru/norm/scale"] + p["enc/gru/norm/shift"]
        r, n, z = np.split(v @ p["enc/gru/linear/kernel"] + p["enc/gru/linear/bias"], 3)
        z = sigmoid(z - 1)
        return z * np.tanh(sigmoid(r) * n) + (1 - z) * h

    check(from_arrays(p, "norm_input_gru(enc.gru)"), step, I)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("blocks", [1, 2])
def test_dreamer_v3(draw, layers, blocks):
    """``dyn`` of the RSSM: block-diagonal hidden layers and gates behind a projection of the state."""
    D, B, Q = 8, blocks, 5  # the state, its blocks, the projection
    p = {"dyn/dynin0/kernel": draw(D, Q), "dyn/dynin0/bias": draw(Q), "dyn/dynin0norm/scale": draw(Q) + 1}
    for i in range(layers):
        p[f"dyn/dynhid{i}/kernel"] = draw(B, D // B + (Q + I if i == 0 else 0), D // B)
        p |= {f"dyn/dynhid{i}/bias": draw(D), f"dyn/dynhid{i}norm/scale": draw(D) + 1}
    p |= {"dyn/dyngru/kernel": draw(B, D // B, 3 * D // B), "dyn/dyngru/bias": draw(3 * D)}

    def silu(a):
        return a * sigmoid(a)

    def blockwise(name, pieces):
        whole = np.concatenate([piece @ M for piece, M in zip(pieces, p[f"dyn/{name}/kernel"])])
        return whole + p[f"dyn/{name}/bias"]

    def step(x, h):
        q = silu(rms(h @ p["dyn/dynin0/kernel"] + p["dyn/dynin0/bias"]) * p["dyn/dynin0norm/scale"])
        pieces = [np.concatenate([part, q, x]) for part in np.split(h, B)]
        for i in range(layers):
            v = silu(rms(blockwise(f"dynhid{i}", pieces)) * p[f"dyn/dynhid{i}norm/scale"])
            pieces = np.split(v, B)
        sums = [np.split(part, 3) for part in np.split(blockwise("dyngru", pieces), B)]
        r, n, z = (np.concatenate([part[gate] for part in sums]) for gate in range(3))
        z = sigmoid(z - 1)
        return z * np.tanh(sigmoid(r) * n) + (1 - z) * h

    check(from_arrays(p, "dreamer_v3_gru(dyn)"), step, I, hidden=D)
    other = from_arrays(p, "dreamer_v3_gru(dyn, hidden_activation=relu, update_bias=0, epsilon=1e-3)")
    assert not other.same(from_arrays(p, "dreamer_v3_gru(dyn)"))


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("au_gru(cell, scales=old)", r"attention must be the number of the input's column .* attention=-1 for the last"),
        ("au_gru(cell, attention=last, scales=old)", "attention must be the number .*, got 'last'"),
        ("au_gru(cell, attention=-1)", "the arrays do not say scales; say scales=old where"),
        ("au_gru(cell, attention=-1, scales=up)", "scales must be 'old' or 'new', got 'up'"),
        ("au_gru(cell, attention=9, scales=old)", "attention=9 must be different columns of an input of 4 numbers"),
        ("au_gru(cell, attention=-5, scales=old)", "attention=-5 must be different columns of an input of 4"),
        ("au_gru(none, attention=-1, scales=old)", r"au_gru\(none, attention=-1, scales=old\): there is no GRU 'none'; the"),
        ("au_gru(cell, attention=-1, scales=old, clip=3)", "au_gru has no option 'clip'"),
        ("a_gru(cell, attention=-1, keep=new)", "a_gru has no option 'keep'"),
        ("a_gru(W=square, U=square, attention=-1)", "do not say where the reset gate acts; say reset=before or reset=after"),
        ("a_gru(W=square, U=square, attention=-1, reset=none)", "gates of .* must hold r and n|reset must be 'before' or"),
        ("one_hot au_gru(cell, attention=-1, scales=old)", "a column of the input, but the input is tokens"),
        ("flip au_gru(cell, attention=-1, scales=old) flip", "only a GRU can run from the end"),
        ("li_gru(rnn.0)", r"recurrent_norm=1e-5 \(SLiGRU\); a LiGRU is the word gru\(rnn.0\)"),
        ("li_gru(cell, recurrent_norm=1e-5)", r"no arrays of such a cell below 'cell' \(cell.w.weight, cell.u.weight"),
        ("li_gru(rnn.0, recurrent_norm=1e-5, b=cell.gates.bias)", "the names of the arrays leave no choice of b"),
        ("li_gru(rnn.0, recurrent_norm=1e-5, recurrent_scale=no)", "the checkpoint has no array 'no'"),
        ("li_gru(rnn.0, recurrent_norm=x)", "recurrent_norm of .* must be a number"),
        ("li_gru(W=rnn.0.w.weight, U=rnn.0.u.weight, batch_norm=no, recurrent_norm=1e-5)", "no array 'no.running_mean'"),
        ("dreamer_v3_gru(dyn)", r"no arrays of such a cell below 'dyn' \(dyn.dyngru.kernel, .*\); the arrays are"),
        ("dreamer_v3_gru(W=square)", "dreamer_v3_gru has no option 'W'"),
        ("norm_input_gru(cell)", r"below 'cell' \(cell.linear.kernel\); name them, as in norm_input_gru\(W=NAME"),
    ],
)  # fmt: skip
def test_what_is_refused(draw, text, message):
    p = {"cell.gates.kernel": draw(I + H, 2 * H), "cell.gates.bias": draw(2 * H)}
    p |= {"cell.candidate.kernel": draw(I + H, H), "cell.candidate.bias": draw(H), "square": draw(6, 2)}
    with pytest.raises(ExportError, match=message):
        from_arrays(p | light(draw), text)
