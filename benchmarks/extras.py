# SPDX-License-Identifier: Apache-2.0
"""What is not simply a case called again and again: pools, prepare, fewer bits, threads, memory, imports."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np

import gru_engine as ge
from benchmarks import measure, peers
from benchmarks.cases import find
from benchmarks.worker import ROUNDED_TOLERANCES, TOLERANCE, TOLERANCES, outputs, reference

# ---- in the process of a peer


def pool(name: str, seconds: float) -> dict[str, Any]:
    """This engine: a random subset of the streams, another one each time, and a pool that has no others."""
    case = find(name)
    model = peers.saved(case)
    x = case.inputs(1)[0]
    few, many = model.pool(case.batch), model.pool(10_000)
    rows = np.array([few.open() for _ in range(case.batch)])
    slots = np.array([many.open() for _ in range(10_000)])
    y = np.zeros((case.batch, model.output_size), np.float32)

    for one, chosen in ((few, rows), (many, slots[: case.batch])):
        _check(one.step(chosen, x), case, x)

    def contiguous(n: int) -> None:
        for _ in repeat(None, n):
            few.step(rows, x, out=y)

    subsets = cycle(_subsets(slots, case.batch))

    def scattered(n: int) -> None:
        for subset in islice(subsets, n):
            many.step(subset, x, out=y)

    return _in_turns({"contiguous 256": contiguous, "256 of 10 000": scattered}, seconds)


def pool_of_arrays(name: str, seconds: float) -> dict[str, Any]:
    """ONNX Runtime: the states of 10 000 streams in an array, from which rows are taken and into which they are put back."""
    case = find(name)
    session = peers._session(peers.onnx_file(case))
    x = case.inputs(1)
    states = np.zeros((10_000, case.net.output_size), np.float32)
    subsets = cycle(_subsets(np.arange(10_000), case.batch))
    _check(session.run(["n0"], {"x": x, "h0": states[: case.batch][None]})[0][0], case, x[0])

    def scattered(n: int) -> None:
        for subset in islice(subsets, n):
            states[subset] = session.run(["n0"], {"x": x, "h0": states[subset][None]})[0][0]

    return _in_turns({"onnxruntime, 256 of 10 000": scattered}, seconds)


def _check(y: np.ndarray, case: Any, x: np.ndarray) -> None:
    error = np.abs(y - ge.reference.step(case.net, x)[0]).max()
    if not error <= TOLERANCE:
        raise peers.Unsupported(f"wrong by {error:.1e}")


def _subsets(slots: np.ndarray, n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.choice(slots, n, replace=False) for _ in range(64)]


def _in_turns(loops: dict[str, Any], seconds: float, rounds: int = 3) -> dict[str, Any]:
    counts = {label: measure.calls_per_block(loop) for label, loop in loops.items()}
    found: dict[str, Any] = {}
    for _ in range(rounds):
        for label, loop in loops.items():
            part = measure.blocks(loop, counts[label], seconds / rounds)
            before = found.setdefault(label, {"cpu": 1.0, "wall": []})
            before["cpu"] = min(before["cpu"], part["cpu"])
            before["wall"] += part["wall"]
    return found


def prepare(name: str, seconds: float) -> dict[str, Any]:
    """Steps of 64 streams one after the other, with and without prepare() of all of them before (which is not timed)."""
    case = find(name)
    model = peers.saved(case)
    x: Any = case.inputs(1)[0][0]
    x = int(x) if case.net.vocab_size is not None else x
    y = np.zeros(model.output_size, np.float32)
    streams = [model.stream() for _ in range(64)]
    steps = [stream.step for stream in streams]
    found: dict[str, Any] = {"step": {"cpu": 1.0, "wall": []}, "step after prepare()": {"cpu": 1.0, "wall": []}}
    end = time.perf_counter() + seconds
    clock, cpu_clock = time.perf_counter_ns, time.thread_time_ns
    while time.perf_counter() < end:
        for label, result in found.items():
            wall = cpu = 0
            rounds = 0
            while cpu < 2 * measure.BLOCK_SECONDS * 1e9:
                if label != "step":
                    for stream in streams:
                        stream.prepare()
                began, cpu_began = clock(), cpu_clock()
                for step in steps:
                    step(x, out=y)
                cpu, wall, rounds = cpu + cpu_clock() - cpu_began, wall + clock() - began, rounds + 1
            result["cpu"] = min(result["cpu"], 1e-9 * cpu / rounds / len(streams))
            result["wall"].append(1e-9 * wall / rounds / len(streams))
    return found


def python(name: str, seconds: float) -> dict[str, Any]:
    """A step from Python: into a given array, and with a new array for each result."""
    case = find(name)
    program = peers.GruEngine().program(case)
    program.feed(case.inputs(1)[0])
    step, x = program.stream.step, program.x

    def fresh(n: int) -> None:
        for _ in repeat(None, n):
            step(x)

    return _in_turns({"step(x, out=y)": program.loop, "step(x)": fresh}, seconds)


def reduced(name: str, seconds: float, n_cold: int) -> dict[str, Any]:
    """This engine with weights of several types in turns, each first compared with the reference.

    "error" is the difference from the reference with the weights as they were, "rounded_error" from the one with rounded
    weights; "bytes" are those that a step reads.
    """
    case = find(name)
    exact = reference(case)
    programs: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for dtype in case.dtypes:
        program = peers.GruEngine().program(case, dtype)
        y = outputs(program, case)
        errors = [float(np.abs(y - wanted).max()) for wanted in (exact, reference(case, dtype))]
        found[dtype] = {"error": errors[0], "rounded_error": errors[1], "bytes": case.bytes_of(dtype)}
        if errors[0] <= TOLERANCES[dtype] and errors[1] <= ROUNDED_TOLERANCES[dtype]:
            programs[dtype] = program
        else:
            found[dtype]["wrong"] = errors[0]
    if case.how:
        evict = measure.Evictor() if case.how == "evicted" else None
        for _ in range(n_cold // 12):
            for dtype, program in programs.items():
                walls = measure.cold(program.call, case.how, 12, evict)
                found[dtype].setdefault("wall", []).extend(walls)
        return found
    times = _in_turns({dtype: program.loop for dtype, program in programs.items()}, seconds, rounds=5)
    return {dtype: result | times.get(dtype, {}) for dtype, result in found.items()}


def torch_int8(name: str, seconds: float) -> dict[str, Any]:
    """PyTorch's own GRU with int8 weights, quantised dynamically."""
    from benchmarks.peers_tensors import Torch

    case = find(name)
    program = Torch().program(case, "int8")
    error = float(np.abs(outputs(program, case) - reference(case)).max())
    if not error <= 2 * TOLERANCES["int8"]:  # one scale for a whole matrix, and seven bits of the input
        return {"torch, int8": {"error": error, "wrong": error}}
    return {"torch, int8": {"error": error} | _in_turns({"int8": program.loop}, seconds)["int8"]}


