"""Client of the metrics endpoint, as Prometheus scrapes it."""

from pathlib import Path

import urllib3

from urlward.encoding import without_bom
from urlward.engine.errors import UrlwardError
from urlward.regular import read_regular

TIMEOUT = 10.0
_MOST = 16 << 20


class ScrapeError(UrlwardError):
    """The metrics could not be fetched; the message says where and why."""


def scrape(listen: str, token_file: Path) -> str:
    """Fetch the text exposition.

    Args:
        listen: HOST:PORT of the admin address.
        token_file: with its token.

    Raises:
        ScrapeError: no token, no connection, or another answer.
    """
    url = f"http://{reachable(listen)}/metrics"
    headers = {"Authorization": f"Bearer {_token(token_file)}"}
    try:
        with urllib3.PoolManager(timeout=TIMEOUT, retries=False) as pool:
            answer = pool.request("GET", url, headers=headers, preload_content=False)
            data = answer.read(_MOST)
            answer.release_conn()
    except urllib3.exceptions.NewConnectionError as e:
        raise ScrapeError(f"{url}: nobody answers; does the filter run?") from e
    except urllib3.exceptions.HTTPError as e:
        raise ScrapeError(f"{url}: {type(e).__name__}") from e
    if answer.status in (401, 403):
        raise ScrapeError(f"{url}: the token in {token_file} is not the one that is wanted")
    if answer.status != 200:
        raise ScrapeError(f"{url}: status {answer.status}")
    return data.decode("utf-8", "backslashreplace")


def reachable(listen: str) -> str:
    """Address to connect to for a listening address: the loopback for all addresses."""
    host, _, port = listen.rpartition(":")
    return {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}.get(host, host) + f":{port}"  # noqa: S104


def _token(path: Path) -> str:
    try:
        token = without_bom(read_regular(path)).decode("ascii").strip()
    except OSError as e:
        raise ScrapeError(f"{path}: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise ScrapeError(f"{path}: no token") from e
    if not token or not token.isprintable() or " " in token:
        raise ScrapeError(f"{path}: no token")
    return token
