"""The engine in twenty printed lines: a tensor remembers how it was made, and that is enough to differentiate it.

python examples/01_gradients.py
"""

import numpy as np

import minigan as mg


def main() -> dict[str, float]:
    """Print one idea a line and return the numbers."""
    x = mg.tensor(2.0, requires_grad=True)
    y = x**3 + mg.ops.exp(-x)
    print("x =", x)
    print("y = x³ + e⁻ˣ =", y, " (it knows the op that made it, and through it all the others)")

    first = mg.grad(y, x, create_graph=True)
    print("dy/dx = 3x² − e⁻ˣ =", first.item())
    h = 1e-3
    around = [(x.item() + d) ** 3 + np.exp(-x.item() - d) for d in (h, -h)]
    print("finite differences say ", (around[0] - around[1]) / (2 * h))
    second = mg.grad(first, x, create_graph=True)
    print("d²y/dx² = 6x + e⁻ˣ =", second.item(), " (a gradient is a tensor with a history, too)")
    third = mg.grad(second, x)
    print("d³y/dx³ = 6 − e⁻ˣ =", third.item())

    a, b = mg.tensor([1.0, 2.0], requires_grad=True), mg.tensor([[3.0], [4.0], [5.0]], requires_grad=True)
    da, db = mg.grad((a * b).sum(), [a, b])
    print("a (2,) times b (3, 1) is broadcast to (3, 2); the gradients come back as", da.shape, "and", db.shape)

    parts = mg.grad((a * b).sum(), {"left": a, "right": [b]})
    print("ask in any structure, and the answer has it:", {key: type(part).__name__ for key, part in parts.items()})

    with mg.no_grad():
        print("inside no_grad nothing is remembered:", (a * a).requires_grad)
    try:
        mg.grad((a * a).sum(), b)
    except ValueError as error:
        print("a question without an answer is refused:", error)

    chain = x
    for _ in range(100_000):
        chain = chain + 0.0
    print("a chain of 100,000 ops is no problem:", mg.grad(chain, x).item())

    relu = mg.grad(mg.ops.relu(mg.tensor(0.0, requires_grad=True) * 1.0 + x - 2.0), x)
    print("at a kink a convention decides: relu'(0) =", relu.item())

    def f(v: mg.Tensor) -> mg.Tensor:
        return mg.ops.log(mg.ops.sum(mg.ops.exp(v)))

    point, direction = np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.0, -1.0])
    print("gradient of log Σ eᵛ is the softmax:", mg.value_and_grad(f, point)[1].numpy().round(4))
    print("its derivative along a direction:   ", round(mg.jvp(f, [point], [direction])[1].item(), 4))
    curvature = mg.hvp(f, point, direction)
    print("its Hessian times that direction:   ", curvature.numpy().round(4))
    other = np.array([2.0, -1.0, 0.5])
    print(
        "and it is symmetric: uᵀHv − vᵀHu =", float(other @ curvature.data - direction @ mg.hvp(f, point, other).data)
    )

    weight = mg.tensor([0.5, -1.0], requires_grad=True)
    image = mg.tensor([1.0, 2.0], requires_grad=True)
    logit = mg.ops.tanh((weight * image).sum())
    slope = mg.grad(logit, image, create_graph=True)
    penalty = mg.ops.square(slope).sum()
    through = mg.grad(penalty, weight)
    print("a gradient penalty is differentiated through the gradient:", through.numpy().round(4))

    image_batch = np.ones((1, 4, 4, 1), np.float32)
    kernel = mg.tensor(np.ones((2, 2, 1, 1), np.float32), requires_grad=True)
    small = mg.ops.conv2d(image_batch, kernel, stride=2)
    print("convolutions are channels-last: image", image_batch.shape, "kernel", kernel.shape, "gives", small.shape)
    print("the gradient of its sum counts the pixels each weight met:", mg.grad(small.sum(), kernel).numpy().ravel())

    mg.testing.check_grads(f, [point])
    print("check_grads: first and second derivatives of log Σ eᵛ agree with finite differences")
    return {
        "first": first.item(),
        "second": second.item(),
        "third": third.item(),
        "curvature": float(curvature.data.sum()),
    }


if __name__ == "__main__":
    main()
