"""The settings of a run: what they refuse, and their way to TOML and back."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigan.data import DATASETS
from minigan.gan import MODELS, Config
from minigan.gan.objectives import OBJECTIVES
from minigan.gan.penalties import PENALTIES
from minigan.nn import INITIALISERS

count = st.integers(1, 10**12)
share = st.floats(0, 1, exclude_max=True)
rate = st.floats(0, 1e300)
configs = st.builds(
    Config,
    data=st.sampled_from(sorted(DATASETS)),
    model=st.sampled_from(sorted(MODELS)),
    objective=st.sampled_from(sorted(OBJECTIVES)),
    penalty=st.sampled_from([*PENALTIES, "none"]),
    init=st.sampled_from(sorted(INITIALISERS)),
    batch_norm=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
    steps=st.integers(0, 10**12),
    device=st.sampled_from(["auto", "cpu"]),
    **dict.fromkeys(("d_steps", "batch_size", "latent", "width", "log_every", "sample_every"), count),
    **dict.fromkeys(("gamma", "lr_d", "lr_g"), rate),
    **dict.fromkeys(("beta1", "beta2", "ema"), share),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("config") / "config.toml"


@given(configs)
def test_toml_round_trip(file, config):
    file.write_text(config.to_toml(), encoding="utf-8")
    found = Config.from_toml(file)
    assert found == config
    assert [type(getattr(found, f.name)) for f in fields(found)] == [
        type(getattr(config, f.name)) for f in fields(found)
    ]
    assert found.to_toml() == config.to_toml()


def test_what_a_file_does_not_mention_keeps_its_default(file):
    file.write_text('# a comment\ndata = "ring"\nmodel = "mlp"\ngamma = 2\n', encoding="utf-8")
    found = Config.from_toml(str(file))
    assert found == replace(Config.preset("ring"), gamma=2.0)
    assert (found.model, found.latent, found.batch_norm) == ("mlp", 2, False)
    assert type(found.gamma) is float
    file.write_text("", encoding="utf-8")
    assert Config.from_toml(file) == Config()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"steps = ", "is not a TOML file"),
        (b"\xff\xfe", "is not a TOML file"),
        (b"stpes = 5", "unknown setting 'stpes'; the settings are data, model"),
        (b"[train]\nsteps = 5", "unknown setting 'train'"),
        (b"steps = 5.0", "steps must be of type int, not 5.0"),
        (b"steps = true", "steps must be of type int, not True"),
        (b'steps = "5"', "steps must be of type int, not '5'"),
        (b"gamma = true", "gamma must be of type float, not True"),
        (b"batch_norm = 1", "batch_norm must be of type bool, not 1"),
        (b"data = 5", "data must be of type str, not 5"),
        (b"width = 0", "width must be at least 1, not 0"),
        (b"gamma = nan", "gamma must be a number >= 0, not nan"),
        (b'data = "mnist"', "unknown data 'mnist': choose from digits, ring, grid"),
    ],
)
def test_a_bad_file_is_named(file, content, complaint):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=complaint) as caught:
        Config.from_toml(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_mark_of_byte_order_is_no_error(file):
    file.write_bytes(b"\xef\xbb\xbf" + Config(steps=7).to_toml().encode())
    assert Config.from_toml(file) == Config(steps=7)


def test_values_become_their_types():
    config = Config(steps=np.int32(7), lr_d=1, lr_g=np.float32(0.5), batch_norm=False)
    assert [type(value) for value in (config.steps, config.lr_d, config.lr_g)] == [int, float, float]
    assert (config.steps, config.lr_d, config.lr_g) == (7, 1.0, 0.5)


WRONG_TYPES = {
    "int": (1.5, 2.0, "3", None, True, [1], np.array([1])),
    "float": ("x", None, True, [1.0], 1j, 10**400),
    "str": (5, None, b"adam", ["adam"]),
    "bool": (1, 0.0, "yes", None, []),
}


@pytest.mark.parametrize("field", fields(Config), ids=lambda field: field.name)
def test_values_of_the_wrong_type_are_refused(field):
    for value in WRONG_TYPES[type(field.default).__name__]:
        with pytest.raises(ValueError, match=f"^{field.name} must be ") as caught:
            Config(**{field.name: value})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [{name: value} for name in ("d_steps", "batch_size", "latent", "width", "log_every") for value in (0, -1)]
    + [{name: value} for name in ("beta1", "beta2", "ema") for value in (-0.1, 1.0, float("nan"))]
    + [{name: value} for name in ("lr_d", "lr_g", "gamma") for value in (-1.0, float("inf"), float("nan"))]
    + [{"steps": -1}, {"sample_every": 0}, {"checkpoint_every": 0}, {"seed": -1}, {"seed": 2**64}]
    + [{name: "odd"} for name in ("data", "model", "objective", "penalty", "init", "device")]
    + [{"device": "gpu"}, {"depth": 1001}],
    ids=lambda settings: "-".join(f"{name}={value}" for name, value in settings.items()),
)
def test_values_that_make_no_run_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        replace(Config(), **settings)
