# SPDX-License-Identifier: Apache-2.0
"""Models of Keras to networks: files and live models, Keras 3, tf.keras and Keras 2.

A model is its configuration and its arrays (``gru_engine.export.keras_model``), whether it comes from a file or from memory, so
Keras itself is not needed. The configuration is followed layer by layer with tensors that know what their axes mean
(``gru_engine.export.graph``); a layer that is not known, or not exact, is refused by its name. ``gru_engine.export.keras_check``
runs the model in Keras beside its network, where Keras is installed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.export.common import ExportError
from gru_engine.export.graph import AxisError, Dim, Graph, Tensor
from gru_engine.export.keras_calls import (
    RECURRENT,
    Reference,
    first_calls,
    mask_is_known,
    mask_operations,
    parse_call,
    references,
)
from gru_engine.export.keras_layers import LAYERS, Context, Masks, Value, refusal
from gru_engine.export.keras_model import MODELS, Source, Spec, read, read_live
from gru_engine.export.keras_recurrent import bidirectional, recurrent
from gru_engine.export.keras_time import READS_TIME
from gru_engine.export.traced import Outputs, Traced
from gru_engine.network import Network

_SIZES = {"B": 7919, "T": 7907, "R": 7907}  # primes, which are no layer's width
_HALF = ("float16", "bfloat16")


def from_model(model: Any, *, outputs: Sequence[int] | None = None) -> Network:
    """Turn a model into a network, exactly, or refuse.

    Parameters
    ----------
    model : path or live model
        A ``.keras`` or ``.h5`` file, or a Sequential or functional model of Keras 3 or tf.keras.
    outputs : sequence of int, optional
        Which of the model's outputs become outputs of the network. By default all, except states that are returned beside
        sequences: those a stream carries by itself.

    Returns
    -------
    Network

    Raises
    ------
    ExportError
        If a layer has no exact counterpart; the message says which one.
    TypeError
        If it is neither a path nor a model.
    """
    return export(model, outputs=outputs).network


def export(model: Any, *, outputs: Sequence[int] | None = None) -> Exported:
    """Like ``from_model``, and return what is needed to run the model beside its network."""
    source = None if isinstance(model, (str, os.PathLike)) else read_live(model)
    errors: list[ExportError] = []
    try:
        source = read(model) if source is None else source
        for layout in _layouts(source.model):
            try:
                return _Following(source, layout).exported(outputs)
            except ExportError as error:
                errors.append(error)
    except ExportError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ExportError(f"the configuration is damaged: {type(error).__name__}: {error}") from error
    # Of all guesses at the axes the one that came furthest was most likely right.
    raise max(errors, key=lambda error: error.progress)


def lengths(x: npt.ArrayLike, padding: float | Sequence[float] = 0) -> npt.NDArray[np.int64]:
    """The ``lengths=`` that stand for the mask that Keras makes of padded sequences.

    Parameters
    ----------
    x : array_like [B, T, I], or tokens [B, T]
    padding : number
        The token 0 of ``Embedding(mask_zero=True)``, or the ``mask_value`` of ``Masking``, in all features of a step.

    Returns
    -------
    array of int64 [B]

    Raises
    ------
    ValueError
        If there is padding before or between valid steps: Keras skips those, which no length can say.
    """
    x = np.asarray(x)
    if x.ndim not in (2, 3):
        raise ValueError(f"x must be [B, T, I] or tokens [B, T], got an array of shape {list(x.shape)}")
    valid = x != padding if x.ndim == 2 else (x != padding).any(axis=-1)
    counts: npt.NDArray[np.int64] = valid.sum(axis=1).astype(np.int64)
    for row, (count, steps) in enumerate(zip(counts, valid)):
        if not steps[:count].all():
            raise ValueError(
                f"sequence {row} has padding at step {int(np.argmin(steps))} and valid steps after it; lengths= can only leave "
                "out steps at the end"
            )
    return counts


# ---- what the axes of the input mean


def _input_shape(spec: Spec) -> list[int | None] | None:
    """The shape of an input with its batch axis, None where a size is open."""
    shape = spec.config.get("batch_shape", spec.config.get("batch_input_shape"))
    if shape is None and isinstance(spec.config.get("shape"), list):
        shape = [None, *spec.config["shape"]]
    return None if shape is None else list(shape)


def _first_shape(model: Spec) -> list[int | None]:
    """The shape of the model's (first) input."""
    for spec in model.children.values():
        shape = _input_shape(spec)
        if shape is not None:
            return shape
        if spec.is_model:
            return _first_shape(spec)
        if model.kind == "Sequential":
            break
    shape = model.config.get("build_input_shape")
    if not isinstance(shape, list) or (shape and isinstance(shape[0], list)):
        raise ExportError(
            f"{model} does not say what its input is; call it once, or begin with an Input, and save it again"
        )
    return list(shape)


