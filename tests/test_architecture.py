"""The layers: imports run downwards only; and what the tree promises about itself."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from setuptools import find_packages

import harness

ROOT = Path(__file__).resolve().parent.parent

LAYERS = (
    ("base",),
    ("training", "figures"),
    ("tracking", "search"),
    ("execution",),
    ("analysis",),
    ("reporting",),
    ("workers",),
    ("cli",),
    ("commands",),
)
"""The rooms of the harness, from the ground up: each imports from itself and from rows below.

`commands` are the modules that lie directly in `harness/`.
"""

OUTSIDE = ("benchmark",)
"""Rooms beside the layers: they may import every room, and only the commands import them."""

REFERENCES = ("harness.benchmark.reference", "harness.benchmark.reference_study")
"""The plain scripts, which import nothing of the harness but one another."""

PUBLIC = ("experiments", "studies", "tests")
"""Folders that import the harness as users do, through `from harness import ...`."""

ONLY_ROOMS_OF = {"mlflow": {"tracking"}, "optuna": {"search", "reference"}}
"""The libraries that a single room knows (and a reference script)."""

VAGUE = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}

REGISTRIES = [
    ".".join(parts)
    for parts in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("download", "pytorch", "org"),
        ("anaconda", "org"),
        ("anaconda", "com"),
        ("npmjs", "org"),
    ]
]
INDEX_OPTIONS = [
    "-".join(("index", "url")),
    "_".join(("index", "url")),
    "-".join(("find", "links")),
]


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


CODE = sources("harness", "experiments", "studies")
ROOMS = {room for layer in LAYERS for room in layer} | {*OUTSIDE, "reference", "face"}
LAYER_OF = {room: number for number, layer in enumerate(LAYERS) for room in layer}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(module: str) -> str:
    """The room of a module, or the library's name if the module is not of this project."""
    top, _, rest = module.partition(".")
    first = rest.partition(".")[0]
    if top != "harness":
        return top
    if module in REFERENCES:
        return "reference"
    if (ROOT / "harness" / first / "__init__.py").is_file() and first:
        return first
    is_command = (ROOT / "harness" / f"{first}.py").is_file() and first != "__init__"
    return "commands" if is_command else "face"


def is_allowed(home: str, target: str) -> bool:
    """Whether a room may import another one."""
    if home == target:
        return True
    if home in ("experiments", "studies"):
        return target == "face" or (home, target) == ("studies", "experiments")
    if home == "reference" or target == "reference":
        return False
    if home in OUTSIDE:
        return target in ROOMS
    if home == "face":
        return True
    return (target in LAYER_OF and LAYER_OF[target] < LAYER_OF[home]) or (
        home == "commands" and target in OUTSIDE
    )


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and name of everything that a source imports, wherever in the file it stands.

    `from harness.base import fields` counts as `harness.base.fields`; a relative import is resolved
    from the package that the source belongs to.
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                parts = package.split(".")
                base = parts[: len(parts) - node.level + 1] if node.level else []
                origin = ".".join([*base, *([node.module] if node.module else [])])
                yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
            case ast.Call(
                func=ast.Attribute(attr="import_module")
                | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(target)), *_],
            ):
                yield node.lineno, target


def resolved(target: str) -> str:
    """The module of an imported name: `harness.base.fields.Count` is of `harness.base.fields`."""
    parts = target.split(".")
    while parts and parts[0] == "harness" and len(parts) > 1:
        path = ROOT.joinpath(*parts)
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            break
        parts.pop()
    return ".".join(parts)


def breaches(source: str, module: str, package: str) -> list[str]:
    """The imports of a source that its room forbids, one line each."""
    home = room(module)
    found = []
    for line, target in imports(source, package):
        origin = room(resolved(target))
        is_ours = origin in ROOMS or origin in ("experiments", "studies")
        if (is_ours and not is_allowed(home, origin)) or (
            home not in ONLY_ROOMS_OF.get(origin, {home})
            and home != "benchmark"
            and not (home == "face" and origin == "optuna")
        ):
            found.append(f"line {line}: {home} imports {target}")
    return found


