# SPDX-License-Identifier: Apache-2.0
"""Damaged, absurd and old files: a clear exception, or the same bits as ever."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import format
from gru_engine.precision import DTYPES

from .file_tools import VALUES, fields, section, sign, with_tensors
from .helpers import assert_bits, each_isa, gru_arrays, gru_network, token_network, uniform
from .random_networks import random_network

GOLDEN = Path(__file__).parent / "data" / "golden_v1"


def small_file(seed: int = 0, dtype: str = "float32") -> bytes:
    """A GRU and a dense layer with metadata and a golden case: every section has content."""
    net = gru_network(np.random.default_rng(seed), 2, 1)
    return net.tobytes(dtype, golden=[(np.ones((2, 1), np.float32), None, 0.0)], metadata={"name": "small"})


SMALL = small_file()
INT8 = small_file(dtype="int8")
TOKENS = token_network(np.random.default_rng(1), 3, 1).tobytes(fold=False)


def refused(data: bytes, **options: Any) -> str:
    """The message with which the C reader refuses a file; an empty string if it takes it."""
    try:
        model = ge.load(data, **options)
    except ge.FormatError as error:
        message = str(error)
    else:
        run_a_little(model)
        return ""
    where = f"{len(data)} bytes: "
    assert message.startswith(where)
    assert len(message) > len(where) + 10, message
    return message


def refused_by_python(data: bytes) -> str:
    try:
        format.read(data)
    except format.FormatError as error:
        return str(error) or "no message"
    return ""


def run_a_little(model: ge.Model) -> None:
    """Use whatever was loaded; the bits do not matter, only that it works."""
    if max(model.input_size or 1, model.output_size, model.state_size) > 1 << 16:
        return
    shape = (2, 3 if model.least_steps <= 1 else model.least_steps + 1)
    if max(shape[1], model.output_steps(shape[1])) > 1 << 12:
        return
    x = {
        name: np.ones((*shape, part.stop - part.start))
        if isinstance(part, slice)
        else np.full(shape, part.vocab_size - 1)
        for name, part in model.inputs.items()
    }
    if (model.context_size or 0) > 1 << 16:
        return
    context = np.ones(model.context_size) if model.context_size else None
    lengths = [shape[1], shape[1] - 2 + (model.least_steps > 1)]
    assert model.run(x, lengths=lengths, context=context).shape[-1] == model.output_size
    if model.causal:
        model.stream(context=context).step({name: array[0, 0] for name, array in x.items()})
    assert repr(model)


# ---- accidents: every one is seen by the checksums


def test_cut_off_at_every_byte(tmp_path: Path) -> None:
    """Promise: a file that is cut off anywhere is refused by both readers, from memory, mapped and copied."""
    assert refused(SMALL) == refused_by_python(SMALL) == ""
    path = tmp_path / "cut.gru"
    path.write_bytes(SMALL)
    for size in reversed(range(len(SMALL))):
        assert refused(SMALL[:size]), f"cut off after {size} bytes"
        assert refused(SMALL[:size], verify=False), f"cut off after {size} bytes, verify=False"
        assert refused_by_python(SMALL[:size]), f"cut off after {size} bytes"
        os.truncate(path, size)
        with pytest.raises(ge.FormatError, match=r"cut\.gru: "):
            ge.load(path, copy=bool(size % 2))


@pytest.mark.parametrize("data", [SMALL, TOKENS, INT8], ids=["gru", "tokens", "int8"])
def test_every_byte_changed(data: bytes) -> None:
    """Promise: whatever single byte is changed, in whatever way of these, the C reader refuses the file."""
    rng = np.random.default_rng(0)
    for at in range(len(data)):
        for mask in {1, 2, 4, 8, 16, 32, 64, 128, 255, int(rng.integers(1, 256))}:
            damaged = bytearray(data)
            damaged[at] ^= mask
            assert refused(bytes(damaged)), f"byte {at} exclusive-or {mask}"
        damaged = bytearray(data)
        damaged[at] ^= int(rng.integers(1, 256))
        assert refused_by_python(bytes(damaged)), f"byte {at} is {damaged[at]}"


def test_bytes_too_many_or_exchanged() -> None:
    """Promise: appended, inserted, removed and exchanged bytes are seen."""
    rng = np.random.default_rng(1)
    for more in (b"\0", b"\0" * 64, SMALL):
        assert refused(SMALL + more)
        assert refused(more + SMALL)
    for _ in range(300):
        a, b = sorted(rng.integers(0, len(SMALL), 2).tolist())
        for damaged in (SMALL[:a] + SMALL[b:], SMALL[:a] + SMALL[a:b][::-1] + SMALL[b:], SMALL[:b] + SMALL[a:]):
            if damaged != SMALL:
                assert refused(damaged), f"bytes {a} to {b}"


@pytest.mark.parametrize(
    "data", [b"", b"\x89GRU", b"\x89GRU\r\n\x1a\n", b"PK\x03\x04" * 200, bytes(10000), b"\xff" * 10000]
)
def test_other_files(data: bytes, tmp_path: Path) -> None:
    """Promise: a file that is something else is called so."""
    assert refused(data)
    assert refused_by_python(data)
    path = tmp_path / "other.gru"
    path.write_bytes(data)
    with pytest.raises(ge.FormatError, match=r"other\.gru: .*(not a \.gru file|cut off)"):
        ge.load(path)


def test_later_versions_are_refused_by_name() -> None:
    """Promise: a later format version, or a dtype of one, is refused with its number."""
    later = bytearray(SMALL)
    struct.pack_into("<I", later, 12, 2)
    assert "version 2" in refused(sign(bytes(later)))
    later = bytearray(SMALL)
    struct.pack_into("<I", later, section(SMALL, 0)[0] + 4, 4)
    assert "dtype 4" in refused(sign(bytes(later)))


# ---- malice: the checksums are right, the numbers are not


def mutated(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """The file with one to three fields changed and signed again, and what was done."""
    file, every, done = bytearray(data), fields(data), []
    for _ in range(rng.choice([1, 1, 2, 3])):
        name, at, code = every[rng.integers(len(every))]
        old = struct.unpack_from(code, file, at)[0]
        match rng.integers(6):
            case 0:
                new = old + int(rng.integers(-2, 3))
            case 1:
                new = int(rng.integers(0, 2**63))
            case 2:
                _, other, same_code = every[rng.integers(len(every))]
                new = struct.unpack_from(same_code, data, other)[0]
            case _:
                new = VALUES[rng.integers(len(VALUES))]
        new %= 256 ** struct.calcsize(code)
        struct.pack_into(code, file, at, new)
        done.append(f"{name}: {old} -> {new}")
    return sign(bytes(file)), ", ".join(done)


def check_agreement(data: bytes, what: str) -> None:
    """Both readers take a file or both refuse it; only what C never reads (FORMAT.md) is seen by one of them alone.

    Weights that do not exist are among that: after a change of dtype others do not.
    """
    c, python = refused(data), refused_by_python(data)
    if not c and python.startswith(("golden case", "the golden cases", "section METADATA")):
        return
    if not c and python.endswith("a weight of an output or input that does not exist is not zero"):
        return
    assert bool(c) == bool(python), f"{what}: C says {c or 'yes'!r}, Python says {python or 'yes'!r}"


@pytest.mark.parametrize("data", [SMALL, TOKENS, INT8], ids=["gru", "tokens", "int8"])
def test_every_field_with_every_absurd_value(data: bytes) -> None:
    """Promise: no value of no field crashes the reader; what it takes can be run."""
    rng = np.random.default_rng(2)
    for name, at, code in fields(data):
        for value in VALUES:
            if value >= 256 ** struct.calcsize(code):
                continue
            file = bytearray(data)
            struct.pack_into(code, file, at, value)
            if rng.random() < 0.25:
                check_agreement(sign(bytes(file)), f"{name} = {value}")
            else:
                refused(sign(bytes(file)))


def test_sizes_that_wrap_around() -> None:
    """Promise: sizes are added up so that they cannot pass 2^64 and come back into the file."""
    assert with_tensors(SMALL, []) == SMALL
    end, side = sum(section(SMALL, 5)) + 64 * 64, 2**28
    records = [  # 64 times 2^58 bytes behind the payload: where the last of them ends is the end of the payload again
        struct.pack("<6I2Q24x", 0, 0, side, side, 1, 0, (end + i * 2**58) % 2**64, 2**58) for i in range(64)
    ]
    huge = with_tensors(SMALL, records)
    assert refused_by_python(huge)
    for verify in (True, False):
        assert "PAYLOAD" in refused(huge, verify=verify) or "end of at most" in refused(huge, verify=verify)


def test_every_edge_to_every_node() -> None:
    """Promise: a node reads earlier nodes only, of the widths and rates that it needs; all widths are the same here."""
    rng = np.random.default_rng(3)
    net = ge.Network()
    x = net.input(3)
    a = net.activation(net.affine(x, *uniform(rng, 1, 2, 3)), "tanh")
    h = net.gru(net.multiply(net.add(a, x), a), **gru_arrays(rng, 3, 3))
    net.output(net.dense(net.activation(net.last(h), "softmax"), uniform(rng, 1, 3, 3)))
    data = net.tobytes()
    edges = [(name, at) for name, at, _ in fields(data) if name.startswith("edge")]
    for name, at in edges:
        for node in range(len(net.layers) + 2):
            changed = bytearray(data)
            struct.pack_into("<I", changed, at, node)
            check_agreement(sign(bytes(changed)), f"{name} = {node}")


@pytest.mark.parametrize("seed", range(30))
def test_both_readers_agree(seed: int) -> None:
    """Promise: the reader in C and the one in Python take and refuse the same files, and what they take runs."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_size=12)
    net.metadata = {}
    data = net.tobytes(DTYPES[seed // 2 % 4], fold=bool(seed % 2))
    check_agreement(data, f"seed {seed}, not changed")
    for _ in range(120):
        file, what = mutated(rng, data)
        check_agreement(file, f"seed {seed}, {what}")


@pytest.mark.parametrize("seed", range(20))
def test_unverified_files_never_crash(seed: int) -> None:
    """Promise: with verify=False a file whose bytes were changed at random is refused or runs; nothing outside is read."""
    rng = np.random.default_rng(seed)
    data = random_network(rng, max_size=12).tobytes(DTYPES[seed % 4])
    payload, size = section(data, 5)
    for turn in range(100):
        file = bytearray(data if turn % 2 else mutated(rng, data)[0])
        for _ in range(rng.integers(0, 40)):
            file[payload + rng.integers(size)] = rng.integers(256)
        refused(bytes(file), verify=False)
        if turn % 10 == 0:
            at = rng.integers(512, payload) if payload > 512 else 0
            file[at] ^= 1
            assert refused(bytes(file), verify=False), f"seed {seed}: byte {at} of the records changed"


def test_unverified_means_the_weights_only() -> None:
    """Promise: verify=False leaves out the checksums of the weights and of what C never reads, and no other check."""
    payload, _ = section(SMALL, 5)
    for at in range(len(SMALL) - 64):
        damaged = bytearray(SMALL)
        damaged[at] ^= 1
        assert bool(refused(bytes(damaged), verify=False)) == (at < payload), f"byte {at}"


def test_signing_makes_a_changed_file_acceptable() -> None:
    """Promise of this file: `sign` makes checksums right, so that what is refused above is refused for its numbers."""
    assert sign(SMALL) == SMALL
    payload, _ = section(SMALL, 5)
    changed = bytearray(SMALL)
    changed[payload] ^= 1
    assert "damaged" in refused(bytes(changed))
    assert refused(sign(bytes(changed))) == refused_by_python(sign(bytes(changed))) == ""
    assert ge.load(sign(bytes(changed))).digest != ge.load(SMALL).digest


# ---- golden files


def golden_input(path: Path) -> Any:
    """What a golden file is run on: an array, or several inputs by name."""
    x, inputs = np.load(path.with_suffix(".x.npy")), ge.load(path).inputs
    if len(inputs) == 1:
        return x
    several = path.with_suffix(".tokens.npy")
    tokens = iter(np.load(several).T) if several.exists() else iter(())
    return {name: x[:, part] if isinstance(part, slice) else next(tokens) for name, part in inputs.items()}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.gru")), ids=lambda path: path.stem)
def test_golden_files(path: Path) -> None:
    """Promise: files of every released version load and give the same bits, stepped and run, on every instruction set."""
    y, state = (np.load(path.with_suffix(f".{part}.npy")) for part in ("y", "state"))
    x: Any = golden_input(path)
    model = ge.load(path)
    for isa in each_isa():
        got, after = model.run(x, return_state=True)
        assert_bits(got, y, f"{path.name}, {isa}")
        assert_bits(after, state, f"{path.name}, {isa}, state")
        if model.causal and not model.per_sequence:
            stream = model.stream()
            steps = [{n: a[t] for n, a in x.items()} for t in range(len(y))] if isinstance(x, dict) else x
            assert_bits(np.array([stream.step(v) for v in steps]), y, f"{path.name}, {isa}, stepped")
    file = format.read(path)
    assert file.digest.hex() == model.digest
    int8 = file.dtypes == ["int8"]
    reference = ge.reference.run(format.unpack(file), x)
    np.testing.assert_allclose(y, reference, rtol=0, atol=(5e-2 if int8 else 2e-6) * max(1, np.abs(reference).max()))
    for case in file.golden:
        assert_bits(model.run(case.x).reshape(case.engine.shape), case.engine, f"{path.name}, golden case in the file")


def test_golden_files_are_all_there() -> None:
    """Promise: no golden file is ever deleted."""
    names = "after all before bidirectional embedding embedding_folded embedding_with_features graph none per_sequence"
    names += " cells operations pooling inputs inputs_vectors axes"
    names += "".join(f" {name}_{dtype}" for name in ("layers", "features") for dtype in DTYPES[1:])
    assert {path.stem for path in GOLDEN.glob("*.gru")} >= set(names.split())
    assert ge.load(GOLDEN / "graph.gru").metadata == {"origin": "golden_v1", "text": "größer", "list": [1, 2.5, None]}
    assert len(format.read(GOLDEN / "graph.gru").golden) == 1
    (case,) = format.read(GOLDEN / "inputs.gru").golden
    assert isinstance(case.x, dict)
    assert {name: x.shape for name, x in case.x.items()} == {
        "sound": (5, 5),
        "speaker": (5,),
        "pitch": (5, 1),
        "word": (5,),
    }


# ---- a file as such


def test_paths_of_all_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a path is a str or a Path, relative or not, in any alphabet; what cannot be opened is an OSError."""
    path = tmp_path / "modell größer 模型.gru"
    path.write_bytes(SMALL)
    monkeypatch.chdir(tmp_path)
    for source in (path, str(path), path.name, Path(path.name)):
        for copy in (False, True):
            model = ge.load(source, copy=copy)
            assert model.path == str(path)
            assert model.nbytes == len(SMALL)
    for source in (bytearray(SMALL), memoryview(SMALL), memoryview(bytearray(SMALL))):
        assert ge.load(source).path is None
    with pytest.raises(FileNotFoundError, match="missing"):
        ge.load("missing.gru")
    with pytest.raises(IsADirectoryError):
        ge.load(tmp_path)
    with pytest.raises(OSError, match="null"):
        ge.load("/dev/null")
    with pytest.raises(ValueError, match="zero byte"):
        ge.load("a\0b")
    for wrong in (None, 3, [SMALL], object()):
        with pytest.raises(TypeError, match=r"source must be a path or bytes of a \.gru file, got"):
            ge.load(wrong)


def test_what_cannot_be_written_is_said_of_the_file_that_was_asked_for(tmp_path: Path) -> None:
    """Promise: a folder, a missing folder, a folder without permission, no path: by name, and nothing is left there."""
    net = ge.Network()
    net.output(net.input(2))
    with pytest.raises(IsADirectoryError, match=rf"is a folder, not a file: '{tmp_path}'"):
        net.save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no such folder: '.*missing'"):
        net.save(tmp_path / "missing" / "model.gru")
    for path in (None, 3, b"model.gru"):
        with pytest.raises(TypeError, match="path must be a str or a path, got"):
            net.save(path)  # type: ignore[arg-type]
    long = tmp_path / f"{'a' * 255}.gru"
    with pytest.raises(OSError, match=r"'.*/a+\.gru'$"):
        net.save(long)
    tmp_path.chmod(0o500)
    try:
        if not os.access(tmp_path, os.W_OK):  # root may write everywhere
            with pytest.raises(PermissionError, match=r"'.*/model\.gru'$"):
                net.save(tmp_path / "model.gru")
    finally:
        tmp_path.chmod(0o700)
    assert not list(tmp_path.iterdir())


def test_wrong_golden_cases_and_metadata_are_named() -> None:
    net = ge.Network()
    net.output(net.input(2))
    with pytest.raises(TypeError, match=r"golden\[1\] must be \(x, y, tolerance\) or .*, got tuple of 2"):
        net.tobytes(golden=[(np.zeros((1, 2)), None, 0), (np.zeros((1, 2)), 0)])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"golden\[0\] must be .*, got int"):
        net.tobytes(golden=[3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="metadata must be a dict, got list"):
        net.tobytes(metadata=[1])  # type: ignore[arg-type]


def test_a_copy_is_independent_of_its_file(tmp_path: Path) -> None:
    """Promise: with copy=True the file may change or go away; a mapped file may be replaced and removed."""
    x = uniform(np.random.default_rng(0), 1, 5, 1)
    wanted = ge.load(SMALL).run(x)
    path = tmp_path / "m.gru"
    path.write_bytes(SMALL)
    copied = ge.load(path, copy=True)
    path.write_bytes(b"\0" * len(SMALL))
    assert_bits(copied.run(x), wanted, "copied, then overwritten")
    buffer = bytearray(SMALL)
    from_bytes = ge.load(buffer)
    buffer[:] = bytes(len(buffer))
    assert_bits(from_bytes.run(x), wanted, "from bytes, then overwritten")
    path.write_bytes(SMALL)
    mapped = ge.load(path)
    gru_network(np.random.default_rng(5), 2, 1).save(path)  # a new file in its place
    assert ge.load(path).digest != mapped.digest
    path.unlink()
    assert_bits(mapped.run(x), wanted, "mapped, then replaced and removed")
