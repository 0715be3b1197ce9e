import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from e2e.test_modes import may_make_namespaces
from gateway.inside import own_network
from urlward.gateway.nft import Nft
from urlward.gateway.table import NftError, NoTableError, SetFullError

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")


SETS = """\
add table inet urlward
add set inet urlward s { type ipv4_addr; size 2; flags timeout; }
"""


def test_all_or_nothing(nft: Nft) -> None:
    nft.run(SETS)
    with pytest.raises(NoTableError, match=r"^nftables: no such table, chain, set or element$"):
        nft.run("add element inet urlward s { 192.0.2.1 }\nadd element inet urlward t { 192.0.2.2 }")
    assert "elem" not in nft.json("list set inet urlward s")[0]["set"]


def test_what_is_listed(nft: Nft) -> None:
    nft.run(SETS + "add element inet urlward s { 192.0.2.1 timeout 60s }")
    (found,) = nft.json("list set inet urlward s")
    assert found["set"]["elem"][0]["elem"]["val"] == "192.0.2.1"
    assert nft.json("list ruleset", terse=True)[1]["set"].get("elem", []) == []
    # The next command's output is its own.
    nft.run("delete element inet urlward s { 192.0.2.1 }")
    assert "elem" not in nft.json("list set inet urlward s")[0]["set"]


def test_a_full_set(nft: Nft) -> None:
    nft.run(SETS + "add element inet urlward s { 192.0.2.1, 192.0.2.2 }")
    with pytest.raises(SetFullError, match="is full: raise gateway"):
        nft.run("add element inet urlward s { 192.0.2.3 }")


@pytest.mark.parametrize("command", ["add nonsense", "add element inet urlward s { 192.0.2.300 }"])
def test_other_errors_quote_nothing_of_the_command(nft: Nft, command: str) -> None:
    nft.run(SETS)
    with pytest.raises(NftError) as caught:
        nft.run(command)
    assert str(caught.value).startswith("nftables: ")
    assert "\n" not in str(caught.value)
    assert "element inet" not in str(caught.value)


def test_a_check_changes_nothing(nft: Nft) -> None:
    nft.check(SETS)
    assert nft.json("list ruleset") == []
    nft.run(SETS)
    with pytest.raises(NoTableError):
        nft.check("add rule inet urlward nowhere accept")
    nft.run("add element inet urlward s { 192.0.2.1 }")
    assert len(nft.json("list ruleset")) == 2, "and the next command is not a check"


def test_threads_share_a_connection(nft: Nft) -> None:
    nft.run("add table inet urlward; add set inet urlward s { type ipv4_addr; }")

    def add(number: int) -> None:
        for i in range(50):
            nft.run(f"add element inet urlward s {{ 192.0.{number}.{i} }}")

    threads = [Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(nft.json("list set inet urlward s")[0]["set"]["elem"]) == 200


def test_after_the_end(nft: Nft) -> None:
    nft.close()
    nft.close()
    with pytest.raises(NftError, match="is closed"):
        nft.run("list ruleset")


PROGRAM = "from urlward.gateway.nft import Nft; Nft().json('list ruleset')"


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        (
            ["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
            "needs root or the capability CAP_NET_ADMIN",
        ),
        (
            ["unshare", "-m", "sh", "-c", 'mount --bind /dev/null "$0" && exec "$@"', "LIBRARY"],
            "no libnftables.so.1 on this machine: install it",
        ),
    ],
    ids=["no-permission", "no-library"],
)
def test_what_a_machine_may_lack(prefix: list[str], message: str) -> None:
    with own_network():
        Nft().close()
    maps = Path("/proc/self/maps").read_text().splitlines()
    library = next(line.split()[-1] for line in maps if "libnftables.so" in line)
    command = [library if part == "LIBRARY" else part for part in prefix]
    done = subprocess.run(
        ["unshare", "-n", *command, sys.executable, "-c", PROGRAM],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "NftError: nftables: " in done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("Traceback"), "no line of the library's own"
