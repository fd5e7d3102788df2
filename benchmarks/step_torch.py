"""The step in PyTorch, as its tutorials write it: eager, with channels-last images and fused Adam, or compiled."""

import copy

import torch
import torch.nn.functional as F
from torch import nn


class Shape(nn.Module):
    def __init__(self, *sizes):
        super().__init__()
        self.sizes = sizes[-1:] + sizes[:-1]  # channels first

    def forward(self, x):
        return x.reshape(x.shape[0], *self.sizes)


BUILDERS = {
    "dense": nn.Linear,
    "conv": lambda i, o, k, s, p, bias: nn.Conv2d(i, o, k, s, p, bias=bias),
    "conv_transpose": lambda i, o, k, s, p, bias: nn.ConvTranspose2d(i, o, k, s, p, bias=bias),
    "batch_norm": nn.BatchNorm2d,
    "shape": Shape,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "flat": nn.Flatten,
}


def version():
    return f"PyTorch {torch.__version__}"


def build(workload, variant, threads):
    """Return a function that trains one step."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    g, d = (
        nn.Sequential(*(BUILDERS[kind](*numbers) for kind, *numbers in layers))
        for layers in (workload.generator, workload.discriminator)
    )
    images, tuned = len(workload.shape) == 3, variant.startswith("channels-last")
    real = torch.randn(workload.batch, *workload.shape[-1:], *workload.shape[:-1])
    if images and tuned:
        g, d, real = (part.to(memory_format=torch.channels_last) for part in (g, d, real))
    average = copy.deepcopy(g) if workload.ema else None
    if variant == "compile":
        g.compile()
        d.compile()
    step_g, step_d = (
        torch.optim.Adam(net.parameters(), workload.lr, workload.betas, fused=tuned or None) for net in (g, d)
    )

    def step():
        with torch.no_grad():
            fake = g(torch.randn(workload.batch, workload.latent))
        x = real.detach().requires_grad_(workload.gamma > 0)
        on_real, on_fake = d(x), d(fake)
        loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        if workload.gamma:
            (slope,) = torch.autograd.grad(on_real.sum(), x, create_graph=True)
            loss = loss + workload.gamma / 2 * slope.flatten(1).square().sum(1).mean()
        step_d.zero_grad()
        loss.backward()
        step_d.step()
        loss = F.softplus(-d(g(torch.randn(workload.batch, workload.latent)))).mean()
        step_g.zero_grad()
        loss.backward()
        step_g.step()
        if average is not None:
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(g.parameters()), 1 - workload.ema)

    return step, lambda: None
