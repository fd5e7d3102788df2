"""Layers and networks: values, fusion, parameters in one buffer, state, initialisers, bad arguments."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minigan as mg
from minigan import nn, ops
from minigan.engine.flat import buffer_of
from minigan.nn import INITIALISERS, initialise
from minigan.nn.layers import LINEAR
from minigan.random import Generator


def normal(*shape, seed=0, dtype=np.float32):
    return Generator(seed, stream="data").normal(shape, dtype=dtype)


def small_network():
    return nn.Sequential(nn.Dense(3, 4), nn.BatchNorm(4), nn.LeakyReLU(0.1), nn.Sequential(nn.Dense(4, 2), nn.Tanh()))


def ops_behind(y):
    """Count the ops on the way from y to its first inputs."""
    return 1 + ops_behind(y.inputs[0]) if y.op else 0


# --- layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [(5,), (2, 3), ()])
def test_dense(backend, lead):
    layer, x = nn.Dense(3, 4), normal(*lead, 3)
    layer.b.data[...] = [1, 2, 3, 4]
    y = layer(x)
    assert y.shape == (*lead, 4)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.numpy(), x.numpy() @ layer.w.numpy() + layer.b.numpy(), rtol=1e-5)


def test_conv2d_is_the_op_plus_its_bias(backend):
    layer, x = nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0)), normal(2, 7, 5, 2)
    layer.b.data[...] = [1, 2, 3]
    y = layer(x)
    assert y.shape == (2, 4, 4, 3)
    np.testing.assert_array_equal(
        y.numpy(), ops.conv2d(x, layer.w, stride=(2, 1), padding=(1, 0)).numpy() + layer.b.numpy()
    )


def test_conv_transpose2d_is_the_adjoint_of_conv2d(backend):
    up = nn.ConvTranspose2d(2, 3, (3, 4), stride=(2, 3), padding=(1, 0), bias=False, output_padding=(1, 2))
    down = nn.Conv2d(3, 2, (3, 4), stride=(2, 3), padding=(1, 0), bias=False).with_parameters([up.w])
    y = normal(2, 3, 4, 2)
    x = normal(2, 6, 15, 3, seed=1)
    assert up(y).shape == x.shape
    left, right = (up(y) * x).sum().item(), (y * down(x)).sum().item()
    assert left == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.ReLU(), [0, 0, 1]),
        (nn.LeakyReLU(0.5), [-1, 0, 1]),
        (nn.LeakyReLU(), [-0.4, 0, 1]),
        (nn.Tanh(), np.tanh([-2, 0, 1])),
        (nn.Sigmoid(), [1 / (1 + math.e**2), 0.5, 1 / (1 + 1 / math.e)]),
        (nn.Softplus(), np.log1p(np.exp([-2, 0, 1]))),
    ],
    ids=repr,
)
def test_activations(backend, layer, expected):
    np.testing.assert_allclose(layer(mg.tensor([-2.0, 0.0, 1.0])).numpy(), expected, rtol=1e-6)
    assert layer.parameters() == []


def test_flatten_and_reshape_keep_the_order_of_entries():
    x = normal(2, 3, 4, 5)
    flat = nn.Flatten()(x)
    assert flat.shape == (2, 60)
    for back in (nn.Reshape(3, 4, 5), nn.Reshape((3, 4, 5))):
        np.testing.assert_array_equal(back(flat).numpy(), x.numpy())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda bias: nn.Dense(6, 3, bias=bias),
        lambda bias: nn.Conv2d(6, 3, 3, padding=1, bias=bias),
        lambda bias: nn.ConvTranspose2d(6, 3, 2, stride=2, bias=bias),
    ],
)
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.3), nn.Tanh(), nn.Sigmoid()], ids=repr)
def test_sequential_fuses_without_changing_a_bit(backend, make, bias, activation):
    layer, x = make(bias), normal(2, 5, 7, 6)
    if bias:
        layer.b.data[...] = [0.1, -0.2, 0.3]
    together, apart = nn.Sequential(layer, activation)(x), activation(layer(x))
    assert together.numpy().tobytes() == apart.numpy().tobytes()
    if bias:
        assert ops_behind(together) < ops_behind(apart)


class Doubled(nn.ReLU):
    def forward(self, x):
        return 2.0 * super().forward(x)


class Called(nn.Tanh):
    def __call__(self, x):
        return 3.0 * super().__call__(x)


class Shifted(nn.Dense):
    def forward(self, x):
        return super().forward(x) + 1.0


class Kept(nn.Conv2d):
    def forward(self, x, activation=LINEAR):
        return 0.5 * super().forward(x, activation)


def replaced():
    activation = nn.Sigmoid()
    activation.forward = lambda x: x * x
    return activation


@pytest.mark.parametrize("activation", [Doubled, Called, replaced, nn.Tanh])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Dense(3, 2), (4, 3)),
        (lambda: Shifted(3, 2), (4, 3)),
        (lambda: Kept(3, 2, 1), (2, 2, 2, 3)),
        (lambda: nn.SpectralNorm(Shifted(3, 2)), (4, 3)),
    ],
)
def test_a_forward_of_a_subclass_is_never_passed_over(make, shape, activation):
    layer, activation, x = make().eval(), activation(), normal(*shape)
    together = nn.Sequential(layer, activation)(x)
    assert together.numpy().tobytes() == activation(layer(x)).numpy().tobytes()


def test_sequential_applies_every_layer_once_in_order(backend):
    layers = [nn.Dense(3, 4), nn.ReLU(), nn.Tanh(), nn.Softplus(), nn.Dense(4, 4), nn.BatchNorm(4), nn.Sigmoid()]
    net, x = nn.Sequential(*layers), normal(6, 3)
    expected = x
    for layer in layers:
        expected = layer(expected)
    assert net(x).numpy().tobytes() == expected.numpy().tobytes()
    assert len(net) == 7
    assert net[5] is layers[5]
    assert nn.Sequential()(x) is x


# --- parameters -------------------------------------------------------------------------------------------------------


def test_named_parameters_follow_the_order_of_definition():
    names = ["0.w", "0.b", "1.gamma", "1.beta", "3.layers.0.w", "3.layers.0.b"]
    net = small_network()
    assert list(net.named_parameters()) == [f"layers.{name}" for name in names]
    assert [p.shape for p in net.parameters()] == [(3, 4), (4,), (4,), (4,), (4, 2), (2,)]
    assert list(net.named_buffers()) == ["layers.1.running_mean", "layers.1.running_var"]


def test_parameters_are_consecutive_views_of_one_buffer():
    net = small_network()
    before = [p.numpy() for p in net.named_parameters().values()]
    parameters = net.parameters()
    buffer = buffer_of(parameters)
    assert buffer.ndim == 1
    np.testing.assert_array_equal(buffer, np.concatenate([p.reshape(-1) for p in before]))
    for p in parameters:
        assert np.shares_memory(p.data, buffer)
    buffer[...] = 7
    assert net[3][0].b.numpy().tolist() == [7, 7]


def test_parameters_of_a_part_stay_in_the_buffer_of_the_whole():
    net = small_network()
    arrays = [p.data for p in net.parameters()]
    part = net[3].parameters()
    assert all(a is p.data for a, p in zip(arrays[4:], part, strict=True))
    assert all(a is p.data for a, p in zip(arrays, net.parameters(), strict=True))
    assert buffer_of(part).size == 4 * 2 + 2


def test_with_parameters_is_the_same_network_on_other_tensors(backend):
    net, x = small_network().eval(), normal(5, 3)
    others = [mg.tensor(p.numpy(), requires_grad=True) for p in net.parameters()]
    twin = net.with_parameters(others)
    assert twin(x).numpy().tobytes() == net(x).numpy().tobytes()
    assert all(a is b for a, b in zip(twin.named_parameters().values(), others, strict=True))
    gradients = mg.grad(twin(x).sum(), others)
    expected = mg.grad(net(x).sum(), net.parameters())
    for a, b in zip(gradients, expected, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with pytest.raises(ValueError, match="path"):
        mg.grad(twin(x).sum(), net.parameters())


def test_with_parameters_carries_graphs_through():
    net, x = nn.Sequential(nn.Dense(3, 2), nn.Tanh()), normal(4, 3)
    scale = mg.tensor(2.0, requires_grad=True)
    twin = net.with_parameters([p * scale for p in net.parameters()])
    assert twin.parameters()[0].op is not None
    slope = mg.grad(twin(x).sum(), scale).item()
    w, y = net[0].w.numpy(), twin(x).numpy()
    assert slope == pytest.approx(((1 - y**2) * (x.numpy() @ w)).sum(), rel=1e-5)


def test_with_parameters_leaves_the_network_alone_and_copies_nothing():
    net = small_network()
    own = list(net.named_parameters().values())
    others = [mg.tensor(p.numpy() + 1, requires_grad=True) for p in own]
    arrays = [t.data for t in others]
    twin = net.with_parameters(others).eval()
    assert all(a is b for a, b in zip(net.named_parameters().values(), own, strict=True))
    assert all(t.data is a for t, a in zip(others, arrays, strict=True))
    assert net.training
    assert net[1].training
    assert not twin[1].training
    assert twin[1].running_mean is net[1].running_mean


@pytest.mark.parametrize("change", [lambda ts: ts[:-1], lambda ts: [*ts, ts[0]], lambda ts: [ts[1], ts[0], *ts[2:]]])
def test_with_parameters_refuses_other_numbers_and_shapes(change):
    net = small_network()
    with pytest.raises(ValueError, match=r"with_parameters needs 6 Tensors of shapes \[\(3, 4\), \(4,\)"):
        net.with_parameters(change(net.parameters()))


# --- modules of one's own ---------------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self):
        self.blocks = [nn.Dense(3, 3), nn.Dense(3, 3)]
        self.pair = (nn.BatchNorm(3), "a name")
        self.scale = mg.tensor([0.5, 1.0, 2.0], requires_grad=True)
        self.constant = mg.tensor([1.0, 1.0, 1.0])

    def forward(self, x, twice=False):
        for block in self.blocks:
            x = x + self.scale * block(x)
        return x * 2.0 if twice else x + self.constant


def test_a_module_of_ones_own_finds_modules_in_lists_and_tuples():
    net, x = Residual(), normal(4, 3)
    names = ["scale", "blocks.0.w", "blocks.0.b", "blocks.1.w", "blocks.1.b", "pair.0.gamma", "pair.0.beta"]
    assert list(net.named_parameters()) == names
    w = [block.w.numpy() for block in net.blocks]
    y = x.numpy() + net.scale.numpy() * (x.numpy() @ w[0])
    y = y + net.scale.numpy() * (y @ w[1])
    np.testing.assert_allclose(net(x).numpy(), y + 1, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(net(x, twice=True).numpy(), 2 * y, rtol=1e-5, atol=1e-6)
    others = [mg.tensor(p.numpy() * 0, requires_grad=True) for p in net.parameters()]
    np.testing.assert_array_equal(net.with_parameters(others)(x).numpy(), x.numpy() + 1)
    assert not net.eval().pair[0].training


def test_a_module_without_forward_says_so():
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty has no forward"):
        Empty()(1)
    assert Empty().parameters() == []


# --- batch norm and dropout -------------------------------------------------------------------------------------------


def test_train_and_eval_reach_every_part():
    net = small_network()
    assert net.eval() is net
    assert [module.training for _, module in net.modules()] == [False] * 7
    assert net.train() is net
    assert [module.training for _, module in net.modules()] == [True] * 7


def test_batch_norm_moves_its_running_statistics_in_training_only(backend):
    layer, x = nn.BatchNorm(3, momentum=0.25), normal(2, 5, 1, 3)
    rows = x.numpy().astype(np.float64).reshape(-1, 3)
    layer(x)
    np.testing.assert_allclose(layer.running_mean, 0.25 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.running_var, 0.75 + 0.25 * rows.var(0, ddof=1), rtol=1e-5)
    mean, var = layer.running_mean.copy(), layer.running_var.copy()
    layer(x)
    np.testing.assert_allclose(layer.running_mean, 0.75 * mean + 0.25 * rows.mean(0), rtol=1e-5)
    mean, var = layer.running_mean.copy(), layer.running_var.copy()
    layer.gamma.data[...], layer.beta.data[...] = [1, 2, 3], [4, 5, 6]
    y = layer.eval()(x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal([layer.running_mean, layer.running_var], [mean, var])
    expected = (rows - mean) / np.sqrt(var + 1e-5) * [1, 2, 3] + [4, 5, 6]
    np.testing.assert_allclose(y.numpy().reshape(-1, 3), expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_keeps_its_statistics_in_inference_apart_from_other_samples(backend):
    layer, x = nn.BatchNorm(3), normal(6, 3)
    layer(x)
    layer.eval()
    np.testing.assert_array_equal(layer(x).numpy()[:1], layer(x[:1]).numpy())


def test_the_statistics_of_a_with_parameters_copy_part_ways():
    net, x = small_network(), normal(6, 3)
    twin = net.with_parameters(net.parameters())
    twin(x)
    assert (net[1].running_mean == 0).all()
    assert (twin[1].running_mean != 0).all()
    own = twin[1].running_mean.copy()
    net(2.0 * x)
    np.testing.assert_array_equal(twin[1].running_mean, own)


def test_buffers_can_be_saved_and_loaded():
    net, other = small_network(), small_network()
    net(normal(6, 3))
    other.load_buffers({name: value.copy() for name, value in net.named_buffers().items()})
    np.testing.assert_array_equal(other[1].running_var, net[1].running_var)
    assert other[1].running_var is not net[1].running_var


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_keeps_the_mean_and_the_share(dtype):
    x = mg.tensor(np.ones((200, 500), dtype))
    y = nn.Dropout(0.3)(x).numpy()
    assert y.dtype == dtype
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-6)
    assert (y == 0).mean() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / x.size))
    assert y.mean() == pytest.approx(1, abs=0.01)


def test_dropout_is_a_function_of_seed_and_counter():
    x = mg.tensor(np.ones(100, np.float32))
    layer, other = nn.Dropout(0.5, seed=7), nn.Dropout(0.5, seed=7)
    first, second = layer(x).numpy(), layer(x).numpy()
    assert (first != second).any()
    np.testing.assert_array_equal(other(x).numpy(), first)
    assert (nn.Dropout(0.5, seed=1)(x).numpy() != first).any()
    assert layer.named_buffers()["draws"] == 2
    resumed = nn.Dropout(0.5, seed=7)
    resumed.load_buffers({"draws": np.array(1)})
    np.testing.assert_array_equal(resumed(x).numpy(), second)


def test_dropout_lets_gradients_through_where_it_lets_values_through():
    x = mg.tensor(np.ones(100), requires_grad=True)
    y = nn.Dropout(0.4)(x)
    np.testing.assert_array_equal(mg.grad(y.sum(), x).numpy(), y.numpy())


def test_dropout_does_nothing_in_inference_or_at_p_0():
    x = normal(10)
    layer = nn.Dropout(0.5).eval()
    assert layer(x) is x
    assert layer.draws == 0
    assert nn.Dropout(0)(x) is x


def test_two_dropouts_in_a_row_drop_independently():
    y = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))(mg.tensor(np.ones(10_000, np.float32))).numpy()
    assert (y != 0).mean() == pytest.approx(0.25, abs=0.03)


# --- initialisers -----------------------------------------------------------------------------------------------------

VARIANCES = {
    "dcgan": lambda fan_in, fan_out: 0.02**2,
    "he": lambda fan_in, fan_out: 2 / fan_in,
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "lecun": lambda fan_in, fan_out: 1 / (3 * fan_in),
}


@pytest.mark.parametrize(
    ("make", "fans"),
    [
        (lambda: nn.Dense(300, 200), (300, 200)),
        (lambda: nn.Conv2d(30, 40, (4, 6), stride=(2, 3)), (30 * 24, 40 * 4)),
        (lambda: nn.ConvTranspose2d(30, 40, (4, 6), stride=(2, 3)), (30 * 4, 40 * 24)),
    ],
    ids=["dense", "conv", "transposed"],
)
@pytest.mark.parametrize("scheme", INITIALISERS)
def test_initialisers_have_their_variance(scheme, make, fans):
    layer = make()
    layer.b.data[...] = 1
    assert initialise(layer, scheme, Generator(0, stream="init")) is layer
    w = layer.w.numpy().astype(np.float64)
    assert layer.w.dtype == np.float32
    assert w.mean() == pytest.approx(0, abs=5 * w.std() / math.sqrt(w.size))
    assert w.var() == pytest.approx(VARIANCES[scheme](*fans), rel=0.04)
    assert (layer.b.data == 0).all()
    if scheme in ("glorot", "lecun"):
        assert np.abs(w).max() <= math.sqrt(3 * VARIANCES[scheme](*fans)) * (1 + 1e-6)


def test_new_layers_start_by_lecun():
    w = nn.Dense(300, 200).w.numpy()
    assert w.var() == pytest.approx(1 / 900, rel=0.04)
    assert np.abs(w).max() <= 1 / math.sqrt(300)


def test_layers_made_one_after_the_other_differ():
    a, b = nn.Dense(5, 5), nn.Dense(5, 5)
    assert (a.w.numpy() != b.w.numpy()).all()
    net = initialise(nn.Sequential(a, b), "he", Generator(0))
    assert (net[0].w.numpy() != net[1].w.numpy()).all()


def test_initialise_is_deterministic_and_leaves_batch_norm_alone():
    nets = [initialise(small_network(), "glorot", Generator(3, stream="init")) for _ in range(2)]
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()
    assert nets[0][1].gamma.numpy().tolist() == [1] * 4
    assert nets[0][1].beta.numpy().tolist() == [0] * 4
    other = initialise(small_network(), "glorot", Generator(4, stream="init"))
    assert (other[0].w.numpy() != nets[0][0].w.numpy()).all()


def test_graphs_from_before_an_initialisation_are_refused():
    net, x = small_network(), normal(2, 3)
    loss = net(x).sum()
    initialise(net, "he", Generator(0))
    with pytest.raises(ValueError, match="changed"):
        mg.grad(loss, net.parameters())


# --- text and bad arguments -------------------------------------------------------------------------------------------


def test_summary():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.BatchNorm(4), nn.Dropout(0.5), nn.Flatten(), nn.Dense(64, 1000)
    )
    net[3].eval()
    lines = net.summary((8, 8, 1)).splitlines()
    rows = [line.split() for line in lines]
    assert rows[0] == ["layer", "output", "parameters"]
    assert rows[2] == ["input", "(8,", "8,", "1)"]
    assert "Conv2d(1, 4, 4x4, stride=2x2)" in lines[3]
    assert rows[3][-4:] == ["(4,", "4,", "4)", "68"]
    assert rows[4] == ["LeakyReLU(0.2)", "(4,", "4,", "4)"]
    assert rows[5] == ["BatchNorm(4)", "(4,", "4,", "4)", "8"]
    assert rows[8] == ["Dense(64,", "1000)", "(1000,)", "65,000"]
    assert rows[-1] == ["total", "65,076"]
    assert [net[i].training for i in range(6)] == [True, True, True, False, True, True]
    assert (net[2].running_mean == 0).all()


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda: nn.Dense(3, 4, bias=False), "Dense(3, 4, bias=False)"),
        (lambda: nn.ConvTranspose2d(3, 4, (2, 5), (1, 2)), "ConvTranspose2d(3, 4, 2x5, stride=1x2)"),
        (lambda: nn.Reshape(2, 3), "Reshape(2, 3)"),
        (lambda: nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Softplus()), "Sequential(Flatten(), ReLU(), Softplus())"),
    ],
)
def test_repr(layer, text):
    assert repr(layer()) == text


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Dense(0, 1), ValueError, "Dense: n_in must be a positive integer, not 0"),
        (lambda: nn.Dense(2, 1.5), ValueError, "n_out must be a positive integer, not 1.5"),
        (lambda: nn.Conv2d(-1, 2, 3), ValueError, "Conv2d: c_in"),
        (lambda: nn.ConvTranspose2d(1, 0, 3), ValueError, "ConvTranspose2d: c_out"),
        (lambda: nn.Conv2d(1, 2, (3, 3, 3)), TypeError, "kernel must be an int or a pair"),
        (lambda: nn.Conv2d(1, 2, 1.5), TypeError, "kernel must be an int or a pair"),
        (lambda: nn.Conv2d(1, 2, 3, stride=1.5), TypeError, "stride must be an int or a pair"),
        (lambda: nn.Conv2d(1, 2, 0), ValueError, "kernel"),
        (lambda: nn.Conv2d(1, 2, 3, stride=0), ValueError, "stride"),
        (lambda: nn.ConvTranspose2d(1, 2, 3, stride=0), ValueError, "stride"),
        (lambda: nn.Conv2d(1, 2, 3, padding=-1)(normal(1, 8, 8, 1)), ValueError, "padding"),
        (lambda: nn.ConvTranspose2d(1, 2, 3, 2, output_padding=2)(normal(1, 4, 4, 1)), ValueError, "output_padding"),
        (lambda: nn.BatchNorm(0), ValueError, "BatchNorm: channels"),
        (lambda: nn.Dropout(1), ValueError, r"p must be in \[0, 1\), not 1"),
        (lambda: nn.Dropout(-0.1), ValueError, "p must be in"),
        (lambda: nn.LeakyReLU(-1), ValueError, "slope must be >= 0, not -1"),
        (lambda: nn.LeakyReLU(math.nan), ValueError, "slope must be >= 0, not nan"),
        (lambda: nn.Sequential(nn.ReLU(), np.tanh), TypeError, "every layer must be a Module, not ufunc"),
        (lambda: initialise(nn.Dense(1, 1), "best", Generator(0)), ValueError, "unknown initialiser 'best'.*glorot"),
        (lambda: nn.Dense(3, 4)(normal(2, 5)), ValueError, r"\(2, 5\).*\(3, 4\)"),
        (lambda: nn.Dense(3, 4)(normal(2, 3, dtype=np.float64)), TypeError, "float64.*float32"),
        (lambda: nn.Conv2d(3, 4, 3)(normal(2, 8, 8, 2)), ValueError, "2 channels.*3"),
        (lambda: nn.Conv2d(3, 4, 3)(normal(2, 3)), ValueError, "4 axes"),
        (lambda: nn.Conv2d(3, 4, 5)(normal(2, 4, 8, 3)), ValueError, "does not fit"),
        (lambda: nn.BatchNorm(3)(normal(2, 5)), ValueError, r"\(2, 5\)"),
        (lambda: nn.BatchNorm(3).eval()(normal(2, 1)), ValueError, r"\(2, 1\)"),
        (lambda: nn.BatchNorm(3)(normal(0, 3)), ValueError, "the batch is empty"),
        (lambda: nn.Reshape(2, 2)(normal(3, 5)), ValueError, r"\(3, 2, 2\)"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_batch_norm_refuses_to_train_on_one_value():
    """One value for each channel is its own mean: the gradient would be zero."""
    layer = nn.BatchNorm(3)
    for shape in ((1, 3), (1, 1, 1, 3)):
        with pytest.raises(ValueError, match="more than one value for each channel"):
            layer(mg.tensor(np.ones(shape, np.float32)))
        assert layer.eval()(mg.tensor(np.ones(shape, np.float32))).shape == shape
        layer.train()
    assert layer(mg.tensor(np.ones((1, 2, 1, 3), np.float32))).shape == (1, 2, 1, 3)
