# SPDX-License-Identifier: Apache-2.0
"""Forecast time series: sunspots by the year, carbon dioxide in the air by the month.

Both series are real and ship with statsmodels. A small GRU reads one number per step and says the next one. At run time it
is a stream that takes each measurement as it comes; to look further ahead, a copy of the stream reads its own forecasts.
Compared with persistence (it stays as it is) and seasonal forecasts (it repeats the last cycle), on the years after the training.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from example_tools import describe, draw, export, fit, need, need_model, options, percentiles, start_torch, table

import gru_engine as ge

# ---- what is deployed: gru_engine and NumPy


class Forecaster:
    """A stream of measurements, and what comes next.

    Parameters
    ----------
    path : str or Path
        The model. Its metadata say whether it reads the series or its changes.
    """

    def __init__(self, path: str | Path) -> None:
        model = ge.load(path)
        self.stream = model.stream()
        self.changes = bool(model.metadata["changes"])
        self.last: float | None = None  # measurement
        self.next = np.zeros(1, np.float32)  # what the network says of the next one

    def update(self, value: float) -> None:
        """Take a measurement."""
        if not self.changes:
            self.next = self.stream.step(np.array([value], np.float32))
        elif self.last is not None:
            self.next = self.stream.step(np.array([value - self.last], np.float32))
        self.last = value

    def ahead(self, n: int) -> np.ndarray:
        """Return the forecasts of the next n measurements, float64 [n]. The stream stays where it is."""
        stream, y = self.stream.copy(), self.next
        said = [float(y[0])]
        for _ in range(n - 1):
            y = stream.step(y)
            said.append(float(y[0]))
        return np.cumsum(said) + self.last if self.changes else np.array(said)


# ---- data


@dataclass
class Series:
    """A series of measurements."""

    name: str
    unit: str
    values: np.ndarray  # float64 [T]
    times: np.ndarray  # float64 [T], years
    period: int  # steps of a cycle
    changes: bool  # whether the network reads the changes: the series grows
    n_train: int
    horizons: tuple[int, ...]
    hidden: int  # units, and how long to train; of the sunspots chosen by forecasts of 1890 to 1929
    epochs: int


def load_series(name: str) -> Series:
    """Return one of the two series."""
    if name == "sunspots":
        data = need("statsmodels.datasets.sunspots").load_pandas().data
        years, values = data["YEAR"].to_numpy(float), data["SUNACTIVITY"].to_numpy(float)
        return Series(
            "sunspots", "sunspot number", values, years, 11, False, int((years < 1930).sum()), (1, 2, 5, 11), 8, 150
        )
    data = need("statsmodels.datasets.co2").load_pandas().data["co2"].resample("MS").mean().interpolate()
    times = data.index.year.to_numpy() + (data.index.month.to_numpy() - 0.5) / 12
    return Series(
        "co2", "CO2, ppm", data.to_numpy(), times, 12, True, int((times < 1990).sum()), (1, 3, 6, 12), 16, 600
    )


# ---- training: PyTorch


def train_model(series: Series, path: Path, epochs: int, seed: int) -> None:
    """Train on the first part of a series and export the model."""
    torch = start_torch(seed)
    from torch import nn

    seen = series.values[: series.n_train]
    seen = np.diff(seen) if series.changes else seen
    x = torch.tensor(seen, dtype=torch.float32)[None, :, None]

    class Net(nn.Module):
        """The scales belong to the network, so that it is fed measurements as they are."""

        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(1, series.hidden, batch_first=True)
            self.out = nn.Linear(series.hidden, 1)
            self.register_buffer("mean", x.mean())
            self.register_buffer("scale", x.std())

        def forward(self, x: Any) -> Any:
            h, _ = self.gru((x - self.mean) / self.scale)
            return self.out(h) * self.scale + self.mean

    module = Net()
    ahead = max(series.horizons)

    def batches(random: np.random.Generator) -> Any:
        # Windows of the series, of which the end is forecast from the forecasts: what the model is used for.
        length = 5 * series.period
        starts = random.integers(0, x.shape[1] - length - ahead, size=16)
        given = torch.stack([x[0, s : s + length + ahead] for s in starts])
        z = (given - module.mean) / module.scale
        # A little noise: the series are short.
        h, state = module.gru(z[:, :length] + 0.1 * torch.randn(len(starts), length, 1))
        said = module.out(h)
        loss = nn.functional.mse_loss(said[:, series.period :], z[:, series.period + 1 : length + 1])
        y, free = said[:, -1:], []
        for _ in range(ahead - 1):
            h, state = module.gru(y, state)
            y = module.out(h)
            free.append(y)
        yield loss + nn.functional.mse_loss(torch.cat(free, 1), z[:, length + 1 :])

    fit(module.parameters(), batches, epochs, 0.01, seed)
    export(module, x[:, :30], path, {"series": series.name, "changes": series.changes})


# ---- comparing


def forecasts(forecaster: Forecaster, series: Series) -> tuple[np.ndarray, list[float]]:
    """Stream a series; return the forecasts [T, horizon] made at each step, and the seconds that each step took."""
    said, seconds = np.full((len(series.values), max(series.horizons)), np.nan), []
    for t, value in enumerate(series.values):
        began = time.perf_counter()
        forecaster.update(value)
        seconds.append(time.perf_counter() - began)
        if t >= 1:
            said[t] = forecaster.ahead(max(series.horizons))
    return said, seconds


def persistence(series: Series) -> np.ndarray:
    """It stays as it is."""
    return np.repeat(series.values[:, None], max(series.horizons), axis=1)


def seasonal(series: Series, mean_growth: bool = False) -> np.ndarray:
    """What was there one cycle before; of a series that grows, with the growth since then, or the mean growth in training."""
    v, p = series.values, series.period
    mean = (v[p : series.n_train] - v[: series.n_train - p]).mean()
    said = np.full((len(v), max(series.horizons)), np.nan)
    for t in range(p, len(v)):
        growth = (mean if mean_growth else v[t] - v[t - p]) if series.changes else 0.0
        said[t] = v[t - p + 1 : t + 1][: said.shape[1]] + growth
    return said


def errors(said: np.ndarray, series: Series) -> list[str]:
    """Root of the mean squared error at each horizon, over the test part."""
    result = []
    for horizon in series.horizons:
        t = np.arange(series.n_train, len(series.values) - horizon)
        result.append(f"{np.sqrt(np.mean((said[t, horizon - 1] - series.values[t + horizon]) ** 2)):.2f}")
    return result


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@options("forecast", epochs=None)
@click.option("--series", type=click.Choice(["both", "sunspots", "co2"]), default="both", show_default=True)
def main(model: Path, train: bool, epochs: int | None, seed: int, plot: Path, series: str) -> None:
    """See the module's docstring."""
    shown = []
    for name in ["sunspots", "co2"] if series == "both" else [series]:
        data = load_series(name)
        path = model.with_stem(f"{model.stem}_{name}")  # a model for each series
        cut = data.times[data.n_train - 1]
        click.echo("\n" * bool(shown) + f"{name}: {len(data.values)} measurements, trained on those up to {int(cut)}")
        if not train:
            need_model(path)
        else:
            train_model(data, path, epochs or data.epochs, seed)
        forecaster = Forecaster(path)
        describe(forecaster.stream.model)
        said, seconds = forecasts(forecaster, data)
        rows = [["persistence", *errors(persistence(data), data)], ["seasonal", *errors(seasonal(data), data)]]
        if data.changes:
            rows.append(["seasonal, mean growth", *errors(seasonal(data, mean_growth=True), data)])
        rows.append(["GRU, gru_engine", *errors(said, data)])
        table([f"{name}: RMSE, steps ahead", *map(str, data.horizons)], rows)
        click.echo(f"\nper measurement: {percentiles(seconds)}")
        shown.append((data, said))

    def fill(axes: Any) -> None:
        for ax, (data, said) in zip(axes, shown):
            begin = data.n_train - 2 * data.period
            test, farthest = np.arange(data.n_train, len(data.values)), max(data.horizons)
            ax.plot(data.times[begin:], data.values[begin:], color="black", lw=1, label="measured")
            for horizon, colour in ((1, "#1b6ca8"), (farthest, "#d1495b")):
                t = test[test - horizon >= data.n_train]
                label = f"forecast, {horizon} step{'s' * (horizon > 1)} ahead"
                ax.plot(data.times[t], said[t - horizon, horizon - 1], color=colour, lw=1, label=label)
            ax.axvline(data.times[data.n_train], color="#bbbbbb", lw=1)
            ax.set(ylabel=data.unit)
            ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)

    draw(plot, (9, 2.4 * len(shown)), len(shown), fill)


if __name__ == "__main__":
    main()
