# SPDX-License-Identifier: Apache-2.0
"""Exporters: one module per framework, each turning trained models into a ``gru_engine.Network``.

Nothing is imported here, so that no framework is needed but the one that is used.
"""
