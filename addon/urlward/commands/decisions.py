"""Decisions of an operator on entries: ``urlward own``, ``urlward allow`` and ``urlward objections``."""

import argparse
import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from urlward.commands.arguments import (
    DONE,
    Command,
    add_state_arguments,
    caller,
    state_of,
    state_subcommand,
    typed_url,
)
from urlward.config import Config, configured
from urlward.engine.dates import time_text
from urlward.engine.digest import Key
from urlward.engine.entry import Kind
from urlward.engine.errors import ArtifactError, UrlwardError
from urlward.objections.objections import decline, grant, read_objections, row
from urlward.options import given_text
from urlward.policy.allows import (
    Allow,
    add_allow,
    allow_row,
    current_allows,
    duration,
    end_allow,
    expire_allows,
)
from urlward.policy.own import OwnEntry, own_entries, own_row, reveal_own
from urlward.state.folder import found_folder, kept_key, local_key, state_folder


def add_own_commands(command: Command) -> None:
    """Declare ``urlward own``; what it needs is imported when it runs."""
    own = command("own", None, "Entries of your own, one by one, in force at once.")
    of_own = own.add_subparsers(required=True, metavar="COMMAND")

    add = state_subcommand(
        of_own, "add", _add, "Block or allow a host, a page, or whatever the list grammar can say."
    )
    add.add_argument(
        "text", metavar="ENTRY", help='in the list grammar, or a URL; "-" reads it from standard input'
    )
    add.add_argument(
        "--as",
        dest="meant",
        choices=("page", "below", "host"),
        help="of a URL: that page, all in and below its folder, or its host with its subdomains",
    )
    add.add_argument("--allow", action="store_true", help="excuse it, as @@ does")
    add.add_argument("--category", default="", metavar="NAME", help="of the entry")
    add.add_argument("--note", default="", metavar="TEXT", help="kept in the record; without the host's name")
    add.add_argument("--expires", type=given_text, metavar="DATE", help="last day in force")
    add.add_argument("--sure", action="store_true", help="although it blocks more than is usually meant")
    add.add_argument("--json", action="store_true", help="as a JSON object")

    remove = state_subcommand(of_own, "remove", _remove, "Remove an entry.")
    remove.add_argument("--why", required=True, metavar="TEXT", help="for the record (audit.jsonl)")
    remove.add_argument("id", metavar="ID", help="of the entry")

    listing = state_subcommand(of_own, "list", _list, "Show the entries, without what they name.")
    listing.add_argument("--json", action="store_true", help="as JSON objects")

    reveal = state_subcommand(
        of_own, "reveal", _reveal, "Show what an entry names; the audit log has who has asked."
    )
    reveal.add_argument("id", metavar="ID", help="of the entry")


_NO_OWN = "has no own entries"


def _of_filter(args: argparse.Namespace, lacks: str = "") -> tuple[Config, Path]:
    """Configuration and state folder of a filter; refused where it keeps none, and so lacks something."""
    path, config = configured(args.config)
    if lacks and not (args.state or config.keeps_state):
        raise UrlwardError(
            f"{path or 'no --config given'}: neither `state`, [[feed]] nor [records], so a filter with it "
            f"{lacks}: give the filter's own with --config, or its state folder with --state"
        )
    return config, state_folder(args.state or config.state)


def _add(args: argparse.Namespace) -> int:
    from urlward.feeds.own import UnsureError, add_to_own
    from urlward.feeds.setup import protecting
    from urlward.policy.own import draft, same_own

    config, state = _of_filter(args, _NO_OWN)
    text = typed_url(args.text)
    made = draft(
        text, args.meant or "entry", allow=args.allow, category=args.category,
        note=args.note, expires=args.expires or "",
    )  # fmt: skip
    added = same_own(state, local_key(state), made)
    there = ", is there already" if added is not None else ""
    try:
        if added is None:
            added = add_to_own(config, state, made, caller(), sure=args.sure, protects=protecting(config))
    except UnsureError as e:
        raise UrlwardError(f"{e}; --sure adds it all the same") from e
    print(json.dumps(own_row(added)) if args.json else f"{added.id}: {_does(added)}{there}")
    if args.meant is None and made.entry.kind is Kind.PAGE and made.entry.path == "/":
        # As copied from a browser, by who means the site.
        print("urlward: its root page alone; --as host means the host, with its subdomains", file=sys.stderr)
    if "://" in text and not made.entry.allow and _verdict(config, state, text, time.time()) == "allow":
        print("urlward: passes all the same: an exception says so (urlward check --explain)", file=sys.stderr)
    # A filter that runs as somebody else may have another, and would see nothing of it.
    print(f"urlward: in {state}, for filters with that state folder", file=sys.stderr)
    return DONE


