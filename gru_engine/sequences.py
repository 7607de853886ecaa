# SPDX-License-Identifier: Apache-2.0
"""The methods of ``Network`` that change the number of steps: one value per sequence, fewer steps, those of another value."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.activations import as_number
from gru_engine.arguments import as_array, as_size
from gru_engine.builder import Builder, Value, Vector
from gru_engine.layers import INPUT_AXIS, Attend, Attention, Axis, Input, Layer, Max, Mean, Repeat, Subsample, Tokens

MAX_SPAN = 2**20
"""Largest distance of the first tap of a window from the last, and of steps that are kept, in steps; docs/FORMAT.md."""
MAX_LOST = 2**28
"""Most steps by which an axis is shorter than the input's, and largest distance of its steps there; docs/FORMAT.md."""


class Sequences(Builder):
    """Operations over the steps of a sequence."""

    # ---- one value per sequence

    def mean(self, v: Vector, *, name: str | None = None) -> Value:
        """The mean of a value over the steps of the sequence: one value per sequence."""
        return self._pool(Mean, [self._per_step(v, "v", "mean")], name)

    def max(self, v: Vector, *, name: str | None = None) -> Value:
        """The largest value over the steps of the sequence, element by element: one value per sequence."""
        return self._pool(Max, [self._per_step(v, "v", "max")], name)

    def attend(self, scores: Vector, values: Vector, *, name: str | None = None) -> Value:
        """The mean of a value over the steps of the sequence, weighted by the softmax of scores over the steps.

        Parameters
        ----------
        scores : Value or list of Value
            Of width S: one score for each head.
        values : Value or list of Value
            Of width V, a multiple of S: head s weighs the columns ``s * V / S`` to ``(s + 1) * V / S``.

        Returns
        -------
        Value
            Of width V, one per sequence.
        """
        scores, values = self._per_step(scores, "scores", "attend"), self._per_step(values, "values", "attend")
        if values.width % scores.width:
            raise ValueError(
                f"attend: the width of values must be a multiple of that of scores, got {values.width} and {scores.width}"
            )
        return self._pool(Attend, [scores, values], name)

    # ---- other time axes

    def subsample(self, v: Vector, stride: int, first: int = 0, dropped: int = 0, *, name: str | None = None) -> Value:
        """Every ``stride``-th step of a value.

        Parameters
        ----------
        v : Value or list of Value
            One value per time step.
        stride : int
        first : int
            The first step that is kept.
        dropped : int
            So many steps at the end of the sequence are not looked at.

        Returns
        -------
        Value
            v at the steps ``first + t * stride``, as long as they are below ``T - dropped``: with T steps of v,
            ``ceil((T - first - dropped) / stride)`` or none. Only values with the same number of steps, whatever T is, can
            be computed with each other. A network with this operation cannot be stepped.
        """
        v = self._per_step(v, "v", "subsample")
        stride = as_size(stride, "stride", MAX_SPAN)
        for argument, number in (("first", first), ("dropped", dropped)):
            if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
                raise TypeError(f"subsample: {argument} must be an integer, got {number!r}")
            if not 0 <= number <= MAX_SPAN:
                raise ValueError(f"subsample: {argument} must be from 0 to {MAX_SPAN}, got {number}")
        first, dropped = int(first), int(dropped)
        if stride == 1 and first == dropped == 0:
            return v
        axis = v.axis.subsampled(first + dropped, stride)
        if axis.steps == 0 or axis.lost > MAX_LOST or axis.stride > MAX_LOST:
            raise ValueError(
                f"subsample: of the {v.axis} of {v!r} {axis} would be left; expected at most {MAX_LOST} less"
            )
        return self._append(Subsample, [v], v.width, name, axis=axis, first=first, stride=stride, dropped=dropped)

    def repeat(
        self, v: Vector, steps: int | None = None, *, like: Value | None = None, name: str | None = None
    ) -> Value:
        """A value per sequence as one value per time step, the same at each.

        Parameters
        ----------
        v : Value or list of Value
            One value per sequence.
        steps : int, optional
            The number of steps, whatever that of the input is.
        like : Value, optional
            A value that has so many steps. One of the two is given.

        Returns
        -------
        Value
            As wide as v. Unless v is computed of contexts alone and ``like`` has the steps of the inputs, a network with
            this operation cannot be stepped: v has to be known before.
        """
        v = self._vector(v, "v")
        if not v.per_sequence:
            raise ValueError(f"repeat: v is one value per time step already: {v!r}")
        if (steps is None) == (like is None):
            raise TypeError("repeat: either steps or like is given, and not both")
        if like is not None:
            like = self._vector(like, "like", tokens=True)
            if like.per_sequence:
                raise ValueError(f"repeat: like is one value per sequence ({like!r}); it must be one per time step")
            if like.axis == INPUT_AXIS:  # of which the inputs are, too: nothing has to wait for anything else
                like = next(
                    Value(self, i) for i, layer in enumerate(self._layers) if isinstance(layer, (Input, Tokens))
                )
            return self._append(Repeat, [v, like], v.width, name, per_sequence=False, axis=like.axis, steps=0)
        count = as_size(steps, "steps", MAX_SPAN)
        axis = Axis(steps=count)
        return self._append(Repeat, [v], v.width, name, per_sequence=False, axis=axis, steps=count)

    def attention(
        self,
        query: Vector,
        keys: Vector,
        values: Vector,
        *,
        scale: float = 1.0,
        v: npt.ArrayLike | None = None,
        heads: int = 1,
        causal: bool = False,
        rows: int | None = None,
        count: Value | None = None,
        name: str | None = None,
    ) -> Value:
        """Attention with a query per step: means of values over all their steps, weighted by how well the keys fit.

        Of T query steps and S steps of the keys and values::

            score[t, s] = scale * (query[t] . keys[s])                    dot product; Luong et al. 2015, Vaswani et al. 2017
            score[t, s] = v . tanh(query[t] + keys[s])                    with ``v``: additive; Bahdanau et al. 2015
            y[t] = sum over s of softmax(score[t])[s] * values[s]

        Parameters
        ----------
        query : Value or list of Value
            Of width K, one per time step.
        keys : Value or list of Value
            Of width K, one per time step, perhaps on another time axis. Projections are layers of their own.
        values : Value or list of Value
            Of width V, with as many steps as the keys.
        scale : float
            Of a dot product.
        v : array_like [K], optional
            Makes the scores additive. With ``heads`` each has a part of it.
        heads : int
            The three are cut into so many equal parts, each with a softmax of its own.
        causal : bool
            Step t looks at the steps up to t only; query and keys must have the same number of steps.
        rows : int, optional
            Keys and values are stored: each is one value per sequence, of so many rows side by side, of widths
            ``rows * K`` and ``rows * V``. They are given as contexts, say, by an encoder that is a network of its own.
        count : Value, optional
            Of width 1, per sequence: how many of these rows count, the first ones: its integer part, 1 at least. None: all.

        Returns
        -------
        Value
            Of width V, with the steps of the query. A network with this operation can be stepped if what is stored is
            computed of contexts alone.

        References
        ----------
        Bahdanau, Cho, Bengio, arXiv:1409.0473; Luong, Pham, Manning, arXiv:1508.04025; Vaswani et al., arXiv:1706.03762.
        """
        query = self._per_step(query, "query", "attention")
        if rows is None:
            if count is not None:
                raise TypeError("attention: count is for stored keys and values; say rows, too")
            keys, values = (self._per_step(v, a, "attention") for v, a in ((keys, "keys"), (values, "values")))
            self._check_same_rate("attention", keys, values)
            if causal:
                self._check_same_rate("attention, causal", query, keys)
            inputs, number = [query, keys, values], 1
        else:
            if causal:
                raise TypeError("attention: causal is for keys and values per step, not for stored ones")
            number = as_size(rows, "rows")
            inputs = [query, *self._stored(keys, values, number, count)]
            keys, values = inputs[1:3]
        if query.width * number != keys.width:
            each = f" in {number} rows" if rows is not None else ""
            raise ValueError(
                f"attention: query and keys must have the same width, got {query.width} and {keys.width}{each}"
            )
        heads, width = as_size(heads, "heads"), values.width // number
        if query.width % heads or width % heads:
            raise ValueError(
                f"attention: heads must divide the widths of query and values, {query.width} and {width}, got {heads}"
            )
        additive, scale = v is not None, as_number(scale, "attention: scale")
        if additive and scale != 1:
            raise ValueError(f"attention: scale is for a dot product; with v it must be 1, got {scale}")
        weights = as_array(np.ones(query.width, np.float32) if v is None else v, "v", ("K",), (query.width,))
        fields: dict[str, Any] = {"v": weights, "additive": additive, "scale": scale, "heads": heads}
        fields |= {"causal": bool(causal), "rows": 0 if rows is None else number, "per_sequence": False}
        stored = rows is not None and all(value.layer.held for value in inputs[1:])
        return self._append(Attention, inputs, width, name, axis=query.axis, stored=stored, **fields)

    def _stored(self, keys: Vector, values: Vector, rows: int, count: Value | None) -> list[Value]:
        """Keys, values and their number, all per sequence."""
        found = [self._vector(keys, "keys"), self._vector(values, "values")]
        found += [] if count is None else [self._vector(count, "count")]
        for value, argument in zip(found, ("keys", "values", "count")):
            if not value.per_sequence:
                raise ValueError(f"attention: with rows, {argument} is one value per sequence, got {value!r}")
        if found[1].width % rows:
            raise ValueError(f"attention: values must have a width that {rows} rows divide, got {found[1].width}")
        if count is not None and found[2].width != 1:
            raise ValueError(f"attention: count must have the width 1, got {found[2].width}")
        return found

    # ---- helpers

    def _pool(self, kind: type[Layer], inputs: list[Value], name: str | None) -> Value:
        return self._append(kind, inputs, inputs[-1].width, name, per_sequence=True)
