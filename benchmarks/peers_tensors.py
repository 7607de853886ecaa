# SPDX-License-Identifier: Apache-2.0
"""The peers that are a library of tensors: PyTorch in three ways, JAX."""

from __future__ import annotations

import logging
import warnings
from itertools import repeat
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.peers import Peer, Program, Unsupported
from gru_engine.layers import Add, Concat, Dense, Embedding, Gru, Input, Tokens


def _plain(layer: Gru) -> bool:
    """Whether it is the GRU that PyTorch has."""
    return layer.reset == "after" and (layer.gate_activation.name, layer.activation.name) == ("sigmoid", "tanh")


# ---- PyTorch


class Torch(Peer):
    """Eager, in inference mode: GRUCell for a step, GRU for a sequence; other kinds of GRU written with tensor operations."""

    name, package = "torch", "torch"
    compiler = ""

    def program(self, case: Case, dtype: str = "float32") -> Program:
        import torch

        torch.set_num_threads(1)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        if case.steps > 1:
            if self.compiler:
                raise Unsupported("a whole sequence is one kernel of PyTorch's, eager or not")
            return _TorchSequence(case, dtype)
        return _TorchStep(case, self.compiler, dtype)


class TorchJit(Torch):
    """torch.jit.trace, freeze, optimize_for_inference."""

    name, compiler = "torch-jit", "jit"


class TorchCompile(Torch):
    """torch.compile with freezing."""

    name, compiler = "torch-compile", "compile"


def _quantised(module: Any, dtype: str) -> Any:
    """A GRU or a GRUCell with weights of this type; its inputs are rounded to int8 at each call."""
    import torch

    if dtype == "float32":
        return module
    (part,) = torch.ao.quantization.quantize_dynamic(torch.nn.ModuleList([module]), {type(module)}, dtype=torch.qint8)
    if type(part) is type(module):
        raise Unsupported(f"{type(module).__name__} stayed float32")
    return part


def _cell(layer: Gru) -> Any:
    import torch

    cell = torch.nn.GRUCell(layer.W.shape[1], layer.width)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    values = (layer.W, layer.U, layer.b_x, layer.b_h)
    cell.load_state_dict({name: torch.tensor(np.asarray(a, np.float32)) for name, a in zip(names, values)})
    return cell


