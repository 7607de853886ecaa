# SPDX-License-Identifier: Apache-2.0
"""The reader's part for the program: the nodes of a ``.gru`` file, completely checked (docs/FORMAT.md, section 3)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

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
    Attend,
    Attention,
    Axis,
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
from gru_engine.network import MAX_CONCAT, MAX_INPUTS
from gru_engine.precision import DTYPES
from gru_engine.read_tables import Strings, Table, is_zero
from gru_engine.records import NONE, PANELS, PLAIN, SUMS
from gru_engine.sequences import MAX_LOST, MAX_SPAN


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor: its record and its elements in file order."""

    layout: int
    dtype: str  # one of precision.DTYPES
    rows: int
    cols: int
    gates: int
    name: str
    data: Array = dataclasses.field(repr=False)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Layout, rows, cols and gates."""
        return self.layout, self.rows, self.cols, self.gates

    @property
    def array(self) -> Array:
        """[rows, cols] (PLAIN), [gates, rows, cols] (PANELS) or [rows, gates, cols] (SUMS).

        float32; of int8 float64, which holds the product of a scale and an int8 exactly.
        """
        return records.from_layout(*self.shape, self.data, DTYPES.index(self.dtype))


@dataclass(frozen=True, eq=False)
class Node:
    """A node of the program."""

    kind: type[Layer]
    width: int
    inputs: tuple[int, ...]
    name: str
    per_sequence: bool
    axis: Axis
    activation: Activation
    gate_activation: Activation
    clip: float | None
    reset: str
    reverse: bool
    tensors: dict[int, int]  # slot -> number of the tensor
    factor: float  # epsilon of a Norm, scale of an Attention
    parameters: tuple[int, int, int, int]
    sums: int | None  # of SUMS, and of a REPEAT of it, the number of the SUMS
    held: bool  # one value per sequence, of contexts alone
    start: (
        int | None
    )  # of a GRU or STATE that does not start from an array: the node, not among its inputs, that it does from


def read_nodes(table: Table, edges: Table, strings: Strings, tensors: list[Tensor]) -> list[Node]:
    """The checked nodes of sections NODES and EDGES."""
    nodes: list[Node] = []
    axes = {Axis()}
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
        axes.add(nodes[-1].axis)
        table.check(len(axes) <= records.MAX_AXES, i, "parameters", f"at most {records.MAX_AXES} time axes")
    if next_edge != len(edges.records):
        raise FormatError(f"the nodes have {next_edge} edges, section EDGES {len(edges.records)}")
    _check_loops(table, nodes)
    return nodes


def _read_node(
    table: Table, i: int, inputs: tuple[int, ...], strings: Strings, nodes: list[Node], tensors: list[Tensor]
) -> Node:
    record = table.records[i]
    only_inputs = all(node.kind in _GIVEN for node in nodes[-1:])  # so far: they are the first nodes
    low, high = (1 if only_inputs else 3), (2 if i == 0 else len(records.OPERATIONS))
    table.check(low <= record["operation"] <= high, i, "operation", f"{low} to {high}")
    kind = records.OPERATIONS[record["operation"] - 1]
    if kind is Input and record["parameters"][1] == 1:
        kind = Context
    most = MAX_VOCABULARY if kind is Tokens else MAX_WIDTH
    table.check(1 <= record["width"] <= most, i, "width", f"1 to {most}")
    table.check_reserved(i)
    for field in ("flags", *_FIELDS):
        if field not in _USED_FIELDS.get(kind, ()):
            table.check(is_zero(record[field]), i, field, f"0, as {kind.__name__.upper()} does not use it")
    _check_parameters(table, i, kind)
    if kind is Gru:
        table.check(0 <= record["clip"] < np.inf, i, "clip", "a finite number that is not negative")
        table.check(record["reset"] < len(RESETS), i, "reset", f"0 to {len(RESETS) - 1}")
        table.check(record["direction"] < 2, i, "direction", "0 or 1")
    start = None
    if (kind is Gru and record["parameters"][0]) or (kind is State and record["parameters"][1]):
        table.check(inputs, i, "edges", "one at least, for the initial value")
        *others, start = inputs
        inputs = tuple(others)
        fits = nodes[start].held and nodes[start].sums is None and nodes[start].width == record["width"]
        if not fits:
            raise FormatError(
                f"NODES[{i}] ({kind.__name__.upper()}): starts from node {start}, expected a value of contexts alone of "
                f"width {record['width']}"
            )
    per_sequence = (
        kind is Context
        or kind in _ENDS
        or (kind not in (Repeat, Attention) and any(nodes[a].per_sequence for a in inputs))
    )
    node = Node(
        kind=kind,
        width=int(record["width"]),
        inputs=inputs,
        name=strings.get(table, i),
        per_sequence=per_sequence,
        axis=_read_axis(table, i, kind, [nodes[a] for a in inputs]),
        activation=_LINEAR
        if kind in (Norm, Attention)
        else _read_activation(table, i, _ACTIVATION, softmax=kind is not Gru),
        gate_activation=_read_activation(table, i, _GATE_ACTIVATION, softmax=False),
        clip=float(record["clip"]) or None,
        reset=RESETS[record["reset"]],
        reverse=bool(record["direction"]),
        tensors={slot: int(number) for slot, number in enumerate(record["tensors"]) if number != NONE},
        factor=float(record["alpha"]) if kind in (Norm, Attention) else 0.0,
        parameters=tuple(record["parameters"].tolist()),
        sums=(nodes[inputs[0]].sums if kind is Repeat else i if kind is Sums else None) if inputs else None,
        held=kind is Context or (per_sequence and bool(inputs) and all(nodes[a].held for a in inputs)),
        start=start,
    )
    if kind in _GIVEN:
        _check_network_input(table, i, node, nodes)
    _check_inputs(table, i, node, nodes)
    _check_tensors(i, node, nodes, tensors)
    return node


_LINEAR = Activation("linear")
_ACTIVATION = ("activation", "alpha", "beta")
_GATE_ACTIVATION = ("gate_activation", "gate_alpha", "gate_beta")
_FIELDS = (*_ACTIVATION, *_GATE_ACTIVATION, "clip", "reset", "direction")
_USED_FIELDS: dict[type[Layer], tuple[str, ...]] = {
    Dense: _ACTIVATION,
    Activate: _ACTIVATION,
    Gru: _FIELDS,
    Norm: ("alpha",),
    Attention: ("alpha",),
}
_PARAMETERS: dict[type[Layer], int] = {
    Input: 1,
    Context: 2,
    Tokens: 1,
    Gru: 1,
    State: 2,
    Slice: 1,
    Window: 3,
    Norm: 2,
    Subsample: 3,
    Repeat: 1,
    Attention: 4,
    Sums: 2,
}
"""How many of p0 .. p3 an operation uses; others use none."""
_ENDS = (Last, First, Mean, Max, Attend)
"""Operations whose value is one per sequence."""
_STEPS_ONLY = (Embedding, Gru, Window, Subsample, State, Attention, *_ENDS)
"""Operations that do not read a value per sequence."""
_READ_TOKENS = ((Embedding, 0), (Dense, 0), (Gru, 0), (Repeat, 1))
"""Operations, and the number of the input that may be TOKENS."""
_GIVEN = (Input, Tokens, Context)
"""What the first nodes are."""


def _check_parameters(table: Table, i: int, kind: type[Layer]) -> None:
    """p0 .. p3 by themselves, and the epsilon of a NORM."""
    record = table.records[i]
    p = record["parameters"].tolist()
    used = _PARAMETERS.get(kind, 0)
    table.check(not any(p[used:]), i, "parameters", f"0 for each that {kind.__name__.upper()} does not use")
    if kind in (Gru, State):
        table.check(p[kind is State] < 2, i, "parameters", "0 or 1, whether it starts from a value")
    if kind is Sums:
        table.check(1 <= p[1] <= 4, i, "parameters", "1 to 4 gates second")
        width = records.round_up(p[0], records.LANES) * p[1]
        table.check(record["width"] == width, i, "width", f"{width}, of {p[1]} gates of {p[0]} outputs")
    if kind is State:
        table.check(
            i < p[0] < len(table.records), i, "parameters", f"a source from {i + 1} to {len(table.records) - 1}"
        )
    elif kind is Window:
        span = (p[0] - 1) * p[1]
        table.check(p[0] and p[1] and span <= MAX_SPAN, i, "parameters", f"(taps - 1) * dilation from 0 to {MAX_SPAN}")
        table.check(p[2] <= span, i, "parameters", f"at most {span} steps ahead")
    elif kind is Norm:
        table.check(p[0] < 2, i, "parameters", "0 (layer) or 1 (root mean square) first")
        table.check(p[1] and record["width"] % p[1] == 0, i, "parameters", f"parts of the width {record['width']}")
        table.check(0 <= record["alpha"] < np.inf, i, "alpha", "a finite number that is not negative")
    elif kind is Subsample:
        fits = max(p[:3]) <= MAX_SPAN and p[1]
        table.check(fits, i, "parameters", f"first, stride and dropped up to {MAX_SPAN}, the stride not 0")
    elif kind is Repeat:
        table.check(p[0] <= MAX_SPAN, i, "parameters", f"at most {MAX_SPAN} steps")
    elif kind is Attention:
        table.check(p[0] < 2 and p[2] < 2, i, "parameters", "0 or 1 first and third")
        table.check(not (p[2] and p[3]), i, "parameters", "0 third if there are stored rows")
        scaled = np.isfinite(record["alpha"]) and (p[0] == 0 or record["alpha"] == 1)
        table.check(scaled, i, "alpha", "a finite number, 1 of additive scores")


def _read_axis(table: Table, i: int, kind: type[Layer], inputs: list[Node]) -> Axis:
    """How many steps a value has."""
    first, stride, dropped, _ = table.records[i]["parameters"].tolist()
    if kind is Repeat and len(inputs) == 1:
        return Axis(steps=first)
    if kind is Repeat and len(inputs) > 1:
        return inputs[1].axis
    axis = inputs[0].axis if inputs and not inputs[0].per_sequence else Axis()
    if kind is Subsample:
        axis = axis.subsampled(first + dropped, stride)
        fits = axis.steps != 0 and max(axis.lost, axis.stride) <= MAX_LOST
        table.check(fits, i, "parameters", f"steps that are left, and not over {MAX_LOST} less than of the input")
    return Axis() if kind in _ENDS else axis


def _check_network_input(table: Table, i: int, node: Node, nodes: list[Node]) -> None:
    """Inputs stand side by side in the vector, or among the tokens, of a step, and can be told apart by their names."""
    table.check(i < MAX_INPUTS, i, "operation", f"at most {MAX_INPUTS} inputs")
    widths = [1 if node.kind is Tokens else other.width for other in nodes if other.kind is node.kind]
    first = sum(widths)
    table.check(node.parameters[0] == first, i, "parameters", f"{first}, where the inputs before end, first")
    if node.kind is not Tokens:
        table.check(first + node.width <= MAX_WIDTH, i, "width", f"all inputs together at most {MAX_WIDTH} wide")
    is_context = node.kind is Context
    table.check(nodes or not is_context, i, "parameters", "an input of the steps before a context")
    after_context = any(other.kind is Context for other in nodes)
    table.check(is_context or not after_context, i, "operation", "all inputs of the steps before the contexts")
    names = [other.name for other in nodes if (other.kind is Context) == is_context]
    table.check(
        not names or (node.name and "" not in names and node.name not in names), i, "name", "one for each input"
    )
    table.check(not node.name or node.name not in [other.name for other in nodes], i, "name", "another than an input's")


def _read_activation(table: Table, i: int, fields: tuple[str, ...], softmax: bool) -> Activation:
    record = table.records[i]
    code, *parameters = fields
    name = activations.NAMES.get(int(record[code]), "")
    known = name and (softmax or Activation(name).elementwise)
    table.check(known, i, code, "the code of an activation that is possible here")
    used = activations.number_of_parameters(name)
    for field in parameters[:used]:
        table.check(np.isfinite(record[field]), i, field, "a finite number")
    for field in parameters[used:]:
        table.check(is_zero(record[field]), i, field, f"0, as {name} does not use it")
    if name == "clip":
        table.check(record[parameters[0]] <= record[parameters[1]], i, parameters[0], f"at most {parameters[1]}")
    return Activation(name, tuple(float(record[field]) for field in parameters[:used]))


_INPUTS: dict[type[Layer], tuple[int, int]] = {
    Input: (0, 0),
    Tokens: (0, 0),
    Context: (0, 0),
    Gru: (1, 2),
    Concat: (2, MAX_CONCAT),
    Add: (2, 2),
    Multiply: (2, 2),
    Maximum: (2, 2),
    State: (0, 1),
    Repeat: (1, 2),
    Attention: (3, 4),
    Blend: (3, 3),
    Attend: (2, 2),
}
"""Least and largest number of inputs; elsewhere it is 1."""


def _check_inputs(table: Table, i: int, node: Node, nodes: list[Node]) -> None:
    """Number, kinds, rates and widths of the inputs."""
    inputs = [nodes[a] for a in node.inputs]
    low, high = _INPUTS.get(node.kind, (1, 1))
    table.check(low <= len(inputs) <= high, i, "edges", f"{low} to {high}")
    operation = f"NODES[{i}] ({node.kind.__name__.upper()})"
    for number, source in enumerate(inputs):
        token = source.kind is Tokens
        if node.kind is Embedding and not token:
            raise FormatError(f"{operation}: its input is a vector, expected TOKENS")
        if token and (node.kind, number) not in _READ_TOKENS:
            raise FormatError(f"{operation}: input {number} is TOKENS, expected a vector")
        if source.sums is not None and node.kind is not Repeat:
            if node.kind is not Gru or number:
                raise FormatError(f"{operation}: input {number} is SUMS, with which only a GRU can begin")
            gates, width = 2 if node.reset == "none" else 3, node.width
            rows, begun, *_ = nodes[source.sums].parameters
            if (begun, rows) != (gates, width):
                raise FormatError(f"{operation}: SUMS of {begun} gates of {rows}, expected {gates} of {width}")
    begins = bool(inputs) and (inputs[0].kind is Tokens or inputs[0].sums is not None)
    if len(inputs) == 2 and node.kind is Gru and (not begins or node.reset == "none"):
        raise FormatError(f"{operation}: of two inputs the first is TOKENS or SUMS, and there must be three gates")
    slow = [source.per_sequence for source in inputs]
    if node.kind is Repeat:
        if not slow[0] or any(slow[1:]) or (len(inputs) > 1) != (node.parameters[0] == 0):
            raise FormatError(f"{operation}: reads a value per sequence, and if it has 0 steps, one per step then")
    elif node.kind is Attention and node.parameters[3]:
        if slow[0] or not all(slow[1:]):
            raise FormatError(f"{operation}: the query is one value per step, what is stored one per sequence")
    elif any(slow) and (not all(slow) or node.kind in _STEPS_ONLY):
        raise FormatError(f"{operation}: reads a value per sequence where it cannot")
    together = [] if any(slow) else inputs[1:] if node.kind is Attention and not node.parameters[2] else inputs
    if node.kind is not Repeat and any(source.axis != together[0].axis for source in together):
        raise FormatError(f"{operation}: its inputs have {', '.join(str(source.axis) for source in together)}")
    if node.kind is Sums and not all(slow):
        raise FormatError(f"{operation}: reads a value per step, expected one per sequence")
    _check_width(table, i, node, [source.width for source in inputs], operation)


def _check_width(table: Table, i: int, node: Node, widths: list[int], operation: str) -> None:
    """The width of the value and those of the inputs fit."""
    wrong = f"{operation}: its inputs have the widths {widths}"
    expected = node.width
    if node.kind is Concat:
        expected = sum(widths)
    elif node.kind is Attend:
        expected = widths[1]
        if widths[1] % widths[0]:
            raise FormatError(wrong)
    elif node.kind is Attention:
        _, heads, _, stored = node.parameters
        rows = stored or 1
        if (
            widths[0] * rows != widths[1]
            or node.width * rows != widths[2]
            or widths[3:] not in ([], [1] * bool(stored))
        ):
            raise FormatError(f"{wrong}, and it {node.width}, in {rows} rows")
        fits = heads and widths[0] % heads == 0 and expected % heads == 0
        table.check(fits, i, "parameters", f"a divisor of the widths {widths} as the number of heads")
    elif node.kind is Window:
        expected = widths[0] * node.parameters[0]
    elif node.kind is Slice:
        end = node.parameters[0] + node.width
        table.check(end <= widths[0], i, "parameters", f"columns of the {widths[0]} of its input, not up to {end}")
    elif node.kind in (Add, Multiply, Maximum):
        expected = widths[0]
        if widths[1] not in (1, expected):
            raise FormatError(wrong)
    elif node.kind is Repeat:
        expected = widths[0]
    elif node.kind not in (*_GIVEN, Embedding, Dense, Gru, State, Sums):
        expected = widths[0]
        if any(width != expected for width in widths):
            raise FormatError(wrong)
    table.check(node.width == expected, i, "width", f"{expected}, from its inputs")


def _check_loops(table: Table, nodes: list[Node]) -> None:
    """The source of each STATE, and that nothing between the two needs later steps."""
    loop = range(0)  # of the states so far
    for i, node in enumerate(nodes):
        if node.kind is State:
            number = node.parameters[0]
            source = nodes[number]
            fits = source.kind not in (*_GIVEN, State, Slice) and source.width == node.width
            fits = fits and source.axis == node.axis
            expected = (
                f"a node of the width {node.width} and {node.axis} that is neither an input nor a STATE nor a SLICE"
            )
            table.check(fits, i, "parameters", expected)
            loop = range(loop.start if i in loop else i, max(loop.stop, number + 1))
        if i in loop and (node.per_sequence or _needs_later(node, nodes)):
            what = f"NODES[{i}] ({node.kind.__name__.upper()})"
            raise FormatError(f"{what}: it needs later steps, in the loop of nodes {loop.start} to {loop.stop - 1}")


def _needs_later(node: Node, nodes: list[Node]) -> bool:
    """Whether a node needs later steps, or other ones."""
    ahead = node.kind is Window and node.parameters[2] > 0
    held = node.kind is Attention and node.parameters[3] and all(nodes[a].held for a in node.inputs[1:])
    return node.reverse or ahead or (node.kind in (Subsample, Repeat, Attention) and not held)


def _check_tensors(i: int, node: Node, nodes: list[Node], tensors: list[Tensor]) -> None:
    """Just the tensors that the operation needs, in just the shapes."""
    expected = _expected_tensors(node, [nodes[a] for a in node.inputs])
    if node.start is not None:
        del expected[7 if node.kind is Gru else 0]
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
    if node.kind is State:
        return {0: (PLAIN, 1, H, 1)}
    if node.kind is Attention and node.parameters[0]:
        return {0: (PLAIN, 1, inputs[0].width, 1)}
    if node.kind in (Affine, Norm):
        return {0: (PLAIN, 1, H, 1), 1: (PLAIN, 1, H, 1)}
    if node.kind is Sums:
        rows, gates, *_ = node.parameters
        return {0: (PANELS, rows, inputs[0].width, gates), 1: (SUMS, 1, rows, gates)}
    if node.kind not in (Dense, Gru):
        return {}
    gates = 1 if node.kind is Dense else 2 if node.reset == "none" else 3
    begun = inputs[0].sums is not None
    whole = inputs[-1].kind is Tokens or (begun and len(inputs) == 1)
    expected = {} if whole else {0: (PANELS, H, inputs[-1].width, gates)}
    if begun:
        pass
    elif inputs[0].kind is Tokens:
        expected[2] = (SUMS, inputs[0].width, H, gates)
    else:
        expected[1] = (SUMS, 1, H, gates)
    if node.kind is Gru:
        recurrent = 2 if node.reset == "before" else gates
        expected |= {3: (PANELS, H, H, recurrent), 4: (SUMS, 1, H, recurrent), 7: (PLAIN, 1, H, 1)}
        if node.reset == "before":
            expected |= {5: (PANELS, H, H, 1), 6: (SUMS, 1, H, 1)}
    return expected
