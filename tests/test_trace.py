"""Traced functions: the same bits as the engine's, or no replay at all."""

from __future__ import annotations

import ast
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest

import minigan as mg
from minigan import nn, ops, optim
from minigan.data import Batch
from minigan.engine.primitive import Primitive
from minigan.engine.recorder import perform, record, recording
from minigan.engine.trace import Traced
from minigan.gan import Alternating, Config, Diverged, Game, Replayed, build, make_players, penalties
from minigan.gan.dynamics import DYNAMICS
from minigan.gan.models import MODELS
from minigan.gan.objectives import NON_SATURATING, OBJECTIVES
from minigan.gan.variants import VARIANTS
from minigan.random import Generator

R1, GP = penalties.r1, penalties.wgan_gp


class Run:
    """A game with its players' optimisers and noise; two runs with the same arguments start with the same bits."""

    def __init__(self, replayed, networks, objective=NON_SATURATING, terms=(), k=1, shape=(8, 8, 1)):
        self.shape, self.latent, self.batch = shape, 4, 6
        start = Generator(7, stream="init")
        generator, discriminator = (mg.nn.initialise(network, "lecun", start) for network in networks())
        self.game = Game(generator, discriminator, objective, terms, Generator(5, stream="penalty"))
        self.turns = Replayed(self.game) if replayed else self.game
        players = make_players(self.game, lambda p: optim.Adam(p, 1e-2), lambda p: optim.RMSProp(p, 1e-2))
        self.dynamics = Alternating(self.turns, *players, k=k)
        self.real, self.noise = Generator(1, stream="data"), Generator(2, stream="latent-D")

    def step(self):
        return self.dynamics.step(lambda: self.real.normal((self.batch, *self.shape)), self.draw_noise, self.draw_noise)

    def draw_noise(self):
        return self.noise.normal((self.batch, self.latent))

    def bits(self):
        """All that a step leaves behind."""
        networks = self.game.generator, self.game.discriminator
        arrays = [p.data for network in networks for p in network.parameters()]
        arrays += [np.asarray(b) for network in networks for b in network.named_buffers().values()]
        return [a.tobytes() for a in arrays] + [self.game.noise.step]

    def replayed(self):
        """Whether every turn is replayed by now."""
        programs = [program for turn in self.turns.traces.values() for program in turn._programs.values()]
        return len(programs) >= 2 and all(program.trusted for program in programs)


def dcgan():
    return MODELS["dcgan"]((8, 8, 1), 4, 8, True)


def dense():
    generator = nn.Sequential(
        nn.Dense(4, 8), nn.BatchNorm(8), nn.ReLU(), nn.Dense(8, 64), nn.Tanh(), nn.Reshape(8, 8, 1)
    )
    discriminator = nn.Sequential(
        nn.Flatten(), nn.Dense(64, 8), nn.LeakyReLU(), nn.Dropout(0.3, seed=3), nn.Dense(8, 1)
    )
    return generator, discriminator


def same_steps(runs, steps):
    for number in range(steps):
        found = [run.step() for run in runs]
        for x, y in zip(*([*f.discriminator, *f.generator] for f in found), strict=True):
            assert (x is None) == (y is None)
            assert x is None or (x.data.tobytes(), x.shape) == (y.data.tobytes(), y.shape), number
        assert runs[0].bits() == runs[1].bits(), number


@pytest.mark.parametrize("terms", [(), (R1(0.5),), (GP(2.0), penalties.r2(0.1))], ids=["", "r1", "gp"])
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=lambda o: o.name)
def test_a_traced_game_has_the_same_bits(backend, objective, terms):
    runs = [Run(replayed, dense, objective, terms, k=2) for replayed in (False, True)]
    same_steps(runs, 6)
    assert runs[1].replayed()


@pytest.mark.parametrize("terms", [(), (R1(0.5),)], ids=["", "r1"])
def test_a_traced_game_of_convolutions_has_the_same_bits(terms):
    runs = [Run(replayed, dcgan, NON_SATURATING, terms) for replayed in (False, True)]
    same_steps(runs, 12)
    assert runs[1].replayed()


def change_a_layer(run):
    run.game.discriminator.layers[1].w = mg.tensor(np.full((64, 8), 0.1, np.float32), requires_grad=True)


