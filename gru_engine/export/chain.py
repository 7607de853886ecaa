# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's arrays as a chain of layers: the ``--layers`` language, and what can be inferred without it.

A checkpoint says which arrays there are, not what is done with them. A chain is written as words from the input to the output::

    embedding(emb) gru(gru) summary linear(fc1) relu linear(fc2) log_softmax

==========================  ==============================================================================================
``embedding(P)``            tokens looked up in ``P.weight`` [V, E]; first word only; ``embedding(E=NAME)`` any other table
``one_hot``                 tokens as one-hot vectors, read by the next layer; first word only
``gru(P)``                  all layers and directions of the recurrent module P; ``gru(P, h0=NAME)`` with a learned initial state
                            [layers * directions, (1,) H]
``bidirectional(P, Q)``     the GRU P beside the GRU Q from the end of the sequence to its start: their concatenation
``skip_connections(P, Q)``  GRUs, each of which reads the input and the one before it; the value is all of theirs
``linear(P)``               ``P.weight`` [O, I], ``P.bias`` if there is one; ``linear(W=NAME, b=NAME)`` any other arrays
``batchnorm(P)``            a batch normalisation over the features; ``batchnorm(P, eps=1e-3)``
``prelu(P)``                slopes ``P.weight`` below zero, one or one for each feature
``relu``, ``tanh`` ...      an activation (gru_engine.activations), with parameters as in ``leaky_relu(0.2)``
``flip``                    from here on the sequence from its end to its start; a second one turns it round again
``last``                    from here on only the value at the end of the sequence, as ``out[:, -1]``
``summary``                 straight behind a GRU: the state of its last layer at the end of the sequence, of a bidirectional one
                            followed by the state of the reverse direction at the start: ``cat([h_n[-2], h_n[-1]])``
``add_input``               the input of the network is added; ``add_input(1)`` its first number only
==========================  ==============================================================================================

Without ``last`` and ``summary`` there is an output for every time step. P may be empty for a module saved by itself: ``gru()``.

The cells of ``gru_engine.cells`` have words of their own, with the names of these functions and the same arguments:
``gate_memory_gru(P)``, ``input_forget_gru(P)``, ``layer_norm_gru(P, zoneout=0.1)``, ``layer_norm_sum_gru(P)``, ``min_gru(P)``,
``norm_input_gru(P)``, ``zoneout_gru(P, zoneout=0.1)``, ``li_gru(P, recurrent_norm=1e-5)``, ``dreamer_v3_gru(P)``,
``au_gru(P, attention=-1, scales=old)``, ``a_gru(P, attention=-1)`` (``gru_engine.export.variants``).

Whose names a module has is seen (``gru_engine.export.layouts``); so is a hand-written cell with arrays such as ``W_r``, ``U_z``
(``gru_engine.export.cells``). Any other GRU is written out: ``gru(W=NAME, U=NAME, b_x=NAME, b_h=NAME)``, or gate by gate
``gru(W_r=NAME, U_r=NAME, b_r=NAME, W_z=NAME, ...)``. Conventions that a framework leaves to its user are options of ``gru``:

===========================================  =============================================================================
``gates=zrn``                                the order of the gates
``reset=after``, ``before``, ``all``, ``none``  where the reset gate acts (``Network.gru``)
``keep=old``, ``new``                        h' = z h + (1-z) n, or h' = (1-z) h + z n
``orientation=rows``, ``columns``            where the gates' outputs stand: W x, or x W
``concatenated=xh``, ``hx``                  W holds U too and acts on input and state side by side, in this order
``reset_gate=z``                             of a hand-written cell: the update gate stands in for the reset gate
``activation=relu``, ``gate_activation=hard_sigmoid:0.2:0.5``, ``clip=3``
===========================================  =============================================================================

