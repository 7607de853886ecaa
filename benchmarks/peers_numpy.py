# SPDX-License-Identifier: Apache-2.0
"""The peer that everyone can write: NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.peers import Peer, Program, Unsupported
from gru_engine.layers import Add, Concat, Dense, Embedding, Gru, Input, Tokens


class NumPy(Peer):
    """A user's own NumPy: float32, one product for all gates, every intermediate array allocated beforehand."""

    name = package = "numpy"

    def program(self, case: Case) -> Program:
        return _NumPySequence(case) if case.steps > 1 else _NumPyStep(case)


def _sigmoid(a: np.ndarray) -> None:
    """In place: 1 / (1 + exp(-a))."""
    np.negative(a, a)
    np.exp(a, a)
    np.add(a, np.float32(1), a)
    np.reciprocal(a, a)


def _hard_sigmoid(a: np.ndarray) -> None:
    np.multiply(a, np.float32(0.2), a)
    np.add(a, np.float32(0.5), a)
    np.maximum(a, np.float32(0), a)
    np.minimum(a, np.float32(1), a)


def _softmax(a: np.ndarray) -> None:
    np.subtract(a, a.max(-1, keepdims=True), a)
    np.exp(a, a)
    np.divide(a, a.sum(-1, keepdims=True), a)


IN_PLACE: dict[str, Callable[[np.ndarray], Any]] = {
    "linear": lambda a: None,
    "sigmoid": _sigmoid,
    "tanh": lambda a: np.tanh(a, a),
    "relu": lambda a: np.maximum(a, np.float32(0), a),
    "hard_sigmoid": _hard_sigmoid,
    "softmax": _softmax,
}


class _NumPyGru:
    """One GRU layer; the state is a column of the batch, so that a weight matrix stands on the left as it is stored."""

    def __init__(self, layer: Gru, batch: int) -> None:
        shape = (batch,) if batch > 1 else ()
        h = layer.width
        self.layer, self.batch, self.h2 = layer, batch, 2 * h
        self.W, self.U = (np.ascontiguousarray(a, np.float32) for a in (layer.W, layer.U))
        one = np.zeros(shape, np.float32)
        b_x, b_h = layer.b_x.astype(np.float32), layer.b_h.astype(np.float32)
        if layer.reset == "before":  # all biases add up
            b_x, b_h = b_x + b_h, 0 * b_h
        else:  # those of the gates do
            b_x[: self.h2] += b_h[: self.h2]
        self.b_x, self.b_n = np.add.outer(b_x, one), np.add.outer(b_h[self.h2 :], one)
        self.s_x, self.s_h = (np.zeros((3 * h, *shape), np.float32) for _ in "xh")
        self.state, self.n = (np.zeros((h, *shape), np.float32) for _ in "hn")
        self.gate, self.candidate = IN_PLACE[layer.gate_activation.name], IN_PLACE[layer.activation.name]

    def product(self, x: np.ndarray) -> None:
        np.dot(self.W, x, self.s_x)
        np.add(self.s_x, self.b_x, self.s_x)

    def step(self, s_x: np.ndarray) -> np.ndarray:
        """The new state from the input's product, which is overwritten."""
        h2, h, n = self.h2, self.state, self.n
        gates = s_x[:h2]
        if self.layer.reset == "before":
            s_h = self.s_h[:h2]
            np.dot(self.U[:h2], h, s_h)
            np.add(gates, s_h, gates)
            self.gate(gates)
            np.multiply(gates[: h2 // 2], h, n)
            s_h = np.dot(self.U[h2:], n, self.s_h[h2:])
        else:
            np.dot(self.U, h, self.s_h)
            np.add(gates, self.s_h[:h2], gates)
            self.gate(gates)
            s_h = self.s_h[h2:]
            np.add(s_h, self.b_n, s_h)
            np.multiply(s_h, gates[: h2 // 2], s_h)
        np.add(s_x[h2:], s_h, n)
        self.candidate(n)
        np.subtract(h, n, h)
        np.multiply(h, gates[h2 // 2 :], h)
        np.add(h, n, h)
        return h


class _NumPyStep(Program):
    def __init__(self, case: Case) -> None:
        net, batch = case.net, case.batch
        shape = (batch,) if batch > 1 else ()
        self.x: Any = np.zeros((net.input_size or 0, *shape), np.float32)
        self.values: list[Any] = [None] * len(net.layers)
        self.steps: list[Callable[[], Any]] = []
        (self.last,) = net.output_layers.values()
        for number, layer in enumerate(net.layers):
            self.steps.append(self.make(number, layer, batch))
        self.single = [layer.operation for layer in net.layers] == ["input", "gru"]

    def make(self, number: int, layer: Any, batch: int) -> Callable[[], None]:
        values, ins = self.values, layer.inputs

        def store(value: Any) -> None:
            values[number] = value

        if isinstance(layer, (Input, Tokens)):
            return lambda: store(self.x)
        if isinstance(layer, Embedding):
            table = layer.E.astype(np.float32)
            return lambda: store(table[values[ins[0]]])
        if isinstance(layer, Gru):
            self.gru = gru = _NumPyGru(layer, batch)

            def run_gru() -> None:
                gru.product(values[ins[0]])
                store(gru.step(gru.s_x))

            return run_gru
        if isinstance(layer, Dense):
            W, b, y = layer.W.astype(np.float32), layer.b.astype(np.float32), np.zeros(layer.width, np.float32)
            activation = IN_PLACE[layer.activation.name]

            def run_dense() -> None:
                np.dot(W, values[ins[0]], y)
                np.add(y, b, y)
                activation(y)
                store(y)

            return run_dense
        if isinstance(layer, Concat):
            return lambda: store(np.concatenate([values[i] for i in ins]))
        if isinstance(layer, Add):
            return lambda: store(values[ins[0]] + values[ins[1]])
        raise Unsupported(f"{layer.operation} is not written in NumPy here")

    def feed(self, x: np.ndarray) -> None:
        if x.dtype.kind == "i":
            self.x = int(x[0])
        else:
            self.x[:] = x[0] if self.x.ndim == 1 else x.T

    def call(self) -> None:
        if self.single:
            self.gru.product(self.x)
            self.gru.step(self.gru.s_x)
        else:
            for step in self.steps:
                step()

    def result(self) -> np.ndarray:
        value = self.gru.state if self.single else self.values[self.last]
        return value[None] if value.ndim == 1 else value.T


class _NumPySequence(Program):
    """The input's product for the whole sequence, then step by step."""

    def __init__(self, case: Case) -> None:
        self.gru = _NumPyGru(case.net.layers[1], case.batch)
        self.y = np.zeros((case.steps, *self.gru.state.shape), np.float32)

    def feed(self, x: np.ndarray) -> None:
        self.x = np.ascontiguousarray(x[:, 0] if x.shape[1] == 1 else x.transpose(0, 2, 1))

    def call(self) -> None:
        gru = self.gru
        gru.state[:] = 0
        s_x = self.x @ gru.W.T if self.x.ndim == 2 else gru.W @ self.x
        s_x += gru.b_x
        for t, s in enumerate(s_x):
            self.y[t] = gru.step(s)

    def result(self) -> np.ndarray:
        return self.y[:, None] if self.y.ndim == 2 else self.y.transpose(0, 2, 1)
