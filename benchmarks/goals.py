# SPDX-License-Identifier: Apache-2.0
"""What was aimed at before it was measured, and what became of it: the page's section "Goals" comes from here and the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import Limits, figure, race, row_of, twin_race

Results = dict[str, Any]

SET_ON = (
    "They were set before this code was written, on a Zen 5 server: one core of it loads 480 GB/s from L1, 165 to 230 from L2, "
    "100 from L3 and does 242 Gop/s of float32 and 968 of int8. The section Machine has the same of the one measured here. "
    "A fraction of a limit is one of this processor's limit. Times and ratios are of CPU time; those of cold steps, latencies, "
    "loading and two threads are of wall time."
)


@dataclass(frozen=True)
class Goal:
    """One figure that was aimed at."""

    what: str
    target: float
    unit: str  # "×", "%", "ns" or "µs"
    measured: Callable[[Results], float | None]  # in that unit; None where the run does not have it
    at_most: bool = False

    def outcome(self, results: Results) -> tuple[float | None, bool]:
        """What was measured, and whether that is enough."""
        value = self.measured(results)
        if value is None:
            return None, False
        return value, value <= self.target if self.at_most else value >= self.target

    def text(self, value: float | None) -> str:
        """What to say about a measured value."""
        if value is None:
            return "not measured"
        if value <= self.target if self.at_most else value >= self.target:
            return "reached"
        missing = 100 * abs(value / self.target - 1)
        return f"**{missing:.{0 if missing >= 10 else 1}f} % {'too much' if self.at_most else 'short'}**"

    def number(self, value: float | None) -> str:
        """A value with the unit."""
        if value is None:
            return "–"
        digits = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
        return f"{digits}×" if self.unit == "×" else f"{digits} {self.unit}"


def table_rows(results: Results) -> list[list[str]]:
    """What, goal, measured, outcome, of every goal."""
    rows = []
    for goal in GOALS:
        value, _ = goal.outcome(results)
        target = f"{'≤' if goal.at_most else '≥'} {goal.number(goal.target)}"
        rows.append([goal.what, target, goal.number(value), goal.text(value)])
    return rows


def summary(results: Results) -> str:
    """How many are reached."""
    outcomes = [goal.outcome(results) for goal in GOALS]
    measured = [reached for value, reached in outcomes if value is not None]
    missing = len(outcomes) - len(measured)
    rest = f"; {missing} were not measured" if missing else ""
    return f"{sum(measured)} of {len(measured)} goals are reached{rest}."


# ---- how a figure is found in the results


def over_peer(case: str) -> Callable[[Results], float | None]:
    """The fastest peer's time over ours."""

    def measured(results: Results) -> float | None:
        row = row_of(results, case)
        result = race(row) if row else None
        return result[2] / result[0] if result else None

    return measured


def _time(results: Results, case: str, label: str, clock: str = "cpu") -> float | None:
    row = row_of(results, case)
    return figure(row["results"].get(label, {}), clock) if row else None


def ratio(case: str, over: str, under: str, clock: str = "cpu") -> Callable[[Results], float | None]:
    """The time of one label of a row over the time of another."""

    def measured(results: Results) -> float | None:
        a, b = _time(results, case, over, clock), _time(results, case, under, clock)
        return a / b if a and b else None

    return measured


def seconds(
    case: str, label: str, factor: float, minus: str = "", clock: str = "cpu"
) -> Callable[[Results], float | None]:
    """The time of a label, or how much more it is than another's."""

    def measured(results: Results) -> float | None:
        a, b = _time(results, case, label, clock), _time(results, case, minus, clock) if minus else 0.0
        return None if a is None or b is None else factor * (a - b)

    return measured


def of_limit(
    case: str, least: Callable[[Limits, Any, str], float], label: str = "gru_engine", dtype: str = "float32"
) -> Callable[[Results], float | None]:
    """A least time in percent of ours."""

    def measured(results: Results) -> float | None:
        row, ours = row_of(results, case), _time(results, case, label)
        return 100 * least(Limits(results), row, dtype) / ours if row and ours else None

    return measured


def reduced_over_peer(twin: str, dtype: str) -> Callable[[Results], float | None]:
    """The fastest float32 peer's time over ours with weights of this type."""

    def measured(results: Results) -> float | None:
        row, ours = row_of(results, f"reduced-{twin}"), _time(results, f"reduced-{twin}", dtype)
        peer = twin_race(results, row) if row else None
        return peer[1] / ours if peer and ours else None

    return measured


def tail(case: str) -> Callable[[Results], float | None]:
    """The 99.9th percentile over the median."""

    def measured(results: Results) -> float | None:
        row = row_of(results, case)
        result = row["results"].get("gru_engine", {}) if row else {}
        return result["p99.9"] / result["wall"] if "p99.9" in result else None

    return measured


# ---- the goals


