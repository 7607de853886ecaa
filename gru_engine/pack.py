# SPDX-License-Identifier: Apache-2.0
"""The compiler: Network -> bytes of a ``.gru`` file (docs/FORMAT.md)."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gru_engine import records
from gru_engine._inputs import TokenInput, as_context, check_names, not_named
from gru_engine.activations import as_number
from gru_engine.fold_repeats import fold_repeats
from gru_engine.layers import (
    NOT_FED,
    RESETS,
    Activate,
    Affine,
    Array,
    Attention,
    Concat,
    Context,
    Dense,
    Embedding,
    Gru,
    Input,
    Layer,
    Norm,
    Repeat,
    Slice,
    State,
    Subsample,
    Sums,
    Tokens,
    Window,
    is_network_input,
)
from gru_engine.network import Network
from gru_engine.numerics import as_float32, sums
from gru_engine.precision import DTYPES, as_dtype, called, rounded
from gru_engine.records import EDGE, MAX_EDGES, MAX_NODES, MAX_TENSORS, PANELS, PLAIN, SUMS, pad

AUTO_FOLD_BYTES = 16 << 20
"""Tables up to this size are made whatever they replace."""


def pack(
    net: Network,
    fold: bool | str = "auto",
    metadata: dict[str, Any] | None = None,
    golden: Sequence[tuple[Any, ...]] | None = None,
    dtype: str = "float32",
) -> bytes:
    """The bytes of a ``.gru`` file of a network. The parameters are those of ``Network.save``."""
    if fold not in (True, False, "auto"):
        raise ValueError(f"fold must be True, False or 'auto', got {fold!r}")
    as_dtype(dtype)
    if not isinstance(metadata, (dict, type(None))):
        raise TypeError(f"metadata must be a dict, got {type(metadata).__name__}")
    writer = _Writer()
    net = net.pruned()
    axes = len({layer.axis for layer in net.layers})
    if axes > records.MAX_AXES:
        raise ValueError(
            f"the network has values of {axes} different numbers of steps, a file has at most {records.MAX_AXES}"
        )
    _write_program(writer, fold_repeats(net) if fold else net, fold, dtype)
    writer.metadata = {**net.metadata, **(metadata or {})}
    if golden:
        writer.write_golden(net, golden, writer.tobytes())
    return writer.tobytes()


# ---- folding: an embedding and the matrix that reads it become a table of finished sums


@dataclass(frozen=True)
class _Fold:
    """A layer whose input is, or begins with, an embedding that is to be folded."""

    embedding: Embedding
    rest: tuple[int, ...]  # the other parts of its input


def _find_fold(layers: Sequence[Layer], layer: Layer, fold: bool | str, dtype: str) -> _Fold | None:
    """How ``layer`` is to be folded, if at all."""
    if not fold or not isinstance(layer, (Dense, Gru)):
        return None
    source = layers[layer.inputs[0]]
    first, *rest = source.inputs if isinstance(source, Concat) else layer.inputs
    embedding = layers[first]
    # Only one chain per sum can be continued by the rest: three gates.
    if not isinstance(embedding, Embedding) or (rest and not (isinstance(layer, Gru) and len(layer.gates) == 3)):
        return None
    vocabulary, gates = len(embedding.E), _gates(layer)
    table = records.tensor_size(SUMS, vocabulary, layer.width, gates)
    replaced = records.tensor_size(PLAIN, vocabulary, embedding.width, 1)
    replaced += records.tensor_size(PANELS, layer.width, embedding.width, gates, DTYPES.index(dtype))
    if fold == "auto" and table > max(replaced, AUTO_FOLD_BYTES):
        return None
    return _Fold(embedding, tuple(rest))


def _gates(layer: Layer) -> int:
    return len(layer.gates) if isinstance(layer, Gru) else 1


# ---- the program: layers -> nodes and tensors


def _write_program(writer: _Writer, net: Network, fold: bool | str, dtype: str) -> None:
    layers = net.layers
    folds = [_find_fold(layers, layer, fold, dtype) for layer in layers]

    def reads(index: int) -> tuple[int, ...]:
        folded = folds[index]
        return layers[index].inputs if folded is None else (*folded.embedding.inputs, *folded.rest)

    sources = {layer.source for layer in layers if isinstance(layer, State)}
    needed = {index for index, layer in enumerate(layers) if is_network_input(layer)}
    found = list(net.output_layers.values())
    while found:
        index = found.pop()
        if index not in needed:
            needed.add(index)
            found += [*reads(index), *layers[index].reads[len(layers[index].inputs) :]]

    node_of: dict[int, int] = {}  # layer number -> node number
    for index in sorted(needed):
        layer, folded = layers[index], folds[index]
        inputs = [node_of[i] for i in reads(index)]
        if folded is not None and len(folded.rest) > 1:
            inputs = [inputs[0], writer.concat(inputs[1:], sum(layers[i].width for i in folded.rest))]
        if isinstance(layer, Concat) and index not in sources:
            node_of[index] = writer.concat(inputs, layer.width, layer.name)
        else:
            start = layer.start if isinstance(layer, (Gru, State)) else NOT_FED
            inputs += [] if start == NOT_FED else [node_of[start]]
            node_of[index] = writer.layer(layer, inputs, _tensors(layers, layer, folded, dtype))
    for index in needed:
        layer = layers[index]
        if isinstance(layer, State):
            writer.feed(node_of[index], node_of[layer.source])
    for name, index in net.output_layers.items():
        writer.output(name, node_of[index], layers[index].width)


@dataclass(frozen=True)
class _Tensor:
    """What goes into a tensor slot."""

    layout: int
    logical: Array  # float32, matrices also float64; for the axes see records.py
    dtype: str = "float32"
    what: str = "the tensor"  # what to call it in an error message


def _tensors(layers: Sequence[Layer], layer: Layer, fold: _Fold | None, dtype: str) -> dict[int, _Tensor]:
    """For each tensor slot in use what goes there."""
    arrays = {key: as_float32(array, called(layer, key)) for key, array in layer.arrays.items()}
    match layer:
        case Embedding():
            return {0: _Tensor(PLAIN, arrays["E"])}
        case State():
            return {0: _Tensor(PLAIN, arrays["initial"][np.newaxis])} if layer.start == NOT_FED else {}
        case Affine() | Norm():
            return {0: _Tensor(PLAIN, arrays["scale"][np.newaxis]), 1: _Tensor(PLAIN, arrays["shift"][np.newaxis])}
        case Attention():
            return {0: _Tensor(PLAIN, arrays["v"][np.newaxis])} if layer.additive else {}
        case Sums():
            W = _matrix(layer, "W", dtype, layer.rows)
            return {0: _Tensor(PANELS, W, dtype, called(layer, "W"))} | {
                1: _Tensor(SUMS, arrays["b"].reshape(1, layer.gates, layer.rows))
            }
        case Dense():
            return _input_half(layers, layer, fold, arrays["b"], dtype)
        case Gru():
            slots = _input_half(layers, layer, fold, arrays["b_x"], dtype)
            U, what = _matrix(layer, "U", dtype), called(layer, "U")
            b = arrays["b_h"].reshape(1, _gates(layer), layer.width)
            if layer.reset == "before":
                slots |= {3: _Tensor(PANELS, U[:2], dtype, what), 4: _Tensor(SUMS, b[:, :2])}
                slots |= {5: _Tensor(PANELS, U[2:], dtype, what), 6: _Tensor(SUMS, b[:, 2:])}
            else:
                slots |= {3: _Tensor(PANELS, U, dtype, what), 4: _Tensor(SUMS, b)}
            return slots if layer.start != NOT_FED else slots | {7: _Tensor(PLAIN, arrays["h0"][np.newaxis])}
    return {}


def _input_half(
    layers: Sequence[Layer], layer: Dense | Gru, fold: _Fold | None, b: Array, dtype: str
) -> dict[int, _Tensor]:
    """Slots 0 to 2: the matrix and where its sums start from, a bias or a table with a row per token."""
    what = called(layer, "W")
    first = layers[layer.inputs[0]]
    if isinstance(first, Repeat) and isinstance(layers[first.inputs[0]], Sums):  # where they begin
        return {0: _Tensor(PANELS, _matrix(layer, "W", dtype), dtype, what)} if len(layer.inputs) > 1 else {}
    b = b.reshape(_gates(layer), layer.width)
    if isinstance(layers[layer.inputs[0]], Tokens):  # a table of its own: not reduced; b is zero
        return {2: _Tensor(SUMS, _matrix(layer, "W", "float32").transpose(2, 0, 1))}
    W = _matrix(layer, "W", dtype)
    if fold is None:
        return {0: _Tensor(PANELS, W, dtype, what), 1: _Tensor(SUMS, b[np.newaxis])}
    width = fold.embedding.width
    # The sums of the reduced matrix, so that folding changes no bit. Of int8 there are no such sums without a vector that is
    # rounded too: the table is that of the float32 weights.
    folded = _matrix(layer, "W", "float32") if dtype == "int8" else W
    table = sums(b, folded[..., :width], as_float32(fold.embedding.E, called(fold.embedding, "E")))
    rest = {0: _Tensor(PANELS, W[..., width:], dtype, what)} if fold.rest else {}
    return {2: _Tensor(SUMS, table)} | rest


def _matrix(layer: Layer, name: str, dtype: str, rows: int | None = None) -> Array:
    """The weights [G, H, K] of a layer, rounded to the type; for int8, whose scales depend on the columns, as they are."""
    weights = layer.arrays[name]
    if dtype != "int8":
        weights = rounded(weights, dtype, called(layer, name))
    rows = layer.width if rows is None else rows
    return weights.reshape(len(weights) // rows, rows, -1)


# ---- records and bytes


class _Writer:
    """The sections of a file in the making."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self._tensors: list[Array] = []  # records
        self._nodes: list[Array] = []  # records
        self._edges: list[int] = []
        self._outputs: list[tuple[int, int, int, int]] = []
        self._strings = bytearray(b"\0")
        self._string_offsets = {"": 0}
        self._payload: list[bytes] = []
        self._payload_size = 0
        self._concats: dict[tuple[tuple[int, ...], str], int] = {}
        self._golden: list[bytes] = []
        self._golden_count = 0

    def string(self, text: str) -> int:
        """Offset of a string in STRINGS."""
        if text not in self._string_offsets:
            self._string_offsets[text] = len(self._strings)
            self._strings += text.encode() + b"\0"
        return self._string_offsets[text]

    def tensor(self, tensor: _Tensor) -> int:
        """Number of a new tensor."""
        layout, logical, dtype = tensor.layout, tensor.logical, DTYPES.index(tensor.dtype)
        if layout == SUMS:
            rows, gates, cols = logical.shape
        else:
            gates, rows, cols = (1, *logical.shape) if layout == PLAIN else logical.shape
        data = records.to_layout(layout, logical, dtype, tensor.what).tobytes()
        record = np.zeros((), records.TENSOR)
        record["layout"], record["dtype"] = layout, dtype
        record["rows"], record["cols"], record["gates"] = rows, cols, gates
        record["offset"], record["size"] = self._payload_size, len(data)  # within PAYLOAD until that has a place
        self._tensors.append(record)
        self._payload.append(pad(data))
        self._payload_size += len(self._payload[-1])
        return len(self._tensors) - 1

    def layer(self, layer: Layer, inputs: Sequence[int], tensors: dict[int, _Tensor]) -> int:
        """Number of a new node for a layer."""
        record = self._add_node(type(layer), layer.width, inputs, layer.name)
        for slot, tensor in sorted(tensors.items()):
            record["tensors"][slot] = self.tensor(tensor)
        if isinstance(layer, (Dense, Activate, Gru)):
            record["activation"] = layer.activation.code
            for field, value in zip(("alpha", "beta"), layer.activation.parameters):
                record[field] = value
        if isinstance(layer, Gru):
            record["gate_activation"] = layer.gate_activation.code
            for field, value in zip(("gate_alpha", "gate_beta"), layer.gate_activation.parameters):
                record[field] = value
            record["clip"] = layer.clip or 0
            record["reset"] = RESETS.index(layer.reset)
            record["direction"] = layer.reverse
        if isinstance(layer, Norm):
            record["alpha"] = layer.epsilon
        elif isinstance(layer, Attention):
            record["alpha"] = layer.scale
        parameters = _parameters(layer)
        record["parameters"][: len(parameters)] = parameters
        return len(self._nodes) - 1

    def feed(self, node: int, source: int) -> None:
        """Names the source of a state, a later node."""
        self._nodes[node]["parameters"][0] = source

    def concat(self, inputs: Sequence[int], width: int, name: str = "") -> int:
        """Number of a node that concatenates others; the same one is made once."""
        key = (tuple(inputs), name)
        if key not in self._concats:
            self._add_node(Concat, width, inputs, name)
            self._concats[key] = len(self._nodes) - 1
        return self._concats[key]

    def _add_node(self, kind: type[Layer], width: int, inputs: Sequence[int], name: str) -> Array:
        record = np.zeros((), records.NODE)
        record["operation"] = records.operation_code(kind)
        record["width"], record["name"] = width, self.string(name)
        record["first_edge"], record["edges"] = len(self._edges), len(inputs)
        record["tensors"] = records.NONE
        self._edges += inputs
        self._nodes.append(record)
        return record

    def output(self, name: str, node: int, width: int) -> None:
        """Adds an output."""
        first = sum(output[3] for output in self._outputs)
        self._outputs.append((node, self.string(name), first, width))

    def tobytes(self) -> bytes:
        """The file."""
        counts = [len(self._tensors), len(self._nodes), len(self._edges), len(self._outputs)]
        for what, count, most in zip(("tensors", "nodes", "edges"), counts, (MAX_TENSORS, MAX_NODES, MAX_EDGES)):
            if count > most:
                raise ValueError(f"the network needs {count} {what}, a file has at most {most}")
        sizes = [dtype.itemsize * n for dtype, n in zip((records.TENSOR, records.NODE, EDGE, records.OUTPUT), counts)]
        payload = records.HEADER.itemsize + sum(map(records.round_up, [*sizes, len(self._strings)]))
        tensors = b"".join(_moved(tensor, payload) for tensor in self._tensors)
        sections = [
            pad(tensors),
            pad(b"".join(node.tobytes() for node in self._nodes)),
            pad(np.array(self._edges, EDGE).tobytes()),
            pad(np.array(self._outputs, records.OUTPUT).tobytes()),
            pad(bytes(self._strings)),
            b"".join(self._payload),
            pad(_json(self.metadata), b" "),
            b"".join(self._golden),
        ]
        size = records.HEADER.itemsize + sum(map(len, sections)) + records.END_MARK.itemsize
        return b"".join([self._header(sections, size), *sections, _end_mark(size)])

    def _header(self, sections: list[bytes], size: int) -> bytes:
        header = np.zeros((), records.HEADER)
        header["magic"], header["byte_order"] = np.void(records.MAGIC), records.BYTE_ORDER
        header["version"], header["file_size"] = records.VERSION, size
        header["nodes"], header["tensors"], header["edges"] = len(self._nodes), len(self._tensors), len(self._edges)
        header["outputs"], header["golden"] = len(self._outputs), self._golden_count
        digest = hashlib.sha256()
        for section in sections[: records.DIGESTED]:
            digest.update(section)
        header["digest"] = np.void(digest.digest())
        offset = records.HEADER.itemsize
        for i, (section, entry) in enumerate(zip(sections, header["sections"])):
            entry["kind"], entry["crc"] = i + 1, zlib.crc32(section)
            entry["offset"], entry["size"] = offset, len(section)
            offset += len(section)
        header["crc"] = zlib.crc32(header.tobytes()[:-4])
        return header.tobytes()

    # ---- golden cases

    def write_golden(self, net: Network, cases: Sequence[tuple[Any, ...]], data: bytes) -> None:
        """Adds golden cases; ``data`` is the file without them, which the engine runs."""
        from gru_engine import load  # the compiled module, which nothing else here needs

        if len(cases) > records.MAX_GOLDEN:
            raise ValueError(f"a file has at most {records.MAX_GOLDEN} golden cases, got {len(cases)}")
        model = load(data)
        case: Any
        for i, case in enumerate(cases):
            if not isinstance(case, (tuple, list)) or len(case) not in (3, 4):
                what = type(case).__name__ + (f" of {len(case)}" if isinstance(case, (tuple, list)) else "")
                raise TypeError(f"golden[{i}] must be (x, y, tolerance) or (x, y, tolerance, context), got {what}")
            x, framework, tolerance, *given = case
            if as_number(tolerance, f"golden[{i}]: tolerance") < 0:
                raise ValueError(f"golden[{i}]: tolerance must not be negative, got {tolerance!r}")
            vectors, tokens = _golden_input(net, x, f"golden[{i}]")
            blocks = [block for block in (vectors, tokens) if block is not None]
            steps = len(blocks[0])
            context = _golden_context(net, given, f"golden[{i}]")
            if context is not None:
                blocks.append(context)
            engine = _golden_output(net, model.run(x, context=context), steps, f"golden[{i}]: the engine's output")
            blocks.append(engine)
            if framework is not None:
                blocks.append(_golden_output(net, framework, steps, f"golden[{i}]: the framework's output"))
                _check_tolerance(engine, blocks[-1], tolerance, f"golden[{i}]")
            record = np.zeros((), records.GOLDEN)
            record["kind"] = records.golden_kind(vectors is not None, tokens is not None, context is not None)
            record["context"] = net.context_size or 0
            record["steps"], record["input_width"] = steps, blocks[0].shape[1]
            if vectors is not None and tokens is not None:
                record["tokens"] = tokens.shape[1]
            record["output_rows"], record["output_width"] = engine.shape
            record["tolerance"], record["flags"] = tolerance, framework is not None
            self._golden += [record.tobytes(), *(pad(block.tobytes()) for block in blocks)]
            self._golden_count += 1


