# SPDX-License-Identifier: Apache-2.0
"""The reference: a ``Network`` executed by short, obvious NumPy in float64. It is the executable specification.

Nothing here is fast. A network is computed layer by layer, each over the whole sequence, so that every function is one
definition. Values are arrays ``[B, T, width]`` (B sequences, T time steps), or ``[B, width]`` where there is one value
per sequence; tokens are ``[B, T]`` int64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.layers import (
    Activate,
    Add,
    Affine,
    Array,
    Concat,
    Dense,
    Embedding,
    First,
    Gru,
    Input,
    Last,
    Layer,
    Multiply,
    Tokens,
)
from gru_engine.network import Network


def run(
    net: Network,
    x: npt.ArrayLike,
    *,
    state: npt.ArrayLike | None = None,
    lengths: npt.ArrayLike | None = None,
    reset: npt.ArrayLike | None = None,
    return_state: bool = False,
    padding: str = "zero",
    dtype: npt.DTypeLike = np.float64,
) -> Any:
    """The outputs of a network for whole sequences.

    Parameters
    ----------
    net : Network
    x : array_like [T, I] or [B, T, I], or integer tokens [T] or [B, T]
        One sequence, or B of them. With one sequence the axis B is missing from all other arguments and results.
    state : array_like [B, state_size], optional
        The hidden states of the GRU layers one after the other, before the first step: of a forward layer step 0, of a
        reverse layer the last valid step. None stands for the initial state.
    lengths : array_like int [B], optional
        Number of valid steps of each sequence, 0 to T; the steps from there on are padding: they change no state, and a
        reverse layer starts at the sequence's own end. None: all T.
    reset : array_like bool [B, T] or [T], optional
        Where true, a new sequence begins at this step: a forward layer comes to it with its initial state; a reverse
        layer, which comes from the other side, comes so to the step before.
    return_state : bool
        Whether to return the state after the last step as well: of a forward layer after the last valid step, of a
        reverse layer after step 0.
    padding : {"zero", "carry"}
        The outputs of padding steps: zeros (ONNX, PyTorch), or the last valid output again (a Keras mask; zeros if
        there is none).
    dtype : data type
        Of the arithmetic.

    Returns
    -------
    y : array [B, T, O], or [B, O] if the outputs are one per sequence
    state : array [B, state_size]
        Only with ``return_state``.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit the network, or a value of the last or first step is asked for of an empty sequence.
    """
    net = net.pruned()
    x, one = _checked_input(net, x)
    sequences = _checked_sequences(net, x, one, lengths, reset)
    if padding not in ("zero", "carry"):
        raise ValueError(f"padding must be 'zero' or 'carry', got {padding!r}")
    x = _without_padding(net, x, sequences, dtype)
    before = _checked_state(net, state, one, len(x), dtype)

    values: list[Array] = []
    after = []
    for layer in (_cast(layer, dtype) for layer in net.layers):
        if isinstance(layer, (Input, Tokens)):
            value = x
        elif isinstance(layer, Gru):
            value, h = gru(layer, values[layer.inputs[0]], before.pop(0), sequences)
            after.append(h)
        else:
            value = evaluate(layer, [values[i] for i in layer.inputs], sequences)
        values.append(value)

    y = np.concatenate([values[i] for i in net.output_layers.values()], axis=-1)
    y = y if net.per_sequence else _padded(y, sequences, padding)
    new_state = np.concatenate([np.zeros((len(x), 0), dtype), *after], axis=-1)
    y, new_state = (y[0], new_state[0]) if one else (y, new_state)
    return (y, new_state) if return_state else y


def step(net: Network, x: npt.ArrayLike, state: npt.ArrayLike | None = None) -> tuple[Array, Array]:
    """One step of one stream, or of n streams at once.

    Parameters
    ----------
    net : Network
        It must be causal.
    x : array_like [I] or [n, I], or an integer token or tokens [n]
    state : array_like [state_size] or [n, state_size], optional
        None stands for the initial state.

    Returns
    -------
    y : array [O] or [n, O]
    state : array [state_size] or [n, state_size]
    """
    if not net.causal:
        raise ValueError("a network with a reverse GRU or a value of the first step cannot be stepped; use run")
    x = np.asarray(x)
    one = x.ndim == (1 if net.vocab_size is None else 0)
    y, state = run(net, x[np.newaxis] if one else x[:, np.newaxis], state=state, return_state=True)
    if not net.per_sequence:
        y = y[0] if one else y[:, 0]
    return y, np.asarray(state)


# ---- the layers


@dataclass(frozen=True)
class Sequences:
    """What the input sequences look like."""

    valid: Array  # bool [B, T]: which steps are no padding
    reset: Array  # bool [B, T]: at which valid steps a new sequence begins

    @property
    def lengths(self) -> Array:
        """Number of valid steps: int [B]."""
        return np.asarray(self.valid.sum(axis=1))


def evaluate(layer: Layer, inputs: list[Array], sequences: Sequences) -> Array:
    """The value of a layer that keeps no state, from the values of its inputs."""
    a = inputs[0]
    match layer:
        case Embedding():
            return np.asarray(layer.E[a])
        case Dense():
            return layer.activation(product(layer.W, a) + layer.b)
        case Concat():
            return np.concatenate(inputs, axis=-1)
        case Add():
            return np.asarray(a + inputs[1])
        case Multiply():
            return np.asarray(a * inputs[1])
        case Affine():
            return np.asarray(a * layer.scale + layer.shift)
        case Activate():
            return layer.activation(a)
        case Last():
            return np.asarray(a[np.arange(len(a)), sequences.lengths - 1])
        case First():
            return np.asarray(a[:, 0])
    raise TypeError(f"the reference does not know the layer {layer!r}")


def product(W: Array, x: Array) -> Array:
    """W x; tokens stand for their one-hot vectors, which pick columns of W."""
    return np.asarray(W.T[x] if x.dtype.kind == "i" else x @ W.T)


def gru(layer: Gru, x: Array, h: Array, sequences: Sequences) -> tuple[Array, Array]:
    """All hidden states [B, T, H] and the one after the last step, from the one before the first step, ``h`` [B, H]."""
    valid, begins = sequences.valid, sequences.reset
    order = list(range(valid.shape[1]))
    if (
        layer.reverse
    ):  # the sequence that begins at step t + 1 ends there; step t is the first one that is seen of another
        order.reverse()
        begins = np.concatenate([begins[:, 1:], np.zeros_like(begins[:, :1])], axis=1)
    s_x = product(layer.W, x) + layer.b_x
    states = np.zeros((*valid.shape, layer.width), s_x.dtype)
    for t in order:
        start = np.where(begins[:, t, np.newaxis], layer.h0, h)
        h = np.where(valid[:, t, np.newaxis], gru_step(layer, s_x[:, t], start), h)
        states[:, t] = h
    return states, h


def gru_step(layer: Gru, s_x: Array, h: Array) -> Array:
    """The new hidden state [B, H] from the input sums ``W x + b_x`` [B, G*H] and the old hidden state [B, H].

    docs/NUMERICS.md, section 2: Cho et al. 2014 (arXiv:1406.1078) and the other places of the reset gate.
    """
    x, U, b = (_gates(layer, array, axis) for array, axis in ((s_x, -1), (layer.U, 0), (layer.b_h, 0)))

    def s_h(name: str, h: Array) -> Array:
        return np.asarray(h @ U[name].T + b[name])

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


# ---- arguments and results


def _checked_input(net: Network, x: npt.ArrayLike) -> tuple[Array, bool]:
    """The input with the axis B, and whether it came without."""
    x = np.asarray(x)
    if net.vocab_size is None:
        if x.dtype.kind not in "fiu":
            raise TypeError(f"x must be an array of real numbers, got dtype {x.dtype}")
        if x.ndim not in (2, 3) or x.shape[-1] != net.input_size:
            raise ValueError(
                f"x must have the shape [T, I] or [B, T, I] with I = {net.input_size}, got {list(x.shape)}"
            )
        return (x[np.newaxis], True) if x.ndim == 2 else (x, False)
    if x.dtype.kind not in "iu":
        raise TypeError(f"x must be integer tokens, got dtype {x.dtype}")
    if x.ndim not in (1, 2):
        raise ValueError(f"x must have the shape [T] or [B, T], got {list(x.shape)}")
    return (x[np.newaxis], True) if x.ndim == 1 else (x, False)


def _checked_sequences(net: Network, x: Array, one: bool, lengths: Any, reset: Any) -> Sequences:
    batch, steps = x.shape[:2]
    lengths = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    lengths = lengths[np.newaxis] if one and lengths.ndim == 0 else lengths
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths must be integers, got dtype {lengths.dtype}")
    if lengths.shape != (batch,) or not ((lengths >= 0) & (lengths <= steps)).all():
        raise ValueError(f"lengths must be {batch} integers from 0 to T = {steps}, got {lengths.tolist()}")
    if net.per_sequence and not (lengths > 0).all():
        raise ValueError("the outputs are values of the last or first step; an empty sequence has none")

    reset = np.zeros(steps, bool) if reset is None else np.asarray(reset)
    if reset.dtype != bool:
        raise TypeError(f"reset must be boolean, got dtype {reset.dtype}")
    if reset.shape not in ((steps,), (batch, steps)[one:]):
        wanted = f"[T] = [{steps}]" + ("" if one else f" or [B, T] = [{batch}, {steps}]")
        raise ValueError(f"reset must have the shape {wanted}, got {list(reset.shape)}")
    valid = np.arange(steps) < lengths[:, np.newaxis]
    return Sequences(valid, reset & valid)


def _without_padding(net: Network, x: Array, sequences: Sequences, dtype: npt.DTypeLike) -> Array:
    """The input in the type of the arithmetic (tokens: int64), zeros at padding steps, whatever was there."""
    if net.vocab_size is None:
        return np.where(sequences.valid[..., np.newaxis], x, 0).astype(dtype)
    tokens = np.where(sequences.valid, x, 0).astype(np.int64)
    wrong = (tokens < 0) | (tokens >= net.vocab_size)
    if wrong.any():
        raise ValueError(f"tokens must be from 0 to {net.vocab_size - 1}, got {tokens[wrong][0]}")
    return tokens


def _checked_state(net: Network, state: Any, one: bool, batch: int, dtype: npt.DTypeLike) -> list[Array]:
    """For each GRU layer its hidden state [B, H] before the first step."""
    shape = (net.state_size,) if one else (batch, net.state_size)
    state = np.broadcast_to(net.initial_state, shape) if state is None else np.asarray(state)
    if state.dtype.kind not in "fiu":
        raise TypeError(f"state must be an array of real numbers, got dtype {state.dtype}")
    if state.shape != shape:
        axes = "[state_size]" if one else "[B, state_size]"
        raise ValueError(f"state must have the shape {axes} = {list(shape)}, got {list(state.shape)}")
    ends = np.cumsum([layer.width for layer in net.layers if isinstance(layer, Gru)])
    return np.split(state.reshape(batch, net.state_size).astype(dtype), ends[:-1], axis=1)


def _padded(y: Array, sequences: Sequences, padding: str) -> Array:
    """The outputs [B, T, O] with those of padding steps replaced."""
    if padding == "carry" and y.shape[1]:
        newest = np.minimum(np.arange(y.shape[1]), np.maximum(sequences.lengths[:, np.newaxis] - 1, 0))  # [B, T]
        y = np.take_along_axis(y, newest[..., np.newaxis], axis=1)
        return np.where((sequences.lengths > 0)[:, np.newaxis, np.newaxis], y, 0)
    return np.where(sequences.valid[..., np.newaxis], y, 0)
