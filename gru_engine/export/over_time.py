# SPDX-License-Identifier: Apache-2.0
"""Operations along the time axis: convolutions and their padding, mean and maximum, attention pooling.

A network has one output per step or one per sequence, so a convolution must keep the number of steps. Frameworks reach that in
several ways: with padding of its own, with zeros put before the sequence, with too much padding and a part cut off behind it.
So a time axis may have another number of steps in between, the factor ``"T+4"`` in ``gru_engine.export.graph``; nothing but
what belongs to convolutions reads such a value. Likewise a softmax over time is nothing but the weights of a sum over time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gru_engine.export.common import Array, ExportError
from gru_engine.export.graph import (
    AxisError,
    Dim,
    Graph,
    Ids,
    Node,
    Tensor,
    axis_text,
    is_features,
    steps_axis,
    subsampled,
    time_parts,
)

Sizes = dict[str, int]


def is_time(dim: Dim) -> bool:
    """Whether an axis is the time, in either direction and with any number of steps."""
    return len(dim) == 1 and isinstance(dim[0], str) and dim[0][0] in "TR"


def is_stretched(dim: Dim) -> bool:
    """Whether an axis is the time with another number of steps."""
    return is_time(dim) and time_parts(str(dim[0]))[1] != 0


def is_steps(dim: Dim) -> bool:
    """Whether an axis is the time of values of a network, in either direction."""
    return is_time(dim) and not is_stretched(dim)


def goes_back(dim: Dim) -> bool:
    """Whether an axis is the time from its end to its beginning."""
    return is_time(dim) and str(dim[0])[0] == "R"


def _counted(steps: int) -> str:
    return f"{steps} step{'s' * (steps != 1)}"


def _time_axis(t: Tensor, axis: int, what: str) -> tuple[str, int]:
    """The axis without what padding added, ``"T"``, ``"R"`` or such, and how many steps that is."""
    if not is_time(t.dims[axis]):
        raise AxisError(f"{what} is along axis {axis} of {t}, {axis_text(t.dims[axis])}; it must be the time")
    return time_parts(str(t.dims[axis][0]))


def _with_steps(dims: tuple[Dim, ...], axis: int, base: str, extra: int, sizes: Sizes) -> tuple[Dim, ...]:
    """The axes where the time axis has so many steps beside those of the sequence."""
    factor = f"{base}{extra:+d}" if extra else base
    sizes.setdefault(base, int(steps_axis(base).count(sizes["T"])))
    sizes[factor] = sizes[base] + extra
    return (*dims[:axis], (factor,), *dims[axis + 1 :])


def _node_of(graph: Graph, t: Tensor, kind: str) -> Node | None:
    """The one node that made a tensor, if it is intermediate and of that kind."""
    nodes = [graph.nodes[n] for n in np.unique(graph.node_numbers(t.ids.reshape(-1)))]
    alike = {str(sorted((k, v) for k, v in node.options.items() if k in ("kind", "left", "right"))) for node in nodes}
    return nodes[0] if len(alike) == 1 and nodes[0].options.get("kind") == kind else None


def _sources(graph: Graph, ids: Ids, number: int = 0) -> Ids:
    """For each id of feature-by-feature nodes the one that it is made of."""
    found = [
        int(graph.nodes[n].inputs[number][id - graph.nodes[n].first])
        for id, n in zip(ids.reshape(-1).tolist(), graph.node_numbers(ids.reshape(-1)).tolist())
    ]
    return np.array(found, np.int64).reshape(ids.shape)


# ---- convolution


def padded(graph: Graph, sizes: Sizes, t: Tensor, axis: int, left: int, right: int) -> Tensor:
    """Zeros before and behind a time axis; negative numbers cut steps off."""
    if left == right == 0:
        return t
    base, extra = _time_axis(t, axis, "padding")
    if (left < 0 or right < 0) and not extra:
        t = part_of_steps(graph, sizes, t, axis, max(-left, 0), 1, max(-right, 0))
        return padded(graph, sizes, t, axis, max(left, 0), max(right, 0))
    if left < 0 or right < 0:
        size = sizes[base] + extra
        t = part(graph, sizes, t, axis, max(-left, 0), size - max(-left, 0) - max(-right, 0))
        return padded(graph, sizes, t, axis, max(left, 0), max(right, 0))
    if extra:
        node = _node_of(graph, t, "padded")
        if node is None:
            raise ExportError(f"padding is added to {t}, which a convolution made longer or shorter")
        left, right = left + node.options["left"], right + node.options["right"]
        t = Tensor(_with_steps(t.dims, axis, base, 0, sizes), _sources(graph, t.ids))
    total = left + right
    result = graph.pointwise(
        "intermediate", [t], {}, kind="padded", left=left, right=right,
        refusal=f"{_counted(total)} of padding ({left} before, {right} behind) make the sequence longer, and what reads it is no "
        "convolution that makes it as long as before",
    )  # fmt: skip
    return Tensor(_with_steps(t.dims, axis, base, total, sizes), result.ids)


def conv1d(
    graph: Graph,
    sizes: Sizes,
    t: Tensor,
    W: Array,
    b: Array | None = None,
    *,
    channels: int,
    time: int,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    groups: int = 1,
    stride: int = 1,
) -> Tensor:
    """A convolution over time, cross-correlation: the kernel [O, I / groups, K] is not turned round.

    Parameters
    ----------
    graph : Graph
    sizes : dict
        The example sizes, as ``Context.sizes``; a time axis of another length is entered.
    t : Tensor
    W : array [O, I / groups, K]
    b : array [O], optional
    channels, time : int
        Axes of ``t``. Over other axes of features the kernel is applied at each place.
    padding : (int, int)
        Zeros before and behind; zeros that ``padded`` put there are added to them.

    Raises
    ------
    AxisError
        If these axes are not the time and the channels.
    ExportError
        If stride is not 1. If the number of steps is not that of the sequence, only when something else than ``part`` or
        ``padded`` reads the result.
    """
    base, extra = _time_axis(t, time, "a convolution")
    if not is_features(t.dims[channels]):
        raise AxisError(f"the channels of a convolution are axis {channels} of {t}, {axis_text(t.dims[channels])}")
    left, right = padding
    if extra:
        node = _node_of(graph, t, "padded")
        if node is None:
            raise ExportError(f"a convolution reads {t}, which another one made longer or shorter")
        left, right = left + node.options["left"], right + node.options["right"]
        t = Tensor(_with_steps(t.dims, time, base, 0, sizes), _sources(graph, t.ids))
    rows, others = graph.rows(t, channels, "the convolution")
    if rows.shape[1] != W.shape[1] * groups or len(W) % groups:
        raise AxisError(
            f"a convolution with the kernel {list(W.shape)} and {groups} groups reads axis {channels} of {t}"
        )
    arrays = {"W": W} if b is None else {"W": W, "b": b}
    content = {
        "dilation": dilation,
        "groups": groups,
        "left": left,
        "extra": left + right - (W.shape[2] - 1) * dilation,
        "base": base,
    }
    if stride != 1 or content["extra"] < 0:
        if base[0] == "R" and stride != 1:
            raise ExportError("a convolution with a stride goes from the end of the sequence to its beginning")
        if content["extra"] > 0 or left < 0 or right < 0:
            raise ExportError(
                f"a convolution (kernel {W.shape[2]}, dilation {dilation}, padding {left} and {right}) with stride {stride} "
                "has more padding than its kernel covers"
            )
        options = {"dilation": dilation, "groups": groups, "stride": stride, "padding": (left, right)}
        if base[0] == "R":
            arrays, options["padding"] = {**arrays, "W": W[:, :, ::-1]}, (right, left)
        nodes = [graph.new_node("conv1d", [row], len(W), arrays=arrays, options=options) for row in rows]
        ids = np.stack([node.ids for node in nodes]).reshape(*others, len(W))
        result = t.replaced(channels, np.moveaxis(ids, -1, t.position(channels)))
        shorter = subsampled(base, -content["extra"], stride)
        return Tensor(_with_steps(result.dims, time, shorter, 0, sizes), result.ids)
    nodes = [_convolution(graph, row, arrays, content, base) for row in rows]
    ids = np.stack([node.ids for node in nodes]).reshape(*others, len(W))
    result = t.replaced(channels, np.moveaxis(ids, -1, t.position(channels)))
    return Tensor(_with_steps(result.dims, time, base, content["extra"], sizes), result.ids)


def _convolution(graph: Graph, row: Ids, arrays: dict[str, Array], content: dict[str, Any], base: str) -> Node:
    """The node of a convolution that keeps the number of steps, or an intermediate one that is cut later."""
    W, left, extra = arrays["W"], content["left"], content["extra"]
    span = (W.shape[2] - 1) * content["dilation"]
    if extra == 0 and 0 <= left <= span:
        options: dict[str, Any] = {key: content[key] for key in ("dilation", "groups")}
        options["padding"] = (left, span - left)
        if base[0] == "R":  # the same in the order of time
            arrays, options["padding"] = {**arrays, "W": W[:, :, ::-1]}, (span - left, left)
        return graph.new_node("conv1d", [row], len(W), arrays=arrays, options=options)
    change = (
        f"{_counted(abs(extra))} {'more' if extra > 0 else 'fewer'} than the sequence has" if extra else "shifted steps"
    )
    refusal = (
        f"a convolution (kernel {W.shape[2]}, dilation {content['dilation']}, padding {left} and {extra + span - left}) makes "
        f"{change}; a network has one output for each step, with {_counted(span)} of padding in all"
    )
    options = {"kind": "stretched", "refusal": refusal, **content}
    return graph.new_node("intermediate", [row], len(W), arrays=arrays, options=options)


def part(graph: Graph, sizes: Sizes, t: Tensor, axis: int, start: int, count: int) -> Tensor:
    """``count`` steps, from ``start`` on, of a time axis with another number of steps."""
    base, extra = _time_axis(t, axis, "a slice")
    size = sizes[base] + extra
    if (start, count) == (0, size):
        return t
    rest, numbers = extra - (size - count), graph.node_numbers(t.ids)
    dims = _with_steps(t.dims, axis, base, rest, sizes)
    node = _node_of(graph, t, "padded")
    if node is not None:
        left, right = node.options["left"] - start, node.options["right"] - (size - count - start)
        if left >= 0 and right >= 0:
            plain = Tensor(_with_steps(t.dims, axis, base, 0, sizes), _sources(graph, t.ids))
            return padded(graph, sizes, plain, axis, left, right)
    ids = t.ids.copy()
    cut: dict[int, Ids] = {}
    for number in np.unique(numbers).tolist():
        node = graph.nodes[number]
        if node.options.get("kind") not in ("stretched", "behind"):
            raise ExportError(f"steps {start} to {start + count} of the {size} of {t} are taken; of the time only its last and "
                              "its first step can be, or what a convolution's padding added")  # fmt: skip
        ids[numbers == number] = _cut(graph, number, start, rest, base, cut)[t.ids[numbers == number] - node.first]
    return Tensor(dims, ids)


def _cut(graph: Graph, number: int, start: int, rest: int, base: str, cut: dict[int, Ids]) -> Ids:
    """The ids of a node of whose steps those before ``start`` are cut off, and so many behind that ``rest`` are too many."""
    node = graph.nodes[number]
    kind = node.options.get("kind")
    if number in cut:
        return cut[number]
    if kind == "stretched":
        content = {key: node.options[key] for key in ("dilation", "groups")}
        content |= {"left": node.options["left"] - start, "extra": rest, "base": base}
        new = _convolution(graph, node.inputs[0], node.arrays, content, base)
    elif kind == "behind":
        inputs = []
        for read in node.inputs:
            numbers, ids = graph.node_numbers(read), read.copy()
            for source in np.unique(numbers).tolist():
                first = graph.nodes[source].first
                found = _cut(graph, source, start, rest, base, cut)
                ids[numbers == source] = found[read[numbers == source] - first]
            inputs.append(ids)
        options = {key: value for key, value in node.options.items() if key not in ("kind", "refusal")}
        new = graph.new_node(node.operation, inputs, node.width, arrays=node.arrays, options=options)
    else:
        return node.ids
    cut[number] = new.ids
    return new.ids


def part_of_steps(graph: Graph, sizes: Sizes, t: Tensor, axis: int, first: int, stride: int, dropped: int) -> Tensor:
    """Every ``stride``-th step of a time axis, without ``first`` steps at its beginning and ``dropped`` at its end."""
    base, _ = _time_axis(t, axis, "a slice")
    if base[0] == "R":
        if stride != 1:
            raise ExportError("some of the steps are taken from the end of the sequence to its beginning")
        first, dropped = dropped, first
    result = graph.pointwise("subsample", [t], {}, first=first, stride=stride, dropped=dropped)
    return Tensor(_with_steps(t.dims, axis, subsampled(base, first + dropped, stride), 0, sizes), result.ids)


def last_steps(graph: Graph, sizes: Sizes, t: Tensor, axis: int, count: int) -> Tensor:
    """The last steps of a time axis, which becomes one of features."""
    base, _ = _time_axis(t, axis, "a slice")
    if base[0] == "R":
        raise ExportError("the first steps of a sequence are taken by number")
    steps = []
    for ago in range(count)[::-1]:
        delayed = graph.pointwise("delay", [t], {}, steps=ago) if ago else t
        steps.append(graph.ends(delayed.ids, "last"))
    place = t.position(axis)
    return Tensor.of((*t.dims[:axis], (count,), *t.dims[axis + 1 :]), np.stack(steps, axis=place))


# ---- pooling some steps at a time


_LOWEST = float(np.finfo(np.float32).max)


def windows(
    graph: Graph, sizes: Sizes, t: Tensor, axis: int, taps: int, stride: int, padding: tuple[int, int]
) -> list[Tensor]:
    """A value at several steps beside each other, each a tensor of its own; zeros stand for what is no step of the sequence."""
    base, extra = _time_axis(t, axis, "pooling")
    left, right = padding
    if extra or left + right > taps - 1:
        raise ExportError(f"pooling of {taps} steps of {t} with a padding of {left} and {right}")
    if base[0] == "R" and stride != 1:
        raise ExportError("pooling with a stride goes from the end of the sequence to its beginning")
    if base[0] == "R":
        left, right = right, left
    order = np.argsort(t.ids, axis=None, kind="stable")
    source = t.ids.reshape(-1)[order]
    options = {"taps": taps, "padding": (left, right), "stride": stride}
    node = graph.new_node("window", [source], taps * source.size, options=options)
    dims = _with_steps(t.dims, axis, subsampled(base, taps - 1 - left - right, stride), 0, sizes)
    found = []
    for tap in range(taps):
        ids = np.empty(source.size, np.int64)
        ids[order] = node.ids[tap * source.size : (tap + 1) * source.size]
        found.append(Tensor(dims, ids.reshape(t.ids.shape)))
    return found


def max_pooled(
    graph: Graph, sizes: Sizes, t: Tensor, axis: int, taps: int, stride: int, padding: tuple[int, int] = (0, 0)
) -> Tensor:
    """The largest of some steps at a time; what is no step of the sequence does not count."""
    found = windows(graph, sizes, t, axis, taps, stride, padding)
    if any(padding):  # 0 beside a step of the sequence, the lowest number beside any other
        of_sequence = windows(graph, sizes, graph.affine(t, 0.0, 1.0), axis, taps, stride, padding)
        found = [graph.add(x, graph.affine(ones, _LOWEST, -_LOWEST)) for x, ones in zip(found, of_sequence)]
    result = found[0]
    for x in found[1:]:
        result = graph.extremum(result, x, True)
    return result


def mean_pooled(graph: Graph, sizes: Sizes, t: Tensor, axis: int, taps: int, stride: int) -> Tensor:
    """The mean of some steps at a time."""
    result, *others = windows(graph, sizes, t, axis, taps, stride, (0, 0))
    for x in others:
        result = graph.add(result, x)
    return graph.affine(result, 1 / taps, 0.0)


# ---- attention


def attention(
    graph: Graph, query: Tensor, keys: Tensor, values: Tensor, *, heads: int = 1, scale: float = 1.0, v: Array | None = None,
    causal: bool = False,
) -> Tensor:  # fmt: skip
    """Means of values over their steps, for each step of a query: all three [batch, time, features].

    The features are those of all heads, one after the other; ``v`` [features] makes the scores additive. See
    ``Network.attention``.
    """
    if query.rank == 3 and query.dims[1] == ():
        return _attention_of_one(graph, query, keys, values, heads, scale, v)
    for t in (query, keys, values):
        if t.rank != 3 or t.dims[0] != ("B",) or not is_steps(t.dims[1]) or not is_features(t.dims[2]):
            raise AxisError(f"attention reads {t}, expected [batch, time, features]")
    if keys.dims[1] != values.dims[1] or (causal and query.dims[1] != keys.dims[1]):
        raise ExportError(f"attention has a query {query}, keys {keys} and values {values}, whose steps do not fit")
    if causal and goes_back(query.dims[1]):
        raise ExportError("causal attention over a reversed sequence is not supported")
    arrays = {} if v is None else {"v": v}
    ids = [t.spread(2)[0] for t in (query, keys, values)]
    options = {"heads": heads, "scale": scale, "causal": causal}
    node = graph.new_node("attention", ids, ids[2].size, arrays=arrays, options=options)
    return Tensor.of((*query.dims[:2], (node.width,)), node.ids)


def _attention_of_one(
    graph: Graph, query: Tensor, keys: Tensor, values: Tensor, heads: int, scale: float, v: Array | None
) -> Tensor:
    """Attention with a query per sequence [batch, 1, features]: pooling with scores made of a copy at each step."""
    query = graph.repeated(query, 1, keys)
    if v is None:
        terms = graph.affine(graph.multiply(query, keys), scale, 0.0)
    else:
        terms = graph.affine(graph.activation(graph.add(query, keys), "tanh"), v, 0.0)
    parts = [
        Tensor.of((*t.dims[:2], (heads,), (t.ids.size // heads,)), t.ids.reshape(heads, -1)) for t in (terms, values)
    ]
    if heads == 1:
        parts = [Tensor((*t.dims[:2], (), t.dims[-1]), t.ids) for t in parts]
    scores = softmax(graph, graph.sum(parts[0], 3), 1)
    pooled_values = weighted_sum(graph, scores.unsqueeze(3), parts[1], 1)
    return Tensor.of((("B",), (), (values.ids.size,)), pooled_values.ids.reshape(-1))


# ---- one value per sequence


def _without(t: Tensor, axis: int, ids: Ids) -> Tensor:
    return Tensor((*t.dims[:axis], *t.dims[axis + 1 :]), ids)


def _check_steps(t: Tensor, axis: int, what: str) -> None:
    _, extra = _time_axis(t, axis, what)
    if extra:
        raise ExportError(f"{what} is over {axis_text(t.dims[axis])}; it must be over the steps of the sequence")


def pooled(graph: Graph, t: Tensor, axis: int, operation: str) -> Tensor:
    """The ``"mean"`` or the ``"max"`` over the time axis, which disappears."""
    _check_steps(t, axis, f"the {operation}")
    result = graph.pointwise(operation, [t], {})
    graph.nodes[-1].per_sequence = True
    return _without(t, axis, result.ids)


def softmax(graph: Graph, t: Tensor, axis: int) -> Tensor:
    """The softmax over time: weights, for ``weighted_sum`` or ``summed``."""
    _check_steps(t, axis, "a softmax")
    return graph.pointwise(
        "intermediate", [t], {}, kind="softmax",
        refusal="a softmax over time is supported as the weights of a sum over time (attention pooling), not as a value itself",
    )  # fmt: skip


def _is_softmax(graph: Graph, ids: Ids) -> bool:
    return all(graph.nodes[n].options.get("kind") == "softmax" for n in np.unique(graph.node_numbers(ids)))


def weighted_sum(graph: Graph, a: Tensor, b: Tensor, axis: int) -> Tensor:
    """The sum of ``a * b``, broadcast, over the time axis, which disappears; one of the two is a softmax over time."""
    a, b = graph.broadcast(a, b)
    _check_steps(a, axis, "a sum")
    if not _is_softmax(graph, a.ids):
        a, b = b, a
    if not _is_softmax(graph, a.ids) or _is_softmax(graph, b.ids):
        raise ExportError("a sum over time of products is supported where one factor is a softmax over time")
    return _without(a, axis, _attended(graph, a.ids, b.ids))


def is_weighted(graph: Graph, t: Tensor) -> bool:
    """Whether a value is a product with a softmax over time, so that ``summed`` can be used."""
    nodes = [graph.nodes[n] for n in np.unique(graph.node_numbers(t.ids))]
    return all(n.operation == "multiply" and any(_is_softmax(graph, ids) for ids in n.inputs) for n in nodes)


def summed(graph: Graph, t: Tensor, axis: int) -> Tensor:
    """The sum over the time axis, which disappears, of products of which one factor is a softmax over time."""
    _check_steps(t, axis, "a sum")
    numbers = np.unique(graph.node_numbers(t.ids))
    if any(graph.nodes[n].operation != "multiply" for n in numbers):
        raise ExportError(
            "a sum over time is supported for values times a softmax over time (attention pooling); beside that, the mean, the "
            "maximum, the last and the first step"
        )
    a, b = (Tensor(t.dims, _sources(graph, t.ids, number)) for number in (0, 1))
    return weighted_sum(graph, a, b, axis)


def _attended(graph: Graph, weights: Ids, values: Ids) -> Ids:
    """The ids of the weighted sums: columns that share a score stand side by side, and are a head."""
    scores, read = _sources(graph, weights).reshape(-1), values.reshape(-1)
    order = np.lexsort((read, scores))
    heads, counts = np.unique(scores, return_counts=True)
    if len(set(counts.tolist())) != 1:
        heads = scores[order]
    node = graph.new_node("attend", [heads, read[order]], read.size)
    node.per_sequence = True
    ids = np.empty(read.size, np.int64)
    ids[order] = node.ids
    return ids.reshape(values.shape)
