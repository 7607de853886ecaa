# SPDX-License-Identifier: Apache-2.0
"""The reader: bytes of a ``.gru`` file -> its contents, every byte of them checked (docs/FORMAT.md).

It is independent of the C reader and, as it checks more than what can do harm, a little stricter.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gru_engine import activations, records
from gru_engine.activations import Activation
from gru_engine.arguments import MAX_VOCABULARY, MAX_WIDTH
from gru_engine.errors import FormatError
from gru_engine.layers import (
    RESETS,
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
from gru_engine.network import MAX_CONCAT, MAX_OUTPUTS
from gru_engine.records import NONE, PANELS, PLAIN, SUMS


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor: its record and its floats in file order."""

    layout: int
    rows: int
    cols: int
    gates: int
    name: str
    floats: Array = dataclasses.field(repr=False)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Layout, rows, cols and gates."""
        return self.layout, self.rows, self.cols, self.gates

    @property
    def array(self) -> Array:
        """[rows, cols] (PLAIN), [gates, rows, cols] (PANELS) or [rows, gates, cols] (SUMS)."""
        return records.from_layout(*self.shape, self.floats)[0]


@dataclass(frozen=True, eq=False)
class Node:
    """A node of the program."""

    kind: type[Layer]
    width: int
    inputs: tuple[int, ...]
    name: str
    per_sequence: bool
    activation: Activation
    gate_activation: Activation
    clip: float | None
    reset: str
    reverse: bool
    tensors: dict[int, int]  # slot -> number of the tensor


@dataclass(frozen=True)
class Output:
    """A named part of the output vector."""

    name: str
    node: int
    first: int
    width: int


@dataclass(frozen=True, eq=False)
class Golden:
    """An input with the outputs that must come of it."""

    x: Array  # float32 [T, I] or int32 tokens [T]
    engine: Array  # float32 [T, O], or [1, O] if the outputs are per sequence: bit for bit
    framework: Array | None  # likewise, within the tolerance
    tolerance: float


@dataclass(frozen=True, eq=False)
class File:
    """The contents of a file."""

    size: int  # bytes
    version: int
    digest: bytes  # SHA-256 of everything that determines a result
    tensors: list[Tensor] = dataclasses.field(repr=False)
    nodes: list[Node] = dataclasses.field(repr=False)
    outputs: list[Output]
    metadata: dict[str, Any]
    golden: list[Golden] = dataclasses.field(repr=False)


def read(source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> File:
    """The contents of a file, completely checked.

    Parameters
    ----------
    source : path, or the bytes of a file

    Raises
    ------
    FormatError
        Naming the field, its offset, its value and what was expected.
    OSError
        If the file cannot be read.
    """
    data = bytes(source) if isinstance(source, (bytes, bytearray, memoryview)) else Path(source).read_bytes()
    header = _read_header(data)
    counts = {name: int(header.records[0][name.lower()]) for name in ("TENSORS", "NODES", "EDGES", "OUTPUTS", "GOLDEN")}
    places = _read_sections(data, header)
    tensor_table = _Table("TENSORS", data, places["TENSORS"], records.TENSOR, counts["TENSORS"])
    node_table = _Table("NODES", data, places["NODES"], records.NODE, counts["NODES"])
    edge_table = _Table("EDGES", data, places["EDGES"], records.EDGE, counts["EDGES"])
    output_table = _Table("OUTPUTS", data, places["OUTPUTS"], records.OUTPUT, counts["OUTPUTS"])
    strings = _Strings(data, places["STRINGS"])
    tensors = _read_tensors(data, places["PAYLOAD"], tensor_table, strings)
    nodes = _read_nodes(node_table, edge_table, strings, tensors)
    outputs = _read_outputs(output_table, strings, nodes)
    return File(
        size=len(data),
        version=records.VERSION,
        digest=header.records[0]["digest"].tobytes(),
        tensors=tensors,
        nodes=nodes,
        outputs=outputs,
        metadata=_read_metadata(data[places["METADATA"]]),
        golden=_read_golden(data, places["GOLDEN"], counts["GOLDEN"], nodes, outputs),
    )


# ---- records


class _Table:
    """The records of a section and where they stand."""

    def __init__(self, name: str, data: bytes, place: slice, dtype: np.dtype[Any], count: int) -> None:
        size, content = place.stop - place.start, count * dtype.itemsize
        if size != records.round_up(content):
            raise FormatError(f"section {name} has {size} bytes, expected {records.round_up(content)}")
        _check_zero(data, place.start + content, place.stop, f"section {name}")
        self.name, self.start = name, place.start
        self.records: Array = np.frombuffer(data, dtype, count, place.start)

    def check(self, ok: Any, i: int, field: str, expected: object) -> None:
        """Raises an error about a field of record i unless ``ok``."""
        if not ok:
            raise FormatError(f"{self.where(i, field)}, expected {expected}")

    def where(self, i: int, field: str) -> str:
        """A field of record i, its offset and value, for a message."""
        dtype, value = self.records.dtype, self.records[i][field]
        shown = value.tobytes().hex() if dtype[field].kind == "V" else value.tolist()
        return f"{self.name}[{i}].{field} at byte {self.start + i * dtype.itemsize + _offset(dtype, field)} is {shown}"

    def check_reserved(self, i: int) -> None:
        """The reserved bytes of record i are zero."""
        for field in self.records.dtype.names or ():
            if field.startswith("reserved"):
                self.check(_is_zero(self.records[i][field]), i, field, "zeros")


def _offset(dtype: np.dtype[Any], field: str) -> int:
    return int(dtype.fields[field][1])  # type: ignore[index]


def _is_zero(value: Any) -> bool:
    """Whether all bytes are zero (a float -0 is not)."""
    return not any(value.tobytes())


def _check_zero(data: bytes, start: int, stop: int, what: str) -> None:
    if data.count(0, start, stop) != stop - start:
        at = next(i for i in range(start, stop) if data[i])
        raise FormatError(f"{what}: byte {at} of the padding is {data[at]}, expected 0")


class _Strings:
    """Section STRINGS."""

    def __init__(self, data: bytes, place: slice) -> None:
        self.bytes = data[place]
        content = len(self.bytes.rstrip(b"\0")) + 1
        if self.bytes[:1] != b"\0" or self.bytes[-1:] != b"\0" or len(self.bytes) != records.round_up(content):
            raise FormatError(
                f"section STRINGS at byte {place.start} has {len(self.bytes)} bytes; expected a zero byte at its "
                f"beginning and its end, and the size {records.round_up(content)}"
            )
        try:
            self.bytes.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"section STRINGS at byte {place.start} is not UTF-8: {error}") from None

    def get(self, table: _Table, i: int) -> str:
        """The name of record i."""
        offset = int(table.records[i]["name"])
        table.check(offset < len(self.bytes), i, "name", f"an offset below {len(self.bytes)}")
        try:
            return self.bytes[offset : self.bytes.index(0, offset)].decode()
        except UnicodeDecodeError:
            raise FormatError(f"{table.where(i, 'name')}, expected the offset of a UTF-8 string") from None


# ---- header, sections, metadata


def _read_header(data: bytes) -> _Table:
    """The checked header as a table of one record."""
    if data[:8] != records.MAGIC:
        raise FormatError(f"not a .gru file: it begins with {data[:8].hex(' ')}, expected {records.MAGIC.hex(' ')}")
    least = records.HEADER.itemsize + records.END_MARK.itemsize
    if len(data) < least:
        raise FormatError(f"the file has {len(data)} bytes, expected at least {least}: it is cut off")
    table = _Table("HEADER", data, slice(0, records.HEADER.itemsize), records.HEADER, 1)
    header = table.records[0]
    table.check(header["byte_order"] == records.BYTE_ORDER, 0, "byte_order", records.BYTE_ORDER)
    table.check(header["version"] == records.VERSION, 0, "version", f"{records.VERSION}, which this release reads")
    crc = zlib.crc32(data[: _offset(records.HEADER, "crc")])
    table.check(header["crc"] == crc, 0, "crc", f"{crc}: the header is damaged")
    table.check(header["file_size"] == len(data), 0, "file_size", f"the file's {len(data)} bytes")
    for field, low, high in (
        ("nodes", 1, records.MAX_NODES),
        ("tensors", 0, records.MAX_TENSORS),
        ("edges", 0, records.MAX_EDGES),
        ("outputs", 1, MAX_OUTPUTS),
        ("golden", 0, records.MAX_GOLDEN),
    ):
        table.check(low <= header[field] <= high, 0, field, f"{low} to {high}")
    table.check_reserved(0)
    return table


def _read_sections(data: bytes, header: _Table) -> dict[str, slice]:
    """The place of each section; their checksums, the digest and the end mark are checked."""
    start = _offset(records.HEADER, "sections")
    place = slice(start, start + records.SECTION.itemsize * len(records.SECTIONS))
    table = _Table("section table", data, place, records.SECTION, len(records.SECTIONS))
    end, limit = records.HEADER.itemsize, len(data) - records.END_MARK.itemsize
    places = {}
    for i, name in enumerate(records.SECTIONS):
        entry = table.records[i]
        size = int(entry["size"])
        table.check(entry["kind"] == i + 1, i, "kind", f"{i + 1} ({name})")
        table.check(entry["offset"] == end, i, "offset", f"{end}, where the section before ends")
        table.check(size % records.ALIGNMENT == 0, i, "size", "a multiple of 64")
        table.check(size <= limit - end, i, "size", f"at most {limit - end}, up to the end mark")
        table.check_reserved(i)
        places[name] = slice(end, end := end + size)
    if end != limit:
        raise FormatError(f"the sections end at byte {end}, expected {limit}")
    view = memoryview(data)
    for i, name in enumerate(records.SECTIONS):
        crc = zlib.crc32(view[places[name]])
        table.check(table.records[i]["crc"] == crc, i, "crc", f"{crc}: section {name} is damaged")
    digested = slice(records.HEADER.itemsize, places[records.SECTIONS[records.DIGESTED - 1]].stop)
    digest = hashlib.sha256(view[digested]).digest()
    header.check(header.records[0]["digest"].tobytes() == digest, 0, "digest", digest.hex())

    mark = _Table("end mark", data, slice(end, len(data)), records.END_MARK, 1)
    mark.check(mark.records[0]["mark"].tobytes() == records.END, 0, "mark", records.END.hex())
    mark.check(mark.records[0]["file_size"] == len(data), 0, "file_size", len(data))
    mark.check_reserved(0)
    return places


def _read_metadata(content: bytes) -> dict[str, Any]:
    text = content.rstrip(b" ")
    if len(content) != records.round_up(len(text)):
        raise FormatError(f"section METADATA has {len(content)} bytes, expected {records.round_up(len(text))}")
    try:
        metadata = json.loads(text, parse_constant=_refuse_constant) if text else {}
    except (ValueError, RecursionError) as error:
        raise FormatError(f"section METADATA is not JSON in UTF-8: {error}") from None
    if not isinstance(metadata, dict):
        raise FormatError(f"section METADATA holds a JSON {type(metadata).__name__}, expected an object")
    return metadata


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# ---- tensors


def _read_tensors(data: bytes, place: slice, table: _Table, strings: _Strings) -> list[Tensor]:
    tensors = []
    end = place.start
    for i, record in enumerate(table.records):
        table.check(record["layout"] < len(records.LAYOUTS), i, "layout", "0, 1 or 2")
        table.check(record["dtype"] == records.FLOAT32, i, "dtype", "0 (float32), which this release reads")
        for field in ("rows", "cols"):
            table.check(1 <= record[field] <= records.MAX_DIMENSION, i, field, f"1 to {records.MAX_DIMENSION}")
        most = 1 if record["layout"] == PLAIN else 4
        table.check(1 <= record["gates"] <= most, i, "gates", f"1 to {most}")
        table.check_reserved(i)
        shape = (int(record["layout"]), int(record["rows"]), int(record["cols"]), int(record["gates"]))
        size = records.tensor_size(*shape)
        table.check(record["size"] == size, i, "size", f"the {size} of its shape")
        table.check(record["offset"] == end, i, "offset", f"{end}, where the tensor before ends")
        table.check(size <= place.stop - end, i, "size", f"at most {place.stop - end}, up to the end of PAYLOAD")
        floats = np.frombuffer(data, "<f4", size // 4, end)
        end = records.round_up(end + size)  # cannot pass the end of the section, a multiple of 64
        _check_zero(data, end - (-size % records.ALIGNMENT), end, f"TENSORS[{i}]")
        if _missing_outputs(*shape, floats).view(np.uint32).any():
            raise FormatError(f"TENSORS[{i}]: a float of an output that does not exist is not zero")
        tensors.append(Tensor(*shape, strings.get(table, i), floats))
    if end != place.stop:
        raise FormatError(f"the tensors end at byte {end}, section PAYLOAD at {place.stop}")
    return tensors


def _missing_outputs(layout: int, rows: int, cols: int, gates: int, floats: Array) -> Array:
    """The floats of a tensor's last panels that belong to no output."""
    if layout == PANELS:  # [panel][k][gate][lane]
        lanes = floats.reshape(-1, cols, gates, records.LANES)
        return np.ascontiguousarray(lanes[-1, ..., (rows - 1) % records.LANES + 1 :])
    if layout == SUMS:  # [row][panel][gate][lane]
        lanes = floats.reshape(rows, -1, gates, records.LANES)
        return np.ascontiguousarray(lanes[:, -1, :, (cols - 1) % records.LANES + 1 :])
    return floats[:0]


