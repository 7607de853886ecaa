# SPDX-License-Identifier: Apache-2.0
"""Networks with contexts: what is folded, what is refused, what they say of themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import format
from gru_engine.layers import Context, Dense, Sums

from .test_contexts import kinds, made, two_contexts


def test_what_is_folded() -> None:
    """Promise: products of leading repeated values of GRUs with three gates; of all that reads nothing else."""
    net = made(two_contexts)
    folded, whole = net.tobytes(fold=True), net.tobytes(fold=False)
    assert net.tobytes() == folded
    assert kinds(folded).count("Sums") == 3, "in front, alone, in the loop; not behind the input"
    nodes = format.read(folded).nodes
    held = {i for i, node in enumerate(nodes) if node.kind is Context}
    for i, node in enumerate(nodes):
        if node.inputs and node.per_sequence and held.issuperset(node.inputs):
            held.add(i)
    assert [node.kind.__name__ for i, node in enumerate(nodes) if node.kind in (Dense, Sums) and i in held].count(
        "Dense"
    ) == 2, "the one of repeated values, too"
    assert len(folded) < 1.05 * len(whole) + 3000
    first = [node.kind.__name__ for node in nodes][:3]
    assert first == ["Input", "Context", "Context"], "contexts behind the inputs"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda n: (n.context(2), n.context(3, name="b")),
            "each of several contexts needs a name, but the first, <Value 0.* has none",
        ),
        (
            lambda n: (n.context(2, name="a"), n.context(3)),
            r"needs a name, but the context\(\) after <Value 0.* has none",
        ),
        (lambda n: (n.context(2, name="a"), n.input(3, name="a")), "there is already a context named 'a'; inputs: a"),
        (lambda n: (n.tokens(2, name="a"), n.context(3, name="a")), "there is already an input named 'a'; inputs: a"),
        (
            lambda n: (n.activation(n.input(2), "tanh"), n.context(3)),
            r"context\(\) must come before all other layers; the network already has <Value 1: activate",
        ),
        (
            lambda n: (n.context(2**24, name="a"), n.context(1, name="b")),
            "the width of all contexts together must be from 1 to 16777216, got 16777217",
        ),
        (lambda n: n.output(n.context(2)) or n.pruned(), "the network has no input of its steps"),
        (lambda n: n.add(n.input(2), n.context(2)), "is one value per time step, but .* is one per sequence"),
        (lambda n: n.gru(n.context(2), np.ones((3, 2)), np.ones((3, 1))), "gru: x is one value per sequence"),
        (lambda n: n.repeat(n.input(2, name="a"), like=n.input(3, name="b")), "repeat: v is one value per time step"),
        (lambda n: n.repeat(n.context(2, name="a"), like=n.context(3, name="b")), "repeat: like is one value per seq"),
    ],
)
def test_networks_that_are_refused(build: Callable[[ge.Network], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(ge.Network())


def test_what_a_network_and_a_model_say() -> None:
    net = made(two_contexts)
    model = ge.load(net.tobytes())
    for one in (net, model):
        assert one.contexts == {"a": slice(0, 3), "b": slice(3, 36)}
        assert one.inputs == {"x": slice(0, 4)}
        assert (one.input_size, one.context_size, one.causal, one.per_sequence) == (4, 36, True, False)
        assert "contexts: a = [0:3], b = [3:36]\n" in one.summary()
    assert repr(net).startswith("<Network: context 3, input 4, context 33 -> ")
    assert repr(model).startswith("<gru_engine.Model 4 floats, context of 36 -> 5 floats")
    named, unnamed, again = ge.Network(), ge.Network(), ge.Network()
    for each, names in ((named, ("a", "b")), (unnamed, ("b", "a")), (again, ("a", "b"))):
        c = [each.context(2, name=name) for name in names]
        x = each.input(1)
        each.output(each.repeat(each.add(*c), like=x))
    assert named.same(again)
    assert not named.same(unnamed), "the names of several contexts"


def test_contexts_that_reach_no_output_stay() -> None:
    """Promise: whoever runs a network goes on giving them."""
    net = ge.Network()
    c, x = net.context(2, name="c"), net.input(1)
    net.context(1, name="d")
    net.dense(c, np.ones((3, 2)))
    net.output(net.add(x, net.repeat(c[1:], like=x)))
    model = ge.load(net.tobytes())
    assert list(model.contexts) == ["c", "d"]
    assert kinds(net.tobytes()) == ["Input", "Context", "Context", "Slice", "Repeat", "Add"]
    assert model.run([[1], [2]], context=[5, 7, np.nan]).tolist() == [[8], [9]]
