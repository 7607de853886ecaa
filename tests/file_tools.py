# SPDX-License-Identifier: Apache-2.0
"""Tools to damage ``.gru`` files on purpose: fields by name, and checksums made right again."""

from __future__ import annotations

import hashlib
import struct
import zlib

HEADER_SIZE, END_SIZE, SECTIONS = 512, 64, 8


def sign(data: bytes) -> bytes:
    """The bytes with the CRC of each section, the digest and the header's CRC made right, as far as places make sense."""
    file = bytearray(data)
    if len(file) < HEADER_SIZE + END_SIZE:
        return bytes(file)
    for i in range(SECTIONS):
        offset, size = struct.unpack_from("<QQ", file, 128 + 32 * i + 8)
        if offset + size <= len(file):
            struct.pack_into("<I", file, 128 + 32 * i + 4, zlib.crc32(file[offset : offset + size]))
    offset, size = struct.unpack_from("<QQ", file, 128 + 32 * 5 + 8)  # PAYLOAD ends what the digest is over
    if HEADER_SIZE <= offset + size <= len(file):
        file[48:80] = hashlib.sha256(file[HEADER_SIZE : offset + size]).digest()
    struct.pack_into("<I", file, 508, zlib.crc32(file[:508]))
    return bytes(file)


def section(data: bytes, number: int) -> tuple[int, int]:
    """Offset and size of a section, 0 (TENSORS) to 7 (GOLDEN)."""
    offset, size = struct.unpack_from("<QQ", data, 128 + 32 * number + 8)
    return offset, size


def edited_node(data: bytes, node: int, offset: int, value: int) -> bytes:
    """The file with another u32 in a node record, checksums and digest right."""
    changed = bytearray(data)
    struct.pack_into("<I", changed, section(data, 1)[0] + 128 * node + offset, value)
    return sign(bytes(changed))


def fields(data: bytes) -> list[tuple[str, int, str]]:
    """Every field of every record: its name, its offset, its ``struct`` code."""
    found = [(f"header.{i}", i, "<I") for i in (8, 12, 24, 28, 32, 36, 40, 44, 80, 384)] + [("header.16", 16, "<Q")]
    for i in range(SECTIONS):
        at = 128 + 32 * i
        found += [
            (f"section{i}.kind", at, "<I"),
            (f"section{i}.offset", at + 8, "<Q"),
            (f"section{i}.size", at + 16, "<Q"),
        ]
        found += [(f"section{i}.reserved", at + 24, "<Q")]
    counts = struct.unpack_from("<4I", data, 24)  # nodes, tensors, edges, outputs
    for number, name, size, count in (
        (0, "tensor", 64, counts[1]),
        (1, "node", 128, counts[0]),
        (2, "edge", 4, counts[2]),
        (3, "output", 16, counts[3]),
    ):
        start = section(data, number)[0]
        for i in range(count):
            for at in range(0, size, 4):
                found.append((f"{name}{i}.{at}", start + i * size + at, "<I"))
            if name == "tensor":
                found += [(f"tensor{i}.{at} (u64)", start + i * size + at, "<Q") for at in (24, 32)]
    start, size = section(data, 4)
    found += [(f"strings.{at}", start + at, "<B") for at in range(size)]
    found += [
        ("end.mark", len(data) - 64, "<I"),
        ("end.size", len(data) - 56, "<Q"),
        ("end.reserved", len(data) - 4, "<I"),
    ]
    return found


VALUES = (
    *range(24),
    *(47, 63, 64, 65, 128, 2**12, 2**16, 2**24, 2**24 + 1, 2**28, 2**28 + 1, 2**31 - 1, 2**31, 2**32 - 17, 2**32 - 1),
    *(0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x80000000, 0x00000001),
    *(2**32, 2**40, 2**48, 2**62, 2**63 - 64, 2**63, 2**64 - 64, 2**64 - 1),
)
"""Values that fields should not have, or only some fields may."""


def with_tensors(data: bytes, records: list[bytes]) -> bytes:
    """The file with these tensor records behind its own: sections, offsets and counts are moved, nothing is checked."""
    more = 64 * len(records)
    header, parts = (
        bytearray(data[:HEADER_SIZE]),
        [data[a : a + n] for a, n in (section(data, i) for i in range(SECTIONS))],
    )
    struct.pack_into("<Q", header, 16, len(data) + more)
    struct.pack_into("<I", header, 28, struct.unpack_from("<I", data, 28)[0] + len(records))
    struct.pack_into("<Q", header, 128 + 16, len(parts[0]) + more)
    for i in range(1, SECTIONS):
        struct.pack_into("<Q", header, 128 + 32 * i + 8, section(data, i)[0] + more)
    own = bytearray(parts[0])
    for at in range(24, len(own), 64):
        struct.pack_into("<Q", own, at, struct.unpack_from("<Q", own, at)[0] + more)
    end = bytearray(data[-END_SIZE:])
    struct.pack_into("<Q", end, 8, len(data) + more)
    return sign(b"".join([header, own, *records, *parts[1:], end]))
