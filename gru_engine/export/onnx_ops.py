# SPDX-License-Identifier: Apache-2.0
"""What each ONNX operator means for a tensor of known axes: one short function per operator.

The table ``HANDLERS`` is the complete list of what can be exported. A function takes the context and the node; an input is a
``Tensor`` where it depends on the model's input, an array where it is a constant, None where it is left out. Nodes all of whose
inputs are constants never come here: they are evaluated.

Here are the layers and whatever moves axes and features; ``gru_engine.export.onnx_math`` has arithmetic and activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from gru_engine.export import graph as symbolic
from gru_engine.export import onnx_gru, operations, over_time
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import AxisError, Tensor, axis_text, is_features
from gru_engine.export.operations import all_variable, variable

LENGTHS = object()
"""Stands for the lengths of the sequences, which the model takes as an input."""

MOVING = (
    "Identity",
    "Cast",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Split",
    "Gather",
    "Concat",
)
"""Operators that can stand between an input and the place where a GRU takes it as initial state or as lengths."""


@dataclass
class Context(operations.Context):
    """The graph in the making, the sizes of batch and time, and who depends on the lengths of the sequences.

    ``lengths`` has for each GRU its name and whether it takes the lengths; ``ends`` are the nodes that read the last step of the
    time axis, or turn it round, whatever the lengths are. ``made`` has, by the ids of a value, the name of the function that made
    it and its argument, for functions that some models write as two.
    """

    made: dict[bytes, tuple[str, Tensor]] = field(default_factory=dict)
    lengths: list[tuple[str, bool]] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Above:
    """Where a value is greater than a number: the condition of ``Where``."""

    value: Tensor
    number: float


@dataclass(frozen=True)
class Call:
    """One node: its operator, inputs and attributes."""

    op: str
    name: str
    inputs: list[Any]
    attributes: dict[str, Any]
    outputs: int
    opset: int

    def input(self, number: int) -> Any:
        """An input, or None."""
        return self.inputs[number] if number < len(self.inputs) else None

    def constant(self, number: int, what: str) -> Array:
        """An input that must be a constant: float32, float64 or integers."""
        value = self.input(number)
        if not isinstance(value, np.ndarray):
            raise ExportError(
                f"{what} is {'missing' if value is None else 'computed from the input'}; it must be a constant"
            )
        return plain(value)

    def option(self, name: str, number: int, default: Any = None) -> Any:
        """What newer operator sets take as a constant input and older ones as an attribute: integers, or the default."""
        if self.input(number) is not None:
            return self.constant(number, name).reshape(-1).tolist()
        value = self.attributes.get(name, default)
        return list(value) if isinstance(value, (list, tuple)) else value


def plain(value: Array) -> Array:
    """A constant in a type that NumPy computes with: float16 and bfloat16 as float32."""
    small = value.dtype.kind not in "fiub" or value.dtype.itemsize < 4
    return value.astype(np.float32) if small and value.dtype.kind not in "iub" else value


HANDLERS = operations.Handlers()
"""For each operator what to do; it returns the value, or the list of values. ``onnx_math`` adds the arithmetic."""
handles = HANDLERS.handles


def axes_of(t: Tensor, axes: Any, added: int = 0) -> list[int]:
    """Axes that may be counted from the end, of a tensor that has ``added`` more of them."""
    rank = t.rank + added
    for axis in axes:
        if not -rank <= axis < rank:
            raise ExportError(f"axis {axis} of {t} does not exist")
    return [axis % rank for axis in axes]


# ---- operators that change nothing


@handles("Identity", "CastLike")
def _same(c: Context, call: Call) -> Any:
    return call.inputs[0]


@handles("Dropout")
def _dropout(c: Context, call: Call) -> Any:
    training = call.input(2)
    if training is not None and (not isinstance(training, np.ndarray) or training.any()):
        raise ExportError("it is in training mode")
    return [call.inputs[0], None]


@handles("Cast")
def _cast(c: Context, call: Call) -> Any:
    kind = helper.tensor_dtype_to_np_dtype(call.attributes["to"])
    t, tokens = call.inputs[0], c.graph.is_tokens(call.inputs[0])
    # Casts to float16 round; where a model computes in float16, the network does in float32, more exactly.
    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    if tokens and kind.kind in "iu" and kind.itemsize >= 4:
        return t
    if tokens or call.attributes["to"] not in floats:
        raise ExportError(f"{'tokens' if tokens else 'values'} are converted to {kind}")
    return t


# ---- moving axes and choosing features


@handles("Reshape")
def _reshape(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the value to be reshaped")
    have, shape = t.shape(c.sizes), [int(n) for n in call.option("shape", 1)]
    if not call.attributes.get("allowzero"):
        shape = [have[i] if n == 0 and i < len(have) else n for i, n in enumerate(shape)]
    if -1 in shape:
        rest = -math.prod(shape)
        if rest <= 0 or math.prod(have) % rest:
            raise AxisError(f"{t} of example shape {list(have)} does not fit the shape {shape}")
        shape[shape.index(-1)] = math.prod(have) // rest
    if math.prod(shape) != math.prod(have):
        raise AxisError(f"{t} of example shape {list(have)} does not fit the shape {shape}; it holds a size of its own")
    return t.reshape(shape, c.sizes)


@handles("Flatten")
def _flatten(c: Context, call: Call) -> Any:
    t = call.inputs[0]
    have, axis = t.shape(c.sizes), call.attributes.get("axis", 1)
    axis += t.rank * (axis < 0)
    return t.reshape([math.prod(have[:axis]), math.prod(have[axis:])], c.sizes)


@handles("Transpose")
def _transpose(c: Context, call: Call) -> Any:
    t = call.inputs[0]
    return t.permute(call.attributes.get("perm", list(range(t.rank))[::-1]))


@handles("Squeeze")
def _squeeze(c: Context, call: Call) -> Any:
    t = call.inputs[0]
    axes = call.option("axes", 1)
    if axes is None:
        return t.squeeze(range(t.rank))
    axes = axes_of(t, axes)
    for axis in axes:
        if t.dims[axis]:
            raise AxisError(f"axis {axis} of {t} is removed as if its size was 1, but it is {axis_text(t.dims[axis])}")
    return t.squeeze(axes)


@handles("Unsqueeze")
def _unsqueeze(c: Context, call: Call) -> Any:
    t, axes = call.inputs[0], call.option("axes", 1)
    for axis in sorted(axes_of(t, axes, len(axes))):
        t = t.unsqueeze(axis)
    return t


def _read_end(c: Context, call: Call, t: Tensor, axis: int, last: bool) -> None:
    """Remember a node that reads the time axis by position."""
    if any(f in ("T", "R") for f in t.dims[axis]) and last:
        c.ends.append(call.name or call.op)


@handles("Slice")
def _slice(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the value that is sliced")
    starts, ends = call.option("starts", 1), call.option("ends", 2)
    axes = axes_of(t, call.option("axes", 3) or range(len(starts)))
    steps = call.option("steps", 4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps):
        size = t.shape(c.sizes)[axis]
        if step < 0 and end < -size:
            end = None
        part = slice(start, end, step)
        _read_end(c, call, t, axis, part.indices(size)[0] != 0)
        t = operations.sliced(c, t, axis, part)
    return t


@handles("Split")
def _split(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the value that is split")
    (axis,) = axes_of(t, [call.attributes.get("axis", 0)])
    size, sizes = t.shape(c.sizes)[axis], call.option("split", 1)
    if sizes is None:
        chunk = -(-size // call.outputs)
        sizes = [min(chunk, size - i * chunk) for i in range(call.outputs)]
    return operations.parts(c, t, sizes, axis)


@handles("Concat")
def _concat(c: Context, call: Call) -> Any:
    tensors = all_variable(call.inputs, "it")
    return symbolic.cat(tensors, axes_of(tensors[0], [call.attributes.get("axis", 1)])[0])


@handles("Gather")
def _gather(c: Context, call: Call) -> Any:
    data, indices = call.inputs
    if isinstance(indices, Tensor):
        return _embedding(c, call, indices)
    (axis,) = axes_of(data, [call.attributes.get("axis", 0)])
    places = [int(i) for i in indices.reshape(-1)]
    size = data.shape(c.sizes)[axis]
    if not all(-size <= i < size for i in places):
        raise ExportError(f"it reads the places {places} of axis {axis} of {data}, which has {size}")
    _read_end(c, call, data, axis, any(i % size for i in places))
    if indices.ndim == 0:
        return operations.select(c, data, axis, places[0])
    if not is_features(data.dims[axis]):
        if len(places) != 1:
            raise ExportError(
                f"{len(places)} places of the {axis_text(data.dims[axis])} axis are read; only features can be"
            )
        taken = operations.select(c, data, axis, places[0]).unsqueeze(axis)
    else:
        taken = data.take(axis, np.array([i % size for i in places]))
    shape = taken.shape(c.sizes)
    return taken.reshape([*shape[:axis], *indices.shape, *shape[axis + 1 :]], c.sizes)


def _embedding(c: Context, call: Call, tokens: Tensor) -> Tensor:
    if call.attributes.get("axis", 0) != 0:
        raise ExportError("rows of a table are looked up along another axis than the first")
    table = call.constant(0, "the table in which the input is looked up")
    rows = c.graph.embedding(tokens, table.reshape(len(table), -1))
    return rows.reshape([*tokens.shape(c.sizes), *table.shape[1:]], c.sizes)


@handles("OneHot")
def _one_hot(c: Context, call: Call) -> Any:
    tokens = variable(call.inputs[0], "the index of one-hot vectors")
    depth = int(call.constant(1, "the depth").reshape(-1)[0])
    off, on = (float(v) for v in call.constant(2, "the pair of values"))
    if call.attributes.get("axis", -1) not in (-1, tokens.rank):
        raise ExportError("the one-hot vectors stand along another axis than the last")
    hot = c.graph.one_hot(tokens, depth)
    return hot if (off, on) == (0, 1) else c.graph.affine(hot, on - off, off)


@handles("Expand")
def _expand(c: Context, call: Call) -> Any:
    return operations.expanded(c, variable(call.inputs[0], "the value"), [int(n) for n in call.option("shape", 1)])


@handles("Tile")
def _tile(c: Context, call: Call) -> Any:
    return operations.repeated(c, variable(call.inputs[0], "the value"), [int(n) for n in call.option("repeats", 1)])


@handles("ReverseSequence")
def _reverse_sequence(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the value")
    batch, time = axes_of(t, [call.attributes.get("batch_axis", 1), call.attributes.get("time_axis", 0)])
    if t.dims[time] not in (("T",), ("R",)) or t.dims[batch] not in ((), ("B",)):
        raise AxisError(
            f"it turns axis {time} of {t} round for each place of axis {batch}; they must be time and batch"
        )
    lengths = call.inputs[1]
    if lengths is not LENGTHS:
        if not isinstance(lengths, np.ndarray) or (lengths != t.shape(c.sizes)[time]).any():
            raise ExportError(
                "the lengths of the sequences must be an input of the model, or that of the whole time axis"
            )
        c.ends.append(call.name or call.op)
    return c.graph.flip(t, time)


# ---- layers with weights


@handles("MatMul")
def _matmul(c: Context, call: Call) -> Any:
    a, b = call.inputs
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return operations.matrix_product(c, a, b)
    left = isinstance(a, np.ndarray)
    t, M = (b, plain(a)) if left else (a, plain(b))
    if M.ndim > 2 and math.prod(M.shape[:-2]) == 1 and M.ndim <= t.rank:
        M = M.reshape(M.shape[-2:])
    elif M.ndim > 2 and not left:
        return operations.stacked_product(c, t, M)
    elif M.ndim > 2:
        raise ExportError("a product with a stack of matrices on the left is not supported")
    if M.ndim == 1:
        axis = t.rank - 2 if left and t.rank > 1 else t.rank - 1
        product = c.graph.dense(t.permute([*(i for i in range(t.rank) if i != axis), axis]), M[np.newaxis])
        return product.squeeze([product.rank - 1])
    if not left:
        return c.graph.dense(t, M.T)
    if t.rank == 1:
        return c.graph.dense(t, M)
    order = [*range(t.rank - 2), t.rank - 1, t.rank - 2]
    return c.graph.dense(t.permute(order), M).permute(order)


@handles("Gemm")
def _gemm(c: Context, call: Call) -> Any:
    a = variable(call.inputs[0], "the left factor")
    a = a.permute([1, 0]) if call.attributes.get("transA") else a
    B = call.constant(1, "the matrix")
    alpha, beta = (call.attributes.get(name, 1.0) for name in ("alpha", "beta"))
    W = B if call.attributes.get("transB") else B.T
    product = c.graph.dense(a, W if alpha == 1 else W * np.float64(alpha))
    bias = call.input(2)
    if bias is None:
        return product
    if isinstance(bias, Tensor):
        return c.graph.add(product, bias if beta == 1 else c.graph.affine(bias, beta, 0.0))
    bias = plain(bias)
    return operations.affine(c, product, 1.0, bias if beta == 1 else bias * np.float64(beta))


@handles("BatchNormalization")
def _batch_norm(c: Context, call: Call) -> Any:
    t = variable(call.inputs[0], "the value")
    unused = (call.outputs > 1 and call.opset < 14) and call.opset < 7 and not call.attributes.get("is_test")
    if call.attributes.get("training_mode") or unused or call.attributes.get("spatial", 1) != 1:
        raise ExportError("it uses the statistics of the batch")
    scale, bias, mean, variance = (
        call.constant(i, what) for i, what in enumerate(("the scale", "the bias", "the mean", "the variance"), 1)
    )
    eps = call.attributes.get("epsilon", 1e-5)
    return [operations.normalised(c, t, (mean, variance), scale, bias, eps)] + [None] * (call.outputs - 1)


# ---- recurrent layers


@handles("GRU")
def _gru(c: Context, call: Call) -> Any:
    x = variable(call.inputs[0], "the input")
    W, R = call.constant(1, "W"), call.constant(2, "R")
    B = None if call.input(3) is None else call.constant(3, "B")
    layers = onnx_gru.directions(W, R, B, call.attributes)
    batch_first = bool(call.attributes.get("layout", 0))
    b, t = (0, 1) if batch_first else (1, 0)
    if x.rank != 3 or x.dims[b] not in ((), ("B",)) or not (x.dims[t] == () or over_time.is_steps(x.dims[t])):
        wanted = "[batch, time, features]" if batch_first else "[time, batch, features]"
        raise AxisError(f"with layout={int(batch_first)} it reads {wanted}, but its input is {x}")
    lengths = call.input(4)
    if isinstance(lengths, np.ndarray) and (lengths != x.shape(c.sizes)[t]).any():
        raise ExportError(f"sequence_lens is a constant, {lengths.tolist()}; lengths are given when the model runs")
    if isinstance(lengths, Tensor):
        raise ExportError("sequence_lens is computed from the input")
    c.lengths.append((call.name or call.op, lengths is LENGTHS))
    features, _ = x.spread(2)
    if features.size != layers[0].arrays["W"].shape[1]:
        raise ExportError(f"W has {layers[0].arrays['W'].shape[1]} columns, but its input is {x}")
    hx = call.input(5)
    if hx is None:
        hx = np.zeros((len(layers), 1, R.shape[2]), np.float32)
    elif isinstance(hx, np.ndarray):
        hx = plain(hx).swapaxes(0, 1) if batch_first else plain(hx)
        if hx.ndim != 3 or (len(hx), hx.shape[2]) != (len(layers), R.shape[2]):
            raise ExportError(
                f"initial_h has the shape {list(call.inputs[5].shape)}, which does not fit R {list(R.shape)}"
            )
    elif hx.rank == 3 and batch_first:
        hx = hx.permute([1, 0, 2])
    h0, states = operations.initial_states(c, hx, x.dims[b])
    if x.dims[t] == () and any(state is None for state in states):
        raise ExportError(
            "it runs for a single time step and its state is not carried on: initial_h must be an input of the model, and Y_h "
            "an output"
        )
    outputs, finals = [], []
    for number, layer in enumerate(layers):
        arrays, initial = layer.arrays, h0[number]
        if initial is not None:
            arrays = {**arrays, "h0": initial}
        reverse = layer.reverse != over_time.goes_back(x.dims[t])
        options = {**layer.options, "direction": "reverse" if reverse else "forward"}
        name = call.name + "_reverse" * (number == 1)
        node = c.graph.gru(features, arrays, options, states[number], name)
        outputs.append(node.ids)
        finals.append(node.ids if x.dims[t] == () else c.graph.ends(node.ids, "first" if reverse else "last"))
    D, H = len(outputs), outputs[0].size
    Y = Tensor.of((x.dims[t], (D,), x.dims[b], (H,)), np.stack(outputs))
    Y_h = Tensor.of(((D,), x.dims[b], (H,)), np.stack(finals))
    if batch_first:
        Y, Y_h = Y.permute([2, 0, 1, 3]), Y_h.permute([1, 0, 2])
    return [Y, Y_h]
