# SPDX-License-Identifier: Apache-2.0
"""Generating sequences of tokens: what ``Stream.generate`` is asked for, and beam search. docs/GENERATION.md is exact."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gru_engine import _inputs

if TYPE_CHECKING:
    from gru_engine._core import Model

Array = npt.NDArray[Any]

SCORES = ("logits", "log_probabilities", "probabilities")
"""What an output may hold; their numbers in C are 1, 2, 3."""


# ---------------------------------------------------------------------------------------------------- arguments


class Sampling(NamedTuple):
    """The checked arguments of ``Stream.generate``, as the C core takes them."""

    n: int
    first: npt.NDArray[np.int32]
    temperature: float
    top_k: int
    top_p: float
    seed: int
    offset: int
    stop: npt.NDArray[np.int32]
    output: int
    scores: int


def sampling(
    model: Model,
    n: Any,
    first: Any,
    temperature: Any,
    top_k: Any,
    top_p: Any,
    seed: Any,
    offset: Any,
    stop: Any,
    output: Any,
    scores: Any,
) -> Sampling:
    """Check the arguments of ``Stream.generate``; its docstring says what they are."""
    number, kind = as_output(model, output, scores)
    temperature = _as_float(temperature, "temperature")
    if not (0 <= temperature < math.inf):
        raise ValueError(f"temperature must be finite and at least 0, got {temperature}")
    if top_p is not None:
        top_p = _as_float(top_p, "top_p")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, or None, got {top_p}")
    return Sampling(
        n=_as_int(n, "n", 0, 2**48),
        first=as_prompt(model, first),
        temperature=temperature,
        top_k=0 if top_k is None else min(_as_int(top_k, "top_k", 1, None, " or None"), 2**31),
        top_p=1.0 if top_p is None else top_p,
        seed=secrets.randbits(64) if seed is None else _as_int(seed, "seed", 0, 2**64 - 1, " or None"),
        offset=_as_int(offset, "offset", 0, 2**63 - 1),
        stop=as_stop(model, stop),
        output=number,
        scores=kind,
    )


def as_output(model: Model, output: Any, scores: Any) -> tuple[int, int]:
    """The number of the output that scores the next token, and what it holds: 1 + its place in ``SCORES``."""
    if model._scores(0) < 0:
        raise ValueError("only a model that reads one token per step, and nothing else, can generate tokens")
    names = list(model.outputs)
    if output is None:
        if len(names) > 1:
            raise ValueError(f"output must be the name of one of the model's outputs, {_listed(names)}")
        output = names[0]
    if not isinstance(output, str):
        raise TypeError(f"output must be a string or None, got {output!r}")
    if output not in names:
        raise ValueError(f"output must be one of {_listed(names)}, got {output!r}")
    part = model.outputs[output]
    if part.stop - part.start != model.vocab_size:
        raise ValueError(
            f"output {output!r} has {part.stop - part.start} values, not one for each of the model's "
            f"{model.vocab_size} tokens: it cannot score the next token"
        )
    number = names.index(output)
    if scores is None:
        kind = model._scores(number)
        if not kind:
            raise ValueError(
                f"scores must be given, one of {_listed(SCORES)}: output {output!r} comes neither from a softmax or "
                "log_softmax nor from a dense layer without an activation"
            )
        return number, kind
    if not isinstance(scores, str):
        raise TypeError(f"scores must be a string or None, got {scores!r}")
    if scores not in SCORES:
        raise ValueError(f"scores must be one of {_listed(SCORES)}, got {scores!r}")
    return number, SCORES.index(scores) + 1


def as_prompt(model: Model, first: Any) -> npt.NDArray[np.int32]:
    """At least one token."""
    assert model.vocab_size is not None
    prompt = np.atleast_1d(_tokens(first, "first", model.vocab_size))
    if not len(prompt):
        raise ValueError("first must be a token or a sequence of at least one, got an empty one")
    return prompt


def as_stop(model: Model, stop: Any) -> npt.NDArray[np.int32]:
    """Any number of tokens; None stands for no token."""
    assert model.vocab_size is not None
    return np.atleast_1d(_tokens([] if stop is None else stop, "stop", model.vocab_size))


def _tokens(value: Any, name: str, vocab: int) -> npt.NDArray[np.int32]:
    if isinstance(value, (set, frozenset)):
        value = sorted(value)
    return _inputs.tokens(value, name, vocab, (0, 1))


def _as_int(value: Any, name: str, least: int, most: int | None, otherwise: str = "") -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer{otherwise}, got {value!r}")
    if value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be {limits}{otherwise}, got {value}")
    return int(value)


def _as_float(value: Any, name: str) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    return float(value)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))


def no_choice(output: str, n_tokens: int) -> FloatingPointError:
    """The exception for scores among which no token can be chosen."""
    return FloatingPointError(
        f"output {output!r} is no distribution over tokens after {n_tokens} generated tokens: it holds a NaN, +infinity "
        "or a negative probability, or gives every token the probability 0"
    )


# ---------------------------------------------------------------------------------------------------- beam search


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A sequence of tokens that a beam search has found.

    Attributes
    ----------
    tokens : ndarray int32 [length]
        The tokens after ``first``; the last one is a stop token if the hypothesis is finished.
    log_probability : float
        The sum of the tokens' log-probabilities, that of a stop token included.
    score : float
        ``log_probability / length ** length_penalty``, by which hypotheses are ranked.
    finished : bool
        Whether it ends with a stop token; False if it was cut off after n tokens.
    """

    tokens: npt.NDArray[np.int32]
    log_probability: float
    score: float
    finished: bool


