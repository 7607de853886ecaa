# SPDX-License-Identifier: Apache-2.0
"""Damaged and forged files: everything that the reader must refuse, and what it says."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest

import gru_engine
from gru_engine import Network
from gru_engine.format import FormatError, pack, read, unpack
from gru_engine.records import OPERATIONS

from .small_files import FakeModel, embedding_network, gru_arrays, kinds, random_arrays, small_network


def test_every_flipped_byte_is_noticed() -> None:
    data = pack(small_network())
    damaged = bytearray(data)
    for i in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            damaged[i] ^= mask
            with pytest.raises(FormatError):
                read(damaged)
            damaged[i] = data[i]
    read(damaged)


def test_every_truncation_is_noticed() -> None:
    data = pack(small_network())
    for length in range(len(data)):
        with pytest.raises(FormatError):
            read(data[:length])
    for extra in (b"\0", b"\0" * 64, data):
        with pytest.raises(FormatError):
            read(data + extra)


def test_messages_of_files_that_are_none() -> None:
    with pytest.raises(
        FormatError, match=r"not a \.gru file: it begins with 50 4b 03 04, expected 89 47 52 55 0d 0a 1a 0a"
    ):
        read(b"PK\x03\x04")
    with pytest.raises(FormatError, match="the file has 8 bytes, expected at least 576: it is cut off"):
        read(pack(small_network())[:8])
    with pytest.raises(FileNotFoundError):
        read("/nonexistent/model.gru")
    assert issubclass(FormatError, ValueError)


RECORDS = {"TENSORS": 64, "NODES": 128, "EDGES": 4, "OUTPUTS": 16}
FIELDS = {  # offset and struct code, from docs/FORMAT.md
    "TENSORS": {"layout": (0, "I"), "dtype": (4, "I"), "rows": (8, "I"), "cols": (12, "I"), "gates": (16, "I")}
    | {"name": (20, "I"), "offset": (24, "Q"), "size": (32, "Q"), "reserved": (40, "24s")},
    "NODES": {"operation": (0, "I"), "width": (4, "I"), "first_edge": (8, "I"), "edges": (12, "I"), "flags": (16, "I")}
    | {"name": (20, "I"), "activation": (24, "I"), "alpha": (28, "f"), "beta": (32, "f"), "gate": (36, "I")}
    | {"gate_alpha": (40, "f"), "clip": (48, "f"), "reset": (52, "I"), "direction": (56, "I"), "reserved": (60, "I")}
    | {f"slot{i}": (64 + 4 * i, "I") for i in range(8)}
    | {f"p{i}": (96 + 4 * i, "I") for i in range(4)}
    | {"reserved_112": (112, "16s")},
    "EDGES": {"node": (0, "I")},
    "OUTPUTS": {"node": (0, "I"), "name": (4, "I"), "first": (8, "I"), "width": (12, "I")},
}
SECTIONS = ("TENSORS", "NODES", "EDGES", "OUTPUTS", "STRINGS", "PAYLOAD", "METADATA", "GOLDEN")


def section_at(data: bytes | bytearray, section: str) -> tuple[int, int]:
    """Offset and size of a section."""
    offset, size = struct.unpack_from("<QQ", data, 128 + 32 * SECTIONS.index(section) + 8)
    return int(offset), int(size)


def resealed(data: bytes | bytearray) -> bytes:
    """The bytes with all checksums made right again."""
    sealed = bytearray(data)
    for i, section in enumerate(SECTIONS):
        offset, size = section_at(sealed, section)
        struct.pack_into("<I", sealed, 128 + 32 * i + 4, zlib.crc32(sealed[offset : offset + size]))
    sealed[48:80] = hashlib.sha256(sealed[512 : sum(section_at(sealed, "PAYLOAD"))]).digest()
    struct.pack_into("<I", sealed, 508, zlib.crc32(sealed[:508]))
    return bytes(sealed)


def edited(data: bytes, section: str, i: int, field: str, value: Any) -> bytes:
    """The bytes with one field changed, and right checksums."""
    offset, code = FIELDS[section][field]
    changed = bytearray(data)
    struct.pack_into("<" + code, changed, section_at(data, section)[0] + i * RECORDS[section] + offset, value)
    return resealed(changed)


def replaced(data: bytes, section: str, content: bytes) -> bytes:
    """The bytes with another content of a section, of any size, and right offsets and checksums."""
    offset, size = section_at(data, section)
    changed = bytearray(data[:offset] + content + data[offset + size :])
    moved = len(content) - size
    for i in range(SECTIONS.index(section), 8):
        old, old_size = struct.unpack_from("<QQ", data, 128 + 32 * i + 8)
        entry = (old, len(content)) if i == SECTIONS.index(section) else (old + moved, old_size)
        struct.pack_into("<QQ", changed, 128 + 32 * i + 8, *entry)
    struct.pack_into("<Q", changed, 16, len(changed))
    struct.pack_into("<Q", changed, len(changed) - 56, len(changed))
    return resealed(changed)


def test_the_tools_of_these_tests_make_good_files() -> None:
    data = pack(small_network())
    assert resealed(data) == data
    assert edited(data, "NODES", 1, "clip", 2.0) == data
    offset, size = section_at(data, "METADATA")
    assert replaced(data, "METADATA", data[offset : offset + size]) == data
    assert read(replaced(data, "METADATA", b"")).metadata == {}
    assert read(replaced(data, "METADATA", b'{"a": 2}'.ljust(64))).metadata == {"a": 2}


INF, NONE = float("inf"), 0xFFFFFFFF

# Tensors of the small network: 0 W, 1 b_x, 2 U, 3 b_h, 4 h0 (GRU), 5 W, 6 b (dense). Nodes: input, GRU, dense.
FORGED: list[tuple[str, int, str, Any, str]] = [
    ("TENSORS", 0, "layout", 3, r"TENSORS\[0\].layout at byte 512 is 3, expected 0, 1 or 2"),
    ("TENSORS", 0, "dtype", 4, r"TENSORS\[0\].dtype at byte 516 is 4, expected 0 to 3, which this release reads"),
    ("TENSORS", 1, "dtype", 1, r"TENSORS\[1\].dtype at byte 580 is 1, expected 0 \(float32\) with the layout SUMS"),
    ("TENSORS", 4, "dtype", 2, r"TENSORS\[4\].dtype at byte 772 is 2, expected 0 \(float32\) with the layout PLAIN"),
    ("TENSORS", 0, "dtype", 1, "size at byte 544 is 384, expected the 192 of its shape"),
    ("TENSORS", 2, "dtype", 2, "size at byte 672 is 576, expected the 384 of its shape"),
    ("TENSORS", 0, "rows", 0, r"TENSORS\[0\].rows at byte 520 is 0, expected 1 to 268435456"),
    ("TENSORS", 0, "rows", 2**28 + 1, "rows at byte 520 is 268435457"),
    ("TENSORS", 0, "rows", 2**28, "size at byte 544 is 384, expected the 6442450944 of its shape"),
    ("TENSORS", 0, "cols", 0, "cols at byte 524 is 0, expected 1 to 268435456"),
    ("TENSORS", 0, "cols", 3, "size at byte 544 is 384, expected the 576 of its shape"),
    ("TENSORS", 0, "gates", 0, "gates at byte 528 is 0, expected 1 to 4"),
    ("TENSORS", 0, "gates", 5, "gates at byte 528 is 5, expected 1 to 4"),
    ("TENSORS", 4, "gates", 3, "gates at byte 784 is 3, expected 1 to 1"),
    ("TENSORS", 0, "name", 64, "name at byte 532 is 64, expected an offset below 64"),
    ("TENSORS", 0, "offset", 2**63, r"TENSORS\[0\].offset at byte 536 is 9223372036854775808, expected \d+, where"),
    ("TENSORS", 1, "offset", 0, r"TENSORS\[1\].offset"),
    ("TENSORS", 0, "size", 2**64 - 64, "size at byte 544 is 18446744073709551552, expected the 384"),
    ("TENSORS", 0, "reserved", b"\0\1", r"TENSORS\[0\].reserved at byte 552 is 0001[0]+, expected zeros"),
    ("NODES", 0, "operation", 0, r"NODES\[0\].operation at byte 960 is 0, expected 1 to 2"),
    ("NODES", 0, "operation", 3, r"NODES\[0\].operation at byte 960 is 3, expected 1 to 2"),
    ("NODES", 1, "operation", 1, r"NODES\[1\].activation at byte .*, expected 0, as INPUT does not use it"),
    ("NODES", 2, "operation", 1, rf"NODES\[2\].operation at byte 1216 is 1, expected 3 to {len(OPERATIONS)}"),
    ("NODES", 1, "operation", 99, rf"NODES\[1\].operation at byte 1088 is 99, expected 1 to {len(OPERATIONS)}"),
    ("NODES", 1, "operation", 3, r"NODES\[1\].activation at byte 1112 is 7, expected 0, as EMBEDDING does not use it"),
    ("NODES", 0, "width", 0, r"NODES\[0\].width at byte 964 is 0, expected 1 to 16777216"),
    ("NODES", 0, "width", 2**24 + 1, "width at byte 964 is 16777217"),
    ("NODES", 0, "width", 3, r"NODES\[1\].tensors\[0\] is PANELS of 3 rows, 2 columns, 3 gates, expected .* 3 columns"),
    ("NODES", 1, "width", 4, r"NODES\[1\].tensors\[0\] is PANELS of 3 rows, .*, expected PANELS of 4 rows"),
    ("NODES", 1, "first_edge", 1, r"NODES\[1\].first_edge at byte 1096 is 1, expected 0, where the node's before end"),
    ("NODES", 1, "edges", 0, r"NODES\[1\].edges at byte 1100 is 0, expected 1 to 2"),
    ("NODES", 0, "edges", 1, "node at byte .* is 0, expected below 0, the node that reads it"),
    ("NODES", 2, "edges", 2, r"NODES\[2\].edges at byte 1228 is 2, expected at most the 1 that are left"),
    ("NODES", 2, "edges", 2**32 - 1, r"NODES\[2\].edges at byte 1228 is 4294967295, expected at most the 1"),
    ("NODES", 2, "edges", 0, r"NODES\[2\].edges .* is 0, expected 1 to 1"),
    ("NODES", 1, "flags", 1, r"NODES\[1\].flags at byte 1104 is 1, expected 0, as GRU does not use it"),
    ("NODES", 1, "name", 64, "expected an offset below 64"),
    ("NODES", 1, "activation", 18, r"NODES\[1\].activation at byte 1112 is 18, expected the code of an activation"),
    ("NODES", 1, "activation", 64, r"NODES\[1\].activation at byte 1112 is 64, expected the code of an activation"),
    ("NODES", 1, "gate", 65, "gate_activation at byte 1124 is 65"),
    ("NODES", 1, "alpha", INF, r"NODES\[1\].alpha at byte 1116 is inf, expected a finite number"),
    ("NODES", 1, "gate_alpha", 1.0, "gate_alpha at byte 1128 is 1.0, expected 0, as sigmoid does not use it"),
    ("NODES", 1, "gate_alpha", -0.0, "gate_alpha at byte 1128 is -0.0, expected 0"),
    ("NODES", 2, "gate", 1, r"NODES\[2\].gate_activation at byte 1252 is 1, expected 0, as DENSE does not use it"),
    ("NODES", 0, "activation", 1, r"NODES\[0\].activation at byte 984 is 1, expected 0, as INPUT does not use it"),
    ("NODES", 1, "clip", -1.0, r"NODES\[1\].clip at byte 1136 is -1.0, expected a finite number that is not negative"),
    ("NODES", 1, "clip", INF, "clip at byte 1136 is inf"),
    ("NODES", 1, "clip", float("nan"), "clip at byte 1136 is nan"),
    ("NODES", 1, "reset", 4, r"NODES\[1\].reset at byte 1140 is 4, expected 0 to 3"),
    ("NODES", 1, "reset", 1, r"NODES\[1\].tensors\[3\] is PANELS of 3 rows, 3 columns, 3 gates, expected .* 2 gates"),
    ("NODES", 1, "reset", 3, r"NODES\[1\].tensors\[0\] is PANELS of .* 3 gates, expected .* 2 gates"),
    ("NODES", 1, "direction", 2, r"NODES\[1\].direction at byte 1144 is 2, expected 0 or 1"),
    ("NODES", 1, "reserved", 1, "reserved_60 at byte 1148 is 1, expected zeros"),
    (
        "NODES",
        1,
        "p0",
        1,
        r"NODES\[1\] \(GRU\): starts from node 0, expected a value of contexts alone of width 3",
    ),
    (
        "NODES",
        1,
        "p1",
        1,
        r"NODES\[1\].parameters at byte 1184 is \[0, 1, 0, 0\], expected 0 for each that GRU does not use",
    ),
    (
        "NODES",
        0,
        "p3",
        7,
        r"NODES\[0\].parameters at byte 1056 is \[0, 0, 0, 7\], expected 0 for each that INPUT does not",
    ),
    ("NODES", 1, "reserved_112", b"\1", r"reserved_112 at byte 1200 is 010*, expected zeros"),
    ("NODES", 1, "slot0", NONE, r"NODES\[1\].tensors\[0\] is empty, expected PANELS of 3 rows, 2 columns, 3 gates"),
    ("NODES", 1, "slot0", 7, r"NODES\[1\].tensors\[0\] is 7, expected a number below 7"),
    ("NODES", 1, "slot1", NONE, r"NODES\[1\].tensors\[1\] is empty, expected SUMS of 1 rows, 3 columns, 3 gates"),
    ("NODES", 1, "slot2", 1, r"NODES\[1\].tensors\[2\] is 1, expected none"),
    ("NODES", 1, "slot3", 0, r"NODES\[1\].tensors\[3\] is PANELS of 3 rows, 2 columns, 3 gates, expected .* 3 columns"),
    ("NODES", 1, "slot4", 4, r"NODES\[1\].tensors\[4\] is PLAIN of 1 rows, 3 columns, 1 gates, expected SUMS"),
    ("NODES", 1, "slot5", 0, r"NODES\[1\].tensors\[5\] is 0, expected none"),
    ("NODES", 1, "slot7", NONE, r"NODES\[1\].tensors\[7\] is empty, expected PLAIN of 1 rows, 3 columns, 1 gates"),
    ("NODES", 0, "slot0", 0, r"NODES\[0\].tensors\[0\] is 0, expected none"),
    ("EDGES", 0, "node", 1, r"EDGES\[0\].node at byte 1344 is 1, expected below 1"),
    ("EDGES", 1, "node", NONE, r"EDGES\[1\].node at byte 1348 is 4294967295, expected below 2"),
    ("OUTPUTS", 0, "node", 3, r"OUTPUTS\[0\].node at byte 1408 is 3, expected below 3"),
    ("OUTPUTS", 0, "name", 0, r"OUTPUTS\[0\].name at byte 1412 is 0, expected a name of its own"),
    ("OUTPUTS", 1, "first", 3, r"OUTPUTS\[1\].first at byte 1432 is 3, expected 2, where the output before ends"),
    ("OUTPUTS", 1, "width", 2, r"OUTPUTS\[1\].width at byte 1436 is 2, expected 3, the node's"),
]


@pytest.mark.parametrize(("section", "i", "field", "value", "message"), FORGED)
def test_forged_fields(section: str, i: int, field: str, value: Any, message: str) -> None:
    data = pack(small_network())
    forged = edited(data, section, i, field, value)
    assert forged != data
    with pytest.raises(FormatError, match=message):
        read(forged)


HEADER_FORGED: list[tuple[int, str, Any, str]] = [
    (8, "I", 0x04030201, r"HEADER\[0\].byte_order at byte 8 is 67305985, expected 16909060"),
    (12, "I", 2, r"HEADER\[0\].version at byte 12 is 2, expected 1, which this release reads"),
    (16, "Q", 2**63, "file_size at byte 16 is 9223372036854775808, expected the file's 3328 bytes"),
    (24, "I", 0, "nodes at byte 24 is 0, expected 1 to 65536"),
    (24, "I", 65537, "nodes at byte 24 is 65537"),
    (24, "I", 65536, "section NODES has 384 bytes, expected 8388608"),
    (28, "I", 262145, "tensors at byte 28 is 262145, expected 0 to 262144"),
    (28, "I", 6, "section TENSORS has 448 bytes, expected 384"),
    (32, "I", 1048577, "edges at byte 32 is 1048577"),
    (32, "I", 1, r"section EDGES: byte 1348 of the padding is 1, expected 0"),
    (32, "I", 3, r"the nodes have 2 edges, section EDGES 3"),
    (36, "I", 0, "outputs at byte 36 is 0, expected 1 to 4096"),
    (36, "I", 4097, "outputs at byte 36 is 4097"),
    (40, "I", 4097, "golden at byte 40 is 4097, expected 0 to 4096"),
    (40, "I", 1, "golden case 0 begins at byte 3264; section GOLDEN ends at 3264"),
    (44, "I", 1, "reserved_44 at byte 44 is 01000000, expected zeros"),
    (100, "I", 1, "reserved_80 at byte 80"),
    (500, "I", 1, "reserved_384 at byte 384"),
    (128, "I", 2, r"section table\[0\].kind at byte 128 is 2, expected 1 \(TENSORS\)"),
    (136, "Q", 576, r"section table\[0\].offset at byte 136 is 576, expected 512, where the section before ends"),
    (144, "Q", 447, r"section table\[0\].size at byte 144 is 447, expected a multiple of 64"),
    (144, "Q", 2**64 - 64, r"size at byte 144 is 18446744073709551552, expected at most 2752, up to the end mark"),
    (152, "Q", 1, r"section table\[0\].reserved at byte 152"),
    (128 + 7 * 32 + 16, "Q", 64, r"section table\[7\].size at byte 368 is 64, expected at most 0, up to the end mark"),
]


@pytest.mark.parametrize(("offset", "code", "value", "message"), HEADER_FORGED)
def test_forged_header(offset: int, code: str, value: Any, message: str) -> None:
    forged = bytearray(pack(small_network()))
    struct.pack_into("<" + code, forged, offset, value)
    struct.pack_into("<I", forged, 508, zlib.crc32(forged[:508]))
    with pytest.raises(FormatError, match=message):
        read(forged)


def test_messages_of_checksums() -> None:
    data = pack(small_network())
    with pytest.raises(FormatError, match=r"HEADER\[0\].crc at byte 508 is \d+, expected \d+: the header is damaged"):
        read(data[:30] + b"\1" + data[31:])
    at = section_at(data, "PAYLOAD")[0]
    with pytest.raises(FormatError, match=r"section table\[5\].crc .*: section PAYLOAD is damaged"):
        read(data[:at] + b"\1" + data[at + 1 :])
    wrong_digest = bytearray(data)
    wrong_digest[48] ^= 1
    struct.pack_into("<I", wrong_digest, 508, zlib.crc32(wrong_digest[:508]))
    with pytest.raises(FormatError, match=r"HEADER\[0\].digest at byte 48"):
        read(wrong_digest)
    with pytest.raises(FormatError, match=r"end mark\[0\].mark"):
        read(data[:-64] + b"X" + data[-63:])
    with pytest.raises(FormatError, match=r"end mark\[0\].file_size at byte 3272 is"):
        read(data[:-56] + b"\1" + data[-55:])
    with pytest.raises(FormatError, match=r"end mark\[0\].reserved"):
        read(data[:-1] + b"\1")


def test_forged_sections() -> None:
    data = pack(small_network())

    def refused(section: str, content: bytes, message: str) -> None:
        with pytest.raises(FormatError, match=message):
            read(replaced(data, section, content))

    strings = data[slice(*np.cumsum(section_at(data, "STRINGS")))]
    assert strings.startswith(b"\0x\0head\0p\0h\0")
    refused("STRINGS", b"", "section STRINGS at byte 1472 has 0 bytes; expected a zero byte")
    refused("STRINGS", b"x" + strings[1:], "section STRINGS")
    refused("STRINGS", strings[:-1] + b"x", "section STRINGS")
    refused("STRINGS", strings + bytes(64), "has 128 bytes; .* the size 64")
    refused("STRINGS", strings.replace(b"head", b"h\xffad"), "section STRINGS at byte 1472 is not UTF-8")
    refused("STRINGS", strings.replace(b"\0h\0", b"\0p\0"), r"OUTPUTS\[1\].name .* expected a name of its own")
    payload = data[slice(*np.cumsum(section_at(data, "PAYLOAD")))]
    refused("PAYLOAD", payload + bytes(64), r"the tensors end at byte \d+, section PAYLOAD at \d+")
    refused("PAYLOAD", payload[:-64], r"TENSORS\[6\].size .* expected at most 0, up to the end of PAYLOAD")
    refused("PAYLOAD", payload[: 3 * 4] + b"\0\0\0\x80" + payload[4 * 4 :], r"TENSORS\[0\]: a weight .* is not zero")
    at = payload.index(struct.pack("<3f", 1, 2, 3)) + 12
    refused(
        "PAYLOAD", payload[:at] + b"\1" + payload[at + 1 :], r"TENSORS\[4\]: byte \d+ of the padding is 1, expected 0"
    )
    refused("METADATA", b"{}".ljust(128), "section METADATA has 128 bytes, expected 64")
    refused("METADATA", b"{".ljust(64), "section METADATA is not JSON in UTF-8")
    refused("METADATA", b"\xff".ljust(64), "section METADATA is not JSON in UTF-8")
    refused("METADATA", b'{"a": NaN}'.ljust(64), "NaN is not JSON")
    refused("METADATA", b"[]".ljust(64), "section METADATA holds a JSON list, expected an object")
    refused("METADATA", b"[" * 2**20, "section METADATA is not JSON in UTF-8")
    refused("GOLDEN", bytes(64), "the golden cases end at byte 3264, section GOLDEN at 3328")
    with pytest.raises(FormatError, match=r"section table\[6\].size at byte 336 is 63, expected a multiple of 64"):
        read(replaced(data, "METADATA", b"{}".ljust(63)))


def test_forged_graphs() -> None:
    net, t, e = embedding_network()
    x = net.concat([e, net.dense(t, random_arrays(23, (3, 7))[0])])
    h = net.gru(x, *gru_arrays(24, 5, 7))
    last = net.last(h)
    net.output(net.add(last, net.dense(last, random_arrays(25, (5, 5))[0])), name="a")
    net.output(net.affine(net.activation(last, "relu"), np.ones(5), np.ones(5)), name="b")
    data = pack(net, fold=False)
    names = "Tokens Embedding Dense Concat Gru Last Dense Add Activate Affine"
    assert kinds(data) == names.split()
    # Edges: 0 embedding, 1 dense, 2 3 concat, 4 gru, 5 last, 6 dense, 7 8 add, 9 activate, 10 affine.
    forged: list[tuple[str, int, str, int, str]] = [
        ("NODES", 3, "width", 8, r"NODES\[3\].width .* is 8, expected 7, from its inputs"),
        ("NODES", 5, "width", 4, r"NODES\[5\].width .* is 4, expected 5, from its inputs"),
        ("NODES", 7, "width", 4, r"NODES\[7\].width .* is 4, expected 5, from its inputs"),
        ("EDGES", 3, "node", 0, r"NODES\[3\] \(CONCAT\): input 1 is TOKENS, expected a vector"),
        ("EDGES", 9, "node", 0, r"NODES\[8\] \(ACTIVATE\): input 0 is TOKENS, expected a vector"),
        ("EDGES", 7, "node", 4, r"NODES\[7\] \(ADD\): reads a value per sequence where it cannot"),
        ("EDGES", 7, "node", 3, r"NODES\[7\] \(ADD\): reads a value per sequence where it cannot"),
        ("OUTPUTS", 1, "node", 4, r"OUTPUTS\[1\].node .* is 4, expected a value per sequence, or none of the outputs"),
        ("OUTPUTS", 1, "node", 0, r"OUTPUTS\[1\].node .* is 0, expected a node whose value is a vector"),
        ("NODES", 0, "width", 2**28 + 1, r"NODES\[0\].width .* is 268435457, expected 1 to 268435456"),
        ("NODES", 0, "width", 8, r"NODES\[1\].tensors\[0\] is PLAIN of 7 rows, .* expected PLAIN of 8 rows"),
    ]
    for section, i, field, value, message in forged:
        with pytest.raises(FormatError, match=message):
            read(edited(data, section, i, field, value))
    assert not unpack(read(edited(data, "NODES", 5, "operation", 12))).causal

    folded = pack(net, fold=True)
    assert kinds(folded) == ["Tokens", "Dense", "Gru", "Last", "Dense", "Add", "Activate", "Affine"]
    with pytest.raises(FormatError, match=r"NODES\[2\] \(GRU\): of two inputs the first is TOKENS"):
        read(edited(folded, "EDGES", 1, "node", 1))
    with pytest.raises(
        FormatError, match=r"NODES\[2\] \(GRU\): of two inputs the first is TOKENS or SUMS, .* three gates"
    ):
        read(edited(folded, "NODES", 2, "reset", 3))
    with pytest.raises(FormatError, match=r"NODES\[2\] \(GRU\): input 1 is TOKENS, expected a vector"):
        read(edited(folded, "EDGES", 2, "node", 0))


def test_forged_operations() -> None:
    net = Network()
    net.output(net.activation(net.first(net.input(2)), "linear"))
    data = pack(net)
    with pytest.raises(FormatError, match=r"NODES\[2\] \(LAST\): reads a value per sequence where it cannot"):
        read(edited(data, "NODES", 2, "operation", 11))
    net = Network()
    net.output(net.last(net.input(2)))
    data = pack(net)
    with pytest.raises(FormatError, match=r"NODES\[1\] \(EMBEDDING\): its input is a vector, expected TOKENS"):
        read(edited(data, "NODES", 1, "operation", 3))
    with pytest.raises(FormatError, match=r"NODES\[1\] \(LAST\): input 0 is TOKENS, expected a vector"):
        read(edited(data, "NODES", 0, "operation", 2))


def test_absurd_sizes_are_refused_without_memory() -> None:
    data = pack(small_network())
    forged = [edited(data, "TENSORS", 0, field, 2**28) for field in ("rows", "cols")]
    forged += [edited(data, "NODES", 0, "width", 2**24), edited(data, "NODES", 2, "edges", 2**32 - 1)]
    for offset, value in ((24, 65536), (28, 262144), (32, 1048576), (36, 4096), (40, 4096)):
        header = bytearray(data)
        struct.pack_into("<I", header, offset, value)
        struct.pack_into("<I", header, 508, zlib.crc32(header[:508]))
        forged.append(bytes(header))
    for bad in forged:
        tracemalloc.start()
        with pytest.raises(FormatError):
            read(bad)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200_000


def test_weights_that_are_not_finite_are_read_but_not_unpacked() -> None:
    data = pack(small_network())
    payload = section_at(data, "PAYLOAD")[0]
    file = read(resealed(data[:payload] + struct.pack("<f", np.nan) + data[payload + 4 :]))
    assert np.isnan(file.tensors[0].array[0, 0, 0])
    with pytest.raises(ValueError, match=r"W must be finite, got nan at \[0, 0\]"):
        unpack(file)


def test_forged_golden_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gru_engine, "load", FakeModel)
    net, _, e = embedding_network()
    net.output(e)
    data = pack(net, golden=[([3, 0, 6], None, 0.5)])
    at = section_at(data, "GOLDEN")[0]
    assert struct.unpack_from("<5IfII", data, at) == (1, 3, 1, 3, 4, 0.5, 0, 0)
    forged = [
        (0, "I", 0, r"golden case 0\[0\].kind at byte \d+ is 0, expected 1"),
        (4, "I", 0, "steps at byte .* expected at least 1"),
        (4, "I", 2**32 - 1, "output_rows"),
        (8, "I", 2, "input_width at byte .* is 2, expected 1"),
        (12, "I", 2, "output_rows at byte .* is 2, expected 3"),
        (16, "I", 5, "output_width at byte .* is 5, expected 4"),
        (20, "f", np.nan, "tolerance at byte .* is nan"),
        (24, "I", 2, "flags at byte .* is 2, expected 0 or 1"),
        (24, "I", 1, "golden case 0 ends at byte"),
        (28, "I", 1, "tokens at byte .* is 1, expected 0"),
        (60, "I", 1, "reserved_36"),
        (64, "i", -1, "golden case 0: a token is not from 0 to 6"),
        (64, "i", 7, "golden case 0: a token is not from 0 to 6"),
        (76, "i", 1, r"golden case 0: byte \d+ of the padding is 1, expected 0"),
    ]
    for offset, code, value, message in forged:
        changed = bytearray(data)
        struct.pack_into("<" + code, changed, at + offset, value)
        with pytest.raises(FormatError, match=message):
            read(resealed(changed))
    huge = bytearray(data)
    struct.pack_into("<I", huge, at + 4, 2**32 - 1)
    struct.pack_into("<I", huge, at + 12, 2**32 - 1)
    with pytest.raises(FormatError, match="golden case 0 ends at byte"):
        read(resealed(huge))
