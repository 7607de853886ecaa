# SPDX-License-Identifier: Apache-2.0
"""ATen operations that are over time, or over all features together: convolution, padding, pooling, attention, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gru_engine.export import norms, operations, over_time, planes, scores
from gru_engine.export.common import ExportError
from gru_engine.export.graph import AxisError, Tensor, axis_text, is_features
from gru_engine.export.operations import Context, axis_of, variable
from gru_engine.export.torch_ops import HANDLERS, Arguments, constant, extremum, handles, to_numpy

# ---- convolution


def _one(values: Any, axis: int) -> int:
    """A number that is given for each spatial axis, or once for all."""
    return int(values) if isinstance(values, int) else int(values[axis if len(values) > 1 else 0])


@handles("convolution", "conv1d", "conv2d")
def _convolution(c: Context, a: Arguments) -> Any:
    t = variable(a.input, "the input of a convolution")
    weight = constant(a.weight, "the kernel of a convolution")
    if getattr(a, "transposed", False):
        raise ExportError("a transposed convolution is not supported")
    spatial = weight.dim() - 2
    if t.rank == spatial + 1:  # without a batch
        return _convolution(c, Arguments(**{**vars(a), "input": t.unsqueeze(0)})).squeeze([0])
    bias = None if a.bias is None else to_numpy(constant(a.bias, "the bias of a convolution"))
    return planes.convolution(
        c, t, to_numpy(weight), bias, padding=_padding(a.padding, [int(n) for n in weight.shape[2:]], a.dilation),
        dilation=[_one(a.dilation, i) for i in range(spatial)], stride=[_one(a.stride, i) for i in range(spatial)],
        groups=a.groups,
    )  # fmt: skip


def _padding(padding: Any, kernel: Sequence[int], dilation: Any) -> list[tuple[int, int]]:
    """Zeros before and behind each spatial axis."""
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        spans = [(n - 1) * _one(dilation, axis) for axis, n in enumerate(kernel)]
        return [(span // 2, span - span // 2) for span in spans]
    return [(_one(padding, axis), _one(padding, axis)) for axis in range(len(kernel))]


@handles("constant_pad_nd", "pad")
def _pad(c: Context, a: Arguments) -> Any:
    t, value = a.self, getattr(a, "value", 0)
    if getattr(a, "mode", "constant") != "constant":
        raise ExportError(f"padding of the mode {a.mode!r} is not supported, only zeros")
    for number, (left, right) in enumerate(zip(a.pad[::2], a.pad[1::2])):
        axis = t.rank - 1 - number
        if (left > 0 or right > 0) and value:
            raise ExportError(f"padding with {value:g} is not supported, only zeros")
        if is_features(t.dims[axis]) and left <= 0 and right <= 0:
            t = operations.sliced(c, t, axis, slice(-left, right or None))
        elif is_features(t.dims[axis]) and (left or right):
            raise ExportError(
                f"axis {axis} of {t}, {axis_text(t.dims[axis])}, is padded by itself, not by a convolution"
            )
        elif left or right:
            t = over_time.padded(c.graph, c.sizes, t, axis, left, right)
    return t


@handles("avg_pool1d", "avg_pool2d")
def _mean_pool(c: Context, a: Arguments) -> Any:
    t, spatial = variable(a.self, "the input of pooling"), 2 if hasattr(a, "divisor_override") else 1
    if t.rank == spatial + 1:
        return _mean_pool(c, Arguments(**{**vars(a), "self": t.unsqueeze(0)})).squeeze([0])
    pads = [_one(a.padding, i) for i in range(spatial)]
    if a.ceil_mode or (any(pads) and not a.count_include_pad):
        raise ExportError("pooling with ceil_mode, or padding that is not counted, is not supported")
    kernel = [_one(a.kernel_size, i) for i in range(spatial)]
    stride = [_one(a.stride, i) if a.stride else kernel[i] for i in range(spatial)]
    return planes.mean_pool(c, t, kernel, stride, [(p, p) for p in pads], getattr(a, "divisor_override", None))


@handles("max_pool1d_with_indices", "max_pool2d_with_indices")
def _largest_with_places(c: Context, a: Arguments) -> Any:
    return _largest_pool(c, a), None


@handles("max_pool1d", "max_pool2d")
def _largest_pool(c: Context, a: Arguments) -> Any:
    t, spatial = variable(a.self, "the input of pooling"), len(a.kernel_size)
    if a.ceil_mode:
        raise ExportError("pooling with ceil_mode is not supported")
    without = t.rank == spatial + 1
    kernel, padding, dilation = ([_one(v, i) for i in range(spatial)] for v in (a.kernel_size, a.padding, a.dilation))
    stride = [_one(a.stride, i) if a.stride else kernel[i] for i in range(spatial)]
    t = planes.largest_pool(c, t.unsqueeze(0) if without else t, kernel, stride, [(p, p) for p in padding], dilation)
    return t.squeeze([0]) if without else t


# ---- one value per sequence


@handles("amax")
def _amax(c: Context, a: Arguments) -> Any:
    return operations.largest(c, a.self, a.dim or None, a.keepdim)


@handles("max")
def _max(c: Context, a: Arguments) -> Any:
    if hasattr(a, "other"):
        return extremum(c, a, True)
    if not hasattr(a, "dim"):
        raise ExportError("only the maximum over time is supported, max(dim=...), and that of two values, max(a, b)")
    return operations.largest(c, a.self, [a.dim], a.keepdim), None  # nothing can read the places of the maxima


@handles("min")
def _min(c: Context, a: Arguments) -> Any:
    if not hasattr(a, "other"):
        raise ExportError("a minimum over an axis is not supported, only that of two values, min(a, b)")
    return extremum(c, a, False)


@handles("adaptive_avg_pool1d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d")
def _adaptive_mean(c: Context, a: Arguments) -> Any:
    _check_pooled(a)
    return operations.mean(c, a.self, range(a.self.rank - len(a.output_size), a.self.rank), True)


@handles("adaptive_max_pool1d", "adaptive_max_pool2d")
def _adaptive_max(c: Context, a: Arguments) -> Any:
    _check_pooled(a)
    return operations.largest(c, a.self, range(a.self.rank - len(a.output_size), a.self.rank), True), None


def _check_pooled(a: Arguments) -> None:
    if any(n != 1 for n in a.output_size):
        raise ExportError(f"pooling to the size {list(a.output_size)} is not supported, only over all steps")


@handles("bmm", "baddbmm")
def _batched(c: Context, a: Arguments) -> Any:
    if hasattr(a, "batch1"):
        raise ExportError("a product of stacks of matrices that is added to something is not supported")
    if isinstance(a.self, Tensor) and isinstance(a.mat2, Tensor):
        return scores.matrix_product(c, a.self, a.mat2)
    # A product with a constant that torch repeats for each place of the batch.
    if isinstance(a.mat2, torch.Tensor):
        if bool((a.mat2 == a.mat2[:1]).all()):
            return c.graph.dense(a.self, to_numpy(a.mat2[0]).T)
        return operations.stacked_product(c, a.self, to_numpy(a.mat2))
    product = c.graph.dense(a.mat2.permute([0, 2, 1]), to_numpy(_repeated_matrix(constant(a.self, "the left factor"))))
    return product.permute([0, 2, 1])


def _repeated_matrix(stack: torch.Tensor) -> torch.Tensor:
    if not bool((stack == stack[:1]).all()):
        raise ExportError("a product with a stack of matrices is not supported")
    return stack[0]


@handles("einsum")
def _einsum(c: Context, a: Arguments) -> Any:
    factors = [to_numpy(t) if isinstance(t, torch.Tensor) else t for t in a.tensors]
    return operations.einsum(c, a.equation, factors)


# ---- normalisation


@handles("native_layer_norm", "layer_norm")
def _layer_norm(c: Context, a: Arguments) -> Any:
    t = variable(a.input, "the input of a layer normalisation")
    result = _normalised(c, t, a.normalized_shape, a.weight, a.bias, a.eps, False)
    return (result, None, None) if not hasattr(a, "cudnn_enable") else result


@handles("rms_norm")
def _rms_norm(c: Context, a: Arguments) -> Any:
    eps = torch.finfo(torch.float32).eps if a.eps is None else a.eps
    return _normalised(c, variable(a.input, "the input"), a.normalized_shape, a.weight, None, eps, True)


@handles("_fused_rms_norm")
def _fused_rms_norm(c: Context, a: Arguments) -> Any:
    return _rms_norm(c, a), None


def _normalised(c: Context, t: Tensor, shape: Any, weight: Any, bias: Any, eps: float, rms: bool) -> Tensor:
    dims = list(range(t.rank - len(shape), t.rank))
    for dim, size in zip(dims, shape):
        if not is_features(t.dims[dim]) or t.shape(c.sizes)[dim] != size:
            raise AxisError(f"a normalisation is over the last axes, of the sizes {list(shape)}, of {t}")
    scale = 1.0 if weight is None else to_numpy(constant(weight, "the scale of a normalisation"))
    shift = 0.0 if bias is None else to_numpy(constant(bias, "the shift of a normalisation"))
    return c.graph.norm(t, dims, scale, shift, epsilon=eps, rms=rms)


@handles("var")
def _var(c: Context, a: Arguments) -> Any:
    correction = getattr(a, "correction", 1)
    if (1 if correction is None else correction) != 0 or getattr(a, "unbiased", False):
        raise ExportError(
            "a variance with a correction of the number of values is not supported, only with correction=0"
        )
    dims = range(a.self.rank) if a.dim is None else [axis_of(a.self, d) for d in a.dim]
    for dim in dims:
        if not is_features(a.self.dims[dim]):
            raise ExportError(f"a variance over the {axis_text(a.self.dims[dim])} axis is not supported")
    result = norms.variance(c.graph, c.written, a.self, list(dims))
    return result if a.keepdim else result.squeeze(list(dims))


HANDLERS["sqrt"] = lambda c, a: norms.root(c.graph, c.written, a.self)
HANDLERS["rsqrt"] = lambda c, a: norms.root(c.graph, c.written, a.self, inverse=True)
HANDLERS["reciprocal"] = lambda c, a: norms.reciprocal(c.graph, c.written, a.self)
HANDLERS["exp"] = lambda c, a: c.graph.activation(a.self, "exp")
