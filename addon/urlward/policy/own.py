"""Own entries: what an operator blocks or allows by hand, one by one, with a note and the operator's name.

``own.json`` in the state folder has them. The entry itself, a line of the grammar, is in it sealed under the
local key, so that the file names nothing that is listed; the audit log has an entry's id and a keyed digest.
They form the list ``own-entries``, which is compiled as any other, in a process that ends with it
(`urlward.feeds.own`).
"""

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, NamedTuple

from urlward.engine.dates import parse_time, time_text
from urlward.engine.digest import Key
from urlward.engine.entry import Entry, Kind
from urlward.engine.errors import ArtifactError, EntryError, UrlwardError
from urlward.engine.grammar import names_in_fragment, parse_line
from urlward.engine.hosts import labels_before_suffix
from urlward.engine.telling import tells_digest
from urlward.engine.url import is_address
from urlward.policy.allows import allowed_by, check_readings
from urlward.policy.reasons import names, reason_of
from urlward.state.audit import append, append_in_lock
from urlward.state.folder import (
    KeptFile,
    check_times,
    locked,
    made_folder,
)

NAME = "own-entries"
"""Name of the list that they form."""

FILE = "own.json"

Meant = Literal["entry", "page", "below", "host"]
"""What a text stands for: a line of the grammar; or of a URL that page, all at and below its folder, or its
host with the subdomains."""

MOST = 100_000
"""Own entries: more of them are a list, which has a file or a URL."""

MOST_LEARNED = MOST // 2
"""Those of them that the filter learned: whoever has it learn many keeps nobody from adding one."""

LEARNED = "known files"
"""Who has added the entries that the filter learned (`urlward.feeds.learn`): the name of no person, which has
a user's number or the dashboard behind it."""

_OVER = "its last day is over"
_DAY = 86_400

_WIDEST = {4: 24, 6: 48}
"""Length of the prefix, by IP version, from which on a network is one that one site may have."""

_CATEGORY = re.compile(r"[A-Za-z0-9._\-]{1,64}").fullmatch


@dataclass(frozen=True, slots=True)
class OwnEntry:
    """Own entry.

    Attributes:
        id: also the entry's in verdicts.
        created: seconds since 1970-01-01 UTC.
        who: added it.
        action: ``block`` or ``allow``.
        kind: of the entry, as verdicts have it.
        category: or empty.
        note: the operator's words, or empty.
        expires: last day in force, such as ``2027-01-31``; empty for none.
        digest: of the entry, keyed, in hexadecimal.
        sealed: the entry, under the local key.
    """

    id: str
    created: int
    who: str
    action: str
    kind: str
    category: str
    note: str
    expires: str
    digest: str
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Draft:
    """Entry that is about to be added.

    Attributes:
        line: in the grammar, without id, category and expiry.
        entry: that it stands for.
        category, note, expires: as of `OwnEntry`.
    """

    line: str = field(repr=False)
    entry: Entry = field(repr=False)
    category: str = ""
    note: str = ""
    expires: str = ""


def draft(
    text: str,
    meant: Meant = "entry",
    *,
    allow: bool = False,
    category: str = "",
    note: str = "",
    expires: str = "",
) -> Draft:
    """Make an entry of what an operator has typed.

    Args:
        text: a line of the grammar, or a URL.
        meant: which, and what of the URL.
        allow: whether it is excused; a line of the grammar may say so itself, with ``@@``.
        category: or empty.
        note: one line of words that does not name the host, or empty.
        expires: last day in force, or empty.

    Raises:
        UrlwardError: there is no such entry, or a value is not as above.
    """
    category, note, expires = category.strip().lower(), note.strip(), expires.strip()
    if meant in ("entry", "page") and not allow and names_in_fragment(text):
        raise UrlwardError(
            "no request has what is behind #: an entry would block the page in front, and all that it shows;"
            " to do that, leave # and the rest out"
        )
    line = _line_of(text.strip(), meant, allow=allow)
    if allow and not line.startswith("@@"):
        line = f"@@{line}"
    try:
        entries = parse_line(line)
    except EntryError as e:
        hint = f" ({e.hint})" if e.hint else ""
        raise UrlwardError(f"not an entry: {e.reason}{hint}") from e
    if len(entries) != 1:
        raise UrlwardError("not one entry: give one line of the list grammar, with one host")
    entry = entries[0]
    if entry.id or entry.category or entry.expires:
        raise UrlwardError(
            "id, category and expires are not written in the entry: they have fields of their own"
        )
    if category and not _CATEGORY(category):
        raise UrlwardError("category: 1 to 64 letters, digits, or ._-")
    if expires:
        try:
            date.fromisoformat(expires)
        except ValueError as e:
            raise UrlwardError("expires: a date such as 2027-01-31") from e
    if note:
        note = reason_of(note)
        if entry.kind is Kind.FILE and tells_digest(note, entry.path):
            raise UrlwardError("note: has a digest in it, and is kept as it is: say it without")
        if entry.kind is not Kind.FILE and names(entry.host, note):
            raise UrlwardError("note: names the host, and is kept as it is: say it without")
    return Draft(line, entry, category, note, expires)


