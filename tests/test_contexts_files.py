# SPDX-License-Identifier: Apache-2.0
"""Contexts in files: golden cases, and what is forged in a program that has them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import format
from gru_engine.__main__ import main

from .file_tools import edited_node, section, sign
from .helpers import assert_bits
from .random_networks import random_input
from .test_contexts import NETWORKS, decoder, kinds, made, random_context, starting, two_contexts
from .test_files import check_agreement, refused


@pytest.mark.parametrize("make", NETWORKS)
def test_golden_cases(make: Callable[..., ge.Network], tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Promise: a case keeps its context, and ``verify`` runs it with that."""
    net, rng = made(make), np.random.default_rng(12)
    x, c = random_input(rng, net, 6), random_context(rng, net)
    y = ge.reference.run(net, x, context=c)
    path = tmp_path / "context.gru"
    net.save(path, golden=[(x, y, 1e-5, c), (x[:1], None, 0.0, c * 2)])
    first, second = format.read(path).golden
    assert_bits(first.context, c, "the context")
    assert_bits(second.context, c * 2, "another one")
    assert_bits(first.engine.reshape(-1), ge.load(path).run(x, context=c).reshape(-1), "the engine's output")
    assert main(["verify", str(path)]) == 0
    assert "golden case 0: 6 steps, the bits of the export" in capsys.readouterr().out
    assert main(["info", str(path)]) == 0
    assert "contexts: " in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"golden\[0\]: context must be given"):
        net.tobytes(golden=[(x, y, 1e-5)])
    with pytest.raises(TypeError, match=r"golden\[0\] must be .*, got tuple of 5"):
        net.tobytes(golden=[(x, y, 1e-5, c, c)])


def test_golden_cases_byte_by_byte() -> None:
    """Promise: the blocks of docs/FORMAT.md, section 6; what is forged there is refused by name."""
    net, rng = made(decoder), np.random.default_rng(13)
    x, c = random_input(rng, net, 6), random_context(rng, net)
    data = net.tobytes(golden=[(x, None, 0.5, c)])
    start, size = section(data, 7)
    assert struct.unpack_from("<5IfIII", data, start) == (1 + 4, 6, 1, 6, 9, 0.5, 0, 0, 6)
    assert size == 64 + 64 + 64 + 256, "header, 6 tokens, 6 floats, 6 x 9 floats"
    assert data[start + 64 : start + 88] == x.astype("<i4").tobytes()
    assert data[start + 128 : start + 152] == c.astype("<f4").tobytes()
    for offset, value, message in (
        (0, 1, "kind at byte .* is 1, expected 5"),
        (32, 5, "context at byte .* is 5, expected 6"),
        (36, 1, "reserved_36"),
        (152, 1, r"golden case 0: byte \d+ of the padding is 1, expected 0"),
    ):
        changed = bytearray(data)
        struct.pack_into("<I", changed, start + offset, value)
        with pytest.raises(ge.FormatError, match=message):
            format.read(sign(bytes(changed)))


def test_forged_files() -> None:
    """Promise: both readers refuse contexts and SUMS that are none, or stand where they cannot; they agree on everything."""
    data = made(two_contexts).tobytes()
    names = kinds(data)
    sums, repeat, gru = names.index("Sums"), names.index("Sums") + 1, names.index("Gru")
    assert names[:3] == ["Input", "Context", "Context"]
    assert names[repeat] == "Repeat"
    name = struct.unpack_from("<I", data, section(data, 1)[0] + 20)[0]  # of the input
    edge = (section(data, 2)[0] - section(data, 1)[0]) // 4 * 4  # from the nodes to the edges
    first = struct.unpack_from("<I", data, section(data, 1)[0] + 128 * gru + 8)[0]
    for node, offset, value, message in (
        (1, 100, 0, r"NODES\[1\].parameters .* expected 4, where the inputs before end"),
        (1, 100, 2, r"NODES\[1\]"),
        (2, 96, 4, r"NODES\[2\].parameters .* expected 3, where the inputs before end"),
        (0, 100, 1, r"NODES\[0\].parameters .* expected an input of the steps before a context"),
        (1, 20, name, r"NODES\[1\].name .* expected another than an input's"),
        (2, 20, 0, r"NODES\[2\].name .* expected one for each input"),
        (sums, 96, 15, rf"NODES\[{sums}\]|SUMS of"),
        (sums, 100, 0, rf"NODES\[{sums}\].parameters .* 1 to 4 gates"),
        (sums, 100, 5, rf"NODES\[{sums}\].parameters .* 1 to 4 gates"),
        (sums, 4, 47, rf"NODES\[{sums}\].width .* expected 48"),
        (sums, 64, 2**32 - 1, rf"NODES\[{sums}\].tensors\[0\] is empty"),
        (repeat, 0, 6, rf"NODES\[{repeat}\] \(CONCAT\): input 0 is SUMS, with which only a GRU can begin"),
        (repeat, 0, 26, rf"NODES\[{repeat}\].operation .* is 26, expected 3 to 25"),
        (gru, 52, 3, rf"NODES\[{gru}\]"),
        (0, edge + 4 * first, 0, rf"NODES\[{gru}\] \(GRU\): of two inputs the first is TOKENS or SUMS"),
        (0, edge + 4 * first, sums, rf"NODES\[{gru}\] \(GRU\): reads a value per sequence where it cannot"),
    ):
        forged = edited_node(data, node, offset, value)
        with pytest.raises(ge.FormatError, match=message):
            format.read(forged)
        assert refused(forged), f"node {node}, offset {offset}, value {value}"
    data = made(starting).tobytes()
    names = kinds(data)
    gru, state = (len(names) - 1 - names[::-1].index(name) for name in ("Gru", "State"))
    for node, offset, value, message in (
        (gru, 96, 2, rf"NODES\[{gru}\].parameters .* 0 or 1, whether it starts from a value"),
        (gru, 96, 0, rf"NODES\[{gru}\]"),
        (state, 100, 2, rf"NODES\[{state}\].parameters .* 0 or 1, whether it starts from a value"),
        (state, 100, 0, rf"NODES\[{state}\]"),
        (state, 12, 0, r"NODES"),
        (gru, 92, 0, rf"NODES\[{gru}\].tensors\[7\] is 0, expected none"),
    ):
        forged = edited_node(data, node, offset, value)
        with pytest.raises(ge.FormatError, match=message):
            format.read(forged)
        assert refused(forged), f"node {node}, offset {offset}, value {value}"


@pytest.mark.parametrize("make", [two_contexts, starting])
def test_both_readers_agree(make: Callable[..., ge.Network]) -> None:
    """Promise: on every value of every field, and every edge."""
    data = made(make).tobytes()
    names = kinds(data)
    edge = (section(data, 2)[0] - section(data, 1)[0]) // 4 * 4
    for node in range(len(names)):
        for offset in range(0, 128, 4):
            for value in (0, 1, 2, 3, 16, 23, 25, 2**31, 2**32 - 1):
                check_agreement(edited_node(data, node, offset, value), f"node {node}, offset {offset}, value {value}")
    for i in range(section(data, 2)[1] // 4):
        for value in range(len(names)):
            check_agreement(edited_node(data, 0, edge + 4 * i, value), f"edge {i}, value {value}")
