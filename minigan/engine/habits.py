"""Habits from other libraries: names that are not here, and the sentence that helps."""

from __future__ import annotations

from typing import Any

HABITS = {
    "Tensor": {
        "backward": "gradients are values here: use mg.grad(loss, parameters)",
        "grad": "no gradient is stored here: use mg.grad(loss, parameters)",
        "zero_grad": "no gradient is stored here, so there is nothing to set to zero",
        "requires_grad_": "use mg.tensor(data, requires_grad=True)",
        "view": "use t.reshape(...)",
        "permute": "use t.transpose(...)",
        "unsqueeze": "use t.reshape(...) or t[None]",
        "squeeze": "use t.reshape(...)",
        "cuda": 'use t.to("cuda")',
        "cpu": 'use t.to("cpu")',
        "float": 'use t.astype("float32")',
        "double": 'use t.astype("float64")',
    },
    "Module": {
        "zero_grad": "no gradient is stored here, so there is nothing to set to zero",
        "state_dict": "use named_parameters() and named_buffers()",
        "cuda": 'use module.to("cuda")',
    },
    "Optimizer": {
        "zero_grad": "no gradient is stored here: use optimizer.step(mg.grad(loss, optimizer.parameters))",
        "state_dict": "use optimizer.state()",
    },
}


def missing(kind: str, owner: Any, name: str) -> Any:
    """Raise AttributeError for what ``owner`` does not have; habits of other libraries get the sentence that helps.

    A name that its class has is a property that failed: its own error says why.
    """
    if hasattr(type(owner), name):
        return object.__getattribute__(owner, name)
    hint = HABITS[kind].get(name)
    raise AttributeError(f"{type(owner).__name__} has no attribute {name!r}" + (f": {hint}" if hint else ""))