def _line_of(text: str, meant: Meant, *, allow: bool) -> str:
    if meant == "entry":
        return text
    made = allowed_by(text, whole_host=meant == "host", folder=meant == "below")
    if allow and meant == "page":
        check_readings(made, text)
    return made.line.removeprefix("@@")


def warnings_of(made: Draft, protects: Callable[[str], bool]) -> list[str]:
    """Reasons to look twice before an entry is added: it blocks more than is usually meant.

    Args:
        made: the entry.
        protects: whether a host is one of those that feeds cannot block whole.
    """
    entry = made.entry
    if entry.allow:
        return []
    found, host = [], entry.host
    if is_of_addresses := entry.kind in (Kind.ADDRESS, Kind.NETWORK):
        network = ip_network(entry.host)
        host = f"[{network[0]}]" if network.version == 6 else str(network[0])
        if network.prefixlen < _WIDEST[network.version]:
            found.append(f"wide: it blocks {network.num_addresses} addresses")
    if entry.kind is Kind.NAME:
        found.append("wide: it blocks the name under every public suffix")
    if entry.kind is Kind.PATH:
        found.append("wide: it blocks the path on every host")
    of_host = entry.kind in (Kind.DOMAIN, Kind.HOST)
    if of_host and not is_address(entry.host) and not labels_before_suffix(entry.host):
        found.append("wide: it blocks a public suffix, with all names under it")
    of_all_pages = entry.kind is Kind.PREFIX and entry.path == "/"
    if of_all_pages:
        found.append("wide: it blocks all pages of the host")
    if (of_host or of_all_pages or is_of_addresses) and protects(host):
        found.append("protected: the host is one that no feed can block whole")
    return found


def add_own(state: Path, key: Key, made: Draft, who: str, *, now: float) -> OwnEntry:
    """Add an entry; it is in force once the list is compiled (`urlward.feeds.own`).

    Args:
        state: the state folder.
        key: its local key.
        made: of `draft`.
        who: adds it.
        now: seconds since 1970-01-01 UTC.

    Raises:
        UrlwardError: it is there already, its last day is over, or there are too many.
        StateError: the folder cannot be used.
    """
    with locked(made_folder(state)):
        kept = own_entries(state)
        added = _made(made, {one.digest: one for one in kept}, key, who, now)
        if _is_over(added, now):
            raise UrlwardError(f"expires: {added.expires} is over: it would never be in force")
        # Told first: whatever fails between the two, nothing is in force that the record does not have.
        tell_own(state, now, who, "own-added", added)
        KEPT.write(state, [*kept, added])
    return added


def same_own(state: Path, key: Key, made: Draft) -> OwnEntry | None:
    """The entry that there is already, and differs in nothing; raises as `own_entries`."""
    digest = _digest(made.entry, key)
    for one in own_entries(state):
        if one.digest == digest:
            kept = parse_line(line_of(one, key))[0]
            said = (one.category, one.note, one.expires, kept.distance)
            return one if said == (made.category, made.note, made.expires, made.entry.distance) else None
    return None


class Learned(NamedTuple):
    """Outcome of `learn_own`.

    Attributes:
        added: entries that are new.
        changed: whether any was added, or removed because it is over.
        left: drafts for which there was no room.
    """

    added: list[OwnEntry]
    changed: bool
    left: int


def learn_own(
    state: Path, key: Key, drafts: Iterable[Draft], most: int, *, now: float, over: float | None = None
) -> Learned:
    """Add entries that the filter has learned, and remove those of them that are over. What is there already
    stays as it is.

    Args:
        state: the state folder.
        key: its local key.
        drafts: of `draft`, each with a last day.
        most: of them that are added within a day.
        now: seconds since 1970-01-01 UTC.
        over: the time by which they are over, where that is another.

    Raises:
        UrlwardError: the entries cannot be read.
        StateError: the folder cannot be used.
    """
    with locked(made_folder(state)):
        before = own_entries(state)
        ends = now if over is None else over
        gone = {one.id for one in before if one.who == LEARNED and _is_over(one, ends)}
        kept = [one for one in before if one.id not in gone]
        known = {one.digest: one for one in kept}
        learned = [one.created for one in kept if one.who == LEARNED]
        room = min(most - sum(created > now - _DAY for created in learned), MOST_LEARNED - len(learned))
        added, left = list[OwnEntry](), 0
        for made in drafts:
            if _digest(made.entry, key) in known:
                continue
            if len(added) >= room or len(known) >= MOST:
                left += 1
                continue
            one = _made(made, known, key, LEARNED, now)
            known[one.digest] = one
            added.append(one)
        for one in before:
            if one.id in gone:
                tell_own(state, now, LEARNED, "own-removed", one, why=_OVER)
        for one in added:
            tell_own(state, now, LEARNED, "own-added", one)
        if added or gone:
            KEPT.write(state, [*kept, *added])
    return Learned(added, bool(added or gone), left)


def _is_over(entry: OwnEntry, now: float) -> bool:
    return bool(entry.expires) and parse_time(entry.expires, whole_day=True) <= now


