"""Bucket of an S3-compatible store as a place, by fsspec's ``s3fs``.

Credentials, region and endpoint are where every tool of S3 looks for them: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``, the files in ``~/.aws``, or the machine's role. The store has
to know conditional writes (``If-Match`` and ``If-None-Match`` of PutObject).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from urlward.config.tables import BUCKET
from urlward.publish.place import CONTROL, NEW, ChangedError, Found, PlaceError

_TIMES = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}
_PROBE, _NO_TAG = f"{CONTROL}/conditions", '"0"'

_LOST = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
"""Codes by which a store says that a condition does not hold, or that two are at it."""


class Bucket:
    """Bucket, and a prefix in it.

    Args:
        to: ``s3://BUCKET/PREFIX``.

    Raises:
        PlaceError: the extra ``publish`` is not installed.
    """

    def __init__(self, to: str) -> None:
        try:
            import fsspec
            from botocore.exceptions import BotoCoreError
        except ImportError as e:
            raise PlaceError(f"{to}: needs the extra `publish`: uv pip install 'urlward[publish]'") from e
        self._to = to
        self._bucket, _, prefix = to.removeprefix(BUCKET).partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._files: Any = fsspec.filesystem(
            "s3", skip_instance_cache=True, use_listings_cache=False, config_kwargs=_TIMES
        )
        self._files.retries = 1  # who publishes tries again by itself
        self._failures = (OSError, BotoCoreError)

    def __str__(self) -> str:
        return self._to

    def read(self, name: str, size: int | None = None) -> Found | None:
        """See `urlward.publish.place.Place.read`."""
        part = {} if size is None else {"Range": f"bytes=0-{max(size, 1) - 1}"}
        with self._told():
            try:
                answer = self._files.call_s3("get_object", **self._object(name), **part)
                return Found(self._body(answer), answer["ETag"])
            except FileNotFoundError as e:
                if _code(e) == "NoSuchBucket":
                    raise
                return None

    def write(self, name: str, data: bytes, over: str) -> str:
        """See `urlward.publish.place.Place.write`."""
        condition = {"IfNoneMatch": "*"} if over == NEW else {"IfMatch": over}
        with self._told():
            try:
                answer = self._files.call_s3("put_object", **self._object(name), Body=data, **condition)
                return str(answer["ETag"])
            except OSError as e:
                gone = over != NEW and _code(e) == "NoSuchKey"
                if gone or _code(e) in _LOST or isinstance(e, FileExistsError):
                    raise ChangedError(f"{self._to}/{name}: written by another publisher meanwhile") from e
                raise

    def remove(self, name: str) -> None:
        """See `urlward.publish.place.Place.remove`."""
        with self._told():
            self._files.call_s3("delete_object", **self._object(name))

    def names(self, folder: str) -> list[str]:
        """See `urlward.publish.place.Place.names`."""
        with self._told():
            found = self._files.find(f"{self._bucket}/{self._prefix}{folder}", maxdepth=1)
        if not found:
            self.read(_PROBE)  # a bucket that is not there has no names either, and that is an error
        return sorted(path.rpartition("/")[2] for path in found)

    def prepare(self) -> None:
        """See `urlward.publish.place.Place.prepare`: a store that does not know conditions ignores them, and
        writes over whatever is there."""
        with suppress(ChangedError):
            if self.read(_PROBE) is None:
                self.write(_PROBE, b"", NEW)
        for over in (NEW, _NO_TAG):
            with suppress(ChangedError):
                self.write(_PROBE, b"", over)
                raise PlaceError(f"{self._to}: the store ignores If-Match or If-None-Match: not published to")

    def _object(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{name}"}

    def _body(self, answer: Any) -> bytes:
        from fsspec.asyn import sync

        async def read() -> bytes:
            async with answer["Body"] as body:
                data: bytes = await body.read()
                return data

        whole: bytes = sync(self._files.loop, read)
        return whole

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._failures as e:
            # What a store answers could quote what it was sent; botocore's own words name its address.
            words = _code(e) or getattr(e, "strerror", None) or type(e).__name__
            raise PlaceError(f"{self._to}: {words}") from e


def _code(error: BaseException) -> str:
    """Code of the store's answer; empty where it has given none."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
