"""``urlward gateway`` and ``urlward ca``."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from urlward.commands.arguments import DONE, Command, subcommand
from urlward.commands.status import fleet_text, hook_text
from urlward.config import SYSTEM, Config, configured
from urlward.engine.errors import UrlwardError
from urlward.gateway.table import located
from urlward.options import given_path, given_text

NOT_FILTERED = 1

_WORDS: dict[str, Callable[[Any], str]] = {"fleet": fleet_text, "hook": hook_text}
"""Words on values that have some of their own."""


def add_gateway_commands(command: Command) -> None:
    """Declare ``urlward gateway`` and ``urlward ca``; what they need is imported when they run."""
    gateway = command("gateway", None, "Rules in the kernel, and the service.")
    of_gateway = gateway.add_subparsers(required=True, metavar="COMMAND")

    up = subcommand(of_gateway, "up", _up, "Put the rules into force, in place of those that are there.")
    _plan_arguments(up)
    up.add_argument("--replace", action="store_true", help="also those of another filter that lives")

    down = subcommand(of_gateway, "down", _down, "Take the rules away.")
    _config_argument(down)
    down.add_argument(
        "--if-stopped",
        action="store_true",
        help="only where systemd says that the service has been stopped, and gateway.on_stop is down",
    )

    status = subcommand(
        of_gateway, "status", _status, "Exit code 0 where traffic is filtered, 1 where it is not."
    )
    _plan_arguments(status)
    status.add_argument("--json", action="store_true", help="as a JSON object")

    _plan_arguments(subcommand(of_gateway, "print", _print, "Show the rules, for review; nft -f reads them."))

    install = subcommand(of_gateway, "install", _install, "Write the systemd service.")
    _config_argument(install)
    install.add_argument("--print", action="store_true", help="show the files instead of writing them")
    install.add_argument(
        "--prefix", type=given_path, default=Path("/"), metavar="DIR", help="root folder (/)"
    )

    ca = command("ca", _ca, "Show the certificate authority of interception.")
    _ca_arguments(ca)
    of_ca = ca.add_subparsers(metavar="COMMAND")
    export = subcommand(of_ca, "export", _ca_export, "Write its certificate, without the key.")
    _ca_arguments(export, default=argparse.SUPPRESS)
    export.add_argument("-o", "--output", required=True, type=given_path, metavar="FILE")
    export.add_argument("--format", choices=["pem", "der", "p12"], default="pem", help="of the file (pem)")
    page = subcommand(of_ca, "page", _ca_page, "Write a page that users fetch the certificate from.")
    _ca_arguments(page, default=argparse.SUPPRESS)
    page.add_argument("-o", "--output", required=True, type=given_path, metavar="FOLDER")


def _config_argument(parser: argparse.ArgumentParser, default: Any = None) -> None:
    parser.add_argument(
        "--config", type=given_path, default=default, metavar="FILE", help=f"TOML file ({SYSTEM})"
    )


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument("--listen", metavar="HOST:PORT", help="where the filter listens (:8080)")
    parser.add_argument(
        "--steer", action=argparse.BooleanOptionalAction, help="filter what may be listed (as configured)"
    )
    parser.add_argument(
        "--fail", choices=["open", "closed"], help="what filtered traffic gets while no worker lives"
    )


def _ca_arguments(parser: argparse.ArgumentParser, default: Any = None) -> None:
    parser.add_argument(
        "--confdir", type=given_text, default=default, metavar="DIR", help="its folder (the configuration's)"
    )
    _config_argument(parser, default)
    parser.add_argument(
        "--make",
        action="store_true",
        default=False if default is None else default,
        help="one, where there is none; the filter's start does it too",
    )


def _config(args: argparse.Namespace) -> Config:
    config = configured(args.config)[1]
    changes = {name: value for name in ("steer", "fail") if (value := getattr(args, name, None)) is not None}
    return config.model_copy(update={"gateway": config.gateway.model_copy(update=changes)})


def _note(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"urlward: {line}", file=sys.stderr, flush=True)


def _up(args: argparse.Namespace) -> int:
    from urlward.gateway import control
    from urlward.gateway.firewalls import clamps, closed
    from urlward.gateway.nft import Nft
    from urlward.gateway.rules import planned, setup_of
    from urlward.gateway.system import unmet, unseen_rules, ways_out

    config = _config(args)
    with located(config):
        made = planned(config, args.listen)
        nft = Nft()
        before = control.up(nft, made.plan, replace=args.replace)
    gateway = made.plan.gateway
    sizes, lacking = set[int](), list[str]()
    with suppress(UrlwardError, ValueError, OSError):  # advice; the rules are in force
        listing = control.all_rules(nft)
        sizes = clamps(listing, nft.shown)
        setup, families = setup_of(made.plan), made.plan.families
        lacking = closed(listing, setup, gateway.interfaces, gateway.ports, families, ways_out())
    if sizes and (gateway.mss is None or gateway.mss > min(sizes)):
        _note(
            [f"gateway.mss: rules give TCP segments {min(sizes)} bytes, the filter's own connections do not"]
        )
    settings = unmet(made.plan.families, marks=gateway.keep_source, shared=made.plan.shared)
    _note((*made.notes, *settings, *lacking, *unseen_rules()))
    print(
        f"rules {'replaced' if before else 'in force'}: {', '.join(gateway.interfaces)}, "
        f"ports {', '.join(map(str, gateway.ports))} to {made.plan.listen}, "
        + (f"DNS to {gateway.dns.port}, " if gateway.steer else "no steering, ")
        + f"fail {gateway.fail}"
        + (", source kept" if gateway.keep_source else "")
    )
    return DONE


def _down(args: argparse.Namespace) -> int:
    from urlward.gateway import control
    from urlward.gateway.nft import Nft

    if args.if_stopped:
        # After a crash the rules stay, since they say what traffic gets while no worker lives.
        stopped = os.environ.get("SERVICE_RESULT", "success") == "success"
        if not stopped or _config(args).gateway.on_stop == "keep":
            print("rules kept")
            return DONE
    control.down(Nft())
    print("no rules")
    return DONE


def _status(args: argparse.Namespace) -> int:
    from urlward.gateway import control
    from urlward.gateway.firewalls import closed
    from urlward.gateway.nft import Nft
    from urlward.gateway.rules import planned, setup_of
    from urlward.gateway.system import (
        FORWARDING,
        enslaved_interfaces,
        has_ipv6,
        missing_interfaces,
        overheard_bridges,
        sysctl,
        unnumbered_interfaces,
        unrouted_interfaces,
        unseen_rules,
        vrf_interfaces,
        ways_out,
    )

    config = _config(args)
    nft = Nft()
    found = control.status(nft)
    shown = found.as_json()
    if config.file is not None:
        with located(config):
            shown["as_configured"] = found.setup == setup_of(planned(config, args.listen).plan)
    wanted = dict.fromkeys((*found.interfaces, *config.gateway.interfaces))
    shown["missing_interfaces"] = missing_interfaces(wanted)
    shown["ports_of_others"] = enslaved_interfaces(wanted)
    shown["in_vrfs"] = vrf_interfaces(wanted)
    redirects = found.setup is None or found.setup.redirects
    shown["no_ipv4_address"] = unnumbered_interfaces(wanted) if redirects else []
    steers = config.gateway.steer if found.setup is None else bool(found.setup.dns)
    shown["not_forwarding"] = unrouted_interfaces(wanted) if steers else []
    kept = config.gateway.keep_source if found.setup is None else found.setup.source == "kept"
    shown["bridges_that_lose"] = overheard_bridges(wanted) if kept else {}
    shown["firewalls"] = []
    if found.setup is not None:
        families = (4, 6) if has_ipv6() else (4,)
        with suppress(UrlwardError, ValueError, OSError):  # advice
            listing, ports = control.all_rules(nft), config.gateway.ports
            shown["firewalls"] = closed(listing, found.setup, found.interfaces, ports, families, ways_out())
        shown["firewalls"] += unseen_rules()
    shown |= _shared(config)
    shown["sysctl"] = {name: sysctl(name) for name in FORWARDING.values()}
    if args.json:
        print(json.dumps(shown))
    else:
        for name, value in shown.items():
            words = _WORDS.get(name, _words) if value else _words
            print(f"{name.replace('_', ' '):20}{words(value)}")
    faults = (
        "missing_interfaces", "ports_of_others", "in_vrfs",
        "no_ipv4_address", "not_forwarding", "bridges_that_lose",
    )  # fmt: skip
    comes_in = not any(shown[name] for name in faults)
    return DONE if found.filters and comes_in else NOT_FILTERED


def _shared(config: Config) -> dict[str, Any]:
    """What the filter that runs says of the fleet, and who is at the socket for hooks in resolvers."""
    from urlward.records.asking import ask
    from urlward.state.folder import state_folder

    if config.fleet is None and config.gateway.hook.socket is None:
        return {}
    status: dict[str, Any] = {}
    # None that records runs, or it does not answer, which is no matter of the rules.
    with suppress(UrlwardError):
        status = ask(state_folder(config.state), "status")
    shown: dict[str, Any] = {}
    if config.fleet is not None:
        shown["fleet"] = status.get("fleet")
    if config.gateway.hook.socket is not None:
        shown["hook"] = status.get("hook") or {"connected": None, "late": None}
    return shown


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(one)}" for name, one in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _print(args: argparse.Namespace) -> int:
    from urlward.gateway.rules import planned, rules

    config = _config(args)
    with located(config):
        made = planned(config, args.listen)
        text = rules(made.plan)
    _note(made.notes)
    print(text, end="")
    return DONE


def _install(args: argparse.Namespace) -> int:
    from urlward.gateway.service import files, install, next_steps

    config = _config(args)
    made = files(config.file, config)
    if args.print:
        for path, text in made.items():
            print(f"# {path}\n{text}", end="")
    else:
        for written in install(made, args.prefix):
            print(written)
    _note(next_steps(config.file, config))
    return DONE


def _ca(args: argparse.Namespace) -> int:
    from urlward.gateway.ca import describe

    print(describe(_authority(args)), end="")
    return DONE


def _ca_export(args: argparse.Namespace) -> int:
    from urlward.gateway.ca import export

    export(_authority(args), args.output, args.format)
    print(args.output)
    return DONE


def _ca_page(args: argparse.Namespace) -> int:
    from urlward.gateway.ca import write_page

    config = _config(args)
    for written in write_page(_authority(args), args.output, config):
        print(written)
    if not config.page.operator.strip():
        _note(["the page does not say who runs the filter: set page.operator, and give --config"])
    return DONE


def _authority(args: argparse.Namespace) -> Any:
    from urlward.gateway.ca import authority, authority_folder
    from urlward.proxy.authority import key_size_of

    config = _config(args)
    folder = authority_folder(config, args.confdir)
    size = key_size_of([f"{name}={value}" for name, value in config.mitmproxy.items()])
    return authority(folder, make=args.make, key_size=size, operator=config.page.operator)
