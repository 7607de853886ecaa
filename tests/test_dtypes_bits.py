# SPDX-License-Identifier: Apache-2.0
"""What the engine computes with weights of fewer bits, to the bit, and how near that is to the reference."""

from __future__ import annotations

import struct

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import Network, reference
from gru_engine.format import read, unpack
from gru_engine.numerics import fma32, int8_sums, sums
from gru_engine.precision import DTYPES, FLOAT32, to_int8
from gru_engine.records import PANELS, to_layout

from .helpers import Array, assert_bits, each_isa, gru_arrays, gru_network, uniform
from .random_networks import random_input, random_network
from .small_files import REDUCED, dense_network, kinds
from .test_format_damage import replaced, section_at
from .test_specified import activate


def mixed_file(rng: np.random.Generator, net: Network, types: list[str]) -> bytes:
    """A file whose matrices have these types in turn: a float32 file with its payload made anew."""
    data = net.tobytes()
    file = read(data)
    at = section_at(data, "PAYLOAD")[0]
    tensors, payload = bytearray(data[slice(*np.cumsum(section_at(data, "TENSORS")))]), b""
    turn = 0
    for i, tensor in enumerate(file.tensors):
        dtype = DTYPES.index(types[turn % len(types)]) if tensor.layout == PANELS else FLOAT32
        turn += tensor.layout == PANELS
        content = to_layout(tensor.layout, tensor.array, dtype).tobytes()
        struct.pack_into("<I", tensors, 64 * i + 4, dtype)
        struct.pack_into("<QQ", tensors, 64 * i + 24, at + len(payload), len(content))
        payload += content + bytes(-len(content) % 64)
    return replaced(replaced(data, "PAYLOAD", payload), "TENSORS", bytes(tensors))


@pytest.mark.parametrize("seed", range(16))
def test_types_may_be_mixed(seed: int) -> None:
    """Promise: W, U and U_n of one GRU, and different layers, may have different types; the bits are the same everywhere."""
    rng = np.random.default_rng(seed)
    reset = ("before", "after", "none", "all")[seed % 4]
    net = gru_network(rng, int(rng.choice([3, 16, 33])), int(rng.choice([1, 5, 18])), reset)
    types = [str(t) for t in rng.permutation(DTYPES)[: rng.integers(2, 5)]]
    data = mixed_file(rng, net, types)
    model, x = ge.load(data), random_input(rng, net, 9, 6)
    used = {tensor.dtype for tensor in read(data).tensors if tensor.layout == PANELS}
    assert len(used) > 1
    assert f", {' and '.join(t for t in DTYPES if t in used)}, digest" in model.summary()
    # The other types by the same widened weights in float32, where that is the same arithmetic.
    if "int8" not in types:
        wanted = ge.load(unpack(read(data)).tobytes()).run(x)
    else:
        wanted = np.array([model.run(v) for v in x])
        close = reference.run(unpack(read(data)), x)
        assert np.abs(wanted - close).max() < 0.05
    for isa in each_isa():
        assert_bits(model.run(x), wanted, f"seed {seed}, {types}, {isa}")
        stream = model.stream()
        assert_bits(np.array([stream.step(v) for v in x[0]]), wanted[0], f"seed {seed}, {types}, {isa}, stepped")


