# SPDX-License-Identifier: Apache-2.0
"""What the results say: times, races against the peers, how near the machine's limits they are. No text."""

from __future__ import annotations

import math
from typing import Any

OURS = "gru_engine"
COMPARED = ("step", "real", "batch", "sequence", "cold", "reduced", "latency", "pool", "load")
"""Groups in which a row is a race."""


class Limits:
    """What the machine can do, and so how long a row takes at least."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.curve = [(point["bytes"], 1e9 * point["gigabytes_per_second"]) for point in results["limits"]["load"]]
        self.peaks = {
            kind: 1e9 * peak["gigaoperations_per_second"] for kind, peak in results["limits"]["compute"].items()
        }
        self.caches = results["machine"]["caches"]

    def bandwidth(self, nbytes: float) -> float:
        """Bytes per second from a buffer of this size: between the measured sizes on straight lines over their logarithms."""
        if nbytes <= self.curve[0][0]:
            return self.curve[0][1]
        for (a, low), (b, high) in zip(self.curve, self.curve[1:]):
            if nbytes <= b:
                return low + (high - low) * math.log(nbytes / a) / math.log(b / a)
        return self.curve[-1][1]

    def level(self, nbytes: float) -> str:
        """The smallest cache that holds so much."""
        return next((f"L{cache['level']}" for cache in self.caches if nbytes <= cache["bytes"]), "memory")

    def loading(self, row: dict[str, Any], dtype: str = "float32") -> float:
        """The shortest time in which a row's weights, kept as this type, are read once."""
        nbytes = bytes_of(row, dtype)
        return nbytes / self.bandwidth(1 << 30 if "evicted" in row["case"] else nbytes)

    def computing(self, row: dict[str, Any], dtype: str = "float32") -> float:
        """The shortest time of a row's multiply-adds; 0 if the machine has no measured peak of this type.

        Weights of 16 bits are widened, so that the multiply-adds are those of float32.
        """
        peak = self.peaks.get("int8") if dtype == "int8" else self.peaks["float32"]
        return row["flops"] / peak if peak else 0.0

    def least(self, row: dict[str, Any], dtype: str = "float32") -> tuple[float, str]:
        """The shortest possible time of a row's call, and what limits it."""

        def part(nbytes: float, computing: float, times: int) -> tuple[float, str]:
            held = 1 << 30 if "evicted" in row["case"] else nbytes
            loading = times * nbytes / self.bandwidth(held)
            return max((loading, self.level(held)), (computing, "dot" if dtype == "int8" else "FMA"))

        nbytes, computing = bytes_of(row, dtype), self.computing(row, dtype)
        if row["steps"] == 1:
            return part(nbytes, computing, 1)
        half = nbytes / 2  # these cases have as many inputs as states
        recurrent, what = part(half, computing / 2, row["steps"])
        return recurrent + part(half, computing / 2, 1)[0], what


def bytes_of(row: dict[str, Any], dtype: str) -> int:
    """The bytes of weights that a step of a row reads."""
    return row["bytes"] if dtype == "float32" else row["results"][dtype]["bytes"]


def figure(result: dict[str, Any], clock: str) -> float | None:
    """A peer's time; the wall's where there is no other. None if it was not measured."""
    return result.get(clock, result.get("wall"))


def race(row: dict[str, Any], clock: str = "cpu") -> tuple[float, str, float] | None:
    """Our time, the fastest peer and its time."""
    results = row["results"]
    if row["group"] == "pool":
        ours, others = figure(results["256 of 10 000"], clock), ["onnxruntime, 256 of 10 000"]
    elif row["group"] == "reduced":
        ours, others = figure(results.get("int8", {}), clock), ["torch, int8"]
    else:
        ours, others = figure(results.get(OURS, {}), clock), [name for name in results if not name.startswith(OURS)]
    times = {name: figure(results[name], clock) for name in others if name in results}
    times = {name: value for name, value in times.items() if value}
    if not ours or not times:
        return None
    best = min(times, key=times.__getitem__)
    return ours, best.split(",")[0], times[best]


def losses(results: dict[str, Any]) -> list[tuple[dict[str, Any], str, float, str, float]]:
    """The rows in which a peer is faster: row, clock, our time, the peer, its time."""
    found = []
    for row in results["rows"]:
        if row["group"] in COMPARED:
            for clock in ("cpu", "wall"):
                result = race(row, clock)
                if (
                    result
                    and result[0] > result[2]
                    and (clock == "cpu" or "cpu" in row["results"].get(OURS, {"cpu": 0}))
                ):
                    found.append((row, clock, *result))
    return found


def rows_of(results: dict[str, Any], group: str) -> list[dict[str, Any]]:
    """The rows of a group."""
    return [row for row in results["rows"] if row["group"] == group]


def row_of(results: dict[str, Any], case: str) -> dict[str, Any] | None:
    """The row of a case, if it was measured."""
    return next((row for row in results["rows"] if row["case"] == case), None)


def twin_race(results: dict[str, Any], row: dict[str, Any], clock: str = "cpu") -> tuple[str, float] | None:
    """Of a row of fewer bits: the fastest peer in the same run with float32, and its time."""
    twin = row_of(results, row["twin"])
    result = race(twin, clock) if twin else None
    return result[1:] if result else None
