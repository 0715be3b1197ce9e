"""The command line: one thin function a command.

Exit codes: 0 done (for ``check``: nothing blocked), 1 ``check`` found something blocked, 2 an error,
said in one line on standard error.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from urlward import samples
from urlward.config import Config, read_config
from urlward.engine.artifact import parse
from urlward.engine.errors import UrlError, UrlwardError
from urlward.engine.matcher import Matcher
from urlward.engine.url import canonicalize
from urlward.lists.build import (
    Progress,
    compile_sources,
    find_key,
    key_beside,
    name_of,
    new_key_file,
    read_artifact,
    read_key,
    silent,
    told,
    write_atomically,
)
from urlward.lists.keeper import Keeper
from urlward.lists.source import Budget

OK, BLOCKED, ERROR = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        code = _dispatch(_parser().parse_args(arguments))
    except UrlwardError as e:
        print(f"urlward: {e}", file=sys.stderr)
        code = ERROR
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # Whoever read our output has closed it; that is their way of saying "enough".
        sys.stderr.close()
        code = OK
    sys.exit(code)


def _dispatch(args: argparse.Namespace) -> int:
    code: int = args.command(args)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="urlward", description="An inline HTTP(S) URL filter with hashed blocklists.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
        sub.set_defaults(command=function)
        return sub

    run = command("run", _run, "Filter traffic.")
    _list_arguments(run)
    run.add_argument(
        "--mode", action="append", metavar="SPEC", help="mitmproxy mode: regular, transparent, …"
    )
    run.add_argument("--listen", metavar="HOST:PORT", help="address to listen on (127.0.0.1:8080)")
    run.add_argument("--workers", type=int, metavar="N", help="processes (1)")
    run.add_argument(
        "--intercept", choices=["listed", "all", "none"], help="TLS connections to decrypt (listed)"
    )
    run.add_argument("--on-error", choices=["block", "pass"], help="what a fault of the filter does (block)")
    run.add_argument("--status", type=int, choices=[451, 403], help="status of a blocked request (451)")
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

    check = command("check", _check, "Say what would be blocked, without visiting anything.")
    _list_arguments(check)
    check.add_argument("--json", action="store_true", help="one JSON object a URL")
    check.add_argument("urls", nargs="+", metavar="URL", help='"-" reads URLs from standard input')

    info = command("info", _info, "Show what an artifact says of itself.")
    info.add_argument("file", type=Path, metavar="FILE")
    info.add_argument("--json", action="store_true", help="as a JSON object")

    keygen = command("keygen", _keygen, "Make a key.")
    keygen.add_argument("-o", "--output", required=True, type=Path, metavar="FILE")

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
    from urlward.proxy.runner import Settings, run

    config = read_config(args.config) if args.config else Config()
    lists = tuple(args.list or map(Path, config.list)) or (samples.SAMPLE,)
    if not args.list and not config.list:
        print(f"no --list given: filtering with the sample, {samples.SAMPLE}", flush=True)
    options: dict[str, str | int] = {
        "urlward_max_errors": str(_budget(args.max_errors or config.max_errors)),
        "urlward_intercept": args.intercept or config.intercept,
        "urlward_on_error": args.on_error or config.on_error,
        "urlward_status": args.status or config.status,
    }
    if args.config:
        options["urlward_config"] = str(args.config.resolve())
    if key := args.key or config.key:
        options["urlward_key"] = str(key)
    settings = Settings(
        lists=lists,
        modes=tuple(args.mode or config.mode) or ("regular",),
        listen=_address(args.listen or config.listen),
        options=options,
        confdir=args.confdir or config.confdir or "",
        extra=tuple(f"{k}={_option_text(v)}" for k, v in config.mitmproxy.items()) + tuple(args.set or ()),
    )
    run(settings)
    return OK


def _compile(args: argparse.Namespace) -> int:
    budget = _budget(args.max_errors)
    path = args.key or key_beside(args.output)
    made = not args.key and not path.exists()
    key = new_key_file(path) if made else read_key(path)
    start = time.monotonic()
    try:
        with _progress() as progress:
            data, report = compile_sources(
                args.sources,
                key,
                name=args.name or name_of(args.sources[0]),
                budget=budget,
                progress=progress,
            )
        write_atomically(args.output, data)
    except UrlwardError:
        if made:
            path.unlink(missing_ok=True)
        raise
    for bad in report.bad_lines:
        print(bad, file=sys.stderr)
    if report.bad > len(report.bad_lines):
        print(f"… and {report.bad - len(report.bad_lines)} more", file=sys.stderr)
    entries = parse(data).meta["entries"]
    print(
        f"{args.output}: {entries} entries, {report.entries - entries} equal ones left out, "
        f"{report.bad} bad lines, {len(data)} bytes, {time.monotonic() - start:.1f} s, "
        f"{'new ' if made else ''}key {key.id.hex()} in {path}"
    )
    return OK


def _check(args: argparse.Namespace) -> int:
    lists = args.list or [samples.SAMPLE]
    with _progress() as progress:
        keeper = Keeper(lists, find_key(args.key, lists), _budget(args.max_errors or "1%"))
        keeper.load(progress)
    worst = OK
    for url in _urls(args.urls):
        found = _check_one(keeper.matcher, url)
        worst = max(worst, {"block": BLOCKED, "error": ERROR}.get(found["verdict"], OK))
        if args.json:
            print(json.dumps(found, ensure_ascii=False))
        else:
            detail = " ".join(f"{k}={found[k]}" for k in ("kind", "id", "category", "list") if found.get(k))
            print(f"{found['verdict']:5}  {url}  {detail or found.get('error', '')}".rstrip())
    return worst


def _check_one(matcher: Matcher, url: str) -> dict[str, str]:
    found = {"url": url, "canonical": "", "verdict": "error"}
    try:
        found["canonical"] = str(canonicalize(url))
        verdict = matcher.check_url(url, time.time())
    except UrlError as e:
        found["error"] = str(e)
        return found
    found["verdict"] = verdict.action
    if verdict.action != "pass":
        found.update(kind=verdict.kind, id=verdict.entry, category=verdict.category, list=verdict.list)
    return found


def _info(args: argparse.Namespace) -> int:
    try:
        artifact = parse(read_artifact(args.file))
    except UrlwardError as e:
        raise _Told(told(args.file, e)) from e
    header, meta = artifact.header, artifact.meta
    shown = {
        "name": meta["name"],
        "serial": header.serial,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(header.created)),
        "key": header.key_id.hex(),
        "entries": meta["entries"],
        "kinds": meta["counts"],
        "categories": {name or "(none)": count for name, count in meta["by_category"].items()},
        "bytes": header.size,
        "checksum": header.checksum.hex(),
        "signed": any(header.signer),
    }
    if args.json:
        print(json.dumps(shown, ensure_ascii=False))
        return OK
    for name, value in shown.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items()) or "-"
        print(f"{name:11}{value}")
    return OK


class _Told(UrlwardError):
    """An error with the file's name in front."""


def _keygen(args: argparse.Namespace) -> int:
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


def _urls(arguments: list[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == "-":
            for line in sys.stdin:
                if line.strip():
                    yield line.rstrip("\r\n")
        else:
            yield argument


def _budget(text: str) -> Budget:
    try:
        return Budget.parse(text)
    except ValueError as e:
        raise _Told(f"max-errors: {text!r} is not {e}") from e


def _address(text: str | None) -> tuple[str, int]:
    from urlward.proxy.runner import DEFAULT_HOST, DEFAULT_PORT

    if text is None:
        return DEFAULT_HOST, DEFAULT_PORT
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) < 65536:
        raise _Told(f"listen: {text!r} is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    return host.strip("[]"), int(port)


def _option_text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A progress bar on standard error, where that is a terminal and the work takes over a second."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    start = time.monotonic()
    with Bar(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, share: float) -> None:
            if what not in tasks:
                if time.monotonic() - start < 1 and share < 1:
                    return
                tasks[what] = bar.add_task(what, total=1.0)
            bar.update(tasks[what], completed=share)

        yield tell


if __name__ == "__main__":
    main()
