# SPDX-License-Identifier: Apache-2.0
"""Runs the cases: one process per peer, rounds in which the peers take turns in a random order. Gives the results as one dict."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import machine, measure

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"

PEERS = "gru_engine numpy onnxruntime onnxruntime-io openvino tract ncnn jax torch torch-jit torch-compile".split()
OURS = "gru_engine"

NOT_MEASURED = {
    "LiteRT": "its format has no GRU operator, and its converters need TensorFlow or a second version of PyTorch",
    "RTNeural, xsimd": "C++ without Python, compiled for one network each",
}

# One thread, wherever a library asks; waiting threads sleep.
ENVIRONMENT = {
    **dict.fromkeys(
        ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC", "TORCHINDUCTOR_COMPILE_THREADS"], "1"
    ),
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "OPENVINO_TELEMETRY_OPT_OUT": "1",
}


@dataclass
class Plan:
    """How long everything is measured."""

    quick: bool
    rounds: int  # at most
    seconds: float  # per peer, case and round
    cold_steps: int
    latency_steps: int
    compile_groups: tuple[str, ...]  # where torch.compile, which compiles for seconds, takes part

    @classmethod
    def make(cls, quick: bool) -> Plan:
        """The short one or the full one."""
        if quick:
            return cls(True, 4, 0.015, 24, 20_000, ("step",))
        return cls(False, 12, 0.05, 96, 1_000_000, ("step", "batch"))


SETTLED_ROUNDS, SETTLED = 4, 0.995
"""A peer's figure stands when its least time after this many rounds is more than this fraction of what it was before them."""

SLOW_STEP = 8_000
"""Nanoseconds; a peer whose steps take longer is timed over a fifth of the steps."""


class Remote:
    """A peer's process, as the runner sees it. One that dies is started anew for the next case."""

    def __init__(self, name: str, cpu: int) -> None:
        self.name, self.cpu = name, cpu
        self.process: Any = None

    def __call__(self, *command: Any, timeout: float = 900) -> Any:
        """The answer to a command; {"unsupported": why} if the process died."""
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            from benchmarks import worker

            self.connection, theirs = context.Pipe()
            self.process = context.Process(target=worker.main, args=(theirs, self.name, self.cpu), daemon=True)
            self.process.start()
            theirs.close()
        try:
            self.connection.send(command)
            if self.connection.poll(timeout):
                return self.connection.recv()
            reason = f"no answer for {timeout:g} s"
        except (EOFError, ConnectionError):
            reason = "its process died"
        self.stop()
        return {"unsupported": reason}

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.connection.close()
            self.process.join(2)
            if self.process.is_alive():
                self.process.kill()
                self.process.join()
        self.process = None


