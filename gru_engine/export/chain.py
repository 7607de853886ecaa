# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's arrays as a chain of layers: the ``--layers`` language, and what can be inferred without it.

A checkpoint says which arrays there are, not what is done with them. A chain is written as words from the input to the output::

    embedding(emb) gru(gru) summary linear(fc1) relu linear(fc2) log_softmax

==========================  ==============================================================================================
``embedding(P)``            tokens looked up in ``P.weight`` [V, E]; first word only
``one_hot``                 tokens as one-hot vectors, read by the next layer; first word only
``gru(P)``                  all layers and directions of an ``nn.GRU`` named P, or an ``nn.GRUCell``; ``gru(P, h0=NAME)`` with
                            a learned initial state [layers * directions, (1,) H]
``linear(P)``               ``P.weight`` [O, I], ``P.bias`` if there is one
``batchnorm(P)``            an ``nn.BatchNorm1d`` over the features; ``batchnorm(P, eps=1e-3)``
``relu``, ``tanh`` ...      an activation (gru_engine.activations), with parameters as in ``leaky_relu(0.2)``
``last``                    from here on only the value at the end of the sequence, as ``out[:, -1]``
``summary``                 straight behind a GRU: the state of its last layer at the end of the sequence, of a bidirectional one
                            followed by the state of the reverse direction at the start: ``cat([h_n[-2], h_n[-1]])``
==========================  ==============================================================================================

Without ``last`` and ``summary`` there is an output for every time step. P may be empty for a module saved by itself: ``gru()``.
Whatever is no chain (skips, several heads) needs the module itself: ``gru_engine.export.torch.from_module``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gru_engine import activations
from gru_engine.export.common import Array, ExportError, gru_arrays
from gru_engine.export.graph import Graph, Node, Tensor
from gru_engine.export.lowering import lower
from gru_engine.network import Network

Arrays = dict[str, Array]

_OPTIONS = {"gru": {"h0"}, "batchnorm": {"eps"}}
_MODULES = ("embedding", "gru", "linear", "batchnorm")
_PLAIN = ("one_hot", "last", "summary")
_ACTIVATIONS = tuple(name for name in activations.NAMES.values() if name != "linear")
_MOST_CHAINS = 8  # that an error message lists
_MOST_MODULES = 9  # among which an order is looked for


# ---- the language


@dataclass(frozen=True)
class Word:
    """One word of a chain."""

    name: str
    arguments: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        inner = [*self.arguments, *(f"{key}={value}" for key, value in self.options)]
        return f"{self.name}({', '.join(inner)})" if inner or self.name in _MODULES else self.name

    @property
    def prefix(self) -> str:
        """What the names of the module's arrays begin with."""
        path = self.arguments[0] if self.arguments else ""
        return f"{path}." if path else ""

    def option(self, key: str) -> str | None:
        """The value given for a key."""
        return dict(self.options).get(key)

    @property
    def activation(self) -> activations.Activation:
        """The activation function that the word stands for."""
        try:
            parameters = [float(a) for a in self.arguments]
        except ValueError:
            raise ExportError(f"--layers: the parameters of {self} must be numbers") from None
        try:
            return activations.activation((self.name, *parameters), "--layers: the activation")
        except ValueError as error:
            raise ExportError(str(error)) from None


def parse(text: str) -> list[Word]:
    """The words of a chain.

    Raises
    ------
    ExportError
        Naming the word that is not understood, and what is known.
    """
    words, position = [], 0
    pattern = re.compile(r"\s*([A-Za-z_]\w*)(?:\(([^()]*)\))?(?=\s|$)")
    while text[position:].strip():
        match = pattern.match(text, position)
        if match is None:
            raise ExportError(
                f"--layers: cannot read {text[position:].strip()!r}; expected words as gru(name), tanh or last"
            )
        name, inner = match[1], match[2] or ""
        parts = [part.strip() for part in inner.split(",") if part.strip()]
        options = tuple((key.strip(), value.strip()) for key, _, value in (p.partition("=") for p in parts if "=" in p))
        word = Word(name, tuple(p for p in parts if "=" not in p), options)
        _check_word(word)
        words.append(word)
        position = match.end()
    if not words:
        raise ExportError("--layers is empty")
    return words


