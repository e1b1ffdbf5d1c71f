"""The preparation of a process."""

from tests.scripts import run_process

CODE = """
import os
from cli.process import prepare_process
if os.environ["OMP_WAIT_POLICY"] == "none":
    del os.environ["OMP_WAIT_POLICY"]
prepare_process()
print(os.environ["OMP_WAIT_POLICY"])
"""


def test_idle_threads_sleep_unless_the_user_says_otherwise() -> None:
    policies = [run_process("-c", CODE, OMP_WAIT_POLICY=given).stdout.strip() for given in ("ACTIVE", "none")]
    assert policies == ["ACTIVE", "PASSIVE"]
