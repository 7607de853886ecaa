# SPDX-License-Identifier: Apache-2.0
"""The cells of cells.py that normalise something; what is common to all cells is said there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gru_engine.activations import ActivationLike, as_number
from gru_engine.arguments import as_array
from gru_engine.cell_parts import (
    Weights,
    activated,
    as_blocks,
    as_order,
    as_probability,
    equal_parts,
    fed,
    hidden_state,
    reset_after,
    scaled,
)
from gru_engine.layers import Array
from gru_engine.network import Network, Value, Vector


def layer_norm_gru(
    net: Network,
    x: Vector,
    W: npt.ArrayLike,
    U: npt.ArrayLike,
    b_x: npt.ArrayLike | None = None,
    b_h: npt.ArrayLike | None = None,
    *,
    scale_x: npt.ArrayLike | None = None,
    scale_h: npt.ArrayLike | None = None,
    epsilon: float = 1e-5,
    zoneout: float = 0.0,
    gates: str = "rzn",
    h0: npt.ArrayLike | None = None,
    name: str | None = None,
) -> Value:
    """A GRU whose input and recurrent products are normalised, each over all gates: that of haste (``LayerNormGRU``).

    ::

        s_x = LN(W x) ⊙ scale_x + b_x          s_h = LN(U h) ⊙ scale_h + b_h
        r = σ(s_x[r] + s_h[r])                 z = σ(s_x[z] + s_h[z])                 n = tanh(s_x[n] + r ⊙ s_h[n])
        h' = z ⊙ h + (1 - z) ⊙ n, and with zoneout p  h' = p h + (1 - p) (z ⊙ h + (1 - z) ⊙ n)

    Parameters
    ----------
    net, x, W, U, b_x, b_h, gates, h0, name
        As the module says, with the gates r, z, n; haste has ``gates="zrn"``.
    scale_x, scale_h : array_like [3*H], optional
        None stands for ones. Both are the rows of haste's ``gamma``.
    epsilon : float
    zoneout : float
        As for ``zoneout_gru``.

    References
    ----------
    Ba, Kiros, Hinton, "Layer Normalization", 2016, arXiv:1607.06450; Krueger et al., 2017, arXiv:1606.01305.
    """
    w = Weights.of(W, U, gates, "rzn", b_x, b_h, scale_x=scale_x, scale_h=scale_h)
    p = as_probability(zoneout)
    h = hidden_state(net, w.hidden, h0, name)
    products = net.dense(x, w.rows("W", "rzn")), net.dense(h, w.rows("U", "rzn"))
    s_x, s_h = (
        net.layer_norm(product, w.rows(f"scale_{side}", "rzn"), w.rows(f"b_{side}", "rzn"), epsilon)
        for product, side in zip(products, "xh")
    )
    z, n = reset_after(net, s_x, s_h, "tanh", "sigmoid")
    return fed(net, h, net.blend(scaled(net, z, 1 - p, p) if p else z, h, n, name=name))


def layer_norm_sum_gru(
    net: Network,
    x: Vector,
    W: npt.ArrayLike,
    U: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    scale: npt.ArrayLike | None = None,
    shift: npt.ArrayLike | None = None,
    epsilon: float = 1e-3,
    update_bias: float = -1.0,
    activation: ActivationLike = "tanh",
    gates: str = "rnz",
    h0: npt.ArrayLike | None = None,
    name: str | None = None,
) -> Value:
    """A GRU whose sums are normalised over all gates: that of DreamerV2. The reset gate acts around everything.

    ::

        s = LN(W x + U h + b) ⊙ scale + shift
        r = σ(s[r])         n = tanh(r ⊙ s[n])         z = σ(s[z] + update_bias)         h' = (1 - z) ⊙ h + z ⊙ n

    Parameters
    ----------
    net, x, W, U, b, gates, h0, name
        As the module says, with the gates r, n, z. DreamerV2's matrix is of the concatenation ``[x, h]``.
    scale, shift : array_like [3*H], optional
        In the order of ``gates``; None stands for ones and zeros.
    epsilon : float
        That of Keras by default.
    update_bias : float
        Is added to s[z].
    activation : str or tuple

    Notes
    -----
    Without the normalisation it is ``Network.gru`` with ``reset="all"``, ``keep="new"`` and ``update_bias`` added to the
    bias of z.

    References
    ----------
    Hafner, Lillicrap, Norouzi, Ba, "Mastering Atari with Discrete World Models", 2021, arXiv:2010.02193.
    """
    w = Weights.of(W, U, gates, "rnz", b, scale=scale, shift=shift)
    h = hidden_state(net, w.hidden, h0, name)
    s = net.add(net.dense(x, w.rows("W", "rnz"), w.rows("b", "rnz")), net.dense(h, w.rows("U", "rnz")))
    offset = w.rows("shift", "rnz").astype(np.float64)
    offset[2 * w.hidden :] += as_number(update_bias, "update_bias")
    r, n, z = equal_parts(net.layer_norm(s, w.rows("scale", "rnz"), offset, epsilon), 3)
    r, z = activated(net, (r, z), ("sigmoid", "sigmoid"))
    return fed(net, h, net.blend(z, net.activation(net.multiply(r, n), activation), h, name=name))


def norm_input_gru(
    net: Network,
    x: Vector,
    W: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    norm: str | None = "rms",
    scale: npt.ArrayLike | None = None,
    shift: npt.ArrayLike | None = None,
    epsilon: float = 1e-4,
    update_bias: float = -1.0,
    activation: ActivationLike = "tanh",
    gates: str = "rnz",
    h0: npt.ArrayLike | None = None,
    name: str | None = None,
) -> Value:
    """A GRU that normalises the concatenation of state and input before the product, in blocks if wanted.

    ::

        s = W norm([h, x]) + b
        r = σ(s[r])         n = tanh(r ⊙ s[n])         z = σ(s[z] + update_bias)         h' = (1 - z) ⊙ h + z ⊙ n

    Parameters
    ----------
    net, x, gates, h0, name
        As the module says, with the gates r, n, z; x cannot be tokens.
    W : array_like [3*H, H + I] or [B, 3*H/B, H/B + I]
        The matrix of the concatenation ``[h, x]``. With three axes the matrix of h is block-diagonal: each of B blocks
        makes a part of the state, from that part and all of x. The rows of a block are in the order of ``gates`` too.
    b : array_like [3*H] or [B, 3*H/B], optional
    norm : {"rms", "layer"} or None
    scale, shift : array_like [H + I], optional
        Of the normalisation; None stands for ones and zeros. rms has no shift.
    epsilon : float
    update_bias : float
        Is added to s[z].
    activation : str or tuple

    Notes
    -----
    It is the GRU of the library that DreamerV3 is written with; ``dreamer_v3_gru`` is DreamerV3's own.

    References
    ----------
    Hafner, Pasukonis, Ba, Lillicrap, "Mastering Diverse Domains through World Models", 2023, arXiv:2301.04104.
    """
    v = net._vector(x, "x")
    if norm not in ("rms", "layer", None):
        raise ValueError(f"norm must be 'rms', 'layer' or None, got {norm!r}")
    if (norm != "layer" and shift is not None) or (norm is None and scale is not None):
        raise ValueError(f"norm={norm!r} has no {'scale' if shift is None else 'shift'}")
    kernels, biases = as_blocks(W, b)
    blocks, rows, columns = kernels.shape
    part = rows // 3  # of the state that a block makes
    if columns != part + v.width:
        raise ValueError(
            f"W must have {part + v.width} columns, {part} for the state and {v.width} for x, got {columns}"
        )
    order = as_order(gates, "rnz")
    h = hidden_state(net, blocks * part, h0, name)
    whole = net.concat([h, v])
    if norm == "rms":
        whole = net.rms_norm(whole, scale, epsilon)
    elif norm == "layer":
        whole = net.layer_norm(whole, scale, shift, epsilon)
    state, rest = whole[: blocks * part], whole[blocks * part :]
    seen = [whole] if blocks == 1 else [net.concat([piece, rest]) for piece in equal_parts(state, blocks)]
    return _update_blocks(net, h, seen, kernels, biases, order, update_bias, activation, name)


def dreamer_v3_gru(
    net: Network,
    x: Vector,
    W: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    projection: Sequence[npt.ArrayLike | None],
    hidden: Sequence[Sequence[npt.ArrayLike | None]],
    epsilon: float = 1e-4,
    update_bias: float = -1.0,
    hidden_activation: ActivationLike = "silu",
    activation: ActivationLike = "tanh",
    gates: str = "rnz",
    h0: npt.ArrayLike | None = None,
    name: str | None = None,
) -> Value:
    """The sequence model of DreamerV3: a GRU in blocks behind hidden layers in blocks, which see the state.

    ::

        p = act(RMS(P h + b_p) ⊙ scale_p)
        v_i = act(RMS(v) ⊙ scale)[block i],  v[block i] = M_i [h_i, p, x] + b_i         the first hidden layer
        v_i = act(RMS(v) ⊙ scale)[block i],  v[block i] = M_i v_i + b_i                 the others
        s_i = W_i v_i + b_i
        r = σ(s[r])         n = tanh(r ⊙ s[n])         z = σ(s[z] + update_bias)        h' = (1 - z) ⊙ h + z ⊙ n

    Parameters
    ----------
    net, gates, h0, name
        As the module says, with the gates r, n, z.
    x : Value or list of Value
        What is seen besides the state: the embedded stochastic state and action.
    W : array_like [B, 3*H/B, V/B]
        A matrix for each of B blocks. The rows of a block are in the order of ``gates``.
    b : array_like [B, 3*H/B], optional
    projection : (P [Q, H], b_p [Q] or None, scale_p [Q] or None)
    hidden : sequence of (M, b or None, scale or None)
        At least one hidden layer: M [B, V/B, K] with K = H/B + Q + width of x in the first, V/B in the others; b
        [B, V/B]; scale [V].
    epsilon : float
        Of all the normalisations, which are by the root mean square.
    update_bias : float
    hidden_activation, activation : str or tuple
        act; that of n.

    References
    ----------
    Hafner, Pasukonis, Ba, Lillicrap, "Mastering Diverse Domains through World Models", 2023, arXiv:2301.04104.
    """
    order = as_order(gates, "rnz")
    W = as_array(W, "W", ("B", "3*H/B", "V/B"), (None, None, None))
    kernels, biases = as_blocks(W, b)
    blocks, rows, _ = kernels.shape
    H = blocks * rows // 3
    h = hidden_state(net, H, h0, name)
    if len(projection) != 3 or not hidden or any(len(layer) != 3 for layer in hidden):
        raise ValueError("projection must be (matrix, bias, scale), and hidden at least one of these for each layer")

    def normal(v: Value, scale: npt.ArrayLike | None) -> Value:
        return net.activation(net.rms_norm(v, scale, epsilon), hidden_activation)

    P, b_p, scale_p = projection
    matrix = as_array(P, "projection: P", ("Q", "H"), (None, H))
    rest = [normal(net.dense(h, matrix, b_p), scale_p), net._vector(x, "x")]
    seen = [net.concat([piece, *rest]) for piece in equal_parts(h, blocks)]
    for i, (M, bias, scale) in enumerate(hidden):
        wanted = (blocks, None, seen[0].width)
        M = as_array(M, f"hidden[{i}]: M", ("B", "V/B", "K"), wanted)
        shape = M.shape[:2]
        bias = as_array(np.zeros(shape) if bias is None else bias, f"hidden[{i}]: b", ("B", "V/B"), shape)
        v = net.concat([net.dense(*layer) for layer in zip(seen, M, bias)])
        seen = equal_parts(normal(v, scale), blocks)
    if seen[0].width != W.shape[2]:
        raise ValueError(f"W must have {seen[0].width} columns, as the last hidden layer has rows, got {W.shape[2]}")
    return _update_blocks(net, h, seen, kernels, biases, order, update_bias, activation, name)


def _update_blocks(
    net: Network,
    h: Value,
    seen: Sequence[Value],
    kernels: Array,
    biases: Array,
    order: str,
    update_bias: float,
    activation: ActivationLike,
    name: str | None,
) -> Value:
    """The new state, each part of it from what its block sees; the reset gate acts around everything."""
    new = []
    in_order = [order.index(gate) for gate in "rzn"]
    for i, old in enumerate(equal_parts(h, len(seen))):
        kernel, bias = (np.split(a, 3) for a in (kernels[i], biases[i].astype(np.float64)))
        bias[order.index("z")] = bias[order.index("z")] + as_number(update_bias, "update_bias")
        s = net.dense(
            seen[i], np.concatenate([kernel[g] for g in in_order]), np.concatenate([bias[g] for g in in_order])
        )
        r, z = equal_parts(net.activation(s[: 2 * old.width], "sigmoid"), 2)
        n = net.activation(net.multiply(r, s[2 * old.width :]), activation)
        new.append(net.blend(z, n, old, name=name if len(seen) == 1 else None))
    return fed(net, h, net.concat(new, name=name))
