# SPDX-License-Identifier: Apache-2.0
"""How frameworks name and shape the arrays of their layers: one short reader for each, all ending in ``Network.gru``'s arguments.

A layout is recognised by the names below a module's name: ``gru.weight_ih_l0`` makes ``gru`` an ``nn.GRU`` of PyTorch,
``gru.w_i`` one of Haiku. What a reader returns says the order of the gates, the sense of the update gate and where the reset
gate acts. What a framework leaves to an argument of its layer (an activation, ``reset_after`` without biases) is an option
of the word ``gru``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gru_engine.export.common import Array, ExportError, gru_arrays
from gru_engine.export.memoryless import as_rows, orientation, read_batchnorm
from gru_engine.export.words import CONVENTIONS, GATES, ROLES, VARIANTS, Source, Word


@dataclass(frozen=True)
class Cell:
    """One direction of one layer: arrays and options are arguments of ``Network.gru``, or of a function of ``gru_engine.cells``.

    Attributes
    ----------
    arrays, options : dict
    function : str
        The name of that function; ``"gru"`` is ``Network.gru``.
    widths : (int, int), optional
        What it reads and what its state is, where W and U do not say it.
    """

    arrays: dict[str, Array]
    options: dict[str, Any]
    function: str = "gru"
    widths: tuple[int, int] | None = None

    @property
    def inputs(self) -> int:
        """Width that it reads."""
        return self.widths[0] if self.widths else int(self.arrays["W"].shape[1])

    @property
    def hidden(self) -> int:
        """Width of its state."""
        return self.widths[1] if self.widths else int(self.arrays["U"].shape[1])


Layers = list[list[Cell]]
"""For each layer of a module its directions."""


@dataclass(frozen=True)
class Layout:
    """The arrays of a recurrent module in one framework.

    Attributes
    ----------
    name : str
    needs : tuple of str
        The names below the module's by which it is recognised.
    read : callable
        Makes the layers of a word, what its arrays' names begin with, and the arrays.
    choices : collection of str
        Which options of the word ``gru`` it leaves open.
    """

    name: str
    needs: tuple[str, ...]
    read: Callable[[Word, str, Source], Layers]
    choices: Collection[str] = ()


def _columns(arrays: list[Array]) -> Array:
    """Gates that are blocks of columns, side by side."""
    return np.concatenate(arrays, axis=-1)


def _one(arrays: dict[str, Array], **options: Any) -> Layers:
    return [[Cell(arrays, options)]]


# ---- PyTorch


def _torch(word: Word, prefix: str, source: Source) -> Layers:
    """``weight_ih_l0`` [3H, I] and so on of an ``nn.GRU``, or ``weight_ih`` of an ``nn.GRUCell``."""
    layers: Layers = []
    names = source.arrays
    if prefix + "weight_ih" in names:
        layers.append([_torch_direction(word, prefix, source, "")])
    while prefix + f"weight_ih_l{len(layers)}" in names:
        suffixes = [f"_l{len(layers)}", f"_l{len(layers)}_reverse"]
        layers.append(
            [_torch_direction(word, prefix, source, s) for s in suffixes if prefix + "weight_ih" + s in names]
        )
    return layers


def _torch_direction(word: Word, prefix: str, source: Source, suffix: str) -> Cell:
    W, U = (source.get(prefix + name + suffix, word, 2) for name in ("weight_ih", "weight_hh"))
    if U.shape[0] != 3 * U.shape[1]:
        kind = {4: "; this is an LSTM", 1: "; this is a plain RNN"}.get(U.shape[0] // U.shape[1], "")
        raise ExportError(f"{word}: weight_hh has the shape {list(U.shape)}, expected [3*H, H]{kind}")
    biases = [source.find(prefix + name + suffix, word, 1) for name in ("bias_ih", "bias_hh")]
    return Cell(gru_arrays(W, U, *biases), {"gates": "rzn", "reset": "after"})


# ---- Keras


def _keras(word: Word, prefix: str, source: Source) -> Layers:
    """``kernel`` [I, 3H], ``recurrent_kernel`` [H, 3H]; the shape of ``bias`` says where the reset gate acts."""
    W, U = (source.get(prefix + name, word, 2) for name in ("kernel", "recurrent_kernel"))
    _check_gates(word, "recurrent_kernel", U.T, 3)
    if prefix + "recurrent_bias" in source.arrays:
        name = prefix.rstrip(".")
        said = f"layer_norm_gru({name})" if prefix + "gamma" in source.arrays else f"zoneout_gru({name}, zoneout=0.1)"
        raise ExportError(
            f"{word}: recurrent_bias beside kernel is a layer of haste, whose zoneout acts at inference but leaves no trace in "
            f"the arrays; say it: {said} (zoneout=0 if there is none)"
        )
    b = source.find(prefix + "bias", word, 1, 2)
    hidden = U.shape[0]
    if b is None:
        if word.option("reset") is None:
            raise ExportError(
                f"{word}: without biases nothing tells reset_after=True from False; say it with reset=after or reset=before"
            )
        return _one(gru_arrays(W, U, columns=True), gates="zrn")
    if b.shape == (6 * hidden,):
        raise ExportError(
            f"{word}: a bias of {b.size} numbers is a CuDNNGRU's, whose arrays have an order of their own; load the model "
            "with Keras and save it with GRU layers"
        )
    reset = "after" if b.ndim == 2 else "before"
    if word.option("reset") not in (None, reset):
        raise ExportError(f"{word}: a bias of shape {list(b.shape)} is one of reset={reset}")
    biases = list(b) if b.ndim == 2 else [b]
    if b.shape not in ((2, 3 * hidden), (3 * hidden,)):
        raise ExportError(
            f"{word}: bias has the shape {list(b.shape)}, expected [2, {3 * hidden}] (reset_after) or [{3 * hidden}]"
        )
    return _one(gru_arrays(W, U, *biases, columns=True), gates="zrn", reset=reset)


def _check_gates(word: Word, name: str, U: Array, gates: int) -> None:
    """U is [gates * H, H]."""
    if U.shape[0] != gates * U.shape[1]:
        raise ExportError(f"{word}: {name} has the shape {list(U.T.shape)}, expected [H, {gates}*H]")


# ---- Flax


def _linen(word: Word, prefix: str, source: Source) -> Layers:
    """A dense layer for each gate and half; of the recurrent ones only ``hn`` has a bias."""
    W, U = (_columns([source.get(f"{prefix}{half}{gate}.kernel", word, 2) for gate in "rzn"]) for half in ("i", "h"))
    b_x = [source.find(f"{prefix}i{gate}.bias", word, 1) for gate in "rzn"]
    return _one(
        gru_arrays(W, U, *_linen_biases(b_x, prefix, word, source, U.shape[0]), columns=True),
        gates="rzn",
        reset="after",
    )


def _linen_biases(b_x: list[Array | None], prefix: str, word: Word, source: Source, hidden: int) -> list[Array | None]:
    missing = np.zeros(hidden, np.float32)
    b_hn = source.find(f"{prefix}hn.bias", word, 1)
    return [
        None if all(b is None for b in b_x) else _columns([missing if b is None else b for b in b_x]),
        None if b_hn is None else _columns([np.zeros_like(b_hn)] * (len(b_x) - 1) + [b_hn]),
    ]


def _linen_mgu(word: Word, prefix: str, source: Source) -> Layers:
    """One gate f that keeps the old state and, if ``hn`` has a bias (``reset_gate=True``), is the reset gate too."""
    gates = "ffn" if f"{prefix}hn.bias" in source.arrays else "fn"
    W, U = (_columns([source.get(f"{prefix}{half}{gate}.kernel", word, 2) for gate in gates]) for half in ("i", "h"))
    b_x = [source.find(f"{prefix}i{gate}.bias", word, 1) for gate in gates]
    arrays = gru_arrays(W, U, *_linen_biases(b_x, prefix, word, source, U.shape[0]), columns=True)
    return _one(arrays, gates="rzn" if len(gates) == 3 else "zn", reset="after" if len(gates) == 3 else "none")


def _nnx(word: Word, prefix: str, source: Source) -> Layers:
    """``dense_i`` with a bias, ``dense_h`` without."""
    W, U = (source.get(f"{prefix}{name}.kernel", word, 2) for name in ("dense_i", "dense_h"))
    _check_gates(word, "dense_h.kernel", U.T, 3)
    biases = [source.find(f"{prefix}{name}.bias", word, 1) for name in ("dense_i", "dense_h")]
    return _one(gru_arrays(W, U, *biases, columns=True), gates="rzn", reset="after")


# ---- SpeechBrain


def read_light(word: Word, prefix: str, source: Source) -> Layers:
    """``w.weight`` [2H, I] behind a batch normalisation, which goes into it; ``u.weight`` [2H, H]; the candidate first."""
    W, U = (source.get(f"{prefix}{name}.weight", word, 2) for name in "wu")
    _check_gates(word, "u.weight", U, 2)
    for name in ("w.bias", "u.bias"):
        if f"{prefix}{name}" in source.arrays:
            raise ExportError(f"{word}: a layer of SpeechBrain's LiGRU has no {name}")
    factor, shift = read_batchnorm(word, f"{prefix}norm.", source)
    initial = source.arrays.get(f"{prefix}h_init")
    if initial is not None and np.any(initial):
        raise ExportError(f"{word}: h_init is not zero; give it as h0={prefix}h_init")
    source.used |= {f"{prefix}h_init", f"{prefix}norm.num_batches_tracked"}
    arrays = {"W": W * factor[:, np.newaxis], "U": U, "b_x": shift}
    return _one(arrays, gates="nz", reset="none", activation="relu")


# ---- Haiku, Sonnet


def _haiku(word: Word, prefix: str, source: Source) -> Layers:
    """``w_i`` [I, 3H], ``w_h`` [H, 3H], ``b`` [3H]."""
    W, U = (source.get(prefix + name, word, 2) for name in ("w_i", "w_h"))
    if U.shape[1] == 4 * U.shape[0]:
        raise ExportError(f"{word}: w_h has the shape {list(U.shape)}, expected [H, 3*H]; this is an LSTM")
    _check_gates(word, "w_h", U.T, 3)
    b = source.find(prefix + "b", word, 1)
    return _one(gru_arrays(W, U, b, columns=True), gates="zrn", reset="before", keep="new")


# ---- TensorFlow 1


def _tf1(word: Word, prefix: str, source: Source) -> Layers:
    """``gates`` [I+H, 2H] and ``candidate`` [I+H, H], both on the concatenation of input and state."""
    return _tf1_cell(
        word,
        source,
        *(_either(source, f"{prefix}{gate}.", pair) for gate in ("gates", "candidate") for pair in _TF1_NAMES),
    )


_TF1_NAMES = (("kernel", "weights"), ("bias", "biases"))  # since TensorFlow 1.2, and before


def _either(source: Source, prefix: str, names: tuple[str, str]) -> str:
    return prefix + (names[1] if prefix + names[1] in source.arrays else names[0])


def _tf1_block(word: Word, prefix: str, source: Source) -> Layers:
    """``GRUBlockCell``: the same under other names."""
    return _tf1_cell(word, source, *(prefix + name for name in ("w_ru", "b_ru", "w_c", "b_c")))


def _tf1_cell(word: Word, source: Source, gates: str, gates_bias: str, candidate: str, candidate_bias: str) -> Layers:
    W, C = source.get(gates, word, 2), source.get(candidate, word, 2)
    if W.shape != (C.shape[0], 2 * C.shape[1]) or C.shape[0] <= C.shape[1]:
        raise ExportError(
            f"{word}: {gates!r} {list(W.shape)} and {candidate!r} {list(C.shape)} do not fit together, expected [I+H, 2*H] "
            "and [I+H, H]"
        )
    b, c = source.get(gates_bias, word, 1), source.get(candidate_bias, word, 1)
    arrays = gru_arrays(_columns([W, C]), b_x=_columns([b, c]), columns=True, concatenated="xh")
    return _one(arrays, gates="rzn", reset="before")


def _tf1_cudnn(word: Word, prefix: str, source: Source) -> Layers:
    """``CudnnCompatibleGRUCell``: the candidate has projections of its own, gated after the recurrent one."""
    gates, x, h = (prefix + name for name in ("gates.", "candidate.input_projection.", "candidate.hidden_projection."))
    W, Wn, Un = (source.get(name + "kernel", word, 2) for name in (gates, x, h))
    b, bn, dn = (source.get(name + "bias", word, 1) for name in (gates, x, h))
    hidden = len(Un)
    if Un.shape != (hidden, hidden) or W.shape != (len(Wn) + hidden, 2 * hidden):
        raise ExportError(
            f"{word}: the kernels {list(W.shape)}, {list(Wn.shape)}, {list(Un.shape)} do not fit together, expected "
            "[I+H, 2*H], [I, H], [H, H]"
        )
    W, U = _columns([W[:-hidden], Wn]), _columns([W[-hidden:], Un])
    zeros = np.zeros(2 * hidden, dn.dtype)
    return _one(gru_arrays(W, U, _columns([b, bn]), _columns([zeros, dn]), columns=True), gates="rzn", reset="after")


def _tf1_stack(word: Word, prefix: str, source: Source) -> Layers:
    """``MultiRNNCell``: its cells by their numbers, which are no digits to sort by as text."""
    layers: Layers = []
    while True:
        start = f"{prefix}cell_{len(layers)}."
        below = [name.removeprefix(start).partition(".")[0] for name in source.arrays if name.startswith(start)]
        if not below:
            return layers
        layers += _tf1_below(word, f"{start}{below[0]}.", source)


def _tf1_bidirectional(word: Word, prefix: str, source: Source) -> Layers:
    """``bidirectional_dynamic_rnn`` of one cell for each direction."""
    cells = []
    for direction in ("fw", "bw"):
        start = f"{prefix}{direction}."
        below = [name.removeprefix(start).partition(".")[0] for name in source.arrays if name.startswith(start)]
        cells += _tf1_below(word, f"{start}{below[0]}.", source)[0]
    return [cells]


def _tf1_below(word: Word, prefix: str, source: Source) -> Layers:
    layout = find_layout(Word("gru"), prefix, source.arrays)
    if layout is None or layout.read not in (_tf1, _tf1_block, _tf1_cudnn):
        raise ExportError(f"{word}: the cell {prefix.rstrip('.')!r} is no GRU of TensorFlow 1")
    return layout.read(word, prefix, source)


# ---- arrays that are named one by one


def _plain(word: Word, prefix: str, source: Source) -> Layers:
    """``W``, ``U``, ``b_x``, ``b_h``, or those that the word names; conventions as it says, by default ``Network.gru``'s."""
    for pair in ("W", "U") if word.option("concatenated") is None else ("W",):
        source.get(word.option(pair) or prefix + pair, word, 2)
    given = {role: word.option(role) or prefix + role for role in ("W", "U", "b_x", "b_h")}
    W, U, b_x, b_h = (source.find(name, word, 2 if role in "WU" else 1) for role, name in given.items())
    for role in ("b_x", "b_h"):
        if word.option(role) is not None:
            source.get(given[role], word, 1)
    assert W is not None
    columns = orientation(word) == "columns"
    hidden = (W.T if columns else W).shape[0] // _gate_count(word)
    concatenated = word.option("concatenated")
    if concatenated not in (None, "xh", "hx"):
        raise ExportError(f"--layers: concatenated of {word} must be xh or hx, got {concatenated!r}")
    if concatenated is not None and (W.shape[0] if columns else W.shape[1]) <= hidden:
        raise ExportError(f"{word}: {given['W']!r} {list(W.shape)} has no room for input and state side by side")
    return _one(gru_arrays(W, U, b_x, b_h, columns=columns, concatenated=concatenated, gates=_gate_count(word)))


