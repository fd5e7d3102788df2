"""Signals in the middle of a computation: a step of training is whole, and a handler is not part of what it breaks."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest

import minigan as mg
from minigan.gan import Config, build
from minigan.gan.interrupts import held_back

RING = replace(Config.preset("ring"), width=4, batch_size=12, device="cpu")


def trainer():
    return build(RING)


def bits(made):
    return {name: array.tobytes() for name, array in made.state().items()}


def interrupt_after(monkeypatch, made, move, action):
    """Let ``action`` happen when the optimisers have made so many moves: between D's move and G's, for 1."""
    moved = []
    for player in (made.discriminator, made.generator):
        right = player.optimizer.step

        def step(gradients, right=right):
            right(gradients)
            moved.append(1)
            if len(moved) == move:
                action()

        monkeypatch.setattr(player.optimizer, "step", step)


@pytest.mark.parametrize("move", [1, 2])
def test_ctrl_c_waits_for_the_end_of_a_step(monkeypatch, move):
    made, other = trainer(), trainer()
    interrupt_after(monkeypatch, made, move, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        made.train(5)
    assert made.steps == 1
    other.train(1)
    assert bits(made) == bits(other)
    made.train(4)  # the run goes on as if nothing had been
    other.train(4)
    assert bits(made) == bits(other)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_half_a_step_is_known_as_one(monkeypatch):
    """A second Ctrl-C, or an error between the two moves: no state is given out, until one is loaded."""

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    def fail():
        raise MemoryError

    for action, error in ((twice, KeyboardInterrupt), (fail, MemoryError)):
        made, other = trainer(), trainer()
        made.train(2)
        other.train(2)
        saved = made.state()
        with monkeypatch.context() as patch:
            interrupt_after(patch, made, 1, action)
            with pytest.raises(error):
                made.step()
        for call in (made.step, made.state):
            with pytest.raises(RuntimeError, match="broken off.*load_state"):
                call()
        made.load_state(saved)
        made.train(4)
        other.train(4)
        assert bits(made) == bits(other)


@pytest.mark.parametrize(
    "change",
    [{}, {"data": "digits", "model": "dcgan"}, {"dropout": 0.3, "instance_noise": 0.1}, {"penalty": "wgan-gp"}],
)
def test_a_step_that_fails_before_any_move_was_not_begun(monkeypatch, change):
    """Noise, statistics of batch norms and masks are those of a run in which nothing failed."""
    config = replace(RING, **change)
    made, other = build(config), build(config)
    made.train(1)
    other.train(1)
    with monkeypatch.context() as patch:
        for player in (made.discriminator, made.generator):
            patch.setattr(player.optimizer, "step", lambda gradients: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made.step()
    assert bits(made) == bits(other)
    made.train(3)
    other.train(3)
    assert bits(made) == bits(other)


def test_only_python_s_own_handler_is_replaced():
    calls = []
    old = signal.signal(signal.SIGINT, lambda *_: calls.append(1))
    try:
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
        assert calls == [1]
    finally:
        signal.signal(signal.SIGINT, old)
    done = []
    thread = threading.Thread(target=lambda: (trainer().train(1), done.append(1)))
    thread.start()
    thread.join()
    assert done == [1]


class Handlers:
    """Handlers of each kind that compute a gradient."""

    def __init__(self):
        self.found = []

    def compute(self, *_):
        x = mg.tensor([3.0], requires_grad=True)
        self.found.append(mg.grad((x * x).sum(), x).item())

    def method(self, number, frame):
        self.compute()


def test_a_handler_that_is_called_by_the_program_is_in_the_block():
    def save(*_):
        return mg.is_grad_enabled()

    old = signal.signal(signal.SIGUSR1, save)
    try:
        with mg.no_grad():
            assert not save()
            assert not save(signal.SIGUSR1, None)
    finally:
        signal.signal(signal.SIGUSR1, old)


@pytest.mark.parametrize("block", [mg.no_grad, mg.enable_grad])
@pytest.mark.parametrize("kind", ["method", "function", "lambda"])
def test_a_signal_handler_is_not_in_the_block_that_it_interrupts(block, kind):
    made = Handlers()

    def function(number, frame):
        made.compute()
        with mg.no_grad():
            assert not mg.is_grad_enabled()
        assert mg.is_grad_enabled()

    handler = {"method": made.method, "function": function, "lambda": lambda *_: made.compute()}[kind]
    old = signal.signal(signal.SIGUSR1, handler)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        with block():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert mg.is_grad_enabled() == (block is mg.enable_grad)
            with mg.no_grad():
                os.kill(os.getpid(), signal.SIGUSR1)
                assert not mg.is_grad_enabled()

        def stream():
            with block():
                os.kill(os.getpid(), signal.SIGUSR1)
                yield mg.is_grad_enabled()

        assert list(stream()) == [block is mg.enable_grad]
        x = mg.tensor(np.ones(3), requires_grad=True)

        def rule_interrupted(g, y, x):
            os.kill(os.getpid(), signal.SIGUSR1)
            return g * 2.0

        from minigan.engine.primitive import Primitive

        doubled = Primitive(lambda x: 2 * x, "doubled", register=False)
        doubled.defvjp(rule_interrupted)
        assert mg.grad(doubled(x).sum(), x).data.tolist() == [2.0, 2.0, 2.0]
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert made.found == [6.0] * 5
