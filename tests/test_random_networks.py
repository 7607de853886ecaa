# SPDX-License-Identifier: Apache-2.0
"""Random networks: what they are, against the float64 reference, and through the file format and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import format, reference
from gru_engine.activations import NAMES, Activation
from gru_engine.layers import Activate, Attention, Gru, Input, Norm, Repeat, State, Window
from gru_engine.records import OPERATIONS

from .helpers import Array, assert_bits, uniform
from .random_networks import random_input, random_network

STEPS = 50
TOLERANCE = 2e-6  # of the largest magnitude that the reference has in the same output, or in the state


def assert_close(got: Array, wanted: Array, what: str) -> None:
    """The largest absolute error is at most TOLERANCE times the largest magnitude; where that is 0, there is no error.

    The values inside a random network are of the order of 1: of an output that is far smaller, all of it, as the last value
    of a GRU of one unit may be, the magnitude is taken to be 1/16.
    """
    assert np.isfinite(wanted).all(), f"{what}: the reference is not finite"
    error, magnitude = np.abs(got - wanted).max(initial=0), np.abs(wanted).max(initial=0)
    assert error <= (TOLERANCE * max(magnitude, 1 / 16) if magnitude else 0), (
        f"{what}: error {error:g} at the magnitude {magnitude:g}"
    )


def check_outputs(net: ge.Network, got: Any, wanted: Any, what: str) -> None:
    """Each output by itself, and the state."""
    (y, state), (y_wanted, state_wanted) = got, wanted
    assert y.shape == y_wanted.shape
    assert state.shape == state_wanted.shape
    for name, part in net.outputs.items():
        assert_close(y[..., part], y_wanted[..., part], f"{what}: output {name!r}")
    assert_close(state, state_wanted, f"{what}: state")


def random_options(rng: np.random.Generator, net: ge.Network, streams: int) -> dict[str, Any]:
    """Lengths, resets, states and padding, each of them in about half of the cases."""
    options: dict[str, Any] = {"return_state": True, "padding": str(rng.choice(["zero", "carry"]))}
    if rng.random() < 0.5:
        options["lengths"] = rng.integers(1 if net.per_sequence else 0, STEPS + 1, streams)
        options["lengths"][0] = STEPS
    if rng.random() < 0.5:
        options["reset"] = rng.random((streams, STEPS)) < 0.05
    if rng.random() < 0.5:
        options["state"] = uniform(rng, 1, streams, net.state_size)
    return options


@pytest.mark.parametrize("seed", range(200))
def test_against_the_reference(seed: int) -> None:
    """Promise: within 2e-6 of float64 over 50 steps, with and without lengths, resets, given states and a batch axis."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=300, discontinuous=False)
    model = ge.load(net.tobytes())
    x = random_input(rng, net, 3, STEPS)
    options = random_options(rng, net, len(x))
    what = f"seed {seed}, {net!r}, {sorted(options)}"
    wanted = ge.reference.run(net, x, **options)
    check_outputs(net, model.run(x, **options), wanted, what)
    if seed % 4 == 0:  # the first sequence without a batch axis
        single = {k: v[0] if isinstance(v, np.ndarray) else v for k, v in options.items()}
        check_outputs(net, model.run(x[0], **single), tuple(part[0] for part in wanted), f"{what}, alone")
    assert (model.input_size, model.vocab_size, model.output_size) == (net.input_size, net.vocab_size, net.output_size)
    assert (model.outputs, model.state_size) == (net.outputs, net.state_size)
    assert (model.causal, model.per_sequence) == (net.causal, net.per_sequence)


@pytest.mark.parametrize("seed", range(500, 512))
def test_steps_against_the_reference(seed: int) -> None:
    """Promise: stepping follows ``reference.step``, one stream and several."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=60, allow_reverse=False, discontinuous=False)
    model = ge.load(net.tobytes())
    xs = random_input(rng, net, 3, 20)
    pool, state = model.pool(3), np.tile(net.initial_state, (3, 1))
    slots = [pool.open() for _ in range(3)]
    for t in range(xs.shape[1]):
        wanted, state = ge.reference.step(net, xs[:, t], state)
        got = pool.step(slots, xs[:, t])
        what = f"seed {seed}, {net!r}, step {t}"
        check_outputs(net, (got, np.array([pool.get_state(slot) for slot in slots])), (wanted, state), what)


@pytest.mark.parametrize("seed", range(200))
def test_round_trip_through_a_file(seed: int) -> None:
    """Promise: a float32 network comes back from its file bit for bit, and makes the same file again."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=100)
    data = net.tobytes(fold=False, metadata={"note": "Ünïcode", "list": [1, 2.5, None, True]})
    back = format.unpack(format.read(data))
    assert back.same(net), f"seed {seed}, {net!r}"
    assert back.metadata == {**net.metadata, "note": "Ünïcode", "list": [1, 2.5, None, True]}
    assert ge.load(data).metadata == back.metadata
    assert back.tobytes(fold=False) == data, f"seed {seed}, {net!r}"


