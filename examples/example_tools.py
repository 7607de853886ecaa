# SPDX-License-Identifier: Apache-2.0
"""What the examples share: their options, the training loop, the export, tables, plots, and Python sources as data.

Nothing of it is needed to run a model: that takes the ``.gru`` file, gru_engine and NumPy.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import gru_engine as ge

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "examples"
INSTALL = {
    "torch": "pip install --group torch --group examples, or make examples; --no-train runs a model that is there already",
    "statsmodels": "pip install --group examples; it ships the data",
}


def need(name: str) -> Any:
    """Import a package that only some of the examples need.

    Raises
    ------
    click.ClickException
        If it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise click.ClickException(f"{package} is not installed: {INSTALL[package]}") from error


def options(name: str, epochs: int | None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that all examples have: ``model``, ``train``, ``epochs``, ``seed``, ``plot``."""
    path = click.Path(dir_okay=False, path_type=Path)
    default: bool | str = True if epochs else "depends on the data"
    training = "Train and export, or use the model as it is."
    place = f"  [default: build/examples/{name}"
    decorators = [
        click.option("--model", type=path, default=OUT / f"{name}.gru", help=f"The .gru file.{place}.gru]"),
        click.option("--train/--no-train", default=True, help=training, show_default=True),
        click.option("--epochs", type=click.IntRange(min=1), default=epochs, help="Of training.", show_default=default),
        click.option("--seed", type=click.IntRange(min=0), default=1, help="Of everything random.", show_default=True),
        click.option("--plot", type=path, default=OUT / f"{name}.svg", help=f"The plot.{place}.svg]"),
    ]
    return lambda command: functools.reduce(lambda f, decorator: decorator(f), reversed(decorators), command)


def need_model(path: Path) -> None:
    """Raise a click.ClickException if there is no model: for ``--no-train``."""
    if not path.exists():
        raise click.ClickException(f"--no-train, but there is no model {path}; run without it first")


# ---- training and export: PyTorch


def fit(
    parameters: Iterable[Any],
    batches: Callable[[np.random.Generator], Iterable[Any]],
    epochs: int,
    rate: float,
    seed: int,
) -> None:
    """Train with Adam, one cycle of the learning rate, gradients clipped to norm 1.

    Parameters
    ----------
    parameters : iterable of torch.nn.Parameter
    batches : callable
        Takes a random generator, yields the losses of one epoch, each a scalar tensor.
    epochs : int
    rate : float
        Highest learning rate.
    seed : int
        Of the order of the batches.
    """
    torch = need("torch")
    parameters = list(parameters)
    optimizer = torch.optim.Adam(parameters, lr=rate)
    random = np.random.default_rng(seed)
    began = time.perf_counter()
    for epoch in range(epochs):
        total, count = 0.0, 0
        # Warm up for a tenth of the time, then down along a cosine.
        for group in optimizer.param_groups:
            done = epoch / epochs
            group["lr"] = rate * min(1.0, 0.3 + 7 * done) * (0.03 + 0.97 * (0.5 + 0.5 * np.cos(np.pi * done)))
        for loss in batches(random):
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            total, count = total + loss.item(), count + 1
        if epoch in (0, epochs - 1) or (epoch + 1) % max(1, epochs // 5) == 0:
            click.echo(f"  epoch {epoch + 1:3}: loss {total / count:.4f}, {time.perf_counter() - began:.0f} s")


def start_torch(seed: int) -> Any:
    """PyTorch with its seed set, on one thread: nothing here is large enough for two."""
    torch = need("torch")
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    return torch


def export(module: Any, example: Any, path: Path, metadata: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Export a PyTorch module, verified, with golden vectors, and return a function that runs it in PyTorch."""
    from gru_engine.export.torch import trace

    traced = trace(module, example)

    def run(x: np.ndarray) -> np.ndarray:
        return traced.run(x)[0]

    write(traced.network, path, run, metadata)
    return run


def write(net: ge.Network, path: Path, run: Callable[[np.ndarray], np.ndarray], metadata: dict[str, Any]) -> None:
    """Compare a network with the model that it was made from, and write it."""
    from gru_engine.export import common

    path.parent.mkdir(parents=True, exist_ok=True)
    for comparison in common.save(net, path, run, "PyTorch", metadata=metadata):
        click.echo(f"  {comparison}")


# ---- output


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    click.echo()
    for row in (head, *rows):
        cells = [cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        click.echo("  ".join(cells).rstrip())


def draw(path: Path, size: tuple[float, float], rows: int, fill: Callable[[Any], None]) -> None:
    """Write a plot as SVG, if matplotlib is installed.

    Parameters
    ----------
    path : Path
    size : tuple of float
        Width and height in inches.
    rows : int
        How many plots, one above the other.
    fill : callable
        Takes the list of their axes and draws.
    """
    try:
        import matplotlib
    except ImportError:
        click.echo("\nno plot: matplotlib is not installed (pip install --group examples)")
        return
    matplotlib.use("svg")
    # Text as text, and nothing that differs from run to run.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "gru_engine", "axes.spines.top": False})
    matplotlib.rcParams.update({"axes.spines.right": False, "font.size": 9, "legend.frameon": False})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, 1, figsize=size, squeeze=False, layout="constrained")
    fill([row[0] for row in axes])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    # What matplotlib leaves at the ends of lines.
    path.write_text("\n".join(line.rstrip() for line in path.read_text("utf-8").splitlines()) + "\n", "utf-8")
    click.echo(f"\nplot: {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")


def describe(model: ge.Model) -> None:
    """Print what was loaded."""
    reads = f"tokens of {model.vocab_size}" if model.input_size is None else f"{model.input_size} floats"
    click.echo(
        f"model: {reads} -> {model.output_size}, state of {model.state_size} floats, {model.nbytes / 1e3:.0f} kB"
    )


def percentiles(seconds: Sequence[float]) -> str:
    """The median and the 99th percentile of times, in microseconds."""
    p50, p99 = np.percentile(np.asarray(seconds) * 1e6, [50, 99])
    return f"p50 {p50:.1f} µs, p99 {p99:.1f} µs"


# ---- data


def python_sources() -> Iterator[tuple[str, bool, ast.Module]]:
    """Yield the Python sources that every installation has, as data: a name, whether it is held out, the syntax tree.

    The standard library, NumPy, and PyTorch where it is installed, without their tests. Every tenth file, by a hash of its
    name, is held out from training.
    """
    roots = [Path(sysconfig.get_paths()["stdlib"])]
    for package in ("numpy", "torch"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            roots.append(Path(spec.origin).parent)
    skipped = {"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages", "testing", "_testing"}
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            within = path.relative_to(root)
            if skipped.intersection(within.parts):
                continue
            try:
                tree = ast.parse(path.read_text("utf-8"))
            except (SyntaxError, ValueError):
                continue
            name = f"{root.name}/{within.as_posix()}"
            yield name, hashlib.sha256(name.encode()).digest()[0] < 26, tree