@dataclass(frozen=True)
class _Candidate:
    """A hypothesis in the making: a chain of tokens from the last one backwards."""

    token: int
    before: _Candidate | None
    length: int
    log_probability: float

    def tokens(self) -> npt.NDArray[np.int32]:
        tokens = np.empty(self.length, np.int32)
        at: _Candidate | None = self
        while at is not None:
            tokens[at.length - 1] = at.token
            at = at.before
        return tokens


def beam_search(
    model: Model,
    state: Any,
    width: int,
    *,
    first: Any,
    n: int,
    stop: Any = None,
    length_penalty: float = 0.0,
    n_best: int = 1,
    output: str | None = None,
    scores: str | None = None,
    threads: int = 1,
    context: Any = None,
) -> list[Hypothesis]:
    """Find probable continuations: sequences of tokens that are likely as a whole.

    The ``width`` best hypotheses are kept; at each step each is continued by every token, and the best ``width`` of all
    these are kept. One that ends with a stop token is finished: it is put aside, and others take its place at the next
    step. The search ends as soon as nothing that is still going on can come among the ``n_best`` finished hypotheses.

    Parameters
    ----------
    model : Model
        A model that reads tokens and scores the next one.
    state : array_like [state_size] or bytes, or None
        The state to begin with, as for ``Model.stream``; None is the model's initial state.
    width : int
        Hypotheses kept at each step.
    first : int or array_like [T]
        The token, or the tokens of a prompt, that the hypotheses continue.
    n : int
        Most tokens of a hypothesis.
    stop : int or array_like, optional
        The tokens that finish a hypothesis.
    length_penalty : float
        Hypotheses are ranked by log-probability / length ** length_penalty. 0 ranks by probability, which favours short
        ones; 1 by the mean per token.
    n_best : int
        Most hypotheses to return.
    output : str, optional
        The name of the output that scores the next token, if the model has several.
    scores : {"logits", "log_probabilities", "probabilities"}, optional
        What that output holds, if the model does not say so; see ``Stream.generate``.
    threads : int
        Most threads to use.
    context : array_like [context_size], or dict of str to array_like, optional
        What the sequence is given once, where the model has contexts.

    Returns
    -------
    list of Hypothesis
        The finished ones, best first; then, if those are fewer than ``n_best``, the ones cut off after n tokens, best
        first. Of equal ones that comes first which was found in the fewest steps, then the one whose beginning
        was the better, then the smaller last token.

    Raises
    ------
    TypeError, ValueError
        If an argument has another kind, shape or range, or the model cannot generate tokens.
    FloatingPointError
        If an output holds a NaN, +infinity or a negative probability, or nothing a token could be chosen from.

    Notes
    -----
    The result is the same on any machine as long as length_penalty is 0 or 1; else the C library's ``pow`` has a part in
    the last bit of a score.
    """
    number, kind = as_output(model, output, scores)
    if not model.causal:
        raise ValueError("the network is not causal (a reverse layer, or later steps): it cannot generate tokens")
    name, part = list(model.outputs.items())[number]
    width = _as_int(width, "width", 1, 2**24)
    n = _as_int(n, "n", 0, 2**31 - 1)
    n_best = _as_int(n_best, "n_best", 1, 2**24)
    length_penalty = _as_float(length_penalty, "length_penalty")
    if not abs(length_penalty) <= 100:
        raise ValueError(f"length_penalty must be from -100 to 100, got {length_penalty}")
    stops = set(as_stop(model, stop).tolist())
    prompt = as_prompt(model, first)
    context = _inputs.as_context(context, model.contexts, None)

    y, states = model.run(prompt, state=state, return_state=True, threads=threads, context=context)
    rows, states = np.atleast_2d(y)[-1:, part], states[np.newaxis]
    live: list[_Candidate | None] = [None]  # None: nothing yet
    finished: list[_Candidate] = []

    def score(h: _Candidate) -> float:
        return float(h.log_probability / float(h.length) ** length_penalty)

    for length in range(1, n + 1):
        totals = _log_probabilities(rows, kind, name, length - 1)
        if length > 1:
            totals += np.array([h.log_probability for h in live if h is not None])[:, np.newaxis]
        parents, tokens = _best(totals, width)
        going: list[_Candidate | None] = []
        rows_kept = []
        for parent, token in zip(parents.tolist(), tokens.tolist()):
            new = _Candidate(token, live[parent], length, float(totals[parent, token]))
            if token in stops:
                finished.append(new)
            else:
                going.append(new)
                rows_kept.append(parent)
        live = going
        if not live or length == n:
            break
        finished = sorted(finished, key=score, reverse=True)[:n_best]
        assert live[0] is not None
        # Log-probabilities only fall, so this is the best that can still come, of any length that can.
        hope = live[0].log_probability / max(float(length + 1) ** length_penalty, float(n) ** length_penalty)
        if len(finished) == n_best and score(finished[-1]) >= hope:
            live = []
            break
        y, states = model.run(
            np.array([h.token for h in live if h is not None], np.int32)[:, np.newaxis],
            state=states[rows_kept],
            return_state=True,
            threads=threads,
            context=context,
        )
        rows = y.reshape(len(live), -1)[:, part]

    cut_off = [h for h in live if h is not None] if n else []
    found = [(h, True) for h in sorted(finished, key=score, reverse=True)]
    found += [(h, False) for h in sorted(cut_off, key=score, reverse=True)]
    return [Hypothesis(h.tokens(), h.log_probability, score(h), done) for h, done in found[:n_best]]


