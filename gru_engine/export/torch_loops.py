# SPDX-License-Identifier: Apache-2.0
"""Loops over time that a module writes in Python, found in the record of ``torch.export``.

The record has such a loop unrolled: the same operations once for each step, each reading its own step of a sequence and values of
the step before. ``find`` lays the steps side by side. If they are alike, one of them is the loop's body; what it reads of the
step before are states; what is stacked, concatenated or written into a tensor step by step is a sequence again; and what is
read of the last step is the value at the end. Steps are counted by what they depend on, not by where they stand in the record,
so that a module may take its input apart beforehand, and have several loops side by side.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

_TEMPLATE = (
    2  # the step whose operations are taken for the body; the two before it are needed to see what it carries on
)
_FEWEST = 5
_ATEN = torch.ops.aten
_WRITING = (_ATEN.select_scatter.default, _ATEN.slice_scatter.default)


class _NotAlike(Exception):
    """The steps are not those of one loop; the message says why."""


@dataclass(frozen=True)
class Collected:
    """Values of all steps that become a sequence: those of a node of the body, along an axis that is new or was there."""

    value: Node
    axis: int
    new: bool
    descending: bool  # the last step stands first


@dataclass(frozen=True, eq=False)
class Loop:
    """A loop, by the nodes of one of its steps.

    Attributes
    ----------
    backward : bool
        Whether the first step reads the end of the axis.
    reads : dict
        For each node that reads a step the sequence, the axis, and whether the axis stays with size 1.
    states : dict
        For each node of the step before that the body reads, what it is at this step, and what at the first (a node or a number).
    body : list of Node
        In an order in which they can be executed.
    sequences, finals : dict
        For nodes behind the loop what they are.
    nodes : set of Node
        All that the loop stands for.
    last : Node
        Of these the one where the loop can be executed.
    """

    backward: bool
    reads: dict[Node, tuple[Node, int, bool]]
    states: dict[Node, tuple[Node, Any]]
    body: list[Node]
    sequences: dict[Node, Collected]
    finals: dict[Node, Node]
    nodes: set[Node]
    last: Node


@dataclass(eq=False)
class Loops:
    """The loops of a record.

    Attributes
    ----------
    loops : list of Loop
    dead : set of Node
        Nodes that nothing reads once sequences are written as a whole.
    reasons : list of str
        Why something that looks like a loop is none.
    """

    loops: list[Loop] = field(default_factory=list)
    dead: set[Node] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Read:
    """All nodes that read the steps of an axis one after the other: for each step those that read it."""

    source: Node
    axis: int
    nodes: tuple[tuple[Node, ...], ...]
    kept: bool
    apart: bool  # taken apart at once, so that the order says nothing about the loop's direction


def find(nodes: Iterable[Node], steps: int) -> Loops:
    """The loops over an axis of so many steps, a number that is the size of no other axis."""
    finder = _Finder(list(nodes), steps)
    result = Loops(dead=finder.dead)
    waiting = list(finder.runs)
    while waiting and steps >= _FEWEST:
        first = waiting.pop(0)
        reasons = []
        for backward in (False, True) if first.apart else (first.nodes[0][0] in finder.ends,):
            try:
                together = finder.together(first, waiting, backward)
                loop = finder.rolled([first, *together], backward)
            except _NotAlike as reason:
                reasons.append(str(reason))
                continue
            result.loops.append(loop)
            waiting = [read for read in waiting if read not in together]
            reasons = []
            break
        result.reasons += reasons[:1]
    if not result.loops:
        result.dead = set()
    rolled = {node for loop in result.loops for node in loop.nodes}
    for read in finder.runs:  # what takes a sequence apart for loops alone
        if read.apart and rolled.issuperset(finder.users[read.nodes[0][0].args[0]]):
            result.dead.add(read.nodes[0][0].args[0])
    return result


def _number(node: Node, place: int) -> int:
    """An optional argument, which is 0 by default."""
    return int(node.args[place]) if len(node.args) > place else 0


class _Finder:
    def __init__(self, nodes: list[Node], steps: int):
        self.steps = steps
        self.order = {node: i for i, node in enumerate(nodes)}
        self.ends: set[Node] = set()  # reads of the end of an axis by which a loop begins
        self._known: dict[Node, Node] = {}
        self.users: dict[Node, list[Node]] = {}
        live = [node for node in nodes if node.op == "output"]
        seen = set(live)
        while live:
            node = live.pop()
            for argument in self.arguments(node):
                self.users.setdefault(argument, []).append(node)
                if argument not in seen:
                    seen.add(argument)
                    live.append(argument)
        self.dead = {node for node in nodes if node not in seen and node.op == "call_function"}
        self.live = [node for node in nodes if node in seen]
        self.pieces: dict[
            Node, Node
        ] = {}  # what puts a sequence together step by step, and the node where it is complete
        self.collected = dict(self._collectors())
        self.runs = self._reads()

    # ---- what nodes read

    def whole(self, node: Node) -> Node:
        """The node that has the same value: behind slices of all of it, and copies into a part that is then put back."""
        if node not in self._known:
            target, found = node.target, node
            if target in (_ATEN.slice.Tensor, _ATEN.slice_scatter.default) and node.op == "call_function":
                shape, other = node.args[0].meta["val"].shape, node.meta["val"].shape
                if target == _ATEN.slice.Tensor and shape == other:
                    found = self.whole(node.args[0])
                elif target == _ATEN.slice_scatter.default and node.args[1].meta["val"].shape == other:
                    found = self.whole(node.args[1])
            elif target == _ATEN.copy.default and node.args[1].meta["val"].shape == node.meta["val"].shape:
                found = self.whole(node.args[1])
            self._known[node] = found
        return self._known[node]

    def leaves(self, node: Node) -> list[Any]:
        """All that an operation is called with, nodes and others."""
        flat = pytree.tree_leaves((node.args, dict(node.kwargs)), is_leaf=lambda leaf: leaf is None)
        return [self.whole(leaf) if isinstance(leaf, Node) else leaf for leaf in flat]

    def arguments(self, node: Node) -> list[Node]:
        return [leaf for leaf in self.leaves(node) if isinstance(leaf, Node)]

    # ---- sequences that are put together

    def _collectors(self) -> Iterator[tuple[Node, tuple[list[Node], int, bool]]]:
        """For each node that puts values of all steps together: these, the axis, and whether it is a new one."""
        for node in self.live:
            parts: list[Node] | None = None
            between: list[Node] = []
            axis = 0
            if node.target in (_ATEN.stack.default, _ATEN.cat.default):
                axis = _number(node, 1)
                parts = self._joined(node, axis, between)
            elif node.target in _WRITING:
                axis = self._axis(node)
                parts = self._written(node, axis, between)
            if parts is not None and len(parts) == self.steps:
                self.pieces.update(dict.fromkeys(between, node))
                new = node.target in (_ATEN.stack.default, _ATEN.select_scatter.default)
                yield node, (parts, axis % len(node.meta["val"].shape), new)

    def _joined(self, node: Node, axis: int, between: list[Node]) -> list[Node]:
        """The operands; of a concatenation to which each step adds its value, all of them."""
        parts: list[Node] = []
        joins = node.target == _ATEN.cat.default
        for operand in map(self.whole, node.args[0]):
            again = joins and operand.target == node.target and len(self.users.get(operand, ())) == 1
            if again and _number(operand, 1) == axis:
                between.append(operand)
                parts += self._joined(operand, axis, between)
            elif not (joins and operand.meta["val"].numel() == 0):
                parts.append(operand)
        return parts

    def _axis(self, node: Node) -> int:
        axis = int(node.args[2]) if len(node.args) > 2 else 0
        return axis % len(node.meta["val"].shape)

    def _place(self, node: Node, axis: int) -> int | None:
        """Which step of an axis of all steps a node reads or writes, if it is one step."""
        scatter = node.target in _WRITING
        shape = (node if scatter else node.args[0]).meta["val"].shape
        numbers = node.args[3 if scatter else 2 :]
        if shape[axis] != self.steps:
            return None
        if node.target in (_ATEN.select_scatter.default, _ATEN.select.int):
            return int(numbers[0]) % self.steps
        start, stop, step = slice(*[*numbers, None, None][:2], *numbers[2:3]).indices(self.steps)
        return start if stop - start == 1 and step == 1 else None

    def _written(self, node: Node, axis: int, between: list[Node]) -> list[Node] | None:
        """What the steps of a tensor were set to one after the other, if all were."""
        values: dict[int, Node] = {}
        current: Node = node
        while current.target == node.target and self._axis(current) == axis:
            place = self._place(current, axis)
            if place is None or place in values or (values and len(self.users.get(current, ())) != 1):
                return None
            if values:
                between.append(current)
            values[place] = self.whole(current.args[1])
            current = self.whole(current.args[0])
            if len(values) == self.steps:
                return [values[i] for i in range(self.steps)]
        return None

    # ---- reading step by step

    def _reads(self) -> list[_Read]:
        """Everything that reads the steps of an axis one after the other."""
        found: dict[tuple[Node, int, bool, bool], list[tuple[int, Node]]] = {}
        for node in self.live:
            key, place = self._read(node)
            if place is not None:
                found.setdefault(key, []).append((place, node))
        runs = []
        for (source, axis, kept, apart), places in found.items():
            groups: list[tuple[int, list[Node]]] = []
            for place, node in places:
                if groups and groups[-1][0] == place:
                    groups[-1][1].append(node)
                else:
                    groups.append((place, [node]))
            start = 0
            while start + self.steps <= len(groups):
                run = groups[start : start + self.steps]
                order = [place for place, _ in run]
                if order in (list(range(self.steps)), list(range(self.steps))[::-1]):
                    nodes = tuple(tuple(group) for _, group in sorted(run, key=lambda item: item[0]))
                    if order[0]:
                        self.ends.add(nodes[0][0])
                    start += self.steps
                    many = len(run[0][1])
                    if len(run[-1][1]) > many:  # the next loop begins where this one ends
                        nodes = tuple(group[:many] for group in nodes)
                        start -= 1
                        groups[start] = run[-1][0], run[-1][1][many:]
                    runs.append(_Read(source, axis, nodes, kept, apart))
                else:
                    start += 1
        return sorted(runs, key=lambda read: self.order[read.nodes[0][0]])

    def _read(self, node: Node) -> tuple[Any, int | None]:
        if node.target in (_ATEN.select.int, _ATEN.slice.Tensor):
            axis = _number(node, 1) % len(node.args[0].meta["val"].shape)
            key = self.whole(node.args[0]), axis, node.target == _ATEN.slice.Tensor, False
            return key, self._place(node, axis)
        if node.target is operator.getitem:
            pieces = node.args[0]
            names = {_ATEN.unbind.int: 1, _ATEN.split.Tensor: 2, _ATEN.split_with_sizes.default: 2}
            if pieces.target in names and len(pieces.meta["val"]) == self.steps:
                number = names[pieces.target]
                source = self.whole(pieces.args[0])
                axis = _number(pieces, number) % len(source.meta["val"].shape)
                if source.meta["val"].shape[axis] == self.steps:
                    return (source, axis, number == 2, True), int(node.args[1])
        return None, None

    # ---- levels: at which step something is known

    def levels(self, reads: Sequence[_Read], backward: bool) -> dict[Node, int]:
        """For each node that depends on these reads the last step that it depends on; not behind what collects steps."""
        level: dict[Node, int] = {}
        behind: set[Node] = set()
        for read in reads:
            for place, group in enumerate(read.nodes):
                level.update(dict.fromkeys(group, self.steps - 1 - place if backward else place))
        for node in self.live:
            if node in level or node in self.pieces:
                continue
            arguments = self.arguments(node)
            known = [level[a] for a in arguments if a in level]
            if any(a in behind for a in arguments) or (known and (node in self.collected or node.op == "output")):
                behind.add(node)
            elif known:
                level[node] = max(known)
        return level

    def together(self, first: _Read, others: Sequence[_Read], backward: bool) -> list[_Read]:
        """The other reads that belong to the same loop: something depends on the same step of both."""
        chosen: list[_Read] = []
        own = self.levels([first], backward)
        for other in others:
            if other.source in own or (not other.apart and (other.nodes[0][0] in self.ends) != backward):
                continue
            level = self.levels([other], backward)
            if any(own.get(node) == 1 == number for node, number in level.items()):
                chosen.append(other)
                own = self.levels([first, *chosen], backward)
        return chosen

    # ---- one step for all

    def rolled(self, reads: Sequence[_Read], backward: bool) -> Loop:
        """The loop that these reads are of."""
        return _Rolled(self, reads, backward).loop()


class _Rolled:
    """The steps of a loop side by side. Operations are known by their number within a step."""

    def __init__(self, finder: _Finder, reads: Sequence[_Read], backward: bool):
        self.finder, self.reads, self.backward = finder, reads, backward
        self.level = finder.levels(reads, backward)
        T = self.T = finder.steps
        self.at: list[list[Node]] = [[] for _ in range(T)]
        for node in finder.live:
            if node in self.level:
                self.at[self.level[node]].append(node)
        self.number = {node: i for step in self.at for i, node in enumerate(step)}
        self.template = self.at[_TEMPLATE]
        self.count = len(self.template)
        self.initial: dict[int, Any] = {}
        self.swallowed: set[Node] = set()
        for step in range(T - 1):
            if len(self.at[step]) != self.count:
                raise _NotAlike("the steps are not alike")
        self.reading = {self.number[n] for read in reads for n in read.nodes[0]}
        for step in range(1, T - 1):
            for number, node in enumerate(self.at[step]):
                if not self._alike(node, step, number):
                    raise _NotAlike(f"the steps are not alike ({node.target})")
        self.at[T - 1] = self._last()
        self.ahead = self._ahead()
        for number in range(self.count):
            self._first(number)

    def _last(self) -> list[Node]:
        """The operations of the last step: what only a further step would need is not there, but what stands behind the loop."""
        found: list[Node] = []
        waiting = list(self.at[self.T - 1])
        for node in waiting:
            self.number.pop(node)
        for number in range(self.count):
            if waiting and self._alike(waiting[0], self.T - 1, number):
                found.append(waiting.pop(0))
                self.number[found[-1]] = number
        if not self.reading.issubset(self.number[node] for node in found):
            raise _NotAlike("the last step is not like the others")
        return found

    def _alike(self, node: Node, step: int, number: int) -> bool:
        """Whether an operation of a step is what the one with this number is at the step that is the template."""
        like = self.template[number]
        own, others = self.finder.leaves(node), self.finder.leaves(like)
        if node.target != like.target or len(own) != len(others):
            return False
        if number in self.reading:
            return any(node in group for read in self.reads for group in read.nodes)
        for a, b in zip(own, others):
            if isinstance(a, Node) and isinstance(b, Node) and b in self.level:
                if a not in self.level or self.number.get(a) != self.number[b]:
                    return False
                if self.level[a] - step != self.level[b] - _TEMPLATE:
                    return False
            elif not self._same(a, b):
                return False
        return True

    def _same(self, a: Any, b: Any) -> bool:
        """Whether two things that depend on no step are the same."""
        if a is b:
            return True
        if not isinstance(a, Node) or not isinstance(b, Node):
            return type(a) is type(b) and bool(a == b)
        if a in self.level or b in self.level or a.op != "call_function" or a.target != b.target:
            return False
        own, others = self.finder.leaves(a), self.finder.leaves(b)
        return len(own) == len(others) and all(self._same(x, y) for x, y in zip(own, others))

    def _inside(self, number: int) -> Iterator[tuple[int, int]]:
        """What an operation of the template reads of the loop: number, and how many steps ago."""
        for argument in self.finder.arguments(self.template[number]):
            if argument in self.level:
                yield self.number[argument], _TEMPLATE - self.level[argument]

    def _ahead(self) -> set[int]:
        """The operations that only the next step needs: they belong to it, so that what is carried on is what they read."""
        needed = set(self.reading)
        for step in range(1, self.T):
            inside = set(self.at[step]) | set(self.at[step + 1] if step < self.T - 1 else ())
            for node in self.at[step]:
                if any(user not in inside for user in self.finder.users.get(node, ())):
                    needed.add(self.number[node])
        for number in range(self.count - 1, -1, -1):
            if number in needed:
                needed.update(other for other, ago in self._inside(number) if ago == 0)
        for number, node in enumerate(self.template):  # a part of several results stays with the others
            if node.target is operator.getitem and any(
                other in needed for other, ago in self._inside(number) if ago == 0
            ):
                needed.add(number)
        return set(range(self.count)) - needed

    def _first(self, number: int) -> None:
        """What an operation of the first step reads in the place of values of the step before."""
        if number in self.ahead or number in self.reading:
            return
        node, like = self.at[0][number], self.template[number]
        own, others = self.finder.leaves(node), self.finder.leaves(like)
        if node.target != like.target or len(own) != len(others):
            raise _NotAlike(f"the first step is not like the others ({node.target})")
        for a, b in zip(own, others):
            self._begins(a, b, _TEMPLATE)

    def _begins(self, a: Any, b: Any, step: int) -> None:
        """``a`` is for the first step what ``b``, of the template or of the step before it, is for that one."""
        if not isinstance(b, Node) or b not in self.level:
            if not self._same(a, b):
                raise _NotAlike("the first step is not like the others")
            return
        number, ago = self.number[b], _TEMPLATE - self.level[b]
        if ago == 0:
            if not isinstance(a, Node) or self.level.get(a) != 0 or self.number[a] != number:
                raise _NotAlike("the first step is not like the others")
            return
        if ago > 1 or (isinstance(a, Node) and a in self.level):
            raise _NotAlike("a step reads what was more than one step before")
        if number not in self.ahead:
            if not self._same(self.initial.setdefault(number, a), a):
                raise _NotAlike("the first step reads two states")
            return
        like = self.at[1][number]
        if not isinstance(a, Node) or a.target != like.target:
            raise _NotAlike("the first step is not like the others")
        own, others = self.finder.leaves(a), self.finder.leaves(like)
        if len(own) != len(others):
            raise _NotAlike("the first step is not like the others")
        self.swallowed.add(a)
        for x, y in zip(own, others):
            if isinstance(y, Node) and self.level.get(y) == 0:
                raise _NotAlike("a step reads what was more than one step before")
            self._begins(x, y, 1)

    def loop(self) -> Loop:
        """The loop by the nodes of one step."""
        body = [self.at[1][i] for i in sorted(self.ahead)]
        body += [self.template[i] for i in range(self.count) if i not in self.ahead and i not in self.reading]
        states = {}
        for number, first in self.initial.items():
            states[self.at[1][number]] = self.template[number], first
        for number in self.ahead:
            if any(ago for _, ago in self._inside(number)):
                raise _NotAlike("a step reads what was more than one step before")
        reads = {}
        for read in self.reads:
            place = self.T - 1 - _TEMPLATE if self.backward else _TEMPLATE
            reads.update(dict.fromkeys(read.nodes[place], (read.source, read.axis, read.kept)))
        nodes = {node for step in self.at for node in step} | self.swallowed
        sequences, finals = self._results(nodes)
        last = max(nodes, key=lambda node: self.finder.order[node])
        nodes |= {node for node, whole in self.finder.pieces.items() if whole in sequences}
        return Loop(self.backward, reads, states, body, sequences, finals, nodes, last)

    def _results(self, nodes: set[Node]) -> tuple[dict[Node, Collected], dict[Node, Node]]:
        sequences: dict[Node, Collected] = {}
        finals: dict[Node, Node] = {}
        for node in nodes:
            for user in self.finder.users.get(node, ()):
                if user in nodes:
                    continue
                user = self.finder.pieces.get(user, user)
                collected = self.finder.collected.get(user)
                if collected is not None and node in collected[0]:
                    sequences[user] = self._collected(*collected)
                elif node in self.swallowed:
                    raise _NotAlike("the first step is not like the others")
                elif self.level[node] == self.T - 1:
                    finals[node] = self.template[self.number[node]]
                else:
                    raise _NotAlike("the value of one step is read by itself")
        return sequences, finals

    def _collected(self, parts: list[Node], axis: int, new: bool) -> Collected:
        order = [self.level.get(part, -1) for part in parts]
        numbers = {self.number.get(part) for part in parts}
        ascending = list(range(self.T))
        if len(numbers) != 1 or order not in (ascending, ascending[::-1]):
            raise _NotAlike("what is put together is not the same of each step")
        return Collected(self.template[self.number[parts[0]]], axis, new, order != ascending)