def change_the_momentum(run):
    run.game.generator.layers[1].momentum = 0.5


def to_inference(run):
    run.game.generator.eval()


def change_the_buffers(run):
    to_inference(run)
    run.step()
    run.step()
    run.game.generator.load_buffers({"layers.1.running_mean": np.full(8, 0.3, np.float32)})


def change_the_objective(run):
    run.game.objective = OBJECTIVES["hinge"]


def change_the_weight(run):
    run.game.penalties = (R1(3.0),)


def change_the_batch(run):
    run.batch = 5


def move_the_parameters(run):
    for p in run.game.discriminator.parameters():
        p.data = p.data.copy()


@pytest.mark.parametrize(
    "change",
    [
        change_a_layer,
        change_the_momentum,
        to_inference,
        change_the_buffers,
        change_the_objective,
        change_the_weight,
        change_the_batch,
        move_the_parameters,
    ],
)
def test_changes_between_turns_are_noticed(change):
    runs = [Run(replayed, dense, terms=(R1(1.0),)) for replayed in (False, True)]
    same_steps(runs, 4)
    assert runs[1].replayed()
    for run in runs:
        change(run)
        run.dynamics = Alternating(run.turns, *make_players(run.game, lambda p: optim.SGD(p, 1e-2)))
    same_steps(runs, 5)


def test_a_traced_game_says_where_it_diverged():
    run = Run(True, dense)
    for _ in range(3):
        run.step()
    assert run.replayed()
    run.game.generator.layers[0].w.data[0, 0] = math.nan
    with pytest.raises(Diverged, match="G made samples that are not finite"):
        run.step()


class Squares:
    """A function of Tensors with a state, in ways that a trace sees or does not."""

    def __init__(self):
        self.count = 0

    def _next(self):
        self.count = self.count + 1
        return np.float32(self.count)

    def plain(self, x):
        unused = mg.ops.exp(x)
        assert unused.shape == x.shape
        return [mg.ops.square(x) + 1.0, None]

    def counted(self, x):
        return mg.ops.square(x) * perform(self._next)

    def outside(self, x):
        return mg.ops.square(mg.tensor(x.data * 2))

    def branch(self, x):
        return mg.ops.square(x) if x.data[0] > 0 else mg.ops.exp(x)

    def number(self, x):
        return x * float(x.data.max())

    def choice(self, x):
        return mg.ops.reshape(x[x.data > 0.5], (int((x.data > 0.5).sum()), 1))


def values(seed, sign=1.0):
    return mg.tensor(sign * np.abs(Generator(seed).normal(3).data))


def test_a_trace_is_straight_source_without_what_nobody_needs():
    traced = Traced(Squares().plain, tuple)
    assert traced.source == ""
    x = values(0)
    assert traced(x)[1] is None
    lines = ast.parse(traced.source).body[0].body
    assert [type(line).__name__ for line in lines] == ["Assign", "Delete", "Assign", "Delete", "Return"]
    assert "exp" not in traced.source
    assert "square" in traced.source
    assert "1.0" in traced.source


def test_every_array_is_let_go_after_its_last_use():
    run = Run(True, dcgan, terms=(R1(1.0),))
    run.step()
    body = ast.parse(run.turns.traces["discriminator"].source).body[0].body
    alive = {"x0", "x2"}
    for line in body[:-1]:
        names = {n.id for n in ast.walk(line) if isinstance(n, ast.Name) and n.id[0] in "vx" and n.id[1:].isdigit()}
        if isinstance(line, ast.Delete):
            assert names <= alive
            alive -= names
        else:
            alive |= names
    returned = {n.id for n in ast.walk(body[-1]) if isinstance(n, ast.Name)}
    assert alive == returned


def test_a_state_changes_as_it_would():
    plain, other = Squares(), Squares()
    traced = Traced(other.counted, tuple)
    for seed in range(6):
        x = values(seed)
        assert plain.counted(x).data.tobytes() == traced(x).data.tobytes()
    assert plain.count == other.count == 6
    assert next(iter(traced._programs.values())).trusted


