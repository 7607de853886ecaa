# SPDX-License-Identifier: Apache-2.0
"""How the layers of a functional model are connected, as Keras 2 and Keras 3 write it in a configuration.

In Keras 3 the computation of masks is part of the graph: ``Masking`` and ``Embedding`` stand for ``NotEqual`` and more, and a
layer is called with ``mask=`` the result. Since a network skips padding by ``lengths=``, those operations are only recognised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gru_engine.export.common import ExportError
from gru_engine.export.keras_activations import number
from gru_engine.export.keras_model import LAMBDAS, MASK_ROOTS, Spec

Reference = tuple[str, int, int]
"""What a layer reads: another layer, which of its calls, which of its outputs."""

RECURRENT = ("GRU", "RNN", "CuDNNGRU", "Bidirectional")
"""The classes that take initial states beside their input."""


def references(value: Any) -> list[Reference]:
    """All [layer, call, output] in a nested list or dictionary, in order."""
    if isinstance(value, (list, tuple)):
        if len(value) >= 3 and isinstance(value[0], str) and all(type(n) is int for n in value[1:3]):
            return [(value[0], value[1], value[2])]
        return [found for item in value for found in references(item)]
    if isinstance(value, dict):
        return [found for item in value.values() for found in references(item)]
    return []


_ATTENTION = ("Attention", "AdditiveAttention", "MultiHeadAttention")


@dataclass(frozen=True)
class Argument:
    """The place of a value among the arguments of an operation."""

    reference: Reference


@dataclass(frozen=True)
class Call:
    """What a layer is called with: references to values, the initial states among them apart; and other arguments.

    Of an operation ``arguments`` are all of them, the positional and the named ones, with an ``Argument`` for each of ``inputs``.
    """

    inputs: list[Reference]
    states: list[Reference]
    options: dict[str, Any]
    mask: list[Reference]
    arguments: tuple[list[Any], dict[str, Any]] = ((), {})  # type: ignore[assignment]


def _tensors(value: Any) -> list[Reference]:
    """References in the arguments of a call as Keras 3 writes them."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            name, call, output = value["config"]["keras_history"]
            return [(str(name), int(call), int(output))]
        return [found for item in value.values() for found in _tensors(item)]
    if isinstance(value, (list, tuple)):
        return [found for item in value for found in _tensors(item)]
    return []


def _placed(value: Any, found: list[Reference]) -> Any:
    """Arguments with an ``Argument`` for each value, which is appended to ``found``."""
    references = _tensors(value) if isinstance(value, dict) and "class_name" in value else []
    if not references and isinstance(value, (list, tuple)) and len(value) in (3, 4) and isinstance(value[0], str):
        references = [(value[0], value[1], value[2])] if all(type(n) is int for n in value[1:3]) else []
    if references:
        found += references
        return Argument(references[0])
    if isinstance(value, dict):
        return {key: _placed(item, found) for key, item in value.items()}
    return [_placed(item, found) for item in value] if isinstance(value, (list, tuple)) else value


def _parse_operation(call: Any) -> Call:
    """A call of an operation: the arguments in their places."""
    if isinstance(call, dict):
        positional, named = list(call.get("args", [])), dict(call.get("kwargs", {}))
    else:
        positional, named = [], {}
        entries = [call] if call and isinstance(call[0], str) else list(call)
        for entry in entries:
            named.update(entry[3] if len(entry) > 3 and isinstance(entry[3], dict) else {})
            positional.append(entry[2] if entry[0] == "_CONSTANT_VALUE" else list(entry[:3]))
        positional = positional if len(entries) == 1 and entries[0] is call else [positional]
    found: list[Reference] = []
    placed = _placed(positional, found), _placed(named, found)
    return Call(found, [], {}, [], placed)


