# SPDX-License-Identifier: Apache-2.0
"""Hand-written cells: an array for each gate under names such as ``W_r``, ``U_z``, ``reset_gate``.

Names and shapes say which array belongs to which gate, and whether a matrix acts on the concatenation of input and state. They
do not say what the cell computes with them: that is said by the word (``gru(cell, concatenated=hx, reset=before, keep=new)``),
or found out by running the module (``gru_engine.export.torch_cells``).

An output gate, and input and forget gates that are independent of each other, are recognised and refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gru_engine.export.common import Array, ExportError
from gru_engine.export.layouts import Cell, Layers, conventions, orientation, stacked
from gru_engine.export.words import Source, Word

_WORDS = {
    "r": "reset",
    "z": "update",
    "n": "candidate|cand|new|hat|tilde|h_?tilde|h_?hat|hcand|h_?cand",
    "i": "input",
    "f": "forget",
    "o": "output|out",
}
_LETTERS = {"r": "r", "z": "z|u", "n": "n|h|c|g", "i": "i", "f": "f", "o": "o"}
_END = "(?:_?(?:gate|state|layer|linear|net|fc))?"
_KINDS = (
    # what stands before the gate: a matrix of the state, of the input, of either or both, biases; the longest first
    ("b_h", "(?:b|bias)_?h_?"),
    ("b_x", "(?:b|bias)_?[xi]_?"),
    ("b", "(?:b|bias)_?"),
    ("h", "(?:[uwv]_?h_?|[uv]_?|h_?|hidden_?|recurrent_?)"),
    ("x", "(?:w_?[xi]_?|[xi]_?|input_?)"),
    ("w", "(?:w|weight|linear|lin|fc)_?"),
)
_SIDES = {"x": "x", "i": "x", "input": "x", "h": "h", "hidden": "h"}
_OUTPUT_GATE, _OWN_GATES = "o", {"i", "f"}


@dataclass
class _Parts:
    """The names of a cell's arrays: for each kind ("x", "h", "w" matrices and their biases, "b") those of each gate."""

    weights: dict[str, dict[str, str]] = field(default_factory=dict)
    biases: dict[str, dict[str, str]] = field(default_factory=dict)
    bare: bool = False  # parameters instead of linear layers: rows or columns is not known by the name

    @property
    def gates(self) -> set[str]:
        return {gate for table in self.weights.values() for gate in table}

    @property
    def concatenated(self) -> bool:
        return "h" not in self.weights and "x" not in self.weights


def _classify(base: str) -> list[tuple[str, str, str]]:
    """Kind, gate and the letters or word that stand for the gate, as far as a name can be read."""
    base = base.lower()
    for gate, words in _WORDS.items():
        match = re.fullmatch(rf"({words}){_END}(?:_(x|i|input|h|hidden))?", base)
        if match:
            return [(_SIDES.get(match[2] or "", "w"), gate, match[1])]
    for kind, start in _KINDS:
        for gate in _WORDS:
            match = re.fullmatch(rf"{start}({_LETTERS[gate]}|{_WORDS[gate]}){_END}", base)
            if match:
                return [(kind, gate, match[1])]
    return []


def _parts(prefix: str, names: Collection[str]) -> _Parts:
    parts = _Parts()
    letters: dict[tuple[str, str], list[tuple[str, str]]] = {}  # of the matrices of a kind and gate: letters, name
    for name in names:
        if not name.startswith(prefix):
            continue
        base, _, end = name.removeprefix(prefix).partition(".")
        for kind, gate, letter in _classify(base):
            if kind.startswith("b") and not end:
                parts.biases.setdefault(kind, {})[gate] = name
            elif not kind.startswith("b") and end == "bias":
                parts.biases.setdefault({"h": "b_h"}.get(kind, "b_x"), {})[gate] = name
            elif not kind.startswith("b") and end in ("", "weight"):
                letters.setdefault((kind, gate), []).append((letter, name))
                parts.bare |= not end
    for (kind, gate), found in letters.items():
        table = parts.weights.setdefault(kind, {})
        for letter, name in found:
            if len(found) > 1 and letter == "h" and kind == "h":
                table.setdefault("r", name)  # U_h beside U_n: the recurrent matrix that both gates share
                table.setdefault("z", name)
            else:
                table[gate] = name
    return parts


def is_cell(prefix: str, names: Collection[str]) -> bool:
    """Whether the names below a prefix are those of a hand-written recurrent cell."""
    gates = _parts(prefix, names).gates
    return {"z", "n"} <= gates or gates >= _OWN_GATES


