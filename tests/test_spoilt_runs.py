"""Run folders spoilt in hundreds of ways: every command ends in its work or in one sentence, and loses nothing.

A way of spoiling is a function of a folder. ``SAMPLE`` of them run by default, all of them with ``-m slow``.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import warnings
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minigan.run import checkpoint, pictures
from minigan.run import folder as runs
from minigan.run.lock import NAME as LOCK

from .command_line import Screen, cli
from .quick import RING as EIGHT
from .quick import blank, take_few_points

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes, links and alarms as POSIX has them")

RING = replace(EIGHT, steps=12, sample_every=6)
NEW, OLD = "checkpoints/step_0000012.safetensors", "checkpoints/step_0000008.safetensors"
FILES = [
    "config.toml", "metrics.csv", "variety.csv", "spectrum.csv", "samples", "samples/step_0000006.png", "samples.png",
    "curves.png", "training.gif", "explain.png", "checkpoints", NEW, OLD, LOCK,
]  # fmt: skip
SECONDS = 60  # a command that takes longer hangs
SAMPLE = 10

CASES = {}


def case(name, spoil, **codes):
    """Add a way of spoiling, with the exit codes that commands must have (0 or 2); others must be 0, 1 or 2."""
    assert name not in CASES, name
    CASES[name] = (spoil, codes)


FALLS_BACK = {"sample": 0, "train": 0, "explain": 0}
REFUSED = {"sample": 2, "train": 2}


# --- the newest checkpoint's bytes ------------------------------------------------------------------------------------


def bytes_of(name, change):
    def spoil(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return spoil


def cut_to(share):
    return lambda content: content[: int(share * len(content))]


def flip(content, seed):
    damaged, at = bytearray(content), np.random.default_rng(seed).integers(8 * len(content))
    damaged[at // 8] ^= 1 << int(at % 8)
    return bytes(damaged)


for share in (0, 0.001, 0.01, 0.3, 0.9, 0.9999):
    case(f"newest cut to {share}", bytes_of(NEW, cut_to(share)), **FALLS_BACK)
for seed in range(10):
    case(f"newest with flip {seed}", bytes_of(NEW, lambda content, seed=seed: flip(content, seed)), **FALLS_BACK)
for word, change in {
    "longer": lambda c: c + b"\0",
    "twice": lambda c: c + c,
    "zeros": lambda c: bytes(len(c)),
    "ones": lambda c: b"\xff" * len(c),
    "a zip": lambda c: b"PK\3\4" + c[4:],
    "text": lambda c: b"hello\n",
    "a header nested deep": lambda c: (20_000).to_bytes(8, "little") + b"[" * 20_000,
    "a header of lists": lambda c: (4).to_bytes(8, "little") + b"[[]]",
    "a header of 99 million": lambda c: (99_000_000).to_bytes(8, "little") + c[8:],
    "an offset of 400 digits": lambda c: sealed_header({"a": {"data_offsets": [0, 10**400]}}),
    "an offset of words": lambda c: sealed_header({"a": {"data_offsets": "no"}}),
    "an offset that is no number": lambda c: sealed_header({"a": {"data_offsets": [0, 1e400]}}),
    "notes that are a list": lambda c: sealed_header({"__metadata__": []}),
}.items():
    case(f"newest is {word}", bytes_of(NEW, change), **FALLS_BACK)


def sealed_header(header):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


def both_damaged(folder):
    for name in (NEW, OLD):
        (folder / name).write_bytes(b"nothing")


case("both checkpoints damaged", both_damaged, **REFUSED, explain=0)

# --- other things in the place of a file ------------------------------------------------------------------------------


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def named_socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def sparse(path):
    with path.open("wb") as file:
        file.truncate(1 << 42)


KINDS = {
    "missing": lambda path: None,
    "empty": lambda path: path.touch(),
    "a folder": lambda path: path.mkdir(),
    "a full folder": lambda path: ((path / "x").mkdir(parents=True), (path / "mine.txt").write_text("mine")),
    "a pipe": os.mkfifo,
    "a socket": named_socket,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to endless zeros": lambda path: path.symlink_to("/dev/zero"),
    "4 TiB of nothing": sparse,
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 9),
}


def in_place_of(name, kind):
    def spoil(folder):
        remove(folder / name)
        KINDS[kind](folder / name)

    return spoil


PICTURES = ("samples/step_0000006.png", "curves.png", "training.gif", "explain.png")  # one rule replaces them all
for name in FILES:
    for kind in list(KINDS)[:: 3 if name in PICTURES else 1]:
        case(f"{name} is {kind}", in_place_of(name, kind))

# --- checkpoints with the right checksums -----------------------------------------------------------------------------


def resealed(change):
    def spoil(folder):
        arrays, notes = checkpoint.read(folder / NEW)
        arrays = {name: array.copy() for name, array in arrays.items()}
        change(arrays, notes)
        notes.pop("format")
        content = b"".join(checkpoint._parts(arrays, notes))
        for name in notes.pop("both", "") and (NEW, OLD) or (NEW,):
            (folder / name).write_bytes(content)

    return spoil


def first(arrays, part):
    return next(name for name in sorted(arrays) if part in name)


def put(part, value, dtype=np.int64):
    return lambda arrays, notes: arrays.update({first(arrays, part): np.array(value, dtype)})


def poison(part, value):
    def change(arrays, notes):
        arrays[first(arrays, part)].reshape(-1)[-1] = value

    return change


def reshaped(part, change):
    return lambda arrays, notes: arrays.update({(name := first(arrays, part)): change(arrays[name])})


def noted(**words):
    return lambda arrays, notes: notes.update(words)


COUNTERS = ["steps", "noise/latent-D", "noise/latent-G", "noise/penalty", "discriminator/optimizer/steps",
            "generator/optimizer/steps"]  # fmt: skip
for name in COUNTERS:
    for value in (-1, 2**31 + 1, 2**63 - 1):
        change = lambda arrays, notes, name=name, value=value: arrays.update({name: np.array(value, np.int64)})  # noqa: E731
        case(f"{name} is {value}", resealed(change), **REFUSED, explain=0)
    for dtype in (np.float64,):
        change = lambda arrays, notes, name=name, dtype=dtype: arrays.update({name: np.array(12, dtype)})  # noqa: E731
        case(f"{name} is of {dtype.__name__}", resealed(change), **REFUSED, explain=0)
for part in ("discriminator/parameters", "generator/parameters", "/ema", "/first", "/second"):
    for value in (np.nan, -np.inf):
        case(f"{part} holds {value}", resealed(poison(part, value)), **REFUSED, explain=0)
    case(f"{part} holds 3e38", resealed(poison(part, 3e38)), explain=0)
    case(f"{part} in float16", resealed(reshaped(part, lambda a: a.astype(np.float16))), **REFUSED)
    case(f"{part} in one more axis", resealed(reshaped(part, lambda a: a[None])), **REFUSED)
    case(f"{part} is empty", resealed(reshaped(part, lambda a: a[:0])), **REFUSED)
    case(f"{part} is missing", resealed(lambda arrays, notes, part=part: arrays.pop(first(arrays, part))), **REFUSED)
for word, change in {
    "another step in the state": put("steps", 11),
    "one tensor more": lambda arrays, notes: arrays.update(more=np.zeros(3)),
    "a tensor with a strange name": lambda arrays, notes: arrays.update({"\n/é\u2028 \"'": np.zeros(3)}),
    "no tensors": lambda arrays, notes: arrays.clear(),
    "other data": lambda arrays, notes: arrays["data"].__setitem__(0, arrays["data"][0] ^ 1),
    "no hash of the data": lambda arrays, notes: arrays.pop("data"),
    "a short hash of the data": lambda arrays, notes: arrays.update(data=arrays["data"][:9]),
    "no settings": lambda arrays, notes: notes.pop("config"),
    "settings that are no TOML": noted(config="= ="),
    "settings nested deep": noted(config="a = " + "[" * 20_000),
    "settings of 5,000 digits": noted(config="steps = " + "9" * 5_000),
    "other settings": noted(config="width = 3\n"),
    "settings of a later version": noted(config=RING.to_toml() + "colour = 3\n", version="9.9.9"),
    "no version": lambda arrays, notes: notes.pop("version"),
    "notes of 1 MB": noted(more="x" * 1_000_000),
    "movement of infinities": reshaped("movement", lambda a: a * 0 + np.inf),
    "a huge movement": reshaped("movement", lambda a: a * 0 + 1e308),
}.items():
    case(f"newest with {word}", resealed(change))
for word, notes in {
    "no shape": {"data_shape": None},
    "a shape of words": {"data_shape": '["a"]'},
    "a negative shape": {"data_shape": "[-2]"},
    "a shape nested deep": {"data_shape": "[" * 20_000},
    "a huge shape": {"data_shape": "[9000000000000]"},
    "another shape": {"data_shape": "[8, 8, 1]"},
    "no name": {"data": None},
}.items():

    def of_other_data(arrays, found, notes=notes):
        arrays["data"] = arrays["data"][::-1].copy()
        found.update({name: word for name, word in notes.items() if word is not None})
        for name in [name for name, word in notes.items() if word is None]:
            del found[name]

    case(f"other data with {word}", resealed(of_other_data), explain=0, train=2)
LATER = bytes_of(NEW, lambda content: content.replace(checkpoint.FORMAT.encode(), b"minigan-checkpoint-9"))
case("newest of another format", LATER, **FALLS_BACK)


def of_plain_safetensors(folder):
    from safetensors.numpy import save_file

    save_file(checkpoint.read(folder / NEW).arrays, folder / NEW)


case("newest without notes", of_plain_safetensors, **FALLS_BACK)

# --- tables -----------------------------------------------------------------------------------------------------------


def lines(change):
    """Return a change of a table's text by a change of its lines."""

    def changed(content):
        rows = content.decode().split("\r\n")
        return "\r\n".join(change(rows) or rows).encode()

    return changed