def parse_call(spec: Spec, call: Any) -> Call:
    """One entry of ``inbound_nodes``, of Keras 2 or 3."""
    if spec.is_operation or spec.kind in LAMBDAS:
        return _parse_operation(call)
    if isinstance(call, dict):
        args, options = list(call.get("args", [])), dict(call.get("kwargs", {}))
        inputs = _tensors(args[:1])
        later = [_tensors(args[1:]), _tensors(options.pop("initial_state", None))]
        states, mask = [found for part in later for found in part], _tensors(options.pop("mask", None))
        if spec.kind not in RECURRENT and not spec.is_model:
            inputs, states = inputs + states, []
        if spec.kind in _ATTENTION:  # query, value and key may be named; masks come with the values
            inputs += [found for name in ("query", "value", "key") for found in _tensors(options.pop(name, None))]
            options = {name: v for name, v in options.items() if not (name.endswith("_mask") and _tensors(v))}
        if any(_tensors(value) for value in options.values()):
            raise ExportError(f"it is called with values for {', '.join(k for k, v in options.items() if _tensors(v))}")
    else:
        entries = [call] if call and isinstance(call[0], str) else list(call)
        inputs = [(str(e[0]), int(e[1]), int(e[2])) for e in entries]
        options, states, mask = {}, [], []
        for entry in entries:
            options.update(entry[3] if len(entry) > 3 and isinstance(entry[3], dict) else {})
        states = references(options.pop("initial_state", None))
        if options.pop("constants", None):
            raise ExportError("it is called with constants")
        if any(references(value) for value in options.values()):
            raise ExportError(
                f"it is called with values for {', '.join(k for k, v in options.items() if references(v))}"
            )
    if spec.kind in RECURRENT:
        inputs, states = inputs[:1], inputs[1:] + states
    return Call(inputs, states, options, mask)


# ---- calls of models


def first_calls(model: Spec, major: int) -> dict[str, int]:
    """The number of each layer's first call in this model. tf.keras counts a model's own making as its call 0."""
    counts = {spec.name: len(spec.calls) for spec in model.children.values() if spec.is_model}
    if major >= 3:
        return {}
    used: dict[str, set[int]] = {name: set() for name in counts}
    everything = [parse_call(spec, entry) for spec in model.children.values() for entry in spec.calls]
    read = [r for call in everything for r in (*call.inputs, *call.states)]
    for name, call, _ in [*read, *references(model.config.get("output_layers"))]:
        if name in used:
            used[name].add(call)
    return {name: 1 for name, calls in used.items() if calls and 0 not in calls}


# ---- masks


def mask_operations(model: Spec) -> dict[str, Spec]:
    """The operations that compute masks, by name: in Keras 3 they are part of a functional model."""
    found = {spec.name: spec for spec in model.children.values() if spec.is_operation and spec.kind in MASK_ROOTS}
    before = -1
    while len(found) != before:
        before = len(found)
        for spec in model.children.values():
            read = [name for name, _, _ in _tensors(spec.calls)]
            if read and all(name in found for name in read):
                found[spec.name] = spec
    return found


def mask_is_known(
    model: Spec,
    spec: Spec,
    mask: list[Reference],
    masks: dict[str, Spec],
    begin: Callable[[Spec, Reference, float], None],
) -> bool:
    """Whether a layer's mask is one that Masking or Embedding makes, or tokens != number. Not if a part of it is always true.

    For a mask that is written out ``begin`` is called: with the operation, the tokens and what marks padding.

    Raises
    ------
    ExportError
        If it is made of anything else.
    """
    tokens = {s.name for s in model.children.values() if s.kind == "InputLayer" and "int" in str(s.option("dtype", ""))}
    sources: list[tuple[Reference, float]] = []
    for layer in model.children.values():
        if layer.kind == "Masking" or (layer.kind == "Embedding" and layer.option("mask_zero", False)):
            value = 0.0 if layer.kind == "Embedding" else number(layer.option("mask_value", 0.0))
            sources += [(reference, value) for entry in layer.calls for reference in _tensors(entry)]
    waiting, whole = [name for name, _, _ in mask], False
    while waiting:
        name = waiting.pop()
        if name not in masks:
            raise ExportError(
                f"{spec} is called with a mask that {name!r} computes; only those of Masking and Embedding are supported"
            )
        operation = masks[name]
        whole = whole or operation.kind == "OnesLike"
        for entry in operation.calls:
            read = _tensors(entry)
            if operation.kind == "NotEqual":
                constants = [a for a in entry.get("args", [])[1:] if isinstance(a, (int, float))]
                written_out = len(read) == len(constants) == 1 and read[0][0] in tokens
                if written_out and (read[0], float(constants[0])) not in sources:
                    begin(operation, read[0], float(constants[0]))
                    sources.append((read[0], float(constants[0])))
                if len(read) != 1 or len(constants) != 1 or (read[0], float(constants[0])) not in sources:
                    raise ExportError(
                        f"{spec} is called with a mask that is neither of Masking nor of Embedding nor of tokens"
                    )
            elif operation.kind not in MASK_ROOTS:
                waiting += [name for name, _, _ in read]
    return not whole
