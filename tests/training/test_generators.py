"""Random generators belong to a training; the process keeps its own."""

from __future__ import annotations

import random

import numpy as np
import torch

from harness.training.generators import Generators

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def test_a_training_draws_what_a_seeded_script_draws() -> None:
    generators = Generators(7, CPU)
    with generators.active():
        ours = [draw(), draw()]
    seed_all(7)
    assert ours == [draw(), draw()]


def test_the_process_draws_as_if_there_were_no_training() -> None:
    seed_all(1)
    expected = [draw(), draw(), draw()]
    seed_all(1)
    first = draw()
    generators = Generators(7, CPU)
    second = draw()
    with generators.active():
        draw()
    assert [first, second, draw()] == expected


def test_trainings_take_turns_without_touching_each_other() -> None:
    one, other = Generators(1, CPU), Generators(2, CPU)
    drawn: dict[int, list[tuple[float, float, float]]] = {1: [], 2: []}
    for _ in range(3):
        for seed, generators in ((1, one), (2, other)):
            with generators.active():
                drawn[seed].append(draw())
    for seed, values in drawn.items():
        seed_all(seed)
        assert values == [draw(), draw(), draw()]


def test_a_restored_state_goes_on() -> None:
    generators = Generators(3, CPU)
    with generators.active():
        draw()
    state = generators.state()
    with generators.active():
        expected = draw()
    again = Generators(4, CPU)
    again.restore(state)
    with again.active():
        assert draw() == expected


def test_an_error_gives_the_process_its_generators_back() -> None:
    seed_all(5)
    expected = draw()
    seed_all(5)
    try:
        with Generators(9, CPU).active():
            draw()
            raise ValueError
    except ValueError:
        pass
    assert draw() == expected
