# SPDX-License-Identifier: Apache-2.0
"""The specification once more: docs/NUMERICS.md in NumPy, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine.numerics import fma32
from gru_engine.precision import DTYPES

from .helpers import Array, assert_bits, bits, each_isa, gru_arrays, specified_sums, uniform
from .random_networks import random_input
from .test_bits import RESETS, SIZES


@cache
def activation_model(spec: Any, width: int) -> ge.Model:
    """A network that is this activation and nothing else: their accuracy is tested elsewhere, bits only have to agree."""
    net = ge.Network()
    net.output(net.activation(net.input(width), spec))
    return ge.load(net.tobytes())


def activate(spec: Any, a: Array) -> Array:
    return activation_model(spec, a.shape[-1]).run(a)


def specified_gru(layer: Any, x: Array, h: Array, dtype: str = "float32") -> Array:
    """h' [N, H] of docs/NUMERICS.md, section 2, from x [N, I] and h [N, H], with matrices of this type."""
    H, G = layer.width, len(layer.gates)
    act = (layer.activation.name, *layer.activation.parameters)
    gate_act = (layer.gate_activation.name, *layer.gate_activation.parameters)

    def clip(a: Array) -> Array:
        c = np.float32(layer.clip or 0)
        return np.where(a > c, c, np.where(a < -c, -c, a)) if c else a

    def gate(a: Array) -> Array:
        return activate(gate_act, clip(a))

    def sums(b: Array, M: Array, x: Array) -> Array:
        return specified_sums(b, M, x, dtype)

    W, U = layer.W.reshape(G, H, -1), layer.U.reshape(G, H, H)
    b_x, b_h = layer.b_x.reshape(G, H), layer.b_h.reshape(G, H)
    gates = [layer.gates.index(g) for g in layer.gates if layer.reset != "before" or g != "n"]
    with np.errstate(all="ignore"):
        s_x = dict(zip(layer.gates, sums(b_x, W, x).transpose(1, 0, 2)))
        s_h = dict(zip([layer.gates[g] for g in gates], sums(b_h[gates], U[gates], h).transpose(1, 0, 2)))
        z = gate(s_x["z"] + s_h["z"])
        r = gate(s_x["r"] + s_h["r"]) if "r" in s_x else None
        if layer.reset == "after":
            a = fma32(r, s_h["n"], s_x["n"])
        elif layer.reset == "all":
            a = r * (s_x["n"] + s_h["n"])
        elif layer.reset == "before":
            a = s_x["n"] + sums(b_h[2:], U[2:], r * h)[:, 0]
        else:
            a = s_x["n"] + s_h["n"]
        n = activate(act, clip(a))
        return fma32(z, h - n, n)


def wild(rng: np.random.Generator, *shape: int) -> Array:
    """Finite floats of all kinds: moderate, zeros of both signs, subnormal, tiny and huge."""
    a = rng.standard_normal(shape).astype(np.float32)
    kind = rng.integers(0, 12, shape)
    a[kind == 0], a[kind == 1] = 0.0, -0.0
    a[kind == 2] *= np.float32(1e-40)
    a[kind == 3] *= np.float32(1e-20)
    return np.where(kind == 4, a * np.float32(1e19), a).astype(np.float32)


FUNCTIONS: tuple[tuple[Any, Any, float | None], ...] = (
    ("tanh", "sigmoid", None),
    ("tanh", "sigmoid", 0.75),
    ("relu", "hard_sigmoid", None),
    (("leaky_relu", 0.1), ("hard_sigmoid", 0.3, 0.4), 1.5),
    (("scaled_tanh", 1.5, 0.5), "softsign", None),
    ("softplus", ("affine", 0.25, 0.5), 2.0),
    (("elu", 0.7), "silu", 0.5),
    ("gelu", "sigmoid", None),
    ("gelu_tanh", "hard_sigmoid", 1.5),
    ("linear", ("thresholded_relu", 0.5), 1.0),
)


def check_specified_gru(net: ge.Network, x: Array, what: str, dtype: str) -> None:
    """Hidden states of a network that is one GRU layer, against the specification."""
    layer = net.layers[1]
    h = np.broadcast_to(layer.h0, (len(x), layer.width))
    wanted = np.stack([h := specified_gru(layer, x[:, t], h, dtype) for t in range(x.shape[1])], axis=1)
    for isa in each_isa():
        assert_bits(ge.load(net.tobytes(dtype)).run(x), wanted, f"{what}, {dtype}, {isa}")


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gru_is_as_specified(dtype: str, hidden: int, reset: str) -> None:
    """Promise: a GRU layer computes docs/NUMERICS.md to the bit, for every function, clip and size."""
    rng = np.random.default_rng(hidden)
    for number, (act, gate_act, clip) in enumerate(FUNCTIONS if hidden < 50 else FUNCTIONS[:2]):
        columns = int(rng.choice(SIZES[:9]))
        net = ge.Network()
        arrays = gru_arrays(rng, hidden, columns, reset)
        options = {"reset": reset, "activation": act, "gate_activation": gate_act, "clip": clip}
        net.output(net.gru(net.input(columns), **arrays, **options))
        x = random_input(rng, net, 1 + number, 3)
        check_specified_gru(net, x, f"hidden {hidden}, columns {columns}, {options}", dtype)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_wild_values_are_as_specified(dtype: str, reset: str) -> None:
    """Promise: subnormals, signed zeros, overflow, infinity and NaN come out as specified on every instruction set."""
    rng = np.random.default_rng(11)
    for hidden, columns in ((16, 5), (17, 33), (3, 64)):
        arrays = {name: wild(rng, *array.shape) for name, array in gru_arrays(rng, hidden, columns, reset).items()}
        if dtype == "float16":
            arrays |= {name: arrays[name].clip(-65504, 65504) for name in "WU"}
        for act, gate_act, clip in FUNCTIONS:
            net = ge.Network()
            h = net.gru(net.input(columns), reset=reset, activation=act, gate_activation=gate_act, clip=clip, **arrays)
            net.output(h)
            x = wild(rng, 9, 4, columns)
            x[7, 1, 2] = np.nan
            x[8, 0, 1], x[6, 3, 0] = np.inf, -np.inf
            check_specified_gru(net, x, f"reset {reset}, hidden {hidden}, {act}, {gate_act}, {clip}", dtype)