def _module(case: Case) -> Any:
    """The network as a Module: (x, states ...) -> (y, states ...)."""
    import torch
    from torch import nn

    activations = {
        "linear": lambda a: a,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "softmax": lambda a: torch.softmax(a, -1),
        "hard_sigmoid": lambda a: torch.clamp(0.2 * a + 0.5, 0.0, 1.0),
    }

    class OtherCell(nn.Module):
        """A GRU cell of another kind than PyTorch's: the reset gate before the product."""

        def __init__(self, layer: Gru) -> None:
            super().__init__()
            assert layer.reset == "before"
            h2 = 2 * layer.width
            self.gate, self.candidate = activations[layer.gate_activation.name], activations[layer.activation.name]
            self.W, self.U, self.U_n = nn.Linear(layer.W.shape[1], 3 * layer.width), *(nn.Linear(1, 1) for _ in "UU")
            bias = layer.b_x + layer.b_h
            for linear, weight in ((self.W, layer.W), (self.U, layer.U[:h2]), (self.U_n, layer.U[h2:])):
                linear.weight = nn.Parameter(torch.tensor(np.asarray(weight, np.float32)))
                linear.bias = None
            self.W.bias = nn.Parameter(torch.tensor(np.asarray(bias, np.float32)))

        def forward(self, x: Any, h: Any) -> Any:
            r_x, z_x, n_x = self.W(x).chunk(3, -1)
            r_h, z_h = self.U(h).chunk(2, -1)
            r, z = self.gate(r_x + r_h), self.gate(z_x + z_h)
            n = self.candidate(n_x + self.U_n(r * h))
            return n + z * (h - n)

    class Net(nn.Module):
        """The layers one after the other."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = case.net.layers
            (self.last,) = case.net.output_layers.values()
            self.parts = nn.ModuleList()
            for layer in self.layers:
                part = nn.Identity()
                if isinstance(layer, Gru):
                    part = _cell(layer) if _plain(layer) else OtherCell(layer)
                elif isinstance(layer, Dense):
                    part = nn.Linear(layer.W.shape[1], layer.width)
                    part.load_state_dict(
                        {
                            "weight": torch.tensor(np.asarray(layer.W, np.float32)),
                            "bias": torch.tensor(np.asarray(layer.b, np.float32)),
                        }
                    )
                elif isinstance(layer, Embedding):
                    part = nn.Embedding.from_pretrained(torch.tensor(np.asarray(layer.E, np.float32)))
                self.parts.append(part)

        def forward(self, x: Any, *states: Any) -> Any:
            values: list[Any] = []
            new: list[Any] = []
            for layer, part in zip(self.layers, self.parts):
                ins = [values[i] for i in layer.inputs]
                if isinstance(layer, (Input, Tokens)):
                    value = x
                elif isinstance(layer, Gru):
                    value = part(ins[0], states[len(new)])
                    new.append(value)
                elif isinstance(layer, Dense):
                    value = activations[layer.activation.name](part(ins[0]))
                elif isinstance(layer, Embedding):
                    value = part(ins[0])
                elif isinstance(layer, Concat):
                    value = torch.cat(ins, -1)
                elif isinstance(layer, Add):
                    value = ins[0] + ins[1]
                else:
                    raise Unsupported(f"torch: {layer.operation}")
                values.append(value)
            return values[self.last], *new

    if [layer.operation for layer in case.net.layers] == ["input", "gru"] and _plain(case.net.layers[1]):
        return _cell(case.net.layers[1]).eval(), True
    return Net().eval(), False


class _TorchStep(Program):
    def __init__(self, case: Case, compiler: str, dtype: str) -> None:
        import torch

        self.torch = torch
        module, self.is_cell = _module(case)
        module = _quantised(module, dtype)
        widths = [layer.width for layer in case.net.layers if isinstance(layer, Gru)]
        self.states = [torch.zeros(case.batch, width) for width in widths]
        tokens = case.net.vocab_size is not None
        self.x = torch.zeros(case.batch, dtype=torch.int64) if tokens else torch.zeros(case.batch, case.net.input_size)
        with torch.inference_mode():
            if compiler == "jit":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    traced = torch.jit.freeze(torch.jit.trace(module, (self.x, *self.states)))
                    module = torch.jit.optimize_for_inference(traced)
            elif compiler == "compile":
                import torch._inductor.config as inductor

                logging.getLogger("torch").setLevel(logging.ERROR)
                torch.compiler.reset()
                inductor.freezing = True
                inductor.cpp.threads = 1
                module = torch.compile(module, fullgraph=True, dynamic=False)
        self.module = module
        self.feed(case.inputs(1)[0])
        for _ in range(3):
            self.call()
        self.states = [torch.zeros(case.batch, width) for width in widths]

    def feed(self, x: np.ndarray) -> None:
        self.x.copy_(self.torch.tensor(x))

    def call(self) -> None:
        self.loop(1)

    def loop(self, n: int) -> None:
        module, x, states = self.module, self.x, self.states
        with self.torch.inference_mode():
            if self.is_cell:
                (h,) = states
                for _ in repeat(None, n):
                    h = module(x, h)
                self.states = [h]
                self.y = h
            else:
                for _ in repeat(None, n):
                    y, *states = module(x, *states)
                self.y, self.states = y, states

    def result(self) -> np.ndarray:
        return self.y.detach().numpy()


class _TorchSequence(Program):
    def __init__(self, case: Case, dtype: str) -> None:
        import torch

        self.torch = torch
        layer = case.net.layers[1]
        self.gru = torch.nn.GRU(layer.W.shape[1], layer.width).eval()
        self.gru.load_state_dict({f"{name}_l0": value for name, value in _cell(layer).state_dict().items()})
        self.gru = _quantised(self.gru, dtype)

    def feed(self, x: np.ndarray) -> None:
        self.x = self.torch.tensor(x)

    def call(self) -> None:
        with self.torch.inference_mode():
            self.y, _ = self.gru(self.x)

    def result(self) -> np.ndarray:
        return self.y.numpy()


# ---- JAX


class Jax(Peer):
    """jax.jit of one step, or of lax.scan over a sequence; the weights are constants of the compiled function."""

    name = package = "jax"

    def program(self, case: Case) -> Program:
        return _Jax(case)


def _jax_gru(layer: Gru) -> Any:
    """(input product [B, 3H], h [B, H]) -> h, and the input product's function."""
    import jax
    import jax.numpy as jnp

    activations = {
        "linear": lambda a: a,
        "sigmoid": jax.nn.sigmoid,
        "tanh": jnp.tanh,
        "hard_sigmoid": lambda a: jnp.clip(0.2 * a + 0.5, 0.0, 1.0),
    }
    gate, candidate = activations[layer.gate_activation.name], activations[layer.activation.name]
    W, U = (jnp.asarray(np.ascontiguousarray(a.T), jnp.float32) for a in (layer.W, layer.U))
    b_x, b_h = (jnp.asarray(b, jnp.float32) for b in (layer.b_x, layer.b_h))
    h2 = 2 * layer.width

    def step(s_x: Any, h: Any) -> Any:
        if layer.reset == "before":
            r, z = jnp.split(gate(s_x[:, :h2] + h @ U[:, :h2] + b_h[:h2]), 2, -1)
            n = candidate(s_x[:, h2:] + (r * h) @ U[:, h2:] + b_h[h2:])
        else:
            s_h = h @ U + b_h
            r, z = jnp.split(gate(s_x[:, :h2] + s_h[:, :h2]), 2, -1)
            n = candidate(s_x[:, h2:] + r * s_h[:, h2:])
        return n + z * (h - n)

    return step, lambda x: x @ W + b_x