def _best(totals: Array, width: int) -> tuple[Array, Array]:
    """Rows and columns of the ``width`` largest values above -infinity, largest first; equals by row, then column."""
    flat = totals.reshape(-1)
    possible = np.flatnonzero(flat > -np.inf)
    if len(possible) > width:
        # The width-th largest value: all above it and, in their order, as many of its equals as there is room for.
        least = np.partition(flat[possible], len(possible) - width)[len(possible) - width]
        above, equal = possible[flat[possible] > least], possible[flat[possible] == least]
        possible = np.sort(np.concatenate([above, equal[: width - len(above)]]))
    order = possible[np.argsort(-flat[possible], kind="stable")]
    return np.divmod(order, totals.shape[1])


def _log_probabilities(rows: Array, kind: int, name: str, n_tokens: int) -> Array:
    """The scores [B, V] of an output as float64 log-probabilities.

    Sums, products and quotients in a fixed order, and no function of the C library: the same bits on any machine.
    """
    a = rows.astype(np.float64)
    most = a.max(axis=1, keepdims=True)
    least = 0 if kind == 3 else -np.inf
    if not ((a >= least).all() and (most > least).all() and (most < np.inf).all()):
        raise no_choice(name, n_tokens)
    if kind == 3:
        positive = a > 0
        return np.where(positive, _log(np.where(positive, a, 1)), -np.inf)
    if kind == 2:
        return a
    a -= most
    return a - _log(np.add.accumulate(_exp(a), axis=1)[:, -1:])


_LN_2 = float.fromhex("0x1.62e42fefa39efp-1")


def _exp(x: Array) -> Array:
    """exp(x) of x <= 0; below exp(-700) 0."""
    limited = np.maximum(x, -700)
    k = np.rint(limited * (1 / _LN_2))
    r = limited - k * _LN_2
    p = np.full_like(r, 1 / math.factorial(13))
    for i in range(12, -1, -1):
        p = p * r + 1 / math.factorial(i)
    return np.where(x < -700, 0, np.ldexp(p, k.astype(np.int64)))


def _log(p: Array) -> Array:
    """log(p) of finite p > 0."""
    f, e = np.frexp(p)
    small = f < float.fromhex("0x1.6a09e667f3bcdp-1")  # sqrt(1/2)
    f, e = np.where(small, 2 * f, f), e - small
    s = (f - 1) / (f + 1)
    u = s * s
    total = np.full_like(u, 1 / 21)
    for i in range(19, 0, -2):
        total = total * u + 1 / i
    log: Array = e * _LN_2 + (s + s) * total
    return log