# ---- sums, to the bit


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("seed", range(12))
def test_sixteen_bits_are_widened(dtype: str, seed: int) -> None:
    """Promise: a file has the bits of the float32 file with the rounded weights, folded or not."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=100)
    x = random_input(rng, net, 5, 20)
    wanted = ge.load(net.rounded(dtype).tobytes(fold=False)).run(x)
    for fold in (True, False):
        model = ge.load(net.tobytes(dtype, fold=fold))
        for isa in each_isa():
            assert_bits(model.run(x), wanted, f"seed {seed}, {net!r}, fold={fold}, {isa}")


def test_every_sixteen_bit_number_is_widened_exactly() -> None:
    """Promise: all finite numbers, subnormals and zeros of both signs included, in both places of a pair."""
    for dtype in ("bfloat16", "float16"):
        patterns = np.arange(2**16, dtype=np.uint16)
        if dtype == "bfloat16":
            every = (patterns.astype(np.uint32) << 16).view(np.float32)
        else:
            every = patterns.view(np.float16).astype(np.float32)
        every = every[np.isfinite(every)]
        M = np.zeros((2 * len(every), 2), np.float32)
        M[0::2, 0] = M[1::2, 1] = every
        model = ge.load(dense_network(M, np.full(len(M), -0.0)).tobytes(dtype))
        wanted = sums(np.full((1, len(M)), -0.0, np.float32), M[np.newaxis], np.ones((1, 2), np.float32))[:, 0]
        assert (wanted == M.sum(axis=1)).all()
        for isa in each_isa():
            assert_bits(model.run(np.ones((1, 2), np.float32)), wanted, f"{dtype}, {isa}")


def awkward_rows(rng: np.random.Generator, columns: int) -> Array:
    """Vectors of all kinds."""
    x = rng.standard_normal((13, columns)).astype(np.float32)
    x[0] = 0
    x[1] = -0.0
    x[2] *= np.float32(1e30)
    x[3] *= np.float32(1e-30)
    x[4] *= np.float32(1e-42)  # below the least scale
    x[5, rng.integers(columns)] = np.nan
    x[6, rng.integers(columns)] = np.inf
    x[7, rng.integers(columns)] = -np.inf
    x[8] = np.float32(3.4028235e38) * rng.choice([-1, 1], columns).astype(np.float32)
    x[9] = 1 - 2.0**-24
    x[10] = rng.integers(-254, 255, columns) / np.float32(254)  # ties of a vector whose largest is 1
    x[10, rng.integers(columns)] = 1
    x[11, :-1] = 0
    x[12] = rng.choice([1e-38, 1.0], columns)
    return x


@pytest.mark.parametrize(
    "columns", [*range(1, 20), 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 200, 255, 256, 257, 300]
)
def test_int8_sums_are_as_specified(columns: int) -> None:
    """Promise: docs/NUMERICS.md, section 6, to the bit, on every instruction set, alone and in batches."""
    rng = np.random.default_rng(columns)
    for rows in (1, 16, 17, 40):
        M, b = uniform(rng, 1, rows, columns) * np.float32(10.0 ** rng.integers(-6, 6)), uniform(rng, 1, rows)
        M[rng.integers(rows)] *= rng.choice([0.0, 1e-40, 1e20])
        x = awkward_rows(rng, columns)
        wanted = int8_sums(b[np.newaxis], *to_int8(M[np.newaxis], "M"), x)[:, 0]
        assert np.isnan(wanted[5:8]).all()
        assert not np.isnan(wanted[[0, 1, 2, 3, 4, 9, 10, 11, 12]]).any()
        model = ge.load(dense_network(M, b).tobytes("int8"))
        for isa in each_isa():
            what = f"{columns} columns, {rows} rows, {isa}"
            assert_bits(model.run(x), wanted, what)
            assert_bits(np.array([model.run(v[np.newaxis])[0] for v in x]), wanted, f"{what}, alone")


def test_int8_sums_beyond_the_digits_of_float32() -> None:
    """Promise: sums of more than 2^24 are exact before they are rounded, once, to nearest even."""
    columns = 5000
    rng = np.random.default_rng(6)
    M = np.where(rng.random((33, columns)) < 0.9, 1, -1) * rng.uniform(0.9, 1, (33, columns))
    x = rng.uniform(0.9, 1, (3, columns)).astype(np.float32)
    scales, integers = to_int8(M[np.newaxis], "M")
    zero = np.zeros((1, 33), np.float32)
    wanted = int8_sums(zero, scales, integers, x)[:, 0]
    q = np.rint(x.astype(np.float64) / x.max(axis=1, keepdims=True) * 127).astype(np.int64)
    exact = q @ integers[0].astype(np.int64).T
    assert np.abs(exact).min() > 2**24
    assert (exact % 4 != 0).any()
    for isa in each_isa():
        assert_bits(ge.load(dense_network(M).tobytes("int8")).run(x), wanted, isa)


@pytest.mark.parametrize("reset", ["after", "before", "all"])
def test_int8_behind_a_folded_embedding(reset: str) -> None:
    """Promise: sums begin with the row of the table, which is that of the float32 weights; the rest is the product."""
    rng = np.random.default_rng(8)
    for hidden, rest in ((1, 1), (16, 9), (33, 30)):
        net = Network()
        t = net.tokens(11)
        e, other = net.embedding(t, uniform(rng, 1, 11, 6)), net.dense(t, uniform(rng, 1, rest, 11))
        arrays = gru_arrays(rng, hidden, 6 + rest, reset)
        net.output(net.gru([e, other], reset=reset, **arrays))
        data = net.tobytes("int8", fold=True)
        assert kinds(data) == ["Tokens", "Dense", "Gru"]
        E, D = net.layers[1].arrays["E"], net.layers[2].arrays["W"]
        W, U = arrays["W"].reshape(3, hidden, -1), arrays["U"].reshape(3, hidden, hidden)
        b_x, b_h = arrays["b_x"].reshape(3, hidden), arrays["b_h"].reshape(3, hidden)
        table = sums(b_x, W[..., :6], E)
        matrix = to_int8(W[..., 6:], "W")
        x, h, wanted = random_input(rng, net, 12), arrays["h0"][np.newaxis], []
        for token in x:
            r, z, n = int8_sums(table[token], *matrix, D[np.newaxis, :, token])[0][:, np.newaxis]
            h = specified_cell(reset, (r, z, n), h, U, b_h)
            wanted.append(h[0])
        for isa in each_isa():
            assert_bits(ge.load(data).run(x), np.array(wanted), f"hidden {hidden}, reset {reset}, {isa}")


def specified_cell(reset: str, s_x: tuple[Array, Array, Array], h: Array, U: Array, b_h: Array) -> Array:
    """docs/NUMERICS.md, section 2, of int8 matrices, sigmoid and tanh, from the sums of the input half."""

    def s(gates: slice, h: Array) -> Array:
        return int8_sums(b_h[gates], *to_int8(U[gates], "U"), h).transpose(1, 0, 2)

    s_r, s_z = s(slice(0, 2), h)
    r, z = activate(("sigmoid",), s_x[0] + s_r), activate(("sigmoid",), s_x[1] + s_z)
    if reset == "after":
        a = fma32(r, s(slice(2, 3), h)[0], s_x[2])
    elif reset == "all":
        a = r * (s_x[2] + s(slice(2, 3), h)[0])
    else:
        a = s_x[2] + s(slice(2, 3), r * h)[0]
    n = activate(("tanh",), a)
    return fma32(z, h - n, n)


def test_int8_needs_no_bound_on_the_state() -> None:
    """Promise: states beyond 1, set by hand or made by relu, are rounded like others."""
    rng = np.random.default_rng(9)
    net = Network()
    h = net.gru(net.input(3), activation="relu", **gru_arrays(rng, 20, 3))
    net.output(h)
    model = ge.load(net.tobytes("int8"))
    x, state = random_input(rng, net, 8), uniform(rng, 500, 20)
    y, after = model.run(x, state=state, return_state=True)
    wanted, state_wanted = reference.run(net, x, state=state, dtype="int8", return_state=True)
    assert np.abs(y - wanted).max() < 1e-3 * np.abs(wanted).max()
    assert np.abs(after - state_wanted).max() < 1e-3 * np.abs(state_wanted).max()
    assert np.abs(wanted).max() > 10


# ---- against the reference


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("seed", range(30))
def test_against_the_reference(dtype: str, seed: int) -> None:
    """Promise: as near to float64 with the same weights as a float32 file is to its own."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=150, discontinuous=False)
    x = random_input(rng, net, 3, 30)
    wanted = reference.run(net, x, dtype=dtype)
    got = ge.load(net.tobytes(dtype)).run(x)
    for name, part in net.outputs.items():
        error, magnitude = np.abs(got - wanted)[..., part].max(), np.abs(wanted[..., part]).max()
        assert error <= 2e-6 * magnitude, f"seed {seed}, {net!r}, output {name!r}: {error:g} at {magnitude:g}"


