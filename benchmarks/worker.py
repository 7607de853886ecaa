# SPDX-License-Identifier: Apache-2.0
"""The process of one peer: pinned to one processor, it waits for commands and carries out one at a time."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TOLERANCE = 1e-5
"""Largest difference from the reference (float64) that a peer's outputs, which are between -1 and 1 or so, may have."""

TOLERANCES = {"float32": TOLERANCE, "bfloat16": 5e-3, "float16": 1e-3, "int8": 5e-2}
"""The same for weights of fewer bits: the reference has the weights as they were."""

ROUNDED_TOLERANCES = {**dict.fromkeys(TOLERANCES, TOLERANCE), "int8": 5e-3}
"""Against a reference that rounds as the engine does. With int8 an element of a state that lies between two integers may become
the other one in float64."""


def make(name: str) -> Any:
    """The peer of this name."""
    from benchmarks import peers, peers_numpy, peers_tensors

    for module in (peers, peers_numpy, peers_tensors):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, peers.Peer) and value.name == name:
                return value()
    raise ValueError(f"there is no peer named {name!r}")


class Worker:
    """What a peer's process can do. Every public method is a command; its result is sent back."""

    def __init__(self, name: str) -> None:
        self.peer = make(name)
        self.evict: Any = None

    def version(self) -> str:
        return self.peer.version()

    def start(self, name: str) -> dict[str, Any]:
        """Prepare a case and compare what comes out with the reference."""
        import numpy as np

        from benchmarks import measure
        from benchmarks.cases import find

        self.program = None  # the memory of the last one
        self.case = case = find(name)
        self.program = program = self.peer.program(case)
        error = float(np.abs(outputs(program, case) - reference(case)).max())
        if not error <= TOLERANCE:
            self.program = None
            return {"wrong": error}
        self.n = measure.calls_per_block(program.loop)
        return {"error": error, "calls_per_block": self.n}

    def measure(self, seconds: float) -> dict[str, Any]:
        from benchmarks import measure

        return measure.blocks(self.program.loop, self.n, seconds)

    def cold(self, how: str, n: int) -> list[float]:
        from benchmarks import measure

        if how == "evicted" and self.evict is None:
            self.evict = measure.Evictor()
        return measure.cold(self.program.call, how, n, self.evict)

    def latencies(self, n: int) -> bytes:
        from benchmarks import measure

        return measure.latencies(self.program.call, n).tobytes()

    def load(self, name: str, seconds: float) -> dict[str, Any]:
        """Time the ways to load a model."""
        from benchmarks import measure
        from benchmarks.cases import find

        with tempfile.TemporaryDirectory() as folder:
            loaders = self.peer.loaders(find(name), Path(folder))
            return {label: measure.once(loader, seconds) for label, loader in loaders.items()}

    def extra(self, what: str, *arguments: Any) -> Any:
        """A function of extras.py."""
        from benchmarks import extras

        return getattr(extras, what)(*arguments)

    def stop(self) -> None:
        self.program = None


def checked_inputs(case: Any) -> Any:
    """The inputs [T, B, ...] with which a program is compared with the reference: six steps or the whole sequence."""
    return case.inputs(6 if case.steps == 1 else case.steps)


def outputs(program: Any, case: Any) -> Any:
    """What a new program gives for these inputs, as [T, B, O]."""
    import numpy as np

    inputs = checked_inputs(case)
    if case.steps > 1:
        program.feed(inputs)
        program.call()
        return np.asarray(program.result())
    found = []
    for x in inputs:
        program.feed(x)
        program.call()
        found.append(np.array(program.result()))
    return np.asarray(found)


def reference(case: Any, dtype: str | None = None) -> Any:
    """What the reference gives for these inputs, as [T, B, O]; with a type, what it gives for weights rounded to it."""
    import numpy as np

    import gru_engine as ge

    y = ge.reference.run(case.net, np.moveaxis(checked_inputs(case), 0, 1), dtype=dtype)
    return np.moveaxis(y, 1, 0)


def main(connection: Connection, name: str, cpu: int) -> None:
    """Answer commands until the other side hangs up."""
    if not os.environ.get("GRU_BENCH_TALKATIVE"):  # what libraries print
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    os.sched_setaffinity(0, {cpu})
    sys.setswitchinterval(1)
    worker = None
    while True:
        try:
            command, *arguments = connection.recv()
        except EOFError:
            return
        try:
            worker = worker or Worker(name)
            connection.send(getattr(worker, command)(*arguments))
        except Exception as error:
            text = str(error) if type(error).__name__ == "Unsupported" else f"{type(error).__name__}: {error}"
            if os.environ.get("GRU_BENCH_TALKATIVE"):
                traceback.print_exc()
            text = re.sub(r"/[\w./-]*/", "", " ".join(text.split()))  # results name no folders
            connection.send({"unsupported": text[:300]})