@pytest.mark.parametrize("name", ["outside", "branch", "number", "choice"])
def test_what_a_trace_cannot_see_is_never_replayed(name):
    function = getattr(Squares(), name)
    traced = Traced(function, tuple)
    traced(values(0))
    with pytest.warns(RuntimeWarning, match="not replayed"):
        second = traced(values(1, -1.0))
    assert second.data.tobytes() == function(values(1, -1.0)).data.tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it says so once
        for seed in range(2, 5):
            assert traced(values(seed)).data.tobytes() == function(values(seed)).data.tobytes()


def test_results_are_arrays_of_their_own():
    traced = Traced(lambda x: [x * 1.0, mg.tensor([1.0, 2.0])], tuple)
    kept = [traced(values(seed)) for seed in range(4)]
    kept[-1][1].data[:] = 9
    again = traced(values(9))
    np.testing.assert_array_equal(again[1].data, [1.0, 2.0])
    assert len({id(r[0].data) for r in kept}) == 4
    assert not any(x.requires_grad or x.inputs for r in kept for x in r)


def test_a_failure_while_recording_leaves_no_recorder():
    def fail(x):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Traced(fail, tuple)(values(0))
    assert recording() is None


def test_shapes_and_dtypes_are_traced_apart():
    traced = Traced(lambda x: x * x, tuple)
    for dtype in (np.float32, np.float64):
        for n in (2, 3):
            for k in range(3):
                x = mg.tensor(np.arange(n) + k, dtype=dtype)
                assert traced(x).data.tobytes() == (x * x).data.tobytes()
    assert len(traced._programs) == 4


@pytest.mark.parametrize("op", ["abs", "clip", "maximum", "minimum", "max"])
def test_gradients_that_depend_on_where_the_data_lies_are_replayed(op):
    functions = {
        "abs": ops.abs,
        "clip": lambda x: ops.clip(x, -0.5, 0.5),
        "maximum": lambda x: ops.maximum(x, 0.25 * x * x),
        "minimum": lambda x: ops.minimum(x, 0.1),
        "max": lambda x: ops.max(x, axis=1),
    }

    def slope(x):
        leaf = mg.Tensor(x.data, requires_grad=True)
        return mg.grad(ops.sum(ops.square(functions[op](leaf))), leaf)

    traced = Traced(slope, list)
    for seed in range(4):
        x = Generator(seed).normal((4, 5))
        np.testing.assert_array_equal(traced(x).numpy(), slope(x).numpy())
    assert [program.trusted for program in traced._programs.values()] == [True]


# --- every kind of game -----------------------------------------------------------------------------------------------

LAYERS = {
    "plain": {},
    "dropout": {"dropout": 0.3},
    "spectral norm": {"spectral_norm": True},
    "noise and statistics": {"instance_noise": 0.2, "stddev": True, "discrimination": 3, "pack": 2},
    "batch norm": {"batch_norm": True, "penalty": "wgan-gp"},
}


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("scheme", DYNAMICS)
@pytest.mark.parametrize("rule", VARIANTS)
def test_every_game_is_replayed_with_the_same_bits(rule, scheme, layers):
    turns = {"d_steps": 2, "g_steps": 2} if DYNAMICS[scheme].turns else {}
    base = replace(Config.preset("ring"), width=4, depth=2, batch_size=8, unroll=2, device="cpu", log_every=100)
    config = replace(base, rule=rule, dynamics=scheme, **turns, **LAYERS[layers])
    played, replayed = build(config), build(config)
    played.dynamics.game = played.game
    for trainer in (played, replayed):
        trainer.train(5)
    state = replayed.state()
    assert all(array.tobytes() == state[name].tobytes() for name, array in played.state().items())
    programs = [p for turn in replayed.dynamics.game.traces.values() for p in turn._programs.values()]
    assert len(programs) == (2 if DYNAMICS[scheme].turns else 1)
    assert all(program.trusted for program in programs)


class Nosy(nn.Module):
    """A layer of a user that looks at its parameter outside of ops."""

    def __init__(self):
        self.w = mg.tensor([[1.0], [-1.0]], requires_grad=True)

    def forward(self, x):
        return ops.matmul(x, self.w) * float(np.abs(self.w.data).max())


