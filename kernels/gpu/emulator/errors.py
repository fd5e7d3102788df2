"""What goes wrong on an emulated device."""


class EmulationError(RuntimeError):
    """A kernel did what CUDA does not allow, or does not promise: the message says which thread, where and what."""


class CompileException(Exception):
    """A kernel does not compile."""


class CUDARuntimeError(RuntimeError):
    """A call that the CUDA runtime refuses."""


class CUDADriverError(RuntimeError):
    """A call that the CUDA driver refuses."""


class OutOfMemoryError(MemoryError):
    """Device memory is full."""