def _remove(args: argparse.Namespace) -> int:
    from urlward.feeds.own import remove_from_own

    config, state = _of_filter(args, _NO_OWN)
    removed = remove_from_own(config, found_folder(state), args.id, args.why, caller())
    print(f"{removed.id}: removed")
    return DONE


def _list(args: argparse.Namespace) -> int:
    key = kept_key(state := found_folder(state_of(args)))
    for entry in own_entries(state):
        row = own_row(entry)
        if args.json:
            print(json.dumps(row))
            continue
        until = f", until {entry.expires}" if entry.expires else ""
        category = f" ({entry.category})" if entry.category else ""
        note = f": {entry.note}" if entry.note else ""
        note += _closed(entry.sealed, key)
        print(f"{entry.id}  {_does(entry)}{category}{until}  {row['created']} {entry.who}{note}")
    return DONE


def _closed(sealed: bytes, key: Key | None) -> str:
    """Words where something does not open under a state folder's key; or empty."""
    try:
        if key is not None:
            key.unseal(sealed)
    except ArtifactError:
        return " (does not open under the local key, so not in force: end or remove it, and add it anew)"
    return ""


_SAID = {"address": "an address", "params": "a page with parameters", "file": "a file by its digest"}
"""Kinds of entries in words, where that is not the kind itself."""


def _does(entry: OwnEntry) -> str:
    """What an entry does, without what it names."""
    return f"{entry.action}s {_SAID.get(entry.kind, f'a {entry.kind}')}"


def _reveal(args: argparse.Namespace) -> int:
    state = found_folder(state_of(args))
    print(reveal_own(state, local_key(state), args.id, caller(), now=time.time()))
    return DONE


def add_allow_commands(command: Command) -> None:
    """Declare ``urlward allow``."""
    allow = command("allow", _allow, "Let a page, or a host with its subdomains, pass for a while.")
    allow.add_argument(
        "url", nargs="?", metavar="URL", help='a page, or a host alone; "-" reads it from standard input'
    )
    allow.add_argument("--for", dest="duration", metavar="TIME", help="30m, 2h or 3d; at most 30d")
    allow.add_argument("--why", metavar="TEXT", help="kept in the record; without the host's name")
    allow.add_argument("--host", action="store_true", help="the URL's host with its subdomains")
    allow.add_argument("--list", action="store_true", help="show those in force")
    allow.add_argument("--end", metavar="ID", help="end one before its time")
    allow.add_argument("--json", action="store_true", help="as JSON objects")
    add_state_arguments(allow)


def _allow(args: argparse.Namespace) -> int:
    _check_arguments(args)
    now = time.time()
    config, state = _of_filter(args, "" if args.list or args.end is not None else "heeds no allow")
    if args.list:
        expire_allows(found_folder(state), now)
        for allow in current_allows(state, now):
            _show(allow, now, _closed(allow.sealed, kept_key(state)), as_json=args.json)
    elif args.end is not None:
        ended = end_allow(state, args.end, args.why, caller(), now=now)
        print(json.dumps(allow_row(ended)) if args.json else f"{ended.id}: ended")
    else:
        url = typed_url(args.url)
        # Of a host what is below it may be listed, and lists of the command line are not known. And before
        # this allow is among the lists.
        told = "://" in url and not args.host and (config.list or config.feed)
        listed = not told or _verdict(config, state, url, now) != "pass"
        made = add_allow(
            state, local_key(state), url, duration(args.duration), args.why, caller(),
            whole_host=args.host, now=now,
        )  # fmt: skip
        _show(made, now, as_json=args.json)
        if not listed:
            print("urlward: no list of the configuration blocks that page", file=sys.stderr)
        # A filter that runs as somebody else may have another, and would see nothing of it.
        print(f"urlward: in {state}, for filters with that state folder", file=sys.stderr)
    return DONE


def _verdict(config: Config, state: Path, url: str, now: float) -> str:
    """What becomes of a page by the lists of the configuration; empty where that cannot be told."""
    from urlward.library import Filter

    with suppress(UrlwardError):
        loaded = Filter.load(config=config.model_copy(update={"state": str(state)}), follow=False)
        return loaded.keeper.matcher.check_url(url, now).action
    return ""