def _layouts(model: Spec) -> list[str]:
    """The possible meanings of the input's axes, the likely ones first: B batch, T time, F features, 1 an axis of size 1."""
    shape, specs = _first_shape(model), list(model.walk())
    time_major = any(spec.option("time_major", False) for spec in specs)
    carried = any(spec.option("stateful", False) for spec in specs) or len(_inputs(model)) > 1
    tokens = any(spec.kind == "Embedding" for spec in specs)
    reads_time = any(spec.kind in (*RECURRENT, *READS_TIME) for spec in specs)  # only such a layer tells the axes apart
    if len(shape) < 2:
        raise ExportError(f"the input of {model} has the shape {shape}, expected a batch of sequences")
    if tokens and len(shape) != 2:
        raise ExportError(
            f"the input of {model} has the shape {shape}, but there is an Embedding, which reads tokens [batch, time]"
        )
    if tokens or (len(shape) == 2 and shape[1] is None):
        layouts = ["BT", "TB"]
    elif len(shape) == 2:
        layouts = ["BF", "BT"] if reads_time else ["BF"]
    else:
        layouts = [f"{order}{'F' * (len(shape) - 2)}" for order in ("BT", "TB")]
        layouts += [f"B{'F' * (len(shape) - 2)}T"] if reads_time else []
    if time_major:
        layouts = sorted(layouts, key=lambda layout: not layout.startswith("TB"))
    else:
        layouts = [layout for layout in layouts if not layout.startswith("TB")]
    single = [l.replace("T", "1") for l in layouts if "T" in l and shape[l.index("T")] == 1 and carried]
    fits = [
        l
        for l in [*single, *layouts]
        if len(l) == len(shape) and all(n is not None for c, n in zip(l, shape) if c == "F")
    ]
    if not fits:
        raise ExportError(f"the input of {model} has the shape {shape}; the number of its features must be known")
    return fits


def _inputs(model: Spec) -> list[str]:
    """The names of a functional model's inputs."""
    return [name for name, _, _ in references(model.config.get("input_layers"))]


# ---- following a model


