"""Servers on this machine: files over HTTP with byte ranges, with faults on request, and a STAC API."""

import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

# What a fault does with a request: an HTTP code to answer, or `break` to close the connection within the answer.
Fault = Callable[[str], int | str | None]


class FileServer:
    """Serves a folder; counts bytes and requests by path."""

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        """`certificate`: file with a certificate and its key; None: plain HTTP."""
        self.folder = folder
        self.sent: Counter[str] = Counter()
        self.requests: defaultdict[str, list[str]] = defaultdict(list)  # ranges by path
        self.fault: Fault = lambda _: None
        self.documents: dict[str, bytes] = {}  # contents by path, beside those of the folder
        self.moved: dict[str, str] = {}  # where requests of paths that begin so are redirected to
        self.headers: dict[str, str] = {}  # of faults
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits 40 ms between header and content

            def do_GET(self) -> None:
                outer.answer(self)

            do_HEAD = do_GET  # noqa: N815

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.scheme = "http"
        if certificate is not None:
            self.scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Address of the folder."""
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        """Stop answering."""
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        path = handler.path.split("?")[0]
        wanted = handler.headers.get("Range", "")
        self.requests[path].append(wanted)
        fault = self.fault(path)
        file = self.folder / path.lstrip("/")
        content = self.documents.get(path)
        old = next((old for old in self.moved if path.startswith(old)), None)
        if old is not None:
            self.send_empty(handler, 302, {"Location": self.moved[old] + path.removeprefix(old)})
            return
        if isinstance(fault, int) or (content is None and not file.is_file()):
            self.send_empty(handler, fault if isinstance(fault, int) else 404, self.headers)
            return
        content = file.read_bytes() if content is None else content
        size = len(content)
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        if span:
            first = int(span[1])
            last = min(int(span[2] or size - 1), size - 1)
            if first >= size:
                self.send_empty(handler, 416, {})
                return
            content = content[first : last + 1]
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.send_header("Accept-Ranges", "bytes")
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if fault == "break":
            content = content[: len(content) // 2]
            handler.close_connection = True
        try:
            handler.wfile.write(content)
        except OSError:
            return
        self.sent[path] += len(content)
        if fault == "break":
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def send_empty(handler: BaseHTTPRequestHandler, code: int, headers: dict[str, str]) -> None:
        """Answer without content."""
        handler.send_response(code)
        for name, value in ({"Content-Length": "0"} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()


@contextmanager
def file_server(folder: Path, certificate: Path | None = None) -> Iterator[FileServer]:
    """Serve a folder over HTTP, or over HTTPS with a certificate; see FileServer."""
    server = FileServer(folder, certificate)
    try:
        yield server
    finally:
        server.close()


def rustac() -> str | None:
    """Path of the program `rustac`, or None where it is not installed."""
    return shutil.which("rustac", path=str(Path(sys.executable).parent))


@contextmanager
def api_server(*documents: Path) -> Iterator[str]:
    """Serve collections and items by a STAC API in memory; yields its address."""
    program = rustac()
    assert program is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    process = subprocess.Popen(
        [program, "serve", "--addr", address, *map(str, documents)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_for(f"http://{address}", process)
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def _wait_for(address: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None
            raise RuntimeError(process.stderr.read())
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError(address)