def test_int8_against_the_reference() -> None:
    """Promise: the same, but for vectors whose elements lie on the border of two integers: rare, and harmless."""
    close = 0
    seeds = range(60)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        net = random_network(rng, max_size=150, discontinuous=False)
        x = random_input(rng, net, 3, 30)
        wanted, plain = reference.run(net, x, dtype="int8"), reference.run(net, x)
        got = ge.load(net.tobytes("int8", fold=False)).run(x)
        errors, differences = [], []
        for part in net.outputs.values():
            magnitude = np.abs(wanted[..., part]).max() or 1
            errors.append(np.abs(got - wanted)[..., part].max() / magnitude)
            differences.append(np.abs(plain - wanted)[..., part].max() / magnitude)
        assert max(errors) < 5e-3, f"seed {seed}, {net!r}: {max(errors):g}"
        close += max(errors) <= 2e-6
    assert close >= 0.6 * len(seeds), f"{close} of {len(seeds)}"


def test_the_reference_rounds() -> None:
    """These tests can fail: the oracles of the types are far apart."""
    rng = np.random.default_rng(5)
    net = gru_network(rng, 40, 30)
    x = random_input(rng, net, 4, 20)
    exact = reference.run(net, x)
    assert (reference.run(net, x, dtype="float32") == exact).all()
    distance = {dtype: np.abs(reference.run(net, x, dtype=dtype) - exact).max() for dtype in REDUCED}
    assert 2e-5 < distance["float16"] < 1e-3 < distance["bfloat16"] < 1e-2
    assert 1e-3 < distance["int8"] < 3e-2
    weights_only = reference.run(net.rounded("int8"), x)
    assert np.abs(weights_only - reference.run(net, x, dtype="int8")).max() > 1e-4
    y, _ = reference.step(net, x[:, 0], dtype="int8")
    np.testing.assert_array_equal(y, reference.run(net, x[:, :1], dtype="int8")[:, 0])


def test_the_reference_of_int8_with_nan() -> None:
    net = dense_network(np.array([[1.0, 0.0], [0.0, 0.0]]))
    with np.errstate(invalid="ignore"):
        for value in (np.nan, np.inf):
            y = reference.run(net, np.array([[1, value], [1, 2]]), dtype="int8")
            assert np.isnan(y[0]).all()
            assert y[1].tolist() == [pytest.approx(1.0, rel=0.01), 0]
    assert reference.run(net, np.zeros((1, 2)), dtype="int8").tolist() == [[0, 0]]