# ---- nodes


def _read_nodes(table: _Table, edges: _Table, strings: _Strings, tensors: list[Tensor]) -> list[Node]:
    nodes: list[Node] = []
    next_edge = 0
    for i, record in enumerate(table.records):
        first, count = int(record["first_edge"]), int(record["edges"])
        table.check(first == next_edge, i, "first_edge", f"{next_edge}, where the node's before end")
        left = len(edges.records) - first
        table.check(count <= left, i, "edges", f"at most the {left} that are left")
        next_edge += count
        for edge in range(first, next_edge):
            edges.check(edges.records[edge]["node"] < i, edge, "node", f"below {i}, the node that reads it")
        inputs = tuple(edges.records["node"][first:next_edge].tolist())
        nodes.append(_read_node(table, i, inputs, strings, nodes, tensors))
    if next_edge != len(edges.records):
        raise FormatError(f"the nodes have {next_edge} edges, section EDGES {len(edges.records)}")
    return nodes


def _read_node(
    table: _Table, i: int, inputs: tuple[int, ...], strings: _Strings, nodes: list[Node], tensors: list[Tensor]
) -> Node:
    record = table.records[i]
    low, high = (1, 2) if i == 0 else (3, len(records.OPERATIONS))
    table.check(low <= record["operation"] <= high, i, "operation", f"{low} to {high}")
    kind = records.OPERATIONS[record["operation"] - 1]
    most = MAX_VOCABULARY if kind is Tokens else MAX_WIDTH
    table.check(1 <= record["width"] <= most, i, "width", f"1 to {most}")
    table.check_reserved(i)
    for field in ("flags", *_PARAMETERS):
        if field not in _USED_PARAMETERS.get(kind, ()):
            table.check(_is_zero(record[field]), i, field, f"0, as {kind.__name__.upper()} does not use it")
    if kind is Gru:
        table.check(0 <= record["clip"] < np.inf, i, "clip", "a finite number that is not negative")
        table.check(record["reset"] < len(RESETS), i, "reset", f"0 to {len(RESETS) - 1}")
        table.check(record["direction"] < 2, i, "direction", "0 or 1")
    node = Node(
        kind=kind,
        width=int(record["width"]),
        inputs=inputs,
        name=strings.get(table, i),
        per_sequence=kind in (Last, First) or any(nodes[a].per_sequence for a in inputs),
        activation=_read_activation(table, i, _ACTIVATION, softmax=kind is not Gru),
        gate_activation=_read_activation(table, i, _GATE_ACTIVATION, softmax=False),
        clip=float(record["clip"]) or None,
        reset=RESETS[record["reset"]],
        reverse=bool(record["direction"]),
        tensors={slot: int(number) for slot, number in enumerate(record["tensors"]) if number != NONE},
    )
    _check_inputs(table, i, node, nodes)
    _check_tensors(i, node, nodes, tensors)
    return node


