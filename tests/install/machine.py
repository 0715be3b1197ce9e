"""A Debian of its own for tests of packages: made by mmdebstrap, run by its own systemd in namespaces."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from conftest import wait_for

TOOLS = ("uv", "dpkg-buildpackage", "dh", "lowdown", "argparse-manpage", "mmdebstrap", "unshare", "nsenter")
INCLUDED = ("python3", "systemd", "ca-certificates", "passwd", "man-db")
"""What the package needs, for the machine has no network, and what shows its pages."""

INIT = """\
set -e
cd "$1"
mount --bind . .
cd "$1"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
pivot_root . mnt
umount -l /mnt
exec env -i container=urlward-test PATH=/usr/sbin:/usr/bin /usr/lib/systemd/systemd
"""
"""What `unshare` runs: file systems as a container's, and systemd in them."""


def without() -> str:
    """Why there can be no such machine here; empty where there can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"needs {', '.join(missing)}" if missing else ""


def forbidden() -> str:
    """Why this machine allows none, whatever is installed; empty where it does."""
    has = " cgroup2 " in Path("/proc/self/mounts").read_text()
    return "" if has else "no control groups of version 2 on this machine"


def made_tree(target: Path, included: Sequence[str] = INCLUDED, *, sources: bool = True) -> Path:
    """Make the files of a machine, from where this one has its packages.

    Args:
        target: a folder; an archive where the name ends in ``.tar``.
        included: packages, beside what each machine has.
        sources: whether it knows where packages come from.
    """
    known = subprocess.run(
        ["apt-get", "indextargets", "Created-By: Packages",
         "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(SIGNED_BY)"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    lines = dict.fromkeys(
        f"deb [signed-by={signed}] {uri} {release} {component}"
        for uri, release, component, signed in (
            line.split() for line in known.splitlines() if line.count(" ") == 3
        )
        if uri.startswith("http")
    )
    fetching = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True)
    options = target.with_name(f"{target.name}.apt")
    options.write_text(fetching.stdout)
    suite = min((line.split()[3] for line in lines), key=len)
    done = subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=apt", "--mode=root", f"--aptopt={options}",
         f"--include={','.join(included)}", "--dpkgopt=path-exclude=/usr/share/locale/*",
         "--dpkgopt=force-unsafe-io",
         *([] if sources else ['--customize-hook=: >"$1/etc/apt/sources.list"']),
         suite, str(target), *lines],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return target


class Machine:
    """A machine that runs.

    Args:
        init: process ID of its systemd, as seen from here.
        root: its files.
    """

    def __init__(self, init: int, root: Path) -> None:
        self._init = init
        self.root = root

    def command(self, *arguments: str) -> list[str]:
        """Command line that runs another inside."""
        clean = [
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND=noninteractive",
            "LC_ALL=C.UTF-8",
        ]
        return ["nsenter", "-a", "-t", str(self._init), "--root", "--wd", *clean, *arguments]

    def run(self, *arguments: str, code: int | None = 0) -> str:
        """Run a command inside, and give what it writes.

        Args:
            arguments: of the command.
            code: that it has to exit with; None for any.
        """
        done = subprocess.run(
            self.command(*arguments), text=True, errors="replace", check=False, timeout=120,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert code is None or done.returncode == code, (
            f"{shlex.join(arguments)}: {done.returncode}\n{done.stdout}"
        )
        return done.stdout

    def succeeds(self, *arguments: str) -> bool:
        """Whether a command inside exits with 0."""
        return (
            subprocess.run(
                self.command(*arguments),
                check=False,
                timeout=120,
                stdin=subprocess.DEVNULL,
                capture_output=True,
            ).returncode
            == 0
        )


@contextmanager
def control_group() -> Iterator[Path]:
    """A control group of this machine's, in which another's systemd makes its own, until the block ends."""
    mounted = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    place = next(Path(fields[1]) for fields in mounted if fields[2] == "cgroup2")
    own = Path("/proc/self/cgroup").read_text().splitlines()[-1].removeprefix("0::/")
    group = place / own / f"urlward-test-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        group.rmdir()


@contextmanager
def booted(root: Path) -> Iterator[Machine]:
    """A machine of these files, until the block ends; it has no network but its own loopback."""
    log = (root.parent / "boot.log").open("wb")
    groups = ExitStack()
    group = groups.enter_context(control_group())
    process = subprocess.Popen(
        ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group),
         "unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--kill-child",
         "--propagation", "private", "sh", "-c", INIT, "init", str(root)],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        wait_for(lambda: process.poll() is not None or children.read_text().split(), "the first process")
        assert process.poll() is None, (root.parent / "boot.log").read_text()
        machine = Machine(int(children.read_text().split()[0]), root)
        wait_for(
            lambda: (
                process.poll() is not None
                or machine.run("systemctl", "is-system-running", code=None).strip() in ("running", "degraded")
            ),
            "systemd",
        )
        assert process.poll() is None, (root.parent / "boot.log").read_text()
        yield machine
    finally:
        process.kill()  # and with it, by --kill-child, all that is in its namespaces
        process.wait(60)
        log.close()
        wait_for(
            lambda: "populated 0" in (group / "cgroup.events").read_text(), "all of its processes to be gone"
        )
        groups.close()
