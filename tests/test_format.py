# SPDX-License-Identifier: Apache-2.0
"""Writing and reading files: round trips, the layout by hand, and everything that must be refused."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gru_engine
from gru_engine import Network, reference
from gru_engine.format import pack, read, unpack
from gru_engine.layers import Concat, Dense, Embedding, Gru, Tokens
from gru_engine.network import Value
from gru_engine.numerics import sums
from gru_engine.records import PANELS, SUMS, from_layout, tensor_size, to_layout

from .random_networks import random_input, random_network
from .small_files import FakeModel, embedding_network, gru_arrays, kinds, random_arrays, small_network

Array = npt.NDArray[Any]

SEEDS = range(40)


# ---- round trips


@pytest.mark.parametrize("seed", SEEDS)
def test_round_trip(seed: int) -> None:
    net = random_network(np.random.default_rng(seed), max_size=40)
    data = pack(net, fold=False)
    file = read(data)
    again = unpack(file)
    assert again.same(net)
    assert [layer.name for layer in again.layers] == [layer.name for layer in net.pruned().layers]
    assert again.metadata == net.metadata
    assert pack(again, fold=False) == data
    assert (again.state_size, again.causal, again.outputs) == (net.state_size, net.causal, net.outputs)


@pytest.mark.parametrize("seed", SEEDS)
def test_round_trip_of_a_folded_network(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=20, tokens=True, discontinuous=False)
    data = pack(net, fold=True)
    again = unpack(read(data))
    x = random_input(rng, net, 2, 7)
    y, state = reference.run(net, x, lengths=[7, 3], return_state=True)
    y_again, state_again = reference.run(again, x, lengths=[7, 3], return_state=True)
    np.testing.assert_allclose(y_again, y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state_again, state, rtol=1e-4, atol=1e-5)
    assert pack(again, fold=True) == data


def test_float64_networks_are_rounded_to_float32() -> None:
    net = random_network(np.random.default_rng(5), max_size=20, dtype=np.float64)
    rounded = unpack(read(pack(net, fold=False)))
    for mine, given in zip(rounded.layers, net.pruned().layers):
        for name, array in mine.arrays.items():
            np.testing.assert_array_equal(array, given.arrays[name].astype(np.float32))


def test_a_weight_beyond_float32_is_refused() -> None:
    net = Network()
    net.output(net.dense(net.input(1), [[1e39]], name="big"))
    with pytest.raises(ValueError, match=r"W of dense 'big' is 1e\+39 at \[0, 0\], beyond the range of float32"):
        pack(net)


def test_layers_that_reach_no_output_are_left_out() -> None:
    net = small_network()
    net.gru(Value(net, 1), *gru_arrays(3, 4, 3))
    assert pack(net) == pack(small_network())


def test_names_need_not_be_ascii() -> None:
    net = Network()
    net.output(net.input(1, name="größe"), name="日本")
    net.metadata["ключ"] = "值"
    again = unpack(read(pack(net)))
    assert (again.layers[0].name, list(again.outputs), again.metadata) == ("größe", ["日本"], {"ключ": "值"})


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sources_of_bytes(kind: Any) -> None:
    assert read(kind(pack(small_network()))).outputs[0].name == "p"


def test_bytes_of_version_1_do_not_change() -> None:
    """If this fails the format has changed: files of released versions must stay readable."""
    net = Network()
    t = net.tokens(3, name="t")
    x = net.concat([net.embedding(t, np.arange(6).reshape(3, 2)), net.dense(t, np.ones((1, 3)), [0.5])])
    h = net.gru(x, np.arange(9).reshape(3, 3) / 8, np.arange(3)[:, None] / 4, [0.25, 0.5, 1], reset="before")
    net.output(net.last(net.dense([h, x], np.ones((2, 4)), activation=("leaky_relu", 0.125))), name="y")
    net.metadata["a"] = 1
    digests = [hashlib.sha256(pack(net, fold=fold)).hexdigest()[:16] for fold in (False, True)]
    assert digests == ["5bd47b5866987a5f", "5c7313b0db29178d"]


# ---- the layout, byte by byte from docs/FORMAT.md


def test_file_by_hand() -> None:
    net = small_network()
    data = pack(net)
    assert data[:8] == bytes.fromhex("894752550d0a1a0a")
    mark, version, size, nodes, tensors, edges, outputs, golden = struct.unpack_from("<IIQIIIII", data, 8)
    assert (mark, version, size) == (0x01020304, 1, len(data))
    assert (nodes, tensors, edges, outputs, golden) == (3, 7, 2, 2, 0)
    assert struct.unpack_from("<I", data, 508)[0] == zlib.crc32(data[:508])
    assert struct.unpack_from("<8sQ48x", data, len(data) - 64) == (b"GRU_END\n", len(data))
    assert not any(data[44:48] + data[80:128] + data[384:508] + data[-48:])

    sections = []
    end = 512
    for i in range(8):
        kind, crc, offset, size, reserved = struct.unpack_from("<IIQQQ", data, 128 + 32 * i)
        assert (kind, offset, reserved) == (i + 1, end, 0)
        assert crc == zlib.crc32(data[offset : offset + size])
        assert size % 64 == 0
        sections.append(offset)
        end = offset + size
    assert end == len(data) - 64
    assert data[48:80] == hashlib.sha256(data[512 : sections[6]]).digest()
    tensor_at, node_at, edge_at, output_at, string_at, payload_at, metadata_at, golden_at = sections
    assert json.loads(data[metadata_at:golden_at]) == {"about": "small"}

    def string(offset: int) -> str:
        return data[string_at + offset : data.index(0, string_at + offset)].decode()

    # Node 1 is the GRU: reset after, scaled_tanh(1.5, 1) and sigmoid, clip 2.
    operation, width, first, count, flags, name = struct.unpack_from("<6I", data, node_at + 128)
    assert (operation, width, first, count, flags, string(name)) == (5, 3, 0, 1, 0, "")
    assert struct.unpack_from("<IffIff", data, node_at + 128 + 24) == (7, 1.5, 1, 1, 0, 0)
    assert struct.unpack_from("<fIII", data, node_at + 128 + 48) == (2, 0, 0, 0)
    none = 0xFFFFFFFF
    slots = struct.unpack_from("<8I", data, node_at + 128 + 64)
    assert slots == (0, 1, none, 2, 3, none, none, 4)
    # Node 2 is the dense layer with softmax.
    assert struct.unpack_from("<4I", data, node_at + 256) == (4, 2, 1, 1)
    assert string(struct.unpack_from("<I", data, node_at + 256 + 20)[0]) == "head"
    assert struct.unpack_from("<I", data, node_at + 256 + 24)[0] == 64
    assert struct.unpack_from("<2I", data, edge_at) == (0, 1)
    outputs_by_hand = [struct.unpack_from("<4I", data, output_at + 16 * i) for i in range(2)]
    assert [(node, string(name), *rest) for node, name, *rest in outputs_by_hand] == [(2, "p", 0, 2), (1, "h", 2, 3)]

    # Tensor 0 is W [3 gates][3 rows][2 columns] in one panel, tensor 1 is b_x, tensor 4 is h0.
    W, _, b_x, _ = gru_arrays(1, 3, 2)
    layout, dtype, rows, cols, gates, _, offset, size = struct.unpack_from("<6I2Q24x", data, tensor_at)
    assert (layout, dtype, rows, cols, gates, offset, size) == (1, 0, 3, 2, 3, payload_at, 2 * 3 * 64)
    for k in range(2):
        for gate in range(3):
            lanes = struct.unpack_from("<16f", data, offset + (k * 3 + gate) * 64)
            assert lanes == (*(W[gate * 3 + i, k] for i in range(3)), *[0] * 13)
    layout, _, rows, cols, gates, _, offset, size = struct.unpack_from("<6I2Q24x", data, tensor_at + 64)
    assert (layout, rows, cols, gates, offset, size) == (2, 1, 3, 3, payload_at + 384, 192)
    assert struct.unpack_from("<16f", data, offset + 64) == (*b_x[3:6], *[0] * 13)
    layout, _, rows, cols, gates, _, offset, size = struct.unpack_from("<6I2Q24x", data, tensor_at + 4 * 64)
    assert (layout, rows, cols, gates, size) == (0, 1, 3, 1, 12)
    assert struct.unpack_from("<16f", data, offset) == (1, 2, 3, *[0] * 13)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("cols", [1, 16, 19])
def test_layouts_by_their_definition(rows: int, cols: int) -> None:
    rng = np.random.default_rng(rows * cols)
    for gates in (1, 2, 3, 4):
        matrix = rng.normal(size=(gates, rows, cols)).astype(np.float32)
        flat = to_layout(PANELS, matrix)
        panels = -(-rows // 16)
        expected = np.zeros(panels * cols * gates * 16, np.float32)
        for gate, row, k in np.ndindex(gates, rows, cols):
            expected[((row // 16 * cols + k) * gates + gate) * 16 + row % 16] = matrix[gate, row, k]
        np.testing.assert_array_equal(flat, expected)
        assert tensor_size(PANELS, rows, cols, gates) == flat.nbytes
        np.testing.assert_array_equal(from_layout(PANELS, rows, cols, gates, flat), matrix)

        table = rng.normal(size=(rows, gates, cols)).astype(np.float32)
        flat = to_layout(SUMS, table)
        panels = -(-cols // 16)
        expected = np.zeros(rows * panels * gates * 16, np.float32)
        for row, gate, column in np.ndindex(rows, gates, cols):
            expected[((row * panels + column // 16) * gates + gate) * 16 + column % 16] = table[row, gate, column]
        np.testing.assert_array_equal(flat, expected)
        assert tensor_size(SUMS, rows, cols, gates) == flat.nbytes
        np.testing.assert_array_equal(from_layout(SUMS, rows, cols, gates, flat), table)


def test_reset_before_is_stored_apart() -> None:
    net = Network()
    W, U, b_x, b_h = gru_arrays(4, 5, 2)
    net.output(net.gru(net.input(2), W, U, b_x, b_h, reset="before", direction="reverse"))
    file = read(pack(net))
    node = file.nodes[1]
    assert (node.reset, node.reverse, sorted(node.tensors)) == ("before", True, [0, 1, 3, 4, 5, 6, 7])
    tensors = {slot: file.tensors[number].array for slot, number in node.tensors.items()}
    np.testing.assert_array_equal(tensors[3].reshape(10, 5), U[:10])
    np.testing.assert_array_equal(tensors[4].ravel(), b_h[:10])
    np.testing.assert_array_equal(tensors[5][0], U[10:])
    np.testing.assert_array_equal(tensors[6].ravel(), b_h[10:])


# ---- folding


def test_fold_of_a_whole_input() -> None:
    net, _, e = embedding_network()
    W, U, b_x, b_h = gru_arrays(21, 5, 4)
    D, d = random_arrays(22, (3, 4), (3,))
    net.output([net.gru(e, W, U, b_x, b_h), net.dense(e, D, d, activation="tanh")])
    assert kinds(pack(net, fold=False)) == ["Tokens", "Embedding", "Gru", "Dense", "Concat"]
    file = read(pack(net, fold=True))
    assert [node.kind.__name__ for node in file.nodes] == ["Tokens", "Gru", "Dense", "Concat"]
    E = random_arrays(20, (7, 4))[0]
    for node, matrix, bias, gates in ((file.nodes[1], W, b_x, 3), (file.nodes[2], D, d, 1)):
        assert 0 not in node.tensors
        assert 1 not in node.tensors
        table = file.tensors[node.tensors[2]].array
        expected = sums(bias.reshape(gates, -1), matrix.reshape(gates, -1, 4), E)
        assert table.tobytes() == expected.tobytes()


def test_fold_of_the_first_part_continues_the_same_chain() -> None:
    net, t, e = embedding_network()
    other = net.dense(t, random_arrays(23, (3, 7))[0])
    W, U, b_x, b_h = gru_arrays(24, 5, 4 + 3)
    net.output(net.gru([e, other], W, U, b_x, b_h))
    file = read(pack(net, fold=True))
    node = file.nodes[2]
    assert [n.kind.__name__ for n in file.nodes] == ["Tokens", "Dense", "Gru"]
    assert node.inputs == (0, 1)
    table, rest = (file.tensors[node.tensors[slot]].array for slot in (2, 0))
    E, x = random_arrays(20, (7, 4))[0], random_arrays(25, (7, 3))[0]
    whole = sums(b_x.reshape(3, 5), W.reshape(3, 5, 7), np.concatenate([E, x], axis=1))
    for token in range(7):
        assert sums(table[token], rest, x[token : token + 1]).tobytes() == whole[token].tobytes()


def test_what_is_not_folded() -> None:
    net, t, e = embedding_network()
    other = net.dense(t, random_arrays(23, (3, 7))[0])
    net.output(net.dense([e, other], random_arrays(26, (2, 7))[0]))  # one gate: four chains
    net.output(net.gru([e, other], *gru_arrays(27, 5, 7, gates=2), reset="none"))  # two chains
    net.output(net.gru([other, e], *gru_arrays(28, 5, 7)))  # not the first part
    net.output(e)
    assert pack(net, fold=True) == pack(net, fold=False)


def test_rest_of_a_folded_input_is_concatenated_once() -> None:
    net, t, e = embedding_network()
    a, b = (net.dense(t, random_arrays(seed, (3, 7))[0]) for seed in (30, 31))
    net.output(net.gru([e, a, b], *(np.stack([w, w]) for w in gru_arrays(32, 5, 10)), direction="bidirectional"))
    net.output([a, b], name="both")
    assert kinds(pack(net, fold=True)) == ["Tokens", "Dense", "Dense", "Concat", "Gru", "Gru", "Concat"]


def test_an_embedding_that_is_read_elsewhere_stays() -> None:
    net, _, e = embedding_network()
    net.output(net.gru(e, *gru_arrays(33, 5, 4)))
    net.output(e, name="e")
    assert kinds(pack(net, fold=True)) == ["Tokens", "Embedding", "Gru"]


def test_fold_auto_weighs_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    def folded(V: int, D: int, H: int) -> bool:
        net, _, e = embedding_network(V, D)
        net.output(net.gru(e, *gru_arrays(34, H, D)))
        return "Embedding" not in kinds(pack(net))

    assert folded(200, 2, 16), "below 16 MiB always"
    monkeypatch.setattr("gru_engine.pack.AUTO_FOLD_BYTES", 0)
    assert not folded(200, 2, 16), "200 * 48 floats for 200 * 2 + 48 * 2"
    # 5 * 48 floats of the table for 5 * 6 of E and 48 * 6 of W, but not for 7 tokens: 336 for 42 + 288.
    assert folded(5, 6, 16)
    assert not folded(7, 6, 16)


def test_one_hot_input_is_a_table() -> None:
    net = Network()
    W, U, b_x, b_h = gru_arrays(35, 5, 7)
    net.output(net.gru(net.tokens(7), W, U, b_x, b_h))
    file = read(pack(net, fold=False))
    table = file.tensors[file.nodes[1].tensors[2]].array
    np.testing.assert_array_equal(table.reshape(7, 15), (W + b_x[:, None]).T)


def test_fold_must_be_known() -> None:
    with pytest.raises(ValueError, match="fold must be True, False or 'auto', got 'yes'"):
        pack(small_network(), fold="yes")


def test_a_network_with_too_many_layers_is_refused() -> None:
    net = Network()
    x = net.input(1)
    for _ in range(65536):
        x = net.activation(x, "relu")
    net.output(x)
    with pytest.raises(ValueError, match="the network needs 65537 nodes, a file has at most 65536"):
        pack(net)


# ---- golden cases


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gru_engine, "load", FakeModel)


@pytest.mark.usefixtures("fake_engine")
def test_golden_cases() -> None:
    net = small_network()
    x = random_arrays(40, (5, 2))[0]
    y = reference.run(net, x)
    data = pack(net, golden=[(x, y, 1e-6), (x[:1], None, 0.0), (x.tolist(), y.astype(np.float32) + 1e-3, 0.002)])
    cases = read(data).golden
    assert [len(case.x) for case in cases] == [5, 1, 5]
    assert [case.framework is None for case in cases] == [False, True, False]
    np.testing.assert_array_equal(cases[0].x, x)
    np.testing.assert_array_equal(cases[0].engine, y.astype(np.float32))
    np.testing.assert_array_equal(cases[2].framework, y.astype(np.float32) + np.float32(1e-3))
    assert [case.tolerance for case in cases] == [np.float32(1e-6), 0, np.float32(0.002)]
    assert read(data).digest == read(pack(net)).digest, "golden cases are not part of what determines a result"


def test_golden_cases_of_the_engine() -> None:
    net = small_network()
    x = random_arrays(40, (5, 2))[0]
    data = pack(net, golden=[(x, reference.run(net, x), 1e-6)])
    (case,) = read(data).golden
    assert gru_engine.load(data).run(x).tobytes() == case.engine.tobytes()


@pytest.mark.usefixtures("fake_engine")
def test_golden_cases_of_tokens_and_of_sequences() -> None:
    net, _, e = embedding_network()
    net.output(net.last(net.gru(e, *gru_arrays(21, 5, 4))))
    tokens = [3, 0, 6]
    y = reference.run(net, tokens)
    for framework in (y, y[np.newaxis]):
        (case,) = read(pack(net, golden=[(np.array(tokens), framework, 1e-5)])).golden
        assert case.x.dtype == np.int32
        assert case.x.tolist() == tokens
        assert case.engine.shape == (1, 5)


@pytest.mark.usefixtures("fake_engine")
def test_golden_cases_that_are_refused() -> None:
    net = small_network()
    x = random_arrays(40, (5, 2))[0]
    y = reference.run(net, x)

    def refused(case: tuple[Any, Any, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            pack(net, golden=[(x, None, 0.0), case])

    refused((x, y + 0.01, 0.001), r"golden\[1\]: the engine's output differs from the framework's by up to 0.01")
    refused((x, y * np.nan, 0.001), r"golden\[1\]: the engine's output differs from the framework's by up to nan")
    refused((x[:, :1], None, 0.0), r"golden\[1\]: x must be an array \[T, 2\] with T > 0, got float32 \[5, 1\]")
    refused((x[:0], None, 0.0), r"golden\[1\]: x must be an array \[T, 2\] with T > 0, got float32 \[0, 2\]")
    refused((x, y[:4], 0.1), r"golden\[1\]: the framework's output must have the shape \[5, 5\], got \[4, 5\]")
    refused((x, y, -1.0), r"golden\[1\]: tolerance must not be negative, got -1.0")
    refused((x, None, np.inf), r"golden\[1\]: tolerance must be a finite float32, got inf")


# ---- saving


def test_save(tmp_path: Path) -> None:
    net = small_network()
    path = tmp_path / "model.gru"
    net.save(path, metadata={"extra": [1, 2.5, None]})
    assert os.listdir(tmp_path) == ["model.gru"]
    file = read(path)
    assert file.metadata == {"about": "small", "extra": [1, 2.5, None]}
    assert net.metadata == {"about": "small"}
    assert unpack(read(str(path))).same(net)
    net.save(str(path), fold=False)
    assert path.read_bytes() == net.tobytes(fold=False)
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_network()
    path = tmp_path / "model.gru"
    path.write_bytes(b"old")

    def fail(source: object, target: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        net.save(path)
    assert os.listdir(tmp_path) == ["model.gru"]
    assert path.read_bytes() == b"old"


def test_metadata_must_be_json() -> None:
    net = small_network()
    circle: list[Any] = []
    circle.append(circle)
    cases = [(np.float32(1), TypeError), (float("nan"), ValueError), (object(), TypeError), (circle, ValueError)]
    for value, error in [*cases, ("\ud800", ValueError)]:
        with pytest.raises(error, match="metadata cannot be expressed in JSON"):
            net.tobytes(metadata={"a": value})


def test_contents_of_a_file() -> None:
    data = pack(small_network())
    file = read(data)
    assert (file.size, file.version, len(file.digest)) == (len(data), 1, 32)
    gru = file.nodes[1]
    assert (gru.kind, gru.width, gru.inputs, gru.clip, str(gru.activation)) == (Gru, 3, (0,), 2, "scaled_tanh(1.5, 1)")
    assert (file.nodes[2].kind, file.nodes[2].name, str(file.nodes[2].activation)) == (Dense, "head", "softmax")
    assert [(o.name, o.node, o.first, o.width) for o in file.outputs] == [("p", 2, 0, 2), ("h", 1, 2, 3)]
    assert {Concat, Embedding, Tokens}.isdisjoint(node.kind for node in file.nodes)
    assert len(repr(file)) < 400