_ACTIVATION = ("activation", "alpha", "beta")
_GATE_ACTIVATION = ("gate_activation", "gate_alpha", "gate_beta")
_PARAMETERS = (*_ACTIVATION, *_GATE_ACTIVATION, "clip", "reset", "direction")
_USED_PARAMETERS: dict[type[Layer], tuple[str, ...]] = {Dense: _ACTIVATION, Activate: _ACTIVATION, Gru: _PARAMETERS}


def _read_activation(table: _Table, i: int, fields: tuple[str, ...], softmax: bool) -> Activation:
    record = table.records[i]
    code, *parameters = fields
    name = activations.NAMES.get(int(record[code]), "")
    known = name and (softmax or Activation(name).elementwise)
    table.check(known, i, code, "the code of an activation that is possible here")
    used = activations.number_of_parameters(name)
    for field in parameters[:used]:
        table.check(np.isfinite(record[field]), i, field, "a finite number")
    for field in parameters[used:]:
        table.check(_is_zero(record[field]), i, field, f"0, as {name} does not use it")
    return Activation(name, tuple(float(record[field]) for field in parameters[:used]))


_INPUTS: dict[type[Layer], tuple[int, int]] = {
    Input: (0, 0),
    Tokens: (0, 0),
    Gru: (1, 2),
    Concat: (2, MAX_CONCAT),
    Add: (2, 2),
    Multiply: (2, 2),
}
"""Least and largest number of inputs; elsewhere it is 1."""


