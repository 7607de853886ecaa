# SPDX-License-Identifier: Apache-2.0
"""What ``Network.summary`` says of each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from gru_engine.network import Network


def summary_of(net: Network) -> str:
    """A table of the layers, one line each, and the totals."""
    head = ("", "layer", "name", "reads", "width", "weights", "details")
    rows = [head] + [_summary_row(i, layer) for i, layer in enumerate(net.layers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    right = (0, 4, 5)
    lines = [
        "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
        for row in rows
    ]
    if len(net.inputs) > 1:
        lines.append("inputs: " + ", ".join(f"{name} = {_described(part)}" for name, part in net.inputs.items()))
    if net.contexts:
        lines.append("contexts: " + ", ".join(f"{name} = {_described(part)}" for name, part in net.contexts.items()))
    outputs = ", ".join(f"{name} = {_described(part)}" for name, part in net.outputs.items()) or "none"
    rate = " (one per sequence)" if net.per_sequence else ""
    causal = "causal" if net.causal else "not causal"
    lines.append(f"outputs{rate}: {outputs}; {net.parameter_count} weights, state {net.state_size}, {causal}")
    return "\n".join(lines)


def _described(part: slice | TokenInput) -> str:
    return f"[{part.start}:{part.stop}]" if isinstance(part, slice) else f"a token below {part.vocab_size}"


def _summary_row(index: int, layer: Layer) -> tuple[str, ...]:
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
        details += [f"{layer.rows} stored rows"] if layer.rows else []
    if layer.axis != INPUT_AXIS:
        details += [str(layer.axis)]
    reads = ", ".join(map(str, layer.inputs))
    return str(index), layer.operation, layer.name, reads, str(layer.width), str(weights or ""), ", ".join(details)
