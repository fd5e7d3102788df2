"""The GPU's side of the kernels: finding CuPy, launching CUDA C, and an emulated device for machines without a GPU."""
