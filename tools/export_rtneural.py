# SPDX-License-Identifier: Apache-2.0
"""Export a JSON model of RTNeural, or of an amplifier plugin, to a ``.gru`` file.

The file says its layers itself; of a state_dict as JSON, ``--layers`` can say them::

    python tools/export_rtneural.py model.json model.gru
    python tools/export_rtneural.py state_dict.json model.gru --layers "gru(gru) linear(dense) tanh"

The file is checked against the float64 reference on random inputs and holds golden vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gru_engine.export import command, rtneural


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@command.source("model")
@click.option("--layers", help='The chain of layers, as "gru(gru) linear(dense)".')
@command.options
def main(model: Path, out: Path, layers: str | None, **options: Any) -> None:
    """See the module's docstring."""
    with command.errors():
        built = rtneural.build(model, layers)
        command.show(built)
        command.save(built.network, out, {"framework": "RTNeural", "model": model.name, "layers": layers}, **options)


if __name__ == "__main__":
    main()
