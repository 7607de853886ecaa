# SPDX-License-Identifier: Apache-2.0
"""Compute the constants of src_c/activations.h.

    python tools/fit_activations.py              all of them
    python tools/fit_activations.py tanh log     some of them: ln2, tanh, expm1, log, softplus, gelu

Each polynomial minimises the largest relative error of the function it serves (Remez exchange in 50 digits). Its
coefficients are rounded to float32 one after the other, lowest power first, each time fitting the remaining ones anew,
so that they make up for the rounding. Printed are the C constants, lowest power first, and the error that the rounded
polynomial has before any float32 arithmetic.

Needs mpmath and numpy.
"""

import sys

import mpmath as mp
import numpy as np

mp.mp.dps = 50
GRID = 3000


def to_float32(x) -> mp.mpf:
    """Return the nearest float32."""
    return mp.mpf(float(np.float32(float(x))))


def c_constant(x) -> str:
    """Return x as a C hexadecimal constant."""
    digits, exponent = float(x).hex().split("p")
    return f"{digits.rstrip('0').rstrip('.')}p{exponent}f"


def remez(values, weights, points, degree, fixed):
    """Find the polynomial p that makes the largest |weight * (p - value)| over the points least.

    Returns its coefficients, the first len(fixed) of which are given, and that maximum.
    """
    powers = range(len(fixed), degree + 1)
    unknown = len(powers)
    rest = [v - sum(c * u**k for k, c in enumerate(fixed)) for v, u in zip(values, points)]
    # Chebyshev extrema to begin with; then the extrema of the error, whose signs must alternate.
    angles = [float(mp.pi) * (i + 0.5) / (unknown + 1) for i in range(unknown + 1)]
    reference = [round((GRID - 1) * (1 - np.cos(angle)) / 2) for angle in angles]
    best = None
    for _ in range(30):
        system = mp.matrix(unknown + 1, unknown + 1)
        right = mp.matrix(unknown + 1, 1)
        for row, i in enumerate(reference):
            for column, k in enumerate(powers):
                system[row, column] = points[i] ** k
            system[row, unknown] = (-1) ** row / weights[i]
            right[row] = rest[i]
        solution = mp.lu_solve(system, right)
        free = list(solution[:unknown])
        error = [w * (sum(c * u**k for k, c in zip(powers, free)) - r) for w, u, r in zip(weights, points, rest)]
        largest = max(abs(e) for e in error)
        if best is None or largest < best[1]:
            best = ([*fixed, *free], largest)
        extrema = [0]
        for i in range(1, GRID):
            if error[i] * error[extrema[-1]] <= 0:
                extrema.append(i)
            elif abs(error[i]) > abs(error[extrema[-1]]):
                extrema[-1] = i
        # Too many: without the smallest, and without a neighbour of it, so that the signs still alternate.
        while len(extrema) > unknown + 1:
            sizes = [abs(error[i]) for i in extrema]
            at = sizes.index(min(sizes))
            if len(extrema) == unknown + 2:
                del extrema[0 if sizes[0] < sizes[-1] else -1]
            elif at in (0, len(extrema) - 1):
                del extrema[at]
            else:
                at = at if sizes[at + 1] < sizes[at - 1] else at - 1
                del extrema[at : at + 2]
        if len(extrema) <= unknown or extrema == reference:
            break
        reference = extrema
    return best


def fit(name, value, weight, low, high, degree):
    """Print the float32 coefficients of the polynomial for value(u), low <= u <= high.

    The weight turns its absolute error into the relative error of the function that it serves.
    """
    points = [low + (high - low) * (1 - mp.cos(mp.pi * (i + mp.mpf(1) / 2) / GRID)) / 2 for i in range(GRID)]
    values = [value(u) for u in points]
    weights = [weight(u) for u in points]
    fixed = []
    ideal = None
    for _ in range(degree + 1):
        coefficients, error = remez(values, weights, points, degree, fixed)
        ideal = ideal or error
        fixed.append(to_float32(coefficients[len(fixed)]))
    rounded = max(abs(w * (sum(c * u**k for k, c in enumerate(fixed)) - v)) for w, u, v in zip(weights, points, values))
    print(f"{name}: error 2^{float(mp.log(ideal, 2)):.2f}, with rounded coefficients 2^{float(mp.log(rounded, 2)):.2f}")
    print("   ", ", ".join(c_constant(c) for c in fixed))


def fit_ln2():
    """Print 1 / ln 2 and ln 2 in two parts."""
    # The nearest float32 happens to end in four zero bits, so that x - n * high is a float32 for all n that occur.
    high = to_float32(mp.log(2))
    low = to_float32(mp.log(2) - high)
    print("ln2: 1 / ln 2, then ln 2 as high + low")
    print("   ", ", ".join(c_constant(c) for c in (to_float32(1 / mp.log(2)), high, low)))


