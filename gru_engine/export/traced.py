# SPDX-License-Identifier: Apache-2.0
"""A model that was followed, beside its network: what its axes may mean, which of its results are states, and how to run it.

For exporters that follow a model operation by operation with ``gru_engine.export.graph``; a framework's module adds how its
models are executed (``Traced.call``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gru_engine import reference
from gru_engine.export import common
from gru_engine.export.common import Array, ExportError, Inputs, cut
from gru_engine.export.graph import AxisError, Dim, Graph, Ids, Node, SharedState, Tensor, used_state
from gru_engine.export.lowering import INPUTS, Lowered, lower
from gru_engine.export.scores import Scores
from gru_engine.network import Network
from gru_engine.reference_arguments import by_name

PRIMES = [n for n in range(5, 1000) if all(n % k for k in range(2, n))]

THRESHOLD_FLOAT64 = 1e-6
"""Largest accepted relative difference between a model in float64 and the reference; its constants are float32."""


# ---- what the axes of the inputs may mean


def layouts(shape: Sequence[int], floats: bool, states: bool) -> list[str]:
    """The possible meanings of the input's axes, the likely ones first: of each a letter, B, T, F or 1.

    Parameters
    ----------
    shape : sequence of int
        Of an example.
    floats : bool
        Whether the input is numbers, not tokens.
    states : bool
        Whether the model takes initial states beside it.
    """
    rank = len(shape)
    if not floats:
        plain = {0: [""], 1: ["B", "T"] if states else ["T", "B"], 2: ["BT", "TB"]}.get(rank, [])
    elif rank < 3:
        plain = {1: ["F", "T"], 2: ["BF", "TF", "BT", "TB"]}.get(rank, [])
    else:
        features = "F" * (rank - 2)
        plain = [f"BT{features}", f"TB{features}", f"B{features}T"] + ["BFTF"] * (rank == 4)

    def without(letters: str) -> list[str]:
        """The layouts in which all the given axes have size 1 in the example and are taken for no axes."""
        ones = [{c for c, n in zip(layout, shape) if n == 1} for layout in plain]
        return [
            "".join("1" if c in letters else c for c in layout)
            for layout, one in zip(plain, ones)
            if set(letters) <= one
        ]

    # A model that takes one step and its state may really mean an axis of size 1 where the time stands.
    ordered = [*without("T"), *plain, *without("BT"), *without("B")] if states else [*plain, *without("B")]
    return list(dict.fromkeys(ordered))


def input_dims(layout: str, shape: Sequence[int]) -> list[Dim]:
    """The axes of the input."""
    if len(layout) != len(shape) or not set(layout) <= set("BTF1") or layout.count("B") > 1 or layout.count("T") > 1:
        raise ExportError(
            f"axes {layout!r} do not describe an input of shape {list(shape)}: one of B, T, F, 1 for each"
        )
    return [(c,) if c in "BT" else () if c == "1" else (n,) for c, n in zip(layout, shape)]


def state_dims(shape: Sequence[int], batch: int | None) -> list[Dim]:
    """The axes of an initial state: [layers, batch, units] or [batch, units], where there is a batch of the given size."""
    dims: list[Dim] = [(n,) for n in shape]
    if batch is not None:
        likely = [1, 0, 2] if len(shape) == 3 else range(len(shape))
        found = [i for i in likely if shape[i] == batch]
        if not found:
            raise AxisError(f"an initial state of shape {list(shape)} has no axis of the batch's size {batch}")
        dims[found[0]] = ("B",)
    return dims


def example_sizes(numbers: Iterable[int], letters: Iterable[str], least: int = 0) -> dict[str, int]:
    """Sizes for batch and time that occur nowhere else in a model, nor divide its numbers; at least so many steps."""
    wanted = {n for n in numbers if n}
    primes = [p for p in PRIMES if all(n % p for n in wanted)]
    sizes = dict(zip(letters, primes))
    if "T" in sizes and least:
        sizes["T"] = next(p for p in primes if p >= least and p != sizes.get("B"))
    sizes.setdefault("B", primes[2])
    sizes["R"] = sizes.setdefault("T", primes[3])
    return sizes


# ---- outputs and states


def selected(outputs: Sequence[int | str] | None, names: Sequence[str | None]) -> list[int] | None:
    """The numbers of the chosen outputs, which are named or numbered; None if none are chosen.

    A name that is a number is meant first.

    Raises
    ------
    ExportError
        If there is no output of this name.
    """
    if outputs is None:
        return None
    chosen = []
    for wanted in outputs:
        if isinstance(wanted, str) and wanted not in names and not wanted.isdecimal():
            known = ", ".join(name for name in names if name)
            known = f"it has {known}" if known else f"its {len(names)} outputs have numbers alone"
            raise ExportError(f"outputs: the model has no output {wanted!r}; {known}")
        chosen.append(names.index(wanted) if wanted in names else int(wanted))
    return chosen


@dataclass(frozen=True, eq=False)
class Outputs:
    """Which of the returned values are outputs, and which are the states of the GRUs and of loops.

    ``who`` is what returns them, in messages; ``labels`` what to call each of them.
    """

    graph: Graph
    places: list[Any]
    returned: list[Any]
    who: str
    labels: list[str]

    def _memory(self, value: Any) -> list[tuple[Node, int]] | None:
        """If a value is nothing but new states: for each feature the GRU and the unit, or the state and the place in it."""
        if not isinstance(value, Tensor) or has_time(value):
            return None
        fed = self._fed()
        found = []
        for id, number in zip(value.ids.reshape(-1).tolist(), self.graph.node_numbers(value.ids.reshape(-1)).tolist()):
            node, unit = self.graph.nodes[number], id - self.graph.nodes[number].first
            if node.operation in ("last", "first"):
                end, id = node.operation, int(node.inputs[0][0]) + unit
                node = self.graph.nodes[int(self.graph.node_numbers(node.inputs[0][:1])[0])]
                if end != ("first" if node.options.get("direction") == "reverse" else "last"):
                    return None
            if node.operation == "gru":
                found.append((node, unit))
            elif id in fed:
                found.append(fed[id])
            else:
                return None
        return found

    def _fed(self) -> dict[int, tuple[Node, int]]:
        """For each id that feeds a state the state's node and the place in it."""
        found: dict[int, tuple[Node, int]] = {}
        for node in self.graph.nodes:
            for place, id in enumerate(node.options.get("fed", ()) if node.operation == "state" else ()):
                if id >= 0:
                    found.setdefault(int(id), (node, place))
        return found

    def _continues(self, value: Any, state: Tensor) -> bool:
        """Whether a value is the new state of exactly what ``state`` was the old one of."""
        units = self._memory(value)
        if units is None or value.dims != state.dims:
            return False
        return [argument_of(node, unit) for node, unit in units] == state.ids.reshape(-1).tolist()

    def _of(self, *operations: str) -> list[Tensor]:
        """The places of these operations."""
        tensors = [place for place in self.places if isinstance(place, Tensor)]
        return [t for t in tensors if self.graph.node_of(t).operation in operations]

    @property
    def _steps(self) -> bool:
        """Whether the model takes sequences, not single steps."""
        return any(map(has_time, self._of(*INPUTS)))

    def check_no_state(self, t: Tensor, what: str) -> None:
        """Refuse a guess at an input of one step that may be a state: a value with its axes is returned.

        Raises
        ------
        ExportError
        """
        states = self._of("state")
        for value, label in zip(self.returned, self.labels):
            if (
                isinstance(value, Tensor)
                and value.dims == t.dims
                and not any(self._continues(value, s) for s in states)
            ):
                raise ExportError(
                    f"{what} has the axes of {label}: it may be a state; if it is an input, say so with axes= for each input"
                )

    def feed(self, outputs: Sequence[int] | None) -> None:
        """Feed the states of a model of one time step that are no GRU's with the values that are returned for them.

        Raises
        ------
        ExportError
            If it is not certain which these are.
        """
        taken = {id for node in self.graph.nodes for id in node.options.get("state", ())}
        states = [t for t in self._of("state") if not any(self._continues(value, t) for value in self.returned)]
        if self._steps or not states:
            return
        for state in states:
            if not taken.isdisjoint(state.ids.reshape(-1).tolist()):
                raise SharedState(used_state(self.graph.node_of(state)))
        memories = [t for t in self._of("state") if not any(t is state for state in states)]
        values = [
            v
            for i, v in enumerate(self.returned)
            if isinstance(v, Tensor) and i not in (outputs or ()) and not any(self._continues(v, t) for t in memories)
        ]
        chosen = _assigned(self.graph, states, values, not memories, bool(outputs), self.who)
        for state, value in zip(states, chosen):
            self.graph.feed(state.ids, value.ids)

    def choose(self) -> list[int]:
        """The numbers of the returned values that are outputs."""
        tensors = [i for i, value in enumerate(self.returned) if value is not None]
        states = self._of("state")
        if not self._steps:
            for state in states:
                if not any(self._continues(value, state) for value in self.returned):
                    raise ExportError(
                        f"{self.who} takes one time step and a state of shape {state}, but returns no new state with the "
                        "same axes"
                    )
            values = [i for i in tensors if not any(self._continues(self.returned[i], state) for state in states)]
            distinct = {
                str(self.returned[i].ids.tolist()): i for i in reversed(tensors) if isinstance(self.returned[i], Tensor)
            }
            return values or sorted(distinct.values())
        if not any(has_time(self.returned[i]) for i in tensors):
            return tensors
        chosen = []
        for i in tensors:
            if self._memory(self.returned[i]) is None:
                chosen.append(i)
            elif states and not any(self._continues(self.returned[i], state) for state in states):
                raise ExportError(
                    f"the state that {self.who} returns as {self.labels[i]} is arranged in another way than the one it takes"
                )
        return chosen

    def lowered(
        self, names: Sequence[str | None], outputs: Sequence[int] | None, generic: bool = True
    ) -> tuple[Network, dict[str, Any]]:
        """The network, and the fields of ``Traced`` that say how the model's results correspond to the network's.

        Without ``generic`` the only states of a model of one time step are those of GRUs.
        """
        if generic:
            self.feed(outputs)
        chosen = self.choose() if outputs is None else list(outputs)
        for i in chosen:
            if not 0 <= i < len(self.returned):
                raise ExportError(f"outputs: {self.who} returns {len(self.returned)} values, there is no value {i}")
            if isinstance(self.returned[i], Scores):
                raise ExportError(
                    f"{self.labels[i]} that {self.who} returns is {self.returned[i]}, which have two time axes; say with "
                    "outputs= what else is wanted"
                )
            if not isinstance(self.returned[i], Tensor):
                raise ExportError(f"{self.labels[i]} that {self.who} returns does not depend on the input")
            if any(str(f)[0] == "R" for dim in self.returned[i].dims for f in dim):
                raise ExportError(f"{self.labels[i]} that {self.who} returns is in reversed time order")
        rates = {has_time(self.returned[i]) for i in chosen}
        if len(rates) > 1 and self._steps:
            raise ExportError(
                f"{self.who} returns values of every time step and values of the whole sequence "
                f"({', '.join(f'{i}: {self.returned[i]}' for i in chosen)}); choose with outputs="
            )
        if not chosen:
            raise ExportError(f"{self.who} returns nothing that depends on the input")
        titles = _titles([names[i] for i in chosen])
        result = lower(self.graph, [(name, self.returned[i].ids) for i, name in zip(chosen, titles)])
        positions = _positions(result)
        finals = {}
        for i, value in enumerate(self.returned):
            units = self._memory(value)
            if units is not None:
                places = [positions[id(node)] + unit if id(node) in positions else -1 for node, unit in units]
                finals[i] = (value, np.array(places))
        return result.network, {
            "places": self.places,
            "sources": [self.graph.node_of(place) if isinstance(place, Tensor) else None for place in self.places],
            "outputs": {i: self.returned[i] for i in chosen},
            "state_places": dict(_state_ids(result, positions)),
            "finals": finals,
        }


