# SPDX-License-Identifier: Apache-2.0
"""What each layer of Keras means for values of known axes: one short function per class.

The table ``LAYERS`` is the list of what can be exported, ``REFUSED`` says why some others cannot. A function takes the layer's
``Spec`` and its inputs, and returns its outputs. The recurrent layers are in ``gru_engine.export.keras_recurrent``, those along
the time and normalisation in ``gru_engine.export.keras_time``, activation functions in ``gru_engine.export.keras_activations``.

With a mask (``Masking``, ``Embedding(mask_zero=True)``) Keras skips padding: recurrent layers keep their state there. That is
what ``lengths=`` does for the whole network at run time. So a value carries whether Keras's mask has come with it, and ``Masks``
remembers who used the mask and who went without: a network can do only one of the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gru_engine.export import operations, over_time
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import AxisError, Tensor, axis_text, cat, is_features, steps_axis
from gru_engine.export.keras_activations import activate, number, softmax
from gru_engine.export.keras_model import Spec
from gru_engine.export.over_time import is_steps, is_time


@dataclass(frozen=True)
class Value:
    """A tensor, and whether Keras's mask comes with it."""

    tensor: Tensor
    masked: bool = False

    def but(self, tensor: Tensor) -> Value:
        """Another tensor with the same mask."""
        return Value(tensor, self.masked)


@dataclass
class Masks:
    """Where masks come from, and which layers used them or would have needed one."""

    sources: list[str] = field(default_factory=list)  # layers
    marks: dict[str, list[float]] = field(
        default_factory=dict
    )  # the input, and what marks padding there: tokens or values
    used: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    carried: set[int] = field(default_factory=set)  # ids where nodes begin whose last value padding repeats

    def begin(self, spec: Spec, inputs: Sequence[str], mark: float) -> None:
        """Note that a layer makes a mask of the steps at which inputs are ``mark``."""
        self.sources.append(str(spec))
        for name in inputs:
            self.marks.setdefault(name, []).append(mark)

    def read(self, spec: Spec, value: Value) -> None:
        """Note that a layer's result depends on where a sequence ends. One that always has as many steps has no padding."""
        if any(is_steps(dim) and steps_axis(str(dim[0])).steps is not None for dim in value.tensor.dims):
            return
        (self.used if value.masked else self.missed).append(str(spec))

    def check(self) -> None:
        """Refuse a model in which some layers skip padding and others do not.

        Raises
        ------
        ExportError
        """
        if self.used and self.missed:
            raise ExportError(
                f"{self.used[0]} has the mask of {self.sources[0]} and skips padding, but {self.missed[0]} reads it as "
                "data: the mask does not reach it, and lengths= would hold for both"
            )
        if self.used and any(len(set(map(repr, marks))) > 1 for marks in self.marks.values()):
            raise ExportError(f"masks of different values meet: {', '.join(self.sources)}")


@dataclass
class Context(operations.Context):
    """The graph in the making; the version of Keras; the masks; how many layers were followed.

    ``steps`` is the number of steps of the model's input, where it is fixed. Where the network is exact for that number alone,
    ``every`` is 0; if it is so for numbers that differ from it by a multiple of ``every``, it is that.
    """

    major: int = 3
    masks: Masks = field(default_factory=Masks)
    followed: int = 0
    steps: int | None = None
    every: int = 1

    def exact_every(self, steps: int) -> None:
        """Note that the network is exact only for numbers of steps that differ by a multiple of this; 0: only for this one."""
        self.every = math.lcm(self.every, steps)


Handler = Callable[[Context, Spec, Sequence[Value]], Value]
LAYERS: dict[str, Handler] = {}
"""For each class what to do."""

_LIVE = "; of a model in memory, from_model(model), Keras 3 can follow it"

_OF_TEXT = "it makes tokens of something else; export the model behind it, and give it the tokens"

