"""``python -m urlward``: the same as the command ``urlward``."""

from urlward.start import main

main()
