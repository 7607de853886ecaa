# SPDX-License-Identifier: Apache-2.0
"""Checkpoints without PyTorch: reading them, the --layers language, and the command line."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import gru_engine as ge
from gru_engine.__main__ import main as command_line
from gru_engine.export import chain, common
from gru_engine.export.checkpoint import read_arrays
from gru_engine.export.common import ExportError

from .command_lines import load_tool

DATA = Path(__file__).parent / "data"
TOOL = Path(__file__).parents[1] / "tools" / "export_torch.py"
CHAIN = DATA / "torch_chain.pt"

STEPS = "embedding(emb) gru(gru) linear(fc)"
SUMMARY = "embedding(emb) gru(gru) summary linear(fc) tanh"


@pytest.fixture(scope="module")
def tool():
    return load_tool("export_torch")


def gru(inputs, hidden, prefix="gru.", suffixes=("_l0",), bias=True, gates=3):
    """Random arrays with the names of an nn.GRU."""
    random = np.random.default_rng(inputs + hidden)
    shapes = {"weight_ih": (gates * hidden, inputs), "weight_hh": (gates * hidden, hidden)}
    shapes |= {"bias_ih": (gates * hidden,), "bias_hh": (gates * hidden,)} if bias else {}
    draw = lambda shape: random.uniform(-0.5, 0.5, shape).astype(np.float32)  # noqa: E731
    return {prefix + name + suffix: draw(shape) for suffix in suffixes for name, shape in shapes.items()}


def linear(inputs, outputs, name="fc", bias=True):
    arrays = {f"{name}.weight": np.full((outputs, inputs), 0.5, np.float32)}
    return arrays | ({f"{name}.bias": np.ones(outputs, np.float32)} if bias else {})


# ---- reading


@pytest.mark.parametrize("name", ["torch_mixed.pt", "torch_mixed.safetensors", "torch_mixed.npz"])
def test_every_data_type_and_layout(name):
    arrays = read_arrays(DATA / name)
    with np.load(DATA / "torch_mixed.npz") as expected:
        assert set(arrays) == set(expected.files)
        for key in arrays:
            assert arrays[key].dtype == expected[key].dtype, key
            assert arrays[key].shape == expected[key].shape, key
            assert arrays[key].tobytes() == expected[key].tobytes(), key
            assert arrays[key].dtype.isnative


def test_arrays_are_independent_copies():
    first, second = read_arrays(DATA / "torch_mixed.pt"), read_arrays(DATA / "torch_mixed.pt")
    first["tied"][:] = 99
    assert not (first["every_second"] == 99).any()
    assert not (second["tied"] == 99).any()


def test_file_order_is_kept():
    assert next(iter(read_arrays(CHAIN))) == "emb.weight"
    assert list(read_arrays(CHAIN))[-1] == "fc.bias"


def test_key():
    path = DATA / "torch_training.pt"
    assert (read_arrays(path, "model")["fc.weight"] == 1).all()
    assert (read_arrays(path, "average")["fc.weight"] == 0).all()
    with pytest.raises(ExportError, match=r"several dictionaries of tensors: 'model' \(1 tensors\), 'average'.*--key"):
        read_arrays(path)
    with pytest.raises(ExportError, match="no dictionary of tensors named 'mode'; there are: 'model'"):
        read_arrays(path, "mode")


def test_a_pickled_module_is_refused_by_name():
    with pytest.raises(
        ExportError, match=r"torch_module.pt wants to make a torch.nn.modules.rnn.GRU.*save a state_dict"
    ):
        read_arrays(DATA / "torch_module.pt")


def test_a_legacy_file_is_refused():
    with pytest.raises(ExportError, match=r"bare pickle, as torch.save wrote before PyTorch 1.6"):
        read_arrays(DATA / "torch_legacy.pt")


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("nothing")
    with pytest.raises(ExportError, match=r"neither a checkpoint of PyTorch .* nor a safetensors file"):
        read_arrays(text)
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "missing.pt")
    archive = tmp_path / "some.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a/b.txt", "x")
    with pytest.raises(ExportError, match=r"not one of torch.save"):
        read_arrays(archive)
    np.savez(tmp_path / "objects.npz", a=np.array([object()]))
    with pytest.raises(ExportError, match="allow_pickle"):
        read_arrays(tmp_path / "objects.npz")


def archive(path, pickled, storages=(b"\0" * 64,), compress=zipfile.ZIP_STORED, **extra):
    """A zip archive as torch.save makes it, with any pickle."""
    with zipfile.ZipFile(path, "w", compress) as file:
        file.writestr("m/data.pkl", pickled)
        for key, data in enumerate(storages):
            file.writestr(f"m/data/{key}", data)
        for name, data in extra.items():
            file.writestr(f"m/{name}", data)
    return path


def tensor_program(size="(I4\nt", stride="(I1\nt", offset=0, storage="FloatStorage", key="0", numel=16, after=b""):
    """A pickle, in opcodes, of {"w": tensor}."""
    return (
        b"\x80\x02}q\x00X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(("
        + f"X\x07\x00\x00\x00storagectorch\n{storage}\nX\x01\x00\x00\x00{key}X\x03\x00\x00\x00cpuI{numel}\nt".encode()
        + f"QI{offset}\n{size}{stride}\x89ccollections\nOrderedDict\n)RtR".encode("latin-1")
        + after
        + b"s."
    )


def test_the_hand_made_program_is_valid(tmp_path):
    path = archive(tmp_path / "a.pt", tensor_program(), [np.arange(16, dtype="<f4").tobytes()])
    assert read_arrays(path)["w"].tolist() == [0, 1, 2, 3]
    big = archive(tmp_path / "b.pt", tensor_program(), [np.arange(16, dtype=">f4").tobytes()], byteorder=b"big")
    assert read_arrays(big)["w"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"cos\nsystem\n(X\x04\x00\x00\x00truetR.", "wants to make a os.system"),
        (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "wants to make a builtins.eval"),
        (b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.", "wants to make a builtins.getattr"),
        (
            b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.",
            "wants to make a collections.OrderedDict.fromkeys",
        ),
        (b"ctorch._utils\n_rebuild_qtensor\n.", "wants to make a torch._utils._rebuild_qtensor"),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n.", "wants to make a torch._utils._rebuild_sparse_tensor"),
        (b"ctorch\nQInt8Storage\n.", "wants to make a torch.QInt8Storage"),
        (tensor_program(after=b"}b"), "attributes of its own"),
        (b"ctorch\nFloatStorage\n}X\x04\x00\x00\x00nameX\x01\x00\x00\x00xsb.", "attributes of its own"),
        (b"ctorch._utils\n_rebuild_parameter\nN}X\x0c\x00\x00\x00__defaults__Ns\x86b.", "attributes of its own"),
        (tensor_program(size="(I17\nt"), r"shape \[17\] at 0 reaches beyond its storage of 16 numbers"),
        (tensor_program(offset=13), r"shape \[4\] at 13 reaches beyond"),
        (tensor_program(stride="(I6\nt"), "reaches beyond its storage"),
        (tensor_program(size="(I999999999\nt", stride="(I0\nt"), "reaches beyond its storage"),
        (tensor_program(offset=-1), "a tensor is described by -1"),
        (tensor_program(stride="(I-1\nt"), "a tensor is described by"),
        (tensor_program(stride="(I1\nI1\nt"), r"has the shape \[4\], but the strides \[1, 1\]"),
        (tensor_program(size="(F4.0\nt"), "a tensor is described by"),
        (tensor_program(numel=17), "storage 0 has 64 bytes, too few for 17 times 4"),
        (tensor_program(numel=-1), "too few for -1 times 4"),
        (tensor_program(storage="DoubleStorage"), "too few for 16 times 8"),
        (tensor_program(key="7"), "lacks its part 'data/7'"),
        (b"(X\x01\x00\x00\x00atQ.", "a storage is described by"),
        (b"}.", "holds no dictionary of tensors but dict"),
        (b"K\x05.", "holds no dictionary of tensors but int"),
        (b"nonsense", "data.pkl is damaged"),
        (b"", "data.pkl is damaged"),
        (b"}r\xff\xff\xff\x7f.", "remembers an object as number 2147483647"),
    ],
)
def test_hostile_and_damaged_pickles_are_refused(tmp_path, program, message):
    path = archive(tmp_path / "hostile.pt", program)
    for _ in range(2):  # a first one must leave nothing behind
        with pytest.raises(ExportError, match=message) as caught:
            read_arrays(path)
        assert "hostile.pt" in str(caught.value)
    assert read_arrays(archive(tmp_path / "good.pt", tensor_program()))["w"].shape == (4,)


def test_a_dictionary_inside_itself(tmp_path):
    cyclic = {"w": 1}
    cyclic["self"] = cyclic
    with pytest.raises(ExportError, match="holds no dictionary of tensors"):
        read_arrays(archive(tmp_path / "cyclic.pt", pickle.dumps(cyclic, 2)))


def test_deep_nesting(tmp_path):
    program = b"}X\x01\x00\x00\x00a" * 50_000 + b"}" + b"s" * 50_000 + b"."
    with pytest.raises(ExportError, match="holds no dictionary of tensors"):
        read_arrays(archive(tmp_path / "deep.pt", program))


def test_compressed_and_script_archives_are_refused(tmp_path):
    with pytest.raises(ExportError, match="is compressed"):
        read_arrays(archive(tmp_path / "a.pt", tensor_program(), compress=zipfile.ZIP_DEFLATED))
    with pytest.raises(ExportError, match="TorchScript archive"):
        read_arrays(archive(tmp_path / "b.pt", tensor_program(), **{"constants.pkl": b"."}))
    with pytest.raises(ExportError, match="byte order is b'middle'"):
        read_arrays(archive(tmp_path / "c.pt", tensor_program(), byteorder=b"middle"))


@pytest.mark.parametrize("name", ["torch_mixed.pt", "torch_mixed.safetensors"])
def test_damaged_files_are_refused_or_read(tmp_path, name):
    original = (DATA / name).read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / name
    for trial in range(400):
        damaged = bytearray(original)
        if trial % 4 == 0:
            del damaged[random.integers(len(damaged)) :]
        else:
            for position in random.integers(len(damaged), size=trial % 4):
                damaged[position] = random.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            arrays = read_arrays(path)
        except ExportError:
            continue
        assert all(isinstance(array, np.ndarray) for array in arrays.values())


def test_damaged_pickles_are_refused_or_read(tmp_path):
    program = tensor_program()
    random = np.random.default_rng(1)
    for _ in range(800):
        damaged = bytearray(program)
        for position in random.integers(len(damaged), size=random.integers(1, 4)):
            damaged[position] = random.integers(256)
        try:
            read_arrays(archive(tmp_path / "a.pt", bytes(damaged)))
        except ExportError:
            continue


# ---- chains


@pytest.mark.parametrize(("text", "output"), [(STEPS, "steps"), (SUMMARY, "summary")])
def test_chain_gives_what_torch_gave(text, output):
    built = chain.build(chain.parse(text), read_arrays(CHAIN))
    with np.load(DATA / "torch_chain.npz") as expected:
        y = ge.reference.run(built.network, expected["x"])
        np.testing.assert_allclose(y, expected[output], rtol=0, atol=1e-12)
        engine = ge.load(built.network.tobytes()).run(expected["x"])
        np.testing.assert_allclose(engine, expected[output], rtol=0, atol=1e-6)
    assert built.unused == []


def test_a_chain_is_inferred_where_there_is_no_choice():
    assert " ".join(map(str, chain.infer(read_arrays(CHAIN)))) == STEPS
    shuffled = dict(sorted(read_arrays(CHAIN).items(), reverse=True))
    assert " ".join(map(str, chain.infer(shuffled))) == STEPS
    assert list(map(str, chain.infer(gru(3, 4, "")))) == ["gru()"]
    assert list(map(str, chain.infer(gru(3, 4, "cell.", ("",))))) == ["gru(cell)"]
    two = gru(3, 4, "b.") | gru(4, 6, "a.") | linear(6, 2)
    assert list(map(str, chain.infer(two))) == ["gru(b)", "gru(a)", "linear(fc)"]


def test_what_was_understood_is_said():
    built = chain.build(chain.parse(SUMMARY), read_arrays(CHAIN))
    assert built.lines == [
        "embedding(emb): tokens of a vocabulary of 11 -> 4",
        "gru(gru): 4 -> 10, 2 layers, bidirectional",
        "summary: the state of the last layer at the end of the sequence, then of its reverse direction at the start",
        "linear(fc): 10 -> 3",
        "tanh",
        "output: 3 numbers once, at the end of the sequence",
    ]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (gru(4, 4, "a.") | gru(4, 4, "b."), '--layers "gru\\(a\\) gru\\(b\\)"\n  --layers "gru\\(b\\) gru\\(a\\)"'),
        (
            gru(4, 4, "g.") | linear(4, 4, "e", bias=False),
            r'(?s)--layers "embedding\(e\) gru\(g\)".*"linear\(e\) gru\(g\)"',
        ),
        (
            gru(4, 8, "g.") | linear(8, 5, "f") | linear(5, 2, "h"),
            r'after linear\(f\).*\n.*"gru\(g\) linear\(f\) relu linear\(h\)"',
        ),
        (gru(5, 8, "g.") | linear(4, 5, "f"), r'after linear\(f\) must be said.*\n.*"linear\(f\) relu gru\(g\)"'),
        (gru(4, 8, "g.") | linear(9, 2), r"do not fit into one chain: gru\(g\) \(4 -> 8\), linear\(fc\) \(9 -> 2\)"),
        (gru(4, 8, "g.", gates=4), r"gru\(g\): weight_hh has the shape \[32, 8\].*this is an LSTM"),
        (gru(4, 8, "g.", gates=1), "this is a plain RNN"),
        (gru(4, 8) | {"n.weight": np.ones(8), "n.bias": np.ones(8)}, r"not understood: n.weight \[8\], n.bias \[8\]"),
        (gru(4, 8) | {"c.weight": np.ones((8, 8, 3))}, r"not understood: c.weight \[8, 8, 3\]"),
        (gru(4, 8) | {"h0": np.ones((1, 1, 8))}, r"not understood: h0 \[1, 1, 8\]"),
        (gru(4, 8) | {"gru.scale": np.ones(8)}, r"not understood: gru.scale \[8\]"),
        ({k: v for i in range(10) for k, v in linear(2, 2, f"f{i}").items()}, "10 modules, too many"),
    ],
)
def test_a_choice_is_an_error_that_shows_the_words(arrays, message):
    with pytest.raises(ExportError, match=message):
        chain.infer(arrays)


def test_batchnorm_is_a_scale_and_a_shift():
    random = np.random.default_rng(2)
    norm = {f"bn.{name}": random.uniform(0.5, 2, 4) for name in ("weight", "bias", "running_mean", "running_var")}
    arrays = gru(3, 4) | norm | {"bn.num_batches_tracked": np.array(7)}
    with pytest.raises(ExportError, match=r"after batchnorm\(bn\) must be said"):
        chain.infer(arrays)
    x = random.standard_normal((6, 3))
    before = ge.reference.run(chain.build(chain.parse("gru(gru)"), arrays).network, x)
    built = chain.build(chain.parse("gru(gru) batchnorm(bn, eps=0.1) leaky_relu(0.2)"), arrays)
    expected = (before - norm["bn.running_mean"]) / np.sqrt(norm["bn.running_var"] + 0.1)
    expected = expected * norm["bn.weight"] + norm["bn.bias"]
    np.testing.assert_allclose(
        ge.reference.run(built.network, x), np.where(expected > 0, expected, 0.2 * expected), atol=1e-12
    )
    assert built.unused == []


def test_learned_initial_state():
    h0 = np.random.default_rng(3).uniform(-1, 1, (2, 1, 4))
    arrays = gru(3, 4, suffixes=("_l0", "_l0_reverse")) | {"start": h0}
    built = chain.build(chain.parse("gru(gru, h0=start)"), arrays)
    np.testing.assert_array_equal(built.network.initial_state, h0.reshape(-1))
    assert built.unused == []
    assert "initial state start" in built.lines[1]
    with pytest.raises(ExportError, match=r"h0 must be an array of shape \[2, 1, 4\], there is the shape \[3\]"):
        chain.build(chain.parse("gru(gru, h0=start)"), arrays | {"start": np.ones(3)})


def test_one_hot_and_missing_biases():
    arrays = gru(5, 4, bias=False) | linear(4, 5, bias=False)
    built = chain.build(chain.parse("one_hot gru(gru) last linear(fc) softmax"), arrays)
    assert built.network.vocab_size == 5
    vectors = chain.build(chain.parse("gru(gru) last linear(fc) softmax"), arrays)
    tokens = np.array([[3, 0, 4], [1, 1, 2]])
    expected = ge.reference.run(vectors.network, np.eye(5)[tokens])
    np.testing.assert_allclose(ge.reference.run(built.network, tokens), expected, atol=1e-12)


def test_last_of_a_bidirectional_gru_is_the_last_step_of_both():
    arrays = gru(3, 4, suffixes=("_l0", "_l0_reverse"))
    x = np.random.default_rng(4).standard_normal((2, 6, 3))
    steps, last, summary = (
        ge.reference.run(chain.build(chain.parse("gru(gru)" + end), arrays).network, x)
        for end in ("", " last", " summary")
    )
    np.testing.assert_array_equal(last, steps[:, -1])
    np.testing.assert_array_equal(summary, np.concatenate([steps[:, -1, :4], steps[:, 0, 4:]], 1))


def test_unused_arrays_are_reported():
    built = chain.build(chain.parse("embedding(emb) gru(gru)"), read_arrays(CHAIN))
    assert built.unused == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--layers is empty"),
        ("gru(gru", r"cannot read 'gru\(gru'"),
        ("gru(gru)linear(fc)", "cannot read"),
        (
            "lstm(gru)",
            "'lstm' is not known; known are embedding, gru, bidirectional, skip_connections, linear, batchnorm",
        ),
        ("embedding(emb) gru(gru, h=a)", "gru has no option 'h'"),
        ("embedding(emb) relu(a)", r"the parameters of relu\(a\) must be numbers"),
        ("embedding(emb) tanh(1)", "'tanh' has 0 parameters"),
        ("embedding(emb, a)", "too many arguments"),
        ("embedding(emb) last(3)", "too many arguments"),
        ("gru(gru) embedding(emb)", r"embedding\(emb\) must be the first word"),
        ("relu gru(gru)", "relu cannot be the first word"),
        ("one_hot relu", "one_hot must be followed by gru or linear"),
        ("embedding(emb) summary", "summary must follow a gru"),
        ("embedding(emb) gru(gru) relu summary", "summary must follow a gru"),
        ("embedding(emb) gru(gru) last last", "last needs a value for every time step"),
        ("embedding(emb) gru(gru) summary linear(fc) gru(gru)", r"gru\(gru\) needs a value for every time step"),
        ("embedding(emb) linear(fc)", r"linear\(fc\) reads 10 numbers, but the value before it has 4"),
        (
            "embedding(emb) gru(rnn)",
            r"gru\(rnn\): there is no GRU 'rnn'; the arrays are emb.weight, gru",
        ),
        ("embedding(fc.bias)", "no array 'fc.bias.weight'"),
        ("embedding(emb) gru(gru, h0=x)", "h0 must be an array of shape .*, there is no such array"),
        ("batchnorm(fc)", "no array 'fc.running_mean'"),
    ],
)
def test_wrong_words_are_named(text, message):
    with pytest.raises(ExportError, match=message):
        chain.build(chain.parse(text), read_arrays(CHAIN))


@pytest.mark.parametrize(
    "text", [SUMMARY, "gru() batchnorm(a.b, eps=1e-3) hard_sigmoid(0.2, 0.5) linear()", "gru(g, h0=s) last"]
)
def test_words_are_written_as_they_are_read(text):
    assert " ".join(map(str, chain.parse(text))) == text


def test_integer_arrays_are_no_weights():
    with pytest.raises(ExportError, match=r"'fc.weight' has the shape .* and type int64, expected 2 axes of floats"):
        chain.build(chain.parse("linear(fc)"), {"fc.weight": np.ones((2, 3), np.int64)})


# ---- saving


def test_save_writes_golden_vectors(tmp_path):
    built = chain.build(chain.parse(STEPS), read_arrays(CHAIN))
    path = tmp_path / "m.gru"
    comparisons = common.save(built.network, path, metadata={"note": "x"})
    assert [c.sides for c in comparisons] == ["engine and float64 reference"]
    assert comparisons[0].relative < 1e-6
    from gru_engine import format

    file = format.read(path)
    assert len(file.golden) == 2
    assert ge.load(path).metadata["note"] == "x"


def test_save_compares_with_the_framework(tmp_path):
    built = chain.build(chain.parse(STEPS), read_arrays(CHAIN))
    right = lambda x: ge.reference.run(built.network, x)  # noqa: E731
    comparisons = common.save(built.network, tmp_path / "m.gru", right, "Torch")
    assert [c.sides for c in comparisons][1:] == ["float64 reference and Torch", "engine and Torch"]
    with pytest.raises(ExportError, match=r"float64 reference and Torch: difference .*; at most 1e-05 is accepted"):
        common.save(built.network, tmp_path / "wrong.gru", lambda x: right(x) * 1.001, "Torch")
    with pytest.raises(ExportError, match="the outputs have the shapes"):
        common.save(built.network, tmp_path / "wrong.gru", lambda x: right(x)[..., :1], "Torch")
    with pytest.raises(ExportError, match="not all finite"):
        common.save(built.network, tmp_path / "wrong.gru", lambda x: right(x) * np.nan, "Torch")
    assert not (tmp_path / "wrong.gru").exists()


def test_gru_arrays_in_every_orientation():
    random = np.random.default_rng(5)
    W, U, b = random.standard_normal((12, 3)), random.standard_normal((12, 4)), random.standard_normal(12)
    for arrays in (
        common.gru_arrays(W, U, b),
        common.gru_arrays(W.T, U.T, b, columns=True),
        common.gru_arrays(np.concatenate([W, U], 1), b_x=b, concatenated="xh"),
        common.gru_arrays(np.concatenate([U.T, W.T]), b_x=b, columns=True, concatenated="hx"),
    ):
        assert set(arrays) == {"W", "U", "b_x"}
        np.testing.assert_array_equal(arrays["W"], W)
        np.testing.assert_array_equal(arrays["U"], U)


# ---- the command line


def test_command_line_infers(tool, tmp_path):
    out = tmp_path / "m.gru"
    result = CliRunner().invoke(tool.main, [str(CHAIN), str(out)])
    assert result.exit_code == 0, result.output
    assert f'--layers "{STEPS}" (inferred)' in result.output
    assert "gru(gru): 4 -> 10, 2 layers, bidirectional" in result.output
    assert "engine and float64 reference: difference" in result.output
    with np.load(DATA / "torch_chain.npz") as expected:
        np.testing.assert_allclose(ge.load(out).run(expected["x"]), expected["steps"], rtol=0, atol=1e-6)


def test_command_line_layers_and_key(tool, tmp_path):
    out = tmp_path / "m.gru"
    result = CliRunner().invoke(tool.main, [str(CHAIN), str(out), "--layers", "embedding(emb) gru(gru)"])
    assert result.exit_code == 0, result.output
    assert "not used: fc.weight, fc.bias" in result.output
    result = CliRunner().invoke(
        tool.main, [str(DATA / "torch_training.pt"), str(out), "--key", "model", "--layers", "linear(fc)"]
    )
    assert result.exit_code == 0, result.output
    assert ge.load(out).input_size == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "lstm(gru)"], "'lstm' is not known"),
        (["--key", "model"], "no dictionary of tensors named 'model'"),
        (["--layers", STEPS, "--module", "a:B"], "give --layers or --module, not both"),
        (["--layers", STEPS, "--threshold", "1e-12"], "at most 1e-12 is accepted"),
    ],
)
def test_command_line_errors(tool, tmp_path, arguments, message):
    out = tmp_path / "m.gru"
    result = CliRunner().invoke(tool.main, [str(CHAIN), str(out), *arguments])
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not out.exists()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_command_line_writes_weights_of_fewer_bits(tool, tmp_path, dtype, capsys):
    """The export is checked with float32; the file's golden vectors allow what the type changes, and verify."""
    whole, out = tmp_path / "whole.gru", tmp_path / "m.gru"
    plain = CliRunner().invoke(tool.main, [str(CHAIN), str(whole)])
    result = CliRunner().invoke(tool.main, [str(CHAIN), str(out), "--dtype", dtype])
    assert result.exit_code == 0, result.output
    checks = [line for line in plain.output.splitlines() if ": difference " in line]
    assert checks and all(line in result.output for line in checks), "the same checks as for float32"
    assert f"{dtype} and float32 weights: difference " in result.output
    file = ge.format.read(out)
    assert file.dtypes == [dtype] and out.stat().st_size < whole.stat().st_size
    found = max(np.abs(ge.load(out).run(case.x) - case.framework).max() for case in file.golden)
    allowed = {case.tolerance for case in file.golden}
    assert len(allowed) == 1 and 1.49 * found <= min(allowed) < 0.1
    assert found > 10 * max(case.tolerance for case in ge.format.read(whole).golden), "a float32 tolerance would not do"
    assert (
        f"{dtype} weights may differ from " in result.output and f" by {min(allowed):.2e}, 1.5 times" in result.output
    )
    assert command_line(["verify", str(out)]) == 0
    assert capsys.readouterr().out.endswith("verified\n")


