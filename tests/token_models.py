# SPDX-License-Identifier: Apache-2.0
"""Small models that read tokens and score the next one, for the tests of generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import gru_engine as ge

from .helpers import gru_arrays, uniform


def loaded(net: ge.Network, tmp_path: Path, name: str = "m") -> ge.Model:
    path = tmp_path / f"{name}.gru"
    net.save(path)
    return ge.load(path)


def language_model(
    tmp_path: Path, vocabulary: int = 40, activation: str = "log_softmax", sharpness: float = 1.0
) -> ge.Model:
    """Token -> GRU of 24 -> scores; what follows depends on all that came before."""
    rng = np.random.default_rng(vocabulary)
    net = ge.Network()
    h = net.gru(net.embedding(net.tokens(vocabulary), uniform(rng, 1, vocabulary, 6)), **gru_arrays(rng, 24, 6))
    W = uniform(rng, sharpness, vocabulary, 24)
    net.output(net.dense(h, W, uniform(rng, 1, vocabulary), activation=activation), "p")
    return loaded(net, tmp_path, f"{activation}{vocabulary}")


def constant_model(
    tmp_path: Path, scores: Any, activation: str = "linear", columns: Any = None, scale: float = 0.0
) -> ge.Model:
    """Whatever has been read, the output is ``scores`` (plus ``columns`` * the token * ``scale``)."""
    scores = np.asarray(scores, np.float32)
    columns = np.zeros_like(scores) if columns is None else np.asarray(columns, np.float32)
    net = ge.Network()
    e = net.embedding(net.tokens(len(scores)), scale * np.arange(len(scores), dtype=np.float32)[:, None])
    net.output(net.dense(e, columns[:, None], scores, activation=activation), "scores")
    return loaded(net, tmp_path, "constant")
