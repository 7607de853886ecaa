# SPDX-License-Identifier: Apache-2.0
"""What each ATen operation means for a tensor of known axes: one short function per operation.

The table ``HANDLERS`` is the complete list of what can be exported. A function takes the graph and the operation's arguments
by the names of its schema; a tensor argument is a ``Tensor`` where it depends on the input, and a real ``torch.Tensor`` where it
is a constant. An operation all of whose arguments are constants never comes here: it is simply executed.

Here are the layers and whatever moves axes and features; ``gru_engine.export.torch_math`` has arithmetic and activations.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from gru_engine.export import graph as symbolic
from gru_engine.export import operations, over_time, scores
from gru_engine.export.common import Array, ExportError, gru_arrays
from gru_engine.export.graph import AxisError, Ids, Tensor, axis_text, is_features
from gru_engine.export.operations import Context, all_variable, axis_of, initial_states, parts, variable

Arguments = SimpleNamespace
"""Of an operation, by the names of its schema."""
HANDLERS = operations.Handlers()
"""For each operation's name what to do. ``gru_engine.export.torch_math`` adds the arithmetic."""
handles = HANDLERS.handles


def to_numpy(t: torch.Tensor) -> Array:
    """A constant as float32 or float64."""
    t = t.detach().cpu()
    array: Array = (t if t.dtype in (torch.float32, torch.float64) else t.to(torch.float32)).numpy()
    return array


def constant(value: Any, what: str) -> torch.Tensor:
    """The value, which must not depend on the input."""
    if not isinstance(value, torch.Tensor):
        raise ExportError(f"{what} is computed from the input; it must be a constant")
    return value


def beside_array(value: Any) -> Array:
    """A number or a constant tensor that stands beside a value."""
    if not isinstance(value, torch.Tensor):
        return np.asarray(value, np.float64)
    if value.is_complex():
        raise ExportError("complex numbers are not supported")
    return to_numpy(value) if value.dtype.is_floating_point else np.asarray(value.detach().cpu().numpy())


def affine(c: Context, t: Tensor, scale: Any, shift: Any) -> Tensor:
    """``t * scale + shift``, of which at most one is more than a number."""
    return operations.affine(c, t, beside_array(scale), beside_array(shift))


def extremum(c: Context, a: Arguments, largest: bool) -> Tensor:
    """The larger or the smaller of the values ``self`` and ``other``, one of which may be a number."""
    values = [value if isinstance(value, Tensor) else beside_array(value) for value in (a.self, a.other)]
    return operations.extremum(c, values, largest)


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


@handles("t", "numpy_T", "mT", "matrix_H", "mH")
def _turned(c: Context, a: Arguments) -> Any:
    rank = a.self.rank
    return a.self.permute([*range(rank - 2), *range(rank - 1, max(rank - 3, -1), -1)]) if rank > 1 else a.self


@handles("moveaxis", "movedim")
def _moveaxis(c: Context, a: Arguments) -> Any:
    lists = [[d] if isinstance(d, int) else d for d in (a.source, a.destination)]
    source, destination = ([axis_of(a.self, d) for d in dims] for dims in lists)
    rest = iter(d for d in range(a.self.rank) if d not in source)
    places = dict(zip(destination, source))
    return a.self.permute([places[d] if d in places else next(rest) for d in range(a.self.rank)])


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
    return operations.select(c, a.self, axis_of(a.self, a.dim), a.index)


@handles("slice")
def _slice(c: Context, a: Arguments) -> Any:
    return operations.sliced(c, a.self, axis_of(a.self, a.dim), slice(a.start, a.end, a.step))


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


@handles("cat", "concat", "concatenate")
def _cat(c: Context, a: Arguments) -> Any:
    tensors = all_variable(a.tensors, "a concatenation")
    return symbolic.cat(tensors, axis_of(tensors[0], a.dim))


@handles("hstack")
def _hstack(c: Context, a: Arguments) -> Any:
    tensors = all_variable(a.tensors, "a concatenation")
    return symbolic.cat(tensors, min(1, tensors[0].rank - 1))


@handles("stack")
def _stack(c: Context, a: Arguments) -> Any:
    tensors = all_variable(a.tensors, "a stack")
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
    return operations.expanded(c, a.self, a.size)


