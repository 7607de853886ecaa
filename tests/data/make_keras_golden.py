# SPDX-License-Identifier: Apache-2.0
"""Make the files of ``tests/data/keras``: small models of several versions of Keras, each with inputs and what Keras returns.

    KERAS_BACKEND=jax python tests/data/make_keras_golden.py 3          # with keras and jax
    python tests/data/make_keras_golden.py 2                            # with tf_keras and tensorflow-cpu
    python tests/data/make_keras_golden.py 2.2                          # with h5py

A file NAME.npz holds the input ``x``, or several as ``x.INPUT``, the model's output ``y`` (of each time step, zeros at padding,
or of the sequence; several side by side) and, where the model has a mask, ``lengths``. A name behind the version makes the
files of this model alone. Standalone Keras 2.2 does not run on today's Python: its files are written here as it wrote them, and
the outputs are computed from its definition of the layers, in float64.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "keras"
I, H, V = 3, 4, 7
random = np.random.default_rng(7)


def keep(name, **arrays):
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


def shake(model):
    names, shapes = [w.name for w in model.weights], [w.shape for w in model.get_weights()]
    new = [random.uniform(0.5, 1.5, s) if "variance" in n else random.normal(0, 0.5, s) for n, s in zip(names, shapes)]
    model.set_weights(new)


def padded(shape, lengths, value=0.0):
    x = random.normal(size=shape).astype(np.float32)
    for row, length in zip(x, lengths):
        row[length:] = value
    return x


# ---- Keras 2 and 3


def models(keras, layers, old):
    """Models that both versions can make; the same code gives other numbers where their definitions differ."""
    hard = {"recurrent_activation": "hard_sigmoid", "reset_after": False}
    yield "masked", keras.Sequential([
        layers.Input((None, I)), layers.Masking(-1.0), layers.Bidirectional(layers.GRU(H, return_sequences=True, **hard)),
        layers.Dropout(0.3), layers.GRU(H, go_backwards=True, activation="relu"), layers.Dense(2, activation="softmax"),
    ])  # fmt: skip
    x, inner = layers.Input((None, I)), keras.Sequential(
        [layers.Input((None, I)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(I, trainable=False)], name="inner"
    )  # fmt: skip
    a, b = layers.Bidirectional(layers.GRU(2, return_sequences=True, use_bias=False), merge_mode=None)(inner(x))
    y = layers.RNN([layers.GRUCell(3), layers.GRUCell(2, **hard)], return_sequences=True)(
        layers.Concatenate()([a, b, x])
    )
    y = layers.TimeDistributed(layers.Dense(2))(layers.Average()([y, a]))
    yield "graph", keras.Model(x, layers.Multiply()([y, layers.LeakyReLU(0.1)(b)]))
    yield "tokens", keras.Sequential([
        layers.Input((6,)), layers.Embedding(V, I, mask_zero=True), layers.SpatialDropout1D(0.1),
        layers.GRU(H, return_sequences=True), layers.GRU(H), layers.Dense(1, activation="sigmoid"),
    ])  # fmt: skip
    if old:
        yield "time_major", keras.Sequential([
            layers.Input((None, I), batch_size=5), layers.GRU(H, time_major=True, return_sequences=True), layers.Dense(2),
        ])  # fmt: skip
        keras.backend.set_floatx("float64")
        yield "float64", keras.Sequential([layers.Input((None, I)), layers.GRU(H, return_sequences=True)])
        keras.backend.set_floatx("float32")
    stateful = {"batch_size": 1}
    yield "stateful", keras.Sequential(
        [layers.Input((1, I), **stateful), layers.GRU(H, stateful=True, return_sequences=True), layers.GRU(H, stateful=True),
         layers.Dense(2)]
    )  # fmt: skip
    x = layers.Input((None, I))
    y = layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu")(x)
    y = layers.LayerNormalization()(layers.SeparableConv1D(H, 2, padding="same", depth_multiplier=2)(y))
    y = layers.GRU(H, return_sequences=True)(layers.ReLU(max_value=1.5)(y))
    scores = layers.Softmax(axis=1)(layers.Dense(2)(y))
    pooled = [layers.GlobalAveragePooling1D()(y), layers.GlobalMaxPooling1D()(y)]
    pooled.append(layers.Flatten()(layers.Dot(axes=1)([scores, y])))
    yield "time", keras.Model(x, layers.Dense(2)(layers.Concatenate()(pooled)))
    words, shape = layers.Input((None,), name="words"), layers.Input((None, 2), name="shape")
    x = layers.Concatenate()([layers.Embedding(V, I, mask_zero=True)(words), layers.Masking(-1.0)(shape)])
    y = layers.GRU(H, return_sequences=True)(x)
    heads = [layers.Dense(3, "softmax", name="tag")(y), layers.Dense(1, name="score")(layers.Concatenate()([y, shape]))]
    yield "inputs", keras.Model([words, shape], heads)


def compress(path):
    """The same archive, smaller."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def make(keras, version, old, only):
    for name, model in models(keras, keras.layers, old):
        if only not in (None, name):
            continue
        shake(model)
        more = {}
        if name == "masked":
            lengths = np.array([8, 5, 1])
            x, more = padded((3, 8, I), lengths, -1.0), {"lengths": lengths}
        elif name == "tokens":
            lengths = np.array([6, 4, 1])
            x = np.where(np.arange(6) < lengths[:, None], random.integers(1, V, (3, 6)), 0)
            more = {"lengths": lengths}
        elif name == "inputs":
            lengths = np.array([8, 5, 1])
            words = np.where(np.arange(8) < lengths[:, None], random.integers(1, V, (3, 8)), 0)
            x, more = {"words": words, "shape": padded((3, 8, 2), lengths, -1.0)}, {"lengths": lengths}
        else:
            x = random.normal(size=(1 if name == "stateful" else 5, 5, I)).astype(np.float32)
        if name == "stateful":
            y = np.stack([np.asarray(model(x[:, t : t + 1])) for t in range(x.shape[1])], axis=1)
        elif name == "time_major":
            y = np.asarray(model(x.transpose(1, 0, 2))).transpose(1, 0, 2)
        elif name == "inputs":
            y = np.concatenate([np.asarray(part) for part in model([x["words"], x["shape"]])], axis=-1)
            y = np.where(x["words"][..., None] > 0, y, 0)
        else:
            y = np.asarray(model(x))
        given = {f"x.{key}": value for key, value in x.items()} if isinstance(x, dict) else {"x": x}
        keep(f"v{version}_{name}", **given, y=y, **more)
        if (version, name) not in ((2, "time_major"), (2, "float64")):
            model.save(FOLDER / f"v{version}_{name}.keras")
            compress(FOLDER / f"v{version}_{name}.keras")
        if name != "stateful" and (version, name) != (3, "tokens"):
            model.save(FOLDER / f"v{version}_{name}.h5")


