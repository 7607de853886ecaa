# SPDX-License-Identifier: Apache-2.0
"""Network: a trained network as NumPy arrays, independent of any framework.

A network is a list of layers in topological order, built by calling its methods. Every method takes the values of
earlier layers and returns the value of the new one; wherever a vector is expected a list of values stands for their
concatenation. Whatever convention the arrays come in is turned into the one canonical form at once (docs/NUMERICS.md).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine._inputs import TokenInput
from gru_engine.activations import ActivationLike
from gru_engine.activations import activation as parse_activation
from gru_engine.arguments import (
    MAX_VOCABULARY,
    as_array,
    as_file,
    as_name,
    as_size,
    as_vector,
    fold_bias,
    gru_fields,
    halves,
)
from gru_engine.builder import MAX_CONCAT, Value, Vector
from gru_engine.layers import (
    INPUT_AXIS,
    NOT_FED,
    Array,
    Attention,
    Axis,
    Context,
    Dense,
    Embedding,
    First,
    Gru,
    Input,
    Last,
    Layer,
    State,
    Tokens,
    ends_sequence,
    same_layer,
    sees_ahead,
)
from gru_engine.operations import Operations
from gru_engine.precision import as_dtype, rounded_layer
from gru_engine.summary import summary_of

__all__ = ["MAX_CONCAT", "MAX_INPUTS", "MAX_OUTPUTS", "Network", "Value", "Vector"]

MAX_INPUTS = 4096  # docs/FORMAT.md
MAX_OUTPUTS = 4096

NOT_NEEDED = Axis(steps=1)


class Network(Operations):
    """A trained network.

    Examples
    --------
    >>> net = Network()
    >>> x = net.input(40)
    >>> h = net.gru(x, W, U, b_x, b_h)
    >>> net.output(net.dense([h, x], W2, b2, activation="softmax"), name="p")
    >>> net.save("model.gru")

    Notes
    -----
    Arrays are copied, checked and kept as float32 (float16, float32) or float64 (float64, integers), read-only.
    Layers whose value reaches no output do not count: no state, no bytes in a file. ``pruned`` is the network without
    them.
    """

    metadata: dict[str, Any]
    """Whatever is to be kept with the model: anything that JSON can express. Yours to set."""

    def __init__(self) -> None:
        super().__init__()
        self.metadata = {}

    # ---- inputs

    def input(self, width: int, *, name: str | None = None) -> Value:
        """An input: a vector of ``width`` floats per time step.

        A network may have several inputs, of ``input`` and ``tokens`` in any order, before all other layers. Each has a
        name of its own then, by which it is given: ``model.run({"audio": x, "speaker": s})``.
        """
        name = self._check_input("input", name)
        first = self.input_size or 0
        as_size(first + as_size(width, "input: the width"), "the width of all inputs together")
        return self._append(Input, [], width, name, first=first)

    def context(self, width: int, *, name: str | None = None) -> Value:
        """An input that is given once per sequence: a vector of ``width`` floats, one per sequence.

        It says under what conditions a sequence runs: who speaks, what to recommend for, the encoder's summary of a
        sentence. A model is given it apart from the steps' inputs (``model.run(x, context=c)``,
        ``stream.set_context(c)``) and keeps what is computed of contexts alone until another one is given.

        ``repeat`` makes of it, or of what is computed of it, a value per step. Where the input of a GRU begins with such
        values, their product is kept as well, and steps compute the rest (``save``, ``fold``).

        Contexts stand among the inputs, before all other layers; with several each has a name of its own. There must be
        an input of the steps beside them.
        """
        name = self._check_input("context", name)
        first = self.context_size or 0
        as_size(first + as_size(width, "context: the width"), "the width of all contexts together")
        return self._append(Context, [], width, name, first=first, per_sequence=True, held=True)

    def tokens(self, vocab: int, *, name: str | None = None) -> Value:
        """An input: one integer per time step, 0 <= token < ``vocab``.

        There may be several inputs; see ``input``.
        """
        name = self._check_input("tokens", name)
        first = sum(isinstance(layer, Tokens) for layer in self._layers)
        return self._append(Tokens, [], as_size(vocab, "vocab", MAX_VOCABULARY), name, first=first)

    # ---- layers with weights

    def embedding(self, tokens: Value, E: npt.ArrayLike, *, name: str | None = None) -> Value:
        """Row of the token: ``E[token]``.

        Parameters
        ----------
        tokens : Value
            The value of ``tokens()``.
        E : array_like [vocabulary, D]
        """
        tokens = self._value(tokens, "tokens")
        if tokens.kind != "tokens":
            raise ValueError(f"tokens must be the value of tokens(), got {tokens!r}")
        E = as_array(E, "E", ("vocabulary", "D"), (tokens.width, None))
        return self._append(Embedding, [tokens], E.shape[1], name, E=E)

    def dense(
        self,
        x: Vector,
        W: npt.ArrayLike,
        b: npt.ArrayLike | None = None,
        *,
        activation: ActivationLike = "linear",
        name: str | None = None,
    ) -> Value:
        """``activation(W x + b)``.

        Parameters
        ----------
        x : Value or list of Value
            If it is the tokens, W multiplies their one-hot vectors: the value is ``activation(W[:, token] + b)``.
        W : array_like [O, I]
        b : array_like [O], optional
            None stands for zeros.
        activation : str or tuple
            See ``gru_engine.activations.activation``; softmax and log_softmax are over all O.
        """
        x = self._vector(x, "x", tokens=True)
        W = as_array(W, "W", ("O", "I"), (None, x.width))
        b = as_vector(b, "b", "O", len(W), W.dtype)
        if x.kind == "tokens":
            W, b = fold_bias(W, b)
        return self._append(Dense, [x], len(W), name, W=W, b=b, activation=parse_activation(activation))

    def gru(
        self,
        x: Vector,
        W: npt.ArrayLike,
        U: npt.ArrayLike,
        b_x: npt.ArrayLike | None = None,
        b_h: npt.ArrayLike | None = None,
        *,
        reset: str = "after",
        gates: str | None = None,
        keep: str = "old",
        activation: ActivationLike = "tanh",
        gate_activation: ActivationLike = "sigmoid",
        clip: float | None = None,
        direction: str = "forward",
        h0: npt.ArrayLike | Vector | None = None,
        name: str | None = None,
    ) -> Value:
        """A GRU layer; its value is the new hidden state.

        With ``s_x = W x + b_x``, ``s_h = U h + b_h``, ``z`` keeping the old state (docs/NUMERICS.md, section 2)::

            r = gate_activation(s_x[r] + s_h[r])            z = gate_activation(s_x[z] + s_h[z])
            reset="after" :  n = activation(s_x[n] + r * s_h[n])                      PyTorch, cuDNN, Keras reset_after
            reset="before":  n = activation(s_x[n] + U[n] (r * h) + b_h[n])           Cho et al. 2014, ONNX default
            reset="all"   :  n = activation(r * (s_x[n] + s_h[n]))                    Dreamer
            reset="none"  :  n = activation(s_x[n] + s_h[n])                          Li-GRU; there is no r
            h' = z * h + (1 - z) * n

        Parameters
        ----------
        x : Value or list of Value
            If it is the tokens, W multiplies their one-hot vectors.
        W : array_like [G*H, I]
            G = 3 gates, or 2 with ``reset="none"``.
        U : array_like [G*H, H]
        b_x, b_h : array_like [G*H], optional
            None stands for zeros.
        reset : {"after", "before", "all", "none"}
            Where the reset gate acts.
        gates : str, optional
            The order in which the gates' rows stand in the arrays: a permutation of ``"rzn"`` (the default), of
            ``"zn"`` with ``reset="none"``.
        keep : {"old", "new"}
            ``"new"``: the arrays are of the update gate with the other sense, ``h' = (1 - z) * h + z * n``. The rows of
            z are negated, which is the same where ``gate_activation(-a) == 1 - gate_activation(a)``; elsewhere it is
            refused.
        activation, gate_activation : str or tuple
            See ``gru_engine.activations.activation``; softmax and log_softmax are refused.
        clip : float, optional
            Limits the argument of every activation to ``[-clip, clip]``.
        direction : {"forward", "reverse", "bidirectional"}
            ``"reverse"`` runs from the end of the sequence to its start; the values stay in forward order.
            ``"bidirectional"`` takes every array with a leading axis of 2 (forward, reverse) and returns the
            concatenation of both.
        h0 : array_like [H] or Value, optional
            The hidden state at the start of a sequence. None stands for zeros. A value, or several that stand for their
            concatenation, of width H (bidirectional: 2 H, the forward half first) that is computed of contexts alone: the
            state that a stream has when its context is set.
        """
        x = self._vector(x, "x", tokens=True)
        if x.per_sequence:
            raise ValueError(f"gru: x is one value per sequence ({x!r}); a GRU needs one per time step")
        if direction not in ("forward", "reverse", "bidirectional"):
            raise ValueError(f"direction must be 'forward', 'reverse' or 'bidirectional', got {direction!r}")
        start = self._initial(h0, "gru: h0")
        arrays: dict[str, Any] = {"W": W, "U": U, "b_x": b_x, "b_h": b_h, "h0": None if start else h0}
        options: dict[str, Any] = {"width": x.width, "one_hot": x.kind == "tokens", "reset": reset, "gates": gates}
        options |= {"keep": keep, "activation": activation, "gate_activation": gate_activation, "clip": clip}
        if direction != "bidirectional":
            return self._append_gru(x, name, direction == "reverse", gru_fields(**arrays, **options), start)
        forward, reverse = (gru_fields(**half, **options) for half in halves(arrays))
        starts: tuple[Value | None, ...] = (None, None)
        if start is not None:
            hidden = len(forward["h0"])
            self._check_initial("gru: h0", start, 2 * hidden)
            starts = (start[:hidden], start[hidden:])
        both = [
            self._append_gru(x, f"{name}.forward" if name else None, False, forward, starts[0]),
            self._append_gru(x, f"{name}.reverse" if name else None, True, reverse, starts[1]),
        ]
        return self.concat(both, name=name)

    # ---- values per sequence; more operations are in operations.py

    def last(self, v: Vector, *, name: str | None = None) -> Value:
        """The value at the last step of the sequence: one value per sequence."""
        return self._edge(Last, v, name)

    def first(self, v: Vector, *, name: str | None = None) -> Value:
        """The value at the first step of the sequence, where a reverse GRU ends: one value per sequence."""
        return self._edge(First, v, name)

    # ---- outputs

    def output(self, v: Vector, name: str | None = None) -> None:
        """Makes a value an output of the network, under a name: by default ``"y"``, then ``"y1"``, ``"y2"`` ...

        The outputs one after the other are the output vector. Either all of them are one per sequence or none is.
        """
        v = self._vector(v, "v")
        if name is None:
            name = f"y{len(self._outputs) or ''}"
        if not as_name(name):
            raise ValueError("the name of an output must not be empty")
        if name in self._outputs:
            raise ValueError(f"there is already an output named {name!r}; outputs: {', '.join(self._outputs)}")
        if len(self._outputs) == MAX_OUTPUTS:
            raise ValueError(f"a network has at most {MAX_OUTPUTS} outputs")
        if self._outputs:
            self._check_same_rate("output", Value(self, next(iter(self._outputs.values()))), v)
        as_size(self.output_size + v.width, "the width of all outputs together")
        self._outputs[name] = v.index

    # ---- what the network is

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers in topological order; a ``Value``'s index counts in it."""
        return tuple(self._layers)

    @property
    def output_layers(self) -> dict[str, int]:
        """For each output's name the number of its layer."""
        return dict(self._outputs)

    @property
    def inputs(self) -> dict[str, slice | TokenInput]:
        """For each input's name its part of the input vector or, of tokens, a ``TokenInput``.

        The name of an only input may be empty.
        """
        parts: dict[str, slice | TokenInput] = {}
        for layer in self._input_layers():
            vector = isinstance(layer, Input)
            parts[layer.name] = (
                slice(layer.first, layer.first + layer.width) if vector else TokenInput(vocab_size=layer.width)
            )
        return parts

    @property
    def input_size(self) -> int | None:
        """Width of the input vector, all of its parts together; None if there is none (or not yet)."""
        return sum(layer.width for layer in self._input_layers() if isinstance(layer, Input)) or None

    @property
    def contexts(self) -> dict[str, slice]:
        """For each context's name its part of the context vector; empty if there are none.

        The name of an only context may be empty.
        """
        return {layer.name: slice(layer.first, layer.first + layer.width) for layer in self._context_layers()}

    @property
    def context_size(self) -> int | None:
        """Width of the context vector, all contexts side by side; None if there are none (or not yet)."""
        return sum(layer.width for layer in self._context_layers()) or None

    @property
    def vocab_size(self) -> int | None:
        """Size of the vocabulary; None if there are no tokens (or not yet), or several, of which ``inputs`` has the sizes."""
        sizes = [layer.width for layer in self._input_layers() if isinstance(layer, Tokens)]
        return sizes[0] if len(sizes) == 1 else None

    @property
    def output_size(self) -> int:
        """Width of the output vector."""
        return sum(self._layers[i].width for i in self._outputs.values())

    @property
    def outputs(self) -> dict[str, slice]:
        """For each output's name its part of the output vector."""
        parts, start = {}, 0
        for name, index in self._outputs.items():
            parts[name] = slice(start, start := start + self._layers[index].width)
        return parts

    @property
    def per_sequence(self) -> bool:
        """Whether there is one output vector per sequence instead of one per time step."""
        return any(self._layers[i].per_sequence for i in self._outputs.values())

    @property
    def axis(self) -> Axis:
        """How many steps the outputs have, if they are one per step: ``net.axis.count(T)`` of an input of T steps."""
        return next((self._layers[i].axis for i in self._outputs.values()), INPUT_AXIS)

    @property
    def least_steps(self) -> int:
        """Steps that a sequence must have at least: there must be one wherever a value per sequence is made of steps."""
        least = int(self.per_sequence or self.axis.steps is not None)
        return max([least, *(self._needed(layer).least for layer in self._reached() if layer.inputs)])

    def _needed(self, layer: Layer) -> Axis:
        """The axis that must have a step for a layer."""
        if ends_sequence(layer):
            return self._layers[layer.inputs[0]].axis
        steps = isinstance(layer, Attention) and not layer.rows
        return self._layers[layer.inputs[1]].axis if steps else NOT_NEEDED

    @property
    def causal(self) -> bool:
        """Whether it can be stepped: nothing needs later steps, as a reverse GRU, ``first`` and ``mean`` do."""
        return not any(map(sees_ahead, self._reached()))

    @property
    def state_size(self) -> int:
        """Floats of a stream's state: what layers keep from step to step, one after the other.

        A GRU keeps its hidden state, a state its value, a window the inputs of the steps before that it reads, the oldest
        first. The layers are in the order of ``pruned``.
        """
        return sum(len(layer.initial_state) for layer in self._reached())

    @property
    def initial_state(self) -> Array:
        """The state at the start of a sequence, float64 [state_size]; zeros for what depends on a context."""
        return np.concatenate([np.zeros(0)] + [layer.initial_state for layer in self._reached()])

    @property
    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(array.size for layer in self._reached() for array in layer.arrays.values())

    def pruned(self) -> Network:
        """The same network without the layers that reach no output, in the order of a file.

        That is the order in which they were added, except that what lies between a state and its source, and does not
        depend on the one or is not needed for the other, stands before or behind. All inputs stay, even one that reaches no
        output: whoever runs the network goes on giving it.

        Raises
        ------
        ValueError
            If there is no output, or a state is not fed.
        """
        if not self._outputs:
            raise ValueError("the network has no output; name one with output(value)")
        if not self.inputs:
            raise ValueError("the network has no input of its steps; input() or tokens() makes one")
        reached = self._reached_indices()
        for index in reached:
            layer = self._layers[index]
            if isinstance(layer, State) and layer.source == NOT_FED:
                raise ValueError(
                    f"{Value(self, index)!r} is not fed; feed(state, value) names what it is at the next step"
                )
        number = {old: new for new, old in enumerate(reached)}
        net = Network()
        net._layers = [self._layers[old].renumbered(number) for old in reached]
        net._outputs = {name: number[index] for name, index in self._outputs.items()}
        net.metadata = self.metadata
        return net

    def rounded(self, dtype: str) -> Network:
        """The same network with the weights that a file of this type holds.

        Parameters
        ----------
        dtype : {"float32", "bfloat16", "float16", "int8"}
            Type of the matrices; matrices of one-hot tokens and everything else become float32. Those of int8, a float32
            scale for each row times integers from -127 to 127, are float64 here, which holds the products exactly.

        Raises
        ------
        ValueError
            If ``dtype`` is none of these, a weight is beyond its range, or an int8 matrix has over 131072 columns.
        """
        as_dtype(dtype)
        net = Network()
        for layer in self._layers:
            one_hot = any(isinstance(self._layers[i], Tokens) for i in layer.inputs)
            net._layers.append(rounded_layer(layer, one_hot, dtype))
        net._outputs = dict(self._outputs)
        net.metadata = self.metadata
        return net

    def same(self, other: Network) -> bool:
        """Whether both compute the same: the same layers with bitwise equal arrays and the same named outputs.

        Scalar parameters are compared as float32, as a file keeps them. Layers that reach no output, the metadata and the
        names of layers are not compared, except those of several inputs.
        """
        a, b = self.pruned(), other.pruned()
        return (
            (list(a.inputs) == list(b.inputs) or len(a.inputs) == 1)
            and (list(a.contexts) == list(b.contexts) or len(a.contexts) == 1)
            and list(a._outputs.items()) == list(b._outputs.items())
            and len(a._layers) == len(b._layers)
            and all(map(same_layer, a._layers, b._layers))
        )

    def __repr__(self) -> str:
        if not self._layers:
            return "<Network: empty>"
        inputs = ", ".join(f"{layer.operation} {layer.width}" for layer in self._given_layers()) or "no input"
        outputs = ", ".join(f"{name} {part.stop - part.start}" for name, part in self.outputs.items()) or "nothing yet"
        return (
            f"<Network: {inputs} -> {outputs}; {len(self._layers)} layers, "
            f"{self.parameter_count} weights, state {self.state_size}>"
        )

    def summary(self) -> str:
        """A table of the layers, one line each, and the totals."""
        return summary_of(self)

    # ---- files

    def tobytes(
        self,
        dtype: str = "float32",
        fold: bool | str = "auto",
        golden: Sequence[tuple[Any, ...]] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> bytes:
        """The bytes of a ``.gru`` file of this network; see ``save``."""
        from gru_engine.format import pack  # builds on this module

        return pack(self, fold=fold, golden=golden, metadata=metadata, dtype=dtype)

    def save(
        self,
        path: str | os.PathLike[str],
        dtype: str = "float32",
        fold: bool | str = "auto",
        golden: Sequence[tuple[Any, ...]] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Writes a ``.gru`` file. It appears complete or not at all.

        Parameters
        ----------
        path : str or path
        dtype : {"float32", "bfloat16", "float16", "int8"}
            Type of the weight matrices in the file (see ``rounded``). Everything else, states and sums included, is float32;
            with int8 the vectors that are multiplied with a matrix are rounded to int8 as well.
        fold : {"auto", True, False}
            Whether an embedding is multiplied into the matrix that reads it, as a table of finished sums with a row per
            token: faster, but larger for large vocabularies. ``"auto"``: where the table is no larger than what it
            replaces, or than 16 MiB. Unless it is False, what is computed of repeated values alone is computed once per
            sequence, and their product where the input of a GRU begins with them. No bit of a result depends on it, unless
            ``dtype`` is ``"int8"``: a table is float32, and a vector that is multiplied in two parts is rounded in two.
        golden : list of (x, y, tolerance) or (x, y, tolerance, context), optional
            Golden cases: an input sequence (float32 [T, I], tokens [T], or a dict of such arrays as for ``Model.run``),
            the outputs of the framework it came from (or None) and the largest difference allowed. The engine's own
            outputs are computed and kept as well.
        metadata : dict, optional
            Is added to ``self.metadata``.

        Raises
        ------
        ValueError
            If the network has no outputs, ``dtype`` or ``fold`` is none of those above, a weight is beyond the range of
            the type, an int8 matrix has more than 131072 columns, a golden case does not fit, or the engine differs there
            by more than the tolerance.
        OSError
            If the file cannot be written.
        """
        path = as_file(path)
        data = self.tobytes(dtype, fold, golden, metadata)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:  # of the file that was asked for, not of the one that nobody knows
            if error.errno is None:
                raise
            raise OSError(error.errno, error.strerror, str(path)) from error
        finally:
            temporary.unlink(missing_ok=True)

    # ---- building blocks

    def _append_gru(
        self, x: Value, name: str | None, reverse: bool, fields: dict[str, Any], start: Value | None = None
    ) -> Value:
        hidden = len(fields["h0"])
        if start is not None:
            self._check_initial("gru: h0", start, hidden)
            fields = {**fields, "start": start.index}
        return self._append(Gru, [x], hidden, name, reverse=reverse, **fields)

    def _edge(self, kind: type[Layer], v: Vector, name: str | None) -> Value:
        v = self._vector(v, "v")
        if v.per_sequence:
            raise ValueError(f"{kind.__name__.lower()}: v is already one value per sequence: {v!r}")
        return self._append(kind, [v], v.width, name, per_sequence=True)

    def _check_input(self, method: str, name: str | None) -> str:
        """The checked name of a further input."""
        name, given = as_name(name), self._given_layers()
        if len(given) < len(self._layers):
            raise ValueError(
                f"{method}() must come before all other layers; the network already has {Value(self, len(given))!r}"
            )
        kind = "context" if method == "context" else "input"
        others = [i for i, layer in enumerate(given) if isinstance(layer, Context) == (kind == "context")]
        if others and not (name and given[others[0]].name):
            which = (
                f"the first, {Value(self, others[0])!r},"
                if name
                else f"the {method}() after {Value(self, others[-1])!r}"
            )
            raise ValueError(f"each of several {kind}s needs a name, but {which} has none")
        for layer in given:
            if name and layer.name == name:
                taken = [*self.inputs, *self.contexts]
                what = "a context" if isinstance(layer, Context) else "an input"
                raise ValueError(f"there is already {what} named {name!r}; inputs: {', '.join(filter(None, taken))}")
        if len(given) == MAX_INPUTS:
            raise ValueError(f"a network has at most {MAX_INPUTS} inputs")
        return name
