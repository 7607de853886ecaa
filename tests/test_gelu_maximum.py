# SPDX-License-Identifier: Apache-2.0
"""GELU, exact and approximated, and the larger and the smaller of two values: what they are, and their bits."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import Network
from gru_engine.format import pack, read, unpack
from gru_engine.numerics import fma32

from .helpers import Array, uniform
from .test_operations import SPECIAL, check_bits, network

F = np.float32


def c(text: str) -> np.float32:
    """A constant of docs/NUMERICS.md."""
    return F(float.fromhex(text))


# ---- GELU


def exp_in_parts(high: Array, less: Array) -> tuple[Array, Array]:
    """``pow2(t, 64)`` and ``q`` of docs/NUMERICS.md: 2^64 exp(high - less) is f + q f."""
    magic = F(1.5 * 2**23)
    t = fma32(high, c("0x1.715476p+0"), magic)
    k = t - magic
    r = fma32(-k, c("0x1.62e43p-1"), high) - fma32(k, c("-0x1.05c61p-29"), less)
    u = r * r
    a = fma32(c("0x1.5554aap-3"), r, c("0x1.fffffep-2"))
    b = fma32(c("0x1.122c38p-7"), r, c("0x1.55579ap-5"))
    b = fma32(c("0x1.6ac05p-10"), u, b)
    power = np.where(np.isnan(k), F(np.nan), np.ldexp(F(1), np.nan_to_num(k).astype(int) + 64))
    return power.astype(F), fma32(fma32(b, u, a), u, r)


def horner(a: Array, *coefficients: str) -> Array:
    """The highest first."""
    result = np.full_like(a, c(coefficients[0]))
    for coefficient in coefficients[1:]:
        result = fma32(result, a, c(coefficient))
    return result


def right(x: Array) -> Array:
    """``max(-0, x)``: x where it is above, or zero, or NaN."""
    return np.where(x < 0, F(-0.0), x)


def gelu32(x: Array) -> Array:
    """Of docs/NUMERICS.md, section 5."""
    with np.errstate(all="ignore"):
        a = np.where(np.abs(x) > 14.5, F(14.5), np.abs(x))
        half = a * F(-0.5)
        square = half * a
        f, q = exp_in_parts(square, fma32(-half, a, square))
        e = fma32(q, f * a, f * a)
        n = horner(a, "0x1.d44aa8p-7", "0x1.21d6cep-3", "0x1.475fdcp-1", "0x1.881a94p+0", "0x1.cp+0")
        p = horner(a, "0x1.c2641p+48", "0x1.21478p+59", "0x1.729208p+62", "0x1.7827fap+64")
        return np.asarray(right(x) - e * n / fma32(fma32(c("0x1.40d83cp+65"), n, p), a, c("0x1.cp65")))


def gelu_tanh32(x: Array) -> Array:
    """Of docs/NUMERICS.md, section 5."""
    with np.errstate(all="ignore"):
        a = np.where(np.abs(x) > 11, F(11), np.abs(x))
        linear, cubic = c("0x1.98846p+0"), c("0x1.2444f2p-4")
        u = a * a
        w = fma32(-u, cubic, -linear)
        v = fma32(-fma32(-a, a, u), cubic, fma32(u, c("0x1.49b16ap-29"), c("-0x1.985794p-21")))
        v = v + fma32(u, cubic, w + linear)
        high = a * w
        g, q = exp_in_parts(high, fma32(a, v, fma32(-a, w, high)))
        return np.asarray(right(x) - fma32(q, g * a, g * a) / (c("0x1p64") + fma32(q, g, g)))


def exact_gelu(x: float) -> float:
    return x * math.erfc(-x / math.sqrt(2)) / 2


def exact_gelu_tanh(x: float) -> float:
    v = 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x / (1 + math.exp(-v)) if v > -700 else -0.0


GELUS = {"gelu": (gelu32, exact_gelu, 4.0), "gelu_tanh": (gelu_tanh32, exact_gelu_tanh, 3.0)}


@pytest.mark.parametrize("name", GELUS)
def test_gelu(name: str) -> None:
    """Promise: the bits of the specification, and a few ulp from the exact value, in the left tail too."""
    emulated, exact, bound = GELUS[name]
    rng = np.random.default_rng(0)
    x = np.concatenate([uniform(rng, 1, 700), uniform(rng, 16, 700), np.linspace(-15, -9, 300).astype(F)])
    x = np.concatenate([SPECIAL, x, F([1e-45, -1e-45, 3e-45, 14.5, -14.4, 11, -11, -10.9]), [F(np.nan)]])[:, np.newaxis]
    net = network(1, lambda net, x: net.activation(x, name))
    check_bits(net, x, emulated(x), name)
    x = x[np.isfinite(x)][:, np.newaxis]
    y = ge.load(net.tobytes()).run(x)
    wanted = np.array([exact(v) for v in np.clip(x[:, 0].astype(float), -40, 1e30)])
    with np.errstate(over="ignore"):
        ulp = np.maximum(np.spacing(np.abs(wanted).astype(F)), F(2.0**-149)).astype(float)
    inside = np.abs(x[:, 0]) < 1e30
    assert (np.abs(y[:, 0] - wanted) / ulp)[inside].max() < bound
    np.testing.assert_allclose(ge.reference.run(net, x)[inside, 0], wanted[inside], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", GELUS)
def test_limits_of_gelu(name: str) -> None:
    """Promise: zeros keep their sign, the left tail ends in -0, infinity stays, NaN stays; the reference agrees."""
    x = F([[0.0], [-0.0], [-20], [-3e38], [-np.inf], [np.inf], [3e38], [np.nan]])
    wanted = F([[0.0], [-0.0], [-0.0], [-0.0], [-0.0], [np.inf], [3e38], [np.nan]])
    net = network(1, lambda net, x: net.activation(x, name))
    check_bits(net, x, wanted, name)
    reference = ge.reference.run(net, x)
    np.testing.assert_array_equal(reference[3:], wanted[3:].astype(float))
    assert np.signbit(reference[:7]).tolist() == np.signbit(wanted[:7]).tolist()
    assert abs(reference[2, 0]) < 1e-80


@pytest.mark.parametrize("name", GELUS)
def test_reference_of_gelu_keeps_the_type(name: str) -> None:
    """Promise: any shape, no elements too, and the type of the argument."""
    act = ge.activations.activation(name)
    for dtype in (np.float32, np.float64):
        y = act(np.zeros((2, 0, 3), dtype))
        assert (y.shape, y.dtype) == ((2, 0, 3), dtype)
    assert act(np.array([1, 2])).dtype == np.float64


# ---- the larger and the smaller of two values


def pairs() -> tuple[Array, Array]:
    """All pairs of some values, NaN and zeros of both signs among them."""
    values = F([0.0, -0.0, 1, -1, 2.5, 1e-45, -1e-45, np.inf, -np.inf, np.nan])
    a, b = np.meshgrid(values, values)
    return a.ravel(), b.ravel()


def larger(a: Array, b: Array) -> Array:
    """``maximum(a, b)`` of docs/NUMERICS.md, section 3."""
    return np.where(np.isnan(a), a, np.where(a > b, a, b))


def test_maximum_and_minimum() -> None:
    """Promise: NaN if one of them is, of zeros of both signs the second, minimum as -maximum(-a, -b), bit for bit."""
    a, b = pairs()
    x = np.concatenate([np.stack([a, b]).reshape(1, -1), uniform(np.random.default_rng(0), 2, 5, 2 * a.size)])
    net = Network()
    v = net.input(2 * a.size)
    left, right = v[: a.size], v[a.size :]
    net.output(net.maximum(left, right, name="larger"), "maximum")
    net.output(net.minimum(left, right, name="smaller"), "minimum")
    left, right = np.split(x, 2, axis=1)
    wanted = np.concatenate([larger(left, right), -larger(-left, -right)], axis=1)
    check_bits(net, x, wanted, "maximum and minimum")
    numpy = np.concatenate([np.maximum(left, right), np.minimum(left, right)], axis=1)
    np.testing.assert_array_equal(wanted, numpy)
    np.testing.assert_array_equal(ge.reference.run(net, x), numpy.astype(float))


@pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 33])
def test_maximum_with_a_value_of_width_1(width: int) -> None:
    """Promise: one of the two, whichever, may have the width 1."""
    x = uniform(np.random.default_rng(width), 1, 7, width + 1)
    net = Network()
    v = net.input(width + 1)
    net.output(net.maximum(v[:width], v[width:]), "wide")
    net.output(net.maximum(v[width:], v[:width]), "narrow")
    net.output(net.minimum(v[width:], v[:width]), "least")
    most, least = np.maximum(x[:, :width], x[:, width:]), np.minimum(x[:, :width], x[:, width:])
    check_bits(net, x, np.concatenate([most, most, least], axis=1), f"width {width}")


def test_maximum_of_values_per_sequence_and_in_loops() -> None:
    """Promise: a running maximum is a state and a maximum; its last value is the maximum over time."""
    x = uniform(np.random.default_rng(0), 1, 3, 6, 5)
    net = Network()
    v = net.input(5)
    state = net.state(5, np.full(5, -1e30))
    running = net.maximum(state, v)
    net.feed(state, running)
    net.output(net.last(running), "running")
    net.output(net.maximum(net.max(v), net.mean(v)), "max")
    check_bits(net, x, np.concatenate([x.max(axis=1), x.max(axis=1)], axis=1), "pooled")
    np.testing.assert_array_equal(ge.reference.run(net, x)[:, :5], x.max(axis=1).astype(float))


def test_max_over_time_is_a_chain_of_maxima() -> None:
    """Promise: one rule for both, for zeros and NaN too."""
    a, b = pairs()
    x = np.stack([a, b])
    net = network(a.size, lambda net, v: net.max(v))
    check_bits(net, x, larger(a, b), "max over time")


def test_files_with_a_maximum() -> None:
    """Promise: written and read again as it is, in both orders of the widths."""
    net = Network()
    v = net.input(4)
    net.output(net.maximum(v[:1], v, name="m"))
    data = pack(net)
    node = next(node for node in read(data).nodes if node.name == "m")
    assert (node.kind.__name__, node.width) == ("Maximum", 4)
    assert unpack(read(data)).same(net)
    assert pack(unpack(read(data))) == data


@pytest.mark.parametrize("method", ["maximum", "minimum"])
def test_values_that_do_not_fit(method: str) -> None:
    net = Network()
    v = net.input(5)
    with pytest.raises(ValueError, match=f"{method}: a and b must have the same width, got 2 and 3; one of them may"):
        getattr(net, method)(v[:2], v[2:])
    with pytest.raises(TypeError, match="b must be a Value of this network"):
        getattr(net, method)(v, 0.5)
    assert len(net.layers) == 3