def fit_tanh():
    """tanh(z) = z + z^3 C(z^2) for |z| <= ln 2 / 4.

    For 2 tanh(r / 2) = r + r^3 C'(r^2) the coefficients are divided by 4 and 16, which is exact.
    """

    def value(u):
        return (mp.tanh(mp.sqrt(u)) / mp.sqrt(u) - 1) / u

    def weight(u):
        return u * mp.sqrt(u) / mp.tanh(mp.sqrt(u))

    for degree in (1, 2):
        fit("tanh", value, weight, mp.mpf(10) ** -9, (mp.log(2) / 4 * mp.mpf("1.001")) ** 2, degree)


def fit_expm1():
    """exp(r) - 1 = r + r^2 P(r) for |r| <= ln 2 / 2."""
    limit = mp.log(2) / 2 * mp.mpf("1.0005")
    fit("expm1", lambda r: (mp.expm1(r) - r) / r**2, lambda r: r**2 / abs(mp.expm1(r)), -limit, limit, 4)


def fit_log():
    """log(1 + g) = g - g^2 / 2 + g^3 P(g) for sqrt(1/2) <= 1 + g <= sqrt(2)."""
    margin = mp.mpf(10) ** -7
    fit(
        "log",
        lambda g: (mp.log1p(g) - g + g * g / 2) / g**3,
        lambda g: abs(g**3 / mp.log1p(g)),
        mp.sqrt(mp.mpf(1) / 2) - 1 - margin,
        mp.sqrt(2) - 1 + margin,
        7,
    )


def fit_softplus():
    """2 atanh(s / 2) = s + s^3 P(s^2) for 0 <= s <= 2/3."""

    def value(u):
        return (2 * mp.atanh(mp.sqrt(u) / 2) / mp.sqrt(u) - 1) / u

    def weight(u):
        return u * mp.sqrt(u) / (2 * mp.atanh(mp.sqrt(u) / 2))

    fit("softplus", value, weight, mp.mpf(10) ** -7, (mp.mpf(2) / 3 + mp.mpf(10) ** -6) ** 2, 3)


def fit_gelu():
    """Phi(-a) = exp(-a^2 / 2) N(a) / (c a N(a) + P(a)) for 0 <= a <= 14.5, and the argument of the sigmoid of gelu_tanh.

    N and c, which is about sqrt(2 pi), are those of the quotient of this form, of the degrees 4 and 5, that meets the
    function at Chebyshev's points of (a - 3) / (a + 3); P is fitted to them, rounded as they are. N(0) is 1.75, because
    rounding errors are relatively smallest just below a power of two: most of them count for small a.
    """
    low, high, centre = mp.mpf(10) ** -9, mp.mpf("14.51"), 3

    def tail(a):
        return mp.exp(a * a / 2) * mp.erfc(a / mp.sqrt(2)) / 2

    degree = 4
    unknown = 2 * degree + 2
    system, right = mp.matrix(unknown, unknown), mp.matrix(unknown, 1)
    least, most = mp.mpf(-1), (high - centre) / (high + centre)
    for row in range(unknown):
        s = least + (most - least) * (1 - mp.cos(mp.pi * (row + mp.mpf(1) / 2) / unknown)) / 2
        a = centre * (1 + s) / (1 - s)
        for k in range(degree + 1):  # the denominator's coefficients follow the numerator's, the first of which is 1
            system[row, degree + k] = -tail(a) * a**k
            if k:
                system[row, k - 1] = a**k
        system[row, unknown - 1] = -tail(a) * a ** (degree + 1)
        right[row] = -1
    solution = list(mp.lu_solve(system, right))
    factor = to_float32(solution[-1] / solution[degree - 1])
    n = [to_float32(mp.mpf("1.75") * c) for c in [1, *solution[:degree]]]
    print("gelu: c, N, P\n   ", c_constant(factor), "\n   ", ", ".join(map(c_constant, n)))

    def value(a):
        return mp.polyval(n[::-1], a) * (1 / tail(a) - factor * a)

    fit("gelu", value, lambda a: tail(a) / mp.polyval(n[::-1], a), low, high, degree)
    linear = 2 * mp.sqrt(2 / mp.pi)
    cubic = linear * mp.mpf("0.044715")
    # The first high part has 20 bits, so that the difference of it and a float32 that is larger is exact.
    parts = [mp.nint(linear * 2**19) / 2**19, to_float32(cubic)]
    print("gelu_tanh: factors of x and x^3, each as high + low")
    print(
        "   ", ", ".join(c_constant(to_float32(c)) for c in (parts[0], linear - parts[0], parts[1], cubic - parts[1]))
    )


FITS = {
    "ln2": fit_ln2,
    "tanh": fit_tanh,
    "expm1": fit_expm1,
    "log": fit_log,
    "softplus": fit_softplus,
    "gelu": fit_gelu,
}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or FITS:
        if wanted not in FITS:
            sys.exit(f"unknown: {wanted}; there are {', '.join(FITS)}")
        FITS[wanted]()