def _gate_count(word: Word) -> int:
    if word.name == "a_gru" and word.option("gates") is not None:  # with the rows of an update gate, or without
        return len(word.option("gates") or "")
    return 2 if word.option("reset") == "none" else 3


def _named_gates(word: Word, prefix: str, source: Source) -> Layers:
    """Every gate's arrays named by the word: ``gru(W_r=..., U_r=..., b_r=..., W_z=... )``."""
    gates = "zn" if word.option("reset") == "none" else GATES
    columns = orientation(word) == "columns"
    names = dict(word.options)
    parts: dict[str, list[Array]] = {"W": [], "U": [], "b_x": [], "b_h": []}
    for gate in gates:
        for kind in ("W", "U"):
            if f"{kind}_{gate}" not in names and not (kind == "U" and word.option("concatenated")):
                raise ExportError(f"--layers: {word} does not name {kind}_{gate}")
        for kind, options in (("W", ["W"]), ("U", ["U"]), ("b_x", ["b", "b_x"]), ("b_h", ["b_h"])):
            found = [names[f"{option}_{gate}"] for option in options if f"{option}_{gate}" in names]
            ndim = 2 if kind in "WU" else 1
            parts[kind] += [as_rows(source.get(name, word, ndim), columns) for name in found]
    return _one(stacked(word, parts, gates))


