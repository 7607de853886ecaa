# SPDX-License-Identifier: Apache-2.0
"""Export the params of a Haiku model to a ``.gru`` file.

The params are an ``.npz`` file, a module's name and an array's joined by a slash::

    np.savez("params.npz", **{f"{module}/{name}": array for module, arrays in params.items() for name, array in arrays.items()})
    python tools/export_haiku.py params.npz model.gru --layers "gru(gru) gru(gru_1) linear(linear)"

The file is checked against the float64 reference on random inputs and holds golden vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gru_engine.export import command, haiku
from gru_engine.export.checkpoint import read_arrays


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@command.source("params")
@click.option("--layers", help='The chain of layers, as "embedding(embed) gru(gru) linear(linear)".')
@click.option("--skip-connections", is_flag=True, help="The GRUs are those of a deep_rnn_with_skip_connections.")
@command.options
def main(params: Path, out: Path, layers: str | None, skip_connections: bool, **options: Any) -> None:
    """See the module's docstring."""
    with command.errors():
        built = haiku.build(read_arrays(params), layers, skip_connections)
        command.show(built)
        origin = {"framework": "Haiku", "params": params.name, "layers": layers}
        command.save(built.network, out, origin, **options)


if __name__ == "__main__":
    main()
