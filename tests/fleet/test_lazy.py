import subprocess
import sys

PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print([name for name in sys.modules if name.split(".")[0] == "valkey" or name.startswith("urlward.fleet")])
"""
MODULES = (
    "cli",
    "commands.fleet",
    "config",
    "dashboard.app",
    "gateway.steering",
    "proxy.preflight",
    "service.services",
)


def test_a_filter_that_is_alone_imports_nothing_of_a_fleet() -> None:
    """The extra need not be there."""
    command = [sys.executable, "-c", PROGRAM, *(f"urlward.{name}" for name in MODULES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