@handles("repeat", "tile")
def _repeat(c: Context, a: Arguments) -> Any:
    return operations.repeated(c, a.self, list(getattr(a, "repeats", None) or a.dims))


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
    if isinstance(a.self, Tensor) and isinstance(other, Tensor):
        return scores.matrix_product(c, a.self, other)
    if isinstance(other, Tensor) and a.self.dim() == 2 and other.rank > 1:
        order = [*range(other.rank - 2), other.rank - 1, other.rank - 2]
        return _dense(c, other.permute(order), a.self, None).permute(order)
    other = constant(other, "the right side of a matrix product")
    if other.dim() > 2:
        return operations.stacked_product(c, variable(a.self, "the left side of a product"), to_numpy(other))
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
    mean, variance = (constant(v, "a running statistic").double().numpy() for v in (a.running_mean, a.running_var))
    weight, bias = (None if v is None else to_numpy(v) for v in (a.weight, a.bias))
    return operations.normalised(c, a.input, (mean, variance), weight, bias, a.eps), None, None


@handles("_native_batch_norm_legit", "native_batch_norm", "_native_batch_norm_legit_functional")
def _batch_statistics(c: Context, a: Arguments) -> Any:
    raise ExportError("this batch normalisation uses the statistics of the batch (track_running_stats=False)")


# ---- recurrent layers


def _initial(c: Context, hx: Any, batch: symbolic.Dim) -> tuple[list[Array | None], list[Ids | None]]:
    """The initial states of all layers and directions. hx is [L*D, B, H]."""
    return initial_states(c, hx if isinstance(hx, Tensor) else to_numpy(hx), batch)


