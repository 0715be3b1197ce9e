"""``urlward check``, and ``urlward helper``: decisions for other proxies."""

import argparse
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from urlward.commands.arguments import DONE, Command, subcommand
from urlward.config import Config, configured
from urlward.engine.errors import UrlError, UrlwardError
from urlward.engine.matcher import EXACT, Matcher
from urlward.engine.perceptual import PerceptualList
from urlward.engine.verdict import Verdict
from urlward.library import Filter
from urlward.lines import plain
from urlward.lists.explain import Alike, Checker, Explanation, parse_at
from urlward.lists.source import read_budget
from urlward.options import FORMAT, KEY, LIST, MAX_ERRORS, TRUST, given_path
from urlward.policy.allows import Allow, current_allows
from urlward.progress import Progress, progress_bar, silent
from urlward.regular import open_regular
from urlward.samples import SAMPLE
from urlward.state.folder import state_folder

OK, BLOCKED, ERROR = 0, 1, 2

_CHUNK = 1 << 20

_PROTECTED = "no feed blocks this host whole, or has it decrypted: over HTTPS, pages on it pass"


def add_check_command(command: Command) -> None:
    """Declare ``urlward check``."""
    check = command("check", _check, "Say what would be blocked, without visiting anything.")
    add_list_arguments(check)
    check.add_argument("--client", metavar="ADDRESS", help="for whom (a client in no group)")
    check.add_argument("--at", metavar="TIME", help="when: 2027-01-31T08:30:00Z (now)")
    check.add_argument("--explain", action="store_true", help="which entry and rule decided")
    check.add_argument("--json", action="store_true", help="one JSON object a URL")
    check.add_argument(
        "--file", action="append", default=[], type=given_path, metavar="PATH", help="a file, by its digests"
    )
    check.add_argument("urls", nargs="*", metavar="URL", help='"-" reads URLs from standard input')


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `load` takes."""
    for option in (LIST, FORMAT, KEY, TRUST, MAX_ERRORS):
        option.add_to(parser)
    parser.add_argument(
        "--config", type=given_path, metavar="FILE", help="TOML file: its lists, feeds and policy"
    )


def load(args: argparse.Namespace, config: Config, *, follow: bool, progress: Progress = silent) -> Filter:
    """Load the lists of `add_list_arguments`; the sample where there is none.

    Args:
        args: of the command line.
        config: of `configuration`.
        follow: as of `Filter.load`.
        progress: told how far it is.

    Raises:
        UrlwardError: they cannot be used.
    """
    return Filter.load(
        *(args.list or ([] if config.list or config.feed else [SAMPLE])),
        config=config,
        key=args.key,
        trust=args.trust,
        format=args.format,
        max_errors=read_budget(args.max_errors, "max-errors") if args.max_errors else None,
        follow=follow,
        progress=progress,
    )


def configuration(args: argparse.Namespace) -> Config:
    """Read the configuration: lists that are named stand alone, unless one is named beside them.

    Raises:
        ConfigError: it cannot be used.
    """
    return Config() if args.list and not args.config else configured(args.config)[1]


def _client(text: str | None) -> str:
    try:
        return "" if text is None else str(ip_address(text))
    except ValueError as e:
        raise UrlwardError(f"client: {text!r} is not an address such as 192.0.2.5 or 2001:db8::5") from e


def _check(args: argparse.Namespace) -> int:
    client = _client(args.client)
    if not args.urls and not args.file:
        raise UrlwardError("a URL is needed, or a file: --file PATH")
    # What is left out of a list, and as what it is read.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    config = configuration(args)
    with progress_bar() as progress:
        loaded = load(args, config, follow=False, progress=progress)
    if config.monitor:
        logging.warning("monitor: the filter lets pass what is blocked here, and tells of it")
    if config.intercept == "none":
        logging.warning("intercept: of what is asked for over TLS the filter judges the host alone")
    now = time.time() if args.at is None else parse_at(args.at)
    checker = Checker(loaded.keeper.matcher, loaded.policy, client, now, _allows(config))
    worst = OK
    for url in _urls(args.urls):
        found = checker.check(url)
        explained = checker.explain(url) if args.explain and "error" not in found else None
        worst = max(worst, _tell(url, found, args, *(explained or (None,))))
    for path, digests, alike, error in _files(args.file, loaded.keeper.matcher):
        found = {"file": str(path), **checker.check_file(digests, alike)}
        if error and found["verdict"] != "block":
            # What has not been looked at is not known to pass.
            found = {"file": str(path), "verdict": "error", "error": error}
            worst = max(worst, _tell(str(path), found, args))
            continue
        explanation = checker.explain_file(digests, alike) if args.explain else None
        worst = max(worst, _tell(str(path), found, args, explanation))
    return worst


def _files(
    paths: Sequence[Path], matcher: Matcher
) -> Iterator[tuple[Path, Mapping[str, bytes], Sequence[Alike], str]]:
    """Each file's digests, the listed pictures that its own are like, and why it cannot be looked at."""
    pictures = matcher.perceptual() if paths else []
    for path in paths:
        try:
            digests = _digests(path, matcher.file_algorithms)
        except OSError as e:
            yield path, {}, (), e.strerror or str(e)
            continue
        yield path, digests, *_alike(path, pictures)


def _alike(path: Path, pictures: Sequence[PerceptualList]) -> tuple[Sequence[Alike], str]:
    if not pictures:
        return (), ""
    # With numpy, which nothing else here needs.
    from urlward.files.local import alike_in

    try:
        return alike_in(path, pictures) or (), ""
    except UrlwardError as e:
        return (), str(e)


