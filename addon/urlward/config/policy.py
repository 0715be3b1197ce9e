"""``[[group]]``, ``[[rule]]``, ``[schedule.NAME]`` and ``[pages.NAME]``: the policy for groups of clients.

Two keys that contradict each other are an error that names both, since whichever of them were taken
silently would be the wrong one for somebody.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from urlward.config.problem import Problem
from urlward.config.tables import SHAREABLE, Networks, Table
from urlward.engine.entry import canonical_network

Use = Literal["block", "monitor", "allow"]
"""What becomes of an entry; as a list's own use, ``allow`` makes exceptions of all its entries."""

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_MAC = re.compile(r"[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}").fullmatch
_TIME = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00").fullmatch
_CATEGORY = re.compile(r"[A-Za-z0-9._\-]{1,64}").fullmatch


def _mac(value: str) -> str:
    text = value.lower()
    if not _MAC(text):
        raise PydanticCustomError("mac", "not a MAC address, such as 02:00:00:00:00:01")
    if int(text[1], 16) & 1:
        raise PydanticCustomError("mac", "a MAC address of a group of machines, not of one")
    return text.replace("-", ":")


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise PydanticCustomError("zone", "no such time zone; one is Europe/Madrid") from e
    return value


def _time(value: object) -> int:
    if not isinstance(value, str) or not _TIME(value):
        raise PydanticCustomError("time", "not a time of day from 00:00 to 24:00, such as 08:30")
    return int(value[:2]) * 60 + int(value[3:])


def _category(value: str) -> str:
    if not _CATEGORY(value):
        raise PydanticCustomError("category", "a category has 1 to 64 letters, digits, or ._-")
    return value.lower()


def _printable(value: str) -> str:
    if not value.isprintable():
        raise PydanticCustomError("name", "a name has printable characters alone")
    return value


Name = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
Mac = Annotated[str, AfterValidator(_mac)]
Category = Annotated[str, AfterValidator(_category)]
TimeOfDay = Annotated[int, BeforeValidator(_time)]


class RuleTable(Table):
    """``[[rule]]`` and ``[[group.rule]]``: the action for some entries. The first that fits one decides.

    Attributes:
        lists: names of those that it is for; all where absent.
        categories: likewise.
        action: ``block``; ``monitor``, which says and counts what it lets pass; or ``allow``, as if the entry
            were not there.
        schedule: name of the one that it holds in, and then only: outside it the list's own use counts, or
            the entry does not where that use is this very action; always where absent.
    """

    lists: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    categories: Annotated[tuple[Category, ...], Field(strict=False, min_length=1)] | None = None
    action: Use
    schedule: str | None = None


class GroupTable(Table):
    """``[[group]]``: clients, and the policy for them.

    Attributes:
        name: shown in logs and explanations.
        networks: of the clients; of several that hold one, the longest prefix counts.
        macs: of clients on a network of this machine's own; they count before any network.
        page: name of the block page's variant, ``[pages.NAME]``; ``[page]`` where absent.
        rule: in order; where none fits an entry, its list's own use counts.
    """

    name: Name
    networks: Networks = ()
    macs: tuple[Mac, ...] = Field(default=(), strict=False)
    page: str | None = None
    rule: tuple[RuleTable, ...] = Field(default=(), strict=False)


class ScheduleTable(Table):
    """``[schedule.NAME]``: days and times of day, by the wall clock of `zone`.

    Attributes:
        zone: name in the IANA time zone database.
        days: on which a span begins.
        begins: minutes after midnight; the key is ``from``.
        ends: likewise; the key is ``to``. At or before `begins` is on the next day.
    """

    zone: Annotated[str, SHAREABLE, AfterValidator(_zone)]
    days: tuple[Day, ...] = Field(default=DAYS, strict=False)
    begins: TimeOfDay = Field(default=0, alias="from")
    ends: TimeOfDay = Field(default=24 * 60, alias="to")


def policy_problems(
    groups: Sequence[GroupTable],
    rules: Sequence[RuleTable],
    schedules: Mapping[str, ScheduleTable],
    pages: Container[str],
    uses: Mapping[str, Use] | None = None,
) -> Iterator[Problem]:
    """Problems of a policy that contradicts itself.

    Args:
        groups: in the configuration's order.
        rules: for clients in no group.
        schedules: by name.
        pages: names of the block page's variants.
        uses: every list there is, by name, and its own use; None where that is not known yet.
    """
    for name, schedule in schedules.items():
        if not schedule.days:
            yield Problem(f"schedule.{_shown(name)}.days", "no day, so it is never in force")
        if schedule.begins == schedule.ends:
            yield Problem(
                f"schedule.{_shown(name)}", "from and to are one time; leave both out for the whole day"
            )
    yield from _problems_of_members(groups)
    for index, group in enumerate(groups):
        if group.page is not None and group.page not in pages:
            yield Problem(f"group.{index}.page", f"there is no [pages.{_shown(group.page)}]")
        yield from _problems_of_rules(f"group.{index}.rule", group.rule, schedules, uses)
    yield from _problems_of_rules("rule", rules, schedules, uses)


