"""Values, first and second derivatives against PyTorch, in float64."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install -e '.[oracle]'")

from torch.nn import functional  # noqa: E402

import minigan as mg  # noqa: E402
from minigan import nn, ops, optim  # noqa: E402
from minigan.gan import objectives, penalties  # noqa: E402
from minigan.random import Generator  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("backend")]


def draw(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def assert_close(ours, theirs):
    theirs = theirs.detach().numpy()
    ours = ours.numpy()
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype == np.float64
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11 * max(1.0, np.abs(theirs).max(initial=0)))


def compare(ours, theirs, arrays):
    """Compare y = f(x), then g = uᵀ∂y/∂x, then the gradient of Σ v·g with respect to every x and u, u and v random."""
    count = len(arrays)
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = theirs(*leaves)
    (u,) = draw(tuple(expected.shape), seed=1)
    cotangent = torch.tensor(u, requires_grad=True)

    def pulled(*parts):
        return mg.vjp(ours, *parts[:count])[1](parts[count])

    value, pullback = mg.vjp(ours, *arrays)
    assert_close(value, expected)
    first = torch.autograd.grad(
        expected, leaves, cotangent, create_graph=True, allow_unused=True, materialize_grads=True
    )
    for a, b in zip(pullback(u), first, strict=True):
        assert_close(a, b)
    vs = draw(*(a.shape for a in arrays), seed=2)
    total = sum((torch.tensor(v) * g).sum() for v, g in zip(vs, first, strict=True))
    second = torch.autograd.grad(total, [*leaves, cotangent], allow_unused=True, materialize_grads=True)
    for a, b in zip(mg.vjp(pulled, *arrays, u)[1](tuple(vs)), second, strict=True):
        assert_close(a, b)


def to_nchw(x):
    return x.permute(0, 3, 1, 2)


def to_nhwc(x):
    return x.permute(0, 2, 3, 1)


def kernel_of(w):
    return w.permute(3, 2, 0, 1)


# --- ops --------------------------------------------------------------------------------------------------------------

CONVOLUTIONS = [  # image, kernel, stride, padding
    ((5, 7), (3, 3), (1, 1), (0, 0)),
    ((8, 6), (4, 4), (2, 2), (1, 1)),
    ((7, 13), (3, 2), (2, 3), (1, 0)),
    ((6, 5), (1, 1), (1, 2), (0, 0)),
    ((3, 4), (5, 6), (1, 1), (2, 3)),
    ((4, 3), (4, 3), (3, 1), (0, 0)),
]


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), CONVOLUTIONS)
def test_conv2d(size, kernel, stride, padding):
    compare(
        lambda x, w: ops.conv2d(x, w, stride=stride, padding=padding),
        lambda x, w: to_nhwc(functional.conv2d(to_nchw(x), kernel_of(w), stride=stride, padding=padding)),
        draw((2, *size, 3), (*kernel, 3, 2)),
    )


TRANSPOSED = [  # image, kernel, stride, padding, output padding
    ((2, 3), (3, 3), (1, 1), (0, 0), (0, 0)),
    ((4, 3), (4, 4), (2, 2), (1, 1), (0, 0)),
    ((3, 5), (3, 3), (2, 2), (1, 1), (1, 1)),
    ((3, 2), (2, 3), (3, 2), (0, 1), (2, 0)),
    ((1, 1), (4, 2), (2, 3), (1, 0), (1, 2)),
    ((2, 4), (1, 2), (2, 1), (0, 0), (0, 0)),
]


@pytest.mark.parametrize(("size", "kernel", "stride", "padding", "extra"), TRANSPOSED)
def test_conv2d_transpose(size, kernel, stride, padding, extra):
    def theirs(y, w):
        return to_nhwc(
            functional.conv_transpose2d(to_nchw(y), kernel_of(w), stride=stride, padding=padding, output_padding=extra)
        )

    def ours(y, w):
        return ops.conv2d_transpose(y, w, stride=stride, padding=padding, output_padding=extra)

    compare(ours, theirs, draw((2, *size, 2), (*kernel, 3, 2)))


ACTIVATIONS = {
    "linear": lambda v: v,
    "relu": functional.relu,
    "leaky_relu": lambda v: functional.leaky_relu(v, 0.3),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense(activation):
    compare(
        lambda x, w, b: ops.dense(x, w, b, activation=activation, slope=0.3),
        lambda x, w, b: ACTIVATIONS[activation](x @ w + b),
        draw((5, 3), (3, 4), (4,)),
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bias_act(activation):
    compare(
        lambda x, b: ops.bias_act(x, b, activation=activation, slope=0.3),
        lambda x, b: ACTIVATIONS[activation](x + b),
        draw((2, 3, 2, 4), (4,)),
    )


@pytest.mark.parametrize("shape", [(7, 3), (2, 3, 4, 5), (3, 1, 1, 2)])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_batch_norm(shape, eps):
    def theirs(x, gamma, beta):
        flat = x.reshape(-1, shape[-1])
        return functional.batch_norm(flat, None, None, gamma, beta, training=True, eps=eps).reshape(shape)

    compare(lambda x, gamma, beta: ops.batch_norm(x, gamma, beta, eps=eps), theirs, draw(shape, shape[-1:], shape[-1:]))


# --- objectives and penalties -----------------------------------------------------------------------------------------


def bce(logits, target):
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


OBJECTIVES = {
    "minimax": (lambda r, f: bce(r, 1.0) + bce(f, 0.0), lambda r, f: -bce(f, 0.0)),
    "non-saturating": (lambda r, f: bce(r, 1.0) + bce(f, 0.0), lambda r, f: bce(f, 1.0)),
    "least-squares": (
        lambda r, f: (functional.mse_loss(r, torch.ones_like(r)) + functional.mse_loss(f, torch.zeros_like(f))) / 2,
        lambda r, f: functional.mse_loss(f, torch.ones_like(f)) / 2,
    ),
    "hinge": (lambda r, f: torch.relu(1 - r).mean() + torch.relu(1 + f).mean(), lambda r, f: -f.mean()),
    "wasserstein": (lambda r, f: f.mean() - r.mean(), lambda r, f: -f.mean()),
    "relativistic": (lambda r, f: bce(r - f, 1.0), lambda r, f: bce(f - r, 1.0)),
}


@pytest.mark.parametrize("player", ["discriminator", "generator"])
@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_objective(name, player):
    ours = getattr(objectives.OBJECTIVES[name], player)
    theirs = OBJECTIVES[name][player == "generator"]
    compare(ours, theirs, [3 * a for a in draw((7, 1), (7, 1))])


def dense_networks():
    def theirs(x, w1, b1, w2, b2):
        return torch.tanh(x @ w1 + b1) @ w2 + b2

    return nn.Sequential(nn.Dense(5, 4), nn.Tanh(), nn.Dense(4, 1)), theirs, (3, 5)


def conv_networks():
    def theirs(x, w1, b1, w2, b2, w3, b3):
        x = functional.conv2d(to_nchw(x), kernel_of(w1), b1, stride=2, padding=1)
        x = functional.conv2d(functional.leaky_relu(x, 0.2), kernel_of(w2), b2, stride=(2, 1))
        return to_nhwc(torch.sigmoid(x)).flatten(1) @ w3 + b3

    ours = nn.Sequential(
        nn.Conv2d(2, 3, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(3, 2, (3, 2), (2, 1)),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Dense(2 * 1 * 2, 1),
    )
    return ours, theirs, (3, 8, 6, 2)


def torch_slopes(network, x, weights):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(network(x, *weights).sum(), x, create_graph=True)[0].flatten(1)


@pytest.mark.parametrize("networks", [dense_networks, conv_networks])
@pytest.mark.parametrize("penalty", ["r1", "r2", "wgan_gp"])
def test_penalty_and_its_gradient_in_the_weights(penalty, networks):
    ours, theirs, shape = networks()
    real, fake = draw(shape, shape)
    weights = draw(*(p.shape for p in ours.parameters()), seed=3)

    def of_weights(*tensors):
        network = ours.with_parameters(tensors)
        if penalty == "wgan_gp":
            return penalties.wgan_gp(7.0).of(network, mg.tensor(real), mg.tensor(fake), noise=Generator(11))
        return getattr(penalties, penalty)(3.0).of(network, mg.tensor(real), mg.tensor(fake))

    leaves = [torch.tensor(w, requires_grad=True) for w in weights]
    if penalty == "wgan_gp":
        epsilon = Generator(11).uniform((shape[0], *[1] * (len(shape) - 1)), dtype=np.float64).numpy()
        mixed = torch.tensor(epsilon * real + (1 - epsilon) * fake)
        expected = 7.0 * ((torch_slopes(theirs, mixed, leaves).norm(dim=1) - 1) ** 2).mean()
    else:
        x = torch.tensor(real if penalty == "r1" else fake)
        expected = 1.5 * (torch_slopes(theirs, x, leaves) ** 2).sum(1).mean()
    value, pullback = mg.vjp(of_weights, *weights)
    assert_close(value, expected)
    gradients = torch.autograd.grad(expected, leaves, allow_unused=True, materialize_grads=True)
    assert sum(float(g.abs().max()) > 1e-6 for g in gradients) >= 3
    for a, b in zip(pullback(np.ones(())), gradients, strict=True):
        assert_close(a, b)


# --- optimisers -------------------------------------------------------------------------------------------------------

OPTIMISERS = {
    "sgd": (lambda p: optim.SGD(p, 0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (lambda p: optim.SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "weight decay": (
        lambda p: optim.SGD(p, 0.1, momentum=0.5, weight_decay=0.2),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.5, weight_decay=0.2),
    ),
    "rmsprop": (lambda p: optim.RMSProp(p, 0.01), lambda p: torch.optim.RMSprop(p, 0.01)),
    "rmsprop, alpha": (
        lambda p: optim.RMSProp(p, 0.01, alpha=0.8, eps=1e-3),
        lambda p: torch.optim.RMSprop(p, 0.01, alpha=0.8, eps=1e-3),
    ),
    "adam": (lambda p: optim.Adam(p, 0.01), lambda p: torch.optim.Adam(p, 0.01)),
    "adam, betas": (
        lambda p: optim.Adam(p, 0.02, (0.5, 0.9), 1e-4),
        lambda p: torch.optim.Adam(p, 0.02, (0.5, 0.9), 1e-4),
    ),
    "adam, no first moment": (
        lambda p: optim.Adam(p, 0.02, (0.0, 0.99)),
        lambda p: torch.optim.Adam(p, 0.02, (0.0, 0.99)),
    ),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimiser_over_20_steps(name):
    shapes = ((3, 4), (4,), (2, 1, 2, 3))
    start = draw(*shapes)
    ours = [mg.tensor(a, requires_grad=True) for a in start]
    theirs = [torch.tensor(a, requires_grad=True) for a in start]
    optimiser, other = OPTIMISERS[name][0](ours), OPTIMISERS[name][1](theirs)
    for step in range(20):
        gradients = draw(*shapes, seed=100 + step)
        optimiser.step(gradients)
        for p, g in zip(theirs, gradients, strict=True):
            p.grad = torch.tensor(g)
        other.step()
    for a, b, first in zip(ours, theirs, start, strict=True):
        assert_close(a, b)
        assert np.abs(a.numpy() - first).min() > 0


# --- conventions at NaN, ±∞ and ±0 ------------------------------------------------------------------------------------

INF, NAN = float("inf"), float("nan")
SPECIAL = [NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0]
ZERO = torch.zeros((), dtype=torch.float64)
POINTWISE = {
    "abs": (ops.abs, torch.abs),
    "clip": (lambda x: ops.clip(x, -1.0, 1.0), lambda x: torch.clamp(x, -1.0, 1.0)),
    "clip low": (lambda x: ops.clip(x, low=0.0), lambda x: torch.clamp(x, min=0.0)),
    "clip high": (lambda x: ops.clip(x, high=0.0), lambda x: torch.clamp(x, max=0.0)),
    "div": (lambda x: x / 2.0, lambda x: x / 2.0),
    "exp": (ops.exp, torch.exp),
    "exponential": (lambda x: 2.0**x, lambda x: 2.0**x),
    "hinge fake": (lambda x: ops.mean_loss(x, "hinge_fake") * 7.0, lambda x: functional.relu(1 + x)),
    "hinge real": (lambda x: ops.mean_loss(x, "hinge_real") * 7.0, lambda x: functional.relu(1 - x)),
    "leaky_relu": (lambda x: ops.leaky_relu(x, 0.2), lambda x: functional.leaky_relu(x, 0.2)),
    "log": (ops.log, torch.log),
    "maximum": (lambda x: ops.maximum(x, 0.0), lambda x: torch.maximum(x, ZERO)),
    "maximum, second": (lambda x: ops.maximum(0.0, x), lambda x: torch.maximum(ZERO, x)),
    "minimum": (lambda x: ops.minimum(x, 0.0), lambda x: torch.minimum(x, ZERO)),
    "mul": (lambda x: x * 0.0, lambda x: x * 0.0),
    "power -1": (lambda x: x**-1, lambda x: x**-1),
    "power 0": (lambda x: x**0, lambda x: x**0),
    "power 1.5": (lambda x: x**1.5, lambda x: x**1.5),
    "power 1": (lambda x: x**1, lambda x: x**1),
    "power 3": (lambda x: x**3, lambda x: x**3),
    "reciprocal": (lambda x: 1.0 / x, lambda x: 1.0 / x),
    "relu": (ops.relu, functional.relu),
    "sigmoid": (ops.sigmoid, torch.sigmoid),
    "softplus": (ops.softplus, lambda x: -functional.logsigmoid(-x)),
    "softplus loss": (lambda x: ops.mean_loss(x, "softplus") * 7.0, lambda x: -functional.logsigmoid(-x)),
    "sqrt": (ops.sqrt, torch.sqrt),
    "square": (ops.square, torch.square),
    "tanh": (ops.tanh, torch.tanh),
    "where": (lambda x: ops.where(x.data > 0, x, 0.0), lambda x: torch.where(x > 0, x, ZERO)),
}
ROWS_OF_TWO = [[INF, 1.0], [INF, INF], [-INF, -INF], [-INF, 1.0], [NAN, 1.0], [INF, -INF], [1.0, 1.0], [0.0, -0.0]]
REDUCED = {
    "logsumexp": (lambda x: ops.logsumexp(x, axis=1), lambda x: torch.logsumexp(x, 1)),
    "max": (lambda x: ops.max(x, axis=1), lambda x: torch.amax(x, 1)),
    "mean": (lambda x: ops.mean(x, axis=1), lambda x: torch.mean(x, 1)),
    "min": (lambda x: ops.min(x, axis=1), lambda x: torch.amin(x, 1)),
    "softmax": (
        lambda x: ops.softmax(x) * np.array([1.0, 2.0]),
        lambda x: torch.softmax(x, 1) * torch.tensor([1.0, 2.0]),
    ),
    "sum": (lambda x: ops.sum(x, axis=1), lambda x: torch.sum(x, 1)),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", [*POINTWISE, *REDUCED])
def test_gradients_at_special_values_are_those_of_torch(name):
    """Value and gradient at every special value, also where a cotangent is infinite; bits of a zero's sign aside."""
    ours, theirs = (POINTWISE | REDUCED)[name]
    points = np.array(ROWS_OF_TWO if name in REDUCED else SPECIAL)
    x, t = mg.tensor(points, requires_grad=True), torch.tensor(points, requires_grad=True)
    y, expected = ours(x), theirs(t)
    whole = name.startswith(("hinge", "softplus loss"))  # a mean over all: its value is one number
    if not whole:
        np.testing.assert_array_equal(y.data, expected.detach().numpy())
    (wanted,) = torch.autograd.grad(expected.sum(), t)
    found = mg.grad(y if whole else y.sum(), x)
    if name in ("softplus", "softplus loss", "sigmoid", "tanh", "exponential", "logsumexp"):
        np.testing.assert_allclose(found.data, wanted.numpy(), rtol=1e-15)
    else:
        np.testing.assert_array_equal(found.data, wanted.numpy())
