"""Temporary allows: pages and hosts that an operator allows for a while, with the reason and the operator.

``allows.json`` in the state folder has them while they last. The URL is in it as an entry of the grammar
sealed under the local key, so that the file names nothing that is listed. The audit log
(`urlward.state.audit`) has a line for each that was allowed, was ended, or has expired, with a keyed digest
of the URL in place of the URL.

In force they are one more list (`compile_allows`), which `urlward.lists.allows` keeps up to date.
"""

import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, NamedTuple

from urlward.engine.artifact import dump
from urlward.engine.compiler import Compiler
from urlward.engine.dates import time_text
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError, EntryError, UrlError, UrlwardError
from urlward.engine.grammar import parse_line
from urlward.engine.readings import target_readings
from urlward.engine.url import (
    DEFAULT_PORTS,
    CanonicalUrl,
    canonicalize,
    is_address,
    query_parameters,
    request_parameters,
    split_authority,
    split_url,
)
from urlward.policy.reasons import names, reason_of
from urlward.state.audit import append_in_lock
from urlward.state.folder import (
    KeptFile,
    check_times,
    locked,
    made_folder,
)

Kind = Literal["page", "host"]


class Allowed(NamedTuple):
    """Entry that allows a URL.

    Attributes:
        canonical: the URL's canonical form.
        kind: ``page``, also for a folder, or ``host`` for a host and its subdomains.
        line: the entry, in the grammar.
    """

    canonical: CanonicalUrl
    kind: Kind
    line: str

    def is_named_in(self, words: str) -> bool:
        """Whether words contain the host; one without a dot may be a word like any other."""
        return names(self.canonical.host, words)


def allowed_by(url: str, *, whole_host: bool = False, folder: bool = False) -> Allowed:
    """Make the entry for a URL: that page, with its query's parameters where it has some; a host alone, with
    a port or without, is the host and its subdomains.

    Args:
        url: as typed.
        whole_host: whether a URL stands for its host.
        folder: whether it stands for its folder, and all below that.

    Raises:
        UrlwardError: it has no canonical form, or cannot be an entry.
    """
    try:
        raw = url.encode(errors="surrogateescape")
        scheme, authority, target = split_url(raw)
        port = split_authority(authority)[1]
        canonical = canonicalize(raw)
    except UrlError as e:
        raise UrlwardError(f"not a URL or host: {e}") from e
    if not scheme and target and _is_network(canonical.host, target):
        raise UrlwardError(
            "a network; what is allowed is a page or a host: give one address, or http:// before it"
        )
    kind: Kind = "host" if whole_host or not (scheme or target or folder) else "page"
    line = _host_line(canonical.host) if kind == "host" else _page_line(canonical, folder=folder)
    if port is not None and port != DEFAULT_PORTS.get(scheme):
        line += f" port={port}"
    try:
        parse_line(line)
    except EntryError as e:
        raise UrlwardError(f"cannot be an entry: {e.reason}") from e
    return Allowed(canonical, kind, line)


def check_readings(made: Allowed, url: str) -> None:
    """Refuse to allow a page that common servers take for several: what any of them does stays blocked.

    Args:
        made: of the URL.
        url: as typed.

    Raises:
        UrlwardError: it is one.
    """
    target = split_url(url.encode(errors="surrogateescape"))[2].partition("#")[0]
    _, path, query, _ = made.canonical
    asked = query_parameters(query)
    for reading in target_readings(target or "/") if made.kind == "page" else ():
        # What is shorter, or spelt otherwise, is allowed with what is sent.
        if not (reading.shorter or reading.respelled) and (
            reading.path != path or not asked <= request_parameters(reading.query)
        ):
            raise UrlwardError(
                "servers take this URL for more than one page, so that it would still be blocked: "
                "give it as the browser shows it once the page is open"
            )


def _is_network(host: str, target: str) -> bool:
    """Whether the text after an address is the length of a prefix, or a mask."""
    try:
        ip_network(host.strip("[]") + target, strict=False)
    except ValueError:
        return False
    return True


def _host_line(host: str) -> str:
    if "." not in host and not is_address(host):
        raise UrlwardError("a name without a dot, all of a top-level domain: give a page, or a host under it")
    return f"@@{host}"


