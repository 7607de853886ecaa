# SPDX-License-Identifier: Apache-2.0
"""Command line: ``python -m gru_engine info FILE``, ``verify FILE``, ``cpu``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import numpy as np

import gru_engine as ge
from gru_engine.format import Golden, read
from gru_engine.precision import DTYPES


def info(path: str) -> int:
    """Print what a file contains."""
    model = ge.load(path)
    print(model.summary())
    file = read(path)
    for dtype in DTYPES:
        sizes = [tensor.data.nbytes for tensor in file.tensors if tensor.dtype == dtype]
        if sizes:
            print(f"{dtype}: {len(sizes)} tensor{'s' * (len(sizes) > 1)}, {sum(sizes)} bytes")
    print(f"golden cases: {len(file.golden)}")
    if model.metadata:
        print("metadata:", json.dumps(model.metadata, indent=2, ensure_ascii=False))
    return 0


def verify(path: str) -> int:
    """Check every byte of a file, then its golden cases with every set of kernels that this machine can run."""
    file = read(path)  # checksums, digest, structure: in NumPy
    model = ge.load(path)  # and in C
    print(f"{path}: {file.size} bytes, checksums and digest are right")
    failures = 0
    in_use = ge.cpu_info()["used"]
    for isa in ge.cpu_info()["usable"]:
        ge.set_isa(isa)
        failures += sum(_fails(model, case, f"{isa}, golden case {i}") for i, case in enumerate(file.golden))
    ge.set_isa(in_use)
    if not file.golden:
        print("it carries no golden cases: nothing but its integrity was checked")
    print("FAILED" if failures else "verified")
    return 1 if failures else 0


def _fails(model: ge.Model, case: Golden, name: str) -> bool:
    """Whether the engine gives other bits than when the file was made, or is too far from the framework."""
    y = model.run(case.x, context=case.context).reshape(case.engine.shape)
    same = np.array_equal(y.view(np.uint32), case.engine.view(np.uint32))
    text = "the bits of the export" if same else f"NOT the bits of the export, off by {_distance(y, case.engine):.3g}"
    far = False
    if case.framework is not None:
        error = _distance(y, case.framework)
        far = not error <= case.tolerance
        text += f"; {error:.3g} from the framework ({'above' if far else 'allowed'}: {case.tolerance:.3g})"
    print(f"  {name}: {case.steps} steps, {text}")
    return far or not same


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.abs(a.astype(np.float64) - b), initial=0.0))


def cpu() -> int:
    """Print which kernels there are and which are in use."""
    for key, value in ge.cpu_info().items():
        print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gru_engine", description="Look at .gru files and check them.")
    parser.add_argument("--version", action="version", version=ge.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (info, verify):
        sub = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        sub.add_argument("path", metavar="FILE")
    commands.add_parser("cpu", help=cpu.__doc__, description=cpu.__doc__)
    options = parser.parse_args(arguments)
    try:
        if options.command == "cpu":
            return cpu()
        return info(options.path) if options.command == "info" else verify(options.path)
    except (OSError, ge.FormatError) as error:
        where = "" if isinstance(error, OSError) or str(error).startswith(options.path) else f"{options.path}: "
        print(f"{parser.prog}: error: {where}{error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
