"""``urlward init``: a first configuration, and what goes with it; ``urlward files``: what is shipped beside
the program, written into a folder; and ``urlward completion``: a script by which a shell completes commands,
flags and paths.

shtab makes that from the parser. It is static: to complete a word starts no urlward, and urlward's start
imports nothing for it.
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from urlward.commands.arguments import DONE, Command, write_new_file
from urlward.config import SYSTEM, Config, read_config
from urlward.config.tables import join_address, split_address
from urlward.engine.errors import UrlwardError
from urlward.options import given_path
from urlward.units import whole

if TYPE_CHECKING:
    from urlward.gateway.ca import Authority

KINDS = ("school", "office", "provider")
"""Whom a filter is for: proxies that browsers name, or a gateway on the way of all traffic."""

NAME = "urlward.toml"
SYSTEM_CERTIFICATES = Path("/usr/local/share/ca-certificates")
"""Where Debian looks for certificates of the machine's own; ``update-ca-certificates`` takes them."""

_LISTED = "http://blocked.urlward-init.test/page"  # a root page alone is told as a slip
_ENTRY = f"{_LISTED} id=INIT-1 category=phishing\n"


def add_init_command(command: Command) -> None:
    """Declare ``urlward init``; what it needs is imported when it runs."""
    init = command("init", _init, "Write a first configuration, with keys and certificate, and try it.")
    init.add_argument(
        "folder",
        nargs="?",
        type=given_path,
        default=Path(),
        metavar="DIR",
        help="where; made if missing (here)",
    )
    init.add_argument("--for", dest="kind", choices=KINDS, help="whom; asked where not given")
    init.add_argument("--operator", metavar="NAME", help="who filters, for the block page")
    init.add_argument("--list", metavar="LIST", help="path or URL of the list; none is the shipped sample")
    init.add_argument(
        "--at",
        metavar="WHERE",
        help="name that clients reach this machine by; a provider's interface",
    )
    init.add_argument("--days", metavar="N", help="that blocks are kept for; 0 keeps none (30)")
    init.add_argument(
        "--trust", action=argparse.BooleanOptionalAction, help="make this machine trust the certificate"
    )
    init.add_argument("--no-test", action="store_true", help="without the trial at the end")


_LESSONS = (
    "Games in lessons alone, where a list has entries with category=games:",
    "[[group]]",
    'name = "classrooms"',
    'networks = ["192.0.2.0/24"]',
    "[[group.rule]]",
    'categories = ["games"]',
    'action = "block"',
    'schedule = "lessons"',
    "[[rule]]                        # everybody else",
    'categories = ["games"]',
    'action = "allow"',
    "[schedule.lessons]",
    'zone = "Europe/Madrid"',
    'days = ["mon", "tue", "wed", "thu", "fri"]',
    'from = "08:30"',
    'to = "17:00"',
)


class _Questions:
    """Answers of the command line, of the person at the terminal, or else the defaults."""

    def __init__(self) -> None:
        self._asks = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()

    def text(self, given: str | None, question: str, default: str) -> str:
        if given is not None or not self._asks:
            return default if given is None else given
        return input(f"{question} [{default}] ").strip() or default

    def choice(self, given: str | None, question: str, known: tuple[str, ...]) -> str:
        if given is not None:
            return given
        if not self._asks:
            raise UrlwardError(f"--for: say for whom: {', '.join(known)}")
        while (answer := input(f"{question} ({', '.join(known)}) ").strip()) not in known:
            print(f"  one of {', '.join(known)}")
        return answer

    def consent(self, given: bool | None, question: str) -> bool:
        if given is not None or not self._asks:
            return bool(given)
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _init(args: argparse.Namespace) -> int:
    try:
        return _answered(args, _Questions())
    except EOFError as e:
        raise UrlwardError("init: no answer") from e


