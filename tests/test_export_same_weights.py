# SPDX-License-Identifier: Apache-2.0
"""The same network through every framework that can express it has byte-identical weights in the file."""

import numpy as np
import pytest
from same_weights import Canonical, by_hand, canonical, check, weight_section

import gru_engine as ge
from gru_engine.export import flax, gru4rec, haiku, rtneural, tf1
from gru_engine.export.arrays import from_arrays

EXPORTERS = []


def expresses(*resets):
    """Adds an exporter to those that are compared, for each of the forms that its framework can express."""

    def add(function):
        EXPORTERS.extend((reset, function) for reset in resets)
        return function

    return add


@expresses("after")
def torch(net):
    gru = {"gru.weight_ih_l0": net.W, "gru.weight_hh_l0": net.U, "gru.bias_ih_l0": net.b_x, "gru.bias_hh_l0": net.b_h}
    return from_arrays(gru | {"fc.weight": net.W_y, "fc.bias": net.b_y})


@expresses("after")
def torch_cell(net):
    gru = {"gru.weight_ih": net.W, "gru.weight_hh": net.U, "gru.bias_ih": net.b_x, "gru.bias_hh": net.b_h}
    return from_arrays(gru | {"fc.weight": net.W_y, "fc.bias": net.b_y})


@expresses("after", "before")
def named(net):
    arrays = {"a": net.ordered("W", "nzr").T, "b": net.ordered("U", "nzr").T, "c": net.ordered("b_x", "nzr")}
    arrays |= {"d": net.ordered("b_h", "nzr"), "e": net.W_y, "f": net.b_y}
    gru = f"gru(W=a, U=b, b_x=c, b_h=d, gates=nzr, reset={net.reset}, orientation=columns)"
    return from_arrays(arrays, gru + " linear(W=e, b=f)")


@expresses("after", "before")
def named_gate_by_gate(net):
    arrays = {f"{kind}/{g}": net.gates(kind)[g] for kind in ("W", "U", "b_x", "b_h") for g in "rzn"}
    words = ", ".join(f"{kind}_{g}={kind}/{g}" for kind in ("W", "U", "b_x", "b_h") for g in "rzn")
    return from_arrays(arrays | {"y": net.W_y, "c": net.b_y}, f"gru({words}, reset={net.reset}) linear(W=y, b=c)")


@expresses("after", "before")
def keras_arrays(net):
    b = np.stack([net.ordered("b_x", "zrn"), net.ordered("b_h", "zrn")])
    gru = {"gru/kernel": net.ordered("W", "zrn").T, "gru/recurrent_kernel": net.ordered("U", "zrn").T}
    gru["gru/bias"] = b if net.reset == "after" else b[0]
    return from_arrays(gru | {"dense/kernel": net.W_y.T, "dense/bias": net.b_y})


@expresses("after")
def flax_linen(net):
    cell = {f"i{g}": {"kernel": net.gates("W")[g].T, "bias": net.gates("b_x")[g]} for g in "rzn"}
    cell |= {f"h{g}": {"kernel": net.gates("U")[g].T} for g in "rzn"}
    cell["hn"]["bias"] = net.gates("b_h")["n"]
    return flax.from_params({"params": {"cell": cell, "head": {"kernel": net.W_y.T, "bias": net.b_y}}})


