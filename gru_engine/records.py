# SPDX-License-Identifier: Apache-2.0
"""The binary records, numbers and memory layouts of a ``.gru`` file, as docs/FORMAT.md defines them.

The writer (pack.py) and the reader (format.py) share them; the C reader shares nothing with either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.layers import (
    Activate,
    Add,
    Affine,
    Array,
    Concat,
    Dense,
    Embedding,
    First,
    Gru,
    Input,
    Last,
    Layer,
    Multiply,
    Tokens,
)

MAGIC = b"\x89GRU\r\n\x1a\n"
BYTE_ORDER = 0x01020304
VERSION = 1
END = b"GRU_END\n"
ALIGNMENT = 64  # of sections and tensors
NONE = 0xFFFFFFFF  # an empty tensor slot
LANES = 16  # outputs of a panel

MAX_NODES = 65536
MAX_TENSORS = 262144
MAX_EDGES = 1048576
MAX_GOLDEN = 4096
MAX_DIMENSION = 2**28

SECTIONS = ("TENSORS", "NODES", "EDGES", "OUTPUTS", "STRINGS", "PAYLOAD", "METADATA", "GOLDEN")
"""In file order; a section's kind is its place here, from 1."""
DIGESTED = 6  # the digest is over so many sections

OPERATIONS: tuple[type[Layer], ...] = (
    Input,
    Tokens,
    Embedding,
    Dense,
    Gru,
    Concat,
    Add,
    Multiply,
    Affine,
    Activate,
    Last,
    First,
)
"""An operation's code is its place here, from 1."""

PLAIN, PANELS, SUMS = range(3)
LAYOUTS = ("PLAIN", "PANELS", "SUMS")
FLOAT32 = 0


def _record(size: int, *fields: tuple[Any, ...]) -> np.dtype[np.void]:
    dtype = np.dtype(list(fields))
    assert dtype.itemsize == size
    return dtype


def _u32(names: str) -> list[tuple[str, str]]:
    return [(name, "<u4") for name in names.split()]


SECTION = _record(32, *_u32("kind crc"), ("offset", "<u8"), ("size", "<u8"), ("reserved", "V8"))
HEADER = _record(
    512,
    ("magic", "V8"),
    *_u32("byte_order version"),
    ("file_size", "<u8"),
    *_u32("nodes tensors edges outputs golden"),
    ("reserved_44", "V4"),
    ("digest", "V32"),
    ("reserved_80", "V48"),
    ("sections", SECTION, (len(SECTIONS),)),
    ("reserved_384", "V124"),
    ("crc", "<u4"),
)
TENSOR = _record(
    64, *_u32("layout dtype rows cols gates name"), ("offset", "<u8"), ("size", "<u8"), ("reserved", "V24")
)
NODE = _record(
    128,
    *_u32("operation width first_edge edges flags name"),
    ("activation", "<u4"),
    ("alpha", "<f4"),
    ("beta", "<f4"),
    ("gate_activation", "<u4"),
    ("gate_alpha", "<f4"),
    ("gate_beta", "<f4"),
    ("clip", "<f4"),
    *_u32("reset direction reserved_60"),
    ("tensors", "<u4", (8,)),
    ("reserved_96", "V32"),
)
EDGE = _record(4, *_u32("node"))
OUTPUT = _record(16, *_u32("node name first width"))
GOLDEN = _record(
    64,
    *_u32("kind steps input_width output_rows output_width"),
    ("tolerance", "<f4"),
    *_u32("flags reserved_28"),
    ("reserved_32", "V32"),
)
END_MARK = _record(64, ("mark", "V8"), ("file_size", "<u8"), ("reserved", "V48"))


def round_up(size: int, to: int = ALIGNMENT) -> int:
    """The least multiple of ``to`` that is not below ``size``."""
    return -(-size // to) * to


def pad(data: bytes, fill: bytes = b"\0") -> bytes:
    """The bytes followed by ``fill`` up to a multiple of 64."""
    return data + fill * (round_up(len(data)) - len(data))


def tensor_size(layout: int, rows: int, cols: int, gates: int) -> int:
    """Bytes of a tensor, without the padding behind it."""
    if layout == PLAIN:
        return rows * cols * 4
    if layout == PANELS:
        return round_up(rows, LANES) * cols * gates * 4
    return rows * round_up(cols, LANES) * gates * 4


# A tensor's `logical` array is [rows, cols] (PLAIN), [gates, rows, cols] (PANELS) or [rows, gates, cols] (SUMS).


def to_layout(layout: int, logical: Array) -> npt.NDArray[np.float32]:
    """The floats of a tensor in file order (one axis)."""
    if layout == PLAIN:
        return np.ascontiguousarray(logical, "<f4").ravel()
    outputs = 1 if layout == PANELS else 2  # the axis that goes in panels of 16
    padding = [(0, 0)] * 3
    padding[outputs] = (0, -logical.shape[outputs] % LANES)
    a, b, c = (padded := np.pad(logical, padding)).shape
    if layout == PANELS:  # [gate][panel][lane][k] -> [panel][k][gate][lane]
        ordered = padded.reshape(a, b // LANES, LANES, c).transpose(1, 3, 0, 2)
    else:  # [row][gate][panel][lane] -> [row][panel][gate][lane]
        ordered = padded.reshape(a, b, c // LANES, LANES).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(ordered, "<f4").ravel()


def from_layout(layout: int, rows: int, cols: int, gates: int, flat: Array) -> tuple[Array, Array]:
    """A tensor's logical array, and the floats of outputs that do not exist, which must be zero."""
    if layout == PLAIN:
        return flat.reshape(rows, cols), flat[:0]
    if layout == PANELS:  # [panel][k][gate][lane] -> [gate][panel][lane][k]
        logical = flat.reshape(-1, cols, gates, LANES).transpose(2, 0, 3, 1).reshape(gates, -1, cols)
        return logical[:, :rows], logical[:, rows:]
    # [row][panel][gate][lane] -> [row][gate][panel][lane]
    logical = flat.reshape(rows, -1, gates, LANES).transpose(0, 2, 1, 3).reshape(rows, gates, -1)
    return logical[..., :cols], logical[..., cols:]
