# SPDX-License-Identifier: Apache-2.0
"""The exceptions that are gru_engine's own."""


class FormatError(ValueError):
    """The bytes are no ``.gru`` file, or a damaged one, or one of a later version."""
