# SPDX-License-Identifier: Apache-2.0
"""What the inputs of a Keras model are: sequences, of vectors or of tokens, or initial states; and what their axes may mean."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from gru_engine.export.common import ExportError
from gru_engine.export.keras_calls import RECURRENT, parse_call, references
from gru_engine.export.keras_model import MODELS, Spec
from gru_engine.export.keras_time import READS_TIME
from gru_engine.export.roles import beside, without_time

_MOST_READINGS = 16  # of the axes of several inputs
_MOVING = ("Reshape", "Permute", "Flatten", "Dropout", "Identity", "Activation", "InputLayer")
"""Layers through which tokens may reach the layer that looks them up."""

Shape = list[int | None]
"""With the batch axis; None where a size is open."""


@dataclass(frozen=True)
class Input:
    """An input of the model that is no state. The only one of a model has no name for the network."""

    name: str
    shape: Shape
    tokens: bool

    def __str__(self) -> str:
        return f"{self.name!r} of shape {self.shape}" if self.name else f"of shape {self.shape}"


@dataclass(frozen=True)
class Inputs:
    """What a model takes.

    Attributes
    ----------
    data : list of Input
    states : dict of str to int
        Of each initial state the number of units.
    order : list of str
        The names of all of them in the model's order.
    """

    data: list[Input]
    states: dict[str, int]
    order: list[str]


def is_functional(model: Spec) -> bool:
    """Whether a model is one of layers that are connected in any way."""
    return model.kind != "Sequential" and "input_layers" in model.config


def input_names(model: Spec) -> list[str]:
    """The names of a functional model's inputs."""
    return [name for name, _, _ in references(model.config.get("input_layers"))]


def find_inputs(model: Spec) -> Inputs:
    """What a model takes.

    Raises
    ------
    ExportError
        If it does not say so, or something is neither a sequence nor a state.
    """
    any_tokens = any(map(_looks_up, model.walk()))
    if not (is_functional(model) and model.kind in MODELS):
        return Inputs([Input("", _first_shape(model), any_tokens)], {}, ["input"])
    names = input_names(model)
    uses = _uses(model, names)
    states = [name for name in names if uses[name] == {"state"}]
    data = [name for name in names if name not in states]
    if not data:
        raise ExportError("the model has no input beside initial states")
    specs = {spec.name: spec for spec in model.children.values()}
    units: dict[str, int] = {}
    for name in states:
        shape = _input_shape(specs[name])
        if shape is None or len(shape) != 2 or shape[1] is None:
            raise ExportError(f"the initial state {name!r} has the shape {shape}, expected [batch, units]")
        units[name] = int(shape[1])
    if len(data) == 1:
        return Inputs([Input("", _input_shape(specs[data[0]]) or _first_shape(model), any_tokens)], units, names)
    found = []
    for name in data:
        shape = _input_shape(specs[name])
        if shape is None:
            raise ExportError(f"the input {name!r} does not say what its shape is")
        found.append(Input(name, shape, _reads_tokens(model, name)))
    return Inputs(found, units, names)


def _uses(model: Spec, names: list[str]) -> dict[str, set[str]]:
    """For each input how layers read it: as ``"input"``, as initial ``"state"``."""
    uses: dict[str, set[str]] = {name: set() for name in names}
    for spec in model.children.values():
        for entry in spec.calls:
            call = parse_call(spec, entry)
            for role, read_by in (("input", call.inputs), ("state", call.states)):
                for name, _, _ in read_by:
                    if name in uses:
                        uses[name].add(role)
    return uses


def _looks_up(spec: Spec) -> bool:
    """Whether what a layer or an operation reads is tokens."""
    return spec.kind in ("Embedding", "OneHot", "CategoryEncoding") or spec.config.get("function") == "one_hot"


def _reads_tokens(model: Spec, name: str) -> bool:
    """Whether an Embedding reads what this layer of a model returns, perhaps inside another model."""
    for spec in model.children.values():
        for entry in spec.calls:
            read = [source for source, _, _ in parse_call(spec, entry).inputs]
            if name not in read:
                continue
            if _looks_up(spec) or (spec.kind in _MOVING and _reads_tokens(model, spec.name)):
                return True
            if spec.is_model and _model_reads_tokens(spec, read.index(name)):
                return True
    return False


