"""The step in JAX: one jitted function of the whole state, channels last, Adam from optax."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


def version():
    return f"JAX {jax.__version__}"


def weights(layer, key):
    """Return the parameters of a layer."""
    kind, *numbers = layer
    if kind == "dense":
        n_in, n_out, bias = numbers
        return [0.05 * jax.random.normal(key, (n_in, n_out))] + [jnp.zeros(n_out)] * bias
    if kind in ("conv", "conv_transpose"):
        c_in, c_out, k, _, _, bias = numbers
        return [0.02 * jax.random.normal(key, (k, k, c_in, c_out))] + [jnp.zeros(c_out)] * bias
    return [jnp.ones(numbers[0]), jnp.zeros(numbers[0])] if kind == "batch_norm" else []


def apply(layer, p, x):
    """Return the layer's output."""
    kind, *numbers = layer
    if kind == "dense":
        y = x @ p[0]
    elif kind == "conv":
        *_, s, pad, _ = numbers
        y = lax.conv_general_dilated(x, p[0], (s, s), ((pad, pad),) * 2, dimension_numbers=LAYOUT)
    elif kind == "conv_transpose":
        _, _, k, s, pad, _ = numbers
        y = lax.conv_transpose(x, p[0], (s, s), ((k - 1 - pad,) * 2,) * 2, dimension_numbers=LAYOUT)
    elif kind == "batch_norm":
        axes = tuple(range(x.ndim - 1))
        return (x - x.mean(axes)) * lax.rsqrt(x.var(axes) + 1e-5) * p[0] + p[1]
    elif kind == "shape":
        return x.reshape(x.shape[0], *numbers)
    elif kind == "flat":
        return x.reshape(x.shape[0], -1)
    elif kind == "leaky_relu":
        return jnp.where(x > 0, x, numbers[0] * x)
    else:
        return {"relu": jax.nn.relu, "tanh": jnp.tanh}[kind](x)
    return y + p[1] if len(p) > 1 else y


def build(workload, variant, place):
    """Return a function that trains one step."""

    def network(layers):
        def run(parameters, x):
            for layer, p in zip(layers, parameters, strict=True):
                x = apply(layer, p, x)
            return x

        return run

    def start(layers, key):
        return [weights(layer, k) for layer, k in zip(layers, jax.random.split(key, len(layers)), strict=True)]

    g, d = network(workload.generator), network(workload.discriminator)
    softplus, adam = jax.nn.softplus, optax.adam(workload.lr, *workload.betas)

    def loss_d(pd, pg, x, z):
        value = softplus(-d(pd, x)).mean() + softplus(d(pd, g(pg, z))).mean()
        if workload.gamma:
            slope = jax.grad(lambda x: d(pd, x).sum())(x)
            value += workload.gamma / 2 * jnp.square(slope).reshape(workload.batch, -1).sum(1).mean()
        return value

    def loss_g(pg, pd, z):
        return softplus(-d(pd, g(pg, z))).mean()

    def update(state, gradient, parameters):
        change, state = adam.update(gradient, state)
        return state, optax.apply_updates(parameters, change)

    @jax.jit
    def train(pg, pd, sg, sd, average, key, x):
        key, *keys = jax.random.split(key, 3)
        z = [jax.random.normal(k, (workload.batch, workload.latent)) for k in keys]
        sd, pd = update(sd, jax.grad(loss_d)(pd, pg, x, z[0]), pd)
        sg, pg = update(sg, jax.grad(loss_g)(pg, pd, z[1]), pg)
        if workload.ema:
            average = jax.tree.map(lambda e, p: e + (1 - workload.ema) * (p - e), average, pg)
        return pg, pd, sg, sd, average, key

    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    pg, pd = start(workload.generator, keys[0]), start(workload.discriminator, keys[1])
    x = jax.random.normal(keys[2], (workload.batch, *workload.shape))
    state = [(pg, pd, adam.init(pg), adam.init(pd), pg if workload.ema else (), keys[3])]

    def step():
        state[0] = train(*state[0], x)

    return step, lambda: jax.block_until_ready(state[0])
