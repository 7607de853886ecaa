# SPDX-License-Identifier: Apache-2.0
"""A model in Keras beside the network that was made of it; here, and only here, Keras itself is needed.

What a network does not have is taken out of a copy of the model first: fixed sizes of batch and time, unrolled loops, data types
of less than 32 bits. What its layers compute, Keras computes.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine._inputs import TokenInput
from gru_engine.export import common
from gru_engine.export.common import Array, ExportError, Inputs
from gru_engine.export.keras import Exported
from gru_engine.export.keras_calls import references
from gru_engine.export.keras_model import to_numpy
from gru_engine.reference_arguments import by_name

_HALF = ("float16", "bfloat16")
_BUILDS = ("build_config", "build_input_shape")
_TRAINING = ("_constraint", "_regularizer", "_initializer")  # of no use at inference, and often of a class of one's own


def package_for(version: str) -> Any:
    """The installed Keras that computes what a file of this version means, or None.

    Keras 3 for files of Keras 3; tf_keras, or an old Keras, for those of Keras 2, of which Keras 3 reads some differently.
    """
    old = version.partition(".")[0] != "3"
    for name in ("tf_keras", "keras") if old else ("keras",):
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a folder of that name is no package
            continue
        package = importlib.import_module(name)
        if (str(package.__version__).partition(".")[0] != "3") == old:
            return package
    return None


@dataclass(frozen=True, eq=False)
class Running(Exported):
    """A network beside its model in Keras."""

    model: Any
    package: Any
    twins: dict[int, Any]

    def call(self, arguments: list[Any], lengths: Array | None) -> list[Any]:
        """See ``Traced.call``."""
        given = dict(zip(map(id, self.places), arguments))
        ordered = [given[id(place)] for place in self.inputs.values()]
        ordered = [a.astype(np.int32 if a.dtype.kind in "iu" else np.float32) for a in ordered]
        batch = len(ordered[0]) if self._steps else 0
        if batch not in self.twins:
            self.twins[batch] = _twin(self, batch)
        names = self.source.model.config.get("input_layers")
        arrays = dict(zip(self.inputs, ordered))
        passed = {key: arrays[_name(value)] for key, value in names.items()} if isinstance(names, dict) else ordered
        returned = self.twins[batch](passed if len(passed) > 1 else ordered[0], training=False)
        return [to_numpy(value) for value in _flat(returned, self.source.model.config.get("output_layers"))]

    @property
    def _steps(self) -> bool:
        """Whether the model takes one step and keeps its state."""
        return "T" not in self.layout and self.stateful

    def outputs_for(self, x: Inputs) -> Array:
        """Run the model from the start on what the network takes: x [B, T, I] or tokens [B, T], several by name."""
        batch = len(next(iter(x.values())) if isinstance(x, Mapping) else x)
        if self._steps and batch in self.twins:
            for layer in self.twins[batch].layers:
                if getattr(layer, "stateful", False):
                    (layer.reset_state if hasattr(layer, "reset_state") else layer.reset_states)()
        return self.run(x)[0]


def run_beside(exported: Exported, model: Any) -> Running | None:
    """The network beside its model in Keras, or None where the Keras for it is not installed.

    Parameters
    ----------
    exported : Exported
    model : path or live model
        What it was made of.
    """
    if isinstance(model, (str, os.PathLike)):
        package = package_for(exported.source.version)
        if package is None:
            return None
        model = _load(package, Path(model))
    else:
        package = importlib.import_module(type(model).__module__.partition(".")[0])
        package = package.keras if package.__name__ == "tensorflow" else package
    values = {field.name: getattr(exported, field.name) for field in fields(Exported)}
    return Running(**values, model=model, package=package, twins={})


def _load(package: Any, path: Path) -> Any:
    """A model of a file; without what only training needs where that is of a class that Keras does not know."""
    try:
        return package.models.load_model(path, compile=False)
    except (TypeError, ValueError):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / f"copy{path.suffix}"
            if not _copy_for_inference(path, copy):
                raise
            return package.models.load_model(copy, compile=False)


def _copy_for_inference(path: Path, copy: Path) -> bool:
    """Copy a file without constraints, regularisers and initialisers; return whether there were any."""
    found = False

    def stripped(text: str | bytes) -> str:
        nonlocal found
        config = json.loads(text)
        found = any(f'{ending}":' in json.dumps(config) for ending in _TRAINING)
        return json.dumps(_without(config, _of_training))

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as new:
            for name in archive.namelist():
                content: str | bytes = archive.read(name)
                new.writestr(name, stripped(content) if name == "config.json" else content)
        return found
    import h5py

    shutil.copy(path, copy)
    with h5py.File(copy, "r+") as file:
        file.attrs["model_config"] = stripped(file.attrs["model_config"])
    return found


def _without(value: Any, left_out: Callable[[str], bool]) -> Any:
    """A configuration without some of its keys, at any depth."""
    if isinstance(value, list):
        return [_without(item, left_out) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _without(item, left_out) for key, item in value.items() if not left_out(key)}


def _of_training(key: str) -> bool:
    return key.endswith(_TRAINING)


def _of_builds(key: str) -> bool:
    """Also of the shapes with which layers were made."""
    return key in _BUILDS or _of_training(key)


# ---- a copy without fixed sizes


def _twin(running: Running, batch: int) -> Any:
    """The model with any batch and time (``batch``: exactly this one), in float32."""
    model = running.model
    if running.source.opened:
        return model
    config = json.loads(json.dumps(model.get_config(), default=_plain))
    loose = _loosened(config, running, batch or None)
    if loose == _without(config, _of_builds):
        return model
    twin = type(model).from_config(loose) if _is_plain(model) else running.package.Model.from_config(loose)
    targets, origins = _weights(twin), _weights(model)
    names = [[getattr(w, "path", w.name) for w in weights] for weights in (targets, origins)]
    if sorted(names[0]) == sorted(names[1]) and len(set(names[0])) == len(names[0]):
        by_name = dict(zip(names[1], origins))  # a shared layer may have another place
        origins = [by_name[name] for name in names[0]]
    for to, origin in zip(targets, origins, strict=True):
        to.assign(np.asarray(to_numpy(origin), np.float32))
    return twin


def _is_plain(model: Any) -> bool:
    return type(model).__name__ in ("Sequential", "Functional", "Model")


def _plain(value: Any) -> Any:
    return (
        value.item()
        if isinstance(value, np.generic)
        else value.tolist()
        if isinstance(value, np.ndarray)
        else str(value)
    )


def _weights(model: Any) -> list[Any]:
    """All arrays of a model but the states of its layers."""
    return [w for w in model.weights if "rnn_state" not in str(getattr(w, "path", w.name))]


def _loosened(value: Any, exported: Exported, batch: int | None) -> Any:
    if isinstance(value, list):
        return [_loosened(item, exported, batch) for item in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for key, item in value.items():
        if _of_builds(key):
            continue
        if key in ("batch_shape", "batch_input_shape") and isinstance(item, list):
            layout = _layout_of(value.get("name"), len(item), exported)
            loose = exported.steps is None
            item = [batch, *(None if c == "T" and loose else n for n, c in zip(item[1:], layout[1:]))]
            if exported.layout.startswith("T"):
                item[0], item[1] = None, batch
        elif key in ("unroll", "stateful"):
            item = bool(item) and key == "stateful" and batch is not None
        elif key == "dtype":
            name = (item.get("config") or {}).get("name") if isinstance(item, dict) else item
            item = "float32" if str(name).endswith(_HALF) else item
        elif key == "target_shape" and isinstance(item, list) and -1 not in item and len(item) > 1:
            item = [-1, *item[1:]]
        result[key] = _loosened(item, exported, batch)
    return result


def _layout_of(name: Any, rank: int, exported: Exported) -> str:
    """What the axes of an input mean; of one of a model inside by those of the same rank."""
    layouts = [exported.layouts[name]] if name in exported.layouts else list(exported.layouts.values())
    return next((layout for layout in layouts if len(layout) == rank), " " * rank)


# ---- running


def _name(reference: Any) -> str:
    """The layer in ``["name", 0, 0]``."""
    return references(reference)[0][0]


def _flat(value: Any, structure: Any) -> list[Any]:
    """The values of a model's outputs in the order of its configuration."""
    if isinstance(value, dict):
        keys = list(structure) if isinstance(structure, dict) else list(value)
        return [v for key in keys for v in _flat(value[key], structure[key] if isinstance(structure, dict) else None)]
    if isinstance(value, (list, tuple)):
        inner = structure if isinstance(structure, list) and len(structure) == len(value) else [None] * len(value)
        return [v for item, part in zip(value, inner) for v in _flat(item, part)]
    return [value]


