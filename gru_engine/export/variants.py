# SPDX-License-Identifier: Apache-2.0
"""The words for cells of ``gru_engine.cells``: ``gate_memory_gru(P)``, ``layer_norm_gru(P, zoneout=0.1)`` and so on.

The arrays of such a cell are found by the names that they have in the program it comes from, by the gates in their names
(``gru_engine.export.cells``), or they are named one by one as the function's arguments: ``norm_input_gru(W=a, b=b, scale=c)``.
What else can be said are that function's arguments too; ``concatenated=xh`` or ``hx`` and ``orientation=columns`` are as for
``gru``.

======================  ===========================================================================================
``gate_memory_gru``     ``W_r``, ``W_z``, ``W_n``, with an output gate ``W_o``, as of any hand-written cell
``input_forget_gru``    ``W_i``, ``W_f``, ``W_n`` or ``W_z``, with an output gate ``W_o``
``min_gru``             ``to_hidden_and_gate.weight`` [2H, I]; or ``linear_z``, ``linear_h``, as of a hand-written cell
``layer_norm_gru``      haste: ``kernel``, ``recurrent_kernel``, ``bias``, ``recurrent_bias``, ``gamma`` [2, 3H]
``zoneout_gru``         haste: ``kernel``, ``recurrent_kernel``, ``bias``, ``recurrent_bias``
``layer_norm_sum_gru``  DreamerV2 in PyTorch: ``GRU_linear.weight`` [3H, I+H], ``GRU_norm.weight``, ``GRU_norm.bias``
``norm_input_gru``      the library of DreamerV3: ``linear.kernel`` [H+I, 3H], ``linear.bias``, ``norm.scale``, ``norm.shift``
``dreamer_v3_gru``      DreamerV3: ``dynin0``, ``dynhid0``, ``dynhid1`` ... and ``dyngru``, each ``.kernel`` and ``.bias``, and
                        ``dynin0norm.scale``, ``dynhid0norm.scale`` ...
``li_gru``              SpeechBrain's SLiGRU: ``w.weight``, ``u.weight``, ``norm.running_var`` ... as of its LiGRU
``au_gru``, ``a_gru``   whatever the word ``gru`` can read (DIEN: ``gates.kernel``, ``candidate.kernel``; ``weight_ih`` ...)
======================  ===========================================================================================

The score of ``au_gru`` and ``a_gru`` is a column of the network's input: ``attention=-1`` is the last one. The other columns are
what the first word of the chain reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gru_engine import cells as functions
from gru_engine.export.cells import read_gates
from gru_engine.export.common import Array, ExportError, gru_arrays
from gru_engine.export.layouts import HAND_WRITTEN, Cell, find_layout, read_layout, read_light
from gru_engine.export.memoryless import orientation, read_batchnorm
from gru_engine.export.words import VARIANTS, Source, Word
from gru_engine.network import Network

_MATRICES = ("W", "U")
_SCALES = ("scale", "shift", "scale_x", "scale_h", "recurrent_scale", "recurrent_shift")
_VECTORS = ("b", "b_x", "b_h", *_SCALES, "r0", "z0")
_ROLES = (*_MATRICES, *_VECTORS)
_NUMBERS = ("epsilon", "zoneout", "update_bias", "recurrent_norm")
_ACTIVATIONS = ("activation", "gate_activation", "hidden_activation")
_NORMS = {"none": None}  # of norm_input_gru
_HAND_WRITTEN = {"gate_memory_gru": ("rzn", "o"), "input_forget_gru": ("ifn", "o"), "min_gru": ("zn", "")}
_GATES = {"layer_norm_sum_gru": 3, "layer_norm_gru": 3, "zoneout_gru": 3, "min_gru": 2, "li_gru": 2}
_ATTENTIONAL = ("au_gru", "a_gru")

Read = tuple[dict[str, Array], dict[str, Any]]
"""Arrays and options."""


def read_variant(word: Word, prefix: str, source: Source) -> Cell:
    """The cell that a word stands for.

    Raises
    ------
    ExportError
        If there are no such arrays, one does not fit, or an option is not one that the cell takes.
    """
    if word.name in _ATTENTIONAL:
        return _attentional(word, prefix, source)
    arrays, options = _arrays(word, prefix, source)
    for role in ("r0", "z0"):
        name = word.option(role)
        if name is not None and role not in arrays:
            arrays[role] = _initial(word, source, name)
    options |= _options(word)
    W = arrays["W"]
    inputs, seen = W.shape[-1], f"W of shape {list(W.shape)}"
    if word.name == "norm_input_gru":
        inputs -= W.shape[-2] // 3
    elif word.name == "dreamer_v3_gru":
        first, projected = options["hidden"][0][0], len(options["projection"][0])
        inputs, seen = first.shape[-1] - W.shape[1] // 3 - projected, f"dynhid0.kernel of shape {list(first.shape)}"
    if inputs < 1:
        raise ExportError(f"{word}: {seen} has no columns for the input")
    hidden = _tried(word, inputs, arrays, options)
    if word.name == "zoneout_gru" and options["zoneout"] == 0:
        return Cell(arrays, {key: value for key, value in options.items() if key != "zoneout"})
    return Cell(arrays, options, word.name, (inputs, hidden))


def _tried(word: Word, inputs: int, arrays: dict[str, Array], options: dict[str, Any]) -> int:
    """The width of the state, after the function has seen the arguments; what it says about them is said of the word."""
    try:
        net = Network()
        x = net.input(inputs + (word.name in _ATTENTIONAL))
        values = (x[:inputs], x[inputs:]) if word.name in _ATTENTIONAL else (x,)
        width: int = getattr(functions, word.name)(net, *values, **arrays, **options).width
    except (TypeError, ValueError) as error:
        raise ExportError(f"{word}: {error}") from error
    return width


def _attentional(word: Word, prefix: str, source: Source) -> Cell:
    """A GRU whose arrays are those of any other, and which has a score as a second input."""
    column = word.option("attention")
    if column is None or not column.lstrip("-").isdigit():
        given = "" if column is None else f", got {column!r}"
        raise ExportError(
            f"--layers: {word}: attention must be the number of the input's column that holds the score, as in "
            f"attention=-1 for the last one{given}"
        )
    layout = find_layout(word, prefix, source.arrays)
    inner = word
    if word.name == "a_gru" and layout is HAND_WRITTEN:  # which asks for the sense of the gate that is not there
        inner = Word(word.name, word.arguments, (*word.options, ("keep", "old")))
    layers = read_layout(inner, prefix, source, ("attention", "scales", "keep"))
    directions = [cell for layer in layers for cell in layer]
    if len(directions) != 1:
        raise ExportError(f"{word}: a cell has one layer and one direction, this one has {len(directions)} altogether")
    cell = directions[0]
    options, arrays = dict(cell.options), cell.arrays
    if "reset" not in options:
        raise ExportError(f"{word}: the arrays do not say where the reset gate acts; say reset=before or reset=after")
    if word.name == "au_gru":
        asked = ("scales", "keep") if layout is not None and layout.name.endswith("PyTorch") else ("scales",)
        lacking = [key for key in asked if word.option(key) is None]
        if lacking:
            raise ExportError(
                f"{word}: the arrays do not say {' and '.join(lacking)}; say scales=old where the gate of the old state is "
                "multiplied with 1 - a (DIEN's program), scales=new where the other one is multiplied with a (its article), and "
                "keep=new if h' = (1-z) h + z n"
            )
        options["scales"] = word.option("scales")
    else:
        gates = options.pop("gates", "rzn")
        options.pop("keep", None)  # of the update gate, whose rows influence nothing
        if not {"r", "n"} <= set(gates):
            raise ExportError(f"--layers: gates of {word} must hold r and n, got {gates!r}")
        parts = {role: dict(zip(gates, np.split(array, len(gates)))) for role, array in arrays.items()}
        arrays = {role: np.concatenate([part["r"], part["n"]]) for role, part in parts.items()}
    hidden = _tried(word, cell.inputs, arrays, options)
    return Cell(arrays, {**options, "attention": int(column)}, word.name, (cell.inputs, hidden))


def _options(word: Word) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in word.options:
        if key in _NUMBERS:
            options[key] = word.number(key, 0)
        elif key in _ACTIVATIONS:
            options[key] = word.activation_option(key)
        elif key == "norm":
            options[key] = _NORMS.get(value, value)
        elif key in VARIANTS[word.name] and key not in (*_ROLES, "batch_norm"):
            options[key] = value
    if word.name == "li_gru" and "recurrent_norm" not in options:
        raise ExportError(
            f"{word}: the arrays do not say that the product with the state is normalised; say it with the epsilon: "
            f"recurrent_norm=1e-5 (SLiGRU); a LiGRU is the word {Word('gru', word.arguments)}"
        )
    if word.name == "zoneout_gru" and "zoneout" not in options:
        raise ExportError(f"{word}: the arrays do not say the probability; say it: zoneout=0.1")
    return options


def _arrays(word: Word, prefix: str, source: Source) -> Read:
    """Arrays and what their names say, in the order of preference."""
    if word.option("W") is not None:
        return _named(word, source)
    known = _KNOWN.get(word.name)
    if known is not None and all(prefix + name in source.arrays for name in known[0]):
        for key in ("orientation", "concatenated"):
            if word.option(key) is not None:
                raise ExportError(f"--layers: {word}: the names of the arrays leave no choice of {key}")
        arrays, options = known[1](word, prefix, source)
        for role in sorted({key for key, _ in word.options} & {*_VECTORS, *_MATRICES}):
            if role in arrays:
                raise ExportError(f"--layers: {word}: the names of the arrays leave no choice of {role}")
            arrays[role] = source.get(word.option(role) or "", word, 1)
        return arrays, options
    if word.name in _HAND_WRITTEN:
        arrays, gates = read_gates(word, prefix, source, *_HAND_WRITTEN[word.name])
        return arrays, {"gates": gates}
    expected = f" ({', '.join(prefix + name for name in known[0])})" if known else ""
    roles = sorted(set(_ROLES) & VARIANTS[word.name])
    name_them = f"name them, as in {word.name}(W=NAME, ...), of {', '.join(roles)}; " if roles else ""
    raise ExportError(
        f"{word}: there are no arrays of such a cell below {prefix.rstrip('.')!r}{expected}; {name_them}the arrays are "
        f"{', '.join(source.arrays)}"
    )


def _named(word: Word, source: Source) -> Read:
    """Arrays that the word names one by one."""
    arrays: dict[str, Array] = {}
    columns = orientation(word) == "columns"
    for role, name in word.options:
        if role not in _ROLES or role in ("r0", "z0"):
            continue
        blocks = word.name == "norm_input_gru"
        ndims = (
            ((2, 3) if role == "W" else (1, 2) if role == "b" else (1,)) if blocks else (2 if role in _MATRICES else 1,)
        )
        array = source.find(name, word, *ndims)
        array = source.get(name, word, ndims[0]) if array is None else array
        arrays[role] = array.swapaxes(-1, -2) if role in _MATRICES and columns else array
    joined = word.option("concatenated")
    if joined is not None:
        return arrays | _cut(word, arrays), {}
    if "U" in VARIANTS[word.name] and "U" not in arrays:
        raise ExportError(f"{word}: there is no U; where W holds it say concatenated=xh or concatenated=hx")
    norm = word.option("batch_norm")
    return (arrays if norm is None else _with_batch_norm(word, arrays, norm, source)), {}


def _with_batch_norm(word: Word, arrays: dict[str, Array], name: str, source: Source) -> dict[str, Array]:
    """A batch normalisation of W x + b in W and b."""
    factor, shift = read_batchnorm(word, f"{name}.", source)
    rows = len(arrays["W"])
    if factor.size != rows:
        raise ExportError(f"{word}: {name!r} normalises {factor.size} numbers, expected the {rows} rows of W")
    b = arrays.get("b", np.zeros(rows)) * factor + shift
    return arrays | {"W": arrays["W"] * factor[:, np.newaxis], "b": b}


def _cut(word: Word, arrays: dict[str, Array]) -> dict[str, Array]:
    """W and U of a matrix on input and state side by side."""
    joined, W = word.option("concatenated"), arrays["W"]
    if joined not in ("xh", "hx") or "U" not in VARIANTS[word.name] or "U" in arrays:
        what = "must be xh or hx" if joined not in ("xh", "hx") else "is for a matrix that holds W and U"
        raise ExportError(f"--layers: concatenated of {word} {what}, got {joined!r}")
    count = _gate_count(word)
    if W.shape[0] % count or W.shape[1] <= W.shape[0] // count:
        raise ExportError(
            f"{word}: a matrix on the concatenation of input and state is [{count}*H, I+H], got {list(W.shape)}"
        )
    cut = gru_arrays(W, concatenated=joined, gates=count)
    return {role: cut[role] for role in _MATRICES}


def _gate_count(word: Word) -> int:
    if word.option("reset") == "none":
        return 2
    return len(word.option("gates") or "") or _GATES.get(word.name, 3)


def _initial(word: Word, source: Source, name: str) -> Array:
    """A vector, whatever axes of size 1 it has besides."""
    array = source.arrays.get(name)
    if array is None or array.dtype.kind != "f" or array.size != max(array.shape, default=0):
        given = "no such array" if array is None else f"the shape {list(array.shape)} and type {array.dtype}"
        raise ExportError(f"{word}: {name!r} must be a vector of floats, there is {given}")
    source.used.add(name)
    return array.reshape(-1)


# ---- whose names are known


def _haste(word: Word, prefix: str, source: Source) -> Read:
    W, U = (source.get(prefix + name, word, 2) for name in ("kernel", "recurrent_kernel"))
    biases = (source.find(prefix + name, word, 1) for name in ("bias", "recurrent_bias"))
    return gru_arrays(W, U, *biases, columns=True), {"gates": "zrn"}


def _haste_zoneout(word: Word, prefix: str, source: Source) -> Read:
    arrays, options = _haste(word, prefix, source)
    return arrays, {**options, "reset": "after"}


def _haste_norm(word: Word, prefix: str, source: Source) -> Read:
    arrays, options = _haste(word, prefix, source)
    gamma = source.get(prefix + "gamma", word, 2)
    if gamma.shape != (2, len(arrays["W"])):
        raise ExportError(f"{word}: gamma has the shape {list(gamma.shape)}, expected [2, {len(arrays['W'])}]")
    return arrays | {"scale_x": gamma[0], "scale_h": gamma[1]}, options


def _dreamer_v2(word: Word, prefix: str, source: Source) -> Read:
    W = source.get(prefix + "GRU_linear.weight", word, 2)
    if W.shape[0] % 3 or W.shape[1] <= W.shape[0] // 3:
        raise ExportError(f"{word}: GRU_linear.weight has the shape {list(W.shape)}, expected [3*H, I+H]")
    arrays = gru_arrays(W, concatenated="xh")
    found = {"b": "GRU_linear.bias", "scale": "GRU_norm.weight", "shift": "GRU_norm.bias"}
    optional = {role: source.find(prefix + name, word, 1) for role, name in found.items()}
    return arrays | {role: array for role, array in optional.items() if array is not None}, {"gates": "rnz"}


def _stabilised(word: Word, prefix: str, source: Source) -> Read:
    arrays = read_light(word, prefix, source)[0][0].arrays
    return {role.replace("b_x", "b"): array for role, array in arrays.items()}, {"gates": "nz"}


def _embodied(word: Word, prefix: str, source: Source) -> Read:
    arrays = {"W": source.get(prefix + "linear.kernel", word, 2).T}
    found = {"b": "linear.bias", "scale": "norm.scale", "shift": "norm.shift"}
    optional = {role: source.find(prefix + name, word, 1) for role, name in found.items()}
    arrays |= {role: array for role, array in optional.items() if array is not None}
    return arrays, {"norm": "layer" if "shift" in arrays else "rms" if "scale" in arrays else None}


def _dreamer_v3(word: Word, prefix: str, source: Source) -> Read:
    kernel = source.get(prefix + "dyngru.kernel", word, 3)
    blocks = len(kernel)

    def vector(name: str) -> Array | None:
        return source.find(prefix + name, word, 1)

    def in_blocks(name: str) -> Array | None:
        bias = vector(name)
        if bias is not None and bias.size % blocks:
            raise ExportError(f"{word}: {name} has {bias.size} numbers, which are no {blocks} blocks")
        return None if bias is None else bias.reshape(blocks, -1)

    hidden: list[Any] = []
    while prefix + f"dynhid{len(hidden)}.kernel" in source.arrays:
        name = f"dynhid{len(hidden)}"
        M = source.get(f"{prefix}{name}.kernel", word, 3).swapaxes(1, 2)
        hidden.append((M, in_blocks(f"{name}.bias"), vector(f"{name}norm.scale")))
    P = source.get(prefix + "dynin0.kernel", word, 2).T
    arrays, bias = {"W": kernel.swapaxes(1, 2)}, in_blocks("dyngru.bias")
    return arrays | ({} if bias is None else {"b": bias}), {
        "projection": (P, vector("dynin0.bias"), vector("dynin0norm.scale")),
        "hidden": hidden,
    }


def _min_gru(word: Word, prefix: str, source: Source) -> Read:
    b = source.find(prefix + "to_hidden_and_gate.bias", word, 1)
    W = source.get(prefix + "to_hidden_and_gate.weight", word, 2)
    return {"W": W} | ({} if b is None else {"b": b}), {"gates": "nz"}


_KNOWN: dict[str, tuple[tuple[str, ...], Callable[[Word, str, Source], Read]]] = {
    "layer_norm_gru": (("kernel", "recurrent_kernel", "gamma"), _haste_norm),
    "zoneout_gru": (("kernel", "recurrent_kernel", "recurrent_bias"), _haste_zoneout),
    "layer_norm_sum_gru": (("GRU_linear.weight", "GRU_norm.weight"), _dreamer_v2),
    "min_gru": (("to_hidden_and_gate.weight",), _min_gru),
    "li_gru": (("w.weight", "u.weight", "norm.running_var"), _stabilised),
    "norm_input_gru": (("linear.kernel",), _embodied),
    "dreamer_v3_gru": (("dyngru.kernel", "dynhid0.kernel", "dynin0.kernel"), _dreamer_v3),
}
