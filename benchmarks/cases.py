# SPDX-License-Identifier: Apache-2.0
"""What is measured: networks, batch sizes, sequence lengths. A case is known by its name in every process."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

import gru_engine as ge
from gru_engine.layers import Dense, Gru

GROUPS = {
    "step": "One step of one stream, one GRU layer, input as wide as the state",
    "real": "One step of one stream, networks that people run",
    "batch": "One step of a batch",
    "sequence": "Whole sequences in one call",
    "cold": "A step after the caches were emptied, and one every 10 ms",
    "reduced": "Weights of fewer bits",
    "latency": "Distribution over many steps",
    "pool": "A random 256 of 10 000 streams, and a contiguous batch of 256",
    "prepare": "A step after `prepare()`",
    "python": "The Python call over the C call",
    "threads": "Two threads",
    "load": "Loading a model",
    "memory": "Memory of four processes",
    "import": "Importing",
}

WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
"""Bytes of one weight, by type."""


@dataclass(frozen=True)
class Case:
    """A network and how it is called."""

    name: str
    group: str
    title: str
    build: Callable[[np.random.Generator], ge.Network]
    batch: int = 1
    steps: int = 1
    how: str = ""  # for cold: "evicted" or "paced"
    dtypes: tuple[str, ...] = ()  # for reduced: the types of the weights, float32 first
    twin: str = ""  # for reduced: the case in which the peers run the same network in float32

    @property
    def net(self) -> ge.Network:
        """The network, with the same weights in every process."""
        return _network(self.twin or self.name)

    @property
    def weight_bytes(self) -> int:
        """Bytes of float32 weights that a step has to read."""
        return self.bytes_of("float32")

    def bytes_of(self, dtype: str) -> int:
        """Bytes of the weights, kept as this type, that a step has to read; int8 has a float32 scale for each row."""
        matrices = self._matrices()
        scales = 4 * sum(len(matrix) for matrix in matrices) if dtype == "int8" else 0
        return WEIGHT_BYTES[dtype] * sum(matrix.size for matrix in matrices) + scales

    @property
    def flops(self) -> int:
        """Floating-point operations of the matrix products of one call."""
        return sum(2 * matrix.size for matrix in self._matrices()) * self.batch * self.steps

    def _matrices(self) -> list[np.ndarray]:
        """The weights; of a GRU that reads an embedding only the recurrent ones, because the others fold into a table."""
        found: list[np.ndarray] = []
        layers = self.net.layers
        for layer in layers:
            if isinstance(layer, Gru):
                folded = layers[layer.inputs[0]].operation in ("embedding", "tokens")
                found += [layer.U] if folded else [layer.W, layer.U]
            elif isinstance(layer, Dense):
                found.append(layer.W)
        return found

    def inputs(self, steps: int) -> np.ndarray:
        """Inputs [steps, batch, I] float32, or tokens [steps, batch] int64."""
        rng = np.random.default_rng(zlib.crc32((self.twin or self.name).encode()) + 1)
        if self.net.vocab_size is not None:
            return rng.integers(0, self.net.vocab_size, (steps, self.batch))
        return rng.standard_normal((steps, self.batch, self.net.input_size), np.float32)


@cache
def _network(name: str) -> ge.Network:
    return find(name).build(np.random.default_rng(zlib.crc32(name.encode())))


def find(name: str) -> Case:
    """The case of this name."""
    return next(case for case in CASES if case.name == name)


# ---- networks


def _uniform(rng: np.random.Generator, width: int, *shape: int) -> np.ndarray:
    """Weights as PyTorch initialises them."""
    return (rng.uniform(-1, 1, shape) / np.sqrt(width)).astype(np.float32)


def _gru(rng: np.random.Generator, net: ge.Network, x: Any, width: int, **options: Any) -> Any:
    rows = 3 * width
    shapes = [(rows, x.width), (rows, width), (rows,), (rows,)]
    return net.gru(x, *(_uniform(rng, width, *shape) for shape in shapes), **options)


def _dense(rng: np.random.Generator, net: ge.Network, x: Any, width: int, activation: str) -> Any:
    x = net.concat(x) if isinstance(x, list) else x
    return net.dense(x, _uniform(rng, x.width, width, x.width), _uniform(rng, x.width, width), activation=activation)


def single(inputs: int, width: int, **options: Any) -> Callable[[np.random.Generator], ge.Network]:
    """One GRU layer."""

    def build(rng: np.random.Generator) -> ge.Network:
        net = ge.Network()
        net.output(_gru(rng, net, net.input(inputs), width, **options))
        return net

    return build


def headed(
    inputs: int, width: int, head: int, squash: str, **options: Any
) -> Callable[[np.random.Generator], ge.Network]:
    """One GRU layer and a dense layer."""

    def build(rng: np.random.Generator) -> ge.Network:
        net = ge.Network()
        net.output(_dense(rng, net, _gru(rng, net, net.input(inputs), width, **options), head, squash))
        return net

    return build


def amplifier(rng: np.random.Generator) -> ge.Network:
    """A guitar amplifier: GRU of 10, dense layer, the input added."""
    net = ge.Network()
    x = net.input(1)
    net.output(net.add(_dense(rng, net, _gru(rng, net, x, 10), 1, "linear"), x))
    return net


def denoiser(width: int) -> Callable[[np.random.Generator], ge.Network]:
    """Like RNNoise: three GRU layers, and a dense layer that reads them all and the input."""

    def build(rng: np.random.Generator) -> ge.Network:
        net = ge.Network()
        values = [net.input(width)]
        for _ in range(3):
            values.append(_gru(rng, net, values[-1], width))
        net.output(_dense(rng, net, values, 32, "sigmoid"))
        return net

    return build


def nsnet2(rng: np.random.Generator) -> ge.Network:
    """NSNet2: dense 400, two GRU layers of 400, dense 600, 600, 161."""
    net = ge.Network()
    x = _dense(rng, net, net.input(161), 400, "relu")
    for _ in range(2):
        x = _gru(rng, net, x, 400)
    for width, activation in ((600, "relu"), (600, "relu"), (161, "sigmoid")):
        x = _dense(rng, net, x, width, activation)
    net.output(x)
    return net


def language(vocabulary: int, embedding: int, width: int) -> Callable[[np.random.Generator], ge.Network]:
    """Tokens, an embedding, a GRU; the engine folds the first two and the input product into a table."""

    def build(rng: np.random.Generator) -> ge.Network:
        net = ge.Network()
        x = net.embedding(net.tokens(vocabulary), rng.standard_normal((vocabulary, embedding)).astype(np.float32))
        net.output(_gru(rng, net, x, width))
        return net

    return build


# ---- cases

LINEAR = {"activation": "linear", "gate_activation": "hard_sigmoid", "reset": "before"}

REAL = {
    "wake-word": (
        "wake word 13→20, linear, hard sigmoid, reset before; dense 1",
        headed(13, 20, 1, "sigmoid", **LINEAR),
    ),
    "amplifier": ("guitar amplifier 1→10; dense 1, skip", amplifier),
    "denoiser-256": ("noise suppression 3 × 256; dense 32", denoiser(256)),
    "denoiser-384": ("noise suppression 3 × 384; dense 32", denoiser(384)),
    "nsnet2": ("NSNet2: dense 400, 2 × 400, dense 600, 600, 161", nsnet2),
    "gru4rec": ("GRU4Rec 512→512, reset before, keep new", single(512, 512, reset="before", keep="new")),
    "keyword-154": ("keyword spotting 10→154; softmax 12", headed(10, 154, 12, "softmax")),
    "keyword-250": ("keyword spotting 10→250; softmax 12", headed(10, 250, 12, "softmax")),
    "keyword-400": ("keyword spotting 10→400; softmax 12", headed(10, 400, 12, "softmax")),
    "token-32": ("token of 128, embedding 64, GRU 32", language(128, 64, 32)),
    "token-256": ("token of 128, embedding 64, GRU 256", language(128, 64, 256)),
}

SIZES = (16, 32, 64, 128, 256, 512, 1024)

CASES = [
    *(Case(f"step-{h}", "step", f"H = {h}", single(h, h)) for h in SIZES),
    *(Case(name, "real", title, build) for name, (title, build) in REAL.items()),
    *(Case(f"batch-{b}x{h}", "batch", f"B = {b}, H = {h}", single(h, h), b)
      for b, h in ((2, 128), (4, 128), (8, 128), (16, 128), (64, 256), (64, 512))),
    *(Case(f"sequence-{t}x{b}x{h}", "sequence", f"T = {t}, B = {b}, H = {h}", single(h, h), b, t)
      for t, b, h in ((200, 1, 64), (200, 1, 128), (200, 1, 256), (100, 16, 128), (50, 64, 256), (50, 64, 512))),
    *(Case(f"evicted-{h}", "cold", f"H = {h}, caches emptied before each step", single(h, h), how="evicted")
      for h in (64, 256, 512)),
    *(Case(f"paced-{h}", "cold", f"H = {h}, a step every 10 ms", single(h, h), how="paced") for h in (64, 256)),
    Case("latency-128", "latency", "H = 128", single(128, 128)),
    *(Case(f"pool-{h}", "pool", f"H = {h}", single(h, h), 256) for h in (128, 256)),
    *(Case(f"prepare-{h}", "prepare", f"H = {h}, dense input", single(h, h)) for h in (64, 128, 256, 512)),
    Case("prepare-token-256", "prepare", "H = 256, folded token", language(128, 64, 256)),
    *(Case(f"python-{h}", "python", f"H = {h}", single(h, h)) for h in (16, 32, 128)),
    Case("python-token-32", "python", "H = 32, folded token", language(128, 64, 32)),
    *(Case(f"threads-{h}", "threads", f"H = {h}", single(h, h)) for h in (256, 512, 1024)),
    Case("threads-64x256", "threads", "B = 64, H = 256", single(256, 256), 64),
    Case("load-small", "load", "H = 64", single(64, 64)),
    Case("load-large", "load", "H = 2048", single(2048, 2048)),
    Case("memory", "memory", "H = 2048", single(2048, 2048)),
    Case("import", "import", "", single(16, 16)),
]  # fmt: skip


def _reduced(twin: str, prefix: str, *dtypes: str) -> Case:
    """A case again, run by this engine with weights of these types beside float32."""
    case = find(twin)
    title = f"{prefix}{case.title}"
    return replace(case, name=f"reduced-{twin}", group="reduced", title=title, dtypes=("float32", *dtypes), twin=twin)


CASES += [
    *(_reduced(f"step-{h}", "step, ", "bfloat16", "float16", "int8") for h in SIZES if h >= 64),
    *(_reduced(f"batch-{b}x{h}", "batch step, ", "int8") for b, h in ((16, 128), (64, 256), (64, 512))),
    *(_reduced(f"sequence-{t}x{b}x{h}", "sequence, ", "int8") for t, b, h in ((200, 1, 128), (200, 1, 256), (50, 64, 256))),
    *(_reduced(cold, "step, ", "int8") for cold in ("evicted-64", "evicted-256", "evicted-512", "paced-256")),
]  # fmt: skip
