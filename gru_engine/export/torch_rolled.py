# SPDX-License-Identifier: Apache-2.0
"""Following a loop over time: its body once, with the values of the step before as states of the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import AxisError, Dim, Graph, Ids, SharedState, Tensor, axis_text
from gru_engine.export.operations import Context
from gru_engine.export.torch_loops import Loop
from gru_engine.export.torch_ops import to_numpy

Execute = Callable[[Context, Node, dict[Any, Any]], Any]


def follow(c: Context, loop: Loop, values: dict[Any, Any], execute: Execute) -> None:
    """Do to symbolic tensors what a loop does, and enter what is read behind it into ``values``.

    GRU cells in it become GRUs where their state is what they returned at the step before, and nothing else reads it; otherwise
    all is made of elementary operations.

    Raises
    ------
    ExportError
        Its attribute ``node`` is the operation that it is about.
    """
    before = c.snapshot()
    try:
        _follow(c, loop, values, execute)
    except ExportError:
        if c.elementary:
            raise
        c.restore(before)
        c.elementary = True
        try:
            _follow(c, loop, values, execute)
        finally:
            c.elementary = False


def _follow(c: Context, loop: Loop, values: dict[Any, Any], execute: Execute) -> None:
    graph, since = c.graph, len(c.graph.nodes)
    own = dict(values)
    backward = set()
    for node, (source, axis, kept) in loop.reads.items():
        t = values[source]
        if not isinstance(t, Tensor) or t.dims[axis] not in (("T",), ("R",)):
            what = axis_text(t.dims[axis]) if isinstance(t, Tensor) else "a constant's"
            raise _at(node, AxisError(f"a loop is over the {what} axis, it must be the time"))
        backward.add(loop.backward != (t.dims[axis] == ("R",)))
        own[node] = Tensor((*t.dims[:axis], *((),) * kept, *t.dims[axis + 1 :]), t.ids)
    if len(backward) > 1:
        raise _at(loop.last, ExportError("a loop reads one sequence forwards and another one backwards"))
    states = {node: _state(c, node, values.get(first, first)) for node, (_, first) in loop.states.items()}
    own.update(states)
    outer, c.states = c.states, list(states.values())
    try:
        for node in loop.body:
            try:
                own[node] = execute(c, node, own)
            except ExportError as error:
                raise _at(node, error) from None
    finally:
        c.states = outer
    for node, state in states.items():
        new = own[loop.states[node][0]]
        if not isinstance(new, Tensor) or new.dims != state.dims:
            raise _at(node, AxisError(f"what a loop carries on as {state} is {new} at the next step"))
        graph.feed(state.ids, new.ids)
    results = [own[item.value] for item in loop.sequences.values()] + [own[node] for node in loop.finals.values()]
    for result in results:
        if not isinstance(result, Tensor):
            raise _at(loop.last, ExportError("a value of a loop does not depend on the input"))
    reverse = True in backward
    try:
        _settle(graph, list(states.values()), [r.ids for r in results], since, reverse)
    except ExportError as error:
        raise _at(loop.last, error) from None
    for node, item in loop.sequences.items():
        t = own[item.value]
        time: Dim = ("R",) if reverse != item.descending else ("T",)
        if item.new:
            values[node] = Tensor((*t.dims[: item.axis], time, *t.dims[item.axis :]), t.ids)
        else:
            values[node] = Tensor((*t.dims[: item.axis], (*time, *t.dims[item.axis]), *t.dims[item.axis + 1 :]), t.ids)
    for node, value in loop.finals.items():
        t = own[value]
        values[node] = Tensor(t.dims, graph.ends(t.ids, "first" if reverse else "last"))


def _at(node: Node, error: ExportError) -> ExportError:
    error.node = getattr(error, "node", node)  # type: ignore[attr-defined]
    return error


def _state(c: Context, node: Node, first: Any) -> Tensor:
    """The state that is a node's value at the step before; ``first`` is what it is before the first step."""
    shape = [int(n) for n in node.meta["val"].shape]
    dims: list[Dim] = []
    for size in shape:
        many, rest = divmod(size, c.sizes["B"])
        dims.append((size,) if rest else ("B", many) if many > 1 else ("B",))
    plain = Tensor.of(dims, np.zeros([n for d in dims for n in d if isinstance(n, int)], np.int64))
    name = f"value of {node.name!r} at the step before"
    if isinstance(first, Tensor):
        first = first.expand(plain.dims)
        numbers = np.unique(c.graph.node_numbers(first.ids.reshape(-1)))
        if any(c.graph.nodes[n].operation != "state" or c.graph.nodes[n].options.get("open") for n in numbers):
            raise _at(node, ExportError(
                "the initial state of a loop is computed from the input; export the two parts (such as encoder and decoder) by "
                "themselves and pass the state between them"
            ))  # fmt: skip
        return c.graph.carried(plain.dims, name, None, first.ids)
    array = to_numpy(first) if isinstance(first, torch.Tensor) else np.asarray(first, np.float64)
    return c.graph.carried(plain.dims, name, _row(c, plain, np.broadcast_to(array, shape), node), None)


