# SPDX-License-Identifier: Apache-2.0
"""Export the parameters of a GRU4Rec model, official PyTorch or Theano version, to a ``.gru`` file.

The parameters are a state_dict (``torch.save(gru.model.state_dict(), "model.pt")``) or an ``.npz`` file of Theano's::

    python tools/export_gru4rec.py model.pt model.gru
    python tools/export_gru4rec.py model.npz model.gru --hidden-act elu-0.5 --final-act softmax

The file is checked against the float64 reference on random inputs and holds golden vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gru_engine.export import command, gru4rec
from gru_engine.export.checkpoint import read_arrays


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@command.source("parameters")
@click.option("--hidden-act", default="tanh", show_default=True, help="tanh, relu, linear, leaky-X, elu-X (Theano).")
@click.option("--final-act", default="linear", show_default=True, help="The same, or selu-X-Y, softmax, softmax_logit.")
@click.option(
    "--constrained-embedding/--no-constrained-embedding",
    default=None,
    help="Whether Wy is the table of the input too; by default found out by the shapes.",
)
@command.options
def main(
    parameters: Path, out: Path, hidden_act: str, final_act: str, constrained_embedding: bool | None, **options: Any
) -> None:
    """See the module's docstring."""
    with command.errors():
        built = gru4rec.build(read_arrays(parameters), hidden_act, final_act, constrained_embedding)
        command.show(built)
        origin = {
            "framework": "GRU4Rec",
            "parameters": parameters.name,
            "hidden_act": hidden_act,
            "final_act": final_act,
        }
        command.save(built.network, out, origin, **options)


if __name__ == "__main__":
    main()