def _model_reads_tokens(model: Spec, number: int) -> bool:
    """Whether a model, called inside another, looks one of its inputs up."""
    if is_functional(model):
        names = input_names(model)
        return number < len(names) and _reads_tokens(model, names[number])
    layers = [spec for spec in model.children.values() if spec.kind != "InputLayer"]
    rest = list(itertools.dropwhile(lambda spec: spec.kind in _MOVING, layers))
    return bool(rest) and (_looks_up(rest[0]) or (rest[0].is_model and _model_reads_tokens(rest[0], 0)))


# ---- shapes


def _input_shape(spec: Spec) -> Shape | None:
    """The shape of an input with its batch axis, None where a size is open."""
    shape = spec.config.get("batch_shape", spec.config.get("batch_input_shape"))
    if shape is None and isinstance(spec.config.get("shape"), list):
        shape = [None, *spec.config["shape"]]
    return None if shape is None else list(shape)


def _first_shape(model: Spec) -> Shape:
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


# ---- what the axes mean


def readings(model: Spec, inputs: Inputs) -> Iterator[dict[str, str]]:
    """The possible meanings of all inputs' axes, the likely ones first: B batch, T time, F features, 1 an axis of size 1.

    Raises
    ------
    ExportError
        At the end, if the inputs do not go together with the likely meaning of the first.
    """
    first, *others = inputs.data
    possible = {one.name: _layouts(model, one, bool(inputs.states)) for one in inputs.data}
    likely = False
    for number, layout in enumerate(possible[first.name]):
        # A batch of a fixed size is none of the network's.
        shapes = [[None, *one.shape[1:]] if layout.startswith("B") else one.shape for one in inputs.data]
        choices = [beside(layout, shapes[0], possible[other.name], shape) for other, shape in zip(others, shapes[1:])]
        for chosen in itertools.islice(itertools.product(*choices), _MOST_READINGS):
            likely = likely or number == 0
            yield dict(zip(possible, (layout, *chosen)))
    if not likely:
        raise _misfit(inputs.data)


def _misfit(data: list[Input]) -> ExportError:
    """Why several inputs do not go together."""
    what = f"the model has the inputs {', '.join(map(str, data))}"
    sequences = [one for one in data if len(one.shape) > 2 or one.shape[1:] == [None] or one.tokens]
    steps = {one.name: one.shape[1] for one in sequences}
    for one in data:
        if one not in sequences or (one.shape[1] == 1 and {1} != set(steps.values())):
            return without_time(f"{what}; {one.name!r}")
    return ExportError(f"{what}, which do not have the same number of time steps")


def _layouts(model: Spec, one: Input, states: bool) -> list[str]:
    """The possible meanings of an input's axes, the likely ones first."""
    shape, specs = one.shape, list(model.walk())
    what = f"the input {one.name!r} of {model}" if one.name else f"the input of {model}"
    time_major = any(spec.option("time_major", False) for spec in specs)
    carried = any(spec.option("stateful", False) for spec in specs) or states
    reads_time = any(spec.kind in (*RECURRENT, *READS_TIME) for spec in specs)  # only such a layer tells the axes apart
    if len(shape) < 2:
        raise ExportError(f"{what} has the shape {shape}, expected a batch of sequences")
    if one.tokens and len(shape) != 2:
        raise ExportError(f"{what} has the shape {shape}, but there is an Embedding, which reads tokens [batch, time]")
    if one.tokens or (len(shape) == 2 and shape[1] is None):
        layouts = ["BT", "TB"]
    elif len(shape) == 2:
        layouts = ["BF", "BT"] if reads_time else ["BF"]
    else:
        layouts = [f"{order}{'F' * (len(shape) - 2)}" for order in ("BT", "TB")]
        layouts += [f"B{'F' * (len(shape) - 2)}T", "BFTF"][: 1 + (len(shape) == 4)] if reads_time else []
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
        raise ExportError(f"{what} has the shape {shape}; the number of its features must be known")
    return fits