def value(row, column, text):
    def change(rows):
        parts = rows[row].split(",")
        parts[column] = text
        rows[row] = ",".join(parts)

    return lines(change)


TABLE = {
    "a BOM": lambda c: b"\xef\xbb\xbf" + c,
    "UTF-16": lambda c: c.decode().encode("utf-16"),
    "latin-1": lambda c: c.replace(b"step", "ste\u00fe".encode("latin-1")),
    "NUL bytes": lambda c: c.replace(b",", b"\0", 3),
    "LF": lambda c: c.replace(b"\r\n", b"\n"),
    "CR": lambda c: c.replace(b"\r\n", b"\r"),
    "semicolons": lambda c: c.replace(b",", b";"),
    "quotes": lambda c: c.replace(b"step", b'"step"'),
    "an open quote": value(2, 1, '"0.5'),
    "a long field": value(2, 1, "x" * 200_000),
    "a long number": value(2, 1, "9" * 200_000),
    "a word": value(2, 1, "ten"),
    "an empty value": value(2, 1, ""),
    "NaN": value(2, 1, "nan"),
    "infinity": value(2, 1, "inf"),
    "1e999": value(2, 1, "1e999"),
    "1e308": value(2, 1, "1e308"),
    "-1e308": value(1, -1, "-1e308"),
    "a complex number": value(2, 1, "1j"),
    "a negative step": value(2, 0, "-3"),
    "half a step": value(2, 0, "1.5"),
    "a step of words": value(2, 0, "two"),
    "a huge step": value(-2, 0, "1e300"),
    "a step of 400 digits": value(-2, 0, "9" * 400),
    "a late step": value(-2, 0, "9007199254740992"),
    "steps that fall": value(-2, 0, "0"),
    "a value more": lines(lambda rows: [*rows[:2], rows[2] + ",1", *rows[3:]]),
    "a value less": lines(lambda rows: [*rows[:2], rows[2].rpartition(",")[0], *rows[3:]]),
    "an empty line": lines(lambda rows: [*rows[:2], "", *rows[2:]]),
    "a line of spaces": lines(lambda rows: [*rows[:2], "  ", *rows[2:]]),
    "a heading twice": lines(lambda rows: [rows[0], *rows]),
    "rows twice": lines(lambda rows: [*rows[:-1], *rows[1:]]),
    "no heading": lines(lambda rows: rows[1:]),
    "only a heading": lines(lambda rows: [rows[0], ""]),
    "half a heading": lambda c: c[:7],
    "half a row": lambda c: c[:-5],
    "one column": lines(lambda rows: [row.split(",")[0] for row in rows]),
    "a column renamed": lambda c: c.replace(b"loss_g", b"verlust").replace(b"spread", b"breite"),
    "two columns of one name": lambda c: c.replace(b"loss_g", b"loss_d").replace(b"spread", b"step"),
    "a column more": lines(lambda rows: [row and row + ",1" for row in rows]),
    "columns in another order": lines(lambda rows: [",".join(row.split(",")[::-1]) for row in rows]),
    "ten thousand columns": lines(lambda rows: [",".join(["x"] * 10_000), *rows[1:]]),
    "nothing but commas": lambda c: b"," * 5_000 + b"\n" + b"," * 5_000 + b"\n",
}  # fmt: skip
for word, change in TABLE.items():
    for name in ("metrics.csv", "variety.csv")[: 1 + (len(word) % 3 == 0)]:  # one rule reads both
        case(f"{name} with {word}", bytes_of(name, change), sample=0)

