"""Acceptance of objections: checks, limits, and the reply to their authors.

Nobody looks whether a reference exists, so that no answer, nor the time that it takes, tells.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from urlward.config import ObjectionsTable, PageTable
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.objections.objections import (
    FullError,
    Objection,
    ObjectionError,
    add_objection,
    normal_message,
)
from urlward.objections.page import ObjectionPage, Outcome
from urlward.records.event import ReferenceTextError, parse_reference
from urlward.records.network import network_of, plain_address
from urlward.records.rate_limit import RateLimit

logger = logging.getLogger("urlward.records")

_RETRY = 600
"""Seconds after which who is not heard may try again."""

type Conceal = Callable[[str, float], str]
"""What may be kept of a client's address, at a time in seconds since 1970-01-01 UTC."""


class Said(NamedTuple):
    """Reply to an objection.

    Attributes:
        status: of the response.
        outcome: which page.
        reference: shown on it, or empty.
        wait: seconds after which it may be tried again, or 0.
    """

    status: HTTPStatus
    outcome: Outcome
    reference: str = ""
    wait: int = 0


FAULTY = Said(HTTPStatus.BAD_REQUEST, "faulty")


class Desk:
    """Desk: takes objections, within limits.

    Args:
        table: limits.
        page: the block page's texts.
        state: the state folder.
        key: its local key.
        conceal: see there.
        taken: is told of each, in the event loop.
        clock: seconds since 1970-01-01 UTC.
        timer: seconds on a clock that does not go back.

    Raises:
        ObjectionError: a text cannot be used; the message names its key.
    """

    def __init__(
        self,
        table: ObjectionsTable,
        page: PageTable,
        state: Path,
        key: Key,
        *,
        conceal: Conceal,
        taken: Callable[[Objection], None],
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.page = ObjectionPage(page, table.max_length)
        self.proxies = frozenset(map(plain_address, table.proxies))
        self._table = table
        self._state = state
        self._key = key
        self._conceal = conceal
        self._taken = taken
        self._clock = clock
        self._timer = timer
        self._limit = RateLimit(table.per_hour, table.per_hour_all)

    async def take(self, reference: str, message: str, address: str) -> Said:
        """Take an objection.

        Args:
            reference: as typed.
            message: likewise.
            address: of the client.

        Returns:
            What to say.
        """
        try:
            reference = parse_reference(reference)
            message = normal_message(message, self._table.max_length)
        except (ReferenceTextError, ObjectionError):
            return FAULTY
        if wait := self._limit.take(network_of(address), self._timer()):
            return Said(HTTPStatus.TOO_MANY_REQUESTS, "later", wait=math.ceil(wait))
        now = self._clock()
        try:
            client = self._conceal(address, now)
            objection = await asyncio.to_thread(
                add_objection, self._state, self._key, reference, message, client=client, now=now
            )
        except FullError as e:
            logger.error("objections: %s", e)
            return Said(HTTPStatus.SERVICE_UNAVAILABLE, "later", wait=_RETRY)
        except UrlwardError as e:
            logger.error("objections: one is lost: %s", e)
            return Said(HTTPStatus.SERVICE_UNAVAILABLE, "later", wait=_RETRY)
        self._taken(objection)
        return Said(HTTPStatus.OK, "received", reference)
