"""Library: decisions on URLs for other programs, by a filter's lists and policy (`urlward.Filter`)."""

import asyncio
import os
import selectors
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from urlward.config import Config, read_config
from urlward.engine.entry import ALGORITHMS
from urlward.engine.errors import UrlError, UrlwardError, fault_text
from urlward.engine.matcher import EXACT
from urlward.engine.url import split_authority
from urlward.engine.verdict import Decide, Verdict, decide
from urlward.feeds.keeper import Keeper
from urlward.feeds.setup import configured_keeper, make_neighbours, make_policy
from urlward.lasting import lasting
from urlward.lists.formats import AUTO
from urlward.lists.source import ErrorBudget, SourceError, read_budget
from urlward.policy.neighbours import Neighbours
from urlward.policy.policy import Policy
from urlward.progress import Progress, silent


class Filter:
    """Lists, and the policy on them, that stay up to date: `Filter.load` makes one.

    May be used from any number of threads. A changed list comes into force by itself, as in ``urlward run``;
    a bad one never takes a good one's place, and the log (`logging`, ``urlward.lists``) says so. What takes
    changes in is a thread, which a fork does not have, and a lock may be held for good there: a process uses
    the filter that it has loaded, and none of the process that it was forked from.
    """

    def __init__(self, keeper: Keeper, policy: Policy | None, neighbours: Neighbours | None) -> None:
        self.keeper = keeper
        self.policy = policy
        self._neighbours = neighbours
        self._process = os.getpid()
        self._lock = threading.Lock()
        keeper.on_unused = self._wait_for_decisions
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._reloading = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def load(
        cls,
        *lists: str | Path,
        config: str | Path | Config | None = None,
        key: str | Path | None = None,
        trust: str | Path | Sequence[str | Path] = (),
        format: str = AUTO,  # noqa: A002 - the word
        max_errors: int | str | ErrorBudget | None = None,
        follow: bool = True,
        progress: Progress = silent,
    ) -> "Filter":
        """Load lists.

        Args:
            lists: sources and artifacts, in place of those of the configuration.
            config: of the filter, whose lists, feeds and policy count. Feeds are those that have been fetched
                into the state folder, by the filter or by ``urlward feeds refresh``.
            key: key file of the lists; of an artifact the one beside it, where not given.
            trust: public key, or several and rotation statements, of who may have signed them.
            format: of the sources (``urlward help formats``).
            max_errors: bad lines allowed in a source, a number or a percentage; 1 % where not given.
            follow: whether changed lists come into force by themselves; else at `reload` alone.
            progress: told how far it is.

        Raises:
            UrlwardError: a list, a key or the configuration cannot be used. Its text is one line, and quotes
                no entry.
        """
        if isinstance(config, Config):
            read = config
        else:
            read = Config() if config is None else read_config(Path(config))
        if not lists and not read.list and not read.feed:
            raise SourceError("no list: name one, or a configuration that does")
        if max_errors is None or isinstance(max_errors, ErrorBudget):
            budget = max_errors
        else:
            budget = read_budget(str(max_errors), "max_errors")
        keeper = configured_keeper(
            read,
            [Path(path) for path in lists],
            key_file=Path(key) if key else None,
            trust=[str(each) for each in ([trust] if isinstance(trust, str | Path) else trust or ())],
            budget=budget,
            format=format,
        )
        keeper.load(progress)
        neighbours = make_neighbours(read)
        if neighbours is not None:
            neighbours.refresh()
        made = cls(keeper, make_policy(read, keeper, neighbours), neighbours)
        if follow:
            made._follow()
        return made

    def check(
        self, url: str | bytes, client: str | None = None, at: datetime | float | None = None
    ) -> Verdict:
        """Decide on a URL.

        Args:
            url: as the client sends it: the path's spelling matters to an origin.
            client: its address, for policies that have groups.
            at: time, in UTC where it names no zone, or seconds since 1970-01-01 UTC; now where not given.

        Returns:
            Verdict, whose `blocked` is True where it is to be blocked.

        Raises:
            UrlError: no URL with a host, or one that cannot be judged; who filters refuses it.
            UrlwardError: the filter was loaded before a fork.
        """
        try:
            raw = url.encode(errors="surrogateescape") if isinstance(url, str) else url
        except UnicodeEncodeError as e:
            raise UrlError("a surrogate, which stands for no character and no byte") from e
        return self._decided(client, at, lambda now, rule: self.keeper.matcher.check_url(raw, now, rule))

    def check_host(
        self, authority: str, client: str | None = None, at: datetime | float | None = None
    ) -> Verdict:
        """Decide on a host alone, as for CONNECT or a TLS connection: entries of single pages do not count.

        Args:
            authority: host, or host and port with a colon between.
            client: as for `check`.
            at: as for `check`.

        Raises:
            UrlError: no host, or one that cannot be judged.
            UrlwardError: the filter was loaded before a fork.
        """
        host, port = split_authority(authority)
        ports = () if port is None else (port,)
        return self._decided(
            client, at, lambda now, rule: self.keeper.matcher.check_host(host, ports, now, rule)
        )

    def check_file(
        self,
        digests: Mapping[str, bytes],
        client: str | None = None,
        at: datetime | float | None = None,
    ) -> Verdict:
        """Decide on a file by its digests.

        Args:
            digests: of the whole file, by algorithm: ``sha256``, ``sha1``, ``md5``.
            client: as for `check`.
            at: as for `check`.

        Raises:
            UrlwardError: no such algorithm, or no digest of its length, by which nothing could be found; or
                the filter was loaded before a fork.
        """
        for algorithm, digest in digests.items():
            if algorithm not in EXACT:
                raise UrlwardError(f"{algorithm!r}: no algorithm: {', '.join(EXACT)}")
            if not isinstance(digest, bytes | bytearray) or len(digest) != ALGORITHMS[algorithm]:
                raise UrlwardError(f"{algorithm}: not a digest, which has {ALGORITHMS[algorithm]} bytes")
        return self._decided(client, at, lambda now, rule: self.keeper.matcher.check_file(digests, now, rule))

    def reload(self) -> None:
        """Read the lists again now, and wait until they are in force.

        Raises:
            UrlwardError: one is bad; what was in force of it stays so, and the others are in force. Or the
                filter was loaded before a fork.
        """
        self._check_process()
        with self._reloading:
            if self._loop is None:
                with ThreadPoolExecutor(1, "urlward") as aside:  # in this thread a loop may run already
                    aside.submit(self._run, self.keeper.reload).result()
            else:
                asyncio.run_coroutine_threadsafe(self.keeper.reload(), self._loop).result()
        for name, reason in self.keeper.refused.items():
            raise UrlwardError(f"list {name}: {reason}")

    def close(self) -> None:
        """End its thread, behind a reload that is under way. What is in force stays so."""
        if not self._is_ours:
            return
        with self._reloading:
            loop, thread, task = self._loop, self._thread, self._task
            if loop is not None and thread is not None and task is not None:
                self._loop = None
                loop.call_soon_threadsafe(task.cancel)
                thread.join()

    def __enter__(self) -> "Filter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _is_ours(self) -> bool:
        """Whether this is the process that has loaded it, and none that was forked from that."""
        return self._process == os.getpid()

    def _check_process(self) -> None:
        if not self._is_ours:
            raise UrlwardError("this filter was loaded before a fork: load it in the process that uses it")

    def _decided(
        self,
        client: str | None,
        at: datetime | float | None,
        check: Callable[[float, Decide], Verdict],
    ) -> Verdict:
        self._check_process()
        now = time.time() if at is None else _seconds(at)
        with self._lock:  # caches of hosts and clients are not made for several threads
            rule = decide if self.policy is None else self.policy.view(client or "", now).decide
            return check(now, rule)

    def _run(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Do some work on an event loop, which is the same for good, since the keeper's locks are of one."""
        if self._own_loop is None:
            # Unlike epoll, poll has nothing in the kernel that the end of a forked process would take from
            # this one.
            self._own_loop = _Loop(selectors.PollSelector())
            weakref.finalize(self, _close, self._own_loop)
        self._own_loop.run_until_complete(work())

    def _wait_for_decisions(self) -> None:
        """Wait until no decision goes by the lists that were in force before."""
        with self._lock:
            pass

    def _follow(self) -> None:
        ready = threading.Event()
        errors: list[Exception] = []

        async def watch() -> None:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            ready.set()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(lasting("looking after the lists", self.keeper.watch))
                if self._neighbours is not None:
                    tasks.create_task(lasting("looking after neighbours", self._neighbours.watch))

        def run() -> None:
            try:
                self._run(watch)
            except asyncio.CancelledError:
                pass
            except Exception as e:  # noqa: BLE001 - such as a lack of descriptors, which its maker is told
                errors.append(e)
            finally:
                ready.set()

        self._thread = threading.Thread(target=run, name="urlward", daemon=True)
        self._thread.start()
        ready.wait()
        if errors:
            raise UrlwardError(f"lists cannot be followed: {fault_text(errors[0])}") from errors[0]


class _Loop(asyncio.SelectorEventLoop):
    """Event loop that a program may leave at its end: no thread is to be had then, which is no error."""

    def run_in_executor[*Args, T](
        self, executor: Executor | None, func: Callable[[*Args], T], *args: *Args
    ) -> asyncio.Future[T]:
        """As of any loop.

        Raises:
            CancelledError: the program ends.
        """
        try:
            return super().run_in_executor(executor, func, *args)
        except RuntimeError as e:
            if "shutdown" in str(e):  # and not that the system has no thread
                raise asyncio.CancelledError from None
            raise


def _close(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_running():  # as at the end of a process that has not closed its filter
        loop.close()


def _seconds(at: datetime | float) -> float:
    if not isinstance(at, datetime):
        return float(at)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
