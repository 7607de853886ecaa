# SPDX-License-Identifier: Apache-2.0
"""What an exporter knows about a framework's tensors while it follows a model: axes and features.

A framework moves features around in many ways that are no arithmetic at all: reshape, transpose, slice, chunk, stack, flip,
``h_n[-1]``. So every feature of every value gets a number, its id, and a tensor is known by the meaning of its axes and by the
array of the ids that stand in it. Such operations then only rearrange ids, exactly. Operations that compute make a node, whose
outputs have new ids. ``gru_engine.export.lowering`` makes a ``Network`` of the nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.activations import ActivationLike
from gru_engine.export.common import ExportError
from gru_engine.export.tensors import (
    Array,
    AxisError,
    Dim,
    Factor,
    Ids,
    SharedState,
    Tensor,
    axis_text,
    broadcast,
    cat,
    is_features,
    steps_axis,
    subsampled,
    time_parts,
)

__all__ = [  # what belongs to tensors, too
    "Array",
    "AxisError",
    "Dim",
    "Factor",
    "Graph",
    "Ids",
    "Node",
    "SharedState",
    "Tensor",
    "axis_text",
    "broadcast",
    "cat",
    "is_features",
    "steps_axis",
    "subsampled",
    "time_parts",
    "used_state",
]

_BEHIND = ("affine", "activation", "add", "multiply", "maximum", "minimum", "norm", "dense")
"""Operations of single steps, which may stand between a convolution that makes more steps and what cuts them off."""
_MOST_ROWS = 1024  # layers made of one matrix that is applied along further axes


# ---- nodes


@dataclass(eq=False)
class Node:
    """One operation.

    ``operation`` is one of input, tokens, state, one_hot, embedding, dense, gru, affine, activation, add, multiply, maximum,
    minimum, norm, last, first, and of ``gru_engine.export.over_time`` conv1d, mean, max, attend; ``inputs`` are the ids that it
    reads; its own outputs have the ids from ``first`` on. A node of the operation intermediate is no value of a network by
    itself, such as weights that are a softmax over time: what reads it becomes another node, and if it is needed all the same,
    the model is refused with the text in its options, ``refusal``.
    """

    operation: str
    inputs: list[Ids]
    first: int
    width: int
    per_sequence: bool
    name: str
    arrays: dict[str, Array] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def ids(self) -> Ids:
        """The ids of its outputs."""
        return np.arange(self.first, self.first + self.width)


def used_state(node: Node) -> str:
    """What is wrong with an initial state that something else than a GRU reads."""
    return (
        f"the {node.name} is used in the computation: it has no time axis, and beside inputs of every step a network has "
        "initial states of GRUs and of loops only"
    )


def _titled(tokens: Node) -> str:
    return f"the tokens {tokens.name!r}" if tokens.name else "the tokens"


class Graph:
    """The nodes of a model, in the order in which they were made.

    Attributes
    ----------
    nodes : list of Node
    name : str
        The name that nodes get when they are made; whoever follows a model sets it.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.name = ""
        self._starts: list[int] = []

    def node_numbers(self, ids: Ids) -> Ids:
        """For each id the number of its node."""
        return np.searchsorted(self._starts, ids, side="right") - 1

    def new_node(self, operation: str, inputs: list[Ids], width: int, **content: Any) -> Node:
        """Append a node; ``content`` are further fields of ``Node``."""
        used = [self.nodes[i] for ids in inputs for i in np.unique(self.node_numbers(ids))]
        for node in used:
            if node.operation == "tokens" and operation not in ("embedding", "one_hot"):
                raise ExportError(
                    "tokens are used as numbers; they can only be looked up in a table or made one-hot vectors"
                )
            if node.options.get("kind") == "padded" or (
                node.options.get("kind") in ("stretched", "behind") and operation not in (*_BEHIND, "intermediate")
            ):
                raise ExportError(node.options["refusal"])
            if node.operation == "state" and not node.options.get("open"):
                raise ExportError(used_state(node))
        ends = {node.per_sequence for node in used}
        if len(ends) == 2:
            raise AxisError("values of single time steps and a value of a whole sequence meet in one operation")
        first = self._starts[-1] + self.nodes[-1].width if self.nodes else 0
        node = Node(operation, inputs, first, width, ends == {True}, self.name, **content)
        behind = [n for n in used if n.options.get("kind") in ("stretched", "behind")]
        if behind and operation in _BEHIND:  # may be computed once the number of steps is right again
            node.options = {**node.options, "kind": "behind", "refusal": behind[0].options["refusal"]}
        self.nodes.append(node)
        self._starts.append(first)
        return node

    def node_of(self, t: Tensor) -> Node:
        """The node whose output the first feature of a tensor is."""
        return self.nodes[int(self.node_numbers(t.ids.reshape(-1)[:1])[0])]

    def forget(self, since: int) -> None:
        """The nodes from number ``since`` on are no more."""
        del self.nodes[since:], self._starts[since:]

    # ---- sources

    def source(self, operation: str, dims: Sequence[Dim], name: str = "") -> Tensor:
        """An input of the network (``"input"``, ``"tokens"``), or an initial ``"state"``, with the given axes.

        Of several inputs each has a name, which the network's input gets.
        """
        shape = [f for dim in dims for f in dim if isinstance(f, int)]
        node = self.new_node(operation, [], int(np.prod(shape)))
        node.name = name
        return Tensor.of(dims, node.ids.reshape(shape))

    def carried(self, dims: Sequence[Dim], name: str, initial: Array | None, argument: Ids | None) -> Tensor:
        """A state of a loop: what ``feed`` says, a step before; at first ``initial``, or an ``argument`` of the model."""
        t = self.source("state", dims, name)
        options = self.nodes[-1].options
        options.update(open=True, initial=np.zeros(t.ids.size, np.float32) if initial is None else initial)
        if argument is not None:
            options["argument"] = argument.reshape(-1).tolist()
        return t

    def feed(self, state: Ids, value: Ids) -> None:
        """Features of states are what ``value`` was at the step before."""
        for id, source in zip(state.reshape(-1).tolist(), value.reshape(-1).tolist()):
            node = self.nodes[int(self.node_numbers(np.array([id]))[0])]
            fed = node.options.setdefault("fed", np.full(node.width, -1))
            fed[id - node.first] = source

    def ancestors(self, ids: Ids, since: int = 0) -> set[int]:
        """The ids from which these ones are made, and these ones; only those of nodes from number ``since`` on are followed."""
        found: set[int] = set()
        seen: set[int] = set()  # numbers of nodes all of whose inputs were entered
        waiting = set(ids.reshape(-1).tolist())
        while waiting:
            found |= waiting
            now = np.array(sorted(waiting), np.int64)
            numbers, read = self.node_numbers(now), set()
            for number in np.unique(numbers[numbers >= since]).tolist():
                node = self.nodes[number]
                whole = node.operation not in ("affine", "activation", "add", "multiply") or (
                    node.options.get("activation") in ("softmax", "log_softmax")
                )
                for inputs in () if number in seen else node.inputs:
                    read.update((inputs if whole else inputs[now[numbers == number] - node.first]).tolist())
                if whole:
                    seen.add(number)
            waiting = read - found
        return found

    def is_tokens(self, t: Tensor) -> bool:
        """Whether a tensor is the input tokens, whatever its axes."""
        return t.ids.size == 1 and self.node_of(t).operation == "tokens"

    def _look_up(self, operation: str, t: Tensor, vocabulary: int, width: int, arrays: dict[str, Array]) -> Tensor:
        if not self.is_tokens(t):
            raise ExportError("only the input itself can be tokens, not something computed")
        tokens = self.node_of(t)
        if tokens.options.setdefault("vocabulary", vocabulary) != vocabulary:
            raise ExportError(
                f"{_titled(tokens)} are read with vocabularies of {tokens.options['vocabulary']} and of {vocabulary}"
            )
        node = self.new_node(operation, [t.ids.reshape(-1)], width, arrays=arrays)
        return Tensor.of((*t.dims, (width,)), node.ids)

    def embedding(self, t: Tensor, E: Array) -> Tensor:
        """Rows of a table; a new last axis."""
        return self._look_up("embedding", t, E.shape[0], E.shape[1], {"E": E})

    def one_hot(self, t: Tensor, vocabulary: int) -> Tensor:
        """One-hot vectors; a new last axis."""
        return self._look_up("one_hot", t, vocabulary, vocabulary, {})

    # ---- matrices

    def rows(self, t: Tensor, dim: int, what: str) -> tuple[Ids, tuple[int, ...]]:
        """``ids`` as a matrix, a row for each place of the other axes of features; and those axes."""
        ids, axis = t.spread(dim)
        ids = np.moveaxis(ids, axis, -1)
        if ids.size // max(ids.shape[-1], 1) > _MOST_ROWS:
            raise ExportError(f"{what} would be applied at more than {_MOST_ROWS} places of {t}")
        return ids.reshape(-1, ids.shape[-1]), ids.shape[:-1]

    def dense(self, t: Tensor, W: Array, b: Array | None = None) -> Tensor:
        """``W x + b`` along the last axis."""
        rows, others = self.rows(t, t.rank - 1, "the matrix")
        if W.shape[1] != rows.shape[1]:
            raise AxisError(f"a matrix of {W.shape[1]} columns multiplies {t}")
        arrays = {"W": W} if b is None else {"W": W, "b": b}
        nodes = [self.new_node("dense", [row], W.shape[0], arrays=arrays) for row in rows]
        ids = np.stack([node.ids for node in nodes]).reshape(*others, W.shape[0])
        return Tensor.of((*t.dims[:-1], (W.shape[0],)), ids)

    def gru(self, x: Ids, arrays: dict[str, Array], options: dict[str, Any], state: Ids | None, name: str) -> Node:
        """One direction of one layer. ``state`` are the ids of the initial state, where that is an input."""
        node = self.new_node("gru", [x], arrays["U"].shape[1], arrays=arrays, options=options)
        node.name = name
        if node.per_sequence:
            raise ExportError("a GRU reads a value of a whole sequence")
        if state is not None:
            carried = any("initial" in self.nodes[n].options for n in np.unique(self.node_numbers(state)))
            kind = "carried" if carried else "state"  # of a loop that is being followed; an argument of the model
            used = {id for n in self.nodes if n is not node for id in n.options.get(kind, ())}
            if not used.isdisjoint(state.tolist()):
                raise SharedState("two GRUs start from the same state: each layer of a network has a state of its own")
            node.options = {**options, kind: state.tolist()}
        return node

    def cell(
        self, inputs: list[Ids], function: str, arrays: dict[str, Array], options: dict[str, Any], width: int, name: str
    ) -> Node:
        """A cell of ``gru_engine.cells``, by the name of its function; W is its matrix of the first input."""
        node = self.new_node("cell", inputs, width, arrays=arrays, options={**options, "function": function})
        node.name = name
        if node.per_sequence:
            raise ExportError("a recurrent cell reads a value of a whole sequence")
        return node

    # ---- feature by feature

    def pointwise(self, operation: str, tensors: Sequence[Tensor], arrays: dict[str, Array], **options: Any) -> Tensor:
        """A node with one output for each feature of ``tensors``, which have the same axes."""
        first = tensors[0]
        order = np.argsort(first.ids, axis=None, kind="stable")  # in the order of its source, whatever the layout
        inputs = [t.ids.reshape(-1)[order] for t in tensors]
        arrays = {name: np.broadcast_to(array, first.ids.shape).reshape(-1)[order] for name, array in arrays.items()}
        node = self.new_node(operation, inputs, order.size, arrays=arrays, options=options)
        ids = np.empty(order.size, np.int64)
        ids[order] = node.ids
        return Tensor(first.dims, ids.reshape(first.ids.shape))

    def broadcast(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Like the function of this name; a value of a whole sequence is repeated over the time axis of the other one."""
        rank = max(a.rank, b.rank)
        a, b = (Tensor(((),) * (rank - t.rank) + t.dims, t.ids) for t in (a, b))
        for dim in range(rank):
            if a.dims[dim] != b.dims[dim] and () in (a.dims[dim], b.dims[dim]):
                a, b = self.repeated(a, dim, b), self.repeated(b, dim, a)
        return broadcast(a, b)

    def repeated_times(self, t: Tensor, dim: int, steps: int) -> Tensor:
        """A value of a whole sequence at each of so many steps, in the place of axis ``dim``, which has size 1."""
        numbers = np.unique(self.node_numbers(t.ids.reshape(-1)))
        if t.dims[dim] or not all(self.nodes[n].per_sequence for n in numbers):
            raise AxisError(f"{t} is no value of a whole sequence, so it cannot be repeated over the time")
        result = self.pointwise("repeat", [t], {}, steps=steps)
        self.nodes[-1].per_sequence = False
        return Tensor((*t.dims[:dim], (f"T:={steps}",), *t.dims[dim + 1 :]), result.ids)

    def repeated(self, t: Tensor, dim: int, like: Tensor) -> Tensor:
        """If axis ``dim``, which has size 1, is the time of another tensor, a value of a whole sequence at each of its steps."""
        axis = like.dims[dim]
        factor = axis[0] if len(axis) == 1 else 0
        if t.dims[dim] or not isinstance(factor, str) or factor == "B" or time_parts(factor)[1]:
            return t
        numbers = np.unique(self.node_numbers(t.ids.reshape(-1)))
        if not all(self.nodes[n].per_sequence for n in numbers):
            return t
        steps = like.ids.reshape(-1)[0]
        if self.nodes[int(self.node_numbers(np.array([steps]))[0])].operation == "tokens":
            raise ExportError("a value of a whole sequence is repeated for as many steps as there are tokens")
        order = np.argsort(t.ids, axis=None, kind="stable")
        node = self.new_node("repeat", [t.ids.reshape(-1)[order]], t.ids.size, options={"like": int(steps)})
        node.per_sequence = False
        ids = np.empty(t.ids.size, np.int64)
        ids[order] = node.ids
        return Tensor((*t.dims[:dim], axis, *t.dims[dim + 1 :]), ids.reshape(t.ids.shape))

    def affine(self, t: Tensor, scale: npt.ArrayLike, shift: npt.ArrayLike) -> Tensor:
        """``a * scale + shift``; both broadcast to ``t.ids``."""
        return self.pointwise("affine", [t], {"scale": np.asarray(scale), "shift": np.asarray(shift)})

    def activation(self, t: Tensor, spec: ActivationLike) -> Tensor:
        """An activation function that acts on each feature by itself."""
        return self.pointwise("activation", [t], {}, activation=spec)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """``a + b``, broadcast."""
        return self.pointwise("add", self.broadcast(a, b), {})

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        """``a * b``, broadcast."""
        return self.pointwise("multiply", self.broadcast(a, b), {})

    def extremum(self, a: Tensor, b: Tensor, largest: bool) -> Tensor:
        """The larger, or the smaller, of a and b, broadcast."""
        return self.pointwise("maximum" if largest else "minimum", self.broadcast(a, b), {})

    def softmax(self, t: Tensor, dim: int, log: bool) -> Tensor:
        """Softmax or log-softmax along an axis of features."""
        rows, others = self.rows(t, dim, "softmax")
        spec = "log_softmax" if log else "softmax"
        nodes = [self.new_node("activation", [row], row.size, options={"activation": spec}) for row in rows]
        ids = np.stack([node.ids for node in nodes]).reshape(*others, rows.shape[1])
        return t.replaced(dim, np.moveaxis(ids, -1, t.position(dim)))

    def norm(
        self,
        t: Tensor,
        dims: Sequence[int],
        scale: npt.ArrayLike = 1.0,
        shift: npt.ArrayLike = 0.0,
        *,
        epsilon: float,
        rms: bool = False,
    ) -> Tensor:
        """Layer normalisation, or that of the root mean square, over one or several axes of features together.

        ``scale`` and ``shift`` broadcast to the sizes of these axes, in the order of ``dims``.
        """
        for dim in dims:
            if not is_features(t.dims[dim]):
                raise AxisError(
                    f"a normalisation is over axis {dim}, {axis_text(t.dims[dim])}, of {t}; only features can be"
                )
        order = [*(i for i in range(t.rank) if i not in dims), *dims]
        moved = t.permute(order)
        shape = [math.prod(int(f) for f in t.dims[dim]) for dim in dims]
        width = math.prod(shape)
        parts = moved.ids.size // width
        arrays = {
            name: np.tile(np.broadcast_to(np.asarray(array), shape).reshape(-1), parts)
            for name, array in (("scale", scale), ("shift", shift))
        }
        options = {"epsilon": epsilon, "rms": rms, "parts": parts}
        node = self.new_node("norm", [moved.ids.reshape(-1)], moved.ids.size, arrays=arrays, options=options)
        return Tensor(moved.dims, node.ids.reshape(moved.ids.shape)).permute(np.argsort(order).tolist())

    def sum(self, t: Tensor, dim: int) -> Tensor:
        """The sum along an axis of features, which disappears."""
        size = t.spread(dim)[0].shape[t.position(dim)]
        if size <= 8:
            parts = [t.select(dim, i) for i in range(size)]
            total = parts[0]
            for part in parts[1:]:
                total = self.add(total, part)
            return total
        order = [i for i in range(t.rank) if i != dim]
        total = self.dense(t.permute([*order, dim]), np.ones((1, size)))
        return total.squeeze([total.rank - 1])

    # ---- time

    def flip(self, t: Tensor, dim: int) -> Tensor:
        """The other way round along an axis."""
        if len(t.dims[dim]) == 1 and isinstance(t.dims[dim][0], str) and t.dims[dim] != ("B",):
            factor = str(t.dims[dim][0])
            turned: Dim = (("R" if factor[0] == "T" else "T") + factor[1:],)
            return Tensor((*t.dims[:dim], turned, *t.dims[dim + 1 :]), t.ids)
        return t.take(dim, slice(None, None, -1))

    def end(self, t: Tensor, dim: int, index: int, size: int) -> Tensor:
        """The value at the last or the first step of the time axis ``dim``, whose example size is ``size``."""
        factor = t.dims[dim][0] if len(t.dims[dim]) == 1 else 0
        if not isinstance(factor, str) or factor == "B" or time_parts(factor)[1]:
            raise AxisError(f"one row of the axis {axis_text(t.dims[dim])} of {t} is read by itself")
        if index not in (0, -1, size - 1):
            raise ExportError(
                f"time step {index} is read by itself; only the last and the first step of a sequence can be "
                "(of a loop over time, export the loop's body: a module with forward(x, h) -> (y, h))"
            )
        last = (index != 0) == (factor[0] == "T")
        return Tensor((*t.dims[:dim], *t.dims[dim + 1 :]), self.ends(t.ids, "last" if last else "first"))

    def ends(self, ids: Ids, operation: str) -> Ids:
        """For each feature its value at the ``"last"`` or the ``"first"`` step."""
        result = ids.copy()
        numbers = self.node_numbers(ids)
        for number in np.unique(numbers):
            source = self.nodes[number]
            if source.per_sequence:
                raise ExportError("the value of a whole sequence has no time steps")
            node = self.new_node(operation, [source.ids], source.width)
            node.per_sequence = True
            result[numbers == number] += node.first - source.first
        return result
