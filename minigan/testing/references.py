"""Ops in plain NumPy, if NumPy has no such function: the references of the op table and the tests."""

from __future__ import annotations

from typing import Any

import numpy as np


def np_sigmoid(x: Any) -> Any:
    """1 / (1 + e^−x)."""
    return np.exp(-np.logaddexp(0, -x))


def np_act(v: Any, activation: str, slope: float) -> Any:
    """Apply an activation by name."""
    functions = {
        "linear": lambda: v,
        "relu": lambda: np.maximum(v, 0),
        "leaky_relu": lambda: np.where(v > 0, v, slope * v),
        "tanh": lambda: np.tanh(v),
        "sigmoid": lambda: np_sigmoid(v),
    }
    return functions[activation]()


def np_act_grad(g: Any, y: Any, activation: str, slope: float) -> Any:
    """g times the derivative of an activation, by its result y."""
    functions = {
        "linear": lambda: g,
        "relu": lambda: g * (y > 0),
        "leaky_relu": lambda: g * np.where(y > 0, 1.0, slope),
        "tanh": lambda: g * (1 - y**2),
        "sigmoid": lambda: g * y * (1 - y),
    }
    return functions[activation]()


def np_conv2d(x: Any, w: Any, stride: Any, padding: Any) -> Any:
    """Correlation by its definition, one output position at a time."""
    (sh, sw), (ph, pw) = stride, padding
    x = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    kh, kw = w.shape[:2]
    out = [[np.tensordot(x[:, i : i + kh, j : j + kw], w, 3) for j in range(0, x.shape[2] - kw + 1, sw)]
           for i in range(0, x.shape[1] - kh + 1, sh)]  # fmt: skip
    return np.array(out).transpose(2, 0, 1, 3)


def np_conv2d_transpose(y: Any, w: Any, stride: Any, padding: Any, output_padding: Any) -> Any:
    """Transposed convolution: add every entry of y, times the kernel, to its window."""
    (sh, sw), (ph, pw) = stride, padding
    kh, kw, c_in, _ = w.shape
    h, v = (y.shape[1] - 1) * sh + kh + output_padding[0], (y.shape[2] - 1) * sw + kw + output_padding[1]
    x = np.zeros((y.shape[0], h, v, c_in))
    for i, j in np.ndindex(y.shape[1:3]):
        x[:, i * sh : i * sh + kh, j * sw : j * sw + kw] += np.einsum("no,abco->nabc", y[:, i, j], w)
    return x[:, ph : h - ph, pw : v - pw]


def np_conv2d_weight_grad(x: Any, y: Any, kernel: Any, stride: Any, padding: Any) -> Any:
    """Weight gradient by summing the outer products of windows and outputs."""
    (sh, sw), (ph, pw) = stride, padding
    x = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    w = np.zeros((*kernel, x.shape[3], y.shape[3]))
    for i, j in np.ndindex(y.shape[1:3]):
        w += np.einsum("nabc,no->abco", x[:, i * sh : i * sh + kernel[0], j * sw : j * sw + kernel[1]], y[:, i, j])
    return w


def np_batch_norm(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    """Normalise over all axes but the last."""
    axes = tuple(range(x.ndim - 1))
    return gamma * (x - x.mean(axes)) / np.sqrt(x.var(axes) + eps) + beta


def np_batch_norm_grad(g: Any, x: Any, gamma: Any, eps: float) -> Any:
    """Gradients of batch norm by the matrix of its Jacobian: ∂x̂ᵢ/∂xⱼ = r (δᵢⱼ − 1/n − x̂ᵢ x̂ⱼ/n)."""
    axes = tuple(range(x.ndim - 1))
    n = x.size // x.shape[-1]
    r = 1 / np.sqrt(x.var(axes) + eps)
    xhat = ((x - x.mean(axes)) * r).reshape(n, -1)
    rows = g.reshape(n, -1)
    dx = np.stack(
        [
            gamma[c] * r[c] * (np.eye(n) - 1 / n - np.outer(xhat[:, c], xhat[:, c]) / n) @ rows[:, c]
            for c in range(x.shape[-1])
        ],
        axis=1,
    )
    return dx.reshape(x.shape), (rows * xhat).sum(0), rows.sum(0)


def np_loss(s: Any, loss: str) -> Any:
    """Mean of a pointwise loss, from its definition."""
    functions = {
        "softplus": lambda: np.logaddexp(0, s),
        "softplus_neg": lambda: np.logaddexp(0, -s),
        "square": lambda: 0.5 * s**2,
        "square_to_one": lambda: 0.5 * (s - 1) ** 2,
        "hinge_fake": lambda: np.maximum(0, 1 + s),
        "hinge_real": lambda: np.maximum(0, 1 - s),
        "linear": lambda: s,
    }
    return np.mean(functions[loss]())


def np_loss_slope(s: Any, loss: str) -> Any:
    """Derivative of np_loss."""
    functions = {
        "softplus": lambda: np_sigmoid(s),
        "softplus_neg": lambda: -np_sigmoid(-s),
        "square": lambda: s,
        "square_to_one": lambda: s - 1,
        "hinge_fake": lambda: 1.0 * (s > -1),
        "hinge_real": lambda: -1.0 * (s < 1),
        "linear": lambda: np.ones_like(s),
    }
    return functions[loss]() / s.size


def np_conv2d_act(x: Any, w: Any, b: Any, activation: str, slope: float, **geometry: Any) -> Any:
    """The convolution, the bias and the activation one after the other."""
    return np_act(np_conv2d(x, w, **geometry) + (0 if b is None else b), activation, slope)


def np_conv2d_transpose_act(y: Any, w: Any, b: Any, activation: str, slope: float, **geometry: Any) -> Any:
    """The transposed convolution, the bias and the activation one after the other."""
    return np_act(np_conv2d_transpose(y, w, **geometry) + (0 if b is None else b), activation, slope)


def np_batch_norm_grad_vjp(u: Any, g: Any, x: Any, gamma: Any, eps: float) -> Any:
    """The VJP of batch norm's gradient, by projection of vectors off 1 and x̂."""
    rows, shape = x.reshape(-1, x.shape[-1]), x.shape
    r = 1 / np.sqrt(rows.var(0) + eps)
    xhat = (rows - rows.mean(0)) * r
    n = len(rows)

    def project(a: Any) -> Any:
        return a - a.sum(0) / n - xhat * (a * xhat).sum(0) / n

    u, g = u.reshape(rows.shape), g.reshape(rows.shape)
    pu, pg = project(u), project(g)
    dx = -gamma * r**2 * (pu * (g * xhat).sum(0) + pg * (u * xhat).sum(0) + xhat * (u * pg).sum(0)) / n
    return (gamma * r * pu).reshape(shape), dx.reshape(shape), (r * u * pg).sum(0)


def np_scatter(x: Any, index: Any, shape: Any) -> Any:
    """Add x into zeros, entry by entry."""
    out = np.zeros(shape)
    places = np.arange(out.size).reshape(shape)[index]
    for place, value in zip(places.reshape(-1), np.asarray(x).reshape(-1), strict=True):
        out.reshape(-1)[place] += value
    return out