class _Following:
    """A model that is followed with one meaning of its input's axes."""

    def __init__(self, source: Source, layout: str):
        self.source, self.layout = source, layout
        self.graph = Graph()
        sizes = dict(_SIZES)
        if "T" in layout and (_first_shape(source.model)[layout.index("T")] or 1) > 1:
            sizes["T"] = sizes["R"] = int(
                _first_shape(source.model)[layout.index("T")] or 0
            )  # for those that reshape it
        self.context = Context(self.graph, sizes, major=source.major)
        self.places: dict[str, Tensor] = {}  # the inputs by name

    # -- inputs

    def _main(self) -> Tensor:
        shape = _first_shape(self.source.model)
        kind = "tokens" if any(spec.kind == "Embedding" for spec in self.source.model.walk()) else "input"
        dims: list[Dim] = []
        for letter, size in zip(self.layout, shape):
            dims.append((letter,) if letter in "BT" else () if letter == "1" else (int(size or 0),))
        return self.graph.source(kind, dims)

    def _open_inputs(self, model: Spec) -> dict[str, Value]:
        """The values of a functional model's inputs: one input, and initial states."""
        names = _inputs(model)
        uses: dict[str, set[str]] = {name: set() for name in names}
        for spec in model.children.values():
            for entry in spec.calls:
                call = parse_call(spec, entry)
                for role, read_by in (("input", call.inputs), ("state", call.states)):
                    for name, _, _ in read_by:
                        if name in uses:
                            uses[name].add(role)
        states = [name for name in names if uses[name] == {"state"}]
        data = [name for name in names if name not in states]
        if len(data) != 1:
            raise ExportError(
                f"the model has {len(data)} inputs ({', '.join(data)}); a network has one, and initial states of GRUs"
            )
        values = {}
        by_name = {spec.name: spec for spec in model.children.values()}
        for name in names:
            shape = _input_shape(by_name[name])
            if name in data:
                self.places[name] = self._main()
            elif shape is None or len(shape) != 2 or shape[1] is None:
                raise ExportError(f"the initial state {name!r} has the shape {shape}, expected [batch, units]")
            else:
                self.places[name] = self.graph.source("state", [("B",), (int(shape[1]),)], f"input {name!r}")
            values[name] = Value(self.places[name])
        return values

    # -- layers

    def _layer(
        self, spec: Spec, inputs: Sequence[Value], states: Sequence[Tensor], options: dict[str, Any]
    ) -> list[Value]:
        """What a layer returns; errors name it."""
        self.context.followed += 1
        self.graph.name = spec.name
        try:
            self._check_options(spec, options)
            return self._call(spec, inputs, states)
        except ExportError as error:
            if getattr(error, "named", False):
                raise
            new = type(error)(f"{spec}: {error}")
            new.named = True  # type: ignore[attr-defined]
            raise new from error.__cause__

    @staticmethod
    def _check_options(spec: Spec, options: dict[str, Any]) -> None:
        for name, value in options.items():
            if name == "training" and value and not (spec.kind == "GRU" and not _drops(spec)):
                raise ExportError("it is called with training=True, so it does at inference what it does in training")
            if name not in ("training", "mask", "initial_state") and value is not None:
                raise ExportError(f"it is called with {name}={value!r}")
        policy = spec.option("dtype")
        if isinstance(policy, dict):
            policy = (policy.get("config") or {}).get("name", policy)
        if isinstance(policy, str) and "_from_" in policy:
            raise ExportError(f"its data type is {policy}: quantised layers are not supported")

    def _call(self, spec: Spec, inputs: Sequence[Value], states: Sequence[Tensor]) -> list[Value]:
        if spec.is_model:
            return self._model(spec, inputs)
        if spec.kind in ("GRU", "RNN", "CuDNNGRU", "Bidirectional"):
            if len(inputs) != 1:
                raise ExportError(f"it reads {len(inputs)} values, expected 1 and initial states")
            run = bidirectional if spec.kind == "Bidirectional" else recurrent
            return run(self.context, spec, inputs[0], list(states))
        if spec.kind == "TimeDistributed":
            return [self._at_each_step(spec, inputs)]
        if spec.kind not in LAYERS or spec.is_operation:
            raise ExportError(refusal(spec))
        return [LAYERS[spec.kind](self.context, spec, inputs)]

    def _at_each_step(self, spec: Spec, inputs: Sequence[Value]) -> Value:
        """TimeDistributed: the layer inside sees a batch of steps."""
        if len(inputs) != 1:
            raise ExportError(f"it reads {len(inputs)} values, expected 1")
        t, inner = inputs[0].tensor, spec.children.get("layer")
        if inner is None:
            raise ExportError("it has no layer in its configuration")
        if t.rank < 3 or t.dims[0] != ("B",) or t.dims[1] not in (("T",), ("R",), ()):
            raise AxisError(f"it reads [batch, time, ...], but its input is {t}")
        time = t.dims[1]
        # Inside, the time is part of the batch, and there is no other time that a layer could take for its own.
        merged = Tensor(((*t.dims[0], *time), *t.dims[2:]), t.ids)
        if inner.kind in (*RECURRENT, "TimeDistributed", "Embedding", "Reshape", "Flatten") or inner.is_model:
            raise ExportError(f"it wraps {inner}; only layers that act on the features alone are supported")
        y = self._layer(inner, [Value(merged)], [], {})[0].tensor
        if y.dims[0] != merged.dims[0]:
            raise AxisError(f"its layer returns {y}")
        return inputs[0].but(Tensor((("B",), time, *y.dims[1:]), y.ids))

    # -- models

    def _model(self, spec: Spec, inputs: Sequence[Value]) -> list[Value]:
        """What a model returns."""
        if "layers" not in spec.config or spec.kind not in MODELS:
            raise ExportError(f"{spec} is a model of a class of its own, whose computation is Python code")
        if not _is_functional(spec):
            values = list(inputs)
            for layer in spec.children.values():
                if layer.kind != "InputLayer":
                    values = self._layer(layer, values, [], {})
            return values
        names = _inputs(spec)
        if len(names) != len(inputs):
            raise ExportError(
                f"it has {len(names)} inputs ({', '.join(names)}), but is called with {len(inputs)} values"
            )
        return self._functional(spec, dict(zip(names, inputs)))

    def _functional(self, model: Spec, values: dict[str, Value]) -> list[Value]:
        """What a functional model returns for the values of its inputs. Its layers come in any order."""
        done: dict[str, list[list[Value]]] = {name: [[value]] for name, value in values.items()}
        specs = {spec.name: spec for spec in model.children.values()}
        firsts = first_calls(model, self.source.major)
        masks = mask_operations(model)
        waiting = [
            (spec, parse_call(spec, entry))
            for spec in specs.values()
            if spec.name not in values and spec.name not in masks
            for entry in spec.calls
        ]
        needed = references(model.config.get("output_layers"))

        def value_of(reference: Reference) -> Value | None:
            name, call, output = reference
            calls = done.get(name, [])
            index = call - firsts.get(name, 0)
            return calls[index][output] if 0 <= index < len(calls) else None

        while waiting:
            left = []
            for spec, call in waiting:
                inputs, states = ([value_of(r) for r in refs] for refs in (call.inputs, call.states))
                if any(value is None for value in (*inputs, *states)):
                    left.append((spec, call))
                    continue
                given = [value for value in inputs if value is not None]
                if call.mask and mask_is_known(model, spec, call.mask, masks) and len(given) == 1:
                    given = [Value(given[0].tensor, True)]
                initial = [value.tensor for value in states if value is not None]
                done.setdefault(spec.name, []).append(self._layer(spec, given, initial, call.options))
            if len(left) == len(waiting):
                names = ", ".join(str(spec) for spec, _ in left[:5])
                raise ExportError(f"{model}: nothing gives what these layers read: {names}")
            waiting = left
        returned = [value_of(reference) for reference in needed]
        if not returned or any(value is None for value in returned):
            raise ExportError(f"{model} does not say what it returns")
        return [value for value in returned if value is not None]

    # -- the whole

    def exported(self, outputs: Sequence[int] | None) -> Exported:
        """The network."""
        model, followed = self.source.model, False
        try:
            if _is_functional(model) and model.kind in MODELS:
                values = self._functional(model, self._open_inputs(model))
                names = [name for name, _, _ in references(model.config.get("output_layers"))]
            else:
                self.places["input"] = self._main()
                values = self._model(model, [Value(self.places["input"])])
                names = [list(model.children.values())[-1].name] * len(values)
            followed = True
            self.context.masks.check()
            returned = [value.tensor for value in values]
            main = [t for t in self.places.values() if not self._is_state(t)]
            places = main + [t for t in self.places.values() if self._is_state(t)]
            labels = [f"output {i} ({name})" for i, name in enumerate(names)]
            found = Outputs(self.graph, places, returned, "the model", labels)
            if outputs is not None and not outputs:
                raise ExportError("outputs: choose at least one of the model's outputs")
            chosen = found.choose() if outputs is None else list(outputs)
            network, fields = found.lowered(_output_names(names, chosen), chosen)
        except ExportError as error:
            error.progress = self.context.followed + 1e6 * followed - 0.5 * isinstance(error, AxisError)
            raise
        return Exported(
            network=network,
            **fields,
            source=self.source,
            layout=self.layout,
            inputs=self.places,
            returned=returned,
            masks=self.context.masks,
        )

    def _is_state(self, t: Tensor) -> bool:
        return self.graph.nodes[int(self.graph.node_numbers(t.ids.reshape(-1)[:1])[0])].operation == "state"


