# SPDX-License-Identifier: Apache-2.0
r"""Export named arrays (.npz, safetensors, a PyTorch checkpoint) to a ``.gru`` file.

``--layers`` says what is done with the arrays (``gru_engine.export.chain`` describes the words). It can name arrays one by one,
whatever they are called::

    python tools/export_arrays.py weights.npz model.gru \
        --layers "gru(W=enc_w, U=enc_u, b_x=enc_b, gates=zrn, reset=before) last linear(W=out_w, b=out_b) softmax"

The file is checked against the float64 reference on random inputs and holds golden vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gru_engine.export import arrays, command
from gru_engine.export.checkpoint import read_arrays


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@command.source("file")
@click.option("--layers", help='The chain of layers, as "gru(gru) linear(fc) log_softmax".')
@click.option("--key", help="Which dictionary of tensors of a PyTorch checkpoint to take, if it holds several.")
@click.option("--ignore-unused", is_flag=True, help="Leave arrays out that the chain does not use.")
@command.options
def main(file: Path, out: Path, layers: str | None, key: str | None, ignore_unused: bool, **options: Any) -> None:
    """See the module's docstring."""
    with command.errors():
        built = arrays.build(read_arrays(file, key), layers, ignore_unused)
        command.show(built)
        if built.unused:
            click.echo(f"not used: {', '.join(built.unused)}")
        command.save(built.network, out, {"file": file.name, "layers": layers}, **options)


if __name__ == "__main__":
    main()
