"""The files for Prometheus and Grafana that come with urlward."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from urlward.lists.build import write_atomically

NAMES = ("urlward-alerts.yml", "urlward-dashboard.json", "prometheus.yml")


def read_file(name: str) -> bytes:
    """One of `NAMES`."""
    return files("urlward.records").joinpath("files", name).read_bytes()


def write_files(folder: Path) -> Iterator[Path]:
    """Write all into a folder, which is made where it is not there.

    Raises:
        OSError: not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        path = folder / name
        write_atomically(path, read_file(name))
        yield path
