# SPDX-License-Identifier: Apache-2.0
"""GRU cells that a model writes out in elementary operators, such as what converters make of ``nn.GRUCell``.

A value is a GRU's new state if, for every unit, it is the polynomial ``z h + (1 - z) n`` (or ``(1 - z) h + z n``) in an old state
h and the results z and n of activation functions, whose arguments are sums and products as a GRU has them. So it does not matter
how the formula is written: ``(h - n) z + n`` is the same polynomial. The graph's node of a GRU takes the value's place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gru_engine.activations import activation
from gru_engine.export.common import Array
from gru_engine.export.graph import Graph, Ids, Node, Tensor

Polynomial = dict[tuple[int, ...], float]
"""For each product of ids, in ascending order, its factor; () is the constant."""

_MOST_TERMS = 64


class _NoCell(Exception):
    """The value is something else."""


def cell(graph: Graph, t: Tensor, states: list[Tensor], name: str) -> Tensor | None:
    """The value as that of a GRU node, if it is the new state of one of the given states.

    Parameters
    ----------
    graph : Graph
        Gets the node.
    t : Tensor
        Any value.
    states : list of Tensor
        Initial states; those that were made with the option ``open`` can be computed with.
    name : str
        Of the node.
    """
    ids = t.ids.reshape(-1)
    fitting = [s for s in states if s.ids.size == ids.size]
    if not fitting or graph.nodes[int(graph.node_numbers(ids[:1])[0])].operation != "add":
        return None
    for state in fitting:
        try:
            found = _Cell(graph, ids, state.ids.reshape(-1))
        except _NoCell:
            continue
        node = graph.gru(found.inputs, found.arrays, found.options, found.state, name)
        return Tensor(t.dims, node.ids.reshape(t.ids.shape))
    return None


class _Cell:
    """The reading of a value as a GRU's new state: its weights."""

    def __init__(self, graph: Graph, ids: Ids, state: Ids):
        self.graph = graph
        self.places = {int(s): -1 for s in state}  # of each state id its unit
        self.memo: dict[int, Polynomial] = {}
        units = [self._unit(int(i)) for i in ids]
        for number, (h, _, _, _) in enumerate(units):
            if self.places[h] >= 0:
                raise _NoCell
            self.places[h] = number
        self.state = np.array([h for h, _, _, _ in units])
        H = len(units)
        if len({keep for _, _, _, keep in units}) != 1:
            raise _NoCell
        self.keep = units[0][3]
        self.columns: dict[int, int] = {}  # of each id that is read its column of W
        self.W: list[tuple[int, int, float]] = []  # row, column, value
        self.U = np.zeros((3 * H, H))
        self.b = np.zeros((2, 3 * H))
        gates, candidates = self._spec([z for _, _, z, _ in units]), self._spec([n for _, n, _, _ in units])
        self.resets = np.full(H, -1)  # the id of each unit's reset gate
        self.forms: set[str] = set()
        for row, (_, n, z, _) in enumerate(units):
            self._linear(self._argument(z), H + row)
            self._candidate(self._argument(n), 2 * H + row)
        if self.forms not in ({"after"}, {"before"}, {"all"}, {"none"}):
            raise _NoCell
        (reset,) = self.forms
        if reset == "none":
            rows = np.r_[H : 3 * H]
        else:
            known = self.resets[self.resets >= 0]
            if len(known) < H or self._spec(known.tolist()) != gates:
                raise _NoCell
            for row, r in enumerate(self.resets):
                self._linear(self._argument(int(r)), row)
            rows = np.r_[0 : 3 * H]
        W = np.zeros((3 * H, max(len(self.columns), 1)))
        for row, column, value in self.W:
            W[row, column] += value
        if not self.columns:
            raise _NoCell
        self.inputs = np.array(list(self.columns), np.int64)
        self.arrays: dict[str, Array] = {
            "W": W[rows],
            "U": self.U[rows],
            "b_x": self.b[0, rows],
            "b_h": self.b[1, rows],
        }
        for key, array in self.arrays.items():
            narrow = array.astype(np.float32)
            self.arrays[key] = narrow if (narrow == array).all() else array
        self.options: dict[str, Any] = {
            "gates": "rzn" if reset != "none" else "zn", "reset": reset, "keep": self.keep, "direction": "forward",
            "gate_activation": gates, "activation": candidates,
        }  # fmt: skip
        if self.keep == "new" and not activation(gates).complementary:
            raise _NoCell

    # ---- polynomials

    def _node(self, id: int) -> tuple[Node, int]:
        node = self.graph.nodes[int(self.graph.node_numbers(np.array([id]))[0])]
        return node, id - node.first

    def _polynomial(self, id: int) -> Polynomial:
        """An id in terms of what is no sum and no product."""
        if id not in self.memo:
            node, place = self._node(id)
            if node.operation == "affine":
                scale, shift = (float(node.arrays[key][place]) for key in ("scale", "shift"))
                inner = self._polynomial(int(node.inputs[0][place]))
                result = {m: scale * f for m, f in inner.items()}
                result[()] = result.get((), 0.0) + shift
            elif node.operation in ("add", "multiply"):
                a, b = (self._polynomial(int(ids[place])) for ids in node.inputs)
                result = dict(a)
                if node.operation == "add":
                    for m, f in b.items():
                        result[m] = result.get(m, 0.0) + f
                else:
                    result = {}
                    for m, f in a.items():
                        for k, g in b.items():
                            product = tuple(sorted((*m, *k)))
                            result[product] = result.get(product, 0.0) + f * g
            else:
                result = {(id,): 1.0}
            self.memo[id] = {m: f for m, f in result.items() if f}
            if len(self.memo[id]) > _MOST_TERMS:
                raise _NoCell
        return self.memo[id]

    def _is_activation(self, id: int) -> bool:
        return self._node(id)[0].operation == "activation"

    def _unit(self, id: int) -> tuple[int, int, int, str]:
        """State h, candidate n, update gate z and which of the states z keeps."""
        polynomial = self._polynomial(id)
        states = {i for m in polynomial for i in m if i in self.places}
        single = [m[0] for m in polynomial if len(m) == 1]
        if len(polynomial) != 3 or len(states) != 1 or len(single) != 1:
            raise _NoCell
        (h,), (alone,) = states, single
        others = {i for m in polynomial for i in m} - {h, alone}
        if alone == h:  # h - z h + z n
            for z, n in ((a, b) for a in others for b in others if a != b):
                wanted = {(h,): 1.0, tuple(sorted((h, z))): -1.0, tuple(sorted((n, z))): 1.0}
                if polynomial == wanted and self._is_activation(z) and self._is_activation(n):
                    return h, n, z, "new"
        elif len(others) == 1:  # n - z n + z h
            (z,) = others
            wanted = {(alone,): 1.0, tuple(sorted((alone, z))): -1.0, tuple(sorted((h, z))): 1.0}
            if polynomial == wanted and self._is_activation(z) and self._is_activation(alone):
                return h, alone, z, "old"
        raise _NoCell

    def _spec(self, ids: list[int]) -> Any:
        """The one activation function that makes all of these."""
        specs = {self._node(i)[0].options["activation"] for i in ids if self._is_activation(i)}
        if len(specs) != 1 or not activation(next(iter(specs))).elementwise:
            raise _NoCell
        return specs.pop()

    def _argument(self, id: int) -> Polynomial:
        node, place = self._node(id)
        return self._polynomial(int(node.inputs[0][place]))

    # ---- weights

    def _add(self, row: int, id: int, value: float) -> None:
        """``value`` times an id, in a row of W or of U."""
        if id in self.places:
            self.U[row, self.places[id]] += value
        else:
            self.W.append((row, self.columns.setdefault(id, len(self.columns)), value))

    def _atom(self, id: int, row: int, factor: float, only: str = "") -> None:
        """A factor times an id, in a row; ``only`` "h": nothing but the state may be in it, "x": everything else."""
        node, place = self._node(id)
        if node.operation != "dense":
            if only and (id in self.places) != (only == "h"):
                raise _NoCell
            self._add(row, id, factor)
            return
        columns = node.inputs[0].tolist()
        of_state = {c in self.places for c in columns}
        if only and of_state != {only == "h"}:
            raise _NoCell
        for column, weight in zip(columns, node.arrays["W"][place].tolist()):
            self._add(row, column, factor * weight)
        if "b" in node.arrays:
            self.b[int(of_state == {True}), row] += factor * float(node.arrays["b"][place])

    def _linear(self, polynomial: Polynomial, row: int) -> None:
        """The argument of a gate: a row of W and U."""
        for monomial, factor in polynomial.items():
            if len(monomial) > 1:
                raise _NoCell
            if monomial:
                self._atom(monomial[0], row, factor)
            else:
                self.b[0, row] += factor

    def _candidate(self, polynomial: Polynomial, row: int) -> None:
        """The argument of the candidate: a row of W and U, and where the reset gate acts."""
        H = len(self.resets)
        products = [m for m in polynomial if len(m) == 2]
        singles = [m[0] for m in polynomial if len(m) == 1]
        if not products:
            self._candidate_before(polynomial, row)
            return
        gates = set.intersection(*({i for i in m if self._is_activation(i)} for m in products))
        gates = {g for g in gates if g not in self.places}
        if len(gates) != 1 or any(len(m) > 2 for m in polynomial):
            raise _NoCell
        (r,) = gates
        self.resets[row - 2 * H] = r
        plain = [i for i in singles if i != r]
        read = [m[0] if m[1] == r else m[1] for m in products]
        everything = not plain and () not in polynomial and any(self._reads_inputs(i) for i in read)
        self.forms.add("all" if everything else "after")
        for monomial, factor in polynomial.items():
            others = [i for i in monomial if i != r] if r in monomial else list(monomial)
            if not others:
                self.b[int(r in monomial), row] += factor
            else:
                self._atom(others[0], row, factor, "" if everything else "h" if r in monomial else "x")

    def _reads_inputs(self, id: int) -> bool:
        node, _ = self._node(id)
        read = node.inputs[0].tolist() if node.operation == "dense" else [id]
        return any(i not in self.places for i in read)

    def _candidate_before(self, polynomial: Polynomial, row: int) -> None:
        """Reset before the product, W x + U (r h), or none."""
        gated = False
        for monomial, factor in polynomial.items():
            if not monomial:
                self.b[0, row] += factor
                continue
            node, place = self._node(monomial[0])
            if node.operation != "dense":
                self._atom(monomial[0], row, factor)
                continue
            for column, weight in zip(node.inputs[0].tolist(), node.arrays["W"][place].tolist()):
                gate = self._gated(column)
                if gate is None:
                    self._add(row, column, factor * weight)
                    continue
                h, r = gate
                gated = True
                unit = self.places[h]
                if self.resets[unit] not in (-1, r):
                    raise _NoCell
                self.resets[unit] = r
                self.U[row, unit] += factor * weight
            if "b" in node.arrays:
                self.b[0, row] += factor * float(node.arrays["b"][place])
        plain = any(c in self.places for m in polynomial if m for c in self._columns(m[0]))
        if gated and plain:
            raise _NoCell
        self.forms.add("before" if gated else "none")

    def _columns(self, id: int) -> list[int]:
        node, _ = self._node(id)
        return node.inputs[0].tolist() if node.operation == "dense" else [id]

    def _gated(self, id: int) -> tuple[int, int] | None:
        """If an id is r h: the state and the gate."""
        if self._node(id)[0].operation != "multiply":
            return None
        polynomial = self._polynomial(id)
        (monomial, factor), *more = polynomial.items() or [((), 0.0)]
        if more or factor != 1 or len(monomial) != 2:
            return None
        for h, r in (monomial, monomial[::-1]):
            if h in self.places and r not in self.places and self._is_activation(r):
                return h, r
        return None
