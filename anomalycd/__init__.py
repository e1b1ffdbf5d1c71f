"""AnomalyCD from Python: change and anomaly maps of arrays, and of events on the disk (docs/python.md).

Importing it prepares the process as the scripts do: on a CPU, masks take half the time (cli/process.py).
"""

from cli.process import prepare_process

prepare_process()  # before torch is loaded

from anomalycd.model import AnomalyCD  # noqa: E402

__all__ = ["AnomalyCD"]
