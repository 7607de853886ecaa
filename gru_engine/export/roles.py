# SPDX-License-Identifier: Apache-2.0
"""Which of a model's arguments are inputs, where there are several, and what their axes mean.

All inputs of a network have the same batch and the same time steps. So what the axes of one input mean says what those of the
others may mean (``beside``), and an argument that does not fit is a state, or has no place in a network. What an argument of a
single step is cannot be seen by its shape, because a state has the same: it is an input only if everything fits then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gru_engine.export.common import ExportError

Size = int | str | None
"""Of an axis: a number, or the name of a size that is open, or nothing."""


def beside(layout: str, shape: Sequence[Size], candidates: Sequence[str], other: Sequence[Size]) -> list[str]:
    """The layouts by which another input has the same batch and time as the first.

    Parameters
    ----------
    layout, shape
        Of the first input: a letter for each axis (``gru_engine.export.traced.layouts``), and the sizes.
    candidates : sequence of str
        Possible layouts of the other input, the likely ones first.
    other : sequence
        Its shape.

    Returns
    -------
    list of str
        Those that fit, with sizes of the same name and axes in the same order first.
    """
    axes = _times(layout, shape)

    def rank(candidate: str) -> tuple[int, bool]:
        own = _times(candidate, other)
        return sum(own[c] != axes[c] for c in axes), list(own) != list(axes)

    def fits(candidate: str) -> bool:
        own = _times(candidate, other)
        one_row = "B" not in axes and "1" in layout  # then the other input has such an axis too
        if own.keys() != axes.keys() or (one_row and "1" not in candidate):
            return False
        differ = [c for c in axes if own[c] != axes[c]]
        # Two names may be one size; but a name that the first input has means that axis.
        return all(isinstance(own[c], str) and isinstance(axes[c], str) and own[c] not in shape for c in differ)

    return sorted(filter(fits, dict.fromkeys(candidates)), key=rank)


def _times(layout: str, shape: Sequence[Size]) -> dict[str, Size]:
    return {c: n for c, n in zip(layout, shape) if c in "BT"}


def certain(inputs: Sequence[tuple[str, bool]]) -> bool:
    """Whether the layouts of all inputs, each with whether it is of floats, can be no others.

    Two axes of floats may be steps of one number, or the features of one step; a third axis, or tokens with two, decide it.
    """
    return any(len(layout) >= 3 or (not floats and set("BT") <= set(layout)) for layout, floats in inputs)


def without_time(what: str) -> ExportError:
    """The refusal of an input that is one vector, or one token, for a whole sequence."""
    return ExportError(
        f"{what} has no time axis, as other inputs have; every input of a network is a vector or a token at each step: repeat "
        "it over the time in front of the model"
    )


def named_axes(axes: Mapping[str, str], names: Sequence[str]) -> None:
    """Refuse axes for inputs that a model does not have.

    Raises
    ------
    ExportError
    """
    if not axes:
        raise ExportError("axes: no input is named")
    for name in axes:
        if name not in names:
            raise ExportError(f"axes: the model has no input {name!r}; it has {', '.join(map(repr, names))}")
