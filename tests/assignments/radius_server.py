"""FreeRADIUS on the loopback interface, writing accounting to a detail file and to an SQLite database."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conftest import free_port, wait_for

_SQL = Path("/etc/freeradius/3.0/mods-config/sql/main/sqlite")
_SECRET = "of-this-test"

_CONFIG = """
prefix = /usr
libdir = /usr/lib/freeradius
localstatedir = {folder}
logdir = {folder}
run_dir = {folder}
security {{ allow_vulnerable_openssl = yes }}
log {{ destination = stdout }}
client local {{
    ipaddr = 127.0.0.1
    secret = {secret}
}}
modules {{
    expr {{
        safe_characters = "@abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_: /"
    }}
    detail {{
        filename = {folder}/detail
        permissions = 0600
        header = "%t"
    }}
    sql {{
        driver = "rlm_sql_sqlite"
        dialect = "sqlite"
        sqlite {{
            filename = "{folder}/radius.db"
            bootstrap = "{sql}/schema.sql"
        }}
        acct_table1 = "radacct"
        acct_table2 = "radacct"
        postauth_table = "radpostauth"
        authcheck_table = "radcheck"
        authreply_table = "radreply"
        groupcheck_table = "radgroupcheck"
        groupreply_table = "radgroupreply"
        usergroup_table = "radusergroup"
        group_attribute = "SQL-Group"
        client_table = "nas"
        sql_user_name = "%{{User-Name}}"
        pool {{
            start = 1
            min = 1
            max = 1
        }}
        $INCLUDE {sql}/queries.conf
    }}
}}
server default {{
    listen {{
        type = acct
        ipaddr = 127.0.0.1
        port = {port}
    }}
    preacct {{
        update request {{
            &Acct-Unique-Session-Id := "%{{md5:%{{User-Name}},%{{Acct-Session-Id}},%{{NAS-IP-Address}}}}"
        }}
    }}
    accounting {{
        detail
        sql
    }}
}}
"""


def missing() -> str:
    """Why FreeRADIUS cannot be run here, or nothing."""
    if not shutil.which("freeradius") or not shutil.which("radclient") or not _SQL.is_dir():
        return "FreeRADIUS with radclient is not installed"
    return "" if os.geteuid() == 0 else "FreeRADIUS's configuration is root's"


@dataclass(frozen=True)
class Radius:
    folder: Path
    port: int

    @property
    def detail(self) -> Path:
        return self.folder / "detail"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/radius.db"

    def account(self, *requests: str) -> None:
        """Send accounting requests, one after the other; each is written when it is answered."""
        done = subprocess.run(
            ["radclient", "-q", "-t", "60", "-d", "/usr/share/freeradius", "-D", "/usr/share/freeradius",
             f"127.0.0.1:{self.port}", "acct", _SECRET],
            input="\n\n".join(requests), text=True, capture_output=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def radius(folder: Path) -> Iterator[Radius]:
    """Run a server."""
    port = free_port()
    config = _CONFIG.format(folder=folder, sql=_SQL, port=port, secret=_SECRET)
    (folder / "radiusd.conf").write_text(config)
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            ["freeradius", "-f", "-X", "-d", folder], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_for(
            lambda: "Ready to process" in log.read_text() or server.poll() is not None, f"FreeRADIUS: {log}"
        )
        assert server.poll() is None, log.read_text()[-2000:]
        yield Radius(folder, port)
    finally:
        server.terminate()
        server.wait()