def test_command_line_refuses_other_types(tool, tmp_path):
    result = CliRunner().invoke(tool.main, [str(CHAIN), str(tmp_path / "m.gru"), "--dtype", "int4"])
    assert result.exit_code == 2
    assert "'int4' is not one of 'float32', 'bfloat16', 'float16', 'int8'" in result.output
    assert not (tmp_path / "m.gru").exists()


def test_weights_of_fewer_bits_must_stay_finite(tmp_path):
    net = ge.Network()
    net.output(net.dense(net.input(1), [[1e5]]))
    with pytest.raises(ValueError, match="beyond the range of float16"):
        common.save(net, tmp_path / "m.gru", dtype="float16")
    net = ge.Network()
    net.output(net.dense(net.dense(net.input(1), [[1.0]], [2.986e38]), [[1.138]]))  # 1.140625 is too much
    common.save(net, tmp_path / "m.gru")
    with pytest.raises(ExportError, match=r"bfloat16 and float32 weights: .* are not all finite"):
        common.save(net, tmp_path / "n.gru", dtype="bfloat16")
    with pytest.raises(ValueError, match="dtype must be one of"):
        common.save(net, tmp_path / "n.gru", dtype="int4")
    assert not (tmp_path / "n.gru").exists()


def test_command_line_reads_npz(tool, tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, **gru(3, 4))
    (tmp_path / "m.npz").write_bytes(buffer.getvalue())
    result = CliRunner().invoke(tool.main, [str(tmp_path / "m.npz"), str(tmp_path / "m.gru")])
    assert result.exit_code == 0, result.output


def test_the_tool_puts_a_json_object_into_the_file(tool, tmp_path):
    """--metadata: what is in it comes back as Model.metadata; anything but a JSON object is refused by name."""
    out, metadata = tmp_path / "m.gru", tmp_path / "meta.json"
    metadata.write_text('{"letters": ["a", "b"]}')
    result = CliRunner().invoke(tool.main, [str(CHAIN), str(out), "--metadata", str(metadata)])
    assert result.exit_code == 0, result.output
    assert ge.load(out).metadata["letters"] == ["a", "b"]
    for text, complaint in (("[1]", "must be a JSON object, got list"), ("{", "is not JSON")):
        metadata.write_text(text)
        result = CliRunner().invoke(tool.main, [str(CHAIN), str(tmp_path / "no.gru"), "--metadata", str(metadata)])
        assert result.exit_code == 1 and complaint in result.output, result.output
        assert not (tmp_path / "no.gru").exists()
