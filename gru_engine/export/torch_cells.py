# SPDX-License-Identifier: Apache-2.0
"""Modules of PyTorch around a hand-written GRU cell: what the cell computes is found out by running it.

Names and shapes say which array belongs to which gate (``gru_engine.export.cells``). The cell is run in float64 at random points
beside every form that these arrays can have: reset gate before, after, around everything or none; the update gate keeping the
old or the new state; the state before or behind the input; the update gate standing in for the reset gate. The form that gives
the same numbers is the cell's; if none does, the cell is refused.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from gru_engine import reference
from gru_engine.export import arrays as _arrays
from gru_engine.export import cells, chain, common
from gru_engine.export.common import Array, ExportError, Run
from gru_engine.export.layouts import Cell
from gru_engine.export.words import Arrays, Source, Word
from gru_engine.network import Network

_SAME = 1e-10  # largest difference between two ways to compute the same in float64
_POINTS = 3

_FORMS = {
    "concatenated": ("hx", "xh", None),
    "orientation": (None, "rows", "columns"),
    "keep": ("new", "old"),
    "reset": ("before", "after", "all", "none"),
    "reset_gate": (None, "z"),
    "activation": (None, "relu"),
}


def from_module(module: nn.Module, layers: str | None = None) -> Network:
    """Turn a cell, or a module around cells, into a network.

    Parameters
    ----------
    module : nn.Module
        A cell with ``forward(x, h)`` (in either order) that returns the new state, alone or in a tuple; or a module that runs
        such cells over sequences and is otherwise a chain of layers. It is copied; the copy is put into eval mode.
    layers : str, optional
        The chain of layers, as ``"gru(cell) linear(fc)"``, where names and shapes leave a choice; what a hand-written cell
        computes needs not be said.

    Returns
    -------
    Network
        Compared with the module on random inputs.

    Raises
    ------
    ExportError
        If a cell computes none of the known forms, or the module something else than the chain.
    """
    return describe(module, layers)[0].network


def describe(module: nn.Module, layers: str | None = None) -> tuple[chain.Built, str, Run]:
    """Like ``from_module``: what was understood, the description in the ``--layers`` language, and how to run the module."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {type(module).__name__}")
    module = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    arrays = _arrays.flatten(module.state_dict())
    said = {prefix.rstrip("."): identify(child) for prefix, child in _cells(module, arrays)}
    if layers is None:
        words = chain.infer(arrays, said)
    else:
        words = [_completed(word, said) for word in chain.parse(layers)]
    text = " ".join(map(str, words))
    built = _arrays.build(arrays, text)
    return built, text, _runner(module, built.network)


def _cells(module: nn.Module, arrays: Arrays) -> Iterator[tuple[str, nn.Module]]:
    """The hand-written cells, the outermost alone, and what their arrays' names begin with."""
    found: list[str] = []
    for name, child in module.named_modules():
        prefix = f"{name}." if name else ""
        if cells.is_cell(prefix, arrays) and not any(prefix.startswith(other) for other in found):
            found.append(prefix)
            yield prefix, child


def _completed(word: Word, said: dict[str, dict[str, str]]) -> Word:
    """The word of a hand-written cell with what its module has shown."""
    known = said.get(word.prefix.rstrip("."), {}) if word.name == "gru" else {}
    more = tuple((key, value) for key, value in known.items() if word.option(key) is None)
    return Word(word.name, word.arguments, word.options + more)


# ---- a cell by itself


def identify(cell: nn.Module) -> dict[str, str]:
    """What a hand-written cell computes, as options of the word ``gru``.

    Raises
    ------
    ExportError
        If it is none of the known forms; an output gate and independent input and forget gates by name.
    """
    wide = copy.deepcopy(cell).double().eval()
    arrays = _arrays.flatten(wide.state_dict())
    closest, tried = np.inf, 0
    refusal: ValueError | None = None
    for values in itertools.product(*_FORMS.values()):
        options = {key: value for key, value in zip(_FORMS, values) if value is not None}
        if options["reset"] == "none" and "reset_gate" in options:
            continue
        word = Word("gru", (), tuple(options.items()))
        try:
            difference = _difference(wide, cells.read_cell(word, "", Source(arrays))[0][0])
        except ValueError as error:  # the arrays do not have this form
            refusal = error
            continue
        tried += 1
        closest = min(closest, difference)
        if difference < _SAME:
            return options
    if not tried and refusal is not None:
        raise ExportError(str(refusal)) from refusal
    raise ExportError(
        f"{type(cell).__name__} computes none of the known forms of a GRU: {tried} were tried, the closest differs by "
        f"{closest:.1e}"
    )