@pytest.mark.parametrize("make", [random_input, wild], ids=["moderate", "wild"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_and_pointwise_layers_are_as_specified(dtype: str, make: Callable[..., Array]) -> None:
    """Promise: dense, affine, add, multiply and concatenation compute docs/NUMERICS.md, section 3, to the bit."""
    for width in SIZES:
        rng = np.random.default_rng(width)
        columns = int(rng.choice(SIZES[:9]))
        M, b = wild(rng, width, 2 * columns), wild(rng, width)
        M = M.clip(-65504, 65504) if dtype == "float16" else M
        scale, shift = wild(rng, columns), wild(rng, columns)
        net = ge.Network()
        x = net.input(columns)
        a = net.affine(x, scale, shift)
        for y, name in ((net.dense([a, x], M, b, activation="tanh"), "dense"), (a, "affine"), (x, "x")):
            net.output(y, name)
        net.output(net.add(a, x), "add")
        net.output(net.multiply(a, x), "multiply")
        values = make(rng, net, 7) if make is random_input else make(rng, 7, columns)
        with np.errstate(all="ignore"):
            affine = fma32(values, scale, shift)
            both = np.concatenate([affine, values], axis=1)
            dense = specified_sums(b[np.newaxis], M[np.newaxis], both, dtype)[:, 0]
            wanted = [activate("tanh", dense), affine, values, affine + values, affine * values]
        for isa in each_isa():
            model = ge.load(net.tobytes(dtype))
            got = model.run(values)
            for (name, part), right in zip(model.outputs.items(), wanted):
                assert_bits(got[:, part], right, f"width {width}, columns {columns}, {name}, {dtype}, {isa}")


@pytest.mark.parametrize("width", SIZES)
def test_softmax_over_dense_is_softmax_of_dense(width: int) -> None:
    """Promise: a softmax head has the bits of the same sums followed by a softmax of their own, in every batch."""
    rng = np.random.default_rng(width)
    net = ge.Network()
    x = net.input(9)
    W = uniform(rng, 1, width, 9)
    y = net.dense(x, W)
    for name in ("softmax", "log_softmax"):
        net.output(net.dense(x, W, activation=name), f"dense {name}")
        net.output(net.activation(y, name), name)
    values = random_input(rng, net, 13)
    values[3, 2], values[4, 0] = np.inf, np.nan
    model = ge.load(net.tobytes())
    alone = np.array([model.run(v[np.newaxis])[0] for v in values])
    for isa in each_isa():
        got = model.run(values)
        assert_bits(got, alone, f"width {width}, {isa}")
        for name in ("softmax", "log_softmax"):
            part = model.outputs[f"dense {name}"], model.outputs[name]
            assert_bits(got[:, part[0]], got[:, part[1]], f"width {width}, {name}, {isa}")


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_folded_embeddings_are_as_specified(dtype: str, reset: str) -> None:
    """Promise: a folded embedding, alone or in front of other inputs, gives the bits of the product that it replaces."""
    for hidden in (1, 16, 33):
        rng = np.random.default_rng(hidden)
        net = ge.Network()
        tokens = net.tokens(21)
        e, f = (net.embedding(tokens, wild(rng, 21, width)) for width in (7, 5))
        g = net.gru([e, f], reset=reset, **gru_arrays(rng, hidden, 12, reset))
        net.output(net.dense(e, wild(rng, 18, 7).clip(-6e4, 6e4), wild(rng, 18)), "dense")
        net.output(g, "gru")
        x = random_input(rng, net, 40)
        e_rows = net.layers[1].E[x]
        dense = next(layer for layer in net.layers if layer.operation == "dense")
        gru = next(layer for layer in net.layers if layer.operation == "gru")
        rows = np.concatenate([e_rows, net.layers[2].E[x]], axis=1)
        h = gru.h0[np.newaxis]
        states = np.concatenate([h := specified_gru(gru, row[np.newaxis], h, dtype) for row in rows])
        densely = specified_sums(dense.b[np.newaxis], dense.W[np.newaxis], e_rows, dtype)[:, 0]
        wanted = np.concatenate([densely, states], axis=1)
        for fold in (True, False):
            model = ge.load(net.tobytes(dtype, fold=fold))
            for isa in each_isa():
                assert_bits(model.run(x), wanted, f"hidden {hidden}, reset {reset}, {dtype}, fold={fold}, {isa}")


def test_these_tests_can_fail() -> None:
    """Promise: assert_bits sees a single bit, a zero's sign and a missing NaN, and takes NaN for NaN."""
    a = np.array([1.0, 0.0, np.nan], np.float32)
    assert_bits(a, np.array([1.0, 0.0, -np.nan], np.float32), "NaN is NaN")
    for other in ([np.nextafter(np.float32(1), np.float32(2)), 0, np.nan], [1, -0.0, np.nan], [1, 0, 0]):
        with pytest.raises(AssertionError, match="1 of 3 differ"):
            assert_bits(np.array(other, np.float32), a, "must differ")
    assert bits(a).dtype == np.int32