def _check_inputs(table: _Table, i: int, node: Node, nodes: list[Node]) -> None:
    """Number, kinds, rates and widths of the inputs."""
    inputs = [nodes[a] for a in node.inputs]
    low, high = _INPUTS.get(node.kind, (1, 1))
    table.check(low <= len(inputs) <= high, i, "edges", f"{low} to {high}")
    operation = f"NODES[{i}] ({node.kind.__name__.upper()})"
    for number, source in enumerate(inputs):
        token = source.kind is Tokens
        if node.kind is Embedding and not token:
            raise FormatError(f"{operation}: its input is a vector, expected TOKENS")
        if token and not (node.kind is Embedding or (node.kind in (Dense, Gru) and number == 0)):
            raise FormatError(f"{operation}: input {number} is TOKENS, expected a vector")
    if len(inputs) == 2 and node.kind is Gru and (inputs[0].kind is not Tokens or node.reset == "none"):
        raise FormatError(f"{operation}: of two inputs the first is TOKENS, and there must be three gates")
    slow = [source.per_sequence for source in inputs]
    if any(slow) and (not all(slow) or node.kind in (Gru, Embedding, Last, First)):
        raise FormatError(f"{operation}: reads a value per sequence where it cannot")
    if node.kind is Concat:
        expected = sum(source.width for source in inputs)
    elif node.kind in (Add, Multiply, Affine, Activate, Last, First):
        expected = inputs[0].width
        if any(source.width != expected for source in inputs):
            raise FormatError(f"{operation}: its inputs have the widths {[source.width for source in inputs]}")
    else:
        return
    table.check(node.width == expected, i, "width", f"{expected}, from its inputs")


