# SPDX-License-Identifier: Apache-2.0
"""Generate text character by character, with a model trained on Python's own manual.

The text is that of help("topics") (pydoc_data.topics), 79 articles on the language, of which about every tenth is held out. The
model is a GRU that reads a character and gives the log-probabilities of the next one. Its quality is told in bits per character
of the articles held out: gru_engine beside PyTorch, beside what a compressor makes of them that has seen the same training text.
"""

from __future__ import annotations

import hashlib
import lzma
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
from example_tools import describe, draw, export, fit, need_model, options, percentiles, start_torch, table

import gru_engine as ge

HIDDEN = 192
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


# ---- what is deployed: gru_engine and NumPy


class Writer:
    """A character model: it continues texts and says how probable they are."""

    def __init__(self, path: str | Path) -> None:
        self.model = ge.load(path)
        self.characters: str = self.model.metadata["characters"]
        self.number = {c: i for i, c in enumerate(self.characters)}

    def tokens(self, text: str) -> np.ndarray:
        """Return the numbers of a text's characters; the first character stands for unknown ones."""
        return np.array([self.number.get(c, 0) for c in text], np.int32)

    def continued(self, prompt: str, n: int, temperature: float = 1.0, seed: int = 0) -> str:
        """Return n characters that continue a prompt.

        Parameters
        ----------
        prompt : str
            At least one character.
        n : int
        temperature : float
            Below 1 probable characters become more probable; 0 always takes the most probable one.
        seed : int

        Raises
        ------
        ValueError
            If the prompt is empty, or an argument does not fit ``Stream.generate``.
        """
        if not prompt:
            raise ValueError("prompt must have at least one character, got ''")
        chosen = self.model.stream().generate(n, self.tokens(prompt), temperature=temperature, seed=seed)
        return "".join(self.characters[token] for token in chosen)

    def bits(self, text: str) -> np.ndarray:
        """Return the bits that each character of a text needs after those before it, float64 [len(text) - 1]."""
        tokens = self.tokens(text)
        log_p = self.model.run(tokens[:-1])
        return -np.take_along_axis(log_p, tokens[1:, None], 1)[:, 0] / np.log(2.0)


# ---- data


def manual() -> tuple[list[str], list[str]]:
    """Return the articles to train with, and those that are held out: about every tenth by a hash of the name.

    Articles quote each other: paragraphs that are in a held-out article too, however indented, are taken out of the others.
    """
    from pydoc_data.topics import topics

    parts: tuple[list[str], list[str]] = ([], [])
    for name in sorted(topics):
        parts[hashlib.sha256(name.encode()).digest()[0] < 26].append(topics[name])
    train, test = parts
    held_out = {" ".join(paragraph.split()) for article in test for paragraph in article.split("\n\n")}
    for i, article in enumerate(train):
        kept = [paragraph for paragraph in article.split("\n\n") if " ".join(paragraph.split()) not in held_out]
        train[i] = "\n\n".join(kept)
    return train, test


def order_0_bits(train: str, test: str) -> float:
    """Bits per character if only the characters' frequencies are known."""
    counts = Counter(train)
    total = len(train) + len(counts) + 1
    return float(np.mean([-np.log2((counts[c] + 1) / total) for c in test]))


