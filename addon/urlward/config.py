"""The configuration file: all that the flags of ``urlward run`` say, and the block page's texts.

TOML, read strictly: a key that is not known, or a value that does not fit, is an error that names it,
since a misspelt safety setting that is silently ignored is no setting at all.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from urlward.engine.errors import UrlwardError

Intercept = Literal["listed", "all", "none"]
OnError = Literal["block", "pass"]


class ConfigError(UrlwardError):
    """A configuration that cannot be used; the message names file and key."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class HelpLink(_Table):
    """A place that helps, shown on the block page."""

    label: str
    url: str


class PageTable(_Table):
    """``[page]``: what the block page says; see `urlward.proxy.block_page.BlockPageSettings`."""

    operator: str = ""
    authority_url: str | None = None
    objection: str | None = None
    help: tuple[HelpLink, ...] = Field(default=(), strict=False)
    template_dir: str | None = None
    default_language: str = "en"
    texts: dict[str, dict[str, str]] = {}


class Config(_Table):
    """The whole file."""

    list: tuple[str, ...] = Field(default=(), strict=False)
    key: str | None = None
    max_errors: str = "1%"
    mode: tuple[str, ...] = Field(default=(), strict=False)
    listen: str | None = None
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    intercept: Intercept = "listed"
    on_error: OnError = "block"
    status: Literal[451, 403] = 451
    confdir: str | None = None
    page: PageTable = PageTable()
    mitmproxy: dict[str, str | int | bool] = {}


def read_config(path: Path) -> Config:
    """Read and check a configuration file; relative paths in it are from its own folder.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key or a value that does not fit.
    """
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror or e}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: not TOML: {e}") from e
    try:
        config = Config.model_validate(data)
    except ValidationError as e:
        raise ConfigError(f"{path}: {describe(e)}") from e
    return _resolved(config, path.resolve().parent)


def describe(error: ValidationError) -> str:
    """The first fault in one line, by the name of its key."""
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{key}: no such key"
    return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _resolved(config: Config, folder: Path) -> Config:
    def at(value: str | None) -> str | None:
        return None if value is None else str(folder / Path(value).expanduser())

    changes: dict[str, Any] = {
        "list": tuple(str(at(path)) for path in config.list),
        "key": at(config.key),
        "confdir": at(config.confdir),
        "page": config.page.model_copy(update={"template_dir": at(config.page.template_dir)}),
    }
    return config.model_copy(update=changes)
