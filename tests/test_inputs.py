# SPDX-License-Identifier: Apache-2.0
"""Networks with several inputs: vectors and tokens, given by name."""

from __future__ import annotations

import struct
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import format
from gru_engine.__main__ import main
from gru_engine.layers import Gru
from gru_engine.network import MAX_INPUTS
from gru_engine.records import OPERATIONS

from .file_tools import edited_node, section, sign
from .helpers import Array, assert_bits, each_isa, gru_arrays, token_network, uniform
from .random_networks import random_network
from .test_files import check_agreement, refused
from .test_random_networks import check_outputs

Named = dict[str, Array]


def sound_and_speaker() -> ge.Network:
    """A vector and a token; the embedding stands in front, where it can be folded."""
    rng = np.random.default_rng(1)
    net = ge.Network()
    sound, speaker = net.input(5, name="sound"), net.tokens(7, name="speaker")
    e = net.embedding(speaker, uniform(rng, 1, 7, 6))
    h = net.gru([e, sound], **gru_arrays(rng, 19, 11))
    net.output(net.dense([h, sound], uniform(rng, 0.2, 4, 24), activation="softmax"))
    return net


def two_tokens() -> ge.Network:
    """Two tokens: one folded in front, the other behind it, and as one-hot input."""
    rng = np.random.default_rng(2)
    net = ge.Network()
    a, b = net.tokens(9, name="a"), net.tokens(300, name="b")
    e, f = net.embedding(a, uniform(rng, 1, 9, 3)), net.embedding(b, uniform(rng, 1, 300, 8))
    h = net.gru([f, e], **gru_arrays(rng, 16, 11))
    net.output(net.dense(h, uniform(rng, 0.2, 5, 16)), "y")
    net.output(net.dense(b, uniform(rng, 1, 2, 300)), "one-hot")
    net.output(net.gru(a, **gru_arrays(rng, 4, 9)), "h")
    return net


def three_vectors() -> ge.Network:
    """Three vectors in another order than that in which they are read; one of them is an output as it is."""
    rng = np.random.default_rng(3)
    net = ge.Network()
    x, y, z = net.input(2, name="x"), net.input(17, name="y"), net.input(1, name="z")
    h = net.gru([z, x, y], **gru_arrays(rng, 33, 20))
    net.output(net.multiply(h, z), "scaled")
    net.output(net.add(y, net.dense(x, uniform(rng, 1, 17, 2))), "sum")
    net.output(y, "y")
    return net


NETWORKS = (sound_and_speaker, two_tokens, three_vectors)


def named_input(rng: np.random.Generator, net: ge.Network, *shape: int) -> Named:
    """Random inputs by name: float32 ``[*shape, width]`` and int32 ``shape``."""
    return {
        name: rng.normal(size=(*shape, part.stop - part.start)).astype(np.float32)
        if isinstance(part, slice)
        else rng.integers(0, part.vocab_size, shape).astype(np.int32)
        for name, part in net.inputs.items()
    }


def at(x: Named, *place: Any) -> Named:
    """Some streams or steps of all inputs."""
    return {name: array[place] for name, array in x.items()}


def check_all_ways(net: ge.Network, x: Named, what: str) -> None:
    """One run of a batch, a pool, streams step by step and in blocks, and threads: the same bits."""
    model = ge.load(net.tobytes())
    streams, steps = next(iter(x.values())).shape[:2]
    wanted, states = model.run(x, return_state=True)
    assert_bits(model.run(x, threads=3), wanted, f"{what}, threads")
    for i in range(streams):
        assert_bits(model.run(at(x, i)), wanted[i], f"{what}, sequence {i} alone")
    if not model.causal or model.per_sequence:
        return
    pool, stream, blocks = model.pool(streams), model.stream(), model.stream(threads=2)
    slots = [pool.open() for _ in range(streams)]
    order = np.random.default_rng(0).permutation(streams)
    y = np.full(model.output_size, np.nan, np.float32)
    for t in range(steps):
        got = pool.step(np.array(slots)[order], at(x, order, t))
        assert_bits(got, wanted[order, t], f"{what}, pool, step {t}")
        given = {name: value if value.ndim else int(value) for name, value in at(x, 0, t).items()}
        assert stream.step(given, out=y) is y
        assert_bits(y, wanted[0, t], f"{what}, step {t}")
    assert_bits(stream.state, states[0], f"{what}, state")
    middle = steps // 2
    for part in (slice(0, middle), slice(middle, steps)):
        assert_bits(blocks.run(at(x, 0, part)), wanted[0, part], f"{what}, block {part}")