def _check_arguments(args: argparse.Namespace) -> None:
    if (args.url is not None) + args.list + (args.end is not None) != 1:
        raise UrlwardError("give a URL, or --list, or --end ID")
    if args.why is None and not args.list:
        raise UrlwardError("--why TEXT is needed")
    if args.url is not None and args.duration is None:
        raise UrlwardError("--for TIME is needed, such as 2h")
    for name, value in (("--for", args.duration), ("--host", args.host)):
        if value and args.url is None:
            raise UrlwardError(f"{name} goes with a URL")
    if args.list and args.why is not None:
        raise UrlwardError("--why goes with a URL or --end")


def _show(allow: Allow, now: float, more: str = "", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(allow_row(allow)))
        return
    what = "the page" if allow.kind == "page" else "the host and its subdomains"
    until = f"{time_text(allow.until)} ({_left(allow.until - now)})"
    print(f"{allow.id}  {what}  until {until}  {allow.who}: {allow.why}{more}")


def _left(seconds: float) -> str:
    minutes = max(round(seconds / 60), 1)
    days, hours = divmod(minutes // 60, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def add_objection_commands(command: Command) -> None:
    """Declare ``urlward objections``."""
    of_objections = command("objections", None, "Objections that came from the block page.").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = state_subcommand(
        of_objections, "list", _objections, "Show the open ones, with what was written."
    )
    listing.add_argument("--all", action="store_true", help="those that are decided too")
    listing.add_argument("--json", action="store_true", help="as JSON objects")

    granting = state_subcommand(
        of_objections, "grant", _grant, "Agree, and let what it is about pass for a while."
    )
    granting.add_argument("id", metavar="ID")
    granting.add_argument(
        "url",
        nargs="?",
        metavar="URL",
        help='what is to pass: a page, or a host alone; "-" reads it from standard input. An objection does '
        "not tell which page it is about; without a URL nothing is allowed",
    )
    granting.add_argument("--for", dest="duration", metavar="TIME", help="30m, 2h or 3d; at most 30d")
    granting.add_argument("--host", action="store_true", help="the URL's host with its subdomains")
    granting.add_argument("--why", required=True, metavar="TEXT", help="kept in the record; without the host")

    declining = state_subcommand(of_objections, "decline", _decline, "The block stays.")
    declining.add_argument("ids", nargs="+", metavar="ID")
    declining.add_argument("--why", required=True, metavar="TEXT", help="kept in the record")


def _objections(args: argparse.Namespace) -> int:
    state = found_folder(state_of(args))
    found = [one for one in read_objections(state) if args.all or one.state == "open"]
    if not found:
        return DONE
    key = local_key(state)
    for one in found:
        shown = row(one, key)
        print(json.dumps(shown) if args.json else _in_words(shown))
    return DONE


def _grant(args: argparse.Namespace) -> int:
    if args.url is None and (args.duration or args.host):
        raise UrlwardError("--for and --host go with a URL")
    if args.url is not None and args.duration is None:
        raise UrlwardError("--for TIME is needed with a URL, such as 2h")
    state = found_folder(state_of(args))
    url = typed_url(args.url or "")
    if args.url == "-" and not url:
        raise UrlwardError("standard input: no URL")
    _, allow = grant(
        state,
        local_key(state),
        args.id,
        args.why,
        caller(),
        now=time.time(),
        url=url,
        seconds=duration(args.duration) if args.duration else 0,
        whole_host=args.host,
    )
    if allow is None:
        print(f"{args.id}: granted; nothing is allowed, since no URL was given")
    else:
        print(f"{args.id}: granted; {allow.id} allows the {allow.kind} until {time_text(allow.until)}")
    return DONE


def _decline(args: argparse.Namespace) -> int:
    state = found_folder(state_of(args))
    for id_ in args.ids:
        decline(state, id_, args.why, caller(), now=time.time())
        print(f"{id_}: declined", flush=True)
    return DONE


def _in_words(shown: dict[str, Any]) -> str:
    lines = [
        f"{shown['id']}  {shown['time']}  {shown['reference']}  {shown['client'] or '-'}  {shown['state']}"
    ]
    lines += [f"  | {line}" for line in shown["message"].split("\n")]
    if shown["decided"]:
        allow = f" ({shown['allow']})" if shown["allow"] else ""
        lines.append(f"  {shown['state']} {shown['decided']}{allow} by {shown['who']}: {shown['why']}")
    return "\n".join(lines)