def _answered(args: argparse.Namespace, ask: _Questions) -> int:
    kind = ask.choice(args.kind, "1/5  Whom is it for?", KINDS)
    path = args.folder / NAME
    if path.exists():
        raise UrlwardError(f"{path}: there already; name another folder, or change it")
    operator = " ".join(
        ask.text(args.operator, "2/5  Who filters, for the block page?", "this network").split()
    )
    if not operator.isprintable():
        raise UrlwardError("--operator: holds a control character")
    source = ask.text(args.list, "3/5  Path or URL of the list?", "the sample")
    host = socket.gethostname()
    if kind == "provider":
        where = ask.text(args.at, "4/5  Interface that clients come in by?", _first_interface())
    else:
        where = ask.text(args.at, "4/5  Name by which clients reach this machine?", host)
    text = ask.text(args.days, "5/5  Days that blocks are kept for (0: none)?", "30")
    try:
        days = whole(text, 3_650)
    except ValueError as e:
        raise UrlwardError(f"--days: {e}") from None
    source = "" if source == "the sample" else source
    text = configuration(kind, operator, source, where, days)
    write_new_file(path, text.encode())
    try:
        config = read_config(path)
        if kind == "provider":
            _check_interfaces(config)
        authority = _made(config)
        if config.list:
            _check_lists(config)
    except BaseException:
        path.unlink()
        raise
    print(f"\n{path}: the configuration")
    print(f"{config.state}: key, dashboard's token, and what the filter remembers")
    print(f"{authority.folder}: certificate authority, fingerprint {authority.fingerprint[:23]}…")
    if ask.consent(args.trust, "Make this machine trust that certificate?"):
        _trust(authority)
    if not args.no_test:
        _test(config)
    print("\nNext:")
    for line in _next(kind, path):
        print(f"  {line}")
    if config.admin is not None:
        token = Path(str(config.state)) / config.admin.token_file
        print(f"\nThen the dashboard is at http://{config.admin.listen}/; it asks for the token in {token}")
    if not source:
        print("No list is named: the shipped sample is blocked until you name yours (`urlward help lists`).")
    return DONE


