# SPDX-License-Identifier: Apache-2.0
"""What exporters share about several inputs: random inputs, the check of an export, golden cases, graphs, meanings of axes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine.__main__ import main as command_line
from gru_engine.export import common, roles, traced
from gru_engine.export.common import ExportError
from gru_engine.export.graph import Graph, cat
from gru_engine.export.lowering import lower
from gru_engine.format import read

from .helpers import Array, gru_arrays, uniform
from .test_inputs import sound_and_speaker, three_vectors, two_tokens

NETWORKS = [sound_and_speaker, two_tokens, three_vectors]


# ---- the check of an export


@pytest.mark.parametrize("make", NETWORKS)
def test_random_inputs(make: Any) -> None:
    """Promise: what the network takes, all parts of the range, the same again for the same seed."""
    net = make()
    x = common.random_inputs(net, 4, 50, seed=3)
    assert isinstance(x, dict)
    assert list(x) == list(net.inputs)
    for name, part in net.inputs.items():
        if isinstance(part, slice):
            assert (x[name].dtype, x[name].shape) == (np.float32, (4, 50, part.stop - part.start))
            assert abs(x[name].mean()) < 0.3
            assert 0.7 < x[name].std() < 1.3
        else:
            assert x[name].shape == (4, 50)
            assert x[name].min() >= 0
            assert part.vocab_size - 30 < x[name].max() < part.vocab_size
    again = common.random_inputs(net, 4, 50, seed=3)
    assert all(np.array_equal(x[name], again[name]) for name in x)
    some = common.cut(x, slice(1, 3), slice(7))
    assert {name: array.shape[:2] for name, array in some.items()} == dict.fromkeys(x, (2, 7))


def test_the_inputs_of_one_are_what_they_were() -> None:
    """Promise: with one input they are an array, whatever its name."""
    for name in (None, "x"):
        net = ge.Network()
        net.output(net.affine(net.input(3, name=name), np.ones(3), np.zeros(3)))
        x = common.random_inputs(net, 2, 5)
        assert isinstance(x, np.ndarray)
        expected = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_saving(make: Any, dtype: str, tmp_path: Path) -> None:
    """Promise: reference, engine and framework are compared, and the file's golden cases have all inputs."""
    net = make()
    calls: list[Any] = []

    def framework(x: Any) -> Array:
        calls.append(x)
        return np.asarray(ge.reference.run(net, x, arithmetic=np.float32))

    comparisons = common.save(net, tmp_path / "m.gru", framework, dtype=dtype)
    assert [c.sides.partition(" and ")[0] for c in comparisons][:3] == ["engine", "float64 reference", "engine"]
    assert all(set(x) == set(net.inputs) for x in calls)
    file = read(tmp_path / "m.gru")
    assert [sorted(case.x) for case in file.golden] == [sorted(net.inputs)] * 2
    assert [len(next(iter(case.x.values()))) for case in file.golden] == [24, 5]
    for case in file.golden:
        got = ge.load(tmp_path / "m.gru").run(case.x)
        np.testing.assert_array_equal(got.reshape(case.engine.shape), case.engine)
        assert case.framework is not None
        assert np.abs(case.framework - case.engine).max() <= case.tolerance
    assert command_line(["verify", str(tmp_path / "m.gru")]) in (None, 0)


def test_a_framework_that_takes_inputs_for_each_other_is_found_out(tmp_path: Path) -> None:
    """Promise: nothing is written then."""
    net = ge.Network()
    a, b = net.input(3, name="a"), net.input(3, name="b")
    net.output(net.dense([a, b], uniform(np.random.default_rng(0), 1, 2, 6)))

    def swapped(x: Any) -> Array:
        return np.asarray(ge.reference.run(net, {"a": x["b"], "b": x["a"]}))

    with pytest.raises(ExportError, match="float64 reference and framework: difference"):
        common.save(net, tmp_path / "m.gru", swapped)
    assert not (tmp_path / "m.gru").exists()


# ---- graphs


def test_a_graph_with_several_inputs() -> None:
    """Promise: inputs in the order in which they were made, whichever is read first; one that is not read is left out."""
    rng = np.random.default_rng(0)
    graph = Graph()
    dims: Any = [("B",), ("T",)]
    x, unread = graph.source("input", [*dims, (4,)], "x"), graph.source("input", [*dims, (9,)], "unread")
    word = graph.source("tokens", dims, "word")
    z = graph.source("input", [*dims, (2,)], "z")
    E, W = uniform(rng, 1, 5, 3), uniform(rng, 1, 6, 7)
    arrays = gru_arrays(rng, 8, 6)
    joined = cat([graph.dense(cat([z, graph.embedding(word, E), x.take(2, slice(1, 3))], 2), W)], 2)
    gru = graph.gru(joined.ids, arrays, {}, None, "g")
    tail = graph.multiply(x.take(2, slice(0, 1)), z)  # a part of an input, before the next one was made
    net = lower(graph, [("h", gru.ids), ("tail", tail.ids)]).network
    assert list(net.inputs) == ["x", "word", "z"]
    assert graph.node_of(unread).name == "unread"
    v = common.random_inputs(net, 2, 6)
    assert isinstance(v, dict)
    hand = ge.Network()
    i = hand.input(7)
    hand.output(hand.gru(hand.dense(i, W), **arrays))
    features = np.concatenate([v["z"], E[v["word"]], v["x"][..., 1:3]], -1)
    y = ge.reference.run(net, v)
    np.testing.assert_allclose(y[..., :8], ge.reference.run(hand, features), atol=1e-12)
    np.testing.assert_allclose(y[..., 8:], v["x"][..., :1].astype(float) * v["z"], atol=1e-12)
    np.testing.assert_allclose(ge.load(net.tobytes()).run(v), y, atol=1e-5)


