"""``urlward metrics``."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from urlward.config import SYSTEM, Config, configured
from urlward.engine.errors import UrlwardError

type Command = Callable[[str, Any, str], argparse.ArgumentParser]

DONE = 0


class MetricsCommandError(UrlwardError):
    """The metrics cannot be had, or the files not be written."""


def add_metrics_commands(command: Command) -> None:
    """Declare them; what they need is imported when they run."""
    metrics = command("metrics", None, "What is counted, for Prometheus.")
    of_metrics = metrics.add_subparsers(required=True, metavar="COMMAND")

    show = _sub(of_metrics, "show", _show, "Fetch the metrics as Prometheus does, and print them.")
    show.add_argument("--config", type=Path, metavar="FILE", help=f"TOML file ({SYSTEM})")
    show.add_argument("--state", type=Path, metavar="DIR", help="state folder (as configured)")

    files = _sub(of_metrics, "files", _files, "Write alert rules, a Grafana dashboard and how to scrape.")
    files.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER")


def _sub(commands: Any, name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text, allow_abbrev=False
    )
    sub.set_defaults(command=function)
    return sub


def _show(args: argparse.Namespace) -> int:
    from urlward.lists.state import state_folder
    from urlward.records.scrape import scrape

    path, config = configured(args.config)
    listen, token_file = _admin(config, path)
    text = scrape(listen, state_folder(args.state or config.state) / token_file)
    sys.stdout.write(text)
    return DONE


def _admin(config: Config, path: Path | None) -> tuple[str, str]:
    """Where the admin address is, and its token."""
    admin = getattr(config, "admin", None)
    if admin is None:
        raise MetricsCommandError(f"{path or 'no --config given'}: no [admin] in it, which gives the metrics")
    return admin.listen, admin.token_file


def _files(args: argparse.Namespace) -> int:
    from urlward.records.metrics_files import write_files

    for written in write_files(args.output):
        print(written)
    return DONE
