# SPDX-License-Identifier: Apache-2.0
"""Flax, linen and nnx: params and live modules to networks.

A dictionary of params needs no JAX. It says the names of the layers and not their order, so a description in the ``--layers``
language goes with it. Where a live module is built of others that say what they do by themselves (``Sequential``, ``RNN``,
``Bidirectional``, ``Dense``, ``Embed``, ``BatchNorm``, activations), the description is read from the module.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from gru_engine.activations import activation as parse_activation
from gru_engine.export import arrays as _arrays
from gru_engine.export import chain
from gru_engine.export.common import Array, ExportError, Run
from gru_engine.export.words import Arrays
from gru_engine.network import Network


def from_params(params: Mapping[str, Any], layers: str | None = None) -> Network:
    """Turn the params of a model into a network.

    Parameters
    ----------
    params : mapping
        Of linen what ``init`` returned (``{"params": ..., "batch_stats": ...}``) or its ``"params"``; of nnx the state
        ``nnx.to_pure_dict(nnx.state(model))``. A ``GRUCell`` in an ``RNN`` has the name of its cell, as ``rnn.cell``.
    layers : str, optional
        The chain of layers, as ``"embedding(embed) gru(cell) linear(head)"``; see ``gru_engine.export.chain``. By default what
        the names leave no choice about.

    Raises
    ------
    ExportError
        If an array is missing, left over or does not fit.
    """
    return build(params, layers).network


def build(params: Mapping[str, Any], layers: str | None = None) -> chain.Built:
    """Like ``from_params``, with what was understood in words."""
    return _arrays.build(merged(params), layers)


def merged(variables: Mapping[str, Any]) -> Arrays:
    """The variables of linen's collections, or of nnx, under one name each."""
    variables = _by_collection(_without_keys(variables))
    collections = [key for key in ("params", "batch_stats") if isinstance(variables.get(key), Mapping)]
    if not collections:
        return _without_state(_arrays.flatten(variables))
    left = [key for key in variables if key not in collections]
    if left:
        raise ExportError(
            f"the collections {', '.join(map(repr, left))} are not supported; expected params and batch_stats"
        )
    return {name: array for key in collections for name, array in _arrays.flatten(variables[key]).items()}


