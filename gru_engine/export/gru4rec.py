# SPDX-License-Identifier: Apache-2.0
"""GRU4Rec, the official PyTorch and Theano versions: parameters to networks. Needs neither.

Tokens are item numbers, the outputs the scores of all items. The two versions do not compute the same: the Theano one has the GRU
of Cho et al. in every layer; the PyTorch one has ``nn.GRUCell``, and the other GRU only in a first layer without an embedding.

``savemodel`` pickles a whole object, which is a program and is not executed here. Save the parameters:
``torch.save(gru.model.state_dict(), path)``, or ``numpy.savez(path, Wx0=gru.Wx[0].get_value(), ...)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gru_engine.export import arrays as _arrays
from gru_engine.export import chain
from gru_engine.export.common import ExportError
from gru_engine.export.words import Arrays
from gru_engine.network import Network


def from_parameters(
    parameters: Mapping[str, Any],
    *,
    hidden_act: str = "tanh",
    final_act: str = "linear",
    constrained_embedding: bool | None = None,
) -> Network:
    """Turn the parameters of a model into a network from an item to the scores of all.

    Parameters
    ----------
    parameters : mapping
        Arrays by name. Theano: ``Wx0, Wrz0, Wh0, Bh0, Wx1, ..., Wy, By``, and ``E`` where there is an embedding of its own;
        PyTorch: the state_dict of the ``GRU4RecModel``: ``Wy.weight, By.weight, G.0.weight_ih, ..., E.weight, GE.Wx0.weight``.
    hidden_act : str
        Theano: ``"tanh"``, ``"relu"``, ``"linear"``, ``"leaky-X"`` or ``"elu-X"``, as the model was made with. PyTorch has tanh
        alone.
    final_act : str
        What is done with the scores: as ``hidden_act``, or ``"selu-X-Y"``, ``"softmax"``, ``"softmax_logit"`` (at prediction a
        softmax). The PyTorch version ranks by the scores themselves, ``"linear"``.
    constrained_embedding : bool, optional
        Whether ``Wy`` is the table of the input too. By default it is found out by the shapes.

    Returns
    -------
    Network

    Raises
    ------
    ExportError
        If a parameter is missing, left over or does not fit, or an activation is none that the engine has.
    """
    return build(parameters, hidden_act, final_act, constrained_embedding).network


def build(
    parameters: Mapping[str, Any],
    hidden_act: str = "tanh",
    final_act: str = "linear",
    constrained_embedding: bool | None = None,
) -> chain.Built:
    """Like ``from_parameters``, with what was understood in words."""
    given = _arrays.flatten(parameters)
    heads = [name for name in given if name.split(".")[-2:] == ["Wy", "weight"] or name.split(".")[-1] == "Wy"]
    if len(heads) != 1:
        raise ExportError(f"expected one array Wy or Wy.weight, the scores' weights; there are {', '.join(given)}")
    stem = heads[0].removesuffix("weight").rstrip(".").removesuffix("Wy")
    arrays = {name.removeprefix(stem): array for name, array in given.items()}
    if any(name.startswith(("G.", "GE.")) for name in arrays):
        if hidden_act != "tanh":
            raise ExportError(f"hidden_act is {hidden_act!r}, but the PyTorch version of GRU4Rec has tanh alone")
        words, renamed = _torch(arrays, constrained_embedding)
    else:
        words, renamed = _theano(arrays, _option(hidden_act, "hidden_act"), constrained_embedding)
    words += ["linear(W=Wy, b=By)", *_final(final_act)]
    return _arrays.build(renamed, " ".join(words))


def _theano(arrays: Arrays, hidden_act: str, constrained: bool | None) -> tuple[list[str], Arrays]:
    """Words, and the arrays under names of ours."""
    count = 0
    while f"Wx{count}" in arrays:
        count += 1
    if not count:
        raise ExportError(f"there is no array Wx0; there are {', '.join(arrays)}")
    renamed = {
        name: array for name, array in arrays.items() if not name.startswith(("Wx", "Wrz", "Wh", "Bh", "By", "H"))
    }
    renamed["By"] = _need(arrays, "By").reshape(-1)
    words = [_input(_need(arrays, "Wy"), "E" in arrays, constrained, arrays["Wx0"].shape[0])]
    for layer in range(count):
        W, rz, h, b = (_need(arrays, f"{name}{layer}") for name in ("Wx", "Wrz", "Wh", "Bh"))
        renamed |= _cell(f"layer{layer}", W, rz, h, b)
        words.append(
            f"gru(layer{layer}, gates=nrz, reset=before, keep=new, orientation=columns, activation={hidden_act})"
        )
    return words, renamed


def _torch(arrays: Arrays, constrained: bool | None) -> tuple[list[str], Arrays]:
    renamed = {name: array for name, array in arrays.items() if name.startswith("G.")}
    renamed["Wy"], renamed["By"] = _need(arrays, "Wy.weight"), _need(arrays, "By.weight").reshape(-1)
    words = []
    if "GE.Wx0.weight" in arrays:
        W, h, b = (_need(arrays, f"GE.{name}0{end}") for name, end in (("Wx", ".weight"), ("Wh", ""), ("Bh", "")))
        if (
            h.ndim == 2 and h.shape[1] == 3 * h.shape[0]
        ):  # before Wrz0 there was one matrix, and the reset gate behind it
            renamed |= {"first.W": W, "first.U": h, "first.b_x": b.reshape(-1)}
            reset = "after"
        else:
            renamed |= _cell("first", W, _need(arrays, "GE.Wrz0"), h, b)
            reset = "before"
        words += ["one_hot", f"gru(first, gates=nrz, reset={reset}, keep=new, orientation=columns)"]
    else:
        if "E.weight" in arrays:
            renamed["E"] = arrays["E.weight"]
        width = _need(arrays, "G.0.weight_ih").shape[1]
        words.append(_input(renamed["Wy"], "E" in renamed, constrained, width))
    count = 0
    while f"G.{count}.weight_ih" in arrays:
        words.append(f"gru(G.{count})")
        count += 1
    used = {"Wy.weight", "By.weight", "E.weight", "GE.Wx0.weight", "GE.Wrz0", "GE.Wh0", "GE.Bh0"}
    return words, {**{n: a for n, a in arrays.items() if n not in used and not n.startswith("G.")}, **renamed}


def _cell(name: str, W: Any, rz: Any, h: Any, b: Any) -> Arrays:
    """The arrays of a layer whose gates stand in the order candidate, reset, update."""
    hidden = h.shape[0]
    if h.shape != (hidden, hidden) or rz.shape != (hidden, 2 * hidden) or W.ndim != 2 or W.shape[1] != 3 * hidden:
        raise ExportError(
            f"{name}: Wx {list(W.shape)}, Wrz {list(rz.shape)} and Wh {list(h.shape)} do not fit together, expected [I, 3*H], "
            "[H, 2*H] and [H, H]"
        )
    return {f"{name}.W": W, f"{name}.U": np.concatenate([h, rz], axis=1), f"{name}.b_x": b.reshape(-1)}


def _input(Wy: Any, embedding: bool, constrained: bool | None, width: int) -> str:
    """The first word: what items are turned into."""
    items, hidden = Wy.shape
    if embedding:
        if constrained:
            raise ExportError("constrained_embedding is True, but there is an embedding E of its own")
        return "embedding(E=E)"
    if constrained is None:
        if items == hidden == width:
            raise ExportError(
                f"there are as many items as units ({items}); say constrained_embedding, True or False: the shapes do not"
            )
        constrained = width == hidden
    if width != (hidden if constrained else items):
        what = "Wy [items, H] as the embedding" if constrained else "one row for each item"
        raise ExportError(f"the first layer reads {width} numbers, which does not fit {what}: Wy is {list(Wy.shape)}")
    return "embedding(E=Wy)" if constrained else "one_hot"


def _need(arrays: Arrays, name: str) -> Any:
    if name not in arrays:
        raise ExportError(f"there is no array {name!r}; there are {', '.join(arrays)}")
    return arrays[name]


_NAMES = {"leaky": "leaky_relu", "elu": "elu"}


def _option(text: str, argument: str) -> str:
    """An activation of GRU4Rec as an option of a word: ``elu-0.5`` is ``elu:0.5``."""
    name, *parameters = text.split("-")
    try:
        numbers = [float(p) for p in parameters]
    except ValueError:
        numbers = [float("nan")]
    if name in _NAMES and len(numbers) == 1 and np.isfinite(numbers).all():
        return f"{_NAMES[name]}:{numbers[0]!r}"
    if text in ("tanh", "relu", "linear"):
        return text
    why = " (a scaled elu, which a GRU of the engine does not have)" if name == "selu" else ""
    raise ExportError(f"{argument} is {text!r}{why}; expected tanh, relu, linear, leaky-X or elu-X")


def _final(text: str) -> list[str]:
    if text in ("softmax", "softmax_logit"):
        return ["softmax"]
    name, *parameters = text.split("-")
    if name == "selu" and len(parameters) == 2:
        scale, alpha = parameters
        return [f"elu({float(alpha)!r})", f"affine({float(scale)!r}, 0.0)"]
    option = _option(text, "final_act")
    if option == "linear":
        return []
    name, *parameters = option.split(":")
    return [f"{name}({parameters[0]})" if parameters else name]
