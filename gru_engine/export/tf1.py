# SPDX-License-Identifier: Apache-2.0
"""TensorFlow 1: the variables of ``GRUCell``, ``GRUBlockCell`` and ``MultiRNNCell`` to networks. Needs no TensorFlow.

The variables come as a dictionary, as ``{name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}`` of
``tf.train.load_checkpoint`` gives one, or from an ``.npz`` file of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gru_engine.export import arrays as _arrays
from gru_engine.export import chain
from gru_engine.export.words import Arrays
from gru_engine.network import Network


def from_variables(variables: Mapping[str, Any], layers: str | None = None) -> Network:
    """Turn the variables of a graph into a network.

    Parameters
    ----------
    variables : mapping
        Arrays by the names of their variables, as ``rnn/multi_rnn_cell/cell_0/gru_cell/gates/kernel``. What an optimizer keeps
        (``.../Adam``, ``beta1_power``) and whole numbers (``global_step``) may be among them.
    layers : str, optional
        The chain of layers, as ``"embedding(E=emb) gru(rnn/multi_rnn_cell) linear(dense)"``; see ``gru_engine.export.chain``. By
        default what the names leave no choice about. A ``MultiRNNCell`` is one word, its cells are stacked by their numbers; so
        is a ``bidirectional_dynamic_rnn``, by the name that stands before ``fw`` and ``bw``.

    Returns
    -------
    Network

    Raises
    ------
    ExportError
        If a variable is missing, left over or does not fit.
    """
    return build(variables, layers).network


def build(variables: Mapping[str, Any], layers: str | None = None) -> chain.Built:
    """Like ``from_variables``, with what was understood in words."""
    return _arrays.build(weights(variables), layers)


def weights(variables: Mapping[str, Any]) -> Arrays:
    """The variables that a model computes with: without an optimizer's slots (named below their variable) and counters."""
    arrays = _arrays.flatten(variables)
    return {
        name: array
        for name, array in arrays.items()
        if array.dtype.kind == "f" and array.ndim and name.rpartition(".")[0] not in arrays
    }
