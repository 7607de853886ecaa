# SPDX-License-Identifier: Apache-2.0
"""What each ATen operation means for a tensor of known axes: one short function per operation.

The table ``HANDLERS`` is the complete list of what can be exported. A function takes the graph and the operation's arguments
by the names of its schema; a tensor argument is a ``Tensor`` where it depends on the input, and a real ``torch.Tensor`` where it
is a constant. An operation all of whose arguments are constants never comes here: it is simply executed.

Here are the layers and whatever moves axes and features; ``gru_engine.export.torch_math`` has arithmetic and activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from gru_engine.export import graph as symbolic
from gru_engine.export.common import Array, ExportError, gru_arrays
from gru_engine.export.graph import AxisError, Graph, Ids, Tensor, axis_text, is_features

Arguments = SimpleNamespace
"""Of an operation, by the names of its schema."""
Handler = Callable[["Context", SimpleNamespace], Any]
HANDLERS: dict[str, Handler] = {}
"""For each operation's name what to do. ``gru_engine.export.torch_math`` adds the arithmetic."""


@dataclass
class Context:
    """The graph in the making, and the example sizes of batch and time.

    ``absolute`` and ``one_more`` remember, by their ids, which tensors are abs(x) and abs(x) + 1 of which x.
    """

    graph: Graph
    sizes: dict[str, int]
    absolute: dict[bytes, Tensor] = field(default_factory=dict)
    one_more: dict[bytes, Tensor] = field(default_factory=dict)


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Enter a function into the table, for one or several operations."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def to_numpy(t: torch.Tensor) -> Array:
    """A constant as float32 or float64."""
    t = t.detach().cpu()
    array: Array = (t if t.dtype in (torch.float32, torch.float64) else t.to(torch.float32)).numpy()
    return array


def variable(value: Any, what: str) -> Tensor:
    """The value, which must depend on the input."""
    if not isinstance(value, Tensor):
        raise ExportError(f"{what} is a constant")
    return value


def constant(value: Any, what: str) -> torch.Tensor:
    """The value, which must not depend on the input."""
    if not isinstance(value, torch.Tensor):
        raise ExportError(f"{what} is computed from the input; it must be a constant")
    return value


def axis_of(t: Tensor, dim: int) -> int:
    """The number of an axis that may be counted from the end."""
    return dim % t.rank if t.rank else 0


def _beside(c: Context, t: Tensor, constant: Any) -> tuple[Tensor, Array]:
    """A tensor and a constant broadcast to each other: the constant as an array that fits ``ids``."""
    if not isinstance(constant, torch.Tensor):
        return t, np.asarray(constant, np.float64)
    if constant.is_complex():
        raise ExportError("complex numbers are not supported")
    value = constant.detach().cpu().numpy() if not constant.dtype.is_floating_point else to_numpy(constant)
    rank = max(t.rank, value.ndim)
    own = [()] * (rank - t.rank) + list(t.dims)
    value = value.reshape((1,) * (rank - value.ndim) + value.shape)
    dims, shape = [], []
    for axis, dim in enumerate(own):
        if not is_features(dim):
            if not (value == value.take([0], axis)).all():
                raise ExportError(f"a constant that is combined with {t} differs along the {axis_text(dim)} axis")
            value = value.take([0], axis)
        elif not dim and value.shape[axis] in c.sizes.values():
            raise AxisError(f"a constant repeats {t} over batch or time")
        elif not dim and value.shape[axis] > 1:
            dim = (value.shape[axis],)
        dims.append(dim)
        shape += [value.shape[axis] if is_features(dim) else 1 for f in dim if isinstance(f, int)]
    return t.expand(dims), value.reshape(shape)


def affine(c: Context, t: Tensor, scale: Any, shift: Any) -> Tensor:
    """``t * scale + shift``, of which at most one is more than a number."""
    t, scale = _beside(c, t, scale)
    t, shift = _beside(c, t, shift)
    return c.graph.affine(t, scale, shift)


# ---- operations that change nothing


@handles("alias", "detach", "clone", "contiguous", "lift_fresh_copy", "lift_fresh", "type_as")
def _same(c: Context, a: Arguments) -> Any:
    return a.self


