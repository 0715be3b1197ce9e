"""What runs of differential fuzzing have in common: a folder for servers, and the command line."""

import argparse
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def servers_folder(name: str) -> Iterator[Path]:
    """A folder for servers that, started by root, read the pages as somebody else."""
    folder = Path(tempfile.mkdtemp(prefix=f"urlward-{name}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def arguments(description: str, only: str, example: str) -> argparse.Namespace:
    """Of a run's command line; `only` may be given several times."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None, help="a number; without it, each run differs")
    parser.add_argument(f"--{only}", action="append", help=f"for example {example} (all)")
    given = parser.parse_args()
    if given.seed is None:
        given.seed = random.randrange(1 << 32)
    return given