def _tell(
    what: str,
    found: Mapping[str, Any],
    args: argparse.Namespace,
    explanation: Explanation | None = None,
    protected: bool | None = None,
) -> int:
    """Print a decision; returns the exit code that it asks for.

    Args:
        what: the URL, or the file's path.
        found: of `Checker`.
        args: of the command line.
        explanation: of the decision, where it is asked for.
        protected: whether the URL's host is; None for a file.
    """
    if args.json:
        more = {} if protected is None else {"protected": protected}
        explained = {} if explanation is None else {"explanation": {**explanation.as_json(), **more}}
        print(json.dumps({**found, **explained}))
    else:
        names = ("kind", "algorithm", "digest", "distance", "id", "category", "list")
        detail = " ".join(f"{name}={found[name]}" for name in names if found.get(name, "") != "")
        print(f"{found['verdict']:5}  {plain(what)}  {detail or found.get('error', '')}".rstrip())
        if explanation is not None:
            print(explanation.as_text())
        if protected:
            print(f"  protected   {_PROTECTED}")
    return {"block": BLOCKED, "error": ERROR}.get(found["verdict"], OK)


def _digests(path: Path, algorithms: Collection[str]) -> dict[str, bytes]:
    """The digests of a file that lists have.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in EXACT if name in algorithms}
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            for hashed in hashes.values():
                hashed.update(chunk)
    return {name: hashed.digest() for name, hashed in hashes.items()}


def _allows(config: Config) -> Sequence[Allow]:
    """Temporary allows that are among the lists, where this user may read them."""
    if config.keeps_state:
        with suppress(UrlwardError):  # who loads the lists has said so
            return current_allows(state_folder(config.state), time.time())
    return ()


def _urls(arguments: list[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == "-":
            for line in sys.stdin.buffer if sys.stdin is not None else ():
                if line.strip():
                    yield line.rstrip(b"\r\n").decode(errors="surrogateescape")
        else:
            yield argument


_READ = 1 << 16
_MOST = 1 << 17
"""Bytes of a request at most; Squid's URLs have up to 8 KiB, three times that where all is escaped."""


def add_helper_commands(command: Command) -> None:
    """Declare ``urlward helper``."""
    helper = command("helper", None, "Decide for another proxy.")
    of = partial(subcommand, helper.add_subparsers(required=True, metavar="PROXY"))
    squid = of("squid", _squid, "Answer Squid's external_acl_type: OK for what is to be blocked.")
    add_list_arguments(squid)


def _squid(args: argparse.Namespace) -> int:
    """Answer until Squid closes its end."""
    config = configuration(args)
    blocks = config.on_error == "block"
    with load(args, config, follow=True) as loaded:
        for lines in _batches(sys.stdin.fileno()):
            answers = b"".join(answer(loaded, line, blocks=blocks) for line in lines)
            sys.stdout.buffer.write(answers)
            sys.stdout.buffer.flush()
    return DONE


def _batches(fd: int) -> Iterator[list[bytes]]:
    """Lines as they come, all that are there at a time. One that is too long is cut."""
    rest = b""
    while chunk := os.read(fd, _READ):
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[:_MOST]
        if lines:
            yield lines


def answer(loaded: Filter, line: bytes, *, blocks: bool) -> bytes:
    """Answer one request (https://wiki.squid-cache.org/Features/AddonHelpers, access control).

    Args:
        loaded: decides.
        line: channel, method, URI, client's address, and more that does not count.
        blocks: whether what cannot be judged is to be blocked.
    """
    channel, *fields = line.split() or [b""]
    if not channel.isdigit() or len(fields) < 3:
        return _line(
            channel if channel.isdigit() else b"0", "BH", message="not %METHOD %#>ru %SRC after a channel"
        )
    method, uri, client = fields[:3]
    try:
        verdict = _decide(loaded, method, uri, client.decode("latin-1"))
    except UrlError as e:
        return _line(channel, "OK" if blocks else "ERR", message=f"not judged: {e}")
    except Exception as e:  # noqa: BLE001 - a fault of ours is no answer that Squid would take for a pass
        return _line(channel, "OK" if blocks else "ERR", message=f"a bug: {type(e).__name__}")
    if verdict.action == "pass":
        return _line(channel, "ERR")
    said = {"tag": verdict.list, "log": f"{verdict.action}:{verdict.entry}", "message": verdict.category}
    return _line(channel, "OK" if verdict.blocked else "ERR", **said)


def _decide(loaded: Filter, method: bytes, uri: bytes, client: str) -> Verdict:
    """Decide on a URI, which Squid escapes. To ``%URI`` it escapes no percent sign: ``%23`` may have been
    ``#``, and a block of either reading counts.
    """
    found: list[Verdict] = []
    unjudged: UrlError | None = None
    for reading in dict.fromkeys((unquote_to_bytes(uri), uri)):
        try:
            if method.upper() == b"CONNECT":
                found.append(loaded.check_host(reading.decode("latin-1"), client))
            else:
                found.append(loaded.check(reading, client))
        except UrlError as e:  # the other may be listed all the same
            unjudged = e
        else:
            if found[-1].blocked:
                return found[-1]
    if unjudged is not None:
        raise unjudged
    return max(found, key=lambda verdict: verdict.listed)


def _line(channel: bytes, result: str, **said: str) -> bytes:
    words = [result, *(f"{name}={_quoted(value)}" for name, value in said.items() if value)]
    return channel + b" " + " ".join(words).encode() + b"\n"


def _quoted(value: str) -> str:
    plain = "".join(c if c.isprintable() else "?" for c in value)
    return '"{}"'.format(plain.replace("\\", "\\\\").replace('"', '\\"'))
