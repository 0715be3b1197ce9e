"""Policy: the action for entries found on a request, by the client that makes it: its groups, rules and
schedules.

A matcher finds entries; which of them count, and how, is decided here, by the client's group and the time. It
costs nothing until something is found: a `View` is kept for each group until a schedule changes, and each
client's group until the cache is full or the neighbours have changed.

A client is in the group that names its MAC address, else in that of the longest prefix that contains its
address. The first rule in force that fits an entry decides. Where none does, the list's own use counts,
unless a rule that is out of its schedule says the same as that use: then the entry counts in that schedule
only.

The clock on the wall decides on schedules, not the length of a span. A time that the clock skips in spring is
in no schedule that day, and one that it shows twice in autumn is in it both times.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cachetools import LRUCache

from urlward.config import Config
from urlward.config.policy import DAYS, GroupTable, RuleTable, ScheduleTable, Use
from urlward.engine.entry import canonical_network
from urlward.engine.verdict import PASS, WEIGHTS, Action, Verdict
from urlward.policy.neighbours import Neighbours

type MacOf = Callable[[str], str | None]
"""A client's address, in its usual spelling, to its MAC address in lower case with colons, where known."""


class Membership(NamedTuple):
    """Group of a client, and how it was found.

    Attributes:
        group: its index in the configuration; -1 for none.
        place: the key in the configuration that says so, or empty.
    """

    group: int
    place: str = ""


NOBODYS = Membership(-1)


class ClientGroups:
    """Groups of clients, already checked by `urlward.config.read_config`.

    Args:
        tables: from the configuration.
        mac_of: asked for a client's MAC address, where any group names one.
    """

    def __init__(self, tables: Sequence[GroupTable], mac_of: MacOf | None = None) -> None:
        self._mac_of = mac_of
        self._macs: dict[str, Membership] = {}
        self._networks: dict[tuple[int, int], dict[int, Membership]] = {}
        for index, table in enumerate(tables):
            for n, mac in enumerate(table.macs):
                self._macs[mac] = Membership(index, f"group.{index}.macs.{n}")
            for n, text in enumerate(table.networks):
                network = canonical_network(text)
                same_length = self._networks.setdefault((network.version, network.prefixlen), {})
                place = f"group.{index}.networks.{n}"
                same_length[int(network.network_address)] = Membership(index, place)
        self._lengths = sorted(self._networks, reverse=True)

    def find(self, client: str) -> Membership:
        """Find a client's group by its address; text that is no address is in none."""
        try:
            address = canonical_network(str(ip_address(client.partition("%")[0])))
        except ValueError:
            return NOBODYS
        if self._macs and self._mac_of is not None:
            mac = self._mac_of(str(address.network_address))
            if mac is not None and mac in self._macs:
                return self._macs[mac]
        number = int(address.network_address)
        for version, length in self._lengths:
            if version == address.version:
                # Bits below the prefix are cleared.
                low = address.max_prefixlen - length
                found = self._networks[version, length].get(number >> low << low)
                if found is not None:
                    return found
        return NOBODYS


LOOK_AHEAD = 9
"""Days that are searched for a change: a weekly span that one clock change skips comes a week later."""

_DAY = 24 * 60


class Schedule:
    """Schedule of rules.

    Args:
        table: from the configuration.
    """

    def __init__(self, table: ScheduleTable) -> None:
        self._zone = ZoneInfo(table.zone)
        self._days = frozenset(map(DAYS.index, table.days))
        self._begins, self._ends = table.begins, table.ends

    def holds(self, now: float) -> bool:
        """Whether it is in force at a time, seconds since 1970-01-01 UTC."""
        local = datetime.fromtimestamp(now, self._zone)
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self._begins < self._ends:
            return day in self._days and self._begins <= minute < self._ends
        # What begins on one day ends on the next.
        begun_today = day in self._days and minute >= self._begins
        return begun_today or ((day - 1) % 7 in self._days and minute < self._ends)

    def next_change(self, now: float) -> float:
        """Time when it will begin or end; where it does not within `LOOK_AHEAD` days, when to compute
        again."""
        held = self.holds(now)
        for moment in sorted(self._moments(now)):
            if moment > now and self.holds(moment) != held:
                return moment
        return now + LOOK_AHEAD * 86_400

    def _moments(self, now: float) -> Iterator[float]:
        """Times at which it may come into force, or go out of it, by the clock on the wall."""
        today = datetime.fromtimestamp(now, self._zone).replace(
            hour=0, minute=0, second=0, microsecond=0, tzinfo=None
        )
        for days in range(-1, LOOK_AHEAD + 1):
            midnight = today + timedelta(days=days)
            for minutes in (0, self._begins, self._ends % _DAY):
                local = midnight + timedelta(minutes=minutes)
                for fold in (0, 1):
                    yield local.replace(tzinfo=self._zone, fold=fold).timestamp()
            start = midnight.replace(tzinfo=UTC).timestamp()
            if self._offset(start) != self._offset(start + 86_400):
                yield self._clock_change(start, start + 86_400)

    def _clock_change(self, before: float, after: float) -> float:
        """Find the second in which the clock on the wall jumps."""
        old = self._offset(before)
        while after - before > 1:
            middle = (before + after) // 2
            if self._offset(middle) == old:
                before = middle
            else:
                after = middle
        return after

    def _offset(self, moment: float) -> timedelta | None:
        return datetime.fromtimestamp(moment, self._zone).utcoffset()


