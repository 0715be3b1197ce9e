"""``[page]``: texts of the block page."""

from pydantic import Field

from urlward.config.tables import FileName, Table


class HelpLink(Table):
    """Help link shown on the block page."""

    label: str
    url: str


class PageTable(Table):
    """``[page]``: texts of the block page; see `urlward.proxy.block_page.BlockPageSettings`."""

    operator: str = ""
    authority_url: str | None = None
    objection: str | None = None
    help: tuple[HelpLink, ...] = Field(default=(), strict=False)
    template_dir: FileName | None = None
    default_language: str = "en"
    texts: dict[str, dict[str, str]] = Field(default={})
