"""All that the kernels use of Numba beyond its documented interface: what a new release may move.

tests/test_numba_private.py tries each name, and setup.py allows no release later than those that were tested. The
documented interface (``njit``, ``types``, ``extending.intrinsic``) is used where it is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

NAMES = {  # by module: what this file takes from it
    "numba": ("typeof",),
    "numba.core.caching.Cache": ("cache_path", "load_overload", "save_overload"),
    "numba.core.caching.CacheImpl": ("filename_base", "locator"),
    "numba.core.cgutils": (
        "alloca_once_value",
        "for_range_slice",
        "get_or_insert_function",
        "pack_struct",
        "unpack_tuple",
    ),
    "numba.core.config": ("BOUNDSCHECK", "DISABLE_JIT", "NUMBA_NUM_THREADS", "OPT"),
    "numba.core.errors": ("TypingError",),
    "numba.core.event": ("Listener", "register"),
    "numba.core.serialize": ("dumps",),
    "numba.types": ("Array", "Integer", "NamedTuple", "unliteral"),
    "numba.core.cpu.CPUContext": (
        "call_conv",
        "get_abi_sizeof",
        "get_dummy_value",
        "get_value_type",
        "make_array",
        "mangler",
    ),
    "numba.core.callconv.CPUCallConv": ("call_function", "get_function_type", "return_user_exc"),
    "numba.core.codegen.JITCodeLibrary": ("get_pointer_to_function",),
    "numba.core.dispatcher.Dispatcher": ("compile", "disable_compile", "enable_caching", "get_call_template", "stats"),
    "numba.core.funcdesc.FunctionDescriptor": ("llvm_func_name",),
}


# --- the compiler -----------------------------------------------------------------------------------------------------


def on_compilation(say: Callable[[], None]) -> Any:
    """Call ``say`` whenever a compilation begins, and not when code is loaded from the cache; return the listener."""
    from numba.core import event

    class Compilation(event.Listener):
        def on_start(self, event: Any) -> None:
            say()

        def on_end(self, event: Any) -> None:
            pass

    listener = Compilation()
    event.register("numba:compile", listener)
    return listener


def most_threads() -> int:
    """Return how many threads Numba is set to use."""
    from numba.core import config

    return config.NUMBA_NUM_THREADS


def writable_type(value: Any) -> Any:
    """Return the type of an argument; of an array, the type that may be written to."""
    import numba

    kind = numba.typeof(value)
    return kind.copy(readonly=False) if isinstance(kind, numba.types.Array) else kind


def view_type(view: Any) -> Any:
    """Return the type of a NamedTuple of arguments."""
    from numba import types

    return types.NamedTuple([writable_type(field) for field in view], type(view))


def ignore_constants(dispatcher: Any) -> None:
    """Let one compiled version serve all constants among the arguments: Numba would compile one for each of them."""
    from numba import types

    template = dispatcher.get_call_template
    dispatcher.get_call_template = lambda args, named: template(tuple(map(types.unliteral, args)), named)


def address_of(dispatcher: Any, kinds: tuple[Any, ...]) -> int:
    """Return where the machine code for arguments of these types lies."""
    dispatcher.compile(kinds)
    overload = dispatcher.overloads[kinds]
    return overload.library.get_pointer_to_function(overload.fndesc.llvm_func_name)


def admit(dispatcher: Any, values: tuple[Any, ...]) -> None:
    """Compile for arguments of these types by a call, after which calls compile for no others: TypeError then."""
    dispatcher.disable_compile(False)
    dispatcher(*values)
    dispatcher.disable_compile()


def is_disabled() -> bool:
    """Return whether Numba is set to compile nothing."""
    from numba.core import config

    return bool(config.DISABLE_JIT)


# --- its cache on disk ------------------------------------------------------------------------------------------------


class _Files:
    """Machine code on disk: a file for each list of types of a function, after its SHA-256.

    Numba's own files carry no checksum: code that a crash or a full disk has damaged ends in an exception, or runs.
    """

    def __init__(self, prefix: str, version: Any) -> None:
        self.prefix, self.version = prefix, version

    def _path(self, key: Any) -> str:
        return f"{self.prefix}.{hashlib.sha256(repr((self.version, key)).encode()).hexdigest()[:16]}.code"

    def load(self, key: Any) -> Any:
        """Return what was saved, None if it is not there or damaged."""
        try:
            with open(self._path(key), "rb") as file:
                digest, content = file.read(hashlib.sha256().digest_size), file.read()
        except OSError:
            return None
        return pickle.loads(content) if hashlib.sha256(content).digest() == digest else None

    def save(self, key: Any, data: Any) -> None:
        """Write a file, whole or not at all."""
        from numba.core.serialize import dumps

        content, path = dumps(data), self._path(key)
        temporary = f"{path}.{os.getpid()}.{threading.get_ident()}"
        try:
            with open(temporary, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def keep_on_disk(dispatcher: Any) -> None:
    """Keep the machine code of a function on disk; RuntimeError if there is no folder that can be written to.

    What cannot be read there is compiled again. What cannot be written later (the disk is full) is left out.
    """
    import numba
    from numba.core import config

    dispatcher.enable_caching()
    cache = dispatcher._cache
    version = numba.__version__, cache._impl.locator.get_source_stamp(), int(config.OPT), config.BOUNDSCHECK
    cache._cache_file = _Files(os.path.join(cache.cache_path, cache._impl.filename_base), version)
    save = cache.save_overload

    def save_if_possible(*what: Any) -> None:
        with contextlib.suppress(OSError):
            save(*what)

    cache.save_overload = save_if_possible


def cache_path(dispatcher: Any) -> str | None:
    """Return the folder that holds the function's machine code; None without a cache on disk."""
    return dispatcher.stats.cache_path


