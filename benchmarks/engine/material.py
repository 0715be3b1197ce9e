"""The files that engines and requests are read from, made once for all engines.

Every engine reads its list in its own syntax from a file, so that neither the translation's time nor
its garbage counts as the engine's.
"""

import random
from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from benchmarks.engine.plan import Plan
from benchmarks.engine.translate import adblock_rule, expression, literal, literal_address, parameter
from benchmarks.workload import Workload

from urlward.engine.entry import Entry, Kind
from urlward.engine.grammar import parse_line

Request = tuple[str, str]
"""Host and target."""

_HOST_LEVEL = frozenset({Kind.NETWORK, Kind.ADDRESS, Kind.NAME, Kind.DOMAIN, Kind.HOST})


class Files(NamedTuple):
    """Where the material of one size lies."""

    directory: Path

    @property
    def lines(self) -> Path:
        """The list grammar, for urlward."""
        return self.directory / "lines.txt"

    @property
    def rules(self) -> Path:
        """AdBlock syntax."""
        return self.directory / "rules.txt"

    @property
    def literals(self) -> Path:
        """A literal a line; behind tabs, the parameters of which one must be there."""
        return self.directory / "literals.tsv"

    @property
    def expressions(self) -> Path:
        """Safe Browsing expressions."""
        return self.directory / "expressions.txt"

    def requests(self, series: str) -> Path:
        """A series of requests: kind of the entry that lists it, host and target."""
        return self.directory / f"{series}.tsv"


def files(work: Path, size: int) -> Files:
    return Files(work / str(size))


def read_requests(path: Path) -> list[Request]:
    return [(host, target) for _, host, target in read_labelled(path)]


def read_labelled(path: Path) -> list[tuple[str, str, str]]:
    rows = (line.split("\t") for line in path.read_text().split("\n"))
    return [(kind, host, target) for kind, host, target in rows]