def _parameters(layer: Layer) -> tuple[int, ...]:
    """p0, p1, ... of a layer's node; that of a state follows later."""
    match layer:
        case Input() | Tokens() | Slice():
            return (layer.first,)
        case Context():
            return layer.first, 1
        case Sums():
            return layer.rows, layer.gates
        case Gru():
            return (int(layer.start != NOT_FED),)
        case State():  # its source follows later
            return 0, int(layer.start != NOT_FED)
        case Window():
            return layer.taps, layer.dilation, layer.ahead
        case Norm():
            return int(layer.rms), layer.parts
        case Subsample():
            return layer.first, layer.stride, layer.dropped
        case Repeat():
            return (layer.steps,)
        case Attention():
            return int(layer.additive), layer.heads, int(layer.causal), layer.rows
    return ()


def _moved(tensor: Array, payload: int) -> bytes:
    """A tensor record whose offset, within PAYLOAD so far, counts from the start of the file."""
    tensor = tensor.copy()
    tensor["offset"] = int(tensor["offset"]) + payload
    return tensor.tobytes()


def _end_mark(size: int) -> bytes:
    end = np.zeros((), records.END_MARK)
    end["mark"], end["file_size"] = np.void(records.END), size
    return end.tobytes()


def _golden_input(net: Network, x: Any, what: str) -> tuple[Array | None, Array | None]:
    """The vectors [T, input width] and the tokens [T, number of tokens], None where there are none."""
    inputs = net.inputs
    if isinstance(x, Mapping):
        try:
            check_names(x, inputs)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
        parts = [(part, f"x[{name!r}]", x[name]) for name, part in inputs.items()]
    elif len(inputs) > 1 and any(isinstance(part, TokenInput) for part in inputs.values()):
        raise TypeError(f"{what}: {not_named(x, inputs)}")
    elif net.input_size:
        parts = [(slice(0, net.input_size), "x", x)]
    else:
        parts = [(part, "x", x) for part in inputs.values()]
    arrays: dict[bool, list[Array]] = {False: [], True: []}
    steps = None
    for part, name, value in parts:
        array, tokens = np.asarray(value), isinstance(part, TokenInput)
        shape = (part.stop - part.start,) if isinstance(part, slice) else ()
        kinds = "iu" if tokens else "fiu"
        if array.dtype.kind not in kinds or array.ndim != 1 + len(shape) or array.shape[1:] != shape or not len(array):
            wanted = "integer tokens [T]" if tokens else f"an array {['T', *shape]}".replace("'", "")
            raise ValueError(f"{what}: {name} must be {wanted} with T > 0, got {array.dtype} {list(array.shape)}")
        if steps not in (None, len(array)):
            raise ValueError(f"{what}: {name} has {len(array)} steps, {parts[0][1]} has {steps}")
        steps = len(array)
        arrays[tokens].append(array[:, np.newaxis].astype("<i4") if tokens else array.astype("<f4"))
    vectors, integers = (np.concatenate(each, axis=1) if each else None for each in arrays.values())
    return vectors, integers