# ---- bits, and the reference


@pytest.mark.parametrize("make", NETWORKS)
def test_every_way_to_run_gives_the_same_bits(make: Callable[[], ge.Network]) -> None:
    """Promise: step == run == pool == threads, on every instruction set."""
    net = make()
    x = named_input(np.random.default_rng(0), net, 5, 9)
    wanted = ge.load(net.tobytes()).run(x)
    for isa in each_isa():
        check_all_ways(net, x, isa)
        assert_bits(ge.load(net.tobytes()).run(x), wanted, f"{isa}, beside others")
        assert_bits(ge.load(net.tobytes(fold=False)).run(x), wanted, f"{isa}, not folded")
        assert_bits(ge.load(net.tobytes(fold=True)).run(x), wanted, f"{isa}, folded")


@pytest.mark.parametrize("seed", range(2000, 2060))
def test_random_networks(seed: int) -> None:
    """Promise: as with one input: near the reference, the same bits in every way, back from a file bit for bit."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=100, several=True, discontinuous=False)
    model, what = ge.load(net.tobytes()), f"seed {seed}, {net!r}"
    x = named_input(rng, net, 3, 20)
    options: dict[str, Any] = {"return_state": True, "lengths": rng.integers(1, 21, 3)}
    options["reset"] = rng.random((3, 20)) < 0.1
    check_outputs(net, model.run(x, **options), ge.reference.run(net, x, **options), what)
    check_all_ways(net, at(x, slice(None), slice(0, 7)), what)
    back = format.unpack(format.read(net.tobytes(fold=False)))
    assert back.same(net), what
    assert back.inputs == model.inputs == net.inputs, what
    assert format.unpack(format.read(net.tobytes(fold=True))).tobytes(fold=True) == net.tobytes(fold=True), what
    assert (model.input_size, model.vocab_size, model.outputs) == (net.input_size, net.vocab_size, net.outputs), what


def test_reference_steps() -> None:
    """Promise: ``reference.step`` takes the inputs of one stream, or of several, by name."""
    net = sound_and_speaker()
    x = named_input(np.random.default_rng(4), net, 3, 6)
    wanted, one, three = ge.reference.run(net, x), None, None
    for t in range(6):
        y, one = ge.reference.step(net, at(x, 0, t), one)
        np.testing.assert_allclose(y, wanted[0, t], rtol=1e-13)
        y, three = ge.reference.step(net, at(x, slice(None), t), three)
        np.testing.assert_allclose(y, wanted[:, t], rtol=1e-13)


def test_against_numpy() -> None:
    """Promise: each input is where it is read: checked by hand, without the reference."""
    net = three_vectors()
    x = named_input(np.random.default_rng(5), net, 4)
    model = ge.load(net.tobytes())
    y = model.run(x)
    assert_bits(y[:, model.outputs["y"]], x["y"], "the input y")
    W = net.layers[[layer.operation for layer in net.layers].index("dense")].arrays["W"]
    np.testing.assert_allclose(y[:, model.outputs["sum"]], x["y"] + x["x"] @ W.T, atol=1e-6)
    net = two_tokens()
    x = named_input(np.random.default_rng(6), net, 50)
    (one_hot,) = (layer for layer in net.layers if layer.operation == "dense" and layer.arrays["W"].shape == (2, 300))
    model = ge.load(net.tobytes())
    assert_bits(model.run(x)[:, model.outputs["one-hot"]], one_hot.arrays["W"].T[x["b"]], "the token b")


def test_only_vectors_may_come_as_one_array() -> None:
    """Promise: a model whose inputs are all vectors takes them side by side in one array as well."""
    net = three_vectors()
    model = ge.load(net.tobytes())
    x = named_input(np.random.default_rng(7), net, 2, 5)
    flat = np.concatenate(list(x.values()), axis=-1)
    wanted = model.run(x)
    assert_bits(model.run(flat), wanted, "run")
    assert_bits(model.run(flat[0]), wanted[0], "one sequence")
    assert_bits(model.stream().run(flat[0]), wanted[0], "Stream.run")
    assert_bits(model.stream().step(flat[0, 0]), wanted[0, 0], "Stream.step")
    assert_bits(model.stream().step(flat[0, 0].tolist()), wanted[0, 0], "Stream.step of a list")
    pool = model.pool(2)
    slots = [pool.open(), pool.open()]
    assert_bits(pool.step(slots, flat[:, 0]), wanted[:, 0], "Pool.step")
    np.testing.assert_array_equal(ge.reference.run(net, flat), ge.reference.run(net, x))
    np.testing.assert_array_equal(
        ge.reference.step(net, flat[:, 0])[0], ge.reference.step(net, at(x, slice(None), 0))[0]
    )
    with pytest.raises(ValueError, match=r"x must have the shape \(T, 20\) or \(B, T, 20\), got \(5, 19\)"):
        model.run(flat[0, :, 1:])
    with pytest.raises(ValueError, match=r"x must have the shape \[T, I\] or \[B, T, I\] with I = 20, got \[5, 19\]"):
        ge.reference.run(net, flat[0, :, 1:])


def test_what_a_step_takes() -> None:
    """Promise: anything that can be converted, in any mapping and any order, with out anywhere, even in an input."""
    net = sound_and_speaker()
    model = ge.load(net.tobytes())
    sound, wanted = (
        np.arange(5, dtype=np.float32) / 8,
        model.run({"sound": np.arange(5)[np.newaxis] / 8, "speaker": [3]})[0],
    )
    ways: list[Any] = [
        {"speaker": 3, "sound": sound},
        {"sound": sound.tolist(), "speaker": np.int64(3)},
        {"sound": sound.astype(np.float64), "speaker": np.array(3, np.uint8)},
        {"sound": np.repeat(sound, 2)[::2], "speaker": np.array(3)},
        types.MappingProxyType({"sound": sound, "speaker": 3}),
    ]
    for way in ways:
        assert_bits(model.stream().step(way), wanted, repr(way))
    shared = sound.copy()
    assert_bits(model.stream().step({"sound": shared, "speaker": 3}, out=shared[:4]), wanted, "out inside an input")
    assert_bits(shared[:4], wanted, "out")
    # Of an only input, too, and then nothing else changes.
    one = ge.load(token_network(np.random.default_rng(0), 5, 8).tobytes())
    assert one.inputs == {"": ge.TokenInput(5)}
    assert_bits(one.stream().step({"": 2}), one.stream().step(2), "an only token")
    assert_bits(one.run({"": [2, 3]}), one.run([2, 3]), "only tokens")
    net = ge.Network()
    net.output(net.affine(net.input(2, name="x"), [1, 2], [0, 1]))
    one = ge.load(net.tobytes())
    assert one.stream().step({"x": [3, 4]}).tolist() == [3, 9]
    assert one.run({"x": np.ones((1, 2), np.float32)}).tolist() == [[1, 3]]
    with pytest.raises(ValueError, match=r"x\['x'\] must have the shape \(2,\), got \(3,\)"):
        one.stream().step({"x": [3, 4, 5]})
    with pytest.raises(ValueError, match="x lacks the input 'x'; the inputs are 'x'"):
        one.run({})


def test_padding_may_hold_anything() -> None:
    """Promise: behind a sequence's end neither vectors nor tokens are looked at."""
    net = sound_and_speaker()
    model = ge.load(net.tobytes())
    x = named_input(np.random.default_rng(8), net, 2, 5)
    lengths = [2, 5]
    wanted = model.run(x, lengths=lengths)
    x["sound"][0, 2:], x["speaker"][0, 2:] = np.nan, -1
    assert_bits(model.run(x, lengths=lengths), wanted, "a batch")
    assert_bits(model.run(at(x, 0), lengths=2), wanted[0], "one sequence")
    np.testing.assert_allclose(ge.reference.run(net, x, lengths=lengths), wanted, atol=1e-6)


