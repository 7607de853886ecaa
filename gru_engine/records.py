# SPDX-License-Identifier: Apache-2.0
"""The binary records, numbers and memory layouts of a ``.gru`` file, as docs/FORMAT.md defines them.

The writer (pack.py) and the reader (read.py) share them; the C reader shares nothing with either.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gru_engine.layers import (
    Activate,
    Add,
    Affine,
    Array,
    Attend,
    Attention,
    Blend,
    Concat,
    Context,
    Dense,
    Embedding,
    First,
    Gru,
    Input,
    Last,
    Layer,
    Max,
    Maximum,
    Mean,
    Multiply,
    Norm,
    Repeat,
    Slice,
    State,
    Subsample,
    Sums,
    Tokens,
    Window,
)
from gru_engine.precision import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    INT8,
    from_bfloat16,
    from_float16,
    from_int8,
    to_bfloat16,
    to_float16,
    to_int8,
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
MAX_AXES = 256
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
    State,
    Blend,
    Slice,
    Window,
    Norm,
    Mean,
    Max,
    Attend,
    Maximum,
    Subsample,
    Repeat,
    Attention,
    Sums,
)
"""An operation's code is its place here, from 1."""


def operation_code(kind: type[Layer]) -> int:
    """An operation's code; that of a context, which is an INPUT with a flag, too."""
    return OPERATIONS.index(Input if kind is Context else kind) + 1


PLAIN, PANELS, SUMS = range(3)
LAYOUTS = ("PLAIN", "PANELS", "SUMS")

ELEMENTS = ("<f4", "<u2", "<f2", "<i1")
"""What the bytes of a tensor are, by the code of its dtype; those of int8 begin with float32 scales."""
TOGETHER = (1, 2, 2, 4)
"""Columns of a matrix whose weights stand together, by the code of its dtype."""


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
    ("parameters", "<u4", (4,)),
    ("reserved_112", "V16"),
)
EDGE = _record(4, *_u32("node"))
OUTPUT = _record(16, *_u32("node name first width"))
GOLDEN = _record(
    64,
    *_u32("kind steps input_width output_rows output_width"),
    ("tolerance", "<f4"),
    *_u32("flags tokens context"),
    ("reserved_36", "V28"),
)
END_MARK = _record(64, ("mark", "V8"), ("file_size", "<u8"), ("reserved", "V48"))


GOLDEN_VECTORS, GOLDEN_TOKENS, GOLDEN_BOTH = range(3)
"""What the input of a golden case is."""
GOLDEN_CONTEXT = 4  # is added where there is a context


def golden_kind(vectors: bool, tokens: bool, context: bool) -> int:
    """The kind of a golden case whose input has vectors, tokens or both, with or without a context."""
    kind = GOLDEN_BOTH if vectors and tokens else GOLDEN_TOKENS if tokens else GOLDEN_VECTORS
    return kind + GOLDEN_CONTEXT * context