def prepare_common(work: Path, plan: Plan, listed: set[str]) -> None:
    """Requests that are the same for every size, since no list has anything on their hosts."""
    workload = Workload(2)
    # Two invented names may be the same by chance; some requests more make up for those left out.
    spare = plan.hosts // 100
    requests = workload.requests(plan.rounds * (plan.miss + plan.miss // 100), plan.hosts + spare)
    misses = [request for request in requests if not _under(request[0], listed)][: plan.rounds * plan.miss]
    hosts = sorted({host for host, _ in misses})
    _write(work / "miss.tsv", misses)
    _write(work / "warm.tsv", [(host, workload.path()) for host in hosts])
    fresh = Workload(3)
    names = (fresh.host() for _ in range(plan.rounds * plan.first + spare))
    firsts = [(host, fresh.path()) for host in names if not _under(host, listed)][: plan.rounds * plan.first]
    _write(work / "first.tsv", firsts)


def prepare(work: Path, size: int, plan: Plan) -> set[str]:
    """A list of that size in every syntax, and the requests that hit and nearly hit it.

    Returns:
        The hosts and names that something is listed of.
    """
    target = files(work, size)
    target.directory.mkdir(parents=True)
    lines = list(Workload(size).entries(size))
    target.lines.write_text("\n".join(lines))
    entries = [entry for line in lines for entry in parse_line(line)]
    del lines
    target.rules.write_text("\n".join(map(adblock_rule, entries)))
    target.expressions.write_text("\n".join(filter(None, map(expression, entries))))
    target.literals.write_text("\n".join(_literals(entries)))
    maker = RequestMaker(size)
    hits = random.Random(size).choices(entries, k=plan.rounds * plan.hit)
    kinds = [e.kind.name.lower() for e in hits]
    firsts = [maker.hit(e) for e in hits]
    _write(target.requests("hit_first"), firsts, kinds)
    later = [(host, maker.hit(e)[1]) for e, (host, _) in zip(hits, firsts, strict=True)]
    _write(target.requests("hit"), later, kinds)
    near = maker.near(entries, plan.rounds * plan.near)
    _write(target.requests("near_warm"), [(host, maker.workload.path()) for host, _ in near])
    _write(target.requests("near"), near)
    spellable = [e for e in hits if e.kind in (Kind.DOMAIN, Kind.HOST, Kind.PAGE, Kind.PREFIX)]
    respelled = random.Random(size).choices(spellable, k=plan.respelled)
    _write(target.requests("respelled"), map(maker.respelled, respelled))
    return {entry.host for entry in entries}


class RequestMaker:
    """Requests made from entries."""

    def __init__(self, seed: int) -> None:
        self.workload = Workload(seed + 1)
        self._random = random.Random(seed)

    def hit(self, entry: Entry) -> Request:
        """A request that the entry lists, as any client would spell it."""
        r, path = self._random, self.workload.path()
        kind, host = entry.kind, entry.host
        if kind is Kind.DOMAIN:
            return r.choice(("", "", "", "www.", f"{self.workload.words(1)[0]}.")) + host, path
        if kind is Kind.HOST:
            return host, path
        if kind is Kind.NAME:
            sub = f"{self.workload.words(1)[0]}." if r.random() < 0.3 else ""
            return f"{sub}{host}.{r.choice(('test', 'example', 'invalid'))}", path
        if kind is Kind.PATH:
            above = f"/{self.workload.words(1)[0]}" if r.random() < 0.3 else ""
            return self.workload.host(), f"{above}{entry.path[:-1]}{path}"
        if kind is Kind.ADDRESS:
            return literal_address(entry), path
        if r.random() < 0.2:
            host = f"www.{host}"
        if kind is Kind.PREFIX:
            return host, f"{entry.path[:-1]}{path}"
        if kind is Kind.PAGE:
            return host, entry.path + (f"?{self.workload.query()}" if r.random() < 0.3 else "")
        before = f"{self.workload.query()}&" if r.random() < 0.3 else ""
        after = f"&{self.workload.query()}" if r.random() < 0.3 else ""
        return host, f"{entry.path}?{before}{parameter(entry)}{after}"

    def near(self, entries: Sequence[Entry], count: int) -> list[Request]:
        """Requests for unlisted pages of hosts of which other pages are listed."""
        listed = {entry.host for entry in entries if entry.kind in _HOST_LEVEL}
        pages = [e.host for e in entries if e.kind not in _HOST_LEVEL and e.host]
        hosts = [host for host in pages if not _under(host, listed)]
        # No word of the vocabulary has an h, so no page or prefix begins like these.
        return [(self._random.choice(hosts), f"/h{self.workload.path()[1:]}") for _ in range(count)]

    def respelled(self, entry: Entry) -> Request:
        """A request that the entry lists, in a spelling that hides it and that origins serve alike."""
        r = self._random
        host, target = self.hit(entry)
        path, mark, query = target.partition("?")
        cut = path.find("/", 1) if path.count("/") > 1 else 0
        letter = r.choice([i for i, c in enumerate(path) if c.isalnum()])
        spellings = [(host.upper(), path), (f"{host}.", path)]
        if entry.kind in (Kind.PAGE, Kind.PREFIX):
            spellings += [
                (host, f"{path[:letter]}%{ord(path[letter]):02x}{path[letter + 1 :]}"),
                (host, f"{path[:cut]}//{path[cut + 1 :]}"),
                (host, f"{path[:cut]}/.{path[cut:]}"),
                (host, f"/{self.workload.words(1)[0]}/..{path}"),
            ]
        host, path = r.choice(spellings)
        return host, path + mark + query


def _under(host: str, listed: set[str]) -> bool:
    """Whether a host, a domain it is in, or its name without a suffix is listed."""
    while host:
        if host in listed or host.partition(".")[0] in listed:
            return True
        host = host.partition(".")[2]
    return False


def _literals(entries: Iterable[Entry]) -> list[str]:
    needs: dict[str, dict[str, None]] = {}
    for entry in entries:
        need = parameter(entry) if entry.kind is Kind.PARAMS else ""
        needs.setdefault(literal(entry), {})[need] = None
    return ["\t".join([text] if "" in params else [text, *params]) for text, params in needs.items()]


def _write(path: Path, requests: Iterable[Request], kinds: Iterable[str] | None = None) -> None:
    labelled = zip(kinds if kinds is not None else repeat(""), requests, strict=kinds is not None)
    path.write_text("\n".join(f"{kind}\t{host}\t{target}" for kind, (host, target) in labelled))