def _page_line(canonical: CanonicalUrl, *, folder: bool) -> str:
    host, path, query, _ = canonical
    if folder:
        path, query = path[: path.rfind("/") + 1], ""
    line = f"@@http://{host}{path}?{query}" if query else f"@@http://{host}{path}"
    # These have a meaning in the grammar; escaped they are the same URL.
    line = line.replace("*", "%2A").replace('"', "%22")
    return f"{line}*" if folder else line


logger = logging.getLogger("urlward.lists")

NAME = "allows"
"""Name of the list that they form."""

_DURATION = re.compile(r"([1-9][0-9]{0,5})([mhd])").fullmatch
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}
LONGEST = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Allow:
    """Temporary allow.

    Attributes:
        id: also the entry's.
        created: seconds since 1970-01-01 UTC, as is `until`.
        until: in force before this time.
        why: the operator's words.
        who: made it.
        kind: ``page``, or ``host`` for a host and its subdomains.
        digest: of the canonical URL, keyed, in hexadecimal.
        sealed: the entry, under the local key.
    """

    id: str
    created: int
    until: int
    why: str
    who: str
    kind: Kind
    digest: str
    sealed: bytes = field(repr=False)


def add_allow(
    state: Path, key: Key, url: str, seconds: int, why: str, who: str, *, whole_host: bool, now: float
) -> Allow:
    """Allow a page (a URL), or a host and its subdomains (a host alone), for a while.

    Args:
        state: the state folder.
        key: its local key.
        url: a URL excuses that page, with its query's parameters where it has some; a host alone, with a port
            or without, itself and its subdomains.
        seconds: how long, at most `LONGEST`.
        why: one line of words, which may not name the host, since they are kept as they are.
        who: makes it.
        whole_host: whether a URL stands for its host.
        now: seconds since 1970-01-01 UTC.

    Raises:
        UrlwardError: there is no such entry, or a value is not as above.
        StateError: the folder cannot be used.
    """
    if not 0 < seconds <= LONGEST:
        raise UrlwardError(f"at most {LONGEST // 86_400} days, and not none")
    meant = allowed_by(url, whole_host=whole_host)
    why = reason_of(why)
    if meant.is_named_in(why):
        raise UrlwardError("why: names the host, and is kept as it is: say it without")
    check_readings(meant, url)
    id_ = f"a-{secrets.token_hex(4)}"
    digest = key.digest(f"u{meant.canonical}").hex()
    sealed = key.seal(f"{meant.line} id={id_}".encode("latin-1"))
    allow = Allow(id_, int(now), int(now) + seconds, why, who, meant.kind, digest, sealed)
    with locked(made_folder(state)):
        kept = _without_expired(state, now)
        # Told first: whatever fails between the two, nothing is in force that the record does not have.
        tell_allow(state, now, who, "allowed", allow)
        KEPT.write(state, [*kept, allow])
    return allow


def end_allow(state: Path, id_: str, why: str, who: str, *, now: float) -> Allow:
    """End an allow before its time.

    Raises:
        UrlwardError: there is none of that id, or `why` is not one line of words.
        StateError: the folder cannot be used.
    """
    why = reason_of(why)
    with locked(state):
        kept = _without_expired(state, now)
        ended = next((allow for allow in kept if allow.id == id_), None)
        if ended is None:
            raise UrlwardError(f"no allow {id_!r} is in force")
        tell_allow(state, now, who, "ended", ended, why)
        KEPT.write(state, [allow for allow in kept if allow is not ended])
    return ended


def current_allows(state: Path, now: float) -> tuple[Allow, ...]:
    """Allows in force, in the order of making; changes nothing.

    Raises:
        UrlwardError: the record of them is damaged.
        StateError: it cannot be read.
    """
    return tuple(allow for allow in KEPT.read(state) if now < allow.until)


def expire_allows(state: Path, now: float) -> int:
    """Delete expired allows from the record, each with one line in the audit log; returns how many.

    Raises:
        UrlwardError: the record of them is damaged.
        StateError: the folder cannot be used.
    """
    if all(now < allow.until for allow in KEPT.read(state)):
        return 0
    with locked(state):
        before = len(KEPT.read(state))
        return before - len(_without_expired(state, now))


