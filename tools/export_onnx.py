# SPDX-License-Identifier: Apache-2.0
"""Export an ONNX model to a ``.gru`` file.

The model is read from the file alone; whatever framework it came from is not needed::

    python tools/export_onnx.py model.onnx model.gru
    python tools/export_onnx.py model.onnx model.gru --axes TBF --outputs p,vad --metadata about.json
    python tools/export_onnx.py model.onnx model.gru --axes sound=TBF,word=TB

Every export is run beside the model on random inputs, by ONNX Runtime if it is installed and can run the model, else by the
evaluator that comes with onnx; and beside the float64 reference. The largest differences are printed; above the threshold nothing
is written. The file holds some of these runs as golden vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import click

from gru_engine.export import command
from gru_engine.export.common import ExportError


def parse_axes(text: str | None) -> str | dict[str, str] | None:
    """The axes of the first input from ``"TBF"``, or of each input from ``"x=TBF,word=TB"``."""
    if text is None or "=" not in text:
        return text
    axes = {}
    for part in text.split(","):
        name, _, letters = part.rpartition("=")
        if not name.strip() or not letters.strip() or name.strip() in axes:
            raise ExportError(f'--axes {text!r} must be as "TBF", or for each input as "x=TBF,word=TB"')
        axes[name.strip()] = letters.strip()
    return axes


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@command.source("model")
@click.option(
    "--axes",
    help="What the axes of the first input mean, a letter each, as BTF, TBF: B batch, T time, F features, 1 one; of several "
    "inputs by name, as sound=TBF,word=TB: what is not named is a state.",
)
@click.option("--outputs", help='Which of the model\'s outputs to keep, by name or number, as "p,vad" or "0".')
@command.options
def main(
    model: Path,
    out: Path,
    axes: str | None,
    outputs: str | None,
    metadata: IO[bytes] | None,
    dtype: str,
    threshold: float,
) -> None:
    """See the module's docstring."""
    try:
        from gru_engine.export.onnx import trace
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error}; pip install onnx (and onnxruntime, to compare with it)") from error
    with command.errors():
        traced = trace(model, axes=parse_axes(axes), outputs=command.parse_outputs(outputs)).with_runtime()
        for line in traced.notes():
            click.echo(line)
        net = traced.network
        if metadata is not None:
            net.metadata.update(command.read_metadata(metadata))
        click.echo(net.summary())
        net.metadata["source"] = traced.source(model.name)
        # Not command.save: a model may take a fixed number of steps, then so do the golden vectors.
        for comparison in traced.save(out, dtype=dtype, threshold=threshold):
            click.echo(comparison)
    command.show_file(out, dtype, traced.runner.name if traced.runner is not None else "the model")


if __name__ == "__main__":
    main()