def _row(c: Context, plain: Tensor, array: Array, node: Node) -> Array:
    """The values of the features, which are the same along the batch."""
    factors = [f for dim in plain.dims for f in dim]
    array = array.reshape([c.sizes[f] if isinstance(f, str) else f for f in factors])
    for axis, factor in enumerate(factors):
        if isinstance(factor, str):
            if not (array == array.take([0], axis)).all():
                raise _at(
                    node, ExportError("the initial state of a loop is a constant that differs along the batch axis")
                )
            array = array.take([0], axis)
    return array.reshape(-1)


def _settle(graph: Graph, states: list[Tensor], results: list[Ids], since: int, reverse: bool) -> None:
    """Give GRUs the initial values of their states; those are states of the network by themselves no more.

    Raises
    ------
    SharedState
        If a GRU's state is something else than what it returned at the step before, or is read by others too.
    """
    fed: dict[int, int] = {}
    owner = {}
    for state in states:
        node = graph.nodes[int(graph.node_numbers(state.ids.reshape(-1)[:1])[0])]
        fed.update(zip(node.ids.tolist(), node.options["fed"].tolist()))
        owner.update(dict.fromkeys(node.ids.tolist(), node))
    needed = graph.ancestors(
        np.concatenate([np.array(list(fed.values()), np.int64), *(r.reshape(-1) for r in results)]), since
    )
    taken: set[int] = set()
    for gru in [n for n in graph.nodes[since:] if n.operation == "gru" and n.first in needed]:
        carried = gru.options.pop("carried", None)
        if carried is None:
            continue
        if [fed[i] for i in carried] != gru.ids.tolist() or not needed.isdisjoint(carried):
            raise SharedState("a GRU's state is changed between its steps")
        taken.update(carried)
        places = [(owner[i], i - owner[i].first) for i in carried]
        if all("argument" in node.options for node, _ in places):
            gru.options["state"] = [node.options["argument"][place] for node, place in places]
        elif any("argument" in node.options for node, _ in places):
            raise ExportError("the initial state of a GRU is partly a constant and partly an argument")
        else:
            initial = np.array([node.options["initial"][place] for node, place in places])
            if initial.any():
                gru.arrays = {**gru.arrays, "h0": initial}
        gru.options["direction"] = "reverse" if reverse else "forward"
    rest = set(fed) - taken
    if rest and reverse:
        raise ExportError(
            "a loop from the end of the sequence to its beginning is supported where it is nothing but a GRU"
        )
    for i in taken:
        owner[i].options["fed"][i - owner[i].first] = -1
    if any(0 < (node.options["fed"] < 0).sum() < node.width for node in owner.values()):
        raise SharedState("a state is partly that of a GRU")
