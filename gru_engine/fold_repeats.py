# SPDX-License-Identifier: Apache-2.0
"""What is the same at every step of a sequence is computed once: a step of the compiler, from network to network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gru_engine.layers import (
    INPUT_AXIS,
    NOT_FED,
    Activate,
    Add,
    Affine,
    Blend,
    Concat,
    Dense,
    Gru,
    Layer,
    Maximum,
    Multiply,
    Norm,
    Repeat,
    Slice,
    State,
    Sums,
)
from gru_engine.records import LANES, round_up

if TYPE_CHECKING:
    from gru_engine.network import Network

_BY_ROW = (Activate, Add, Affine, Blend, Concat, Dense, Maximum, Multiply, Norm, Slice)
"""Layers whose value at a step depends on that step alone."""


def fold_repeats(net: Network) -> Network:
    """The network that computes the same, whatever it can before values are repeated.

    Layers that read repeated values alone are computed once per sequence. Where the input of a GRU begins with repeated
    values, ``Sums`` are their product, with which the GRU's own sums go on: of three gates, which sum in one chain
    (docs/NUMERICS.md, section 1), or where nothing else is read. Results are the same bits, unless the type is int8.
    """
    if not any(isinstance(layer, Repeat) for layer in net.layers):
        return net
    rewriter = _Rewriter()
    sources = {layer.source for layer in net.layers if isinstance(layer, State)}
    for index, layer in enumerate(net.layers):
        rewriter.add(layer, index in sources)
    layers = [
        replace(layer, source=rewriter.number[layer.source]) if isinstance(layer, State) else layer
        for layer in rewriter.layers
    ]
    folded = type(net)()
    folded._layers = layers
    folded._outputs = {name: rewriter.number[index] for name, index in net.output_layers.items()}
    folded.metadata = net.metadata
    return folded.pruned()


class _Rewriter:
    """The layers of the new network, in the making."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.number: list[int] = []  # for each old layer that of the new one with its value
        self._concats: dict[tuple[int, ...], int] = {}

    def add(self, layer: Layer, is_source: bool) -> None:
        """Adds what stands for the next layer of the old network; the source of a state is no repeated value."""
        inputs = tuple(self.number[i] for i in layer.inputs)
        layer = replace(layer, inputs=inputs)
        if isinstance(layer, (Gru, State)) and layer.start != NOT_FED:
            layer = replace(layer, start=self.number[layer.start])
        if isinstance(layer, _BY_ROW) and not is_source and all(isinstance(self.layers[i], Repeat) for i in inputs):
            sources = [self.layers[i].inputs[0] for i in inputs]
            if isinstance(layer, Concat):
                once = self._concat(sources)
            else:
                held = all(self.layers[i].held for i in sources)
                once = self._append(
                    replace(layer, inputs=tuple(sources), per_sequence=True, axis=INPUT_AXIS, held=held)
                )
            self.number.append(self._repeat(once, inputs[0]))
        else:
            self.number.append(self._append(self._begun(layer) if isinstance(layer, Gru) else layer))

    def _begun(self, layer: Gru) -> Gru:
        """The GRU with its sums begun by what its input begins with, if that is repeated."""
        (x,) = layer.inputs
        parts = self.layers[x].inputs if isinstance(self.layers[x], Concat) else (x,)
        repeated = next((n for n, i in enumerate(parts) if not isinstance(self.layers[i], Repeat)), len(parts))
        first, rest = parts[:repeated], parts[repeated:]
        if not first or (rest and len(layer.gates) != 3):
            return layer
        once = self._concat([self.layers[i].inputs[0] for i in first])
        columns = self.layers[once].width
        sums = Sums(
            inputs=(once,),
            width=len(layer.gates) * round_up(layer.width, LANES),
            name="",
            per_sequence=True,
            held=self.layers[once].held,
            W=layer.W[:, :columns],
            b=layer.b_x,
            rows=layer.width,
            gates=len(layer.gates),
        )
        begin = self._repeat(self._append(sums), first[0])
        inputs = (begin, self._concat(rest)) if rest else (begin,)
        return replace(layer, inputs=inputs, W=layer.W[:, columns:], b_x=np.zeros_like(layer.b_x))

    def _append(self, layer: Layer) -> int:
        self.layers.append(layer)
        return len(self.layers) - 1

    def _repeat(self, index: int, like: int) -> int:
        """A value per sequence, repeated like another one."""
        width = self.layers[index].width
        inputs = (index, *self.layers[like].inputs[1:])
        held = self.layers[index].held
        return self._append(replace(self.layers[like], inputs=inputs, width=width, name="", held=held))

    def _concat(self, indices: Sequence[int]) -> int:
        """The values one after the other; a concatenation of concatenations is made one."""
        parts: list[int] = []
        for i in indices:
            parts += self.layers[i].inputs if isinstance(self.layers[i], Concat) else (i,)
        if len(parts) == 1:
            return parts[0]
        key = tuple(parts)
        if key not in self._concats:
            width = sum(self.layers[i].width for i in parts)
            first = self.layers[parts[0]]
            held = first.per_sequence and all(self.layers[i].held for i in parts)
            axis = INPUT_AXIS if first.per_sequence else first.axis
            self._concats[key] = self._append(
                Concat(inputs=key, width=width, name="", per_sequence=first.per_sequence, axis=axis, held=held)
            )
        return self._concats[key]
