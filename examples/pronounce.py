# SPDX-License-Identifier: Apache-2.0
"""Pronounce English words with the grapheme-to-phoneme model in ``models/``: an encoder-decoder of GRUs.

    python examples/pronounce.py [--beam 8] [WORD ...]

The encoder reads a word's letters and gives a vector; that vector is the decoder's state. The decoder takes the
previous phoneme and gives the log-probabilities of the next one. docs/GENERATION.md says how phonemes are chosen.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import gru_engine as ge

MODELS = Path(__file__).resolve().parent.parent / "models"
SENTENCE = "Blorptastic engineers unsnarl the quibbleworthy flimflammery of zorgonian spacetime"


class Pronouncer:
    """The two networks and their alphabets."""

    def __init__(self, models: Path = MODELS) -> None:
        self.encoder = ge.load(models / "g2p_encoder.gru")
        self.decoder = ge.load(models / "g2p_decoder.gru")
        self.letters = {letter: i for i, letter in enumerate(self.encoder.metadata["letters"])}
        self.symbols = self.decoder.metadata["symbols"]
        self.boundary = self.symbols.index("<boundary>")
        self.seconds = 0.0
        self.words = 0

    def summary(self, word: str) -> np.ndarray:
        """Return the state of a decoder that is about to say ``word`` (of letters that the model knows)."""
        return self.encoder.run([self.letters[letter] for letter in word])

    def greedy(self, word: str) -> list[str]:
        """Return the phonemes found by taking the most probable one at each step."""
        stream = self.decoder.stream(self.summary(word))
        return self.phonemes(stream.generate(most_phonemes(word), self.boundary, temperature=0, stop=self.boundary))

    def beam(self, word: str, width: int) -> list[str]:
        """Return the most probable phonemes among those that a beam search of this width finds."""
        (best,) = ge.beam_search(
            self.decoder, self.summary(word), width, first=self.boundary, n=most_phonemes(word), stop=self.boundary
        )
        return self.phonemes(best.tokens)

    def phonemes(self, tokens: np.ndarray) -> list[str]:
        """Return the phonemes' names, without the boundary at the end."""
        return [self.symbols[token] for token in tokens if token != self.boundary]

    def pronounce(self, word: str, width: int) -> list[str]:
        """Return the word's phonemes and take the time; a width of 1 is greedy."""
        began = time.perf_counter()
        phonemes = self.greedy(word) if width == 1 else self.beam(word, width)
        self.seconds += time.perf_counter() - began
        self.words += 1
        return phonemes


def most_phonemes(word: str) -> int:
    """Return after how many phonemes something that does not end is cut off."""
    return 3 * len(word) + 8


def words_of(texts: list[str], known: set[str]) -> Iterator[str]:
    """Yield the words of the texts, in lower case."""
    for text in texts:
        for word in re.split(r"[\s,.;:!?\"()]+", text.lower()):
            if not word:
                continue
            unknown = set(word) - known
            if unknown:
                raise SystemExit(
                    f"{word!r}: the model reads only a-z and the apostrophe, not {' '.join(sorted(unknown))}"
                )
            yield word


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Pronounce English words.")
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="default: a sentence with words that are in no dictionary"
    )
    parser.add_argument(
        "--beam", type=int, default=8, metavar="N", help="width of the beam search; 1 is greedy (default 8)"
    )
    options = parser.parse_args()
    if options.beam < 1:
        parser.error(f"--beam must be at least 1, got {options.beam}")

    began = time.perf_counter()
    pronouncer = Pronouncer()
    loaded = time.perf_counter() - began
    for word in words_of(options.words or [SENTENCE], set(pronouncer.letters)):
        print(f"{word:>16}  {' '.join(pronouncer.pronounce(word, options.beam))}")
    size = pronouncer.encoder.nbytes + pronouncer.decoder.nbytes
    print(
        f"\n{pronouncer.words} words, {pronouncer.seconds / max(pronouncer.words, 1) * 1e3:.2f} ms each"
        f" (state of {pronouncer.decoder.state_size} floats); kernels: {ge.cpu_info()['used']};"
        f" {size / 1e6:.1f} MB of models loaded in {loaded * 1e3:.1f} ms"
    )


if __name__ == "__main__":
    main()
