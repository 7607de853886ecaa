# SPDX-License-Identifier: Apache-2.0
"""What the command lines in ``tools/`` share: the options of every export, metadata, saving and what is printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from gru_engine.export import chain, common
from gru_engine.export.common import ExportError
from gru_engine.format import read
from gru_engine.network import Network
from gru_engine.precision import DTYPES

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--metadata",
        type=click.File("rb"),
        help="A JSON object to be put into the file, such as the meaning of tokens (Model.metadata).",
    ),
    click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        default="float32",
        show_default=True,
        help="Type of the weights in the file. The export is checked with float32; what another type changes is reported.",
    ),
    click.option(
        "--threshold",
        type=click.FloatRange(min=0),
        default=common.THRESHOLD,
        show_default=True,
        help="Largest accepted difference, relative to the largest output.",
    ),
)


def source(name: str) -> Callable[[F], F]:
    """The argument that is read, an existing file, and OUT, the file that is written."""

    def decorate(function: F) -> F:
        function = click.argument("out", type=click.Path(dir_okay=False, path_type=Path))(function)
        return click.argument(name, type=click.Path(exists=True, dir_okay=False, path_type=Path))(function)

    return decorate


def options(function: F) -> F:
    """The options that every export has: metadata, dtype, threshold."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@contextmanager
def errors() -> Iterator[None]:
    """Whatever a user got wrong becomes a message of the command line, and so does a file that cannot be read or written."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error}; this command needs it: pip install {error.name}") from error
    except (ValueError, TypeError, OSError) as error:  # ExportError is a ValueError
        raise click.ClickException(str(error)) from error


def parse_outputs(text: str | None) -> list[int | str] | None:
    """Names or numbers of outputs, from ``"p,vad"`` or ``"0,2"``; a name that is a number is meant first."""
    if text is None:
        return None
    return [part.strip() for part in text.split(",") if part.strip()]


def read_metadata(file: IO[bytes]) -> dict[str, Any]:
    """The JSON object of a file."""
    try:
        metadata = json.load(file)
    except ValueError as error:
        raise ExportError(f"--metadata {file.name} is not JSON: {error}") from None
    if not isinstance(metadata, dict):
        raise ExportError(f"--metadata {file.name} must be a JSON object, got {type(metadata).__name__}")
    return metadata


def show(built: chain.Built) -> None:
    """What was understood."""
    for line in built.lines:
        click.echo(f"  {line}")


def save(
    net: Network,
    out: Path,
    origin: dict[str, Any],
    run: common.Run | None = None,
    framework: str = "",
    *,
    metadata: IO[bytes] | None,
    dtype: str,
    threshold: float,
    inputs: common.Inputs | None = None,
    steps: int | None = None,
) -> None:
    """Check and write a network, and print how it went.

    Parameters
    ----------
    net : Network
    out : path
    origin : dict
        Where the network comes from; becomes the entry ``"source"`` of its metadata.
    run : callable, optional
        Runs the model that the network was made from; see ``common.save``.
    framework : str
        What to call it.
    metadata, dtype, threshold
        The options.
    inputs : array or dict of arrays, optional
        See ``common.save``.
    steps : int, optional
        The number of steps that the model must be given; golden cases have so many then.
    """
    if metadata is not None:
        net.metadata.update(read_metadata(metadata))
    click.echo(net.summary())
    net.metadata["source"] = {key: value for key, value in origin.items() if value is not None}
    given: dict[str, Any] = {"inputs": inputs}
    if steps is not None:  # the lengths of golden cases are counted beyond the shortest
        given["golden_steps"] = (steps - common.least_steps(net),) * 2
    for comparison in common.save(net, out, run, framework, dtype=dtype, threshold=threshold, **given):
        click.echo(comparison)
    show_file(out, dtype, "the float64 reference" if run is None else framework)


def show_file(out: Path, dtype: str, other: str) -> None:
    """What was written; with weights of fewer bits, how far its golden vectors may differ from the other side."""
    if dtype != "float32":
        allowed = max(case.tolerance for case in read(out).golden)
        click.echo(
            f"golden vectors: {dtype} weights may differ from {other} by {allowed:.2e}, "
            f"{common.REDUCED_TOLERANCE:g} times the largest difference found"
        )
    click.echo(f"{out}: {out.stat().st_size} bytes")
