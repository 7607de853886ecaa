# SPDX-License-Identifier: Apache-2.0
"""Models of Keras to networks: files and live models, Keras 3, tf.keras and Keras 2.

A model is its configuration and its arrays (``gru_engine.export.keras_model``), whether it comes from a file or from memory, so
Keras itself is not needed. The configuration is followed layer by layer with tensors that know what their axes mean
(``gru_engine.export.graph``); a layer that is not known, or not exact, is refused by its name. ``gru_engine.export.keras_check``
runs the model in Keras beside its network, where Keras is installed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.arguments import as_size
from gru_engine.export.common import ExportError
from gru_engine.export.graph import AxisError, Dim, Graph, Tensor
from gru_engine.export.keras_attention import ATTENTION, attention
from gru_engine.export.keras_calls import (
    RECURRENT,
    Call,
    Reference,
    first_calls,
    mask_is_known,
    mask_operations,
    parse_call,
    references,
)
from gru_engine.export.keras_inputs import Input, Inputs, find_inputs, input_names, is_functional, readings
from gru_engine.export.keras_layers import LAYERS, REFUSED, Context, Masks, Value, refusal
from gru_engine.export.keras_model import LAMBDAS, MODELS, Source, Spec, read, read_live
from gru_engine.export.keras_operations import operate
from gru_engine.export.keras_recurrent import bidirectional, recurrent
from gru_engine.export.over_time import is_steps
from gru_engine.export.traced import Outputs, Traced, selected
from gru_engine.network import Network

_BATCH, _TIME = 7919, 7907  # primes, which are no layer's width
_HALF = ("float16", "bfloat16")
_PLAIN = Call([], [], {}, [])  # a layer called with values alone


def from_model(model: Any, *, outputs: Sequence[int | str] | None = None, steps: int | None = None) -> Network:
    """Turn a model into a network, exactly, or refuse.

    Parameters
    ----------
    model : path or live model
        A ``.keras`` or ``.h5`` file, or a Sequential or functional model of Keras 3 or tf.keras.
    outputs : sequence of int or str, optional
        Which of the model's outputs, by number or name, become outputs of the network. By default all, except states that
        are returned beside sequences: those a stream carries by itself.
    steps : int, optional
        The number of steps of sequences, where the model's Input leaves it open. It matters for models with
        ``padding="same"`` and strides over the time: what is padded depends on it.

    Returns
    -------
    Network
        Several inputs and several outputs have the model's names: those of its layers, of outputs in a dictionary its keys.

    Raises
    ------
    ExportError
        If a layer has no exact counterpart; the message says which one.
    TypeError
        If it is neither a path nor a model.
    """
    return export(model, outputs=outputs, steps=steps).network


def export(model: Any, *, outputs: Sequence[int | str] | None = None, steps: int | None = None) -> Exported:
    """Like ``from_model``, and return what is needed to run the model beside its network."""
    if steps is not None:
        steps = as_size(steps, "steps")
    source = None if isinstance(model, (str, os.PathLike)) else read_live(model)
    errors: list[ExportError] = []
    try:
        source = read(model) if source is None else source
        for spec in source.model.walk():
            if REFUSED.get(spec.kind) == REFUSED["TextVectorization"]:  # it stands before the first sequence
                raise ExportError(f"{spec}: {refusal(spec)}")
        inputs = find_inputs(source.model)
        for reading in readings(source.model, inputs):
            try:
                return _Following(source, inputs, reading, steps).exported(outputs)
            except ExportError as error:
                errors.append(error)
    except ExportError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ExportError(f"the configuration is damaged: {type(error).__name__}: {error}") from error
    # Of all guesses at the axes the one that came furthest was most likely right.
    raise max(errors, key=lambda error: error.progress)


def lengths(
    x: npt.ArrayLike | Mapping[str, npt.ArrayLike], padding: float | Sequence[float] | Mapping[str, float] = 0
) -> npt.NDArray[np.int64]:
    """The ``lengths=`` that stand for the mask that Keras makes of padded sequences.

    Parameters
    ----------
    x : array_like [B, T, I], or tokens [B, T], or dict of str to these
        Of several inputs those are looked at that ``padding`` names.
    padding : number, or dict of str to number
        The token 0 of ``Embedding(mask_zero=True)``, or the ``mask_value`` of ``Masking``, in all features of a step. Of a
        model with several inputs ``Exported.padding`` has it by their names.

    Returns
    -------
    array of int64 [B]

    Raises
    ------
    ValueError
        If there is padding before or between valid steps: Keras skips those, which no length can say. If inputs are padded
        from different steps on: all have the same length in a network.
    """
    if isinstance(x, Mapping):
        named = padding if isinstance(padding, Mapping) else dict.fromkeys(x, padding)
        missing = [name for name in named if name not in x]
        if missing or not named:
            raise ValueError(f"x lacks the input {missing[0]!r}" if missing else "padding names no input")
        each = {name: lengths(x[name], mark) for name, mark in named.items()}
        first, expected = next(iter(each.items()))
        for name, found in each.items():
            if not np.array_equal(found, expected):
                raise ValueError(
                    f"x[{name!r}] has sequences of {found.tolist()} steps before the padding, but x[{first!r}] of "
                    f"{expected.tolist()}; lengths= holds for all inputs"
                )
        return expected
    if isinstance(padding, Mapping):
        raise ValueError("padding is given by the names of inputs, so x must be too")
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


# ---- following a model


class _Following:
    """A model that is followed with one meaning of its inputs' axes."""

    def __init__(self, source: Source, inputs: Inputs, reading: dict[str, str], steps: int | None = None):
        self.source, self.given, self.reading = source, inputs, reading
        self.graph = Graph()
        places = [(one.shape, reading[one.name].index("T")) for one in inputs.data if "T" in reading[one.name]]
        fixed = {int(shape[place] or 0) for shape, place in places} - {0}
        if steps is not None and fixed - {steps}:
            raise ExportError(f"steps={steps}, but {source.model} is made for sequences of {min(fixed)} steps")
        known = next(iter(fixed), steps)
        length = known if known is not None and known > 1 else _TIME  # the right one for those that reshape it
        sizes = {"B": _BATCH, "T": length, "R": length}
        self.context = Context(self.graph, sizes, major=source.major, steps=known)
        self.places: dict[str, Tensor] = {}  # the inputs by name

    # -- inputs

    def _source(self, one: Input) -> Tensor:
        dims: list[Dim] = []
        for letter, size in zip(self.reading[one.name], one.shape):
            dims.append((letter,) if letter in "BT" else () if letter == "1" else (int(size or 0),))
        return self.graph.source("tokens" if one.tokens else "input", dims, one.name)

    def _open_inputs(self) -> dict[str, Value]:
        """The values of the model's inputs: its sequences first, then initial states."""
        data = dict(zip((n for n in self.given.order if n not in self.given.states), self.given.data))
        sources = {name: self._source(one) for name, one in data.items()}
        for name, units in self.given.states.items():
            sources[name] = self.graph.source("state", [("B",), (units,)], f"input {name!r}")
        self.places = {name: sources[name] for name in self.given.order}
        return {name: Value(t) for name, t in self.places.items()}

    # -- layers

    def _layer(self, spec: Spec, inputs: Sequence[Value], states: Sequence[Tensor], call: Call = _PLAIN) -> list[Value]:
        """What a layer returns; errors name it."""
        self.context.followed += 1
        self.graph.name = spec.name
        try:
            if spec.is_operation or spec.kind in LAMBDAS:
                return operate(self.context, spec, call.arguments, inputs)
            if spec.kind in ATTENTION:
                return [attention(self.context, spec, inputs, call.options)]
            self._check_options(spec, call.options)
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
        if spec.kind not in LAYERS:
            raise ExportError(refusal(spec))
        return [LAYERS[spec.kind](self.context, spec, inputs)]

    def _at_each_step(self, spec: Spec, inputs: Sequence[Value]) -> Value:
        """TimeDistributed: the layer inside sees a batch of steps."""
        if len(inputs) != 1:
            raise ExportError(f"it reads {len(inputs)} values, expected 1")
        t, inner = inputs[0].tensor, spec.children.get("layer")
        if inner is None:
            raise ExportError("it has no layer in its configuration")
        if t.rank < 3 or t.dims[0] != ("B",) or not (t.dims[1] == () or is_steps(t.dims[1])):
            raise AxisError(f"it reads [batch, time, ...], but its input is {t}")
        for spec in inner.walk():
            if spec.kind in (*RECURRENT, "TimeDistributed"):
                raise ExportError(
                    f"it wraps {spec if spec is inner else f'{inner}, with {spec}'}: a sequence at each step of a sequence; "
                    "export the two by themselves"
                )
        # Inside, a step is a batch of its own, and there is no time that a layer could take for its own.
        y = self._layer(inner, [Value(Tensor((t.dims[0], *t.dims[2:]), t.ids))], [])[0].tensor
        if y.dims[:1] != t.dims[:1]:
            raise AxisError(f"its layer returns {y}")
        return inputs[0].but(Tensor((*t.dims[:2], *y.dims[1:]), y.ids))

    # -- models

    def _model(self, spec: Spec, inputs: Sequence[Value]) -> list[Value]:
        """What a model returns."""
        if "layers" not in spec.config or spec.kind not in MODELS:
            raise ExportError(f"{spec} is a model of a class of its own, whose computation is Python code")
        if not is_functional(spec):
            values = list(inputs)
            for layer in spec.children.values():
                if layer.kind != "InputLayer":
                    values = self._layer(layer, values, [])
            return values
        names = input_names(spec)
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

        def begin_mask(operation: Spec, tokens: Reference, mark: float) -> None:
            value = value_of(tokens)
            if value is not None:
                self.context.masks.begin(operation, [self.graph.node_of(value.tensor).name], mark)

        while waiting:
            left = []
            for spec, call in waiting:
                inputs, states = ([value_of(r) for r in refs] for refs in (call.inputs, call.states))
                if any(value is None for value in (*inputs, *states)):
                    left.append((spec, call))
                    continue
                given = [value for value in inputs if value is not None]
                if call.mask and mask_is_known(model, spec, call.mask, masks, begin_mask) and len(given) == 1:
                    given = [Value(given[0].tensor, True)]
                initial = [value.tensor for value in states if value is not None]
                done.setdefault(spec.name, []).append(self._layer(spec, given, initial, call))
            if len(left) == len(waiting):
                names = ", ".join(str(spec) for spec, _ in left[:5])
                raise ExportError(f"{model}: nothing gives what these layers read: {names}")
            waiting = left
        returned = [value_of(reference) for reference in needed]
        if not returned or any(value is None for value in returned):
            raise ExportError(f"{model} does not say what it returns")
        return [value for value in returned if value is not None]

    # -- the whole

    def exported(self, outputs: Sequence[int | str] | None) -> Exported:
        """The network."""
        model, followed = self.source.model, False
        try:
            given = self._open_inputs()
            if is_functional(model) and model.kind in MODELS:
                values = self._functional(model, given)
                names = _output_layers(model.config.get("output_layers"))
            else:
                values = self._model(model, list(given.values()))
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
            wanted = selected(outputs, _output_names(names, range(len(names))))
            chosen = found.choose() if wanted is None else wanted
            network, fields = found.lowered(_output_names(names, chosen), chosen)
        except ExportError as error:
            error.progress = self.context.followed + 1e6 * followed - 0.5 * isinstance(error, AxisError)
            raise
        return Exported(
            network=network,
            **fields,
            source=self.source,
            layouts={name: self.reading.get(name, self.reading.get("", "")) for name in self.places},
            inputs=self.places,
            returned=returned,
            masks=self.context.masks,
            steps=self._steps(),
            every=self.context.every,
        )

    def _steps(self) -> int | None:
        """The number of steps that Keras must be given; None if the model, or a copy of it, takes sequences of any length."""
        made_for_it = self.source.opened or any(
            s.is_operation and s.kind == "Reshape" for s in self.source.model.walk()
        )
        return self.context.steps if made_for_it or self.context.every != 1 else None

    def _is_state(self, t: Tensor) -> bool:
        return self.graph.node_of(t).operation == "state"


