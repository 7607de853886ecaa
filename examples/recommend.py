# SPDX-License-Identifier: Apache-2.0
"""Recommend the next item of a session, as GRU4Rec does: which function will be called next?

A session is a function of the standard library, NumPy or PyTorch; its items are the names of the functions that it calls, in
the order of the source. Real behaviour, in a form that every installation has: what a shop knows of a visitor's clicks, an
editor knows of these calls.

The network is GRU4Rec's (Hidasi et al. 2016): the GRU of Cho et al. with the reset gate before the product, one table for the
items that go in and the items that are scored. It is exported by gru_engine.export.gru4rec. At run time a Pool holds all live
sessions, and each event steps its session.
"""

from __future__ import annotations

import ast
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
from example_tools import (
    describe,
    draw,
    fit,
    need_model,
    options,
    percentiles,
    python_sources,
    start_torch,
    table,
    write,
)

import gru_engine as ge

LONGEST = 30  # events of a session
HIDDEN = 96


# ---- what is deployed: gru_engine and NumPy


class Recommender:
    """Live sessions, each with a state of its own in one pool."""

    def __init__(self, path: str | Path, capacity: int) -> None:
        self.model = ge.load(path)
        self.items: list[str] = self.model.metadata["items"]
        self.pool = self.model.pool(capacity)
        self.slots: dict[str, int] = {}

    def events(self, sessions: list[str], items: np.ndarray) -> np.ndarray:
        """Take one event of each of these sessions, new ones included; return the scores [n, items] of what comes next."""
        for session in sessions:
            if session not in self.slots:
                self.slots[session] = self.pool.open()
        return self.pool.step([self.slots[session] for session in sessions], items)

    def end(self, session: str) -> None:
        """Forget a session."""
        self.pool.close(self.slots.pop(session))

    def best(self, scores: np.ndarray, n: int) -> list[str]:
        """Return the names of the n best items, the best first."""
        return [self.items[i] for i in np.argsort(-scores, kind="stable")[:n]]


# ---- data


def called(node: ast.AST) -> list[str]:
    """Return the names of what a function calls, in the order in which they are written."""
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    calls.sort(key=lambda call: (call.func.end_lineno or 0, call.func.end_col_offset or 0))
    names = [call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "") for call in calls]
    return [name for name in names if name]


def sessions_of_sources() -> tuple[list[list[str]], list[list[str]]]:
    """Return the sessions for training, and those of the files that are held out."""
    sessions: tuple[list[list[str]], list[list[str]]] = ([], [])
    for _, held_out, tree in python_sources():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                sessions[held_out].append(called(node))
    return sessions


def coded(sessions: list[list[str]], items: list[str]) -> list[list[int]]:
    """Return the sessions as numbers of items, without unknown ones, those of at least two events."""
    number = {item: i for i, item in enumerate(items)}
    kept = ([number[item] for item in session if item in number][:LONGEST] for session in sessions)
    return [session for session in kept if len(session) >= 2]


# ---- training: PyTorch


def train_model(path: Path, sessions: list[list[int]], items: list[str], epochs: int, seed: int) -> None:
    """Train GRU4Rec and export it."""
    torch = start_torch(seed)
    from torch import nn

    from gru_engine.export.gru4rec import from_parameters

    class Gru4Rec(nn.Module):
        """One layer, reset before, under the names of the original's parameters."""

        def __init__(self) -> None:
            super().__init__()
            bound = HIDDEN**-0.5
            shapes = {"Wx0": (HIDDEN, 3 * HIDDEN), "Wh0": (HIDDEN, HIDDEN), "Wrz0": (HIDDEN, 2 * HIDDEN)}
            for name, shape in {
                **shapes,
                "Bh0": (3 * HIDDEN,),
                "Wy": (len(items), HIDDEN),
                "By": (len(items),),
            }.items():
                self.register_parameter(name, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

        def forward(self, tokens: Any) -> Any:
            given = self.dropout(self.Wy[tokens]) @ self.Wx0 + self.Bh0
            h = given.new_zeros(len(tokens), HIDDEN)
            states = []
            for n, rz in zip(given[..., :HIDDEN].unbind(1), given[..., HIDDEN:].unbind(1)):
                r, z = torch.sigmoid(rz + h @ self.Wrz0).chunk(2, -1)
                h = (1 - z) * h + z * torch.tanh(n + (r * h) @ self.Wh0)
                states.append(h)
            return self.dropout(torch.stack(states, 1)) @ self.Wy.T + self.By

        def dropout(self, x: Any) -> Any:
            return nn.functional.dropout(x, 0.25, self.training)

    module = Gru4Rec()
    by_length = sorted(sessions, key=len)

    def batches(random: np.random.Generator) -> Any:
        for start in random.permutation(np.arange(0, len(by_length), 64)):
            batch = by_length[start : start + 64]
            # -1 stands for what is not there: it is read as item 0 and left out of the loss.
            padded = torch.full((len(batch), len(batch[-1])), -1)
            for row, session in zip(padded, batch):
                row[: len(session)] = torch.tensor(session)
            scores = module(padded[:, :-1].clamp(min=0))
            yield nn.functional.cross_entropy(scores.flatten(0, 1), padded[:, 1:].flatten(), ignore_index=-1)

    fit(module.parameters(), batches, epochs, 4e-3, seed)
    module.eval()
    parameters = {name: p.detach().numpy() for name, p in module.named_parameters()}
    net = from_parameters(parameters, constrained_embedding=True)

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(np.array(x))).numpy()

    write(net, path, run, {"items": items})