def _titles(names: Sequence[str | None]) -> list[str]:
    """Names for all outputs: those without one are ``y``, ``y1`` ... by their place, and never one that is another's."""
    titles = []
    for number, name in enumerate(names):
        title = name or f"y{number or ''}"
        while name is None and title in names:
            title += "_"
        titles.append(title)
    return titles


def has_time(value: Any) -> bool:
    """Whether a value has a time axis."""
    return isinstance(value, Tensor) and any(isinstance(f, str) and f != "B" for dim in value.dims for f in dim)


def argument_of(node: Node, unit: int) -> int:
    """The feature of an argument of the model that is the initial value of a unit of a GRU, or of a place of a state; or -1."""
    if node.operation == "state":
        return int(node.options["argument"][unit]) if "argument" in node.options else -1
    return int(node.options["state"][unit]) if "state" in node.options else -1


def _assigned(
    graph: Graph, states: list[Tensor], values: list[Tensor], alone: bool, said: bool, who: str
) -> list[Tensor]:
    """For each state of a model of one step the value that is returned as the new one.

    The new states are the last of the values, in the order of the states; unless it is ``said`` which values are outputs, there
    must be others too, except for a model that returns nothing but its only state (``alone``: there are no GRUs' states).
    """
    for state in states:
        if not any(v.dims == state.dims for v in values):
            raise ExportError(
                f"{who} takes one time step and a state of shape {state}, but returns no new state with the same axes"
            )
    chosen, rest = values[-len(states) :], values[: -len(states)]
    fits = len(chosen) == len(states) and all(v.dims == state.dims for v, state in zip(chosen, states))
    rest = [v for v in rest if not any(np.array_equal(v.ids, s.ids) for s in chosen)]
    if fits and not said:
        # A value with the axes of a state is an output if it is made of the new state, and not the other way round.
        alike = [v for v in rest if any(v.dims == s.dims for s in chosen)]
        below = [graph.ancestors(v.ids) for v in alike]
        above = set().union(*(graph.ancestors(s.ids) for s in chosen))
        fits = all(any(not found.isdisjoint(s.ids.reshape(-1).tolist()) for s in chosen) for found in below)
        fits = fits and not any(not above.isdisjoint(v.ids.reshape(-1).tolist()) for v in alike)
        fits = fits and (bool(rest) or (alone and len(states) == 1))
    if not fits:
        raise ExportError(
            f"which of the values that {who} returns ({', '.join(map(str, values))}) are its new states ({len(states)}) is "
            "not certain: return them last, in the order in which they are taken, or say with outputs= which values are outputs"
        )
    return chosen


