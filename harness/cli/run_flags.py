"""The flags of a run that are no hyperparameters."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from pathlib import Path
from typing import Annotated, Literal

from harness.base.errors import BadRequest
from harness.base.fields import Count, Name, check_text
from harness.runs.runner import CHECKPOINTS_KEPT, Labels, Saving
from harness.training.device import Execution


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings(Execution):
    """How to run an experiment: on what, from where, how often, under which name."""

    data_root: Path | None = None
    """Folder of the data sets; HARNESS_DATA_ROOT, or data in the project, unless given."""
    fallback: Literal["digits"] | None = None
    """Train on this embedded data set where the one asked for cannot be had."""
    repeats: Annotated[int, Count] = 1
    """Train this many seeds, counted up from seed, as one group with mean and interval."""
    run_name: Annotated[str | None, Name] = None
    """Name of the run in lists; made of the fields that differ from their defaults unless given."""
    tag: tuple[str, ...] = ()
    """A tag for the run, as key=value; may be given several times."""
    system_metrics: bool = False
    """Record the use of processor, memory, disk and network every second."""
    no_figures: bool = False
    """Draw no figures after training."""
    checkpoint_every: Annotated[int, Count] = 1
    """Epochs from one checkpoint to the next; the last epoch always has one."""
    keep_checkpoints: Annotated[int, Count] = CHECKPOINTS_KEPT
    """How many of the latest checkpoints stay on disk."""
    quiet: bool = False
    """Print the result only."""
    dry_run: bool = False
    """Print what would be run and where it would be recorded, and stop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [tag.partition("=")[0] for tag in self.tag]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise BadRequest(f"tag: {repeated[0]} is given {names.count(repeated[0])} times.")
        for tag in self.tag:
            check_text("tag", tag)
            name, equals, _ = tag.partition("=")
            if not equals or not name or name.startswith(("mlflow.", "harness.")):
                raise BadRequest(
                    f"tag: {tag!r} is not key=value with a key of your own "
                    "(mlflow. and harness. are taken)."
                )
            if not re.fullmatch(r"\w[\w. :-]{0,249}", name):
                raise BadRequest(
                    f"tag: {name!r} is not a key: letters, digits and . : - _, at most 250."
                )
        if self.system_metrics and importlib.util.find_spec("psutil") is None:
            raise BadRequest(
                "system_metrics needs psutil: pip install -c constraints.txt -e '.[system-metrics]'"
            )

    def execution(self) -> Execution:
        """The part that says how to compute."""
        names = [field.name for field in dataclasses.fields(Execution)]
        return Execution(**{name: getattr(self, name) for name in names})

    def labels(self) -> Labels:
        """The part that says what the run is called."""
        settings = dataclasses.asdict(self.execution()) | {
            "figures": not self.no_figures,
            "system_metrics": self.system_metrics,
            "checkpoint_every": self.checkpoint_every,
            "keep_checkpoints": self.keep_checkpoints,
        }
        return Labels(
            name=self.run_name,
            user_tags=dict(tag.split("=", 1) for tag in self.tag),
            settings=settings,
            system_metrics=self.system_metrics,
            figures=not self.no_figures,
            saving=Saving(self.checkpoint_every, self.keep_checkpoints),
        )