def compile_allows(allows: Iterable[Allow], key: Key, now: float) -> bytes | None:
    """Compile the allows in force into an artifact, to be loaded under the same key; None where there are
    none. Call it in a process that ends soon.

    One that does not open under the key excuses nothing, and the log says so.
    """
    compiler = Compiler(key)
    for allow in allows:
        if now < allow.until:
            try:
                line = key.unseal(allow.sealed).decode("latin-1")
                compiler.add(parse_line(line)[0])
            except (ArtifactError, EntryError, IndexError):
                logger.error("allow %s does not open under the local key, and is not in force", allow.id)
    if not len(compiler):
        return None
    return dump(compiler.finish(), key, name=NAME, serial=int(now), created=int(now))


def out_of_time(allows: Iterable[Allow], at: float) -> frozenset[str]:
    """Ids of allows that do not count at a time: it is before or after them, and no other of the same page or
    host covers it."""
    every = list(allows)
    covered = {(one.kind, one.digest) for one in every if one.created <= at < one.until}
    return frozenset(one.id for one in every if (one.kind, one.digest) not in covered)


def next_end(allows: Iterable[Allow], now: float) -> float | None:
    """End of the first allow to end; None where none is in force."""
    return min((allow.until for allow in allows if now < allow.until), default=None)


def _without_expired(state: Path, now: float) -> list[Allow]:
    """Allows in force, once the expired ones are in the audit log and deleted; the folder is locked."""
    allows = KEPT.read(state)
    kept = [allow for allow in allows if now < allow.until]
    for allow in allows:
        if now >= allow.until:
            tell_allow(state, now, "", "expired", allow)
    if len(kept) < len(allows):
        KEPT.write(state, kept)
    return kept


def _checked(allow: Allow) -> Allow:
    check_times(allow.created, allow.until)
    if allow.until - allow.created > LONGEST:
        raise ValueError("longer than an allow lasts")
    return allow


KEPT = KeptFile(
    "allows.json", "allows", Allow, _checked,
    "nothing is excused for a while: allow anew what is still needed", sealed_as="entry", encoding="latin-1",
)  # fmt: skip
"""All that are kept, also expired ones."""


def tell_allow(
    state: Path,
    now: float,
    who: str,
    action: Literal["allowed", "ended", "expired"],
    allow: Allow,
    why: str = "",
    **more: str,
) -> None:
    """Add a line on an allow to the audit log; the folder is locked.

    Raises:
        StateError: not writable.
    """
    append_in_lock(
        state, who, action, now, id=allow.id, kind=allow.kind, until=time_text(allow.until),
        why=why or allow.why, url=allow.digest, **more,
    )  # fmt: skip


def allow_of(content: Mapping[str, Any], key: Key) -> Allow:
    """This node's allow of what another's says (`KeptFile.opened`).

    Raises:
        ValueError, KeyError, TypeError: it says something else.
        UrlwardError: likewise.
    """
    fields = dict(content)
    line = fields.pop("entry")
    entry = parse_line(line)[0]
    url = line.removeprefix("@@").split()[0]
    made = _checked(
        Allow(
            **fields,
            digest=key.digest(f"u{canonicalize(url)}").hex(),
            sealed=key.seal(line.encode("latin-1")),
        )
    )
    if not entry.allow or entry.id != made.id:
        raise ValueError("not an allow")
    return made


def allow_row(allow: Allow) -> dict[str, str]:
    """Format an allow as a JSON object."""
    return {
        "id": allow.id,
        "kind": allow.kind,
        "created": time_text(allow.created),
        "until": time_text(allow.until),
        "who": allow.who,
        "why": allow.why,
    }


def duration(text: str) -> int:
    """Parse seconds of ``30m``, ``2h`` or ``3d``.

    Raises:
        UrlwardError: none of these, or longer than 30 days.
    """
    match = _DURATION(text)
    if match is None:
        raise UrlwardError(f"for: {text!r} is not a time such as 30m, 2h or 3d")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > LONGEST:
        raise UrlwardError(f"for: {text} is longer than {LONGEST // 86_400}d")
    return seconds
