"""The architecture: files in the root, and the direction of imports."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts import PROJECT

SCRIPTS = ("run", "run_stage1", "run_stage2", "run_eval", "run_report", "quick_test", "get_event")
METHOD = ("img_io", "stage1_analysis", "stage2_analysis", "eval_metrics")
# A layer may import itself and the layers after it in a list that contains both.
STAGES = ("scripts", "baselines", "anomalycd", "runs", "cluster", "pipeline", "evaluation", "method")
CHAINS = (
    (*STAGES, "sam", "cli", "utils", "config"),
    (*STAGES, "rasters", "cli", "utils", "config"),
    ("scripts", "report", "evaluation", "method", "sam", "cli", "utils", "config"),
    ("scripts", "report", "evaluation", "method", "rasters", "cli", "utils", "config"),
    ("scripts", "catalogs", "rasters", "cli", "utils", "config"),
    ("scripts", "datasets", "rasters", "cli", "utils", "config"),
)
PACKAGES = (
    "anomalycd",
    "baselines",
    "datasets",
    "runs",
    "cluster",
    "pipeline",
    "report",
    "evaluation",
    "catalogs",
    "sam",
    "rasters",
    "cli",
)
ROOT = {
    ".ci",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "benchmarks",
    "config.py",
    "demo",
    "docs",
    "environment.yml",
    "pyproject.toml",
    "requirements-dev.txt",
    "requirements-ray.txt",
    "requirements-report.txt",
    "requirements-stac.txt",
    "requirements.txt",
    "setup.py",
    "setup.sh",
    "tests",
    "utils.py",
    *(f"{name}.py" for name in (*SCRIPTS, *METHOD)),
    *PACKAGES,
}


def layer(module: str) -> str | None:
    """The layer of a module of the project, by its dotted name; None for libraries."""
    first = module.split(".")[0]
    if first in SCRIPTS:
        return "scripts"
    if first in METHOD:
        return "method"
    return first if first in (*PACKAGES, "utils", "config", "demo") else None


def may_import(importer: str, imported: str) -> bool:
    """Whether a module of the first layer may import one of the second."""
    if importer == imported:
        return True
    return any(
        importer in chain and imported in chain and chain.index(importer) < chain.index(imported) for chain in CHAINS
    )


def program_modules() -> Iterator[Path]:
    """Return the program's modules, without its installation, the demo, the benchmarks and the tests."""
    for pattern in ("*.py", *(f"{package}/**/*.py" for package in PACKAGES)):
        yield from sorted(path for path in PROJECT.glob(pattern) if path.name != "setup.py")


def imports(path: Path, at_import_time_only: bool = False) -> Iterator[tuple[int, str]]:
    """Line and dotted module of each import of a module, including imports inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    if at_import_time_only:
        guarded = {inner for node in nodes if isinstance(node, ast.FunctionDef | ast.If) for inner in ast.walk(node)}
        nodes = [node for node in nodes if node not in guarded]
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            for alias in node.names:
                if layer(node.module) and (PROJECT / node.module.replace(".", "/") / f"{alias.name}.py").exists():
                    yield node.lineno, f"{node.module}.{alias.name}"


def own_layer(path: Path) -> str:
    found = layer(".".join(path.relative_to(PROJECT).with_suffix("").parts))
    assert found is not None, f"{path}: belongs to no layer"
    return found


def test_imports_follow_the_layers() -> None:
    backwards = [
        f"{path.relative_to(PROJECT)}:{line}: {own_layer(path)} imports {module}"
        for path in program_modules()
        for line, module in imports(path)
        if (imported := layer(module)) is not None
        and not may_import(own_layer(path), imported)
        and (path.name, imported) != ("quick_test.py", "demo")  # draws an event if there is no data
    ]
    assert backwards == []


def test_there_are_no_circular_imports() -> None:
    names = {path: ".".join(path.relative_to(PROJECT).with_suffix("").parts) for path in program_modules()}
    graph = {
        names[path]: {module for _, module in imports(path, at_import_time_only=True) if module in names.values()}
        for path in names
    }

    def search(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        for imported in sorted(graph[module]):
            search(imported, (*trail, module))

    for module in graph:
        search(module, ())


def test_may_import() -> None:
    assert not may_import("utils", "cli")
    assert not may_import("sam", "rasters")
    assert not may_import("rasters", "sam")
    assert not may_import("pipeline", "report")
    assert not may_import("report", "pipeline")
    assert not may_import("evaluation", "pipeline")
    assert may_import("report", "evaluation")
    assert may_import("cluster", "sam")
    assert not may_import("catalogs", "pipeline")
    assert not may_import("report", "catalogs")


@pytest.mark.parametrize(("package", "libraries"), [("cluster", {"ray"}), ("catalogs", {"pystac", "pystac_client"})])
def test_optional_libraries_are_imported_by_one_package(package: str, libraries: set[str]) -> None:
    using = {
        own_layer(path)
        for path in program_modules()
        for _, module in imports(path)
        if module.split(".")[0] in libraries
    }
    assert using == {package}


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "anomalycd"])
def test_package_init_contains_only_a_docstring(package: str) -> None:
    tree = ast.parse((PROJECT / package / "__init__.py").read_text(encoding="utf-8"))
    assert [type(node) for node in tree.body] == [ast.Expr], "a docstring and nothing else"


def test_root_contains_only_the_listed_files() -> None:
    listed = subprocess.run(
        ["git", "ls-files"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = {name.split("/")[0] for name in listed.stdout.splitlines() if (PROJECT / name).exists()}
    assert found == ROOT


def test_tests_mirror_the_packages() -> None:
    folders = {path.name for path in (PROJECT / "tests").iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    assert folders == {*PACKAGES, "benchmarks", "demo"}
