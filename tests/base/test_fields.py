"""Fields: every value is stored as its field says or refused in words, and experiments use that."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from unicodedata import category

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from experiments.baseline import Baseline
from harness.base.errors import BadRequest
from harness.base.fields import (
    Count,
    Fraction,
    Interval,
    Name,
    NonNegative,
    Positive,
    Seed,
    check,
    check_all,
)
from harness.training.experiment import Experiment, experiment_class, load_experiment


@dataclass(frozen=True)
class Sample:
    """A field of every kind."""

    flag: bool = False
    note: str = ""
    shift: float = 0.0
    rate: Annotated[float, Positive] = 0.1
    momentum: Annotated[float, Fraction] = 0.0
    count: Annotated[int, Count] = 1
    seed: Annotated[int, Seed] = 0
    width: Annotated[int, Interval(ge=8, lt=64)] = 8
    size: Literal["small", "large"] = "small"
    depth: Literal[1, 2] = 1
    steps: Annotated[int, Count] | None = None
    patience: Annotated[int | None, "in epochs", NonNegative] = None
    title: Annotated[str, Name] = "untitled"

    def __post_init__(self) -> None:
        check_all(self)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("flag", 1, "flag: 1 is not a bool."),
        ("flag", "true", "flag: 'true' is not a bool."),
        ("note", 5, "note: 5 is not a str."),
        ("note", None, "note: None is not a str."),
        ("note", "a\0", r"note: 'a\x00' contains the control character '\x00'."),
        ("note", "\udcff", r"note: '\udcff' contains the control character '\udcff'."),
        ("note", "n" * 5001, "note: expected at most 5,000 characters, got 5,001."),
        ("title", "", "title: '' is not allowed, it must be 1 to 250 characters long."),
        (
            "title",
            "n" * 251,
            f"title: '{'n' * 251}' is not allowed, it must be 1 to 250 characters long.",
        ),
        ("shift", "0.5", "shift: '0.5' is not a number."),
        ("shift", b"0.5", "shift: b'0.5' is not a number."),
        ("shift", True, "shift: True is not a number."),
        ("shift", np.True_, f"shift: {np.True_!r} is not a number."),
        ("shift", None, "shift: None is not a number."),
        ("shift", 1j, "shift: 1j is not a number."),
        ("shift", [1.0], "shift: [1.0] is not a number."),
        ("shift", 10**400, f"shift: {10**400} is not a number."),
        ("shift", math.nan, "shift: nan is not a finite number."),
        ("shift", math.inf, "shift: inf is not a finite number."),
        ("shift", -math.inf, "shift: -inf is not a finite number."),
        ("rate", math.nan, "rate: nan is not a finite number."),
        ("rate", 0, "rate: 0.0 is not allowed, it must be greater than 0."),
        ("rate", -0.1, "rate: -0.1 is not allowed, it must be greater than 0."),
        ("momentum", 1, "momentum: 1.0 is not allowed, it must be less than 1."),
        ("momentum", -1, "momentum: -1.0 is not allowed, it must be at least 0."),
        ("count", 0, "count: 0 is not allowed, it must be at least 1."),
        ("count", 2**31, "count: 2147483648 is not allowed, it must be at most 2147483647."),
        ("count", 1.0, "count: 1.0 is not a whole number."),
        ("count", "1", "count: '1' is not a whole number."),
        ("count", True, "count: True is not a whole number."),
        ("count", None, "count: None is not a whole number."),
        ("seed", -1, "seed: -1 is not allowed, it must be at least 0."),
        ("seed", 2**63, f"seed: {2**63} is not allowed, it must be at most {2**63 - 1}."),
        ("width", 64, "width: 64 is not allowed, it must be less than 64."),
        ("size", "smal", "size: 'smal' is not allowed. Did you mean small?"),
        ("size", None, "size: None is not allowed. Known: large, small."),
        ("size", np.array(["small", "large"]), "size: array("),
        ("depth", True, "depth: True is not allowed. Known: 1, 2."),
        ("depth", 1.0, "depth: 1.0 is not allowed. Known: 1, 2."),
        ("steps", 0, "steps: 0 is not allowed, it must be at least 1."),
        ("steps", 1.5, "steps: 1.5 is not a whole number."),
        ("patience", -1, "patience: -1 is not allowed, it must be at least 0."),
        ("count_", 1, "Sample has no field 'count_'. Did you mean count?"),
        ("zzz", 1, "Sample has no field 'zzz'. Known: count, depth, flag, "),
    ],
    ids=lambda part: part[:60] if isinstance(part, str) else type(part).__name__,
)
def test_a_bad_value_is_refused_in_words(name: str, value: Any, message: str) -> None:
    with pytest.raises(BadRequest) as raised:
        check(Sample, name, value)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("flag", True, True),
        ("note", "", ""),
        ("shift", -3, -3.0),
        ("rate", 1, 1.0),
        ("rate", np.float32(0.5), 0.5),
        ("rate", 5e-324, 5e-324),
        ("momentum", 0, 0.0),
        ("count", np.int64(3), 3),
        ("seed", 2**63 - 1, 2**63 - 1),
        ("width", 63, 63),
        ("size", "large", "large"),
        ("depth", 2, 2),
        ("steps", None, None),
        ("steps", 1, 1),
        ("patience", None, None),
        ("patience", 0, 0),
    ],
)
def test_a_good_value_is_stored_as_its_field_says(name: str, value: Any, stored: Any) -> None:
    found = check(Sample, name, value)
    assert found == stored
    assert type(found) is type(stored)
    assert getattr(Sample(**{name: value}), name) == stored


ForeignBound = type("ForeignBound", (), {"__module__": "annotated_types"})
"""A bound of the library that users may know from elsewhere."""


@dataclass(frozen=True)
class Undecided:
    """Fields that cannot be checked."""

    mixed: int | str = 1
    even: Annotated[int, ForeignBound()] = 2


def test_a_field_whose_type_cannot_be_checked_is_refused() -> None:
    with pytest.raises(
        BadRequest, match=r"^mixed: expected one type, or one type and None, got int"
    ):
        check(Undecided, "mixed", 1)
    with pytest.raises(
        BadRequest, match=r"^even: .*ForeignBound.* is not checked here; use the bounds of"
    ):
        check(Undecided, "even", 2)


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-1, max_value=70),
    st.floats(),
    st.floats(min_value=-0.5, max_value=1.5),
    st.text(max_size=8),
    st.sampled_from(["small", "large", "Small", "1", "nan"]),
    st.binary(max_size=4),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.integers(min_value=-(2**63), max_value=2**63 - 1).map(np.int64),
    st.floats(width=32).map(np.float32),
    st.booleans().map(np.bool_),
    st.lists(st.floats(), max_size=3).map(np.array),
    st.just(object()),
)


@given(value=VALUES)
@example(value=2**63)
@example(value=10**400)
@example(value=-0.0)
def test_any_value_is_within_its_field_or_a_bad_request(value: Any) -> None:
    allowed: dict[str, Callable[[Any], bool]] = {
        "flag": lambda v: type(v) is bool,
        "note": lambda v: isinstance(v, str) and not {*map(category, v)} & {"Cc", "Cs"},
        "shift": lambda v: type(v) is float and math.isfinite(v),
        "rate": lambda v: type(v) is float and 0 < v < math.inf,
        "momentum": lambda v: type(v) is float and 0 <= v < 1,
        "count": lambda v: type(v) is int and 1 <= v < 2**31,
        "seed": lambda v: type(v) is int and 0 <= v < 2**63,
        "width": lambda v: type(v) is int and 8 <= v < 64,
        "size": lambda v: v in ("small", "large"),
        "depth": lambda v: type(v) is int and v in (1, 2),
        "steps": lambda v: v is None or (type(v) is int and 1 <= v < 2**31),
        "title": lambda v: 1 <= len(v) <= 250 if allowed["note"](v) else False,
        "patience": lambda v: v is None or (type(v) is int and v >= 0),
    }
    assert allowed.keys() == {field.name for field in dataclasses.fields(Sample)}
    for name, is_allowed in allowed.items():
        try:
            stored = check(Sample, name, value)
        except BadRequest:
            # What already is as the field says may not be refused.
            assert isinstance(value, np.ndarray) or not is_allowed(value), name
        else:
            assert is_allowed(stored), name
            assert stored == (float(value) if isinstance(stored, float) else value), name
            assert check(Sample, name, stored) == stored, name


def test_a_bad_request_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"^lr: -1\.0 is not allowed"):
        Baseline(lr=-1)


# Experiments


class WithDerived(Baseline):
    """An experiment with a derived property."""

    dropout: Annotated[float, Fraction] = 0.5

    @property
    def parameter_count(self) -> int:
        return 785 * self.hidden_width + 11 * self.hidden_width - self.hidden_width + 10


class HTTPNet2Go(Baseline):
    """An experiment whose name is hard to put in lower case."""


class BadDefault(Baseline):
    """An experiment whose own default is out of bounds."""

    depth: Annotated[int, Count] = 0


class NoNetwork(Experiment):
    """An experiment that forgets its network."""


def test_an_experiment_checks_its_fields() -> None:
    with pytest.raises(BadRequest, match=r"^batch_size: 0 is not allowed"):
        Baseline(batch_size=0)
    with pytest.raises(BadRequest, match=r"^dataset: 'minst' .* Did you mean mnist"):
        Baseline(dataset="minst")  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match=r"^depth: 0 is not allowed"):
        BadDefault()


def test_integers_become_floats_in_an_experiment() -> None:
    assert type(Baseline(lr=1).lr) is float
    assert str(Baseline(lr=1)) == "baseline lr=1"


def test_an_experiment_is_frozen() -> None:
    experiment = Baseline()
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment.lr = 0.5  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        WithDerived().dropout = 0.1  # type: ignore[misc]


def test_an_experiment_takes_no_positional_and_no_unknown_fields() -> None:
    with pytest.raises(TypeError):
        Baseline("mnist")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="learning_rate"):
        Baseline(learning_rate=0.5)  # type: ignore[call-arg]


def test_experiments_are_equal_when_class_and_fields_are() -> None:
    assert Baseline(lr=0.05) == Baseline(lr=0.05)
    assert hash(Baseline(lr=0.05)) == hash(Baseline(lr=0.05))
    assert Baseline(lr=0.05) != Baseline(lr=0.06)
    assert Baseline(hidden_width=1) != Baseline(hidden_width=2)
    assert WithDerived(dropout=0.1) != WithDerived(dropout=0.2)
    assert Baseline() != HTTPNet2Go()
    assert Baseline(lr=1) == Baseline(lr=1.0)


def test_an_experiment_says_its_name_and_what_differs_from_the_defaults() -> None:
    assert str(Baseline()) == "baseline"
    assert str(Baseline(lr=0.05, hidden_width=512)) == "baseline lr=0.05 hidden_width=512"
    assert str(Baseline(hidden_width=512, lr=0.05)) == "baseline lr=0.05 hidden_width=512"
    assert str(Baseline(lr=0.1, hidden_width=256)) == "baseline"
    assert Baseline(dataset="digits", seed=3).changes() == {"dataset": "digits", "seed": 3}


def test_an_experiment_outside_the_folder_has_its_class_name() -> None:
    assert WithDerived.name == "with_derived"
    assert HTTPNet2Go.name == "httpnet2_go"


def test_parameters_are_the_fields_and_the_derived_properties() -> None:
    experiment = WithDerived(hidden_width=2)
    assert experiment.fields() == {
        "dataset": "fashion-mnist",
        "seed": 0,
        "lr": 0.1,
        "batch_size": 256,
        "drop_last": False,
        "loss_scale": "batch",
        "num_epochs": 10,
        "validation_size": 0,
        "split_seed": 0,
        "stratify": False,
        "schedule": "constant",
        "warmup_epochs": 0.0,
        "final_lr_fraction": 0.0,
        "patience": 0,
        "average_weights": "off",
        "hidden_width": 2,
        "init_std": 0.01,
        "dropout": 0.5,
    }
    assert experiment.parameters() == experiment.fields() | {"parameter_count": 1600}
    assert Baseline().parameters() == Baseline().fields()


def test_the_fields_make_the_experiment_again() -> None:
    experiment = WithDerived(lr=0.3, dataset="digits", dropout=0.25)
    assert WithDerived(**experiment.fields()) == experiment


def test_an_experiment_needs_a_network() -> None:
    with pytest.raises(TypeError, match="network"):
        NoNetwork()  # type: ignore[abstract]
    network = Baseline(hidden_width=3).network()
    assert [tuple(p.shape) for p in network.parameters()] == [(3, 784), (3,), (10, 3), (10,)]


def module(**members: type) -> types.ModuleType:
    made = types.ModuleType("experiments.made")
    made.__file__ = "experiments/made.py"
    vars(made).update(members)
    return made


def defined(name: str, *bases: type, **members: Any) -> type:
    return types.new_class(
        name, bases, exec_body=lambda body: body.update(__module__="experiments.made", **members)
    )


def test_an_experiment_file_defines_one_whole_experiment() -> None:
    whole = defined("Whole", Baseline)
    assert experiment_class(module(Baseline=Baseline, Whole=whole)) is whole
    assert whole.name == "made"
    with pytest.raises(BadRequest, match="this one has none"):
        experiment_class(module(Baseline=Baseline))
    with pytest.raises(BadRequest, match="this one has Whole, Other"):
        experiment_class(module(Whole=whole, Other=defined("Other", Baseline)))
    with pytest.raises(BadRequest, match=r"Partial does not define network\(\)"):
        experiment_class(module(Partial=defined("Partial", Experiment)))


def test_an_experiment_is_loaded_by_the_name_of_its_file() -> None:
    assert load_experiment("baseline") is Baseline
    with pytest.raises(BadRequest, match="Did you mean baseline"):
        load_experiment("baselin")


def test_the_weights_of_the_baseline_are_as_its_fields_say() -> None:
    network = Baseline(init_std=0.5).network()
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert all(not layer.bias.any() for layer in linear)
    assert all(abs(layer.weight.std().item() - 0.5) < 0.05 for layer in linear)


def test_a_label_says_what_is_trained_before_on_what() -> None:
    assert Baseline().label() == "baseline"
    assert Baseline(hidden_width=512, lr=0.05).label() == "lr=0.05 hidden_width=512"
    changed = Baseline(seed=3, dataset="digits", num_epochs=2, lr=0.5)
    assert changed.label() == "lr=0.5 dataset=digits num_epochs=2 seed=3"
