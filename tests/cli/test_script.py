"""What every script does before its work: encodings, certificates."""

import os
from pathlib import Path

import pytest

import config
from cli.script import CERTIFICATES, _share_certificates
from tests.scripts import DEMO_SAM, FEW_POINTS, FIRE, run_process


def test_paths_that_the_locale_cannot_encode_are_read(data_root: Path, tmp_path: Path) -> None:
    roots = ("--stage1-root", tmp_path / "stage1", "--stage2-root", tmp_path / "stage2", "--event", FIRE)
    locale = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = run_process("run.py", "--stage", "all", "--data-root", data_root, *roots, *DEMO_SAM, **FEW_POINTS, **locale)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "stage2" / FIRE / config.ANOMALY_MAP_NAME).exists()


def test_all_libraries_trust_the_certificates_that_one_was_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own.pem"
    file.touch()
    for name in CERTIFICATES:
        for other in CERTIFICATES:
            monkeypatch.setenv(other, str(file) if other == name else "")
        _share_certificates()
        assert {os.environ[other] for other in CERTIFICATES} == {str(file)}


@pytest.mark.parametrize("value", ["", "/no/such/file.pem"])
def test_certificates_that_do_not_exist_are_left_to_the_libraries(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CERTIFICATES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", value)
    _share_certificates()
    assert "CURL_CA_BUNDLE" not in os.environ


def test_certificates_of_a_library_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.pem").touch()
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "own.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/other.pem")
    monkeypatch.setenv("SSL_CERT_FILE", "")
    _share_certificates()
    assert os.environ["REQUESTS_CA_BUNDLE"] == "/other.pem"
    assert os.environ["SSL_CERT_FILE"] == str(tmp_path / "own.pem")