Whatever is no chain (skips, several heads) needs the module itself: ``gru_engine.export.torch.from_module``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gru_engine.export import layouts, memoryless, operations
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import Dim, Graph, Ids, Node, Tensor, cat
from gru_engine.export.layouts import Cell, Layers
from gru_engine.export.lowering import lower
from gru_engine.export.words import ACTIVATIONS, VARIANTS, Arrays, Source, Word, parse
from gru_engine.network import Network

__all__ = ["Arrays", "Built", "Source", "Word", "build", "infer", "parse"]

_MOST_CHAINS = 8  # that an error message lists
_MOST_MODULES = 9  # among which an order is looked for


# ---- a chain as a network


@dataclass(frozen=True)
class Built:
    """A network made from a chain."""

    network: Network
    lines: list[str]  # what was understood, for people
    unused: list[str]  # arrays that the chain does not use


def build(words: list[Word], arrays: Arrays) -> Built:
    """Make the network of a chain.

    Raises
    ------
    ExportError
        If an array is missing or does not fit its word or the layer before.
    """
    return _Builder(words, Source(arrays)).run()


class _Builder:
    def __init__(self, words: list[Word], source: Source):
        self.words = words
        self.source = source
        self.graph = Graph()
        self.input: Tensor | None = None  # what the first word reads
        self.scores: dict[int, Tensor] = {}  # columns of the network's input that only attentional cells read
        self.value: Tensor | None = None  # [batch, time, features], or [batch, features] behind the sequence's end
        self.ends: list[Node] = []  # of the GRU just built: its last layer's directions
        self.lines: list[str] = []

    def run(self) -> Built:
        for number, word in enumerate(self.words):
            if word.name in ("embedding", "one_hot") and number:
                raise ExportError(f"--layers: {word} must be the first word")
            if self.value is not None and self.value.rank == 2 and word.name in _OF_STEPS:
                raise ExportError(
                    f"--layers: {word} needs a value for every time step, but there is one per sequence by then"
                )
            self.graph.name = word.prefix.rstrip(".")
            ends, self.ends = self.ends, []
            if word.name == "summary":
                self._summary(ends)
            elif word.name in ACTIVATIONS:
                self._activation(word)
            elif word.name in VARIANTS:
                self.gru(word)
            else:
                getattr(self, word.name)(word)
        value = self._previous(self.words[-1], None)
        if _flipped(value):
            raise ExportError("--layers: the outputs are in reversed order of time; end with flip, last or summary")
        when = "once, at the end of the sequence" if value.rank == 2 else "at every time step"
        self.lines.append(f"output: {value.ids.size} numbers {when}")
        return Built(lower(self.graph, [(None, value.ids)]).network, self.lines, self.source.unused())

    def _tokens(self) -> Tensor:
        return self.graph.source("tokens", [("B",), ("T",)])

    def _previous(self, word: Word, width: int | None) -> Tensor:
        """What a word reads; the input if it is the first."""
        if self.value is None:
            if width is None:
                raise ExportError(f"--layers: {word} cannot be the first word: the size of the input is not known")
            if self.words[0].name == "one_hot":
                self.value = self.graph.one_hot(self._tokens(), width)
                self.lines.append(f"one_hot: tokens of a vocabulary of {width}")
            else:
                self.input = self.value = self._source(word, width)
            if self.flips % 2:
                self.value = self.graph.flip(self.value, 1)
        if width is not None and self.value.ids.size != width:
            raise ExportError(f"{word} reads {width} numbers, but the value before it has {self.value.ids.size}")
        return self.value

    def _source(self, word: Word, width: int) -> Tensor:
        """What the first word reads of the input; scores of attention are columns beside that."""
        given = {int(word.option("attention") or 0) for word in self.words if word.option("attention") is not None}
        total = width + len(given)
        columns = {column: column % total for column in given if -total <= column < total}
        if len(set(columns.values())) < len(given):
            raise ExportError(
                f"--layers: attention={','.join(map(str, sorted(given)))} must be different columns of an input of {total} "
                f"numbers, {width} for {word} and {len(given)} of scores"
            )
        whole = self.graph.source("input", [("B",), ("T",), (total,)])
        self.scores = {column: whole.take(2, slice(at, at + 1)) for column, at in columns.items()}
        scores = f", beside {len(given)} of attention: column {', '.join(map(str, columns.values()))}" if given else ""
        self.lines.append(f"input: {width}{scores}")
        return whole.take(2, [i for i in range(total) if i not in columns.values()]) if given else whole

    @property
    def flips(self) -> int:
        """How often the sequence was turned round before its width was known."""
        first = next((i for i, word in enumerate(self.words) if word.name not in ("flip", "one_hot")), 0)
        return sum(word.name == "flip" for word in self.words[:first])

    def one_hot(self, word: Word) -> None:
        following = next((w.name for w in self.words[1:] if w.name != "flip"), "")
        if following not in (*VARIANTS, "gru", "bidirectional", "skip_connections", "linear"):
            raise ExportError("--layers: one_hot must be followed by gru or linear")

    def embedding(self, word: Word) -> None:
        table = memoryless.read_embedding(word, word.prefix, self.source)
        self.value = self.graph.embedding(self._tokens(), table)
        self.lines.append(f"{word}: tokens of a vocabulary of {table.shape[0]} -> {table.shape[1]}")

    def linear(self, word: Word) -> None:
        W, b = memoryless.read_linear(word, word.prefix, self.source)
        value = self._previous(word, W.shape[1])
        if b is not None and len(b) != len(W):
            raise ExportError(f"{word}: a bias of {len(b)} numbers for {len(W)} outputs")
        self.value = self.graph.dense(value, W, b)
        self.lines.append(f"{word}: {W.shape[1]} -> {W.shape[0]}{'' if b is not None else ', no bias'}")

    def batchnorm(self, word: Word) -> None:
        scale, shift = memoryless.read_batchnorm(word, word.prefix, self.source)
        self.value = self.graph.affine(self._previous(word, scale.size), scale, shift)
        self.lines.append(f"{word}: {scale.size}")

    def prelu(self, word: Word) -> None:
        slopes = memoryless.read_prelu(word, word.prefix, self.source)
        value = self._previous(word, slopes.size if slopes.size > 1 else None)
        self.value = operations.prelu(operations.Context(self.graph, {}), value, slopes)
        self.lines.append(str(word))

    def _activation(self, word: Word) -> None:
        value = self._previous(word, None)
        if word.name in ("softmax", "log_softmax"):
            self.value = self.graph.softmax(value, value.rank - 1, word.name == "log_softmax")
        else:
            self.value = self.graph.activation(value, word.activation)
        self.lines.append(str(word))

    def add_input(self, word: Word) -> None:
        value = self._previous(word, None)
        if self.input is None or value.rank == 2 or _flipped(value) != _flipped(self.input):
            raise ExportError(
                f"--layers: {word} needs vectors as input, and a value for every time step in their order"
            )
        first = int(word.arguments[0]) if word.arguments and word.arguments[0].isdigit() else self.input.ids.size
        if (
            first != value.ids.size
            or first > self.input.ids.size
            or (word.arguments and not word.arguments[0].isdigit())
        ):
            raise ExportError(
                f"{word}: {first} of {self.input.ids.size} inputs cannot be added to a value of {value.ids.size} numbers"
            )
        self.value = self.graph.add(value, self.input.take(2, slice(0, first)))
        self.lines.append(f"{word}: input[:{first}] is added")

    def flip(self, word: Word) -> None:
        if self.value is not None:
            self.value = self.graph.flip(self.value, 1)
        self.lines.append("flip: from here on the sequence from its end to its start, or back")

    def last(self, word: Word) -> None:
        value = self._previous(word, None)
        self.value = self.graph.end(value, 1, -1, 0)
        self.lines.append("last: the value at the end of the sequence")

    # ---- recurrent layers

    def gru(self, word: Word) -> None:
        layers = layouts.read_gru(word, word.prefix, self.source)
        value = self._previous(word, layers[0][0].inputs)
        width, features = value.ids.size, value.ids.reshape(-1)
        h0 = self._initial(word, layers)
        for number, directions in enumerate(layers):
            self.ends = []
            if directions[0].inputs != features.size:
                raise ExportError(
                    f"{word}: layer {number} reads {directions[0].inputs} numbers, but gets {features.size}"
                )
            for direction, cell in enumerate(directions):
                initial = None if h0 is None else h0[number, direction]
                suffix = f".l{number}" * (len(layers) > 1) + "_reverse" * direction
                name = (word.prefix.rstrip(".") + suffix).lstrip(".")
                self.ends.append(self._cell(word, cell, features, direction == 1, name, initial))
            features = np.concatenate([node.ids for node in self.ends])
        self.value = Tensor.of((*value.dims[:2], (features.size,)), features)
        if layers[0][0].function != "gru" and layers[0][0].options.get("gates", "").count("o"):
            self.ends = []  # with an output gate the state is no value of the network
        layers_text = f", {len(layers)} layers" * (len(layers) > 1)
        directions_text = ", bidirectional" * (len(self.ends) > 1)
        learned = f", initial state {word.option('h0')}" * (h0 is not None)
        self.lines.append(f"{word}: {width} -> {features.size}{layers_text}{directions_text}{learned}")

    def _cell(self, word: Word, cell: Cell, features: Ids, reverse: bool, name: str, h0: Array | None = None) -> Node:
        """One direction of one layer, in the order of time that the value before it has."""
        arrays = cell.arrays if h0 is None else {**cell.arrays, "h0": h0}
        flipped = self.value is not None and _flipped(self.value)
        if cell.function != "gru":
            if flipped or reverse:
                raise ExportError(f"{word}: only a GRU can run from the end of the sequence to its start")
            options, inputs = dict(cell.options), [features]
            if "attention" in options:
                score = self.scores.get(options.pop("attention"))
                if score is None:
                    raise ExportError(
                        f"{word}: the score of attention is a column of the input, but the input is tokens; export what is "
                        "behind the embedding by itself, or build the network in Python with gru_engine.cells"
                    )
                inputs.append(score.ids.reshape(-1))
            return self.graph.cell(inputs, cell.function, arrays, options, cell.hidden, name)
        options = {**cell.options, "direction": "reverse" if reverse != flipped else "forward"}
        return self.graph.gru(features, arrays, options, None, name)

    def _initial(self, word: Word, layers: Layers) -> Array | None:
        """The initial states [layers, directions, H]."""
        name = word.option("h0")
        if name is None:
            return None
        count, hidden = sum(map(len, layers)), layers[0][0].hidden
        h0 = self.source.arrays.get(name)
        if h0 is None or h0.size != count * hidden or h0.shape[-1] != hidden:
            given = "no such array" if h0 is None else f"the shape {list(h0.shape)}"
            raise ExportError(f"{word}: h0 must be an array of shape [{count}, 1, {hidden}], there is {given}")
        self.source.used.add(name)
        return h0.reshape(len(layers), len(layers[0]), hidden)

    def _stack(self, word: Word, name: str) -> list[Cell]:
        """The layers of a module that stands beside others."""
        layers = layouts.read_gru(Word("gru", (name,), word.options), f"{name}.", self.source)
        if any(len(directions) > 1 for directions in layers):
            raise ExportError(f"{word}: {name} has two directions of its own")
        return [directions[0] for directions in layers]

    def bidirectional(self, word: Word) -> None:
        stacks = [self._stack(word, name) for name in word.arguments]
        value = self._previous(word, stacks[0][0].inputs)
        self._previous(word, stacks[1][0].inputs)
        for direction, (stack, name) in enumerate(zip(stacks, word.arguments)):
            ids = value.ids.reshape(-1)
            for number, cell in enumerate(stack):
                if cell.inputs != ids.size:
                    raise ExportError(
                        f"{word}: layer {number} of {name} reads {cell.inputs} numbers, but gets {ids.size}"
                    )
                node = self._cell(word, cell, ids, direction == 1, name + f".l{number}" * (len(stack) > 1))
                ids = node.ids
            self.ends.append(node)
        ids = np.concatenate([node.ids for node in self.ends])
        self.value = Tensor.of((*value.dims[:2], (ids.size,)), ids)
        self.lines.append(f"{word}: {value.ids.size} -> {ids.size}")

    def skip_connections(self, word: Word) -> None:
        outputs: list[Tensor] = []
        cells = [(name, cell) for name in word.arguments for cell in self._stack(word, name)]
        value = self._previous(word, cells[0][1].inputs)
        for name, cell in cells:
            reads = cat([value, *outputs[-1:]], 2)
            if cell.inputs != reads.ids.size:
                raise ExportError(f"{word}: {name} reads {cell.inputs} numbers, but gets {reads.ids.size}")
            node = self._cell(word, cell, reads.ids.reshape(-1), False, name)
            outputs.append(Tensor.of((*value.dims[:2], (node.width,)), node.ids))
        self.value = cat(outputs, 2)
        self.lines.append(f"{word}: {value.ids.size} -> {self.value.ids.size}")

    def _summary(self, ends: list[Node]) -> None:
        if not ends:
            raise ExportError("--layers: summary must follow a gru (behind an output gate take last)")
        edges = ["first" if node.options.get("direction") == "reverse" else "last" for node in ends]
        ids = np.concatenate([self.graph.ends(node.ids, edge) for node, edge in zip(ends, edges)])
        self.value = Tensor.of((("B",), (ids.size,)), ids)
        reverse = ", then of its reverse direction at the start" * (len(ends) > 1)
        self.lines.append(f"summary: the state of the last layer at the end of the sequence{reverse}")


