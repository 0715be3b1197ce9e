"""Command line: one thin function per command.

Exit codes: 0 done (for ``check``: nothing blocked), 1 ``check`` found something blocked, 2 an error,
said in one line on standard error. Ctrl-C is 130 and a reader that has gone 141, as in a shell.
"""

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from urlward import samples
from urlward.commands.arguments import subcommand
from urlward.config import (
    MOST_WORKERS,
    Config,
    ConfigError,
    Problem,
    read_config,
)
from urlward.config.records import records_notes
from urlward.config.tables import named_address
from urlward.engine.errors import UrlwardError, fault_report
from urlward.feeds.setup import listed_objections, make_keeper, make_policy, tell_of_rules
from urlward.lines import plain, say
from urlward.lists.source import ErrorBudget, read_budget
from urlward.options import FLAGS, LIST, OF_ADDON, for_addon
from urlward.plan import FIRST, Plan
from urlward.process import keep_private, open_standard_streams
from urlward.regular import given_fd
from urlward.state.folder import state_folder
from urlward.state.included import LastIncluded

if TYPE_CHECKING:
    from urlward.proxy.settings import Settings

OK, BLOCKED, ERROR = 0, 1, 2
INTERRUPTED, NOBODY_READS = 130, 141


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    keep_private()
    open_standard_streams()
    try:
        given = sys.argv[1:] if arguments is None else arguments
        parsed, unknown = _parser(*given[:1]).parse_known_args(given)
        if unknown:  # said with the usage of the command that does not know them
            parsed.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        code = _dispatch(parsed)
        if sys.stdout is not None:
            sys.stdout.flush()
    except ConfigError as e:
        code = _failed(*e.lines)
    except UrlwardError as e:
        code = _failed(str(e))
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has closed it; that is their way of saying "enough".
        code = NOBODY_READS
    except OSError as e:
        code = _failed(f"{e.filename}: {e.strerror}" if e.filename else e.strerror or str(e))
    except Exception as e:  # noqa: BLE001 - an uncaught one would exit with 1, which means "blocked"
        code = _failed(fault_report(e))
    _drop_output()
    sys.exit(code)


def _failed(*messages: str) -> int:
    with suppress(OSError):
        for message in messages:
            print(f"urlward: {plain(message)}", file=sys.stderr, flush=True)
    return ERROR


