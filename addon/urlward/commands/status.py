"""``urlward status``."""

import argparse
import json
import sys
import time

from urlward.commands.arguments import DONE, WRONG, Command, add_state_arguments
from urlward.config import SYSTEM, Config, configured


def add_status_commands(command: Command) -> None:
    """Declare ``urlward status``; what it needs is imported when it runs."""
    status = command("status", _status, "Exit code 0 where all is well, 1 where something is not.")
    status.add_argument("--json", action="store_true", help="as a JSON object")
    add_state_arguments(status)


def _status(args: argparse.Namespace) -> int:
    from urlward.commands.status_text import lines
    from urlward.records.asking import NotRunningError, ask
    from urlward.records.status import status_alone
    from urlward.state.folder import state_folder

    path, config = configured(args.config)
    state = state_folder(args.state or config.state)
    try:
        found = ask(state, "status")
    except NotRunningError as e:
        print(f"urlward: {e}{_why(config, configures=path is not None)}", file=sys.stderr)
        found = status_alone(config.feed, state, time.time())
    text = json.dumps(found, indent=1) if args.json else "\n".join(lines(found)).strip("\n")
    if text:
        print(text)
    return DONE if found["ok"] else WRONG


def _why(config: Config, *, configures: bool) -> str:
    if not configures:
        return f"; there is no {SYSTEM} either: give the filter's configuration with --config"
    return "" if getattr(config, "records", None) is not None else ", since nothing is to be recorded"
