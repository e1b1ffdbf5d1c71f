"""Repeats what a network can make fail, with growing pauses."""

import re
import time
from collections.abc import Callable
from typing import TypeVar

import config
from utils import LOG, AnomalyCDError, describe_error, hide_secrets, one_line

Result = TypeVar("Result")
BUSY = (429, 500, 502, 503, 504)  # HTTP codes after which the same request can succeed


class NetworkError(AnomalyCDError):
    """A server could not be reached, or answered that it is busy, at every attempt."""


def network_reason(error: Exception) -> str:
    """Return the system's reason in an error of requests, which wraps it in the text of other errors."""
    text = hide_secrets(one_line(error))
    systems = re.findall(r"\[Errno[^\]]*\] [^()\"']*", text)
    return (systems[-1] if systems else text).strip()[:200] or type(error).__name__


def patiently(attempt: Callable[[], Result]) -> Result:
    """Return the result of `attempt`, which is repeated after a NetworkError; the pause doubles each time.

    Raises the last NetworkError after config.CATALOG_ATTEMPTS attempts.
    """
    for number in range(config.CATALOG_ATTEMPTS - 1):
        try:
            return attempt()
        except NetworkError as error:
            pause = config.CATALOG_PAUSE * 2**number
            LOG.debug("%s; trying again in %g s", describe_error(error), pause)
            time.sleep(pause)
    return attempt()
