# SPDX-License-Identifier: Apache-2.0
"""Export a Flax model, linen or nnx, to a ``.gru`` file.

The params are an ``.npz`` or safetensors file, the names of the levels joined by dots or slashes; JAX and Flax are not needed::

    np.savez("params.npz", **flax.traverse_util.flatten_dict(variables, sep="/"))
    python tools/export_flax.py params.npz model.gru --layers "embedding(embed) gru(rnn/cell) linear(head) log_softmax"

Where a function of yours makes the module (and its weights, or nnx restores them), the module is read and run beside the file::

    python tools/export_flax.py --factory mymodels:make model.gru

It returns an nnx module, or a linen module and its variables.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from gru_engine.export import command, flax
from gru_engine.export.checkpoint import read_arrays
from gru_engine.export.common import ExportError


def make(name: str) -> tuple[Any, Any]:
    """The module that ``"package.module:function"`` returns, and its variables, if it is linen's."""
    package, _, attribute = name.partition(":")
    if not attribute:
        raise ExportError(f"--factory {name!r} must be package.module:function")
    sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(package), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise ExportError(f"--factory {name}: {error}") from error
    return made if isinstance(made, tuple) and len(made) == 2 else (made, None)


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.argument("files", metavar="[PARAMS] OUT", nargs=-1, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--layers", help='The chain of layers, as "embedding(embed) gru(cell) linear(head)".')
@click.option("--factory", help="A function that makes the module, as package.module:function, instead of PARAMS.")
@command.options
def main(files: tuple[Path, ...], layers: str | None, factory: str | None, **options: Any) -> None:
    """See the module's docstring."""
    with command.errors():
        if len(files) != (2 if factory is None else 1):
            raise click.UsageError("expected PARAMS OUT, or OUT alone with --factory")
        out, params = files[-1], files[0] if factory is None else None
        if factory is not None:
            module, variables = make(factory)
            built, layers, run = flax.describe(module, variables, layers)
            click.echo(f'--layers "{layers}"')
        else:
            if not files[0].exists():
                raise click.UsageError(f"there is no file {files[0]}")
            built, run = flax.build(read_arrays(files[0]), layers), None
        command.show(built)
        origin = {"framework": "Flax", "params": params and params.name, "factory": factory, "layers": layers}
        command.save(built.network, out, origin, run, "Flax", **options)


if __name__ == "__main__":
    main()
