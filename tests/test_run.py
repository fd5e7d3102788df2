"""What a run promises: its files, the same bits however it is cut, and nothing overwritten when it goes wrong."""

import contextlib
import csv
import gc
import hashlib
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from minigan.data import Dataset
from minigan.engine.tensor import Tensor
from minigan.gan import Config, Diverged, build
from minigan.nn import BatchNorm, Module
from minigan.random import Generator
from minigan.run import checkpoint
from minigan.run import folder as runs

RING = Config(
    data="ring", model="mlp", width=8, latent=4, batch_size=16, steps=40, log_every=5, sample_every=20,
    checkpoint_every=20,
)  # fmt: skip
IMAGES = Config(
    model="dcgan", width=2, latent=4, batch_size=8, steps=6, log_every=1, sample_every=3, checkpoint_every=2
)
# an epoch of 1,797 digits is exactly three minibatches
EPOCH3 = replace(IMAGES, model="mlp", batch_size=599, steps=8, log_every=3, sample_every=4, checkpoint_every=5)


def snapshot(trainer):
    """Return a copy of the whole state as bytes, with shapes and dtypes."""
    return {name: (array.shape, array.dtype.str, array.tobytes()) for name, array in trainer.state().items()}


def train(run, until=None):
    """Train to the end, or stop as a signal would before step ``until`` + 1; return whether the run is finished."""
    with contextlib.closing(run.events()) as events:
        for event in events:
            if until is not None and event.step >= until:
                break
    return run.trainer.steps >= run.config.steps


def finished(folder, config):
    run = runs.create(folder, config)
    assert train(run)
    return run


def resumed(folder, steps=None):
    run = runs.reopen(folder, steps)
    assert not run.complaints
    runs.go_on(run)
    return run


def files(folder):
    """Return the bytes of every file below a folder by its relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- the folder -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    run = finished(tmp_path_factory.mktemp("runs") / "deep" / "ring", RING)
    run.finish()
    return run


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    run = finished(tmp_path_factory.mktemp("runs") / "digits", IMAGES)
    run.finish()
    return run


@pytest.fixture
def copy(request, ring, tmp_path):
    """Return a copy of the ring run's folder, to be damaged."""
    return shutil.copytree(ring.folder, tmp_path / "copy")


