# SPDX-License-Identifier: Apache-2.0
"""The words of the ``--layers`` language (``gru_engine.export.chain`` says what each means), and the arrays they ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gru_engine import activations
from gru_engine.export.common import Array, ExportError

Arrays = dict[str, Array]

GATES = "rzn"
ROLES = ("W", "U", "b_x", "b_h", *(f"{kind}_{gate}" for gate in GATES for kind in ("W", "U", "b", "b_x", "b_h")))
"""The arrays of a GRU that can be named one by one: of all gates, or of one."""

CONVENTIONS = (
    "gates",
    "reset",
    "keep",
    "orientation",
    "concatenated",
    "reset_gate",
    "activation",
    "gate_activation",
    "clip",
)
"""What can be said about a GRU whose arrays leave it open."""

_ATTENTION = {"W", "U", "b_x", "b_h", "attention", "gates", "reset", "activation", "gate_activation"}
VARIANTS = {
    "a_gru": _ATTENTION,
    "au_gru": {*_ATTENTION, "keep", "scales"},
    "dreamer_v3_gru": {"epsilon", "update_bias", "hidden_activation", "activation", "gates"},
    "gate_memory_gru": {"W", "U", "b", "r0", "z0", "gates", "activation"},
    "input_forget_gru": {"W", "U", "b", "gates", "activation"},
    "layer_norm_gru": {"W", "U", "b_x", "b_h", "scale_x", "scale_h", "gates", "epsilon", "zoneout"},
    "layer_norm_sum_gru": {"W", "U", "b", "scale", "shift", "gates", "activation", "epsilon", "update_bias"},
    "li_gru": {
        *("W", "U", "b", "batch_norm", "epsilon", "recurrent_norm", "recurrent_scale", "recurrent_shift"),
        *("gates", "activation"),
    },
    "min_gru": {"W", "b", "gates", "activation"},
    "norm_input_gru": {"W", "b", "scale", "shift", "gates", "activation", "epsilon", "update_bias", "norm"},
    "zoneout_gru": {"W", "U", "b_x", "b_h", "gates", "reset", "keep", "activation", "gate_activation", "zoneout"},
}
"""The words of the cells of ``gru_engine.cells``, and what can be said about each as arguments of these functions."""

MODULES = ("embedding", "gru", "bidirectional", "skip_connections", "linear", "batchnorm", "prelu", *VARIANTS)
"""Words whose first argument is the name of a module."""

ACTIVATIONS = tuple(name for name in activations.NAMES.values() if name not in ("linear", *VARIANTS))

_PLAIN = ("one_hot", "last", "summary", "flip", "add_input")
_OPTIONS = {
    "gru": {"h0", *ROLES, *CONVENTIONS},
    "bidirectional": set(CONVENTIONS),
    "skip_connections": set(CONVENTIONS),
    "linear": {"W", "b", "orientation"},
    "embedding": {"E"},
    "batchnorm": {"eps"},
    **{name: {"h0", "orientation", "concatenated", *options} for name, options in VARIANTS.items()},
}
_MOST_ARGUMENTS = {"bidirectional": 2, "skip_connections": 64, "add_input": 1, **dict.fromkeys(_PLAIN[:-1], 0)}


@dataclass(frozen=True)
class Word:
    """One word of a chain."""

    name: str
    arguments: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        inner = [*self.arguments, *(f"{key}={value}" for key, value in self.options)]
        return f"{self.name}({', '.join(inner)})" if inner or self.name in MODULES else self.name

    @property
    def prefix(self) -> str:
        """What the names of the module's arrays begin with."""
        path = self.arguments[0] if self.arguments else ""
        return f"{path}." if path else ""

    def option(self, key: str) -> str | None:
        """The value given for a key."""
        return dict(self.options).get(key)

    def number(self, key: str, default: float) -> float:
        """The number given for a key."""
        value = self.option(key)
        try:
            return default if value is None else float(value)
        except ValueError:
            raise ExportError(f"--layers: {key} of {self} must be a number") from None

    @property
    def activation(self) -> activations.Activation:
        """The activation function that the word stands for."""
        return self._activation(self.name, self.arguments, str(self))

    def activation_option(self, key: str) -> activations.Activation | None:
        """The activation function given for a key, as ``tanh`` or ``hard_sigmoid:0.2:0.5``."""
        value = self.option(key)
        if value is None:
            return None
        name, *parameters = value.split(":")
        return self._activation(name, parameters, f"{key} of {self}")

    @staticmethod
    def _activation(name: str, parameters: Iterable[str], what: str) -> activations.Activation:
        try:
            numbers = [float(a) for a in parameters]
        except ValueError:
            raise ExportError(f"--layers: the parameters of {what} must be numbers") from None
        try:
            return activations.activation((name, *numbers), "--layers: the activation")
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
    known = (*MODULES, *_PLAIN, *ACTIVATIONS)
    if word.name not in known:
        raise ExportError(f"--layers: {word.name!r} is not known; known are {', '.join(known)}")
    unknown = {key for key, _ in word.options} - _OPTIONS.get(word.name, set())
    if unknown:
        raise ExportError(f"--layers: {word.name} has no option {min(unknown)!r}")
    if word.name in ACTIVATIONS:
        word.activation  # noqa: B018  raises for wrong parameters
    elif len(word.arguments) > _MOST_ARGUMENTS.get(word.name, 1):
        raise ExportError(f"--layers: {word} has too many arguments")
    if word.name == "bidirectional" and len(word.arguments) != 2:
        raise ExportError(f"--layers: {word} must name two modules, as bidirectional(forward, backward)")
    if word.name == "skip_connections" and len(word.arguments) < 2:
        raise ExportError(f"--layers: {word} must name at least two modules")


class Source:
    """The arrays of a checkpoint; remembers which were used."""

    def __init__(self, arrays: Arrays):
        self.arrays = arrays
        self.used: set[str] = set()

    def get(self, name: str, word: Word, ndim: int) -> Array:
        """An array that must be there."""
        array = self.find(name, word, ndim)
        if array is None:
            raise ExportError(f"{word}: the checkpoint has no array {name!r}; it has {', '.join(self.arrays)}")
        return array

    def find(self, name: str, word: Word, *ndims: int) -> Array | None:
        """An array that may be there, with one of the given numbers of axes."""
        array = self.arrays.get(name)
        if array is None:
            return None
        if array.ndim not in ndims or array.dtype.kind != "f":
            given = f"the shape {list(array.shape)} and type {array.dtype}"
            raise ExportError(f"{word}: {name!r} has {given}, expected {' or '.join(map(str, ndims))} axes of floats")
        self.used.add(name)
        return array

    def unused(self) -> list[str]:
        """Names of the arrays that no word has asked for."""
        return [name for name in self.arrays if name not in self.used and not name.endswith("num_batches_tracked")]
