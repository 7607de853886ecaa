# SPDX-License-Identifier: Apache-2.0
"""Modules of PyTorch around a hand-written GRU cell: what the cell computes is found out by running it.

Names and shapes say which array belongs to which gate (``gru_engine.export.cells``). The cell is run in float64 at random points
beside every form that these arrays can have: reset gate before, after, around everything or none; the update gate keeping the
old or the new state; the state before or behind the input; the update gate standing in for the reset gate; gates with a memory;
independent input and forget gates; an output gate. The form that gives the same numbers is the cell's; if none does, the cell is
refused.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from gru_engine import cells as functions
from gru_engine import reference
from gru_engine.builder import Value
from gru_engine.export import arrays as _arrays
from gru_engine.export import cells, chain, common, layouts
from gru_engine.export.common import Array, ExportError, Run
from gru_engine.export.layouts import Cell
from gru_engine.export.words import Arrays, Source, Word
from gru_engine.layers import State
from gru_engine.network import Network
from gru_engine.reference_arguments import by_name

_SAME = 1e-10  # largest difference between two ways to compute the same in float64
_POINTS = 3

_GRUS = {
    "concatenated": ("hx", "xh", None),
    "orientation": (None, "rows", "columns"),
    "keep": ("new", "old"),
    "reset": ("before", "after", "all", "none"),
    "reset_gate": (None, "z"),
    "activation": (None, "relu"),
}
_VARIANTS = {  # and what a gate's name says
    "gates": (None, "without o"),
    "concatenated": ("hx", "xh", None),
    "orientation": (None, "rows", "columns"),
    "activation": (None, "relu"),
}
_OWN_GATES = {"gate_memory_gru": "rzn", "input_forget_gru": "ifn"}
_STARTS = {"gate_memory_gru": (0, 1, 1), "input_forget_gru": (0,)}  # what h, and r and z, are before the first step


Step = Callable[[nn.Module, list[torch.Tensor]], "tuple[torch.Tensor, list[torch.Tensor]] | None"]
"""One step of a cell: of the input and its states the output and the new states."""


@dataclass(frozen=True)
class Found:
    """What a cell computes, and how to call it.

    Attributes
    ----------
    word : Word
        Without the cell's name.
    call : callable, optional
        Makes one step of a variant of ``gru_engine.cells`` that is called by itself.
    """

    word: Word
    call: Step | None = None


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
    found: dict[str, Found] = {}
    refused: dict[str, ExportError] = {}
    for prefix, child in _cells(module, arrays):
        try:
            found[prefix.rstrip(".")] = _understood(child)
        except ExportError as error:
            refused[prefix.rstrip(".")] = error
    said = {name: cell.word for name, cell in found.items()}
    if layers is None:
        if refused:
            raise next(iter(refused.values()))
        words = chain.infer(arrays, said)
    else:
        words = [_completed(word, said, refused) for word in chain.parse(layers)]
    text = " ".join(map(str, words))
    built = _arrays.build(arrays, text)
    call = found[""].call if "" in found and words[0].name in _STARTS else None
    return built, text, _runner(module, built.network, call and (call, _STARTS[words[0].name]))


def _cells(module: nn.Module, arrays: Arrays) -> Iterator[tuple[str, nn.Module]]:
    """The hand-written cells, the outermost alone, and what their arrays' names begin with."""
    found: list[str] = []
    for name, child in module.named_modules():
        prefix = f"{name}." if name else ""
        if cells.is_cell(prefix, arrays) and not any(prefix.startswith(other) for other in found):
            found.append(prefix)
            yield prefix, child


def _completed(word: Word, said: dict[str, Word], refused: dict[str, ExportError]) -> Word:
    """The word of a hand-written cell with what its module has shown; what is said of variants is shown by the whole module."""
    name = word.prefix.rstrip(".")
    if word.name == "gru" and name in refused:
        raise refused[name]
    known = said.get(name)
    if known is None or word.name not in ("gru", known.name):
        return word
    more = tuple((key, value) for key, value in known.options if word.option(key) is None)
    return Word(known.name, word.arguments, word.options + more)


# ---- a cell by itself


def identify(cell: nn.Module) -> Word:
    """What a hand-written cell computes, as a word: ``gru``, ``gate_memory_gru`` or ``input_forget_gru``, with its options.

    Raises
    ------
    ExportError
        If it is none of the known forms.
    """
    return _understood(cell).word


def _understood(cell: nn.Module) -> Found:
    wide = copy.deepcopy(cell).double().eval()
    arrays = _arrays.flatten(wide.state_dict())
    closest, tried = np.inf, 0
    refusal: ValueError | None = None
    for word in _forms():
        try:
            form = layouts.read_gru(word, "", Source(arrays))[0][0]
            difference, call = _difference(wide, form) if word.name == "gru" else _variant_difference(wide, form)
        except ValueError as error:  # the arrays do not have this form
            refusal = refusal or error
            continue
        tried += 1
        closest = min(closest, difference)
        if difference < _SAME:
            return Found(word, call)
    if not tried and refusal is not None:
        raise ExportError(str(refusal)) from refusal
    raise ExportError(
        f"{type(cell).__name__} computes none of the known forms of a GRU: {tried} were tried, the closest differs by "
        f"{closest:.1e}"
    )


