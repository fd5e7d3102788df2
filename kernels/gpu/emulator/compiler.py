"""C++ to machine code with g++, kept on disk."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from minigan.kernels.cpu.jit import say
from minigan.kernels.gpu.emulator.errors import CompileException

HERE = Path(__file__).parent


def missing_compiler() -> str | None:
    """Return a sentence on why nothing can be compiled, None if g++ is there."""
    if shutil.which("g++"):
        return None
    return "emulated kernels are compiled with g++, which is not installed (Debian and Ubuntu: apt install g++)"


@functools.cache
def _folder() -> Path:
    """Return where compiled kernels are kept: a folder of this process if no other can be written to."""
    cache = os.environ.get("MINIGAN_EMULATOR_CACHE")
    try:
        folder = Path(cache) if cache else _user_cache() / "minigan" / "emulator"
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        say(f"compiled kernels of the emulator are not kept ({error})")
        kept = tempfile.TemporaryDirectory(prefix="minigan-emulator-")
        atexit.register(kept.cleanup)
        return Path(kept.name)
    return folder


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def compiled(source: str, flags: Sequence[str]) -> Path:
    """Return the library made of C++ source, compiled unless it is kept from before and whole."""
    reason = missing_compiler()
    if reason:
        raise CompileException(reason)
    headers = b"".join(path.read_bytes() for path in sorted(HERE.glob("*.hpp")))
    key = hashlib.sha256(headers + repr((source, list(flags), _processor())).encode()).hexdigest()[:20]
    folder = _folder()
    library = folder / f"{key}.so"
    if not _is_whole(library):
        with tempfile.TemporaryDirectory(dir=folder) as work:
            unlinked, linked = f"{work}/kernel.o", f"{work}/kernel.so"
            # linked apart: -fsanitize would bring its library, of which only the calls are wanted
            for command in (
                ["g++", *flags, f"-I{HERE}", "-x", "c++", "-", "-c", "-o", unlinked],
                ["g++", "-shared", unlinked, "-o", linked],
            ):
                done = subprocess.run(command, input=source, text=True, capture_output=True)
                if done.returncode:
                    raise CompileException(done.stderr)
            digest = hashlib.sha256(Path(linked).read_bytes()).digest()
            with open(linked, "ab") as file:
                file.write(digest)  # behind all that the loader reads
            os.replace(linked, library)
    return library


def _is_whole(library: Path) -> bool:
    """Return whether a library is there and ends in its SHA-256: a crash or a full disk damages files."""
    try:
        content = library.read_bytes()
    except OSError:
        return False
    size = hashlib.sha256().digest_size
    return hashlib.sha256(content[:-size]).digest() == content[-size:]


@functools.cache
def _processor() -> str:
    """Return what -march=native means here, so that a cache shared between machines keeps them apart."""
    done = subprocess.run(["g++", "-march=native", "-Q", "--help=target"], text=True, capture_output=True)
    return hashlib.sha256(done.stdout.encode()).hexdigest()