def _check_tensors(i: int, node: Node, nodes: list[Node], tensors: list[Tensor]) -> None:
    """Just the tensors that the operation needs, in just the shapes."""
    expected = _expected_tensors(node, [nodes[a] for a in node.inputs])
    for slot in sorted(expected.keys() | node.tensors.keys()):
        where = f"NODES[{i}].tensors[{slot}]"
        number, shape = node.tensors.get(slot), expected.get(slot)
        if number is None or shape is None:
            raise FormatError(f"{where} is {'empty' if number is None else number}, expected {_shape_text(shape)}")
        if number >= len(tensors):
            raise FormatError(f"{where} is {number}, expected a number below {len(tensors)}")
        if tensors[number].shape != shape:
            raise FormatError(f"{where} is {_shape_text(tensors[number].shape)}, expected {_shape_text(shape)}")


def _shape_text(shape: tuple[int, int, int, int] | None) -> str:
    if shape is None:
        return "none"
    layout, rows, cols, gates = shape
    return f"{records.LAYOUTS[layout]} of {rows} rows, {cols} columns, {gates} gates"


def _expected_tensors(node: Node, inputs: list[Node]) -> dict[int, tuple[int, int, int, int]]:
    """For each slot in use the layout, rows, columns and gates."""
    H = node.width
    if node.kind is Embedding:
        return {0: (PLAIN, inputs[0].width, H, 1)}
    if node.kind is Affine:
        return {0: (PLAIN, 1, H, 1), 1: (PLAIN, 1, H, 1)}
    if node.kind not in (Dense, Gru):
        return {}
    gates = 1 if node.kind is Dense else 2 if node.reset == "none" else 3
    expected = {0: (PANELS, H, inputs[-1].width, gates)} if inputs[-1].kind is not Tokens else {}
    if inputs[0].kind is Tokens:
        expected[2] = (SUMS, inputs[0].width, H, gates)
    else:
        expected[1] = (SUMS, 1, H, gates)
    if node.kind is Gru:
        recurrent = 2 if node.reset == "before" else gates
        expected |= {3: (PANELS, H, H, recurrent), 4: (SUMS, 1, H, recurrent), 7: (PLAIN, 1, H, 1)}
        if node.reset == "before":
            expected |= {5: (PANELS, H, H, 1), 6: (SUMS, 1, H, 1)}
    return expected


