from pathlib import Path

from cluster import environment
from tests.scripts import PROJECT
from tests.test_architecture import PACKAGES


def test_source_checksum_depends_on_every_module(tmp_path: Path) -> None:
    modules = ["utils.py", *(f"{package}/{name}.py" for package in environment.PACKAGES for name in ("a", "b"))]
    for module in modules:
        (tmp_path / module).parent.mkdir(exist_ok=True)
        (tmp_path / module).write_text("A = 1\n")
    seen = {environment.source_checksum(tmp_path)}
    for module in modules:
        (tmp_path / module).write_text("A = 2\n")
        seen.add(environment.source_checksum(tmp_path))
    (tmp_path / "sam/b.py").rename(tmp_path / "sam/c.py")
    seen.add(environment.source_checksum(tmp_path))
    assert len(seen) == len(modules) + 2
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_a.py").write_text("")
    assert environment.source_checksum(tmp_path) in seen


def test_source_checksum_covers_every_package_that_affects_the_maps() -> None:
    others = {"report", "catalogs", "datasets", "baselines", "anomalycd"}
    assert set(environment.PACKAGES) == set(PACKAGES) - others
    assert len(list(PROJECT.glob("sam/*.py"))) > 5


def test_environment_lists_libraries_source_and_settings() -> None:
    found = environment.environment()
    assert {*environment.LIBRARIES, "AnomalyCD", "STAGE1_SAM_PARAMS", "MAX_REGION_FRACTION"} <= found.keys()