REFUSED = {
    "GroupQueryAttention": "attention with heads that share keys is not supported",
    "Conv1DTranspose": "it makes more steps of the sequence; a network has one output for each",
    "UpSampling1D": "it makes more steps of the sequence; a network has one output for each",
    "Lambda": f"it is Python code{_LIVE}",
    **dict.fromkeys(("TextVectorization", "StringLookup", "IntegerLookup", "Hashing", "Discretization"), _OF_TEXT),
    "LSTM": "of the recurrent layers only GRUs are supported",
    "SimpleRNN": "of the recurrent layers only GRUs are supported",
    "CuDNNLSTM": "of the recurrent layers only GRUs are supported",
}
"""What cannot be expressed, and why."""


def handles(*kinds: str) -> Callable[[Handler], Handler]:
    """Enter a function into the table, for one or several classes."""

    def register(handler: Handler) -> Handler:
        LAYERS.update(dict.fromkeys(kinds, handler))
        return handler

    return register


def refusal(spec: Spec) -> str:
    """Why a layer that is not in the table cannot be exported."""
    if spec.kind in REFUSED:
        return REFUSED[spec.kind]
    if ">" in spec.kind:
        return f"it is a class of its own, whose computation is Python code{_LIVE}"
    if spec.is_operation or spec.kind == "TensorFlowOpLayer":
        return "this operation on values between the layers is not supported"
    return "layers of this class are not supported"


def only(spec: Spec, inputs: Sequence[Value]) -> Value:
    """The one input of a layer."""
    if len(inputs) != 1:
        raise ExportError(f"it reads {len(inputs)} values, expected 1")
    return inputs[0]


# ---- layers that do nothing at inference


