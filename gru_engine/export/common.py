# SPDX-License-Identifier: Apache-2.0
"""What all exporters share: the exception, the folding of conventions, and the check of every export.

An export is checked before it is written: the engine runs the packed file on random inputs, the framework runs the model
it came from, and the largest difference between them must stay below a threshold. Some of these runs are kept in the file
as golden vectors, so that the same check can be made on any machine later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine import reference
from gru_engine._inputs import TokenInput
from gru_engine.network import Network

Array = npt.NDArray[Any]
Inputs = Array | Mapping[str, Array]
"""What a network takes, B sequences of T steps: vectors [B, T, I] or tokens [B, T]; several inputs are arrays by name."""

Run = Callable[[Any], Array]
"""Runs a model on ``Inputs``: -> y [B, T, O], or [B, O] where it is one per sequence."""

THRESHOLD = 1e-5
"""Largest accepted difference between two float32 sides, relative to the largest magnitude of the outputs."""

REDUCED_TOLERANCE = 1.5
"""What golden vectors of a file with weights of fewer bits allow, in units of the largest difference that was found."""

_GOLDEN_STEPS = (24, 5)  # lengths of the sequences that are kept in the file


class ExportError(ValueError):
    """A model, or a part of it, has no exact counterpart in a ``.gru`` file; the message names it.

    Attributes
    ----------
    progress : float
        How far an exporter that tries several readings of a model came with this one.
    """

    progress: float = -1


# ---- conventions


def gru_arrays(
    W: npt.ArrayLike,
    U: npt.ArrayLike | None = None,
    b_x: npt.ArrayLike | None = None,
    b_h: npt.ArrayLike | None = None,
    *,
    columns: bool = False,
    concatenated: str | None = None,
    gates: int = 3,
) -> dict[str, Array]:
    """The arrays of a GRU, in whatever orientation, as the arguments of ``Network.gru``.

    The order of the gates and the sense of the update gate are ``Network.gru``'s own arguments ``gates`` and ``keep``.

    Parameters
    ----------
    W : array_like [3H, I]
        With ``columns`` [I, 3H].
    U : array_like [3H, H], optional
        With ``columns`` [H, 3H].
    b_x, b_h : array_like [3H], optional
        Biases of the input half and of the recurrent half. None: there is none.
    columns : bool
        Whether a gate is a block of columns, as in Keras and Flax, instead of rows, as in PyTorch and ONNX.
    concatenated : {"xh", "hx"}, optional
        W acts on the concatenation of input and state, in this order, and holds U too.
    gates : int
        How many gates there are: 2 in a GRU without a reset gate.

    Returns
    -------
    dict
        "W", "U", and "b_x", "b_h" where given.
    """
    W = np.asarray(W).T if columns else np.asarray(W)
    if concatenated is not None:
        hidden = W.shape[0] // gates
        W, U = np.split(W, [hidden if concatenated == "hx" else W.shape[1] - hidden], axis=1)
        W, U = (U, W) if concatenated == "hx" else (W, U)
    elif columns:
        U = np.asarray(U).T
    biases = {"b_x": b_x, "b_h": b_h}
    return {"W": W, "U": np.asarray(U), **{name: np.asarray(b) for name, b in biases.items() if b is not None}}


# ---- comparing


@dataclass(frozen=True)
class Comparison:
    """How far two sides are apart."""

    sides: str
    error: float  # largest absolute difference
    magnitude: float  # largest absolute output

    @property
    def relative(self) -> float:
        """The error relative to the magnitude."""
        return self.error / self.magnitude if self.magnitude else self.error

    def __str__(self) -> str:
        return (
            f"{self.sides}: difference {self.error:.2e}, {self.relative:.2e} of the largest output {self.magnitude:.3g}"
        )


def compare(sides: str, got: Array, expected: Array, threshold: float = THRESHOLD) -> Comparison:
    """How far ``got`` is from ``expected``.

    Raises
    ------
    ExportError
        If the shapes differ, an output is not finite, or the difference relative to the largest magnitude exceeds ``threshold``.
    """
    if got.shape != expected.shape:
        raise ExportError(f"{sides}: the outputs have the shapes {list(got.shape)} and {list(expected.shape)}")
    if not (np.isfinite(got).all() and np.isfinite(expected).all()):
        raise ExportError(f"{sides}: the outputs for random inputs are not all finite")
    wide = np.asarray(expected, np.float64)
    comparison = Comparison(sides, float(np.abs(got - wide).max(initial=0)), float(np.abs(wide).max(initial=0)))
    if comparison.relative > threshold:
        raise ExportError(f"{comparison}; at most {threshold:.0e} is accepted")
    return comparison


# ---- inputs


def least_steps(net: Network) -> int:
    """How many steps a sequence needs before there is one on each of a network's time axes; 0 if all have those of the input."""
    return max(layer.axis.least for layer in net.pruned().layers) - 1


