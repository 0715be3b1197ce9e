"""The command line: one thin function a command.

Exit codes: 0 done (for ``check``: nothing blocked), 1 ``check`` found something blocked, 2 an error,
said in one line on standard error. Ctrl-C is 130 and a reader that has gone 141, as in a shell.
"""

import argparse
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

from urlward import samples
from urlward.allocator import choose_allocator
from urlward.config import Config, GatewayTable, read_config
from urlward.engine.artifact import parse
from urlward.engine.errors import UrlwardError
from urlward.gateway.commands import add_gateway_commands
from urlward.gateway.lab.commands import add_lab_commands
from urlward.lists.allow_commands import add_allow_commands
from urlward.lists.arguments import subcommand
from urlward.lists.audit_commands import add_audit_commands
from urlward.lists.build import (
    compile_sources,
    key_beside,
    name_of,
    new_key_file,
    read_artifact,
    read_key,
    told,
    write_atomically,
)
from urlward.lists.check_commands import add_check_command
from urlward.lists.delta_commands import add_delta_commands
from urlward.lists.feed_commands import add_feed_commands
from urlward.lists.import_commands import add_format_arguments, add_import_commands, format_of
from urlward.lists.progress import progress_bar
from urlward.lists.report import read_budget
from urlward.lists.source import BadLine, SourceError
from urlward.lists.trust_commands import (
    add_issue_arguments,
    add_trust_argument,
    add_trust_commands,
    issue_of,
    make_signing_key,
    signature_facts,
    trust_facts,
)
from urlward.records.assignment_commands import add_assignment_commands
from urlward.records.events_commands import add_events_commands
from urlward.records.metrics_commands import add_metrics_commands
from urlward.records.objection_commands import add_objection_commands
from urlward.records.records_commands import add_records_commands
from urlward.records.seen import seen_by
from urlward.records.status_commands import add_status_commands
from urlward.records.who_commands import add_who_command

OK, BLOCKED, ERROR = 0, 1, 2
INTERRUPTED, NOBODY_READS = 130, 141


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name or URL need not be text, nor the terminal know all letters.
            stream.reconfigure(errors="backslashreplace")
    try:
        parsed = _parser().parse_args(arguments)
        if arguments is None and parsed.command is _run:
            choose_allocator()
        code = _dispatch(parsed)
        if sys.stdout is not None:
            sys.stdout.flush()
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
        code = _failed(f"a bug: {type(e).__name__} at {_place(e)}; please report it")
    _drop_output()
    sys.exit(code)


def _failed(message: str) -> int:
    with suppress(OSError):
        print(f"urlward: {message}", file=sys.stderr, flush=True)
    return ERROR


