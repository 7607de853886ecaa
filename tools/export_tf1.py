# SPDX-License-Identifier: Apache-2.0
"""Export the variables of a TensorFlow 1 graph to a ``.gru`` file.

The variables are an ``.npz`` file, written where TensorFlow is::

    reader = tf.train.load_checkpoint("model.ckpt")
    np.savez("variables.npz", **{name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()})
    python tools/export_tf1.py variables.npz model.gru --layers "gru(rnn/multi_rnn_cell) last linear(dense) softmax"

The file is checked against the float64 reference on random inputs and holds golden vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gru_engine.export import command, tf1
from gru_engine.export.checkpoint import read_arrays


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@command.source("variables")
@click.option("--layers", help='The chain of layers, as "gru(rnn/multi_rnn_cell) linear(dense)".')
@command.options
def main(variables: Path, out: Path, layers: str | None, **options: Any) -> None:
    """See the module's docstring."""
    with command.errors():
        built = tf1.build(read_arrays(variables), layers)
        command.show(built)
        origin = {"framework": "TensorFlow 1", "variables": variables.name, "layers": layers}
        command.save(built.network, out, origin, **options)


if __name__ == "__main__":
    main()
