"""A worker of a Ray cluster: one SAM on one device, in its own process."""

import socket
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cli.process import prepare_process
from cluster.environment import environment
from cluster.remote_calls import Outcome, call
from pipeline.window_worker import WindowWorker
from sam.settings import EngineSettings
from sam.weights import sha256
from utils import UsageError, Window


class WorkerInfo(NamedTuple):
    """What a worker reports when it is ready."""

    host: str
    node: str  # Ray's ID of the machine
    device: str
    environment: dict[str, Any]


class RayWorker:
    """Computes windows; runs as a Ray actor."""

    def start(self, settings: EngineSettings, shared: Sequence[Path]) -> Outcome:
        """Load the engine; the outcome's value is a WorkerInfo. `shared`: paths that must exist here."""
        return call(lambda: self._start(settings, shared))

    def _start(self, settings: EngineSettings, shared: Sequence[Path]) -> WorkerInfo:
        import ray

        prepare_process()
        for path in (*shared, settings.weights.path):
            if not path.exists():
                raise UsageError(f"{path}: not found; it must be on a file system shared by all machines")
        if sha256(settings.weights.path) != settings.weights.sha256:
            raise UsageError(f"{settings.weights.path}: differs from the file on the machine that started the run")
        thread = ThreadPoolExecutor(1, "device")
        engine = thread.submit(settings.load).result()
        # Features go to a folder of this machine, never to the shared file system.
        self._worker = WindowWorker(lambda: engine, thread, Path(tempfile.gettempdir()))
        device = torch.cuda.get_device_name() if settings.device.type == "cuda" else "CPU"
        return WorkerInfo(socket.gethostname(), ray.get_runtime_context().get_node_id(), device, environment())

    def compute(self, key: int, stage: Sequence[Any], window: Window, keep_features: bool) -> Outcome:
        """Compute a window; see WindowWorker.

        `stage`: a list with the reference to the opened stage. Ray would fetch a bare reference at every call.
        """
        import ray

        return call(self._worker.submit(key, lambda: ray.get(stage[0]), window, keep_features).result)
