# SPDX-License-Identifier: Apache-2.0
"""What a module's ``forward`` takes: the tensors of an example by name, and which of them can be inputs and which states."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from gru_engine.export.common import ExportError
from gru_engine.export.roles import beside, certain, named_axes, without_time
from gru_engine.export.traced import layouts

_MOST_READINGS = 8

Reading = dict[int, str]
"""The numbers of the leaves that are inputs, the first one first, and the meanings of their axes; other tensors are states."""


@dataclass(frozen=True, eq=False)
class Arguments:
    """The arguments of ``forward``, flattened.

    Attributes
    ----------
    names : list of str
        Of each leaf: its parameter's, with keys and numbers behind it where that is a dictionary or a list.
    leaves : list
        Tensors, and whatever else is passed.
    spec
        How to put them together again: positional arguments and keywords.
    """

    names: list[str]
    leaves: list[Any]
    spec: Any

    @classmethod
    def of(cls, module: nn.Module, example: Any) -> Arguments:
        """Those of an example: a tuple of positional arguments, a dict by the parameters' names, or the only argument.

        Raises
        ------
        ExportError
            If ``forward`` cannot be called with it.
        """
        signature = _signature(module)
        names = [] if signature is None else list(signature.parameters)
        if isinstance(example, Mapping) and (set(example) <= set(names) or not example):
            assert signature is not None
            args, kwargs = _bound(module, signature, dict(example))
        else:
            args, kwargs = (example if isinstance(example, tuple) else (example,)), {}
        leaves, spec = pytree.tree_flatten((args, kwargs))
        paths = [path for path, _ in pytree.tree_flatten_with_path((args, kwargs))[0]]
        parts = [[path_key(key) for key in path[1:]] for path in paths]
        if len(args) == 1 and not kwargs and isinstance(args[0], Mapping):
            parts = [part[1:] or part for part in parts]  # one dictionary: its keys are the names
        else:
            positional = _positional(signature, len(args))
            parts = [[positional[int(p[0])], *p[1:]] if path[0].idx == 0 else p for path, p in zip(paths, parts)]
        return cls([".".join(part) for part in parts], leaves, spec)

    def values(self, leaves: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional arguments and keywords of other leaves."""
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return args, kwargs

    def title(self, number: int) -> str:
        """An argument in words."""
        leaf, name = self.leaves[number], self.names[number]
        named = f", {name!r}," if not name.isdecimal() else ""
        return f"argument {number} of forward{named} of shape {list(leaf.shape)}"

    # ---- what they can be

    def readings(self, axes: str | Mapping[str, str] | None) -> tuple[list[Reading], list[ExportError]]:
        """The possible meanings of all arguments, the likely ones first; and why others are not possible.

        Raises
        ------
        ExportError
            If the first argument is no input.
        """
        tensors = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, torch.Tensor)]
        if isinstance(axes, Mapping):
            named_axes(axes, [self.names[i] for i in tensors])
            given = {i: axes[self.names[i]] for i in tensors if self.names[i] in axes}
            left = [i for i in tensors if i not in given and not self._floats(i)]
            if left:
                raise ExportError(f"{self.title(left[0])} and type {self.leaves[left[0]].dtype} is not named in axes")
            return [given], []
        if not tensors or tensors[0] != 0:
            raise ExportError("the first example input must be a tensor: the sequences, or tokens")
        readings: list[Reading] = []
        errors = []
        for layout in [axes] if axes is not None else self._layouts(0, len(tensors) > 1):
            try:
                readings += itertools.islice(self._beside(layout, tensors[1:]), _MOST_READINGS)
            except ExportError as error:
                errors.append(error)
        return readings, errors

    def _floats(self, number: int) -> bool:
        return bool(self.leaves[number].dtype.is_floating_point)

    def _layouts(self, number: int, states: bool) -> list[str]:
        leaf = self.leaves[number]
        possible = [] if leaf.dtype == torch.bool else layouts(leaf.shape, self._floats(number), states)
        if not possible and number == 0:
            raise ExportError(f"an example input of shape {list(leaf.shape)} and type {leaf.dtype} is not supported")
        return possible

    def _beside(self, layout: str, others: list[int]) -> Iterator[Reading]:
        """The readings in which the first argument has this layout."""
        shape = self.leaves[0].shape
        fitting = {i: beside(layout, shape, self._layouts(i, True), self.leaves[i].shape) for i in others}
        for i in others:
            if not self._floats(i) and not fitting[i]:
                what = f"{self.title(i)} and type {self.leaves[i].dtype}"
                if "T" in layout and self.leaves[i].dtype != torch.bool and self.leaves[i].ndim < 2:
                    raise ExportError(f"{without_time(what)} (lengths are given when the model runs)")
                raise ExportError(f"{what} is no input of tokens with the same axes as the first")
        tokens = {i: fitting[i][0] for i in others if not self._floats(i)}
        floats = [i for i in others if self._floats(i)]
        if "T" in layout:
            choices = [[*fitting[i], None] for i in floats]
            taken = ({i: l for i, l in zip(floats, choice) if l} for choice in itertools.product(*choices))
        else:  # at least one of them is a state: without any the model would forget everything at every step
            subsets = (s for n in range(max(len(floats), 1)) for s in itertools.combinations(floats, n))
            taken = ({i: fitting[i][0] for i in subset} for subset in subsets if all(fitting[i] for i in subset))
        for inputs in taken:
            reading = {0: layout, **dict(sorted({**tokens, **inputs}.items()))}
            if "T" not in layout or not inputs or certain([(l, self._floats(i)) for i, l in reading.items()]):
                yield reading


# ---- names


def _signature(module: nn.Module) -> inspect.Signature | None:
    try:
        return inspect.signature(module.forward)
    except (TypeError, ValueError):  # no function of Python
        return None


def _bound(
    module: nn.Module, signature: inspect.Signature, given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by name as positional ones, as far as there are."""
    try:
        bound = signature.bind(**given)
    except TypeError as error:
        raise ExportError(f"forward of {type(module).__name__} does not take the example inputs: {error}") from None
    if bound.kwargs:
        bound.apply_defaults()  # what stands between those that are given
    return bound.args, bound.kwargs


def _positional(signature: inspect.Signature | None, count: int) -> list[str]:
    """Names of so many positional arguments; numbers where there are none."""
    names: list[str] = []
    for parameter in () if signature is None else signature.parameters.values():
        if parameter.kind == parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}.{i}" for i in range(count - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    return [*names, *map(str, range(len(names), count))]


def path_key(key: Any) -> str:
    """One step of the path to a leaf: a key, a field or a number."""
    return str(next(getattr(key, name) for name in ("key", "name", "idx") if hasattr(key, name)))
