# SPDX-License-Identifier: Apache-2.0
"""Hand-written cells by the names of their arrays: the forms in which articles describe the GRU, against float64 done by hand."""

import itertools

import numpy as np
import pytest

import gru_engine as ge
from gru_engine.export.arrays import from_arrays
from gru_engine.export.cells import is_cell
from gru_engine.export.common import ExportError

from .helpers import sigmoid

I, H = 3, 4


@pytest.fixture
def draw():
    random = np.random.default_rng(21)
    return lambda *shape: random.normal(0, 0.6, shape)


def check(net, step, inputs=I, hidden=H):
    """A network's outputs, and those of one step of a cell after the other."""
    x = np.random.default_rng(22).standard_normal((8, inputs))
    h, expected = np.zeros(hidden), []
    for row in x:
        h = step(row, h)
        expected.append(h)
    np.testing.assert_allclose(ge.reference.run(net, x), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ge.load(net.tobytes()).run(x.astype(np.float32)), expected, rtol=0, atol=2e-6)


# ---- the update gate inside the candidate, with one recurrent matrix for both gates

WORKED = {
    "W_r": [[0.5, 0.2], [-0.3, 0.4]], "U_h": [[0.6, 0.1], [0.2, 0.7]], "b_r": [0.1, -0.2],
    "W_z": [[0.4, 0.3], [-0.2, 0.5]], "b_z": [0.3, -0.1],
    "W_n": [[0.8, 0.2], [0.3, 0.5]], "U_n": [[0.4, 0.3], [0.2, 0.5]], "b_n": [0.1, -0.2],
}  # fmt: skip
WORKED_X, WORKED_H = [0.1, 0.2], [0.5, 0.6]


def worked_step(x, h):
    p = {name: np.array(value) for name, value in WORKED.items()}
    z = sigmoid(p["W_z"] @ x + p["U_h"] @ h + p["b_z"])
    n = np.tanh(p["W_n"] @ x + p["U_n"] @ (z * h) + p["b_n"])
    return (1 - z) * h + z * n


def test_worked_example():
    """Every number of one step, by hand: z = sigmoid of (0.76, 0.50), the candidate reads z * h."""
    x, h = np.array(WORKED_X), np.array(WORKED_H)
    z = sigmoid(
        np.array(
            [0.4 * 0.1 + 0.3 * 0.2 + 0.6 * 0.5 + 0.1 * 0.6 + 0.3, -0.2 * 0.1 + 0.5 * 0.2 + 0.2 * 0.5 + 0.7 * 0.6 - 0.1]
        )
    )
    np.testing.assert_allclose(z, sigmoid(np.array([0.76, 0.5])), rtol=0, atol=1e-15)
    gated = z * h
    n = np.tanh(
        [
            0.8 * 0.1 + 0.2 * 0.2 + 0.4 * gated[0] + 0.3 * gated[1] + 0.1,
            0.3 * 0.1 + 0.5 * 0.2 + 0.2 * gated[0] + 0.5 * gated[1] - 0.2,
        ]
    )
    expected = (1 - z) * h + z * n
    np.testing.assert_allclose(worked_step(x, h), expected, rtol=0, atol=1e-15)

    arrays = {name: np.array(value) for name, value in WORKED.items()}
    words = "gru(, reset=before, keep=new, reset_gate=z, orientation=rows, h0=start)"
    net = from_arrays(
        {name: a for name, a in arrays.items() if name not in ("W_r", "b_r")} | {"start": np.array(WORKED_H)}, words
    )
    np.testing.assert_allclose(ge.reference.run(net, x[None])[0], expected, rtol=0, atol=1e-15)
    engine = ge.load(net.tobytes()).run(x[None].astype(np.float32))[0]
    np.testing.assert_allclose(engine, expected, rtol=0, atol=1e-7)

    # The same network written out: the reset gate carries z's weights, unreversed.
    described = "W_r=W_z, U_r=U_h, b_r=b_z, W_z=W_z, U_z=U_h, b_z=b_z, W_n=W_n, U_n=U_n, b_n=b_n"
    described += ", reset=before, keep=new, h0=start"
    other = from_arrays(
        {name: a for name, a in arrays.items() if name not in ("W_r", "b_r")} | {"start": np.array(WORKED_H)},
        f"gru({described})",
    )
    assert other.same(net)