def compiled_just_now(dispatcher: Any) -> bool:
    """Return whether there is a cache on disk and it did not hold the function."""
    return bool(dispatcher.stats.cache_path and not dispatcher.stats.cache_hits)


# --- the code of an intrinsic -----------------------------------------------------------------------------------------


def refusal(message: str) -> Exception:
    """Return the exception that says why arguments of these types are refused."""
    from numba.core.errors import TypingError

    return TypingError(message)


def number_type(context: Any, dtype: Any) -> tuple[Any, int]:
    """Return the LLVM type of an array's entry, and its bytes."""
    number = context.get_value_type(dtype)
    return number, context.get_abi_sizeof(number)


def first_entry(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Return the pointer to the first entry of an array."""
    return context.make_array(kind)(context, builder, array).data


def fields(builder: Any, values: Any) -> list[Any]:
    """Return the fields of a tuple."""
    from numba.core import cgutils

    return cgutils.unpack_tuple(builder, values)


def struct(builder: Any, values: Sequence[Any]) -> Any:
    """Return the values as one."""
    from numba.core import cgutils

    return cgutils.pack_struct(builder, values)


def variable(builder: Any, value: Any) -> Any:
    """Return the pointer to a new variable that starts from the value."""
    from numba.core import cgutils

    return cgutils.alloca_once_value(builder, value)


def external(builder: Any, kind: Any, name: str) -> Any:
    """Return the function of LLVM or of the C library that has this name."""
    from numba.core import cgutils

    return cgutils.get_or_insert_function(builder.module, kind, name)


def span(builder: Any, begin: Any, end: Any, step: Any) -> Any:
    """Write a loop: ``with span(…) as (index, _)``."""
    from numba.core import cgutils

    return cgutils.for_range_slice(builder, begin, end, step, begin.type)


def nothing(context: Any) -> Any:
    """Return the value of a call that returns nothing."""
    return context.get_dummy_value()


def own_name(context: Any, name: str, kinds: Sequence[Any]) -> str:
    """Return a name that no function for arguments of other types has."""
    return context.mangler(name, kinds)


def call_address(context: Any, builder: Any, address: Any, kinds: Sequence[Any], values: Sequence[Any]) -> Any:
    """Call compiled code, which returns nothing, by its address; return whether it raised an exception."""
    from numba import types

    convention = context.call_conv
    function = builder.inttoptr(address, convention.get_function_type(types.void, kinds).as_pointer())
    status, _ = convention.call_function(builder, function, types.void, kinds, values)
    return status.is_error


def fail(context: Any, builder: Any, exception: type[Exception], message: str) -> None:
    """Leave the function by raising an exception."""
    context.call_conv.return_user_exc(builder, exception, (message,))
