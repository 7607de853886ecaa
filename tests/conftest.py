# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests: the settings of hypothesis, and which tests can run here."""

import importlib.util
import os
import sys
from pathlib import Path

from hypothesis import settings

# Test time depends on the machine, the sanitizer and the instruction set, so no single example has a deadline.
settings.register_profile("gru_engine", settings(), deadline=None)
settings.load_profile("gru_engine")

# Comparison with a framework needs the framework; `make torch-test`, `make onnx-test` install them. Where one is missing, its
# import must fail and not find the folder of its tests, which a path to this folder makes an importable name.
collect_ignore = []
for _name in ("torch", "onnx", "jax", "keras"):
    _framework = importlib.util.find_spec(_name)
    if _framework is None or _framework.origin is None:
        collect_ignore.append(_name)
        sys.modules[_name] = None  # type: ignore[assignment]

# A check of a special build says where the package must come from, so that it cannot test another one by mistake.
if _place := os.environ.get("GRU_ENGINE_TESTED"):
    import gru_engine

    assert Path(_place).resolve() in Path(gru_engine.__file__).parents, f"{gru_engine.__file__} is not in {_place}"