def _place(error: Exception) -> str:
    """Where an exception was raised; its text could name an entry, so that stays untold."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{Path(last.filename).name}:{last.lineno}"


def _drop_output() -> None:
    """Let output that cannot be written go, or the interpreter complains of it as it ends."""
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="urlward", description="An inline HTTP(S) URL filter with hashed blocklists.", allow_abbrev=False
    )
    command = partial(subcommand, parser.add_subparsers(required=True, metavar="COMMAND"))

    run = command("run", _run, "Filter traffic.")
    _list_arguments(run)
    add_trust_argument(run)
    run.add_argument(
        "--mode", action="append", metavar="SPEC", help="mitmproxy mode: regular, transparent, …"
    )
    run.add_argument("--listen", metavar="HOST:PORT", help="address to listen on (127.0.0.1:8080)")
    run.add_argument("--workers", type=int, metavar="N", help="processes (1)")
    run.add_argument(
        "--intercept", choices=["listed", "all", "none"], help="TLS connections to decrypt (listed)"
    )
    run.add_argument(
        "--tls-block", choices=["page", "alert"], help="what a host listed whole gets over TLS (page)"
    )
    run.add_argument(
        "--http2",
        action=argparse.BooleanOptionalAction,
        help="HTTP/2 inside intercepted TLS (no)",
    )
    run.add_argument("--other", choices=["close", "relay"], help="what is neither HTTP nor TLS (close)")
    run.add_argument("--on-error", choices=["block", "pass"], help="what a fault of the filter does (block)")
    run.add_argument("--status", type=int, choices=[451, 403], help="status of a blocked request (451)")
    run.add_argument(
        "--monitor", action=argparse.BooleanOptionalAction, help="block nothing, tell what would be (no)"
    )
    run.add_argument(
        "--steer", action=argparse.BooleanOptionalAction, help="answer DNS, filter what may be listed (no)"
    )
    run.add_argument("--admin", metavar="HOST:PORT", help="where the dashboard is, of what is recorded")
    run.add_argument("--confdir", metavar="DIR", help="folder of the certificate authority (~/.mitmproxy)")
    run.add_argument("--config", type=Path, metavar="FILE", help="TOML file; flags go before what it says")
    run.add_argument("--set", action="append", metavar="OPTION=VALUE", help="an option of mitmproxy's own")

    build = command("compile", _compile, "Compile sources into an artifact.")
    build.add_argument("sources", nargs="+", type=Path, metavar="SOURCE")
    build.add_argument("-o", "--output", required=True, type=Path, metavar="FILE")
    build.add_argument(
        "--key", type=Path, metavar="FILE", help="key file; FILE.key beside the output where not given"
    )
    build.add_argument("--name", help="name of the list (the first source's)")
    build.add_argument("--max-errors", metavar="N|N%", default="1%", help="bad lines allowed (1%%)")
    add_issue_arguments(build)
    add_format_arguments(build)

    add_check_command(command)

    info = command("info", _info, "Show what an artifact says of itself.")
    info.add_argument("file", type=Path, metavar="FILE")
    info.add_argument("--json", action="store_true", help="as a JSON object")
    add_trust_argument(info)

    keygen = command("keygen", _keygen, "Make a key.")
    keygen.add_argument("-o", "--output", required=True, type=Path, metavar="FILE")
    keygen.add_argument(
        "--signing", action="store_true", help="a signing key: FILE is private, FILE.pub is public"
    )

    add_trust_commands(command)
    add_delta_commands(command)
    add_feed_commands(command)
    add_allow_commands(command)
    add_status_commands(command)
    add_events_commands(command)
    add_records_commands(command)
    add_objection_commands(command)
    add_metrics_commands(command)
    add_audit_commands(command)
    add_assignment_commands(command)
    add_who_command(command, seen_by)
    add_import_commands(command)
    add_gateway_commands(command)
    add_lab_commands(command)

    command("script", _script, 'Print the path for mitmdump -s "$(urlward script)".')
    command("demo", _demo, "Show it all on this machine, without root or network.")
    return parser


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--list", action="append", type=Path, metavar="PATH", help="source or artifact (the sample)"
    )
    parser.add_argument("--key", type=Path, metavar="FILE", help="the lists' key")
    parser.add_argument("--max-errors", metavar="N|N%", help="bad lines allowed in a source (1%%)")


def _run(args: argparse.Namespace) -> int:
    from urlward.gateway.alone import alone
    from urlward.gateway.steering import steering_modes
    from urlward.proxy.companion import companions
    from urlward.proxy.runner import Settings, addresses, run
    from urlward.proxy.workers import Supervisor, is_worker

    config = read_config(args.config) if args.config else Config()
    in_file = f"{args.config}: " if args.config else ""
    lists = tuple(args.list or map(Path, config.list)) or (samples.SAMPLE,) * (not config.feed)
    max_errors = args.max_errors or config.max_errors
    listen = args.listen or config.listen
    if lists == (samples.SAMPLE,):
        print(f"no --list given: filtering with the sample, {samples.SAMPLE}", flush=True)
    steer = config.gateway.steer if args.steer is None else args.steer
    options: dict[str, str | int | list[str]] = {
        "urlward_max_errors": str(
            read_budget(max_errors, "max-errors" if args.max_errors else f"{in_file}max_errors")
        ),
        "urlward_intercept": args.intercept or config.intercept,
        "urlward_tls_block": args.tls_block or config.tls_block,
        "urlward_other": args.other or config.other,
        "urlward_on_error": args.on_error or config.on_error,
        "urlward_status": args.status or config.status,
        "urlward_monitor": config.monitor if args.monitor is None else args.monitor,
    }
    if steer and config.gateway.steered == "intercept":
        options["urlward_intercept_port"] = config.gateway.intercept_port
    if args.config:
        options["urlward_config"] = str(args.config.resolve())
    if key := args.key or config.key:
        options["urlward_key"] = str(key)
    if args.admin:
        if config.records is None:
            raise _Told("admin: there is nothing to show without [records] in a --config file")
        _address(args.admin, name="admin")
        options["urlward_admin"] = args.admin
    if trust := args.trust or config.trust:
        options["urlward_trust"] = list(trust)
    settings = Settings(
        lists=lists,
        modes=tuple(args.mode or config.mode) or (steering_modes(config.gateway) if steer else ("regular",)),
        listen=_address(listen or (":8080" if steer else None), "" if args.listen else in_file),
        options=options,
        http2=config.http2 if args.http2 is None else args.http2,
        confdir=args.confdir or config.confdir or "",
        extra=tuple(f"{k}={_option_text(v)}" for k, v in config.mitmproxy.items()) + tuple(args.set or ()),
    )
    workers = config.workers if args.workers is None else args.workers
    if workers < 1:
        raise _Told(f"workers: {workers} is not a number of processes")
    with alone() if steer and not is_worker() else nullcontext():
        if workers > 1 and not is_worker():
            command = [sys.executable, "-m", "urlward.cli", *sys.argv[1:]]
            beside = companions(config, args.config, str(key or ""), args.admin or "")
            return OK if Supervisor(command, workers, addresses(settings), beside).run() else ERROR
        run(settings, _gateway_addons(config.gateway, steer, settings.modes, settings.listen[1]))
    return OK


def _gateway_addons(gateway: GatewayTable, steer: bool, modes: Sequence[str], port: int) -> list[object]:
    """What works with the kernel's rules, where there are some for this filter."""
    from urlward.gateway.heartbeat import Heartbeat, transparent_port
    from urlward.gateway.steering import Steering

    if steer:
        steering = Steering(gateway)
        steering.check(modes, port)
        return [steering]
    takes = transparent_port(modes, port)
    if not gateway.interfaces or takes is None:
        return []
    heartbeat = Heartbeat(gateway)
    heartbeat.check(takes)
    return [heartbeat]