def _without_keys(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keys of random generators, which are no arrays of numbers."""
    return {
        str(name): _without_keys(value) if isinstance(value, Mapping) else value
        for name, value in tree.items()
        if not str(getattr(value, "dtype", "")).startswith("key<")
    }


def _by_collection(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """Names that a file has flattened, as ``params/head/kernel``, below their collections again."""
    flat = _arrays.flatten(variables)
    starts = {name.partition(".")[0] for name in flat}
    if "params" not in starts or not all("." in name for name in flat):
        return variables
    return {
        start: {name.removeprefix(f"{start}."): array for name, array in flat.items() if name.startswith(f"{start}.")}
        for start in starts
    }


def _without_state(arrays: Arrays) -> Arrays:
    """Without the random generators of nnx, which are integers."""
    return {name: array for name, array in arrays.items() if array.dtype.kind == "f"}


# ---- live modules


def from_module(module: Any, variables: Mapping[str, Any] | None = None, layers: str | None = None) -> Network:
    """Turn a live module into a network.

    Parameters
    ----------
    module : flax.linen.Module or flax.nnx.Module
        A ``Sequential``, ``RNN`` or ``Bidirectional`` whose parts are such modules, dense layers, embeddings, batch
        normalisations and activation functions. What a class of your own does in ``__call__`` cannot be seen: it needs
        ``layers``.
    variables : mapping, optional
        Of linen only: what ``init`` or training returned.
    layers : str, optional
        The chain of layers where the module does not show it.

    Returns
    -------
    Network

    Raises
    ------
    ExportError
        If a part of the module has no exact counterpart, by name.
    """
    return describe(module, variables, layers)[0].network


def describe(
    module: Any, variables: Mapping[str, Any] | None = None, layers: str | None = None
) -> tuple[chain.Built, str, Run]:
    """Like ``from_module``: what was understood, the description in the ``--layers`` language, and how to run the module."""
    reader: _Reader = _Nnx() if _is_nnx(module) else _Linen(variables)
    if layers is None:
        layers = " ".join(reader.words(module, ()))
    built = _arrays.build(reader.arrays(module), layers)
    if built.network.vocab_size is None and built.network.input_size is None:
        raise ExportError("the module has no input")
    time_major = True in reader.time_major
    return built, layers, lambda x: _run(module, variables, time_major, x)


def _is_nnx(module: Any) -> bool:
    from flax import linen, nnx

    if isinstance(module, nnx.Module):
        return True
    if isinstance(module, linen.Module):
        return False
    raise TypeError(f"module must be a flax.linen.Module or a flax.nnx.Module, got {type(module).__name__}")


def _run(module: Any, variables: Mapping[str, Any] | None, time_major: bool, x: Array) -> Array:
    """The module's outputs for x [B, T, ...]."""
    import jax
    import jax.numpy as jnp

    if _is_nnx(module):
        module.eval()
    x = x.swapaxes(0, 1) if time_major else x
    with jax.default_matmul_precision("highest"):
        y = module(jnp.asarray(x)) if _is_nnx(module) else module.apply(variables, jnp.asarray(x))
    y = y[1] if isinstance(y, tuple) else y
    return np.asarray(y.swapaxes(0, 1) if time_major else y)


class _Reader:
    """Reads the words of a chain from modules; the two APIs name their parts differently."""

    kind: Any  # flax.linen or flax.nnx

    def __init__(self) -> None:
        self.time_major: set[bool] = set()  # what the recurrent modules take the axes for

    def _axes(self, module: Any, path: tuple[str, ...]) -> None:
        self.time_major.add(bool(module.time_major))
        if len(self.time_major) > 1:
            raise ExportError(
                f"{type(module).__name__} {'.'.join(path)!r} has time_major={module.time_major}, another one before it has not: "
                "one of them takes the batch for the time"
            )

    def arrays(self, module: Any) -> Mapping[str, Any]:
        raise NotImplementedError

    def child(self, path: tuple[str, ...], attribute: str, number: int, child: Any) -> tuple[str, ...]:
        """The path of the arrays of a part that stands in an attribute."""
        raise NotImplementedError

    def words(self, module: Any, path: tuple[str, ...]) -> Iterator[str]:
        """The words for a module, or a function."""
        kind, name = self.kind, type(module).__name__
        modules = {getattr(kind, n): n for n in self.known if hasattr(kind, n)}
        known = modules.get(type(module))
        where = ".".join(path)
        if known is None and callable(module) and not isinstance(module, kind.Module):
            yield function_word(module)
        elif known == "Sequential":
            for number, layer in enumerate(module.layers):
                yield from self.words(layer, self.child(path, "layers", number, layer))
        elif known in ("Dense", "Linear"):
            yield f"linear({where})"
        elif known == "Embed":
            yield f"embedding({where})"
        elif known == "BatchNorm":
            yield self._batchnorm(module, where)
        elif known == "Dropout":
            pass
        elif known == "RNN":
            yield from self._rnn(module, path)
        elif known == "Bidirectional":
            yield self._bidirectional(module, path)
        elif known == "PReLU":
            yield f"prelu({where})"
        else:
            what = "a cell by itself: put it into an RNN" if name.endswith("Cell") else "a class of its own"
            raise ExportError(
                f"{name} {where!r} is {what}; what it computes cannot be read from its parts: say it in the --layers language"
            )

    known = ("Sequential", "Dense", "Linear", "Embed", "BatchNorm", "Dropout", "RNN", "Bidirectional", "PReLU")

    def _batchnorm(self, module: Any, where: str) -> str:
        axis = getattr(module, "axis", -1)
        if axis != -1:
            raise ExportError(
                f"BatchNorm {where!r} normalises axis {axis}; only the last one, the features, is supported"
            )
        return f"batchnorm({where}, eps={module.epsilon!r})"

    def _cell(self, cell: Any, where: str) -> str:
        """The options of a cell, behind its name."""
        if type(cell).__name__ not in ("GRUCell", "MGUCell") or type(cell).__module__.partition(".")[0] != "flax":
            raise ExportError(f"{type(cell).__name__} {where!r} is no GRU; only GRUCell and MGUCell are supported")
        options = []
        for option, attribute, default in (
            ("activation", "activation_fn", "tanh"),
            ("gate_activation", "gate_fn", "sigmoid"),
        ):
            name = activation_of(getattr(cell, attribute))
            if name != default:
                options.append(f", {option}={name}")
        zeros = getattr(cell, "carry_init", None)
        if zeros is not None and not _gives_zeros(zeros):
            raise ExportError(
                f"{type(cell).__name__} {where!r} has a carry_init that is not zeros; a state is drawn only once"
            )
        return "".join(options)

    def _rnn(self, rnn: Any, path: tuple[str, ...]) -> Iterator[str]:
        where = ".".join(self.child(path, "cell", -1, rnn.cell))
        self._axes(rnn, path)
        options = self._cell(rnn.cell, where)
        if rnn.reverse:
            yield "flip"
        yield f"gru({where}{options})"
        if rnn.reverse and rnn.keep_order:
            yield "flip"
        if rnn.return_carry and path:
            raise ExportError(f"RNN {'.'.join(path)!r} returns its carry too, which the layer behind it would read")

    def _bidirectional(self, module: Any, path: tuple[str, ...]) -> str:
        self._axes(module, path)
        merge = module.merge_fn
        if getattr(merge, "__name__", "") != "_concatenate":
            raise ExportError(
                f"Bidirectional {'.'.join(path)!r} has a merge_fn of its own; only concatenation is supported"
            )
        names, options = [], []
        for attribute in ("forward_rnn", "backward_rnn"):
            rnn = getattr(module, attribute)
            below = self.child(path, attribute, -1, rnn)
            where = ".".join(self.child(below, "cell", -1, rnn.cell))
            names.append(where)
            options.append(self._cell(rnn.cell, where))
        if options[0] != options[1]:
            raise ExportError(f"Bidirectional {'.'.join(path)!r}: its directions have different activations")
        return f"bidirectional({', '.join(names)}{options[0]})"


class _Nnx(_Reader):
    def __init__(self) -> None:
        from flax import nnx

        super().__init__()
        self.kind = nnx

    def arrays(self, module: Any) -> Mapping[str, Any]:
        state = self.kind.to_pure_dict(self.kind.state(module, (self.kind.Param, self.kind.BatchStat)))
        return _without_state(_arrays.flatten(state))

    def child(self, path: tuple[str, ...], attribute: str, number: int, child: Any) -> tuple[str, ...]:
        return (*path, attribute, str(number)) if number >= 0 else (*path, attribute)


class _Linen(_Reader):
    """linen names a part that was made outside of a module by the attribute that holds it."""

    def __init__(self, variables: Mapping[str, Any] | None) -> None:
        from flax import linen

        if variables is None:
            raise ExportError("a linen module has no arrays of its own; pass its variables")
        super().__init__()
        self.kind = linen
        self.variables = variables

    def arrays(self, module: Any) -> Mapping[str, Any]:
        return merged(self.variables)

    def child(self, path: tuple[str, ...], attribute: str, number: int, child: Any) -> tuple[str, ...]:
        if getattr(child, "name", None):
            return (*path, child.name)
        return (*path, f"{attribute}_{number}" if number >= 0 else attribute)

    def _batchnorm(self, module: Any, where: str) -> str:
        if not module.use_running_average:
            raise ExportError(f"BatchNorm {where!r} is not in eval mode: use_running_average must be True")
        return super()._batchnorm(module, where)


# ---- functions


def _functions() -> list[tuple[Any, str]]:
    import jax
    import jax.numpy as jnp

    pairs = [(jnp.tanh, "tanh"), (jax.lax.tanh, "tanh"), (jax.lax.logistic, "sigmoid")]
    names = "sigmoid tanh relu softplus silu swish softmax log_softmax"
    pairs += [
        (getattr(jax.nn, name), {"swish": "silu"}.get(name, name)) for name in names.split() if hasattr(jax.nn, name)
    ]
    pairs += [(jax.nn.soft_sign, "softsign"), (jax.nn.hard_sigmoid, f"hard_sigmoid:{1 / 6!r}:0.5")]
    pairs += [(jax.nn.identity, "linear")] if hasattr(jax.nn, "identity") else []
    return pairs


_WITH_PARAMETER = {"elu": ("alpha", 1.0), "leaky_relu": ("negative_slope", 0.01)}


def activation_of(function: Callable[..., Any]) -> str:
    """The name of an activation function of JAX, with parameters as in ``leaky_relu:0.2``.

    Raises
    ------
    ExportError
        If it is none that the engine has.
    """
    import jax

    given = dict(function.keywords) if isinstance(function, functools.partial) and not function.args else {}
    inner = function.func if isinstance(function, functools.partial) else function
    if inner is jax.nn.gelu and set(given) <= {"approximate"}:
        return "gelu_tanh" if given.get("approximate", True) else "gelu"
    for name, (parameter, default) in _WITH_PARAMETER.items():
        if inner is getattr(jax.nn, name) and set(given) <= {parameter}:
            return f"{name}:{float(given.get(parameter, default))!r}"
    for known, name in _functions():
        if inner is known and not given:
            return name
    shown = getattr(inner, "__name__", repr(inner))
    raise ExportError(f"the function {shown} is no activation of the engine{f' with {given}' if given else ''}")


def function_word(function: Callable[..., Any]) -> str:
    """The word of a chain for an activation function that stands between layers."""
    name, *parameters = activation_of(function).split(":")
    parse_activation((name, *map(float, parameters)))
    if name == "linear":
        return ""
    return f"{name}({', '.join(parameters)})" if parameters else name


def _gives_zeros(initializer: Callable[..., Any]) -> bool:
    import jax

    return bool((np.asarray(initializer(jax.random.key(0), (2, 3), np.float32)) == 0).all())
