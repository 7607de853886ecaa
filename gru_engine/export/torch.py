# SPDX-License-Identifier: Apache-2.0
"""PyTorch modules to networks.

``torch.export`` runs the module once on fake tensors and records every ATen operation, in plain functional form; whatever
Python does in ``forward`` has been done by then. It is preferred to ``torch.fx``, which fails on ordinary Python and leaves each
operation under many names (``nn.Tanh``, ``F.tanh``, ``x.tanh()``). ``nn.GRU`` stays one operation, ``aten.gru``. The record is
then followed with tensors that know what their axes mean (``gru_engine.export.graph``), operation by operation
(``gru_engine.export.torch_ops``); an operation that is not known there, or not exact, is refused with its place in the source.

The record holds the example's sizes as plain numbers. So the batch and the time get sizes of our own, prime numbers that occur
nowhere else in the module, and the network is compared with the module at other sizes before it is returned.
"""

from __future__ import annotations

import copy
import os
import re
import traceback
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from gru_engine import reference
from gru_engine.export import common
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import AxisError, Graph, Ids, Tensor
from gru_engine.export.lowering import lower
from gru_engine.export.torch_ops import HANDLERS, Context
from gru_engine.network import Network

_PRIMES = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113)
_SILENT = {"_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range", "sym_constrain_range_for_size"}
_CREATING = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}  # of a variable only the shape is used

THRESHOLD_FLOAT64 = 1e-7
"""Largest accepted relative difference between the module in float64 and the float64 reference."""


def from_module(
    module: nn.Module, example_input: Any, *, axes: str | None = None, outputs: Sequence[int] | None = None
) -> Network:
    """Turn a module into a network, exactly, or refuse.

    Parameters
    ----------
    module : nn.Module
        It is copied; the copy is put into eval mode.
    example_input : Tensor or tuple
        What ``forward`` takes: sequences (``[batch, time, features]``, ``[time, batch, features]``, without the batch, or of one step
        ``[batch, features]``), or integer tokens; and after it the initial states of GRUs, if forward takes them. Only shapes and
        data types are used; batch and time may have any size.
    axes : str, optional
        What the axes of the input mean, a letter each: ``B`` batch, ``T`` time, ``F`` features, ``1`` an axis of size 1. By default it is
        found out; where batch and time cannot be told apart (there is no GRU) the batch comes first.
    outputs : sequence of int, optional
        Which of the values that forward returns (counted through nested tuples) become outputs. By default all, except states
        that are returned beside values of every step: those a stream carries by itself.

    Returns
    -------
    Network
        Compared with the module on random inputs.

    Raises
    ------
    ExportError
        If an operation has no exact counterpart; the message says which one, in which submodule and line.
    """
    return trace(module, example_input, axes=axes, outputs=outputs).network


# ---- running a module next to its network


@dataclass(frozen=True, eq=False)
class Traced:
    """A module and the network made from it.

    Attributes
    ----------
    network : Network
    module : nn.Module
        A copy in eval mode.
    notes : list of str
        What was understood that the network's own summary does not show.
    """

    network: Network
    module: nn.Module
    notes: list[str]
    _inputs: tuple[Any, ...]  # the example, with a _Place instead of each tensor
    _outputs: list[tuple[int, Tensor]]  # number among all that forward returns, axes
    _states: list[tuple[Ids | None, int]]  # for each GRU of the network: ids of its initial state if that is an input; its size
    _returned: list[tuple[int, Ids]]  # number of a returned state; for each element its place in the network's state

    def run(self, x: Array, state: Array | None = None) -> tuple[Array, Array | None]:
        """The module's own outputs and returned states, laid out as the network's.

        Parameters
        ----------
        x : array [B, T, I] or int [B, T]
        state : array [B, state_size], optional
            Used where forward takes states; a module that takes one step at a time is called step by step.

        Returns
        -------
        y : array [B, T, O] or [B, O]
        state : array [B, state_size] or None
            None if the module returns no state.
        """
        dims = self._inputs[0].dims
        steps = any("T" in d for d in dims)
        batch = any("B" in d for d in dims)
        if not batch:  # one sequence at a time
            runs = [self._run(x[i : i + 1], None if state is None else state[i : i + 1], steps) for i in range(len(x))]
            states = [s for _, s in runs if s is not None]
            return np.concatenate([y for y, _ in runs]), np.concatenate(states) if states else None
        return self._run(x, state, steps)

    def _run(self, x: Array, state: Array | None, steps: bool) -> tuple[Array, Array | None]:
        if steps:
            return self._call(x, state)
        ys = []
        state = np.zeros((len(x), self.network.state_size)) if state is None else state
        for t in range(x.shape[1]):
            y, after = self._call(x[:, t : t + 1], state)
            state = after if after is not None else state
            ys.append(y)
        return np.stack(ys, axis=1), after

    def _call(self, x: Array, state: Array | None) -> tuple[Array, Array | None]:
        sizes = {"B": x.shape[0], "T": x.shape[1], "R": x.shape[1]}
        dtype = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)
        arguments = []
        for i, place in enumerate(self._inputs):
            if not isinstance(place, _Place):
                arguments.append(place)
            elif i == 0:
                arguments.append(place.fill(x, sizes, dtype))
            else:
                arguments.append(place.fill(self._pack(place, state, len(x)), sizes, dtype))
        with torch.inference_mode(), _default_dtype(dtype):
            values = pytree.tree_leaves(self.module(*pytree.tree_unflatten(arguments, self._spec)))
        return self._outputs_of(values, sizes), self._states_of(values, len(x))
