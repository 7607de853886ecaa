# SPDX-License-Identifier: Apache-2.0
"""What the reference is given, checked: inputs, contexts, states, lengths, resets; and its outputs behind the ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine._inputs import as_context, check_names, not_named
from gru_engine.layers import Array, Axis, Input, Layer
from gru_engine.network import Network


@dataclass(frozen=True)
class Sequences:
    """What the input sequences look like."""

    valid: Array  # bool [B, T]: which steps are no padding
    reset: Array  # bool [B, T]: at which valid steps a new sequence begins

    @property
    def lengths(self) -> Array:
        """Number of valid steps: int [B]."""
        return np.asarray(self.valid.sum(axis=1))


def by_name(net: Network, x: npt.ArrayLike | Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    """The inputs by name, however they came: as a dict, or as one array. Their shapes and types are not checked.

    Raises
    ------
    ValueError, TypeError
        If a name is missing or unknown, or one array cannot be all inputs.
    """
    if isinstance(x, Mapping):
        check_names(x, net.inputs)
        return {name: np.asarray(x[name]) for name in net.inputs}
    vectors = {name: part for name, part in net.inputs.items() if isinstance(part, slice)}
    if len(net.inputs) == 1:
        return {name: np.asarray(x) for name in net.inputs}
    if len(vectors) < len(net.inputs):
        raise not_named(x, net.inputs)
    x = np.asarray(x)
    if not x.ndim or x.shape[-1] != net.input_size:
        raise ValueError(f"x must have the shape [T, I] or [B, T, I] with I = {net.input_size}, got {list(x.shape)}")
    return {name: x[..., part] for name, part in vectors.items()}


def checked_inputs(net: Network, x: npt.ArrayLike | Mapping[str, npt.ArrayLike]) -> tuple[list[Array], bool]:
    """The inputs with the axis B, and whether they came without."""
    given = by_name(net, x)
    for name, array in given.items():
        what, part = (f"x[{name!r}]" if isinstance(x, Mapping) else "x"), net.inputs[name]
        _check_input(array, part.stop - part.start if isinstance(part, slice) else None, what)
    shapes = {array.shape[:-1] if isinstance(net.inputs[name], slice) else array.shape for name, array in given.items()}
    if len(shapes) > 1:
        raise ValueError(f"x has inputs for streams and steps of different shapes: {sorted(map(list, shapes))}")
    one = any(len(shape) == 1 for shape in shapes)
    return [array[np.newaxis] if one else array for array in given.values()], one


def _check_input(x: Array, width: int | None, what: str) -> None:
    """One input: vectors of this width or, without one, tokens."""
    if width is None:
        if x.dtype.kind not in "iu":
            raise TypeError(f"{what} must be integer tokens, got dtype {x.dtype}")
        if x.ndim not in (1, 2):
            raise ValueError(f"{what} must have the shape [T] or [B, T], got {list(x.shape)}")
        return
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{what} must be an array of real numbers, got dtype {x.dtype}")
    if x.ndim not in (2, 3) or x.shape[-1] != width:
        raise ValueError(f"{what} must have the shape [T, I] or [B, T, I] with I = {width}, got {list(x.shape)}")


def checked_sequences(net: Network, batch: int, steps: int, one: bool, lengths: Any, reset: Any) -> Sequences:
    """Lengths and resets, as far as they were given."""
    lengths = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    lengths = lengths[np.newaxis] if one and lengths.ndim == 0 else lengths
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths must be integers, got dtype {lengths.dtype}")
    if lengths.shape != (batch,) or not ((lengths >= 0) & (lengths <= steps)).all():
        raise ValueError(f"lengths must be {batch} integers from 0 to T = {steps}, got {lengths.tolist()}")
    if not (lengths >= net.least_steps).all():
        few = "an empty sequence has none"
        if net.least_steps > 1:
            few = f"a sequence needs at least {net.least_steps} steps, got {lengths.min()}"
        raise ValueError(f"the network makes values per sequence (last, first, mean ...); {few}")

    reset = np.zeros(steps, bool) if reset is None else np.asarray(reset)
    if reset.dtype != bool:
        raise TypeError(f"reset must be boolean, got dtype {reset.dtype}")
    if reset.shape not in ((steps,), (batch, steps)[one:]):
        wanted = f"[T] = [{steps}]" + ("" if one else f" or [B, T] = [{batch}, {steps}]")
        raise ValueError(f"reset must have the shape {wanted}, got {list(reset.shape)}")
    if reset.any() and any(layer.axis != Axis() for layer in net.layers):
        raise ValueError(
            "reset: the network has values with another number of steps, in which no new sequence can begin"
        )
    valid = np.arange(steps) < lengths[:, np.newaxis]
    return Sequences(valid, reset & valid)


def without_padding(layer: Layer, x: Array, sequences: Sequences, dtype: npt.DTypeLike) -> Array:
    """An input in the type of the arithmetic (tokens: int64), zeros at padding steps, whatever was there."""
    if isinstance(layer, Input):
        return np.where(sequences.valid[..., np.newaxis], x, 0).astype(dtype)
    tokens = np.where(sequences.valid, x, 0).astype(np.int64)
    wrong = (tokens < 0) | (tokens >= layer.width)
    if wrong.any():
        raise ValueError(f"tokens must be from 0 to {layer.width - 1}, got {tokens[wrong][0]}")
    return tokens


def checked_contexts(net: Network, context: Any, one: bool, batch: int, dtype: npt.DTypeLike) -> list[Array]:
    """For each context its values: [B, n]."""
    single = as_context(context, net.contexts, None if one else batch)
    if single is None:
        return []
    vectors = np.broadcast_to(single, (batch, single.shape[-1])).astype(dtype)
    return [vectors[:, part] for part in net.contexts.values()]


def checked_state(net: Network, state: Any, one: bool, batch: int, dtype: npt.DTypeLike) -> list[Array]:
    """For each layer its state before the first step: [B, n], n = 0 for most."""
    shape = (net.state_size,) if one else (batch, net.state_size)
    state = np.broadcast_to(net.initial_state, shape) if state is None else np.asarray(state)
    if state.dtype.kind not in "fiu":
        raise TypeError(f"state must be an array of real numbers, got dtype {state.dtype}")
    if state.shape != shape:
        axes = "[state_size]" if one else "[B, state_size]"
        raise ValueError(f"state must have the shape {axes} = {list(shape)}, got {list(state.shape)}")
    ends = np.cumsum([len(layer.initial_state) for layer in net.layers])
    return np.split(state.reshape(batch, net.state_size).astype(dtype), ends[:-1], axis=1)


def padded(y: Array, sequences: Sequences, padding: str) -> Array:
    """The outputs [B, T, O] with those of padding steps replaced."""
    if padding == "carry" and y.shape[1]:
        newest = np.minimum(np.arange(y.shape[1]), np.maximum(sequences.lengths[:, np.newaxis] - 1, 0))  # [B, T]
        y = np.take_along_axis(y, newest[..., np.newaxis], axis=1)
        return np.where((sequences.lengths > 0)[:, np.newaxis, np.newaxis], y, 0)
    return np.where(sequences.valid[..., np.newaxis], y, 0)
