import subprocess
import sys

import pytest

from urlward.lazy import import_lazily

RUNNER = """
import sys
import urlward.proxy.runner

print([name for name in ("flask", "ldap3", "werkzeug.serving") if name in sys.modules])
from mitmproxy import addons
import werkzeug
print(len(addons.default_addons()) > 20, werkzeug.Client.__name__, "flask" in sys.modules)
print(addons.core is sys.modules["mitmproxy.addons.core"], hasattr(addons, "nothing"))
"""


def test_a_filter_imports_what_it_uses_and_the_rest_is_still_there() -> None:
    done = subprocess.run([sys.executable, "-c", RUNNER], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[]", "True Client True", "True False"]


GATEWAY = """
import sys
from urlward.cli import _gateway_addons
from urlward.config import Config
print(_gateway_addons(Config(), False, ["regular"], 8080))
print([name for name in ("dns", "urlward.dns.server", "urlward.gateway.steering") if name in sys.modules])
"""


def test_a_filter_without_a_gateway_imports_nothing_of_dns() -> None:
    done = subprocess.run([sys.executable, "-c", GATEWAY], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


START = """
import sys
from urlward.cli import main
try:
    main(["run", "--check", "--listen", sys.argv[1]])
except SystemExit as e:
    print(e.code, [name for name in ("sqlalchemy", "urlward.commands.check") if name in sys.modules])
"""


def test_a_filter_imports_neither_other_commands_nor_a_database_where_it_records_nothing(port: int) -> None:
    command = [sys.executable, "-c", START, f"127.0.0.1:{port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["configuration ok", "0 []"]


REFRESH = """
import sys
import urlward.feeds.refresh
print([name for name in ("asyncio", "mitmproxy", "pydantic", "sqlalchemy") if name in sys.modules])
"""

CHECK = """
import sys
import urlward.cli
from urlward.engine.words import _compiled
rows = ["expressions of rows"] * _compiled.cache_info().currsize
print([*rows, *(name for name in ("urllib3", "mitmproxy", "sqlalchemy") if name in sys.modules)])
"""


@pytest.mark.parametrize("code", [REFRESH, CHECK], ids=["refresh", "command"])
def test_a_process_that_compiles_a_list_or_asks_for_it_imports_little(code: str) -> None:
    """Its start is most of what a small list takes."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


THREADS = """
import sys, threading
from urlward.lazy import import_lazily

import_lazily("werkzeug")
import werkzeug
start, found = threading.Barrier(8), []

def ask():
    start.wait()
    found.append(werkzeug.Client.__name__)

threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(found == ["Client"] * 8)
"""


def test_several_threads_may_ask_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_package_that_is_there_stays() -> None:
    import json

    import_lazily("json")
    assert sys.modules["json"] is json


def test_there_is_none() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        import_lazily("no_such_package")
