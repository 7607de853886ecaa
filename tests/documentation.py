# SPDX-License-Identifier: Apache-2.0
"""The code in README.md and docs, for the tests that run it."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


def text_of(page: str) -> str:
    """A page, by its name below the repository."""
    return (ROOT / page).read_text(encoding="utf-8")


def python_blocks(page: str) -> list[str]:
    """The ``python`` blocks of a page, each behind as many empty lines as stand before it: tracebacks say its lines."""
    text = text_of(page)
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return ["\n" * text.count("\n", 0, match.start(1)) + textwrap.dedent(match[1]) for match in found]


def run_blocks(page: str) -> dict[str, Any]:
    """Run the blocks of a page one after the other, in the working directory; the names that they leave."""
    names: dict[str, Any] = {"__name__": page}
    for block in python_blocks(page):
        exec(compile(block, ROOT / page, "exec"), names)
    return names


def commands(page: str) -> list[str]:
    """The command lines of a page that call a tool of the repository; a backslash continues one."""
    text = re.sub(r"\\\n\s*", "", text_of(page))
    return [match[1].rstrip("`") for match in re.finditer(r"(python tools/[^`\n]+)", text)]
