# SPDX-License-Identifier: Apache-2.0
"""Live models with classes of one's own: Keras 3 itself follows their Python code, and what it records is a functional model.

Keras calls ``call`` with symbolic values, as it does while a functional model is made. The layers and operations that come up are
those of the functional model which is exported; the weights are the model's own, not copies.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import numpy as np

from gru_engine.export.common import ExportError

_MOST_NESTED = 32


def is_own(layer: Any, packages: tuple[str, ...]) -> bool:
    """Whether the computation of a layer or model is Python code of the user's."""
    if type(layer).__name__ == "Lambda" and type(layer).__module__.partition(".")[0] in packages:
        return True
    own = [kind for kind in type(layer).__mro__ if kind.__module__.partition(".")[0] not in packages]
    return any(name in kind.__dict__ for kind in own for name in ("call", "__call__"))


def _has_own(model: Any, packages: tuple[str, ...]) -> bool:
    return any(is_own(layer, packages) for layer in model._flatten_layers(include_self=True))


def opened(model: Any, packages: tuple[str, ...]) -> Any:
    """The functional model that does what a live model with classes of one's own does; the model itself if it has none.

    Parameters
    ----------
    model : live model
        Of Keras 3.
    packages : tuple of str
        Where Keras's own classes come from.

    Raises
    ------
    ExportError
        If it was never called, or its code cannot be followed.
    """
    keras = sys.modules.get("keras")
    if keras is None or not hasattr(model, "_flatten_layers") or not isinstance(model, keras.Layer):
        return model
    if not str(keras.__version__).startswith("3") or not _has_own(model, packages):
        return model
    who = f"{type(model).__name__} {model.name!r}"
    try:
        if is_own(model, packages):
            model = _as_functional(keras, model, who)
        elif type(model).__name__ == "Sequential":
            x = keras.Input(batch_shape=model.inputs[0].shape, dtype=model.inputs[0].dtype, name=model.inputs[0].name)
            model = keras.Model(x, model.call(x))
        for _ in range(_MOST_NESTED):
            if not any(_is_opened(layer, packages) for layer in model.operations):
                break
            model = keras.models.clone_model(
                model, clone_function=lambda layer: layer, call_function=lambda op, *a, **k: _call(op, packages, a, k)
            )
    except ExportError:
        raise
    except Exception as error:  # whatever the user's code may raise
        raise ExportError(
            f"{who} has classes of its own, and their code cannot be followed with symbolic values: "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error
    _constants(keras, model)
    return model


def _is_opened(layer: Any, packages: tuple[str, ...]) -> bool:
    """Whether a layer is followed inside: its class is the user's, or it is a model with such layers."""
    if not hasattr(layer, "_flatten_layers"):
        return False
    return is_own(layer, packages) or (hasattr(layer, "layers") and _has_own(layer, packages))


def _call(op: Any, packages: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a layer or an operation makes of symbolic values."""
    if not _is_opened(op, packages):
        return op(*args, **kwargs)
    parameters = inspect.signature(op.call).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    kwargs = {name: value for name, value in kwargs.items() if name in parameters or anything}
    if "training" in parameters:
        kwargs["training"] = False
    masks = [getattr(value, "_keras_mask", None) for value in args[:1]]
    if "mask" in parameters and kwargs.get("mask") is None and masks and masks[0] is not None:
        kwargs["mask"] = masks[0]
    result = op.call(*args, **kwargs)
    if getattr(op, "supports_masking", False) and masks and masks[0] is not None and hasattr(result, "shape"):
        mask = op.compute_mask(args[0], masks[0])
        if mask is not None:
            result._keras_mask = mask
    return result


def _as_functional(keras: Any, model: Any, who: str) -> Any:
    """A model of the user's class as a functional one, with inputs as it was called with, but any batch and time."""
    shapes = getattr(model, "_build_shapes_dict", None)
    if not shapes:
        raise ExportError(f"{who} was never called, so the shape of its input is not known; call it once on an example")
    tokens = any(type(layer).__name__ == "Embedding" for layer in model._flatten_layers())
    names = [name.removesuffix("_shape") for name in shapes]
    parameters = [p for p in inspect.signature(model.call).parameters if p != "self"]
    names = [name if name in parameters else parameters[i] for i, name in enumerate(names)]
    inputs = {}
    for name, shape in zip(names, shapes.values()):
        if not isinstance(shape, tuple) or not shape or not all(n is None or isinstance(n, int) for n in shape):
            raise ExportError(f"{who} was called with the shapes {shape} for {name}; expected one array")
        of_tokens = tokens and len(shape) == 2 and len(shapes) == 1
        loose = (None, None, *shape[2:]) if of_tokens or len(shape) > 2 else (None, *shape[1:])
        inputs[name] = keras.Input(batch_shape=loose, dtype="int32" if of_tokens else "float32", name=name)
    options = {"training": False} if "training" in parameters else {}
    outputs = model.call(**inputs, **options)
    return keras.Model(list(inputs.values()) if len(inputs) > 1 else next(iter(inputs.values())), outputs)


def _constants(keras: Any, model: Any) -> None:
    """Weights that operations read become constants, which a configuration can hold."""

    def constant(value: Any) -> Any:
        return np.asarray(keras.ops.convert_to_numpy(value)) if isinstance(value, keras.Variable) else value

    for nodes in model._nodes_by_depth.values():
        for node in nodes:
            arguments = node.arguments
            if any(isinstance(value, keras.Variable) for value in arguments._flat_arguments):
                arguments.args, arguments.kwargs = arguments.convert(constant)
