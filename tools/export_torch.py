# SPDX-License-Identifier: Apache-2.0
"""Export a PyTorch checkpoint to a ``.gru`` file.

A chain of layers needs no PyTorch at all: names and shapes say what the layers are, ``--layers`` says what they cannot say
(``gru_engine.export.chain`` describes the words)::

    python tools/export_torch.py model.pt model.gru
    python tools/export_torch.py model.safetensors model.gru --layers "embedding(emb) gru(gru) last linear(fc) softmax"

Anything else is exported from the module itself, whose class is imported and whose weights come from the checkpoint::

    python tools/export_torch.py encoder.pt encoder.gru --module tools.train_g2p:Encoder --args "hidden=256"
    python tools/export_torch.py net.pt net.gru --module mymodels:Denoiser --input "float32[B,T,40]" --state "float32[2,B,256]"

Every export is run beside PyTorch (if it is installed) and beside the float64 reference on random inputs. The largest
differences are printed; above the threshold nothing is written. The file holds some of these runs as golden vectors.

With ``--dtype bfloat16``, ``float16`` or ``int8`` the matrices take a half or a quarter of the room. The checks above are
still made with float32: they are about the export. What the other type changes is measured, printed, and allowed for in the
golden vectors.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

import click

from gru_engine.export import chain, command, common
from gru_engine.export.checkpoint import read_arrays
from gru_engine.export.common import ExportError

EXAMPLE_SIZES = {"B": 3, "T": 5}  # what B and T stand for in an example; the exporter takes sizes of its own


def parse_example(text: str) -> tuple[Any, str]:
    """An example tensor and the meaning of its axes, from ``"float32[B,T,40]"``."""
    import torch

    match = re.fullmatch(r"\s*(float32|float64|int64|int32)\s*\[([^\]]*)\]\s*", text)
    axes = [part.strip() for part in match[2].split(",") if part.strip()] if match else []
    if match is None or not all(axis in EXAMPLE_SIZES or axis.isdigit() for axis in axes):
        raise ExportError(f'{text!r} does not describe a tensor; expected for instance "float32[B,T,40]", "int64[B,T]"')
    shape = [EXAMPLE_SIZES.get(axis) or int(axis) for axis in axes]
    letters = "".join(axis if axis in EXAMPLE_SIZES else "F" for axis in axes)
    return torch.zeros(shape, dtype=getattr(torch, match[1])), letters


def guess_example(module: Any) -> str:
    """The input that a module is likely to take, from its first layer."""
    from torch import nn

    for child in module.modules():
        if isinstance(child, nn.Embedding):
            return "int64[B,T]"
        if isinstance(child, (nn.GRU, nn.Linear)):
            width = child.input_size if isinstance(child, nn.GRU) else child.in_features
            batch_first = all(gru.batch_first for gru in module.modules() if isinstance(gru, nn.GRU))
            return f"float32[{'B,T' if batch_first else 'T,B'},{width}]"
    raise ExportError("the module's input is not clear from its layers; describe it with --input")


def parse_arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    """Python literals, from ``"40, hidden=256"``."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        return [ast.literal_eval(a) for a in call.args], {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise ExportError(f'--args {text!r} are not Python literals such as "40, hidden=256"') from None


def make_module(name: str, arguments: str, arrays: dict[str, Any]) -> Any:
    """The module of class ``"package.module:Class"`` with the weights of a checkpoint."""
    import numpy as np
    import torch

    package, _, attribute = name.partition(":")
    if not attribute:
        raise ExportError(f"--module {name!r} must be package.module:Class")
    sys.path.insert(0, os.getcwd())
    args, kwargs = parse_arguments(arguments)
    try:
        module = getattr(importlib.import_module(package), attribute)(*args, **kwargs)
    except (ImportError, AttributeError, TypeError) as error:
        raise ExportError(f"--module {name} --args {arguments!r}: {error}") from error
    try:
        module.load_state_dict({key: torch.from_numpy(np.ascontiguousarray(array)) for key, array in arrays.items()})
    except RuntimeError as error:
        raise ExportError(f"the checkpoint does not fit {name}: {error}") from error
    return module