def _drops(spec: Spec) -> bool:
    return bool(spec.option("dropout", 0) or spec.option("recurrent_dropout", 0))


def _is_functional(model: Spec) -> bool:
    return model.kind != "Sequential" and "input_layers" in model.config


def _output_names(names: list[str], chosen: Sequence[int]) -> list[str | None]:
    """A name for each output: of its layer, numbered where that returns several; the usual one where there is one output."""
    if len(chosen) == 1:
        return [None] * len(names)
    seen: dict[str, int] = {}
    result: list[str | None] = list(names)
    for i in chosen:
        if 0 <= i < len(names):
            number = seen[names[i]] = seen.get(names[i], -1) + 1
            result[i] = f"{names[i]}.{number}" if number else names[i]
    return result


# ---- the result


@dataclass(frozen=True, eq=False)
class Exported(Traced):
    """A network, the model it was made from, and how the arrays of the one correspond to those of the other."""

    source: Source
    layout: str  # what the axes of the model's input mean: B batch, T time, F features, 1 one time step
    inputs: dict[str, Tensor]  # the model's inputs by name in its own order, initial states among them
    returned: list[Tensor]  # all that the model returns
    masks: Masks

    @property
    def stateful(self) -> bool:
        """Whether the model keeps its states from call to call."""
        return any(spec.option("stateful", False) for spec in self.source.model.walk())

    @property
    def padding(self) -> float | None:
        """What marks the steps that the model skips; None if it skips none."""
        return float(next(iter(self.masks.sources.values()))) if self.masks.used else None

    @property
    def half_types(self) -> list[str]:
        """The data types of less than 32 bits in which Keras would compute."""
        found = []
        for spec in self.source.model.walk():
            policy = spec.option("dtype", "float32")
            if isinstance(policy, dict):
                policy = (policy.get("config") or {}).get("name", "float32")
            if str(policy).endswith(_HALF) and policy not in found:
                found.append(str(policy))
        return found

    def is_state(self, name: str) -> bool:
        """Whether the input of this name is an initial state."""
        return any(self.inputs[name] is place for place in self.places[1:])

    def notes(self) -> list[str]:
        """What was understood, in lines for people."""
        lines = []
        for name, t in self.inputs.items():
            state = ", initial state: state= when the model runs" if self.is_state(name) else ""
            lines.append(f"input {name!r}: {t}{state}")
        names = dict(zip(self.outputs, self.network.outputs))
        for i, t in enumerate(self.returned):
            kind = f"output {names[i]!r}" if i in names else "no output"
            kind += " (a final state: return_state= when the model runs)" if i in self.finals and i not in names else ""
            lines.append(f"value {i}: {t}, {kind}")
        if self.padding is not None:
            lines.append(
                f"steps of {self.padding:g} at the end of a sequence are padding: lengths= when the model runs"
            )
        elif self.masks.sources:
            lines.append("the mask reaches no layer that depends on it: padding is data, give no lengths=")
        if self.stateful:
            lines.append("stateful: a stream carries the state; it starts from zero")
        return lines + [f"Keras computes it in {name}, the network in float32" for name in self.half_types]
