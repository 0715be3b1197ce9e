"""``urlward own``."""

import argparse
import json
import sys
import time

from urlward.commands.arguments import DONE, Command, caller, state_of, state_subcommand, typed_url
from urlward.config import Config, configured
from urlward.engine.errors import UrlwardError
from urlward.policy.own import own_entries, own_row, reveal_own
from urlward.state.folder import found_folder, local_key, state_folder


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
    add.add_argument("--expires", default="", metavar="DATE", help="last day in force")
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


def _config(args: argparse.Namespace) -> Config:
    path, config = configured(args.config)
    if not (args.state or config.keeps_state):
        raise UrlwardError(
            f"{path or 'no --config given'}: neither `state`, [[feed]] nor [records], so a filter with it "
            "has no own entries: give the filter's own with --config, or its state folder with --state"
        )
    return config


def _add(args: argparse.Namespace) -> int:
    from urlward.feeds.own import UnsureError, add_to_own
    from urlward.feeds.setup import protecting
    from urlward.policy.own import draft

    config = _config(args)
    state = state_folder(args.state or config.state)
    made = draft(
        typed_url(args.text), args.meant or "entry", allow=args.allow, category=args.category,
        note=args.note, expires=args.expires,
    )  # fmt: skip
    try:
        added = add_to_own(config, state, made, caller(), sure=args.sure, protects=protecting(config))
    except UnsureError as e:
        raise UrlwardError(f"{e}; --sure adds it all the same") from e
    print(json.dumps(own_row(added)) if args.json else f"{added.id}: {added.action}s a {added.kind}")
    # A filter that runs as somebody else may have another, and would see nothing of it.
    print(f"urlward: in {state}, for filters with that state folder", file=sys.stderr)
    return DONE


def _remove(args: argparse.Namespace) -> int:
    from urlward.feeds.own import remove_from_own

    config = _config(args)
    state = found_folder(state_folder(args.state or config.state))
    removed = remove_from_own(config, state, args.id, args.why, caller())
    print(f"{removed.id}: removed")
    return DONE


def _list(args: argparse.Namespace) -> int:
    for entry in own_entries(found_folder(state_of(args))):
        row = own_row(entry)
        if args.json:
            print(json.dumps(row))
            continue
        until = f", until {entry.expires}" if entry.expires else ""
        category = f" {entry.category}" if entry.category else ""
        note = f": {entry.note}" if entry.note else ""
        print(
            f"{entry.id}  {entry.action}s a {entry.kind}{category}{until}  {row['created']} {entry.who}{note}"
        )
    return DONE


def _reveal(args: argparse.Namespace) -> int:
    state = found_folder(state_of(args))
    print(reveal_own(state, local_key(state), args.id, caller(), now=time.time()))
    return DONE