def random_inputs(net: Network, batch: int = 4, steps: int = 50, seed: int = 0) -> Inputs:
    """Inputs for a check: float32 [batch, steps, I] from the normal distribution, or int64 tokens [batch, steps].

    Of a network with several inputs they are such arrays by name.
    """
    random = np.random.default_rng(seed)
    arrays = {name: _random_input(part, batch, steps, random) for name, part in net.inputs.items()}
    return arrays if len(arrays) > 1 else next(iter(arrays.values()))


def _random_input(part: slice | TokenInput, batch: int, steps: int, random: np.random.Generator) -> Array:
    if isinstance(part, TokenInput):
        return random.integers(part.vocab_size, size=(batch, steps))
    return random.standard_normal((batch, steps, part.stop - part.start)).astype(np.float32)


def cut(x: Inputs, rows: Any, steps: Any = slice(None)) -> Inputs:
    """Some sequences, and of these some steps, of all inputs. Both are whatever NumPy takes as an index."""
    if isinstance(x, Mapping):
        return {name: array[rows, steps] for name, array in x.items()}
    some: Array = x[rows, steps]
    return some


# ---- saving


def save(
    net: Network,
    path: str | os.PathLike[str],
    framework: Run | None = None,
    framework_name: str = "framework",
    *,
    dtype: str = "float32",
    threshold: float = THRESHOLD,
    metadata: dict[str, Any] | None = None,
    inputs: Inputs | None = None,
    golden_steps: Sequence[int] = _GOLDEN_STEPS,
) -> list[Comparison]:
    """Check an export on random inputs, and write it with golden vectors.

    Parameters
    ----------
    net : Network
    path : path
    framework : callable, optional
        Runs the model that the network was made from. Without it, as where the framework is not installed, the engine is
        compared with the float64 reference alone.
    framework_name : str
        What to call it.
    dtype : {"float32", "bfloat16", "float16", "int8"}
        Type of the weights in the file. The checks are made with float32 whatever it is: they are about the export. With
        another type the outputs are compared with those of float32 as well, and may differ by as much as they do; the
        golden vectors allow ``REDUCED_TOLERANCE`` times the largest difference from the framework that was found.
    threshold : float
        See ``compare``.
    metadata : dict, optional
        Is added to the network's.
    inputs : array or dict of arrays, optional
        What to run instead of ``random_inputs``: where some inputs mean something else to the framework, such as padding.
    golden_steps : sequence of int
        Lengths of the sequences that are kept in the file: the first steps of so many rows of the inputs.

    Returns
    -------
    list of Comparison
        Each two sides that were compared.

    Raises
    ------
    ExportError
        If two sides differ by more than the threshold; nothing is written then.
    ValueError
        If ``dtype`` is none of those, or a weight is beyond its range.
    """
    import gru_engine  # it imports the compiled engine, which this module must not need

    least = least_steps(net)
    x = random_inputs(net, steps=50 + least) if inputs is None else inputs
    y_reference = reference.run(net, x)
    y_engine = np.asarray(gru_engine.load(net.tobytes()).run(x))
    comparisons = [compare("engine and float64 reference", y_engine, y_reference, threshold)]
    outputs: Run = lambda x: reference.run(net, x)  # noqa: E731
    if framework is not None:
        outputs = framework
        y_framework = framework(x)
        comparisons.append(compare(f"float64 reference and {framework_name}", y_reference, y_framework, threshold))
        comparisons.append(compare(f"engine and {framework_name}", y_engine, y_framework, threshold))

    golden = []
    for row, steps in enumerate(least + n for n in golden_steps):
        expected = np.asarray(outputs(cut(x, slice(None), slice(steps)))[row], np.float32)
        golden.append((cut(x, row, slice(steps)), expected, threshold * float(np.abs(expected).max())))
    if dtype != "float32":
        model = gru_engine.load(net.tobytes(dtype))
        y = model.run(x)
        comparisons.append(compare(f"{dtype} and float32 weights", y, y_engine, threshold=np.inf))
        sides = [(y, outputs(x)), *((model.run(case), expected) for case, expected, _ in golden)]
        allowed = REDUCED_TOLERANCE * max(float(np.abs(got - right).max(initial=0)) for got, right in sides)
        golden = [(case, expected, max(tolerance, allowed)) for case, expected, tolerance in golden]
    net.save(path, dtype=dtype, golden=golden, metadata=metadata)
    return comparisons
