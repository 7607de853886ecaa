# SPDX-License-Identifier: Apache-2.0
"""Classify text: is a sentence the documentation of a class, or of a function?

The sentences are the first paragraphs of the docstrings in the sources of the standard library, NumPy and PyTorch; what each
documents is known from the source. The network is a common one for binary text classification: an embedding of 128, a GRU of
64 whose whole sequence a GRU of 32 reads, and one sigmoid of its last output. At run time sentences of different lengths go
together, padded, with ``lengths=``; each gets the bits that it gets alone. Compared with the more frequent answer and with naive
Bayes, on the files that training has not seen.
"""

from __future__ import annotations

import ast
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
from example_tools import (
    describe,
    draw,
    export,
    fit,
    need_model,
    options,
    python_sources,
    start_torch,
    table,
)

import gru_engine as ge

LONGEST = 40  # words of a sentence
Labelled = tuple[list[str], bool]  # words, whether of a class


# ---- what is deployed: gru_engine and NumPy


def words_of(text: str) -> list[str]:
    """Return the words and punctuation marks of a text in lower case, at most LONGEST; at least one, empty if need be."""
    return re.findall(r"[a-z]+|[0-9]+|[^\sa-z0-9]", text.lower())[:LONGEST] or [""]


class Classifier:
    """Gives the probability that a sentence documents a class."""

    def __init__(self, path: str | Path) -> None:
        self.model = ge.load(path)
        self.number = {word: i for i, word in enumerate(self.model.metadata["words"])}

    def probabilities(self, sentences: list[list[str]], batch: int = 64) -> np.ndarray:
        """Return the probabilities for sentences of at least one word each, float32 [len(sentences)]."""
        p = np.empty(len(sentences), np.float32)
        for start in range(0, len(sentences), batch):
            some = sentences[start : start + batch]
            lengths = np.array([len(words) for words in some])
            tokens = np.zeros((len(some), lengths.max()), np.int32)
            for row, words in zip(tokens, some):
                row[: len(words)] = [self.number.get(word, 0) for word in words]
            p[start : start + batch] = self.model.run(tokens, lengths=lengths)[:, 0]
        return p


# ---- data


def sentences_of_sources() -> tuple[list[Labelled], list[Labelled]]:
    """Return sentences for training and of the files that are held out; each sentence once, the training first."""
    parts: tuple[list[Labelled], list[Labelled]] = ([], [])
    for _, held_out, tree in python_sources():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                text = (ast.get_docstring(node) or "").partition("\n\n")[0]
                if len(words := words_of(text)) >= 3:
                    parts[held_out].append((words, isinstance(node, ast.ClassDef)))
    seen: set[tuple[str, ...]] = set()
    for part in parts:
        fresh = [(words, label) for words, label in part if not (tuple(words) in seen or seen.add(tuple(words)))]
        part[:] = fresh
    return parts


def naive_bayes(train: list[Labelled], test: list[Labelled]) -> np.ndarray:
    """Return the probabilities by words alone, without their order, smoothed by one half."""
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(w for words, _ in train for w in words))}
    counts = np.full((2, len(vocabulary)), 0.5)
    for words, label in train:
        for word in set(words):
            counts[int(label), vocabulary[word]] += 1
    share = np.mean([label for _, label in train])
    evidence = np.log(counts / (np.bincount([label for _, label in train])[:, None] + 1))
    evidence = evidence[1] - evidence[0]
    odds = [sum(evidence[vocabulary[w]] for w in set(words) if w in vocabulary) for words, _ in test]
    return 1 / (1 + np.exp(-np.clip(np.array(odds) + np.log(share / (1 - share)), -50, 50)))


# ---- training: PyTorch