# ---- standalone Keras 2.2


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def hard_sigmoid(a):
    return np.clip(0.2 * a + 0.5, 0, 1)


def gru_2_2(x, kernel, recurrent, bias, gate, candidate):
    """GRUCell.call of Keras 2.2.4 with reset_after=False: gates z, r, h."""
    h, ys = np.zeros((len(x), H)), []
    for t in range(x.shape[1]):
        x_z, x_r, x_h = np.split(x[:, t] @ kernel + bias, 3, axis=1)
        z, r = gate(x_z + h @ recurrent[:, :H]), gate(x_r + h @ recurrent[:, H : 2 * H])
        hh = candidate(x_h + (r * h) @ recurrent[:, 2 * H :])
        h = z * h + (1 - z) * hh
        ys.append(h)
    return np.stack(ys, axis=1)


def cudnn(x, W, U, b_x, b_h):
    """cuDNN's GRU: matrices [H, I] and [H, H] for z, r, h in this order."""
    h, ys = np.zeros((len(x), H)), []
    for t in range(x.shape[1]):
        s_x = [x[:, t] @ w.T + b for w, b in zip(W, b_x)]
        s_h = [h @ u.T + b for u, b in zip(U, b_h)]
        z, r = sigmoid(s_x[0] + s_h[0]), sigmoid(s_x[1] + s_h[1])
        h = z * h + (1 - z) * np.tanh(s_x[2] + r * s_h[2])
        ys.append(h)
    return np.stack(ys, axis=1)


