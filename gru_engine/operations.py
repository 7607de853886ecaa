# SPDX-License-Identifier: Apache-2.0
"""The methods of ``Network`` from which other cells than the GRU, and what stands around them, are put together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.activations import ActivationLike, as_number
from gru_engine.activations import activation as parse_activation
from gru_engine.arguments import as_array, as_size
from gru_engine.builder import MAX_CONCAT, Value, Vector
from gru_engine.layers import (
    INPUT_AXIS,
    NOT_FED,
    Activate,
    Add,
    Affine,
    Array,
    Blend,
    Dense,
    Input,
    Layer,
    Maximum,
    Multiply,
    Norm,
    Repeat,
    Slice,
    State,
    Window,
    ends_sequence,
    sees_ahead,
)
from gru_engine.order import units
from gru_engine.sequences import MAX_SPAN, Sequences

_NODE, _LINE = 25, 1
"""What an operation costs by itself (some 15 ns), in lines of 16 weights (some 0.6 ns)."""


class Operations(Sequences):
    """Operations of a network beside its products."""

    # ---- states

    def state(
        self,
        width: int,
        initial: npt.ArrayLike | Vector | None = None,
        *,
        like: Value | None = None,
        name: str | None = None,
    ) -> Value:
        """The value that another layer, named later by ``feed``, had at the step before.

        Parameters
        ----------
        width : int
        initial : array_like [width] or Value, optional
            The value at the first step of a sequence. None stands for zeros. A value, or several that stand for their
            concatenation, that is computed of contexts alone: the state that a stream has when its context is set.
        like : Value, optional
            A value with as many steps; None: as many as the inputs have.

        Notes
        -----
        With states any recurrent cell can be put together of other layers. The layers between a state and its source are
        computed step by step; what does not depend on a state stays outside and is computed for many steps at once, so
        products with inputs are better kept apart from products with states.
        """
        if not self._layers:
            raise ValueError("state: the network has no input yet; input() or tokens() come first")
        width = as_size(width, "width")
        start, index = self._initial(initial, "state: initial"), NOT_FED
        if start is not None:
            self._check_initial("state: initial", start, width)
            index = start.index
        initial = np.zeros(width, np.float32) if initial is None or start is not None else initial
        array = as_array(initial, "initial", ("width",), (width,))
        steps = [] if like is None else [self._per_step(like, "like", "state")]
        if steps and steps[0].axis == INPUT_AXIS:
            steps = []
        return self._append(State, steps, width, name, per_sequence=False, initial=array, source=NOT_FED, start=index)

    def feed(self, state: Value, value: Vector) -> None:
        """Makes a value the source of a state: at each step the state is what the value was at the step before.

        Parameters
        ----------
        state : Value
            Of ``state``; each is fed once.
        value : Value or list of Value
            As wide as the state, one per time step.

        Raises
        ------
        ValueError
            If that does not fit, or the loop that it closes would need later steps: a reverse GRU, a window with steps
            ahead and values per sequence cannot stand in a loop.
        """
        state = self._value(state, "state")
        if not isinstance(state.layer, State):
            raise ValueError(f"feed: state must be the value of state(), got {state!r}")
        if state.layer.source != NOT_FED:
            raise ValueError(f"feed: {state!r} is fed already, by {Value(self, state.layer.source)!r}")
        value = self._per_step(value, "value", "feed")
        if value.width != state.width:
            raise ValueError(f"feed: {state!r} needs a value of its width, got {value!r}")
        self._check_same_rate("feed", state, value)
        before = list(self._layers)
        # A source stands behind its state and has memory of its own.
        if value.index < state.index or isinstance(value.layer, (Input, State, Slice, Repeat)):
            value = self._append(Activate, [value], value.width, None, activation=parse_activation("linear"))
        self._layers[state.index] = replace(state.layer, source=value.index)
        loop = next(unit for unit in units(self._layers, range(len(self._layers))) if state.index in unit)
        wrong = [i for i in loop if sees_ahead(self._layers[i]) or ends_sequence(self._layers[i])]
        if wrong:
            text = f"feed: {Value(self, wrong[0])!r} cannot stand in the loop of {state!r}: it needs later steps"
            self._layers = before
            raise ValueError(text)

    # ---- element by element

    def add(self, a: Vector, b: Vector, *, name: str | None = None) -> Value:
        """``a + b``, of the same width; one of the two may have the width 1."""
        return self._pairwise(Add, a, b, name)

    def subtract(self, a: Vector, b: Vector, *, name: str | None = None) -> Value:
        """``a - b``, of the same width; one of the two may have the width 1."""
        a, b = self._vector(a, "a"), self._vector(b, "b")
        self._check_pair("subtract", a, b)
        return self.add(a, self.affine(b, np.full(b.width, -1, np.float32), np.zeros(b.width, np.float32)), name=name)

    def multiply(self, a: Vector, b: Vector, *, name: str | None = None) -> Value:
        """``a * b`` element by element, of the same width; one of the two may have the width 1."""
        return self._pairwise(Multiply, a, b, name)

    def maximum(self, a: Vector, b: Vector, *, name: str | None = None) -> Value:
        """The larger of a and b element by element, of the same width; one of the two may have the width 1.

        It is NaN where a or b is, as ``numpy.maximum``. ``max`` is the largest value over the steps of a sequence.
        """
        return self._pairwise(Maximum, a, b, name)

    def minimum(self, a: Vector, b: Vector, *, name: str | None = None) -> Value:
        """The smaller of a and b element by element, of the same width; one of the two may have the width 1.

        It is NaN where a or b is, as ``numpy.minimum``. It is computed as ``-maximum(-a, -b)``, which is exact.
        """
        a, b = self._vector(a, "a"), self._vector(b, "b")
        self._check_pair("minimum", a, b)
        return self._negative(self.maximum(self._negative(a), self._negative(b)), name=name)

    def blend(self, z: Vector, a: Vector, b: Vector, *, name: str | None = None) -> Value:
        """``z * a + (1 - z) * b`` element by element, of the same width: a where z is 1, b where z is 0."""
        values = [self._vector(v, argument) for v, argument in ((z, "z"), (a, "a"), (b, "b"))]
        if len({value.width for value in values}) > 1:
            widths = ", ".join(str(value.width) for value in values)
            raise ValueError(f"blend: z, a and b must have the same width, got {widths}")
        return self._append(Blend, values, values[0].width, name)

    def affine(self, v: Vector, scale: npt.ArrayLike, shift: npt.ArrayLike, *, name: str | None = None) -> Value:
        """``v * scale + shift`` element by element; scale and shift have the shape [width]."""
        v = self._vector(v, "v")
        scale, shift = (as_array(a, n, ("width",), (v.width,)) for a, n in ((scale, "scale"), (shift, "shift")))
        return self._append(Affine, [v], v.width, name, scale=scale, shift=shift)

    def activation(self, v: Vector, spec: ActivationLike, *, name: str | None = None) -> Value:
        """An activation function of a value; softmax and log_softmax are over its whole width."""
        v = self._vector(v, "v")
        return self._append(Activate, [v], v.width, name, activation=parse_activation(spec, "spec"))

    # ---- columns and steps

    def slice(self, v: Vector, start: int, stop: int, *, name: str | None = None) -> Value:
        """Columns ``start`` to ``stop``, exclusive, of a value: ``v[start:stop]``. All of them are the value itself."""
        v = self._vector(v, "v")
        for argument, number in (("start", start), ("stop", stop)):
            if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
                raise TypeError(f"slice: {argument} must be an integer, got {number!r}")
        return self._columns(v, int(start), int(stop), name)

    def _columns(self, v: Value, start: int, stop: int, name: str | None) -> Value:
        v = self._step_vector(v, "v")
        if not 0 <= start < stop <= v.width:
            raise ValueError(f"slice: columns {start} to {stop} of {v!r}; expected 0 <= start < stop <= {v.width}")
        if stop - start == v.width:
            return v
        return self._append(Slice, [v], stop - start, name, first=start)

    def window(self, v: Vector, taps: int, dilation: int = 1, ahead: int = 0, *, name: str | None = None) -> Value:
        """A value at several steps, one after the other, the oldest first.

        Parameters
        ----------
        v : Value or list of Value
        taps : int
            Number of steps, K. With one the result is the value itself.
        dilation : int
            Distance of the steps, d.
        ahead : int
            How many steps after the present one the last of them is, 0 to ``(K - 1) * d``. A network with steps ahead
            cannot be stepped.

        Returns
        -------
        Value
            Of width ``K * v.width``: v at the steps ``t + (j - (K - 1)) * d + ahead``, j = 0 .. K-1; zeros for steps that
            are not of the sequence.
        """
        v = self._per_step(v, "v", "window")
        taps, dilation = as_size(taps, "taps"), as_size(dilation, "dilation")
        span = (taps - 1) * dilation
        if span > MAX_SPAN:
            raise ValueError(f"window: (taps - 1) * dilation is {span}, expected at most {MAX_SPAN}")
        if isinstance(ahead, bool) or not isinstance(ahead, (int, np.integer)):
            raise TypeError(f"window: ahead must be an integer, got {ahead!r}")
        if not 0 <= ahead <= span:
            raise ValueError(f"window: ahead must be from 0 to (taps - 1) * dilation = {span}, got {ahead}")
        if taps == 1:
            return v
        width = as_size(taps * v.width, "window: taps * width")
        return self._append(Window, [v], width, name, taps=taps, dilation=dilation, ahead=int(ahead))

    def conv1d(
        self,
        v: Vector,
        W: npt.ArrayLike,
        b: npt.ArrayLike | None = None,
        *,
        dilation: int = 1,
        groups: int = 1,
        stride: int = 1,
        padding: str | tuple[int, int] = "causal",
        activation: ActivationLike = "linear",
        name: str | None = None,
    ) -> Value:
        """A convolution over time, cross-correlation as in all frameworks: a ``window`` and a product.

        Parameters
        ----------
        v : Value or list of Value
            Of I channels.
        W : array_like [O, I / groups, K]
            The last tap is the newest step.
        b : array_like [O], optional
            None stands for zeros.
        dilation : int
            Distance of the taps.
        groups : int
            The channels are cut into so many equal parts, and outputs of a part depend on its inputs only.
        stride : int
            Distance of the outputs, in steps.
        padding : {"causal", "same", "valid"} or (int, int)
            Zeros before the beginning and after the end of the sequence, at most ``(K - 1) * dilation`` together. With
            that many there are as many outputs as inputs, if the stride is 1: ``"causal"`` has them all before the
            beginning, and only so (and without a stride) a network can be stepped; ``"same"``, only without a stride, has
            half of them there, the smaller half if they differ. ``"valid"`` is ``(0, 0)``.
        activation : str or tuple

        Returns
        -------
        Value
            ``(T + left + right - (K - 1) * dilation - 1) // stride + 1`` steps of width O.

        Raises
        ------
        ValueError
            If an array does not fit, or there would be more outputs than inputs.
        """
        v = self._per_step(v, "v", "conv1d")
        act = parse_activation(activation)
        groups, dilation = as_size(groups, "groups"), as_size(dilation, "dilation")
        if v.width % groups:
            raise ValueError(f"conv1d: groups must divide the {v.width} channels of v, got {groups}")
        W = as_array(W, "W", ("O", "I / groups", "K"), (None, v.width // groups, None))
        if len(W) % groups:
            raise ValueError(f"conv1d: groups must divide the {len(W)} outputs of W, got {groups}")
        bias = as_array(np.zeros(len(W), W.dtype) if b is None else b, "b", ("O",), (len(W),))
        stride = as_size(stride, "stride", MAX_SPAN)
        lost, ahead = _padding(padding, (W.shape[2] - 1) * dilation, stride)

        def window(v: Value) -> Value:
            return self.subsample(self.window(v, W.shape[2], dilation, ahead), stride, lost)

        kind = _cheapest_convolution(W, groups)
        if kind == "taps":
            sums = self._convolution_by_taps(window(v), W[:, 0], bias, name, act.name)
        elif kind == "groups":
            size = v.width // groups
            parts = [
                self._append_dense(window(v[g * size : (g + 1) * size]), *part, act)
                for g, part in enumerate(zip(np.split(W, groups), np.split(bias, groups)))
            ]
            return self.concat(parts, name=name)
        else:
            return self._append_dense(window(v), _expanded(W, groups), bias, act, name)
        return sums if act.name == "linear" else self.activation(sums, act, name=name)

    def _append_dense(self, x: Value, W: Array, b: Array, act: Any, name: str | None = None) -> Value:
        """A product with a kernel [O, I, K]: the columns of a window are the inputs of the oldest step first."""
        columns = np.ascontiguousarray(W.transpose(0, 2, 1).reshape(len(W), -1))
        columns.setflags(write=False)
        return self._append(Dense, [x], len(W), name, W=columns, b=b, activation=act)

    def _convolution_by_taps(self, window: Value, W: Array, b: Array, name: str | None, act: str) -> Value:
        """One kernel [I, K] per channel: a sum of the taps, each scaled."""
        width, taps = W.shape
        zeros, total = np.zeros_like(b), None
        for j in range(taps):
            last = name if act == "linear" and j == taps - 1 else None
            part = self._columns(window, j * width, (j + 1) * width, None)
            part = self.affine(part, W[:, j], zeros if j else b, name=last if taps == 1 else None)
            total = part if total is None else self.add(total, part, name=last)
        assert total is not None
        return total

    # ---- normalisation

    def layer_norm(
        self,
        v: Vector,
        scale: npt.ArrayLike | None = None,
        shift: npt.ArrayLike | None = None,
        epsilon: float = 1e-5,
        parts: int = 1,
        *,
        name: str | None = None,
    ) -> Value:
        """Layer normalisation: ``(v - mean) / sqrt(variance + epsilon) * scale + shift``.

        Parameters
        ----------
        v : Value or list of Value
        scale, shift : array_like [width], optional
            None stands for ones and zeros.
        epsilon : float
        parts : int
            The value is cut into so many equal parts, and each has a mean and a variance of its own.

        References
        ----------
        Ba, Kiros, Hinton, "Layer Normalization", 2016, arXiv:1607.06450.
        """
        return self._norm("layer_norm", v, scale, shift, epsilon, parts, False, name)

    def rms_norm(
        self,
        v: Vector,
        scale: npt.ArrayLike | None = None,
        epsilon: float = 1e-6,
        parts: int = 1,
        *,
        name: str | None = None,
    ) -> Value:
        """Root-mean-square normalisation: ``v / sqrt(mean(v * v) + epsilon) * scale``; see ``layer_norm``.

        References
        ----------
        Zhang, Sennrich, "Root Mean Square Layer Normalization", 2019, arXiv:1910.07467.
        """
        return self._norm("rms_norm", v, scale, None, epsilon, parts, True, name)

    def _norm(
        self, method: str, v: Vector, scale: Any, shift: Any, epsilon: Any, parts: Any, rms: bool, name: str | None
    ) -> Value:
        v = self._vector(v, "v")
        scale = as_array(np.ones(v.width, np.float32) if scale is None else scale, "scale", ("width",), (v.width,))
        shift = as_array(np.zeros(v.width, scale.dtype) if shift is None else shift, "shift", ("width",), (v.width,))
        epsilon = as_number(epsilon, f"{method}: epsilon")
        if epsilon < 0:
            raise ValueError(f"{method}: epsilon must not be negative, got {epsilon}")
        if v.width % as_size(parts, "parts"):
            raise ValueError(f"{method}: parts must divide the width {v.width}, got {parts}")
        fields: dict[str, Any] = {"scale": scale, "shift": shift, "epsilon": epsilon, "rms": rms, "parts": int(parts)}
        return self._append(Norm, [v], v.width, name, **fields)

    # ---- helpers

    def _negative(self, v: Value, *, name: str | None = None) -> Value:
        """The value with the other sign: with -0 as the shift that is so of zeros too."""
        return self.affine(v, np.full(v.width, -1, np.float32), np.full(v.width, -0.0, np.float32), name=name)

    def _pairwise(self, kind: type[Layer], a: Vector, b: Vector, name: str | None) -> Value:
        a, b = self._vector(a, "a"), self._vector(b, "b")
        self._check_pair(kind.__name__.lower(), a, b)
        if a.width < b.width:  # the second one is broadcast
            a, b = b, a
        return self._append(kind, [a, b], a.width, name)

    @staticmethod
    def _check_pair(method: str, a: Value, b: Value) -> None:
        if a.width != b.width and 1 not in (a.width, b.width):
            raise ValueError(
                f"{method}: a and b must have the same width, got {a.width} and {b.width}; one of them may have the width 1"
            )


def _padding(padding: Any, span: int, stride: int) -> tuple[int, int]:
    """How many steps are lost at the beginning, and how many steps ahead the last tap is."""
    if padding == "causal":
        return 0, 0
    if padding == "valid":
        return span, 0
    if padding == "same":
        if stride > 1:
            raise ValueError(
                f"conv1d: what padding 'same' is depends on the number of steps with a stride of {stride}; give (left, right)"
            )
        return 0, span - span // 2
    if isinstance(padding, str) or not isinstance(padding, (tuple, list)) or len(padding) != 2:
        raise ValueError(f"conv1d: padding must be 'causal', 'same', 'valid' or (left, right), got {padding!r}")
    for number in padding:
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise TypeError(f"conv1d: padding must be two integers, got {padding!r}")
    left, right = map(int, padding)
    if left + right > span or left < 0 or right < 0:
        raise ValueError(
            f"conv1d: the padding {padding!r} would make more steps of them; expected (left, right), not negative, with "
            f"left + right <= (K - 1) * dilation = {span}"
        )
    return span - left - right, right


def _cheapest_convolution(W: Array, groups: int) -> str:
    """How a convolution [O, I / groups, K] is best expressed: as one matrix, by group, or tap by tap."""
    outputs, columns, taps = W.shape
    lines = taps * columns * -(-outputs // 16) * _LINE
    costs = {"matrix": 2 * _NODE + lines * groups}
    if 1 < groups <= MAX_CONCAT:
        costs["groups"] = (3 * groups + 1) * _NODE + taps * columns * -(-(outputs // groups) // 16) * groups * _LINE
    if columns == 1 and outputs == groups > 1:
        costs["taps"] = 3 * taps * (_NODE + -(-outputs // 16) * _LINE)
    return min(costs, key=lambda kind: costs[kind])


def _expanded(W: Array, groups: int) -> Array:
    """The kernel [O, I, K] of one group that does the same as W [O, I / groups, K]."""
    outputs, columns, taps = W.shape
    whole = np.zeros((groups, outputs // groups, groups, columns, taps), W.dtype)
    for g, part in enumerate(np.split(W, groups)):
        whole[g, :, g] = part
    return whole.reshape(outputs, groups * columns, taps)
