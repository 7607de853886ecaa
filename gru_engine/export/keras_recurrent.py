# SPDX-License-Identifier: Apache-2.0
"""Keras's recurrent layers and wrappers: GRU, RNN with cells, Bidirectional, TimeDistributed (see ``keras_layers``).

What Keras does differently from everybody else: a layer with ``go_backwards`` returns its sequence in the order in which it was
computed, so reversed; what is read of such a sequence stays reversed until another such layer, or Bidirectional, turns it round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gru_engine.export import operations
from gru_engine.export.common import Array, ExportError, gru_arrays
from gru_engine.export.graph import AxisError, Dim, Ids, Tensor, cat
from gru_engine.export.keras_activations import gate
from gru_engine.export.keras_layers import Context, Value
from gru_engine.export.keras_model import Spec
from gru_engine.export.over_time import goes_back, is_steps

_GATES = "zrn"  # the order of the blocks of columns


# ---- weights


def reset_of(cell: Spec) -> str:
    """Where the reset gate acts: the shape of the bias says it, and the configuration must not contradict.

    Raises
    ------
    ExportError
        If the two do not agree.
    """
    if cell.kind == "CuDNNGRU":
        return "after"
    told = cell.config.get("reset_after")
    bias = cell.arrays.get("bias")
    if bias is None:
        return "after" if told else "before"  # before Keras 2.1.3 there was only "before", and no such option
    shown = bias.ndim == 2
    if told is not None and bool(told) != shown:
        raise ExportError(f"{cell} has reset_after={told}, but a bias of shape {list(bias.shape)}")
    return "after" if shown else "before"


def cell_arrays(cell: Spec) -> dict[str, Array]:
    """The arrays of a cell as the arguments of ``Network.gru``.

    Raises
    ------
    ExportError
        If their shapes do not fit each other.
    """
    kernel, recurrent, bias = cell.array("kernel"), cell.array("recurrent_kernel"), cell.arrays.get("bias")
    units = recurrent.shape[0]
    expected: dict[str, tuple[int, ...]] = {
        "kernel": (kernel.shape[0], 3 * units),
        "recurrent_kernel": (units, 3 * units),
    }
    if bias is not None:
        expected["bias"] = (6 * units,) if cell.kind == "CuDNNGRU" else (2, 3 * units)[bias.ndim == 1 :]
    for name, shape in expected.items():
        if cell.arrays[name].shape != shape:
            raise ExportError(f"{cell}: {name} has the shape {list(cell.arrays[name].shape)}, expected {list(shape)}")
    if int(cell.option("units", units)) != units:
        raise ExportError(f"{cell} has {cell.config['units']} units, but arrays for {units}")
    if cell.kind == "CuDNNGRU":
        # The columns of a gate are cuDNN's memory: the matrices there are the other way round, row by row.
        kernels = [np.ascontiguousarray(k).reshape(units, -1) for k in np.split(kernel, 3, axis=1)]
        recurrents = np.split(recurrent, 3, axis=1)
        halves = [] if bias is None else np.split(bias, 2)
        return gru_arrays(np.concatenate(kernels), np.concatenate(recurrents), *halves)
    rows = [] if bias is None else list(np.atleast_2d(bias))
    return gru_arrays(kernel, recurrent, *rows, columns=True)


def cells_of(layer: Spec) -> list[Spec]:
    """The GRU cells of a recurrent layer, in order.

    Raises
    ------
    ExportError
        If there is a cell of another kind.
    """
    if layer.kind in ("GRU", "CuDNNGRU"):
        return [layer]
    cells: list[Spec] = []
    waiting = list(layer.children.values())
    if not waiting:
        raise ExportError("it has no cell in its configuration")
    while waiting:
        cell = waiting.pop(0)
        if cell.kind == "StackedRNNCells":
            waiting[:0] = cell.children.values()
        elif cell.kind == "GRUCell":
            cells.append(cell)
        else:
            raise ExportError(f"its cell {cell} is not supported, only GRUCell and StackedRNNCells of it")
    return cells


# ---- layers


def _time_axes(layer: Spec) -> tuple[int, int]:
    """The axes of batch and time."""
    return (1, 0) if layer.option("time_major", False) else (0, 1)


def _initial(c: Context, state: Tensor | None, batch: Dim) -> Ids | None:
    if state is None:
        return None
    if state.rank != 2:
        raise AxisError(f"an initial state is {state}, expected [batch, units]")
    return operations.initial_states(c, state.unsqueeze(0), batch)[1][0]


def recurrent(c: Context, layer: Spec, x: Value, states: Sequence[Tensor | None], wrapped: bool = False) -> list[Value]:
    """One direction: the output and, with return_state, the new state of each cell.

    Parameters
    ----------
    layer : Spec
    x : Value
    states : sequence of Tensor or None
        The initial state of each cell.
    wrapped : bool
        Whether it is part of a Bidirectional, which makes the outputs of padding zero by itself.
    """
    t, (batch, time) = x.tensor, _time_axes(layer)
    if t.rank != 3 or t.dims[batch] != ("B",) or not (t.dims[time] == () or is_steps(t.dims[time])):
        raise AxisError(f"it reads [batch, time, features], but its input is {t}")
    stateful, single = bool(layer.option("stateful", False)), t.dims[time] == ()
    cells = cells_of(layer)
    if states and len(states) != len(cells):
        raise ExportError(f"it has {len(cells)} cells, but {len(states)} initial states")
    if single and not stateful and not states:
        raise AxisError(
            "it runs for a single time step, and its state is not carried on: stateful=True, or a state as an input"
        )
    backwards, sequences = bool(layer.option("go_backwards", False)), bool(layer.option("return_sequences", False))
    reverse = backwards != goes_back(t.dims[time])
    final = not sequences or bool(layer.option("return_state", False))
    if x.masked and goes_back(t.dims[time]):
        raise ExportError("it reads a reversed sequence with a mask, and Keras does not reverse the mask")
    if x.masked and not sequences and not wrapped and layer.option("zero_output_for_mask", False):
        raise ExportError("zero_output_for_mask makes its output zero where a sequence ends with padding")
    if c.masks.sources and (reverse or final):
        c.masks.read(layer, x)
    if x.masked and not (reverse or final):
        c.masks.used.append(str(layer))

    features, _ = t.spread(2)
    finals = []
    for i, cell in enumerate(cells):
        entries = {"activation": "tanh", "recurrent_activation": _default_gate(cell, c.major)}
        activation, gate_activation = (gate(cell.config.get(n, default), c.major, n) for n, default in entries.items())
        options: dict[str, Any] = {
            "gates": _GATES,
            "reset": reset_of(cell),
            "direction": "reverse" if reverse else "forward",
        }
        options |= {"activation": activation, "gate_activation": gate_activation}
        arrays = cell_arrays(cell)
        if arrays["W"].shape[1] != features.size:
            raise AxisError(f"{cell} has a kernel for {arrays['W'].shape[1]} features, but reads {features.size}")
        name = layer.name if len(cells) == 1 else f"{layer.name}.{i}"
        state = _initial(c, states[i], t.dims[batch]) if states else None
        node = c.graph.gru(features, arrays, options, state, name)
        features = node.ids
        if x.masked and not (reverse or wrapped or layer.option("zero_output_for_mask", False)):
            c.masks.carried.add(node.first)
        finals.append(features if single else c.graph.ends(features, "first" if reverse else "last"))

    axes: tuple[Dim, Dim] = (("B",), t.dims[time] if single else ("TR"[reverse] + str(t.dims[time][0])[1:],))
    dims = [axes[0], axes[1]] if batch == 0 else [axes[1], axes[0]]
    if sequences:
        output = Value(Tensor.of([*dims, (features.size,)], features), x.masked)
    else:
        output = Value(Tensor.of([("B",), (features.size,)], finals[-1]))
    if not layer.option("return_state", False):
        return [output]
    new = [Value(Tensor.of([("B",), (ids.size,)], ids)) for ids in finals]
    return [output, *(reversed(new) if any(s.option("reverse_state_order", False) for s in layer.walk()) else new)]


def _default_gate(cell: Spec, major: int) -> str:
    return "sigmoid" if major >= 3 or cell.kind == "CuDNNGRU" else "hard_sigmoid"


def bidirectional(c: Context, spec: Spec, x: Value, states: Sequence[Tensor | None]) -> list[Value]:
    """Two layers, of which one runs from the end of the sequence to its start, merged."""
    forward, backward = spec.children["forward_layer"], spec.children["backward_layer"]
    for layer in (forward, backward):
        if layer.kind not in ("GRU", "RNN", "CuDNNGRU"):
            raise ExportError(f"it wraps {layer}; only GRUs are supported")
    half = len(states) // 2
    y, *new = recurrent(c, forward, x, states[:half], wrapped=True)
    y_rev, *new_rev = recurrent(c, backward, x, states[half:], wrapped=True)
    if forward.option("return_sequences", False):
        y_rev = y_rev.but(c.graph.flip(y_rev.tensor, _time_axes(forward)[1]))
    a, b, mode = y.tensor, y_rev.tensor, spec.config.get("merge_mode", "concat")
    if mode is None:
        return [y, y_rev, *new, *new_rev]
    if mode == "concat":
        merged = cat([a, b], a.rank - 1)
    elif mode in ("sum", "ave"):
        merged = c.graph.add(a, b)
        merged = merged if mode == "sum" else c.graph.affine(merged, 0.5, 0.0)
    elif mode == "mul":
        merged = c.graph.multiply(a, b)
    else:
        raise ExportError(f"merge_mode={mode!r} is not known")
    return [y.but(merged), *new, *new_rev]
