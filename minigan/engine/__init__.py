"""The engine: Tensors, their graph, and derivatives of every order. Start at tensor.py, then autodiff.py."""
