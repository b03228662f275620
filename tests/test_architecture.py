"""The house's floors: imports run downwards only; and what the tree promises about itself."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

GROUND = {
    *("database", "errors", "fields", "files", "inspection"),
    *("interruption", "ownership", "privacy", "project", "statistics"),
}
"""The top-level modules of the harness on the ground floor; all others are doors."""

MAY_IMPORT = {
    "plain": set(),
    "plain_study": {"plain"},
    "ground": {"ground"},
    "package": {"doors", "tracking"},
    "training": {"training", "ground"},
    "tracking": {"tracking", "training", "ground"},
    "search": {"search", "training", "ground"},
    "comparison": {"comparison", "tracking", "ground"},
    "reporting": {"reporting", "comparison", "search", "tracking", "ground"},
    "doors": {
        *("doors", "benchmark", "comparison", "reporting"),
        *("search", "tracking", "training", "ground"),
    },
    "benchmark": {"benchmark", "package", "search", "tracking", "training", "ground"},
    "experiments": {"experiments", "training", "ground"},
    "studies": {"studies", "experiments", "search"},
}
"""From which rooms a room may import; the plain ones are the yardsticks, the package is what
`import harness` gives."""

ONLY_ROOMS_OF = {"mlflow": {"tracking"}, "optuna": {"search", "plain_study"}}
"""The libraries that a single room knows, and a yardstick."""

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
DOORS = (
    {path.stem for path in (ROOT / "harness").glob("*.py")}
    - GROUND
    - {"__init__", "plain", "plain_study"}
)
ROOMS = {path.parent.name for path in (ROOT / "harness").glob("*/*.py")} | set(MAY_IMPORT)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(module: str) -> str:
    """The room of a module, or the library's name where the module is not of this project."""
    top, _, rest = module.partition(".")
    first = rest.partition(".")[0]
    if top != "harness":
        return top
    if not rest:
        return "package"
    if first in DOORS:
        return "doors"
    return first if first in ROOMS else "ground"


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and name of everything that a source imports, wherever in the file it stands.

    `from harness import fields` counts as `harness.fields`; a relative import is resolved from the
    package that the source belongs to.
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


def breaches(source: str, module: str, package: str) -> list[str]:
    """The imports of a source that its room forbids, one line each."""
    home = room(module)
    return [
        f"line {line}: {home} imports {target}"
        for line, target in imports(source, package)
        if (room(target) in MAY_IMPORT and room(target) not in MAY_IMPORT[home])
        or home not in ONLY_ROOMS_OF.get(room(target), {home})
    ]


@pytest.mark.parametrize("path", CODE, ids=name)
def test_imports_run_downwards(path: Path) -> None:
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    assert room(module) in MAY_IMPORT, "a new room: give it a floor in MAY_IMPORT"
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
        ("harness.tracking.store", "from harness.search import claim"),
        ("harness.tracking.store", "import optuna"),
        ("harness.search.claim", "import harness.tracking.store"),
        ("harness.search.claim", "import mlflow"),
        ("harness.errors", "from harness.training import loop"),
        ("harness.fields", "from harness import plain"),
        ("harness.plain", "import harness"),
        ("harness.plain", "from harness.errors import BadRequest"),
        ("harness.training.data", "import experiments.baseline"),
        ("experiments.baseline", "from harness.search import Study"),
        ("studies.lr_search", "from optuna.distributions import FloatDistribution"),
        ("studies.lr_search", "from harness.training.experiment import Experiment"),
    ],
)
def test_a_forbidden_import_is_found(module: str, line: str) -> None:
    assert len(breaches(line, module, module.rpartition(".")[0])) == 1


def test_every_module_of_the_ground_floor_exists() -> None:
    assert {stem for stem in GROUND if not (ROOT / "harness" / f"{stem}.py").is_file()} == set()


def test_every_package_is_listed_for_installation() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(
        {".".join(path.relative_to(ROOT).parent.parts) for path in CODE}
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
