# SPDX-License-Identifier: Apache-2.0
"""Makes tf1.npz: variables of GRU cells of TensorFlow 1, and what TensorFlow computes with them.

    TF_USE_LEGACY_KERAS=1 python tests/data/make_tf1_golden.py

needs tensorflow 2.16 or newer and tf_keras, in which the cells of TensorFlow 1 live on.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

I, H, B, T = 3, 4, 2, 7

random = np.random.default_rng(0)
x = random.standard_normal((B, T, I)).astype(np.float32)
arrays = {"x": x}


def run(scope, build):
    """Random variables for the graph that build makes below a scope; keeps them and its outputs."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        inputs = v1.placeholder(tf.float32, x.shape)
        with v1.variable_scope(scope):
            y = build(v1, inputs)
        for variable in v1.global_variables():
            variable.load(random.normal(0, 0.5, variable.shape).astype(np.float32), session)
            arrays[f"variables/{variable.name}"] = session.run(variable)
        arrays[f"outputs/{scope}"] = session.run(y, {inputs: x})


def stack(v1, inputs):
    cells = v1.nn.rnn_cell
    return v1.nn.dynamic_rnn(cells.MultiRNNCell([cells.GRUCell(H) for _ in range(11)]), inputs, dtype=tf.float32)[0]


def both(v1, inputs):
    cells = v1.nn.rnn_cell
    outputs, _ = v1.nn.bidirectional_dynamic_rnn(cells.GRUCell(H), cells.GRUCell(5), inputs, dtype=tf.float32)
    return tf.concat(outputs, -1)


run("stack", stack)
run("both", both)
run(
    "relu",
    lambda v1, inputs: v1.nn.dynamic_rnn(v1.nn.rnn_cell.GRUCell(H, activation=tf.nn.relu), inputs, dtype=tf.float32)[0],
)

shapes = {"w_ru": (I + H, 2 * H), "b_ru": (2 * H,), "w_c": (I + H, H), "b_c": (H,)}
block = {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
h, rows = np.zeros((B, H), np.float32), []
for step in range(T):
    h = tf.raw_ops.GRUBlockCell(x=x[:, step], h_prev=h, **block).h.numpy()
    rows.append(h)
arrays |= {f"variables/block/rnn/gru_block_cell/{name}": array for name, array in block.items()}
arrays["outputs/block"] = np.stack(rows, 1)

np.savez_compressed(Path(__file__).with_name("tf1.npz"), **arrays)
