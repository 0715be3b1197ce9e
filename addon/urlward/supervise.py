"""``urlward run``, as the process that supervises: what it holds while the filter runs, and its exit code."""

import sys
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from urlward.engine.errors import UrlwardError, fault_report
from urlward.lines import finish, say
from urlward.plan import Plan
from urlward.process import keep_private, module_command, open_standard_streams
from urlward.proxy.supervisor import ERROR, Rules, Supervisor

INTERRUPTED = 130

if TYPE_CHECKING:
    from collections.abc import Iterator


def supervise() -> NoReturn:
    """Run the filter that the command line describes, and exit."""
    keep_private()
    open_standard_streams()
    try:
        code = Supervisor(module_command("urlward", *sys.argv[1:]), beside).run()
    except UrlwardError as e:
        code = _failed(str(e))
    except BlockingIOError as e:
        code = _failed(f"no process can be started: {e.strerror or e}")
    except OSError as e:
        code = _failed(f"{e.filename}: {e.strerror}" if e.filename else e.strerror or str(e))
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as e:  # noqa: BLE001 - no traceback reaches a user
        code = _failed(fault_report(e))
    finish()
    sys.exit(code)


def _failed(text: str) -> int:
    say(f"urlward: {text}", warning=True)
    return ERROR


@contextmanager
def beside(plan: Plan) -> "Iterator[Rules]":
    """Hold what only one filter here may have, and watch a gateway's rules; gives these.

    Raises:
        UrlwardError: another filter steers here.
    """
    if not plan.steer and plan.watch is None:
        yield Rules()
        return
    # Most filters are no gateway, and need none of this.
    from urlward.gateway.rules_watch import RulesWatch, tell_manager
    from urlward.gateway.system import alone
    from urlward.gateway.table import NftError

    with alone() if plan.steer else nullcontext():
        if plan.watch is None:
            yield Rules()
            return
        watch = RulesWatch(tuple(plan.watch), partial(say, warning=True))
        watch.on_facts = tell_manager
        try:
            watch.start()
        except NftError as e:
            say(f"gateway: the rules are not watched: {e}", warning=True)
        try:
            yield Rules(lambda: watch.facts, watch.end)
        finally:
            watch.close()
