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

from gru_engine import records
from gru_engine.arguments import MAX_WIDTH
from gru_engine.errors import FormatError
from gru_engine.layers import Array, Context, Input, Tokens
from gru_engine.network import MAX_OUTPUTS
from gru_engine.precision import DTYPES, FLOAT32, INT8, MAX_INT8_COLUMNS
from gru_engine.read_nodes import Node, Tensor, read_nodes
from gru_engine.read_tables import Strings, Table, check_zero, offset_of
from gru_engine.records import PANELS, PLAIN, SUMS

__all__ = ["File", "Golden", "Node", "Output", "Tensor", "read"]


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

    x: Array | dict[str, Array]  # float32 [T, I] or int32 tokens [T]; of several inputs each by its name
    steps: int  # T
    engine: Array  # float32 [T, O], or [1, O] if the outputs are per sequence: bit for bit
    framework: Array | None  # likewise, within the tolerance
    tolerance: float
    context: Array | None = None  # float32 [C]


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

    @property
    def dtypes(self) -> list[str]:
        """The types of the weight matrices, in the order of their codes; float32 if there are no matrices."""
        used = {tensor.dtype for tensor in self.tensors if tensor.layout == PANELS}
        return [dtype for dtype in DTYPES if dtype in used] or [DTYPES[FLOAT32]]


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
    tensor_table = Table("TENSORS", data, places["TENSORS"], records.TENSOR, counts["TENSORS"])
    node_table = Table("NODES", data, places["NODES"], records.NODE, counts["NODES"])
    edge_table = Table("EDGES", data, places["EDGES"], records.EDGE, counts["EDGES"])
    output_table = Table("OUTPUTS", data, places["OUTPUTS"], records.OUTPUT, counts["OUTPUTS"])
    strings = Strings(data, places["STRINGS"])
    tensors = _read_tensors(data, places["PAYLOAD"], tensor_table, strings)
    nodes = read_nodes(node_table, edge_table, strings, tensors)
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


# ---- header, sections, metadata


def _read_header(data: bytes) -> Table:
    """The checked header as a table of one record."""
    if data[:8] != records.MAGIC:
        raise FormatError(f"not a .gru file: it begins with {data[:8].hex(' ')}, expected {records.MAGIC.hex(' ')}")
    least = records.HEADER.itemsize + records.END_MARK.itemsize
    if len(data) < least:
        raise FormatError(f"the file has {len(data)} bytes, expected at least {least}: it is cut off")
    table = Table("HEADER", data, slice(0, records.HEADER.itemsize), records.HEADER, 1)
    header = table.records[0]
    table.check(header["byte_order"] == records.BYTE_ORDER, 0, "byte_order", records.BYTE_ORDER)
    table.check(header["version"] == records.VERSION, 0, "version", f"{records.VERSION}, which this release reads")
    crc = zlib.crc32(data[: offset_of(records.HEADER, "crc")])
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


def _read_sections(data: bytes, header: Table) -> dict[str, slice]:
    """The place of each section; their checksums, the digest and the end mark are checked."""
    start = offset_of(records.HEADER, "sections")
    place = slice(start, start + records.SECTION.itemsize * len(records.SECTIONS))
    table = Table("section table", data, place, records.SECTION, len(records.SECTIONS))
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

    mark = Table("end mark", data, slice(end, len(data)), records.END_MARK, 1)
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


