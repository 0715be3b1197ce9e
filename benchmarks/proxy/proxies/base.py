"""What the benchmark needs of a proxy."""

import re
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.proxy.material import Material
from benchmarks.proxy.plan import PROXY_CORE, Case

type Without = Mapping[Case, str]
"""Cases to reasons."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a proxy is to work.

    Attributes:
        folder: of its own, readable by any user.
        material: lists.
        origin_authority: certificate to trust.
    """

    folder: Path
    material: Material
    origin_authority: Path


class Proxy(ABC):
    """One way to stand between load and origin.

    Attributes:
        name: short, for the command line.
        title: of its rows.
        programs: that must be there, found on the path.
        package: what brings them.
        ports: where HTTP and HTTPS are redirected to.
        cores: that it may run on, as taskset reads them.
        blocked: statuses that a block page comes with.
        without: cases that it cannot take part in, or that another row stands for, and why.
        note: how its list is set up, for the report.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    programs: ClassVar[tuple[str, ...]] = ()
    package: ClassVar[str] = ""
    ports: ClassVar[tuple[int, int]] = (8080, 8080)
    cores: ClassVar[str] = str(PROXY_CORE)
    blocked: ClassVar[frozenset[int]] = frozenset({403})
    without: ClassVar[Without] = {}
    note: ClassVar[str] = ""

    def __init__(self, setting: Setting) -> None:
        self.folder = setting.folder
        self.material = setting.material
        self.origin_authority = setting.origin_authority
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o755)

    @classmethod
    def missing(cls) -> list[str]:
        """Programs that are not there."""
        return [program for program in cls.programs if shutil.which(program) is None]

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Of the program."""

    @abstractmethod
    def prepare(self) -> None:
        """Write configuration and lists, once for all rounds."""

    @abstractmethod
    def command(self) -> list[str]:
        """What to start; it stays in the foreground."""

    @property
    def authority(self) -> Path | None:
        """The certificate that it signs with, if it does; there once it runs."""
        return None

    def change(self, version: int) -> None:
        """Put that version of the list in place."""
        raise NotImplementedError

    def tell(self, pid: int) -> None:
        """Make the process take the changed list into use, where it does not notice by itself."""
        subprocess.run(["kill", f"-{signal.SIGHUP.name[3:]}", str(pid)], check=True)


def first_version(*command: str) -> str:
    """The first thing in a program's own words that looks like a version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    match = re.search(r"\d+\.\d+[\w.]*", done.stdout + done.stderr)
    return match[0] if match else "?"
