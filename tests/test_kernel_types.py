"""Compiled code gets the types and shapes that it was compiled for: every kernel × types, in one process."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import numpy as np
import pytest

from minigan import kernels
from minigan.kernels.cpu.units import Units

PAIRS = {"stride": (1, 1), "padding": (1, 1)}
LEAKY = {"activation": "leaky_relu", "slope": 0.5}
MOMENTS = {"mean": (5,), "var": (5,), "eps": 0.5, **LEAKY}
RATES = {"lr": 0.5, "decay": 0.5}
CALLS: dict[str, tuple[list[Any], dict[str, Any]]] = {  # shapes of the arrays; settings, an array's by its shape
    "adam_": ([(7,)] * 5, {"beta1": 0.5, "beta2": 0.5, "eps": 0.5, "step": 1, **RATES}),
    "batch_norm": ([(6, 5), (5,), (5,)], {"eps": 0.5, **LEAKY}),
    "batch_norm_grad": ([(6, 5), (6, 5), (6, 5), (5,)], MOMENTS),
    "batch_norm_grad_vjp": ([(6, 5), (6, 5), (6, 5), (6, 5), (5,)], MOMENTS),
    "bias_act": ([(6, 5), (5,)], LEAKY),
    "bias_act_grad": ([(6, 5), (6, 5)], LEAKY),
    "bias_act_sums": ([(6, 5), (6, 5)], LEAKY),
    "conv2d": ([(2, 5, 4, 3), (3, 3, 3, 2), (2,)], {**PAIRS, **LEAKY}),
    "conv2d_transpose": ([(2, 5, 4, 2), (3, 3, 3, 2), (3,)], {**PAIRS, "output_padding": (0, 0), **LEAKY}),
    "conv2d_weight_grad": ([(2, 5, 4, 3), (2, 5, 4, 2)], {"kernel": (3, 3), **PAIRS}),
    "dense": ([(6, 5), (5, 9), (9,)], LEAKY),
    "matmul": ([(6, 5), (5, 9)], {}),
    "mean_loss": ([(7,)], {"loss": "softplus"}),
    "philox_bits_": ([(7,)], {"seed": 1, "stream": 1, "step": 1}),
    "philox_normal_": ([(7,)], {"seed": 1, "stream": 1, "step": 1}),
    "philox_uniform_": ([(7,)], {"seed": 1, "stream": 1, "step": 1}),
    "rmsprop_": ([(7,)] * 4, {"alpha": 0.5, "eps": 0.5, **RATES}),
    "sgd_": ([(7,)] * 4, {"momentum": 0.5, "weight_decay": 0.5, **RATES}),
    "squared_norm": ([(7,)], {}),
    "sum_axes": ([(2, 3, 4)], {"axes": (0, 2), "keepdims": True}),
}
NUMBERS = [int, float, np.int8, np.uint16, np.int32, np.int64, np.uint64, np.float16, np.float32, np.float64]
NUMBERS += [np.longdouble]
NO_NUMBERS = [True, np.True_, "1", None, 1j, np.complex64(1), np.ones(()), np.ones(1), [1], object()]
WRONG_DTYPES = [
    bool,
    np.int8,
    np.int64,
    np.uint32,
    np.float16,
    np.longdouble,
    np.complex64,
    ">f4",
    ">f8",
    object,
    "M8[s]",
]
OF_ONE_TYPE = {"matmul", "squared_norm"}


def made(name, dtype, **changed):
    """Return fresh arrays and settings of a call, some settings with other values."""
    rng = np.random.default_rng(0)
    dtype = np.uint32 if name == "philox_bits_" else dtype
    shapes, settings = CALLS[name]
    draw = lambda shape: np.abs(rng.standard_normal(shape)).astype(dtype)  # noqa: E731
    is_shape = lambda key, value: key in ("mean", "var")  # noqa: E731
    return [draw(s) for s in shapes], {k: draw(v) if is_shape(k, v) else v for k, v in settings.items()} | changed


def outcome(name, arrays, settings):
    """Return all results of a call as bytes, those in place too."""
    result = getattr(kernels, name)(*arrays, **settings)
    parts = result if isinstance(result, tuple) else (result,)
    return [np.asarray(part).tobytes() for part in (*parts, *arrays) if part is not None]


def forget_compiled_code():
    """Let every loop nest be compiled for the types of the next call, as in a new process."""
    for module in [m for n, m in sys.modules.items() if n.startswith("minigan.kernels")]:
        for unit in [value for value in vars(module).values() if isinstance(value, Units)]:
            unit._compiled.clear()


def numbers_of(name):
    return [key for key, value in CALLS[name][1].items() if type(value) in (int, float)]


def test_every_kernel_is_here():
    assert set(CALLS) == set(kernels.registry())
    for name, kernel in kernels.registry().items():
        parameters = inspect.signature(kernel.implementations["reference"]).parameters.values()
        positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
        assert len(CALLS[name][0]) == len(positional)
        assert set(CALLS[name][1]) == {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("each_in_a_new_process", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("odd_first", [True, False])
@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_number_of_any_type_is_the_number_that_it_is(name, odd_first, each_in_a_new_process):
    forget_compiled_code()
    for turn, key in enumerate(numbers_of(name)):
        for kind in NUMBERS[turn:] + NUMBERS[:turn]:
            whole = isinstance(CALLS[name][1][key], int)
            if whole and not issubclass(kind, int | np.integer):
                continue
            if each_in_a_new_process:
                forget_compiled_code()
            for value in (1, 0, 2) if whole or issubclass(kind, int | np.integer) else (0.5, 0.25):
                plain = int(value) if whole else float(value)
                calls = [(kind(value), np.float32), (plain, np.float32)]
                calls += [(kind(value), np.float64), (plain, np.float64)]
                found = {}
                for number, dtype in calls if odd_first else calls[::-1]:
                    try:
                        result = outcome(name, *made(name, dtype, **{key: number}))
                    except ValueError as error:  # such as Adam's β = 1
                        result = str(error)
                    assert result == found.setdefault(dtype, result), (name, key, kind, value)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_what_is_no_number_is_refused_by_name(name):
    for key in numbers_of(name):
        wrong = [*NO_NUMBERS, *([0.5, np.float32(1)] if isinstance(CALLS[name][1][key], int) else [])]
        for value in wrong:
            with pytest.raises(TypeError, match=f"{key} must be a"):
                outcome(name, *made(name, np.float32, **{key: value}))
    for key, value in CALLS[name][1].items():
        if key == "axes":
            for wrong in (1, 1.5, (1.0,), "ab", (True,), None):
                with pytest.raises(TypeError, match="axes must be a tuple of integers"):
                    outcome(name, *made(name, np.float32, **{key: wrong}))
        elif isinstance(value, bool):
            for wrong in (1, "yes", None, np.ones(1, bool)):
                with pytest.raises(TypeError, match=f"{key} must be True or False"):
                    outcome(name, *made(name, np.float32, **{key: wrong}))
        elif isinstance(value, tuple) and key not in ("mean", "var"):
            for wrong in (1, 1.5, (1,), (1, 2, 3), (1.0, 1), "ab", (True, 1), None):
                with pytest.raises(TypeError, match=f"{key} must be a pair of integers"):
                    outcome(name, *made(name, np.float32, **{key: wrong}))
            for kind in (list, lambda v: tuple(map(np.int32, v)), np.array):
                assert outcome(name, *made(name, np.float32, **{key: kind(value)})) == outcome(
                    name, *made(name, np.float32)
                )
        elif isinstance(value, str):
            for wrong in (1, None, b"relu"):
                with pytest.raises(TypeError, match=f"{key} must be a string"):
                    outcome(name, *made(name, np.float32, **{key: wrong}))


@pytest.mark.parametrize("wrong_first", [True, False])
@pytest.mark.parametrize("name", sorted(CALLS))
def test_arrays_of_mixed_dtypes_are_refused(name, wrong_first):
    """A wrong array is refused whether code for its dtype exists or not, and what comes after it is right."""
    for dtype, other in ((np.float32, np.float64), (np.float64, np.float32)):
        arrays, settings = made(name, dtype)
        right = outcome(name, *made(name, dtype))
        places = [*range(len(arrays)), *(key for key, value in settings.items() if isinstance(value, np.ndarray))]
        for place in places:
            if wrong_first:
                forget_compiled_code()
            alone = len(places) == 1 and name != "philox_bits_"
            for wrong in [*([] if alone else [other]), *WRONG_DTYPES]:
                if np.dtype(wrong) == np.uint32 and name == "philox_bits_":
                    continue
                arrays, settings = made(name, dtype)
                holder: Any = arrays if isinstance(place, int) else settings
                holder[place] = np.zeros(holder[place].shape, wrong)
                with pytest.raises(
                    TypeError, match=r"bring both to one dtype|must be (float32 or float64|uint32), not"
                ):
                    outcome(name, arrays, settings)
        assert outcome(name, *made(name, dtype)) == right


@pytest.mark.parametrize("name", sorted(CALLS))
def test_arrays_of_other_shapes_are_refused(name):
    """No compiled loop reads or writes beside an array, whatever its shape."""
    arrays, settings = made(name, np.float32)
    keys = [key for key, value in settings.items() if isinstance(value, np.ndarray)]
    for place in [*range(len(arrays)), *keys]:
        for change in (lambda a: a[..., :-1], lambda a: a[None], lambda a: a[0], lambda a: a[:0], lambda a: a[:1]):
            arrays, settings = made(name, np.float32)
            holder: Any = arrays if isinstance(place, int) else settings
            holder[place] = np.ascontiguousarray(change(holder[place]))
            expected = {"reference": None, "numba": None}
            for backend in expected:
                with kernels.use(backend):
                    try:
                        result = getattr(kernels, name)(*map(np.copy, arrays), **settings)
                        parts = result if isinstance(result, tuple) else (result,)
                        expected[backend] = [np.shape(part) for part in parts]
                    except ValueError as error:
                        expected[backend] = str(error)
            assert expected["reference"] == expected["numba"], (name, place)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_strided_read_only_and_subclassed_arrays_give_the_same(name):
    """Or are refused, where a kernel changes them in place."""

    class Special(np.ndarray):
        pass

    def strided(a):
        wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
        wide[..., ::2] = a
        return wide[..., ::2]

    def read_only(a):
        a.flags.writeable = False
        return a

    right = outcome(name, *made(name, np.float32))
    for change in (strided, read_only, lambda a: a.view(Special), lambda a: np.asfortranarray(a)):
        arrays, settings = made(name, np.float32)
        arrays = [change(a) for a in arrays]
        settings = {key: change(v) if isinstance(v, np.ndarray) else v for key, v in settings.items()}
        refused = name.endswith("_") and not (arrays[0].flags.writeable and arrays[0].flags.c_contiguous)
        if refused and (name not in ("philox_normal_", "philox_uniform_") or not arrays[0].flags.writeable):
            with pytest.raises(ValueError, match="read-only|contiguous"):
                outcome(name, arrays, settings)
        else:
            assert outcome(name, arrays, settings) == right


def test_masked_arrays_and_other_things_are_no_arrays():
    x = np.ones((2, 2), np.float32)
    for wrong in (np.ma.masked_array(x, x > 0), [[1.0]], 1.0, None, "x"):
        with pytest.raises(TypeError, match="kernel matmul: w must be an array"):
            kernels.matmul(x, wrong)
        with pytest.raises(TypeError, match="kernel matmul: x must be an array"):
            kernels.matmul(wrong, x)