def compressed_bits(train: str, test: str) -> float:
    """Bits per character that LZMA needs for a text after another one."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    sizes = [len(lzma.compress(text.encode(), lzma.FORMAT_RAW, filters=filters)) for text in (train, train + test)]
    return 8 * (sizes[1] - sizes[0]) / len(test)


# ---- training: PyTorch


def train_model(path: Path, text: str, epochs: int, seed: int) -> Any:
    """Train a character model, export it, and return a function that runs it in PyTorch."""
    torch = start_torch(seed)
    from torch import nn

    counts = Counter(text)
    characters = UNKNOWN + "".join(sorted(c for c, count in counts.items() if count >= 5))

    class Characters(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(len(characters), 32)
            self.gru = nn.GRU(32, HIDDEN, batch_first=True)
            self.drop = nn.Dropout(0.15)
            self.out = nn.Linear(HIDDEN, len(characters))

        def forward(self, tokens: Any) -> Any:
            h, _ = self.gru(self.embedding(tokens))
            return torch.log_softmax(self.out(self.drop(h)), dim=-1)

    module = Characters()
    number = {c: i for i, c in enumerate(characters)}
    data = torch.tensor([number.get(c, 0) for c in text])
    streams, steps = 32, 128

    def batches(random: np.random.Generator) -> Any:
        # Each epoch cuts the text at other places.
        begin = int(random.integers(steps))
        windows = (len(data) - begin - 1) // steps
        starts = begin + steps * random.permutation(windows)
        for some in np.split(starts, range(streams, windows, streams)):
            block = torch.stack([data[s : s + steps + 1] for s in some])
            log_p = module(block[:, :-1])
            # The first characters of a window have nothing to go by.
            yield nn.functional.nll_loss(log_p[:, 8:].flatten(0, 1), block[:, 9:].flatten())

    fit(module.parameters(), batches, epochs, 6e-3, seed)
    return export(
        module, torch.zeros(1, 4, dtype=torch.long), path, {"characters": characters, "text": "pydoc_data.topics"}
    )


# ---- comparing


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@options("generate_text", epochs=10)
@click.option("--prompt", default="The ", help="How the text begins.", show_default=True)
@click.option("--length", type=click.IntRange(min=1), default=300, help="Characters to generate.", show_default=True)
@click.option("--temperature", type=click.FloatRange(min=0), default=0.6, show_default=True)
def main(
    model: Path, train: bool, epochs: int, seed: int, plot: Path, prompt: str, length: int, temperature: float
) -> None:
    """See the module's docstring."""
    if not prompt:
        raise click.BadParameter("must have at least one character", param_hint="--prompt")
    train_articles, test_articles = manual()
    text = "\n".join(train_articles)
    held_out = sum(map(len, test_articles))
    click.echo(
        f"{len(train_articles)} articles of {len(text)} characters to train, {len(test_articles)} of {held_out} held out"
    )
    run = None
    if train:
        run = train_model(model, text, epochs, seed)
    else:
        need_model(model)
    writer = Writer(model)
    describe(writer.model)

    bits = [writer.bits(article) for article in test_articles]
    test = "\n".join(test_articles)
    rows = [
        ["frequencies of characters", f"{order_0_bits(text, test):.3f}"],
        ["LZMA after the training text", f"{compressed_bits(text, test):.3f}"],
    ]
    if run is not None:
        at = [writer.tokens(article) for article in test_articles]
        log_p = [np.take_along_axis(run(t[None, :-1])[0], t[1:, None], 1) for t in at]
        rows.append(["GRU, PyTorch", f"{-np.concatenate(log_p).mean() / np.log(2):.6f}"])
    rows.append(["GRU, gru_engine", f"{np.concatenate(bits).mean():.6f}"])
    table(["held-out articles", "bits per character"], rows)

    stream, seconds = writer.model.stream(), []
    for token in writer.tokens(test[:5000]):
        began = time.perf_counter()
        stream.step(int(token))
        seconds.append(time.perf_counter() - began)
    click.echo(f"\na step, from Python:        {percentiles(seconds)} per character")
    generated = []
    for i in range(20):
        began = time.perf_counter()
        writer.continued(prompt, 200, temperature, seed + i)
        generated.append((time.perf_counter() - began) / 200)
    click.echo(f"generated, with its choice: {percentiles(generated)} per character\n")
    click.echo(prompt + writer.continued(prompt, length, temperature, seed))

    def fill(axes: Any) -> None:
        article, begin = test_articles[0], 300
        shown = article[begin : begin + 75].replace("\n", " ")
        axes[0].bar(range(len(shown)), bits[0][begin - 1 : begin - 1 + len(shown)], color="#1b6ca8")
        axes[0].set_xticks(range(len(shown)), list(shown), family="monospace", fontsize=8)
        axes[0].tick_params(length=0)
        axes[0].set(ylabel="bits", xlim=(-1, len(shown)))
        axes[0].set_title("What each character of a held-out article costs after those before it")

    draw(plot, (9, 2.4), 1, fill)


if __name__ == "__main__":
    main()
