from urlward.engine.errors import UrlError as UrlError
from urlward.engine.errors import UrlwardError as UrlwardError
from urlward.engine.verdict import Verdict as Verdict
from urlward.library import Filter as Filter

__all__ = ["Filter", "UrlError", "UrlwardError", "Verdict"]
__version__: str
