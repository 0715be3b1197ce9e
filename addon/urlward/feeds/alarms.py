"""State of feeds, and their alarms: faults that have lasted so long that an operator should look."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal, get_args

from urlward.engine.artifact import Header
from urlward.engine.dates import time_text
from urlward.feeds.facts import Facts
from urlward.lists.trust import TrustError, check_dates
from urlward.units import in_words

if TYPE_CHECKING:
    from urlward.config import FeedTable

State = Literal["ok", "waiting", "failed", "alarm"]
STATES: tuple[State, ...] = get_args(State)


def state_of(facts: Facts, found: Collection[str], *, has_list: bool) -> State:
    """State of a feed in a word: ``ok``; ``waiting`` where nothing has been fetched yet; ``failed`` where the
    last attempt was none; ``alarm`` where that, or something else, has lasted too long.

    Args:
        facts: what is remembered of it.
        found: its alarms.
        has_list: whether one is in force.
    """
    if found:
        return "alarm"
    if facts.reason:
        return "failed"
    return "ok" if has_list else "waiting"


def alarms(feed: "FeedTable", facts: Facts, header: Header | None, now: float) -> dict[str, str]:
    """Alarms of a feed.

    Args:
        feed: which.
        facts: what is remembered of it.
        header: of the artifact in force, None where there is none.
        now: seconds since 1970-01-01 UTC.

    Returns:
        A sentence by kind: ``missing``, ``stale``, ``expiring``, ``expired``.
    """
    found = {}
    if header is None and (facts.since or facts.last_attempt):
        found["missing"] = "no list is in force: nothing on it is blocked"
    last = facts.last_success or facts.since
    if last and now - last > feed.stale_limit:
        since = f"since {time_text(int(last))}" if facts.last_success else "yet"
        found["stale"] = (
            f"no successful refresh {since}, for {in_words(now - last)}; "
            f"the limit is {in_words(feed.stale_limit)}"
        )
    if header is not None and header.valid_until:
        found.update(_dates(header, now, feed.grace))
    return found


def _dates(header: Header, now: float, grace: float) -> dict[str, str]:
    try:
        validity = check_dates(header, now=now, grace=grace)
    except TrustError as e:
        return {"expired": str(e)} if e.reason == "expired" else {}
    return {validity.state: validity.message} if validity.message else {}
