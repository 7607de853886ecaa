# SPDX-License-Identifier: Apache-2.0
"""Make the golden files of networks with several inputs: run once, the files stay.

    python tests/data/golden_v1/make_inputs.py tests/data/golden_v1

``NAME.x.npz`` has the inputs by name, ``NAME.y.npy`` and ``NAME.state.npy`` what the engine made of them.
"""

import sys
from pathlib import Path

import numpy as np

import gru_engine as ge

rng = np.random.default_rng(20261121)


def weights(*shape):
    return rng.normal(0, 0.5, shape).astype(np.float32)


def gru(net, x, inputs, hidden):
    return net.gru(
        x, weights(3 * hidden, inputs), weights(3 * hidden, hidden), weights(3 * hidden), weights(3 * hidden)
    )


def inputs():
    """Vectors and tokens between each other; one embedding is folded, one token is read as one-hot."""
    net = ge.Network()
    sound, speaker = net.input(5, name="sound"), net.tokens(7, name="speaker")
    pitch, word = net.input(1, name="pitch"), net.tokens(11, name="word")
    h = gru(net, [net.embedding(word, weights(11, 4)), pitch, sound], 10, 17)
    h = gru(net, [h, net.embedding(speaker, weights(7, 3))], 20, 6)
    net.output(net.dense([sound, h], weights(4, 11), weights(4), activation="softmax"), "p")
    net.output(net.multiply(net.dense(speaker, weights(6, 7)), pitch), "scaled")
    return net


def vectors():
    """Vectors alone, at the end of the sequence."""
    net = ge.Network()
    left, right = net.input(3, name="left"), net.input(18, name="right")
    net.output(net.last(gru(net, [right, left], 21, 5)), "last")
    net.output(net.mean(net.dense(left, weights(2, 3))), "mean")
    return net


def main(folder):
    for name, net in {"inputs": inputs(), "inputs_vectors": vectors()}.items():
        path = folder / f"{name}.gru"
        if path.exists():
            raise SystemExit(f"{path} exists; golden files are never made again")
        x = {
            n: weights(24, part.stop - part.start) if isinstance(part, slice) else rng.integers(0, part.vocab_size, 24)
            for n, part in net.inputs.items()
        }
        short = {n: array[:5] for n, array in x.items()}
        net.save(path, golden=[(short, ge.reference.run(net, short), 1e-5)])
        y, state = ge.load(path).run(x, return_state=True)
        parts = [x[n] for n, part in net.inputs.items() if isinstance(part, slice)]
        tokens = [x[n] for n, part in net.inputs.items() if not isinstance(part, slice)]
        if tokens:
            np.save(folder / f"{name}.tokens.npy", np.stack(tokens, axis=1).astype(np.int32))
        for part, array in (("x", np.concatenate(parts, axis=1)), ("y", y), ("state", state)):
            np.save(folder / f"{name}.{part}.npy", array)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
