"""``urlward metrics``: a client of the metrics endpoint, as Prometheus scrapes it, and the shipped files for
it and Grafana.
"""

import argparse
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from urlward.commands.arguments import DONE, Command, add_state_arguments, subcommand
from urlward.config import Config, configured
from urlward.engine.errors import UrlwardError
from urlward.lists.build import check_place, write_atomically
from urlward.options import given_path
from urlward.regular import read_regular, without_bom

TIMEOUT = 10.0
_MOST = 16 << 20


def add_metrics_commands(command: Command) -> None:
    """Declare ``urlward metrics``; what it needs is imported when it runs."""
    metrics = command("metrics", None, "What is counted, for Prometheus.")
    of_metrics = metrics.add_subparsers(required=True, metavar="COMMAND")

    show = subcommand(of_metrics, "show", _show, "Fetch the metrics as Prometheus does, and print them.")
    add_state_arguments(show)
    show.add_argument("--token", type=given_path, metavar="FILE", help="file with a token (admin.token)")

    files = subcommand(
        of_metrics, "files", _files, "Write alert rules, a Grafana dashboard and how to scrape."
    )
    files.add_argument("--config", type=given_path, metavar="FILE", help="TOML file: its [admin] is asked")
    files.add_argument("-o", "--output", required=True, type=given_path, metavar="FOLDER")


def _show(args: argparse.Namespace) -> int:
    from urlward.state.folder import state_folder

    path, config = configured(args.config)
    listen, token_file = _admin(config, path)
    text = scrape(listen, args.token or state_folder(args.state or config.state) / token_file)
    sys.stdout.write(text)
    return DONE


def _admin(config: Config, path: Path | None) -> tuple[str, str]:
    """The admin address, and its token."""
    admin = getattr(config, "admin", None)
    if admin is None:
        raise UrlwardError(f"{path or 'no --config given'}: no [admin] in it, which gives the metrics")
    return admin.listen, admin.token_file


def _files(args: argparse.Namespace) -> int:
    target = TARGET
    if args.config:
        path, config = configured(args.config)
        target = reachable(_admin(config, path)[0])
    for written in write_files(args.output, target):
        print(written)
    return DONE


def scrape(listen: str, token_file: Path) -> str:
    """Fetch the text exposition.

    Args:
        listen: HOST:PORT of the admin address.
        token_file: with its token.

    Raises:
        UrlwardError: no token, no connection, or another answer.
    """
    import urllib3

    url = f"http://{reachable(listen)}/metrics"
    headers = {"Authorization": f"Bearer {_token(token_file)}"}
    try:
        with urllib3.PoolManager(timeout=TIMEOUT, retries=False) as pool:
            answer = pool.request("GET", url, headers=headers, preload_content=False)
            data = answer.read(_MOST)
            answer.release_conn()
    except urllib3.exceptions.NewConnectionError as e:
        raise UrlwardError(f"{url}: nobody answers; does the filter run?") from e
    except urllib3.exceptions.HTTPError as e:
        raise UrlwardError(f"{url}: {type(e).__name__}") from e
    if answer.status in (401, 403):
        raise UrlwardError(f"{url}: the token in {token_file} is nobody's")
    if answer.status != 200:
        raise UrlwardError(f"{url}: status {answer.status}")
    return data.decode("utf-8", "backslashreplace")


def reachable(listen: str) -> str:
    """Address to connect to for a listening address: the loopback for all addresses."""
    host, _, port = listen.rpartition(":")
    return {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}.get(host, host) + f":{port}"  # noqa: S104


def _token(path: Path) -> str:
    try:
        token = without_bom(read_regular(path)).decode("ascii").strip()
    except FileNotFoundError as e:
        raise UrlwardError(
            f"{path}: {e.strerror}: give the token of `urlward admin add NAME --role viewer` by --token"
        ) from e
    except OSError as e:
        raise UrlwardError(f"{path}: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise UrlwardError(f"{path}: no token") from e
    if not token or not token.isprintable() or " " in token:
        raise UrlwardError(f"{path}: no token")
    return token


NAMES = ("urlward-alerts.yml", "urlward-dashboard.json", "urlward-scrape.yml")
"""None is a name that Prometheus or Grafana has for a file of the operator's."""

TARGET = "127.0.0.1:8088"
"""Where the shipped file has Prometheus ask: the default of ``[admin]``."""


def read_file(name: str) -> bytes:
    """Read one of `NAMES`."""
    return files("urlward.records").joinpath("files", name).read_bytes()


def write_files(folder: Path, target: str = TARGET) -> Iterator[Path]:
    """Write all files into a folder, which is made where it is not there.

    Args:
        folder: for the files.
        target: HOST:PORT that Prometheus is to ask.

    Raises:
        SourceError: the folder has other files of these names, or is not writable.
        OSError: it cannot be made.
    """
    for name in NAMES:
        check_place(folder / name, lambda there: b"urlward" in there, "nothing of urlward")
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        path = folder / name
        write_atomically(path, read_file(name).replace(b'"%b"' % TARGET.encode(), b'"%b"' % target.encode()))
        yield path
