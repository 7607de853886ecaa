# SPDX-License-Identifier: Apache-2.0
"""A real web server: gunicorn loads the model and uses threads in its master, then forks the workers that answer requests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import gru_engine as ge

from .helpers import Array, assert_bits, gru_network, uniform

config = pytest.importorskip("gunicorn.config")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

SEQUENCES, STEPS, WIDTH, HIDDEN = 6, 4, 50, 350
SECONDS = 60
"""How long anything may take; a fork that leaves a worker without its threads makes it wait for ever."""

APP = f"""
import os, time
from urllib.parse import parse_qs
import numpy as np
import gru_engine as ge

WIDTH, STEPS = {WIDTH}, {STEPS}
MASTER = os.getpid()

def tasks():
    return len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0

# In the master, before the workers are forked: the threads exist and have worked.
alone = tasks()
model = ge.load(os.environ["MODEL"])
stream, pool = model.stream(threads=2), model.pool({SEQUENCES}, threads=2)
slots = [pool.open() for _ in range({SEQUENCES})]
x = np.ones(({SEQUENCES}, STEPS, WIDTH), "f")
model.run(x, threads=2)
stream.run(x[0])
pool.step(slots, x[:, 0])
more = tasks() - alone

def app(environ, start_response):
    time.sleep(float(parse_qs(environ["QUERY_STRING"]).get("hold", ["0"])[0]))
    x = np.frombuffer(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])), "f").reshape(-1, STEPS, WIDTH)
    fresh = model.stream(threads=2)
    stream.reset()
    for slot in slots:
        pool.reset(slot)
    found = [
        model.run(x, threads=2),
        np.array([fresh.step(x_t) for x_t in x[0]])[None],
        stream.run(x[0])[None],
        np.stack([pool.step(slots, x_t) for x_t in x.transpose(1, 0, 2)], axis=1),
    ]
    headers = [("Content-Type", "application/octet-stream"), ("Pid", str(os.getpid())), ("Master", str(MASTER)),
               ("More-Threads", f"{{more}} {{tasks() - alone}}")]
    start_response("200 OK", headers)
    return [np.concatenate(found).tobytes()]
"""


class Server:
    """gunicorn with the app, preloaded, and two workers."""

    def __init__(self, folder: Path) -> None:
        net = gru_network(np.random.default_rng(0), HIDDEN, WIDTH)
        net.save(folder / "model.gru")
        self.model = ge.load(folder / "model.gru")
        (folder / "service.py").write_text(APP)
        path = os.pathsep.join(filter(None, [str(Path(ge.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]))
        self.log = folder / "log"
        command = "-m gunicorn --preload --workers 2 --bind 127.0.0.1:0 --timeout 60 --log-level info service:app"
        if any(setting.name == "control_socket_disable" for setting in config.KNOWN_SETTINGS):
            command += " --no-control-socket"  # it would stand in the user's home
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command.split()],
                cwd=folder,
                env={
                    **os.environ,
                    "PYTHONPATH": path,
                    "MODEL": str(folder / "model.gru"),
                    "OPENBLAS_NUM_THREADS": "1",  # so that the threads that are counted are this engine's
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self.url = ""

    def wait(self) -> None:
        """Until it listens."""
        end = time.monotonic() + SECONDS
        while not (found := re.search(r"Listening at: (http://\S+)", self.log.read_text())):
            assert self.process.poll() is None, f"gunicorn ended:\n{self.log.read_text()}"
            assert time.monotonic() < end, f"gunicorn does not listen:\n{self.log.read_text()}"
            time.sleep(0.02)
        self.url = found[1]

    def ask(self, x: Array, hold: float = 0) -> tuple[Array, dict[str, str]]:
        """Post an input; what comes back, and its headers."""
        with self.open(f"{self.url}/?hold={hold}", data=x.tobytes(), timeout=SECONDS) as answer:
            y = np.frombuffer(answer.read(), np.float32)
            return y.reshape(-1, STEPS, self.model.output_size), dict(answer.headers)

    def wanted(self, x: Array) -> Array:
        """What should come back, computed with one thread: a batch, its first sequence twice, and the batch again."""
        y = self.model.run(x)
        return np.concatenate([y, y[:1], y[:1], y])

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self.process.terminate()
        return self.process.wait(SECONDS)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    try:
        found.wait()
        yield found
    finally:
        if found.process.poll() is None:  # a worker that hangs does not see that its master has gone
            os.killpg(found.process.pid, signal.SIGKILL)
            found.process.wait()


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_preloaded_model_in_forked_workers(server: Server) -> None:
    """Promise: a model, a stream and a pool that used threads in gunicorn's master give the right bits in every worker it
    forks, with threads there too, and the master ends when it is told to, with all its workers."""
    rng = np.random.default_rng(1)
    workers: set[int] = set()
    end = time.monotonic() + SECONDS
    with ThreadPoolExecutor(4) as clients:
        while len(workers) < 2:
            assert time.monotonic() < end, f"one worker answers all requests: {workers}"
            inputs = [uniform(rng, 1, SEQUENCES, STEPS, WIDTH) for _ in range(4)]
            answers = list(clients.map(lambda x: server.ask(x, hold=0.1), inputs))  # so that both have something to do
            for x, (y, headers) in zip(inputs, answers):
                assert_bits(y, server.wanted(x), f"worker {headers['Pid']}")
                assert int(headers["Master"]) == server.process.pid != int(headers["Pid"])
                workers.add(int(headers["Pid"]))
                before_fork, now = map(int, headers["More-Threads"].split())
                if ge.cpu_info()["threads"] and Path("/proc/self/task").exists():
                    assert before_fork >= 1, "the master had no threads before it forked"
                    assert now >= 1, "the worker has no threads of its own"
    for _ in range(10):  # the same worker again and again
        x = uniform(rng, 1, SEQUENCES, STEPS, WIDTH)
        assert_bits(server.ask(x)[0], server.wanted(x), "one after the other")
    assert len(workers) == 2, workers
    status = server.stop()
    log = server.log.read_text()
    assert status == 0, f"exit status {status}\n{log}"
    assert not any(map(alive, workers)), f"workers survive the master\n{log}"
    assert not re.search(r"\[(WARNING|ERROR|CRITICAL)\]|Traceback", log), log