@handles("gru")
def _gru(c: Context, a: Arguments) -> Any:
    if not hasattr(a, "input"):
        raise ExportError(
            "a GRU over a packed sequence; export the module without packing and give lengths= when the model runs"
        )
    x = variable(a.input, "the input of a GRU")
    b, t = (0, 1) if a.batch_first else (1, 0)
    over_features = x.rank == 3 and len(x.dims[t]) > 0 and is_features(x.dims[t])
    if over_features and "B" in x.dims[b] and not _is_batch(x.dims[b]):
        return _over_features(c, a, x, b, t)  # steps are at several places of the batch, so they cannot be meant
    if x.rank != 3 or not _is_batch(x.dims[b]) or not (x.dims[t] == () or over_time.is_steps(x.dims[t])):
        wanted = "[batch, time, features]" if a.batch_first else "[time, batch, features]"
        raise AxisError(f"a GRU with batch_first={a.batch_first} reads {wanted}, but its input is {x}")
    if c.elementary and x.dims[t] == () and isinstance(a.hx, Tensor):
        return _written_layers(c, a, x)
    h0, states = _initial(c, a.hx, x.dims[b])
    if x.dims[t] == () and any(state is None for state in states):
        raise ExportError(
            "a GRU runs for a single time step and its state is not carried on: pass the state to forward beside the input"
        )
    directions = 2 if a.bidirectional else 1
    per_layer = 4 if a.has_biases else 2
    path, finals = c.graph.name, []
    features, _ = x.spread(2)
    places = [f for f in x.dims[b] if isinstance(f, int)]  # of the batch that are features: a GRU for each, all alike
    features = features.reshape(-1, features.shape[-1])
    for layer in range(a.num_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            arrays = gru_arrays(*map(to_numpy, a.params[per_layer * number : per_layer * (number + 1)]))
            first = h0[number]
            if first is not None:
                arrays["h0"] = first
            reverse = (direction == 1) != over_time.goes_back(x.dims[t])
            options = {"gates": "rzn", "reset": "after", "direction": "reverse" if reverse else "forward"}
            suffix = f".l{layer}" * (a.num_layers > 1) + "_reverse" * direction
            initial = states[number]
            hidden = arrays["U"].shape[1]
            starts = [None] * len(features) if initial is None else list(initial.reshape(-1, hidden))
            nodes = [
                c.graph.gru(row, arrays, options, start, (path + suffix).lstrip("."))
                for row, start in zip(features, starts)
            ]
            ids = np.stack([node.ids for node in nodes])
            outputs.append(ids)
            finals.append(ids if x.dims[t] == () else c.graph.ends(ids, "first" if reverse else "last"))
        features = np.concatenate(outputs, axis=1)
    width, hidden = features.shape[1], finals[0].shape[1]
    return (
        Tensor.of((*x.dims[:2], (width,)), features.reshape(*places, width)),
        Tensor.of(((len(finals),), x.dims[b], (hidden,)), np.stack(finals).reshape(-1, *places, hidden)),
    )


def _is_batch(dim: symbolic.Dim) -> bool:
    """Whether an axis is the batch, or several sequences of features beside each other."""
    return all(isinstance(f, int) or f == "B" for f in dim)


def _over_features(c: Context, a: Arguments, x: Tensor, b: int, t: int) -> Any:
    """A GRU along an axis of features: all its steps written out."""
    if isinstance(a.hx, Tensor) or bool((a.hx != 0).any()):
        raise ExportError("a GRU along an axis of features starts from a state that is not zero")
    directions, per_layer = 2 if a.bidirectional else 1, 4 if a.has_biases else 2
    values = [x.select(t, i) for i in range(x.shape(c.sizes)[t])]
    finals = []
    for layer in range(a.num_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            params = a.params[per_layer * number : per_layer * (number + 1)]
            h: Tensor | None = None
            made = []
            for value in values[:: -1 if direction else 1]:
                h = _written(c, value, h, params)
                made.append(h)
            finals.append(made[-1])
            outputs.append(made[:: -1 if direction else 1])
        values = [symbolic.cat(list(parts), parts[0].rank - 1) for parts in zip(*outputs)]
    return symbolic.cat([v.unsqueeze(t) for v in values], t), symbolic.cat([h.unsqueeze(0) for h in finals], 0)


def _written(c: Context, x: Tensor, h: Tensor | None, params: list[torch.Tensor]) -> Tensor:
    """One step of a GRU in elementary operations; without a state it is zero."""
    W, U, *biases = map(to_numpy, params)
    b_x, b_h = biases if biases else (None, None)
    hidden = U.shape[1]
    sums = c.graph.dense(x, W, b_x)
    x_r, x_z, x_n = parts(c, sums, [hidden] * 3, sums.rank - 1)
    if h is None:
        of_state: list[Any] = np.split(np.zeros(3 * hidden) if b_h is None else b_h, 3)
    else:
        sums = c.graph.dense(h, U, b_h)
        of_state = parts(c, sums, [hidden] * 3, sums.rank - 1)

    def plus(t: Tensor, other: Any) -> Tensor:
        return c.graph.add(t, other) if isinstance(other, Tensor) else operations.plus(c, t, other)

    r, z = (c.graph.activation(plus(a, b), "sigmoid") for a, b in zip((x_r, x_z), of_state))
    gated = c.graph.multiply(r, of_state[2]) if h is not None else affine(c, r, torch.from_numpy(of_state[2]), 0.0)
    n = c.graph.activation(c.graph.add(x_n, gated), "tanh")
    rest = c.graph.affine(n, -1.0, 0.0) if h is None else operations.minus(c, h, n)
    return c.graph.add(n, c.graph.multiply(z, rest))


def _written_layers(c: Context, a: Arguments, x: Tensor) -> Any:
    """All layers of a GRU that runs for one step, in elementary operations."""
    t = 1 if a.batch_first else 0
    directions, per_layer = 2 if a.bidirectional else 1, 4 if a.has_biases else 2
    value, finals = x.squeeze([t]), []
    for layer in range(a.num_layers):
        numbers = range(layer * directions, (layer + 1) * directions)
        new = [_written(c, value, a.hx.select(0, i), a.params[per_layer * i : per_layer * (i + 1)]) for i in numbers]
        finals += new
        value = symbolic.cat(new, value.rank - 1)
    return value.unsqueeze(t), symbolic.cat([h.unsqueeze(0) for h in finals], 0)


@handles("gru_cell")
def _gru_cell(c: Context, a: Arguments) -> Any:
    x = variable(a.input, "the input of a GRUCell")
    if not isinstance(a.hx, Tensor):
        raise ExportError(
            "a GRUCell's state is a constant here, so nothing is carried from step to step: pass the state to forward beside "
            "the input, and return the new state"
        )
    if c.elementary:
        return _written(c, x, a.hx, [a.w_ih, a.w_hh] + ([] if a.b_ih is None else [a.b_ih, a.b_hh]))
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
