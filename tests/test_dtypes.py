# SPDX-License-Identifier: Apache-2.0
"""Weights of fewer bits: how they are rounded and stored, what is refused, and what the engine makes of them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import Network, reference
from gru_engine.format import FormatError, pack, read, unpack
from gru_engine.network import Value
from gru_engine.numerics import int8_sums
from gru_engine.precision import BFLOAT16, DTYPES, FLOAT16, FLOAT32, INT8, rounded, to_int8
from gru_engine.records import PANELS, from_layout, tensor_size, to_layout

from .helpers import Array, assert_bits, each_isa, gru_arrays, gru_network, token_network
from .random_networks import random_input, random_network
from .small_files import REDUCED, dense_network, kinds
from .test_format_damage import edited, replaced, section_at

# ---- rounding


def nearest(value: float, candidates: Array) -> float:
    """The candidate next to a number, of two that are as near the one with an even place in the list."""
    distance = np.abs(candidates - value)
    near = np.flatnonzero(distance == distance.min())
    return float(candidates[near[0] if len(near) == 1 or near[0] % 2 == 0 else near[1]])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_are_the_nearest_of_all_numbers(dtype: str) -> None:
    patterns = np.arange(2**15, dtype=np.uint32)  # of all numbers from +0 on; their places are their bits
    every = (patterns << 16).view(np.float32) if dtype == "bfloat16" else patterns.astype(np.uint16).view(np.float16)
    every = every[np.isfinite(every)].astype(np.float64)
    rng = np.random.default_rng(1)
    middles = (every[:-1] + every[1:]) / 2
    values = np.concatenate([rng.choice(every, 100), rng.choice(middles, 300), rng.normal(size=100), middles[:4]])
    values = np.concatenate([values, np.nextafter(values.astype(np.float32), np.float32(np.inf))]).astype(np.float32)
    values = values[np.abs(values) <= every[-1]]
    values *= rng.choice([-1, 1], values.shape).astype(np.float32)
    got = rounded(values[np.newaxis], dtype, "W")[0]
    assert got.dtype == np.float32
    for value, result in zip(values, got):
        assert result == np.copysign(nearest(abs(float(value)), every), value), float(value).hex()
    assert_bits(rounded(got[np.newaxis], dtype, "W")[0], got, "rounded again")
    zeros = np.array([[0.0, -0.0]], np.float32)
    assert_bits(rounded(zeros, dtype, "W"), zeros, "zeros keep their signs")


def test_int8_is_the_nearest_multiple() -> None:
    rng = np.random.default_rng(2)
    W = rng.normal(size=(3, 40, 17)) * 10.0 ** rng.integers(-20, 20, (3, 40, 1))
    W[0, 3], W[1, 4], W[2, 5, 1:] = 0, -0.0, 0
    scales, integers = to_int8(W, "W")
    assert (scales.dtype, scales.shape, integers.dtype) == (np.float32, (3, 40), np.int8)
    for gate, row in np.ndindex(3, 40):
        scale = np.float32(np.abs(W[gate, row]).max() / 127)
        assert scales[gate, row] == scale
        for weight, integer in zip(W[gate, row], integers[gate, row]):
            assert abs(integer * float(scale) - weight) <= float(scale) * 0.5000001
    assert np.abs(integers).max() == 127
    assert sorted({*np.abs(integers).max(axis=-1).ravel()}) == [0, 127]
    values = rounded(W, "int8", "W")
    assert values.dtype == np.float64
    again = to_int8(values, "W")
    assert_bits(again[0], scales, "scales, rounded again")
    np.testing.assert_array_equal(again[1], integers)


def test_int8_of_ties_and_of_rows_that_vanish() -> None:
    scales, integers = to_int8(np.array([[127, 0.5, 1.5, 2.5, -0.5, -126.5], [1e-45, 0, 0, -1e-45, 0, 0]]), "W")
    assert integers[0].tolist() == [127, 0, 2, 2, 0, -126]
    assert (scales[1], integers[1].any()) == (0, False)
    assert to_int8(np.array([[3e-43, 1e-43]]), "W")[1][0, 0] <= 127  # a scale of few digits


def test_weights_that_become_infinite_are_refused() -> None:
    def refused(W: Any, dtype: str, message: str) -> None:
        for net in (dense_network(np.array(W)), gru_like(np.array(W))):
            with pytest.raises(ValueError, match=message):
                net.tobytes(dtype)
            with pytest.raises(ValueError, match=message):
                net.rounded(dtype)

    def gru_like(W: Array) -> Network:
        net = Network()
        net.output(net.gru(net.input(W.shape[1]), np.repeat(W, 3, axis=0), np.zeros((3 * len(W), len(W)))))
        return net

    refused([[1.0, 65520.0]], "float16", r"W of (dense|gru) '' is 65520.0 at \[0, 1\], beyond the range of float16")
    refused([[-1e30]], "float16", r"W of (dense|gru) '' is -1e\+30 at \[0, 0\], beyond the range of float16")
    refused([[3.4e38]], "bfloat16", r"W of (dense|gru) '' is 3.4e\+38 at \[0, 0\], beyond the range of bfloat16")
    for dtype in DTYPES:
        refused([[1e39]], dtype, r"W of (dense|gru) '' is 1e\+39 at \[0, 0\], beyond the range of float32")
    for W, dtype in (([[65519.0]], "float16"), ([[3.3961e38]], "bfloat16"), ([[3.4e38]], "int8")):
        assert np.isfinite(unpack(read(dense_network(np.array(W)).tobytes(dtype))).layers[1].arrays["W"]).all()
    U = np.zeros((6, 2))
    U[5, 1] = 1e5
    net = Network()
    net.output(net.gru(net.input(1), np.zeros((6, 1)), U, reset="before", name="g"))
    with pytest.raises(ValueError, match=r"U of gru 'g' is 100000.0 at \[5, 1\], beyond the range of float16"):
        net.tobytes("float16")


def test_what_is_no_matrix_is_not_rounded() -> None:
    net = Network()
    t = net.tokens(5)
    x = net.affine(net.dense(t, np.full((2, 5), 1e5)), [1e5 + 1 / 3, 1], [1 / 3, 1e5])
    h = net.gru(x, np.ones((6, 2)), np.ones((6, 2)), np.full(6, 1e5), np.full(6, 1 / 3), h0=[1 / 3, 1e5])
    net.output([h, net.embedding(t, np.full((5, 2), 1e5 / 3))])
    for dtype in REDUCED:
        whole, reduced = (
            {t.name or i: t for i, t in enumerate(read(net.tobytes(d, fold=False)).tensors)} for d in ("float32", dtype)
        )
        for key, tensor in whole.items():
            assert reduced[key].dtype == (dtype if tensor.layout == PANELS else "float32")
            if tensor.layout != PANELS:
                assert_bits(reduced[key].array, tensor.array, f"{dtype}, tensor {key}")


def test_dtype_must_be_known(tmp_path: Any) -> None:
    net = dense_network(np.ones((1, 1)))
    message = "dtype must be one of 'float32', 'bfloat16', 'float16', 'int8', got "
    for wrong in ("int4", "Float16", "", "f4", None, np.float32, np.dtype("float32"), 1, ["int8"]):
        for call in (
            lambda d: net.tobytes(d),
            lambda d: net.save(tmp_path / "m.gru", dtype=d),
            lambda d: net.rounded(d),
            lambda d: pack(net, dtype=d),
        ):
            with pytest.raises(ValueError, match=message):
                call(wrong)
    with pytest.raises(ValueError, match=message):
        reference.run(net, [[1.0]], dtype="int4")
    assert not list(tmp_path.iterdir())


def test_matrices_too_wide_for_int8() -> None:
    columns = 2**17
    net = dense_network(np.ones((1, columns + 1), np.float32))
    for call in (net.tobytes, net.rounded):
        with pytest.raises(ValueError, match="W of dense '' has 131073 columns; an int8 matrix has at most 131072"):
            call("int8")
    # The largest sums that there are: 2^17 * 127 * 127 and, with weights that the writer never makes, -2^17 * 128 * 127.
    data = dense_network(np.ones((1, columns), np.float32)).tobytes("int8")
    at, size = section_at(data, "PAYLOAD")
    payload = data[at : at + size]
    least = replaced(data, "PAYLOAD", payload[:64] + payload[64:].replace(b"\x7f", b"\x80"))
    scales = np.full((1, 1), 1 / 127, np.float32)
    for file, weight in ((data, 127), (least, -128)):
        assert np.unique(read(file).tensors[0].data[64:]).tolist() == sorted({0, weight} if len(payload) else {})
        for sign in (1, -1):
            x = np.full((1, columns), sign, np.float32)
            wanted = int8_sums(np.zeros((1, 1), np.float32), scales, np.full((1, 1, columns), weight, np.int8), x)[0]
            assert abs(wanted[0, 0] - sign * columns * weight / 127) < 0.01
            for isa in each_isa():
                assert_bits(ge.load(file).run(x), wanted, f"{weight} * {sign}, {isa}")


# ---- layout


def panels_by_definition(matrix: Array, dtype: int) -> bytes:
    """docs/FORMAT.md, one number after the other; the matrix is [gates][rows][cols] and already rounded."""
    gates, rows, cols = matrix.shape
    lines = range(-(-rows // 16))

    def at(gate: int, row: int, k: int) -> float:
        return float(matrix[gate, row, k]) if row < rows and k < cols else 0.0

    out = bytearray()
    if dtype == FLOAT32:
        for panel in lines:
            for k in range(cols):
                for gate in range(gates):
                    out += struct.pack("<16f", *(at(gate, panel * 16 + lane, k) for lane in range(16)))
    elif dtype == BFLOAT16:
        for panel in lines:
            for pair in range(-(-cols // 2)):
                for gate in range(gates):
                    for lane in range(16):
                        for i in range(2):
                            out += struct.pack("<f", at(gate, panel * 16 + lane, 2 * pair + i))[2:]
    elif dtype == FLOAT16:
        for panel in lines:
            for pair in range(-(-cols // 2)):
                for gate in range(gates):
                    for i in range(2):
                        out += struct.pack("<16e", *(at(gate, panel * 16 + lane, 2 * pair + i) for lane in range(16)))
    else:
        scales = np.abs(matrix).max(axis=2) / 127
        for panel in lines:
            for gate in range(gates):
                rows_of = range(panel * 16, panel * 16 + 16)
                out += struct.pack("<16f", *(scales[gate, row] if row < rows else 0 for row in rows_of))
            for quad in range(-(-cols // 4)):
                for gate in range(gates):
                    for lane in range(16):
                        for i in range(4):
                            row = panel * 16 + lane
                            weight = at(gate, row, 4 * quad + i)
                            out += struct.pack("<b", round(weight / scales[gate, row]) if weight else 0)
    return bytes(out)


@pytest.mark.parametrize("dtype", range(4), ids=DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 31, 32, 33])
def test_layouts_by_their_definition(rows: int, dtype: int) -> None:
    rng = np.random.default_rng(rows)
    for cols in (*range(1, 10), 16, 31):
        for gates in (1, 2, 3, 4):
            matrix = rounded(rng.normal(size=(gates, rows, cols)), DTYPES[dtype], "W")
            flat = to_layout(PANELS, matrix, dtype)
            what = f"{rows} rows, {cols} columns, {gates} gates, {DTYPES[dtype]}"
            assert flat.tobytes() == panels_by_definition(matrix, dtype), what
            group = (1, 2, 2, 4)[dtype]
            size = -(-rows // 16) * gates * 64 * (-(-cols // group) + (dtype == INT8))
            assert flat.nbytes == tensor_size(PANELS, rows, cols, gates, dtype) == size, what
            back = from_layout(PANELS, rows, cols, gates, flat, dtype)
            assert (back.dtype, back.shape) == (matrix.dtype, matrix.shape), what
            np.testing.assert_array_equal(back, matrix, what)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(20))
def test_round_trip(dtype: str, seed: int) -> None:
    """Promise: a file holds the rounded network to the bit, and that network makes the same file again."""
    for weights in (np.float32, np.float64):
        net = random_network(np.random.default_rng(seed), max_size=60, dtype=weights)
        data = net.tobytes(dtype, fold=False)
        file = read(data)
        back = unpack(file)
        assert back.same(net.rounded(dtype)), f"seed {seed}, {net!r}"
        assert back.tobytes(dtype, fold=False) == data, f"seed {seed}, {net!r}"
        assert net.rounded(dtype).rounded(dtype).same(net.rounded(dtype))
        assert net.rounded(dtype).tobytes(dtype, fold=False) == data
        matrices = [tensor for tensor in file.tensors if tensor.layout == PANELS]
        assert {tensor.dtype for tensor in matrices} <= {dtype}
        assert file.dtypes == ([dtype] if matrices else ["float32"])


@pytest.mark.parametrize("dtype", REDUCED)
@pytest.mark.parametrize("seed", range(10))
def test_round_trip_of_a_folded_network(dtype: str, seed: int) -> None:
    net = random_network(np.random.default_rng(seed), max_size=20, tokens=True)
    data = net.tobytes(dtype, fold=True)
    assert unpack(read(data)).tobytes(dtype, fold=True) == data, f"seed {seed}, {net!r}"


def test_rounded_networks_keep_everything_else() -> None:
    net = random_network(np.random.default_rng(3), max_size=20, dtype=np.float64)
    net.dense(Value(net, len(net.layers) - 1), np.ones((1, net.layers[-1].width)))  # reaches no output
    back = net.rounded("float32")
    assert back.outputs == net.outputs
    assert back.metadata is net.metadata
    assert [layer.name for layer in back.layers] == [layer.name for layer in net.layers]
    for a, b in zip(net.layers, back.layers):
        for name, array in a.arrays.items():
            assert_bits(b.arrays[name], array.astype(np.float32), f"{name} of {a.operation}")
            assert not b.arrays[name].flags.writeable


# ---- reading what is damaged


def reduced_file(dtype: str) -> bytes:
    """A GRU of 3 with reset before that reads 5 numbers: tensors 0 W, 1 b_x, 2 U, 3 b_h, 4 U_n, 5 b_hn, 6 h0."""
    net = Network()
    net.output(net.gru(net.input(5), reset="before", **gru_arrays(np.random.default_rng(1), 3, 5, "before")))
    return net.tobytes(dtype)


@pytest.mark.parametrize("dtype", REDUCED)
def test_elements_that_do_not_exist_must_be_zero(dtype: str) -> None:
    data = reduced_file(dtype)
    at, size = section_at(data, "PAYLOAD")
    record = section_at(data, "TENSORS")[0]
    nbytes = struct.unpack_from("<Q", data, record + 32)[0]
    file = read(data)
    whole = file.tensors[0]
    refused = 0
    for i in range(nbytes):
        changed = bytearray(data[at : at + size])
        changed[i] ^= 1
        try:
            other = read(replaced(data, "PAYLOAD", bytes(changed))).tensors[0]
        except FormatError as error:
            refused += "a weight of an output or input that does not exist is not zero" in str(error)
        else:
            assert (other.array != whole.array).any(), f"byte {i} is part of a weight"
    real = 3 * 3 * {"bfloat16": 5 * 2, "float16": 5 * 2, "int8": 5 + 4}[dtype]  # bytes of weights and scales that exist
    assert refused == nbytes - real


def test_damaged_records_of_reduced_tensors() -> None:
    # W has 5 columns: 3 pairs, or 2 quads and the scales, of 3 gates: 576 bytes.
    forged = [
        (dtype, *change)
        for dtype in REDUCED
        for change in (
            ("dtype", 0, "size at byte 544 is 576, expected the 960 of its shape"),
            ("dtype", 4, "dtype at byte 516 is 4, expected 0 to 3"),
            ("cols", 9, f"size at byte 544 is 576, expected the {768 if dtype == 'int8' else 960} of its shape"),
            ("cols", 2**28 + 1, "cols at byte 524 is 268435457, expected 1 to"),
            ("size", 960, "size at byte 544 is 960, expected the 576 of its shape"),
            ("rows", 17, "size at byte 544 is 576, expected the 1152 of its shape"),
        )
    ]
    forged += [("float16", "cols", 7, "expected the 768 of its shape")]
    forged += [("int8", "cols", 7, r"tensors\[0\] is PANELS of 3 rows, 7 columns, 3 gates, expected .* 5 columns")]
    for dtype, field, value, message in forged:
        data = edited(reduced_file(dtype), "TENSORS", 0, field, value)
        with pytest.raises(FormatError, match=message):
            read(data)
        with pytest.raises(FormatError):
            ge.load(data)
    wide = edited(reduced_file("int8"), "TENSORS", 0, "cols", 2**17 + 1)
    with pytest.raises(FormatError, match="cols at byte 524 is 131073, expected 1 to 131072"):
        read(wide)
    with pytest.raises(FormatError, match="131073 columns; an int8 matrix has at most 131072"):
        ge.load(wide)
    for layout in (1, 6):  # SUMS and PLAIN
        for dtype in (1, 2, 3):
            forged = edited(reduced_file("float32"), "TENSORS", layout, "dtype", dtype)
            with pytest.raises(
                FormatError, match=rf"dtype at byte \d+ is {dtype}, expected 0 \(float32\) with the lay"
            ):
                read(forged)
            with pytest.raises(FormatError, match=f"dtype {dtype}; with layout"):
                ge.load(forged)


def test_scales_that_are_not_finite_are_read_but_not_unpacked() -> None:
    data = reduced_file("int8")
    at, size = section_at(data, "PAYLOAD")
    payload = data[at : at + size]
    for scale in (np.nan, np.inf):
        file = read(replaced(data, "PAYLOAD", struct.pack("<f", scale) + payload[4:]))
        assert not np.isfinite(file.tensors[0].array[0, 0]).all()
        with pytest.raises(ValueError, match="W must be finite"):
            unpack(file)


# ---- what is said about a file


@pytest.mark.parametrize("dtype", DTYPES)
def test_summary_and_info(dtype: str, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from gru_engine.__main__ import main

    net = token_network(np.random.default_rng(1), 9, 16)
    path = tmp_path / "m.gru"
    x = np.array([1, 5, 8], np.int32)
    y = reference.run(net, x)
    net.save(path, dtype=dtype, fold=False, golden=[(x, y, 0.1)])
    model = ge.load(path)
    assert f", {dtype}, digest" in model.summary()
    assert main(["info", str(path)]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith(DTYPES)]
    tensors = read(path).tensors
    for name in {dtype, "float32"}:
        chosen = [t for t in tensors if t.dtype == name]
        assert f"{name}: {len(chosen)} tensors, {sum(t.data.nbytes for t in chosen)} bytes" in lines
    assert len(lines) == len({dtype, "float32"})
    assert main(["verify", str(path)]) == 0
    assert capsys.readouterr().out.endswith("verified\n")


def test_files_become_smaller() -> None:
    net = gru_network(np.random.default_rng(2), 256, 64)
    whole, half, quarter = (len(net.tobytes(dtype)) for dtype in ("float32", "float16", "int8"))
    assert half == len(net.tobytes("bfloat16"))
    assert 0.5 < half / whole < 0.53
    assert 0.25 < quarter / whole < 0.29


def test_fold_auto_knows_the_size_of_what_it_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gru_engine.pack.AUTO_FOLD_BYTES", 0)
    net = token_network(np.random.default_rng(3), 5, 16)  # a table of 5 * 48 floats for 5 * 6 of E and 48 * 6 of W
    assert "Embedding" not in kinds(net.tobytes())
    assert "Embedding" in kinds(net.tobytes("int8"))


def test_models_of_reduced_files_are_pickled_and_shared() -> None:
    import pickle

    net = gru_network(np.random.default_rng(4), 33, 7)
    x = random_input(np.random.default_rng(5), net, 4)
    for dtype in REDUCED:
        model = ge.load(net.tobytes(dtype))
        assert_bits(pickle.loads(pickle.dumps(model)).run(x), model.run(x), dtype)