def test_tokens_that_nothing_looks_up_are_named() -> None:
    """Promise: the message says which."""
    graph = Graph()
    dims: Any = [("B",), ("T",)]
    word, other = graph.source("tokens", dims, "word"), graph.source("tokens", dims, "other")
    graph.embedding(word, np.ones((5, 3)))
    with pytest.raises(ExportError, match="the tokens 'word' are read with vocabularies of 5 and of 6"):
        graph.embedding(word, np.ones((6, 3)))
    ids = [("e", graph.embedding(word, np.ones((5, 3))).ids), ("o", other.ids)]
    with pytest.raises(ExportError, match="nothing looks the tokens 'other' up in a table"):
        lower(graph, ids)


# ---- what the axes mean


@pytest.mark.parametrize(
    ("layout", "shape", "candidates", "other", "expected"),
    [
        ("BTF", (2, 3, 6), ["BTF", "TBF", "BFT"], (2, 3, 4), ["BTF"]),
        ("BTF", (2, 3, 6), ["BTF", "TBF", "BFT"], (3, 2, 4), ["TBF"]),
        ("BTF", (2, 3, 6), ["BTF", "TBF", "BFT"], (2, 4, 3), ["BFT"]),
        ("TBF", (3, 3, 6), ["BTF", "TBF", "BFT"], (3, 3, 3), ["TBF", "BTF", "BFT"]),
        ("BTF", (2, 3, 6), ["BF", "TF", "BT", "TB"], (2, 3), ["BT"]),
        ("BTF", (2, 3, 6), ["BF", "TF", "BT", "TB"], (2, 5), []),
        ("BT", (2, 3), ["BTF", "TBF", "BFT"], (2, 3, 4), ["BTF"]),
        ("BTF", ("b", "t", 6), ["BTF", "TBF", "BFT"], ("b", "t", 4), ["BTF"]),
        ("BTF", ("b", "t", 6), ["BTF", "TBF", "BFT"], ("t", "b", 4), ["TBF"]),
        ("BTF", ("b", "t", 6), ["BTF", "TBF"], ("c", "s", 4), ["BTF", "TBF"]),
        ("BTF", ("b", 7, 6), ["BTF", "TBF", "BFT"], ("c", 7, 4), ["BTF"]),
        ("BTF", ("b", 7, 6), ["BTF", "TBF", "BFT"], ("c", 8, 4), []),
        ("BTF", ("b", "t", 6), ["BF", "BT"], ("b", 6), []),
        ("BTF", (None, 7, 6), ["BTF"], (None, None, 4), []),
        ("BTF", (2, 7, 6), ["BTF"], (None, 7, 4), []),
        ("TBF", ("b", "t", 6), ["BF", "BT", "TB"], ("b", 6), []),
        ("1TF", ("t", "b", 6), ["B", "T"], ("b",), []),
        ("BF", (2, 6), ["BF", "TF", "BT", "TB"], (2, 4), ["BF"]),
        ("1TF", (1, 3, 6), ["BTF", "1TF"], (1, 3, 4), ["1TF"]),
        ("BTF", (None, None, 6), ["BTF"], (None, None, 4), ["BTF"]),
    ],
)
def test_layouts_beside_another(
    layout: str, shape: Any, candidates: list[str], other: Any, expected: list[str]
) -> None:
    """Promise: batch and time agree with the first input's, and the likely layout comes first."""
    assert roles.beside(layout, shape, candidates, other) == expected


def test_axes_that_leave_no_doubt() -> None:
    """Promise: two axes of floats alone could be those of one step."""
    assert roles.certain([("BTF", True), ("BT", True)])
    assert roles.certain([("BT", False), ("BT", True)])
    assert not roles.certain([("BT", True), ("BT", True)])
    assert not roles.certain([("TF", True), ("T", False)])


def test_names_of_axes() -> None:
    """Promise: an unknown name is refused, with those that there are."""
    roles.named_axes({"a": "BTF"}, ["a", "b"])
    with pytest.raises(ExportError, match="axes: the model has no input 'c'; it has 'a', 'b'"):
        roles.named_axes({"a": "BTF", "c": "BT"}, ["a", "b"])
    with pytest.raises(ExportError, match="axes: no input is named"):
        roles.named_axes({}, ["a"])


def test_outputs_by_name_or_number() -> None:
    """Promise: a name is meant first, even one that is a number."""
    assert traced.selected(None, ["p", "q"]) is None
    assert traced.selected(["q", 0, "1"], ["p", "q"]) == [1, 0, 1]
    assert traced.selected(["1", 1], ["1", "0"]) == [0, 1]
    with pytest.raises(ExportError, match="outputs: the model has no output 'r'; it has p"):
        traced.selected(["r"], ["p", None])
