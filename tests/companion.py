"""A process beside the filter, run by itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from urlward.records.asking import NotRunningError, ask


class Companion:
    """The process, and what it says.

    Args:
        module: that is run.
        folder: for its configuration, state and log.
        text: of the configuration.
        asked: goes before what is asked of it otherwise.
    """

    def __init__(self, module: str, folder: Path, text: str, **asked: Any) -> None:
        self.config = folder / "urlward.toml"
        self.config.write_text(text)
        self.state = folder / "state"
        asked = {"config": str(self.config), "state": str(self.state), "parent": os.getpid()} | asked
        self._log = folder / f"log{len(list(folder.iterdir()))}"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", module], stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked).encode())
        self.process.stdin.close()

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    def answers(self) -> bool:
        """Whether it says how it is; its socket is there a moment before it listens."""
        try:
            ask(self.state, "status")
        except NotRunningError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Have it end, and give its exit code."""
        self.process.terminate()
        return self.process.wait(60)