_OF_STEPS = (*VARIANTS, "gru", "bidirectional", "skip_connections", "last", "summary", "flip")


def _flipped(value: Tensor) -> bool:
    """Whether the time runs backwards."""
    dims: tuple[Dim, ...] = value.dims
    return ("R",) in dims


# ---- inferring a chain


@dataclass(frozen=True)
class _Module:
    word: Word
    inputs: int  # width that it reads; 0 for tokens
    outputs: int


Said = dict[str, Word]
"""For each module's name its word."""


def infer(arrays: Arrays, said: Said | None = None) -> list[Word]:
    """The chain that the names and shapes of a checkpoint leave no choice about.

    Only ``[embedding] gru ... gru [linear]`` is inferred, with an output for every time step and nothing between the layers:
    an activation leaves no trace in a checkpoint.

    Parameters
    ----------
    arrays : dict
    said : dict, optional
        What is known about hand-written cells.

    Raises
    ------
    ExportError
        If there is a choice; the message lists the chains in the ``--layers`` language.
    """
    modules = list(_modules(arrays, said or {}))
    if not modules:
        raise ExportError("there are no arrays to make a network of")
    if len(modules) > _MOST_MODULES:
        raise ExportError(
            f"the checkpoint has {len(modules)} modules, too many to find their order; write it out with --layers"
        )
    chains = list(_first(_MOST_CHAINS + 1, _chains([], modules)))
    if not chains:
        listed = ", ".join(
            " or ".join(f"{m.word} ({m.inputs or 'tokens'} -> {m.outputs})" for m in kinds) for kinds in modules
        )
        raise ExportError(
            f"the modules do not fit into one chain: {listed}; choose with --layers, or export the module itself"
        )
    if len(chains) > 1:
        listed = "\n".join(f'  --layers "{_text(chain)}"' for chain in chains[:_MOST_CHAINS])
        more = "\n  ..." * (len(chains) > _MOST_CHAINS)
        raise ExportError(
            f"the modules fit into more than one chain; say which it is, with its activations:\n{listed}{more}"
        )
    words = [module.word for module in chains[0]]
    silent = [word for word in words[:-1] if word.name in ("linear", "batchnorm")]
    if silent or (words[-1].name == "batchnorm"):
        candidates = [_text(chains[0], silent, a) for a in ("relu", "tanh", "")]
        listed = "\n".join(f'  --layers "{text}"' for text in candidates)
        raise ExportError(
            f"a checkpoint does not say what is done between its layers; whether there is an activation after "
            f"{', '.join(map(str, silent or words[-1:]))} must be said, for instance:\n{listed}"
        )
    return words


