# SPDX-License-Identifier: Apache-2.0
"""fma32 and sums against exact rational arithmetic and against libm."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gru_engine.numerics import as_float32, fma32, int8_sums, quantised, sums

Float32 = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

TINY = 2.0**-149  # the least subnormal
HUGE = float(np.finfo(np.float32).max)
HALF_ULP_ABOVE_1 = 2.0**-24


def f32(*values: float) -> Float32:
    return np.array(values, np.float32)


def bits(x: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    return np.asarray(x, np.float32).view(np.uint32)


def from_bits(pattern: int) -> float:
    return float(np.array(pattern, np.uint32).view(np.float32))


def rounded(exact: Fraction) -> float:
    """The float32 nearest to a rational number, ties to even, by integer arithmetic alone."""
    sign, exact = (-1.0, -exact) if exact < 0 else (1.0, exact)
    if exact == 0:
        return 0.0
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length()
    exponent -= exact < Fraction(2) ** exponent  # now 2^exponent <= exact < 2^(exponent + 1)
    ulp = Fraction(2) ** (max(exponent, -126) - 23)
    result = round(exact / ulp) * ulp  # Python's round of a Fraction goes to even
    return sign * (math.inf if result >= Fraction(2) ** 128 else float(result))


def exact_fma(a: float, b: float, c: float) -> float:
    """a * b + c of finite numbers, rounded once; the sign of an exact zero is that of IEEE 754."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c  # a sum of zeros, or of opposite numbers: exact in float64 as well, or a product that vanished
    result = rounded(exact)
    return math.copysign(result, exact) if result == 0 else result


def test_rounded_is_the_rounding_of_numpy() -> None:
    for value in np.random.default_rng(1).normal(size=300) * 10.0 ** np.arange(-50, 40).repeat(4)[:300]:
        with np.errstate(all="ignore"):
            assert bits(rounded(Fraction(float(value)))) == bits(np.float32(value))


finite = st.integers(0, 2**32 - 1).map(from_bits).filter(math.isfinite)


@given(finite, finite, finite)
# The sum lies just off the middle of two float32: rounding to float64 first hits the middle, then goes the wrong way.
@example(1.0, 1.0, HALF_ULP_ABOVE_1)
@example(1 + 2.0**-23, 1 + 2.0**-23, HALF_ULP_ABOVE_1)
@example(1 + 2.0**-12, 1 + 2.0**-12, 2.0**-100)
@example(1 + 2.0**-12, 1 + 2.0**-12, -(2.0**-100))
@example(-(1 + 2.0**-12), 1 + 2.0**-12, 2.0**-100)
# The float64 sum has the last bit 1 already, and its error points to a middle that is one bit away and ties upwards:
# 1 + 3 * 2^-24 - 2^-52 + (a little less than 2^-53).
@example(2.0**-12 * (1 - 1000 * 2.0**-24), 2.0**-12 * (1 + 500 * 2.0**-23), 1 + 2.0**-23)
@example(2.0**-12 * (1 - 1000 * 2.0**-24), -(2.0**-12) * (1 + 500 * 2.0**-23), -(1 + 2.0**-23))
# Subnormal results and products, results that vanish.
@example(2.0**-75, 2.0**-75, 0.0)
@example(2.0**-75, 2.0**-75, TINY)
@example(2.0**-75, -(2.0**-75), TINY)
@example(-(2.0**-75), 2.0**-76, 0.0)
@example(2.0**-126, 0.5, TINY)
@example(TINY, TINY, 1.0)
@example(TINY, -TINY, 1.0)
# Overflow, and its border: HUGE + half an ulp is the least that rounds to infinity.
@example(HUGE, 2.0, 0.0)
@example(HUGE, 2.0, -HUGE)
@example(2.0**103, 1.0, HUGE)
@example(2.0**103, 1.0 - 2.0**-24, HUGE)
@example(-(2.0**103), 1.0, -HUGE)
# Signs of zeros.
@example(-0.0, 0.0, -0.0)
@example(0.0, 1.0, -0.0)
@example(3.0, -2.0, 6.0)
def test_fma_is_the_exact_result_rounded_once(a: float, b: float, c: float) -> None:
    assert bits(fma32(*f32(a, b, c).reshape(3, 1))) == bits(exact_fma(a, b, c))


@given(finite, finite, st.integers(-3, 3))
def test_fma_near_cancellation(a: float, b: float, ulps: int) -> None:
    with np.errstate(all="ignore"):
        product = np.float32(a) * np.float32(b)
    pattern = int(bits(-product)) + ulps
    c = from_bits(min(max(pattern, 0), 2**32 - 1))
    if math.isfinite(c):
        assert bits(fma32(*f32(a, b, c).reshape(3, 1))) == bits(exact_fma(a, b, c))


def test_fma_differs_from_rounding_twice() -> None:
    a, c = np.float32(1 + 2.0**-12), np.float32(2.0**-100)
    twice = np.float32(np.float64(a) * np.float64(a) + np.float64(c))
    assert fma32(a, a, c) == np.nextafter(twice, np.float32(2))  # 1 + 2^-11 + 2^-24 + 2^-100 lies above the middle


