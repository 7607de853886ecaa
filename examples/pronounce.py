# SPDX-License-Identifier: Apache-2.0
"""Pronounce English words with the grapheme-to-phoneme model in ``models/``: an encoder-decoder of GRUs.

    python examples/pronounce.py [--beam 8] [WORD ...]

The encoder reads a word's letters and gives a vector; that vector is the decoder's state. The decoder takes the
previous phoneme and gives the log-probabilities of the next one. A hypothesis of the beam search is a stream of its
own, made with ``copy()``.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import gru_engine as ge

MODELS = Path(__file__).resolve().parent.parent / "models"
SENTENCE = "Blorptastic engineers unsnarl the quibbleworthy flimflammery of zorgonian spacetime"


@dataclass
class Hypothesis:
    """A beginning of a pronunciation."""

    stream: ge.Stream
    phonemes: list[int]
    score: float  # sum of log-probabilities


class Pronouncer:
    """The two networks and their alphabets."""

    def __init__(self, models: Path = MODELS) -> None:
        self.encoder = ge.load(models / "g2p_encoder.gru")
        self.decoder = ge.load(models / "g2p_decoder.gru")
        self.letters = {letter: i for i, letter in enumerate(self.encoder.metadata["letters"])}
        self.symbols = self.decoder.metadata["symbols"]
        self.boundary = self.symbols.index("<boundary>")
        self.steps = 0
        self.step_seconds = 0.0

    def start(self, word: str) -> ge.Stream:
        """Return a decoder that is about to say ``word`` (of letters that the model knows)."""
        summary = self.encoder.run([self.letters[letter] for letter in word])
        return self.decoder.stream(state=summary)

    def step(self, stream: ge.Stream, symbol: int) -> np.ndarray:
        """Return the log-probabilities of what follows ``symbol``."""
        began = time.perf_counter()
        log_probs = stream.step(symbol)
        self.step_seconds += time.perf_counter() - began
        self.steps += 1
        return log_probs

    def greedy(self, word: str) -> list[str]:
        """Return the phonemes found by taking the most probable one at each step."""
        stream = self.start(word)
        phonemes: list[int] = []
        symbol = self.boundary
        while len(phonemes) < most_phonemes(word):
            symbol = int(np.argmax(self.step(stream, symbol)))
            if symbol == self.boundary:
                break
            phonemes.append(symbol)
        return [self.symbols[p] for p in phonemes]

    def beam(self, word: str, width: int) -> list[str]:
        """Return the most probable phonemes among those that a beam search of this width finds."""
        live = [Hypothesis(self.start(word), [], 0.0)]
        finished: list[Hypothesis] = []
        for _ in range(most_phonemes(word)):
            candidates = []
            for hypothesis in live:
                log_probs = self.step(
                    hypothesis.stream, hypothesis.phonemes[-1] if hypothesis.phonemes else self.boundary
                )
                for symbol in np.argsort(-log_probs)[: width + 1]:
                    candidates.append((hypothesis.score + float(log_probs[symbol]), int(symbol), hypothesis))
            candidates.sort(key=lambda candidate: -candidate[0])
            live = []
            for score, symbol, parent in candidates[:width]:
                if symbol == self.boundary:
                    finished.append(Hypothesis(parent.stream, parent.phonemes, score))
                else:
                    live.append(Hypothesis(parent.stream.copy(), [*parent.phonemes, symbol], score))
            # Scores only fall, so nothing alive can overtake the best finished hypothesis once it is behind.
            if not live or (finished and max(f.score for f in finished) >= live[0].score):
                break
        best = max(finished or live, key=lambda hypothesis: hypothesis.score)
        return [self.symbols[p] for p in best.phonemes]


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
        phonemes = pronouncer.greedy(word) if options.beam == 1 else pronouncer.beam(word, options.beam)
        print(f"{word:>16}  {' '.join(phonemes)}")
    size = pronouncer.encoder.nbytes + pronouncer.decoder.nbytes
    print(
        f"\n{pronouncer.steps} decoder steps, {pronouncer.step_seconds / max(pronouncer.steps, 1) * 1e6:.1f} µs each"
        f" (state of {pronouncer.decoder.state_size} floats); kernels: {ge.cpu_info()['used']};"
        f" {size / 1e6:.1f} MB of models loaded in {loaded * 1e3:.1f} ms"
    )


if __name__ == "__main__":
    main()
