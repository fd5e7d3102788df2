"""The engine: Tensors, their graph, and derivatives of every order. Read tensor.py, primitive.py, then autodiff.py."""
