"""Fields of every type that an experiment may have, from the flag to the record and back."""

from __future__ import annotations

from conftest import Checkout

from harness.tracking.reader import DatabaseReader

SHAPED = '''"""A perceptron whose shape and activation are fields."""

import enum
from pathlib import Path

from torch import nn

from harness import Experiment


class Activation(enum.Enum):
    RELU = "relu"
    TANH = "tanh"


class Shaped(Experiment):
    activation: Activation = Activation.RELU
    weights: Path = Path("none")
    widths: tuple[int, ...] = (32, 16)
    scale: tuple[float, float] = (1, 1)

    @property
    def depth(self) -> int:
        return len(self.widths)

    def network(self):
        kind = {Activation.RELU: nn.ReLU, Activation.TANH: nn.Tanh}[self.activation]
        assert isinstance(self.weights, Path)
        layers, before = [nn.Flatten()], 784
        for width in self.widths:
            layers += [nn.Linear(before, width), kind()]
            before = width
        return nn.Sequential(*layers, nn.Linear(before, 10))
'''

STUDIES = {
    "bound": '''"""A function with bound arguments."""

import functools

from experiments.shaped import Shaped
from harness import Study


def suggest(trial, highest):
    return {"lr": trial.suggest_float("lr", 0.01, highest)}


study = Study(experiment=Shaped(), suggest=functools.partial(suggest, highest=0.5), n_trials=2)
''',
    "shorter": '''"""Another study, made shorter."""

import dataclasses

from studies.bound import study as longer

study = dataclasses.replace(longer, n_trials=1)
''',
}

QUICK = ("--dataset", "digits", "--num-epochs", "1", "--threads", "1")


def test_enums_paths_and_tuples_go_to_the_record_and_back(checkout: Checkout) -> None:
    (checkout.root / "experiments" / "shaped.py").write_text(SHAPED)
    flags = (
        "--activation",
        "TANH",
        "--weights",
        "a b/c.pt",
        "--widths",
        "8",
        "4",
        "6",
        "--lr",
        "1",
    )
    ended = checkout.run("shaped", *QUICK, *flags, "--tag", "a=1", "--tag", "b=2", "--no-figures")
    assert ended.status == 0, ended.errors
    run = DatabaseReader(checkout.store).run(ended.run_id)
    recorded = {name: run.params[name] for name in ("activation", "weights", "widths", "depth")}
    assert recorded == {
        "activation": "TANH",
        "weights": "a b/c.pt",
        "widths": "(8, 4, 6)",
        "depth": "3",
    }
    assert {run.tags["a"], run.tags["b"]} == {"1", "2"}
    verified = checkout.command("harness.verify", ended.run_id)
    assert verified.status == 0, verified.output + verified.errors
    assert "identical" in verified.output
    for wrong, message in {
        ("--activation", "TAN"): "TAN",
        ("--widths", "8", "x"): "x",
        ("--scale", "1"): "scale",
    }.items():
        refused = checkout.run("shaped", *QUICK, *wrong)
        assert refused.status == 2
        assert message in refused.errors
        assert "Traceback" not in refused.errors


def test_a_study_is_any_callable_and_may_be_made_of_another(checkout: Checkout) -> None:
    (checkout.root / "experiments" / "shaped.py").write_text(SHAPED)
    for name, text in STUDIES.items():
        (checkout.root / "studies" / f"{name}.py").write_text(text)
    for name, trials in (("bound", 2), ("shorter", 1)):
        ended = checkout.command("harness.study", name, *QUICK, "--confirm-seeds", "0")
        assert ended.status == 0, ended.errors
        assert f"{name}: {trials} of {trials} trials finished" in ended.output


BAD = {
    "    threads: int = 3\n": "the field threads is called like a flag of python -m harness.run",
    "    dry_run: bool = True\n": "the field dry_run is called like a flag",
    "    label: int = 3\n": "the field label is called like a method of every experiment",
    "    optimizer: str = 'adam'\n": "the field optimizer is called like a method",
    "    options: dict = None\n": "options: a field cannot be a dict",
    "    inner: Inner = Inner()\n": "inner: a field cannot be a Inner",
    "    @property\n    def ones(self): return torch.ones(2)\n": (
        "the property ones is recorded as a parameter: expected a number or text, got a Tensor"
    ),
    "    @property\n    def half(self): return self.nothing\n": "has no attribute 'nothing'",
}


def test_what_no_field_can_be_is_named(checkout: Checkout) -> None:
    for number, (line, message) in enumerate(BAD.items()):
        (checkout.root / "experiments" / f"bad_{number}.py").write_text(
            "import dataclasses\n\nimport torch\nfrom torch import nn\n\n"
            "from harness import Experiment\n\n\n"
            "@dataclasses.dataclass(frozen=True)\nclass Inner:\n    a: int = 1\n\n\n"
            f"class Bad(Experiment):\n{line}\n"
            "    def network(self):\n"
            "        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
        )
        ended = checkout.run(f"bad_{number}", *QUICK)
        assert ended.status in (1, 2), line
        assert message in ended.errors
        assert len(ended.errors.splitlines()) == 1