# --- settings ---------------------------------------------------------------------------------------------------------

TOML = {
    "nested deep": lambda c: c + b"a = " + b"[" * 20_000,
    "nested tables": lambda c: c + b"[" + b".".join([b"a"] * 20_000) + b"]",
    "tables within tables": lambda c: c + b"a = " + b"{a = " * 5_000,
    "400 digits": lambda c: c.replace(b"steps = 12", b"steps = " + b"9" * 400),
    "5,000 digits": lambda c: c.replace(b"steps = 12", b"steps = " + b"9" * 5_000),
    "a float of 400 digits": lambda c: c.replace(b"gamma = 1.0", b"gamma = " + b"9" * 400),
    "an exponent of 400": lambda c: c.replace(b"gamma = 1.0", b"gamma = 1e400"),
    "NaN": lambda c: c.replace(b"lr_d = 0.001", b"lr_d = nan"),
    "a huge width": lambda c: c.replace(b"width = 2", b"width = 1000000000"),
    "another width": lambda c: c.replace(b"width = 2", b"width = 3"),
    "a negative batch": lambda c: c.replace(b"batch_size = 8", b"batch_size = -8"),
    "a boolean for a number": lambda c: c.replace(b"steps = 12", b"steps = true"),
    "a date for a number": lambda c: c.replace(b"steps = 12", b"steps = 1979-05-27"),
    "a list for a number": lambda c: c.replace(b"steps = 12", b"steps = [" + b"1, " * 9_000 + b"]"),
    "a word for a number": lambda c: c.replace(b"steps = 12", b'steps = "' + b"x" * 9_000 + b'"'),
    "an unknown setting": lambda c: c + b"colour = 3\n",
    "an unknown setting with a long name": lambda c: c + b"x" * 50_000 + b" = 3\n",
    "a setting twice": lambda c: c + b"steps = 13\n",
    "a setting less": lambda c: c.replace(b"latent = 2\n", b""),
    "other data": lambda c: c.replace(b'"ring"', b'"grid"'),
    "unknown data": lambda c: c.replace(b'"ring"', '"кольцо"'.encode()),
    "images": lambda c: c.replace(b'"ring"', b'"digits"').replace(b'"mlp"', b'"dcgan"'),
    "another model": lambda c: c.replace(b'"mlp"', b'"dcgan"'),
    "another device": lambda c: c.replace(b'"cpu"', b'"tpu"'),
    "an empty penalty": lambda c: c.replace(b'"r1"', b'""'),
    "fewer steps": lambda c: c.replace(b"steps = 12", b"steps = 3"),
    "many steps": lambda c: c.replace(b"steps = 12", b"steps = 1000000000000000000"),
    "a BOM": lambda c: b"\xef\xbb\xbf" + c,
    "CRLF": lambda c: c.replace(b"\n", b"\r\n"),
    "NUL bytes": lambda c: c.replace(b"\n", b"\0"),
    "UTF-16": lambda c: c.decode().encode("utf-16"),
    "latin-1": lambda c: c + "# gr\u00fc\u00dfe\n".encode("latin-1"),
    "a lone surrogate": lambda c: c + b"# \xed\xa0\x80\n",
    "half of itself": lambda c: c[: len(c) // 2],
    "2 MB more": lambda c: c + b"#" * 2_000_000,
}
for word, change in TOML.items():
    case(f"config.toml with {word}", bytes_of("config.toml", change))

# --- parts of other runs, and other names -----------------------------------------------------------------------------


def taken_from(run, *names):
    def spoil(folder):
        for name in names:
            shutil.copy(folder.parent / run / name, folder / name)

    return spoil


for run in ("seed", "wide"):
    for names in ((NEW,), (NEW, OLD), ("config.toml",), ("config.toml", NEW)):
        case(f"{' and '.join(names)} of run {run}", taken_from(run, *names))
    case(f"metrics.csv of run {run}", taken_from(run, "metrics.csv"), sample=0)


def renamed(name, to):
    return lambda folder: (folder / name).rename(folder / to)


for to in ("step_0000099", "step_9999999999", f"step_{'9' * 200}", "step_0000001"):
    case(f"newest is called {to}", renamed(NEW, f"checkpoints/{to}.safetensors"))
for to in ("step_12", "step_x", "step_\u0661\u0662\u0663\u0664\u0665\u0666\u0667", "STEP_0000012", "step_-000012"):
    case(f"newest is called {to}", renamed(NEW, f"checkpoints/{to}.safetensors"), **FALLS_BACK)
case("the older one twice", lambda folder: shutil.copy(folder / OLD, folder / NEW), **REFUSED)
for to in ("step_x.png", "step_.png", "step_0000099.png", f"step_{'9' * 100}.png", "step_\u0661.png", "none.png"):
    case(f"a frame is called {to}", renamed("samples/step_0000006.png", f"samples/{to}"), sample=0, train=0)
BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0\x08\2\0\0\0" + bytes(30)
for word, change in {"a bomb": lambda content: BOMB, "cut": cut_to(0.5)}.items():
    case(f"a frame is {word}", bytes_of("samples/step_0000006.png", change), sample=0, explain=0, train=2)
MORE = (
    ".config.toml.abcdefgh", ".metrics.csv.abcd_123", "samples/.step_0000006.png.abcdefgh", "mine.txt",
    "checkpoints/.step_0000016.safetensors.abcdefgh", "checkpoints/notes.txt",
)  # fmt: skip
for at, name in enumerate(MORE):
    case(f"a file more {at}", lambda folder, name=name: (folder / name).write_bytes(b"x"), **FALLS_BACK)


# --- the commands -----------------------------------------------------------------------------------------------------


class Hung(BaseException):
    pass


@contextlib.contextmanager
def in_time():
    def stop(*_):
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def command(line):
    """Run a command line in this process; return its exit code, and stderr."""
    out, err = Screen(), Screen()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), in_time(), warnings.catch_warnings():
        warnings.simplefilter("error")
        code = cli.main(shlex.split(line))
    return code, err.getvalue()


