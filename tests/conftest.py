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

# Comparison with PyTorch needs PyTorch; `make torch-test` installs it. Where it is missing, `import torch` must fail and
# not find the folder tests/torch, which a path to this folder makes an importable name.
collect_ignore = []
_torch = importlib.util.find_spec("torch")
if _torch is None or _torch.origin is None:
    collect_ignore.append("torch")
    sys.modules["torch"] = None  # type: ignore[assignment]

# A check of a special build says where the package must come from, so that it cannot test another one by mistake.
if _place := os.environ.get("GRU_ENGINE_TESTED"):
    import gru_engine

    assert Path(_place).resolve() in Path(gru_engine.__file__).parents, f"{gru_engine.__file__} is not in {_place}"