def stacked(word: Word, parts: dict[str, list[Array]], gates: str) -> dict[str, Array]:
    """The arrays of a GRU, of one array [H, ...] for each gate; a bias that only some of the gates have is refused."""
    wanted = [(kind, arrays) for kind, arrays in parts.items() if arrays]
    hidden = len(parts["W"][0])
    for kind, arrays in wanted:
        shape = {"W": arrays[0].shape, "U": (hidden, hidden)}.get(kind, (hidden,))
        if len(arrays) != len(gates) or any(array.shape != shape for array in arrays):
            given = ", ".join(str(list(array.shape)) for array in arrays)
            raise ExportError(
                f"{word}: {kind} of the gates {gates} have the shapes {given}, expected {len(gates)} of {list(shape)}"
            )
    whole = {kind: np.concatenate(arrays) for kind, arrays in wanted}
    return gru_arrays(
        whole["W"],
        whole.get("U"),
        whole.get("b_x"),
        whole.get("b_h"),
        concatenated=word.option("concatenated"),
        gates=len(gates),
    )


# ---- which layout


def _hand_written(word: Word, prefix: str, source: Source) -> Layers:
    from gru_engine.export.cells import read_cell

    return read_cell(word, prefix, source)


_ACTIVATION_CHOICES = ("activation", "gate_activation")