def model_file(name: str, folder: str) -> str:
    """Save the case's network."""
    path = Path(folder) / f"{name}.gru"
    find(name).net.save(path)
    return str(path)


def threads(name: str, seconds: float, cpus: list[int]) -> dict[str, Any]:
    """One and two threads in turns, not pinned to one processor; only the wall clock tells anything."""
    case = find(name)
    model = peers.saved(case)
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cpus))
    try:
        loops = {}
        for n in (1, 2):
            program = peers._EngineStream(model, n) if case.batch == 1 else peers._EnginePool(model, case, n)
            program.feed(case.inputs(1)[0])
            loops[f"{n} thread{'s' * (n > 1)}"] = program.loop
        return _in_turns(loops, seconds)
    finally:
        os.sched_setaffinity(0, pinned)


# ---- in processes of their own

LOADED = {
    "gru_engine": "import gru_engine as ge\nstep = ge.load(path).stream().step\nx = np.zeros(2048, np.float32)\nstep(x)",
    "onnxruntime": "import onnxruntime as ort\nsession = ort.InferenceSession(path)\n"
    "a = np.zeros((1, 1, 2048), np.float32)\nsession.run(None, {'x': a, 'h0': a})",
}


def memory(name: str, peer: str) -> dict[str, Any]:
    """Four processes that have each loaded the same file and taken a step: their memory, less that of four that only imported."""
    case = find(name)
    with tempfile.TemporaryDirectory() as folder:
        if peer == "gru_engine":
            path = model_file(name, folder)
        else:
            path = str(Path(folder) / "model.onnx")
            Path(path).write_bytes(peers.onnx_file(case))
        size = Path(path).stat().st_size
        with_model, without = (_four(peer, path, loaded) for loaded in (True, False))
    return {"file": size, **{what: with_model[what] - without[what] for what in with_model}}


def _four(peer: str, path: str, loaded: bool) -> dict[str, int]:
    action = LOADED[peer] if loaded else LOADED[peer].splitlines()[0]
    code = f"import sys, numpy as np\npath = sys.argv[1]\n{action}\nprint('ready', flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", code, path]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                 for _ in range(4)]  # fmt: skip
    total = {"rss": 0, "pss": 0}
    try:
        for process in processes:
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError("a process did not get ready")
        for process in processes:
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                what, *value = line.split()
                if what in ("Rss:", "Pss:"):
                    total[what[:3].lower()] += 1024 * int(value[0])
    finally:
        for process in processes:
            process.communicate()
    return total


IMPORTS = {
    "gru_engine": "gru_engine",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tract": "tract",
    "ncnn": "ncnn",
    "jax": "jax",
    "torch": "torch",
}


def import_once(module: str, cpu: int) -> dict[str, float]:
    """The time that `import module` takes in a fresh process that has imported NumPy."""
    code = (
        "import sys, os, time, numpy; os.sched_setaffinity(0, {int(sys.argv[2])})\n"
        "w, c = time.perf_counter(), time.process_time(); __import__(sys.argv[1])\n"
        "print(time.perf_counter() - w, time.process_time() - c)"
    )
    command = [sys.executable, "-c", code, module, str(cpu)]
    wall, used = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return {"wall": float(wall), "cpu": float(used)}
