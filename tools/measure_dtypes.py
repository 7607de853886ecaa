# SPDX-License-Identifier: Apache-2.0
"""Error rates of the grapheme-to-phoneme model with weights of each type, on the test words (docs/G2P.md)::

    python tools/measure_dtypes.py [--every 10] [--beam 8]

The networks are those of ``models/``, written again with each type.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from pronounce import Pronouncer  # noqa: E402

from gru_engine.format import read, unpack  # noqa: E402
from gru_engine.precision import DTYPES  # noqa: E402

FILES = ("g2p_encoder.gru", "g2p_decoder.gru")


@dataclass(frozen=True)
class Word:
    """A test word and its pronunciations in the dictionary."""

    spelling: str
    references: list[list[str]]


@dataclass(frozen=True)
class Result:
    """What a model made of the test words."""

    nbytes: int  # of both files
    spoken: list[list[str]]
    per: float  # in per cent: edit distances over the phonemes of the nearest pronunciations
    wer: float  # in per cent: words with any error


def read_words(every: int = 1) -> list[Word]:
    """Every n-th of the test words."""
    with open(ROOT / "models" / "g2p_test_words.tsv") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [Word(row["word"], [r.split() for r in row["references"].split(" | ")]) for row in rows[::every]]


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Least number of insertions, deletions and replacements that turn ``a`` into ``b``."""
    distances = list(range(len(b) + 1))
    for i, x in enumerate(a):
        before, distances[0] = distances[0], i + 1
        for j, y in enumerate(b):
            before, distances[j + 1] = distances[j + 1], min(before + (x != y), distances[j] + 1, distances[j + 1] + 1)
    return distances[-1]


def measure(dtype: str, words: Sequence[Word], beam: int = 1) -> Result:
    """Write the networks with weights of a type, and pronounce the words; a beam of 1 is greedy decoding."""
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            unpack(read(ROOT / "models" / name)).save(Path(folder) / name, dtype=dtype)
        nbytes = sum((Path(folder) / name).stat().st_size for name in FILES)
        pronouncer = Pronouncer(Path(folder))
        spoken = [
            pronouncer.greedy(word.spelling) if beam == 1 else pronouncer.beam(word.spelling, beam) for word in words
        ]
    errors = [min((edit_distance(said, r), len(r)) for r in w.references) for said, w in zip(spoken, words)]
    return Result(
        nbytes,
        spoken,
        per=100 * sum(error for error, _ in errors) / sum(length for _, length in errors),
        wer=100 * sum(error > 0 for error, _ in errors) / len(words),
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(",")[0])
    parser.add_argument("--every", type=int, default=1, help="take every n-th word only")
    parser.add_argument("--beam", type=int, default=1, help="width of the beam search; 1 is greedy decoding")
    options = parser.parse_args()
    words = read_words(options.every)
    print(f"{len(words)} words, beam {options.beam}")
    print("type        bytes     PER       WER       words unlike float32")
    whole: list[list[str]] = []
    for dtype in DTYPES:
        result = measure(dtype, words, options.beam)
        whole = whole or result.spoken
        other = sum(a != b for a, b in zip(result.spoken, whole))
        print(f"{dtype:8} {result.nbytes:8}  {result.per:6.3f} %  {result.wer:6.2f} %  {other:6}", flush=True)


if __name__ == "__main__":
    main()