# ---- what is refused


BAD: tuple[tuple[Callable[[Named], Any], type[Exception], str], ...] = (
    (lambda x: {"sound": x["sound"]}, ValueError, "x lacks the input 'speaker'; the inputs are 'sound', 'speaker'"),
    (lambda x: {}, ValueError, "x lacks the input 'sound'"),
    (lambda x: {**x, "pitch": 1}, ValueError, "x has 'pitch', which is no input; the inputs are 'sound', 'speaker'"),
    (lambda x: {"sound": x["sound"], "Speaker": x["speaker"]}, ValueError, "x lacks the input 'speaker'"),
    (
        lambda x: x["sound"],
        TypeError,
        "x must be a dict with an entry for each of the inputs 'sound', 'speaker', got nd",
    ),
    (lambda x: x["speaker"].tolist(), TypeError, "x must be a dict with an entry for each of the inputs"),
    (lambda x: None, TypeError, "x must be a dict with an entry for each of the inputs .*, got NoneType"),
    (lambda x: {**x, "sound": x["sound"][..., :4]}, ValueError, r"x\['sound'\] must have the shape .*5.*, got .*4"),
    (lambda x: {**x, "sound": "loud"}, TypeError, r"x\['sound'\] must be an array of real numbers"),
    (lambda x: {**x, "speaker": x["speaker"] + 0.5}, TypeError, r"x\['speaker'\] must be integer tokens"),
    (lambda x: {**x, "speaker": x["speaker"] * 0 + 7}, ValueError, r"x\['speaker'\] must be (a )?tokens? from 0 to 6"),
    (lambda x: {**x, "speaker": x["speaker"] * 0 - 1}, ValueError, r"x\['speaker'\] must be (a )?tokens? from 0 to 6"),
    (lambda x: {**x, "speaker": x["speaker"][np.newaxis]}, ValueError, r"x\['(speaker|sound)'\] (must have|is for)"),
)