@pytest.mark.parametrize(
    ("name", "pictures", "checkpoints", "rows"),
    [("ring", (0, 20, 40), (20, 40), range(5, 41, 5)), ("images", (0, 3, 6), (4, 6), range(1, 7))],
)
def test_a_run_leaves_its_files(request, name, pictures, checkpoints, rows):
    run = request.getfixturevalue(name)
    assert sorted(files(run.folder)) == sorted(
        ["config.toml", "curves.png", "metrics.csv", "samples.png", "training.gif", "variety.csv"]
        + [f"samples/step_{step:07d}.png" for step in pictures]
        + [f"checkpoints/step_{step:07d}.safetensors" for step in checkpoints]
    )
    assert Config.from_toml(run.folder / "config.toml") == run.config
    with Image.open(run.folder / "training.gif") as film:
        assert film.n_frames == len(pictures)
    with (run.folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [int(row["step"]) for row in table] == list(rows)
    numbers = np.array([[float(value) for value in row.values()] for row in table])
    assert np.isfinite(numbers).all()
    assert all(0 <= float(row[f"accuracy_{side}"]) <= 1 for row in table for side in ("real", "fake"))
    assert all(float(row[key]) > 0 for row in table for key in ("penalty", "grad_norm_d", "grad_norm_g"))
    last = f"samples/step_{pictures[-1]:07d}.png"
    assert (run.folder / "samples.png").read_bytes() == (run.folder / last).read_bytes()


def test_the_settings_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="model 'dcgan' makes images"):
        runs.create(tmp_path / "new", replace(RING, model="dcgan"))
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_untouched(copy, tmp_path):
    before = files(tmp_path)
    for taken in (copy, copy / "config.toml"):
        with pytest.raises(runs.RunError, match="exists already"):
            runs.create(taken, RING)
    assert files(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert runs.create(tmp_path / "empty", RING).trainer.steps == 0


def test_judgement_is_said_in_sentences(ring, images):
    assert len(ring.judge()) == 1
    assert " of 8 modes found" in ring.judge()[0]
    distance, shares = images.judge()
    assert distance.startswith("Fréchet distance over raw pixels")
    assert "share of each class" in shares
    assert images.judge() == [distance, shares]


def test_a_run_of_no_steps_still_shows_its_start(tmp_path):
    run = finished(tmp_path / "none", replace(RING, steps=0))
    run.finish()
    assert (run.folder / "training.gif").exists()
    assert [step for step, _ in checkpoint.find(run.folder / "checkpoints")] == [0]


# --- reopening --------------------------------------------------------------------------------------------------------


def test_reopening_goes_back_to_the_last_checkpoint(ring):
    before = files(ring.folder)
    again = runs.reopen(ring.folder)
    assert snapshot(again.trainer) == snapshot(ring.trainer)
    assert again.config == ring.config
    assert np.array_equal(again.trainer.sample(5), ring.trainer.sample(5))
    again.save()
    assert files(ring.folder) == before


def test_what_holds_no_run_is_not_reopened(copy, tmp_path):
    for folder in (tmp_path, tmp_path / "missing", copy / "config.toml"):
        with pytest.raises(runs.RunError, match="holds no run"):
            runs.reopen(folder)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(runs.RunError, match="there is no checkpoint in"):
        runs.reopen(copy)


def test_a_checkpoint_of_other_settings_is_not_loaded(copy):
    (copy / "config.toml").write_text(replace(RING, width=9).to_toml(), encoding="utf-8")
    with pytest.raises(runs.RunError, match=r"config.toml was edited since step_0000040.safetensors: set width back"):
        runs.reopen(copy)


def test_a_run_goes_on_with_its_own_data_alone(tmp_path):
    points = np.random.default_rng(0).normal(size=(48, 2)).astype(np.float32)
    own = Dataset("mine", points)
    run = runs.create(tmp_path / "run", replace(RING, steps=4), own)
    run.train()
    for name in ("mine", "mine, moved"):  # the content decides
        assert runs.reopen(tmp_path / "run", data=Dataset(name, points.copy())).trainer.steps == 4
    changed = points.copy()
    changed[17, 1] = np.nextafter(changed[17, 1], np.float32(9))
    state = run.trainer.state()
    for data in (None, Dataset("mine", changed), Dataset("mine", points[:-1])):
        with pytest.raises(runs.RunError, match=r"was trained on mine \(sha256 [0-9a-f]{12}\), but the data here is"):
            runs.reopen(tmp_path / "run", data=data)
        with pytest.raises(ValueError, match="use the data that it was saved on"):
            build(run.config, data).load_state(state)


@pytest.mark.parametrize("kind", ["Row", "Picture", "Varied", "Stepped"])
def test_the_loop_may_be_left_at_any_event(tmp_path, ring, kind):
    run = runs.create(tmp_path / "run", RING)
    for event in run.events():
        if event.step >= 20 and type(event).__name__ == kind:
            break
    assert run.last_saved == run.trainer.steps == 20
    again = resumed(tmp_path / "run")
    again.train()
    again.finish()
    assert snapshot(again.trainer) == snapshot(ring.trainer)
    ours, theirs = files(tmp_path / "run"), files(ring.folder)
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == theirs[name] for name in theirs if not name.startswith("checkpoints/"))


def test_a_state_that_does_not_fit_changes_nothing(ring):
    trainer = build(RING)
    before = snapshot(trainer)
    state = {name: array.copy() for name, array in ring.trainer.state().items()}
    state["noise/penalty"] = state["noise/penalty"].astype(np.int32)
    with pytest.raises(ValueError, match="see noise/penalty"):
        trainer.load_state(state)
    assert snapshot(trainer) == before


def test_damage_costs_the_steps_since_the_checkpoint_before(copy, ring):
    newest = copy / "checkpoints" / "step_0000040.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9])
    run = runs.reopen(copy)
    assert run.trainer.steps == 20
    assert len(run.complaints) == 1
    assert str(newest) in run.complaints[0]
    runs.go_on(run)
    assert train(run)
    assert snapshot(run.trainer) == snapshot(ring.trainer)
    aside = "step_0000040.safetensors.damaged"
    assert files(copy / "checkpoints").keys() - {aside} == files(ring.folder / "checkpoints").keys()
    assert (copy / "metrics.csv").read_bytes() == (ring.folder / "metrics.csv").read_bytes()


def test_a_damaged_checkpoint_does_not_count_as_one_of_the_two_kept(copy):
    (copy / "checkpoints" / "step_0000040.safetensors").write_bytes(b"")
    run = runs.reopen(copy)
    runs.go_on(run)
    assert not train(run, until=25)
    found = {step for step, _ in checkpoint.find(copy / "checkpoints")}
    assert found >= {20, 25}, "the checkpoint that was gone back to is still there"