@handles("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def _dropout(c: Context, a: Arguments) -> Any:
    if a.train and a.p:
        raise ExportError("dropout is active although the module is in eval mode")
    return a.input


@handles("_to_copy", "to")
def _cast(c: Context, a: Arguments) -> Any:
    dtype = getattr(a, "dtype", None)
    tokens = c.graph.is_tokens(a.self)
    allowed = (torch.int64, torch.int32) if tokens else (torch.float32, torch.float64)
    if dtype is not None and dtype not in allowed:
        raise ExportError(f"{'tokens' if tokens else 'values'} are converted to {dtype}")
    return a.self


# ---- moving axes and choosing features


@handles("view", "_unsafe_view", "reshape")
def _view(c: Context, a: Arguments) -> Any:
    size = list(getattr(a, "size", None) or getattr(a, "shape", []))
    if -1 in size:
        total = math.prod(a.self.shape(c.sizes))
        size[size.index(-1)] = total // -math.prod(size)
    return a.self.reshape(size, c.sizes)


@handles("permute")
def _permute(c: Context, a: Arguments) -> Any:
    return a.self.permute([axis_of(a.self, d) for d in a.dims])


@handles("transpose", "swapaxes")
def _transpose(c: Context, a: Arguments) -> Any:
    order = list(range(a.self.rank))
    i, j = axis_of(a.self, a.dim0), axis_of(a.self, a.dim1)
    order[i], order[j] = j, i
    return a.self.permute(order)


@handles("unsqueeze")
def _unsqueeze(c: Context, a: Arguments) -> Any:
    return a.self.unsqueeze(a.dim % (a.self.rank + 1))


@handles("squeeze")
def _squeeze(c: Context, a: Arguments) -> Any:
    dims = getattr(a, "dim", None)
    dims = range(a.self.rank) if dims is None else [dims] if isinstance(dims, int) else dims
    return a.self.squeeze([axis_of(a.self, d) for d in dims])


@handles("select")
def _select(c: Context, a: Arguments) -> Any:
    t, dim = a.self, axis_of(a.self, a.dim)
    if is_features(t.dims[dim]):
        return t.select(dim, a.index)
    return c.graph.end(t, dim, a.index, t.shape(c.sizes)[dim])


@handles("slice")
def _slice(c: Context, a: Arguments) -> Any:
    t, dim = a.self, axis_of(a.self, a.dim)
    size = t.shape(c.sizes)[dim]
    start, stop, step = slice(a.start, a.end, a.step).indices(size)
    if (start, stop, step) == (0, size, 1):
        return t
    if not is_features(t.dims[dim]):
        raise ExportError(
            f"a part of the {axis_text(t.dims[dim])} axis is taken ({start}:{stop}:{step}), only features can be"
        )
    return t.take(dim, slice(start, stop, step))


def parts(c: Context, t: Tensor, sizes: Sequence[int], dim: int) -> list[Tensor]:
    """Pieces of the given sizes along an axis of features."""
    dim, start, pieces = axis_of(t, dim), 0, []
    if not is_features(t.dims[dim]) and len(sizes) > 1:
        raise ExportError(f"the {axis_text(t.dims[dim])} axis is split; only features can be")
    for size in sizes:
        pieces.append(t.take(dim, slice(start, start + size)))
        start += size
    return pieces


@handles("split")
def _split(c: Context, a: Arguments) -> Any:
    if not isinstance(a.split_size, int):
        return parts(c, a.self, a.split_size, a.dim)
    size = a.self.shape(c.sizes)[axis_of(a.self, a.dim)]
    return parts(c, a.self, [min(a.split_size, size - i) for i in range(0, size, a.split_size)], a.dim)


@handles("split_with_sizes")
def _split_with_sizes(c: Context, a: Arguments) -> Any:
    return parts(c, a.self, a.split_sizes, a.dim)


@handles("unbind")
def _unbind(c: Context, a: Arguments) -> Any:
    dim = axis_of(a.self, a.dim)
    if not is_features(a.self.dims[dim]):
        raise ExportError(
            f"the {axis_text(a.self.dims[dim])} axis is taken apart; of a loop over time, export the loop's body: "
            "a module with forward(x, h) -> (y, h)"
        )
    return [a.self.select(dim, i) for i in range(a.self.shape(c.sizes)[dim])]


@handles("index_select")
def _index_select(c: Context, a: Arguments) -> Any:
    return a.self.take(axis_of(a.self, a.dim), constant(a.index, "an index").reshape(-1).numpy())


@handles("index")
def _index(c: Context, a: Arguments) -> Any:
    used = [(dim, index) for dim, index in enumerate(a.indices) if index is not None]
    if len(used) != 1 or constant(used[0][1], "an index").dtype == torch.bool or used[0][1].dim() != 1:
        raise ExportError("indexing with tensors is supported for one axis of features and constant integers (the state at a "
                          "sequence's own end comes from lengths=, when the model runs)")  # fmt: skip
    return a.self.take(used[0][0], used[0][1].numpy())


def _allvariable(tensors: Sequence[Any], what: str) -> list[Tensor]:
    for t in tensors:
        if not isinstance(t, Tensor):
            raise ExportError(f"{what} joins a constant to values that depend on the input")
    return list(tensors)


@handles("cat", "concat", "concatenate")
def _cat(c: Context, a: Arguments) -> Any:
    tensors = _allvariable(a.tensors, "a concatenation")
    return symbolic.cat(tensors, axis_of(tensors[0], a.dim))


@handles("hstack")
def _hstack(c: Context, a: Arguments) -> Any:
    tensors = _allvariable(a.tensors, "a concatenation")
    return symbolic.cat(tensors, min(1, tensors[0].rank - 1))


@handles("stack")
def _stack(c: Context, a: Arguments) -> Any:
    tensors = _allvariable(a.tensors, "a stack")
    dim = a.dim % (tensors[0].rank + 1)
    return symbolic.cat([t.unsqueeze(dim) for t in tensors], dim)


@handles("flip")
def _flip(c: Context, a: Arguments) -> Any:
    t = a.self
    for dim in a.dims:
        t = c.graph.flip(t, axis_of(t, dim))
    return t


@handles("expand")
def _expand(c: Context, a: Arguments) -> Any:
    t, added = a.self, len(a.size) - a.self.rank
    own = [()] * added + list(t.dims)
    have = [1] * added + list(t.shape(c.sizes))
    dims = [d if size in (-1, n) else (size,) for d, n, size in zip(own, have, a.size)]
    if any(size in c.sizes.values() for d, n, size in zip(own, have, a.size) if size not in (-1, n)):
        raise AxisError(f"{t} is repeated over batch or time")
    return t.expand(dims)


@handles("repeat", "tile")
def _repeat(c: Context, a: Arguments) -> Any:
    repeats = list(getattr(a, "repeats", None) or a.dims)
    t = a.self
    for _ in range(len(repeats) - t.rank):
        t = t.unsqueeze(0)
    for dim, n in enumerate([1] * (t.rank - len(repeats)) + repeats):
        if n != 1:
            if n in c.sizes.values():
                raise AxisError(f"{t} is repeated over batch or time")
            t = symbolic.cat([t] * n, dim)
    return t


# ---- layers with weights


@handles("embedding")
def _embedding(c: Context, a: Arguments) -> Any:
    return c.graph.embedding(variable(a.indices, "the index of an embedding"), to_numpy(constant(a.weight, "a table")))


@handles("one_hot")
def _one_hot(c: Context, a: Arguments) -> Any:
    if a.num_classes < 1:
        raise ExportError("one_hot needs num_classes")
    return c.graph.one_hot(a.self, a.num_classes)


def _dense(c: Context, t: Any, weight: Any, bias: Any) -> Tensor:
    W = to_numpy(constant(weight, "the matrix of a linear layer"))
    b = None if bias is None else to_numpy(constant(bias, "the bias of a linear layer"))
    return c.graph.dense(variable(t, "the input of a linear layer"), W, b)


@handles("linear")
def _linear(c: Context, a: Arguments) -> Any:
    return _dense(c, a.input, a.weight, a.bias)


@handles("matmul", "mm")
def _matmul(c: Context, a: Arguments) -> Any:
    other = getattr(a, "other", None) if hasattr(a, "other") else a.mat2
    other = constant(other, "the right side of a matrix product")
    if other.dim() > 2:
        raise ExportError("a product with a stack of matrices is not supported")
    if other.dim() == 1:
        product = _dense(c, a.self, other[None], None)
        return product.squeeze([product.rank - 1])
    return _dense(c, a.self, other.T, None)


@handles("addmm")
def _addmm(c: Context, a: Arguments) -> Any:
    bias = constant(a.self, "the bias of a matrix product")
    product = _dense(c, a.mat1, constant(a.mat2, "the matrix").T * a.alpha, None)
    return affine(c, product, 1.0, bias * a.beta)


@handles("_native_batch_norm_legit_no_training")
def _batch_norm(c: Context, a: Arguments) -> Any:
    t = a.input
    if t.rank < 2 or not is_features(t.dims[1]):
        kind = axis_text(t.dims[1]) if t.rank > 1 else "missing"
        raise AxisError(f"BatchNorm1d normalises axis 1, which is {kind} in {t}; it must be the features")
    mean, variance = (constant(v, "a running statistic").double() for v in (a.running_mean, a.running_var))
    scale = (variance + a.eps).rsqrt() * (1 if a.weight is None else a.weight.double())
    shift = (0 if a.bias is None else a.bias.double()) - mean * scale
    shape = [-1 if axis == 1 else 1 for axis in range(t.rank)]
    return affine(c, affine(c, t, scale.reshape(shape), 0.0), 1.0, shift.reshape(shape)), None, None


@handles("_native_batch_norm_legit", "native_batch_norm", "_native_batch_norm_legit_functional")
def _batch_statistics(c: Context, a: Arguments) -> Any:
    raise ExportError("this batch normalisation uses the statistics of the batch (track_running_stats=False)")


# ---- recurrent layers


def _initial(c: Context, hx: Any, batch: symbolic.Dim) -> tuple[list[Array | None], list[Ids | None]]:
    """The initial states of all layers and directions: constants, or ids of a state that is an input. hx is [L*D, B, H]."""
    if isinstance(hx, Tensor):
        if hx.dims[1] != batch or not is_features(hx.dims[0]):
            raise AxisError(f"the initial state of a GRU is {hx}, expected [layers, {axis_text(batch)}, units]")
        ids, _ = hx.spread(0)
        numbers = c.graph.node_numbers(ids.reshape(-1))
        if any(c.graph.nodes[n].operation != "state" for n in np.unique(numbers)):
            raise ExportError(
                "the initial state of a GRU is computed from the input; export the two parts (such as encoder and decoder) by "
                "themselves and pass the state between them"
            )
        rows = [row.reshape(-1) for row in ids]
        return [None] * len(rows), list(rows)
    states = to_numpy(hx)
    if not (states == states[:, :1]).all():
        raise ExportError("the initial state of a GRU is a constant that differs along the batch axis")
    return [row if row.any() else None for row in states[:, 0]], [None] * len(states)


@handles("gru")
def _gru(c: Context, a: Arguments) -> Any:
    if not hasattr(a, "input"):
        raise ExportError(
            "a GRU over a packed sequence; export the module without packing and give lengths= when the model runs"
        )
    x = variable(a.input, "the input of a GRU")
    b, t = (0, 1) if a.batch_first else (1, 0)
    if x.rank != 3 or x.dims[b] not in ((), ("B",)) or x.dims[t] not in ((), ("T",), ("R",)):
        wanted = "[batch, time, features]" if a.batch_first else "[time, batch, features]"
        raise AxisError(f"a GRU with batch_first={a.batch_first} reads {wanted}, but its input is {x}")
    h0, states = _initial(c, a.hx, x.dims[b])
    if x.dims[t] == () and any(state is None for state in states):
        raise ExportError(
            "a GRU runs for a single time step and its state is not carried on: pass the state to forward beside the input"
        )
    directions = 2 if a.bidirectional else 1
    per_layer = 4 if a.has_biases else 2
    path, finals = c.graph.name, []
    features, _ = x.spread(2)
    for layer in range(a.num_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            arrays = gru_arrays(*map(to_numpy, a.params[per_layer * number : per_layer * (number + 1)]))
            initial = h0[number]
            if initial is not None:
                arrays["h0"] = initial
            reverse = (direction == 1) != (x.dims[t] == ("R",))
            options = {"gates": "rzn", "reset": "after", "direction": "reverse" if reverse else "forward"}
            suffix = f".l{layer}" * (a.num_layers > 1) + "_reverse" * direction
            node = c.graph.gru(features, arrays, options, states[number], (path + suffix).lstrip("."))
            outputs.append(node.ids)
            finals.append(node.ids if x.dims[t] == () else c.graph.ends(node.ids, "first" if reverse else "last"))
        features = np.concatenate(outputs)
    output = Tensor.of((*x.dims[:2], (features.size,)), features)
    return output, Tensor.of(((len(finals),), x.dims[b], (finals[0].size,)), np.stack(finals))


@handles("gru_cell")
def _gru_cell(c: Context, a: Arguments) -> Any:
    x = variable(a.input, "the input of a GRUCell")
    if not isinstance(a.hx, Tensor):
        raise ExportError(
            "a GRUCell's state is a constant here, so nothing is carried from step to step: pass the state to forward beside "
            "the input, and return the new state"
        )
    features, _ = x.spread(x.rank - 1)
    hx = a.hx if x.rank == 2 else a.hx.unsqueeze(0)
    numbers = np.unique(c.graph.node_numbers(hx.ids.reshape(-1)))
    if any(c.graph.nodes[n].operation == "gru" for n in numbers) or any(f == "T" for d in x.dims for f in d):
        raise ExportError(
            "a GRUCell is applied to more than one time step (a loop over time); export the loop's body: "
            "a module with forward(x, h) -> (y, h)"
        )
    _, states = _initial(c, hx.unsqueeze(0), x.dims[0])
    arrays = [a.w_ih, a.w_hh] + ([] if a.b_ih is None else [a.b_ih, a.b_hh])
    options = {"gates": "rzn", "reset": "after", "direction": "forward"}
    node = c.graph.gru(features, gru_arrays(*map(to_numpy, arrays)), options, states[0], c.graph.name)
    return Tensor.of((*x.dims[:-1], (node.width,)), node.ids)
