"""The flags of `run` that are not hyperparameters."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Annotated, Literal

from tyro.conf import UseAppendAction, arg

from harness.base.errors import BadRequest
from harness.base.fields import Count, Name, check_text
from harness.cli.shared_flags import default
from harness.cli.training_flags import TrainingFlags
from harness.execution.specification import CHECKPOINTS_KEPT, RunSpecification


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings(TrainingFlags):
    """How to run an experiment: on what, from where, how often, under which name."""

    fallback: Annotated[Literal["digits"] | None, default("digits", "none")] = None
    """Data set to train on if the requested one is neither on disk nor downloadable."""
    repeats: Annotated[int, Count] = 1
    """Number of seeds to train, counted up from seed, as one group with mean and interval."""
    start_from: Annotated[str | None, default("RUN", "new weights")] = None
    """Run whose weights the training starts from; layers that do not fit start anew."""
    run_name: Annotated[
        str | None, Name, default("TEXT", "the fields that differ from their defaults")
    ] = None
    """Name of the run in lists."""
    tag: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=VALUE")] = ()
    """A tag of the run."""
    system_metrics: bool = False
    """Record the use of processor, memory, disk and network every second."""
    keep_best: bool = False
    """Log the model of the best epoch on the validation examples instead of the last one."""
    log_average: bool = False
    """Log the model of the averaged weights instead of the last ones; see --average-weights."""
    no_figures: bool = False
    """Draw no figures after training."""
    checkpoint_every: Annotated[int, Count] = 1
    """Epochs from one checkpoint to the next; the last epoch always has one."""
    keep_checkpoints: Annotated[int, Count] = CHECKPOINTS_KEPT
    """Number of checkpoints kept on disk, the latest ones."""
    dry_run: bool = False
    """Print what would be run and where it would be recorded, and stop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_tags(self.tag)

    def specification(self) -> RunSpecification:
        """The part that says what the run is called, and what it keeps."""
        settings = dataclasses.asdict(self.execution()) | {
            "figures": not self.no_figures,
            "keep_best": self.keep_best,
            "log_average": self.log_average,
            "system_metrics": self.system_metrics,
            "checkpoint_every": self.checkpoint_every,
            "keep_checkpoints": self.keep_checkpoints,
        }
        return RunSpecification(
            name=self.run_name,
            user_tags=dict(tag.split("=", 1) for tag in self.tag),
            settings=settings,
            system_metrics=self.system_metrics,
            figures=not self.no_figures,
            keep_best=self.keep_best,
            log_average=self.log_average,
            checkpoint_every=self.checkpoint_every,
            keep_checkpoints=self.keep_checkpoints,
            data_root=self.data_root,
        )


def _check_tags(tags: Iterable[str]) -> None:
    """Refuse tags that MLflow or the harness would not keep as they are.

    Raises:
        BadRequest: a tag is not `key=value` with a key of the user's own, or repeats a key.
    """
    seen = set()
    for tag in tags:
        check_text("tag", tag)
        key, equals, _ = tag.partition("=")
        if not equals or not key or key.startswith(("mlflow.", "harness.")):
            raise BadRequest(
                f"tag: expected key=value, got {tag!r}; "
                "keys that begin with mlflow. or harness. are reserved."
            )
        if not re.fullmatch(r"\w[\w. :-]{0,249}", key):
            raise BadRequest(
                f"tag: a key is at most 250 letters, digits and . : - _ characters, not {key!r}."
            )
        if key in seen:
            raise BadRequest(f"tag: the key {key} is given twice; give it once.")
        seen.add(key)