@pytest.mark.parametrize(("change", "kind", "message"), BAD, ids=[message[:40] for _, _, message in BAD])
def test_bad_input_is_refused_by_name(change: Callable[[Named], Any], kind: type[Exception], message: str) -> None:
    """Promise: the message names the input; nothing has been computed."""
    net = sound_and_speaker()
    model = ge.load(net.tobytes())
    x = named_input(np.random.default_rng(9), net, 2, 5)
    stream, pool = model.stream(), model.pool(2)
    slots = [pool.open(), pool.open()]
    state = stream.step(at(x, 0, 0)) is not None and stream.state
    calls: tuple[Callable[[], Any], ...] = (
        lambda: model.run(change(x)),
        lambda: model.run(change(at(x, 0))),
        lambda: stream.run(change(at(x, 0))),
        lambda: stream.step(change(at(x, 0, 0))),
        lambda: pool.step(slots, change(at(x, slice(None), 0))),
    )
    for call in calls:
        with pytest.raises(kind, match=message):
            call()
    assert_bits(stream.state, state, "the state")
    if "from 0 to 6" not in message and "real numbers" not in message:
        with pytest.raises(kind):
            ge.reference.run(net, change(x))


def test_inputs_of_different_length() -> None:
    """Promise: inputs for different numbers of steps are refused by name; so are too many rows for a pool."""
    model = ge.load(two_tokens().tobytes())
    with pytest.raises(
        ValueError, match=r"x\['b'\] is for streams and steps of the shape \(3,\), but x\['a'\] for \(2,\)"
    ):
        model.run({"a": [1, 2], "b": [1, 2, 3]})
    with pytest.raises(ValueError, match="x has inputs for streams and steps of different shapes"):
        ge.reference.run(two_tokens(), {"a": [1, 2], "b": [1, 2, 3]})
    pool = model.pool(1)
    with pytest.raises(ValueError, match=r"x must have a row for each of the 1 slots, got the shape \(2, 2\)"):
        pool.step([pool.open()], {"a": [1, 2], "b": [1, 2]})
    assert model.run({"a": [], "b": []}).shape == (0, model.output_size)
    assert model.run({"a": np.zeros((2, 0), int), "b": np.zeros((2, 0), int)}).shape == (2, 0, model.output_size)
    net = two_tokens()
    last = ge.Network()
    a, b = last.tokens(3, name="a"), last.input(2, name="b")
    last.output(last.last(last.concat([last.embedding(a, np.eye(3)), b])))
    with pytest.raises(ValueError, match=r"x has no steps, its shape is \(0, 2\)"):
        ge.load(last.tobytes()).run({"a": [], "b": np.zeros((0, 2))})
    assert ge.load(last.tobytes()).run({"a": [1], "b": [[5, 6]]}).tolist() == [0, 1, 0, 5, 6]
    assert net.vocab_size is None


