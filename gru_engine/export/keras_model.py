# SPDX-License-Identifier: Apache-2.0
"""Models of Keras as configurations with weights: ``.keras`` and ``.h5`` files, read without Keras, and live models.

Keras describes a model twice: a configuration (JSON) that says which layers there are and how they are connected, and arrays.
Here the configuration becomes a tree of ``Spec``, one for each layer, and the arrays are put where they belong. Files differ in
where they keep them:

- ``.keras`` (Keras 3, tf.keras since 2.12): a zip archive of JSON files and an HDF5 file with a group for each layer, whose
  path is made of attributes of layers and of class names.
- ``.h5`` (Keras 3, tf.keras, Keras 2): a group for each layer of the model, with all arrays of that layer and of those inside it
  as one list: what can be trained first, then the rest, both in the order in which the layers were made.

Live models have both in memory.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gru_engine.export.common import Array, ExportError
from gru_engine.export.keras_own import is_own, opened

MODELS = ("Sequential", "Functional", "Model")
MASK_ROOTS = ("NotEqual", "ZerosLike", "OnesLike")
"""The operations of Keras 3 with which the computation of a mask begins."""

LAMBDAS = ("TFOpLambda", "SlicingOpLambda")
"""The layers that are operations in tf.keras."""

_PACKAGES = ("keras", "tf_keras", "tensorflow", "builtins")
_MOST_NESTED = 64
_NO_PATH = "none/"  # of what has no arrays

_Config = dict[str, Any]


@dataclass(eq=False)
class Spec:
    """One layer, model or cell: its class, its configuration and its arrays.

    Attributes
    ----------
    kind : str
        The class, for instance ``"GRU"``.
    module : str
        Where Keras says that the class is defined; empty in old files.
    name : str
    config : dict
    children : dict
        The layers inside, by the path on which Keras keeps their arrays below this one's.
    arrays : dict
        Its own arrays by the names that Keras gives them.
    calls : list
        How a functional model calls it: for each call the positional and the named arguments.
    """

    kind: str
    module: str
    name: str
    config: _Config
    children: dict[str, Spec] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    calls: list[Any] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"

    @property
    def is_model(self) -> bool:
        """Whether it is a model made of layers."""
        return self.kind in MODELS or "layers" in self.config

    @property
    def is_operation(self) -> bool:
        """Whether it is an operation on values that no layer makes; Keras 3 has those in functional models."""
        if self.module:
            return ".ops." in self.module
        called = bool(self.calls) and isinstance(self.calls[0], dict)  # .h5 files do not say where a class is defined
        return self.kind in MASK_ROOTS or (called and not {"trainable", "batch_shape", "layers"} & self.config.keys())

    def option(self, name: str, default: Any = None) -> Any:
        """An entry of the configuration, if there is one that is not null."""
        value = self.config.get(name)
        return default if value is None else value

    def array(self, name: str) -> Array:
        """One of the arrays.

        Raises
        ------
        ExportError
            If it is missing.
        """
        if name not in self.arrays:
            raise ExportError(f"{self} has no array {name!r}; it has {', '.join(self.arrays) or 'none'}")
        return self.arrays[name]

    def walk(self) -> Iterator[Spec]:
        """Itself and all below."""
        yield self
        for child in self.children.values():
            yield from child.walk()


@dataclass(frozen=True, eq=False)
class Source:
    """A model that was read.

    Attributes
    ----------
    model : Spec
    version : str
        Of the Keras that wrote it; it decides what some names mean.
    opened : bool
        Whether it is a live model whose own classes were followed; there is no configuration of which Keras could make it again.
    """

    model: Spec
    version: str
    opened: bool = False

    @property
    def major(self) -> int:
        """The first number of the version."""
        match = re.match(r"\d+", self.version)
        return int(match[0]) if match else 0


# ---- configurations


def make_spec(entry: Any, depth: int = 0) -> Spec:
    """The tree of a configuration as Keras writes it: ``{"class_name": ..., "config": {...}}``.

    Raises
    ------
    ExportError
        If it is not one.
    """
    if depth > _MOST_NESTED:
        raise ExportError(f"the layers are nested more than {_MOST_NESTED} deep")
    if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
        raise ExportError(f"a layer is described by {_short(entry)}, which has no class_name")
    kind, config = entry["class_name"], entry.get("config")
    if kind == "Sequential" and isinstance(config, list):  # Keras before 2.2.3
        config = {"layers": config}
    if not isinstance(config, dict):
        raise ExportError(f"a layer {kind} is described by {_short(config)}, which is no configuration")
    name = entry.get("name") or config.get("name") or kind.lower()
    spec = Spec(kind, str(entry.get("module") or ""), str(name), config)
    if entry.get("registered_name") and entry["registered_name"] != kind:
        spec.kind = str(entry["registered_name"])  # a class of the user's own, "package>name"
    elif spec.module and spec.module.partition(".")[0] not in _PACKAGES:
        spec.kind = f"{spec.module}>{kind}"
    spec.calls = list(entry.get("inbound_nodes") or [])
    if "layers" in config:
        specs = [make_spec(layer, depth + 1) for layer in config["layers"]]
        # A Sequential does not count its input among its layers, and no model its operations.
        counted = [s for s in specs if not (s.is_operation or (kind == "Sequential" and s.kind == "InputLayer"))]
        paths = dict(zip(map(id, counted), _paths("layers", counted)))
        spec.children = {paths.get(id(s), f"{_NO_PATH}{i}"): s for i, s in enumerate(specs)}
    elif kind == "Bidirectional":
        spec.children = dict(zip(("forward_layer", "backward_layer"), _directions(config, depth)))
    elif kind == "StackedRNNCells":
        cells = [make_spec(cell, depth + 1) for cell in config.get("cells", [])]
        spec.children = dict(zip(_paths("cells", cells), cells))
    else:
        spec.children = {
            key: make_spec(config[key], depth + 1)
            for key in ("layer", "cell")
            if isinstance(config.get(key), dict) and "class_name" in config[key]
        }
    return spec


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _directions(config: _Config, depth: int) -> tuple[Spec, Spec]:
    """The two layers of a Bidirectional, of which the second is made of the first where it is not given."""
    forward = make_spec(config.get("layer"), depth + 1)
    if config.get("backward_layer") is not None:
        return forward, make_spec(config["backward_layer"], depth + 1)
    backward = make_spec(config.get("layer"), depth + 1)
    backward.config = {**backward.config, "go_backwards": not backward.option("go_backwards", False)}
    for spec, direction in ((forward, "forward_"), (backward, "backward_")):
        spec.name = direction + spec.name.removeprefix(direction)
    return forward, backward


def _paths(attribute: str, specs: list[Spec]) -> list[str]:
    """Where a ``.keras`` file keeps the arrays of a list's members: the class in snake case, numbered where it comes again."""
    used: dict[str, int] = {}
    paths = []
    for spec in specs:
        kind = spec.kind.rpartition(">")[2]
        kind = "Functional" if kind == "Model" else kind
        name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
        name = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
        number = used[name] = used.get(name, -1) + 1
        paths.append(f"{attribute}/{name}" + (f"_{number}" if number else ""))
    return paths


