# SPDX-License-Identifier: Apache-2.0
"""The order in which layers are computed: loops, which go step by step, as short as they can be.

A ``State`` has the value of a later layer at the step before, so the layers on a way from it to that one are a loop:
each needs what they were one step before. What no loop needs to wait for can be computed for many steps at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Sequence

from gru_engine.layers import Layer, State


def units(layers: Sequence[Layer], among: Iterable[int]) -> list[list[int]]:
    """Layers and loops in an order in which they can be computed.

    Parameters
    ----------
    layers : sequence of Layer
        In topological order; the source of a state stands behind it.
    among : iterable of int
        The layers to be ordered, by number. What they read is among them.

    Returns
    -------
    list of list of int
        Each is one layer, or the layers of a loop in ascending order: it begins with a ``State`` and ends with a source.
        Of what could come next, the one with the smallest first number does.
    """
    chosen = sorted(among)
    if not any(isinstance(layers[i], State) for i in chosen):
        return [[i] for i in chosen]
    after: dict[int, set[int]] = {i: set() for i in chosen}  # for each layer those that have to wait for it
    for i in chosen:
        for source in layers[i].reads:
            after[source].add(i)
            if source > i:  # a State's, which reads nothing of it, but must stand behind it
                after[i].add(source)
    unit_of = {i: unit for unit in _strongly_connected(after) for i in unit}
    waits = {unit[0]: 0 for unit in unit_of.values()}
    followers = {first: {unit_of[j][0] for i in unit_of[first] for j in after[i]} - {first} for first in waits}
    for following in followers.values():
        for first in following:
            waits[first] += 1
    ready = [first for first, count in waits.items() if count == 0]
    heapq.heapify(ready)
    ordered = []
    while ready:
        first = heapq.heappop(ready)
        ordered.append(unit_of[first])
        for follower in followers[first]:
            waits[follower] -= 1
            if waits[follower] == 0:
                heapq.heappush(ready, follower)
    return ordered


def is_loop(layers: Sequence[Layer], unit: Sequence[int]) -> bool:
    """Whether a unit goes step by step."""
    return isinstance(layers[unit[0]], State)


def _strongly_connected(after: dict[int, set[int]]) -> list[list[int]]:
    """The strongly connected components of a graph, each in ascending order (Kosaraju's algorithm)."""
    finished = _depth_first(after, after)
    before: dict[int, set[int]] = {i: set() for i in after}
    for i, followers in after.items():
        for j in followers:
            before[j].add(i)
    components = []
    seen: set[int] = set()
    for i in reversed(finished):
        if i not in seen:
            component = _depth_first(before, [i], seen)
            seen.update(component)
            components.append(sorted(component))
    return components


def _depth_first(graph: dict[int, set[int]], roots: Iterable[int], done: Collection[int] = ()) -> list[int]:
    """The nodes that can be reached, in the order in which a depth-first search leaves them."""
    seen, left = set(done), []
    for root in roots:
        stack = [] if root in seen else [(root, iter(graph[root]))]
        seen.add(root)
        while stack:
            follower = next((j for j in stack[-1][1] if j not in seen), None)
            if follower is None:
                left.append(stack.pop()[0])
            else:
                seen.add(follower)
                stack.append((follower, iter(graph[follower])))
    return left
