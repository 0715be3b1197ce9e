"""Starts a command as the service would be: as nobody, with few capabilities, without executable memory.

``python unprivileged.py CAPABILITIES PATH... -- COMMAND...`` in a mount namespace of its own. PATHs are what
the command must be able to read; where a folder on the way is only for its owner, it is made anew, with
nothing else in it.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

NOBODY = 65534
_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN = 65, 1


def main() -> None:
    capabilities, *rest = sys.argv[1:]
    split = rest.index("--")
    open_up([Path(path) for path in rest[:split]])
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
        print("this kernel cannot refuse executable memory", file=sys.stderr)
    names = [name.removeprefix("CAP_").lower() for name in capabilities.split()]
    kept = ",".join(f"+{name}" for name in names)
    os.execvp(
        "setpriv",
        [
            *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"),
            *(f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set=-all,{kept}"),
            *rest[split + 1 :],
        ],
    )


def open_up(paths: list[Path]) -> None:
    closed: dict[Path, list[Path]] = {}
    for path in paths:
        for folder in reversed(path.parents):
            # One that may be passed through, but not read, may be so for a moment: a test's doing.
            if folder.stat().st_mode & 0o005 != 0o005:
                closed.setdefault(folder, []).append(path)
                break
    for folder, inside in closed.items():
        hidden = tempfile.mkdtemp()
        mount("--rbind", folder, hidden)
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
        for path in inside:
            path.mkdir(parents=True, exist_ok=True)
            mount("--rbind", Path(hidden, path.relative_to(folder)), path)


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main()