LAYOUTS = (
    Layout("nn.GRU of PyTorch", ("weight_ih_l0",), _torch, {"h0"}),
    Layout("nn.GRUCell of PyTorch", ("weight_ih",), _torch, {"h0"}),
    Layout("GRU of Keras", ("recurrent_kernel", "kernel"), _keras, {"reset", "h0", *_ACTIVATION_CHOICES}),
    Layout(
        "GRUCell of Flax linen",
        ("hr.kernel", "hz.kernel", "hn.kernel", "ir.kernel", "iz.kernel", "in.kernel"),
        _linen,
        {"h0", *_ACTIVATION_CHOICES},
    ),
    Layout(
        "MGUCell of Flax linen",
        ("hf.kernel", "hn.kernel", "if.kernel", "in.kernel"),
        _linen_mgu,
        {"h0", *_ACTIVATION_CHOICES},
    ),
    Layout("GRUCell of Flax nnx", ("dense_h.kernel", "dense_i.kernel"), _nnx, {"h0", *_ACTIVATION_CHOICES}),
    Layout("GRU of Haiku", ("w_h", "w_i"), _haiku, {"h0"}),
    Layout("LiGRU of SpeechBrain", ("u.weight", "w.weight", "norm.running_var"), read_light, {"h0", "activation"}),
    Layout(
        "CudnnCompatibleGRUCell of TensorFlow 1",
        ("candidate.hidden_projection.kernel", "candidate.input_projection.kernel", "gates.kernel"),
        _tf1_cudnn,
        {"h0"},
    ),
    Layout("GRUCell of TensorFlow 1", ("candidate.kernel", "gates.kernel"), _tf1, {"h0", "activation"}),
    Layout("GRUCell of TensorFlow 1", ("candidate.weights", "gates.weights"), _tf1, {"h0", "activation"}),
    Layout("GRUBlockCell of TensorFlow 1", ("w_ru", "w_c"), _tf1_block, {"h0"}),
    *(
        Layout(
            f"{kind} of TensorFlow 1", tuple(f"{start}{cell}.{mark}" for start in starts), read, {"h0", "activation"}
        )
        for kind, starts, read in (
            ("MultiRNNCell", ("cell_0.",), _tf1_stack),
            ("bidirectional_dynamic_rnn", ("fw.", "bw."), _tf1_bidirectional),
        )
        for cell in ("gru_cell", "gru_block_cell", "gru_block_cell_v2", "cudnn_compatible_gru_cell")
        for mark in ("gates.kernel", "gates.weights", "w_ru")
    ),
    Layout("GRU as Network.gru takes it", ("U", "W"), _plain, {"h0", *ROLES[:4], *CONVENTIONS} - {"reset_gate"}),
)
NAMED = Layout("GRU of named arrays", (), _plain, {"h0", *ROLES[:4], *CONVENTIONS} - {"reset_gate"})
NAMED_GATES = Layout(
    "GRU of named arrays", (), _named_gates, {"h0", *ROLES[4:], *CONVENTIONS} - {"gates", "reset_gate"}
)
HAND_WRITTEN = Layout("GRU cell with an array for each gate", (), _hand_written, {"h0", *CONVENTIONS} - {"gates"})


