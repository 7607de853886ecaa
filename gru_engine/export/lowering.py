# SPDX-License-Identifier: Apache-2.0
"""From a graph of features (``gru_engine.export.graph``) to a ``Network``.

In two passes. *Demand*, from the outputs back: which parts of which nodes are needed, at every step or only at an end of the
sequence, and a step for each. So half of a dense layer (``chunk``, ``glu``) is a smaller dense layer, and whatever stands before
``[:, -1]`` but could as well stand behind it is computed once per sequence. *Fuse*: a scale or an activation behind a dense
layer that nothing else reads becomes part of it; so does BatchNorm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gru_engine import cells
from gru_engine.activations import activation
from gru_engine.export.common import ExportError
from gru_engine.export.graph import Array, Graph, Ids, Node, used_state
from gru_engine.network import Network, Value

_MOST_PARTS = 16  # pieces that are worth a concatenation; more are gathered by a matrix of zeros and ones
_POINTWISE = ("affine", "activation", "add", "multiply", "maximum", "minimum")
_POOLING = ("mean", "max")  # over time, feature by feature

INPUTS = ("input", "tokens")
"""The operations of the graph that become inputs of the network."""


@dataclass(frozen=True)
class Part:
    """Outputs ``start`` to ``stop`` of a node, at every step or at one ``end`` ("last", "first") of the sequence."""

    node: int
    end: str
    start: int
    stop: int


@dataclass(frozen=True)
class Gathered:
    """Single features of several parts, in any order: made by a matrix of zeros and ones, so exactly."""

    sources: tuple[Part, ...]
    columns: tuple[int, ...]


Key = Part | Gathered


@dataclass
class Step:
    """A layer of the network in the making. Each input is a list of keys: their concatenation."""

    operation: str
    inputs: list[list[Key]]
    name: str
    arrays: dict[str, Array] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Lowered:
    """The network, and where the hidden state of each of its GRUs, and each state, starts in the network's state.

    Both are by the graph's node.
    """

    network: Network
    grus: list[tuple[Node, int]]
    states: list[tuple[Node, int]]


class _Lowering:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.nodes = graph.nodes
        self.looped = self._in_loops()

    def _in_loops(self) -> set[int]:
        """The numbers of the nodes between states and what feeds them: each of their steps is computed in any case."""
        behind: set[int] = set()
        fed: list[Ids] = []
        for number, node in enumerate(self.nodes):
            if node.operation == "state" and "fed" in node.options:
                behind.add(number)
                fed.append(node.options["fed"][node.options["fed"] >= 0])
            elif any(not behind.isdisjoint(self.graph.node_numbers(ids).tolist()) for ids in node.inputs):
                behind.add(number)
        if not behind:
            return behind
        before, waiting = set(), set(self.graph.node_numbers(np.concatenate(fed)).tolist())
        while waiting:
            before |= waiting
            read = [self.graph.node_numbers(ids) for number in waiting for ids in self.nodes[number].inputs]
            waiting = set(np.unique(np.concatenate([np.zeros(0, np.int64), *read])).tolist()) - before
        return behind & before

    # ---- which parts hold given ids

    def _locate(self, ids: Ids, end: str) -> list[tuple[int, str, int]]:
        """For each id its node, end and place in it; the nodes last and first are seen through."""
        found = []
        for id, number in zip(ids.tolist(), self.graph.node_numbers(ids).tolist()):
            node = self.nodes[number]
            if node.operation in ("last", "first"):
                source = int(node.inputs[0][0])
                number = int(self.graph.node_numbers(node.inputs[0][:1])[0])
                found.append((number, node.operation, source + id - node.first - self.nodes[number].first))
            else:
                found.append((number, end, id - node.first))
        return found

    def _opaque(self, node: Node) -> bool:
        """Whether a node cannot be cut into smaller nodes."""
        whole = ("softmax", "log_softmax")
        return (
            node.operation not in (*_POINTWISE, *_POOLING, "dense", "embedding", "repeat", "subsample", "delay")
            or node.options.get("activation") in whole
        )

    def _full(self, number: int, end: str) -> Part:
        return Part(number, end, 0, self.nodes[number].width)

    def parts(self, ids: Ids, end: str) -> list[Key]:
        """Parts whose concatenation is ``ids``."""
        runs: list[Part] = []
        for number, at, place in self._locate(ids, end):
            if runs and (runs[-1].node, runs[-1].end, runs[-1].stop) == (number, at, place):
                runs[-1] = Part(number, at, runs[-1].start, place + 1)
            else:
                runs.append(Part(number, at, place, place + 1))
        if len(runs) <= _MOST_PARTS or all(self._is_full(run) for run in runs):
            return list(runs)
        sources, columns, _ = self.columns(ids, end)
        return [Gathered(tuple(sources), tuple(columns.tolist()))]

    def _is_full(self, part: Part) -> bool:
        return part == self._full(part.node, part.end)

    def columns(self, ids: Ids, end: str) -> tuple[list[Part], Ids, int]:
        """Few parts that hold all ``ids``; for each id its place in their concatenation; the width of that."""
        located = self._locate(ids, end)
        places: dict[tuple[int, str], list[int]] = {}
        for number, at, place in located:
            places.setdefault((number, at), []).append(place)
        sources, offsets, width = [], {}, 0
        for (number, at), used in places.items():
            part = Part(number, at, min(used), max(used) + 1)
            part = self._full(number, at) if self._opaque(self.nodes[number]) else part
            sources.append(part)
            offsets[number, at] = width - part.start
            width += part.stop - part.start
        return sources, np.array([offsets[number, at] + place for number, at, place in located]), width

    # ---- a step for a part

    def build(self, key: Key) -> Step:
        """The step that computes a key."""
        if isinstance(key, Gathered):
            width = sum(source.stop - source.start for source in key.sources)
            return Step("dense", [list(key.sources)], "", {"W": _selection(key.columns, width)})
        node = self.nodes[key.node]
        full = self._is_full(key)
        if self._opaque(node) and not full:
            source = self._full(key.node, key.end)
            return Step("slice", [[source]], "", options={"start": key.start, "stop": key.stop})
        if node.operation in INPUTS:
            if key.end:
                return Step(key.end, [[self._full(key.node, "")]], "")
            return Step(node.operation, [], node.name, options={**node.options, "width": node.width})
        if node.operation == "intermediate" or node.options.get("kind") == "behind":
            raise ExportError(node.options["refusal"] + (f" (in {node.name!r})" if node.name else ""))
        whole = ("gru", "cell", "embedding", "one_hot", "conv1d", "state", "subsample", "delay", "repeat", "attention",
                 "window")  # fmt: skip
        if key.end and (node.operation in whole or key.node in self.looped):
            return Step(key.end, [[Part(key.node, "", key.start, key.stop)]], "")
        cut = slice(key.start, key.stop)
        if node.operation in _POINTWISE:
            read = [ids[cut] for ids in node.inputs]
            if len(read) == 2:  # one that is the same for all is broadcast
                narrow = [bool((ids == ids[0]).all()) for ids in read]
                read = [ids[:1] if one and narrow != [True, True] else ids for ids, one in zip(read, narrow)]
            inputs = [self.parts(ids, key.end) for ids in read]
            arrays = {name: array[cut] for name, array in node.arrays.items()}
            return Step(node.operation, inputs, node.name, arrays, node.options)
        if node.operation == "embedding":
            return Step("embedding", [self.parts(node.inputs[0], "")], node.name, {"E": node.arrays["E"][:, cut]})
        if node.operation == "one_hot":
            return Step(
                "embedding", [self.parts(node.inputs[0], "")], node.name, {"E": np.eye(node.width, dtype=np.float32)}
            )
        if node.operation == "gru":
            sources, W = self._matrix(node.inputs[0], node.arrays["W"], "")
            return Step("gru", [sources], node.name, {**node.arrays, "W": W}, node.options)
        if node.operation == "cell":
            others = [self.parts(ids, "") for ids in node.inputs[1:]]
            if node.options["function"] in ("norm_input_gru", "dreamer_v3_gru"):  # whose matrices read the state too
                return Step("cell", [self.parts(node.inputs[0], ""), *others], node.name, node.arrays, node.options)
            sources, W = self._matrix(node.inputs[0], node.arrays["W"], "")
            return Step("cell", [sources, *others], node.name, {**node.arrays, "W": W}, node.options)
        if node.operation == "dense":
            sources, W = self._matrix(node.inputs[0], node.arrays["W"][cut], key.end)
            bias = {"b": node.arrays["b"][cut]} if "b" in node.arrays else {}
            return Step("dense", [sources], node.name, {"W": W, **bias})
        if node.operation == "repeat" and "steps" in node.options:
            return Step("repeat", [self.parts(node.inputs[0][cut], "")], node.name, options=node.options)
        if node.operation == "repeat":
            like = self.parts(np.array([node.options["like"]]), "")
            of_steps: list[Key] = [self._full(p.node, p.end) if isinstance(p, Part) else p for p in like]
            return Step("repeat", [self.parts(node.inputs[0][cut], key.end), of_steps], node.name)
        if node.operation in ("subsample", "delay"):
            return Step(node.operation, [self.parts(node.inputs[0][cut], "")], node.name, options=node.options)
        if node.operation in _POOLING:
            return Step(node.operation, [self.parts(node.inputs[0][cut], "")], node.name)
        if node.operation in ("norm", "conv1d", "attend", "attention", "window"):
            inputs = [self.parts(ids, key.end) for ids in node.inputs]
            return Step(node.operation, inputs, node.name, node.arrays, node.options)
        if node.operation == "state":
            return self._state(node)
        raise AssertionError(node.operation)

    def _state(self, node: Node) -> Step:
        """The step of a state that the network computes with: its second input is what feeds it, at the step before."""
        fed = node.options.get("fed")
        if fed is None or (fed < 0).any():
            raise ExportError(used_state(node))
        initial = node.options.get("initial")
        arrays = {} if initial is None else {"initial": initial}
        return Step("state", [], "", arrays, {"width": node.width, "fed": self.parts(fed, "")})

    def _matrix(self, ids: Ids, W: Array, end: str) -> tuple[list[Key], Array]:
        """The parts that a matrix reads, and the matrix with its columns where they stand in them."""
        sources, columns, width = self.columns(ids, end)
        keys: list[Key] = list(sources)
        if len(sources) == 1 and self.nodes[sources[0].node].operation == "one_hot" and not sources[0].end:
            token_ids = self.nodes[sources[0].node].inputs[0]
            keys = self.parts(token_ids, "")  # a matrix of one-hot vectors reads the tokens themselves
            W = W.astype(np.float64)  # the bias is going to be added to it
        if np.array_equal(columns, np.arange(width)):
            return keys, W
        spread = np.zeros((W.shape[0], width), W.dtype)
        np.add.at(spread.T, columns, W.T)  # a feature that stands there twice counts twice
        return keys, spread

    # ---- all steps

    def order(self, key: Key) -> tuple[bool, int, int]:
        """Whatever a key reads comes before it in this order, and all inputs come first."""
        if isinstance(key, Gathered):
            return True, max(part.node for part in key.sources), 4
        place = 2 * bool(key.end) + (not self._is_full(key))
        return place > 0 or self.nodes[key.node].operation not in INPUTS, key.node, place

    def demand(self, outputs: Iterable[list[Key]]) -> dict[Key, Step]:
        """All steps that the outputs need, each after those that it reads."""
        steps: dict[Key, Step] = {}
        waiting = [key for keys in outputs for key in keys]
        while waiting:
            key = waiting.pop()
            if key not in steps:
                steps[key] = self.build(key)
                waiting += [k for keys in steps[key].inputs for k in keys] + steps[key].options.get("fed", [])
        return dict(sorted(steps.items(), key=lambda item: self.order(item[0])))


def _selection(columns: Iterable[int], width: int) -> Array:
    places = list(columns)
    matrix = np.zeros((len(places), width), np.float32)
    matrix[np.arange(len(places)), places] = 1
    return matrix


def _fuse(steps: dict[Key, Step], outputs: Iterable[list[Key]]) -> dict[Key, Step]:
    """Scales and activations moved into the dense layer before them where nothing else reads that."""
    uses = Counter(key for step in steps.values() for keys in step.inputs for key in keys)
    uses.update(key for keys in outputs for key in keys)
    uses.update(key for step in steps.values() for key in step.options.get("fed", ()))
    fused = dict(steps)
    for key, step in steps.items():
        if step.operation not in ("affine", "activation") or len(step.inputs[0]) != 1:
            continue
        source = step.inputs[0][0]
        before = fused.get(source)
        if before is None or uses[source] != 1 or before.options.get("activation"):
            continue
        merged = None
        if step.operation == "activation" and before.operation in ("dense", "conv1d"):
            options = {**before.options, "activation": step.options["activation"]}
            if before.operation == "dense" or activation(options["activation"]).elementwise:
                merged = Step(before.operation, before.inputs, before.name, before.arrays, options)
        elif step.operation == "affine" and before.operation in ("dense", "affine", "conv1d", "norm"):
            arrays = _scaled(before, step)
            if not (before.options.get("rms") and arrays["shift"].any()):
                merged = Step(before.operation, before.inputs, before.name, arrays, before.options)
        if merged is not None:
            fused[key] = merged
            del fused[source]
            if _is_identity(merged) and len(merged.inputs[0]) == 1:  # such as the half of 2 gelu(x)
                source = merged.inputs[0][0]
                if uses[source] == 1 and source in fused and fused[source].operation in ("activation", "dense"):
                    fused[key] = fused.pop(source)
    return {key: fused[key] for key in steps if key in fused}


def _is_identity(step: Step) -> bool:
    return step.operation == "affine" and (step.arrays["scale"] == 1).all() and not step.arrays["shift"].any()


def _scaled(before: Step, step: Step) -> dict[str, Array]:
    """The arrays of a step with a matrix, or a scale and a shift, with a scale and a shift behind it, in float64."""
    scale, shift = (np.asarray(step.arrays[name], np.float64) for name in ("scale", "shift"))
    arrays = {name: np.asarray(array, np.float64) for name, array in before.arrays.items()}
    if before.operation in ("affine", "norm"):
        return {"scale": arrays["scale"] * scale, "shift": arrays["shift"] * scale + shift}
    rows = scale.reshape(-1, *[1] * (arrays["W"].ndim - 1))
    return {"W": arrays["W"] * rows, "b": arrays.get("b", np.zeros(1)) * scale + shift}


def _emit(steps: dict[Key, Step]) -> tuple[Network, dict[Key, Value]]:
    net = Network()
    values: dict[Key, Value] = {}
    for key, step in steps.items():
        inputs: list[Any] = [[values[k] for k in keys] for keys in step.inputs]
        inputs = [part[0] if len(part) == 1 else part for part in inputs]
        arrays, options = step.arrays, {k: v for k, v in step.options.items() if k != "state"}
        name = step.name or None
        if step.operation == "input":
            values[key] = net.input(options["width"], name=name)
        elif step.operation == "state":
            values[key] = net.state(options["width"], arrays.get("initial"), name=name)
        elif step.operation == "tokens":
            if "vocabulary" not in options:
                raise ExportError(
                    f"nothing looks the tokens {f'{name!r} ' * bool(name)}up in a table, so the size of their vocabulary is "
                    "not known"
                )
            values[key] = net.tokens(options["vocabulary"], name=name)
        elif step.operation == "activation":
            values[key] = net.activation(inputs[0], options["activation"], name=name)
        elif step.operation == "cell":
            values[key] = getattr(cells, options.pop("function"))(net, *inputs, **arrays, **options, name=name)
        elif step.operation == "repeat":
            like = inputs[1] if len(inputs) > 1 else None
            values[key] = net.repeat(inputs[0], options.get("steps"), like=like, name=name)
        elif step.operation == "window":
            values[key] = _window(net, inputs[0], options, name)
        elif step.operation == "delay":
            span = options["steps"]
            window = net.window(inputs[0], 2, span)
            values[key] = net.slice(window, 0, window.width // 2, name=name)
        elif step.operation == "norm":
            rms = options.pop("rms")
            if rms:
                arrays = {"scale": arrays["scale"]}  # the shift, where there is one, is a step behind it
            values[key] = getattr(net, "rms_norm" if rms else "layer_norm")(*inputs, **arrays, **options, name=name)
        else:
            values[key] = getattr(net, step.operation)(*inputs, **arrays, **options, name=name)
    for key, step in steps.items():
        if step.operation == "state":
            net.feed(values[key], [values[k] for k in step.options["fed"]])
    return net, values


def _window(net: Network, v: Any, options: dict[str, Any], name: str | None) -> Value:
    """The steps that pooling reads, side by side, at every ``stride``-th step."""
    (left, right), span = options["padding"], options["taps"] - 1
    window = net.window(v, options["taps"], 1, right)
    return net.subsample(window, options["stride"], span - left - right, name=name)


def lower(graph: Graph, outputs: list[tuple[str | None, Ids]]) -> Lowered:
    """Make the network whose outputs are the given features.

    Parameters
    ----------
    graph : Graph
    outputs : list of (name or None, ids)
        The ids in order; an array of any shape, taken in C order.

    Returns
    -------
    Lowered
        Its network has the inputs that the outputs depend on, in the order of the graph, and no others.
    """
    lowering = _Lowering(graph)
    keys = [lowering.parts(ids.reshape(-1), "") for _, ids in outputs]
    steps = lowering.demand(keys)
    if not any(step.operation in INPUTS for step in steps.values()):
        raise ExportError("no output depends on the input")
    net, values = _emit(_fuse(steps, keys))
    for (name, _), parts in zip(outputs, keys):
        net.output([values[key] for key in parts], name)
    starts, start = {}, 0
    for index in net._reached_indices():  # the order of a network's state
        starts[index], start = start, start + len(net.layers[index].initial_state)
    found: dict[str, list[tuple[Node, int]]] = {"gru": [], "state": []}
    for key, step in steps.items():
        if isinstance(key, Part) and step.operation in found:
            found[step.operation].append((graph.nodes[key.node], starts[values[key].index]))
    return Lowered(net, found["gru"], found["state"])