# ---- which arrays a layer has


def _slots(spec: Spec, major: int) -> list[tuple[str, bool]]:
    """The names of a layer's own arrays in Keras's order, and whether each can be trained."""
    kind, option = spec.kind, spec.option
    bias = [("bias", True)] if option("use_bias", True) else []
    if kind in ("Dense", "Conv1D", "Convolution1D", "Conv2D", "Convolution2D"):
        return [("kernel", True), *bias]
    if kind in ("GRUCell", "CuDNNGRU") or (kind == "GRU" and "cell" not in spec.children):
        return [("kernel", True), ("recurrent_kernel", True), *bias]
    if kind == "Embedding":
        return [("embeddings", True)]
    if kind in ("DepthwiseConv1D", "DepthwiseConv2D"):
        return [("kernel", True), *bias]
    if kind in ("SeparableConv1D", "SeparableConvolution1D", "SeparableConv2D", "SeparableConvolution2D"):
        return [("depthwise_kernel", True), ("pointwise_kernel", True), *bias]
    if kind == "Attention":
        concat = option("score_mode", "dot") == "concat"
        return [("scale", True)] * bool(option("use_scale", False)) + [("concat_score_weight", True)] * concat
    if kind == "AdditiveAttention":
        return [("scale", True)] * bool(option("use_scale", True))
    if kind == "MultiHeadAttention":
        arrays = ("kernel", "bias") if option("use_bias", True) else ("kernel",)
        return [(f"{part}_dense/{name}", True) for part in ("query", "key", "value", "output") for name in arrays]
    if kind == "RMSNormalization":
        return [("scale", True)]
    if kind == "LayerNormalization" and option("rms_scaling", False):
        return [("gamma", True)]
    if kind in ("BatchNormalization", "LayerNormalization", "GroupNormalization"):
        named = [("gamma", True)] * bool(option("scale", True)) + [("beta", True)] * bool(option("center", True))
        moving = [("moving_mean", False), ("moving_variance", False)]
        return named + moving * (kind == "BatchNormalization")
    if kind == "PReLU":
        return [("alpha", True)]
    if kind == "Normalization" and spec.config.get("mean") is None:
        return [("mean", False), ("variance", False), ("count", False)]
    return []