CLIENTS = 1 << 16
"""Clients whose group is kept."""

_OUTCOMES = 1 << 12
"""Pairs of list and category whose outcome is kept in a view."""


class PolicyRule(NamedTuple):
    """Rule, prepared for lookups.

    Attributes:
        number: among those of its group.
        place: its key in the configuration.
        lists: None for all.
        categories: None for all.
        action: what becomes of the entries that it fits.
        schedule: name, or empty.
    """

    number: int
    place: str
    lists: frozenset[str] | None
    categories: frozenset[str] | None
    action: Use
    schedule: str

    def fits(self, list_name: str, category: str) -> bool:
        """Whether the rule applies to entries of this list and category."""
        return (self.lists is None or list_name in self.lists) and (
            self.categories is None or category in self.categories
        )


class EntryOutcome(NamedTuple):
    """Outcome of an entry found.

    Attributes:
        action: as of a `Verdict`; ``pass`` where it does not count.
        rule: the one that says so; None where none fits, and the list's own use counts.
        only_then: whether `rule` says so because it is out of its schedule.
    """

    action: Action
    rule: PolicyRule | None = None
    only_then: bool = False


class View:
    """View of the policy for one group of clients at one time.

    Attributes:
        group: its name, or empty for clients in none.
        page: name of its block page's variant, or empty.
        rules: those in force, in order.
        resting: those whose schedule is not in force.
    """

    __slots__ = ("_categories", "_outcomes", "_uses", "group", "page", "resting", "rules")

    def __init__(
        self,
        group: str,
        page: str,
        rules: Sequence[PolicyRule],
        resting: Sequence[PolicyRule],
        uses: Mapping[str, Use],
    ) -> None:
        self.group = group
        self.page = page
        self.rules = tuple(rules)
        self.resting = tuple(resting)
        self._uses = uses
        # No category is empty: that stands for all which no rule names.
        named = (rule.categories or () for rule in (*rules, *resting))
        self._categories = frozenset(("",)).union(*named)
        self._outcomes: dict[tuple[str, str], EntryOutcome] = {}

    def decide(self, found: Sequence[Verdict]) -> Verdict:
        """Decide on one host: the verdict among those of all entries found on it.

        An exception beats a block, a block what is monitored, and among equals the most specific entry is
        named, as without a policy.
        """
        best, best_action, weight = PASS, PASS.action, 0
        for verdict in found:
            action = verdict.action
            if action != "allow":
                outcome = self._outcomes.get((verdict.list, verdict.category))
                action = (outcome or self._outcome(verdict.list, verdict.category)).action
                if action == "allow" and verdict.doubtful:
                    action = "pass"
            its_weight = WEIGHTS[action]
            if its_weight < weight:
                continue
            if its_weight > weight or (verdict.rank, verdict.entry) > (best.rank, best.entry):
                best, best_action, weight = verdict, action, its_weight
        if not weight:
            return PASS
        if best.action == best_action:
            return best
        return Verdict(best_action, best.kind, best.entry, best.category, best.list, best.rank)

    def outcome(self, verdict: Verdict) -> EntryOutcome:
        """Outcome of one entry found, whatever else is found."""
        if verdict.action == "allow":
            return EntryOutcome("allow")
        outcome = self._outcome(verdict.list, verdict.category)
        return EntryOutcome("pass") if outcome.action == "allow" and verdict.doubtful else outcome

    def uses(self, list_name: str) -> bool:
        """Whether any entry of a list could block for these clients now."""
        return "block" in self._actions(list_name)

    def watches(self, list_name: str) -> bool:
        """Whether any entry of a list could block or be monitored for these clients now."""
        return not self._actions(list_name).isdisjoint(("block", "monitor"))

    def _actions(self, list_name: str) -> set[str]:
        """All actions that a list's blocking entries can have."""
        return {self._outcome(list_name, category).action for category in self._categories}

    def _outcome(self, list_name: str, category: str) -> EntryOutcome:
        outcome = self._outcomes.get((list_name, category))
        if outcome is None:
            if len(self._outcomes) >= _OUTCOMES:
                self._outcomes.clear()
            outcome = self._outcomes[list_name, category] = self._work_out(list_name, category)
        return outcome

    def _work_out(self, list_name: str, category: str) -> EntryOutcome:
        use = self._uses.get(list_name, "block")
        if use == "allow":
            return EntryOutcome("allow")
        for rule in self.rules:
            if rule.fits(list_name, category):
                # A rule's "allow" excuses no other list's entry: the one that it fits does not count.
                return EntryOutcome("pass" if rule.action == "allow" else rule.action, rule)
        for rule in self.resting:
            # It says what the list does anyway, so it can only mean that the list does so in that schedule.
            if rule.action == use and rule.fits(list_name, category):
                return EntryOutcome("pass", rule, only_then=True)
        return EntryOutcome(use)


