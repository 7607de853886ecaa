# SPDX-License-Identifier: Apache-2.0
"""The record that ``torch.export`` makes of a module, and how it is followed with symbolic tensors."""

from __future__ import annotations

import logging
import operator
import os
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from gru_engine.export import torch_loops, torch_math, torch_rolled, torch_time  # noqa: F401  they add to the handlers
from gru_engine.export.common import ExportError
from gru_engine.export.graph import Graph, Tensor
from gru_engine.export.operations import Context
from gru_engine.export.recognise import cell
from gru_engine.export.scores import Scores
from gru_engine.export.torch_arguments import path_key
from gru_engine.export.torch_attention import of_scores
from gru_engine.export.torch_ops import HANDLERS

_TORCH = os.path.dirname(torch.__file__)
_LAST_OF_CELLS = ("add", "add_", "sub", "rsub", "lerp", "addcmul")  # by which a GRU cell that is written out can end
_SILENT = ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range")
_CREATING = (
    "zeros_like",
    "ones_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_full",
)  # only the operand's shape counts


class RecordError(ExportError):
    """A module cannot be recorded."""


@dataclass(frozen=True, eq=False)
class Record:
    """What a module does with its inputs: a list of ATen operations, with the sizes of one example."""

    program: torch.export.ExportedProgram
    output_names: list[str | None]  # of the returned values, where they are in dictionaries or named tuples

    def follow(self, graph: Graph, inputs: list[Any], sizes: dict[str, int], elementary: bool = False) -> list[Any]:
        """Do to symbolic tensors what the module does.

        Parameters
        ----------
        graph : Graph
            Gets the nodes.
        inputs : list
            A ``Tensor`` for each tensor that the module takes; anything else for its other arguments.
        sizes : dict
            The example's sizes of batch and time.
        elementary : bool
            As of ``Context``.

        Returns
        -------
        list
            For each returned value a ``Tensor``, or whatever else it is.

        Raises
        ------
        ExportError
            Naming the operation and its place. Its attribute ``progress`` tells how many operations went well.
        """
        states = [t for t in inputs if isinstance(t, Tensor) and _is_open_state(graph, t)]
        context = Context(graph, sizes, states=states, elementary=elementary)
        unrolled = torch_loops.find(self.program.graph.nodes, sizes["T"])
        done = unrolled.dead.union(*(loop.nodes | set(loop.sequences) for loop in unrolled.loops))
        loops = {loop.last: loop for loop in unrolled.loops}
        values: dict[Any, Any] = {}
        kinds = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        waiting = list(inputs)
        for progress, node in enumerate(self.program.graph.nodes):
            try:
                if node.op == "placeholder":
                    spec = kinds[node.name]
                    values[node] = waiting.pop(0) if spec.kind == InputKind.USER_INPUT else self._constant(spec)
                elif node in loops:
                    torch_rolled.follow(context, loops[node], values, _execute)
                elif node in done:
                    continue
                elif node.op == "call_function":
                    values[node] = _execute(context, node, values)
                elif node.op == "output":
                    self._refuse_mutation()
                    returned = pytree.tree_map(
                        lambda n: values.get(n, n) if isinstance(n, torch.fx.Node) else n, node.args[0]
                    )
                    return list(returned)
                else:
                    values[node] = getattr(self.program.graph_module, str(node.target))
            except ExportError as error:
                culprit = getattr(error, "node", node)  # of a loop, that of its body
                found = "".join(f"; of a loop over time {reason}" for reason in unrolled.reasons[:1])
                described = type(error)(f"{_operation_name(culprit)}{_place(culprit)}: {error}{found}")
                described.progress = progress
                raise described from None
        raise AssertionError("a record without an output")

    def _constant(self, spec: Any) -> Any:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target in self.program.state_dict:
            return self.program.state_dict[spec.target].detach()
        return self.program.constants[spec.target]

    def _refuse_mutation(self) -> None:
        for spec in self.program.graph_signature.output_specs:
            if spec.kind != OutputKind.USER_OUTPUT:
                raise ExportError(
                    f"forward changes {spec.target!r}; a state must be an argument of forward and be returned by it, "
                    "forward(x, h) -> (y, h)"
                )


