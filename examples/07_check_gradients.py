"""Check gradients that you wrote by hand: of a NumPy function, a PyTorch Function and a JAX custom_vjp.

python examples/07_check_gradients.py
"""

import importlib.util

import numpy as np

from minigan.testing import GradientError, KinkError, check_vjp

# The log of the logistic function, −log(1 + e⁻ˣ), in a form that never overflows, times a scale.
X, SCALE = np.array([0.3, -1.2, 40.0, -750.0]), np.array(2.5)


def log_sigmoid(x, scale):
    """Return scale · log σ(x)."""
    return scale * -(np.maximum(-x, 0) + np.log1p(np.exp(-np.abs(x))))


def log_sigmoid_vjp(g, x, scale):
    """Return gᵀ·∂f/∂x and gᵀ·∂f/∂scale: the slope of log σ(x) is σ(−x)."""
    small = np.exp(-np.abs(x))
    return g * scale * np.where(x > 0, small, 1.0) / (1 + small), np.sum(g * log_sigmoid(x, 1.0))


def wrong_vjp(g, x, scale):
    """The same with a sum forgotten: the gradient of scale has the shape of x."""
    return log_sigmoid_vjp(g, x, scale)[0], g * log_sigmoid(x, 1.0)


def overflowing_vjp(g, x, scale):
    """The same by the formula of a book, e⁻ˣ / (1 + e⁻ˣ): at x = −750 it is ∞ / ∞."""
    with np.errstate(all="ignore"):
        return g * scale * np.exp(-x) / (1 + np.exp(-x)), np.sum(g * log_sigmoid(x, 1.0))


def verdict(f, vjp, args):
    """Return what the checker says in a line."""
    try:
        check_vjp(f, vjp, args)
    except KinkError as error:
        return f"kink: {error}"
    except GradientError as error:
        return f"wrong: {error}"
    return "right"


def with_pytorch():
    """Check a torch.autograd.Function; the VJP is PyTorch's own call of its backward."""
    import torch

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 3 * g * x * x

    def vjp(g, x):
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(Cube.apply(x), x, g)

    return verdict(Cube.apply, vjp, [torch.linspace(-2, 2, 5)])


def with_jax():
    """Check a jax.custom_vjp; the VJP is jax.vjp's."""
    import jax
    import jax.numpy as jnp

    @jax.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * g * x * x,))
    with jax.enable_x64(True):  # gradients are checked in float64
        return verdict(cube, lambda g, x: jax.vjp(cube, x)[1](g), [jnp.linspace(-2, 2, 5)])


def main():
    """Print the verdicts; return them by name."""
    verdicts = {
        "log σ by hand": verdict(log_sigmoid, log_sigmoid_vjp, [X, SCALE]),
        "a sum forgotten": verdict(log_sigmoid, wrong_vjp, [X, SCALE]),
        "an overflow": verdict(log_sigmoid, overflowing_vjp, [X, SCALE]),
        "|x| at 0": verdict(np.abs, lambda g, x: g * np.sign(x), [np.array([1.0, 0.0])]),
    }
    for library, check in (("torch", with_pytorch), ("jax", with_jax)):
        missing = importlib.util.find_spec(library) is None
        verdicts[library] = f"left out: {library} is not installed" if missing else check()
    for name, said in verdicts.items():
        print(f"{name}: {said}")
    return verdicts


if __name__ == "__main__":
    main()