# ---- comparing


def ranks(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return which place the wanted items have, 1 the best; among equal scores the last, so that ties do not help."""
    return (scores >= np.take_along_axis(scores, wanted[:, None], 1)).sum(1)


def replay(path: Path, sessions: list[list[int]], live: int, seed: int) -> tuple[np.ndarray, list[float], int]:
    """Let at most ``live`` sessions go on at once, a random part of them at a time.

    Returns
    -------
    ranks : array [events]
        Of what was called next.
    seconds : list of float
        Of each call of ``events``, divided by the number of its events.
    most : int
        Most live sessions.
    """
    random = np.random.default_rng(seed)
    recommender = Recommender(path, live)
    waiting, position = list(range(len(sessions)))[::-1], dict[int, int]()
    found, seconds, most = [], [], 0
    while waiting or position:
        while waiting and len(position) < live:
            position[waiting.pop()] = 0
        most = max(most, len(position))
        chosen = [s for s in position if random.random() < 0.2]
        if not chosen:
            continue
        items = np.array([sessions[s][position[s]] for s in chosen], np.int32)
        began = time.perf_counter()
        scores = recommender.events([str(s) for s in chosen], items)
        seconds.append((time.perf_counter() - began) / len(chosen))
        found.append(ranks(scores, np.array([sessions[s][position[s] + 1] for s in chosen])))
        for s in chosen:
            position[s] += 1
            if position[s] + 1 == len(sessions[s]):
                recommender.end(str(s))
                del position[s]
    return np.concatenate(found), seconds, most


def baselines(train: list[list[int]], test: list[list[int]], count: int) -> dict[str, np.ndarray]:
    """Return the ranks by popularity, and by what most often followed the last item (among equals by popularity)."""
    popularity = np.bincount(np.concatenate(train), minlength=count) + np.linspace(0.5, 0, count)
    follows = np.zeros((count, count), np.float32)
    for session in train:
        np.add.at(follows, (session[:-1], session[1:]), 1)
    pairs = np.array([pair for session in test for pair in pairwise(session)])
    by_popularity, by_markov = [], []
    for part in np.array_split(pairs, max(1, len(pairs) // 1000)):
        last, wanted = part.T
        by_popularity.append(ranks(np.broadcast_to(popularity, (len(part), count)), wanted))
        by_markov.append(ranks(follows[last] + popularity / (2 * popularity.sum()), wanted))
    return {"popularity": np.concatenate(by_popularity), "Markov, item to item": np.concatenate(by_markov)}


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@options("recommend", epochs=6)
@click.option("--live", type=click.IntRange(min=1), default=500, help="Most live sessions at once.", show_default=True)
def main(model: Path, train: bool, epochs: int, seed: int, plot: Path, live: int) -> None:
    """See the module's docstring."""
    if not train:
        need_model(model)
    train_names, test_names = sessions_of_sources()
    if train:
        counts = Counter(item for session in train_names for item in session[:LONGEST])
        items = [item for item, count in counts.most_common() if count >= 20]
    else:
        items = ge.load(model).metadata["items"]
    train_sessions, test_sessions = coded(train_names, items), coded(test_names, items)
    events = sum(map(len, train_sessions))
    click.echo(
        f"{len(items)} items; sessions: {len(train_sessions)} of {events} events to train, {len(test_sessions)} to test"
    )
    if train:
        train_model(model, train_sessions, items, epochs, seed)
    recommender = Recommender(model, 1)
    describe(recommender.model)

    found, seconds, most = replay(model, test_sessions, live, seed)
    results = {**baselines(train_sessions, test_sessions, len(items)), "GRU4Rec, gru_engine": found}
    rows = [
        [name, *(f"{(r <= k).mean():.3f}" for k in (1, 5, 20)), f"{np.where(r <= 20, 1 / r, 0).mean():.3f}"]
        for name, r in results.items()
    ]
    table(["next call", "recall@1", "recall@5", "recall@20", "MRR@20"], rows)
    click.echo(f"\n{len(found)} events in a pool of up to {most} live sessions: {percentiles(seconds)} per event")
    for session in (["open"], ["open", "read"], ["isinstance", "TypeError"], ["zeros", "arange"]):
        items_of = [recommender.items.index(name) for name in session if name in recommender.items]
        if items_of:
            scores = [recommender.events(["shown"], np.array([item]))[0] for item in items_of][-1]
            click.echo(f"  {', '.join(session)} -> {', '.join(recommender.best(scores, 5))}")
            recommender.end("shown")

    def fill(axes: Any) -> None:
        places = np.arange(1, 21)
        for name, r in results.items():
            axes[0].plot(places, [(r <= k).mean() for k in places], ".-", label=name)
        axes[0].set(xlabel="k", ylabel="recall@k", xticks=[1, 5, 10, 15, 20], ylim=(0, None))
        axes[0].set_title("The next call among the first k")
        axes[0].legend()

    draw(plot, (7, 3.2), 1, fill)


if __name__ == "__main__":
    main()
