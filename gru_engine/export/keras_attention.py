# SPDX-License-Identifier: Apache-2.0
"""Keras's layers Attention, AdditiveAttention and MultiHeadAttention: means over the steps of a sequence for each of a query.

A query of one step, made of a whole sequence, is attention pooling. Masks hide keys behind a sequence's end, as ``lengths=``
does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gru_engine.export import over_time
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import AxisError, Tensor, is_features
from gru_engine.export.keras_layers import Context, Value
from gru_engine.export.keras_model import Spec
from gru_engine.export.over_time import is_steps

ATTENTION = ("Attention", "AdditiveAttention", "MultiHeadAttention")
"""The classes that ``attention`` handles."""


def attention(c: Context, spec: Spec, inputs: Sequence[Value], options: dict[str, Any]) -> Value:
    """What an attention layer returns.

    Parameters
    ----------
    inputs : sequence of Value
        Query, value and, where it is another one, key.
    options : dict
        Of the call: ``use_causal_mask`` among them.

    Raises
    ------
    ExportError
        If it cannot be expressed exactly.
    """
    causal = bool(options.get("use_causal_mask"))
    for name, value in options.items():
        if value not in (None, False) and name != "use_causal_mask":
            raise ExportError(f"it is called with {name}={value!r}")
    if len(inputs) not in (2, 3):
        raise ExportError(f"it reads {len(inputs)} values, expected query, value and perhaps key")
    query, value, key = (*inputs, inputs[1])[:3]
    for x in (query, value, key):
        t = x.tensor
        of_one = x is query and len(t.dims) > 1 and t.dims[1] == ()
        if t.rank != 3 or t.dims[0] != ("B",) or not (of_one or is_steps(t.dims[1])) or not is_features(t.dims[2]):
            raise AxisError(f"it reads [batch, time, features], but one of its inputs is {t}")
    if c.masks.sources:
        c.masks.read(spec, value)
    read = {"Attention": _dot_product, "AdditiveAttention": _additive, "MultiHeadAttention": _several_heads}[spec.kind]
    return query.but(read(c, spec, query.tensor, value.tensor, key.tensor, causal))


def _dot_product(c: Context, spec: Spec, query: Tensor, value: Tensor, key: Tensor, causal: bool) -> Tensor:
    scale = float(spec.array("scale").reshape(())) if spec.option("use_scale", False) else 1.0
    mode = spec.option("score_mode", "dot")
    if mode == "dot":
        return over_time.attention(c.graph, query, key, value, scale=scale, causal=causal)
    if mode != "concat":
        raise ExportError(f"score_mode={mode!r} is not known")
    if scale != 1:
        query, key = (c.graph.affine(t, scale, 0.0) for t in (query, key))
    v = np.full(query.ids.size, float(spec.array("concat_score_weight").reshape(())))
    return over_time.attention(c.graph, query, key, value, v=v, causal=causal)


def _additive(c: Context, spec: Spec, query: Tensor, value: Tensor, key: Tensor, causal: bool) -> Tensor:
    v = spec.array("scale") if spec.option("use_scale", True) else np.ones(query.ids.size, np.float32)
    return over_time.attention(c.graph, query, key, value, v=v, causal=causal)


def _several_heads(c: Context, spec: Spec, query: Tensor, value: Tensor, key: Tensor, causal: bool) -> Tensor:
    if (
        spec.option("attention_axes") not in (None, 1, [1], (1,))
        or spec.option("use_gate", False)
        or spec.option("sliding_window")
    ):
        raise ExportError("attention_axes other than the time, use_gate and sliding_window are not supported")

    def dense(t: Tensor, name: str) -> Tensor:
        kernel, bias = spec.array(f"{name}/kernel"), spec.arrays.get(f"{name}/bias")
        inputs = t.ids.size
        if kernel.size % inputs or kernel.ndim < 2:
            raise ExportError(f"{name} has the shape {list(kernel.shape)} for {t}")
        b: Array | None = None if bias is None else bias.reshape(-1)
        return c.graph.dense(t, kernel.reshape(inputs, -1).T, b)

    q, k, v = dense(query, "query_dense"), dense(key, "key_dense"), dense(value, "value_dense")
    heads = int(spec.option("num_heads", 1))
    scale = 1 / np.sqrt(int(spec.option("key_dim", q.ids.size // heads)))
    y = over_time.attention(c.graph, q, k, v, heads=heads, scale=float(scale), causal=causal)
    return dense(y, "output_dense")
