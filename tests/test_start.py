import signal
import subprocess
import sys
from importlib.metadata import version

import pytest

from rows import each_row

PROGRAM = """
import sys
from urlward import process, start

def chosen():
    sys.exit("imported" if "urlward.cli" in sys.modules else "not yet")

process.choose_allocator = chosen
start.main()
"""


def begin(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False
    )


def test_the_interpreter_is_started_anew_before_anything_is_imported() -> None:
    assert begin("run", "--check").stderr.strip() == "not yet"


def test_the_supervisor_imports_next_to_nothing() -> None:
    """It lives as long as the filter, for which it has neither the configuration nor mitmproxy to know."""
    program = (
        "import sys, urlward.supervise\n"
        "heavy = ('asyncio', 'pydantic', 'mitmproxy.http', 'urlward.config', 'urlward.cli', 'cryptography')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@each_row(
    ("arguments", "module"),
    [(["check", "-"], "urlward.process"), (["check", "-"], "urlward.cli"), (["run"], "urlward.supervise")],
)
@each_row("ignored", [False, True])
def test_an_interrupt_at_its_imports_is_no_traceback(
    arguments: list[str], module: str, ignored: bool
) -> None:
    program = (
        "import os, signal, sys\n"
        f"if {ignored}: signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from urlward.start import main\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "            sys.exit(3)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "main()\n"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3 if ignored else -signal.SIGINT, "")


def test_other_commands_keep_it() -> None:
    done = begin("script")
    assert done.returncode == 0
    assert done.stdout.strip().endswith("script.py")


@pytest.mark.parametrize("command", [["-m", "urlward"], ["-c", "from urlward.start import main; main()"]])
def test_the_version(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command, "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"urlward {version('urlward')}\n", "")


def test_a_signal_that_comes_before_it_can_be_taken_or_means_nothing_ends_nothing() -> None:
    early = PROGRAM.replace(
        "def chosen():",
        """import os, signal

def chosen():
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGUSR1)""",
    )
    done = subprocess.run(
        [sys.executable, "-c", early, "run", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (1, "not yet")
