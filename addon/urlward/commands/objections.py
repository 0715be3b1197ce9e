"""``urlward objections``."""

import argparse
import json
import time
from typing import Any

from urlward.commands.arguments import DONE, Command, caller, state_of, state_subcommand, typed_url
from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.objections.objections import decline, grant, read_objections, row
from urlward.policy.allows import duration
from urlward.state.folder import found_folder, local_key


def add_objection_commands(command: Command) -> None:
    """Declare ``urlward objections``."""
    of_objections = command("objections", None, "Objections that came from the block page.").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = state_subcommand(of_objections, "list", _list, "Show the open ones, with what was written.")
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


def _list(args: argparse.Namespace) -> int:
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