def train_model(path: Path, sentences: list[Labelled], epochs: int, seed: int) -> Any:
    """Train the classifier, export it, and return a function that runs it in PyTorch."""
    torch = start_torch(seed)
    from torch import nn

    counts = Counter(word for words, _ in sentences for word in words)
    vocabulary = ["<unknown>", *(word for word, count in counts.most_common() if count >= 4)]
    number = {word: i for i, word in enumerate(vocabulary)}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(len(vocabulary), 128)
            self.first = nn.GRU(128, 64, batch_first=True)
            self.second = nn.GRU(64, 32, batch_first=True)
            self.drop = nn.Dropout(0.4)
            self.out = nn.Linear(32, 1)

        def logits(self, tokens: Any) -> Any:
            h, _ = self.first(self.drop(self.embedding(tokens)))
            h, _ = self.second(self.drop(h))
            return self.out(self.drop(h[:, -1]))

        def forward(self, tokens: Any) -> Any:
            return torch.sigmoid(self.logits(tokens))

    module = Net()
    by_length: dict[int, list[Labelled]] = {}
    for sentence in sentences:
        by_length.setdefault(len(sentence[0]), []).append(sentence)

    def batches(random: np.random.Generator) -> Any:
        # Sentences of one length at a time: the training needs no padding.
        all_batches = []
        for group in by_length.values():
            order = random.permutation(len(group))
            all_batches += [[group[i] for i in order[s : s + 32]] for s in range(0, len(group), 32)]
        for i in random.permutation(len(all_batches)):
            tokens = torch.tensor([[number.get(word, 0) for word in words] for words, _ in all_batches[i]])
            labels = torch.tensor([[float(label)] for _, label in all_batches[i]])
            yield nn.functional.binary_cross_entropy_with_logits(module.logits(tokens), labels)

    fit(module.parameters(), batches, epochs, 3e-3, seed)
    return export(module, torch.zeros(1, 4, dtype=torch.long), path, {"words": vocabulary})


# ---- comparing


def scores(p: np.ndarray, labels: np.ndarray) -> list[str]:
    """Accuracy, and precision and recall of the classes, at a probability of one half."""
    said = p > 0.5
    right = (said & labels).sum()
    precision = f"{right / said.sum():.3f}" if said.any() else "-"
    return [f"{(said == labels).mean():.3f}", precision, f"{right / labels.sum():.3f}", f"{area(p, labels):.3f}"]


def area(p: np.ndarray, labels: np.ndarray) -> float:
    """The probability that a class has a higher p than a function: the area under the ROC curve, ties counted half."""
    _, rank, counts = np.unique(p, return_inverse=True, return_counts=True)
    place = (np.cumsum(counts) - (counts - 1) / 2)[rank]
    n = labels.sum()
    return float((place[labels].sum() - n * (n + 1) / 2) / (n * (len(labels) - n)))


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@options("classify_text", epochs=5)
@click.option("--batch", type=click.IntRange(min=1), default=64, help="Sentences at a time.", show_default=True)
@click.argument("sentences", nargs=-1)
def main(model: Path, train: bool, epochs: int, seed: int, plot: Path, batch: int, sentences: tuple[str, ...]) -> None:
    """See the module's docstring."""
    if not train:
        need_model(model)
    known, held_out = sentences_of_sources()
    labels = np.array([label for _, label in held_out])
    click.echo(f"{len(known)} sentences to train, {len(held_out)} held out, {labels.mean():.1%} of these of classes")
    run = train_model(model, known, epochs, seed) if train else None
    classifier = Classifier(model)
    describe(classifier.model)

    test = [words for words, _ in held_out]
    began = time.perf_counter()
    p = classifier.probabilities(test, batch)
    seconds = time.perf_counter() - began
    results = {
        "always function": np.zeros(len(test)),
        "naive Bayes, words without order": naive_bayes(known, held_out),
    }
    if run is not None:
        tokens = [np.array([[classifier.number.get(w, 0) for w in words]]) for words in test]
        results["two GRUs, PyTorch, one by one"] = np.array([run(t)[0, 0] for t in tokens])
    results[f"two GRUs, gru_engine, {batch} at a time"] = p
    table(
        ["class or function?", "accuracy", "precision", "recall", "area (ROC)"],
        [[name, *scores(q, labels)] for name, q in results.items()],
    )
    alone = classifier.probabilities(test, 1)
    same = "the same bits" if np.array_equal(alone, p) else "OTHER BITS"
    click.echo(f"\n{seconds / len(test) * 1e6:.1f} µs per sentence, padding included; one by one: {same}")
    shown = sentences or (
        "Return the smallest item.",
        "A queue that keeps the smallest item first.",
        "Smallest item of a queue.",
    )
    for text, q in zip(shown, classifier.probabilities([words_of(text) for text in shown])):
        click.echo(f"  {q:.3f}  {text}")

    def fill(axes: Any) -> None:
        for name, q in results.items():
            order = np.argsort(-q, kind="stable")
            hits = np.cumsum(labels[order]) / labels.sum()
            false = np.cumsum(~labels[order]) / (~labels).sum()
            if np.ptp(q) > 0 and "PyTorch" not in name:
                every = max(1, len(hits) // 200)
                axes[0].plot(false[::every], hits[::every], label=name)
        axes[0].plot([0, 1], [0, 1], color="#bbbbbb", lw=1)
        axes[0].set(xlabel="functions taken for classes", ylabel="classes found")
        axes[0].legend(loc="lower right")

    draw(plot, (5, 3.6), 1, fill)


if __name__ == "__main__":
    main()
