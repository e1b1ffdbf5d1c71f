"""Where Ray keeps its files."""

import os

import pytest

from cluster.connection import LONGEST_FOLDER, _check_folder
from utils import UsageError


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/" + "a" * (LONGEST_FOLDER - 1), None),
        ("/" + "a" * LONGEST_FOLDER, "/tmp"),
        ("/" + "é" * (LONGEST_FOLDER // 2 + 1), "/tmp"),  # two bytes each
    ],
)
def test_ray_does_not_use_a_folder_with_too_long_a_path(
    folder: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setenv("RAY_TMPDIR", "")  # so that it is restored
    monkeypatch.delenv("RAY_TMPDIR")
    _check_folder()
    assert os.environ.get("RAY_TMPDIR") == expected


def test_folder_that_a_user_named_for_ray_is_refused_if_its_path_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/" + "a" * LONGEST_FOLDER)
    with pytest.raises(UsageError, match=f"RAY_TMPDIR=/aaa.*: its path is longer than the {LONGEST_FOLDER} bytes"):
        _check_folder()