def _golden_context(net: Network, given: Sequence[Any], what: str) -> Array | None:
    """The context vector [C], None where the network has none."""
    if len(given) > 1:
        raise ValueError(f"{what} must be (x, y, tolerance) or (x, y, tolerance, context), got {3 + len(given)} parts")
    try:
        return as_context(given[0] if given else None, net.contexts, None)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what}: {error}") from None


def _golden_output(net: Network, y: Any, steps: int, what: str) -> Array:
    shape = (1 if net.per_sequence else net.axis.count(steps), net.output_size)
    y = np.asarray(y)
    if y.shape != shape and y.shape != shape[net.per_sequence :]:
        raise ValueError(f"{what} must have the shape {list(shape[net.per_sequence :])}, got {list(y.shape)}")
    return np.asarray(y.reshape(shape), "<f4")


def _check_tolerance(engine: Array, framework: Array, tolerance: float, what: str) -> None:
    difference = np.abs(engine.astype(np.float64) - framework)
    if not (difference <= tolerance).all():
        raise ValueError(
            f"{what}: the engine's output differs from the framework's by up to {difference.max():g}, "
            f"more than the tolerance {tolerance:g}"
        )


def _json(metadata: dict[str, Any]) -> bytes:
    try:
        return json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()
    except TypeError as error:
        raise TypeError(f"metadata cannot be expressed in JSON: {error}") from None
    except ValueError as error:
        raise ValueError(f"metadata cannot be expressed in JSON: {error}") from None