def _drop_output() -> None:
    """Drop output that cannot be written, or the interpreter complains of it as it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _dispatch(args: argparse.Namespace) -> int:
    code: int = args.command(args)
    return code


def _parser(first: str = "") -> argparse.ArgumentParser:
    """Make the parser of a command line with a first argument.

    Where that is ``run`` it has no other command: each process of a filter begins with this.
    """
    parser = argparse.ArgumentParser(
        prog="urlward", description="An inline HTTP(S) URL filter with hashed blocklists.", allow_abbrev=False
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version, and end")
    command = partial(subcommand, parser.add_subparsers(required=True, metavar="COMMAND"))

    run = command("run", _run, "Filter traffic.")
    for option in FLAGS.values():
        option.add_to(run)
    run.add_argument("--check", action="store_true", help="say whether it would run so, and end")
    run.add_argument("--set", action="append", metavar="OPTION=VALUE", help="an option of mitmproxy's own")

    if first == "run":
        return parser

    from urlward.commands.admin import add_admin_commands
    from urlward.commands.assignments import add_assignment_commands
    from urlward.commands.check import add_check_command, add_helper_commands
    from urlward.commands.decisions import add_allow_commands, add_objection_commands, add_own_commands
    from urlward.commands.doctor import add_doctor_command
    from urlward.commands.events import add_events_commands
    from urlward.commands.feeds import add_feed_commands, add_publish_commands
    from urlward.commands.fleet import add_fleet_commands
    from urlward.commands.gateway import add_gateway_commands
    from urlward.commands.init import add_completion_command, add_files_command, add_init_command
    from urlward.commands.lab import add_lab_commands
    from urlward.commands.lists import add_compile_command, add_import_commands, add_list_commands
    from urlward.commands.metrics import add_metrics_commands
    from urlward.commands.records import add_audit_commands, add_records_commands
    from urlward.commands.status import add_status_commands
    from urlward.commands.support import add_support_command
    from urlward.commands.who import add_report_commands, add_who_command

    add_compile_command(command)
    add_check_command(command)
    add_helper_commands(command)
    add_init_command(command)
    add_doctor_command(command)

    add_list_commands(command)
    add_feed_commands(command)
    add_publish_commands(command)
    add_allow_commands(command)
    add_own_commands(command)
    add_status_commands(command)
    add_fleet_commands(command)
    add_events_commands(command)
    add_records_commands(command)
    add_objection_commands(command)
    add_metrics_commands(command)
    add_admin_commands(command)
    add_audit_commands(command)
    add_support_command(command)
    add_assignment_commands(command)
    add_who_command(command)
    add_report_commands(command)
    add_import_commands(command)
    add_gateway_commands(command)
    add_lab_commands(command)

    command("script", _script, 'Print the path for mitmdump -s "$(urlward script)".')
    add_files_command(command)
    add_completion_command(command, _parser)
    demo = command("demo", _demo, "Show it all on this machine, without root or network.")
    demo.add_argument("--files", action="store_true", help="known files, by an invented picture")
    helping = command("help", _help, "Show the documentation: its topics, or one of them.")
    helping.add_argument("topic", nargs="?", metavar="TOPIC", help="page to show (the topics)")
    return parser


class _Version(argparse.Action):
    """Action that shows the version of the installed package, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"urlward {version('urlward')}")
        parser.exit()


def _run(args: argparse.Namespace) -> int:
    from urlward.proxy.workers import end_with_supervisor, is_worker, offer, plans, refusing

    end_with_supervisor()
    with refusing():
        settings, workers = _run_settings(args)
        if settings.lists == (samples.SAMPLE,) and plans() == FIRST:
            print(f"filtering with the sample, {samples.SAMPLE}", flush=True)
        if not is_worker():
            if _preflight(args, settings):
                return OK
            from urlward.supervise import supervise

            supervise()
        if plans():
            offer(_plan(args, settings, workers))
    from urlward.proxy.runner import run

    run(settings, _gateway_addons(settings.config, settings.steer, settings.modes, settings.listen[1]))
    return OK


def _plan(args: argparse.Namespace, settings: "Settings", workers: int) -> Plan:
    """Plan for the supervisor, once all that can be seen before the start has been looked at."""
    from urlward.proxy.runner import prepare_authority
    from urlward.proxy.workers import plans

    config, steer = settings.config, settings.steer
    _preflight(args, settings)
    if lost := _lost(config):
        say(f"configuration: {lost}", warning=True)
    if settings.unshared and workers > 1:
        raise UrlwardError(f"workers: mode {settings.unshared[0]} works with one only")
    prepare_authority(settings)
    return Plan(
        workers=workers,
        addresses=settings.addresses,
        service=settings.service(args.config, workers),
        alone=[*settings.alone, *settings.unshared],
        timeout=config.hung_after(steer=steer),
        steer=steer,
        watch=_watched(settings, check=plans() == FIRST),
        text=config.text.decode("latin-1"),
        served=settings.served,
        inspector=settings.inspector,
    )


