"""Options of a run, each declared once: a key of the configuration, a flag, and an option of the addon.

What a value may be, and what it is where nobody says it, is the configuration's (`urlward.config.Config`)
where that has the key. ``tls_block`` has the flag ``--tls-block``, and in the addon ``urlward_tls_block``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

from urlward.config import Config
from urlward.lists.formats import AUTO, FORMATS
from urlward.units import whole


def given_path(text: str) -> Path:
    """A path that an argument gives.

    Raises:
        argparse.ArgumentTypeError: it is empty, as of a variable that is not set, and would be this folder;
            or it is a URL, or stands for standard input or output.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError("a URL, and a file is needed: what is fetched is a [[feed]]")
    if text == "-":
        raise argparse.ArgumentTypeError("'-': name a file; ./- is the one that is called so")
    return Path(given_text(text))


def given_text(text: str) -> str:
    """A text that an argument gives; raises as `given_path`."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: give a value, or leave it out")
    return text


def given_number(text: str) -> int:
    """A whole number that an argument gives.

    Raises:
        argparse.ArgumentTypeError: something else.
    """
    try:
        return whole(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number") from None


class Option(NamedTuple):
    """Option of a run.

    Attributes:
        name: in the configuration, or as there.
        help: what it is; of a flag, with the default in brackets.
        kind: of its value: text, a number, a yes or no, a path, or a list of texts or paths.
        default: where nobody says it and the configuration has no such key.
        metavar: of the flag's value.
        choices: that there are, where the configuration names none.
        key: whether the configuration has it above its first table.
        flag: whether ``urlward run`` has a flag for it.
        addon: whether the addon has an option for it.
        of_lists: whether it says which lists there are.
    """

    name: str
    help: str
    kind: Any = str
    default: Any = ""
    metavar: str | None = None
    choices: Sequence[Any] = ()
    key: bool = True
    flag: bool = True
    addon: bool = True
    of_lists: bool = False

    @property
    def option(self) -> str:
        """Name of the addon's option."""
        return f"urlward_{self.name}"

    @property
    def initial(self) -> Any:
        """Value where nobody says it."""
        return Config.model_fields[self.name].default if self.key else self.default

    @property
    def known(self) -> Sequence[Any]:
        """Values that there are; empty where it may be any of its kind."""
        if self.choices or not self.key:
            return self.choices
        annotation = Config.model_fields[self.name].annotation
        return get_args(annotation) if get_origin(annotation) is Literal else ()

    @property
    def is_many(self) -> bool:
        """Whether it may be said several times."""
        return get_origin(self.kind) is list

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Declare the flag; its value is None where it is not given."""
        more: dict[str, Any] = {"help": self.help.replace("%", "%%")}
        if self.kind is bool:
            more["action"] = argparse.BooleanOptionalAction
        else:
            kind = get_args(self.kind)[0] if self.is_many else self.kind
            more["type"] = {Path: given_path, str: given_text, int: given_number}.get(kind, kind)
            more["action"] = "append" if self.is_many else "store"
        if not self.key and self.default:
            more["default"] = self.default
        if self.metavar is not None:
            more["metavar"] = self.metavar
        if self.known:
            more["choices"] = list(self.known)
        parser.add_argument(f"--{self.name.replace('_', '-')}", **more)

    def taken(self, args: argparse.Namespace, config: Config) -> Any:
        """Value of the flag, or else of the configuration's key, or else the one where nobody says it."""
        given = getattr(args, self.name)
        if given not in (None, "", []):
            return given
        return getattr(config, self.name) if self.key else self.default


LIST = Option("list", "source or artifact (the sample)", list[Path], metavar="PATH", of_lists=True)
FORMAT = Option(
    "format", f"of the sources: {', '.join(FORMATS)} ({AUTO}: told by their first lines)",
    default=AUTO, metavar="FORMAT", choices=tuple(FORMATS), key=False, of_lists=True,
)  # fmt: skip
KEY = Option("key", "the lists' key", Path, metavar="FILE", of_lists=True)
MAX_ERRORS = Option("max_errors", "bad lines allowed in a source (1%)", metavar="N|N%", of_lists=True)
TRUST = Option(
    "trust", "whose lists are taken: public key or rotation statement; may be repeated",
    list[str], metavar="PUBLIC", of_lists=True,
)  # fmt: skip

OPTIONS = (
    LIST, FORMAT, KEY, MAX_ERRORS, TRUST,
    Option("mode", "mitmproxy mode: regular, transparent, …", list[str], metavar="SPEC", addon=False),
    Option("listen", "address to listen on (127.0.0.1:8080)", metavar="HOST:PORT", addon=False),
    Option("workers", "processes (1)", int, metavar="N", addon=False),
    Option("intercept", "TLS connections to decrypt (listed)"),
    Option("tls_block", "what a host listed whole gets over TLS (page)"),
    Option("http2", "HTTP/2 inside intercepted TLS (yes)", bool),
    Option("other", "what is neither HTTP nor TLS (close)"),
    Option("on_error", "what a fault of the filter does (block)"),
    Option("status", "status of a blocked request (451)", int),
    Option("monitor", "block nothing, tell what would be (no)", bool),
    Option("steer", "answer DNS, filter what may be listed (no)", bool, None, key=False, addon=False),
    Option("admin", "where the dashboard is, of what is recorded", metavar="HOST:PORT", key=False),
    Option("confdir", "folder of the certificate authority (~/.mitmproxy)", metavar="DIR", addon=False),
    Option(
        "config", "TOML file; flags go before what it says", Path, None, "FILE", key=False, of_lists=True
    ),
    Option(
        "flows", "every request goes whole to mitmproxy's flows, where other addons see it: much slower",
        bool, True, key=False, flag=False,
    ),
    Option(
        "intercept_port", "port whose TLS connections are decrypted whatever host they name; 0 for none",
        int, 0, key=False, flag=False,
    ),
    Option(
        "keep_source",
        "transparent mode takes what TPROXY leads here, and goes on from the client's address",
        bool, False, key=False, flag=False,
    ),
)  # fmt: skip
"""All of them, in the order of the flags."""

FLAGS = {each.name: each for each in OPTIONS if each.flag}
OF_ADDON = [each for each in OPTIONS if each.addon]


def for_addon(value: Any) -> Any:
    """A value as the addon's option has it."""
    if value is None:
        return ""
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