def policy_notes(
    groups: Sequence[GroupTable], rules: Sequence[RuleTable], schedules: Iterable[str]
) -> Iterator[Problem]:
    """What of a policy may be meant otherwise: traffic that no list filters, and tables that change nothing.

    Args:
        groups: in the configuration's order.
        rules: for clients in no group.
        schedules: by name.
    """
    named = {rule.schedule for each in (rules, *(group.rule for group in groups)) for rule in each}
    for name in schedules:
        if name not in named:
            yield Problem(f"schedule.{_shown(name)}", "no rule names it, so it changes nothing")
    for index, group in enumerate(groups):
        if rules and not group.rule:
            told = (
                "it has no rule, and [[rule]] is for clients in no group: each list's own use counts for it"
            )
            yield Problem(f"group.{index}", told)
        yield from _notes_of_rules(f"group.{index}.rule", group.rule)
    yield from _notes_of_rules("rule", rules)


def _notes_of_rules(where: str, rules: Sequence[RuleTable]) -> Iterator[Problem]:
    for index, rule in enumerate(rules):
        if rule.action == "block" and rule.schedule is None:
            return  # something holds always, and has been thought of
        if rule.lists is None and rule.categories is None and rule.action != "monitor":
            when = "" if rule.schedule is None else " in" if rule.action == "allow" else " outside"
            yield Problem(
                f"{where}.{index}",
                "it names neither lists nor categories, so that no list at all blocks for these clients"
                f"{when and f'{when} its schedule'}: name those that it is for",
            )


def _problems_of_members(groups: Sequence[GroupTable]) -> Iterator[Problem]:
    """Problems of members: each name, network and MAC address is in one group, and once."""
    seen: dict[tuple[str, str], str] = {}
    for index, group in enumerate(groups):
        if not group.networks and not group.macs:
            yield Problem(f"group.{index}", "neither networks nor macs, so that nobody is in it")
        for kind, value, where in _members(index, group):
            before = seen.setdefault((kind, value), f"{where} ({group.name})")
            if before != f"{where} ({group.name})":
                told = f"{value} is in {before} already" if kind else f"{before} has that name already"
                yield Problem(where, told)


def _members(index: int, group: GroupTable) -> Iterator[tuple[str, str, str]]:
    """Members that no other group may have: kind (empty for the name), value and place."""
    yield "", group.name, f"group.{index}.name"
    for n, network in enumerate(group.networks):
        yield "network", str(canonical_network(network)), f"group.{index}.networks.{n}"
    for n, mac in enumerate(group.macs):
        yield "mac", mac, f"group.{index}.macs.{n}"


def _problems_of_rules(
    where: str,
    rules: Sequence[RuleTable],
    schedules: Mapping[str, ScheduleTable],
    uses: Mapping[str, Use] | None,
) -> Iterator[Problem]:
    for index, rule in enumerate(rules):
        place = f"{where}.{index}"
        if rule.schedule is not None and rule.schedule not in schedules:
            yield Problem(f"{place}.schedule", f"there is no [schedule.{_shown(rule.schedule)}]")
        if uses is not None:
            yield from _problems_of_lists(place, rule.lists or (), uses)
        for earlier, other in enumerate(rules[:index]):
            if _covers(other, rule):
                yield Problem(place, f"never reached, since {where}.{earlier} fits all that it does")
                break


def _problems_of_lists(place: str, lists: Sequence[str], uses: Mapping[str, Use]) -> Iterator[Problem]:
    for n, name in enumerate(lists):
        if name not in uses:
            known = f"; there are {', '.join(map(_shown, islice(uses, 20)))}" * bool(uses)
            yield Problem(f"{place}.lists.{n}", f"there is no list {_shown(name)}{known}")
        elif uses[name] == "allow":
            yield Problem(f"{place}.lists.{n}", f"{name} is a list of exceptions, which no rule changes")


def _covers(earlier: RuleTable, later: RuleTable) -> bool:
    return (
        earlier.schedule in (None, later.schedule)
        and _holds(earlier.lists, later.lists)
        and _holds(earlier.categories, later.categories)
    )


def _holds(wide: tuple[str, ...] | None, narrow: tuple[str, ...] | None) -> bool:
    return wide is None or (narrow is not None and set(narrow) <= set(wide))


def _shown(name: str) -> str:
    """Name for a message: it may be anything, and is put on one line."""
    return name if name.isprintable() else repr(name)
