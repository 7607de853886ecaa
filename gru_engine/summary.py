# SPDX-License-Identifier: Apache-2.0
"""What ``Network.summary`` says of each layer."""

from __future__ import annotations

from gru_engine._inputs import TokenInput
from gru_engine.layers import (
    INPUT_AXIS,
    NOT_FED,
    Activate,
    Attention,
    Dense,
    Gru,
    Layer,
    Norm,
    Slice,
    State,
    Subsample,
    Window,
)


def described(part: slice | TokenInput) -> str:
    """A part of the input or output vector, or a token, in a few words."""
    return f"[{part.start}:{part.stop}]" if isinstance(part, slice) else f"a token below {part.vocab_size}"


def summary_row(index: int, layer: Layer) -> tuple[str, ...]:
    """The line of a layer."""
    weights = sum(array.size for array in layer.arrays.values())
    details = []
    if isinstance(layer, Gru):
        details = [f"{layer.activation}, {layer.gate_activation}", f"reset {layer.reset}"]
        details += [f"clip {layer.clip:g}"] if layer.clip is not None else []
        details += ["reverse"] if layer.reverse else []
        details += [] if layer.start == NOT_FED else [f"from {layer.start}"]
    elif isinstance(layer, (Dense, Activate)):
        details = [str(layer.activation)]
    elif isinstance(layer, State):
        details = ["not fed" if layer.source == NOT_FED else f"of {layer.source}, one step before"]
        details += [] if layer.start == NOT_FED else [f"from {layer.start}"]
    elif isinstance(layer, Slice):
        details = [f"columns {layer.first} to {layer.first + layer.width - 1}"]
    elif isinstance(layer, Window):
        details = [f"{layer.taps} taps", f"dilation {layer.dilation}", f"{layer.ahead} ahead"]
    elif isinstance(layer, Norm):
        details = ["root mean square" if layer.rms else "layer", f"epsilon {layer.epsilon:g}"]
        details += [f"{layer.parts} parts"] if layer.parts > 1 else []
    elif isinstance(layer, Subsample):
        details = [f"every {layer.stride}", f"from {layer.first}"]
        details += [f"without the last {layer.dropped}"] if layer.dropped else []
    elif isinstance(layer, Attention):
        details = ["additive" if layer.additive else f"dot product times {layer.scale:g}"]
        details += [f"{layer.heads} heads"] if layer.heads > 1 else []
        details += ["causal"] if layer.causal else []
    if layer.axis != INPUT_AXIS:
        details += [str(layer.axis)]
    reads = ", ".join(map(str, layer.inputs))
    return str(index), layer.operation, layer.name, reads, str(layer.width), str(weights or ""), ", ".join(details)
