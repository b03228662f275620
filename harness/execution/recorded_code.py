"""The experiment of a recorded run: from its file, or from the code that was recorded with it.

Recorded code may come from anywhere. It is executed only if the user asks for that.
"""

from __future__ import annotations
import __future__

import ast
import dataclasses
import hashlib
import inspect
import json
import sys
from types import ModuleType
from typing import Any

from harness.base import fields, project
from harness.base.discovery import put_project_first
from harness.base.errors import BadRequest
from harness.base.outside_code import FLAG, OutsideCode, executed_again
from harness.tracking.reader import Reader
from harness.tracking.schema import SOURCE_FILE, StoredRun
from harness.training.experiment import Experiment, load_experiment

MODULE = "recorded_code"
"""The name of the module in which recorded code is executed."""

_is_executing = False


class _TrainingAsked(BaseException):
    """Recorded code has come to a training, which is not begun; no handler of its own stops it."""

    def __init__(self, experiment: Any) -> None:
        super().__init__()
        self.experiment = experiment


def refuse_in_recorded_code(experiment: Any) -> None:
    """End a statement of recorded code that would train something; do nothing in other code."""
    if _is_executing:
        raise _TrainingAsked(experiment)


def recorded_experiment(
    stored: StoredRun, reader: Reader, command: str, *, run_recorded_code: bool
) -> Experiment:
    """The experiment of a run, as it was trained.

    Args:
        command: what it is needed for: `verify`, `resume` or `continue`.
        run_recorded_code: whether code that is in no file of `experiments/` may be executed.

    Raises:
        BadRequest: there is no such experiment any more, its fields cannot be read, or its code was
            recorded and may not or cannot be executed.
    """
    _check_recorded(stored, command)
    kind = _recorded_class(stored, reader, command, run_recorded_code=run_recorded_code)
    return with_fields(stored, kind, command)


def with_fields(stored: StoredRun, kind: type[Experiment], command: str) -> Experiment:
    """An experiment with the fields of a run.

    Raises:
        BadRequest: they cannot be read, or the experiment has no such fields any more.
    """
    _check_recorded(stored, command)
    known = {field.name for field in dataclasses.fields(kind)}
    if gone := sorted(stored.fields.keys() - known):
        raise BadRequest(
            f"{command}: {stored.experiment} has no field {', '.join(gone)} any more; "
            f"check out the commit of the run: {stored.tag('git_commit') or 'none'}"
        )
    return kind(**stored.fields)


def _check_recorded(stored: StoredRun, command: str) -> None:
    for name, value in {"fields": stored.fields, "experiment": stored.experiment}.items():
        if not value:
            raise BadRequest(
                f"{command}: {stored.run_id} has no {name}, or none that can be read "
                f"(tag harness.{name}); nobody can tell what was trained."
            )


def _recorded_class(
    stored: StoredRun, reader: Reader, command: str, *, run_recorded_code: bool
) -> type[Experiment]:
    origin = stored.tag("code_origin")
    if origin is None:
        return load_experiment(stored.experiment)
    place = "the project" if stored.is_outside else "experiments/"
    lacks = f"{command}: {stored.experiment} is in no file of {place} but in {origin}"
    if missing := stored.tag("code_missing"):
        raise BadRequest(f"{lacks}, and its code was not recorded: {missing}.")
    if not run_recorded_code:
        raise BadRequest(f"{lacks}. To execute the code that was recorded with the run: {FLAG}")
    content = reader.artifact(stored.run_id, SOURCE_FILE)
    if content is None and stored.parent:  # children share their parent's
        content = reader.artifact(stored.parent, SOURCE_FILE)
    if content is None:
        raise BadRequest(f"{lacks}, and the record of its code, {SOURCE_FILE}, is not there.")
    digest = hashlib.sha256(content).hexdigest()
    if digest != stored.tag("source_sha256"):
        raise BadRequest(
            f"{command}: {SOURCE_FILE} of {stored.run_id} has another digest than was recorded; "
            "it is not executed."
        )
    code = OutsideCode(
        origin,
        content,
        digest,
        stored.tag("experiment_sha256") or "",
        stored.class_digest,
        is_in_project=not stored.is_outside,
    )
    return _executed(code, stored, command)


def _executed(code: OutsideCode, stored: StoredRun, command: str) -> type[Experiment]:
    """The class that recorded code defines.

    It is executed statement by statement, up to the training of this run, or all of it if it is
    pieced together from cells. Other trainings are left out, and what then fails without them.
    """
    global _is_executing
    file = f"<{SOURCE_FILE} of {stored.run_id[:8]}>"
    module = ModuleType(MODULE)
    if code.origin.endswith(".py"):
        module.__file__ = str(project.root() / code.origin)
    put_project_first()
    sys.modules[MODULE] = module
    executed_again(file, code)
    found: dict[str, type[Experiment]] = {}
    problem, flags, arguments = "", 0, sys.argv
    _is_executing = True
    try:
        sys.argv = [code.origin, *stored.command_words[2:]]
        for statement in ast.parse(code.content, file).body:
            if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
                for name in statement.names:
                    flags |= getattr(__future__, name.name).compiler_flag
            try:
                part = ast.Module([statement], [])
                exec(compile(part, file, "exec", flags, dont_inherit=True), vars(module))
            except _TrainingAsked as asked:
                experiment = asked.experiment
                if isinstance(experiment, Experiment) and type(experiment).__module__ == MODULE:
                    found[experiment.name] = type(experiment)
                    if not code.is_pieced and _is_of(experiment, stored):
                        break
            except (Exception, SystemExit) as error:
                words = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(": ")
                problem = problem or f"{words} (line {statement.lineno})"
    except (SyntaxError, ValueError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}".partition("\n")[0]
    finally:
        _is_executing, sys.argv = False, arguments
    for member in vars(module).values():
        is_own = inspect.isclass(member) and member.__module__ == MODULE
        if is_own and issubclass(member, Experiment):
            found[member.name] = member
    kind = found.get(stored.experiment)
    if kind is None:
        raise BadRequest(
            f"{command}: the recorded code of {stored.run_id[:8]} defines no experiment "
            f"{stored.experiment}{f': {problem}' if problem else '.'}"
        )
    if inspect.isabstract(kind):
        raise BadRequest(f"{command}: {kind.__name__} of the recorded code has no network().")
    fields.check_declaration(kind)
    return kind


def _is_of(experiment: Experiment, stored: StoredRun) -> bool:
    """Whether an experiment is the one that a run has recorded."""
    fields_as_stored = json.loads(json.dumps(experiment.fields()))
    return bool(experiment.name == stored.experiment and fields_as_stored == stored.fields)
