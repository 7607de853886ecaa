# SPDX-License-Identifier: Apache-2.0
"""Made the files with states, windows, normalisation and values per sequence in this folder, once, like make.py the others.

python tests/data/golden_v1/make_operations.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

import gru_engine as ge
from gru_engine import cells

rng = np.random.default_rng(20240801)


def weights(*shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


def all_cells():
    """Every cell that is a loop, an output each."""
    net = ge.Network()
    x = net.input(5)
    a = net.activation(x[4:], "sigmoid")
    H = 4

    def gates(count):
        return weights(count * H, 5), weights(count * H, H), weights(count * H)

    outputs = {
        "li": cells.li_gru(net, x, *gates(2), recurrent_norm=1e-3),
        "zoneout": cells.zoneout_gru(net, x, *gates(3), weights(3 * H), zoneout=0.25, h0=weights(H)),
        "au": cells.au_gru(net, x, a, *gates(3)),
        "a": cells.a_gru(net, x, a, *gates(2)),
        "gate memory": cells.gate_memory_gru(net, x, *gates(4), gates="rzno"),
        "input forget": cells.input_forget_gru(net, x, *gates(4), gates="ifno"),
        "min": cells.min_gru(net, x, weights(2 * H, 5), weights(2 * H)),
        "layer norm": cells.layer_norm_gru(net, x, *gates(3), weights(3 * H), scale_x=weights(3 * H), zoneout=0.1),
        "layer norm of the sum": cells.layer_norm_sum_gru(net, x, *gates(3), scale=weights(3 * H)),
        "norm of the input": cells.norm_input_gru(net, x, weights(2, 3 * H, H + 5), scale=weights(2 * H + 5)),
    }
    for name, value in outputs.items():
        net.output(value, name)
    return net


def operations():
    """The operations that are not in these, wider than a vector."""
    net = ge.Network()
    x = net.conv1d(net.input(3), weights(20, 3, 3), weights(20), dilation=2, activation=("clip", -0.8, 1.2))
    part = x[1:19]
    s, t = net.state(18, weights(18)), net.state(2)
    h = net.blend(net.activation(part, "sigmoid"), s, net.layer_norm(net.add(net.window(s, 2, 2)[18:], part), parts=2))
    net.feed(s, h)
    net.feed(t, x[:2])
    net.output(h, "h")
    net.output(net.multiply(h, t[1:]), "scaled")
    net.output(net.activation(net.subtract(net.rms_norm(h, weights(18)), t[:1]), "min_gru"), "normal")
    net.output(net.activation(part, "exp"), "exp")
    return net


def pooling():
    """Values per sequence, and windows that look ahead."""
    net = ge.Network()
    v = net.input(4)
    x = net.conv1d(v, weights(18, 2, 5), weights(18), groups=2, padding="same", activation="tanh")
    net.output(net.mean(x), "mean")
    net.output(net.max(net.window(x, 2, 3, 2)), "max")
    net.output(net.attend(net.dense(x, weights(3, 18)), x), "attention")
    return net


def main(folder):
    for name, net in {"cells": all_cells(), "operations": operations(), "pooling": pooling()}.items():
        path = folder / f"{name}.gru"
        if path.exists():
            raise SystemExit(f"{path} exists; golden files are never made again")
        x = weights(40, net.input_size)
        net.save(path, golden=[(x[:5], ge.reference.run(net, x[:5]), 1e-5)])
        y, state = ge.load(path).run(x, return_state=True)
        for part, array in (("x", x), ("y", y), ("state", state)):
            np.save(folder / f"{name}.{part}.npy", array)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