def test_fma_of_infinity_and_nan() -> None:
    inf, nan = np.inf, np.nan
    cases = [(inf, 1, 1, inf), (inf, -1, 1, -inf), (1, 1, inf, inf), (1, 1, -inf, -inf), (HUGE, HUGE, -inf, -inf)]
    cases += [(inf, 0, 1, nan), (inf, 1, -inf, nan), (nan, 1, 1, nan), (1, nan, 1, nan), (1, 1, nan, nan)]
    a, b, c, expected = (np.array(column, np.float32) for column in zip(*cases))
    np.testing.assert_array_equal(fma32(a, b, c), expected)


def test_fma_broadcasts() -> None:
    a, b, c = f32(1, 2, 3).reshape(3, 1), f32(10, 20), np.float32(5)
    result = fma32(a, b, c)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, [[15, 25], [25, 45], [35, 65]])
    assert fma32(np.float32(2), np.float32(3), np.float32(4)).shape == ()
    assert fma32(np.zeros((0, 4), np.float32), b[:1], c).shape == (0, 4)


def test_fma_refuses_other_types() -> None:
    with pytest.raises(TypeError, match="float32"):
        fma32(np.float64(1), np.float32(1), np.float32(1))


def libm_fmaf() -> Any:
    """The C library's fmaf, or None: an implementation that others tested."""
    name = ctypes.util.find_library("m")
    if name is None:
        return None
    fmaf = ctypes.CDLL(name).fmaf
    fmaf.restype, fmaf.argtypes = ctypes.c_float, [ctypes.c_float] * 3
    return fmaf


@pytest.mark.skipif(libm_fmaf() is None, reason="no libm")
@pytest.mark.parametrize("kind", ["patterns", "normal", "cancelling", "subnormal"])
def test_fma_is_that_of_libm(kind: str) -> None:
    rng = np.random.default_rng(2)
    with np.errstate(all="ignore"):
        a, b, c = rng.integers(0, 2**32, (3, 20000), dtype=np.uint32).view(np.float32)
        if kind == "normal":
            a, b, c = rng.normal(size=(3, 20000)).astype(np.float32)
        elif kind == "cancelling":
            c = -(a * b)
        elif kind == "subnormal":
            a, b, c = rng.normal(size=(3, 20000)).astype(np.float32) * f32(1e-22, 1e-20, 1e-42).reshape(3, 1)
    fmaf = libm_fmaf()
    expected = np.array([fmaf(*abc) for abc in zip(a.tolist(), b.tolist(), c.tolist())], np.float32)
    result = fma32(a, b, c)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(bits(result[number]), bits(expected[number]))


def chain(bias: float, row: Float32, x: Float32, chains: int) -> float:
    """docs/NUMERICS.md, section 1, one output by itself, with exact arithmetic."""
    partial = [bias] + [0.0] * (chains - 1)
    for k in range(len(x)):
        partial[k % chains] = exact_fma(float(row[k]), float(x[k]), partial[k % chains])
    while len(partial) > 1:
        partial = [rounded(Fraction(a) + Fraction(b)) for a, b in zip(partial[0::2], partial[1::2])]
    return partial[0]


@pytest.mark.parametrize(("gates", "chains"), [(1, 4), (2, 2), (3, 1), (4, 1)])
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 7, 8, 30])
def test_sums_are_the_chains_of_the_specification(gates: int, chains: int, columns: int) -> None:
    rng = np.random.default_rng(columns)
    bias = rng.normal(size=(gates, 3)).astype(np.float32)
    matrix = rng.normal(size=(gates, 3, columns)).astype(np.float32)
    x = rng.normal(size=(5, columns)).astype(np.float32)
    result = sums(bias, matrix, x)
    assert result.shape == (5, gates, 3)
    assert result.dtype == np.float32
    for n, g, h in np.ndindex(5, gates, 3):
        assert bits(result[n, g, h]) == bits(chain(float(bias[g, h]), matrix[g, h], x[n], chains))


def test_number_and_order_of_chains_matter() -> None:
    """The test above can fail: other numbers of chains, and descending columns, give other bits."""
    rng = np.random.default_rng(3)
    bias, matrix, x = (rng.normal(size=s).astype(np.float32) for s in ((1, 50), (1, 50, 30), (1, 30)))
    result = bits(sums(bias, matrix, x)[0, 0])
    for chains, step in ((1, 1), (2, 1), (8, 1), (4, -1)):
        other = [chain(float(b), row[::step], x[0, ::step], chains) for b, row in zip(bias[0], matrix[0])]
        assert (bits(other) != result).any()


def test_sums_of_many_rows_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    bias, matrix, x = (rng.normal(size=s).astype(np.float32) for s in ((3, 5), (3, 5, 6), (40, 6)))
    whole = sums(bias, matrix, x)
    monkeypatch.setattr("gru_engine.numerics._BLOCK", 7 * 15)
    np.testing.assert_array_equal(bits(sums(bias, matrix, x)), bits(whole))
    assert sums(bias, matrix, x[:0]).shape == (0, 3, 5)