def _all_slots(spec: Spec, major: int, trainable: bool = True) -> list[tuple[Spec, str, bool]]:
    """All arrays of a layer and of those inside it, in the order in which they were made."""
    trainable = trainable and bool(spec.option("trainable", True))
    own = [(spec, name, trainable and can) for name, can in _slots(spec, major)]
    if major >= 3 and spec.option("stateful", False) and spec.kind in ("GRU", "RNN"):
        own = [(spec, "", False)] * len(_cells(spec)) + own  # the states, which are kept among the arrays
    return own + [slot for child in spec.children.values() for slot in _all_slots(child, major, trainable)]


def _cells(spec: Spec) -> list[Spec]:
    cells = [s for s in spec.walk() if s.kind in ("GRU", "GRUCell") and "cell" not in s.children]
    return cells or [spec]


def _same_name(slot: str, stored: str) -> bool:
    """Whether ``"gru/gru_cell/kernel_1:0"`` can be the array ``"kernel"``."""
    last = re.sub(r"(_\d+)?(:\d+)?$", "", stored.rpartition("/")[2])
    known = {
        "kernel",
        "recurrent_kernel",
        "bias",
        "embeddings",
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
        "alpha",
        "pointwise_kernel",
        "scale",
    }
    return last == slot.rpartition("/")[2] or last not in known


# ---- files


def read(path: str | os.PathLike[str]) -> Source:
    """Read a model from a file, without Keras.

    Parameters
    ----------
    path : path
        ``.keras`` or ``.h5``; which of the two, its content says.

    Returns
    -------
    Source

    Raises
    ------
    ExportError
        If it is neither, holds weights without a model, or is damaged.
    """
    path = Path(path)
    if path.is_dir():
        raise ExportError(f"{path} is a folder (a SavedModel?); save the model as one file: model.save('model.keras')")
    with open(path, "rb") as file:
        start = file.read(8)
    if start[:4] == b"PK\x03\x04":
        return _read_archive(path)
    if start == b"\x89HDF\r\n\x1a\n":
        return _read_hdf5(path)
    if start.lstrip()[:1] == b"{":
        raise ExportError(f"{path} holds no weights; save the model itself: model.save('model.keras')")
    raise ExportError(f"{path} is neither a .keras file (a zip archive) nor an .h5 file (HDF5)")


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ExportError("to read models of Keras, pip install h5py") from error
    return h5py


