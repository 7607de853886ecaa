# SPDX-License-Identifier: Apache-2.0
"""How frameworks name and shape the arrays of layers without memory: linear, embedding, batch normalisation, PReLU."""

from __future__ import annotations

import numpy as np

from gru_engine.export.common import Array, ExportError
from gru_engine.export.words import Arrays, Source, Word


def orientation(word: Word) -> str:
    """Whether the gates or outputs are ``rows``, the default, or ``columns`` of the arrays that a word names."""
    value = word.option("orientation") or "rows"
    if value not in ("rows", "columns"):
        raise ExportError(f"--layers: orientation of {word} must be rows or columns, got {value!r}")
    return value


def as_rows(array: Array, columns: bool) -> Array:
    """A matrix with the outputs as rows, whichever way round they are given; a vector as it is."""
    return array.T if columns and array.ndim == 2 else array


def read_linear(word: Word, prefix: str, source: Source) -> tuple[Array, Array | None]:
    """W [O, I] and the bias, if there is one."""
    if word.option("W") is not None:
        W = as_rows(source.get(word.option("W") or "", word, 2), orientation(word) == "columns")
        return W, None if word.option("b") is None else source.get(word.option("b") or "", word, 1)
    for key, _ in word.options:
        raise ExportError(f"--layers: {word}: {key} is for a matrix that is named by W")
    for weight, bias, transposed in (
        ("kernel", "bias", True),  # Flax, Keras, TensorFlow 1
        ("weights", "biases", True),  # TensorFlow before 1.2
        ("w", "b", True),  # Haiku, Sonnet
        ("W", "b", False),  # Network.dense
    ):
        if prefix + weight in source.arrays:
            W = source.get(prefix + weight, word, 2)
            return (W.T if transposed else W), source.find(prefix + bias, word, 1)
    return source.get(prefix + "weight", word, 2), source.find(prefix + "bias", word, 1)


def read_embedding(word: Word, prefix: str, source: Source) -> Array:
    """The table [V, E]."""
    if word.option("E") is not None:
        return source.get(word.option("E") or "", word, 2)
    for name in ("embedding", "embeddings", "E"):  # Flax; Haiku and Keras; Network.embedding
        if prefix + name in source.arrays:
            return source.get(prefix + name, word, 2)
    return source.get(prefix + "weight", word, 2)


_BATCHNORMS = (
    # variance, mean, scale, shift, and the eps where none is said
    ("moving_variance", "moving_mean", "gamma", "beta", 1e-3),  # Keras
    ("var", "mean", "scale", "bias", 1e-5),  # Flax
    ("running_var", "running_mean", "weight", "bias", 1e-5),  # PyTorch
)


def read_batchnorm(word: Word, prefix: str, source: Source) -> tuple[Array, Array]:
    """Scale and shift of a batch normalisation in eval mode, in float64."""
    found = [names for names in _BATCHNORMS if prefix + names[0] in source.arrays]
    variance, mean, scale, shift, eps = (found or _BATCHNORMS)[-1]
    m, v = (source.get(prefix + name, word, 1).astype(np.float64) for name in (mean, variance))
    weight, bias = (source.find(prefix + name, word, 1) for name in (scale, shift))
    factor = (1 if weight is None else weight) / np.sqrt(v + word.number("eps", word.number("epsilon", eps)))
    return factor, (0 if bias is None else bias) - m * factor


def read_prelu(word: Word, prefix: str, source: Source) -> Array:
    """The slopes below zero: one, or one for each feature."""
    names = [name for name in ("alpha", "negative_slope", "weight") if prefix + name in source.arrays]
    slopes = source.find(prefix + (names or ["weight"])[0], word, 0, 1)
    return source.get(prefix + "weight", word, 1) if slopes is None else slopes.reshape(-1)


def without_memory(local: dict[str, Array]) -> list[str]:
    """What words the arrays below one name can be, by their names and shapes; and these names must be all."""
    for kind, needed, allowed in _LOCAL:
        if needed in local and set(local) <= {needed, *allowed} and (kind == "batchnorm" or local[needed].ndim == 2):
            both = kind == "linear" and needed == "weight" and "bias" not in local
            return ["embedding", "linear"] if both else [kind]
    return []


_LOCAL = (
    *(("batchnorm", v, (m, scale, shift, "num_batches_tracked")) for v, m, scale, shift, _ in _BATCHNORMS),
    ("linear", "weight", ("bias",)),
    ("linear", "kernel", ("bias",)),
    ("linear", "weights", ("biases",)),
    ("linear", "w", ("b",)),
    ("linear", "W", ("b",)),
    ("embedding", "embedding", ()),
    ("embedding", "embeddings", ()),
    ("embedding", "E", ()),
)


def shapes(arrays: Arrays) -> str:
    """Names and shapes, for a message."""
    return ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