def test_the_reset_gate_influences_nothing():
    arrays = {name: np.array(value) for name, value in WORKED.items()}
    net = from_arrays(arrays, "gru(, reset=before, keep=new, reset_gate=z, orientation=rows)")
    check(net, worked_step, 2, 2)


# ---- matrices on the concatenation of state and input


def concatenated_arrays(draw, names=("W_r", "W_z", "W_h"), bias=True):
    arrays = {f"{name}.weight": draw(H, H + I) for name in names}
    return arrays | ({f"{name}.bias": draw(H) for name in names} if bias else {})


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", ["hx", "xh"])
@pytest.mark.parametrize("keep", ["new", "old"])
def test_textbook_gru(draw, bias, order, keep):
    """W_r, W_z, W_h, each an nn.Linear."""
    p = concatenated_arrays(draw, bias=bias)
    join = lambda x, h: np.concatenate([h, x] if order == "hx" else [x, h])  # noqa: E731
    dense = lambda name, v: p[f"{name}.weight"] @ v + p.get(f"{name}.bias", 0)  # noqa: E731

    def step(x, h):
        r, z = sigmoid(dense("W_r", join(x, h))), sigmoid(dense("W_z", join(x, h)))
        n = np.tanh(dense("W_h", join(x, r * h)))
        return (1 - z) * h + z * n if keep == "new" else z * h + (1 - z) * n

    check(from_arrays(p, f"gru(, concatenated={order}, reset=before, keep={keep})"), step)
    nested = {f"cell.{name}": array for name, array in p.items()} | {"fc.weight": np.eye(H)}
    check(from_arrays(nested, f"gru(cell, concatenated={order}, reset=before, keep={keep}) linear(fc)"), step)


def test_what_is_not_said_is_asked_for(draw):
    p = concatenated_arrays(draw)
    message = (
        r"(?s)do not say reset and keep and concatenated .*gru\(concatenated=hx, reset=before, keep=new\).*Cho et al"
    )
    with pytest.raises(ExportError, match=message):
        from_arrays(p)
    p = {f"cell.{name}": array for name, array in p.items()}
    with pytest.raises(
        ExportError, match=r"(?s)do not say keep of a hand-written cell.*gru\(cell, concatenated=hx, reset=before"
    ):
        from_arrays(p, "gru(cell, concatenated=hx, reset=before)")


# ---- a matrix for each half


def separate_arrays(draw, x, h, gates="rzn", bias=("", "")):
    """Arrays by patterns of names, such as ``"W_{}.weight"``."""
    arrays = {x.format(g): draw(H, I) for g in gates} | {h.format(g): draw(H, H) for g in gates}
    for pattern in filter(None, bias):
        arrays |= {pattern.format(g): draw(H) for g in gates}
    return arrays


def separate_step(p, x, h, gates, bias, reset, keep):
    def step(v, state):
        dense = {}
        for g in gates:
            b = [p[pattern.format(g)] if pattern else 0 for pattern in bias]
            dense[g] = (p[x.format(g)] @ v + b[0], lambda s, g=g, b=b: p[h.format(g)] @ s + b[1])
        r, z = (sigmoid(dense[g][0] + dense[g][1](state)) for g in gates[:2])
        i, d = dense[gates[2]]
        n = np.tanh(i + (d(r * state) if reset == "before" else r * d(state)))
        return (1 - z) * state + z * n if keep == "new" else z * state + (1 - z) * n

    return step


