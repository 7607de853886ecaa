# SPDX-License-Identifier: Apache-2.0
"""Attention that a model writes out: a product of two sequences, scaled, a softmax over the keys, a product with the values.

The scores of each step of a query for each step of the keys have two time axes, which no value of a network has. So they are
remembered here until they weigh values, and may be used for nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gru_engine.export import operations, over_time
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import Dim, Graph, Tensor, is_features


@dataclass(frozen=True, eq=False)
class Scores:
    """``scale * query @ keys^T``, [..., T, S], where the axes in front are the batch and perhaps heads."""

    query: Tensor  # [..., T, K]
    keys: Tensor  # [..., S, K]
    scale: float = 1.0
    causal: bool = False
    weights: bool = False  # their softmax over S

    def __str__(self) -> str:
        return "the weights of an attention" if self.weights else "the scores of an attention"

    @property
    def rank(self) -> int:
        """Number of axes."""
        return self.query.rank

    def shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        """The shape where batch and time have the given sizes."""
        return (*self.query.shape(sizes)[:-1], self.keys.shape(sizes)[-2])


def are_scores(a: Tensor, b: Tensor) -> bool:
    """Whether a matrix product is of the steps of two sequences: [..., T, K] and [..., K, S]."""
    if min(a.rank, b.rank) < 3 or a.rank != b.rank or a.dims[:-2] != b.dims[:-2]:
        return False
    inner = is_features(a.dims[-1]) and is_features(b.dims[-2]) and a.dims[-1] == b.dims[-2]
    return inner and over_time.is_steps(b.dims[-1]) and (a.dims[-2] == () or over_time.is_steps(a.dims[-2]))


def matrix_product(c: operations.Context, a: Tensor, b: Tensor) -> Tensor | Scores:
    """The product of two stacks of matrices: scores, of a query and transposed keys, or attention pooling over time."""
    if are_scores(a, b):
        return Scores(a, b.permute([*range(b.rank - 2), b.rank - 1, b.rank - 2]))
    return operations.matrix_product(c, a, b)


def scaled(scores: Scores, factor: float) -> Scores:
    """Scores times a number."""
    if scores.weights:
        raise ExportError("the weights of an attention are scaled; they can only be multiplied with values")
    return replace(scores, scale=scores.scale * factor)


def masked(scores: Scores, mask: Array) -> Scores:
    """Scores plus a constant mask: nothing, or what hides the steps behind the query's."""
    if scores.weights or mask.ndim < 2:
        raise ExportError(f"something is added to {scores}; only a mask that hides later steps is supported")
    if not mask.any():
        return scores
    later = np.triu(np.ones(mask.shape[-2:], bool), 1)
    square = mask.shape[-1] == mask.shape[-2]
    if not square or (mask[..., later] > -1e4).any() or mask[..., ~later].any():
        raise ExportError(
            "the mask of an attention is supported only if it hides the steps behind the query's, and no others"
        )
    return replace(scores, causal=True)


def softmax(scores: Scores, dim: int) -> Scores:
    """The softmax over the keys."""
    if dim % scores.rank != scores.rank - 1 or scores.weights:
        raise ExportError(f"a softmax of {scores} is supported over the keys, their last axis, once")
    return replace(scores, weights=True)


def weighted(graph: Graph, scores: Scores, values: Tensor) -> Tensor:
    """The product of the weights and values [..., S, V]: attention."""
    if not scores.weights:
        raise ExportError("scores are multiplied with values without a softmax")
    front = scores.query.dims[:-2]
    if (
        values.rank != scores.rank
        or values.dims[:-1] != (*front, scores.keys.dims[-2])
        or not is_features(values.dims[-1])
    ):
        raise ExportError(
            f"the weights of an attention to {scores.keys} are multiplied with {values}; the steps do not fit"
        )
    flat = [factor for dim in front for factor in dim]
    heads = [factor for factor in flat if isinstance(factor, int)]
    if [factor for factor in flat if not isinstance(factor, int)] != ["B"]:
        raise ExportError(f"an attention of {scores.query} is supported for a batch, perhaps with heads, in front")
    number = int(np.prod(heads, dtype=int))
    query, keys, parts = (
        Tensor.of((("B",), t.dims[-2], (t.ids.size,)), t.ids.reshape(-1)) for t in (scores.query, scores.keys, values)
    )
    made = over_time.attention(graph, query, keys, parts, heads=number, scale=scores.scale, causal=scores.causal)
    width = made.ids.size // number
    dims: Sequence[Dim] = (*front, scores.query.dims[-2], (width,))
    return Tensor.of(dims, made.ids.reshape(*heads, width))
