"""A process whose parent ends before it has said what to do ends without a word."""

import subprocess
import sys

from rows import each_row


@each_row("said", [b"", b'{"config": "urlw', b'{"parent": 1, "config": "none.toml"}'])
@each_row(
    "module",
    [
        "urlward.service.process",
        "urlward.feeds.refresh",
        "urlward.lists.allows",
    ],
)
def test_a_parent_that_has_ended(module: str, said: bytes) -> None:
    command = [sys.executable, "-P", "-m", module, "1"]
    done = subprocess.run(command, input=said, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
