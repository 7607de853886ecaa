# SPDX-License-Identifier: Apache-2.0
"""Made the files in this folder, once, with the first release that writes format version 1. They are never made again.

For each network NAME.gru, an input sequence NAME.x.npy, the outputs NAME.y.npy and the state after it, NAME.state.npy.
Every later release must read the files and give these bits, on every CPU (tests/test_files.py, tests/c/test_step.c).

    python tests/data/golden_v1/make.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

import gru_engine as ge

rng = np.random.default_rng(20240601)


def weights(*shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


def gru(net, x, hidden, columns, reset="after", lead=(), **options):
    rows = (2 if reset == "none" else 3) * hidden
    shapes = ((rows, columns), (rows, hidden), (rows,), (rows,))
    arrays = [weights(*lead, *shape) for shape in shapes]
    return net.gru(x, *arrays, reset=reset, h0=weights(*lead, hidden), **options)


def reset_mode(reset, hidden=4, **options):
    net = ge.Network()
    h = gru(net, net.input(3), hidden, 3, reset, **options)
    net.output(net.dense(h, weights(2, hidden), weights(2), activation="tanh"))
    return net


def embedding():
    net = ge.Network()
    h = gru(net, net.embedding(net.tokens(11), weights(11, 5)), 4, 5)
    net.output(net.dense(h, weights(11, 4), weights(11), activation="log_softmax"), "p")
    return net


def embedding_with_features():
    net = ge.Network()
    tokens = net.tokens(7)
    features = net.dense(tokens, weights(3, 7), activation="sigmoid")
    net.output(gru(net, [net.embedding(tokens, weights(7, 4)), features], 3, 7))
    return net


def bidirectional():
    net = ge.Network()
    x = net.input(3)
    h = gru(net, x, 3, 3, lead=(2,), direction="bidirectional")
    h = gru(net, [h, x], 2, 9, "before", direction="reverse")
    net.output(net.dense(h, weights(4, 2), activation="softmax"))
    return net


def per_sequence():
    net = ge.Network()
    h = gru(net, net.input(2), 3, 2, lead=(2,), direction="bidirectional")
    net.output(net.dense([net.first(h), net.last(h)], weights(5, 12), weights(5)), "ends")
    net.output(net.last(h), "last")
    return net


def graph():
    """Every operation and every activation."""
    net = ge.Network()
    x = net.input(5)
    a = net.affine(x, weights(5), weights(5))
    h = gru(net, [a, x], 5, 10, name="first")
    h = net.add(h, net.multiply(a, gru(net, h, 5, 5, "none", activation="softsign", gate_activation="hard_sigmoid")))
    net.output(x, "x")
    for spec in ("linear", "sigmoid", "tanh", "relu", ("affine", 0.5, 1), "leaky_relu", ("thresholded_relu", 0.1)):
        net.output(net.activation(h, spec), spec if isinstance(spec, str) else spec[0])
    for spec in (("scaled_tanh", 1.5, 0.5), "hard_sigmoid", ("elu", 0.5), "softsign", "softplus", "silu"):
        net.output(net.activation(h, spec), spec if isinstance(spec, str) else spec[0])
    for spec in ("softmax", "log_softmax"):
        net.output(net.activation(h, spec), spec)
    net.output(net.concat([h, x, h]), "concat ünïcode")
    net.metadata = {"origin": "golden_v1", "text": "größer", "list": [1, 2.5, None]}
    return net


def main(folder):
    clipped = {"clip": 0.7, "activation": ("scaled_tanh", 1.5, 0.5), "gate_activation": ("hard_sigmoid", 0.25, 0.5)}
    networks = {
        "after": (reset_mode("after", 17), True),
        "before": (reset_mode("before"), True),
        "all": (reset_mode("all", activation="softplus", gate_activation="softsign"), True),
        "none": (reset_mode("none", **clipped), True),
        "embedding": (embedding(), False),
        "embedding_folded": (embedding(), True),
        "embedding_with_features": (embedding_with_features(), True),
        "bidirectional": (bidirectional(), True),
        "per_sequence": (per_sequence(), True),
        "graph": (graph(), True),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (net, fold) in networks.items():
        steps = 70 if name == "after" else 9
        x = weights(steps, net.input_size) * 2 if net.input_size else rng.integers(0, net.vocab_size, steps, np.int32)
        golden = (
            [(x[:3], ge.reference.run(net, x[:3]), 1e-5)] if name in ("graph", "embedding", "per_sequence") else None
        )
        path = folder / f"{name}.gru"
        if path.exists():
            raise SystemExit(f"{path} exists; golden files are never made again")
        net.save(path, fold=fold, golden=golden)
        y, state = ge.load(path).run(x, return_state=True)
        for part, array in (("x", x), ("y", y), ("state", state)):
            np.save(folder / f"{name}.{part}.npy", array)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
