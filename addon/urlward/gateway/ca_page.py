"""Certificate page: static files from which users fetch the authority's certificate, for any web server."""

from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from urlward.config import Config
from urlward.gateway.ca import Authority
from urlward.gateway.errors import GatewayError
from urlward.lists.build import write_atomically

FILES = {"der": "urlward-ca.cer", "pem": "urlward-ca.pem", "p12": "urlward-ca.p12"}


def write_page(one: Authority, folder: Path, config: Config) -> Iterator[Path]:
    """Write the page and the certificate's files, and name each.

    Args:
        one: whose certificate.
        folder: made where it is missing.
        config: tells who runs the filter, and what is decrypted.

    Raises:
        GatewayError: the folder cannot be made.
        SourceError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder.samefile(one.folder):
            raise GatewayError(
                f"{folder}: the key is in there, and the page's folder is for everyone to read"
            )
    except OSError as e:
        raise GatewayError(f"{folder}: {e.strerror or e}") from e
    for form, name in FILES.items():
        write_atomically(folder / name, one.encoded(form))
        yield folder / name
    write_atomically(folder / "index.html", page(one, config).encode())
    yield folder / "index.html"


def page(one: Authority, config: Config) -> str:
    """The page, as HTML."""
    environment = Environment(
        loader=PackageLoader("urlward.gateway"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("ca.html.j2").render(
        operator=config.page.operator,
        everything=config.intercept == "all",
        shared=config.gateway.steered == "intercept",
        fingerprint=one.fingerprint,
        subject=one.certificate.subject.rfc4514_string(),
        begins=f"{one.certificate.not_valid_before_utc:%Y-%m-%d}",
        ends=f"{one.certificate.not_valid_after_utc:%Y-%m-%d}",
        files=FILES,
    )