def _json(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ExportError(f"{where} is not JSON: {error}") from error


def _read_archive(path: Path) -> Source:
    h5py = _h5py()
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "config.json" not in names or "model.weights.h5" not in names:
                raise ExportError(
                    f"{path} is a zip archive, but no model of Keras: it has {', '.join(names[:5]) or 'no files'}"
                )
            entry = _json(archive.read("config.json"), f"{path}: config.json")
            metadata = (
                _json(archive.read("metadata.json"), f"{path}: metadata.json") if "metadata.json" in names else {}
            )
            weights = archive.read("model.weights.h5")
    except ExportError:
        raise
    except Exception as error:  # what zipfile may raise for a damaged archive is no fixed list
        raise ExportError(f"{path} is not a readable zip archive: {error}") from error
    version = str(metadata.get("keras_version", "3")) if isinstance(metadata, dict) else "3"
    source = Source(_whole(make_spec(entry)), version)
    try:
        with h5py.File(io.BytesIO(weights), "r") as file:
            missing: list[tuple[Spec, str]] = []
            _fill_from_groups(source.model, file, "", source.major, missing)
            _fill_shared(source.model, missing)
    except OSError as error:
        raise ExportError(f"{path}: model.weights.h5 is damaged: {error}") from error
    return source


def _whole(spec: Spec) -> Spec:
    """A model, if it can be read at all."""
    if spec.children or spec.kind in MODELS:
        return spec
    raise ExportError(
        f"{spec} is a model of a class of its own, whose computation is Python code; only Sequential and functional models can "
        "be exported"
    )


def _fill_from_groups(spec: Spec, file: Any, path: str, major: int, missing: list[tuple[Spec, str]]) -> None:
    """Put the arrays of a ``.keras`` file into the tree; layers without are added to ``missing``, with the reason."""
    # GRU keeps its arrays in a cell that its configuration does not mention.
    own = f"{path}/cell" if spec.kind == "GRU" and f"{path}/cell" in file else path
    slots = _slots(spec, major)
    group = file.get(f"{own}/vars".lstrip("/"))
    stored = group.attrs.get("name") if group is not None and own == path else None
    if isinstance(stored, str) and stored != spec.name:
        raise ExportError(f"the arrays of {spec} were expected at {path}, but there are those of {stored!r}")
    if slots:
        inner = list(
            dict.fromkeys(name.rpartition("/")[0] for name, _ in slots)
        )  # of layers that the configuration does not show
        groups = [group] if inner == [""] else [file.get(f"{own}/{part}/vars".lstrip("/")) for part in inner]
        found = [_dataset(g[key]) for g in groups if g is not None for key in sorted(g, key=int)]
        if len(found) != len(slots):
            names = ", ".join(name for name, _ in slots)
            reason = f"{spec} has {len(found)} arrays at {own}/vars, expected {len(slots)} ({names})"
            if found:
                raise ExportError(reason)
            missing.append((spec, reason))
        else:
            spec.arrays = dict(zip((name for name, _ in slots), found))
    for key, child in spec.children.items():
        if not key.startswith(_NO_PATH):
            _fill_from_groups(child, file, f"{path}/{key}".lstrip("/"), major, missing)


def _fill_shared(model: Spec, missing: list[tuple[Spec, str]]) -> None:
    """A layer that stands in several models has its arrays where it came first."""
    for spec, reason in missing:
        same = [other for other in model.walk() if (other.kind, other.name) == (spec.kind, spec.name) and other.arrays]
        if len(same) != 1:
            raise ExportError(reason)
        spec.arrays = same[0].arrays


def _dataset(dataset: Any) -> Array:
    """An array of a file; bfloat16 widened."""
    h5py = _h5py()
    if not isinstance(dataset, h5py.Dataset):
        raise ExportError(f"{dataset.name} is a {type(dataset).__name__}, expected an array")
    array: Array = np.asarray(dataset[()])
    if array.dtype.kind == "V" and array.dtype.itemsize == 2 and dataset.attrs.get("dtype", "bfloat16") == "bfloat16":
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(array.shape)
    if array.dtype.kind != "f" and array.dtype.kind not in "iu":
        raise ExportError(f"{dataset.name} has the data type {array.dtype}, which is not supported")
    return array


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _list(group: Any, name: str) -> list[str]:
    """A list of names among a group's attributes; a long one is kept in numbered pieces."""
    if name in group.attrs:
        return [_text(item) for item in group.attrs[name]]
    items: list[str] = []
    number = 0
    while f"{name}{number}" in group.attrs:
        items += [_text(item) for item in group.attrs[f"{name}{number}"]]
        number += 1
    return items


def _read_hdf5(path: Path) -> Source:
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            if "model_config" not in file.attrs or "model_weights" not in file:
                raise ExportError(
                    f"{path} holds weights, but not the model that they belong to; save the model itself: "
                    "model.save('model.keras')"
                )
            entry = _json(_text(file.attrs["model_config"]), f"{path}: model_config")
            group = file["model_weights"]
            version = file.attrs.get("keras_version", group.attrs.get("keras_version", "1"))
            source = Source(_whole(make_spec(entry)), _text(version))
            if source.major < 2:
                raise ExportError(
                    f"{path} was written by Keras {source.version}; load it with Keras 2 and save it again"
                )
            _fill_from_lists(source, group)
    except OSError as error:
        raise ExportError(f"{path} is not a readable HDF5 file: {error}") from error
    return source


def _fill_from_lists(source: Source, group: Any) -> None:
    """Put the arrays of an ``.h5`` file into the tree."""
    stored = set(_list(group, "layer_names"))
    for spec in source.model.children.values():
        slots = _all_slots(spec, source.major)
        if not slots:
            continue
        if spec.name not in stored or spec.name not in group:
            raise ExportError(
                f"the file has no arrays of {spec}; it has those of {', '.join(sorted(stored)) or 'none'}"
            )
        names = _list(group[spec.name], "weight_names")
        states = [slot for slot in slots if not slot[1]]
        if len(names) == len(slots) - len(states):
            slots = [slot for slot in slots if slot[1]]
        if len(names) != len(slots):
            raise ExportError(f"{spec} has {len(names)} arrays in the file ({', '.join(names)}), expected {len(slots)} "
                              f"({', '.join(name for _, name, _ in slots)})")  # fmt: skip
        ordered = [slot for slot in slots if slot[2]] + [slot for slot in slots if not slot[2]]
        for (owner, slot, _), name in zip(ordered, names):
            if slot:
                if not _same_name(slot, name):
                    raise ExportError(f"{spec} has the array {name!r} where {slot!r} of {owner} was expected")
                owner.arrays[slot] = _dataset(group[spec.name][name])


# ---- live models


def read_live(model: Any) -> Source:
    """The configuration and the arrays of a model in memory, of Keras 3, tf.keras or tf_keras.

    Raises
    ------
    TypeError
        If it is no model of Keras.
    ExportError
        If it is not built, or a model of a class of its own.
    """
    if not (hasattr(model, "get_config") and hasattr(model, "layers") and hasattr(model, "get_weights")):
        raise TypeError(f"model must be a model of Keras or the path of a file, got {type(model).__name__}")
    given, model = model, opened(model, _PACKAGES)
    kinds = [kind.__name__ for kind in type(model).__mro__ if kind.__name__ in MODELS]
    if not kinds or kinds[0] == "Model" or is_own(model, _PACKAGES):
        raise ExportError(f"{type(model).__name__} {model.name!r} is a model of a class of its own, whose computation is "
                          "Python code; only Sequential and functional models can be exported")  # fmt: skip
    if not getattr(model, "built", True):
        raise ExportError(f"the model {model.name!r} is not built: give it an Input, or call it once")
    config = json.loads(json.dumps(model.get_config(), default=_plain))
    entry = {"class_name": "Sequential" if kinds[0] == "Sequential" else "Functional", "config": config}
    if kinds[0] == "Sequential" and not any(l["class_name"] == "InputLayer" for l in config["layers"]):
        shape = getattr(model, "input_shape", None)
        config.setdefault("build_input_shape", list(shape) if shape else None)
    source = Source(make_spec(entry), _version_of(model), model is not given)
    _fill_from_layer(source.model, model, source.major)
    return source


def _plain(value: Any) -> Any:
    """What JSON cannot write."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "get_config"):
        return {"class_name": type(value).__name__, "config": value.get_config()}
    return getattr(value, "__name__", None) or getattr(value, "name", None) or repr(value)


def _version_of(model: Any) -> str:
    """The version of the Keras whose class the model's is."""
    for kind in type(model).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in ("keras", "tf_keras"):
            return str(getattr(sys.modules.get(root), "__version__", "2"))
        if root == "tensorflow":
            return "2"
    return "3"


def _fill_from_layer(spec: Spec, layer: Any, major: int) -> None:
    if spec.is_model:
        for child in spec.children.values():
            if child.kind != "InputLayer" and not child.is_operation:
                _fill_from_layer(child, layer.get_layer(child.name), major)
        return
    for key, child in spec.children.items():
        attribute = key.partition("/")[0]
        inner = layer.cells[list(spec.children).index(key)] if attribute == "cells" else getattr(layer, attribute)
        _fill_from_layer(child, inner, major)
    slots = _slots(spec, major)
    if slots:
        weights = getattr(layer, "cell", layer).weights if spec.kind == "GRU" else layer.weights
        if len(weights) != len(slots):
            raise ExportError(f"{spec} has {len(weights)} arrays, expected {len(slots)} "
                              f"({', '.join(name for name, _ in slots)})")  # fmt: skip
        spec.arrays = {name: to_numpy(weight) for (name, _), weight in zip(slots, weights)}


def to_numpy(value: Any) -> Array:
    """A variable or a tensor of any backend as an array; bfloat16 widened."""
    value = getattr(value, "value", value)  # of a variable; of one of TensorFlow it is a method
    value = value() if callable(value) else value
    value = value.detach().cpu() if hasattr(value, "detach") else value
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        value = value.float()
    array: Array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    return array if array.dtype.kind in "fiub" else array.astype(np.float32)  # bfloat16 is a type of its own
