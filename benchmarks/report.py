# SPDX-License-Identifier: Apache-2.0
"""Makes docs/PERFORMANCE.md, docs/plots/*.svg and the numbers in README.md from the newest results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks import goals, svg
from benchmarks.cases import GROUPS, find
from benchmarks.figures import COMPARED, OURS, Limits, bytes_of, figure, losses, race, rows_of, twin_race

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
METHOD = Path(__file__).resolve().parent / "method.md"
PAGE, PLOTS, README = ROOT / "docs" / "PERFORMANCE.md", ROOT / "docs" / "plots", ROOT / "README.md"

IN_README = (
    "step-16 step-32 step-64 step-128 step-256 step-512 step-1024 wake-word denoiser-256 nsnet2 token-32 "
    "batch-16x128 batch-64x256 sequence-200x1x128 sequence-50x64x256 evicted-256 "
    "reduced-step-128 reduced-step-512 reduced-batch-64x256"
).split()


def newest() -> dict[str, Any]:
    """The newest full results, or else the newest quick ones."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    if not found:
        raise SystemExit("there are no results in benchmarks/results: make bench")
    return max(found, key=lambda results: (not results["plan"]["quick"], results["date"]))


def write() -> list[Path]:
    """Make the documents; the paths of what was written."""
    results = newest()
    PLOTS.mkdir(parents=True, exist_ok=True)
    written = []
    for name, drawing in plots(results).items():
        written.append(PLOTS / f"{name}.svg")
        written[-1].write_text(drawing, encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    block = f"<!-- numbers -->\n{readme_table(results)}\n<!-- /numbers -->"
    text, n = re.subn(r"<!-- numbers -->(.*?<!-- /numbers -->)?", lambda _: block, text, count=1, flags=re.DOTALL)
    if n:
        README.write_text(text, encoding="utf-8")
    return [*written, PAGE, *([README] if n else [])]


# ---- pieces of text


def number(seconds: float | None, factor: float = 1e6) -> str:
    """Three digits."""
    if seconds is None:
        return "–"
    value = seconds * factor
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spelled(seconds: float | None) -> str:
    """With a unit."""
    if seconds is None:
        return "–"
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{number(seconds, factor)} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown; numbers to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# ---- the page


def page(results: dict[str, Any]) -> str:
    """docs/PERFORMANCE.md."""
    plan = results["plan"]
    parts = [
        "# Performance",
        "Made by `make bench` from the results in `benchmarks/results/`; not written by hand. "
        "`make bench ARGS=--quick` takes a few minutes.",
        preliminary(results),
        "## Method",
        METHOD.read_text(encoding="utf-8").strip().format(rounds=plan["rounds"], milliseconds=1e3 * plan["seconds"]),
        "Not measured: " + "; ".join(f"{name} ({why})" for name, why in results["not_measured"].items()) + ".",
        "## Machine",
        machine_text(results),
        limits_text(results),
        "## Where a peer is faster",
        losses_text(results),
        "## Goals",
        goals_text(results),
    ]
    for group, title in GROUPS.items():
        rows = rows_of(results, group)
        if rows:
            parts += [f"## {title}", SECTIONS[group](results, rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def preliminary(results: dict[str, Any]) -> str:
    """What to know about these figures."""
    reasons = results["preliminary"]
    return f"**Preliminary: {'; '.join(reasons)}.**" if reasons else ""


def machine_text(results: dict[str, Any]) -> str:
    """What it was measured on."""
    m = results["machine"]
    caches = ", ".join(f"L{c['level']} {c['bytes'] >> 10} KiB" for c in m["caches"])
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    numbers = ", ".join(map(str, m["family, model, stepping"]))
    virtual = ", a virtual machine" if m["virtual"] else ""
    parts = [
        f"{results['date']}. {m['cpu']} (family, model, stepping {numbers}), {m['cores']} cores{virtual}; {caches}; ",
        f"{m['memory_gigabytes']:g} GB; {', '.join(m['flags'])}. ",
        f"{m['system']}, {m['libc']}, governor {m['governor'] or 'not known'}, huge pages {m['huge_pages']}. ",
        f"Python {m['python']}, {m['compiler']}.\n\n",
        f"{versions}. Load average {results['load_average'][0]} before the run.",
    ]
    return "".join(parts)


def limits_text(results: dict[str, Any]) -> str:
    """What the machine can do."""
    limits = results["limits"]
    curve = limits["load"]
    sizes = [f"{p['bytes'] >> 10} KiB" if p["bytes"] < 1 << 20 else f"{p['bytes'] / (1 << 20):g} MiB" for p in curve]
    chosen = [i for i in range(len(curve)) if curve[i]["bytes"] & (curve[i]["bytes"] - 1) == 0]
    loads = table(["One core loads from", *(sizes[i] for i in chosen)],
                  [["GB/s", *(f"{curve[i]['gigabytes_per_second']:.0f}" for i in chosen)]])  # fmt: skip
    peaks = ", ".join(f"{kind} {p['gigaoperations_per_second']:.0f} Gop/s" for kind, p in limits["compute"].items())
    return f"{loads}\n\nMultiply-adds, two operations each: {peaks}, at {limits['gigahertz']:.2f} GHz."


def losses_text(results: dict[str, Any]) -> str:
    """Where a peer is faster, or that there is no such row."""
    races = sum(1 for row in results["rows"] if row["group"] in COMPARED and race(row))
    found = losses(results)
    if not found:
        return f"In none of {races} rows."
    lines = []
    for row, clock, ours, peer, theirs in found:
        times = f"{clock.replace('cpu', 'CPU')} time: {spelled(ours)}, {peer} {spelled(theirs)}"
        lines.append(f"- {GROUPS[row['group']]}: {row['title']}; {times}")
    return f"Of {races} rows in these:\n\n" + "\n".join(lines)


def goals_text(results: dict[str, Any]) -> str:
    """What was aimed at and what came out."""
    rows = table(["goal", "at least or at most", "measured", "outcome"], goals.table_rows(results))
    return f"{goals.SET_ON}\n\n{goals.summary(results)}\n\n{rows}"


def compared(results: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Tables of all peers, by both clocks, in µs."""
    limits = Limits(results)
    names = [name for name in results["versions"] if any(figure(row["results"].get(name, {}), "cpu") for row in rows)]
    only_wall = "cpu" not in rows[0]["results"].get(OURS, {"cpu": 0})
    parts = []
    for clock in ["wall"] if only_wall else ["cpu", "wall"]:
        what = "wall time, median" if clock == "wall" else "CPU time, least"
        header = [f"µs ({what})", *names, "fastest peer ÷ ours"]
        header += ["of the limit", "limited by"] if clock == "cpu" or only_wall else []
        lines = []
        for row in rows:
            least, by = limits.least(row)
            times = [figure(row["results"].get(name, {}), clock) for name in names]
            best = min((t for t in times if t), default=None)
            cells = [f"**{number(t)}**" if t and t == best else number(t) for t in times]
            result = race(row, clock)
            cells.append(f"{result[2] / result[0]:.2f}× ({result[1]})" if result else "–")
            if clock == "cpu" or only_wall:
                cells += [f"{100 * least / times[0]:.0f} %" if times[0] else "–", f"{by}, {spelled(least)}"]
            lines.append([row["title"], *cells])
        parts.append(table(header, lines))
    missing = {}
    for row in rows:
        for name, result in row["results"].items():
            why = result.get("unsupported", "").removeprefix(f"{name}: ")
            if "wrong" in result:
                why = f"its outputs are wrong by {result['wrong']:.1e}; refused"
            if why:
                missing.setdefault((name, why), []).append(row["title"])
    notes = []
    for (name, why), titles in missing.items():
        where = "; ".join(titles) if len(titles) < 4 else f"{len(titles)} of {len(rows)} rows"
        notes.append(f"- {name}: {why} ({where})")
    return "\n\n".join([*parts, "\n".join(notes)]).rstrip()


def step_section(results: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The steps, with the plot."""
    return "![Time of a step over H](plots/step.svg)\n\n" + compared(results, rows)


def real_section(results: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The real networks, with the plot of ratios."""
    return "![How many times faster than the fastest peer](plots/ratios.svg)\n\n" + compared(results, rows)


def reduced_section(results: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Weights of fewer bits."""
    limits = Limits(results)
    lines = []
    for row in rows:
        peer = twin_race(results, row)
        plain = figure(row["results"].get("float32", {}), "cpu")
        for label, result in row["results"].items():
            time = figure(result, "cpu")
            if time is None:
                continue
            ours = label in find(row["case"]).dtypes
            least, by = limits.least(row, label) if ours else (None, "")
            lines.append(
                [
                    row["title"] if label == "float32" else "",
                    label,
                    f"{bytes_of(row, label) / 1e6:.3g}" if ours else "–",
                    number(time),
                    f"{peer[1] / time:.2f}× ({peer[0]})" if peer else "–",
                    f"{plain / time:.2f}×" if plain else "–",
                    f"{100 * least / time:.0f} %" if least else "–",
                    f"{by}, {spelled(least)}" if least else "–",
                    f"{result['error']:.1e}",
                ]
            )
    header = [
        "µs (CPU time, least; of cold steps wall time, median)",
        "weights",
        "MB",
        "time",
        "fastest float32 peer ÷ this",
        "our float32 ÷ this",
        "of the limit",
        "limited by",
        "largest difference",
    ]
    missing = {}
    for row in rows:
        for label, result in row["results"].items():
            why = f"off by {result['wrong']:.1e}; refused" if "wrong" in result else result.get("unsupported")
            if why:
                missing.setdefault((label, why), []).append(row["title"])
    notes = "\n".join(f"- {label}: {why} ({'; '.join(titles)})" for (label, why), titles in missing.items())
    return "\n\n".join(part for part in (REDUCED_NOTE, table(header, lines), notes) if part)


REDUCED_NOTE = (
    "This engine with its matrices kept as each type, in turns, in one process; the fastest float32 peer is that of the sections "
    "above, with the same network; torch, int8 is PyTorch's `quantize_dynamic`, measured by itself. The limit counts the "
    "bytes of the weights as they are kept, and multiply-adds at the float32 peak, for int8 those of the dot instruction. "
    "The largest difference is from the reference (float64) with weights that were not rounded, of outputs between -1 and 1."
)


def latency_section(results: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Percentiles."""
    limits = Limits(results)
    lines = []
    kinds = ("wall", "p99", "p99.9", "p99.99", "max")
    for row in rows:
        for name, result in row["results"].items():
            if "wall" in result:
                ratio = result["p99.9"] / result["wall"]
                cells = [number(result[kind]) for kind in kinds]
                lines.append(
                    [
                        name,
                        *cells,
                        f"{ratio:.2f}",
                        f"{100 * limits.least(row)[0] / result['wall']:.0f} %",
                        f"{result['n']}",
                    ]
                )
    header = ["µs, wall time", "median", "p99", "p99.9", "p99.99", "most", "p99.9 ÷ median", "of the limit", "steps"]
    note = (
        "One step of one stream after the other, H = 128, reading the clock included. "
        "What other programs and the hypervisor did on the machine is in the tail of everyone."
    )
    return f"![Percentiles](plots/latency.svg)\n\n{note}\n\n" + table(header, lines)


def pool_section(results: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The pool."""
    limits = Limits(results)
    labels = list(rows[0]["results"])
    lines = []
    for row in rows:
        times = [figure(row["results"].get(label, {}), "cpu") for label in labels]
        ratio = times[1] / times[0]
        lines.append(
            [row["title"], *map(number, times), f"{ratio:.2f}", f"{100 * limits.least(row)[0] / times[1]:.0f} %"]
        )
    return table(["µs (CPU time, least)", *labels, "scattered ÷ contiguous", "of the limit"], lines)


def prepare_section(results: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Steps after prepare."""
    limits = Limits(results)
    lines = []
    for row in rows:
        labels = ["step", "step after prepare()", "C: step", "C: step after prepare"]
        a, b, c, d = (figure(row["results"].get(label, {}), "cpu") for label in labels)
        nbytes = row["bytes"] / 2 if find(row["case"]).net.vocab_size is None else 0
        least = nbytes / limits.bandwidth(row["bytes"])
        lines.append(
            [row["title"], *map(number, (a, b, c, d)), f"{b / a:.2f}", f"{100 * least / b:.0f} %" if nbytes else "–"]
        )
    header = [
        "µs (CPU time, least)",
        "step",
        "after prepare()",
        "C: step",
        "C: after prepare",
        "after ÷ plain",
        "of the limit",
    ]
    return "64 streams in turns; the time of prepare() is not in it.\n\n" + table(header, lines)


def python_section(results: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """What Python costs."""
    limits = Limits(results)
    lines = []
    for row in rows:
        given, fresh, c = (figure(row["results"][label], "cpu") for label in ("step(x, out=y)", "step(x)", "C"))
        cells = [number(t, 1e9) for t in (given, fresh, c, given - c, fresh - c)]
        lines.append([row["title"], *cells, f"{100 * limits.least(row)[0] / given:.0f} %"])
    header = [
        "ns (CPU time, least)",
        "step(x, out=y)",
        "step(x)",
        "gru_step in C",
        "Python with out",
        "Python without",
        "of the limit",
    ]
    return "A loop in Python around the call is in its time, some 10 ns.\n\n" + table(header, lines)


def threads_section(results: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """One thread and two."""
    lines = []
    for row in rows:
        one, two = (figure(row["results"].get(label, {}), "wall") for label in ("1 thread", "2 threads"))
        if one and two:
            lines.append([row["title"], number(one), number(two), f"{one / two:.2f}×"])
    if not lines:
        return "This machine has one processor."
    return "Both processors; another program on one of them makes two threads slower than one.\n\n" + table(
        ["µs (wall time, median)", "1 thread", "2 threads", "faster"], lines
    )


def load_section(results: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Loading."""
    labels = list(dict.fromkeys(label for row in rows for label in row["results"]))
    lines = []
    for label in labels:
        pairs = [row["results"].get(label, {}) for row in rows]
        lines.append([label, *(spelled(figure(result, clock)) for result in pairs for clock in ("cpu", "wall"))])
    sizes = [f"{find(row['case']).weight_bytes / 1e6:.3g} MB" for row in rows]
    header = [
        "From a file in the page cache",
        *(f"{size}, {clock} time" for size in sizes for clock in ("CPU", "wall")),
    ]
    return table(header, lines)


def memory_section(results: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Memory of processes."""
    lines = [
        [name, *(f"{result[what] / 1e6:.0f} MB" for what in ("file", "rss", "pss"))]
        for row in rows for name, result in row["results"].items() if "pss" in result
    ]  # fmt: skip
    note = (
        "Four processes load one file and take a step. What they have more than four that only imported the package, together: "
        "resident memory (every process's pages counted) and proportional (a page that n processes share counts 1/n in each)."
    )
    return f"{note}\n\n" + table(["", "file", "resident", "proportional"], lines)


def import_section(results: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Imports."""
    lines = [
        [name, number(result["cpu"], 1e3), number(result["wall"], 1e3)]
        for row in rows
        for name, result in row["results"].items()
    ]
    return "In a fresh process that has imported NumPy.\n\n" + table(
        ["ms", "CPU time, least", "wall time, median"], lines
    )


SECTIONS = {
    **dict.fromkeys(("batch", "sequence", "cold"), compared),
    "step": step_section,
    "real": real_section,
    "reduced": reduced_section,
    "latency": latency_section,
    "pool": pool_section,
    "prepare": prepare_section,
    "python": python_section,
    "threads": threads_section,
    "load": load_section,
    "memory": memory_section,
    "import": import_section,
}


# ---- README and plots

PICTURE = "![Time of a step over H, beside other runtimes](docs/plots/step.svg)"


def readme_table(results: dict[str, Any]) -> str:
    """The rows that README.md shows: chosen beforehand, whatever came out."""
    limits = Limits(results)
    lines = []
    for row in results["rows"]:
        if row["case"] not in IN_README:
            continue
        dtype = "int8" if row["group"] == "reduced" else "float32"
        result = race(row)
        if dtype == "int8":  # the peers have float32
            time, peer_and_time = figure(row["results"].get(dtype, {}), "cpu"), twin_race(results, row)
            result = (time, *peer_and_time) if time and peer_and_time else None
        if result:
            ours, peer, theirs = result
            title = {"step": "step, ", "batch": "batch step, ", "sequence": "sequence, ", "cold": "step, "}.get(
                row["group"], ""
            ) + row["title"]
            title += ", int8 weights" if dtype == "int8" else ""
            lines.append(
                [
                    title,
                    spelled(ours),
                    f"{spelled(theirs)} ({peer})",
                    f"{theirs / ours:.{0 if theirs > 10 * ours else 2}f}×",
                    f"{100 * limits.least(row, dtype)[0] / ours:.0f} %",
                ]
            )
    peers = ", ".join(name for name in results["versions"] if name != OURS)
    races = sum(1 for row in results["rows"] if row["group"] in COMPARED and race(row))
    lost = len({row["case"] for row, *_ in losses(results)})
    m = results["machine"]
    header = ["", "gru_engine", "fastest peer", "faster", "of the machine's limit"]
    numbers = ", ".join(map(str, m["family, model, stepping"]))
    note = (
        f"CPU time of one call from Python (with emptied caches wall time), float32 (peers also where ours is int8), one "
        f"thread, on {m['cpu']} (family, model, stepping {numbers}), "
        f"against {peers}. "
        f"A peer is faster in {lost} of {races} rows measured: "
        "[method, all rows and losses](docs/PERFORMANCE.md), made by `make bench`."
    )
    return "\n\n".join(text for text in (table(header, lines), note, preliminary(results), PICTURE) if text)


def plots(results: dict[str, Any]) -> dict[str, str]:
    """The drawings by name."""
    limits = Limits(results)
    found = {}
    rows = rows_of(results, "step")
    names = [
        name for name in results["versions"] if rows and any("cpu" in row["results"].get(name, {}) for row in rows)
    ]
    if rows:
        curves: dict[str, Any] = {name: [figure(row["results"].get(name, {}), "cpu") for row in rows] for name in names}
        curves["limit"] = [limits.least(row)[0] for row in rows]
        colours = svg.palette(list(curves), OURS, "limit")
        title = "One step of one stream, CPU time with the Python call"
        found["step"] = svg.lines(title, [row["title"].split()[-1] for row in rows], curves, "H = input size", colours)
    ratios = []
    for group in ("step", "real", "batch", "sequence", "cold"):
        for row in rows_of(results, group):
            result = race(row)
            if result:
                prefix = {"step": "step, ", "batch": "batch, ", "sequence": "sequence, "}.get(group, "")
                ratios.append(((prefix + row["title"]).split(";")[0][:52], result[2] / result[0], result[1]))
    if ratios:
        found["ratios"] = svg.bars("Faster than the fastest peer", ratios)
    for row in rows_of(results, "latency"):
        kinds = ("wall", "p99", "p99.9", "p99.99", "max")
        curves = {name: [result[kind] for kind in kinds] for name, result in row["results"].items() if "wall" in result}
        if curves:
            colours = svg.palette(list(curves), OURS, "limit")
            found["latency"] = svg.lines(
                "Steps at H = 128, wall time", ["median", "p99", "p99.9", "p99.99", "most"], curves, "", colours
            )
    return found
