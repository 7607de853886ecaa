# SPDX-License-Identifier: Apache-2.0
"""Which backend Keras computes with here: the smallest, unless the environment says otherwise."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
