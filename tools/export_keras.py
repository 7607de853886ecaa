# SPDX-License-Identifier: Apache-2.0
"""Export a model of Keras to a ``.gru`` file.

The file alone is read, ``.keras`` or ``.h5``, of Keras 3, tf.keras or Keras 2; Keras is not needed for it::

    python tools/export_keras.py model.keras model.gru
    python tools/export_keras.py model.h5 model.gru --outputs words,2 --metadata about.json

Every export is run beside the float64 reference on random inputs, and beside Keras where it is installed: Keras 3 for files of
Keras 3, the package tf_keras for older ones. A model with a mask is compared on padded sequences too. The largest differences are
printed; above the threshold nothing is written. The file holds some of these runs as golden vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import click

from gru_engine.export import command, common


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@command.source("model")
@click.option("--outputs", help='Which of the model\'s outputs to keep, by name or number, as "words,tags" or "0".')
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Steps of a sequence, where the padding of a model depends on it and its Input leaves it open.",
)
@command.options
def main(
    model: Path,
    out: Path,
    outputs: str | None,
    steps: int | None,
    metadata: IO[bytes] | None,
    dtype: str,
    threshold: float,
) -> None:
    """See the module's docstring."""
    from gru_engine.export.keras import export
    from gru_engine.export.keras_check import compare_padded, inputs, run_beside

    with command.errors():
        exported = export(model, outputs=command.parse_outputs(outputs), steps=steps)
        for line in exported.notes():
            click.echo(line)
        running = run_beside(exported, model)
        version = exported.source.version
        net = exported.network
        if exported.padding is not None:
            net.metadata["padding"] = exported.padding  # the token or value with which Keras's mask marks padding
        if exported.every != 1:
            net.metadata["steps"] = exported.steps  # for which it is exact
        padded: list[common.Comparison] = []
        if running is not None:
            import gru_engine

            padded = compare_padded(running, gru_engine.load(net.tobytes()).run, threshold)
        command.save(
            net,
            out,
            {"framework": f"Keras {version}", "model": model.name},
            None if running is None else running.outputs_for,
            "Keras",
            metadata=metadata,
            dtype=dtype,
            threshold=threshold,
            inputs=inputs(exported),
            steps=exported.steps,
        )
    for comparison in padded:
        click.echo(comparison)
    if running is None:
        needed = "keras" if exported.source.major >= 3 else "tf_keras and tensorflow-cpu"
        click.echo(f"Keras {version} is not installed: it was not compared with (pip install {needed})")


if __name__ == "__main__":
    main()
