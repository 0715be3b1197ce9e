"""Source of a feed: its origin with the secrets read, and its recipe and URLs."""

import json
import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import urlsplit, urlunsplit

from urlward.config import FeedTable
from urlward.encoding import without_bom
from urlward.engine.artifact import VERSION
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.feeds.fetch import Origin
from urlward.regular import open_given

_MAX_SECRET = 65_536


class SecretError(UrlwardError):
    """A password or token that cannot be read; the message names its file or variable."""


def origin(feed: FeedTable, environment: Mapping[str, str] = os.environ) -> Origin:
    """Origin to fetch a feed from. Secrets are read each time: they may be replaced while the filter runs.

    Raises:
        SecretError: one is missing.
    """
    assert feed.url is not None
    return Origin(
        url=feed.url,
        user=feed.user,
        password=_secret(feed, "password", environment),
        token=_secret(feed, "token", environment),
        client_cert=feed.client_cert,
        client_key=feed.client_key,
        ca=feed.ca,
        proxy=feed.proxy,
        timeout=feed.timeout,
        connect_timeout=feed.connect_timeout,
        max_bytes=feed.max_size,
        private_redirects=feed.private_redirects,
    )


def beside(url: str, suffix: str) -> str:
    """URL of a file in the same place: the path with a suffix; a query stays behind it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path + suffix))


def recipe(feed: FeedTable, key: Key) -> str:
    """Digest of all that a feed's artifact is made of besides the body, in hexadecimal."""
    parts = [
        VERSION, key.id.hex(), feed.url, feed.path, feed.format, feed.columns, feed.delimiter, feed.category,
        feed.key,
    ]  # fmt: skip
    return _hash(key, json.dumps(parts).encode()).hexdigest()


def content(file: BinaryIO, key: Key, recipe: str) -> str:
    """Digest of a body that is text, in hexadecimal. Keyed, as everything that is made of entries' text."""
    h = _hash(key, recipe.encode())
    while chunk := file.read(1 << 20):
        h.update(chunk)
    return h.hexdigest()


def _hash(key: Key, data: bytes) -> "blake2b":
    return blake2b(data, key=key.secret, digest_size=16, person=b"urlward feed")


def _secret(
    feed: FeedTable, kind: Literal["password", "token"], environment: Mapping[str, str]
) -> str | None:
    file, variable = getattr(feed, f"{kind}_file"), getattr(feed, f"{kind}_env")
    where = file or f"the variable {variable}"
    try:
        if file is not None:
            with open_given(Path(file)) as opened:
                value = without_bom(opened.read(_MAX_SECRET)).decode().rstrip("\r\n")
        elif variable is not None:
            value = environment[variable]
        else:
            return None
    except KeyError:
        raise SecretError(f"{kind}: {where} is not set") from None
    except UnicodeDecodeError:
        raise SecretError(f"{kind}: {where} is not UTF-8") from None
    except (OSError, ValueError) as e:
        raise SecretError(f"{kind}: {where}: {getattr(e, 'strerror', None) or 'not a file name'}") from e
    if not value or not value.isprintable():
        raise SecretError(f"{kind}: {where} is empty, or not text of one line")
    return value