@pytest.mark.parametrize("rest", ["", "step,loss_d\r\n"], ids=["empty", "cut header"])
def test_metrics_cut_by_a_crash_do_not_stop_a_resume(copy, rest):
    (copy / "metrics.csv").write_text(rest, encoding="utf-8")
    run = resumed(copy, steps=50)
    assert train(run)
    run.finish()
    rows = (copy / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("step,loss_d,loss_g,")
    assert [row.split(",")[0] for row in rows[1:]] == ["45", "50"]


def test_what_is_later_than_the_checkpoint_is_dropped(copy, ring):
    with (copy / "metrics.csv").open("a", encoding="utf-8") as file:
        file.write(f"45{',9' * 7}\r\n50,1")
    shutil.copy(copy / "samples.png", copy / "samples" / "step_0000060.png")
    resumed(copy)
    assert files(copy) == files(ring.folder)


# --- the same bits ----------------------------------------------------------------------------------------------------

GAMES = {
    "r1": replace(EPOCH3, penalty="r1"),
    "two steps of D": replace(EPOCH3, penalty="r2", d_steps=2, ema=0.0),
    "wgan-gp": replace(EPOCH3, objective="wasserstein", penalty="wgan-gp", batch_norm=False, d_steps=2),
    "relativistic": replace(EPOCH3, objective="relativistic", penalty="none"),
    "dcgan": replace(IMAGES, steps=8, batch_size=599, objective="hinge"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a function from a game's name to its run, trained without interruption (once)."""
    done = {}

    def get(name):
        if name not in done:
            done[name] = finished(tmp_path_factory.mktemp("whole") / "run", GAMES[name])
        return done[name]

    return get


CUTS = {"start": (0,), "first": (1,), "last of an epoch": (2,), "border": (3,), "twice": (4, 5), "every": range(8)}


@pytest.mark.parametrize(
    ("game", "where"), [("r1", where) for where in CUTS] + [(game, "every") for game in GAMES if game != "r1"]
)
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, whole, game, where):
    cuts = CUTS[where]
    reference, folder = whole(game), tmp_path / "cut"
    run = runs.create(folder, GAMES[game])
    for cut in cuts:
        assert not train(run, until=cut)
        assert run.trainer.steps == run.last_saved == cut
        run = resumed(folder)
    assert train(run)
    assert snapshot(run.trainer) == snapshot(reference.trainer)
    ours, theirs = files(folder), files(reference.folder)
    for name in [name for name in theirs if not name.startswith("checkpoints/")]:
        assert ours[name] == theirs[name], name
    assert ours.keys() - theirs.keys() <= {f"checkpoints/step_{cut:07d}.safetensors" for cut in cuts}
    assert np.array_equal(run.trainer.sample(3), reference.trainer.sample(3))


def test_a_longer_goal_goes_on_where_the_run_ended(tmp_path, whole):
    finished(tmp_path / "run", replace(GAMES["r1"], steps=3))
    run = resumed(tmp_path / "run", steps=8)
    assert Config.from_toml(tmp_path / "run" / "config.toml").steps == 8
    assert train(run)
    assert snapshot(run.trainer) == snapshot(whole("r1").trainer)


def test_the_seed_decides_every_bit(images):
    def end(seed):
        trainer = build(replace(IMAGES, seed=seed))
        for _ in range(IMAGES.steps):
            trainer.step()
        return snapshot(trainer)

    same = snapshot(images.trainer)
    assert {**end(0), "movement": None} == {**same, "movement": None}  # which belongs to the rows of metrics
    other = end(1)
    for name, value in snapshot(images.trainer).items():
        if name == "movement":
            continue
        counts = name.endswith("steps") or name.startswith("noise/") or name == "data"
        assert (other[name] == value) == counts, name


@pytest.mark.parametrize("d_steps", [1, 3])
def test_training_passes_every_sample_once_an_epoch(d_steps):
    points = np.arange(96, dtype=np.float32).reshape(48, 2) / 96
    trainer = build(replace(RING, d_steps=d_steps), Dataset("points", points))
    turns = trainer.dynamics.game
    seen, gradient = [], turns.discriminator_gradient
    turns.discriminator_gradient = lambda real, z: (seen.append(real.x.data.copy()), gradient(real, z))[1]
    for _ in range(6 // d_steps):
        trainer.step()
    epochs = np.concatenate(seen).reshape(2, 48, 2)
    assert np.array_equal(np.sort(epochs[:, :, 0]), np.stack([points[:, 0]] * 2))
    assert not np.array_equal(epochs[0], epochs[1])


THREADS = """
import hashlib, sys
from minigan.gan import Config, build
trainer = build(Config(width=int(sys.argv[1])))
for _ in range(12):
    trainer.step()
digest = hashlib.sha256()
for name, array in sorted(trainer.state().items()):
    digest.update(name.encode() + array.tobytes())
print(digest.hexdigest())
"""


@pytest.mark.parametrize("width", ["32", "33"])
def test_the_number_of_threads_changes_no_bit(width):
    def process(threads):
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        return subprocess.Popen(
            [sys.executable, "-c", THREADS, width],
            env=os.environ | dict.fromkeys(names, str(threads)),
            stdout=subprocess.PIPE,
            text=True,
        )

    with process(1) as one, process(2) as two, process(3) as three:
        digests = {child.communicate()[0].strip() for child in (one, two, three)}
    assert len(digests) == 1
    assert len(digests.pop()) == 2 * hashlib.sha256().digest_size


# --- numbers that are not finite --------------------------------------------------------------------------------------


def quietly(action, *arguments):
    """Call something that overflows on purpose, without NumPy's warnings about it."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        return action(*arguments)


@pytest.mark.parametrize("player", ["discriminator", "generator"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_poisoned_parameter_ends_a_run_that_keeps_its_checkpoints(copy, player, value):
    run = resumed(copy, steps=60)
    assert not train(run, until=43)
    before = files(copy)
    getattr(run.trainer.game, player).parameters()[0].data[0] = value
    with pytest.raises(Diverged, match=r"step 44: .* is not finite: .*(made it first|parameter of shape)"):
        quietly(train, run)
    assert files(copy) == before
    assert runs.reopen(copy).trainer.steps == 43


def test_the_inputs_are_told_as_they_were_when_it_happened():
    trainer = build(RING)
    last = trainer.game.discriminator.parameters()[-2]
    assert last.shape == (16, 1)
    last.data[...] = np.finfo(np.float32).max  # finite, but not its products
    with pytest.raises(Diverged) as caught:
        quietly(trainer.step)
    assert "step 1: the loss of D is not finite: dense made it first" in str(caught.value)
    assert "(16, 1) from 3.403e+38 to 3.403e+38" in str(caught.value)


def test_the_op_that_overflowed_is_named_with_its_inputs():
    trainer = build(replace(RING, lr_d=1e30))
    with pytest.raises(
        Diverged, match=r"step 1: the loss of G is not finite: dense made it first, from inputs .* to .*e\+\d\d"
    ):
        quietly(trainer.step)


def test_data_that_is_not_finite_is_found():
    points = np.ones((32, 2), np.float32)
    points[3] = np.nan
    with pytest.raises(
        Diverged, match=r"step 1: the loss of D is not finite: an input or parameter of shape \(32, 2\) was not finite"
    ):
        quietly(build(replace(RING, batch_size=32), Dataset("points", points)).step)


@pytest.mark.parametrize("rates", [{"lr_g": 1e39}, {"lr_d": 1e39, "gamma": 0.0}], ids=["G", "D"])
def test_no_checkpoint_holds_a_parameter_that_is_not_finite(tmp_path, rates):
    run = runs.create(tmp_path / "run", replace(RING, checkpoint_every=1, **rates))
    with pytest.raises(Diverged):
        quietly(train, run)
    for _, path in checkpoint.find(run.folder / "checkpoints"):
        for name, array in checkpoint.read(path).arrays.items():
            assert name == "movement" or np.isfinite(array).all(), f"{path.name}: {name}"


# --- the averaged generator -------------------------------------------------------------------------------------------

AVERAGES = {
    "batch norm": IMAGES, "no batch norm": replace(IMAGES, batch_norm=False), "no average": replace(IMAGES, ema=0.0)
}  # fmt: skip


@pytest.fixture(params=AVERAGES.values(), ids=AVERAGES)
def trainer(request):
    trainer = build(request.param)
    for _ in range(3):
        trainer.step()
    return trainer


def test_a_sample_depends_on_its_own_latent_alone(trainer):
    generator = trainer.averaged_generator()
    z = Generator(5).normal((7, trainer.latent)).data
    together = generator(Tensor(z)).data
    apart = np.concatenate([generator(Tensor(z[i : i + 1])).data for i in range(7)])
    assert together.shape == (7, 8, 8, 1)
    assert np.abs(together - together[0]).max() > 1e-3
    np.testing.assert_allclose(apart, together, rtol=0, atol=1e-5)


def test_more_samples_begin_with_the_same_ones(trainer):
    few, many = trainer.sample(3), trainer.sample(1003)
    assert many.shape == (1003, 8, 8, 1)
    assert many.dtype == np.float32
    assert np.abs(many).max() <= 1
    assert np.array_equal(trainer.sample(1003), many)
    assert not np.array_equal(trainer.sample(3, seed=9), few)
    assert len(np.unique(many.reshape(1003, -1), axis=0)) == 1003
    assert trainer.sample(0).shape == (0, 8, 8, 1)
    np.testing.assert_allclose(many[:3], few, rtol=0, atol=1e-5)


def test_sampling_does_not_change_training(request, trainer):
    twin = build(request.node.callspec.params["trainer"])
    twin.load_state({name: array.copy() for name, array in trainer.state().items()})
    before = snapshot(trainer)
    trainer.sample(20, seed=3)
    assert snapshot(trainer) == before
    for _ in range(2):
        trainer.step()
        trainer.sample(4)
        twin.step()
    assert snapshot(trainer) == snapshot(twin)


def test_samples_come_from_the_average_with_statistics_of_its_own():
    trainer = build(IMAGES)
    for _ in range(5):
        trainer.step()
    other = build(replace(IMAGES, ema=0.0))
    for p, average in zip(other.game.generator.parameters(), trainer.generator.optimizer.average(), strict=True):
        assert not np.array_equal(p.data, average.data)
        p.data[...] = average.data
    assert np.array_equal(trainer.sample(4), other.sample(4))
    averaged = trainer.averaged_generator()
    norms = [module for _, module in averaged.modules() if isinstance(module, BatchNorm)]
    own = [module for _, module in trainer.game.generator.modules() if isinstance(module, BatchNorm)]
    assert len(norms) == len(own) > 0
    for norm, other in zip(norms, own, strict=True):
        assert not norm.training
        assert other.training
        assert other.momentum == 0.1
        assert not np.array_equal(norm.running_mean, other.running_mean)


def test_a_run_can_look_at_its_spectrum_and_stays_the_same(tmp_path):
    settings = replace(RING, steps=6, width=2, spectrum_every=3)
    run = runs.create(tmp_path / "run", settings)
    assert train(run)
    run.finish()
    rows = (tmp_path / "run" / "spectrum.csv").read_text(encoding="utf-8").splitlines()
    parameters = sum(player.optimizer.buffer.size for player in (run.trainer.generator, run.trainer.discriminator))
    assert rows[0] == "step,real,imaginary"
    assert len(rows) == 1 + 2 * parameters  # all of them: the networks are small
    with Image.open(tmp_path / "run" / "spectrum.png") as picture:
        assert picture.size == (1050, 460)
    plain = runs.create(tmp_path / "plain", replace(settings, spectrum_every=0))
    assert train(plain)
    assert snapshot(plain.trainer) == snapshot(run.trainer)
    assert not (tmp_path / "plain" / "spectrum.csv").exists()


FREED = {
    "digits": {},
    "spectrum": {"spectrum_every": 6, "steps": 7},
    "wgan-gp": {"penalty": "wgan-gp", "objective": "wasserstein"},
    "unrolled": {"rule": "unrolled", "unroll": 2},
    "consensus": {"rule": "consensus", "rule_weight": 0.1},
    "extragradient": {"dynamics": "extragradient"},
    "layers": {"spectral_norm": True, "stddev": True, "dropout": 0.3, "instance_noise": 0.1, "penalty": "none"},
}


@pytest.mark.parametrize("change", FREED)
def test_a_run_leaves_nothing_to_the_garbage_collector(change, tmp_path):
    run = runs.create(tmp_path / "run", replace(IMAGES, **FREED[change]))
    with contextlib.closing(run.events()) as events:
        while next(events).step < 1:  # the first step traces and compiles
            pass
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in events:
                pass
            run.judge()
            gc.collect()
            kinds = [
                type(thing) for thing in gc.garbage
            ]  # a proxy of what is gone has a type, and cannot be asked more
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert [kind.__name__ for kind in kinds if issubclass(kind, Tensor | Module | np.ndarray)] == []
