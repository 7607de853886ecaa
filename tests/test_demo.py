# SPDX-License-Identifier: Apache-2.0
"""The model in the repository and the demo that uses it: the phonemes are those of the float64 reference."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gru_engine as ge
from gru_engine import format

from .command_lines import load_tool

ROOT = Path(__file__).resolve().parent.parent
WORDS = ["engine", "quibbleworthy", "flimflammery", "zorgonian", "o'brien", "a", "supercalifragilistic", "mnemonics"]


def network(name: str) -> ge.Network:
    return format.unpack(format.read(ROOT / "models" / name))


@pytest.fixture(scope="module")
def models() -> tuple[ge.Model, ge.Model]:
    return ge.load(ROOT / "models/g2p_encoder.gru"), ge.load(ROOT / "models/g2p_decoder.gru")


def reference_greedy(word: str, letters: list[str], symbols: list[str]) -> str:
    """The word's phonemes by float64 alone."""
    encoder, decoder = network("g2p_encoder.gru"), network("g2p_decoder.gru")
    state = ge.reference.run(encoder, [letters.index(letter) for letter in word])
    phonemes, symbol = [], "<boundary>"
    for _ in range(40):
        y, state = ge.reference.run(decoder, [symbols.index(symbol)], state=state, return_state=True)
        symbol = symbols[int(np.argmax(y[0]))]
        if symbol == "<boundary>":
            break
        phonemes.append(symbol)
    return " ".join(phonemes)


def pronounce(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "examples/pronounce.py", *arguments], capture_output=True, text=True, timeout=60
    )


def test_phonemes_are_those_of_the_reference(models):
    encoder, decoder = models
    result = pronounce("--beam", "1", *WORDS)
    assert result.returncode == 0, result.stderr
    said = dict(line.split(maxsplit=1) for line in result.stdout.splitlines()[: len(WORDS)])
    letters, symbols = encoder.metadata["letters"], decoder.metadata["symbols"]
    for word in WORDS:
        assert said[word] == reference_greedy(word, letters, symbols), word


def test_held_out_words_come_out_as_pytorch_said_them():
    """models/g2p_test_words.tsv holds what PyTorch's greedy decoding gave when the model was trained."""
    sys.path.insert(0, str(ROOT / "examples"))
    from pronounce import Pronouncer

    pronouncer = Pronouncer()
    with open(ROOT / "models/g2p_test_words.tsv") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == 5000
    for row in rows[::10]:
        assert " ".join(pronouncer.greedy(row["word"])) == row["greedy"], row
    for row in rows[::100]:
        assert " ".join(pronouncer.beam(row["word"], 8)) == row["beam 8"], row


def test_error_rates_with_weights_of_fewer_bits():
    """Every tenth test word: at most one in a hundred comes out in another way than with float32 (docs/NUMERICS.md, 6.4)."""
    tool = load_tool("measure_dtypes")
    words = tool.read_words(10)
    whole = tool.measure("float32", words)
    assert (len(words), round(whole.per, 3), whole.wer) == (500, 6.605, 26.0)
    for dtype, share in (("bfloat16", 0.54), ("float16", 0.54), ("int8", 0.31)):
        reduced = tool.measure(dtype, words)
        assert reduced.nbytes < share * whole.nbytes
        assert sum(a != b for a, b in zip(reduced.spoken, whole.spoken)) <= 5, dtype
        assert abs(reduced.per - whole.per) < 0.2 and abs(reduced.wer - whole.wer) <= 0.8, dtype
    with pytest.raises(ValueError, match="dtype must be one of"):
        tool.measure("int4", words)


def test_a_word_that_the_model_cannot_read_is_refused_by_name():
    result = pronounce("naïve")
    assert result.returncode == 1
    assert "naïve" in result.stderr and "ï" in result.stderr


def test_golden_cases_verify_on_this_machine():
    for name in ("g2p_encoder.gru", "g2p_decoder.gru"):
        result = subprocess.run(
            [sys.executable, "-m", "gru_engine", "verify", str(ROOT / "models" / name)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert "the bits of the export" in result.stdout and "from the framework" in result.stdout
