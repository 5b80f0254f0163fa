"""The learning rate's course, and which hyperparameters exclude each other."""

import numpy as np
import pytest

from switchyard.components.training.schedule import factor
from switchyard.pipelines.config.load import load_config
from tests.unit.test_bad_input import config


def course(schedule, total=100, warmup=0):
    return [float(factor(np, schedule, float(step), total, warmup)) for step in range(total)]


@pytest.mark.parametrize(
    ("schedule", "begin", "middle", "end"),
    [
        ("constant", 1.0, 1.0, 1.0),
        ("linear", 1.0, 0.5, 0.01),
        ("cosine", 1.0, 0.5, 0.000247),
        ("step", 1.0, 0.1, 0.01),
        ("one_cycle", 0.04, 0.811745, 0.000507),
    ],
)
def test_a_schedule_follows_its_formula_from_start_to_end(schedule, begin, middle, end):
    found = course(schedule)
    assert (found[0], found[50], found[99]) == pytest.approx((begin, middle, end), rel=1e-2)


def test_warm_up_rises_linearly_before_the_schedule_begins():
    found = course("linear", warmup=10)
    assert found[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert found[10] == 1.0
    assert found[55] == pytest.approx(0.5)


def accepted(**hyper):
    return load_config(None, document=config(trainer={"hyperparameters": hyper}))


@pytest.mark.parametrize(
    ("hyper", "why"),
    [
        ({"schedule": "one_cycle", "warmup_steps": 5}, "schedule one_cycle includes a warm-up; remove warmup_steps"),
        ({"weight_decay": 0.1}, "weight_decay: adam has no decoupled weight decay; use the optimizer adamw or sgd"),
        ({"clip_norm": 0}, "clip_norm"),
        ({"schedule": "cosin"}, "cosin"),
    ],
)
def test_mutually_exclusive_hyperparameters_are_refused(hyper, why):
    with pytest.raises(Exception, match=why):
        accepted(**hyper)


@pytest.mark.parametrize(
    ("space", "why"),
    [
        ({"weight_decay": {"low": 0.001, "high": 0.1}}, "tune.*weight_decay: adam has no"),
        ({"weight_decay": [0.1, 0.2], "optimizer": ["adamw", "rmsprop"]}, "tune.*weight_decay: rmsprop has no"),
        ({"warmup_steps": [5, 10], "schedule": ["linear", "one_cycle"]}, "tune.*one_cycle includes a warm-up"),
    ],
)
def test_a_search_space_with_mutually_exclusive_values_is_refused(space, why):
    with pytest.raises(Exception, match=why):
        load_config(None, document=config(tune={"space": space}))
    fits = {"weight_decay": {"low": 0.001, "high": 0.1}, "optimizer": ["adamw", "sgd"], "clip_norm": {"low": 0.1, "high": 9}}
    load_config(None, document=config(tune={"space": fits}))
