"""The tester is tested: each bug here is planted for one test, and the checks of its row must find it.

The same checks pass a moment earlier without the bug, so it is the bug that they find.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from minigan import kernels, ops
from minigan.engine.autodiff import flatten
from minigan.engine.primitive import primitives
from minigan.engine.tensor import Tensor
from minigan.engine.transforms import vjp
from minigan.ops import norm
from minigan.testing.gradcheck import check_row
from minigan.testing.optable import ROWS

from .test_optable import Draw

ROOT = Path(__file__).parent.parent
PRIMITIVES = {p.name: p for p in primitives()}
TABLE = {row.name: row for row in ROWS}
SEEDS = range(6)


def check(row):
    """What the op table's tests do to a row, on a few fixed draws."""
    for seed in SEEDS:
        case = row.make(Draw(seed))
        tensors = [Tensor(x) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x for x in case.args]
        wanted = row.reference(*case.args, **case.settings)
        found = flatten(row.op(*tensors, **case.settings))
        for y, reference in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
            assert y.shape == np.shape(reference)
            np.testing.assert_allclose(y.data, reference, rtol=1e-11, atol=1e-12)
        check_row(row, seed)


def rule(name, position, wrong):
    """Replace one rule of a primitive; ``wrong`` gets the right rule first."""
    op = PRIMITIVES[name]

    def plant(monkeypatch):
        right = op.rules[position]
        rules = list(op.rules)
        rules[position] = lambda *args, **settings: wrong(right, *args, **settings)
        monkeypatch.setattr(op, "rules", tuple(rules))

    return plant


def joint(op, wrong):
    """Replace the joint rule of a primitive."""

    def plant(monkeypatch):
        right = op.joint_rule
        monkeypatch.setattr(op, "joint_rule", lambda *args, **settings: wrong(right, *args, **settings))

    return plant


def forward(name, wrong):
    """Replace a primitive's function on arrays."""
    op = PRIMITIVES[name]

    def plant(monkeypatch):
        right = op.forward
        monkeypatch.setattr(op, "forward", lambda *args, **settings: wrong(right, *args, **settings))

    return plant


def kernel(name, wrong):
    """Replace the Numba version of a kernel."""
    implementations = kernels.registry()[name].implementations

    def plant(monkeypatch):
        right = implementations["numba"]
        monkeypatch.setitem(implementations, "numba", lambda *args, **settings: wrong(right, *args, **settings))

    return plant


def constant(t):
    return Tensor(t.data)


def one_entry(t):
    """1 everywhere but for one entry."""
    factor = np.ones(t.shape)
    factor.reshape(-1)[-1:] = 1.001
    return t * factor


def first_order_only(t, x):
    """Right in value, 0.1% off in its derivative with respect to x."""
    return t * (1.0 + 0.001 * (x - constant(x)))


def spoiled_norm(right, u, out, g, x, gamma, *, eps, **_):
    """Second derivatives of batch norm with the batch's deviation taken as a constant."""

    def formula(g, x, gamma):
        axes = tuple(range(x.ndim - 1))
        r = constant(1.0 / ops.sqrt(ops.var(x, axes) + eps))
        xhat = (x - ops.mean(x, axes)) * r
        return gamma * r * (g - ops.mean(g, axes) - xhat * ops.mean(g * xhat, axes))

    return vjp(formula, g, x, gamma)[1](u)


def norm_without(term):
    def wrong(right, g, x, y, gamma, *, mean, var, eps, **kind):
        dx, dgamma, dbeta = right(g, x, y, gamma, mean=mean, var=var, eps=eps, **kind)
        n, r = x.size // x.shape[-1], 1 / np.sqrt(var + eps)
        missing = {"mean": dbeta / n, "variance": (x - mean) * r * dgamma / n}[term]
        return dx + gamma * r * missing, dgamma, dbeta

    return wrong


def overwrite(right, x, *, index, shape):
    out = np.zeros(shape)
    out[index] = x
    return out


def crop(right, g, y, x, *, widths):
    return ops.getitem(g, tuple(slice(high, high + n) for (_, high), n in zip(widths, x.shape, strict=True)))