def export_module(
    arrays: dict[str, Any], name: str, arguments: str, example: str | None, states: tuple[str, ...], outputs: str | None
) -> tuple[Any, common.Run]:
    """The network of a module, and a function that runs the module."""
    from gru_engine.export.torch import trace

    module = make_module(name, arguments, arrays)
    guessed = guess_example(module) if example is None else example
    tensor, axes = parse_example(guessed)
    click.echo(f"input {guessed}" + " (guessed from the first layer; --input says otherwise)" * (example is None))
    chosen = [int(i) for i in outputs.split(",")] if outputs else None
    inputs = (tensor, *(parse_example(state)[0] for state in states))
    traced = trace(module, inputs, axes=axes if example is not None else None, outputs=chosen)
    for line in traced.notes():
        click.echo(line)
    return traced.network, lambda x: traced.run(x)[0]


def export_chain(arrays: dict[str, Any], text: str | None) -> tuple[Any, common.Run | None]:
    """The network of a chain of layers, and a function that runs the chain in PyTorch, if that is installed."""
    words = chain.infer(arrays) if text is None else chain.parse(text)
    built = chain.build(words, arrays)
    click.echo(f'--layers "{" ".join(map(str, words))}"' + " (inferred)" * (text is None))
    for line in built.lines:
        click.echo(f"  {line}")
    if built.unused:
        click.echo(f"not used: {', '.join(built.unused)}")
    if importlib.util.find_spec("torch") is None:
        return built.network, None
    from gru_engine.export.torch_chain import can_run, run_chain

    if not can_run(words, arrays):
        click.echo("the chain is not made of PyTorch's own layers: it is compared with the float64 reference alone")
        return built.network, None
    return built.network, run_chain(words, arrays)


@click.command(help=(__doc__ or "").partition("\n\n")[0], context_settings={"show_default": True})
@command.source("checkpoint")
@click.option("--layers", help='The chain of layers, as "embedding(emb) gru(gru) linear(fc) log_softmax".')
@click.option("--key", help="Which dictionary of tensors of the checkpoint to take, if it holds several.")
@click.option(
    "--module", "module_name", help="The module's class, as package.module:Class, found from the current directory."
)
@click.option("--args", "arguments", default="", help='Arguments of that class, as "40, hidden=256".')
@click.option("--input", "example", help='What forward takes, as "float32[B,T,40]" or "int64[T,B]".')
@click.option("--state", "states", multiple=True, help='An initial state that forward takes, as "float32[1,B,256]".')
@click.option("--outputs", help='Which of the values that forward returns become outputs, as "0" or "0,2".')
@command.options
def main(
    checkpoint: Path,
    out: Path,
    layers: str | None,
    key: str | None,
    module_name: str | None,
    arguments: str,
    example: str | None,
    states: tuple[str, ...],
    outputs: str | None,
    **options: Any,
) -> None:
    """See the module's docstring."""
    with command.errors():
        if layers is not None and module_name is not None:
            raise ExportError("--layers describes a checkpoint without its module; give --layers or --module, not both")
        arrays = read_arrays(checkpoint, key)
        run: common.Run | None
        if module_name is not None:
            net, run = export_module(arrays, module_name, arguments, example, states, outputs)
        else:
            net, run = export_chain(arrays, layers)
        origin = {"framework": "PyTorch", "checkpoint": checkpoint.name, "module": module_name, "layers": layers}
        command.save(net, out, origin, run, "PyTorch", **options)
    if run is None and importlib.util.find_spec("torch") is None:
        click.echo("PyTorch is not installed: it was not compared with")


if __name__ == "__main__":
    main()