def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Record:
    """Let ``torch.export`` run a module (in eval mode) on example arguments.

    Raises
    ------
    ExportError
        If it cannot be recorded: its control flow depends on values, it fails, it keeps a state in itself.
    """
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(module, args, kwargs).run_decompositions({})
    except Exception as error:
        if any(_holds_packed(frame) for frame, _ in traceback.walk_tb(error.__traceback__)):
            raise ExportError(
                "packed sequences are not supported: export the module without pack_padded_sequence, and give lengths= when the "
                "model runs, which does the same"
            ) from error
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith((_TORCH, os.path.dirname(__file__)))]
        place = f" at {os.path.basename(own[-1].filename)}:{own[-1].lineno}: {own[-1].line}" if own else ""
        reason = str(error).strip().split("\n\n")[0]
        raise RecordError(
            f"torch.export fails on {type(module).__name__}{place}: {type(error).__name__}: {reason}"
        ) from error
    return Record(program, _output_names(program))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and messages of torch.export; what matters of them comes as an exception."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _holds_packed(frame: FrameType) -> bool:
    return any(isinstance(value, nn.utils.rnn.PackedSequence) for value in frame.f_locals.values())


def _output_names(program: torch.export.ExportedProgram) -> list[str | None]:
    spec = program.call_spec.out_spec
    if spec is None:
        return []
    leaves, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(range(spec.num_leaves), spec))
    paths = [path for path, _ in leaves]
    short = [".".join(path_key(key) for key in path if not hasattr(key, "idx")) for path in paths]
    full = [".".join(map(path_key, path)) for path in paths]  # with the numbers in a list below a key
    return [(all if short.count(name) > 1 else name) if name else None for name, all in zip(short, full)]


# ---- one operation


def _is_open_state(graph: Graph, t: Tensor) -> bool:
    node = graph.node_of(t)
    return node.operation == "state" and bool(node.options.get("open"))


def _execute(c: Context, node: torch.fx.Node, values: dict[Any, Any]) -> Any:
    c.graph.name = _module_path(node)
    args, kwargs = pytree.tree_map(
        lambda n: values[n] if isinstance(n, torch.fx.Node) else n, (node.args, dict(node.kwargs))
    )
    if node.target is operator.getitem:
        return args[0][args[1]]
    if not isinstance(node.target, torch._ops.OpOverload):
        raise ExportError("control flow that depends on values is not supported")
    name = node.target.overloadpacket.__name__
    if name in _SILENT:
        return None
    if name in _CREATING and isinstance(args[0], Tensor):
        operand: Any = node.args[0]
        example = operand.meta["val"]
        args = (torch.zeros(example.shape, dtype=example.dtype), *args[1:])
    leaves = pytree.tree_leaves((args, kwargs))
    if any(isinstance(leaf, Scores) for leaf in leaves):
        result = of_scores(c, name, _bound(node.target, args, kwargs))
        _check_shapes(result, node.meta.get("val"), c)
        return result
    if not any(isinstance(leaf, Tensor) for leaf in leaves):
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            raise ExportError("it is random")
        return node.target(*args, **kwargs)
    if name not in HANDLERS:
        raise ExportError("this operation is not supported")
    result = HANDLERS[name](c, _bound(node.target, args, kwargs))
    if c.states and not c.elementary and name in _LAST_OF_CELLS and isinstance(result, Tensor):
        result = cell(c.graph, result, c.states, c.graph.name) or result
    _check_shapes(result, node.meta.get("val"), c)
    return result


def _bound(target: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SimpleNamespace:
    """The arguments by the names of the operation's schema, defaults included."""
    schema = target._schema.arguments
    bound = {argument.name: argument.default_value for argument in schema}
    bound.update(zip((argument.name for argument in schema), args))
    return SimpleNamespace(**{**bound, **kwargs})


def _check_shapes(result: Any, recorded: Any, c: Context) -> None:
    """Whether the symbolic tensors have the shapes that torch recorded: a guard against mistakes of our own."""
    if isinstance(result, (Tensor, Scores)) and isinstance(recorded, torch.Tensor):
        shape = result.shape(c.sizes)
        if shape != tuple(recorded.shape):
            raise ExportError(
                f"understood as {result} with the shape {list(shape)}, but torch has {list(recorded.shape)}"
            )
    elif isinstance(result, (list, tuple)) and isinstance(recorded, (list, tuple)):
        for one, other in zip(result, recorded):
            _check_shapes(one, other, c)


# ---- where an operation comes from


def _operation_name(node: torch.fx.Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return f"aten.{node.target.overloadpacket.__name__}"
    return getattr(node.target, "__name__", str(node.target))


def _module_path(node: torch.fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _place(node: torch.fx.Node) -> str:
    """The submodule and the line of the user's source."""
    path = _module_path(node)
    frames = re.findall(r'File "(.+?)", line (\d+), in \w+\n\s*(.*)', node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if not frame[0].startswith(_TORCH)]
    line = f" ({os.path.basename(own[-1][0])}:{own[-1][1]}: {own[-1][2].strip()})" if own else ""
    return (f" in {path!r}" if path else "") + line