@pytest.mark.parametrize("seed", range(600, 620))
def test_round_trip_of_folded_embeddings(seed: int) -> None:
    """Promise: the network that stands for one with folded embeddings gives the same bits."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=24, tokens=True)
    data = net.tobytes(fold=True)
    back = format.unpack(format.read(data))
    x = random_input(rng, net, 2, 30)
    wanted = ge.load(data).run(x)
    assert_bits(ge.load(back.tobytes(fold=True)).run(x), wanted, f"seed {seed}, {net!r}, folded again")
    assert_bits(ge.load(back.tobytes(fold=False)).run(x), wanted, f"seed {seed}, {net!r}, not folded")


@pytest.mark.parametrize("seed", range(700, 710))
def test_float64_weights_are_rounded_once(seed: int) -> None:
    """Promise: float64 weights are rounded to the nearest float32, and the file computes with these."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=40, dtype=np.float64, discontinuous=False)
    back = format.unpack(format.read(net.tobytes(fold=False)))
    for a, b in zip(net.pruned().layers, back.layers):
        for name, array in a.arrays.items():
            assert_bits(b.arrays[name], array.astype(np.float32), f"seed {seed}: {name} of {a.operation}")
    x = random_input(rng, net, 2, STEPS)
    got = ge.load(net.tobytes()).run(x, return_state=True)
    wanted = ge.reference.run(back, x, return_state=True)
    check_outputs(net, got, wanted, f"seed {seed}, {net!r}")


# ---- what random networks are


@pytest.mark.parametrize("seed", range(30))
def test_random_networks_are_valid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=40)
    assert net.same(net.pruned())
    y, state = reference.run(net, random_input(rng, net, 2, 5), return_state=True)
    assert np.isfinite(y).all()
    assert np.abs(state).max() < 5
    assert y.shape == ((2,) if net.per_sequence else (2, 5)) + (net.output_size,)


def test_random_networks_use_everything() -> None:
    found: set[object] = set()
    for seed in range(250):
        net = random_network(np.random.default_rng(seed), max_size=8, axes=seed % 5 == 0)
        for layer in net.pruned().layers:
            found.add(layer.operation)
            if isinstance(layer, Gru):
                found |= {layer.reset, ("gate", layer.gate_activation.name), ("reverse", layer.reverse)}
                found |= {("clip", layer.clip is not None), ("h0", layer.h0.any()), ("bias", layer.b_x.any())}
            found |= {a.name for a in vars(layer).values() if isinstance(a, Activation)}
            if isinstance(layer, Window):
                found |= {("ahead", layer.ahead > 0), ("dilation", layer.dilation > 1)}
            if isinstance(layer, Attention):
                found |= {("additive", layer.additive), ("heads", layer.heads > 1), ("causal attention", layer.causal)}
            if isinstance(layer, Repeat):
                found.add(("fixed", layer.steps > 0))
            if isinstance(layer, Norm):
                found |= {("rms", layer.rms), ("parts", layer.parts > 1)}
            if isinstance(layer, State):
                found.add(("loop", isinstance(net.pruned().layers[layer.source], Activate)))
        found |= {("outputs", len(net.outputs)), ("per sequence", net.per_sequence), ("causal", net.causal)}
    operations = {kind.__name__.lower() for kind in OPERATIONS} - {"sums"}  # which only a file has
    assert found >= {*operations, *NAMES.values(), "after", "before", "all", "none"}
    assert found >= {
        (what, yes)
        for what in (
            "reverse",
            "clip",
            "h0",
            "bias",
            "per sequence",
            "causal",
            "ahead",
            "dilation",
            "rms",
            "parts",
            "loop",
            "additive",
            "heads",
            "causal attention",
            "fixed",
        )
        for yes in (0, 1)
    }
    assert found >= {("outputs", n) for n in (1, 2, 3)}


def test_random_networks_keep_to_what_is_asked() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        net = random_network(rng, max_size=9, layers=(2, 2), allow_reverse=False, tokens=True, per_sequence=False)
        assert net.causal
        assert net.vocab_size is not None
        assert not net.per_sequence
        net = random_network(rng, max_size=9, tokens=False, per_sequence=True, discontinuous=False, dtype=np.float64)
        assert net.vocab_size is None
        assert net.per_sequence
        for layer in net.layers:
            for array in layer.arrays.values():  # zeros and -1 stand for what was not given
                assert array.dtype == np.float64 or not array.any() or (array == -1).all()
            assert "thresholded_relu" not in [a.name for a in vars(layer).values() if isinstance(a, Activation)]
            assert layer.width <= 9 or not isinstance(layer, (Input, Gru))
