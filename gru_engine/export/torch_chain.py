# SPDX-License-Identifier: Apache-2.0
"""A chain (``gru_engine.export.chain``) executed by PyTorch, to compare the network made from it with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gru_engine.export.chain import Arrays, Gru, Source, Word
from gru_engine.export.common import Array

_FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "leaky_relu": F.leaky_relu,
    "thresholded_relu": lambda x, alpha: F.threshold(x, alpha, 0.0),
    "scaled_tanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "hard_sigmoid": lambda x, alpha, beta: torch.clamp(alpha * x + beta, 0, 1),
    "elu": F.elu,
    "softsign": F.softsign,
    "softplus": F.softplus,
    "silu": F.silu,
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
}


class Chain(nn.Module):
    """The words of a chain as PyTorch's own layers: x [B, T, I] or tokens [B, T] -> y [B, T, O] or [B, O]."""

    def __init__(self, words: list[Word], arrays: Arrays):
        super().__init__()
        source = Source(arrays)
        self.words = words
        self.layers = nn.ModuleList(_LAYERS.get(word.name, _Function)(word, source) for word in words)
        if words[0].name == "one_hot":
            following: Any = self.layers[1]
            self.layers[0].width = following.gru.input_size if words[1].name == "gru" else following.weight.shape[1]
        self.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the words one after the other."""
        final = None
        for word, layer in zip(self.words, self.layers):
            if word.name == "gru":
                x, final = layer(x)
            elif word.name == "summary":
                x = final
            else:
                x = layer(x)
        return x


class _Layer(nn.Module):
    """A layer with the arrays ``P.weight`` and ``P.bias``."""

    def __init__(self, word: Word, source: Source):
        super().__init__()
        bias = source.find(word.prefix + "bias", word, 1) if word.name == "linear" else None
        self.weight = nn.Parameter(torch.from_numpy(source.get(word.prefix + "weight", word, 2)))
        self.bias = None if bias is None else nn.Parameter(torch.from_numpy(bias))


class _Embedding(_Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.embedding(x, self.weight)


class _Linear(_Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)


class _OneHot(nn.Module):
    width: int

    def __init__(self, word: Word, source: Source):
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.one_hot(x, self.width).to(torch.float32)


class _Gru(nn.Module):
    """Gives the outputs of every step, and the final states of the last layer's directions side by side."""

    def __init__(self, word: Word, source: Source):
        super().__init__()
        arrays = Gru.read(word, source)
        first = arrays.layers[0][0]
        biased = "b_x" in first
        inputs, hidden, directions = first["W"].shape[1], first["U"].shape[1], len(arrays.layers[0])
        self.gru = nn.GRU(inputs, hidden, len(arrays.layers), biased, batch_first=True, bidirectional=directions == 2)
        names = {"W": "weight_ih", "U": "weight_hh", "b_x": "bias_ih", "b_h": "bias_hh"}
        state = {}
        for number, layer in enumerate(arrays.layers):
            for suffix, direction in zip(("", "_reverse"), layer):
                state.update({f"{names[key]}_l{number}{suffix}": torch.from_numpy(a) for key, a in direction.items()})
        self.gru.load_state_dict(state)
        h0 = np.zeros((len(arrays.layers) * directions, hidden)) if arrays.h0 is None else arrays.h0.reshape(-1, hidden)
        self.h0 = nn.Parameter(torch.from_numpy(h0)[:, None].float())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output, final = self.gru(x, self.h0.expand(-1, len(x), -1).contiguous())
        return output, torch.cat([final[-2], final[-1]], -1) if self.gru.bidirectional else final[-1]


class _BatchNorm(nn.Module):
    def __init__(self, word: Word, source: Source):
        super().__init__()
        names = ("running_mean", "running_var", "weight", "bias")
        arrays = [source.find(word.prefix + name, word, 1) for name in names]
        self.arrays = nn.ParameterList(torch.ones(0) if a is None else torch.from_numpy(a) for a in arrays)
        self.eps = float(word.option("eps") or 1e-5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, variance, weight, bias = (a if len(a) else None for a in self.arrays)
        return F.batch_norm(x.reshape(-1, x.shape[-1]), mean, variance, weight, bias, eps=self.eps).view(x.shape)


class _Last(nn.Module):
    def __init__(self, word: Word, source: Source):
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, -1]


class _Function(nn.Module):
    """An activation; ``summary``, which ``Chain`` executes, too."""

    def __init__(self, word: Word, source: Source):
        super().__init__()
        self.word = word

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _FUNCTIONS[self.word.name](x, *self.word.activation.parameters)


_LAYERS: dict[str, Callable[[Word, Source], nn.Module]] = {
    "embedding": _Embedding,
    "one_hot": _OneHot,
    "gru": _Gru,
    "linear": _Linear,
    "batchnorm": _BatchNorm,
    "last": _Last,
}


def run_chain(words: list[Word], arrays: Arrays) -> Callable[[Array], Array]:
    """A function that runs the chain in float32: x [B, T, I] or tokens [B, T] -> y [B, T, O] or [B, O]."""
    chain = Chain(words, arrays).float()

    def run(x: Array) -> Array:
        with torch.inference_mode():
            return chain(torch.from_numpy(np.ascontiguousarray(x))).numpy()  # type: ignore[no-any-return]

    return run