class Runner:
    """A run of the benchmark."""

    def __init__(self, plan: Plan, groups: set[str], names: list[str], cpu: int) -> None:
        os.environ.update(ENVIRONMENT)
        self.plan, self.groups, self.cpu = plan, groups, cpu
        self.cpus = measure.usable_cpus()
        self.remotes = {name: Remote(name, cpu) for name in names}
        self.random = random.Random(0)
        self.rows: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        """Everything; the results."""
        from benchmarks.cases import CASES

        began = datetime.datetime.now(datetime.timezone.utc)
        load_before = machine.load_average()
        versions = self.versions()
        limits = self.limits()
        try:
            for case in CASES:
                if case.group in self.groups:
                    self.row(case)
        finally:
            for remote in self.remotes.values():
                remote.stop()
        limits = better(limits, self.limits())
        took = datetime.datetime.now(datetime.timezone.utc) - began
        preliminary = ["a quick run"] if self.plan.quick else []
        if load_before > 0.5:
            preliminary.append(f"the machine was busy: load average {load_before} at the start")
        return rounded(
            {
                "format": 1,
                "date": began.strftime("%Y-%m-%d %H:%M UTC"),
                "minutes": took.total_seconds() / 60,
                "preliminary": preliminary,
                "machine": machine.describe(self.cpu),
                "versions": versions,
                "plan": {
                    key: getattr(self.plan, key)
                    for key in ("quick", "rounds", "seconds", "cold_steps", "latency_steps")
                },
                "load_average": [load_before, machine.load_average()],
                "not_measured": NOT_MEASURED,
                "limits": limits,
                "rows": self.rows,
            }
        )

    def versions(self) -> dict[str, Any]:
        """Of the peers; those that cannot be imported are left out of the run."""
        found: dict[str, str] = {}
        for name in list(self.remotes):
            version = self.remotes[name]("version")
            if isinstance(version, str):
                found[name] = version
            else:
                click.echo(f"without {name}: {version['unsupported']}")
                del self.remotes[name]
        try:
            revision = subprocess.run(
                ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
            )
            changed = subprocess.run(
                ["git", "status", "--porcelain", "src_c", "gru_engine"], cwd=ROOT, capture_output=True, text=True
            )
            found[OURS] += f" ({revision.stdout.strip()}{' with changes' if changed.stdout.strip() else ''})"
        except (OSError, subprocess.CalledProcessError, KeyError):
            pass
        return found

    def limits(self) -> dict[str, Any]:
        """What limits.c measures."""
        program = compiled("limits", ["-std=gnu11"])
        return json.loads(self.pinned([program, "0.03" if self.plan.quick else "0.1"]))

    def pinned(self, command: list[str | Path]) -> str:
        """The output of a program that runs on the one processor."""
        code = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execv(sys.argv[2], sys.argv[2:])"
        run = subprocess.run(
            [sys.executable, "-S", "-c", code, str(self.cpu), *map(str, command)], capture_output=True, text=True
        )
        if run.returncode:
            raise RuntimeError(f"{command[0]}: {run.stderr.strip()}")
        return run.stdout

    # ---- rows

    def row(self, case: Any) -> None:
        """Measure a case and keep the row."""
        began = time.perf_counter()
        results = getattr(self, f"row_{case.group}", self.row_calls)(case)
        row = {"case": case.name, "group": case.group, "title": case.title, "results": results}
        if case.group not in ("load", "memory", "import"):
            if case.twin:
                row["twin"] = case.twin
            row |= {"batch": case.batch, "steps": case.steps, "bytes": case.weight_bytes, "flops": case.flops}
        self.rows.append(row)
        figures = []
        for label, result in results.items():
            if "cpu" in result:
                figures.append(f"{label} {time_text(result['cpu'])}")
            elif "wall" in result:
                figures.append(f"{label} {time_text(result['wall'])}")
            elif "pss" in result:
                figures.append(f"{label} {result['pss'] / 1e6:.0f} MB of {result['rss'] / 1e6:.0f} MB")
            elif "wrong" in result:
                figures.append(f"{label} WRONG by {result['wrong']:.1e}")
        click.echo(f"{case.name} ({time.perf_counter() - began:.0f} s): " + ", ".join(figures))

    def start(self, case: Any) -> dict[str, Any]:
        """Prepare the case in all processes; the peers that can do it have an error and may be measured."""
        results: dict[str, Any] = {}
        for name, remote in self.remotes.items():
            if name == "torch-compile" and case.group not in self.plan.compile_groups:
                results[name] = {"unsupported": "left out here to save time"}
            else:
                results[name] = remote("start", case.name)
        errors = ", ".join(f"{n} {r['error']:.0e}" for n, r in results.items() if "error" in r)
        click.echo(f"{case.name}: max abs error against the reference: {errors}")
        for name, result in results.items():
            if "wrong" in result:
                click.echo(f"{case.name}: {name} is off by {result['wrong']:.1e}: not measured")
        return results

    def turns(self, results: dict[str, Any]) -> list[str]:
        """The peers that are measured, in a random order."""
        names = [name for name, result in results.items() if "error" in result]
        self.random.shuffle(names)
        return names

    def row_calls(self, case: Any) -> dict[str, Any]:
        """Calls in blocks."""
        results = self.start(case)
        parts: dict[str, list[Any]] = {name: [] for name in results}
        for _ in range(self.plan.rounds):
            for name in self.turns(results):
                if settled(parts[name]):
                    continue
                part = self.remotes[name]("measure", self.plan.seconds)
                if "cpu" in part:
                    parts[name].append(part)
                else:
                    results[name] = part
        for name in self.turns(results):
            results[name] |= merged(parts[name])
        return results

    def row_cold(self, case: Any) -> dict[str, Any]:
        """Single steps by the wall clock."""
        results = self.start(case)
        times: dict[str, list[float]] = {name: [] for name in results}
        chunk = 12
        for _ in range(self.plan.cold_steps // chunk):
            for name in self.turns(results):
                part = self.remotes[name]("cold", case.how, chunk)
                if isinstance(part, dict):
                    results[name] = part
                else:
                    times[name] += part
        for name in self.turns(results):
            results[name]["wall"] = statistics.median(times[name])
            results[name]["wall_min"] = min(times[name])
        return results

    def row_latency(self, case: Any) -> dict[str, Any]:
        """Every step's time; slow peers take fewer steps."""
        results = self.start(case)
        times = {name: array("q") for name in results}
        for _ in range(10):
            for name in self.turns(results):
                n = self.plan.latency_steps // 10
                if times[name] and statistics.fmean(times[name]) > SLOW_STEP:
                    n //= 5
                part = self.remotes[name]("latencies", n)
                if isinstance(part, dict):
                    results[name] = part
                else:
                    times[name].frombytes(part)
        for name in self.turns(results):
            ordered = sorted(times[name])
            for what, share in (("wall", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)):
                results[name][what] = 1e-9 * ordered[int(share * (len(ordered) - 1))]
            results[name] |= {"max": 1e-9 * ordered[-1], "n": len(ordered)}
        return results

    def extra(self, name: str, *arguments: Any) -> dict[str, Any]:
        """A function of extras.py in a peer's process, its walls made medians."""
        if name not in self.remotes:
            return {}
        found = self.remotes[name]("extra", *arguments)
        if "unsupported" in found:
            return {name: found}
        return {label: condensed(part) for label, part in found.items()}

    @property
    def long(self) -> float:
        return self.plan.seconds * self.plan.rounds

    def row_pool(self, case: Any) -> dict[str, Any]:
        """The pool, and ONNX Runtime with an array of states."""
        ours = self.extra(OURS, "pool", case.name, 4 * self.long)
        return ours | self.extra("onnxruntime", "pool_of_arrays", case.name, 2 * self.long)

    def row_reduced(self, case: Any) -> dict[str, Any]:
        """This engine with weights of each type, and PyTorch's GRU of int8."""
        results = self.extra(OURS, "reduced", case.name, self.long, self.plan.cold_steps)
        if not case.how and "torch" in self.remotes:
            found = self.extra("torch", "torch_int8", case.name, self.long)
            results["torch, int8"] = found.get("torch, int8") or found["torch"]
        for label, result in results.items():
            if "wrong" in result:
                click.echo(f"{case.name}: {label} is off by {result['wrong']:.1e}: not measured")
        return results

    def row_prepare(self, case: Any) -> dict[str, Any]:
        """Steps with and without prepare(), from Python and from C."""
        results = self.extra(OURS, "prepare", case.name, 4 * self.long)
        c = self.c_step(case)
        return results | {
            "C: step": {"cpu": c["step of 64 streams"]},
            "C: step after prepare": {"cpu": c["after prepare"]},
        }

    def row_python(self, case: Any) -> dict[str, Any]:
        """Steps from Python and from C, in turns."""
        parts: dict[str, list[Any]] = {}
        c = 1.0
        for _ in range(4):
            c = min(c, self.c_step(case)["step"])
            for label, part in self.extra(OURS, "python", case.name, self.long).items():
                parts.setdefault(label, []).append({"cpu": part["cpu"], "wall": [part["wall"]]})
        return {label: merged(part) for label, part in parts.items()} | {"C": {"cpu": c}}

    def c_step(self, case: Any) -> dict[str, float]:
        """What c_step.c measures."""
        library = ROOT / "build" / "c" / "libgru_engine.a"
        if not library.exists():
            raise RuntimeError("build/c/libgru_engine.a is missing: make lib")
        program = compiled("c_step", ["-std=gnu11", f"-I{ROOT / 'src_c'}"], [library, "-lm", "-pthread"])
        with tempfile.TemporaryDirectory() as folder:
            path = self.remotes[OURS]("extra", "model_file", case.name, folder)
            return json.loads(self.pinned([program, path, str(self.long)]))

    def row_threads(self, case: Any) -> dict[str, Any]:
        """One thread and two."""
        if len(self.cpus) < 2:
            return {"2 threads": {"unsupported": "one processor"}}
        return self.extra(OURS, "threads", case.name, 4 * self.long, self.cpus)

    def row_load(self, case: Any) -> dict[str, Any]:
        """From a file in the page cache to a model that can step."""
        results: dict[str, Any] = {}
        for name in (OURS, "onnxruntime", "openvino", "tract"):
            if name in self.remotes:
                found = self.remotes[name]("load", case.name, 2 * self.long)
                results |= (
                    {name: found}
                    if "unsupported" in found
                    else {label: merged([part]) for label, part in found.items()}
                )
        return results

    def row_memory(self, case: Any) -> dict[str, Any]:
        """Resident and proportional memory."""
        names = [name for name in (OURS, "onnxruntime") if name in self.remotes]
        return {name: self.remotes[name]("extra", "memory", case.name, name) for name in names}

    def row_import(self, case: Any) -> dict[str, Any]:
        """Fresh processes, in turns."""
        from benchmarks.extras import IMPORTS, import_once

        parts: dict[str, list[Any]] = {name: [] for name in IMPORTS if name in self.remotes}
        for _ in range(3 if self.plan.quick else 6):
            for name, found in parts.items():
                part = import_once(IMPORTS[name], self.cpu)
                found.append({"cpu": part["cpu"], "wall": [part["wall"]]})
        return {name: merged(found) for name, found in parts.items()}


def compiled(name: str, flags: list[str], more: list[Any] = []) -> Path:  # noqa: B006
    """A C program of this folder, compiled."""
    BUILD.mkdir(parents=True, exist_ok=True)
    source, program = Path(__file__).with_name(f"{name}.c"), BUILD / name
    newest = max([source.stat().st_mtime, *(path.stat().st_mtime for path in more if isinstance(path, Path))])
    if not program.exists() or program.stat().st_mtime < newest:
        subprocess.run([os.environ.get("CC", "cc"), "-O3", *flags, source, "-o", program, *map(str, more)], check=True)
    return program


def settled(parts: list[Any]) -> bool:
    """Whether more rounds would hardly find a shorter CPU time: at least six were run, the last four brought little."""
    if len(parts) < SETTLED_ROUNDS + 2:
        return False
    before = min(part["cpu"] for part in parts[:-SETTLED_ROUNDS])
    return min(part["cpu"] for part in parts) > SETTLED * before


def merged(parts: list[Any]) -> dict[str, float]:
    """One result of several."""
    walls = [wall for part in parts for wall in part["wall"]]
    return {"cpu": min(part["cpu"] for part in parts), "wall": statistics.median(walls), "wall_min": min(walls)}


def condensed(part: dict[str, Any]) -> dict[str, Any]:
    """A result whose walls are made their median and their least; whatever else is in it stays."""
    walls = part.get("wall")
    return {**part, "wall": statistics.median(walls), "wall_min": min(walls)} if walls else part


def better(a: Any, b: Any) -> Any:
    """Of two measurements of the limits the higher figures."""
    if isinstance(a, dict):
        return {key: better(a[key], b[key]) for key in a}
    if isinstance(a, list):
        return [better(x, y) for x, y in zip(a, b)]
    return max(a, b)


def rounded(value: Any) -> Any:
    """Numbers with five digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def time_text(seconds: float) -> str:
    """With a unit."""
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"
