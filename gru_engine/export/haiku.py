# SPDX-License-Identifier: Apache-2.0
"""Haiku (and Sonnet 2, which has the same GRU): params to networks. Needs neither of them, nor JAX.

The params of ``hk.transform`` are ``{"gru": {"w_i": ..., "w_h": ..., "b": ...}, "linear": {"w": ..., "b": ...}}``: names of
modules, not what is done with them. A description in the ``--layers`` language goes with them wherever there is a choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gru_engine.export import arrays as _arrays
from gru_engine.export import chain, layouts
from gru_engine.export.common import ExportError
from gru_engine.network import Network


def from_params(params: Mapping[str, Any], layers: str | None = None, *, skip_connections: bool = False) -> Network:
    """Turn the params of a model into a network.

    Parameters
    ----------
    params : mapping
        What ``init`` of ``hk.transform`` returned, or training made of it.
    layers : str, optional
        The chain of layers, as ``"embedding(embed) gru(gru) gru(gru_1) linear(linear)"``; see ``gru_engine.export.chain``. By
        default what names and shapes leave no choice about.
    skip_connections : bool
        All GRUs, in the order of their numbers, are the layers of one ``hk.deep_rnn_with_skip_connections``, and ``layers``
        says what stands behind it (by default nothing). The same can be written as a word, with any order:
        ``"skip_connections(gru, gru_1) linear(linear)"``.

    Returns
    -------
    Network

    Raises
    ------
    ExportError
        If an array is missing, left over or does not fit, or the order of the layers is not certain.
    """
    return build(params, layers, skip_connections).network


def build(params: Mapping[str, Any], layers: str | None = None, skip_connections: bool = False) -> chain.Built:
    """Like ``from_params``, with what was understood in words."""
    arrays = _arrays.flatten(params)
    if skip_connections:
        names = [prefix.rstrip(".") for prefix in layouts.recurrent_prefixes(list(arrays))]
        if len(names) < 2:
            raise ExportError(f"skip connections need at least two GRUs, there are: {', '.join(names) or 'none'}")
        layers = f"skip_connections({', '.join(sorted(names, key=natural))}) {layers or ''}"
    return _arrays.build(arrays, layers)


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts ``gru``, ``gru_1``, ``gru_2``, ``gru_10`` in this order."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