NAMES = [
    # input matrices, state matrices, the letters of reset gate, update gate, candidate, biases of either
    ("W_{}.weight", "U_{}.weight", "rzn", ("W_{}.bias", "U_{}.bias")),
    ("W_{}.weight", "U_{}.weight", "rzh", ("W_{}.bias", "")),
    ("W_{}.weight", "U_{}.weight", "ruc", ("", "U_{}.bias")),
    ("W_i{}.weight", "W_h{}.weight", "rzn", ("W_i{}.bias", "W_h{}.bias")),
    ("W_x{}.weight", "W_h{}.weight", "rzh", ("W_x{}.bias", "W_h{}.bias")),
    ("W{}.weight", "U{}.weight", "rzh", ("W{}.bias", "")),
    ("x_{}.weight", "h_{}.weight", "rzn", ("x_{}.bias", "h_{}.bias")),
    ("W_i{}", "W_h{}", "rzn", ("b_i{}", "b_h{}")),
    ("W_x{}", "W_h{}", "rzh", ("b_{}", "")),
    ("W{}", "U{}", "rzh", ("b{}", "")),
    ("lin_{}.weight", "recurrent_{}.weight", "rzn", ("lin_{}.bias", "")),
    ("weight_{}.weight", "hidden_{}.weight", "rzn", ("", "")),
]


@pytest.mark.parametrize(("reset", "keep"), list(itertools.product(("before", "after"), ("old", "new"))))
@pytest.mark.parametrize(("x", "h", "gates", "bias"), NAMES)
def test_names(draw, x, h, gates, bias, reset, keep):
    p = separate_arrays(draw, x, h, gates, bias)
    net = from_arrays(p, f"gru(, reset={reset}, keep={keep})")
    check(net, separate_step(p, x, h, gates, bias, reset, keep))


@pytest.mark.parametrize(
    "names",
    [
        ("reset_gate", "update_gate", "candidate"),
        ("reset", "update", "h_tilde"),
        ("fc_reset", "fc_update", "fc_candidate"),
        ("linear_r", "linear_z", "linear_n"),
        ("Wr", "Wu", "Wc"),
    ],
)
def test_full_words(draw, names):
    p = concatenated_arrays(draw, names)
    renamed = dict(zip([f"{n}.{end}" for end in ("weight", "bias") for n in ("W_r", "W_z", "W_h")], p.values()))
    said = "gru(, concatenated=xh, reset=before, keep=old)"
    assert from_arrays(p, said).same(from_arrays(renamed, said))


@pytest.mark.parametrize("names", [("reset_x", "reset_h", "update_x", "update_h", "new_x", "new_h")])
def test_full_words_of_either_half(draw, names):
    p = {f"{name}.weight": draw(H, I if name.endswith("_x") else H) for name in names}
    renamed = {f"{short}.weight": array for short, array in zip("W_r U_r W_z U_z W_n U_n".split(), p.values())}
    said = "gru(, reset=after, keep=old)"
    assert from_arrays(p, said).same(from_arrays(renamed, said))


def test_columns(draw):
    """Parameters that are multiplied from the left: x W."""
    p = separate_arrays(draw, "W_x{}", "W_h{}", "rzh", ("b_{}", ""))
    said = "gru(, reset=after, keep=old)"
    turned = {name: array.T for name, array in p.items()}
    assert from_arrays(turned, said).same(from_arrays(p, said))
    square = {name: array if array.ndim == 1 else array[:, :1] * np.ones((1, H)) for name, array in p.items()}
    with pytest.raises(ExportError, match="all matrices are square; say orientation=rows"):
        from_arrays(square, said)
    turned = {name: array.T for name, array in square.items()}
    rows, columns = (f"gru(, reset=after, keep=old, orientation={o})" for o in ("rows", "columns"))
    assert from_arrays(square, rows).same(from_arrays(turned, columns))
    assert not from_arrays(square, rows).same(from_arrays(square, columns))


def test_some_gates_without_a_bias(draw):
    p = separate_arrays(draw, "W_{}.weight", "U_{}.weight", "rzn", ("", "")) | {"U_n.bias": draw(H)}
    net = from_arrays(p, "gru(, reset=after, keep=old)")
    zeros = {f"U_{g}.bias": np.zeros(H) for g in "rz"}
    assert net.same(from_arrays(p | zeros, "gru(, reset=after, keep=old)"))


