# SPDX-License-Identifier: Apache-2.0
"""Hand-written cells: an array for each gate under names such as ``W_r``, ``U_z``, ``reset_gate``.

Names and shapes say which array belongs to which gate, and whether a matrix acts on the concatenation of input and state. They
do not say what the cell computes with them: that is said by the word (``gru(cell, concatenated=hx, reset=before, keep=new)``),
or found out by running the module (``gru_engine.export.torch_cells``).

A cell with an output gate, or with input and forget gates that are independent of each other, is another function: the words
``gate_memory_gru`` and ``input_forget_gru`` say which.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gru_engine.export.common import Array, ExportError
from gru_engine.export.layouts import Cell, Layers, conventions, stacked
from gru_engine.export.memoryless import orientation
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

    def renamed(self, gate: str, to: str | None) -> _Parts:
        """With another gate's name for one of them; None leaves it out."""

        def tables(part: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
            names = {kind: {to if g == gate else g: name for g, name in table.items()} for kind, table in part.items()}
            return {kind: {g: name for g, name in table.items() if g is not None} for kind, table in names.items()}

        return _Parts(tables(self.weights), tables(self.biases), self.bare)

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
    parts = _known(word, prefix, source)
    _check_kind(word, parts)
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


def read_gates(
    word: Word, prefix: str, source: Source, wanted: str, optional: str = ""
) -> tuple[dict[str, Array], str]:
    """The arrays of a cell of other gates, and the order of the gates.

    Parameters
    ----------
    word, prefix, source
    wanted : str
        The gates that it must have.
    optional : str
        One that it may have; ``gates`` of the word leaves it out where it has no influence.

    Returns
    -------
    arrays : dict
        W, U and b; where a matrix reads the input alone (min_gru) W and b.
    gates : str
    """
    parts = _known(word, prefix, source)
    if not parts.weights:
        raise ExportError(
            f"{word}: there are no arrays with the names of gates below {prefix.rstrip('.')!r}; the arrays are "
            f"{', '.join(source.arrays)}"
        )
    if {"i", "f", "z"} <= parts.gates and "n" not in parts.gates and "r" not in wanted:
        parts = parts.renamed("z", "n")  # W_z of the candidate, beside W_i and W_f
    gates = word.option("gates") or wanted + "".join(gate for gate in optional if gate in parts.gates)
    if sorted(gates) not in (sorted(wanted), sorted(wanted + optional)):
        raise ExportError(f"--layers: gates of {word} must be those of {wanted + optional!r}, got {gates!r}")
    tables = (*parts.weights.values(), *parts.biases.values())
    source.used |= {table[g] for table in tables for g in optional if g in table and g not in gates}
    if word.name == "min_gru":
        return _of_the_input(word, parts, source, gates), gates
    if parts.concatenated and word.option("concatenated") is None:
        raise ExportError(f"{word}: say which of state and input comes first: concatenated=hx or concatenated=xh")
    arrays = _gathered(word, parts, source, gates)
    biases = [arrays.pop(side).astype(np.float64) for side in ("b_x", "b_h") if side in arrays]
    return arrays | ({"b": np.sum(biases, axis=0)} if biases else {}), gates


def _of_the_input(word: Word, parts: _Parts, source: Source, gates: str) -> dict[str, Array]:
    table = parts.weights.get("x") or parts.weights.get("w") or {}
    for gate in gates:
        if gate not in table:
            raise ExportError(
                f"{word}: there is no matrix of the gate {gate}; found: {', '.join(table.values()) or 'none'}"
            )
    matrices = [source.get(table[gate], word, 2) for gate in gates]
    if parts.bare:
        if word.option("orientation") is None:
            raise ExportError(f"{word}: say orientation=rows (W x) or orientation=columns (x W, outputs are columns)")
        matrices = [matrix.T for matrix in matrices] if orientation(word) == "columns" else matrices
    biases = _biases(word, parts, source, "b_x", gates, len(matrices[0]))
    if any(matrix.shape != matrices[0].shape for matrix in matrices):
        given = " and ".join(str(list(matrix.shape)) for matrix in matrices)
        raise ExportError(f"{word}: the matrices of the gates {gates} have the shapes {given}, expected the same")
    b = {"b": np.concatenate(_filled(biases, len(matrices[0])))} if biases else {}
    return {"W": np.concatenate(matrices), **b}


def _known(word: Word, prefix: str, source: Source) -> _Parts:
    """The names of a cell's arrays, with what the word says about them checked."""
    parts = _without_output_layer(_parts(prefix, source.arrays), source)
    if word.option("concatenated") is not None and not parts.concatenated:
        raise ExportError(f"--layers: {word}: the cell has matrices for input and state, none on their concatenation")
    if word.option("orientation") is not None and (parts.concatenated or not parts.bare) and word.name != "min_gru":
        raise ExportError(f"--layers: {word}: names and shapes say the orientation of the arrays")
    return parts


def _without_output_layer(parts: _Parts, source: Source) -> _Parts:
    """Without ``W_o`` and ``b_o`` where they are no gate's but those of a layer behind the cell, ``y = W_o h``."""
    for table in parts.weights.values():
        others = {source.arrays[name].shape for gate, name in table.items() if gate != _OUTPUT_GATE}
        shape = source.arrays[table[_OUTPUT_GATE]].shape if _OUTPUT_GATE in table else None
        if (shape is None and not parts.concatenated) or (shape is not None and shape not in others):
            return parts.renamed(_OUTPUT_GATE, None)
    return parts


def _check_kind(word: Word, parts: _Parts) -> None:
    gates = parts.gates
    if gates >= _OWN_GATES:
        raise ExportError(
            f"{word}: {_example(parts, _OWN_GATES)} are independent input and forget gates; a cell with h' = f h + i n is "
            f"the word {_instead(word, 'input_forget_gru')}, an LSTM is not supported"
        )
    if _OUTPUT_GATE in gates:
        raise ExportError(
            f"{word}: {_example(parts, {_OUTPUT_GATE})} is an output gate, which a GRU has not; a GRU with gate memory is the "
            f"word {_instead(word, 'gate_memory_gru')}"
        )


def _instead(word: Word, name: str) -> str:
    return str(Word(name, word.arguments))


def _example(parts: _Parts, gates: set[str]) -> str:
    return ", ".join(sorted(name for table in parts.weights.values() for gate, name in table.items() if gate in gates))


def _arrays(word: Word, parts: _Parts, source: Source) -> dict[str, Array]:
    """The arrays of ``Network.gru``."""
    reset_gate = word.option("reset_gate") or "r"
    if reset_gate not in ("r", "z"):
        raise ExportError(f"--layers: reset_gate of {word} must be r or z, got {reset_gate!r}")
    return _gathered(word, parts, source, "zn" if word.option("reset") == "none" else reset_gate + "zn")


def _gathered(word: Word, parts: _Parts, source: Source, gates: str) -> dict[str, Array]:
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
    if (
        word.name == "gru" and "r" not in gates
    ):  # then the arrays of a reset gate influence nothing, and the word says so
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