def _goals() -> Iterator[Goal]:
    for h, times in ((16, 40), (32, 40), (64, 11), (128, 5.5), (256, 2.2), (512, 1.8), (1024, 2.2)):
        yield Goal(f"step, H = {h}, over the fastest peer", times, "×", over_peer(f"step-{h}"))
    for h in (128, 256, 512, 1024):
        yield Goal(f"step, H = {h}, of the load bandwidth", 90, "%", of_limit(f"step-{h}", Limits.loading))

    for h in (16, 32, 128):
        figure_of = seconds(f"python-{h}", "step(x, out=y)", 1e9, minus="C")
        yield Goal(f"`step(x, out=y)` from Python over C, H = {h}", 50, "ns", figure_of, at_most=True)
    for call in ("step(x)", "step(x, out=y)"):
        what = f"`{call.replace('x', 'token', 1)}`, H = 32, folded embedding, from Python"
        yield Goal(what, 120, "ns", seconds("python-token-32", call, 1e9), at_most=True)

    for h in (64, 128, 256, 512):
        figure_of = ratio(f"prepare-{h}", "step after prepare()", "step")
        yield Goal(f"step after `prepare()` ÷ plain step, H = {h}", 0.55, "×", figure_of, at_most=True)
    figure_of = seconds("prepare-token-256", "step after prepare()", 1e6)
    yield Goal("step after `prepare()`, H = 256, folded token", 0.3, "µs", figure_of, at_most=True)

    for b, h, times in ((16, 128, 2.4), (64, 256, 1.4), (64, 512, 1.3)):
        yield Goal(f"batch step, B = {b}, H = {h}, over the fastest peer", times, "×", over_peer(f"batch-{b}x{h}"))
    for h in (256, 512):
        figure_of = of_limit(f"batch-64x{h}", Limits.computing)
        yield Goal(f"batch step, B = 64, H = {h}, of the FMA peak", 93, "%", figure_of)
    for h in (128, 256):
        figure_of = ratio(f"pool-{h}", "256 of 10 000", "contiguous 256")
        yield Goal(f"pool, random 256 of 10 000 ÷ contiguous 256, H = {h}", 1.15, "×", figure_of, at_most=True)

    for t, b, h, times in ((200, 1, 64, 2.2), (200, 1, 128, 1.7), (200, 1, 256, 1.9), (50, 64, 256, 1.25)):
        what = f"sequence, T = {t}, B = {b}, H = {h}, over the fastest peer"
        yield Goal(what, times, "×", over_peer(f"sequence-{t}x{b}x{h}"))
    figure_of = of_limit("sequence-50x64x512", Limits.computing)
    yield Goal("sequence, T = 50, B = 64, H = 512, of the FMA peak", 95, "%", figure_of)

    for how, h in (("evicted", 64), ("evicted", 256), ("evicted", 512), ("paced", 64), ("paced", 256)):
        what = "caches emptied" if how == "evicted" else "every 10 ms"
        yield Goal(f"step, H = {h}, {what}, over the fastest peer", 1.5, "×", over_peer(f"{how}-{h}"))
    for size, h in (("small", 64), ("large", 2048)):
        figure_of = seconds(f"load-{size}", "gru_engine, verify=False", 1e6, clock="wall")
        yield Goal(f"loading without verification, H = {h}, wall time", 100, "µs", figure_of, at_most=True)
    yield Goal("p99.9 ÷ median of the steps, H = 128", 1.5, "×", tail("latency-128"), at_most=True)
    yield Goal("two threads, H = 512", 1.6, "×", ratio("threads-512", "1 thread", "2 threads", "wall"))

    for h, times in ((128, 16), (256, 12), (512, 6), (1024, 9)):
        what = f"step, H = {h}, int8, over the fastest float32 peer"
        yield Goal(what, times, "×", reduced_over_peer(f"step-{h}", "int8"))
    for h in (128, 256, 512, 1024):
        figure_of = ratio(f"reduced-step-{h}", "float32", "int8")
        yield Goal(f"step, H = {h}, int8, over our float32", 3.5, "×", figure_of)
    for h in (256, 512, 1024):
        figure_of = of_limit(f"reduced-step-{h}", Limits.loading, "int8", "int8")
        yield Goal(f"step, H = {h}, int8, of the load bandwidth", 85, "%", figure_of)
    for dtype in ("bfloat16", "float16"):
        for h, times in ((128, 1.4), (256, 2), (512, 1.5), (1024, 1.5)):
            figure_of = ratio(f"reduced-step-{h}", "float32", dtype)
            yield Goal(f"step, H = {h}, {dtype}, over our float32", times, "×", figure_of)
    for h in (256, 512):
        figure_of = ratio(f"reduced-batch-64x{h}", "float32", "int8")
        yield Goal(f"batch step, B = 64, H = {h}, int8, over our float32", 2.5, "×", figure_of)


GOALS = tuple(_goals())
