# SPDX-License-Identifier: Apache-2.0
"""The weights and attributes of ONNX's GRU operator as those of ``Network.gru``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gru_engine import activations
from gru_engine.export.common import Array, ExportError, gru_arrays

_NAMES = {name.replace("_", ""): name for name in activations.NAMES.values()}
_SUPPORTED = (
    "affine", "elu", "hard_sigmoid", "leaky_relu", "relu", "scaled_tanh", "sigmoid", "softplus", "softsign", "tanh",
    "thresholded_relu",
)  # fmt: skip
_WITHOUT_DEFAULTS = ("affine", "scaled_tanh", "thresholded_relu")
"""Where the specification's default of a parameter, of an operator that is no more, and ONNX Runtime's, which is 0, differ."""


@dataclass(frozen=True)
class Direction:
    """One direction: arrays and options of ``Network.gru``."""

    arrays: dict[str, Array]
    options: dict[str, Any]
    reverse: bool


def directions(W: Array, R: Array, B: Array | None, attributes: dict[str, Any]) -> list[Direction]:
    """The directions of a GRU node, forward before reverse.

    Parameters
    ----------
    W : array [D, 3H, I]
    R : array [D, 3H, H]
    B : array [D, 6H] or None
    attributes : dict
        Those that are given.

    Raises
    ------
    ExportError
        If something does not fit, or has no exact counterpart.
    """
    direction = _text(attributes.get("direction", "forward")).lower()
    reverse = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(direction)
    if reverse is None:
        raise ExportError(f"direction must be 'forward', 'reverse' or 'bidirectional', got {direction!r}")
    D = len(reverse)
    H = R.shape[-1]
    if R.shape != (D, 3 * H, H) or W.ndim != 3 or W.shape[:2] != R.shape[:2]:
        raise ExportError(
            f"W {list(W.shape)} and R {list(R.shape)} must have the shapes [{D}, 3*H, I] and [{D}, 3*H, H] ({direction})"
        )
    if B is not None and B.shape != (D, 6 * H):
        raise ExportError(f"B must have the shape [{D}, {6 * H}], got {list(B.shape)}")
    if attributes.get("hidden_size", H) != H:
        raise ExportError(f"hidden_size is {attributes['hidden_size']}, but R has the shape {list(R.shape)}")
    functions = _functions(attributes, D)
    options: dict[str, Any] = {"gates": "zrn", "reset": "after" if attributes.get("linear_before_reset") else "before"}
    clip = attributes.get("clip")
    if clip is not None and not clip > 0:
        raise ExportError(f"clip must be positive, got {clip:g}")
    if clip is not None and clip < float(np.finfo(np.float32).max):
        options["clip"] = float(clip)
    result = []
    for number, backward in enumerate(reverse):
        biases = () if B is None else np.split(B[number], 2)
        gate, candidate = functions[2 * number : 2 * number + 2]
        own = {**options, "gate_activation": gate, "activation": candidate}
        result.append(Direction(gru_arrays(W[number], R[number], *biases), own, backward))
    return result


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _functions(attributes: dict[str, Any], D: int) -> list[tuple[str | float, ...]]:
    """The activation functions f, g of each direction, with their parameters.

    alpha and beta are lists from which each function that has such a parameter takes the next value.
    """
    given = [_text(name) for name in attributes.get("activations", ["Sigmoid", "Tanh"] * D)]
    if len(given) != 2 * D:
        raise ExportError(f"activations must name {2 * D} functions, got {', '.join(given)}")
    names = [_NAMES.get(name.lower(), name) for name in given]
    for name, text in zip(names, given):
        if name not in _SUPPORTED:
            raise ExportError(f"the activation {text!r} is not supported; supported are {', '.join(_SUPPORTED)}")
    lists = []
    for place, attribute in enumerate(("activation_alpha", "activation_beta")):
        values = [float(v) for v in attributes.get(attribute, ())]
        takers = [i for i, name in enumerate(names) if activations.number_of_parameters(name) > place]
        if len(values) > len(takers):
            # Some write a value for every function. Where the two readings differ, none of them is certain.
            if len(values) != len(names) or [values[i] for i in takers] != values[: len(takers)]:
                raise ExportError(
                    f"{attribute} has {len(values)} values for {len(takers)} functions that take one "
                    f"({', '.join(given)}); which value belongs to which is not certain"
                )
            values = values[: len(takers)]
        lists.append(dict(zip(takers, values)))
    functions: list[tuple[str | float, ...]] = []
    for i, name in enumerate(names):
        defaults = activations.activation(name).parameters
        if name in _WITHOUT_DEFAULTS and any(i not in lists[place] for place in range(len(defaults))):
            raise ExportError(
                f"the activation {given[i]!r} needs activation_alpha{' and activation_beta' * (len(defaults) > 1)}; "
                "runtimes do not agree on what it is without"
            )
        functions.append((name, *(lists[place].get(i, default) for place, default in enumerate(defaults))))
    return functions
