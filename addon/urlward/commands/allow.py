"""``urlward allow``."""

import argparse
import json
import sys
import time

from urlward.commands.arguments import DONE, Command, add_state_arguments, caller, typed_url
from urlward.config import configured
from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.policy.allows import (
    Allow,
    add_allow,
    allow_row,
    current_allows,
    duration,
    end_allow,
    expire_allows,
)
from urlward.state.folder import found_folder, local_key, state_folder


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
    path, config = configured(args.config)
    state = state_folder(args.state or config.state)
    if args.list:
        expire_allows(found_folder(state), now)
        for allow in current_allows(state, now):
            _show(allow, now, as_json=args.json)
    elif args.end is not None:
        ended = end_allow(state, args.end, args.why, caller(), now=now)
        print(json.dumps(allow_row(ended)) if args.json else f"{ended.id}: ended")
    else:
        if not (args.state or config.keeps_state):
            raise UrlwardError(
                f"{path or 'no --config given'}: neither `state`, [[feed]] nor [records], so a filter with "
                "it heeds no allow: give the filter's own with --config, or its state folder with --state"
            )
        made = add_allow(
            state, local_key(state), typed_url(args.url), duration(args.duration), args.why, caller(),
            whole_host=args.host, now=now,
        )  # fmt: skip
        _show(made, now, as_json=args.json)
        # A filter that runs as somebody else may have another, and would see nothing of it.
        print(f"urlward: in {state}, for filters with that state folder", file=sys.stderr)
    return DONE


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


def _show(allow: Allow, now: float, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(allow_row(allow)))
        return
    what = "the page" if allow.kind == "page" else "the host and its subdomains"
    until = f"{time_text(allow.until)} ({_left(allow.until - now)})"
    print(f"{allow.id}  {what}  until {until}  {allow.who}: {allow.why}")


def _left(seconds: float) -> str:
    minutes = max(round(seconds / 60), 1)
    days, hours = divmod(minutes // 60, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