def find_layout(word: Word, prefix: str, names: Collection[str]) -> Layout | None:
    """The layout of a word's arrays; None if nothing with this name is recurrent."""
    from gru_engine.export.cells import is_cell

    given = {key for key, _ in word.options}
    if given & {"W", "U"}:
        return NAMED
    if given & set(ROLES[4:]):
        return NAMED_GATES
    for layout in LAYOUTS:
        if all(prefix + suffix in names for suffix in layout.needs):
            return layout
    return HAND_WRITTEN if is_cell(prefix, names) else None


def read_gru(word: Word, prefix: str, source: Source) -> Layers:
    """The layers of the module that a word names, with the conventions that the word says.

    Raises
    ------
    ExportError
        If there is no such module, one of its arrays has another shape, or the word says what its framework leaves no choice
        about.
    """
    if word.name in VARIANTS:
        from gru_engine.export.variants import read_variant

        return [[read_variant(word, prefix, source)]]
    return read_layout(word, prefix, source)


def read_layout(word: Word, prefix: str, source: Source, own: Collection[str] = ()) -> Layers:
    """The same of another word, for a cell with the arrays of a GRU; ``own`` are the options that are not the GRU's."""
    layout = find_layout(word, prefix, source.arrays)
    if layout is None:
        name = prefix.rstrip(".")
        raise ExportError(f"{word}: there is no GRU {name!r}; the arrays are {', '.join(source.arrays)}")
    for key, _ in word.options:
        if key not in layout.choices and key not in own:
            raise ExportError(f"--layers: {word}: a {layout.name} has no choice of {key}")
    said = conventions(word)
    return [
        [replace(cell, options={**cell.options, **said}) for cell in layer]
        for layer in layout.read(word, prefix, source)
    ]