def read_cell(word: Word, prefix: str, source: Source) -> Layers:
    """The one layer of a cell, with what the word says about it.

    Raises
    ------
    ExportError
        If the word leaves open what names and shapes do not say either, or the cell is none that the engine has.
    """
    parts = _parts(prefix, source.arrays)
    _check_kind(word, parts)
    if word.option("concatenated") is not None and not parts.concatenated:
        raise ExportError(f"--layers: {word}: the cell has matrices for input and state, none on their concatenation")
    if word.option("orientation") is not None and (parts.concatenated or not parts.bare):
        raise ExportError(f"--layers: {word}: names and shapes say the orientation of the arrays")
    missing = [key for key in ("reset", "keep") if word.option(key) is None]
    if parts.concatenated and word.option("concatenated") is None:
        missing.append("concatenated")
    if missing:
        name = prefix.rstrip(".")
        joined = ", concatenated=hx" * parts.concatenated
        plain = ", ".join(filter(None, [name, joined.removeprefix(", ")]))
        start = f"{plain}, " if plain else ""
        raise ExportError(
            f"{word}: names and shapes do not say {' and '.join(missing)} of a hand-written cell; say it, for instance:\n"
            f"  gru({start}reset=before, keep=new)   h' = (1-z) h + z n, n of r*h   (Cho et al. 2014)\n"
            f"  gru({start}reset=after, keep=old)   h' = z h + (1-z) n, n of r*(U h + b)   (as PyTorch)\n"
            f"  gru({start}reset=before, keep=new, reset_gate=z)   n of z*h: the update gate inside the candidate"
            + "\nconcatenated is hx or xh: which of state and input comes first"
            * parts.concatenated
        )
    arrays = _arrays(word, parts, source)
    return [[Cell(arrays, conventions(word))]]


def _check_kind(word: Word, parts: _Parts) -> None:
    gates = parts.gates
    if gates >= _OWN_GATES:
        what = "an LSTM, or a GRU with independent input and forget gates"
        raise ExportError(
            f"{word}: {_example(parts, _OWN_GATES)} are the gates of {what}; gru_engine has no such recurrent layer"
        )
    if _OUTPUT_GATE in gates:
        raise ExportError(
            f"{word}: {_example(parts, {_OUTPUT_GATE})} is an output gate (a GRU with gate memory has one); gru_engine has no "
            "such recurrent layer"
        )


def _example(parts: _Parts, gates: set[str]) -> str:
    return ", ".join(sorted(name for table in parts.weights.values() for gate, name in table.items() if gate in gates))


def _arrays(word: Word, parts: _Parts, source: Source) -> dict[str, Array]:
    """The arrays of ``Network.gru``."""
    reset_gate = word.option("reset_gate") or "r"
    if reset_gate not in ("r", "z"):
        raise ExportError(f"--layers: reset_gate of {word} must be r or z, got {reset_gate!r}")
    gates = "zn" if word.option("reset") == "none" else reset_gate + "zn"
    separate = not parts.concatenated
    kinds = {"W": ("x", "w"), "U": ("h",)} if separate else {"W": ("w",)}
    tables = {
        role: next((parts.weights[kind] for kind in names if kind in parts.weights), {})
        for role, names in kinds.items()
    }
    for role, table in tables.items():
        lacking = sorted(set(gates) - set(table))
        if lacking:
            known = ", ".join(sorted(table.values())) or "none"
            raise ExportError(f"{word}: there is no matrix {role} of the gate {lacking[0]}; found: {known}")
    matrices = {role: [source.get(table[gate], word, 2) for gate in gates] for role, table in tables.items()}
    hidden, columns = _sizes(word, parts, matrices, source)
    if "r" not in gates:  # then the arrays of a reset gate influence nothing, and the word says so
        source.used |= {table["r"] for part in (parts.weights, parts.biases) for table in part.values() if "r" in table}
    if columns:
        matrices = {role: [array.T for array in arrays] for role, arrays in matrices.items()}
    biases = {side: _biases(word, parts, source, side, gates, hidden) for side in ("b_x", "b_h")}
    if biases["b_h"] and not separate:
        raise ExportError(f"{word}: a cell on the concatenation of input and state has one bias for each gate")
    filled = {side: _filled(arrays, hidden) for side, arrays in biases.items()}
    return stacked(word, {**matrices, **filled}, gates)


def _biases(word: Word, parts: _Parts, source: Source, side: str, gates: str, hidden: int) -> list[Any]:
    tables = [parts.biases[kind] for kind in ((side, "b") if side == "b_x" else (side,)) if kind in parts.biases]
    result: list[Any] = []
    for gate in gates:
        names = [table[gate] for table in tables if gate in table]
        if len(names) > 1:
            raise ExportError(f"{word}: {' and '.join(names)} are both biases of the gate {gate}")
        result.append(source.get(names[0], word, 1) if names else None)
    return [] if all(bias is None for bias in result) else result


def _filled(biases: list[Any], hidden: int) -> list[Array]:
    return [np.zeros(hidden, np.float32) if bias is None else bias for bias in biases]


def _sizes(word: Word, parts: _Parts, matrices: dict[str, list[Array]], source: Source) -> tuple[int, bool]:
    """H, and whether a gate's outputs are the columns of its matrices."""
    W = matrices["W"][0]
    if parts.concatenated:
        if W.shape[0] == W.shape[1]:
            raise ExportError(
                f"{word}: a matrix on the concatenation of input and state is [H, H+I], got {list(W.shape)}"
            )
        return min(W.shape), W.shape[0] > W.shape[1]
    hidden = len(matrices["U"][0])
    if not parts.bare:
        return hidden, False
    if word.option("orientation") is not None:
        return hidden, orientation(word) == "columns"
    if W.shape[0] == W.shape[1]:
        raise ExportError(
            f"{word}: all matrices are square; say orientation=rows (W x) or orientation=columns (x W, outputs are columns)"
        )
    return hidden, W.shape[1] == hidden
