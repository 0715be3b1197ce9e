"""Explanations of decisions: the entry that decided for a client at a time, its rule, and other entries."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from urlward.config import Config
from urlward.config.problem import SettingError
from urlward.engine.dates import parse_moment, parse_time, time_text
from urlward.engine.errors import UrlError
from urlward.engine.matcher import Matcher
from urlward.engine.url import canonicalize
from urlward.engine.verdict import PASS, Decide, Verdict, decide
from urlward.policy.allows import NAME as ALLOWS
from urlward.policy.allows import Allow, allow_row, out_of_time
from urlward.policy.policy import Policy, PolicyRule, View

_TOO_FAR = parse_time("2200-01-01")
"""From here on no entry's date reaches, and the arithmetic of time zones ends at 9999."""

type Alike = tuple[str, int, int, bytes]
"""Name of a list, row in it (`Matcher.file_verdict`), distance, and the listed digest in plain form."""

_ON_A_HOST = ("allow", "block", "monitor", "pass")
# A block under one host of a request counts, whatever another is excused for.
_ACROSS_HOSTS = ("block", "monitor", "allow", "pass")


@dataclass(frozen=True, slots=True)
class Weighed:
    """Entry found, with its outcome under the policy.

    Attributes:
        host: that it was found on.
        verdict: as found.
        action: what it comes to: ``block``, ``monitor``, ``allow``, or ``pass`` where it does not count.
        reason: in words.
        rule: place of the rule that says so, or empty.
        schedule: that rule's, or empty.
        resting: places of rules before it that fit, out of their schedule; of all others that do so, where
            `rule` is out of its own.
    """

    host: str
    verdict: Verdict
    action: str
    reason: str
    rule: str
    schedule: str
    resting: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explanation: a decision, and the entries and rules that led to it.

    Attributes:
        verdict: the decision on all hosts together.
        client: address.
        now: seconds since 1970-01-01 UTC.
        group: its name, or empty.
        member: the key in the configuration that puts the client there, or empty.
        page: the block page's variant, or empty.
        until: when the next schedule begins or ends; None where none does.
        decided: the entry that decided; None where none counts.
        others: all others found, those that weigh most first.
        allow: the temporary one that decided; None where none did.
    """

    verdict: Verdict
    client: str
    now: float
    group: str
    member: str
    page: str
    until: float | None
    decided: Weighed | None
    others: tuple[Weighed, ...]
    allow: Allow | None = None

    def as_json(self) -> dict[str, Any]:
        """Format for ``--json``."""
        return {
            "verdict": self.verdict.action,
            "client": self.client,
            "time": time_text(self.now),
            "group": self.group,
            "member": self.member,
            "page": self.page,
            "until": None if self.until is None else time_text(self.until),
            "decided": None if self.decided is None else _json(self.decided),
            "others": [_json(one) for one in self.others],
            "allow": None if self.allow is None else allow_row(self.allow),
        }

    def as_text(self) -> str:
        """Format for people, on several lines."""
        group = f"in group {self.group} ({self.member})" if self.group else "in no group"
        lines = [
            f"{self.verdict.action} for {self.client or 'a client'}, {group}, at {time_text(self.now)}",
        ]
        if self.decided is None:
            lines.append("  nothing listed counts")
        else:
            lines.append(f"  decided by  {_text(self.decided)}")
        if self.allow is not None:
            row = allow_row(self.allow)
            lines.append(f"  allowed by  {row['who']}, until {row['until']}: {row['why']}")
        lines += [f"  not by      {_text(one)}" for one in self.others]
        if self.page:
            lines.append(f"  block page  {self.page}")
        if self.until is not None:
            lines.append(f"  until       {time_text(self.until)}, when the next schedule begins or ends")
        return "\n".join(lines)


def explain(
    policy: Policy,
    found: Sequence[tuple[str, Sequence[Verdict]]],
    client: str,
    now: float,
    passed: bool = False,
) -> Explanation:
    """Explain a decision for a client.

    Args:
        policy: in force.
        found: hosts, with the entries found on each; one again for what is decided on by itself, as another
            reading of the request is.
        client: its address.
        now: seconds since 1970-01-01 UTC.
        passed: whether nothing counts, as where an exception is on another reading than what was sent.
    """
    view = policy.view(client, now)
    weighed = [_weigh(view, host, v) for host, several in found for v in several]
    verdict, entry = PASS, None
    at = 0
    for _, several in found:
        decided, its = view.decide(several), weighed[at : (at := at + len(several))]
        if not passed and _ACROSS_HOSTS.index(decided.action) < _ACROSS_HOSTS.index(verdict.action):
            verdict = decided
            like = (one for one in its if one.action == decided.action)
            entry = max(like, key=lambda one: (one.verdict.rank, one.verdict.entry))
    # What several readings have is said once.
    others = sorted(
        (one for one in dict.fromkeys(weighed) if one != entry),
        key=lambda one: (_ON_A_HOST.index(one.action), -one.verdict.rank),
    )
    until = policy.until(now)
    return Explanation(
        verdict, client, now, view.group, policy.membership(client).place, view.page,
        None if until == float("inf") else until, entry, tuple(others),
    )  # fmt: skip


def parse_at(text: str) -> float:
    """Read the time that is asked about, as `parse_moment`.

    Raises:
        SettingError: it is none, or too far away.
    """
    try:
        moment = parse_moment(text)
    except ValueError as e:
        raise SettingError("at", f"{text!r} is {e}") from e
    if moment >= _TOO_FAR:
        raise SettingError("at", f"{text!r} is after 2199")
    return moment


def _weigh(view: View, host: str, verdict: Verdict) -> Weighed:
    action, rule, only_then = view.outcome(verdict)
    if verdict.action == "allow":
        reason = "an exception"
    elif rule is not None and only_then:
        reason = f"{rule.place} says {rule.action} in schedule {rule.schedule} only"
    elif rule is not None:
        reason = f"by {_of(rule)}"
    else:
        reason = "a list of exceptions" if action == "allow" else f"no rule fits, the list's use is {action}"
    excused = action == "allow"
    missed = () if excused else _missed(view, verdict, None if only_then else rule)
    resting = tuple(other.place for other in missed if other is not rule)
    return Weighed(
        host, verdict, action, reason, rule.place if rule else "", rule.schedule if rule else "", resting
    )


def _missed(view: View, verdict: Verdict, rule: PolicyRule | None) -> Iterator[PolicyRule]:
    """Rules that fit, but are out of their schedule: all of them, or those before another."""
    for other in view.resting:
        if other.fits(verdict.list, verdict.category) and (rule is None or other.number < rule.number):
            yield other


def _of(rule: PolicyRule) -> str:
    return f"{rule.place}, schedule {rule.schedule}" if rule.schedule else rule.place


def _json(one: Weighed) -> dict[str, Any]:
    v = one.verdict
    return {
        "host": one.host,
        "verdict": one.action,
        "kind": v.kind,
        "id": v.entry,
        "category": v.category,
        "list": v.list,
        "reason": one.reason,
        "rule": one.rule,
        "schedule": one.schedule,
        "resting": list(one.resting),
    }


def _text(one: Weighed) -> str:
    v = one.verdict
    entry = " ".join(word for word in (v.kind, v.entry, v.category) if word)
    resting = f"; {', '.join(one.resting)} fits, out of its schedule" if one.resting else ""
    return f"{one.action:7} {entry} in {v.list} on {one.host}: {one.reason}{resting}"


class Checker:
    """Checker: decides on URLs as a filter would, for one client at one time.

    Args:
        matcher: the lists.
        policy: what they mean for whom; None where the same for all.
        client: an address, or empty for a client in no group.
        now: seconds since 1970-01-01 UTC.
        allows: the temporary ones that are among the lists; those that do not last at `now` do not count.
    """

    def __init__(
        self, matcher: Matcher, policy: Policy | None, client: str, now: float, allows: Sequence[Allow] = ()
    ) -> None:
        self._matcher = matcher
        self._policy = policy
        self._client = client
        self._now = now
        self._allows = allows
        self._out_of_time = out_of_time(allows, now)
        view: Decide = decide if policy is None else policy.view(client, now).decide
        self._decide: Decide = lambda verdicts: view(self._in_time(verdicts))

    def check(self, url: str) -> dict[str, Any]:
        """Check a URL; the result has the names of ``--json``, with ``error`` for a text that is no URL."""
        found = {"url": url, "canonical": "", "verdict": "error"}
        try:
            raw = url.encode(errors="surrogateescape")  # the bytes as they were given
            found["canonical"] = str(canonicalize(raw))
            verdict = self._matcher.check_url(raw, self._now, self._decide)
        except UrlError as e:
            found["error"] = str(e)
            return found
        found["verdict"] = verdict.action
        if verdict.action != "pass":
            found.update(kind=verdict.kind, id=verdict.entry, category=verdict.category, list=verdict.list)
        return found

    def check_file(self, digests: Mapping[str, bytes], alike: Sequence[Alike] = ()) -> dict[str, Any]:
        """Check a file; the result has the names of ``--json``, but for the file's own.

        Args:
            digests: of the file, by algorithm.
            alike: listed pictures that its own are like.
        """
        found = [(self._matcher.check_file(digests, self._now, self._decide), digests, 0)]
        for list_name, row, distance, digest in alike:
            near = self._matcher.file_verdict(list_name, row, self._now, self._decide, distance=distance)
            found.append((near, {near.algorithm: digest}, distance))
        verdict, of, distance = min(found, key=lambda one: _ACROSS_HOSTS.index(one[0].action))
        said: dict[str, Any] = {"verdict": verdict.action}
        if verdict.action != "pass":
            algorithm = verdict.algorithm
            said.update(
                kind=verdict.kind, algorithm=algorithm, digest=of[algorithm].hex(), id=verdict.entry,
                category=verdict.category, list=verdict.list,
            )  # fmt: skip
            if of is not digests:
                said["distance"] = distance
        return said

    def explain_file(self, digests: Mapping[str, bytes], alike: Sequence[Alike] = ()) -> Explanation:
        """Explain the decision of `check_file`; digests are in the place of hosts."""
        found: list[tuple[str, list[Verdict]]] = []

        def note(verdicts: list[Verdict]) -> Verdict:
            in_time = self._in_time(verdicts)
            found.append((verdicts[0].algorithm, in_time))
            return decide(in_time)._replace(action="pass")  # so that the others are looked up too

        self._matcher.check_file(digests, self._now, note)
        for list_name, row, distance, _ in alike:
            self._matcher.file_verdict(list_name, row, self._now, note, distance=distance)
        return explain(self._policy or Policy(Config()), found, self._client, self._now)

    def explain(self, url: str) -> tuple[Explanation, bool]:
        """Explain the decision on a URL, and whether its host is protected.

        Raises:
            UrlError: not a URL.
        """
        raw = url.encode(errors="surrogateescape")
        host = canonicalize(raw).host
        found: list[tuple[str, list[Verdict]]] = []

        def note(verdicts: list[Verdict]) -> Verdict:
            found.append((host, self._in_time(verdicts)))
            return self._decide(verdicts)

        passed = self._matcher.check_url(raw, self._now, note) is PASS
        policy = self._policy or Policy(Config())
        made = explain(policy, found, self._client, self._now, passed)
        decided = made.decided.verdict if made.decided is not None else PASS
        by = (one for one in self._allows if (decided.list, decided.entry) == (ALLOWS, one.id))
        return replace(made, allow=next(by, None)), self._matcher.protects(host)

    def _in_time(self, verdicts: list[Verdict]) -> list[Verdict]:
        return [one for one in verdicts if one.list != ALLOWS or one.entry not in self._out_of_time]
