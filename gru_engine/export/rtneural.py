# SPDX-License-Identifier: Apache-2.0
"""RTNeural's JSON models, and those of the guitar amplifier plugins around it, to networks. Needs nothing but the file.

There are three kinds: what RTNeural's ``save_model`` writes of a Keras or PyTorch model (``in_shape`` and ``layers``), a
state_dict of PyTorch as JSON (names and nested lists), and ``model_data`` beside ``state_dict``, as the trainers of amplifier
models write it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gru_engine.export import arrays as _arrays
from gru_engine.export import chain
from gru_engine.export.common import Array, ExportError
from gru_engine.export.words import Arrays
from gru_engine.network import Network

_ACTIVATIONS = ("tanh", "relu", "sigmoid", "softmax", "elu")  # that RTNeural knows; elu with alpha 1
_REFUSED = {
    "conv1d": "a convolution over time",
    "conv2d": "a convolution",
    "lstm": "an LSTM",
    "batchnorm2d": "a normalisation of images",
}


def from_json(model: str | os.PathLike[str] | Mapping[str, Any], layers: str | None = None) -> Network:
    """Turn a JSON model into a network.

    Parameters
    ----------
    model : path or mapping
        The file, or what ``json.load`` made of it.
    layers : str, optional
        Of a state_dict only: the chain of layers, as ``"gru(gru) linear(dense)"``; by default what the names leave no choice
        about.

    Returns
    -------
    Network

    Raises
    ------
    ExportError
        If it is no such model, or one of its layers has no exact counterpart, by number and type.
    """
    return build(model, layers).network


def build(model: str | os.PathLike[str] | Mapping[str, Any], layers: str | None = None) -> chain.Built:
    """Like ``from_json``, with what was understood in words."""
    content = model if isinstance(model, Mapping) else _read(Path(model))
    if "layers" in content:
        if layers is not None:
            raise ExportError("the model says its layers itself; --layers is for a state_dict")
        return _Layers(content).build()
    if "state_dict" in content:
        return _plugin(content, layers)
    return _arrays.build(_state_dict(content), layers)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{path} must be a JSON object, got {type(content).__name__}")
    return content


def _array(value: Any, what: str) -> Array:
    """Nested lists as an array; float32, which is what the models compute with."""
    try:
        array = np.asarray(value, np.float64)
    except (ValueError, TypeError) as error:
        raise ExportError(f"{what} is no array of numbers: {error}") from None
    return array.astype(np.float32) if (array == array.astype(np.float32)).all() else array


def _state_dict(content: Mapping[str, Any]) -> Arrays:
    return {name: _array(value, f"{name!r}") for name, value in content.items()}


def _plugin(content: Mapping[str, Any], layers: str | None) -> chain.Built:
    """``{"model_data": {"unit_type": "GRU", "skip": 1, ...}, "state_dict": {"rec.weight_ih_l0": ..., "lin.weight": ...}}``."""
    data, arrays = content.get("model_data", {}), _state_dict(content["state_dict"])
    kind = data.get("unit_type", "GRU")
    if kind != "GRU":
        raise ExportError(f"the model's unit_type is {kind!r}; only GRU is supported")
    if layers is None:
        if data.get("model", "SimpleRNN") != "SimpleRNN":
            raise ExportError(f"the model is a {data['model']!r}, only SimpleRNN is known; say its chain with --layers")
        skip = int(data.get("skip", 0))
        layers = "gru(rec) linear(lin)" + f" add_input({skip})" * (skip > 0)
    return _arrays.build(arrays, layers)


class _Layers:
    """``{"in_shape": [..., I], "layers": [{"type", "activation", "shape", "weights"}, ...]}``."""

    def __init__(self, content: Mapping[str, Any]):
        self.arrays: Arrays = {}
        self.words: list[str] = []
        shape = content.get("in_shape")
        if not isinstance(shape, list) or not shape or not isinstance(shape[-1], int):
            raise ExportError(f"in_shape must be a list that ends with the number of inputs, got {shape!r}")
        if not isinstance(content["layers"], list) or not content["layers"]:
            raise ExportError("layers must be a list of at least one layer")
        self.layers = content["layers"]
        self.width = int(shape[-1])

    def build(self) -> chain.Built:
        for number, layer in enumerate(self.layers):
            kind = layer.get("type") if isinstance(layer, Mapping) else None
            self.what = f"layer {number}, {kind}"
            self.name = f"{kind}{number}".replace("-", "_")
            method = {"dense": self._dense, "time-distributed-dense": self._dense, "gru": self._gru}.get(str(kind))
            method = method or {"prelu": self._prelu, "batchnorm": self._batchnorm, "activation": self._only}.get(
                str(kind)
            )
            if method is None:
                why = f": {_REFUSED[kind]}, which the exporter does not have" if kind in _REFUSED else " is not known"
                raise ExportError(f"{self.what}{why}")
            method(layer)
        return _arrays.build(self.arrays, " ".join(self.words))

    def _weights(self, layer: Mapping[str, Any], *shapes: tuple[int, ...]) -> list[Array]:
        """The layer's arrays, which must have the shapes."""
        given = layer.get("weights")
        if not isinstance(given, list):
            raise ExportError(f"{self.what}: weights must be a list, got {type(given).__name__}")
        arrays = [_array(value, f"{self.what}: weights[{i}]") for i, value in enumerate(given)]
        if [array.shape for array in arrays] != list(shapes):
            got, wanted = ([list(s) for s in all_shapes] for all_shapes in ([a.shape for a in arrays], shapes))
            raise ExportError(f"{self.what}: the weights have the shapes {got}, expected {wanted}")
        return arrays

    def _outputs(self, layer: Mapping[str, Any]) -> int:
        shape = layer.get("shape")
        if not isinstance(shape, list) or not shape or not isinstance(shape[-1], int):
            raise ExportError(f"{self.what}: shape must be a list that ends with the number of outputs, got {shape!r}")
        return int(shape[-1])

    def _activation(self, layer: Mapping[str, Any]) -> None:
        name = layer.get("activation", "")
        if name and name not in _ACTIVATIONS:
            raise ExportError(f"{self.what}: the activation {name!r} is not known; known are {', '.join(_ACTIVATIONS)}")
        self.words += [name] if name else []

    def _dense(self, layer: Mapping[str, Any]) -> None:
        outputs = self._outputs(layer)
        W, b = self._weights(layer, (self.width, outputs), (outputs,))
        self.arrays |= {f"{self.name}.kernel": W, f"{self.name}.bias": b}
        self.words.append(f"linear({self.name})")
        self.width = outputs
        self._activation(layer)

    def _gru(self, layer: Mapping[str, Any]) -> None:
        hidden = self._outputs(layer)
        if layer.get("activation", "tanh") not in ("", "tanh"):
            raise ExportError(
                f"{self.what}: the activation {layer['activation']!r}; RTNeural computes tanh whatever it says"
            )
        W, U, b = self._weights(layer, (self.width, 3 * hidden), (hidden, 3 * hidden), (2, 3 * hidden))
        self.arrays |= {f"{self.name}.kernel": W, f"{self.name}.recurrent_kernel": U, f"{self.name}.bias": b}
        self.words.append(f"gru({self.name})")
        self.width = hidden

    def _prelu(self, layer: Mapping[str, Any]) -> None:
        given = np.shape(layer.get("weights", ()))
        slopes = self._weights(layer, (1, self.width) if given[-1:] != (1,) else (1, 1))[0]
        self.arrays[f"{self.name}.alpha"] = slopes.reshape(-1)
        self.words.append(f"prelu({self.name})")

    def _batchnorm(self, layer: Mapping[str, Any]) -> None:
        count = len(layer.get("weights", ()))
        if count not in (2, 4) or not isinstance(layer.get("epsilon"), (int, float)):
            raise ExportError(f"{self.what}: expected 2 or 4 arrays and a number epsilon")
        names = ("gamma", "beta", "moving_mean", "moving_variance")[4 - count :]
        arrays = self._weights(layer, *[(self.width,)] * count)
        self.arrays |= {f"{self.name}.{name}": array for name, array in zip(names, arrays)}
        self.words.append(f"batchnorm({self.name}, eps={float(layer['epsilon'])!r})")

    def _only(self, layer: Mapping[str, Any]) -> None:
        self._activation(layer)