class _Span(NamedTuple):
    """Span of time in which a schedule is in force, or is not.

    Attributes:
        since: when that was computed.
        until: when it has to be computed anew.
        holds: whether it is in force.
    """

    since: float
    until: float
    holds: bool


class Policy:
    """Policy of a configuration: its groups, rules and schedules.

    Args:
        config: the whole file; `read_config` has checked it.
        uses: each list's own use, by name; ``block`` for those that are not named.
        neighbours: for groups that name MAC addresses.
    """

    def __init__(
        self, config: Config, uses: Mapping[str, Use] | None = None, neighbours: Neighbours | None = None
    ) -> None:
        self._uses = dict(uses or {})
        self._neighbours = neighbours
        self._groups = ClientGroups(config.group, neighbours.mac if neighbours is not None else None)
        made = {table: Schedule(table) for table in config.schedule.values()}
        self._schedules = {name: made[table] for name, table in config.schedule.items()}
        """By name; those that say the same are one, as lessons of many groups are."""
        # The last is for clients in no group, whose index is -1.
        self._kinds = [
            (table.name, table.page or "", _rules(f"group.{index}.rule", table.rule))
            for index, table in enumerate(config.group)
        ] + [("", "", _rules("rule", config.rule))]
        self._views: list[View] = []
        self._spans: dict[Schedule, _Span] = {}
        """Of each schedule, the one that was computed last."""
        self._since = self._until = 0.0
        self._clients: LRUCache[str, Membership] = LRUCache(CLIENTS)
        self._changes = 0

    @property
    def is_trivial(self) -> bool:
        """Whether every block blocks for every client at all times, so that no decision is needed."""
        return (
            len(self._kinds) == 1 and not self._kinds[0][2] and all(u == "block" for u in self._uses.values())
        )

    def view(self, client: str, now: float) -> View:
        """View for a client, by its address, at a number of seconds since 1970-01-01 UTC."""
        if not self._since <= now < self._until:
            self._turn(now)
        return self._views[self.membership(client).group]

    def membership(self, client: str) -> Membership:
        """Find the group that a client is in."""
        neighbours = self._neighbours
        if neighbours is not None and neighbours.changes != self._changes:
            self._changes = neighbours.changes
            self._clients.clear()
        found = self._clients.get(client)
        if found is None:
            found = self._clients[client] = self._groups.find(client)
        return found

    def until(self, now: float) -> float:
        """Time when the next schedule begins or ends; views have to be renewed then."""
        if not self._since <= now < self._until:
            self._turn(now)
        return self._until

    def _turn(self, now: float) -> None:
        """Compute the views of a time, of which most stay: there may be a thousand groups and schedules."""
        spans = self._spans
        for one in set(self._schedules.values()):
            if one not in spans or not spans[one].since <= now < spans[one].until:
                spans[one] = _Span(now, one.next_change(now), one.holds(now))
        before: list[View | None] = [*self._views] or [None] * len(self._kinds)
        self._views = [self._view(kind, view) for kind, view in zip(self._kinds, before, strict=True)]
        self._since, self._until = now, min((span.until for span in spans.values()), default=float("inf"))

    def _view(self, kind: tuple[str, str, tuple[PolicyRule, ...]], before: View | None) -> View:
        name, page, rules = kind
        in_force, resting = list[PolicyRule](), list[PolicyRule]()
        for rule in rules:
            holds = not rule.schedule or self._spans[self._schedules[rule.schedule]].holds
            (in_force if holds else resting).append(rule)
        if before is not None and before.rules == tuple(in_force):
            return before
        return View(name, page, in_force, resting, self._uses)


def _rules(where: str, tables: Sequence[RuleTable]) -> tuple[PolicyRule, ...]:
    return tuple(
        PolicyRule(
            index,
            f"{where}.{index}",
            None if table.lists is None else frozenset(table.lists),
            None if table.categories is None else frozenset(table.categories),
            table.action,
            table.schedule or "",
        )
        for index, table in enumerate(tables)
    )
