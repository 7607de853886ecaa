# SPDX-License-Identifier: Apache-2.0
"""Checks the package that is installed in an environment with nothing else, by that environment's interpreter.

It is complete, without sources and without line tracing, and the first Python example of README.md runs.
"""

import importlib.metadata
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def check_package() -> None:
    """Look at the package's files and watch a call into it."""
    import gru_engine

    folder = Path(gru_engine.__file__).parent
    assert Path(sys.prefix) in folder.parents, f"not the installed package: {folder}"
    assert gru_engine.__version__ == importlib.metadata.version("gru_engine"), gru_engine.__version__
    installed = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()}
    more = installed - {"gru_engine", "numpy", "pip", "setuptools"}
    assert not more, f"more than NumPy was installed: {more}"
    names = {path.name for path in folder.iterdir()}
    assert {"py.typed", "_core.pyi"} <= names, f"typing information is missing from {sorted(names)}"
    sources = [path for path in folder.rglob("*") if path.suffix in {".c", ".h", ".pyx", ".pxd", ".pxi"}]
    assert not sources, f"sources were installed: {sources}"

    seen = set()
    sys.setprofile(lambda frame, event, argument: seen.add(frame.f_code.co_filename))
    gru_engine.cpu_info()
    sys.setprofile(None)
    assert not any(name.endswith(".pyx") for name in seen), "the extension module was built with line tracing"


def run_example(root: Path) -> None:
    """Run the README's first Python block in a folder that shows the repository's files, but not the package's sources."""
    readme = (root / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert block, "README.md has no Python example"
    with tempfile.TemporaryDirectory() as folder:
        for path in root.iterdir():
            if not path.name.startswith(".") and path.name not in {"gru_engine", "build", "dist"}:
                Path(folder, path.name).symlink_to(path)
        script = Path(folder, "readme_example.py")
        script.write_text(block[1], encoding="utf-8")
        subprocess.run([sys.executable, "-W", "error", script], cwd=folder, check=True)


if __name__ == "__main__":
    check_package()
    run_example(Path(__file__).resolve().parent.parent)
    print("the package is complete and the example of README.md runs")
