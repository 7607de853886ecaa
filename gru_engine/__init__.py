# SPDX-License-Identifier: Apache-2.0
"""Trained GRU networks, exported into one flat file and stepped token by token on a CPU.

>>> import gru_engine as ge
>>> model = ge.load("model.gru")
>>> stream = model.stream()
>>> y = stream.step(x)
"""

from gru_engine import cells, reference
from gru_engine._core import Model, Pool, Stream, __version__, cpu_info, load, set_isa
from gru_engine._inputs import TokenInput
from gru_engine.errors import FormatError
from gru_engine.generation import Hypothesis, beam_search
from gru_engine.network import Network

__all__ = [
    "FormatError",
    "Hypothesis",
    "Model",
    "Network",
    "Pool",
    "Stream",
    "TokenInput",
    "__version__",
    "beam_search",
    "cells",
    "cpu_info",
    "load",
    "reference",
    "set_isa",
]
