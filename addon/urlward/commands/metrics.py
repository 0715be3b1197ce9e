"""``urlward metrics``."""

import argparse
import sys
from pathlib import Path

from urlward.commands.arguments import DONE, Command, add_state_arguments, subcommand
from urlward.config import Config, configured
from urlward.engine.errors import UrlwardError


class MetricsCommandError(UrlwardError):
    """Metrics that cannot be fetched, or files that cannot be written."""


def add_metrics_commands(command: Command) -> None:
    """Declare ``urlward metrics``; what it needs is imported when it runs."""
    metrics = command("metrics", None, "What is counted, for Prometheus.")
    of_metrics = metrics.add_subparsers(required=True, metavar="COMMAND")

    show = subcommand(of_metrics, "show", _show, "Fetch the metrics as Prometheus does, and print them.")
    add_state_arguments(show)

    files = subcommand(
        of_metrics, "files", _files, "Write alert rules, a Grafana dashboard and how to scrape."
    )
    files.add_argument("--config", type=Path, metavar="FILE", help="TOML file: its [admin] is asked")
    files.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER")


def _show(args: argparse.Namespace) -> int:
    from urlward.records.scrape import scrape
    from urlward.state.folder import state_folder

    path, config = configured(args.config)
    listen, token_file = _admin(config, path)
    text = scrape(listen, state_folder(args.state or config.state) / token_file)
    sys.stdout.write(text)
    return DONE


def _admin(config: Config, path: Path | None) -> tuple[str, str]:
    """The admin address, and its token."""
    admin = getattr(config, "admin", None)
    if admin is None:
        raise MetricsCommandError(f"{path or 'no --config given'}: no [admin] in it, which gives the metrics")
    return admin.listen, admin.token_file


def _files(args: argparse.Namespace) -> int:
    from urlward.records.metrics_files import TARGET, write_files
    from urlward.records.scrape import reachable

    target = TARGET
    if args.config:
        path, config = configured(args.config)
        target = reachable(_admin(config, path)[0])
    for written in write_files(args.output, target):
        print(written)
    return DONE
