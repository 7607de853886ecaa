# SPDX-License-Identifier: Apache-2.0
"""Running ONNX models, to compare their networks with: ONNX Runtime, or onnx's evaluator in float64.

The evaluator that comes with ``onnx`` ignores most attributes of GRU; the operator is defined here as its specification says.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from gru_engine.export.common import Array, ExportError

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)

# The specification's formulas and the defaults of alpha and beta.
_FUNCTIONS: dict[str, tuple[tuple[float, ...], Callable[..., Array]]] = {
    "sigmoid": ((), lambda x: 0.5 * (1 + np.tanh(0.5 * x))),
    "tanh": ((), np.tanh),
    "relu": ((), lambda x: np.maximum(0, x)),
    "affine": ((1.0, 0.0), lambda x, alpha, beta: alpha * x + beta),
    "leakyrelu": ((0.01,), lambda x, alpha: np.where(x >= 0, x, alpha * x)),
    "thresholdedrelu": ((1.0,), lambda x, alpha: np.where(x > alpha, x, 0)),
    "scaledtanh": ((1.0, 1.0), lambda x, alpha, beta: alpha * np.tanh(beta * x)),
    "hardsigmoid": ((0.2, 0.5), lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1)),
    "elu": ((1.0,), lambda x, alpha: np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0)))),
    "softsign": ((), lambda x: x / (1 + np.abs(x))),
    "softplus": ((), lambda x: np.logaddexp(0, x)),
}


class GRU(OpRun):  # type: ignore[misc]
    """The operator GRU with all of its attributes."""

    op_domain = ""

    def _run(
        self,
        X: Array,
        W: Array,
        R: Array,
        B: Array | None = None,
        sequence_lens: Array | None = None,
        initial_h: Array | None = None,
        activation_alpha: Any = None,
        activation_beta: Any = None,
        activations: Any = None,
        clip: float | None = None,
        direction: str | None = None,
        layout: int | None = None,
        linear_before_reset: int | None = None,
        **unused: Any,
    ) -> tuple[Array, Array]:
        batch_first = bool(layout)
        X = X.swapaxes(0, 1) if batch_first else X
        directions, _, hidden = R.shape
        steps, batch, _ = X.shape
        B = np.zeros((directions, 6 * hidden), X.dtype) if B is None else B
        H = np.zeros((directions, batch, hidden), X.dtype) if initial_h is None else np.array(initial_h)
        H = H.swapaxes(0, 1).copy() if batch_first and initial_h is not None else H
        lengths = np.full(batch, steps) if sequence_lens is None else np.asarray(sequence_lens)
        names = activations or ["Sigmoid", "Tanh"] * directions
        values = iter(activation_alpha or ()), iter(activation_beta or ())
        functions = [self._function(name, values, clip) for name in names]
        Y = np.zeros((steps, directions, batch, hidden), X.dtype)
        for d in range(directions):
            f, g = functions[2 * d : 2 * d + 2]
            backward = d == 1 or direction == "reverse"
            (Wz, Wr, Wh), (Rz, Rr, Rh) = np.split(W[d], 3), np.split(R[d], 3)
            Wbz, Wbr, Wbh, Rbz, Rbr, Rbh = np.split(B[d], 6)
            for t in reversed(range(steps)) if backward else range(steps):
                x, h = X[t], H[d]
                z = f(x @ Wz.T + h @ Rz.T + Wbz + Rbz)
                r = f(x @ Wr.T + h @ Rr.T + Wbr + Rbr)
                if linear_before_reset:
                    c = g(x @ Wh.T + r * (h @ Rh.T + Rbh) + Wbh)
                else:
                    c = g(x @ Wh.T + (r * h) @ Rh.T + Rbh + Wbh)
                valid = (t < lengths)[:, np.newaxis]
                H[d] = np.where(valid, (1 - z) * c + z * h, h)
                Y[t, d] = np.where(valid, H[d], 0)
        if batch_first:
            return Y.transpose(2, 0, 1, 3), H.swapaxes(0, 1)
        return Y, H

    @staticmethod
    def _function(name: str, values: tuple[Any, Any], clip: float | None) -> Callable[[Array], Array]:
        defaults, function = _FUNCTIONS[name.lower()]
        given = [next(value, default) for value, default in zip(values, defaults)]
        limit = np.inf if clip is None else clip
        return lambda x: function(np.clip(x, -limit, limit), *given)


def _normalised(X: Array, axis: int, log: bool) -> Array:
    """Softmax as it was before operator set 13: over all axes from ``axis`` on."""
    flat = X.reshape(int(np.prod(X.shape[: axis % X.ndim])), -1)
    shifted = flat - flat.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(total) if log else np.exp(shifted) / total).reshape(X.shape)


class Softmax(OpRun):  # type: ignore[misc]
    """The operator before operator set 13."""

    op_domain = ""

    def _run(self, X: Array, axis: int | None = None) -> tuple[Array]:
        return (_normalised(X, 1 if axis is None else axis, log=False),)


class LogSoftmax(OpRun):  # type: ignore[misc]
    """The operator before operator set 13."""

    op_domain = ""

    def _run(self, X: Array, axis: int | None = None) -> tuple[Array]:
        return (_normalised(X, 1 if axis is None else axis, log=True),)


class GlobalMaxPool(OpRun):  # type: ignore[misc]
    """The operator for any number of axes."""

    op_domain = ""

    def _run(self, X: Array) -> tuple[Array]:
        return (np.asarray(X.max(axis=tuple(range(2, X.ndim)), keepdims=True)),)


def _own_operators(opset: int) -> list[Any]:
    """What the evaluator does not do as the operator set says."""
    return [GRU, GlobalMaxPool] if opset >= 13 else [GRU, GlobalMaxPool, Softmax, LogSoftmax]


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model that computes in float64."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    _widen(wide.graph)
    return wide


def _widen(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type in _FLOATS:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    for number, node in enumerate(graph.node):
        # The evaluator takes an output without a name for what later inputs without a name are.
        node.output[:] = [name or f"{graph.name} unused {number} {place}" for place, name in enumerate(node.output)]
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _widen_tensor(attribute.t)
            elif attribute.type == AttributeProto.GRAPH:
                _widen(attribute.g)
            elif attribute.name in ("to", "dtype") and attribute.i in _FLOATS:
                attribute.i = TensorProto.DOUBLE
            elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                values: Any = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                attribute.CopyFrom(
                    helper.make_attribute("value", numpy_helper.from_array(np.asarray(values, np.float64)))
                )


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in _FLOATS:
        wide = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
        tensor.CopyFrom(wide)


@dataclass(frozen=True, eq=False)
class Runner:
    """Something that runs a model."""

    name: str
    inputs: dict[str, Any]  # names and types
    function: Callable[[dict[str, Array]], list[Any]]

    def __call__(self, feed: dict[str, Array]) -> list[Array]:
        """The model's results, for arrays by the names of its inputs."""
        arrays = {name: np.ascontiguousarray(array.astype(self.inputs[name])) for name, array in feed.items()}
        try:
            with np.errstate(over="ignore", under="ignore"):
                return [np.asarray(result) for result in self.function(arrays)]
        except Exception as error:  # those of ONNX Runtime have no common base
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
            raise ExportError(f"{self.name} fails to run the model with {shapes}: {error}") from error