def _check_word(word: Word) -> None:
    known = (*_MODULES, *_PLAIN, *_ACTIVATIONS)
    if word.name not in known:
        raise ExportError(f"--layers: {word.name!r} is not known; known are {', '.join(known)}")
    unknown = {key for key, _ in word.options} - _OPTIONS.get(word.name, set())
    if unknown:
        raise ExportError(f"--layers: {word.name} has no option {min(unknown)!r}")
    if word.name in _ACTIVATIONS:
        word.activation  # noqa: B018  raises for wrong parameters
    elif len(word.arguments) > (word.name in _MODULES):
        raise ExportError(f"--layers: {word} has too many arguments")


# ---- the arrays of one module


class Source:
    """The arrays of a checkpoint; remembers which were used."""

    def __init__(self, arrays: Arrays):
        self._arrays = arrays
        self.used: set[str] = set()

    def get(self, name: str, word: Word, ndim: int) -> Array:
        """An array that must be there."""
        array = self.find(name, word, ndim)
        if array is None:
            raise ExportError(f"{word}: the checkpoint has no array {name!r}; it has {', '.join(self._arrays)}")
        return array

    def find(self, name: str, word: Word, ndim: int) -> Array | None:
        """An array that may be there."""
        array = self._arrays.get(name)
        if array is None:
            return None
        if array.ndim != ndim or array.dtype.kind != "f":
            given = f"the shape {list(array.shape)} and type {array.dtype}"
            raise ExportError(f"{word}: {name!r} has {given}, expected {ndim} axes of floats")
        self.used.add(name)
        return array

    def unused(self) -> list[str]:
        """Names of the arrays that no word has asked for."""
        return [name for name in self._arrays if name not in self.used and not name.endswith("num_batches_tracked")]