def content_of(folder):
    """Return all that is in a folder, with the bytes of small files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = path.lstat()
        small = path.is_file() and not path.is_symlink() and kind.st_size < 1 << 24
        found[str(path.relative_to(folder))] = path.read_bytes() if small else (kind.st_mode, kind.st_size)
    return found


def small_figure(width, height):
    """A figure of few pixels whose panels are not arranged: what is drawn stays, and most of the time goes."""
    figure = Figure(figsize=(width, height), dpi=20)
    FigureCanvasAgg(figure)
    return figure


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pictures, "new_figure", small_figure)
        patched.setattr(os, "fsync", lambda handle: None)  # nothing here depends on when the disk is written
        patched.setattr(pictures, "scatter", blank)
        take_few_points(patched.setitem)
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Return a folder of good runs: ``good``, and others to take parts from."""
    home = tmp_path_factory.mktemp("runs")
    for name, config in {"good": RING, "seed": replace(RING, seed=1), "wide": replace(RING, width=3)}.items():
        run = runs.create(home / name, config)
        run.train()
        if name == "good":
            run.finish()
    return home


def trouble(name, good):
    """Return what is wrong about a way of spoiling a run."""
    with pytest.MonkeyPatch.context() as patched:
        if not name.startswith(("metrics.csv", "variety.csv", "spectrum.csv")):  # figures are drawn of tables alone
            for figure in ("curves", "diagnosis", "spectra"):
                patched.setattr(pictures, figure, lambda *of: pictures.save(blank(), of[-1]))
        return _trouble(*CASES[name], good)


