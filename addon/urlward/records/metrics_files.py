"""Files for Prometheus and Grafana that are shipped with urlward."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from urlward.lists.build import check_place, write_atomically

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
