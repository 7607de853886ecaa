# SPDX-License-Identifier: Apache-2.0
"""The code of docs/export/TORCH.md."""

from documentation import run_blocks, text_of

import gru_engine as ge


def test_code(tmp_path, monkeypatch, capsys):
    """Promise: the code of the page runs and prints what it says; the files have what is named beside it."""
    monkeypatch.chdir(tmp_path)
    run_blocks("docs/export/TORCH.md")
    for line in capsys.readouterr().out.splitlines():
        assert f"# {line}\n" in text_of("docs/export/TORCH.md")
    assert ge.load("denoiser.gru").output_size == 40
    model = ge.load("tagger.gru")
    assert model.stream().step({"words": 17, "shape": [0, 1, 0, 0]}).shape == (13,)