def _trouble(spoil, codes, good):
    """Return what is wrong about the commands on a spoilt run, or about the run when it is set right again."""
    folder, out = good / "spoilt", good / "out.npz"
    remove(folder)
    shutil.copytree(good / "good", folder)
    spoil(folder)
    found = []
    for what, line in {
        "explain": f"explain {folder}",
        "sample": f"sample {folder} --count 3 --force --out {out}",
        "train": f"train --resume --steps 14 --out {folder}",
    }.items():
        before = content_of(folder)
        try:
            code, err = command(line)
        except Exception as error:
            found.append(f"{what}: {type(error).__name__}: {error}"[:600])
            continue
        except Hung:
            found.append(f"{what} hung")
            continue
        said = [text for text in err.splitlines() if "compiling the CPU kernels" not in text]
        if code not in (0, 1, 2) or code != codes.get(what, code):
            found.append(f"{what} ended with {code}: {said}")
        if code and not (said and re.search(r"spoilt|--steps", said[-1])):
            found.append(f"{what} names no file: {said}")
        if not all(text.startswith("minigan: ") and len(text) < 1000 for text in said):
            found.append(f"{what} is not brief: {err[:600]}")
        if code == 2 and what != "train" and content_of(folder) != before:
            found.append(f"{what} refused and changed the folder")
        if code == 2 and "the film goes without it" not in err and (lost := before.keys() - content_of(folder).keys()):
            found.append(f"{what} refused and removed {sorted(lost)}")
    for name in FILES:  # what was spoilt by hand is set right by hand
        remove(folder / name)
    shutil.copytree(good / "good", folder, dirs_exist_ok=True)
    code, err = command(f"train --resume --steps 13 --out {folder}")
    if code:
        found.append(f"set right, train ends with {code}: {err}")
    return found


def require_no_trouble(names, good):
    found = {name: what for name in names if (what := trouble(name, good))}
    assert not found, "\n".join(f"{name}:\n  " + "\n  ".join(what) for name, what in found.items())


def test_some_spoilt_runs(good):
    assert len(CASES) >= 200
    require_no_trouble(list(CASES)[7 :: len(CASES) // SAMPLE], good)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_all_spoilt_runs(part, good):
    require_no_trouble(list(CASES)[part::8], good)