def round_up(size: int, to: int = ALIGNMENT) -> int:
    """The least multiple of ``to`` that is not below ``size``."""
    return -(-size // to) * to


def pad(data: bytes, fill: bytes = b"\0") -> bytes:
    """The bytes followed by ``fill`` up to a multiple of 64."""
    return data + fill * (round_up(len(data)) - len(data))


def tensor_size(layout: int, rows: int, cols: int, gates: int, dtype: int = FLOAT32) -> int:
    """Bytes of a tensor, without the padding behind it."""
    if layout == PLAIN:
        return rows * cols * 4
    if layout == PANELS:  # 64 bytes for each gate and columns that stand together, and for the scales of int8
        return round_up(rows, LANES) // LANES * (-(-cols // TOGETHER[dtype]) + (dtype == INT8)) * gates * 64
    return rows * round_up(cols, LANES) * gates * 4


# A tensor's `logical` array is [rows, cols] (PLAIN), [gates, rows, cols] (PANELS) or [rows, gates, cols] (SUMS).


def to_layout(layout: int, logical: Array, dtype: int = FLOAT32, what: str = "the tensor") -> Array:
    """A tensor in file order.

    Parameters
    ----------
    layout : int
    logical : float32 or, of PANELS, float64
    dtype : int
        Code of the type to which the weights are rounded; only PANELS can have another than float32.
    what : str
        What to call the array in an error message.

    Returns
    -------
    array [n] of ``ELEMENTS[dtype]``

    Raises
    ------
    ValueError
        If a number is beyond the range of the type, or an int8 matrix has too many columns.
    """
    if dtype == INT8:
        scales, integers = to_int8(logical, what)
        scale_bytes = _flat(_panels(scales[..., np.newaxis].astype("<f4"), 1)).view("<i1")
        return np.concatenate([scale_bytes, _flat(_panels(integers, TOGETHER[INT8]))], axis=1).ravel()
    if dtype == BFLOAT16:
        return _flat(_panels(to_bfloat16(logical, what).astype("<u2"), TOGETHER[dtype])).ravel()
    if dtype == FLOAT16:  # the two columns of a pair one after the other, 16 outputs each
        pairs = _panels(to_float16(logical, what).astype("<f2"), TOGETHER[dtype])
        return _flat(pairs.swapaxes(3, 4)).ravel()
    single = np.ascontiguousarray(logical, "<f4")
    if layout == PLAIN:
        return single.ravel()
    if layout == PANELS:
        return _flat(_panels(single, 1)).ravel()
    # [row][gate][panel][lane] -> [row][panel][gate][lane]
    padded = np.pad(single, ((0, 0), (0, 0), (0, -single.shape[2] % LANES)))
    return np.ascontiguousarray(padded.reshape(*padded.shape[:2], -1, LANES).transpose(0, 2, 1, 3)).ravel()


def _panels(matrix: Array, together: int) -> Array:
    """[gate][row][k] -> [panel][k / together][gate][lane][k % together], with zeros where there is nothing."""
    gates, rows, cols = matrix.shape
    padded = np.pad(matrix, ((0, 0), (0, -rows % LANES), (0, -cols % together)))
    return padded.reshape(gates, -1, LANES, -(-cols // together), together).transpose(1, 3, 0, 2, 4)


def _flat(panels: Array) -> Array:
    """All of a panel on one axis."""
    return np.ascontiguousarray(panels).reshape(len(panels), -1)


def from_layout(layout: int, rows: int, cols: int, gates: int, flat: Array, dtype: int = FLOAT32) -> Array:
    """A tensor's logical array.

    Parameters
    ----------
    layout, rows, cols, gates : int
    flat : array [n] of ``ELEMENTS[dtype]``
        As ``to_layout`` gives it.
    dtype : int

    Returns
    -------
    float32
        Of int8: float64, which holds the product of a scale and an int8 exactly.
    """
    if layout == PLAIN:
        return flat.reshape(rows, cols)
    if layout == SUMS:  # [row][panel][gate][lane] -> [row][gate][panel][lane]
        return flat.reshape(rows, -1, gates, LANES).transpose(0, 2, 1, 3).reshape(rows, gates, -1)[..., :cols]
    scales, weights = panels_of(cols, gates, flat, dtype)
    # [panel][k][gate][lane] -> [gate][panel][lane][k]
    matrix = weights.transpose(2, 0, 3, 1).reshape(gates, -1, weights.shape[1])[:, :rows, :cols]
    if dtype == INT8:
        return from_int8(scales.transpose(1, 0, 2).reshape(gates, -1)[:, :rows], matrix)
    if dtype == BFLOAT16:
        return from_bfloat16(matrix)
    return from_float16(matrix) if dtype == FLOAT16 else matrix


def panels_of(cols: int, gates: int, flat: Array, dtype: int) -> tuple[Array, Array]:
    """The elements of a matrix, those that belong to no output or no column included.

    Returns
    -------
    scales : float32 [panels, gates, 16]
        Of int8; of other types there are none, [panels, gates, 0].
    weights : array of ``ELEMENTS[dtype]`` [panels, columns, gates, 16]
        The number of columns is a multiple of those that stand together.
    """
    together = TOGETHER[dtype]
    line = gates * LANES
    scale_bytes = line * 4 if dtype == INT8 else 0
    panels = flat.reshape(-1, scale_bytes + -(-cols // together) * together * line)
    scales = np.ascontiguousarray(panels[:, :scale_bytes]).view("<f4").reshape(len(panels), gates, -1)
    weights = panels[:, scale_bytes:]
    if dtype == FLOAT16:  # [panel][pair][gate][2][lane] -> [panel][pair][2][gate][lane]
        ordered = weights.reshape(len(panels), -1, gates, together, LANES).transpose(0, 1, 3, 2, 4)
    else:  # [panel][group][gate][lane][together] -> [panel][group][together][gate][lane]
        ordered = weights.reshape(len(panels), -1, gates, LANES, together).transpose(0, 1, 4, 2, 3)
    return scales, ordered.reshape(len(panels), -1, gates, LANES)
