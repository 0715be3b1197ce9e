"""Tables that one test goes through, row by row: as `pytest.mark.parametrize`, at the cost of one test."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

type _Test = Callable[..., Any]


def each_row(
    names: str | Sequence[str], table: Iterable[Any], *, ids: Callable[[Any], object] | Sequence[str] = repr
) -> Callable[[_Test], _Test]:
    """Each row is tried, whatever becomes of the others, and each that fails is told by its values.

    For what is tried by the hundred within milliseconds; what takes longer, or sets up much, is for
    `parametrize`. Fixtures are shared by rows, except that each has a `tmp_path` of its own, and a
    `monkeypatch`, `capsys` and `caplog` with nothing in it of the row before.

    Args:
        names: arguments, as `parametrize` has them.
        table: their values: tuples where there are several names.
        ids: what a value is called, or what each row is, where a `repr` is not what tells it.
    """
    wanted = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    given = [dict(zip(wanted, _values(row, len(wanted)), strict=True)) for row in table]
    assert given, "no rows"
    assert callable(ids) or len(ids) == len(given), "a name for each row"

    def decorated(test: _Test) -> _Test:
        signature = inspect.signature(test)
        assert not hasattr(test, "hypothesis"), "it would be given rows as examples"
        left = [parameter for name, parameter in signature.parameters.items() if name not in wanted]
        assert len(left) + len(wanted) == len(signature.parameters), f"not all of {wanted} are taken"

        @functools.wraps(test)
        def one_after_another(*args: object, **fixtures: object) -> None:
            __tracebackhide__ = True
            with _Rows(given, ids) as tried:
                for number, row in enumerate(given):
                    with tried.row(number), _own(fixtures, number) as own:
                        test(*args, **own, **row)

        @functools.wraps(test)
        async def awaited(*args: object, **fixtures: object) -> None:
            __tracebackhide__ = True
            with _Rows(given, ids) as tried:
                for number, row in enumerate(given):
                    with tried.row(number), _own(fixtures, number) as own:
                        await test(*args, **own, **row)

        through: Any = awaited if inspect.iscoroutinefunction(test) else one_after_another
        through.__signature__ = signature.replace(parameters=left)
        return through  # type: ignore[no-any-return]

    return decorated


def _values(row: Any, count: int) -> Sequence[Any]:
    if isinstance(row, type(pytest.param())):
        assert not row.marks, "a row cannot be marked"
        return row.values
    return row if count > 1 else (row,)


@contextmanager
def _own(fixtures: Mapping[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """Those that a row has to itself."""
    own = dict(fixtures)
    with ExitStack() as stack:
        if "tmp_path" in own:
            own["tmp_path"] /= str(number)
            own["tmp_path"].mkdir()
        if "monkeypatch" in own:
            own["monkeypatch"] = stack.enter_context(pytest.MonkeyPatch.context())
        if "capsys" in own:
            own["capsys"].readouterr()
        if "caplog" in own:
            own["caplog"].clear()
        yield own


class _Rows:
    """What became of them; as its block ends the test fails where one has."""

    def __init__(
        self, table: Sequence[Mapping[str, Any]], ids: Callable[[Any], object] | Sequence[str]
    ) -> None:
        self._table = table
        self._ids = ids
        self._failed: list[str] = []

    @contextmanager
    def row(self, number: int) -> Iterator[None]:
        __tracebackhide__ = True
        try:
            yield
        except (Exception, SystemExit, pytest.fail.Exception, pytest.skip.Exception) as error:
            if str(error).startswith("Timeout (>"):  # pytest's own, which comes once
                raise
            said = pytest.ExceptionInfo.from_exception(error).getrepr(style="short")
            self._failed.append(f"-- {self._name(number)}\n{said}\n")

    def _name(self, number: int) -> str:
        if not callable(name := self._ids):
            return name[number]
        return ", ".join(f"{key}={name(value)!s:.300}" for key, value in self._table[number].items())

    def __enter__(self) -> "_Rows":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._failed:
            said = "\n".join(self._failed)
            pytest.fail(f"{len(self._failed)} of {len(self._table)} rows:\n{said}", pytrace=False)
