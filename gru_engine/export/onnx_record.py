# SPDX-License-Identifier: Apache-2.0
"""An ONNX model as a list of operations, and how it is followed with symbolic tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from gru_engine.export import onnx_math, onnx_time  # noqa: F401  they add to the handlers
from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import Graph, Tensor
from gru_engine.export.onnx_ops import HANDLERS, LENGTHS, MOVING, Above, Call, Context
from gru_engine.export.onnx_run import evaluate
from gru_engine.export.recognise import cell

_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_INTEGERS = (TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8,
             TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64)  # fmt: skip
_LOOPS = {
    "Loop": "a loop over time; export the loop's body, one step with its state as input and output",
    "Scan": "a loop over time; export the loop's body, one step with its state as input and output",
    "LSTM": "an LSTM; only GRUs are supported",
    "RNN": "a plain RNN; only GRUs are supported",
}


@dataclass(frozen=True)
class Argument:
    """An input of the model that is no weight."""

    name: str
    shape: tuple[int | str, ...]  # numbers, and the names of sizes that are open
    floats: bool

    def __str__(self) -> str:
        return f"{self.name!r} {'float' if self.floats else 'int'}[{', '.join(map(str, self.shape))}]"


def load(model: Any) -> onnx.ModelProto:
    """The model of a path, of bytes, or itself, with local functions written out.

    Raises
    ------
    TypeError
        If it is none of these.
    ExportError
        If it is not an ONNX model, or one without operations.
    OSError
        If the file cannot be read.
    """
    if isinstance(model, onnx.ModelProto):
        loaded = model
    elif isinstance(model, (bytes, bytearray)):
        loaded = _parsed("the bytes", lambda: onnx.load_from_string(bytes(model)))
    elif isinstance(model, (str, os.PathLike)):
        loaded = _parsed(os.fspath(model), lambda: onnx.load(model))
    else:
        raise TypeError(f"model must be a path, bytes or an onnx.ModelProto, got {type(model).__name__}")
    if not loaded.graph.node or not loaded.opset_import:
        raise ExportError("this is not an ONNX model, or it has no operations")
    return onnx.inliner.inline_local_functions(loaded) if loaded.functions else loaded


def _parsed(name: str, parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except OSError:
        raise
    except Exception as error:  # of protobuf, which has several, and of external weights
        raise ExportError(f"{name} cannot be read as an ONNX model: {error}") from error


@dataclass(eq=False)
class Record:
    """What a model does: its nodes, its weights, and what it takes and returns."""

    model: onnx.ModelProto
    nodes: list[onnx.NodeProto] = field(init=False)  # those that reach an output
    constants: dict[str, Array] = field(init=False)
    arguments: list[Argument] = field(init=False)
    opsets: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.opsets = {o.domain if o.domain != "ai.onnx" else "": o.version for o in self.model.opset_import}
        self.constants = _initializers(graph)
        self.nodes, used = _needed(graph.node, [output.name for output in graph.output])
        wanted = [i for i in graph.input if i.name not in self.constants and i.name in used]
        self.arguments = [self._argument(i) for i in wanted]
        if not self.arguments:
            raise ExportError("no output of the model depends on an input")
        if len(self.nodes) < len(graph.node) or any(i.name not in used for i in graph.input):
            self.model = self._pruned(used)

    def _pruned(self, used: set[str]) -> onnx.ModelProto:
        """The model without what reaches no output."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        inputs = [i for i in self.model.graph.input if i.name in used]
        for part, kept in ((model.graph.node, self.nodes), (model.graph.input, inputs)):
            del part[:]
            part.extend(kept)
        return model

    @staticmethod
    def _argument(info: onnx.ValueInfoProto) -> Argument:
        kind = info.type.tensor_type
        if not info.type.HasField("tensor_type") or kind.elem_type not in (*_FLOATS, *_INTEGERS):
            raise ExportError(f"input {info.name!r} is neither a tensor of floats nor one of integers")
        if not kind.HasField("shape"):
            raise ExportError(
                f"input {info.name!r} has no shape; onnx.shape_inference or the exporter must tell its axes"
            )
        shape: list[int | str] = []
        for number, dim in enumerate(kind.shape.dim):
            known = dim.HasField("dim_value") and dim.dim_value > 0
            shape.append(dim.dim_value if known else dim.dim_param or f"{info.name}_{number}")
        return Argument(info.name, tuple(shape), kind.elem_type in _FLOATS)

    # ---- which argument is what

    def origins(self, name: str) -> set[str]:
        """The arguments whose features or numbers a value is, moved around but not computed with."""
        producers = {output: node for node in self.nodes for output in node.output}
        names = {argument.name for argument in self.arguments}
        found, waiting = set(), [name]
        while waiting:
            current = waiting.pop()
            if current in names:
                found.add(current)
            elif current in producers and producers[current].op_type in MOVING:
                node = producers[current]
                waiting += node.input if node.op_type == "Concat" else node.input[:1]
        return found

    def roles(self) -> tuple[list[str], list[str]]:
        """The names of arguments that are initial states of GRUs, and of those that are lengths."""
        states: set[str] = set()
        lengths: set[str] = set()
        for node in self.nodes:
            if node.op_type == "GRU":
                lengths |= self.origins(node.input[4]) if len(node.input) > 4 else set()
                states |= self.origins(node.input[5]) if len(node.input) > 5 else set()
            elif node.op_type == "ReverseSequence":
                lengths |= self.origins(node.input[1])
        order = [argument.name for argument in self.arguments]
        return [n for n in order if n in states], [n for n in order if n in lengths]

    def are_tokens(self, argument: Argument) -> bool:
        """Whether an input is integers, if perhaps as floats that the model converts at once."""
        readers = [node for node in self.nodes if argument.name in node.input]
        integer = [n for n in readers if n.op_type == "Cast" and _attributes(n)["to"] in _INTEGERS]
        return not argument.floats or (bool(integer) and all(n in integer or n.op_type == "Shape" for n in readers))

    def numbers(self) -> set[int]:
        """All sizes that occur in the model."""
        found = {n for array in self.constants.values() for n in array.shape}
        small = [array for array in self.constants.values() if array.dtype.kind in "iu" and array.size <= 64]
        for node in self.nodes:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    found.update(attribute.t.dims)
                    if attribute.t.data_type in _INTEGERS and np.prod(attribute.t.dims) <= 64:
                        small.append(numpy_helper.to_array(attribute.t))
                found.update(attribute.ints)
        found.update(n for argument in self.arguments for n in argument.shape if isinstance(n, int))
        found.update(abs(int(n)) for array in small for n in array.reshape(-1))
        return {n for n in found if 0 < n < 10**9}

    # ---- following

    def follow(
        self,
        graph: Graph,
        inputs: dict[str, Any],
        sizes: dict[str, int],
        states: Sequence[Tensor] = (),
        elementary: bool = False,
    ) -> tuple[list[Any], Context]:
        """Do to symbolic tensors what the model does.

        Parameters
        ----------
        graph : Graph
            Gets the nodes.
        inputs : dict
            For each argument a ``Tensor``, or ``LENGTHS``.
        sizes : dict
            The sizes of batch and time.
        states : sequence of Tensor
            Those of the arguments that are states of cells that are written out.
        elementary : bool
            As of ``Context``.

        Returns
        -------
        list
            For each of the model's outputs a ``Tensor``, or whatever else it is.
        Context

        Raises
        ------
        ExportError
            Naming the node. Its attribute ``progress`` tells how many went well.
        """
        context = Context(graph, sizes, states=list(states), elementary=elementary)
        values = {**self.constants, **inputs}
        for progress, node in enumerate(self.nodes):
            try:
                self._execute(context, node, values)
            except ExportError as error:
                described = type(error)(f"{_described(node)}: {error}")
                described.progress = progress
                raise described from None
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                # What no handler expects: attributes or inputs that the specification does not allow.
                message = f"{_described(node)}: it is not as the specification says: {type(error).__name__}: {error}"
                unexpected = ExportError(message)
                unexpected.progress = progress
                raise unexpected from error
        return [values[output.name] for output in self.model.graph.output], context

    def _execute(self, c: Context, node: onnx.NodeProto, values: dict[str, Any]) -> None:
        c.graph.name = node.name
        if node.op_type == "If":
            self._branch(c, node, values)
            return
        inputs = [values[name] if name else None for name in node.input]
        domain = "" if node.domain == "ai.onnx" else node.domain
        call = Call(node.op_type, node.name, inputs, _attributes(node), len(node.output), self.opsets.get(domain, 1))
        known = domain == "" and node.op_type in HANDLERS
        if node.op_type in _RANDOM:
            raise ExportError("it is random")
        if node.op_type in _LOOPS:
            raise ExportError(_LOOPS[node.op_type])
        if call.op == "Shape" and isinstance(inputs[0], Tensor):
            part = slice(call.attributes.get("start", 0), call.attributes.get("end"))
            results: Any = np.array(inputs[0].shape(c.sizes), np.int64)[part]
        elif call.op == "Size" and isinstance(inputs[0], Tensor):
            results = np.array(np.prod(inputs[0].shape(c.sizes)), np.int64)
        elif any(value is LENGTHS for value in inputs) and call.op not in ("GRU", "ReverseSequence"):
            if call.op not in MOVING or call.op == "Concat":
                raise ExportError("the lengths of the sequences are computed with; only GRUs can take them")
            results = LENGTHS
        elif not any(isinstance(value, (Tensor, Above)) for value in inputs):
            results = evaluate(node, inputs, self.opsets)
        elif any(isinstance(value, Above) for value in inputs) and call.op != "Where":
            raise ExportError("a comparison is used for something else than Where")
        elif not known:
            place = f" of the domain {node.domain!r}" if domain else ""
            raise ExportError(f"this operator{place} is not supported")
        else:
            results = HANDLERS[call.op](c, call)
        results = results if isinstance(results, list) else [results]
        if c.states and not c.elementary and call.op in ("Add", "Sub", "Sum"):
            results = [cell(c.graph, results[0], c.states, node.name) or results[0]]
        values.update((name, result) for name, result in zip(node.output, results) if name)

    def _branch(self, c: Context, node: onnx.NodeProto, values: dict[str, Any]) -> None:
        """The branch of an If whose condition does not depend on the input's values, only on axes and sizes."""
        condition = values[node.input[0]]
        if not isinstance(condition, np.ndarray):
            raise ExportError("control flow that depends on values is not supported")
        branch = _attributes(node)["then_branch" if condition.all() else "else_branch"]
        inner = {**values, **_initializers(branch)}
        nodes, _ = _needed(branch.node, [output.name for output in branch.output])
        for inside in nodes:
            try:
                self._execute(c, inside, inner)
            except ExportError as error:
                raise type(error)(f"{_described(inside)}: {error}") from None
        values.update(zip(node.output, (inner[output.name] for output in branch.output)))


def _initializers(graph: onnx.GraphProto) -> dict[str, Array]:
    if graph.sparse_initializer:
        raise ExportError(f"initializer {graph.sparse_initializer[0].values.name!r} is sparse; it must be dense")
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _reads(node: onnx.NodeProto) -> Iterable[str]:
    """The names that a node reads, those that its branches take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            inside = {name for n in attribute.g.node for name in n.output}
            yield from (name for n in attribute.g.node for name in _reads(n) if name not in inside)
            yield from (output.name for output in attribute.g.output if output.name not in inside)


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that the outputs need, in order, and all names that are read."""
    used, kept = set(outputs), []
    for node in reversed(nodes):
        if not used.isdisjoint(node.output):
            kept.append(node)
            used.update(_reads(node))
    return kept[::-1], used


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _described(node: onnx.NodeProto) -> str:
    """A node in words: its operator and its name, or else the name of its value."""
    name = repr(node.name) if node.name else f"-> {next(filter(None, node.output), '')!r}"
    return f"{node.domain + '.' if node.domain not in ('', 'ai.onnx') else ''}{node.op_type} {name}"