def _first(count: int, items: Iterable[Any]) -> Iterator[Any]:
    for _, item in zip(range(count), items):
        yield item


def _text(chain: list[_Module], before: list[Word] | None = None, activation: str = "") -> str:
    parts = []
    for module in chain:
        parts.append(str(module.word))
        parts += [activation] * bool(activation and module.word in (before or []))
    return " ".join(parts)


def _modules(arrays: Arrays, said: Said) -> Iterator[list[_Module]]:
    """For each module of a checkpoint what it can be."""
    claimed: set[str] = set()
    found: list[tuple[int, list[_Module]]] = []
    names = list(arrays)
    for prefix in sorted(layouts.recurrent_prefixes(names), key=len):
        if any(name.startswith(prefix) for name in claimed if prefix):
            continue  # a cell of a stack that was read as a whole
        path = prefix.rstrip(".")
        known = said.get(path, Word("gru"))
        word = Word(known.name, (path,) if path else (), known.options)
        source = Source(arrays)
        layers = layouts.read_gru(word, prefix, source)
        claimed |= source.used
        outputs = sum(cell.hidden for cell in layers[-1])
        found.append((min(map(names.index, source.used)), [_Module(word, layers[0][0].inputs, outputs)]))

    groups: dict[str, Arrays] = {}
    for name, array in arrays.items():
        if name not in claimed:
            path, _, suffix = name.rpartition(".")
            groups.setdefault(path, {})[suffix] = array
    for path, group in groups.items():
        found.append((names.index(f"{path}.{next(iter(group))}".lstrip(".")), _plain_modules(path, group)))
    yield from (kinds for _, kinds in sorted(found, key=lambda item: item[0]))