def _run_settings(args: argparse.Namespace) -> "tuple[Settings, int]":
    """Settings of a run, and the number of its processes."""
    from urlward.gateway.rules import default_listen, default_modes
    from urlward.proxy.settings import Settings

    if args.config and given_fd(args.config) is not None:
        raise UrlwardError(
            f"config: {args.config} is read once, and a filter reads its own again: use a file"
        )
    config = read_config(args.config) if args.config else Config()
    taken = {name: option.taken(args, config) for name, option in FLAGS.items()}
    taken["max_errors"] = _max_errors(args, config)
    lists = tuple(map(Path, taken["list"])) or (samples.SAMPLE,) * (not config.feed)
    steer = config.gateway.steer if args.steer is None else args.steer
    modes = tuple(taken["mode"])
    if (listen := taken["listen"]) is None:
        listen = default_listen(config.gateway, modes, steer=steer)
    if args.config:
        taken["config"] = args.config.resolve()
    if args.admin:
        if config.records is None:
            raise UrlwardError("admin: there is nothing to show without [records] in a --config file")
        _address(args.admin, "admin")
    of_addon = {
        each.option: for_addon(taken[each.name]) for each in OF_ADDON if each.flag and each is not LIST
    }
    options = {name: value for name, value in of_addon.items() if value not in ("", [])}
    if steer and config.gateway.steered == "intercept":
        options["urlward_intercept_port"] = config.gateway.intercept_port
    settings = Settings(
        lists=lists,
        modes=modes or default_modes(config.gateway, steer=steer),
        listen=_address(listen),
        options=options,
        confdir=taken["confdir"] or "",
        extra=tuple(f"{k}={_option_text(v)}" for k, v in config.mitmproxy.items()) + tuple(args.set or ()),
        config=config,
        steer=steer,
    )
    workers = taken["workers"]
    if not 1 <= workers <= MOST_WORKERS:
        raise UrlwardError(f"workers: {workers} is not a number of processes from 1 to {MOST_WORKERS}")
    return settings, workers


def _max_errors(args: argparse.Namespace, config: Config) -> str:
    if args.max_errors:
        return str(read_budget(args.max_errors, "max-errors"))
    try:
        return str(ErrorBudget.parse(config.max_errors))
    except ValueError as e:
        raise config.refused(Problem("max_errors", f"{config.max_errors!r} is not {e}")) from e


def _preflight(args: argparse.Namespace, settings: "Settings") -> bool:
    """Check the settings before a run; True where only the check is wanted.

    Raises:
        ConfigError: it would not.
    """
    from urlward.proxy.preflight import Preflight

    flags = [name for name, value in vars(args).items() if value not in (None, False)]
    preflight = Preflight(settings.config, settings, flags, args.admin or "")
    problems = list(preflight.problems())
    problems += _gateway_problems(settings, flags)
    if args.check and not problems:
        problems = _checked(settings, settings.steer)
    if problems:
        raise settings.config.refused(*problems)
    if settings.config.records is None:
        from urlward.service.leftovers import unheeded

        for text in unheeded(settings.config):
            say(text, warning=True)
    notes = [*records_notes(settings.config.records), *preflight.idle()]
    if args.check:  # a start does not wait for a file system that hangs
        notes += preflight.notes()
    if notes:
        for text in settings.config.refused(*notes).lines:
            say(text, warning=True)
    if args.check:
        from urlward.gateway.service import unready

        if told := unready(settings.config):
            raise ConfigError(*told)
        print("configuration ok")
        if text := _lost(settings.config) or _last_included(settings.config).absent:
            print(text)
    return bool(args.check)


def _last_included(config: Config) -> LastIncluded:
    return LastIncluded(config, state_folder(config.state))


def _lost(config: Config) -> str:
    """Words where the file of ``include`` that need not be there was lost."""
    with suppress(UrlwardError):  # who keeps the state folder says so
        return _last_included(config).lost
    return ""


def _gateway_problems(settings: "Settings", flags: Sequence[str]) -> Iterator[Problem]:
    """Problems that `urlward gateway print` would report, where the kernel's rules are to lead to this
    filter."""
    from urlward.gateway.rules import gateway_problems, redirected_port

    gateway, steer = settings.config.gateway, settings.steer
    if not steer and redirected_port(gateway, settings.modes, settings.listen[1], steer=steer) is None:
        return
    for problem in gateway_problems(gateway, settings.modes, settings.listen, steer=steer):
        given = problem.key in flags
        yield Problem(f"--{problem.key}", problem.text, in_file=False) if given else problem