def _forms() -> Iterator[Word]:
    for values in itertools.product(*_GRUS.values()):
        options = {key: value for key, value in zip(_GRUS, values) if value is not None}
        if options["reset"] != "none" or "reset_gate" not in options:
            yield Word("gru", (), tuple(options.items()))
    for name, gates in _OWN_GATES.items():
        for values in itertools.product(*_VARIANTS.values()):
            options = {key: value for key, value in zip(_VARIANTS, values) if value is not None}
            yield Word(name, (), tuple((options | {"gates": gates} if "gates" in options else options).items()))


def _difference(cell: nn.Module, form: Cell) -> tuple[float, None]:
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
    return worst, None


def _variant_difference(cell: nn.Module, form: Cell) -> tuple[float, Step | None]:
    """How far a cell is from a variant of ``gru_engine.cells`` at random points, and how it is called for that."""
    random = np.random.default_rng(0)
    points = []
    for _ in range(_POINTS):
        x, h = random.standard_normal(form.inputs), random.uniform(-1, 1, form.hidden)
        own = {"r0": random.random(form.hidden), "z0": random.random(form.hidden)} if form.function in _MEMORY else {}
        net = Network()
        y = getattr(functions, form.function)(net, net.input(form.inputs), **form.arrays, **form.options, h0=h, **own)
        for value in (y, *_fed(net)):
            net.output(value)
        outputs = reference.run(net, x[np.newaxis])[0]
        points.append(([x, h, *own.values()], np.split(outputs, len(outputs) // form.hidden)))  # y, h, r, z
    closest, found = np.inf, None
    for order, nested in _arrangements(len(points[0][0])):
        returned = [[v.numpy()[0] for v in _arranged(cell, map(_row, a), order, nested)] for a, _ in points]
        if not returned[0] or len({len(values) for values in returned}) > 1:
            continue
        places, worst = [], 0.0
        for wanted in range(len(points[0][1])):
            errors = [
                max(
                    float(np.abs(values[i] - point[1][wanted]).max())
                    if values[i].shape == point[1][wanted].shape
                    else np.inf
                    for values, point in zip(returned, points)
                )
                for i in range(len(returned[0]))
            ]
            places.append(int(np.argmin(errors)))
            worst = max(worst, min(errors))
        if worst < closest:
            closest, found = worst, _stepper(order, nested, places)
    return closest, found


_MEMORY = ("gate_memory_gru",)


def _fed(net: Network) -> Iterator[Value]:
    """What the states of a network become."""
    for layer in list(net._layers):
        if isinstance(layer, State):
            yield Value(net, layer.source)


def _row(array: Array) -> torch.Tensor:
    return torch.from_numpy(array)[None]


def _arrangements(count: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """The orders in which input (0) and states may be arguments, and where a tuple of the states stands (-1: nowhere)."""
    for order in itertools.permutations(range(count)):
        yield order, -1
    if count > 2:
        for states in itertools.permutations(range(1, count)):
            yield (0, *states), 1
            yield (0, *states), 0


def _arranged(
    cell: nn.Module, arguments: Iterable[torch.Tensor], order: tuple[int, ...], nested: int
) -> list[torch.Tensor]:
    values = list(arguments)
    ordered: list[Any] = [values[i] for i in order]
    if nested >= 0:
        x, states = ordered[0], tuple(ordered[1:])
        ordered = [x, states] if nested else [states, x]
    return _call(cell, *ordered)


def _stepper(order: tuple[int, ...], nested: int, places: list[int]) -> Step:
    def step(cell: nn.Module, arguments: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]] | None:
        values = _arranged(cell, arguments, order, nested)
        return (values[places[0]], [values[place] for place in places[1:]]) if len(values) > max(places) else None

    return step


def _steps(cell: nn.Module, x: Array, h: Array) -> Iterator[Array]:
    """What a cell may mean by its new state, called either way round."""
    arguments = [torch.from_numpy(a)[None] for a in (x, h)]
    for order in (arguments, arguments[::-1]):
        for value in _call(cell, *order):
            if value.shape == (1, h.size):
                yield value[0].numpy()


def _call(module: nn.Module, *arguments: Any) -> list[torch.Tensor]:
    """The tensors that a module returns, one after the other; none where it does not take such arguments."""
    try:
        with torch.inference_mode():
            result = module(*arguments)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):  # whatever wrong shapes lead to
        return []
    return list(_tensors(result))


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        for value in result:
            yield from _tensors(value)


# ---- the module beside its network


def _runner(module: nn.Module, net: Network, own: tuple[Step, tuple[int, ...]] | None = None) -> Run:
    """How to run the module on x [B, T, I]: the first way in which it gives what the network gives."""
    x = next(iter(by_name(net, common.random_inputs(net, 3, 7)).values()))  # a chain has one input
    expected = reference.run(net, x)
    wide = copy.deepcopy(module).double()
    closest = np.inf
    for way in (*_ways(net), *([] if own is None else [_way_of(net, *own)])):
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


def _way_of(net: Network, step: Step, starts: tuple[int, ...]) -> Callable[[nn.Module, Array], list[Array]]:
    """How to run a cell that is called as a variant was found to be."""
    hidden = net.state_size // len(starts)

    def run(module: nn.Module, x: Array) -> list[Array]:
        dtype = next(module.parameters()).dtype
        states = [torch.full((len(x), hidden), float(start), dtype=dtype) for start in starts]
        rows = []
        for now in np.moveaxis(x, 1, 0):
            result = step(module, [torch.from_numpy(np.ascontiguousarray(now)), *states])
            if result is None:
                return []
            rows.append(result[0].numpy())
            states = result[1]
        return [np.stack(rows, axis=1)]

    return run


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