def _difference(cell: nn.Module, form: Cell) -> float:
    """How far a cell is from a form of it at random points, in float64."""
    random = np.random.default_rng(0)
    worst = 0.0
    for _ in range(_POINTS):
        x, h = random.standard_normal(form.inputs), random.uniform(-1, 1, form.hidden)
        net = Network()
        arguments: dict[str, Any] = {**form.arrays, **form.options, "h0": h}
        net.output(net.gru(net.input(form.inputs), **arguments))
        expected = reference.run(net, x[np.newaxis])[0]
        errors = [float(np.abs(new - expected).max()) for new in _steps(cell, x, h)]
        worst = max(worst, min(errors, default=np.inf))
    return worst


def _steps(cell: nn.Module, x: Array, h: Array) -> Iterator[Array]:
    """What a cell may mean by its new state, called either way round."""
    arguments = [torch.from_numpy(a)[None] for a in (x, h)]
    for order in (arguments, arguments[::-1]):
        for value in _call(cell, *order):
            if value.shape == (1, h.size):
                yield value[0].numpy()


def _call(module: nn.Module, *arguments: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that a module returns; none where it does not take such arguments."""
    try:
        with torch.inference_mode():
            result = module(*arguments)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):  # whatever wrong shapes lead to
        return []
    values = result if isinstance(result, (tuple, list)) else [result]
    return [value for value in values if isinstance(value, torch.Tensor)]


# ---- the module beside its network


def _runner(module: nn.Module, net: Network) -> Run:
    """How to run the module on x [B, T, I]: the first way in which it gives what the network gives."""
    x = common.random_inputs(net, 3, 7)
    expected = reference.run(net, x)
    wide = copy.deepcopy(module).double()
    closest = np.inf
    for way in _ways(net):
        for number, value in enumerate(way(wide, x.astype(np.float64) if x.dtype.kind == "f" else x)):
            if value.shape != expected.shape:
                continue
            error = float(np.abs(value - expected).max())
            closest = min(closest, error)
            if error <= 1e-6 * np.abs(expected).max():
                return lambda x, way=way, number=number: way(module, x)[number]  # type: ignore[misc]
    shown = "it returned nothing of the right shape" if closest == np.inf else f"the closest differs by {closest:.1e}"
    raise ExportError(
        f"{type(module).__name__} computes something else than the chain that was understood, or takes other arguments: {shown}"
    )


def _ways(net: Network) -> Iterator[Callable[[nn.Module, Array], list[Array]]]:
    hidden = net.state_size

    def sequence(module: nn.Module, x: Array) -> list[Array]:
        return [value.numpy() for value in _call(module, torch.from_numpy(x))]

    def with_state(module: nn.Module, x: Array) -> list[Array]:
        dtype = next(module.parameters()).dtype
        return [v.numpy() for v in _call(module, torch.from_numpy(x), torch.zeros(len(x), hidden, dtype=dtype))]

    def time_first(module: nn.Module, x: Array) -> list[Array]:
        values = _call(module, torch.from_numpy(np.ascontiguousarray(x.swapaxes(0, 1))))
        return [value.numpy().swapaxes(0, 1) if value.dim() == 3 else value.numpy() for value in values]

    def steps(module: nn.Module, x: Array, turned: bool = False) -> list[Array]:
        """Each value that a module with forward(x, h) returns, and the last of it as the next state."""
        state = torch.zeros(len(x), hidden, dtype=next(module.parameters()).dtype)
        rows: list[list[Array]] = []
        for step in range(x.shape[1]):
            now = torch.from_numpy(np.ascontiguousarray(x[:, step]))
            values = _call(module, *((state, now) if turned else (now, state)))
            if not values or values[-1].shape != state.shape:
                return []
            state = values[-1]
            rows.append([value.numpy() for value in values])
        return [np.stack(series, axis=1) for series in zip(*rows)]

    def turned_steps(module: nn.Module, x: Array) -> list[Array]:
        return steps(module, x, turned=True)

    yield from (sequence, steps, turned_steps, with_state, time_first)
