# SPDX-License-Identifier: Apache-2.0
"""Published variants of the GRU, put together of the operations of a ``Network``.

Each function adds a cell to a network and returns its output, one value per time step. Three of them (``mgu``, ``li_gru``
and ``grouped_gru``) are the GRU of ``Network.gru`` with other weights: nothing is lost in speed. The others are loops of
states, products and activations. docs/VARIANTS.md has all equations side by side.

What is common to them:

- ``net`` is the network, ``x`` a value of it, a list that stands for a concatenation, or tokens, whose one-hot vectors are
  multiplied then.
- ``W [G*H, I]`` and ``U [G*H, H]`` are the matrices of the input and of the old state, for G gates, the rows of a gate one
  after the other in the order of ``gates``; ``gates`` may be any permutation of its default. Where a publication has one
  matrix for the concatenation ``[h, x]``, they are its first H columns and the others.
- A bias is ``[G*H]``; None stands for zeros. ``h0 [H]`` is the state at the start of a sequence; None stands for zeros.
- ``name`` is the name of the cell's output.
- ValueError or TypeError names an argument that does not fit.

σ is the logistic sigmoid, ⊙ the product element by element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_engine.activations import ActivationLike, as_number
from gru_engine.arguments import as_array
from gru_engine.cell_parts import (
    Weights,
    activated,
    as_order,
    as_probability,
    equal_parts,
    fed,
    gru_loop,
    hidden_state,
    scaled,
)
from gru_engine.layers import Array
from gru_engine.network import Network, Value, Vector
from gru_engine.normalised_cells import dreamer_v3_gru, layer_norm_gru, layer_norm_sum_gru, norm_input_gru

__all__ = [
    "a_gru",
    "au_gru",
    "dreamer_v3_gru",
    "gate_memory_gru",
    "grouped_gru",
    "input_forget_gru",
    "layer_norm_gru",
    "layer_norm_sum_gru",
    "li_gru",
    "mgu",
    "min_gru",
    "norm_input_gru",
    "zoneout_gru",
]

# ---- folded: other weights for Network.gru


def mgu(
    net: Network,
    x: Vector,
    W: npt.ArrayLike,
    U: npt.ArrayLike,
    b_x: npt.ArrayLike | None = None,
    b_h: npt.ArrayLike | None = None,
    *,
    gates: str = "fn",
    reset: str = "before",
    keep: str = "new",
    activation: ActivationLike = "tanh",
    gate_activation: ActivationLike = "sigmoid",
    h0: npt.ArrayLike | None = None,
    name: str | None = None,
) -> Value:
    """The minimal gated unit: one gate f takes the places of both gates of a GRU. Folded into ``Network.gru``.

    ::

        f = σ(W_f x + U_f h + b_f)       n = tanh(W_n x + U_n (f ⊙ h) + b_n)       h' = (1 - f) ⊙ h + f ⊙ n

    Parameters
    ----------
    net, x, W, U, b_x, b_h, gates, h0, name
        As the module says, with the gates f and n. Both biases are added, b_h beside U.
    reset : {"before", "after", "none"}
        Where f acts as the reset gate, as in ``Network.gru``. Flax's MGUCell has it after the product, or nowhere.
    keep : {"new", "old"}
        ``"old"``: ``h' = f ⊙ h + (1 - f) ⊙ n``, as in Flax.
    activation, gate_activation : str or tuple

    References
    ----------
    Zhou, Wu, Zhang, Zhou, "Minimal Gated Unit for Recurrent Neural Networks", 2016, arXiv:1603.09420.
    """
    if reset not in ("before", "after", "none"):
        raise ValueError(f"reset must be 'before', 'after' or 'none', got {reset!r}")
    w = Weights.of(W, U, gates, "fn", b_x, b_h)
    order = "fn" if reset == "none" else "ffn"
    return net.gru(
        x,
        w.rows("W", order),
        w.rows("U", order),
        w.rows("b_x", order),
        w.rows("b_h", order),
        reset=reset,
        gates="zn" if reset == "none" else "rzn",
        keep=keep,
        activation=activation,
        gate_activation=gate_activation,
        h0=h0,
        name=name,
    )


def li_gru(
    net: Network,
    x: Vector,
    W: npt.ArrayLike,
    U: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    batch_norm: Sequence[npt.ArrayLike] | None = None,
    epsilon: float = 1e-5,
    recurrent_norm: float | None = None,
    recurrent_scale: npt.ArrayLike | None = None,
    recurrent_shift: npt.ArrayLike | None = None,
    gates: str = "nz",
    activation: ActivationLike = "relu",
    h0: npt.ArrayLike | None = None,
    name: str | None = None,
) -> Value:
    """The light GRU: no reset gate, batch normalisation of the input's products, relu. Folded into ``Network.gru``.

    ::

        z = σ(BN(W_z x) + U_z h)         n = relu(BN(W_n x) + U_n h)         h' = z ⊙ h + (1 - z) ⊙ n

    Parameters
    ----------
    net, x, W, U, b, gates, h0, name
        As the module says, with the gates n (the candidate) and z, in this order in SpeechBrain.
    batch_norm : (scale, shift, mean, variance), optional
        Of the normalisation, each [2*H] in the order of ``gates``: PyTorch's weight, bias, running_mean, running_var.
    epsilon : float
        Is added to the variance.
    recurrent_norm : float, optional
        The stabilised variant SLi-GRU: U h is normalised too, as by ``Network.layer_norm`` over all 2*H, with this
        epsilon. It is a loop.
    recurrent_scale, recurrent_shift : array_like [2*H], optional
        Of that normalisation, in the order of ``gates``; None stands for ones and zeros.
    activation : str or tuple

    References
    ----------
    Ravanelli, Brakel, Omologo, Bengio, "Light Gated Recurrent Units for Speech Recognition", 2018, arXiv:1803.10225.
    Moumen, Parcollet, "Stabilising and accelerating light gated recurrent units for automatic speech recognition", 2023,
    arXiv:2302.10144.
    """
    w = Weights.of(W, U, gates, "nz", b)
    kernel, bias = w["W"].astype(np.float64), w["b"].astype(np.float64)
    if batch_norm is not None:
        if not isinstance(batch_norm, (list, tuple)) or len(batch_norm) != 4:
            raise ValueError("batch_norm must be four arrays: scale, shift, mean, variance")
        titles = ("scale", "shift", "mean", "variance")
        arrays = [as_array(a, f"batch_norm: {t}", ("2*H",), (len(bias),)) for a, t in zip(batch_norm, titles)]
        scale, shift, mean, variance = (array.astype(np.float64) for array in arrays)
        if not (variance + as_number(epsilon, "epsilon") > 0).all():
            raise ValueError(f"batch_norm: variance + epsilon must be positive, got a least one of {variance.min():g}")
        factor = scale / np.sqrt(variance + epsilon)
        kernel, bias = kernel * factor[:, np.newaxis], (bias - mean) * factor + shift
    given = {"scale_h": recurrent_scale, "shift_h": recurrent_shift}
    w = Weights.of(kernel, U, gates, "nz", bias, **given)
    if recurrent_norm is None:
        if recurrent_scale is not None or recurrent_shift is not None:
            raise ValueError(
                "recurrent_scale and recurrent_shift need recurrent_norm, the epsilon of the normalisation"
            )
        return net.gru(x, w["W"], w["U"], w["b"], reset="none", gates=gates, activation=activation, h0=h0, name=name)
    h = hidden_state(net, w.hidden, h0, name)
    s_x = net.dense(x, w.rows("W", "zn"), w.rows("b", "zn"))
    scale_h, shift_h = (w.rows(name, "zn") for name in given)
    s = net.add(s_x, net.layer_norm(net.dense(h, w.rows("U", "zn")), scale_h, shift_h, recurrent_norm))
    z, n = activated(net, equal_parts(s, 2), ("sigmoid", activation))
    return fed(net, h, net.blend(z, h, n, name=name))


def grouped_gru(
    net: Network,
    x: Vector,
    W: Sequence[npt.ArrayLike] | Array,
    U: Sequence[npt.ArrayLike] | Array,
    b_x: Sequence[npt.ArrayLike] | Array | None = None,
    b_h: Sequence[npt.ArrayLike] | Array | None = None,
    *,
    h0: Sequence[npt.ArrayLike] | Array | None = None,
    name: str | None = None,
    **options: Any,
) -> Value:
    """Several GRUs side by side, each of an equal part of the input: block-diagonal matrices, stored as blocks.

    Parameters
    ----------
    net, x, name
        As the module says; not tokens.
    W, U, b_x, b_h, h0 : sequence of P arrays
        Those of ``Network.gru`` for each part.
    **options
        Of ``Network.gru``, for all of them.

    Returns
    -------
    Value
        The outputs one after the other.

    References
    ----------
    Gao et al., "Efficient Sequence Learning with Group Recurrent Networks", NAACL 2018; Schröter et al.,
    "DeepFilterNet", 2021, arXiv:2110.05588.
    """
    v = net._vector(x, "x")
    parts = len(W)
    for argument, arrays in (("U", U), ("b_x", b_x), ("b_h", b_h), ("h0", h0)):
        if arrays is not None and len(arrays) != parts:
            raise ValueError(f"{argument} must be {parts} arrays, as W is, got {len(arrays)}")
    if not parts or v.width % parts:
        raise ValueError(f"W must be as many arrays as divide the width of x, {v.width}, got {parts}")
    size = v.width // parts

    def of(arrays: Any, part: int) -> Any:
        return None if arrays is None else arrays[part]

    return net.concat(
        [
            net.gru(
                v[i * size : (i + 1) * size],
                W[i],
                U[i],
                of(b_x, i),
                of(b_h, i),
                h0=of(h0, i),
                name=f"{name}.{i}" if name else None,
                **options,
            )
            for i in range(parts)
        ],
        name=name,
    )


# ---- a GRU whose update gate is changed


def zoneout_gru(
    net: Network,
    x: Vector,
    W: npt.ArrayLike,
    U: npt.ArrayLike,
    b_x: npt.ArrayLike | None = None,
    b_h: npt.ArrayLike | None = None,
    *,
    zoneout: float,
    **options: Any,
) -> Value:
    """A GRU with zoneout, which unlike dropout is at work at inference: part of the old state is always kept.

    ::

        h' = p h + (1 - p) (z ⊙ h + (1 - z) ⊙ n)

    which is a GRU with the update gate ``p + (1 - p) z``.

    Parameters
    ----------
    net, x, W, U, b_x, b_h
        As the module says, with the gates r, z, n.
    zoneout : float
        The probability p, 0 to 1, with which a unit was kept in training.
    **options
        ``gates``, ``reset``, ``keep``, ``activation``, ``gate_activation``, ``h0``, ``name`` as in ``Network.gru``.

    References
    ----------
    Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2017, arXiv:1606.01305.
    """
    p = as_probability(zoneout)
    return gru_loop(net, x, W, U, b_x, b_h, update=lambda z: scaled(net, z, 1 - p, p), **options)


def au_gru(
    net: Network,
    x: Vector,
    attention: Value,
    W: npt.ArrayLike,
    U: npt.ArrayLike,
    b_x: npt.ArrayLike | None = None,
    b_h: npt.ArrayLike | None = None,
    *,
    scales: str = "old",
    reset: str = "before",
    **options: Any,
) -> Value:
    """A GRU with attentional update gate (AUGRU): a score a per step scales the update gate.

    ::

        scales="old":  z~ = (1 - a) z            scales="new":  1 - z~ = a (1 - z)
        h' = z~ ⊙ h + (1 - z~) ⊙ n

    Parameters
    ----------
    net, x, W, U, b_x, b_h
        As the module says, with the gates r, z, n; z keeps the old state.
    attention : Value
        Of width 1, or H: the score a, 0 to 1.
    scales : {"old", "new"}
        ``"old"`` is what the authors' program computes, as do oneDNN and OpenVINO; ``"new"`` is the paper's equation,
        with which a step whose score is 0 changes nothing.
    reset : {"before", "after", "all", "none"}
    **options
        ``gates``, ``keep``, ``activation``, ``gate_activation``, ``h0``, ``name`` as in ``Network.gru``.

    References
    ----------
    Zhou et al., "Deep Interest Evolution Network for Click-Through Rate Prediction", 2019, arXiv:1809.03672.
    """
    if scales not in ("old", "new"):
        raise ValueError(f"scales must be 'old' or 'new', got {scales!r}")
    rest = scaled(net, attention, -1, 1)  # 1 - a

    def update(z: Value) -> Value:
        return net.multiply(z, rest) if scales == "old" else net.add(net.multiply(z, attention), rest)

    return gru_loop(net, x, W, U, b_x, b_h, reset=reset, update=update, **options)


def a_gru(
    net: Network,
    x: Vector,
    attention: Value,
    W: npt.ArrayLike,
    U: npt.ArrayLike,
    b_x: npt.ArrayLike | None = None,
    b_h: npt.ArrayLike | None = None,
    *,
    reset: str = "before",
    gates: str = "rn",
    activation: ActivationLike = "tanh",
    gate_activation: ActivationLike = "sigmoid",
    h0: npt.ArrayLike | None = None,
    name: str | None = None,
) -> Value:
    """An attention-based GRU (AGRU): a score a per step stands in the place of the update gate.

    ::

        r = σ(W_r x + U_r h + b_r)     n = tanh(W_n x + U_n (r ⊙ h) + b_n)     h' = (1 - a) h + a n

    Parameters
    ----------
    net, x, W, U, b_x, b_h, gates, h0, name
        As the module says, with the gates r and n. Both biases are added, b_h beside U.
    attention : Value
        Of width 1, or H: the score a, 0 to 1.
    reset : {"before", "after"}
        ``"after"``: ``n = tanh(W_n x + b_xn + r ⊙ (U_n h + b_hn))``.
    activation, gate_activation : str or tuple

    References
    ----------
    Zhou et al., "Deep Interest Evolution Network for Click-Through Rate Prediction", 2019, arXiv:1809.03672.
    """
    if reset not in ("before", "after"):
        raise ValueError(f"reset must be 'before' or 'after', got {reset!r}")
    w = Weights.of(W, U, gates, "rn", b_x, b_h)
    h = hidden_state(net, w.hidden, h0, name)
    r_x, n_x = equal_parts(net.dense(x, w.rows("W", "rn"), w.rows("b_x", "rn")), 2)
    if reset == "after":
        r_h, n_h = equal_parts(net.dense(h, w.rows("U", "rn"), w.rows("b_h", "rn")), 2)
        r = net.activation(net.add(r_x, r_h), gate_activation)
        inner = net.multiply(r, n_h)
    else:
        r = net.activation(net.add(r_x, net.dense(h, w.rows("U", "r"), w.rows("b_h", "r"))), gate_activation)
        inner = net.dense(net.multiply(r, h), w.rows("U", "n"), w.rows("b_h", "n"))
    n = net.activation(net.add(n_x, inner), activation)
    return fed(net, h, net.add(h, net.multiply(net.subtract(n, h), attention), name=name))


# ---- other gates


def gate_memory_gru(
    net: Network,
    x: Vector,
    W: npt.ArrayLike,
    U: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    gates: str = "rzn",
    activation: ActivationLike = "tanh",
    h0: npt.ArrayLike | None = None,
    r0: npt.ArrayLike | None = None,
    z0: npt.ArrayLike | None = None,
    name: str | None = None,
) -> Value:
    """A GRU whose gates have a memory: each is multiplied with what it was at the step before.

    ::

        z = σ(W_z x + U_z h + b_z) ⊙ z_before             r = σ(W_r x + U_r h + b_r) ⊙ r_before
        n = tanh(W_n x + U_n (r ⊙ h) + b_n)               h' = (1 - z) ⊙ h + z ⊙ n
        with an output gate:  o = σ(W_o x + U_o h + b_o)  y = o ⊙ tanh(h'); else y = h'

    Parameters
    ----------
    net, x, W, U, b, gates, h0, name
        As the module says, with the gates r, z, n and, for an output gate, o: ``gates="rzno"``.
    activation : str or tuple
        Of n.
    r0, z0 : array_like [H], optional
        The gates before the first step. None stands for ones: with zeros the state would never change.

    Returns
    -------
    Value
        y.

    Notes
    -----
    As its gates only ever shrink, such a cell stops to change once they have reached zero.
    """
    w = Weights.of(W, U, gates, "rzno" if "o" in gates else "rzn", b)
    order = "rzo" if "o" in gates else "rz"
    H = w.hidden
    h = hidden_state(net, H, h0, name)
    ones = np.ones(H, np.float32)
    initial = [as_array(ones if a is None else a, what, ("H",), (H,)) for a, what in ((r0, "r0"), (z0, "z0"))]
    memory = net.state(2 * H, np.concatenate(initial), name=f"{name}.gates" if name else None)
    s_x = net.dense(x, w.rows("W", order + "n"), w.rows("b", order + "n"))
    sums = net.add(s_x[: -(w.hidden)], net.dense(h, w.rows("U", order)))
    open_now = net.activation(sums, "sigmoid")
    kept = net.multiply(open_now[: 2 * H], memory)
    net.feed(memory, kept)
    r, z = equal_parts(kept, 2)
    n = net.activation(net.add(s_x[-H:], net.dense(net.multiply(r, h), w.rows("U", "n"))), activation)
    with_output = "o" in gates
    new = net.blend(z, n, h, name=f"{name}.h" if name and with_output else name)
    net.feed(h, new)
    return net.multiply(open_now[2 * H :], net.activation(new, "tanh"), name=name) if with_output else new


def input_forget_gru(
    net: Network,
    x: Vector,
    W: npt.ArrayLike,
    U: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    gates: str = "ifn",
    activation: ActivationLike = "tanh",
    h0: npt.ArrayLike | None = None,
    name: str | None = None,
) -> Value:
    """A cell with independent input and forget gates and no reset gate.

    ::

        i = σ(W_i x + U_i h + b_i)     f = σ(W_f x + U_f h + b_f)     n = tanh(W_n x + U_n h + b_n)
        h' = f ⊙ h + i ⊙ n
        with an output gate:  o = σ(W_o x + U_o h + b_o)  y = o ⊙ tanh(h'); else y = h'

    Parameters
    ----------
    net, x, W, U, b, gates, h0, name
        As the module says, with the gates i, f, n and, for an output gate, o: ``gates="ifno"``.
    activation : str or tuple
        Of n.

    Returns
    -------
    Value
        y. The state h is not bounded by 1.
    """
    with_output = "o" in gates
    w = Weights.of(W, U, gates, "ifno" if with_output else "ifn", b)
    order = "ifon" if with_output else "ifn"
    h = hidden_state(net, w.hidden, h0, name)
    s = net.add(net.dense(x, w.rows("W", order), w.rows("b", order)), net.dense(h, w.rows("U", order)))
    H = w.hidden
    open_now = equal_parts(net.activation(s[:-H], "sigmoid"), len(order) - 1)
    n = net.activation(s[-H:], activation)
    title = f"{name}.h" if name and with_output else name
    new = net.add(net.multiply(open_now[1], h), net.multiply(open_now[0], n), name=title)
    net.feed(h, new)
    return net.multiply(open_now[2], net.activation(new, "tanh"), name=name) if with_output else new


def min_gru(
    net: Network,
    x: Vector,
    W: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    gates: str = "zn",
    activation: ActivationLike = "min_gru",
    h0: npt.ArrayLike | None = None,
    name: str | None = None,
) -> Value:
    """The minimal GRU: gate and candidate do not see the state, so nearly everything is computed outside the loop.

    ::

        z = σ(W_z x + b_z)         n = g(W_n x + b_n)         h' = (1 - z) ⊙ h + z ⊙ n

    Parameters
    ----------
    net, x, W, b, gates, h0, name
        As the module says, with the gates z and n.
    activation : str or tuple
        g: ``"min_gru"``, x + 0.5 where x >= 0 and σ(x) elsewhere, for networks trained in log space; ``"linear"`` for
        the plain form.

    References
    ----------
    Feng et al., "Were RNNs All We Needed?", 2024, arXiv:2410.01201.
    """
    order = as_order(gates, "zn")
    W = as_array(W, "W", ("2*H", "I"), (None, None))
    if len(W) % 2:
        raise ValueError(f"W must have the shape [2*H, I], got {list(W.shape)}")
    bias = as_array(np.zeros(len(W), W.dtype) if b is None else b, "b", ("2*H",), (len(W),))
    H = len(W) // 2
    h = hidden_state(net, H, h0, name)
    z, n = (
        net.dense(x, np.split(W, 2)[at], np.split(bias, 2)[at], activation=act)
        for at, act in ((order.index("z"), "sigmoid"), (order.index("n"), activation))
    )
    return fed(net, h, net.blend(z, n, h, name=name))