def test_minimal_gated_unit_and_no_reset_gate(draw):
    p = separate_arrays(draw, "W_{}.weight", "U_{}.weight", "zn", ("W_{}.bias", ""))

    def step(x, h, gated):
        z = sigmoid(p["W_z.weight"] @ x + p["U_z.weight"] @ h + p["W_z.bias"])
        state = z * h if gated else h
        return (1 - z) * h + z * np.tanh(p["W_n.weight"] @ x + p["U_n.weight"] @ state + p["W_n.bias"])

    check(from_arrays(p, "gru(, reset=before, keep=new, reset_gate=z)"), lambda x, h: step(x, h, True))
    check(from_arrays(p, "gru(, reset=none, keep=new)"), lambda x, h: step(x, h, False))
    with pytest.raises(ExportError, match=r"there is no matrix W of the gate r; found: W_n\.weight, W_z\.weight"):
        from_arrays(p, "gru(, reset=before, keep=new)")


# ---- gates with a memory; independent input and forget gates


def check_memory(net, p, pattern, gates, r0=1.0, z0=1.0):
    """Against the equations, with the state that the gates themselves are."""
    W, U = (lambda g: p[pattern.format(g)]), (lambda g: p[pattern.replace("W", "U").format(g)])
    memory = {"r": np.full(H, r0), "z": np.full(H, z0)}
    h, expected = np.zeros(H), []
    x = np.random.default_rng(23).standard_normal((8, I))
    for v in x:
        bias = {g: p.get(f"b_{g}", 0) for g in gates}
        o = sigmoid(W("o") @ v + U("o") @ h + bias["o"]) if "o" in gates else None
        memory = {g: sigmoid(W(g) @ v + U(g) @ h + bias[g]) * memory[g] for g in "rz"}
        n = np.tanh(W("h") @ v + U("h") @ (memory["r"] * h) + bias["h"])
        h = (1 - memory["z"]) * h + memory["z"] * n
        expected.append(h if o is None else o * np.tanh(h))
    np.testing.assert_allclose(ge.reference.run(net, x), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ge.load(net.tobytes()).run(x.astype(np.float32)), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("gates", ["zrh", "zrho"])
@pytest.mark.parametrize("pattern", ["W_{}.weight", "cell.W{}.weight", "W_{}"])
def test_gate_memory(draw, pattern, gates):
    p = {pattern.format(g): draw(H, I) for g in gates} | {
        pattern.replace("W", "U").format(g): draw(H, H) for g in gates
    }
    if pattern == "W_{}":
        p |= {f"b_{g}": draw(H) for g in gates}
    name = "cell" * pattern.startswith("cell")
    check_memory(from_arrays(p, f"gate_memory_gru({name})"), p, pattern, gates)
    if "o" in gates:
        with pytest.raises(ExportError, match=r"is an output gate.*is the word gate_memory_gru\("):
            from_arrays(p, f"gru({name}, reset=before, keep=new)")
        with pytest.raises(ExportError, match="is an output gate"):
            from_arrays(p)
        net = from_arrays(p, f"gate_memory_gru({name}, gates=rzn)")  # the gate is there, but enters nothing
        check_memory(net, p, pattern, "zrh")


def test_gate_memory_starts(draw):
    p = {f"{M}_{g}.weight": draw(H, I if M == "W" else H) for M in "WU" for g in "zrho"}
    start = {"start.r": np.full((1, H), 0.5), "start.z": np.full(H, 0.25)}
    net = from_arrays(p | start, "gate_memory_gru(, r0=start.r, z0=start.z)")
    check_memory(net, p, "W_{}.weight", "zrho", 0.5, 0.25)
    with pytest.raises(ExportError, match=r"'start.r' must be a vector of floats, there is the shape \[2, 2\]"):
        from_arrays(p | {"start.r": np.zeros((2, 2))}, "gate_memory_gru(, r0=start.r)")
    with pytest.raises(ExportError, match=r"'nowhere' must be a vector of floats, there is no such array"):
        from_arrays(p, "gate_memory_gru(, r0=nowhere)")


@pytest.mark.parametrize("order", ["hx", "xh"])
@pytest.mark.parametrize("output", [False, True])
@pytest.mark.parametrize("candidate", ["z", "n", "c"])
def test_independent_input_and_forget_gates(draw, order, output, candidate):
    gates = "ifo" + candidate
    p = {f"W_{g}.weight": draw(H, H + I) for g in gates} | {f"W_{g}.bias": draw(H) for g in gates}
    x = np.random.default_rng(24).standard_normal((9, I))
    h, expected = np.zeros(H), []
    for v in x:
        joined = np.concatenate([h, v] if order == "hx" else [v, h])
        s = {g: p[f"W_{g}.weight"] @ joined + p[f"W_{g}.bias"] for g in gates}
        h = sigmoid(s["f"]) * h + sigmoid(s["i"]) * np.tanh(s[candidate])
        expected.append(sigmoid(s["o"]) * np.tanh(h) if output else h)
    net = from_arrays(p, f"input_forget_gru(, concatenated={order}{', gates=ifn' * (not output)})")
    np.testing.assert_allclose(ge.reference.run(net, x), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ge.load(net.tobytes()).run(x.astype(np.float32)), expected, rtol=0, atol=2e-6)
    message = r"W_f\.weight, W_i\.weight are independent .*input_forget_gru\(\), an LSTM is not supported"
    with pytest.raises(ExportError, match=message):
        from_arrays(p)
    with pytest.raises(ExportError, match="say which of state and input comes first: concatenated=hx"):
        from_arrays(p, "input_forget_gru()")
    with pytest.raises(ExportError, match=r"gates of .* must be those of 'ifno', got 'if'"):
        from_arrays(p, "input_forget_gru(, gates=if)")


def test_an_output_layer_is_no_output_gate(draw):
    """y = W_o h + b_o in the cell's own module."""
    p = (
        {f"W_{g}": draw(H, I) for g in "rzn"}
        | {f"U_{g}": draw(H, H) for g in "rzn"}
        | {f"b_{g}": draw(H) for g in "rzn"}
    )
    said = "gru(, reset=before, keep=new) linear(W=W_o, b=b_o)"
    net = from_arrays(p | {"W_o": draw(2, H), "b_o": draw(2)}, said)
    assert net.output_size == 2
    with pytest.raises(ExportError, match="does not use W_o, b_o"):
        from_arrays(p | {"W_o": draw(2, H), "b_o": draw(2)}, "gru(, reset=before, keep=new)")


def test_shapes_that_do_not_fit(draw):
    p = concatenated_arrays(draw)
    with pytest.raises(ExportError, match=r"W of the gates rzn have the shapes \[4, 7\], \[5, 7\], \[4, 7\]"):
        from_arrays(p | {"W_z.weight": draw(5, 7)}, "gru(, concatenated=hx, reset=before, keep=new)")
    with pytest.raises(ExportError, match=r"is \[H, H\+I\], got \[4, 4\]"):
        from_arrays({f"W_{g}.weight": draw(H, H) for g in "rzh"}, "gru(, concatenated=hx, reset=before, keep=new)")
    with pytest.raises(ExportError, match=r"reset_gate of .* must be r or z, got 'n'"):
        from_arrays(p, "gru(, concatenated=hx, reset=before, keep=new, reset_gate=n)")
    p = separate_arrays(draw, "W_{}.weight", "U_{}.weight", "rzn", ("W_{}.bias", "b_{}"))
    with pytest.raises(ExportError, match=r"W_r.bias and b_r are both biases of the gate r"):
        from_arrays(p, "gru(, reset=before, keep=new)")


@pytest.mark.parametrize(
    "names",
    [
        ["fc.weight", "fc.bias"],
        ["n.weight", "z.weight", "h.weight"],
        ["gru.weight_ih_l0", "gru.weight_hh_l0", "gru.bias_ih_l0"],
        ["weight_ih", "weight_hh", "bias_ih", "bias_hh"],
        ["encoder.weight", "update_head.weight"],
        ["w_i", "w_h", "b"],
        ["w_ru", "w_c", "b_ru", "b_c"],
    ],
)
def test_other_modules_are_no_cells(names):
    prefixes = {""} | {name.rpartition(".")[0] + "." for name in names if "." in name}
    assert not any(is_cell(prefix, names) for prefix in prefixes)
