# SPDX-License-Identifier: Apache-2.0
"""How time is measured, in the process of a peer. docs/PERFORMANCE.md, section Method, says why."""

from __future__ import annotations

import gc
import os
import time
from array import array
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np

BLOCK_SECONDS = 400e-6
"""Shortest time that is measured in one piece."""


@contextmanager
def no_collection() -> Any:
    """Without the collector of garbage, which would run at moments of its own."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def calls_per_block(loop: Callable[[int], Any]) -> int:
    """How many calls take at least BLOCK_SECONDS, after some to warm up."""
    loop(2)
    n = 1
    while True:
        began = time.process_time()
        loop(n)
        took = time.process_time() - began
        if took >= BLOCK_SECONDS:
            return n
        n = max(n + 1, min(10 * n, int(1.1 * n * BLOCK_SECONDS / max(took, 1e-7))))


def blocks(loop: Callable[[int], Any], n: int, seconds: float) -> dict[str, Any]:
    """Blocks of n calls for so long, at least three: least CPU time of the process per call, and each block's wall time."""
    cpu_clock, clock = time.process_time_ns, time.perf_counter_ns
    cpu, wall = 1 << 62, []
    with no_collection():
        end = clock() + int(seconds * 0.2e9)
        loop(1)
        while clock() < end:  # another process had the caches
            loop(n)
        end = clock() + int(seconds * 1e9)
        while clock() < end or len(wall) < 3:
            began, cpu_began = clock(), cpu_clock()
            loop(n)
            took, cpu_took = clock() - began, cpu_clock() - cpu_began
            wall.append(1e-9 * took / n)
            cpu = min(cpu, cpu_took)
    return {"cpu": 1e-9 * cpu / n, "wall": wall}


class Evictor:
    """Memory that is larger than all caches; writing to it leaves nothing else in them."""

    def __init__(self, nbytes: int = 96 << 20) -> None:
        self.memory = np.zeros(nbytes // 4, np.float32)

    def __call__(self) -> None:
        self.memory += 1


def cold(call: Callable[[], Any], how: str, n: int, evict: Evictor | None) -> list[float]:
    """The wall time of n single calls, each after the caches were emptied ("evicted") or after a rest of 10 ms ("paced")."""
    times = []
    with no_collection():
        for _ in range(n):
            if how == "evicted":
                assert evict is not None
                evict()
            else:
                time.sleep(0.01)
            began = time.perf_counter_ns()
            call()
            times.append(1e-9 * (time.perf_counter_ns() - began))
    return times


def latencies(call: Callable[[], Any], n: int) -> array[int]:
    """The wall time of each of n calls one after the other, in nanoseconds, reading the clock included."""
    clock = time.perf_counter_ns
    times = array("q", bytes(8 * n))
    with no_collection():
        for i in range(n):
            began = clock()
            call()
            times[i] = clock() - began
    return times


def once(call: Callable[[], Any], seconds: float, least: int = 5) -> dict[str, Any]:
    """Single calls that take long, for so long: least CPU time and each wall time."""
    cpu, wall = 1e9, []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(wall) < least:
        began, cpu_began = time.perf_counter(), time.process_time()
        result = call()
        wall.append(time.perf_counter() - began)
        cpu = min(cpu, time.process_time() - cpu_began)
        del result
    return {"cpu": cpu, "wall": wall}


def usable_cpus() -> list[int]:
    """The processors that this process may use."""
    return sorted(os.sched_getaffinity(0))
