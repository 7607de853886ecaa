# SPDX-License-Identifier: Apache-2.0
"""Export a PyTorch checkpoint to a ``.gru`` file.

A chain of layers needs no PyTorch at all: names and shapes say what the layers are, ``--layers`` says what they cannot say
(``gru_engine.export.chain`` describes the words)::

    python tools/export_torch.py model.pt model.gru
    python tools/export_torch.py model.safetensors model.gru --layers "embedding(emb) gru(gru) last linear(fc) softmax"

Anything else is exported from the module itself, whose class is imported and whose weights come from the checkpoint::

    python tools/export_torch.py encoder.pt encoder.gru --module tools.train_g2p:Encoder --args "hidden=256"
    python tools/export_torch.py net.pt net.gru --module mymodels:Denoiser --input "float32[B,T,40]" --state "float32[2,B,256]"
    python tools/export_torch.py net.pt net.gru --module mymodels:Tagger --input "words=int64[B,T]" --input "shape=float32[B,T,4]"

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


def parse_example(text: str) -> tuple[str, Any, str]:
    """A parameter's name (or none), an example tensor and the meaning of its axes, from ``"x=float32[B,T,40]"``."""
    import torch

    match = re.fullmatch(r"\s*(?:([^\s=\[]+)\s*=)?\s*(float32|float64|int64|int32)\s*\[([^\]]*)\]\s*", text)
    axes = [part.strip() for part in match[3].split(",") if part.strip()] if match else []
    if match is None or not all(axis in EXAMPLE_SIZES or axis.isdigit() for axis in axes):
        raise ExportError(f'{text!r} does not describe a tensor; expected for instance "float32[B,T,40]", "int64[B,T]"')
    shape = [EXAMPLE_SIZES.get(axis) or int(axis) for axis in axes]
    letters = "".join(axis if axis in EXAMPLE_SIZES else "F" for axis in axes)
    return match[1] or "", torch.zeros(shape, dtype=getattr(torch, match[2])), letters


def parse_examples(inputs: tuple[str, ...], states: tuple[str, ...]) -> tuple[Any, list[str]]:
    """What forward takes, by position or by name, and the axes of each of the inputs."""
    parsed = [parse_example(text) for text in (*inputs, *states)]
    axes = [letters for _, _, letters in parsed[: len(inputs)]]
    names = [name for name, _, _ in parsed]
    if not any(names):
        return tuple(tensor for _, tensor, _ in parsed), axes
    if not all(names) or len(set(names)) < len(names):
        raise ExportError(
            f'--input and --state {", ".join((*inputs, *states))}: each must have a name of its own, as "x=float32[B,T,40]", or '
            "none of them"
        )
    return {name: tensor for name, tensor, _ in parsed}, axes


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
    arrays: dict[str, Any],
    name: str,
    arguments: str,
    inputs: tuple[str, ...],
    states: tuple[str, ...],
    outputs: str | None,
) -> tuple[Any, common.Run]:
    """The network of a module, and a function that runs the module."""
    from gru_engine.export.torch import trace
    from gru_engine.export.torch_arguments import Arguments

    module = make_module(name, arguments, arrays)
    given = inputs or (guess_example(module),)
    example, letters = parse_examples(given, states)
    for text in given:
        click.echo(f"input {text}" + " (guessed from the first layer; --input says otherwise)" * (not inputs))
    axes: Any = None
    if len(inputs) > 1 or isinstance(example, dict):
        named = list(example) if isinstance(example, dict) else Arguments.of(module, example).names
        axes = dict(zip(named, letters))
    elif inputs:
        axes = letters[0]
    traced = trace(module, example, axes=axes, outputs=command.parse_outputs(outputs))
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
@click.option(
    "--input",
    "inputs",
    multiple=True,
    help='What forward takes, as "float32[B,T,40]" or "int64[T,B]"; several in its order, or by name as "x=float32[B,T,40]".',
)
@click.option("--state", "states", multiple=True, help='An initial state that forward takes, as "float32[1,B,256]".')
@click.option(
    "--outputs", help='Which of the values that forward returns become outputs, as "0", "0,2" or by their keys.'
)
@command.options
def main(
    checkpoint: Path,
    out: Path,
    layers: str | None,
    key: str | None,
    module_name: str | None,
    arguments: str,
    inputs: tuple[str, ...],
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
            net, run = export_module(arrays, module_name, arguments, inputs, states, outputs)
        else:
            net, run = export_chain(arrays, layers)
        origin = {"framework": "PyTorch", "checkpoint": checkpoint.name, "module": module_name, "layers": layers}
        command.save(net, out, origin, run, "PyTorch", **options)
    if run is None and importlib.util.find_spec("torch") is None:
        click.echo("PyTorch is not installed: it was not compared with")


if __name__ == "__main__":
    main()
