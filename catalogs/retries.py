"""Repeats what a network can make fail, with growing pauses."""

import re
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from urllib3 import Retry
from urllib3.exceptions import InvalidHeader

import config
from utils import LOG, AnomalyCDError, describe_error, hide_secrets, one_line

Result = TypeVar("Result")
BUSY = (429, 500, 502, 503, 504)  # HTTP codes after which the same request can succeed
LONGEST_PAUSE = 120.0  # seconds; a server that asks for more is not waited for


class NetworkError(AnomalyCDError):
    """A server could not be reached, or answered that it is busy, at every attempt."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        """`pause`: seconds after which the server asks to try again."""
        super().__init__(message)
        self.pause = pause


def asked_pause(headers: Mapping[str, str]) -> float:
    """Return the seconds that an answer asks to wait before the next attempt (`Retry-After`); 0 if it asks nothing."""
    text = headers.get("Retry-After")
    if text is None:
        return 0.0
    try:
        return Retry().parse_retry_after(text)
    except InvalidHeader:
        return 0.0


def network_reason(error: Exception) -> str:
    """Return the system's reason in an error of requests, which wraps it in the text of other errors."""
    text = hide_secrets(one_line(error))
    untrusted = re.search(r"certificate verify failed[^()]*", text)
    if untrusted:
        return f"{untrusted[0].strip()}; CURL_CA_BUNDLE names a file of certificates to trust"
    systems = re.findall(r"\[Errno[^\]]*\] [^()\"']*", text)
    return (systems[-1] if systems else text).strip()[:200] or type(error).__name__


def with_retries(attempt: Callable[[], Result]) -> Result:
    """Return the result of `attempt`, which is repeated after a NetworkError; the pause doubles each time.

    Raises the last NetworkError after config.CATALOG_ATTEMPTS attempts, or if the server asks for a longer pause than
    LONGEST_PAUSE.
    """
    for number in range(config.CATALOG_ATTEMPTS - 1):
        try:
            return attempt()
        except NetworkError as error:
            if error.pause > LONGEST_PAUSE:
                raise
            pause = max(config.CATALOG_PAUSE * 2**number, error.pause)
            LOG.debug("%s; trying again in %g s", describe_error(error), pause)
            time.sleep(pause)
    return attempt()
