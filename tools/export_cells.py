# SPDX-License-Identifier: Apache-2.0
"""Export a PyTorch model around a hand-written GRU cell to a ``.gru`` file.

The module's class is imported, its weights come from the checkpoint. What the cell computes is found out by running it; the chain
of layers around it by names and shapes, or it is said::

    python tools/export_cells.py cell.pt model.gru --module mymodels:Cell --args "40, hidden=256"
    python tools/export_cells.py net.pt model.gru --module mymodels:Net --layers "gru(cell) last linear(fc)"

Without the module, ``tools/export_arrays.py`` exports the checkpoint when the description says what the cell computes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from gru_engine.export import command
from gru_engine.export.checkpoint import read_arrays


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@command.source("checkpoint")
@click.option("--module", required=True, help="The module's class, as package.module:Class.")
@click.option("--args", "arguments", default="", help='Arguments of that class, as "40, hidden=256".')
@click.option("--layers", help='The chain of layers, as "gru(cell) last linear(fc)".')
@click.option("--key", help="Which dictionary of tensors of the checkpoint to take, if it holds several.")
@command.options
def main(
    checkpoint: Path, out: Path, module: str, arguments: str, layers: str | None, key: str | None, **options: Any
) -> None:
    """See the module's docstring."""
    sys.path.insert(0, str(Path(__file__).parent))
    from export_torch import make_module

    with command.errors():
        from gru_engine.export import torch_cells

        built, text, run = torch_cells.describe(make_module(module, arguments, read_arrays(checkpoint, key)), layers)
        click.echo(f'--layers "{text}"')
        command.show(built)
        origin = {"framework": "PyTorch", "checkpoint": checkpoint.name, "module": module, "layers": text}
        command.save(built.network, out, origin, run, "PyTorch", **options)


if __name__ == "__main__":
    main()