def write_2_2(name, config, groups, class_name="Sequential"):
    """An ``.h5`` file as ``keras.models.save_model`` of Keras 2.2.4 with the backend TensorFlow wrote it."""
    import h5py

    with h5py.File(FOLDER / f"{name}.h5", "w") as file:
        file.attrs["keras_version"] = b"2.2.4"
        file.attrs["backend"] = b"tensorflow"
        file.attrs["model_config"] = json.dumps({"class_name": class_name, "config": config}).encode("utf8")
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [layer.encode("utf8") for layer in groups]
        weights.attrs["backend"], weights.attrs["keras_version"] = b"tensorflow", b"2.2.4"
        for layer, arrays in groups.items():
            group = weights.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{array}:0".encode() for array in arrays]
            for array, value in arrays.items():
                group.create_dataset(f"{layer}/{array}:0", data=value.astype(np.float32))


def layer(kind, name, **config):
    return {"class_name": kind, "config": {"name": name, "trainable": True, **config}}


def make_2_2():
    kernel, recurrent, bias = (random.normal(0, 0.6, s).astype(np.float32) for s in ((I, 3 * H), (H, 3 * H), (3 * H,)))
    W, b = (random.normal(0, 0.6, s).astype(np.float32) for s in ((H, 2), (2,)))
    x = random.normal(0, 2, (2, 7, I)).astype(np.float32)
    common = {"return_sequences": True, "return_state": False, "go_backwards": False, "stateful": False, "unroll": False,
              "units": H, "use_bias": True, "implementation": 1, "dropout": 0.2, "recurrent_dropout": 0.0}  # fmt: skip
    gru = layer("GRU", "gru_1", batch_input_shape=[None, None, I], dtype="float32", activation="linear",
                recurrent_activation="hard_sigmoid", reset_after=False, **common)  # fmt: skip
    dense = layer("Dense", "dense_1", units=2, activation="sigmoid", use_bias=True)
    hidden = gru_2_2(x.astype(float), kernel, recurrent, bias, hard_sigmoid, lambda a: a)
    y = sigmoid(hidden @ W + b)
    groups = {
        "gru_1": {"kernel": kernel, "recurrent_kernel": recurrent, "bias": bias},
        "dense_1": {"kernel": W, "bias": b},
    }
    write_2_2("v22_gru", {"name": "sequential_1", "layers": [gru, dense]}, groups)
    keep("v22_gru", x=x, y=y)
    gru["config"].pop("reset_after")  # before there was such an option
    write_2_2("v22_list", [gru, dense], groups)  # the configuration of a Sequential before Keras 2.2.3
    keep("v22_list", x=x, y=y)

    cell = [random.normal(0, 0.6, s).astype(np.float32) for s in ((3, H, I), (3, H, H), (3, H), (3, H))]
    # Keras hands the memory of each gate's columns to cuDNN as it is.
    kernel = np.concatenate([w.reshape(I, H) for w in cell[0]], axis=1)
    recurrent = np.concatenate(list(cell[1]), axis=1)
    bias = np.concatenate([cell[2].reshape(-1), cell[3].reshape(-1)])
    y = cudnn(x.astype(float), *(a.astype(float) for a in cell))
    config = {k: common[k] for k in ("return_sequences", "return_state", "go_backwards", "stateful", "units")}
    inputs = layer("InputLayer", "input_1", batch_input_shape=[None, None, I], dtype="float32", sparse=False)
    nodes = [
        {**inputs, "name": "input_1", "inbound_nodes": []},
        {
            **layer("CuDNNGRU", "cu_dnngru_1", **config),
            "name": "cu_dnngru_1",
            "inbound_nodes": [[["input_1", 0, 0, {}]]],
        },
    ]
    graph = {
        "name": "model_1",
        "layers": nodes,
        "input_layers": [["input_1", 0, 0]],
        "output_layers": [["cu_dnngru_1", 0, 0]],
    }
    groups = {"input_1": {}, "cu_dnngru_1": {"kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}}
    write_2_2("v22_cudnn", graph, groups, "Model")
    keep("v22_cudnn", x=x, y=y)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    only = sys.argv[2] if len(sys.argv) == 3 else None
    if sys.argv[1:2] == ["3"]:
        import keras

        make(keras, 3, False, only)
    elif sys.argv[1:2] == ["2"]:
        import tf_keras

        make(tf_keras, 2, True, only)
    elif sys.argv[1:] == ["2.2"]:
        make_2_2()
    else:
        sys.exit(__doc__)
