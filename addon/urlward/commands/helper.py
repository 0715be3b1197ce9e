"""``urlward helper``: decisions for other proxies."""

import argparse
import os
import sys
from collections.abc import Iterator
from functools import partial
from urllib.parse import unquote_to_bytes

from urlward.commands.arguments import DONE, Command, subcommand
from urlward.commands.check import add_list_arguments, configuration, load
from urlward.engine.errors import UrlError
from urlward.engine.verdict import Verdict
from urlward.library import Filter

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
            channel if channel.isdigit() else b"0", "BH", message="not %METHOD %URI %SRC after a channel"
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
    """Decide on a URI. Squid escapes some characters, but no percent sign: ``%23`` may have been
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
