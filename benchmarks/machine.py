# SPDX-License-Identifier: Apache-2.0
"""What the results were measured on. No names of hosts, users or folders."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

FLAGS = (
    "fma avx2 avx_vnni avx512f avx512vl avx512bw avx512_vnni avx512_bf16 amx_int8 asimd asimddp bf16 i8mm sve".split()
)


def describe(cpu: int) -> dict[str, Any]:
    """The processor, its caches, the operating system, the compiler."""
    info = _cpuinfo()
    flags = info.get("flags", info.get("Features", "")).split()
    return {
        "cpu": info.get("model name", platform.machine()),
        "family, model, stepping": [
            int(info[key]) for key in ("cpu family", "model", "stepping") if info.get(key, "").isdigit()
        ],
        "architecture": platform.machine(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "virtual": "hypervisor" in flags,
        "caches": _caches(cpu),
        "memory_gigabytes": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "governor": _text(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"),
        "huge_pages": _text("/sys/kernel/mm/transparent_hugepage/enabled"),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "compiler": subprocess.run(["cc", "--version"], capture_output=True, text=True).stdout.splitlines()[0],
    }


def label(machine: dict[str, Any]) -> str:
    """A short name for files: the processor's."""
    words = re.sub(r"\(.*?\)|CPU|Processor|@.*", " ", machine["cpu"])
    numbers = machine["family, model, stepping"][:2]
    return "-".join([*re.findall(r"[a-z0-9]+", words.lower()), *map(str, numbers)])


def load_average() -> float:
    """How many processes want to run, over the last minute."""
    return round(os.getloadavg()[0], 2)


def _cpuinfo() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _caches(cpu: int) -> list[dict[str, Any]]:
    found = []
    for index in sorted(Path(f"/sys/devices/system/cpu/cpu{cpu}/cache").glob("index*")):
        kind, level, size = (_text(index / name) or "" for name in ("type", "level", "size"))
        if kind != "Instruction" and size.endswith("K"):
            found.append({"level": int(level), "bytes": 1024 * int(size[:-1])})
    return sorted(found, key=lambda cache: cache["level"])


def _text(path: str | Path) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
