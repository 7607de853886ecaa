# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests: the settings of hypothesis, and which tests can run here."""

import importlib.util

from hypothesis import settings

# Test time depends on the machine, the sanitizer and the instruction set, so no single example has a deadline.
settings.register_profile("gru_engine", settings(), deadline=None)
settings.load_profile("gru_engine")

# Comparison with the framework needs the framework; `make torch-test` installs it.
_torch = importlib.util.find_spec("torch")
collect_ignore = [] if _torch and _torch.origin else ["torch"]
