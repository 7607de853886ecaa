# SPDX-License-Identifier: Apache-2.0
"""Files with states, windows and the like: forged fields, loops that are none, and that both readers agree."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from gru_engine import Network
from gru_engine.format import FormatError, pack, read, unpack
from gru_engine.layers import State
from gru_engine.records import OPERATIONS

from .file_tools import VALUES, fields, sign
from .helpers import uniform
from .test_files import check_agreement
from .test_format_damage import edited

ADDED = ("State", "Blend", "Slice", "Window", "Norm", "Mean", "Max", "Attend")
ADDED += ("Maximum", "Subsample", "Repeat", "Attention")


def stepping() -> Network:
    """A cell with every operation that can stand in a loop."""
    rng = np.random.default_rng(0)
    net = Network()
    x = net.input(4)
    seen = net.window(net.layer_norm(x, parts=2), 2, 3)
    s, t = net.state(4, np.ones(4)), net.state(2)
    inside = net.dense([seen, s, net.window(t, 3)], uniform(rng, 0.3, 4, 18))
    z, part = net.activation(net.rms_norm(inside), "sigmoid"), inside[1:3]
    h = net.blend(z, s, net.activation(inside, ("clip", -0.5, 0.5)))
    net.feed(t, net.activation(net.multiply(part, h[:1]), "min_gru"))
    net.feed(s, h)
    net.output(net.add(h, part[1:]))
    return net


def pooling() -> Network:
    """Everything that makes one value per sequence, and a window that looks ahead."""
    net = Network()
    x = net.window(net.input(4), 3, 2, ahead=1)
    values = [net.mean(x), net.max(x), net.attend(x[:2], x), net.attend(x[2:3], x)]
    net.output(net.activation(net.maximum(net.concat(values), values[0][:1])[3:], "exp"))
    return net


def other_axes() -> Network:
    """Everything that changes the number of steps."""
    net = Network()
    x = net.input(4)
    thin = net.subsample(x, 3, 1, 2)
    s = net.state(4, like=thin)
    h = net.activation(net.add(s, thin), "tanh")
    net.feed(s, h)
    looked = net.attention(h, x, net.concat([x, x]), v=np.ones(4), heads=2)
    backwards = net.attention(h, thin, looked, scale=0.5, causal=True)
    again = net.repeat(net.mean(looked), 5)
    less = net.subsample(again, 2)
    net.output(net.concat([backwards, h, net.repeat(net.last(less), like=h)]))
    return net


STEPPING, POOLING, AXES = pack(stepping()), pack(pooling()), pack(other_axes())
ALL = {"stepping": STEPPING, "pooling": POOLING, "axes": AXES}


def nodes(data: bytes) -> list[str]:
    return [node.kind.__name__ for node in read(data).nodes]


def test_the_files_have_all_operations() -> None:
    assert {name for data in ALL.values() for name in nodes(data)} >= set(ADDED)
    assert nodes(STEPPING).count("State") == 2
    for data in ALL.values():
        check_agreement(data, "not changed")
        assert pack(unpack(read(data))) == data


def number(data: bytes, kind: str, which: int = 0) -> int:
    """The number of a node."""
    return [i for i, name in enumerate(nodes(data)) if name == kind][which]


MATCHES: list[tuple[bytes, str, str, Any, str]] = [
    (STEPPING, "State", "p0", 0, r"parameters .* is \[0, 0, 0, 0\], expected a source from 4 to 17"),
    (STEPPING, "State", "p0", 3, "expected a source from 4 to 17"),
    (STEPPING, "State", "p0", 99, "expected a source from 4 to 17"),
    (STEPPING, "State", "p0", 4, "a node of the width 4 and T steps that is neither an input nor a STATE nor a SLICE"),
    (STEPPING, "State", "p1", 1, r"expected one at least, for the initial value"),
    (STEPPING, "State", "p2", 1, r"expected 0 for each that STATE does not use"),
    (STEPPING, "State", "slot0", 0xFFFFFFFF, r"tensors\[0\] is empty, expected PLAIN of 1 rows, 4 columns"),
    (STEPPING, "State", "activation", 1, "as STATE does not use it"),
    (STEPPING, "Slice", "p0", 3, "columns of the 4 of its input, not up to 5"),
    (STEPPING, "Slice", "p0", 2**32 - 1, "columns of the 4 of its input, not up to 4294967"),
    (STEPPING, "Slice", "width", 5, "columns of the 4 of its input|from its inputs"),
    (STEPPING, "Window", "p0", 0, r"expected \(taps - 1\) \* dilation from 0 to 1048576"),
    (STEPPING, "Window", "p0", 3, r"width .* is 8, expected 12, from its inputs"),
    (STEPPING, "Window", "p1", 0, r"expected \(taps - 1\) \* dilation from 0 to 1048576"),
    (STEPPING, "Window", "p1", 2**20 + 1, r"expected \(taps - 1\) \* dilation from 0 to 1048576"),
    (STEPPING, "Window", "p1", 2**32 - 1, r"expected \(taps - 1\) \* dilation from 0 to 1048576"),
    (STEPPING, "Window", "p2", 4, "expected at most 3 steps ahead"),
    (STEPPING, "Window", "p3", 1, "expected 0 for each that WINDOW does not use"),
    (STEPPING, "Norm", "p0", 2, r"expected 0 \(layer\) or 1 \(root mean square\) first"),
    (STEPPING, "Norm", "p1", 0, "expected parts of the width 4"),
    (STEPPING, "Norm", "p1", 3, "expected parts of the width 4"),
    (STEPPING, "Norm", "p2", 1, "expected 0 for each that NORM does not use"),
    (STEPPING, "Norm", "alpha", -1.0, "alpha .* is -1.0, expected a finite number that is not negative"),
    (STEPPING, "Norm", "alpha", float("nan"), "alpha .* is nan, expected a finite number"),
    (STEPPING, "Norm", "alpha", float("inf"), "alpha .* is inf, expected a finite number"),
    (STEPPING, "Norm", "beta", 1.0, "beta .* is 1.0, expected 0, as NORM does not use it"),
    (STEPPING, "Norm", "slot1", 0xFFFFFFFF, r"tensors\[1\] is empty, expected PLAIN of 1 rows, 4 columns"),
    (STEPPING, "Blend", "edges", 2, "first_edge|expected 3 to 3"),
    (STEPPING, "Activate", "beta", -1.0, "alpha at .* expected at most beta|beta .* expected 0"),
    (POOLING, "Attend", "width", 13, "width .* is 13, expected 12, from its inputs"),
    (POOLING, "Attend", "p0", 1, "expected 0 for each that ATTEND does not use"),
    (AXES, "Subsample", "p0", 2**20 + 1, "first, stride and dropped up to 1048576, the stride not 0"),
    (AXES, "Subsample", "p1", 0, "first, stride and dropped up to 1048576, the stride not 0"),
    (AXES, "Subsample", "p3", 1, "expected 0 for each that SUBSAMPLE does not use"),
    (AXES, "Repeat", "p0", 0, "reads a value per sequence, and if it has 0 steps, one per step then"),
    (AXES, "Repeat", "p0", 2**20 + 1, "expected at most 1048576 steps"),
    (AXES, "Attention", "p0", 2, "expected 0 or 1 first and third"),
    (AXES, "Attention", "p0", 0, r"tensors\[0\] is 1, expected none"),
    (AXES, "Attention", "p1", 0, "a divisor of the widths"),
    (AXES, "Attention", "p1", 3, "a divisor of the widths"),
    (AXES, "Attention", "p2", 1, "its inputs have"),
    (AXES, "Attention", "alpha", float("inf"), "a finite number, 1 of additive scores"),
    (AXES, "Attention", "alpha", 0.5, "a finite number, 1 of additive scores"),
    (POOLING, "Maximum", "width", 11, "width .* is 11, expected 48, from its inputs"),
    (POOLING, "Maximum", "edges", 1, "first_edge|expected 2 to 2"),
    (POOLING, "Maximum", "slot0", 0, r"tensors\[0\] is 0, expected none"),
    (POOLING, "Maximum", "alpha", 1.0, "alpha .* is 1.0, expected 0, as MAXIMUM does not use it"),
    (POOLING, "Mean", "width", 11, "width .* is 11, expected 12, from its inputs"),
]


@pytest.mark.parametrize(("data", "kind", "field", "value", "message"), MATCHES)
def test_forged_fields(data: bytes, kind: str, field: str, value: Any, message: str) -> None:
    """Promise: both readers refuse it, and the one in Python names the field."""
    forged = edited(data, "NODES", number(data, kind), field, value)
    assert forged != data
    with pytest.raises(FormatError, match=message):
        read(forged)
    check_agreement(forged, f"{kind} {field} = {value}")


def test_loops_that_need_later_steps() -> None:
    """Promise: what looks ahead, or ends a sequence, between a state and its source is refused."""
    window = number(STEPPING, "Window", 1)
    assert window > number(STEPPING, "State")
    forged = edited(STEPPING, "NODES", window, "p2", 1)
    with pytest.raises(
        FormatError, match=rf"NODES\[{window}\] \(WINDOW\): it needs later steps, in the loop of nodes 3 to"
    ):
        read(forged)
    check_agreement(forged, "a window ahead in a loop")
    check_agreement(edited(STEPPING, "NODES", number(STEPPING, "Window"), "p2", 1), "a window ahead before it")
    net = Network()
    x = net.input(3)
    s = net.state(3)
    net.feed(s, net.activation(net.affine(net.add(s, x), np.ones(3), np.ones(3)), "tanh"))
    net.output(s)
    data = pack(net)
    for operation in (11, 12, 18, 19):  # LAST, FIRST, MEAN, MAX in the place of the sum, which has two inputs ...
        forged = edited(data, "NODES", number(data, "Activate"), "operation", operation)
        forged = edited(forged, "NODES", number(data, "Activate"), "activation", 0)  # ... or of tanh, the source
        with pytest.raises(FormatError, match=r"\((LAST|FIRST|MEAN|MAX)\): it needs later steps, in the loop of nodes"):
            read(forged)
        check_agreement(forged, f"operation {operation}")


def test_sources() -> None:
    """Promise: a state's source is any later node but a state or a slice, of the state's width."""
    file = read(STEPPING)
    for i, node in enumerate(file.nodes):
        if node.kind is not State:
            continue
        for source in range(len(file.nodes) + 2):
            check_agreement(edited(STEPPING, "NODES", i, "p0", source), f"node {i}: source {source}")


@pytest.mark.parametrize("data", ALL.values(), ids=ALL)
def test_every_field_of_the_new_nodes(data: bytes) -> None:
    """Promise: both readers take and refuse the same values of every field of every node of these operations."""
    rng = np.random.default_rng(0)
    kinds = nodes(data)
    for name, at, code in fields(data):
        which = int(name[4:].split(".")[0]) if name.startswith("node") else -1
        if which < 0 or kinds[which] not in (*ADDED, "Multiply", "Activate"):
            continue
        for value in rng.choice(np.array(VALUES, np.uint64), 5, replace=False).tolist():
            if value < 256 ** struct.calcsize(code):
                file = bytearray(data)
                struct.pack_into(code, file, at, value)
                check_agreement(sign(bytes(file)), f"{name} = {value}")


@pytest.mark.parametrize("data", ALL.values(), ids=ALL)
def test_every_edge_to_every_node(data: bytes) -> None:
    """Promise: both readers take and refuse the same inputs of every node."""
    count = len(nodes(data))
    for name, at, _ in fields(data):
        if name.startswith("edge"):
            for node in range(count + 1):
                file = bytearray(data)
                struct.pack_into("<I", file, at, node)
                check_agreement(sign(bytes(file)), f"{name} = {node}")


def test_every_node_with_every_operation() -> None:
    """Promise: both readers take and refuse the same operations for the same inputs."""
    for data in ALL.values():
        for i in range(len(nodes(data))):
            for operation in range(len(OPERATIONS) + 2):
                check_agreement(edited(data, "NODES", i, "operation", operation), f"node {i}: operation {operation}")
