# SPDX-License-Identifier: Apache-2.0
"""Attention in PyTorch: ``scaled_dot_product_attention``, and what may be done with scores (``gru_engine.export.scores``)."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from gru_engine.export import scores as attention
from gru_engine.export.common import ExportError
from gru_engine.export.graph import Tensor
from gru_engine.export.operations import Context, all_variable
from gru_engine.export.scores import Scores
from gru_engine.export.torch_ops import Arguments, handles, to_numpy

_SAME = ("alias", "detach", "clone", "contiguous", "_to_copy", "to", "lift_fresh_copy")
_SHAPED = ("view", "_unsafe_view", "reshape", "expand")


@handles("scaled_dot_product_attention")
def _attention(c: Context, a: Arguments) -> Any:
    if a.dropout_p or getattr(a, "enable_gqa", False):
        raise ExportError("scaled_dot_product_attention with dropout or grouped queries is not supported")
    query, keys, values = all_variable([a.query, a.key, a.value], "scaled_dot_product_attention")
    swapped = keys.permute([*range(keys.rank - 2), keys.rank - 1, keys.rank - 2])
    if not attention.are_scores(query, swapped):
        raise ExportError(f"scaled_dot_product_attention of {query}, {keys} and {values} is not supported")
    scale = query.shape(c.sizes)[-1] ** -0.5 if a.scale is None else float(a.scale)
    scores = attention.scaled(Scores(query, keys, causal=bool(a.is_causal)), scale)
    if a.attn_mask is not None:
        scores = attention.masked(scores, _mask(a.attn_mask))
    return attention.weighted(c.graph, attention.softmax(scores, -1), values)


def _mask(mask: Any) -> Any:
    """A mask that is added to scores, of one that says where to look."""
    if not isinstance(mask, torch.Tensor):
        raise ExportError("the mask of an attention depends on the input; give lengths= when the model runs")
    if mask.dtype == torch.bool:
        return np.where(mask.numpy(), 0.0, -np.inf)
    return to_numpy(mask)


def of_scores(c: Context, name: str, a: SimpleNamespace) -> Any:
    """An operation one of whose arguments is the scores or weights of an attention."""
    it = next(value for value in vars(a).values() if isinstance(value, Scores))
    first = isinstance(getattr(a, "self", None), Scores)
    if name in _SAME or (name == "dropout" and not (a.train and a.p)):
        return it
    if name in _SHAPED and first:
        return _shaped(c, it, list(a.size if hasattr(a, "size") else a.shape))
    if name in ("softmax", "_softmax") and first:
        return attention.softmax(it, a.dim)
    if name in ("mul", "div") and first:
        other = a.other
        number = other.item() if isinstance(other, torch.Tensor) and other.numel() == 1 else other
        if isinstance(number, (int, float)):
            return attention.scaled(it, number if name == "mul" else 1 / number)
    if name == "add" and getattr(a, "alpha", 1) == 1:
        other = a.other if first else a.self
        if isinstance(other, torch.Tensor):
            return attention.masked(it, to_numpy(other))
    if name in ("bmm", "matmul") and first:
        values = a.mat2 if name == "bmm" else a.other
        if isinstance(values, Tensor):
            return attention.weighted(c.graph, it, values)
    raise ExportError(f"this operation on {it} is not supported; they can only be scaled, masked and weigh values")


def _shaped(c: Context, scores: Scores, size: list[int]) -> Scores:
    """Scores with other axes in front."""
    shape = list(scores.shape(c.sizes))
    if -1 in size:
        size[size.index(-1)] = math.prod(shape) // -math.prod(size)
    if size[-2:] != shape[-2:]:
        raise ExportError(f"{scores} are given the shape {size}; only the axes in front of the two times may change")
    query, keys = (t.reshape([*size[:-2], *t.shape(c.sizes)[-2:]], c.sizes) for t in (scores.query, scores.keys))
    return replace(scores, query=query, keys=keys)