def _plain_modules(path: str, group: Arrays) -> list[_Module]:
    """What the arrays below one name can be, none of them recurrent."""
    arguments = (path,) if path else ()
    prefix = f"{path}." if path else ""
    own = {prefix + suffix: array for suffix, array in group.items()}
    kinds = []
    for name in memoryless.without_memory(group):
        word, source = Word(name, arguments), Source(own)
        if name == "linear":
            W, _ = memoryless.read_linear(word, prefix, source)
            kinds.append(_Module(word, W.shape[1], W.shape[0]))
        elif name == "embedding":
            kinds.append(_Module(word, 0, memoryless.read_embedding(word, prefix, source).shape[1]))
        else:
            size = memoryless.read_batchnorm(word, prefix, source)[0].size
            kinds.append(_Module(word, size, size))
    if not kinds:
        raise ExportError(
            f"not understood: {memoryless.shapes(own)}; write out the chain with --layers, or export the module itself"
        )
    return kinds


def _chains(chain: list[_Module], left: list[list[_Module]]) -> Iterator[list[_Module]]:
    """All orders of all modules in which each reads what the one before gives."""
    if not left:
        yield chain
    for i, kinds in enumerate(left):
        for module in kinds:
            if (module.inputs == chain[-1].outputs) if chain else True:
                yield from _chains([*chain, module], left[:i] + left[i + 1 :])