def conventions(word: Word) -> dict[str, Any]:
    """The options of ``Network.gru`` that a word says."""
    said: dict[str, Any] = {key: word.option(key) for key in ("gates", "reset", "keep") if word.option(key) is not None}
    for key in _ACTIVATION_CHOICES:
        activation = word.activation_option(key)
        if activation is not None:
            said[key] = activation
    if word.option("clip") is not None:
        said["clip"] = word.number("clip", 0)
    return said


def recurrent_prefixes(names: list[str]) -> Iterator[str]:
    """What the names of recurrent modules' arrays begin with, in the order of the names."""
    from gru_engine.export.cells import is_cell

    known = set(names)
    seen: set[str] = set()
    marks = tuple(layout.needs[0] for layout in LAYOUTS)
    for name in names:
        found = [name.removesuffix(mark) for mark in marks if name.endswith(mark)]
        found += [prefix for prefix in _ancestors(name) if is_cell(prefix, known)]
        for prefix in found:
            if (
                prefix not in seen
                and (prefix == "" or prefix.endswith("."))
                and find_layout(Word("gru"), prefix, known)
            ):
                seen.add(prefix)
                yield prefix


def _ancestors(name: str) -> Iterator[str]:
    parts = name.split(".")
    for count in range(len(parts)):
        yield "".join(part + "." for part in parts[:count])
