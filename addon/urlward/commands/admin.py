"""``urlward admin``: who may use the dashboard."""

import argparse
import json
import sys
import time

from urlward.commands.arguments import DONE, Command, caller, state_of, state_subcommand
from urlward.config import configured
from urlward.config.records import AdminTable
from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.options import given_number, given_path
from urlward.state.folder import found_folder, state_folder
from urlward.state.people import (
    ADMIN,
    ROLES,
    add_person,
    change_role,
    person_row,
    read_people,
    remove_person,
)


def add_admin_commands(command: Command) -> None:
    """Declare ``urlward admin``."""
    of_admin = command("admin", None, "Who may use the dashboard: a token a person.").add_subparsers(
        required=True, metavar="COMMAND"
    )
    adding = state_subcommand(of_admin, "add", _add, "Add a person, and print the token, once.")
    _add_person(adding)
    adding.add_argument("--role", required=True, choices=ROLES, help="see, or also change")
    adding.add_argument("--days", type=given_number, metavar="N", help="that the token is good for (always)")
    adding.add_argument(
        "--token", type=given_path, metavar="FILE", help="take the token in it, and make none"
    )

    listing = state_subcommand(of_admin, "list", _list, "Show who there is, and in which role.")
    listing.add_argument("--json", action="store_true", help="as JSON objects")

    removing = state_subcommand(of_admin, "remove", _remove, "Remove a person; sessions end at once.")
    _add_person(removing)

    changing = state_subcommand(of_admin, "role", _role, "Give a person another role; sessions end at once.")
    _add_person(changing)
    changing.add_argument("role", choices=ROLES, help="see, or also change")


def _add_person(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the person, for the record")


def _add(args: argparse.Namespace) -> int:
    state = state_of(args)
    person, token = add_person(
        state, args.name, args.role, caller(), now=time.time(), days=args.days, token=args.token
    )
    if args.token is None:
        try:
            print(token, flush=True)
        except OSError as e:
            lost = f"{person.name} is there, and nobody got the token ({e.strerror})"
            raise UrlwardError(f"{lost}: remove them, and add them anew") from e
    until = f" until {time_text(person.until)}" if person.until else ""
    made = "" if args.token else "; the token above is kept nowhere: note it now"
    # A filter that runs as somebody else may have another, and would let nobody in by this.
    print(f"urlward: {person.name}: {person.role}{until}, in {state}{made}", file=sys.stderr)
    return DONE


def _list(args: argparse.Namespace) -> int:
    now = time.time()
    for person in read_people(found_folder(state_of(args))):
        row = person_row(person, now)
        if args.json:
            print(json.dumps(row))
            continue
        until = f"until {row['until']}{' (over)' * bool(row['expired'])}" if row["until"] else "always"
        print(f"{row['role']:10}{row['name']}  since {row['created']}, {until}")
    return DONE


def _remove(args: argparse.Namespace) -> int:
    config = configured(args.config)[1]
    state = found_folder(args.state or state_folder(config.state))
    token_file = state / (config.admin or AdminTable()).token_file
    person = remove_person(state, args.name, caller(), now=time.time(), token_file=token_file)
    print(f"{person.name}: removed{f', and {token_file}' if person.name == ADMIN else ''}")
    return DONE


def _role(args: argparse.Namespace) -> int:
    person = change_role(found_folder(state_of(args)), args.name, args.role, caller(), now=time.time())
    print(f"{person.name}: {person.role}")
    return DONE
