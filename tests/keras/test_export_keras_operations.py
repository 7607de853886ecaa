# SPDX-License-Identifier: Apache-2.0
"""Operations between the layers of Keras 3, and classes of one's own, which Keras follows."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from keras_models import H, I, V, check, functional, sequential, shaken

from gru_engine.export.common import ExportError
from gru_engine.export.keras import export


@pytest.fixture(autouse=True)
def _fresh_names():
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)


def gru(x):
    return L.GRU(H, return_sequences=True)(x)


@pytest.mark.parametrize(
    "do",
    [
        lambda x: x * 2 + 1 - x / 4, lambda x: 1 - x, lambda x: -x + 3.0 * x, lambda x: x * gru(L.Dense(H)(x))[..., :I],
        lambda x: x * np.arange(1.0, I + 1, dtype="float32"), lambda x: ops.add(L.Dense(3)(x), np.array([1, 2, 3], "float32")),
        lambda x: x**2,
        lambda x: ops.tanh(x) * ops.sigmoid(x) + ops.relu(x), lambda x: ops.leaky_relu(x, 0.3), lambda x: ops.elu(x, 0.7),
        lambda x: ops.softmax(x), lambda x: ops.log_softmax(x, axis=-1), lambda x: ops.clip(x, -0.5, 1.0), lambda x: ops.abs(x),
        lambda x: ops.square(x), lambda x: ops.silu(x) - ops.softplus(x), lambda x: ops.exp(-ops.abs(x)),
        lambda x: ops.concatenate([x, gru(x), -x], axis=-1), lambda x: ops.matmul(x, np.ones((I, 2), "float32")),
        lambda x: ops.einsum("bti,oi->bto", x, np.arange(3.0 * I, dtype="float32").reshape(3, I)),
        lambda x: x / (1 + ops.abs(x)), lambda x: ops.cast(x, "float32"), lambda x: ops.stop_gradient(x),
        lambda x: L.Add()(ops.split(L.Dense(6)(x), 3, axis=-1)), lambda x: L.Add()(ops.split(L.Dense(6)(x), [2, 4], axis=-1)),
        lambda x: ops.repeat(x, 2, axis=-1), lambda x: ops.tile(x, [1, 1, 2]), lambda x: x[:, :, 1:4], lambda x: x[..., 0],
        lambda x: ops.squeeze(L.Dense(1)(x), axis=-1), lambda x: ops.expand_dims(x, 2)[:, :, 0],
        lambda x: L.Reshape((-1, 2 * I))(ops.stack([x, 2 * x], axis=2)), lambda x: ops.mean(x, axis=-1, keepdims=True),
        lambda x: ops.sum(x, axis=-1), lambda x: ops.reshape(L.Dense(6)(x), (-1, 7, 2, 3))[:, :, 1],
        lambda x: gru(ops.transpose(ops.transpose(x, (0, 2, 1)), (0, 2, 1))),
        lambda x: gru(ops.swapaxes(ops.swapaxes(x, 1, 2), 2, 1)),
        lambda x: ops.flip(gru(ops.flip(x, axis=1)), axis=1), lambda x: ops.unstack(L.Dense(2)(x), axis=-1)[1],
    ],
)  # fmt: skip
def test_operations_at_each_step(tmp_path, do):
    check(functional(do, shape=(7, I)))


@pytest.mark.parametrize(
    "do",
    [
        lambda x: gru(x)[:, -1], lambda x: gru(x)[:, -1, :], lambda x: L.Dense(3)(gru(x))[:, 0], lambda x: gru(x)[:, -1:, :2],
        lambda x: ops.mean(gru(x), axis=1), lambda x: ops.max(gru(x), axis=1), lambda x: ops.mean(gru(x), axis=1, keepdims=True),
        lambda x: ops.sum(gru(x) * ops.softmax(L.Dense(1)(x), axis=1), axis=1),
        lambda x: L.Concatenate()([ops.max(x, axis=1), L.GRU(3)(x) * 2]),
    ],
)  # fmt: skip
def test_operations_over_a_sequence(tmp_path, do):
    assert check(functional(do), tmp_path).network.per_sequence


def test_files_have_the_operations_too(tmp_path):
    def do(x):
        gate = L.Dense(I, activation="sigmoid")(x)
        y = gru(gate * ops.tanh(x) + (1 - gate) * x)
        return ops.concatenate([y[:, -1], ops.mean(y, axis=1) / 2], axis=-1)

    check(functional(do), tmp_path)


def test_one_hot(tmp_path):
    check(functional(lambda x: gru(ops.one_hot(x, V)), shape=(None,), dtype="int32"), tmp_path)
    model = sequential(L.CategoryEncoding(V, output_mode="one_hot"), L.GRU(H), shape=(9,), dtype="int32")
    check(model, tmp_path)
    with pytest.raises(
        ExportError, match=r"CategoryEncoding .*: output_mode='multi_hot' counts tokens of several steps"
    ):
        export(functional(lambda x: L.CategoryEncoding(V)(x), shape=(9,), dtype="int32"))


def test_attention_with_a_repeated_score(tmp_path):
    """Dense(1), Flatten, softmax, RepeatVector, Permute, Multiply and a sum: how it is often written with layers."""

    def do(x):
        y = gru(x)
        score = L.Activation("softmax")(L.Flatten()(L.Dense(1, activation="tanh")(y)))
        return ops.sum(L.Multiply()([y, L.Permute((2, 1))(L.RepeatVector(H)(score))]), axis=-2)

    net = check(functional(do), tmp_path).network
    assert "attend" in [layer.operation for layer in net.layers]


def test_a_mask_of_tokens_that_is_written_out(tmp_path):
    def do(x):
        mask = ops.not_equal(x, 0)
        y = L.GRU(H, return_sequences=True)(L.Embedding(V, I)(x), mask=mask)
        return L.GRU(3)(y, mask=mask)

    assert check(functional(do, shape=(None,), dtype="int32"), tmp_path).padding == 0


def test_operations_and_masks(tmp_path):
    """The last step of a GRU repeats what was at the end of a sequence; of anything else it is padding."""
    last = functional(lambda x: gru(L.Masking(-7.0)(x))[:, -1] * 2)
    assert check(last, tmp_path).padding == -7

    def padding(x):
        return L.Concatenate()([x[:, -1], L.GRU(3)(L.Masking()(x))])

    with pytest.raises(ExportError, match=r"skips padding, but the operation 'get_item[_\d]*' reads it as data"):
        export(functional(padding))
    zero = functional(lambda x: L.GRU(H, return_sequences=True, zero_output_for_mask=True)(L.Masking()(x))[:, -1])
    with pytest.raises(ExportError, match=r"the operation 'get_item[_\d]*' reads it as data"):
        export(functional(lambda x: L.Add()([zero(x), L.GRU(H)(L.Masking()(x))])))


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda x: x[:, 2], "GetItem 'get_item': time step 2 is read by itself"),
        (lambda x: x[:, :3], "GetItem 'get_item': the steps None:3 of .* are so many, whatever the length"),
        (lambda x: ops.cumsum(x, axis=1), "Cumsum 'cumsum': this operation on values between the layers is not supported"),
        (lambda x: ops.sum(x, axis=1), "Sum 'sum': a sum over time is supported for values times a softmax over time"),
        (lambda x: x / x, "TrueDivide 'true_divide': a division by a value that depends on the input"),
        (lambda x: x**0.5, "Power 'power': only the powers 1, 2 and 3"),
        (lambda x: ops.concatenate([x, x], axis=1), "Concatenate 'concatenate': it joins values along the time"),
        (lambda x: ops.sort(x), "Sort 'sort': this operation"),
        (lambda x: ops.max(x, axis=-1), "Max 'max': a maximum over the 5 features axis"),
    ],
)  # fmt: skip
def test_operations_that_are_refused(do, message):
    with pytest.raises(ExportError, match=message):
        export(functional(do, shape=(7, I)))


# ---- classes of one's own


class Pooling(L.Layer):
    """Attention pooling with weights of its own."""

    def build(self, shape):
        self.W = self.add_weight(shape=(shape[-1], 1), name="W")
        self.b = self.add_weight(shape=(1,), name="b")

    def call(self, x):
        return ops.sum(x * ops.softmax(ops.tanh(ops.matmul(x, self.W) + self.b), axis=1), axis=1)


class Block(L.Layer):
    """Layers of Keras inside, another own class among them."""

    def __init__(self, **options):
        super().__init__(**options)
        self.gru, self.norm, self.pool = L.GRU(H, return_sequences=True), L.LayerNormalization(), Pooling()

    def call(self, x, training=False):
        return self.pool(self.norm(self.gru(x)))


class Generator(keras.Model):
    def __init__(self):
        super().__init__()
        self.embedding, self.dense = L.Embedding(V, I), L.Dense(V)
        self.gru = L.GRU(H, return_sequences=True, return_state=True)

    def call(self, x, states=None, return_state=False, training=False):
        x = self.embedding(x, training=training)
        x, states = self.gru(x, initial_state=states, training=training)
        x = self.dense(x)
        return (x, states) if return_state else x


@pytest.mark.jax_backend  # the shapes of its layers are found out with NaN, of which NumPy warns
def test_layers_of_an_own_class():
    check(functional(lambda x: L.Dense(2)(Pooling()(gru(x)))))
    check(functional(lambda x: L.Dense(2)(Block()(L.Dense(3)(x)))))
    check(sequential(L.Dense(3), Block(), L.Dense(2)))
    check(functional(lambda x: L.Lambda(lambda y: y[:, -1] * 2)(gru(x))))


def test_models_of_an_own_class():
    model = Generator()
    with pytest.raises(
        ExportError, match="Generator 'generator' was never called, so the shape of its input is not known"
    ):
        export(model)
    model(np.zeros((1, 3), "int32"))
    exported = check(model)
    assert exported.network.vocab_size == V
    assert not exported.network.per_sequence


@pytest.mark.jax_backend
def test_own_classes_that_cannot_be_followed(tmp_path):
    class Sorted(L.Layer):
        def call(self, x):
            return ops.sort(x)

    class Python(L.Layer):
        def call(self, x):
            return x if float(ops.sum(x)) > 0 else -x

        def compute_output_shape(self, shape):
            return shape

    with pytest.raises(ExportError, match="Sort 'sort': this operation on values between the layers is not supported"):
        export(functional(lambda x: Sorted()(x)))
    x = keras.Input((None, I))
    python = keras.Model(x, Python()(x))
    with pytest.raises(
        ExportError, match="has classes of its own, and their code cannot be followed with symbolic values"
    ):
        export(python)
    model = shaken(functional(lambda x: L.Lambda(lambda y: 2 * y)(gru(x))))
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(ExportError, match=r"Lambda 'lambda.*': it is Python code; of a model in memory, from_model"):
        export(tmp_path / "lambda.keras")
    model = shaken(functional(lambda x: Pooling()(gru(x))))
    model.save(tmp_path / "m.keras")
    with pytest.raises(ExportError, match=r"Pooling .*: it is a class of its own, .* of a model in memory, from_model"):
        export(tmp_path / "m.keras")