def test_what_is_computed_of_parameters_outside_of_ops_is_never_replayed():
    def game():
        return Game(nn.Dense(2, 2).with_parameters([mg.tensor(np.eye(2, dtype=np.float32), requires_grad=True),
                    mg.tensor(np.zeros(2, np.float32), requires_grad=True)]), Nosy())  # fmt: skip

    ends = []
    for replayed in (False, True):
        played, noise = game(), Generator(0)
        players = make_players(played, lambda p: optim.SGD(p, 0.1))
        # in G's two turns of a step D is the same: the first comparison of G's replay cannot see what D computes
        dynamics = Alternating(Replayed(played) if replayed else played, *players, m=2)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(6):
                dynamics.step(*[lambda: noise.normal((4, 2))] * 3)  # noqa: B023
        ends.append([p.numpy().tolist() for player in players for p in player.network.parameters()])
        assert len([w for w in told if "not replayed" in str(w.message)]) == 2 * replayed
    assert ends[0] == ends[1]


def test_a_parameter_that_stays_for_a_while_is_compared_when_it_changes():
    w = mg.tensor([2.0], requires_grad=True)
    holder = nn.Module()
    holder.w = w
    optimiser = optim.SGD([w], 0.5)
    traced = Traced(lambda x: x * w * float(w.data[0]), lambda: [holder])
    for seed in range(4):
        assert traced(values(seed)).data.tobytes() == (values(seed) * w * float(w.data[0])).data.tobytes()
    assert next(iter(traced._programs.values())).trusted
    optimiser.step([np.ones(1, np.float32)])
    with pytest.warns(RuntimeWarning, match="not replayed"):
        found = traced(values(5))
    assert found.data.tobytes() == (values(5) * w * 1.5).data.tobytes()


class Norm(nn.Module):
    """A user's layer that follows the module's rules on buffers, and moves one outside of perform."""

    buffer_names = ("mean",)

    def __init__(self):
        self.mean = np.zeros(2, np.float32)

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.data.mean(0)
        return x


class Block(nn.Module):
    def __init__(self):
        self.scale, self.layers = np.ones(1, np.float32), [nn.Dense(2, 2), nn.ReLU()]

    buffer_names = ("scale",)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x * mg.Tensor(self.scale)


def own_game(layer):
    generator = nn.Sequential(nn.Dense(2, 2), layer)
    return Game(nn.initialise(generator, "he", Generator(1)), nn.initialise(nn.Dense(2, 1), "he", Generator(2)))


def test_a_buffer_that_moves_undeclared_is_not_lost():
    ends = []
    for replayed in (False, True):
        played, noise = own_game(Norm()), Generator(0)
        dynamics = Alternating(
            Replayed(played) if replayed else played, *make_players(played, lambda p: optim.SGD(p, 0.1))
        )
        for _ in range(8):
            dynamics.step(*[lambda: noise.normal((4, 2))] * 3)  # noqa: B023
        ends.append(played.generator.layers[1].mean.tolist())
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    "change",
    [lambda b: setattr(b, "scale", np.full(1, 3, np.float32)), lambda b: b.layers.__setitem__(1, nn.Tanh())],
)
def test_an_undeclared_buffer_or_a_layer_in_a_list_is_watched(change):
    played, noise = own_game(Block()), Generator(0)
    replayed = Replayed(played)
    for _ in range(4):
        replayed.generator_gradient(noise.normal((4, 2)), noise.normal((4, 2)))
    change(played.generator.layers[1])
    real, z = noise.normal((4, 2)), noise.normal((4, 2))
    found, wanted = replayed.generator_gradient(real, z), played.generator_gradient(real, z)
    assert [g.numpy().tobytes() for g in found.parts] == [g.numpy().tobytes() for g in wanted.parts]


# --- names and settings of any kind -----------------------------------------------------------------------------------


def odd_primitives():
    """Ops whose names and settings are no Python names, or too deep or long for Python's parser."""
    deep = 1.0
    for _ in range(300):
        deep = (deep,)
    plain = lambda x, **settings: 2.0 * x  # noqa: E731

    def spaced(x, **settings):
        return 2.0 * x

    spaced.__name__ = "an op; import os"
    numbered = lambda x, **settings: 2.0 * x  # noqa: E731
    numbered.__name__ = "2x"
    strange = lambda x, **settings: 2.0 * x  # noqa: E731
    strange.__name__ = "größe\ud800"
    settings = {"lambda": 1, "two words": (1.0, "\ud800"), "größe": 10**5000, "deep": deep, "nan": math.nan, "x0": 3}
    for function in (plain, spaced, numbered, strange):
        op = Primitive(function, function.__name__, register=False)
        op.defvjp(lambda g, y, x, **_: g * 2.0)
        yield lambda x, op=op: op(x, **settings)


