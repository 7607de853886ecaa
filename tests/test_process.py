# SPDX-License-Identifier: Apache-2.0
"""What the engine does to its process: threads, memory, forks, the floating-point mode."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gru_engine as ge

from .helpers import assert_bits, bits, gru_network, uniform

WIDTH, HIDDEN = 5, 9
OUTPUTS = 5 + HIDDEN
VECTORS = ge.load(gru_network(np.random.default_rng(0), HIDDEN, WIDTH).tobytes())
X = uniform(np.random.default_rng(1), 1, 7, WIDTH)


# ---- threads


def big_model() -> ge.Model:
    """A model large enough that the GIL is released in a step, and a step takes a while."""
    net = gru_network(np.random.default_rng(0), 700, 300)
    return ge.load(net.tobytes())


def test_one_stream_from_two_threads_is_an_error() -> None:
    """Promise: a second thread in one Stream or Pool gets a RuntimeError, never a torn state."""
    model = big_model()
    stream, pool = model.stream(), model.pool(2)
    slots = np.array([pool.open(), pool.open()])
    x, xs = np.ones(300, np.float32), np.ones((2, 300), np.float32)
    for call, what in ((lambda: stream.step(x), "Stream"), (lambda: pool.step(slots, xs), "Pool")):
        counts, stop = {"done": 0, "refused": 0}, threading.Event()

        def work(call: Callable[[], Any] = call, counts: dict[str, int] = counts, stop: threading.Event = stop) -> None:
            done = refused = 0
            while not stop.is_set():
                try:
                    call()
                    done += 1
                except RuntimeError as error:
                    if "in use by another thread" not in str(error):
                        raise
                    refused += 1
                    stop.wait(1e-4)
                if done + refused > 20000 or counts["refused"]:
                    stop.set()
                if refused:
                    counts["refused"] += refused
            counts["done"] += done

        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
            assert not worker.is_alive(), f"{what}: deadlock"
        assert counts["refused"], f"{what}: two threads were never inside at once: {counts}"
        assert counts["done"]
    alone, steps = model.stream(), 0
    while steps < 20000 and not np.array_equal(bits(alone.state), bits(stream.state)):
        alone.step(x)
        steps += 1
    assert_bits(alone.state, stream.state, "the state is that of some number of whole steps")


def test_different_streams_work_in_parallel() -> None:
    """Promise: different streams of one model, and Model.run, may be used by threads at the same time."""
    model = big_model()
    xs = uniform(np.random.default_rng(1), 1, 4, 20, 300)
    wanted = [model.run(x) for x in xs]
    got: list[Any] = [None] * 4

    def work(i: int) -> None:
        stream = model.stream()
        got[i] = np.array([stream.step(x) for x in xs[i]]) if i % 2 else model.run(xs[i], threads=1 + i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    for i in range(4):
        assert_bits(got[i], wanted[i], f"thread {i}")


def test_an_exception_in_one_stream_changes_no_other() -> None:
    """Promise: refused calls leave every stream as it was and usable."""
    stream, other = VECTORS.stream(), VECTORS.stream()
    pool = VECTORS.pool(2)
    slots = [pool.open(), pool.open()]
    wanted = VECTORS.run(X)
    for t, x in enumerate(X):
        for bad in (None, np.zeros(3), "x"):
            with pytest.raises((TypeError, ValueError)):
                stream.step(bad)
            with pytest.raises((TypeError, ValueError)):
                pool.step(slots, [X[0], bad])
            with pytest.raises((TypeError, ValueError)):
                pool.step([0, 0], X[:2])
        assert_bits(stream.step(x), wanted[t], f"step {t}")
        assert_bits(other.step(x), wanted[t], f"the other, step {t}")
        assert_bits(pool.step(slots, [x, x]), np.array([wanted[t]] * 2), f"pool, step {t}")


# ---- what is left alone: memory, threads, the floating-point mode, other processes


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.measures
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")
def test_ten_thousand_streams_leave_memory_where_it_was() -> None:
    """Promise: streams, pools, models and results give their memory back: 10 000 opened, stepped and closed."""
    data = gru_network(np.random.default_rng(0), 64, WIDTH).tobytes()
    model = ge.load(data)

    def open_step_close(n: int) -> None:
        streams = [model.stream() for _ in range(n)]
        for stream in streams:
            stream.step(X[0])
            stream.state_bytes()
        pool = model.pool(n)
        slots = [pool.open() for _ in range(n)]
        pool.step(slots, np.broadcast_to(X[0], (n, WIDTH)))
        for slot in slots:
            pool.close(slot)
        for _ in range(n // 10):
            ge.load(data).run(X)
            with pytest.raises(ge.FormatError):
                ge.load(data[:-1])
            with pytest.raises(ValueError, match="x must have the shape"):
                streams[0].step(X)

    for _ in range(2):  # the allocator's own memory grows at first; tracemalloc's will be part of what is measured
        open_step_close(10_000)
    gc.collect()
    tracemalloc.start()
    try:
        pages, traced = resident_pages(), tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            open_step_close(10_000)
            gc.collect()
        more_pages, more_traced = resident_pages() - pages, tracemalloc.get_traced_memory()[0] - traced
    finally:
        tracemalloc.stop()
    state = 10_000 * 4 * (HIDDEN + 3 * 64)
    assert more_traced < 100_000, f"Python objects: {more_traced} bytes more"
    assert more_pages * os.sysconf("SC_PAGESIZE") < state, f"{more_pages} pages more after 30 000 streams"


def python(code: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a new interpreter that knows this package, with a time limit."""
    root = str(Path(ge.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-c", PREPARE + code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


PREPARE = """
import os, sys, threading
import numpy as np
def tasks():
    return len(os.listdir("/proc/self/task"))
def network(hidden=700, columns=300):
    rng = np.random.default_rng(0)
    net = ge.Network()
    weights = [rng.uniform(-0.1, 0.1, shape).astype("f") for shape in ((3 * hidden, columns), (3 * hidden, hidden))]
    net.output(net.gru(net.input(columns), *weights))
    return net
"""


def check_python(code: str, **environment: str) -> str:
    result = python(code, **environment)
    assert result.returncode == 0, f"{result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


linux_only = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc/self/task")


@pytest.mark.measures
@linux_only
def test_no_thread_at_import_or_by_one_thread_use() -> None:
    """Promise: importing and using it with one thread starts no thread; threads=2 does, and it sleeps afterwards."""
    output = check_python("""
import time
before = tasks()
import gru_engine as ge
assert (tasks(), threading.active_count()) == (before, 1), "import"
model = ge.load(network().tobytes())
stream, pool = model.stream(), model.pool(40)
slots = [pool.open() for _ in range(40)]
x = np.ones((40, 300), "f")
for _ in range(3):
    stream.step(x[0]); stream.prepare(); stream.run(x); pool.step(slots, x); pool.prepare(slots); model.run(x)
    model.run(x[:, None])
assert (tasks(), threading.active_count()) == (before, 1), "one thread"
model.run(np.ones((8, 5, 300), "f"), threads=2)
more, used = tasks() - before, time.process_time()
time.sleep(0.3)
print(more, ge.cpu_info()["threads"], time.process_time() - used)
""")
    more, has_threads, seconds = output.split()
    assert int(more) == (has_threads == "True")
    assert float(seconds) < 0.1, "the idle thread is spinning"


FORK = """
import time
import gru_engine as ge
model = ge.load(network(350, 50).tobytes())
x = np.ones((16, 20, 50), "f")
stream, pool = model.stream(threads=2), model.pool(16, threads=2)
slots = [pool.open() for _ in range(16)]
wanted = model.run(x, threads=2)
assert np.array_equal(stream.step(x[0, 0]), wanted[0, 0])
assert np.array_equal(pool.step(slots, x[:, 0]), wanted[:, 0])
child = os.fork()
if child == 0:
    right = False
    try:
        right = np.array_equal(model.run(x, threads=THREADS), wanted)
        right = right and np.array_equal(model.run(x[0], threads=THREADS), wanted[0])
        if THREADS > 1:
            right = right and np.array_equal(stream.step(x[0, 1]), wanted[0, 1])
            right = right and np.array_equal(pool.step(slots, x[:, 1]), wanted[:, 1])
        right = right and np.array_equal(model.stream(threads=THREADS).run(x[0]), wanted[0])
    finally:
        os._exit(0 if right else 1)
end = time.monotonic() + 20
while True:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        break
    if time.monotonic() > end:
        os.kill(child, 9)
        os.waitpid(child, 0)
        sys.exit("the child hangs")
    time.sleep(0.01)
assert status == 0, status
assert np.array_equal(model.run(x, threads=2), wanted), "the parent afterwards"
assert np.array_equal(stream.step(x[0, 1]), wanted[0, 1]), "the parent's stream afterwards"
"""


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_fork_after_use(threads: int) -> None:
    """Promise: a process that used threads can fork, and both go on with one thread or several, from the same states."""
    check_python(FORK.replace("THREADS", str(threads)))


def test_no_threads_to_be_had() -> None:
    """Promise: where no thread can be started the call fails with an exception, and the stream stays usable."""
    output = check_python("""
import resource
import gru_engine as ge
model = ge.load(network().tobytes())
x = np.ones((4, 300), "f")
wanted = model.run(x)
stream, pool = model.stream(threads=2), model.pool(40, threads=2)
slots = [pool.open() for _ in range(40)]
try:
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    if os.geteuid() == 0:
        os.setuid(65534)
    threading.Thread(target=len, args=("",)).start()
except (OSError, ValueError):
    print("threads cannot be forbidden here")
    sys.exit()
except RuntimeError:
    pass
for call in (lambda: stream.step(x[0]), lambda: stream.run(x), lambda: model.run(x, threads=2),
             lambda: pool.step(slots, np.broadcast_to(x[0], (40, 300)))):
    for _ in range(2):
        try:
            call()
        except (MemoryError, RuntimeError, OSError) as error:
            assert "in use" not in str(error), error
        else:
            sys.exit("no exception")
assert np.array_equal(model.run(x), wanted)
assert not stream.state.any() and not pool.get_state(0).any()
print("refused")
""")
    assert output.strip() in ("refused", "threads cannot be forbidden here")


def test_environment_variable_names_the_kernels() -> None:
    """Promise: GRU_ENGINE_ISA forces the kernels; an unknown name is an error that says what there is."""
    show = "import gru_engine as ge\nprint(ge.cpu_info()['used'])"
    for name in ge.cpu_info()["usable"]:
        assert check_python(show, GRU_ENGINE_ISA=name).strip() == name
    assert check_python(show, GRU_ENGINE_ISA="").strip() == ge.cpu_info()["usable"][-1]
    for name in ("sse9", "GENERIC", " "):
        result = python(show, GRU_ENGINE_ISA=name)
        assert result.returncode == 1
        message = (
            f"ImportError: the environment variable GRU_ENGINE_ISA is {name!r}; usable on this machine are 'generic'"
        )
        assert message in result.stderr


def test_floating_point_mode_stays() -> None:
    """Promise: subnormals are kept after import and use (no flush to zero), and NaN and overflow raise no signal."""
    check_python("""
import gru_engine as ge
tiny = np.float32(1e-45)
def subnormals():
    a = np.full(64, 1e-40, np.float32)
    return (a / np.float32(2)).all() and (a * np.float32(0.5)).all() and 5e-324 / 1 > 0 and float(tiny) > 0
assert subnormals(), "import"
model = ge.load(network(100, 50).tobytes())
for threads in (1, 2):
    model.run(np.full((8, 5, 50), np.nan, "f"), threads=threads)
    model.run(np.full((8, 5, 50), 3e38, "f"), threads=threads)
    stream = model.stream(); stream.step(np.full(50, np.inf, "f")); stream.prepare()
    assert subnormals(), f"{threads} threads"
""")


def test_import_is_light() -> None:
    """Promise: importing needs nothing but NumPy."""
    output = check_python("""
before = set(sys.modules)
import gru_engine
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
""")
    assert all(name in ("gru_engine", "numpy") or "cython" in name for name in output.split()), output
