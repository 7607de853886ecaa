# SPDX-License-Identifier: Apache-2.0
"""The reference: a ``Network`` executed by short, obvious NumPy in float64. It is the executable specification.

Nothing here is fast. A network is computed layer by layer, each over the whole sequence, so that every function is one
definition; the layers of a loop together, step by step. Values are arrays ``[B, T, width]`` (B sequences, T time
steps), or ``[B, width]`` where there is one value per sequence; tokens are ``[B, T]`` int64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.layers import (
    NOT_FED,
    Activate,
    Add,
    Affine,
    Array,
    Attend,
    Attention,
    Axis,
    Blend,
    Concat,
    Dense,
    Embedding,
    First,
    Gru,
    Last,
    Layer,
    Max,
    Maximum,
    Mean,
    Multiply,
    Norm,
    Repeat,
    Slice,
    State,
    Subsample,
    Window,
    ends_sequence,
    is_network_input,
)
from gru_engine.network import Network
from gru_engine.numerics import LEAST_MAGNITUDE
from gru_engine.order import is_loop, units
from gru_engine.reference_arguments import (
    Sequences,
    by_name,
    checked_contexts,
    checked_inputs,
    checked_sequences,
    checked_state,
    padded,
    without_padding,
)


def run(
    net: Network,
    x: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    *,
    context: npt.ArrayLike | Mapping[str, npt.ArrayLike] | None = None,
    state: npt.ArrayLike | None = None,
    lengths: npt.ArrayLike | None = None,
    reset: npt.ArrayLike | None = None,
    return_state: bool = False,
    padding: str = "zero",
    dtype: str | None = None,
    arithmetic: npt.DTypeLike = np.float64,
) -> Any:
    """The outputs of a network for whole sequences.

    Parameters
    ----------
    net : Network
    x : array_like [T, I] or [B, T, I], or integer tokens [T] or [B, T], or dict of str to these
        One sequence, or B of them. With one sequence the axis B is missing from all other arguments and results. Several
        inputs are a dict of arrays by name or, if all of them are vectors, one array of all side by side.
    context : array_like [C] or [B, C], or dict of str to these, optional
        What each sequence is given once (``Network.context``): one for all, or one for each. Several are a dict by name,
        or one array of all side by side.
    state : array_like [B, state_size], optional
        The states of the layers one after the other (``Network.state_size``) before the first step: of a forward layer
        step 0, of a reverse layer the last valid step. None stands for the initial state.
    lengths : array_like int [B], optional
        Number of valid steps of each sequence, 0 to T; the steps from there on are padding: they change no state, and a
        reverse layer starts at the sequence's own end. None: all T.
    reset : array_like bool [B, T] or [T], optional
        Where true, a new sequence begins at this step: a forward layer comes to it with its initial state; a reverse
        layer, which comes from the other side, comes so to the step before; a window has no steps of the other side.
        Values per sequence are of all valid steps.
    return_state : bool
        Whether to return the state after the last step as well: of a forward layer after the last valid step, of a
        reverse layer after step 0.
    padding : {"zero", "carry"}
        The outputs of padding steps: zeros (ONNX, PyTorch), or the last valid output again (a Keras mask; zeros if
        there is none).
    dtype : {"float32", "bfloat16", "float16", "int8"}, optional
        Computes what a file of this type is meant to compute: with its weights (``Network.rounded``) and, of int8, with
        vectors that are rounded to int8 before each product. None: with the weights as they are.
    arithmetic : data type
        Of the arithmetic.

    Returns
    -------
    y : array [B, T, O], or [B, O] if the outputs are one per sequence
        With other time axes (``Network.subsample``, ``repeat``) ``Network.axis.count(T)`` steps in place of T.
    state : array [B, state_size]
        Only with ``return_state``.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit the network, a sequence has less than ``Network.least_steps``, or ``reset`` is given
        to a network that has other time axes.
    """
    net = net.pruned() if dtype is None else net.pruned().rounded(dtype)
    multiply = int8_product if dtype == "int8" else product
    given, one = checked_inputs(net, x)
    batch, steps = given[0].shape[:2]
    sequences = checked_sequences(net, batch, steps, one, lengths, reset)
    if padding not in ("zero", "carry"):
        raise ValueError(f"padding must be 'zero' or 'carry', got {padding!r}")
    given = [without_padding(layer, array, sequences, arithmetic) for layer, array in zip(net.layers, given)]
    before = checked_state(net, state, one, batch, arithmetic)
    given += checked_contexts(net, context, one, batch, arithmetic)

    layers = [_cast(layer, arithmetic) for layer in net.layers]
    times = Times(sequences)
    after = list(before)
    values: list[Array] = []
    for unit in units(layers, range(len(layers))):
        for index in unit:
            layer = layers[index]
            if isinstance(layer, (Gru, State)) and layer.start != NOT_FED:  # known before: of contexts alone
                layers[index] = _starting_from(layer, values[layer.start])
                if state is None:
                    after[index] = before[index] = values[layer.start]
        if is_loop(layers, unit):
            loop(layers, unit, values, after, times.on(layers[unit[0]].axis), multiply)
            continue
        index = unit[0]
        layer, inputs = layers[index], [values[i] for i in layers[index].inputs]
        if is_network_input(layer):
            value = given[index]
        elif isinstance(layer, Gru):
            value, after[index] = gru(layer, inputs[0], before[index], times.on(layer.axis), multiply)
        elif isinstance(layer, Window):
            value, after[index] = window(layer, inputs[0], before[index], times.on(layer.axis))
        elif isinstance(layer, Repeat):
            value = np.repeat(inputs[0][:, np.newaxis], times.on(layer.axis).valid.shape[1], axis=1)
        elif isinstance(layer, Subsample):
            value = inputs[0][:, layer.first :: layer.stride][:, : times.on(layer.axis).valid.shape[1]]
        elif isinstance(layer, Attention):
            value = attention(layer, inputs, times.on(layers[layer.inputs[1]].axis))
        else:
            axis = layers[layer.inputs[0]].axis if ends_sequence(layer) else layer.axis
            value = evaluate(layer, inputs, times.on(axis), multiply)
        values.append(value)

    y = np.concatenate([values[i] for i in net.output_layers.values()], axis=-1)
    y = y if net.per_sequence else padded(y, times.on(net.axis), padding)
    new_state = np.concatenate(after, axis=-1)
    y, new_state = (y[0], new_state[0]) if one else (y, new_state)
    return (y, new_state) if return_state else y


def step(
    net: Network,
    x: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    state: npt.ArrayLike | None = None,
    *,
    context: npt.ArrayLike | Mapping[str, npt.ArrayLike] | None = None,
    dtype: str | None = None,
) -> tuple[Array, Array]:
    """One step of one stream, or of n streams at once.

    Parameters
    ----------
    net : Network
        It must be causal.
    x : array_like [I] or [n, I], or an integer token or tokens [n], or dict of str to these
    state : array_like [state_size] or [n, state_size], optional
        None stands for the initial state.
    context, dtype
        As for ``run``.

    Returns
    -------
    y : array [O] or [n, O]
    state : array [state_size] or [n, state_size]
    """
    if not net.causal:
        raise ValueError("a network that needs later steps (a reverse GRU, first, mean ...) cannot be stepped; use run")
    given = by_name(net, x)
    one = all(array.ndim == (1 if isinstance(net.inputs[name], slice) else 0) for name, array in given.items())
    steps = {name: array[np.newaxis] if one else np.expand_dims(array, 1) for name, array in given.items()}
    y, state = run(net, steps, context=context, state=state, return_state=True, dtype=dtype)
    if not net.per_sequence:
        y = y[0] if one else y[:, 0]
    return y, np.asarray(state)


# ---- the layers


class Times:
    """The sequences on each time axis of a network."""

    def __init__(self, sequences: Sequences) -> None:
        self._on = {Axis(): sequences}

    def on(self, axis: Axis) -> Sequences:
        """What the sequences look like there; padding steps are behind the valid ones."""
        if axis not in self._on:
            root = self._on[Axis()]
            lengths = axis.count(root.lengths)
            valid = np.arange(axis.count(root.valid.shape[1])) < lengths[:, np.newaxis]
            self._on[axis] = Sequences(valid, np.zeros_like(valid))
        return self._on[axis]


Product = Callable[[Array, Array], Array]
"""A product W x of weights [O, I] and vectors [..., I], or tokens [...]."""


def evaluate(layer: Layer, inputs: list[Array], sequences: Sequences, multiply: Product) -> Array:
    """The value of a layer that keeps no state, from the values of its inputs."""
    a = inputs[0]
    match layer:
        case Embedding():
            return np.asarray(layer.E[a])
        case Dense():
            return layer.activation(multiply(layer.W, a) + layer.b)
        case Concat():
            return np.concatenate(inputs, axis=-1)
        case Add():
            return np.asarray(a + inputs[1])
        case Multiply():
            return np.asarray(a * inputs[1])
        case Maximum():
            return np.asarray(np.maximum(a, inputs[1]))
        case Affine():
            return np.asarray(a * layer.scale + layer.shift)
        case Activate():
            return layer.activation(a)
        case Blend():
            z, a, b = inputs
            return np.asarray(z * a + (1 - z) * b)
        case Slice():
            return np.asarray(a[..., layer.first : layer.first + layer.width])
        case Norm():
            return norm(layer, a)
        case Mean():
            return np.asarray(_valid(a, sequences, 0).sum(axis=1) / sequences.lengths[:, np.newaxis])
        case Max():
            return np.asarray(_valid(a, sequences, -np.inf).max(axis=1, initial=-np.inf))
        case Attend():
            return attend(a, inputs[1], sequences)
        case Repeat():
            return np.repeat(a[:, np.newaxis], sequences.valid.shape[1], axis=1)
        case Last():
            return np.asarray(a[np.arange(len(a)), sequences.lengths - 1])
        case First():
            return np.asarray(a[:, 0])
    raise TypeError(f"the reference does not know the layer {layer!r}")


def product(W: Array, x: Array) -> Array:
    """W x; tokens stand for their one-hot vectors, which pick columns of W."""
    return np.asarray(W.T[x] if x.dtype.kind == "i" else x @ W.T)


def int8_product(W: Array, x: Array) -> Array:
    """W x with each vector rounded to 127ths of its largest magnitude (docs/NUMERICS.md, section 6).

    Tokens pick columns of W as always. A vector with a NaN or an infinity gives NaN.
    """
    if x.dtype.kind == "i":
        return product(W, x)
    magnitude = np.maximum(np.abs(x).max(axis=-1, keepdims=True, initial=0), LEAST_MAGNITUDE)
    finite = np.isfinite(magnitude)
    q = np.rint(x / np.where(finite, magnitude, np.nan) * 127)
    return np.asarray(product(W, q) * (magnitude / 127))


def norm(layer: Norm, a: Array) -> Array:
    """Ba, Kiros, Hinton 2016 (arXiv:1607.06450); root mean square: Zhang, Sennrich 2019 (arXiv:1910.07467)."""
    parts = a.reshape(*a.shape[:-1], layer.parts, -1)
    centred = parts if layer.rms else parts - parts.mean(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):  # epsilon may be 0
        normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + layer.epsilon)
    return np.asarray(normal.reshape(a.shape) * layer.scale + layer.shift)


def attend(scores: Array, values: Array, sequences: Sequences) -> Array:
    """Means [B, V] of values [B, T, V], weighted by the softmax over T of scores [B, T, S]."""
    scores = _valid(scores, sequences, -np.inf)
    e = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
    weights = e / e.sum(axis=1, keepdims=True)
    spread = np.repeat(weights, values.shape[-1] // scores.shape[-1], axis=-1)
    return np.asarray((spread * _valid(values, sequences, 0)).sum(axis=1))


def attention(layer: Attention, inputs: list[Array], sequences: Sequences) -> Array:
    """Means [B, T, V] of values [B, S, V], weighted by the softmax over S of scores of query [B, T, K] and keys [B, S, K].

    Stored keys and values are [B, S * K] and [B, S * V]; a fourth input [B, 1] says how many of the S rows count.
    Luong et al. 2015 (arXiv:1508.04025), Vaswani et al. 2017 (arXiv:1706.03762); additive: Bahdanau et al. 2015
    (arXiv:1409.0473).
    """
    query, keys, values = inputs[:3]
    if layer.rows:
        keys, values = (a.reshape(len(a), layer.rows, -1) for a in (keys, values))
        most = np.full((len(keys), 1), float(layer.rows))
        count = most if len(inputs) == 3 else np.where(inputs[3] < most, np.maximum(np.floor(inputs[3]), 1), most)
        sequences = Sequences(np.arange(layer.rows) < count, np.zeros(keys.shape[:2], bool))
    parts = []
    seen = sequences.valid[:, np.newaxis]
    if layer.causal:
        seen = seen & np.tri(query.shape[1], keys.shape[1], dtype=bool)
    for head in range(layer.heads):
        q, k, a, weights = (np.split(x, layer.heads, axis=-1)[head] for x in (query, keys, values, layer.v))
        if layer.additive:
            scores = np.tanh(q[:, :, np.newaxis] + k[:, np.newaxis]) @ weights
        else:
            scores = layer.scale * (q @ k.transpose(0, 2, 1))
        scores = np.where(seen, scores, -np.inf)
        with np.errstate(invalid="ignore"):  # steps that see nothing are padding
            e = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
            parts.append((e / e.sum(axis=-1, keepdims=True)) @ _valid(a, sequences, 0))
    return np.concatenate(parts, axis=-1)


def _valid(a: Array, sequences: Sequences, fill: float) -> Array:
    """The values [B, T, width] with others in place of those of padding steps."""
    return np.where(sequences.valid[..., np.newaxis], a, fill)


def window(layer: Window, x: Array, before: Array, sequences: Sequences) -> tuple[Array, Array]:
    """All values [B, T, taps * I] and the state after the last step, from the one before the first step.

    The state [B, history * I] is the inputs of the steps before, the oldest first.
    """
    batch, steps, columns = x.shape
    history = before.reshape(batch, layer.history, columns)
    padding = np.zeros((batch, layer.ahead, columns), x.dtype)
    known = np.concatenate([history, x, padding], axis=1)
    # Steps of different sequences have different numbers here; what stands before the first step continues into it.
    number = np.cumsum(sequences.reset, axis=1)
    outside = np.full((batch, layer.ahead), -1)
    number = np.concatenate(
        [np.zeros((batch, layer.history), int), np.where(sequences.valid, number, -1), outside], axis=1
    )
    value = np.zeros((batch, steps, layer.taps, columns), x.dtype)
    for t in range(steps):
        at = t + np.arange(layer.taps) * layer.dilation
        same = number[:, at] == number[:, t + layer.history, np.newaxis]
        value[:, t] = np.where(same[..., np.newaxis], known[:, at], 0)
    after = np.zeros_like(history)
    for i, length in enumerate(sequences.lengths):
        newest = slice(length, length + layer.history)  # of which the last step of history is at length + history - 1
        same = number[i, newest] == number[i, length + layer.history - 1]
        after[i] = np.where(same[:, np.newaxis], known[i, newest], 0)
    return value.reshape(batch, steps, layer.width), after.reshape(batch, -1)


def loop(
    layers: list[Layer],
    unit: list[int],
    values: list[Array],
    states: list[Array],
    sequences: Sequences,
    multiply: Product,
) -> None:
    """The layers of a loop, step by step: their values are appended, their states replaced by those after the last step."""
    batch, steps = sequences.valid.shape
    single = Sequences(np.ones((batch, 1), bool), np.zeros((batch, 1), bool))
    values += [np.zeros((batch, steps, layers[index].width), states[0].dtype) for index in unit]
    for t in range(steps):
        valid, begins = sequences.valid[:, t, np.newaxis], sequences.reset[:, t, np.newaxis]
        after = {}
        for index in unit:
            layer = layers[index]
            inputs = [values[i] if layers[i].per_sequence else values[i][:, t] for i in layer.inputs]
            state = np.where(begins, layer.initial_state, states[index])
            if isinstance(layer, State):
                value = state
            elif isinstance(layer, Gru):
                value = gru_step(layer, multiply(layer.W, inputs[0]) + layer.b_x, state, multiply)
                after[index] = value
            elif isinstance(layer, Window):
                step, after[index] = window(layer, inputs[0][:, np.newaxis], state, single)
                value = step[:, 0]
            elif isinstance(layer, Attention):  # to what is stored
                value = attention(layer, [inputs[0][:, np.newaxis], *inputs[1:]], single)[:, 0]
            else:
                value = evaluate(layer, inputs, single, multiply)
            values[index][:, t] = value
        for index in unit:
            layer = layers[index]
            new = values[layer.source][:, t] if isinstance(layer, State) else after.get(index, states[index])
            states[index] = np.where(valid, new, states[index])


def gru(layer: Gru, x: Array, h: Array, sequences: Sequences, multiply: Product) -> tuple[Array, Array]:
    """All hidden states [B, T, H] and the one after the last step, from the one before the first step, ``h`` [B, H]."""
    valid, begins = sequences.valid, sequences.reset
    order = list(range(valid.shape[1]))
    if (
        layer.reverse
    ):  # the sequence that begins at step t + 1 ends there; step t is the first one that is seen of another
        order.reverse()
        begins = np.concatenate([begins[:, 1:], np.zeros_like(begins[:, :1])], axis=1)
    s_x = multiply(layer.W, x) + layer.b_x
    states = np.zeros((*valid.shape, layer.width), s_x.dtype)
    for t in order:
        start = np.where(begins[:, t, np.newaxis], layer.h0, h)
        h = np.where(valid[:, t, np.newaxis], gru_step(layer, s_x[:, t], start, multiply), h)
        states[:, t] = h
    return states, h


def _starting_from(layer: Gru | State, start: Array) -> Layer:
    """The layer with an initial state [B, H] for each sequence in place of one for all."""
    return replace(layer, h0=start) if isinstance(layer, Gru) else replace(layer, initial=start)


def gru_step(layer: Gru, s_x: Array, h: Array, multiply: Product) -> Array:
    """The new hidden state [B, H] from the input sums ``W x + b_x`` [B, G*H] and the old hidden state [B, H].

    docs/NUMERICS.md, section 2: Cho et al. 2014 (arXiv:1406.1078) and the other places of the reset gate.
    """
    x, U, b = (_gates(layer, array, axis) for array, axis in ((s_x, -1), (layer.U, 0), (layer.b_h, 0)))

    def s_h(name: str, h: Array) -> Array:
        return np.asarray(multiply(U[name], h) + b[name])

    def gate(name: str) -> Array:
        return layer.gate_activation(_clip(layer, x[name] + s_h(name, h)))

    def candidate(a: Array) -> Array:
        return layer.activation(_clip(layer, a))

    match layer.reset:
        case "after":
            n = candidate(x["n"] + gate("r") * s_h("n", h))
        case "before":
            n = candidate(x["n"] + s_h("n", gate("r") * h))
        case "all":
            n = candidate(gate("r") * (x["n"] + s_h("n", h)))
        case _:
            n = candidate(x["n"] + s_h("n", h))
    z = gate("z")
    return np.asarray(z * h + (1 - z) * n)


def _gates(layer: Gru, array: Array, axis: int) -> dict[str, Array]:
    """The parts of an axis of G*H that belong to the gates."""
    return dict(zip(layer.gates, np.split(array, len(layer.gates), axis=axis)))


def _clip(layer: Gru, a: Array) -> Array:
    return a if layer.clip is None else np.clip(a, -layer.clip, layer.clip)


def _cast(layer: Layer, dtype: npt.DTypeLike) -> Layer:
    """The layer with its arrays in the type of the arithmetic."""
    arrays: dict[str, Any] = {name: array.astype(dtype) for name, array in layer.arrays.items()}
    return replace(layer, **arrays)