def _drops(spec: Spec) -> bool:
    return bool(spec.option("dropout", 0) or spec.option("recurrent_dropout", 0))


def _output_layers(value: Any, key: str = "") -> list[str]:
    """Names for a functional model's outputs: of the layers, or the keys where they are in a dictionary."""
    if isinstance(value, dict):
        return [name for key, item in value.items() for name in _output_layers(item, str(key))]
    found = references(value)
    return [key or name for name, _, _ in found]


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
    layouts: dict[
        str, str
    ]  # what the axes of each input mean: B batch, T time, F features, 1 one time step; "" of states
    inputs: dict[str, Tensor]  # the model's inputs by name in its own order, initial states among them
    returned: list[Tensor]  # all that the model returns
    masks: Masks
    steps: int | None  # the number of steps that the model must be given
    every: int  # what numbers of steps differ by for which the network is exact; 0: it is for ``steps`` alone

    @property
    def stateful(self) -> bool:
        """Whether the model keeps its states from call to call."""
        return any(spec.option("stateful", False) for spec in self.source.model.walk())

    @property
    def layout(self) -> str:
        """What the axes of the first input mean."""
        return next(filter(None, self.layouts.values()))

    @property
    def padding(self) -> float | dict[str, float] | None:
        """What marks the steps that the model skips; with several inputs by their names; None if it skips none."""
        if not self.masks.used:
            return None
        marks = {name: values[0] for name, values in self.masks.marks.items() if name in self.network.inputs}
        return marks if len(self.network.inputs) > 1 else next(iter(marks.values()), None)

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
        return not self.layouts[name]

    def notes(self) -> list[str]:
        """What was understood, in lines for people."""
        lines = []
        for name, t in self.inputs.items():
            state = ", initial state: state= when the model runs" if self.is_state(name) else ""
            unread = ", which no output depends on: left out" if name in self.unread() else ""
            lines.append(f"input {name!r}: {t}{state}{unread}")
        names = dict(zip(self.outputs, self.network.outputs))
        for i, t in enumerate(self.returned):
            kind = f"output {names[i]!r}" if i in names else "no output"
            kind += " (a final state: return_state= when the model runs)" if i in self.finals and i not in names else ""
            lines.append(f"value {i}: {t}, {kind}")
        if self.padding is not None:
            marks = self.padding if isinstance(self.padding, dict) else {"": self.padding}
            told = " and ".join(f"{value:g}{f' in {name!r}' * bool(name)}" for name, value in marks.items())
            lines.append(f"steps of {told} at the end of a sequence are padding: lengths= when the model runs")
        if self.every != 1:
            others = f" and numbers of steps that differ from it by a multiple of {self.every}" if self.every else ""
            lines.append(
                f"exact for sequences of {self.steps} steps{others}, to which the model's padding or size belongs"
            )
        if self.padding is None and self.masks.sources:
            lines.append("the mask reaches no layer that depends on it: padding is data, give no lengths=")
        if self.stateful:
            lines.append("stateful: a stream carries the state; it starts from zero")
        return lines + [f"Keras computes it in {name}, the network in float32" for name in self.half_types]
