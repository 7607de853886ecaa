# SPDX-License-Identifier: Apache-2.0
"""Activation functions as Keras writes them in a configuration: a name, or a layer with parameters.

Inside a GRU only activations that the engine has can be used (``gate``). Elsewhere others are made of several layers where that
is exact (``activate``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gru_engine.activations import ActivationLike
from gru_engine.export import operations
from gru_engine.export.common import ExportError
from gru_engine.export.graph import AxisError, Tensor, axis_text, is_features
from gru_engine.export.operations import Context
from gru_engine.export.over_time import is_time

_PLAIN: dict[str, ActivationLike] = {
    "linear": "linear",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "softplus": "softplus",
    "softsign": "softsign",
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "elu": ("elu", 1.0),
    "celu": ("elu", 1.0),
    "leaky_relu": ("leaky_relu", 0.2),
    "sparse_sigmoid": ("hard_sigmoid", 0.5, 0.5),
    "exponential": "exp",
    "relu6": ("clip", 0.0, 6.0),
    "hard_tanh": ("clip", -1.0, 1.0),
}
_CLASSES = ("ReLU", "LeakyReLU", "ELU", "Softmax", "ThresholdedReLU")


def number(value: Any) -> float:
    """A number of a configuration; old files wrap those that were NumPy's.

    Raises
    ------
    ExportError
        If it is none.
    """
    if isinstance(value, dict) and "value" in value:
        value = value["value"]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ExportError(f"{value!r} is no number")
    return float(value)


def named(entry: Any) -> str:
    """The name of a function in a configuration.

    Raises
    ------
    ExportError
        If it is a function of the user's own.
    """
    if entry is None:
        return "linear"
    if isinstance(entry, dict):  # Keras's own functions are names
        kind, name = entry.get("class_name"), entry.get("config")
        raise ExportError(f"the activation {(name if isinstance(name, str) else kind)!r} is a function of its own")
    if ">" in str(entry):
        raise ExportError(f"the activation {entry!r} is a function of its own")
    return str(entry)


def plain(entry: Any, major: int) -> ActivationLike | None:
    """The engine's own activation that stands in a configuration, or None if there is none.

    Parameters
    ----------
    entry
        As in a configuration: a name, or the dictionary of a layer or function.
    major : int
        Of the version of Keras: the slope of hard_sigmoid is 0.2 before Keras 3, and 1/6 since.
    """
    if isinstance(entry, dict) and entry.get("class_name") in _CLASSES:
        return _of_layer(entry["class_name"], entry.get("config") or {})
    name = named(entry)
    if name == "hard_sigmoid":
        return ("hard_sigmoid", 0.2, 0.5) if major < 3 else ("hard_sigmoid", 1 / 6, 0.5)
    return _PLAIN.get(name)


def gate(entry: Any, major: int, what: str) -> ActivationLike:
    """The activation of a GRU's gates or candidate.

    Raises
    ------
    ExportError
        If the engine does not have it.
    """
    spec = plain(entry, major)
    if spec is None:
        name = (
            entry.get("class_name") if isinstance(entry, dict) and entry.get("class_name") in _CLASSES else named(entry)
        )
        raise ExportError(
            f"{what} {name!r} cannot be used inside a GRU; possible are {', '.join(sorted({*_PLAIN, 'hard_sigmoid'}))}"
        )
    return spec


def _of_layer(kind: str, config: dict[str, Any]) -> ActivationLike | None:
    """An activation layer that is a single activation of the engine."""
    if kind == "LeakyReLU":
        slope = config.get("negative_slope", config.get("alpha"))
        return ("leaky_relu", 0.3 if slope is None else number(slope))
    if kind == "ELU":
        return ("elu", number(config.get("alpha", 1.0)))
    if kind == "ThresholdedReLU":
        return ("thresholded_relu", number(config.get("theta", 1.0)))
    if kind == "ReLU":
        top, slope, threshold = _relu(config)
        if top is None and threshold == 0:
            return "relu" if slope == 0 else ("leaky_relu", slope)
        if top is None and slope == 0:
            return ("thresholded_relu", threshold)
        if top is not None and top > 0 and slope == threshold == 0:
            return ("clip", 0.0, top)
    return None


def _relu(config: dict[str, Any]) -> tuple[float | None, float, float]:
    top = config.get("max_value")
    return (
        None if top is None else number(top),
        number(config.get("negative_slope") or 0.0),
        number(config.get("threshold") or 0.0),
    )


def _general_relu(c: Context, t: Tensor, config: dict[str, Any]) -> Tensor:
    """max_value for t >= max_value, t above the threshold, negative_slope * (t - threshold) below."""
    top, slope, threshold = _relu(config)
    if top is not None and top <= 0:
        raise ExportError(f"max_value={top:g} must be above 0")
    y = t if threshold == 0 else c.graph.activation(t, ("thresholded_relu", threshold))
    y = operations.limited(c, y, 0.0, top)
    if slope == 0:
        return y
    below = c.graph.activation(c.graph.affine(t, -1.0, threshold), "relu")
    return c.graph.add(y, c.graph.affine(below, -slope, 0.0))


def _shrunk(c: Context, t: Tensor) -> tuple[Tensor, Tensor]:
    return t, c.graph.affine(t, -1.0, 0.0)


def _soft_shrink(c: Context, t: Tensor) -> Tensor:
    above, below = (c.graph.activation(c.graph.affine(s, 1.0, -0.5), "relu") for s in _shrunk(c, t))
    return c.graph.add(above, c.graph.affine(below, -1.0, 0.0))


def _hard_shrink(c: Context, t: Tensor) -> Tensor:
    above, below = (c.graph.activation(s, ("thresholded_relu", 0.5)) for s in _shrunk(c, t))
    return c.graph.add(above, c.graph.affine(below, -1.0, 0.0))


def _log_sigmoid(c: Context, t: Tensor) -> Tensor:
    return c.graph.affine(c.graph.activation(c.graph.affine(t, -1.0, 0.0), "softplus"), -1.0, 0.0)


def _tanh_shrink(c: Context, t: Tensor) -> Tensor:
    return c.graph.add(t, c.graph.affine(c.graph.activation(t, "tanh"), -1.0, 0.0))


def _glu(c: Context, t: Tensor) -> Tensor:
    size = t.shape(c.sizes)[-1]
    if size % 2:
        raise AxisError(f"glu halves the last axis of {t}")
    value, opened = operations.parts(c, t, [size // 2, size // 2], t.rank - 1)
    return c.graph.multiply(value, c.graph.activation(opened, "sigmoid"))


_MADE: dict[str, Callable[[Context, Tensor], Tensor]] = {
    "selu": operations.selu,
    "mish": operations.mish,
    "hard_silu": operations.hardswish,
    "hard_swish": operations.hardswish,
    "log_sigmoid": _log_sigmoid,
    "tanh_shrink": _tanh_shrink,
    "soft_shrink": _soft_shrink,
    "hard_shrink": _hard_shrink,
    "glu": _glu,
    "softmax": lambda c, t: softmax(c, t, -1, log=False),
    "log_softmax": lambda c, t: softmax(c, t, -1, log=True),
}


def softmax(c: Context, t: Tensor, axis: Any, log: bool) -> Tensor:
    """Softmax or log-softmax along an axis of features; over the time it is the weights of a sum over time (``Dot``)."""
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    if len(axes) != 1:
        raise ExportError(f"a softmax over the axes {list(axes)} is not supported, only over one")
    dim = operations.axis_of(t, int(axes[0]))
    if not is_features(t.dims[dim]) and not is_time(t.dims[dim]):
        raise AxisError(f"a softmax over the {axis_text(t.dims[dim])} of {t}; it must be over the features or the time")
    return operations.softmax(c, t, dim, log)


def activate(c: Context, t: Tensor, entry: Any, major: int) -> Tensor:
    """The activation of a configuration, applied to a value.

    Raises
    ------
    ExportError
        If it cannot be expressed exactly.
    """
    spec = plain(entry, major)
    if spec is not None:
        return t if spec == "linear" else c.graph.activation(t, spec)
    if isinstance(entry, dict) and entry.get("class_name") == "ReLU":
        return _general_relu(c, t, entry.get("config") or {})
    if isinstance(entry, dict) and entry.get("class_name") == "Softmax":
        return softmax(c, t, (entry.get("config") or {}).get("axis", -1), log=False)
    name = named(entry)
    if name not in _MADE:
        raise ExportError(f"the activation {name!r} cannot be expressed exactly")
    return _MADE[name](c, t)