def test_sums_overflow_quietly() -> None:
    big = np.full((1, 1, 8), HUGE, np.float32)
    assert sums(np.zeros((1, 1), np.float32), big, np.full((1, 8), 2, np.float32)) == np.inf


@pytest.mark.parametrize(
    "shapes", [((3, 4), (3, 5, 2), (1, 2)), ((5, 4), (5, 4, 2), (1, 2)), ((3, 4), (3, 4, 2), (1, 3))]
)
def test_sums_refuse_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="sums needs"):
        sums(*(np.zeros(shape, np.float32) for shape in shapes))


def exact_quantised(x: list[float]) -> tuple[list[int], float]:
    """docs/NUMERICS.md, section 6, of one finite vector, with exact arithmetic."""
    m, magic = max(2.0**-100, *map(abs, x)), 1.5 * 2**23
    inverse, step = rounded(127 / Fraction(m)), rounded(Fraction(m) / 127)
    return [int(exact_fma(value, inverse, magic) - magic) for value in x], step


def vectors(rng: np.random.Generator, columns: int) -> Float32:
    """Moderate, huge, tiny, zero, ties."""
    x = rng.normal(size=(9, columns))
    x[1] *= 1e30
    x[2] *= 1e-30
    x[3] *= 1e-38
    x[4] = 0
    x[5] = rng.integers(-254, 255, columns) / 254
    x[5, 0] = -1
    x[6] = HUGE
    x[7, 1:] = 0
    return x.astype(np.float32)


@pytest.mark.parametrize("columns", [1, 2, 7, 40])
def test_vectors_are_rounded_to_int8_as_specified(columns: int) -> None:
    x = vectors(np.random.default_rng(columns), columns)
    q, step = quantised(x)
    assert (q.dtype, step.dtype) == (np.int8, np.float32)
    for i, row in enumerate(x):
        wanted, wanted_step = exact_quantised(row.tolist())
        assert q[i].tolist() == wanted, f"vector {i}"
        assert bits(step[i]) == bits(wanted_step)
        if i != 4:
            assert np.abs(q[i]).max() == (0 if i == 3 else 127) or columns == 1
            assert np.abs(q[i].astype(float) * float(step[i]) - row).max() <= float(step[i]) * 0.50001
    ties = np.array([[1, 0.5 / 127, 1.5 / 127, 2.5 / 127]], np.float32)
    assert quantised(ties)[0][0, 0] == 127
    assert quantised(np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5]], np.float32))[0].tolist() == [
        [127, 0, 2, 2, 0, -2, 126]
    ]


def test_vectors_that_are_not_finite_have_no_step() -> None:
    x = np.ones((4, 3), np.float32)
    x[0, 1], x[1, 2], x[2, 0] = np.nan, np.inf, -np.inf
    q, step = quantised(x)
    np.testing.assert_array_equal(np.isnan(step), [True, True, True, False])
    assert not q[:3].any()
    zero = np.zeros((1, 2), np.float32)
    result = int8_sums(zero, zero + 1, np.zeros((1, 2, 3), np.int8), x)
    np.testing.assert_array_equal(result[:, 0], [[np.nan] * 2] * 3 + [[0, 0]])


@pytest.mark.parametrize("gates", [1, 2, 3])
@pytest.mark.parametrize("columns", [1, 2, 3, 5, 40])
def test_int8_sums_are_those_of_the_specification(gates: int, columns: int) -> None:
    rng = np.random.default_rng(columns)
    x = vectors(rng, columns)
    integers = rng.integers(-128, 128, (gates, 4, columns)).astype(np.int8)
    scales, bias = rng.uniform(0, 1e-2, (gates, 4)).astype(np.float32), rng.normal(size=(gates, 4)).astype(np.float32)
    result = int8_sums(bias, scales, integers, x)
    assert (result.dtype, result.shape) == (np.float32, (9, gates, 4))
    for n in range(9):
        q, step = exact_quantised(x[n].tolist())
        for g, h in np.ndindex(gates, 4):
            total = sum(int(a) * b for a, b in zip(integers[g, h], q))
            factor = rounded(Fraction(float(scales[g, h])) * Fraction(step))
            assert bits(result[n, g, h]) == bits(exact_fma(rounded(Fraction(total)), factor, float(bias[g, h])))


@pytest.mark.parametrize(
    "shapes",
    [((2, 3), (2, 3), (2, 4, 5), (1, 5)), ((2, 3), (1, 3), (2, 3, 5), (1, 5)), ((2, 3), (2, 3), (2, 3, 5), (5,))],
)
def test_int8_sums_refuse_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], ...]) -> None:
    bias, scales, integers, x = shapes
    with pytest.raises(ValueError, match="int8_sums needs"):
        int8_sums(
            *(np.zeros(s, np.float32) for s in (bias, scales)), np.zeros(integers, np.int8), np.zeros(x, np.float32)
        )


def test_as_float32() -> None:
    np.testing.assert_array_equal(as_float32(np.array([0.1, -1e-60]), "W"), f32(0.1, -0.0))
    with pytest.raises(ValueError, match=r"W is 1e\+39 at \[0, 1\], beyond the range of float32"):
        as_float32(np.array([[0, 1e39]]), "W")
