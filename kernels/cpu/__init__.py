"""The CPU's side of the kernels: compiled loop nests, the threads that share them, and what products are made of."""
