# SPDX-License-Identifier: Apache-2.0
"""``python -m gru_engine``: what it prints and how it ends."""

import numpy as np
import pytest

import gru_engine as ge
from gru_engine.__main__ import main


@pytest.fixture
def saved(tmp_path):
    """A small file with one golden case."""
    rng = np.random.default_rng(1)
    net = ge.Network()
    h = net.gru(net.input(3), rng.normal(0, 0.5, (15, 3)), rng.normal(0, 0.5, (15, 5)))
    net.output(net.dense(h, rng.normal(0, 0.5, (2, 5)), activation="softmax"), "p")
    x = rng.normal(size=(7, 3)).astype(np.float32)
    path = tmp_path / "small.gru"
    net.save(path, golden=[(x, ge.reference.run(net, x).astype(np.float32), 1e-6)], metadata={"made by": "a test"})
    return path


def test_info_shows_layers_outputs_and_metadata(saved, capsys):
    assert main(["info", str(saved)]) == 0
    printed = capsys.readouterr().out
    for part in ("gru", "dense", "p = [0:2]", "golden cases: 1", '"made by": "a test"', "state 5"):
        assert part in printed, part


def test_verify_runs_golden_cases_on_every_usable_kernel_set(saved, capsys):
    before = ge.cpu_info()["used"]
    assert main(["verify", str(saved)]) == 0
    printed = capsys.readouterr().out
    for isa in ge.cpu_info()["usable"]:
        assert f"{isa}, golden case 0: 7 steps, the bits of the export" in printed
    assert printed.endswith("verified\n")
    assert ge.cpu_info()["used"] == before


def test_verify_fails_if_the_engine_gives_other_bits(saved, capsys, monkeypatch):
    import gru_engine.__main__ as command_line

    file = command_line.read(saved)
    case = file.golden[0]
    wrong = case.engine.copy()
    wrong[3, 1] = np.nextafter(wrong[3, 1], np.float32(1))
    object.__setattr__(case, "engine", wrong)
    monkeypatch.setattr(command_line, "read", lambda path: file)
    assert main(["verify", str(saved)]) == 1
    printed = capsys.readouterr().out
    assert "NOT the bits of the export" in printed and printed.endswith("FAILED\n")


def test_verify_fails_if_the_framework_is_too_far(saved, capsys, monkeypatch):
    import gru_engine.__main__ as command_line

    file = command_line.read(saved)
    object.__setattr__(file.golden[0], "tolerance", 0.0)
    object.__setattr__(file.golden[0], "framework", file.golden[0].framework + np.float32(1e-3))
    monkeypatch.setattr(command_line, "read", lambda path: file)
    assert main(["verify", str(saved)]) == 1
    assert "above: 0" in capsys.readouterr().out


def test_a_damaged_file_is_named_with_what_is_wrong(saved, capsys):
    data = bytearray(saved.read_bytes())
    data[-200] ^= 1
    saved.write_bytes(data)
    assert main(["verify", str(saved)]) == 2
    printed = capsys.readouterr().err
    assert "GOLDEN is damaged" in printed and f"error: {saved}: section table" in printed


def test_a_missing_file_is_named(tmp_path, capsys):
    assert main(["info", str(tmp_path / "none.gru")]) == 2
    assert "none.gru" in capsys.readouterr().err


def test_cpu_prints_the_kernels(capsys):
    assert main(["cpu"]) == 0
    assert f"used: {ge.cpu_info()['used']}" in capsys.readouterr().out


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["frobnicate"])
    assert stop.value.code == 2
    assert "frobnicate" in capsys.readouterr().err