def test_generation_is_refused() -> None:
    """Promise: only a model of one tokens input can generate tokens."""
    for net in (sound_and_speaker(), two_tokens(), three_vectors()):
        model = ge.load(net.tobytes())
        with pytest.raises(ValueError, match="only a model that reads one token per step, and nothing else"):
            model.stream().generate(3, 0)
        with pytest.raises(ValueError, match="only a model that reads one token per step, and nothing else"):
            ge.beam_search(model, None, 2, first=0, n=3)


# ---- networks


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda n: (n.input(2), n.input(3, name="b")),
            "each of several inputs needs a name, but the first, <Value 0.* has",
        ),
        (
            lambda n: (n.input(2, name="a"), n.tokens(3)),
            r"needs a name, but the tokens\(\) after <Value 0: input 'a'.* has",
        ),
        (lambda n: (n.input(2, name="a"), n.tokens(3, name="")), "each of several inputs needs a name"),
        (lambda n: (n.input(2, name="a"), n.tokens(3, name="a")), "there is already an input named 'a'; inputs: a"),
        (
            lambda n: (n.activation(n.input(2, name="a"), "tanh"), n.input(3, name="b")),
            r"input\(\) must come before all other layers; the network already has <Value 1: activate",
        ),
        (
            lambda n: (n.input(2**24, name="a"), n.input(1, name="b")),
            "the width of all inputs together must be from 1 to 16777216, got 16777217",
        ),
    ],
)
def test_networks_that_are_refused(build: Callable[[ge.Network], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(ge.Network())


def test_what_a_network_and_a_model_say() -> None:
    """Promise: inputs, sizes, summary and repr."""
    net = sound_and_speaker()
    model = ge.load(net.tobytes())
    for one in (net, model):
        assert one.inputs == {"sound": slice(0, 5), "speaker": ge.TokenInput(vocab_size=7)}
        assert list(one.inputs) == ["sound", "speaker"]
        assert (one.input_size, one.vocab_size) == (5, 7)
        assert "inputs: sound = [0:5], speaker = a token below 7\n" in one.summary()
    assert repr(net).startswith("<Network: input 5, tokens 7 -> y 4;")
    assert repr(model).startswith("<gru_engine.Model 5 floats and tokens below 7 -> 4 floats")
    model = ge.load(two_tokens().tobytes())
    assert (model.input_size, model.vocab_size) == (None, None), "no single vocabulary"
    assert repr(model).startswith("<gru_engine.Model 2 tokens -> ")
    assert model.inputs == {"a": ge.TokenInput(9), "b": ge.TokenInput(300)}
    assert (three_vectors().input_size, three_vectors().vocab_size) == (20, None)


def test_inputs_that_reach_no_output_stay() -> None:
    """Promise: whoever runs a network goes on giving all inputs; those that are not read change nothing."""
    net = ge.Network()
    a, _, c, _ = net.tokens(3, name="a"), net.input(2, name="b"), net.input(1, name="c"), net.tokens(4, name="d")
    net.dense(c, [[1]])
    net.output(net.add(net.embedding(a, [[1], [2], [3]]), c))
    assert list(net.pruned().inputs) == list("abcd")
    assert [layer.operation for layer in net.pruned().layers].count("dense") == 0
    model = ge.load(net.tobytes())
    assert model.inputs == net.inputs
    x = {"a": [2, 0], "b": np.full((2, 2), np.nan), "c": [[10], [20]], "d": [3, 3]}
    assert model.run(x).tolist() == ge.reference.run(net, x).tolist() == [[13], [21]]
    with pytest.raises(ValueError, match="x lacks the input 'd'"):
        model.run({name: x[name] for name in "abc"})
    with pytest.raises(ValueError, match=r"x\['d'\] must be tokens from 0 to 3, got 4 at \[1\]"):
        model.run({**x, "d": [3, 4]})


def test_same_looks_at_the_names_of_several_inputs() -> None:
    def build(*names: str | None) -> ge.Network:
        net = ge.Network()
        net.output(net.concat([net.input(2, name=name) for name in names]))
        return net

    assert build("a", "b").same(build("a", "b"))
    assert not build("a", "b").same(build("b", "a"))
    assert build("a").same(build(None)), "an only input is given without its name"


def test_folding_with_several_tokens() -> None:
    """Promise: the embedding in front is folded into a table, whichever token it is of; the others go on as vectors."""
    net = two_tokens()
    file = format.read(net.tobytes(fold=True))
    (gru, one_hot) = (node for node in file.nodes if node.kind is Gru)
    names = [file.nodes[i].name for i in gru.inputs]
    assert names[0] == "b"
    assert file.nodes[gru.inputs[1]].kind.__name__ == "Embedding"
    assert [file.nodes[i].name for i in one_hot.inputs] == ["a"]
    assert len(format.read(net.tobytes(fold=False)).nodes) == len(file.nodes) + 2


# ---- files


@pytest.mark.parametrize("make", NETWORKS)
def test_golden_cases(make: Callable[[], ge.Network], tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Promise: a case keeps all inputs by name, and ``verify`` runs them."""
    net = make()
    x = named_input(np.random.default_rng(10), net, 6)
    y = ge.reference.run(net, x)
    path = tmp_path / "several.gru"
    net.save(path, golden=[(x, y, 1e-5), (at(x, slice(0, 1)), None, 0.0)])
    first, second = format.read(path).golden
    assert isinstance(first.x, dict)
    assert isinstance(second.x, dict)
    assert list(first.x) == list(net.inputs)
    assert (first.steps, second.steps) == (6, 1)
    for name, array in x.items():
        assert first.x[name].dtype == array.dtype
        np.testing.assert_array_equal(first.x[name], array)
        np.testing.assert_array_equal(second.x[name], array[:1])
    assert_bits(first.engine, ge.load(path).run(x), "the engine's output")
    assert main(["verify", str(path)]) == 0
    assert "golden case 0: 6 steps, the bits of the export" in capsys.readouterr().out
    assert main(["info", str(path)]) == 0
    assert "inputs: " in capsys.readouterr().out


def test_golden_cases_byte_by_byte() -> None:
    """Promise: the blocks of docs/FORMAT.md, section 6; what is forged there is refused by name."""
    net = sound_and_speaker()
    x = named_input(np.random.default_rng(12), net, 6)
    data = net.tobytes(golden=[(x, None, 0.5)])
    start, size = section(data, 7)
    assert struct.unpack_from("<5IfII", data, start) == (2, 6, 5, 6, 4, 0.5, 0, 1)
    assert size == 64 + 128 + 64 + 128, "header, 6 x 5 floats, 6 tokens, 6 x 4 floats"
    assert data[start + 64 : start + 184] == x["sound"].astype("<f4").tobytes()
    assert data[start + 192 : start + 216] == x["speaker"].astype("<i4").tobytes()
    for offset, value, message in (
        (0, 0, "kind at byte .* is 0, expected 2"),
        (8, 4, "input_width at byte .* is 4, expected 5"),
        (28, 0, "tokens at byte .* is 0, expected 1"),
        (192, 7, "golden case 0: a token is not from 0 to 6"),
        (216, 1, r"golden case 0: byte \d+ of the padding is 1, expected 0"),
    ):
        changed = bytearray(data)
        struct.pack_into("<I", changed, start + offset, value)
        with pytest.raises(ge.FormatError, match=message):
            format.read(sign(bytes(changed)))
    tokens = two_tokens()
    x = named_input(np.random.default_rng(13), tokens, 3)
    data = tokens.tobytes(golden=[(x, None, 0.0)])
    start, _ = section(data, 7)
    assert struct.unpack_from("<3I", data, start) == (1, 3, 2)
    assert data[start + 64 : start + 88] == np.stack([x["a"], x["b"]], axis=1).astype("<i4").tobytes()


def test_golden_cases_that_are_refused() -> None:
    net = sound_and_speaker()
    x = named_input(np.random.default_rng(11), net, 6)
    for change, kind, message in (
        ({"sound": x["sound"]}, ValueError, r"golden\[0\]: x lacks the input 'speaker'"),
        ({**x, "z": 1}, ValueError, r"golden\[0\]: x has 'z', which is no input"),
        (x["sound"], TypeError, r"golden\[0\]: x must be a dict with an entry for each of the inputs"),
        (
            {**x, "sound": x["sound"][:, :3]},
            ValueError,
            r"golden\[0\]: x\['sound'\] must be an array \[T, 5\] with T > 0",
        ),
        ({**x, "speaker": x["sound"]}, ValueError, r"golden\[0\]: x\['speaker'\] must be integer tokens \[T\]"),
        (
            {**x, "speaker": x["speaker"][:3]},
            ValueError,
            r"golden\[0\]: x\['speaker'\] has 3 steps, x\['sound'\] has 6",
        ),
    ):
        with pytest.raises(kind, match=message):
            net.tobytes(golden=[(change, None, 0.0)])
    flat = three_vectors()
    (case,) = format.read(flat.tobytes(golden=[(np.ones((2, 20)), None, 0.0)])).golden
    assert isinstance(case.x, dict)
    assert case.x["y"].tolist() == np.ones((2, 17)).tolist()


def test_forged_inputs() -> None:
    """Promise: both readers refuse inputs that overlap, leave gaps, have no names of their own or come late."""
    data = sound_and_speaker().tobytes(fold=False)
    name = struct.unpack_from("<I", data, section(data, 1)[0] + 20)[0]  # of the first input
    for node, offset, value, message in (
        (0, 96, 1, r"NODES\[0\].parameters .* expected 0, where the inputs before end"),
        (1, 96, 1, r"NODES\[1\].parameters .* expected 0, where the inputs before end"),
        (1, 100, 1, r"NODES\[1\].parameters .* expected 0 for each that TOKENS does not use"),
        (1, 0, 1, r"NODES\[1\].parameters .* expected 5, where the inputs before end"),
        (1, 20, name, r"NODES\[1\].name .* expected one for each input"),
        (1, 20, 0, r"NODES\[1\].name .* expected one for each input"),
        (0, 20, 0, r"NODES\[1\].name .* expected one for each input"),
        (2, 0, 1, r"NODES\[2\]"),
        (3, 0, 1, rf"NODES\[3\].operation .* expected 3 to {len(OPERATIONS)}"),
        (3, 0, 2, rf"NODES\[3\].operation .* expected 3 to {len(OPERATIONS)}"),
    ):
        forged = edited_node(data, node, offset, value)
        with pytest.raises(ge.FormatError, match=message):
            format.read(forged)
        assert refused(forged), f"node {node}, offset {offset}, value {value}"
    for node in range(3):
        for offset in range(0, 128, 4):
            for value in (0, 1, 2, 3, 5, 7, 2**31, 2**32 - 1):
                check_agreement(edited_node(data, node, offset, value), f"node {node}, offset {offset}, value {value}")


def test_number_of_inputs() -> None:
    """Promise: there may be as many as docs/FORMAT.md says."""
    net = ge.Network()
    inputs = [net.input(1, name=str(i)) for i in range(MAX_INPUTS)]
    with pytest.raises(ValueError, match="a network has at most 4096 inputs"):
        net.input(1, name="one too many")
    net.output(net.add(inputs[0], inputs[-1]))
    model = ge.load(net.tobytes())
    assert len(model.inputs) == len(format.read(net.tobytes()).nodes) - 1 == MAX_INPUTS
    assert model.run(np.arange(MAX_INPUTS)[np.newaxis]).tolist() == [[MAX_INPUTS - 1]]
