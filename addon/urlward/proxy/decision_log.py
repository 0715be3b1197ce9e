"""Decision log: counters and log lines of decisions and faults, one line each, never a URL, host or path.

Where events are recorded, their stores are what says who met what, under the privacy and for the days that
the operator has chosen; a log knows neither, so hits are not in it too unless that is asked for. Other lines
name a client by no more than that privacy leaves of it.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from urlward.proxy.names import Client
from urlward.records.privacy import name_in_log
from urlward.records.worker import Hit, Recording

logger = logging.getLogger("urlward")

_SAID_AGAIN = 60.0
"""Seconds before one reason to refuse certificates is said again."""


@dataclass(slots=True)
class Counts:
    """Counters of decisions and faults since the start.

    Attributes:
        requests: that were judged.
        blocked: requests and connections that were answered, refused or cut because they are listed.
        would_block: those that would have been, where nothing is blocked.
        refused: what could not be read.
        errors: faults of ours.
    """

    requests: int = 0
    blocked: int = 0
    would_block: int = 0
    refused: int = 0
    errors: int = 0


class DecisionLog:
    """Counter and log writer of decisions and faults.

    Args:
        counts: to go on with.
        clock: seconds since 1970-01-01 UTC.
        recording: takes what is to be kept; None where nothing is.

    Attributes:
        counts: so far.
    """

    def __init__(
        self, counts: Counts, clock: Callable[[], float], recording: Recording | None = None
    ) -> None:
        self.counts = counts
        self._clock = clock
        self._recording = recording
        self._untrusted: dict[str, float] = {}

    def block(self, hit: Hit) -> None:
        """Log a hit that is blocked, or would be."""
        if hit.would:
            self.counts.would_block += 1
        else:
            self.counts.blocked += 1
        if self._recording is not None:
            self._recording.hit(hit)
            if not self._recording.logs:
                return
        verdict = hit.verdict
        _log(
            logging.INFO,
            f"%s {'would-' * hit.would}{'cut' if hit.cut else 'block'} "
            "client=%s list=%s entry=%s category=%s reference=%s%s",
            timestamp(self._clock()), self._peer(hit.client, hit.client_port), verdict.list, verdict.entry,
            verdict.category or "-", hit.reference, f" group={hit.group}" * bool(hit.group),
        )  # fmt: skip

    def _peer(self, address: str, port: int) -> str:
        named = self._recording.named if self._recording is not None else name_in_log
        return named(address, port)

    def failure(self, error: Exception, client: Client, outcome: str) -> None:
        """Log an error of the filter, and where it happened.

        Args:
            error: raised by something of ours; its own text, which may quote the request, is not told.
            client: whose request or connection it is.
            outcome: what becomes of that.
        """
        self.counts.errors += 1
        if self._recording is not None:
            self._recording.metrics.error("decision")
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_qualname}:{where.tb_lineno}" if where is not None else "?"
        _log(
            logging.ERROR,
            "%s error client=%s error=%s at=%s count=%d request=%s",
            timestamp(time.time()), self._peer(*client.peername[:2]), error.__class__.__name__, place,
            self.counts.errors, outcome,
        )  # fmt: skip

    def untrusted(self, reason: str, client: Client) -> None:
        """Log that an origin's certificate was refused; each reason now and then, and never which origin.

        What is decrypted has an entry, so that its host's name must not stand in a log.

        Args:
            reason: OpenSSL's, of a fixed set of texts.
            client: who asked for the origin.
        """
        now = time.monotonic()
        if now < self._untrusted.get(reason, float("-inf")) + _SAID_AGAIN:
            return
        self._untrusted[reason] = now
        _log(
            logging.WARNING,
            "%s untrusted client=%s reason=%s (an origin's certificate; `--set "
            "ssl_verify_upstream_trusted_ca=FILE` names other authorities)",
            timestamp(self._clock()), self._peer(*client.peername[:2]), reason.replace(" ", "-"),
        )  # fmt: skip


def timestamp(now: float) -> str:
    """UTC to the millisecond, RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"


def _log(level: int, message: str, *values: object) -> None:
    """Write a log line, ignoring errors: a full disk or a broken handler must not decide what passes."""
    with suppress(Exception):
        logger.log(level, message, *values)