@expresses("after")
def rtneural_layers(net):
    b = [net.ordered("b_x", "zrn").tolist(), net.ordered("b_h", "zrn").tolist()]
    gru = [net.ordered("W", "zrn").T.tolist(), net.ordered("U", "zrn").T.tolist(), b]
    dense = [net.W_y.T.tolist(), net.b_y.tolist()]
    layers = [
        {"type": "gru", "activation": "tanh", "shape": [None, None, len(net.U) // 3], "weights": gru},
        {"type": "dense", "activation": "", "shape": [None, None, len(net.b_y)], "weights": dense},
    ]
    return rtneural.from_json({"in_shape": [None, None, net.W.shape[1]], "layers": layers})


@expresses("after")
def rtneural_state_dict(net):
    arrays = {
        "gru.weight_ih_l0": net.W,
        "gru.weight_hh_l0": net.U,
        "gru.bias_ih_l0": net.b_x,
        "gru.bias_hh_l0": net.b_h,
    }
    arrays |= {"dense.weight": net.W_y, "dense.bias": net.b_y}
    return rtneural.from_json({name: array.tolist() for name, array in arrays.items()})


def _tf1_arrays(net):
    joined = np.concatenate([net.W, net.U], axis=1).T  # [I+H, 3H]
    H = len(net.U) // 3
    return joined[:, : 2 * H], joined[:, 2 * H :], net.b_x[: 2 * H], net.b_x[2 * H :]


@expresses("before")
def tf1_gru_cell(net):
    gates, candidate, b, c = _tf1_arrays(net)
    cell = {"gates/kernel": gates, "candidate/kernel": candidate, "gates/bias": b, "candidate/bias": c}
    variables = {f"rnn/gru_cell/{name}:0": array for name, array in cell.items()}
    return tf1.from_variables(variables | {"dense/kernel": net.W_y.T, "dense/bias": net.b_y})


@expresses("before")
def tf1_block_cell(net):
    cell = dict(zip(("w_ru", "w_c", "b_ru", "b_c"), _tf1_arrays(net)))
    variables = {f"rnn/multi_rnn_cell/cell_0/gru_block_cell/{name}": array for name, array in cell.items()}
    return tf1.from_variables(variables | {"dense/kernel": net.W_y.T, "dense/bias": net.b_y})


@expresses("after")
def tf1_cudnn_compatible(net):
    W, U, b, H = net.W.T, net.U.T, net.gates("b_h")["n"], len(net.U) // 3
    cell = {
        "gates/kernel": np.concatenate([W[:, : 2 * H], U[:, : 2 * H]]),
        "gates/bias": net.b_x[: 2 * H],
        "candidate/input_projection/kernel": W[:, 2 * H :],
        "candidate/input_projection/bias": net.b_x[2 * H :],
        "candidate/hidden_projection/kernel": U[:, 2 * H :],
        "candidate/hidden_projection/bias": b,
    }
    variables = {f"rnn/cudnn_compatible_gru_cell/{name}": array for name, array in cell.items()}
    return tf1.from_variables(variables | {"dense/kernel": net.W_y.T, "dense/bias": net.b_y})


@expresses("before")
def haiku_gru(net):
    w_i, w_h, b = (net.ordered(name, "zrn", new=True).T for name in ("W", "U", "b_x"))
    return haiku.from_params({"gru": {"w_i": w_i, "w_h": w_h, "b": b}, "linear": {"w": net.W_y.T, "b": net.b_y}})


@expresses("before")
def hand_written_concatenated(net):
    arrays = {}
    for gate, name in zip("rzn", ("W_r", "W_z", "W_h")):
        sign = -1 if gate == "z" else 1
        arrays[f"cell.{name}.weight"] = sign * np.concatenate([net.gates("U")[gate], net.gates("W")[gate]], axis=1)
        arrays[f"cell.{name}.bias"] = sign * net.gates("b_x")[gate]
    words = "gru(cell, concatenated=hx, reset=before, keep=new) linear(fc)"
    return from_arrays(arrays | {"fc.weight": net.W_y, "fc.bias": net.b_y}, words)


@expresses("after", "before")
def hand_written_separate(net):
    arrays = {}
    for gate in "rzn":
        arrays[f"x_{gate}.weight"], arrays[f"x_{gate}.bias"] = net.gates("W")[gate], net.gates("b_x")[gate]
        arrays[f"h_{gate}.weight"], arrays[f"h_{gate}.bias"] = net.gates("U")[gate], net.gates("b_h")[gate]
    arrays |= {"fc.weight": net.W_y, "fc.bias": net.b_y}
    return from_arrays(arrays, f"gru(, reset={net.reset}, keep=old) linear(fc)")


@pytest.mark.parametrize(("reset", "exporter"), EXPORTERS)
def test_same_weights(reset, exporter):
    check(exporter, reset)


def _without_recurrent_bias(net):
    return Canonical(net.reset, net.W, net.U, net.b_x, np.zeros_like(net.b_h), net.W_y, net.b_y)


def test_nnx_has_no_recurrent_bias():
    net = _without_recurrent_bias(canonical("after"))
    cell = {"dense_i": {"kernel": net.W.T, "bias": net.b_x}, "dense_h": {"kernel": net.U.T}}
    made = flax.from_params({"rnn": {"cell": cell}, "head": {"kernel": net.W_y.T, "bias": net.b_y}})
    assert weight_section(made) == weight_section(by_hand(net))
    assert weight_section(made) != weight_section(by_hand(canonical("after")))


def test_gru4rec_has_a_table_of_items():
    """Both versions: three blocks in the order candidate, reset, update, and an update gate that keeps the new state."""
    net = canonical("before")
    H = len(net.U) // 3
    items = np.random.default_rng(3).integers(-99, 99, (11, H)).astype(np.float32) / 64
    W = np.random.default_rng(4).integers(-99, 99, (3 * H, H)).astype(np.float32) / 64
    net = Canonical("before", W, net.U, net.b_x, net.b_h, items, np.arange(11, dtype=np.float32))
    made = ge.Network()
    h = made.gru(made.embedding(made.tokens(11), items), net.W, net.U, net.b_x, reset="before")
    made.output(made.dense(h, net.W_y, net.b_y))
    U = net.ordered("U", "nrz", new=True).T
    theano = {"Wx0": net.ordered("W", "nrz", new=True).T, "Wrz0": U[:, H:], "Wh0": U[:, :H], "Wy": items}
    theano |= {"Bh0": net.ordered("b_x", "nrz", new=True), "By": net.b_y[:, np.newaxis]}
    assert weight_section(gru4rec.from_parameters(theano)) == weight_section(made)


def test_the_comparison_can_fail():
    net = canonical("after")
    other = ge.Network()
    W = net.W.copy()
    W[0, 0] = np.nextafter(W[0, 0], np.float32(9))
    h = other.gru(other.input(net.W.shape[1]), W, net.U, net.b_x, net.b_h)
    other.output(other.dense(h, net.W_y, net.b_y))
    assert weight_section(other) != weight_section(by_hand(net))