def _checked(settings: "Settings", steer: bool) -> list[Problem]:
    """Problems that only a trial shows: mitmproxy's options, the kernel's rules, and the content of the
    lists."""
    from urlward.proxy.runner import option_problems

    config = settings.config
    problems = option_problems(settings)
    key = settings.options.get("urlward_key")
    try:
        _gateway_addons(config, steer, settings.modes, settings.listen[1])
    except UrlwardError as e:
        problems += _told_problems(e)
    try:
        keeper = make_keeper(
            settings.lists,
            config,
            key_file=Path(str(key)) if key else None,
            trust=settings.trust,
            budget=ErrorBudget.parse(str(settings.options["urlward_max_errors"])),
            format=str(settings.options["urlward_format"]),
            writes=False,
        )
        keeper.load()
        policy = make_policy(config, keeper)
        problems += filter(None, [listed_objections(config, keeper, policy)])
        tell_of_rules(config, keeper)
    except UrlwardError as e:
        problems += _told_problems(e)
    return problems


def _told_problems(error: UrlwardError) -> list[Problem]:
    """Problems of an error whose message already names the places."""
    lines = error.lines if isinstance(error, ConfigError) else (str(error),)
    return [Problem("", line, in_file=False) for line in lines]


def _gateway_addons(config: Config, steer: bool, modes: Sequence[str], port: int) -> list[object]:
    """Addons that work with the kernel's rules, where there are some for this filter."""
    from urlward.gateway.rules import redirected_port
    from urlward.gateway.table import NoTableError, located
    from urlward.proxy.workers import is_worker

    gateway = config.gateway
    takes = redirected_port(gateway, modes, port, steer=steer)
    addons: list[object] = []
    try:
        if steer:
            from urlward.gateway.steering import Steering

            with located(config):
                addons.append(steering := Steering(gateway, fleet=config.fleet))
                steering.check(modes, port)
        elif takes is not None:
            from urlward.gateway.canary import Heartbeat

            addons.append(heartbeat := Heartbeat(gateway))
            heartbeat.check(takes)
    except NoTableError:
        # Who watches over the rules sees to them; a worker that ends over it would not help.
        if not is_worker():
            raise
        logging.getLogger("urlward").warning("gateway: no rules in the kernel; nothing is filtered")
    return addons


def _watched(settings: "Settings", *, check: bool) -> tuple[str, ...] | None:
    """Interfaces of the gateway whose rules in the kernel are for this filter; None where there are none.

    Args:
        settings: of the run.
        check: whether the rules have to be there.

    Raises:
        UrlwardError: there are none, or they are for another filter.
    """
    from urlward.gateway.nft import Nft
    from urlward.gateway.rules import redirected_port
    from urlward.gateway.steer_set import check_rules

    gateway = settings.config.gateway
    takes = redirected_port(gateway, settings.modes, settings.listen[1], steer=settings.steer)
    if takes is None:
        return None
    if check:
        nft = Nft()
        try:
            check_rules(nft, gateway, takes, gateway.dns.port if settings.steer else 0)
        finally:
            nft.close()
    return tuple(gateway.interfaces)


def _script(_: argparse.Namespace) -> int:
    print(Path(__file__).with_name("script.py"))
    return OK


def _demo(args: argparse.Namespace) -> int:
    from urlward.demo import demo, demo_files

    (demo_files if args.files else demo)()
    return OK


def _help(args: argparse.Namespace) -> int:
    from urlward.docs import show

    show(args.topic)
    return OK


def _address(text: str | None, name: str = "listen") -> tuple[str, int]:
    from urlward.proxy.settings import DEFAULT_HOST, DEFAULT_PORT

    if text is None:
        return DEFAULT_HOST, DEFAULT_PORT
    return named_address(name, text, lowest=0, any_host=True)


def _option_text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
