import shutil
from collections.abc import Iterator

import pytest

from lists.feed_support import Server, server


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An nginx for the module's tests, with nothing in it."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    with server(tmp_path_factory.mktemp("nginx")) as made:
        yield made


@pytest.fixture
def site(nginx: Server) -> Server:
    """The same, with nothing left of the test before."""
    for path in (nginx.folder / "www").rglob("feed*"):
        path.unlink()
    nginx.seen()
    return nginx