@dataclass(frozen=True)
class Gru:
    """The arrays of an ``nn.GRU``: for each layer those of each direction, and the initial states [layers, directions, H]."""

    layers: list[list[dict[str, Array]]]
    h0: Array | None

    @classmethod
    def read(cls, word: Word, source: Source) -> Gru:
        """The arrays named ``P.weight_ih_l0`` and so on, or ``P.weight_ih`` of a cell."""
        layers: list[list[dict[str, Array]]] = []
        names = source._arrays
        if word.prefix + "weight_ih" in names:
            layers.append([cls._direction(word, source, "")])
        while word.prefix + f"weight_ih_l{len(layers)}" in names:
            suffixes = [f"_l{len(layers)}", f"_l{len(layers)}_reverse"]
            layers.append([cls._direction(word, source, s) for s in suffixes if word.prefix + "weight_ih" + s in names])
        if not layers:
            source.get(word.prefix + "weight_ih_l0", word, 2)
        name = word.option("h0")
        if name is None:
            return cls(layers, None)
        count, hidden = sum(map(len, layers)), layers[0][0]["U"].shape[1]
        h0 = source._arrays.get(name)
        if h0 is None or h0.size != count * hidden or h0.shape[-1] != hidden:
            given = "no such array" if h0 is None else f"the shape {list(h0.shape)}"
            raise ExportError(f"{word}: h0 must be an array of shape [{count}, 1, {hidden}], there is {given}")
        source.used.add(name)
        return cls(layers, h0.reshape(len(layers), len(layers[0]), hidden))

    @staticmethod
    def _direction(word: Word, source: Source, suffix: str) -> dict[str, Array]:
        W, U = (source.get(word.prefix + name + suffix, word, 2) for name in ("weight_ih", "weight_hh"))
        if U.shape[0] != 3 * U.shape[1]:
            kind = {4: "; this is an LSTM", 1: "; this is a plain RNN"}.get(U.shape[0] // U.shape[1], "")
            raise ExportError(f"{word}: weight_hh has the shape {list(U.shape)}, expected [3*H, H]{kind}")
        biases = [source.find(word.prefix + name + suffix, word, 1) for name in ("bias_ih", "bias_hh")]
        return gru_arrays(W, U, *biases)


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
        self.value: Tensor | None = None  # [batch, time, features], or [batch, features] behind the sequence's end
        self.ends: list[Node] = []  # of the GRU just built: its last layer's directions
        self.lines: list[str] = []

    def run(self) -> Built:
        for number, word in enumerate(self.words):
            if word.name in ("embedding", "one_hot") and number:
                raise ExportError(f"--layers: {word} must be the first word")
            if self.value is not None and self.value.rank == 2 and word.name in ("gru", "last", "summary"):
                raise ExportError(
                    f"--layers: {word} needs a value for every time step, but there is one per sequence by then"
                )
            self.graph.name = word.prefix.rstrip(".")
            ends, self.ends = self.ends, []
            if word.name == "summary":
                self._summary(ends)
            elif word.name in _ACTIVATIONS:
                self._activation(word)
            else:
                getattr(self, word.name)(word)
        value = self._previous(self.words[-1], None)
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
                self.value = self.graph.source("input", [("B",), ("T",), (width,)])
                self.lines.append(f"input: {width}")
        if width is not None and self.value.ids.size != width:
            raise ExportError(f"{word} reads {width} numbers, but the value before it has {self.value.ids.size}")
        return self.value

    def one_hot(self, word: Word) -> None:
        if len(self.words) == 1 or self.words[1].name not in ("gru", "linear"):
            raise ExportError("--layers: one_hot must be followed by gru or linear")

    def embedding(self, word: Word) -> None:
        table = self.source.get(word.prefix + "weight", word, 2)
        self.value = self.graph.embedding(self._tokens(), table)
        self.lines.append(f"{word}: tokens of a vocabulary of {table.shape[0]} -> {table.shape[1]}")

    def linear(self, word: Word) -> None:
        W = self.source.get(word.prefix + "weight", word, 2)
        b = self.source.find(word.prefix + "bias", word, 1)
        self.value = self.graph.dense(self._previous(word, W.shape[1]), W, b)
        self.lines.append(f"{word}: {W.shape[1]} -> {W.shape[0]}{'' if b is not None else ', no bias'}")

    def batchnorm(self, word: Word) -> None:
        scale, shift = batchnorm_affine(word, self.source)
        self.value = self.graph.affine(self._previous(word, scale.size), scale, shift)
        self.lines.append(f"{word}: {scale.size}")

    def _activation(self, word: Word) -> None:
        value = self._previous(word, None)
        if word.name in ("softmax", "log_softmax"):
            self.value = self.graph.softmax(value, value.rank - 1, word.name == "log_softmax")
        else:
            self.value = self.graph.activation(value, word.activation)
        self.lines.append(str(word))

    def last(self, word: Word) -> None:
        value = self._previous(word, None)
        self.value = self.graph.end(value, 1, -1, 0)
        self.lines.append("last: the value at the end of the sequence")

    def gru(self, word: Word) -> None:
        gru = Gru.read(word, self.source)
        value = self._previous(word, gru.layers[0][0]["W"].shape[1])
        width, features = value.ids.size, value.ids.reshape(-1)
        for number, directions in enumerate(gru.layers):
            self.ends = []
            if directions[0]["W"].shape[1] != features.size:
                raise ExportError(
                    f"{word}: layer {number} reads {directions[0]['W'].shape[1]} numbers, but gets {features.size}"
                )
            for direction, arrays in enumerate(directions):
                if gru.h0 is not None:
                    arrays = {**arrays, "h0": gru.h0[number, direction]}
                suffix = f".l{number}" * (len(gru.layers) > 1) + "_reverse" * direction
                name = (word.prefix.rstrip(".") + suffix).lstrip(".")
                options = {"gates": "rzn", "reset": "after", "direction": ("forward", "reverse")[direction]}
                self.ends.append(self.graph.gru(features, arrays, options, None, name))
            features = np.concatenate([node.ids for node in self.ends])
        self.value = Tensor.of((("B",), ("T",), (features.size,)), features)
        layers = f", {len(gru.layers)} layers" * (len(gru.layers) > 1)
        directions_text = ", bidirectional" * (len(self.ends) > 1)
        learned = f", initial state {word.option('h0')}" * (gru.h0 is not None)
        self.lines.append(f"{word}: {width} -> {features.size}{layers}{directions_text}{learned}")

    def _summary(self, ends: list[Node]) -> None:
        if not ends:
            raise ExportError("--layers: summary must follow a gru")
        ids = np.concatenate([self.graph.ends(node.ids, ("last", "first")[i]) for i, node in enumerate(ends)])
        self.value = Tensor.of((("B",), (ids.size,)), ids)
        reverse = ", then of its reverse direction at the start" * (len(ends) > 1)
        self.lines.append(f"summary: the state of the last layer at the end of the sequence{reverse}")


def batchnorm_affine(word: Word, source: Source) -> tuple[Array, Array]:
    """Scale and shift of a batch normalisation in eval mode, in float64."""
    mean, variance = (
        source.get(word.prefix + name, word, 1).astype(np.float64) for name in ("running_mean", "running_var")
    )
    weight, bias = (source.find(word.prefix + name, word, 1) for name in ("weight", "bias"))
    eps = word.option("eps")
    try:
        scale = (1 if weight is None else weight) / np.sqrt(variance + (1e-5 if eps is None else float(eps)))
    except ValueError:
        raise ExportError(f"--layers: eps of {word} must be a number") from None
    return scale, (0 if bias is None else bias) - mean * scale


# ---- inferring a chain


@dataclass(frozen=True)
class _Module:
    word: Word
    inputs: int  # width that it reads; 0 for tokens
    outputs: int


def infer(arrays: Arrays) -> list[Word]:
    """The chain that the names and shapes of a checkpoint leave no choice about.

    Only ``[embedding] gru ... gru [linear]`` is inferred, with an output for every time step and nothing between the layers:
    an activation leaves no trace in a checkpoint.

    Raises
    ------
    ExportError
        If there is a choice; the message lists the chains in the ``--layers`` language.
    """
    modules = list(_modules(arrays))
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


def _modules(arrays: Arrays) -> Iterator[list[_Module]]:
    """For each module of a checkpoint what it can be."""
    groups: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        path, _, suffix = name.rpartition(".")
        groups.setdefault(path, {})[suffix] = array
    for path, group in groups.items():
        arguments = (path,) if path else ()
        weight = group.get("weight", np.zeros(()))
        if any(suffix.startswith("weight_ih") for suffix in group):
            word = Word("gru", arguments)
            source = Source(arrays)
            gru = Gru.read(word, source)
            _check_known(path, group, {name.rpartition(".")[2] for name in source.used})
            yield [_Module(word, gru.layers[0][0]["W"].shape[1], sum(d["U"].shape[1] for d in gru.layers[-1]))]
        elif "running_mean" in group:
            _check_known(path, group, {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})
            size = group["running_mean"].size
            yield [_Module(Word("batchnorm", arguments), size, size)]
        elif weight.ndim == 2:
            _check_known(path, group, {"weight", "bias"})
            outputs, inputs = weight.shape
            linear = _Module(Word("linear", arguments), inputs, outputs)
            yield [linear] if "bias" in group else [_Module(Word("embedding", arguments), 0, inputs), linear]
        else:
            shapes = ", ".join(
                f"{path + '.' if path else ''}{suffix} {list(array.shape)}" for suffix, array in group.items()
            )
            raise ExportError(
                f"not understood: {shapes}; write out the chain with --layers, or export the module itself"
            )


def _check_known(path: str, group: dict[str, Array], known: set[str]) -> None:
    unknown = sorted(set(group) - known)
    if unknown:
        name = f"{path}.{unknown[0]}".lstrip(".")
        raise ExportError(f"not understood: {name} {list(group[unknown[0]].shape)}; write out the chain with --layers")


def _chains(chain: list[_Module], left: list[list[_Module]]) -> Iterator[list[_Module]]:
    """All orders of all modules in which each reads what the one before gives."""
    if not left:
        yield chain
    for i, kinds in enumerate(left):
        for module in kinds:
            if (module.inputs == chain[-1].outputs) if chain else True:
                yield from _chains([*chain, module], left[:i] + left[i + 1 :])