# ---- comparing


def inputs(exported: Exported, batch: int = 4, steps: int = 50) -> Inputs:
    """Random inputs in which no step is padding."""
    net = exported.network
    x = common.random_inputs(net, batch, exported.steps or max(steps, net.least_steps + 10))
    given = dict(by_name(net, x))
    for name, mark in _marks(exported).items():
        part = net.inputs[name]
        if isinstance(part, TokenInput):
            if part.vocab_size < 2:
                raise ExportError("the only token is the one that stands for padding")
            given[name] = np.where(given[name] == mark, given[name] + 1, given[name]) % part.vocab_size
            given[name] = np.where(given[name] == mark, 1, given[name])
    return given if isinstance(x, Mapping) else next(iter(given.values()))


def _marks(exported: Exported) -> dict[str, float]:
    """What marks padding in the inputs of the network, by their names."""
    padding = exported.padding
    if padding is None or isinstance(padding, dict):
        return padding or {}
    return dict.fromkeys(exported.network.inputs, padding)


def compare_padded(
    running: Running, engine: Callable[..., Array], threshold: float = common.THRESHOLD
) -> list[common.Comparison]:
    """Compare on padded sequences: Keras with its mask, the engine with ``lengths=``; the steps before the padding count.

    Parameters
    ----------
    running : Running
    engine : callable
        ``Model.run`` of the packed network.
    threshold : float
        See ``common.compare``.

    Returns
    -------
    list of Comparison
        Empty if the model has no mask.

    Raises
    ------
    ExportError
        If they differ by more than the threshold.
    """
    marks = _marks(running)
    if not marks:
        return []
    random = inputs(running, batch=4, steps=12)
    counts: npt.NDArray[np.int64] = np.array([12, 7, 3, 1])
    valid = np.arange(12) < counts[:, np.newaxis]
    given = dict(by_name(running.network, random))
    for name, mark in marks.items():
        array = given[name]
        given[name] = np.where(
            valid if array.ndim == 2 else valid[..., np.newaxis], array, np.asarray(mark, array.dtype)
        )
    x: Inputs = given if isinstance(random, Mapping) else next(iter(given.values()))
    expected, got = running.outputs_for(x), np.asarray(engine(x, lengths=counts))
    if got.ndim == 3:
        axis = running.network.axis
        valid = np.arange(axis.count(12)) < axis.count(counts)[:, np.newaxis]
        expected, got = expected[valid], got[valid]
    return [common.compare("engine with lengths= and Keras with its mask", got, expected, threshold)]