def test_names_and_settings_of_any_kind_are_traced():
    for op in odd_primitives():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            traced = Traced(lambda x, op=op: op(ops.exp(x)), lambda: [])
            for value in (1.0, 2.0, 3.0, 4.0):
                x = mg.tensor([value])
                np.testing.assert_array_equal(traced(x).data, 2 * np.exp(x.data))
        assert all(program.trusted for program in traced._programs.values())


def test_an_array_deep_in_a_tuple_is_not_frozen():
    """Too deep to be followed: the replay is refused, or right."""

    def nest(value, depth):
        return value if not depth else (nest(value, depth - 1),)

    def first(x, *, deep):
        while isinstance(deep, tuple):
            deep = deep[0]
        return x * deep

    op = Primitive(first, "first", register=False)
    for depth in (3, 50):
        traced = Traced(lambda x, d=depth: op(x, deep=nest(ops.exp(x).data, d)), lambda: [])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for value in (1.0, 2.0, 3.0, 4.0):
                x = mg.tensor([value])
                np.testing.assert_array_equal(traced(x).data, x.data * np.exp(x.data))


def test_a_long_trace_takes_time_in_proportion():
    """Each constant is found by its address: a network of thousands of layers is traced in a moment."""
    x, weights = mg.tensor([1.0]), [mg.tensor([1.0 + i / 1e6]) for i in range(4000)]
    _, recorder = record(lambda x: [ops.mul(x, w) for w in weights], [x], [x.data])
    assert len(recorder.calls) == 4000
    assert len(recorder.constants) == len(recorder._constant_names) + 1


def test_a_branch_is_not_proven_by_the_same_data():
    """``x > 0`` looks like an op and is none: the trace of it holds for one x alone."""
    traced = Traced(lambda x: ops.where(x > 0, x, 0.0), list)
    a, b = mg.tensor([1.0, -1.0]), mg.tensor([-1.0, 1.0])
    for _ in range(3):
        assert traced(a).data.tolist() == [1.0, 0.0]
    with pytest.warns(RuntimeWarning, match="not replayed"):
        assert traced(b).data.tolist() == [0.0, 1.0]
    assert traced(a).data.tolist() == [1.0, 0.0]


def test_an_input_that_stays_the_same_is_compared_when_it_changes():
    traced = Traced(lambda x, y: x * y, list)
    x, y = mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0])
    for factor in (1.0, 2.0, 3.0):
        assert traced(x * factor, y).data.tolist() == [3.0 * factor, 8.0 * factor]
    for _ in range(2):
        assert traced(x, y * 2).data.tolist() == [6.0, 16.0]


class Last(nn.Module):
    """A layer that remembers what it saw, as people do who look for a fault."""

    def __init__(self, kind):
        self.kind = kind

    def forward(self, x):
        self.last = {"tensor": lambda: x.detach(), "list": lambda: [x.detach()], "count": lambda: x.shape}[self.kind]()
        return ops.tanh(x)


@pytest.mark.parametrize("kind", ["tensor", "list", "count"])
@pytest.mark.parametrize("k", [1, 2])
def test_a_layer_that_remembers_does_not_stop_the_training(kind, k):
    def trained(wrap):
        generator = nn.Sequential(nn.Dense(2, 4), Last(kind), nn.Dense(4, 2))
        discriminator = nn.Sequential(nn.Dense(2, 4), nn.LeakyReLU(0.2), nn.Dense(4, 1))
        for network in (generator, discriminator):
            nn.initialise(network, "dcgan", Generator(3))
        game = Game(generator, discriminator, NON_SATURATING, noise=Generator(0, stream="penalty"))
        dynamics = Alternating(wrap(game), *make_players(game, optim.Adam), k=k)
        noise = Generator(1)
        for _ in range(20):
            dynamics.step(*[lambda: Batch(noise.normal((4, 2)))] * 3)
        return [p.numpy().tobytes() for p in (*generator.parameters(), *discriminator.parameters())]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        replayed = trained(Replayed)
    assert replayed == trained(lambda game: game)
    assert {str(w.message).split(",")[0] for w in caught} <= {"a traced function is not replayed"}
