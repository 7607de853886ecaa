# SPDX-License-Identifier: Apache-2.0
"""A chain (``gru_engine.export.chain``) executed by PyTorch, to compare the network made from it with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gru_engine.export.chain import Arrays, Source, Word
from gru_engine.export.common import Array
from gru_engine.export.layouts import find_layout, read_gru

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
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "clip": torch.clamp,
    "exp": torch.exp,
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
}


_NAMES = {"embedding": "weight", "linear": "weight", "batchnorm": "running_var"}


def can_run(words: list[Word], arrays: Arrays) -> bool:
    """Whether a chain is made of PyTorch's own layers; hand-written cells and arrays that were named one by one are not."""
    for word in words:
        if word.name == "gru":
            layout = find_layout(word, word.prefix, arrays)
            if layout is None or not layout.name.endswith("of PyTorch"):
                return False
        elif word.name in _NAMES:
            if word.prefix + _NAMES[word.name] not in arrays or (word.options and word.name != "batchnorm"):
                return False
        elif word.name not in _FUNCTIONS and word.name not in ("one_hot", "last", "summary"):
            return False
    return True


def run_chain(words: list[Word], arrays: Arrays) -> Callable[[Array], Array]:
    """A function that runs a chain in float32, with PyTorch's own layers.

    It takes x [B, T, I] or tokens [B, T] and returns y [B, T, O], or [B, O] where the chain goes on behind the sequence's end.
    """
    source = Source(arrays)
    grus = {i: _gru(word, source) for i, word in enumerate(words) if word.name == "gru"}

    def run(x: Array) -> Array:
        value = torch.from_numpy(np.ascontiguousarray(x))
        final = value  # states of the last GRU: [layers * directions, B, H]
        with torch.inference_mode():
            for i, word in enumerate(words):
                if word.name == "gru":
                    gru, h0 = grus[i]
                    value, final = gru(value, h0.expand(-1, len(x), -1).contiguous())
                elif word.name == "summary":
                    value = torch.cat([final[-2], final[-1]], -1) if grus[i - 1][0].bidirectional else final[-1]
                elif word.name == "last":
                    value = value[:, -1]
                elif word.name == "one_hot":
                    width = grus[1][0].input_size if 1 in grus else _tensor(words[1], source, "weight", 2).shape[1]
                    value = F.one_hot(value, width).to(torch.float32)
                elif word.name == "embedding":
                    value = F.embedding(value, _tensor(word, source, "weight", 2))
                elif word.name == "linear":
                    value = F.linear(value, _tensor(word, source, "weight", 2), _tensor(word, source, "bias", 1))
                elif word.name == "batchnorm":
                    value = _batchnorm(word, source, value)
                else:
                    value = _FUNCTIONS[word.name](value, *word.activation.parameters)
        result: Array = value.numpy()
        return result

    return run


def _tensor(word: Word, source: Source, name: str, ndim: int) -> Any:
    array = source.find(word.prefix + name, word, ndim)
    return None if array is None else torch.from_numpy(array).float()


def _gru(word: Word, source: Source) -> tuple[Any, torch.Tensor]:
    """An ``nn.GRU`` and its initial state [layers * directions, 1, H]."""
    read = read_gru(word, word.prefix, source)
    first = read[0][0]
    inputs, hidden = first.inputs, first.hidden
    layers, directions = len(read), len(read[0])
    gru = nn.GRU(inputs, hidden, layers, "b_x" in first.arrays, batch_first=True, bidirectional=directions == 2)
    names = {"W": "weight_ih", "U": "weight_hh", "b_x": "bias_ih", "b_h": "bias_hh"}
    state = {
        f"{names[key]}_l{number}{suffix}": torch.from_numpy(array)
        for number, layer in enumerate(read)
        for suffix, cell in zip(("", "_reverse"), layer)
        for key, array in cell.arrays.items()
    }
    gru.load_state_dict(state)
    name = word.option("h0")
    h0 = np.zeros((layers * directions, hidden)) if name is None else source.arrays[name].reshape(-1, hidden)
    return gru.eval(), torch.from_numpy(h0)[:, None].float()


def _batchnorm(word: Word, source: Source, value: torch.Tensor) -> torch.Tensor:
    names = ("running_mean", "running_var", "weight", "bias")
    mean, variance, weight, bias = (_tensor(word, source, name, 1) for name in names)
    eps = float(word.option("eps") or 1e-5)
    return F.batch_norm(value.reshape(-1, value.shape[-1]), mean, variance, weight, bias, eps=eps).view(value.shape)