@handles(
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "GaussianNoise",
    "GaussianDropout",
    "AlphaDropout",
    "ActivityRegularization",
)
@handles("Identity", "InputLayer")
def _same(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    return only(spec, inputs)


@handles("Masking")
def _masking(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    numbers = c.graph.node_numbers(x.tensor.ids.reshape(-1))
    if any(c.graph.nodes[n].operation != "input" for n in np.unique(numbers)):
        raise ExportError("it masks computed values; only steps of the input can be padding")
    c.masks.begin(spec, [c.graph.nodes[n].name for n in np.unique(numbers)], number(spec.option("mask_value", 0.0)))
    return Value(x.tensor, True)


# ---- layers with weights


@handles("Dense")
def _dense(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    if spec.option("lora_rank") or spec.option("quantization_config"):
        raise ExportError("it has a LoRA or quantised matrix; merge it and save the model again")
    kernel, t = spec.array("kernel"), x.tensor
    if t.rank < 2 or kernel.ndim != 2:
        raise AxisError(f"it reads {t} and has a matrix of shape {list(kernel.shape)}")
    y = c.graph.dense(t, kernel.T, spec.array("bias") if spec.option("use_bias", True) else None)
    return x.but(activate(c, y, spec.config.get("activation"), c.major))


@handles("Embedding")
def _embedding(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    if spec.option("lora_rank") or spec.option("quantization_config"):
        raise ExportError("it has a LoRA or quantised table; merge it and save the model again")
    if spec.option("mask_zero", False):
        c.masks.begin(spec, [c.graph.node_of(x.tensor).name], 0.0)
    return Value(c.graph.embedding(x.tensor, spec.array("embeddings")), bool(spec.option("mask_zero", False)))


def _per_feature(c: Context, t: Tensor, axis: Any, scale: Array, shift: Array) -> Tensor:
    """``t * scale + shift`` with a number for each place of one axis of features."""
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    if len(axes) != 1:
        raise ExportError(f"it acts along the axes {list(axes)}; only one is supported")
    dim = operations.axis_of(t, int(axes[0]))
    if not is_features(t.dims[dim]):
        raise AxisError(
            f"it acts along axis {dim}, which is the {axis_text(t.dims[dim])} in {t}; it must be the features"
        )
    shape = [-1 if i == dim else 1 for i in range(t.rank)]
    return operations.affine(
        c, operations.affine(c, t, scale.reshape(shape), 0.0), 1.0, np.asarray(shift, np.float64).reshape(shape)
    )


@handles("BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2")
def _batch_normalization(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    mean, variance = (np.asarray(spec.array(name), np.float64) for name in ("moving_mean", "moving_variance"))
    gamma = spec.array("gamma") if spec.option("scale", True) else np.ones(1)
    beta = spec.array("beta") if spec.option("center", True) else np.zeros(1)
    scale = gamma.astype(np.float64) / np.sqrt(variance + float(spec.option("epsilon", 1e-3)))
    return x.but(_per_feature(c, x.tensor, spec.option("axis", -1), scale, beta - mean * scale))


@handles("Normalization")
def _normalization(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    given = spec.option("mean") is not None
    statistics = (
        (spec.config["mean"], spec.option("variance")) if given else (spec.array("mean"), spec.array("variance"))
    )
    mean, variance = (np.asarray(a, np.float64) for a in statistics)
    if not is_features(x.tensor.dims[-1]) or (mean.size > 1 and mean.shape[-1:] != mean.reshape(-1).shape):
        raise ExportError(
            f"its statistics have the shape {list(mean.shape)} for {x.tensor}; one for each feature can be used"
        )
    deviation = np.maximum(np.sqrt(variance), 1e-7).reshape(-1)
    mean = mean.reshape(-1)
    if spec.option("invert", False):
        return x.but(_beside(c, x.tensor, deviation, mean))
    return x.but(_beside(c, x.tensor, 1 / deviation, -mean / deviation))


def _beside(c: Context, t: Tensor, scale: Any, shift: Any) -> Tensor:
    t = operations.affine(c, t, np.asarray(scale, np.float64), 0.0)
    return operations.affine(c, t, 1.0, np.asarray(shift, np.float64))


@handles("Rescaling")
def _rescaling(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    return x.but(_beside(c, x.tensor, spec.option("scale", 1.0), spec.option("offset", 0.0)))


@handles("PReLU")
def _prelu(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    return x.but(operations.prelu(c, x.tensor, spec.array("alpha")[np.newaxis]))


# ---- activation layers


@handles("Activation")
def _activation(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    return x.but(activate(c, x.tensor, spec.config.get("activation"), c.major))


@handles("ReLU", "LeakyReLU", "ELU", "ThresholdedReLU")
def _parametric(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    return x.but(activate(c, x.tensor, {"class_name": spec.kind, "config": spec.config}, c.major))


@handles("Softmax")
def _softmax(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    x = only(spec, inputs)
    if x.masked:
        raise ExportError(
            "with a mask this layer compares the mask, which is of time steps, with the features; use Activation('softmax')"
        )
    if c.masks.sources:  # over the time it reads padding as data
        axis = operations.axis_of(x.tensor, int(np.ravel(spec.option("axis", -1))[0]))
        if not is_features(x.tensor.dims[axis]):
            c.masks.read(spec, x)
    return x.but(softmax(c, x.tensor, spec.option("axis", -1), log=False))


# ---- merging


def _merged(c: Context, values: Sequence[Value]) -> bool:
    """Whether the result of a merge has a mask. Before Keras 3 a value without one does not take it away."""
    masked = [value.masked for value in values]
    return all(masked) if c.major >= 3 else any(masked)


def _pairs(values: Sequence[Value], least: int) -> list[Tensor]:
    if len(values) < least:
        raise ExportError(f"it reads {len(values)} values, expected {least} or more")
    ranks = {value.tensor.rank for value in values}
    if len(ranks) != 1:
        raise ExportError(f"it merges values of different rank: {', '.join(str(value.tensor) for value in values)}")
    return [value.tensor for value in values]


def _sum(c: Context, tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for t in tensors[1:]:
        total = c.graph.add(total, t)
    return total


@handles("Add")
def _add(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    return Value(_sum(c, _pairs(inputs, 1)), _merged(c, inputs))


@handles("Average")
def _average(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    total = _sum(c, _pairs(inputs, 1))
    return Value(c.graph.affine(total, 1 / len(inputs), 0.0), _merged(c, inputs))


@handles("Subtract")
def _subtract(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    a, b = _pairs(inputs, 2)
    return Value(c.graph.add(a, c.graph.affine(b, -1.0, 0.0)), _merged(c, inputs))


@handles("Multiply")
def _multiply(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    product, *others = _pairs(inputs, 1)
    for t in others:
        product = c.graph.multiply(product, t)
    return Value(product, _merged(c, inputs))


@handles("Maximum", "Minimum")
def _extremum(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    return Value(operations.extremum(c, _pairs(inputs, 1), spec.kind == "Maximum"), _merged(c, inputs))


@handles("Concatenate")
def _concatenate(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    tensors = _pairs(inputs, 1)
    dim = operations.axis_of(tensors[0], int(spec.option("axis", -1)))
    if not is_features(tensors[0].dims[dim]):
        raise ExportError(f"it joins values along the {axis_text(tensors[0].dims[dim])}; only features can be joined")
    return Value(cat(tensors, dim), _merged(c, inputs))


# ---- moving axes; none of these layers passes a mask on


def _kept_batch(t: Tensor) -> None:
    if t.dims[0] != ("B",):
        raise AxisError(f"the first axis of {t} is not the batch")


@handles("Reshape")
def _reshape(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    t = only(spec, inputs).tensor
    _kept_batch(t)
    shape = [int(n) for n in spec.option("target_shape", ())]
    total = math.prod(t.shape(c.sizes)[1:])
    if -1 in shape:
        rest = -math.prod(shape)
        if rest <= 0 or total % rest:
            raise AxisError(f"{t} cannot be regrouped to {shape}")
        shape[shape.index(-1)] = total // rest
    return Value(t.reshape([c.sizes["B"], *shape], c.sizes))


@handles("RepeatVector")
def _repeat_vector(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    t, n = only(spec, inputs).tensor, int(spec.option("n", 1))
    _kept_batch(t)
    if t.rank != 2:
        raise AxisError(f"it reads [batch, features], but its input is {t}")
    if is_features(t.dims[1]):
        return Value(c.graph.repeated_times(t.unsqueeze(1), 1, n))
    return Value(t.unsqueeze(1).expand([t.dims[0], (n,), t.dims[1]]))  # a number of each step, as n features


@handles("CategoryEncoding")
def _category_encoding(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    t, mode = only(spec, inputs).tensor, spec.option("output_mode", "multi_hot")
    if mode != "one_hot" or spec.option("sparse", False):
        raise ExportError(f"output_mode={mode!r} counts tokens of several steps together; only 'one_hot' is supported")
    return Value(c.graph.one_hot(t if t.dims[-1] != () else t.squeeze([t.rank - 1]), int(spec.config["num_tokens"])))


@handles("Permute")
def _permute(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    t = only(spec, inputs).tensor
    return Value(t.permute([0, *(int(d) for d in spec.option("dims", ()))]))


_MOST_WIDE = 1 << 16  # features of a sequence that becomes one value


def _all_steps_are_known(c: Context, t: Tensor, axis: int) -> bool:
    """Whether a sequence can become one value: it has a fixed number of steps, by itself or as the model's input has."""
    if not is_steps(t.dims[axis]):
        return False
    own = steps_axis(str(t.dims[axis][0])).steps is not None
    if not own and c.steps is None:
        return False
    if t.ids.size * t.shape(c.sizes)[axis] > _MOST_WIDE:
        raise ExportError(f"it makes one vector of all steps of {t}, of more than {_MOST_WIDE} numbers")
    if not own:
        c.exact_every(0)
    return True


@handles("Flatten")
def _flatten(c: Context, spec: Spec, inputs: Sequence[Value]) -> Value:
    t = only(spec, inputs).tensor
    if spec.option("data_format", "channels_last") != "channels_last" and t.rank > 2:
        t = t.permute([0, *range(2, t.rank), 1])
    if t.ids.size == 1 and sum(map(len, t.dims[1:])) == 1:  # of [batch, time, 1] it only drops axes of size 1
        return Value(t.squeeze(range(1, t.rank)))
    times = [axis for axis in range(1, t.rank) if is_time(t.dims[axis])]
    if len(times) == 1 and _all_steps_are_known(c, t, times[0]):
        if c.masks.sources:
            c.masks.read(spec, Value(t))
        t = over_time.last_steps(c.graph, c.sizes, t, times[0], t.shape(c.sizes)[times[0]])
    if not all(map(is_features, t.dims[1:])):
        raise ExportError(
            f"it joins all steps of {t} into one vector, whose size would depend on the length of a sequence; it can where the "
            "model's Input has a fixed number of steps"
        )
    return Value(t.reshape([c.sizes["B"], t.ids.size], c.sizes))