def _positions(lowered: Lowered) -> dict[int, int]:
    """For each node of a GRU or a state (by ``id``) where it starts in the network's state."""
    return {id(node): start for node, start in (*lowered.grus, *lowered.states)}


def _state_ids(lowered: Lowered, positions: dict[int, int]) -> Iterator[tuple[int, int]]:
    for node, start in (*lowered.grus, *lowered.states):
        for unit in range(node.width):
            argument = argument_of(node, unit)
            if argument >= 0:
                yield argument, start + unit


# ---- the model beside its network


@dataclass(frozen=True, eq=False)
class Traced:
    """A model, the network made from it, and how the arrays of the one correspond to those of the other."""

    network: Network
    places: list[Any]  # the model's arguments: axes of the inputs and of states, or anything else
    sources: list[Node | None]  # for each of them the node of the graph, of an input or a state; None for anything else
    outputs: dict[int, Tensor]  # by number among the returned values
    state_places: dict[int, int]  # id of a feature of an initial state -> its place in the network's state
    finals: dict[int, tuple[Tensor, Ids]]  # returned states: axes, and places in the network's state (-1: none)

    def call(self, arguments: list[Any], lengths: Array | None) -> list[Any]:
        """Run the model: an argument for each of ``places``, in float64 where it is numbers; and return its results."""
        raise NotImplementedError

    @property
    def takes_state(self) -> bool:
        """Whether the model takes initial states."""
        return bool(self.state_places)

    @property
    def main(self) -> Tensor:
        """The axes of the first input."""
        found: list[Tensor] = [t for t, node in zip(self.places, self.sources) if node and node.operation in INPUTS]
        return found[0]

    def input_note(self, place: Tensor, node: Node) -> str:
        """An input of the model in words."""
        named = "input" + f" {node.name!r}" * bool(node.name)
        return f"{named}: {place}" + ", which no output depends on: left out" * (node.name in self.unread())

    def unread(self) -> list[str]:
        """The names of inputs on which no output depends: the network does not have them."""
        inputs = [node for node in self.sources if node is not None and node.operation in INPUTS]
        return [node.name for node in inputs if node.name not in self.network.inputs]

    def run(self, x: Inputs, state: Array | None = None, lengths: Array | None = None) -> tuple[Array, Array]:
        """Run the model on what the network takes, and lay its results out as the network's.

        Parameters
        ----------
        x : array [B, T, I], or tokens [B, T], or dict of str to these
            As of ``reference.run``. An input that the network does not have is zeros.
        state : array [B, state_size], optional
            Used where the model takes a state; by default the network's initial one.
        lengths : int array [B], optional
            Where the model takes the sequences' lengths.

        Returns
        -------
        y : array [B, T, O] or [B, O]
        state : array [B, state_size]
            NaN where the model does not return it.
        """
        given = by_name(self.network, x)
        batch = len(next(iter(given.values())))
        state = np.tile(self.network.initial_state, (batch, 1)) if state is None else state
        factors = [f for dim in self.main.dims for f in dim]
        rows = self._batches(batch) if "B" in factors else [slice(i, i + 1) for i in range(batch)]
        runs = []
        for r in rows:
            some = cut(given, r)
            assert isinstance(some, Mapping)
            runs.append(self._run(some, state[r], None if lengths is None else lengths[r], "T" in factors))
        return np.concatenate([y for y, _ in runs]), np.concatenate([after for _, after in runs])

    def _batches(self, rows: int) -> list[slice]:
        """Which rows the model can run at once."""
        return [slice(0, rows)]

    def _run(self, x: Mapping[str, Array], state: Array, lengths: Array | None, sequences: bool) -> tuple[Array, Array]:
        steps = next(iter(x.values())).shape[1]
        if sequences:
            return self._call(x, state, lengths, steps)
        ys = []
        for t in range(steps):
            y, state = self._call({name: array[:, t] for name, array in x.items()}, state, None, 1)
            ys.append(y)
        return np.stack(ys, axis=1), state

    def _call(self, x: Mapping[str, Array], state: Array, lengths: Array | None, steps: int) -> tuple[Array, Array]:
        batch = len(state)
        sizes = {"B": batch, "T": steps, "R": steps}
        arguments = []
        for place, node in zip(self.places, self.sources):
            if node is None:
                arguments.append(place)
            elif node.operation == "state":
                features = [self.state_places.get(i) for i in place.ids.reshape(-1).tolist()]
                values = np.stack([np.zeros(batch) if f is None else state[:, f] for f in features], axis=1)
                arguments.append(place.pack(values, sizes))
            elif node.name not in x:  # no output depends on it
                kind = np.int64 if node.operation == "tokens" else np.float32
                arguments.append(np.zeros(place.shape(sizes), kind))
            else:
                part = x[node.name]
                part = part if node.operation == "tokens" else part[..., place.ids.reshape(-1) - node.first]
                arguments.append(place.pack(part, sizes))
        arrays = self.call(arguments, lengths)
        after = np.full((batch, self.network.state_size), np.nan)
        for i, (t, places) in self.finals.items():
            after[:, places[places >= 0]] = t.unpack(arrays[i], sizes)[:, places >= 0]
        y = np.concatenate([t.unpack(arrays[i], sizes) for i, t in self.outputs.items()], axis=-1)
        return y, after

    def compare(
        self, batch: int, steps: int, threshold: float, who: str, lengths: Array | None = None
    ) -> common.Comparison:
        """Compare the model with the network, executed by the reference, on random inputs and random initial states.

        Raises
        ------
        ExportError
            If they differ, or the model gives other results when it is called again.
        """
        steps += common.least_steps(self.network)
        x = common.random_inputs(self.network, batch, steps)
        state = None
        if self.takes_state:
            state = np.tile(self.network.initial_state, (batch, 1))
            places = list(self.state_places.values())
            state[:, places] = np.random.default_rng(1).uniform(-1, 1, (batch, len(places)))
        y, after = self.run(x, state, lengths)
        if not np.array_equal(y, self.run(x, state, lengths)[0]):
            raise ExportError(
                f"the {who} gives other outputs when it is called again: it is random, or keeps a state in the {who}; "
                "a state must be an argument and be returned, forward(x, h) -> (y, h)"
            )
        y_reference, after_reference = reference.run(self.network, x, state=state, lengths=lengths, return_state=True)
        if lengths is not None and not self.network.per_sequence:
            y = np.where(np.arange(steps)[:, np.newaxis] < lengths[:, np.newaxis, np.newaxis], y, 0)  # padding differs
        comparison = common.compare(f"{who} and float64 reference", y_reference, y, threshold)
        returned = ~np.isnan(after)
        sides = f"final state of the {who} and of the float64 reference"
        common.compare(sides, after_reference[returned], after[returned], threshold)
        return comparison