def _input_types(model: onnx.ModelProto) -> dict[str, Any]:
    return {i.name: helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in model.graph.input}


def evaluator(model: onnx.ModelProto) -> Runner:
    """The evaluator of ``onnx``, in float64."""
    wide = in_float64(model)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    reference = ReferenceEvaluator(wide, new_ops=_own_operators(opset))
    return Runner("onnx in float64", _input_types(wide), lambda feed: list(reference.run(None, feed)))


def runtime(model: onnx.ModelProto) -> Runner | None:
    """ONNX Runtime on one thread; None where it is not installed, cannot run this model, or computes in other than float32."""
    others = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    kinds = [i.type.tensor_type.elem_type for i in model.graph.input] + [w.data_type for w in model.graph.initializer]
    if importlib.util.find_spec("onnxruntime") is None or any(kind in others for kind in kinds):
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        data = model.SerializeToString()
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception:  # its exceptions have no common base; the model may be too new for it, or of another type
        return None
    return Runner("ONNX Runtime", _input_types(model), lambda feed: list(session.run(None, feed)))


def evaluate(node: onnx.NodeProto, inputs: Iterable[Array | None], opsets: dict[str, int]) -> list[Any]:
    """The results of one node whose inputs are constants.

    Raises
    ------
    ExportError
        If it cannot be evaluated.
    """
    feed = {name: array for name, array in zip(node.input, inputs) if name}
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feed.items()
        if array is not None
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "constant", infos, outputs)
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    try:
        with np.errstate(all="ignore"):
            model = helper.make_model(graph, opset_imports=imports)
            results = ReferenceEvaluator(model, new_ops=_own_operators(opsets.get("", 1))).run(None, feed)
    except Exception as error:
        raise ExportError(f"it has constant inputs and cannot be evaluated: {type(error).__name__}: {error}") from error
    computed = iter(results)
    return [next(computed) if name else None for name in node.output]