def configuration(kind: str, operator: str, source: str, where: str, days: int) -> str:
    """Text of a configuration.

    Args:
        kind: one of `KINDS`.
        operator: for the block page.
        source: path or URL of the list; empty for the sample.
        where: interface of a provider's clients; else the proxy's name.
        days: that blocks are kept for; 0 for no records.

    Raises:
        UrlwardError: `where` cannot be such a name, or there is no such list.
    """
    proxy = join_address(where.strip("[]"), 8080)
    if kind == "provider":
        if not re.fullmatch(r"[0-9A-Za-z._:\-*]{1,253}", where):
            raise UrlwardError(f"--at: {where!r} is no interface")
    else:
        try:
            split_address(proxy)
        except ValueError as e:
            raise UrlwardError(f"--at: {where!r} is no name or address of a machine, without port") from e
    lines = [
        f"# A filter for {'an' if kind == 'office' else 'a'} {kind}.",
        "# `urlward help configuration` has all keys; `urlward run --check` tries what stands here.",
    ]
    feed = "://" in source
    if source and not feed and not Path(source).exists():
        raise UrlwardError(f"--list: {source}: there is no such file")
    if source and not feed:
        lines.append(f"list = [{_quoted(str(Path(source).absolute()))}]")
    lines.append('include = ["state/dashboard.toml"]    # what the dashboard adds')
    lines += ['listen = ":8080"', 'state = "state"', 'confdir = "ca"', ""]
    if feed:
        lines += ["[[feed]]", 'name = "list"', f"url = {_quoted(source)}", 'interval = "1h"', ""]
    if kind == "provider":
        lines += [
            "[gateway]                         # `urlward gateway print` shows the kernel's rules",
            f"interfaces = [{_quoted(where)}]",
            "steer = true                      # only what may be listed goes through the filter",
            'fail = "open"                     # while no worker lives; or "closed"',
            "",
        ]
    else:
        lines += [
            f"[proxy.pac]                       # browsers: http://{proxy}/proxy.pac",
            f"proxies = [{_quoted(proxy)}]",
            "",
        ]
    if kind == "school":
        lines += [*(f"# {line}".rstrip() for line in _LESSONS), ""]
    lines += ["[page]", f"operator = {_quoted(operator)}", ""]
    if days:
        privacy = "full" if kind == "school" else "short"
        lines += [
            "[records]",
            f'privacy = "{privacy}"                 # of clients: "full", "short", "digest", "counts"',
            "[records.days]",
            f"blocks = {days}",
            "operations = 365",
            "",
            "[admin]",
            'listen = "127.0.0.1:8088"         # dashboard, /metrics, /healthz',
            "",
        ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _quoted(text: str) -> str:
    import tomli_w

    return tomli_w.dumps({"x": text}).removeprefix("x = ").rstrip("\n")


def _first_interface() -> str:
    return next((name for _, name in socket.if_nameindex() if name != "lo"), "eth1")


def _made(config: Config) -> "Authority":
    """Make key, token and certificate authority, as the first start would."""
    from urlward.gateway.ca import authority
    from urlward.state.folder import local_key, state_folder
    from urlward.state.people import admit

    state = state_folder(config.state)
    local_key(state)
    if config.admin is not None:
        admit(state, state / config.admin.token_file, time.time())
    return authority(Path(str(config.confdir)), make=True, operator=config.page.operator)


def _check_interfaces(config: Config) -> None:
    from urlward.gateway.rules import interface_problems

    for problem in interface_problems(config.gateway):
        raise UrlwardError(f"--at: {problem.text}")


def _check_lists(config: Config) -> None:
    """Read the lists as the first start will: the trial has one of its own."""
    from urlward.library import Filter
    from urlward.progress import progress_bar

    with progress_bar() as progress:
        Filter.load(config=config, follow=False, progress=progress)


def _trust(one: "Authority") -> None:
    """Have the machine trust the certificate, or say how."""
    from urlward.gateway.ca import export

    update = shutil.which("update-ca-certificates")
    if os.geteuid() != 0 or update is None or not SYSTEM_CERTIFICATES.is_dir():
        print("not done: as root on Debian or Ubuntu, copy the file and run update-ca-certificates:")
        print(f"  cp {one.folder}/mitmproxy-ca-cert.pem {SYSTEM_CERTIFICATES}/urlward.crt")
        return
    path = SYSTEM_CERTIFICATES / "urlward.crt"
    export(one, path, "pem")
    if subprocess.run([update], check=False, stdout=subprocess.DEVNULL).returncode:  # noqa: S603 - the system's
        raise UrlwardError(f"{path}: written, but update-ca-certificates has failed")
    print(f"{path}: trusted by this machine; browsers may have stores of their own (`urlward ca page`)")


def _test(config: Config) -> None:
    """Have the filter block a page of its own, with this certificate and block page.

    Raises:
        UrlwardError: it does not.
    """
    from urlward.demo import filtering, free_port, get

    print("\nA trial, on 127.0.0.1:")
    with tempfile.TemporaryDirectory(prefix="urlward-init-") as name:
        folder = Path(name)
        (folder / "trial.txt").write_text(_ENTRY)
        (folder / NAME).write_text(
            f'list = ["trial.txt"]\nmode = ["regular"]\nconfdir = {_quoted(str(config.confdir))}\n'
            f"[page]\noperator = {_quoted(config.page.operator)}\n"
        )
        port = free_port()
        with filtering(f"--config={folder / NAME}", f"--listen=127.0.0.1:{port}"):
            answer = get(port, _LISTED.split("/")[2], _LISTED)
    if answer.status != 451:
        raise UrlwardError(f"trial: {_LISTED} gave {answer.status}, not 451")
    print(f"      blocked (451)  {_LISTED}, reference {answer.reference}")


def _next(kind: str, path: Path) -> list[str]:
    line = f"--config {path}"
    if kind == "provider":
        made = [
            f"urlward gateway print {line}",
            f"urlward gateway up {line}",
            f"urlward run {line}",
            f"urlward gateway install {line}   # as a service, in place of the two above",
        ]
    else:
        made = [
            f"urlward run {line}",
            f"urlward ca page {line} -o ca-page   # for users to trust the certificate",
            f"urlward help install   # as a service, which reads {SYSTEM}",
        ]
    return [*made, f"urlward doctor {line}   # what is usually wrong"]


def add_files_command(command: Command) -> None:
    """Declare ``urlward files``; what it needs is imported when it runs."""
    files = command(
        "files",
        _files,
        "Write what is shipped: an example configuration, lists, units, hooks, rules for monitoring.",
    )
    files.add_argument(
        "folder", type=given_path, metavar="DIR", help="folder to write into; nothing is overwritten"
    )
    files.add_argument(
        "--command",
        type=given_path,
        dest="program",
        metavar="FILE",
        help="urlward as the units start it (this one)",
    )


def _files(args: argparse.Namespace) -> int:
    for path in write_files(args.folder, args.program):
        print(path)
    return DONE


def write_files(folder: Path, program: Path | None = None) -> Iterator[Path]:
    """Write all of them, and name each.

    Args:
        folder: is made where it is not there.
        program: urlward as the units start it; the one that runs where None.

    Raises:
        UrlwardError: one is there already, so that none is written, or the folder cannot be written.
    """
    made = {folder / name: data for name, data in _shipped(program)}
    for path in made:
        if path.exists() or path.is_symlink():
            raise UrlwardError(f"{path}: there already, and is not overwritten: give another folder")
    for path, data in made.items():
        write_new_file(path, data)
        yield path


def _shipped(program: Path | None) -> Iterator[tuple[str, bytes]]:
    """Name, relative to the folder, and content of each."""
    from urlward.commands.metrics import NAMES, read_file
    from urlward.dns import hooks
    from urlward.docs import FOLDER
    from urlward.gateway.service import proxy_files, publisher_files
    from urlward.samples import EXAMPLE, LISTS

    yield EXAMPLE.name, EXAMPLE.read_bytes()
    for path in LISTS:
        yield f"lists/{path.name}", path.read_bytes()
    for path in sorted(FOLDER.glob("*.md")):
        yield f"docs/{path.name}", path.read_bytes()
    for name, text in (proxy_files(program) | publisher_files(program)).items():
        yield f"systemd/{name}", text.encode()
    for name in hooks.NAMES:
        yield f"hooks/{name}", (hooks.FOLDER / name).read_bytes()
    for name in NAMES:
        yield f"monitoring/{name}", read_file(name)


SHELLS = ("bash", "zsh", "fish")

_FOLDERS = frozenset(("DIR", "FOLDER"))
_FILES = frozenset(("FILE", "PATH", "SOURCE", "DELTA", "KEY", "LOG", "NEW", "OLD", "STATEMENT"))
"""What the help calls an argument that a path completes."""


def add_completion_command(command: Command, parser: Callable[[], argparse.ArgumentParser]) -> None:
    """Declare ``urlward completion``.

    Args:
        command: declares it.
        parser: makes the parser of the whole command line.
    """

    def completion(args: argparse.Namespace) -> int:
        print(script(parser(), args.shell))
        return DONE

    completes = command("completion", completion, "Print a script by which a shell completes commands.")
    completes.add_argument("shell", choices=SHELLS)


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Script that completes for one of `SHELLS`."""
    import shtab

    _say_what_completes(parser)
    text = str(shtab.complete(parser, shell))
    # Of shtab's (*) zsh completes the first alone.
    return re.sub(r'"\(\*\)::?', '"*:', text) if shell == "zsh" else text


def _say_what_completes(parser: argparse.ArgumentParser) -> None:
    """Mark, here and in all commands, the arguments that paths or topics complete."""
    import shtab

    from urlward.docs import topics

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                _say_what_completes(sub)
        elif action.metavar == "TOPIC":
            action.choices = list(topics())
        elif action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
