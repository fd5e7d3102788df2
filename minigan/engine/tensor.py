"""A Tensor: an array, and the operation and inputs that made it.

A Tensor is its own node of the graph. It points to its inputs and nothing points back, so there are no reference
cycles and a graph is freed the moment its last output goes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from minigan.engine import device as devices
from minigan.engine.habits import missing
from minigan.engine.recorder import recording

FLOAT32 = np.dtype(np.float32)
FLOATS = (FLOAT32, np.dtype(np.float64))

next_id = itertools.count(1).__next__


class Tensor:
    """An array of numbers that remembers how it was computed. Make leaves with :func:`minigan.engine.tensor`.

    A Tensor keeps a copy of the data that it is made of, so a later change of the caller's array does not reach it.
    ``data`` is read-only by contract: only an optimiser changes the data of leaves, and it renews their ``id`` so that
    a gradient through a graph made before the change is refused.

    ``id`` grows with creation, so an input has a smaller id than any result: ids are a topological order.
    ``born`` is the first id; it stays when an optimiser renews ``id``.
    ``memo`` holds values that a kernel computed and the rule uses again, such as the moments of a batch norm.
    """

    __slots__ = ("__weakref__", "born", "data", "id", "inputs", "memo", "op", "requires_grad", "settings")

    data: Any
    requires_grad: bool
    op: Any
    inputs: tuple[Any, ...]
    settings: Any
    memo: Any
    born: int
    id: int

    def __new__(cls, data: Any, requires_grad: bool = False) -> Tensor:
        """Make a leaf of a copy of ``data``, as :func:`tensor` does; arrays of a device stay there."""
        where = devices.device_of(data.data if isinstance(data, Tensor) else data)
        return tensor(data, device=where, requires_grad=requires_grad)

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """The number of entries."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype of the entries."""
        return self.data.dtype

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return devices.device_of(self.data)

    def numpy(self) -> np.ndarray:
        """Return the entries as a NumPy array, copied: writing to it does not reach the Tensor."""
        return np.array(devices.to_numpy(self.data))

    def item(self) -> Any:
        """Return the only entry as a Python number; ValueError if there is not exactly one."""
        if self.data.size != 1:
            raise ValueError(f"item() needs a Tensor of one entry, not of shape {self.shape}")
        return self.data.item()

    def detach(self) -> Tensor:
        """Return a copy of the data as a constant: no gradient passes through it, and no optimiser reaches it."""
        return wrap(self.data.copy())

    def __reduce__(self) -> tuple[Any, ...]:
        if self.op is not None:
            raise TypeError(
                f"a Tensor with a graph (op={self.op.name}) cannot be copied or pickled: its graph would be lost, "
                "so copy t.detach()"
            )
        return _unpickled, (self.data.copy(), self.requires_grad)

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        if self.data.size != 1:
            raise TypeError(f"the format {spec!r} needs a Tensor of one entry, not of shape {self.shape}")
        return format(self.data.item(), spec)

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "a Tensor is never written into, because graphs hold it: make another one with ops.where(mask, value, t) "
            "or ops.concat, or change the array before tensor(array)"
        )

    def __getattr__(self, name: str) -> Any:
        return missing("Tensor", self, name)

    def __len__(self) -> int:
        if not self.data.ndim:
            raise TypeError("a Tensor of shape () has no length")
        return self.data.shape[0]

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __repr__(self) -> str:
        values = np.array2string(devices.to_numpy(self.data), separator=", ", prefix="tensor(")
        notes = [f"dtype={self.dtype}"] if self.dtype != FLOATS[0] else []
        notes += [f"device={self.device!r}"] if self.device != "cpu" else []
        notes += ["requires_grad=True"] if self.requires_grad and self.op is None else []
        notes += [f"op={self.op.name}"] if self.op is not None else []
        return f"tensor({', '.join([values, *notes])})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad:
            raise TypeError("this Tensor requires grad, and NumPy would lose its graph: use .detach() or .numpy()")
        array = np.array(devices.to_numpy(self.data), dtype=dtype, copy=copy).view()
        array.flags.writeable = copy is True  # nobody may write a Tensor's data through its array
        return array

    if TYPE_CHECKING:  # minigan.ops sets these operators and methods on the class
        T: Tensor

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __pow__(self, exponent: float) -> Tensor: ...
        def __rpow__(self, base: float) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __iter__(self) -> Iterator[Tensor]: ...
        def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def var(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def max(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def min(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def transpose(self, *axes: Any) -> Tensor: ...
        def astype(self, dtype: Any) -> Tensor: ...
        def to(self, device: str) -> Tensor: ...
        def sum_to(self, shape: tuple[int, ...]) -> Tensor: ...


def native(dtype: np.dtype) -> np.dtype:
    """Return a dtype in this machine's order of bytes."""
    return dtype if dtype.isnative else dtype.newbyteorder("=")


_new = object.__new__


def wrap(
    data: Any, requires_grad: bool = False, op: Any = None, inputs: tuple[Any, ...] = (), settings: Any = None
) -> Tensor:
    """Return a Tensor around an array that nobody else writes into, without a copy: the engine's own way."""
    made = _new(Tensor)
    # NumPy's functions return scalars for shape ()
    made.data = data if type(data) is np.ndarray or not isinstance(data, np.generic) else np.asarray(data)
    made.requires_grad = requires_grad
    made.op = op
    made.inputs = inputs
    made.settings = settings
    made.memo = None
    made.born = made.id = next_id()
    return made


def _unpickled(data: Any, requires_grad: bool) -> Tensor:
    """Return a leaf with an id of this process: ids order the nodes of one process alone."""
    return wrap(data, requires_grad)


def tensor(data: Any, *, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """Make a leaf Tensor from a copy of ``data`` (numbers, nested lists, an array or a Tensor).

    Python floats become float32; arrays keep their dtype unless ``dtype`` says otherwise.
    TypeError for dtypes other than float32, float64, integers and bool, and for integers that should require grad.
    """
    if isinstance(data, Tensor):
        data = data.data
    if isinstance(data, np.ma.MaskedArray):
        raise TypeError("tensor(data): a masked array has entries that are no numbers: fill them first")
    where = devices.resolve(device)
    keep = devices.is_array(data) or isinstance(data, np.generic)
    try:
        if where != "cpu" and devices.device_of(data) == where:
            array = data.astype(data.dtype if dtype is None else dtype)  # a copy, without a way over the host
        else:
            array = _copied(devices.to_numpy(data), dtype=dtype)
    except ValueError as error:
        raise ValueError(f"tensor(data): the data must be a rectangular array of numbers ({error})") from None
    if dtype is None and not keep and array.dtype == FLOATS[1]:
        array = array.astype(FLOATS[0])
    if not array.dtype.isnative:
        array = array.astype(native(array.dtype))
    if array.dtype not in FLOATS and array.dtype.kind not in "iub":
        raise TypeError(f"tensor(data): dtype {array.dtype} is not supported: use float32, float64, integers or bool")
    if requires_grad and array.dtype not in FLOATS:
        raise TypeError(f"tensor(data): only float32 and float64 can require grad, not {array.dtype}")
    recorder = recording()
    if recorder is not None and isinstance(data, np.ndarray) and where == "cpu":
        array = recorder.add(_copied, [data], {"dtype": array.dtype}, array)
    return wrap(devices.to_device(array, where), requires_grad)


def _copied(data: Any, *, dtype: Any) -> np.ndarray:
    return np.array(data, dtype=dtype, order="C")