def flipped_stride(right, y, w, b, *, stride, padding, output_padding, **kind):
    return right(y, w, b, stride=stride[::-1], padding=padding, output_padding=output_padding[::-1], **kind)


def averaged_bias(right, g, y, **kind):
    dv, db = right(g, y, **kind)
    return dv, db * (db.size / y.size)


def without_a_projection(right, u, g, x, y, gamma, **found):
    dg, dx, dgamma = right(u, g, x, y, gamma, **found)
    return dg + gamma / np.sqrt(found["var"] + found["eps"]) * u.mean(tuple(range(x.ndim - 1))), dx, dgamma


def sum_to_first(x, shape):
    """Undo broadcasting by taking the first entry instead of the sum."""
    lead = x.ndim - len(shape)
    return x[(0,) * lead][tuple(slice(0, n) for n in shape)]


def changes_cotangent(right, g, y, x):
    g.data *= 1.5
    return -g


class Drifting:
    """A rule whose result depends on how often it was called."""

    def __init__(self):
        self.calls = itertools.count()

    def __call__(self, right, g, y, x):
        return right(g, y, x) * (1.0 + 1e-15 * next(self.calls))


def method(name, wrong):
    return lambda monkeypatch: monkeypatch.setattr(Tensor, name, wrong)


BUGS = [
    ("a VJP 0.05% off", "tanh", rule("tanh", 0, lambda right, *a: right(*a) * 1.0005)),
    ("a VJP off in one entry", "exp", rule("exp", 0, lambda right, *a: one_entry(right(*a)))),
    ("a second-order rule 0.1% off", "square", rule("square", 0, lambda r, g, y, x: first_order_only(r(g, y, x), x))),
    ("a saved result taken as a constant", "exp", rule("exp", 0, lambda right, g, y, x: g * constant(y))),
    ("a saved input taken as a constant", "mul", rule("mul", 0, lambda right, g, out, x, y: g * constant(y))),
    ("a quotient's result taken as a constant", "div", rule("div", 1, lambda r, g, out, x, y: -g * constant(out) / y)),
    ("a factor lost", "sqrt", rule("sqrt", 0, lambda right, g, y, x: g / y)),
    ("a sign lost", "sub", rule("sub", 1, lambda right, g, out, x, y: g)),
    ("an exponent not lowered", "power", rule("power", 0, lambda r, g, y, x, *, exponent: g * (exponent * y))),
    ("half precision of a gradient", "log", rule("log", 0, lambda right, *a: right(*a).astype(np.float32))),
    ("a VJP that drifts from call to call", "softplus", rule("softplus", 0, Drifting())),
    ("a cotangent changed in place", "neg", rule("neg", 0, changes_cotangent)),
    ("an input changed in place", "abs", forward("abs", lambda right, x: np.abs(np.multiply(x, 1.1, out=x)))),
    ("a value off by rounding to float32", "sigmoid", forward("sigmoid", lambda r, x: r(x).astype("f").astype("d"))),
    ("a broadcast axis not summed", "add", method("sum_to", sum_to_first)),
    ("gradients of a maximum swapped", "maximum", rule("maximum", 0, lambda right, *a: PRIMITIVES["maximum"].rules[1](*a))),
    ("a gradient that passes a clip", "clip", rule("clip", 0, lambda right, g, y, x, **_: g)),
    ("branches of where swapped", "where", rule("where", 0, lambda r, g, o, x, y, *, condition: ops.where(~condition, g, 0.0))),
    ("softmax without its normaliser", "softmax", rule("softmax", 0, lambda right, g, y, x, *, axes: y * g)),
    ("logsumexp with e^x for softmax", "logsumexp", rule("logsumexp", 0, lambda right, g, y, x, *, axes: g * ops.exp(x))),
    ("the largest entry's gradient for all", "max", rule("amax", 0, lambda right, g, y, x, *, axes: ops.broadcast_to(g, x.shape))),
    ("a sum spread over the wrong axis", "sum", rule("sum", 0, lambda right, *a, **s: right(*a, **s)[..., ::-1])),
    ("a transpose undone by itself", "transpose", rule("transpose", 0, lambda r, g, y, x, *, axes: ops.transpose(g, axes))),
    ("repeated indices that overwrite", "getitem", forward("scatter_add", overwrite)),
    ("padding cut on the other side", "pad", rule("pad", 0, crop)),
    ("slices of a concat in reverse", "concat", joint(PRIMITIVES["concat"], lambda r, *a, **s: r(*a, **s)[::-1])),
    ("a matrix not transposed", "matmul", rule("matmul", 0, lambda right, g, y, x, w: ops.matmul(g, ops.reshape(w, w.shape[:-2] + w.shape[:-3:-1])))),
    ("a bias gradient averaged", "bias_act", kernel("bias_act_sums", averaged_bias)),
    ("a bias gradient averaged behind a convolution", "conv2d with bias and activation", kernel("bias_act_sums", averaged_bias)),
    ("a second derivative of batch norm without its mean term", "batch_norm", kernel("batch_norm_grad_vjp", without_a_projection)),
    ("a slope on the wrong side", "leaky_relu", kernel("bias_act_grad", lambda right, g, y, **s: right(g, -y, **s))),
    ("the derivative of tanh by its input", "bias_act_grad", kernel("bias_act_grad", lambda r, g, y, *, activation, slope: g * (1 - y) if activation == "tanh" else r(g, y, activation=activation, slope=slope))),
    ("batch norm without its mean term", "batch_norm", kernel("batch_norm_grad", norm_without("mean"))),
    ("batch norm without its variance term", "batch_norm", kernel("batch_norm_grad", norm_without("variance"))),
    ("batch norm's deviation a constant at order 2", "batch_norm", joint(norm.batch_norm_grad.parts[0], spoiled_norm)),
    ("stride pair swapped in a conv gradient", "conv2d", kernel("conv2d_transpose", flipped_stride)),
    ("a kernel not flipped", "conv2d_transpose", kernel("conv2d_transpose", lambda r, y, w, b, **s: r(y, w[::-1, ::-1].copy(), b, **s))),
    ("height and width swapped", "conv2d_weight_grad", kernel("conv2d_weight_grad", lambda r, *a, **s: r(*a, **s).swapaxes(0, 1))),
    ("the batch shifted by one", "conv2d", kernel("conv2d", lambda right, *a, **s: np.roll(right(*a, **s), 1, axis=0))),
    ("a weight gradient from the next image", "conv2d", kernel("conv2d_weight_grad", lambda r, x, y, **s: r(x, np.roll(y, 1, axis=0), **s))),
    ("channels reversed", "conv2d_transpose", kernel("conv2d_transpose", lambda r, *a, **s: r(*a, **s)[..., ::-1])),
    ("a loss slope not averaged", "mean_loss", kernel("mean_loss", lambda r, s, *, loss: (r(s, loss=loss)[0], r(s, loss=loss)[1] * s.size))),
    ("a loss averaged over one axis less", "mean_loss", kernel("mean_loss", lambda r, s, *, loss: tuple(v * s.shape[0] for v in r(s, loss=loss)))),
    ("a loss without curvature", "loss_slope", rule("loss_slope", 0, lambda right, *a, **s: None)),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("bug", "row", "plant"), BUGS, ids=[name for name, _, _ in BUGS])
def test_planted_bug_is_caught(bug, row, plant, monkeypatch):
    check(TABLE[row])
    with monkeypatch.context() as planted:
        plant(planted)
        with pytest.raises((AssertionError, ValueError)):
            check(TABLE[row])
    check(TABLE[row])


def test_documents_claim_no_other_number_of_bugs():
    """Every row of BUGS is a separate test above, so their number is the only one that a document may claim."""
    claims = [
        (path.name, number)
        for path in [ROOT / ".ci" / "run", *ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md")]
        for number in re.findall(r"(\d+) planted bugs|\"test_planted_bugs\": (\d+)", path.read_text(encoding="utf-8"))
    ]
    assert [(name, max(numbers, key=len)) for name, numbers in claims] == [("run", str(len(BUGS)))]
    assert len({name for name, _, _ in BUGS}) == len(BUGS)