def _made(made: Draft, known: Mapping[str, OwnEntry], key: Key, who: str, now: float) -> OwnEntry:
    """Make an entry beside others, which are known by their digests.

    Raises:
        UrlwardError: it is there already, or there are too many.
    """
    entry = made.entry
    digest = _digest(entry, key)
    if (same := known.get(digest)) is not None:
        raise UrlwardError(f"it is there already: {same.id}")
    if len(known) >= MOST:
        raise UrlwardError(f"there are {MOST} own entries: make a list of them")
    ids = {one.id for one in known.values()}
    # So long that nodes of a fleet do not give the same to two entries.
    id_ = next(one for one in iter(lambda: f"o-{secrets.token_hex(6)}", "") if one not in ids)
    line = f"{made.line} id={id_}"
    line += f" category={made.category}" if made.category else ""
    line += f" expires={made.expires}" if made.expires else ""
    if parse_line(line)[0].id != id_:
        raise UrlwardError("not an entry: it has a comment; say it as a note")
    return OwnEntry(
        id_, int(now), who, "allow" if entry.allow else "block", entry.kind.label, made.category,
        made.note, made.expires, digest, key.seal(line.encode()),
    )  # fmt: skip


def remove_own(state: Path, id_: str, why: str, who: str, *, now: float) -> OwnEntry:
    """Remove an entry; it is out of force once the list is compiled.

    Raises:
        UrlwardError: there is none of that id, or `why` is not one line of words.
        StateError: the folder cannot be used.
    """
    why = reason_of(why)
    with locked(made_folder(state)):
        kept = own_entries(state)
        removed = _found(kept, id_)
        tell_own(state, now, who, "own-removed", removed, why=why)
        KEPT.write(state, [one for one in kept if one is not removed])
    return removed


def reveal_own(state: Path, key: Key, id_: str, who: str, *, now: float) -> str:
    """The line of an entry, once the audit log has who asked for it.

    Raises:
        UrlwardError: there is none of that id, or it does not open under the key.
        StateError: the folder cannot be used.
    """
    found = _found(own_entries(state), id_)
    append(state, who, "own-revealed", now, id=id_)
    return line_of(found, key)


def line_of(entry: OwnEntry, key: Key) -> str:
    """The line that an entry was sealed as.

    Raises:
        UrlwardError: it does not open under the key.
    """
    try:
        return key.unseal(entry.sealed).decode()
    except ArtifactError as e:
        raise UrlwardError(
            f"own entry {entry.id} does not open under the local key: remove it, and add it anew"
        ) from e


def own_entries(state: Path) -> list[OwnEntry]:
    """All own entries, in the order of adding; changes nothing.

    Raises:
        UrlwardError: they are of another version.
        StateError: they cannot be read.
    """
    return KEPT.read(state)


def own_row(entry: OwnEntry) -> dict[str, str]:
    """Format an entry as a JSON object, without what it names."""
    return {
        "id": entry.id,
        "action": entry.action,
        "kind": entry.kind,
        "category": entry.category,
        "note": entry.note,
        "expires": entry.expires,
        "created": time_text(entry.created),
        "who": entry.who,
    }


def own_of(content: Mapping[str, Any], key: Key) -> OwnEntry:
    """This node's entry of what another's says (`KeptFile.opened`).

    Raises:
        ValueError, KeyError, TypeError: it says something else.
        UrlwardError: likewise.
    """
    fields = dict(content)
    line = fields.pop("entry")
    entry = parse_line(line)[0]
    made = _checked(OwnEntry(**fields, digest=_digest(entry, key), sealed=key.seal(line.encode())))
    if entry.id != made.id:
        raise ValueError("not the entry of that id")
    return made


def _digest(entry: Entry, key: Key) -> str:
    """Tells an entry from others, whatever its id, category, last day and distance."""
    plain = entry._replace(params=frozenset(), id="", category="", expires=0)
    # As it has been written since before there were distances: what is kept has such a digest.
    said = ", ".join(f"{name}={value!r}" for name, value in plain._asdict().items() if name != "distance")
    return key.digest(f"oEntry({said}){sorted(entry.params)}").hex()


def _found(kept: list[OwnEntry], id_: str) -> OwnEntry:
    for one in kept:
        if one.id == id_:
            return one
    raise UrlwardError(f"no own entry {id_!r}")


def _checked(entry: OwnEntry) -> OwnEntry:
    check_times(entry.created)
    return entry


KEPT = KeptFile(
    FILE, "entries", OwnEntry, _checked,
    "what was compiled of it is in force until an entry is added: add anew what is still needed",
    sealed_as="entry",
)  # fmt: skip


def tell_own(state: Path, now: float, who: str, action: str, entry: OwnEntry, **more: str) -> None:
    """Add a line on an entry to the audit log; the folder is locked.

    Raises:
        StateError: not writable.
    """
    append_in_lock(
        state, who, action, now, id=entry.id, does=entry.action, kind=entry.kind, category=entry.category,
        expires=entry.expires, note=entry.note, entry=entry.digest, **more,
    )  # fmt: skip
