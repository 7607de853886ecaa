# SPDX-License-Identifier: Apache-2.0
"""What README.md and docs show works as written: code, command lines, links."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine.export.words import parse

from .documentation import PAGES, ROOT, commands, python_blocks, run_blocks, text_of

ELSEWHERE = {"docs/export/ONNX.md", "docs/export/TORCH.md"}  # what needs a framework: tests/onnx, tests/torch


def check_readme(names: dict[str, Any], printed: str) -> None:
    assert names["p"].shape == (10,) and abs(names["p"].sum() - 1) < 1e-6
    assert Path("model.gru").exists()


def check_variants(names: dict[str, Any], printed: str) -> None:
    """What its cell computes is tested in test_cells.py."""
    assert ge.load("model.gru").output_size == 10 and callable(names["elman"])


def check_generation(names: dict[str, Any], printed: str) -> None:
    """What it prints is what it says that it prints; the second block continues where the first call ended."""
    lines = printed.splitlines()
    assert len(lines) == 4 and f"# {lines[0]}\n" in text_of("docs/GENERATION.md")
    whole = names["decoder"].stream(state=names["summary"]).generate(40, names["prompt"], seed=7)
    assert np.concatenate([names["a"], names["b"]]).tolist() == whole.tolist()


def prepare_arrays(rng: np.random.Generator) -> None:
    """A file of the names that docs/export/ARRAYS.md has for a model of 4 blocks."""
    shapes = {
        "gates/kernel": (4, 3, 6),
        "gates/bias": (24,),
        "deter/kernel": (8, 5),
        "deter/bias": (5,),
        "deter_norm/scale": (5,),
        "hidden/kernel": (4, 2 + 5 + 2048, 3),
        "hidden/bias": (12,),
        "hidden_norm/scale": (12,),
    }
    np.savez("rssm.npz", **{name: rng.normal(0, 0.3, shape) for name, shape in shapes.items()})


def check_arrays(names: dict[str, Any], printed: str) -> None:
    x = np.random.default_rng(2).normal(size=(3, 2048)).astype(np.float32)
    np.testing.assert_allclose(ge.load("rssm.gru").run(x), ge.reference.run(names["net"], x), rtol=0, atol=1e-5)


def prepare_keras(rng: np.random.Generator) -> None:
    for name, source in (("model", "graph"), ("tagger", "inputs")):
        Path(f"{name}.keras").write_bytes((ROOT / f"tests/data/keras/v3_{source}.keras").read_bytes())


def check_keras(names: dict[str, Any], printed: str) -> None:
    assert ge.load("model.gru").summary()
    assert names["y"].shape == (4,)


PREPARED: dict[str, Callable[[np.random.Generator], None]] = {
    "docs/export/ARRAYS.md": prepare_arrays,
    "docs/export/KERAS.md": prepare_keras,
}


def check_contexts(names: dict[str, Any], printed: str) -> None:
    assert names["model"].contexts == {"speaker": slice(0, 32)}
    assert len(names["translation"]) == 10
    assert names["y"].shape == (10,)


CHECKS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "README.md": check_readme,
    "docs/VARIANTS.md": check_variants,
    "docs/CONTEXTS.md": check_contexts,
    "docs/GENERATION.md": check_generation,
    "docs/export/ARRAYS.md": check_arrays,
    "docs/export/KERAS.md": check_keras,
}


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page) and page not in ELSEWHERE])
def test_code(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Promise: the code of a page runs from its top to its end, and does what the page says."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    PREPARED.get(page, lambda rng: None)(np.random.default_rng(0))
    names = run_blocks(page)
    CHECKS[page](names, capsys.readouterr().out)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_command_lines(page: str) -> None:
    """Promise: the tools of a page exist and have the options that it names; its chains of layers can be read."""
    for line in commands(page):
        arguments = shlex.split(line, comments=True)
        tool = ROOT / arguments[1]
        assert tool.exists(), line
        known = tool.read_text() + (ROOT / "gru_engine/export/command.py").read_text()
        for option in arguments:
            assert not option.startswith("--") or f'"{option}"' in known, (line, option)


@pytest.mark.parametrize("page", [page for page in PAGES if '--layers "' in text_of(page)])
def test_chains_of_layers(page: str) -> None:
    """Promise: every chain of layers that a page shows is one."""
    chains = re.findall(r'--layers "([^"]+)"', text_of(page))
    assert chains
    for chain in chains:
        assert parse(chain), chain


def anchors(page: Path) -> set[str]:
    """What a link may name behind ``#``: the headings, as the usual renderers write them."""
    outside = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = [line.lstrip("#").strip() for line in outside.splitlines() if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links(page: str) -> None:
    """Promise: what a page links to inside the repository is there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), f"{page} links to {target}, which is not there"
        assert not anchor or anchor in anchors(there), f"{page}: {path or page} has no heading #{anchor}"


def test_code_is_python() -> None:
    """Promise: no page shows code in a block of another kind: what the editor colours is what is run."""
    for page in PAGES:
        outside = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
        for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", outside, re.MULTILINE):
            if re.search(r"^    (?:import|from|def|net\.|with) ?", block, re.MULTILINE):
                with pytest.raises(SyntaxError):
                    ast.parse(re.sub(r"^    ", "", block, flags=re.MULTILINE))
