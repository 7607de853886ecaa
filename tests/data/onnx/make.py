# SPDX-License-Identifier: Apache-2.0
"""Write the models that tests/onnx reads, as the converters of PyTorch and of Keras write them.

    python tests/data/onnx/make.py [NAME ...]

What is installed of torch (with onnxscript) and of tensorflow, tf_keras and tf2onnx is used. The files of the repository were
made by torch 2.13.0 and by tensorflow 2.21.0, tf_keras 2.21.0, tf2onnx 1.17.0. Weights are random; texts about the source are
removed.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import warnings
from pathlib import Path

import onnx

HERE = Path(__file__).parent
I, H, O, V = 5, 6, 3, 7  # features, units, outputs, vocabulary


def write(name, model):
    """Write a model without the texts that say where each node comes from."""
    for part in (
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
        model.graph,
        model,
    ):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    del model.graph.value_info[:]
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())
    print(name, (HERE / f"{name}.onnx").stat().st_size, "bytes")


def from_torch(wanted):
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    def gru(inputs=I, **options):
        return nn.GRU(inputs, H, **{"batch_first": True, **options})

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.g = nn.Embedding(V, I), gru(num_layers=2, bidirectional=True, dropout=0.1)
            self.f = nn.Linear(2 * H, O)

        def forward(self, x):
            return torch.log_softmax(self.f(self.g(self.e(x))[0]), -1)

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.n, self.g, self.f = nn.BatchNorm1d(I), gru(bidirectional=True), nn.Linear(2 * H, O)
            self.n.running_mean.normal_()
            self.n.running_var.uniform_(0.5, 2)

        def forward(self, x):
            _, h = self.g(self.n(x.transpose(1, 2)).transpose(1, 2))
            return torch.sigmoid(self.f(torch.cat([h[0], h[1]], -1)))

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.f = gru(), nn.Linear(H, O)

        def forward(self, x):
            return F.softplus(self.f(self.g(x)[0][:, -1]))

    class Streaming(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.g = nn.Linear(I, H), gru(H, num_layers=2)
            self.p, self.q = nn.Linear(H, O), nn.Linear(2 * H, 1)

        def forward(self, x, h):
            a = F.silu(self.a(x))
            y, h = self.g(a, h)
            return F.softmax(self.p(y), -1), torch.sigmoid(self.q(torch.cat([a, y], -1))), h

    class Policy(nn.Module):
        """One step on a robot: [1, observations] and the state in, actions and the state out."""

        def __init__(self):
            super().__init__()
            self.memory = nn.GRU(I, H)
            self.actor = nn.Sequential(nn.Linear(H, 8), nn.ELU(), nn.Linear(8, O))
            self.register_buffer("mean", torch.randn(I))

        def forward(self, x, h):
            x = torch.clamp(x - self.mean, -100, 100)
            y, h = self.memory(x.unsqueeze(0), h)
            return self.actor(y.squeeze(0)), h

    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.h0 = gru(batch_first=False), nn.Parameter(torch.randn(1, 1, H))

        def forward(self, x):
            y, _ = self.g(x, self.h0.expand(-1, x.shape[1], -1).contiguous())
            return y.reshape(-1, H).tanh().view(x.shape[0], -1, H)

    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.f = gru(bidirectional=True), nn.Linear(2 * H, O)

        def forward(self, x, n):
            y, _ = pad_packed_sequence(self.g(pack_padded_sequence(x, n, batch_first=True))[0], batch_first=True)
            return self.f(y)

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.g = nn.GRUCell(I, H)

        def forward(self, x, h):
            return self.g(x, h)

    class Inputs(nn.Module):
        """Words and numbers of each step, a state; several heads."""

        def __init__(self):
            super().__init__()
            self.e, self.g = nn.Embedding(V, I), gru(I + 2)
            self.p, self.q = nn.Linear(H, O), nn.Linear(H + 2, 1)

        def forward(self, words, shape, h):
            y, h = self.g(torch.cat([self.e(words), shape], -1), h)
            return F.softmax(self.p(y), -1), self.q(torch.cat([y, shape], -1)), h

    words, shape = torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 4, 2)
    x = torch.zeros(2, 4, I)
    batch_time = {"x": {0: "b", 1: "t"}}
    cases = {
        "tagger": (Tagger(), {"x": torch.zeros(2, 4, dtype=torch.int64)}, batch_time),
        "classifier": (Classifier(), {"x": x}, batch_time),
        "last": (Last(), {"x": x}, batch_time),
        "fixed": (Last(), {"x": x[:1]}, {}),
        "streaming": (Streaming(), {"x": x, "h": torch.zeros(2, 2, H)}, {**batch_time, "h": {1: "b"}}),
        "policy": (Policy(), {"x": x[0, :1], "h": torch.zeros(1, 1, H)}, {}),
        "learned": (Learned(), {"x": x.transpose(0, 1)}, {"x": {0: "t", 1: "b"}}),
        "packed": (Packed(), {"x": x, "n": torch.tensor([4, 3])}, {**batch_time, "n": {0: "b"}}),
        "cell": (Cell(), {"x": x[:, 0], "h": torch.zeros(2, H)}, {"x": {0: "b"}, "h": {0: "b"}}),
        "inputs": (
            Inputs(),
            {"words": words, "shape": shape, "h": torch.zeros(1, 2, H)},
            {"words": {0: "b", 1: "t"}, "shape": {0: "b", 1: "t"}, "h": {1: "b"}},
        ),
    }
    outputs = {"inputs": ["tag", "score", "after"]}
    for kind in ("dynamo", "script"):
        for name, (module, inputs, axes) in cases.items():
            full = f"torch_{kind}_{name}"
            if wanted and full not in wanted:
                continue
            torch.manual_seed(0)
            module = type(module)().eval()
            names = {"input_names": list(inputs), "output_names": outputs.get(name), "dynamo": kind == "dynamo"}
            try:
                if kind == "script":
                    data = io.BytesIO()
                    torch.onnx.export(module, tuple(inputs.values()), data, dynamic_axes=axes, **names)
                    model = onnx.load_from_string(data.getvalue())
                else:
                    shapes = {n: dict.fromkeys(axes.get(n, {}), torch.export.Dim.AUTO) for n in inputs}
                    program = torch.onnx.export(
                        module, tuple(inputs.values()), dynamic_shapes=shapes, verbose=False, **names
                    )
                    model = program.model_proto
            except Exception as error:
                print(f"{full}: torch.onnx.export fails, {type(error).__name__}")
                continue
            write(full, model)


def from_keras(wanted):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    import tf2onnx
    import tf_keras as keras
    from tf_keras import layers as L

    def sequential(*layers):
        keras.utils.set_random_seed(0)
        return keras.Sequential(list(layers))

    cases = {
        "stack": lambda: sequential(
            L.Input((None, I)), L.GRU(H, return_sequences=True), L.GRU(H), L.Dense(1, "sigmoid")
        ),
        "before": lambda: sequential(
            L.Input((None, I)), L.GRU(H, return_sequences=True, reset_after=False), L.Dense(O, "softmax")
        ),
        "bidirectional": lambda: sequential(
            L.Input((None, I)),
            L.Bidirectional(L.GRU(H, return_sequences=True)),
            L.BatchNormalization(),
            L.Dense(O, "relu"),
        ),
        "embedding": lambda: sequential(L.Input((None,)), L.Embedding(V, I), L.GRU(H), L.Dense(O)),
        "fixed": lambda: sequential(L.Input((7, I)), L.GRU(H, return_sequences=True), L.TimeDistributed(L.Dense(O))),
    }
    for name, make in cases.items():
        full = f"keras_{name}"
        if wanted and full not in wanted:
            continue
        model = make()
        spec = [tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype, name="x")]
        converted, _ = tf2onnx.convert.from_keras(model, input_signature=spec, opset=15)
        write(full, converted)


def main():
    wanted = sys.argv[1:]
    warnings.simplefilter("ignore")
    if importlib.util.find_spec("torch"):
        from_torch(wanted)
    if importlib.util.find_spec("tf2onnx"):
        from_keras(wanted)


if __name__ == "__main__":
    main()
