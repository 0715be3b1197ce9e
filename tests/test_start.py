import subprocess
import sys

PROGRAM = """
import sys
from urlward import start

def chosen():
    sys.exit("imported" if "urlward.cli" in sys.modules else "not yet")

start.choose_allocator = chosen
start.main()
"""


def begin(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False
    )


def test_the_interpreter_is_started_anew_before_anything_is_imported() -> None:
    assert begin("run").stderr.strip() == "not yet"


def test_other_commands_keep_it() -> None:
    done = begin("script")
    assert done.returncode == 0
    assert done.stdout.strip().endswith("script.py")