def _compile(args: argparse.Namespace) -> int:
    format_, options = format_of(args)
    budget = read_budget(args.max_errors, "max-errors")
    issue = issue_of(args, args.output)
    path = args.key or key_beside(args.output)
    for kept in (*args.sources, path, *([args.sign] if args.sign else [])):
        if _are_same(kept, args.output):
            raise _Told(f"{args.output}: is read from, and would be overwritten")
    made = not args.key and not path.exists()
    key = new_key_file(path) if made else read_key(path)
    start = time.monotonic()
    try:
        with progress_bar() as progress:
            data, report = compile_sources(
                args.sources,
                key,
                name=args.name or name_of(args.sources[0]),
                budget=budget,
                progress=progress,
                issue=issue,
                format=format_,
                options=options,
            )
        write_atomically(args.output, data)
    except BaseException as e:
        if made:
            path.unlink(missing_ok=True)
        if isinstance(e, SourceError):
            _print_bad_lines(e.bad_lines)
        raise
    _print_bad_lines(report.bad_lines)
    if report.bad > len(report.bad_lines):
        print(f"… and {report.bad - len(report.bad_lines)} more", file=sys.stderr)
    entries = parse(data).meta["entries"]
    print(
        f"{args.output}: {entries} entries, {report.entries - entries} equal ones left out, "
        f"{report.bad} bad lines, "
        + (f"{report.unsupported} of a kind that cannot be taken, " if report.unsupported else "")
        + f"{len(data)} bytes, {time.monotonic() - start:.1f} s, "
        f"{'new ' if made else ''}key {key.id.hex()} in {path}"
    )
    return OK


def _are_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.absolute() == other.absolute()


def _print_bad_lines(lines: Sequence[BadLine]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _info(args: argparse.Namespace) -> int:
    try:
        artifact = parse(read_artifact(args.file))
    except UrlwardError as e:
        raise _Told(told(args.file, e)) from e
    header, meta = artifact.header, artifact.meta
    shown = {
        "name": meta["name"],
        "serial": header.serial,
        "created": _date(header.created),
        "key": header.key_id.hex(),
        "entries": meta["entries"],
        "kinds": meta["counts"],
        "categories": {name or "(none)": count for name, count in meta["by_category"].items()},
        "bytes": header.size,
        "checksum": header.checksum.hex(),
        "signed": any(header.signer),
        **signature_facts(header),
    }
    facts, failure = trust_facts(header, args.trust)
    shown |= facts
    if args.json:
        print(json.dumps(shown))
    else:
        for name, value in shown.items():
            if isinstance(value, dict):
                value = ", ".join(f"{k} {v}" for k, v in value.items()) or "-"
            print(f"{name.replace('_', ' '):12}{value}")
    if failure:
        raise _Told(told(args.file, failure))
    return OK


def _date(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "-"


class _Told(UrlwardError):
    """An error with the file's name in front."""


def _keygen(args: argparse.Namespace) -> int:
    if args.signing:
        return make_signing_key(args.output)
    key = new_key_file(args.output)
    print(f"{args.output}: key {key.id.hex()}")
    return OK


def _script(_: argparse.Namespace) -> int:
    print(Path(__file__).with_name("script.py"))
    return OK


def _demo(_: argparse.Namespace) -> int:
    from urlward.demo import demo

    demo()
    return OK


def _address(text: str | None, where: str = "", name: str = "listen") -> tuple[str, int]:
    from urlward.proxy.runner import DEFAULT_HOST, DEFAULT_PORT

    if text is None:
        return DEFAULT_HOST, DEFAULT_PORT
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or len(port) > 5 or int(port) > 65535:
        raise _Told(f"{where}{name}: {text!r} is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    return host.strip("[]"), int(port)


def _option_text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
