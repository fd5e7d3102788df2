"""The step in PyTorch, as its tutorials write it: eager, with channels-last images and fused Adam, or compiled.

On a GPU also as one CUDA graph, channels-last and with fused Adam.
"""

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


def graphed(step):
    """Return the step as one CUDA graph, captured after three steps on a separate stream."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def build(workload, variant, place):
    """Return a function that trains one step, one that waits for it, and on a GPU one that returns its memory."""
    torch.set_num_threads(place.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = place.precision == "tf32"
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    g, d = (
        nn.Sequential(*(BUILDERS[kind](*numbers) for kind, *numbers in layers)).to(place.device)
        for layers in (workload.generator, workload.discriminator)
    )
    images, tuned = len(workload.shape) == 3, variant.startswith("channels-last") or variant == "CUDA graphs"
    real = torch.randn(workload.batch, *workload.shape[-1:], *workload.shape[:-1], device=place.device)
    if images and tuned:
        g, d, real = (part.to(memory_format=torch.channels_last) for part in (g, d, real))
    average = copy.deepcopy(g) if workload.ema else None
    settings = {"fused": tuned or None, "capturable": variant == "CUDA graphs"}
    step_g, step_d = (torch.optim.Adam(net.parameters(), workload.lr, workload.betas, **settings) for net in (g, d))
    if variant == "compile":  # Module.compile() would do nothing: it skips the calls of PyTorch's own modules
        torch._functorch.config.donated_buffer = workload.gamma == 0  # R1 goes through D's gradient again
        g, d = torch.compile(g), torch.compile(d)

    def noise():
        return torch.randn(workload.batch, workload.latent, device=place.device)

    def step():
        with torch.no_grad():
            fake = g(noise())
        x = real.detach().requires_grad_(workload.gamma > 0)
        on_real, on_fake = d(x), d(fake)
        loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        if workload.gamma:
            (slope,) = torch.autograd.grad(on_real.sum(), x, create_graph=True)
            loss = loss + workload.gamma / 2 * slope.flatten(1).square().sum(1).mean()
        step_d.zero_grad()
        loss.backward()
        step_d.step()
        loss = F.softplus(-d(g(noise()))).mean()
        step_g.zero_grad()
        loss.backward()
        step_g.step()
        if average is not None:
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(g.parameters()), 1 - workload.ema)

    if place.device == "cpu":
        return step, lambda: None
    run = graphed(step) if variant == "CUDA graphs" else step
    return run, torch.cuda.synchronize, lambda: torch.cuda.max_memory_reserved() / 2**20