@pytest.mark.parametrize("path", CODE, ids=name)
def test_imports_run_downwards(path: Path) -> None:
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    assert room(module) in {*ROOMS, "experiments", "studies"}, "a new room: give it a layer"
    assert breaches(path.read_text(encoding="utf-8"), module, package) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("harness.training.loop", "import mlflow"),
        ("harness.training.loop", "import optuna.trial"),
        ("harness.training.loop", "from harness import tracking"),
        ("harness.training.loop", "from harness.tracking.store import Store"),
        ("harness.training.loop", "from .. import tracking"),
        ("harness.training.loop", "from ..tracking import store"),
        ("harness.training.loop", "def later():\n    import harness.search"),
        ("harness.training.loop", "if TYPE_CHECKING:\n    from mlflow import MlflowClient"),
        ("harness.training.loop", "importlib.import_module('mlflow.pytorch')"),
        ("harness.training.loop", "from harness import Study"),
        ("harness.figures.style", "from harness.training import loop"),
        ("harness.tracking.store", "from harness.search import study"),
        ("harness.tracking.store", "import optuna"),
        ("harness.search.storage", "import harness.tracking.store"),
        ("harness.search.storage", "import mlflow"),
        ("harness.execution.resume", "from harness.analysis import rows"),
        ("harness.analysis.rows", "from harness.cli import flags"),
        ("harness.workers.worker", "from harness import run"),
        ("harness.base.errors", "from harness.training import loop"),
        ("harness.base.fields", "from harness.benchmark import reference"),
        ("harness.benchmark.reference", "import harness"),
        ("harness.benchmark.reference", "from harness.base.errors import BadRequest"),
        ("harness.training.builtin_datasets", "import experiments.baseline"),
        ("experiments.baseline", "from harness.search import Study"),
        ("studies.lr_search", "from optuna.distributions import FloatDistribution"),
        ("studies.lr_search", "from harness.training.experiment import Experiment"),
    ],
)
def test_a_forbidden_import_is_found(module: str, line: str) -> None:
    assert len(breaches(line, module, module.rpartition(".")[0])) == 1


def test_every_room_of_the_layers_exists() -> None:
    folders = {path.parent.name for path in (ROOT / "harness").glob("*/__init__.py")}
    assert folders == {*LAYER_OF, *OUTSIDE} - {"commands"}


def test_a_file_name_occurs_once_in_the_package() -> None:
    """`study.py` is the command and the declaration of a study."""
    stems = Counter(path.stem for path in sources("harness") if path.stem != "__init__")
    assert {stem for stem, count in stems.items() if count > 1} <= {"study"}


def test_a_public_name_is_defined_in_one_module_of_the_package() -> None:
    """Commands share `main`; the reference scripts stand alone."""
    defined: dict[str, list[str]] = {}
    for path in sources("harness"):
        if module_of(path) in REFERENCES:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names = [node.name]
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            else:
                names = []
            for one in names:
                if not one.startswith("_") and one not in ("main", "USAGE"):
                    defined.setdefault(one, []).append(name(path))
    assert {one: places for one, places in defined.items() if len(places) > 1} == {}


PUBLIC_NAMES = {
    *(
        "Experiment",
        "Metric",
        "Objective",
        "Study",
        "Count",
        "Dataset",
        "Positive",
        "NonNegative",
        "Fraction",
        "Seed",
    ),
    *("FloatDistribution", "IntDistribution", "CategoricalDistribution"),
    *("run_experiment", "run_study", "load_model", "runs", "epochs"),
}


def test_the_public_names_are_these() -> None:
    assert set(harness.__all__) == PUBLIC_NAMES


@pytest.mark.parametrize("public", sorted(PUBLIC_NAMES))
def test_a_public_name_can_be_imported(public: str) -> None:
    assert getattr(harness, public) is not None
    assert public in dir(harness)


@pytest.mark.processes
def test_no_module_hides_a_public_name() -> None:
    """Python makes each imported module an attribute of its package."""
    names = {path.stem for path in (ROOT / "harness").iterdir()}
    assert names & PUBLIC_NAMES == set()


@pytest.mark.processes
def test_importing_the_package_imports_no_slow_library() -> None:
    program = (
        "import sys, harness; dir(harness);"
        "print({'torch', 'mlflow', 'optuna', 'pandas', 'numpy'} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "set()"


def test_every_package_is_installed_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    options = project["tool"]["setuptools"]["packages"]["find"]
    found = find_packages(str(ROOT), include=options["include"])
    assert sorted(found) == sorted(
        {".".join(path.relative_to(ROOT).parent.parts) for path in sources("harness")}
    )


def test_module_names_say_what_is_inside() -> None:
    vague = [
        name(path)
        for path in [*CODE, *sources("tests")]
        if VAGUE.intersection(path.stem.split("_"))
    ]
    assert vague == []


@pytest.mark.parametrize(
    "path",
    [path for path in sources("experiments", "studies") if not path.stem.startswith("_")],
    ids=name,
)
def test_a_file_that_is_listed_introduces_itself_in_one_line(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert 0 < len(docstring.partition("\n")[0]) <= 100


def tracked() -> list[Path]:
    """Every file of the repository, also the ones about to join it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / entry for entry in listing.split("\0") if entry and (ROOT / entry).is_file()]


@pytest.mark.processes
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git lists the files; this is no checkout")
def test_no_file_names_a_package_registry_or_an_index_option() -> None:
    forbidden = [text.encode() for text in [*REGISTRIES, *INDEX_OPTIONS]]
    files = tracked()
    assert Path(__file__).resolve() in files
    found = [
        f"{name(path)}: {text.decode()}"
        for path in files
        for content in [path.read_bytes().lower()]
        for text in forbidden
        if text in content
    ]
    assert found == []