def _read_tensors(data: bytes, place: slice, table: Table, strings: Strings) -> list[Tensor]:
    tensors = []
    end = place.start
    for i, record in enumerate(table.records):
        table.check(record["layout"] < len(records.LAYOUTS), i, "layout", "0, 1 or 2")
        layout, dtype = int(record["layout"]), int(record["dtype"])
        table.check(dtype < len(DTYPES), i, "dtype", f"0 to {len(DTYPES) - 1}, which this release reads")
        if layout != PANELS:
            table.check(dtype == FLOAT32, i, "dtype", f"0 (float32) with the layout {records.LAYOUTS[layout]}")
        for field in ("rows", "cols"):
            most = MAX_INT8_COLUMNS if (field, dtype) == ("cols", INT8) else records.MAX_DIMENSION
            table.check(1 <= record[field] <= most, i, field, f"1 to {most}")
        most = 1 if layout == PLAIN else 4
        table.check(1 <= record["gates"] <= most, i, "gates", f"1 to {most}")
        table.check_reserved(i)
        shape = (layout, int(record["rows"]), int(record["cols"]), int(record["gates"]))
        size = records.tensor_size(*shape, dtype)
        table.check(record["size"] == size, i, "size", f"the {size} of its shape")
        table.check(record["offset"] == end, i, "offset", f"{end}, where the tensor before ends")
        table.check(size <= place.stop - end, i, "size", f"at most {place.stop - end}, up to the end of PAYLOAD")
        elements = np.dtype(records.ELEMENTS[dtype])
        flat = np.frombuffer(data, elements, size // elements.itemsize, end)
        end = records.round_up(end + size)  # cannot pass the end of the section, a multiple of 64
        check_zero(data, end - (-size % records.ALIGNMENT), end, f"TENSORS[{i}]")
        if any(missing.tobytes().strip(b"\0") for missing in _missing(*shape, flat, dtype)):
            raise FormatError(f"TENSORS[{i}]: a weight of an output or input that does not exist is not zero")
        tensors.append(Tensor(layout, DTYPES[dtype], *shape[1:], strings.get(table, i), flat))
    if end != place.stop:
        raise FormatError(f"the tensors end at byte {end}, section PAYLOAD at {place.stop}")
    return tensors


def _missing(layout: int, rows: int, cols: int, gates: int, flat: Array, dtype: int) -> list[Array]:
    """The elements of a tensor that belong to no output, or to no column."""
    if layout == PANELS:  # [panel][k][gate][lane]
        lanes = (rows - 1) % records.LANES + 1  # of the last panel
        scales, weights = records.panels_of(cols, gates, flat, dtype)
        return [scales[-1, :, lanes:], weights[-1, ..., lanes:], weights[:, cols:]]
    if layout == SUMS:  # [row][panel][gate][lane]
        return [flat.reshape(rows, -1, gates, records.LANES)[:, -1, :, (cols - 1) % records.LANES + 1 :]]
    return []


# ---- outputs, golden cases


def _read_outputs(table: Table, strings: Strings, nodes: list[Node]) -> list[Output]:
    outputs: list[Output] = []
    end = 0
    for i, record in enumerate(table.records):
        table.check(record["node"] < len(nodes), i, "node", f"below {len(nodes)}")
        node = nodes[record["node"]]
        table.check(node.kind is not Tokens and node.sums is None, i, "node", "a node whose value is a vector")
        rate = nodes[outputs[0].node].per_sequence if outputs else node.per_sequence
        table.check(node.per_sequence == rate, i, "node", "a value per sequence, or none of the outputs")
        axis = nodes[outputs[0].node].axis if outputs else node.axis
        table.check(node.axis == axis, i, "node", f"a value with {axis}, as the first output")
        table.check(record["first"] == end, i, "first", f"{end}, where the output before ends")
        table.check(record["width"] == node.width, i, "width", f"{node.width}, the node's")
        end += node.width
        table.check(end <= MAX_WIDTH, i, "width", f"all outputs together at most {MAX_WIDTH} wide")
        name = strings.get(table, i)
        table.check(name and name not in [output.name for output in outputs], i, "name", "a name of its own")
        outputs.append(Output(name, int(record["node"]), int(record["first"]), node.width))
    return outputs


def _read_golden(data: bytes, place: slice, count: int, nodes: list[Node], outputs: list[Output]) -> list[Golden]:
    inputs = [node for node in nodes if node.kind in (Input, Tokens)]
    one_row = nodes[outputs[0].node].per_sequence
    n_floats = sum(node.width for node in inputs if node.kind is Input)
    n_tokens = sum(node.kind is Tokens for node in inputs)
    n_context = sum(node.width for node in nodes if node.kind is Context)
    kind = records.golden_kind(n_floats > 0, n_tokens > 0, n_context > 0)
    widths = [width for width in (n_floats, n_tokens) if width]
    output_width = outputs[-1].first + outputs[-1].width
    cases = []
    end = place.start
    for i in range(count):
        stop = end + records.GOLDEN.itemsize
        if stop > place.stop:
            raise FormatError(f"golden case {i} begins at byte {end}; section GOLDEN ends at {place.stop}")
        table = Table(f"golden case {i}", data, slice(end, stop), records.GOLDEN, 1)
        record = table.records[0]
        steps = int(record["steps"])
        table.check(record["kind"] == kind, 0, "kind", kind)
        table.check(steps > 0, 0, "steps", "at least 1")
        table.check(record["input_width"] == widths[0], 0, "input_width", widths[0])
        table.check(record["tokens"] == sum(widths[1:]), 0, "tokens", sum(widths[1:]))
        table.check(record["context"] == n_context, 0, "context", n_context)
        rows = 1 if one_row else nodes[outputs[0].node].axis.count(steps)
        table.check(record["output_rows"] == rows, 0, "output_rows", rows)
        table.check(record["output_width"] == output_width, 0, "output_width", output_width)
        table.check(0 <= record["tolerance"] < np.inf, 0, "tolerance", "a finite number that is not negative")
        table.check(record["flags"] < 2, 0, "flags", "0 or 1")
        table.check_reserved(0)
        shapes = [(steps, width) for width in widths] + [(1, n_context)] * (n_context > 0)
        shapes += [(rows, output_width)] * (1 + int(record["flags"]))
        arrays = []
        for a, b in shapes:
            start, stop = stop, stop + records.round_up(a * b * 4)
            if stop > place.stop:
                raise FormatError(f"golden case {i} ends at byte {stop}; section GOLDEN ends at {place.stop}")
            check_zero(data, start + a * b * 4, stop, f"golden case {i}")
            arrays.append(np.frombuffer(data, "<f4", a * b, start).reshape(a, b))
        x = _golden_input(inputs, arrays[: len(widths)], i)
        context = arrays.pop(len(widths))[0] if n_context else None
        engine, *framework = arrays[len(widths) :]
        tolerance = float(record["tolerance"])
        cases.append(Golden(x, steps, engine, framework[0] if framework else None, tolerance, context))
        end = stop
    if end != place.stop:
        raise FormatError(f"the golden cases end at byte {end}, section GOLDEN at {place.stop}")
    return cases


def _golden_input(inputs: list[Node], blocks: list[Array], i: int) -> Array | dict[str, Array]:
    """The input of golden case i from the vectors and the tokens, in this order, that are there."""
    x = {}
    for node in inputs:
        first = node.parameters[0]
        if node.kind is Input:
            x[node.name] = blocks[0][:, first : first + node.width]
            continue
        tokens = x[node.name] = blocks[-1].view("<i4")[:, first]
        if not ((tokens >= 0) & (tokens < node.width)).all():
            raise FormatError(f"golden case {i}: a token is not from 0 to {node.width - 1}")
    return x if len(inputs) > 1 else x[inputs[0].name]