class _Jax(Program):
    def __init__(self, case: Case) -> None:
        import jax
        import jax.numpy as jnp

        self.jax = jax
        layers = case.net.layers
        grus = {i: _jax_gru(layer) for i, layer in enumerate(layers) if isinstance(layer, Gru)}
        self.states = [jnp.zeros((case.batch, layers[i].width), jnp.float32) for i in grus]
        (last,) = case.net.output_layers.values()
        activations = {
            "linear": lambda a: a,
            "sigmoid": jax.nn.sigmoid,
            "relu": jax.nn.relu,
            "softmax": lambda a: jax.nn.softmax(a, -1),
        }

        def step(x: Any, states: Any) -> Any:
            values: list[Any] = []
            new: list[Any] = []
            for i, layer in enumerate(layers):
                ins = [values[j] for j in layer.inputs]
                if isinstance(layer, (Input, Tokens)):
                    value = x
                elif isinstance(layer, Gru):
                    gru, product = grus[i]
                    value = gru(product(ins[0]), states[len(new)])
                    new.append(value)
                elif isinstance(layer, Dense):
                    W, b = jnp.asarray(layer.W.T, jnp.float32), jnp.asarray(layer.b, jnp.float32)
                    value = activations[layer.activation.name](ins[0] @ W + b)
                elif isinstance(layer, Embedding):
                    value = jnp.asarray(layer.E, jnp.float32)[ins[0]]
                elif isinstance(layer, Concat):
                    value = jnp.concatenate(ins, -1)
                elif isinstance(layer, Add):
                    value = ins[0] + ins[1]
                else:
                    raise Unsupported(f"jax: {layer.operation}")
                values.append(value)
            return values[last], new

        def sequence(x: Any, states: Any) -> Any:
            gru, product = grus[1]

            def body(h: Any, s_x: Any) -> Any:
                h = gru(s_x, h)
                return h, h

            return jax.lax.scan(body, states[0], product(x))[1]

        self.is_sequence = case.steps > 1
        self.is_single = list(grus) == [last] and not self.is_sequence
        if self.is_single:  # one result, which is also the state
            self.run = jax.jit(lambda x, h: step(x, [h])[0])
        else:
            self.run = jax.jit(sequence if self.is_sequence else step)

    def feed(self, x: np.ndarray) -> None:
        self.x = self.jax.device_put(x.astype(np.int32) if x.dtype.kind == "i" else x)

    def call(self) -> None:
        self.loop(1)

    def loop(self, n: int) -> None:
        run, x = self.run, self.x
        if self.is_sequence:
            for _ in repeat(None, n):
                self.y = run(x, self.states).block_until_ready()
        elif self.is_single:
            (h,) = self.states
            for _ in repeat(None, n):
                h = run(x, h)
                h.block_until_ready()
            self.states, self.y = [h], h
        else:
            states = self.states
            for _ in repeat(None, n):
                y, states = run(x, states)
                y.block_until_ready()
            self.states, self.y = states, y

    def result(self) -> np.ndarray:
        return np.asarray(self.y)
