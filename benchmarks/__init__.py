# SPDX-License-Identifier: Apache-2.0
"""The benchmark: ``make bench``, or ``python -m benchmarks --help`` in an environment that has the peers."""
