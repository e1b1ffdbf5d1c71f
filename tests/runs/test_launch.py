"""What a run loads, and what its flags become."""

import json
from pathlib import Path

import pytest

import run
from runs.flags import RunFlags
from tests.scripts import CONTROL, DEMO_SAM, FEW_POINTS, run_process

LOADED = """
import sys, run
run.main(sys.argv[1:])
import json
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] in ("cluster", "ray"))))
"""


def test_a_run_in_this_process_imports_nothing_of_a_cluster(small_events: Path, tmp_path: Path) -> None:
    roots = ("--data-root", small_events, "--stage1-root", tmp_path / "1", "--stage2-root", tmp_path / "2")
    done = run_process("-c", LOADED, *roots, "--event", CONTROL, *DEMO_SAM, **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "2" / CONTROL).exists()
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], None),
        (["--ray"], ("local", None, None, 1.0, None)),
        (["--ray", "auto", "--device", "cuda", "--ray-gpus-per-worker", "0.5"], ("auto", "cuda", None, 0.5, None)),
        (["--ray", "host:1", "--ray-workers", "3", "--ray-cpus-per-worker", "2"], ("host:1", None, 3, 1.0, 2)),
    ],
)
def test_flags_say_which_workers_are_wanted(flags: list[str], expected: tuple[object, ...] | None) -> None:
    assert RunFlags.of(run.parse_arguments(flags)).workers == expected