# ---- outputs, golden cases


def _read_outputs(table: _Table, strings: _Strings, nodes: list[Node]) -> list[Output]:
    outputs: list[Output] = []
    end = 0
    for i, record in enumerate(table.records):
        table.check(record["node"] < len(nodes), i, "node", f"below {len(nodes)}")
        node = nodes[record["node"]]
        table.check(node.kind is not Tokens, i, "node", "a node whose value is a vector")
        rate = nodes[outputs[0].node].per_sequence if outputs else node.per_sequence
        table.check(node.per_sequence == rate, i, "node", "a value per sequence, or none of the outputs")
        table.check(record["first"] == end, i, "first", f"{end}, where the output before ends")
        table.check(record["width"] == node.width, i, "width", f"{node.width}, the node's")
        end += node.width
        table.check(end <= MAX_WIDTH, i, "width", f"all outputs together at most {MAX_WIDTH} wide")
        name = strings.get(table, i)
        table.check(name and name not in [output.name for output in outputs], i, "name", "a name of its own")
        outputs.append(Output(name, int(record["node"]), int(record["first"]), node.width))
    return outputs


def _read_golden(data: bytes, place: slice, count: int, nodes: list[Node], outputs: list[Output]) -> list[Golden]:
    tokens, one_row = nodes[0].kind is Tokens, nodes[outputs[0].node].per_sequence
    width = 1 if tokens else nodes[0].width
    output_width = outputs[-1].first + outputs[-1].width
    cases = []
    end = place.start
    for i in range(count):
        stop = end + records.GOLDEN.itemsize
        if stop > place.stop:
            raise FormatError(f"golden case {i} begins at byte {end}; section GOLDEN ends at {place.stop}")
        table = _Table(f"golden case {i}", data, slice(end, stop), records.GOLDEN, 1)
        record = table.records[0]
        steps = int(record["steps"])
        table.check(record["kind"] == tokens, 0, "kind", int(tokens))
        table.check(steps > 0, 0, "steps", "at least 1")
        table.check(record["input_width"] == width, 0, "input_width", width)
        rows = 1 if one_row else steps
        table.check(record["output_rows"] == rows, 0, "output_rows", rows)
        table.check(record["output_width"] == output_width, 0, "output_width", output_width)
        table.check(0 <= record["tolerance"] < np.inf, 0, "tolerance", "a finite number that is not negative")
        table.check(record["flags"] < 2, 0, "flags", "0 or 1")
        table.check_reserved(0)
        shapes = [(steps, width), (rows, output_width), (rows, output_width)][: 2 + int(record["flags"])]
        arrays = []
        for a, b in shapes:
            start, stop = stop, stop + records.round_up(a * b * 4)
            if stop > place.stop:
                raise FormatError(f"golden case {i} ends at byte {stop}; section GOLDEN ends at {place.stop}")
            _check_zero(data, start + a * b * 4, stop, f"golden case {i}")
            arrays.append(np.frombuffer(data, "<f4", a * b, start).reshape(a, b))
        x = arrays[0].view("<i4")[:, 0] if tokens else arrays[0]
        if tokens and not ((x >= 0) & (x < nodes[0].width)).all():
            raise FormatError(f"golden case {i}: a token is not from 0 to {nodes[0].width - 1}")
        cases.append(Golden(x, arrays[1], arrays[2] if record["flags"] else None, float(record["tolerance"])))
        end = stop
    if end != place.stop:
        raise FormatError(f"the golden cases end at byte {end}, section GOLDEN at {place.stop}")
    return cases
