# SPDX-License-Identifier: Apache-2.0
"""Random networks that use everything a Network can express, for tests that compare implementations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine import Network
from gru_engine.network import Value

Array = npt.NDArray[Any]
Spec = Any  # an activation

EDGES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129, 255, 256, 257)
"""Sizes at the borders of vectors and panels."""


def random_network(
    rng: np.random.Generator,
    *,
    max_size: int = 300,
    layers: tuple[int, int] = (1, 4),
    allow_reverse: bool = True,
    tokens: bool | None = None,
    per_sequence: bool | None = None,
    several: bool = False,
    axes: bool = False,
    contexts: bool = False,
    discontinuous: bool = True,
    dtype: npt.DTypeLike = np.float32,
) -> Network:
    """A random network whose values stay of the order of 1.

    Parameters
    ----------
    rng : numpy Generator
    max_size : int
        Largest width of an input, a vocabulary and a layer; a concatenation may be several times as wide.
    layers : (int, int)
        Least and largest number of GRU layers.
    allow_reverse : bool
        Whether reverse and bidirectional layers and others that need later steps may occur; without them it is causal.
    tokens, per_sequence : bool, optional
        Whether the input is tokens; whether the outputs are one per sequence. None: either.
    several : bool
        Whether there are two to four inputs, vectors and tokens in any order, instead of one; ``tokens`` says nothing then.
    axes : bool
        Whether values have other steps than the inputs: fewer, or repeated ones, or attention to those of other values.
    contexts : bool
        Whether there are one to three contexts, and values of them are repeated in front of what layers read and elsewhere.
    discontinuous : bool
        Whether thresholded_relu may occur, whose jump turns a rounding error into a large one once in a while, and
        normalisation with a small epsilon, which makes errors larger where a value is nearly constant.
    dtype : data type
        Of the weights.
    """
    allow_reverse = axes or (allow_reverse and bool(rng.random() < 0.6))  # enough causal ones
    build = _Builder(Network(), rng, max_size, allow_reverse, discontinuous, np.dtype(dtype))
    if contexts:  # before the input, which goes first in the file nevertheless
        build.contexts()
    if several:
        values = build.sources()
    else:
        values = build.source(bool(rng.random() < 0.4) if tokens is None else tokens)
    if contexts:
        build.hold(values[0])
    for _ in range(rng.integers(layers[0], layers[1] + 1)):
        h = build.gru(build.mix(values), f"gru{len(values)}" if rng.random() < 0.5 else None)
        values.append(build.decorate(h))
        if rng.random() < 0.3:
            values.append(build.cell(build.mix(values)))
        if axes:
            values = build.other_axis(values)
    build.outputs(values, bool(rng.random() < 0.25) if per_sequence is None else per_sequence)
    build.net.metadata = {"seed material": int(rng.integers(1 << 30))}
    return build.net


def random_input(rng: np.random.Generator, net: Network, *shape: int) -> Array:
    """Input for a network: float32 ``[*shape, I]`` or int32 tokens ``shape``; shape is (T,) or (B, T)."""
    if net.vocab_size is not None:
        return rng.integers(0, net.vocab_size, shape).astype(np.int32)
    return rng.normal(size=(*shape, net.input_size or 0)).astype(np.float32)


BOUNDED: tuple[Spec, ...] = (
    "tanh",
    "sigmoid",
    "softsign",
    "hard_sigmoid",
    ("scaled_tanh", 1.2, 0.7),
    ("hard_sigmoid", 0.3, 0.4),
    "clip",
    ("clip", -0.3, 0.9),
)
UNBOUNDED: tuple[Spec, ...] = (
    "linear",
    "relu",
    "leaky_relu",
    ("leaky_relu", 0.25),
    ("affine", 0.8, -0.1),
    "elu",
    ("elu", 0.5),
    "softplus",
    "silu",
    "min_gru",
    "gelu",
    "gelu_tanh",
)
JUMPING: tuple[Spec, ...] = (("thresholded_relu", 0.1),)
GATES: tuple[Spec, ...] = ("sigmoid", "hard_sigmoid", ("hard_sigmoid", 1 / 6, 0.5))
"""From 0 to 1: the gates of networks that are in use."""


@dataclass
class _Builder:
    net: Network
    rng: np.random.Generator
    max_size: int
    allow_reverse: bool
    discontinuous: bool
    dtype: np.dtype[Any]
    held: list[Value] = field(default_factory=list)  # of contexts alone, one per sequence
    repeated: list[Value] = field(default_factory=list)

    def contexts(self) -> None:
        """One to three contexts; an only one may have no name."""
        n = int(self.rng.integers(1, 4))
        self.held = [
            self.net.context(self.size(), name=f"c{i}" if n > 1 or self.chance(0.5) else None) for i in range(n)
        ]

    def start(self, width: int) -> Value | None:
        """Sometimes an initial state that is computed of contexts."""
        return self.dense(self.held[-1], width, self.pick(BOUNDED)) if self.held and self.chance(0.3) else None

    def hold(self, like: Value) -> None:
        """Some values of contexts alone, and all of them at the steps of another one."""
        for _ in range(int(self.rng.integers(0, 4))):
            given = [
                self.held[i] for i in self.rng.permutation(len(self.held))[: int(self.rng.integers(1, 4))].tolist()
            ]
            v = self.net.concat(given)
            kind = self.rng.integers(4)
            if kind == 0:
                v = self.norm(v, 0.1)
            elif kind == 1:
                v = self.net.add(self.dense(v), self.dense(v, 1))
            elif kind == 2 and v.width > 1:
                v = v[: v.width // 2]
            elif kind == 3:
                v = self.dense(v)
            self.held.append(v)
        self.repeated = [self.net.repeat(v, like=like) for v in self.held]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, options: tuple[Any, ...]) -> Any:
        return options[self.rng.integers(len(options))]

    def size(self) -> int:
        """Half of them at the borders of vectors, the others over the whole range."""
        edges = tuple(edge for edge in EDGES if edge <= self.max_size)
        if self.chance(0.5):
            return int(self.pick(edges))
        return int(np.exp(self.rng.uniform(0, np.log(self.max_size + 1))))

    def uniform(self, limit: float, *shape: int) -> Array:
        return self.rng.uniform(-limit, limit, shape).astype(self.dtype)

    def activation(self) -> Spec:
        return self.pick(BOUNDED + UNBOUNDED + (JUMPING if self.discontinuous else ()))

    def source(self, tokens: bool) -> list[Value]:
        """The input and what is made of it at once."""
        if not tokens:
            x = self.net.input(self.size(), name="x")
            if self.chance(0.3):
                x = self.net.affine(x, self.uniform(1, x.width), self.uniform(1, x.width))
            return [self.dense(x) if self.chance(0.3) else x]
        t = self.net.tokens(self.size(), name="tokens")
        values = [self.net.embedding(t, self.uniform(1, t.width, self.size()), name="embedding")]
        if self.chance(0.3):
            values.append(self.dense(t))  # one-hot
        if self.chance(0.3):
            values[0] = self.gru(t, "one-hot")
        return values

    def sources(self) -> list[Value]:
        """Two to four inputs, and what is made of them at once, in any order; one of them may be read by nothing."""
        inputs = []
        for i in range(int(self.rng.integers(2, 5))):
            inputs.append((self.net.tokens if self.chance(0.5) else self.net.input)(self.size(), name=f"in{i}"))
        values = []
        for i in self.rng.permutation(len(inputs)).tolist():
            value = inputs[i]
            if value.kind == "tokens":
                one_hot, width = self.chance(0.2), self.size()
                value = self.dense(value) if one_hot else self.net.embedding(value, self.uniform(1, value.width, width))
            elif self.chance(0.3):
                value = self.dense(value)
            values.append(value)
        if self.chance(0.6):  # side by side, an embedding in front or not
            values.append(self.net.concat(values))
        return values

    def mix(self, values: list[Value]) -> Value | list[Value]:
        """The newest value, sometimes together with earlier ones, in any order."""
        chosen = [values[-1]]
        for value in values[:-1]:
            if self.chance(0.4):
                chosen.insert(int(self.rng.integers(len(chosen) + 1)), value)
        for value in self.repeated:
            if self.chance(0.4):
                chosen.insert(0 if self.chance(0.7) else int(self.rng.integers(len(chosen) + 1)), value)
        return chosen if len(chosen) > 1 or self.chance(0.3) else chosen[0]

    def dense(self, x: Value | list[Value], width: int | None = None, activation: Spec = None) -> Value:
        columns = self.width(x)
        width = self.size() if width is None else width
        bias = self.uniform(0.5, width) if self.chance(0.7) else None
        W = self.uniform(columns**-0.5, width, columns)
        return self.net.dense(x, W, bias, activation=activation or self.activation())

    @staticmethod
    def width(x: Value | list[Value]) -> int:
        return x.width if isinstance(x, Value) else sum(value.width for value in x)

    def gru(self, x: Value | list[Value], name: str | None) -> Value:
        H, columns = self.size(), self.width(x)
        reset = self.pick(("after", "after", "before", "all", "none"))
        gates = "".join(self.rng.permutation(list("zn" if reset == "none" else "rzn")))
        direction = self.pick(("forward", "forward", "reverse", "bidirectional")) if self.allow_reverse else "forward"
        lead = (2,) if direction == "bidirectional" else ()
        rows = len(gates) * H
        mainstream = self.chance(0.4)
        activation, gate, clip = "tanh", "sigmoid", None
        if not mainstream and self.chance(0.8):
            activation, gate = self.activation(), self.pick(GATES)
            clip = float(self.rng.uniform(0.2, 3)) if self.chance(0.3) else None
        elif not mainstream:  # any function as a gate; the clip keeps it below 1
            activation, gate, clip = self.pick(BOUNDED), self.pick(UNBOUNDED + BOUNDED), 0.4
        new = self.chance(0.3) and gate in GATES
        return self.net.gru(
            x,
            self.uniform(max(H, columns) ** -0.5, *lead, rows, columns),
            self.uniform(H**-0.5, *lead, rows, H),
            self.uniform(0.5, *lead, rows) if self.chance(0.7) else None,
            self.uniform(0.5, *lead, rows) if self.chance(0.7) else None,
            reset=reset,
            gates=gates,
            keep="new" if new else "old",
            activation=activation,
            gate_activation=gate,
            clip=clip,
            direction=direction,
            h0=self.start(H * (2 if lead else 1)) or (self.uniform(1, *lead, H) if self.chance(0.3) else None),
            name=name,
        )

    def decorate(self, h: Value) -> Value:
        """Sometimes something behind a layer: a residual connection, a gate, a normalisation, a convolution ..."""
        kind = self.rng.integers(20)
        net, width = self.net, h.width
        if kind == 0:
            return net.add(h, self.dense(h, self.pick((1, width)), self.pick(BOUNDED)))
        if kind == 1:
            return net.multiply(h, self.dense(h, self.pick((1, width)), "sigmoid"))
        if kind == 2:
            return net.activation(h, self.activation())
        if kind == 3:
            return net.affine(h, self.uniform(1, width), self.uniform(1, width))
        if kind == 4:
            return net.subtract(self.dense(h, width, self.pick(BOUNDED)), h)
        if kind == 5:
            return net.activation(net.activation(h, "tanh"), "exp")
        if kind == 6:
            return net.blend(self.dense(h, width, "sigmoid"), h, self.dense(h, width, self.pick(BOUNDED)))
        if (
            kind == 7 and width > 3
        ):  # half of it at least: a single column may be small beside those it was computed with
            start = int(self.rng.integers(width // 2))
            return h[start : int(self.rng.integers(start + width // 2, width))]
        if kind in (8, 9):
            return self.norm(h)
        if kind == 10:
            taps, dilation = int(self.rng.integers(1, 4)), int(self.rng.integers(1, 4))
            return net.window(h, taps, dilation, self.ahead((taps - 1) * dilation))
        if kind == 13:
            choose = net.maximum if self.chance(0.7) else net.minimum
            return choose(h, self.dense(h, self.pick((1, width)), self.pick(BOUNDED)))
        return self.convolution(h) if kind in (11, 12) else h

    def other_axis(self, values: list[Value]) -> list[Value]:
        """Some values with other steps, of those so far."""
        net, newest = self.net, values[-1]
        kind = self.rng.integers(6)
        fixed = newest.axis.steps is not None
        first, stride = int(self.rng.integers(2 if fixed else 4)), int(self.rng.integers(1, 2 if fixed else 4))
        if kind == 0:
            chosen = [newest, *(value for value in values[:-1] if self.chance(0.5))]
            dropped = int(self.rng.integers(1 if fixed else 3))
            return [net.subsample(value, stride, first, dropped) for value in chosen]
        if kind == 1:
            taps, width = int(self.rng.integers(1, 4)), self.size()
            right = int(self.rng.integers(taps))
            W = self.uniform((newest.width * taps) ** -0.5, width, newest.width, taps)
            padding = ("causal", "valid", (0, right))[self.rng.integers(1 if fixed else 3)]
            return [net.conv1d(newest, W, stride=stride, padding=padding, activation=self.activation())]
        if kind == 2:
            ended = self.end(newest)
            return [net.repeat(ended, int(self.rng.integers(1, 7)))]
        if kind == 3:
            return [*values, net.repeat(self.end(values[0]), like=newest)]
        keys = net.subsample(newest, stride, first) if not fixed and self.chance(0.5) else newest
        heads, causal = int(self.rng.integers(1, 4)), keys is newest and self.chance(0.3)
        query, keys = (self.dense(value, 6, "linear") for value in (newest, keys))
        parts = self.dense(keys, 6 * int(self.rng.integers(1, 4)))
        v = self.uniform(1, 6) if self.chance(0.5) else None
        scale = 1.0 if v is not None else float(self.rng.uniform(0.2, 1.5))
        return [*values, net.attention(query, keys, parts, v=v, scale=scale, heads=heads, causal=causal)]

    def ahead(self, span: int) -> int:
        return int(self.rng.integers(span + 1)) if self.allow_reverse and self.chance(0.4) else 0

    def norm(self, v: Value, epsilon: float | None = None) -> Value:
        if epsilon is None:
            epsilon = 1e-5 if self.discontinuous and self.chance(0.5) else 0.1
        parts = int(self.pick(tuple(n for n in (1, 1, 2, 3, v.width) if v.width % n == 0)))
        scale = self.uniform(1, v.width)
        if self.chance(0.4):
            return self.net.rms_norm(v, scale, epsilon, parts)
        return self.net.layer_norm(v, scale, self.uniform(1, v.width), epsilon, parts)

    def convolution(self, v: Value) -> Value:
        taps, dilation = int(self.rng.integers(1, 5)), int(self.rng.integers(1, 4))
        groups = int(self.pick(tuple(n for n in (1, 1, 2, 3, v.width) if v.width % n == 0)))
        each = int(self.rng.integers(1, 3)) if groups > 1 else self.size()
        ahead = self.ahead((taps - 1) * dilation)
        return self.net.conv1d(
            v,
            self.uniform((v.width // groups * taps) ** -0.5, groups * each, v.width // groups, taps),
            self.uniform(0.5, groups * each) if self.chance(0.7) else None,
            dilation=dilation,
            groups=groups,
            padding=((taps - 1) * dilation - ahead, ahead),
            activation=self.activation(),
        )

    def cell(self, x: Value | list[Value]) -> Value:
        """A recurrent cell made of states and other layers: bounded, so that no error grows."""
        net, width = self.net, self.size()
        like = x[0] if isinstance(x, list) else x
        s = net.state(width, self.start(width) or (self.uniform(1, width) if self.chance(0.5) else None), like=like)
        kind = self.rng.integers(7)
        seen = self.dense(x, width, "linear") if self.chance(0.5) else None  # does not wait for the loop
        inside = [s] if seen is not None else [*(x if isinstance(x, list) else [x]), s]
        if kind == 0:  # normalised
            h = net.activation(self.norm(self.dense(inside, width, "linear"), 1.0), self.pick(BOUNDED))
        elif kind == 1:  # with a gate
            h = net.blend(self.dense(inside, width, "sigmoid"), s, self.dense(inside, width, self.pick(BOUNDED)))
        elif kind == 2:  # a GRU whose input is a projection of its own state
            h = self.dense(self.gru_forward(inside), width, self.pick(BOUNDED))
        elif kind == 3:  # the states of several steps
            window = net.window(inside[-1], int(self.rng.integers(2, 4)), int(self.rng.integers(1, 3)))
            h = self.dense([window, *inside], width, self.pick(BOUNDED))
        elif kind == 4:  # two loops that overlap
            other = net.state(self.size(), like=s, name="other")
            h = self.dense([*inside, other], width, self.pick(BOUNDED))
            net.feed(other, self.dense([h, s], other.width, self.pick(BOUNDED)))
        elif kind == 5:  # no loop, but a delay; what is fed stands before the state
            late = net.state(self.width(x), like=s)
            net.feed(late, x)
            h = self.dense([*inside, late], width, self.pick(BOUNDED))
        else:  # some columns, and one that scales them all
            part = s[: max(1, width // 2)]
            h = net.multiply(self.dense([part, *inside], width, self.pick(BOUNDED)), self.dense(part, 1, "sigmoid"))
        if seen is not None:
            h = net.activation(net.add(h, seen), self.pick(BOUNDED))
        net.feed(s, h if self.chance(0.8) else net.affine(h, self.uniform(0.9, width), self.uniform(0.1, width)))
        return s if self.chance(0.1) else h

    def gru_forward(self, x: Value | list[Value]) -> Value:
        allow, self.allow_reverse = self.allow_reverse, False
        h = self.gru(x, None)
        self.allow_reverse = allow
        return h

    def outputs(self, values: list[Value], per_sequence: bool) -> None:
        """One to three outputs; the newest value is among what they read."""
        for i in range(int(self.rng.integers(1, 4))):
            x = self.mix(values) if i == 0 else values[self.rng.integers(len(values))]
            if per_sequence:
                x = self.end(x)
                x = [x, self.held[-1]] if self.held and self.chance(0.5) else x
            elif self.chance(0.1):
                x = [self.net.slice(x, 0, max(1, self.width(x) // 2)), *(x if isinstance(x, list) else [x])]
            head = self.pick(("dense", "softmax", "log_softmax", "activation", "raw"))
            if head == "dense":
                x = self.dense(x)
            elif head in ("softmax", "log_softmax"):
                x = self.dense(x, activation=head)
            elif head == "activation":
                x = self.net.activation(x, self.pick(("softmax", "log_softmax", "silu")))
            self.net.output(x, name=f"head{i}" if self.chance(0.5) else None)

    def end(self, x: Value | list[Value]) -> Value:
        """One value per sequence."""
        kind = self.rng.integers(5) if self.allow_reverse else 0
        if kind == 4:
            values = self.net.concat(x) if isinstance(x, list) else x
            heads = int(self.pick(tuple(n for n in (1, 2, values.width) if values.width % n == 0)))
            return self.net.attend(self.dense(x, heads, "linear"), values)
        return (self.net.last, self.net.first, self.net.mean, self.net.max)[kind](x)
