# SPDX-License-Identifier: Apache-2.0
"""The C library and its example, as the Makefile builds them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gru_engine as ge

from .helpers import assert_bits
from .test_inputs import sound_and_speaker, three_vectors, two_tokens

ROOT = Path(__file__).parent.parent
OUT = ROOT / os.environ.get("OUT", "build/c")
GOLDEN = ROOT / "tests" / "data" / "golden_v1"
STEPS = 100

built = pytest.mark.skipif(
    not (OUT / "stream").exists(), reason=f"{OUT / 'stream'} was not built; `make test` builds it"
)


def stream(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([OUT / "stream", *map(str, arguments)], capture_output=True, text=True, timeout=60)


@built
@pytest.mark.parametrize("name", ["after", "before", "embedding", "embedding_with_features", "graph"])
def test_example_prints_what_python_computes(name: str) -> None:
    """Promise: the C example and Python give the same bits."""
    model = ge.load(GOLDEN / f"{name}.gru")
    steps = np.arange(STEPS)
    x = steps % model.vocab_size if model.vocab_size else np.sin(np.add.outer(steps, np.arange(model.input_size)))
    result = stream(GOLDEN / f"{name}.gru")
    assert (result.returncode, result.stderr) == (0, "")
    printed = np.array([[float(number) for number in line.split()] for line in result.stdout.splitlines()], np.float32)
    assert_bits(printed, model.run(x), name)


@built
@pytest.mark.parametrize("make", [sound_and_speaker, two_tokens, three_vectors])
def test_example_with_several_inputs(make: Callable[[], ge.Network], tmp_path: Path) -> None:
    """Promise: C finds several inputs where ``gru_get_input`` says."""
    net = make()
    net.save(tmp_path / "several.gru")
    steps = np.arange(STEPS)
    frames = np.sin(np.add.outer(steps, np.arange(net.input_size or 0)))
    x = {
        name: frames[:, part] if isinstance(part, slice) else steps % part.vocab_size
        for name, part in net.inputs.items()
    }
    result = stream(tmp_path / "several.gru")
    assert (result.returncode, result.stderr) == (0, "")
    printed = np.array([[float(number) for number in line.split()] for line in result.stdout.splitlines()], np.float32)
    assert_bits(printed, ge.load(tmp_path / "several.gru").run(x), make.__name__)


@built
def test_example_says_what_went_wrong(tmp_path: Path) -> None:
    """Promise: on an error the example prints the file, the library's message, and fails."""
    assert "usage: " in stream().stderr
    assert stream().returncode == 2
    damaged = tmp_path / "damaged.gru"
    damaged.write_bytes((GOLDEN / "after.gru").read_bytes()[:-1])
    for path, message in (
        (tmp_path / "missing.gru", "No such file"),
        (damaged, "the file has"),
        (tmp_path, "directory"),
        (GOLDEN / "bidirectional.gru", "later steps"),
    ):
        result = stream(path)
        assert (result.returncode, result.stdout) == (1, "")
        assert message in result.stderr, result.stderr
        assert result.stderr.startswith("stream: ")


@built
@pytest.mark.skipif(not shutil.which("nm"), reason="there is no nm")
@pytest.mark.parametrize(("library", "options"), [("libgru_engine.a", ["-g"]), ("libgru_engine.so", ["-D"])])
def test_library_exports_only_its_own_names(library: str, options: list[str]) -> None:
    """Promise: global names begin with gru_; the shared library has just those of gru_engine.h; neither prints or exits."""

    def names(which: str) -> set[str]:
        output = subprocess.run(
            ["nm", *options, which, OUT / library], capture_output=True, text=True, check=True
        ).stdout
        return {line.split()[-1] for line in output.splitlines() if line.strip() and not line.endswith(":")}

    defined = names("--defined-only")
    assert all(name.startswith("gru_") for name in defined), defined
    header = (ROOT / "src_c" / "gru_engine.h").read_text()
    public = {name for name in defined if f" {name}(" in header or f"*{name}(" in header}
    assert {"gru_open", "gru_step", "gru_run", "gru_close", "gru_isa_used"} <= public
    if library.endswith(".so"):
        assert defined == public
    forbidden = {
        "printf",
        "puts",
        "fprintf",
        "exit",
        "abort",
        "signal",
        "sigaction",
        "setlocale",
        "fesetround",
        "fesetenv",
    }
    used = {name.split("@")[0] for name in names("--undefined-only")}
    assert not used & forbidden, used & forbidden
