# SPDX-License-Identifier: Apache-2.0
"""Made the files with bfloat16, float16 and int8 weights in this folder, once, like make.py the others.

python tests/data/golden_v1/make_reduced.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

import gru_engine as ge

rng = np.random.default_rng(20240701)


def weights(*shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


def gru(net, x, hidden, columns, reset="after", lead=(), **options):
    rows = (2 if reset == "none" else 3) * hidden
    shapes = ((rows, columns), (rows, hidden), (rows,), (rows,))
    arrays = [weights(*lead, *shape) for shape in shapes]
    return net.gru(x, *arrays, reset=reset, h0=weights(*lead, hidden), **options)


def layers():
    """A layer of every place of the reset gate, sizes that fill neither panels nor pairs nor quads."""
    net = ge.Network()
    x = net.input(5)
    h = gru(net, x, 17, 5)
    g = gru(net, [h, x], 3, 22, "before", clip=1.5)
    k = gru(net, g, 6, 3, "none", activation="relu")
    net.output(net.dense([gru(net, k, 2, 6, "all"), k], weights(7, 8), weights(7), activation="softmax"), "p")
    net.output(h, "h")
    return net


def features():
    """A folded embedding in front of other inputs, and a reverse layer."""
    net = ge.Network()
    tokens = net.tokens(9)
    embedding, one_hot = net.embedding(tokens, weights(9, 6)), net.dense(tokens, weights(3, 9), activation="tanh")
    h = gru(net, [embedding, one_hot], 5, 9, lead=(2,), direction="bidirectional")
    net.output(net.dense(h, weights(4, 10), weights(4), activation="log_softmax"))
    return net


def main(folder):
    networks = {"layers": layers(), "features": features()}
    for name, net in networks.items():
        x = weights(9, net.input_size) * 2 if net.input_size else rng.integers(0, net.vocab_size, 9, np.int32)
        for dtype in ("bfloat16", "float16", "int8"):
            path = folder / f"{name}_{dtype}.gru"
            if path.exists():
                raise SystemExit(f"{path} exists; golden files are never made again")
            net.save(path, dtype=dtype, golden=[(x, ge.reference.run(net, x), 0.05)])
            y, state = ge.load(path).run(x, return_state=True)
            for part, array in (("x", x), ("y", y), ("state", state)):
                np.save(folder / f"{name}_{dtype}.{part}.npy", array)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
