"""The image for containers: linted, built on a base made here, and run without root, without writing to it.

No registry of images is asked: the base is a Debian that mmdebstrap makes, as Debian's own image is.
"""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from conftest import wait_for
from docs.documents import DOCS, ROOT
from install.machine import forbidden, without
from urlward.config import read_config

FOLDER = ROOT / "packaging/container"
CONTAINERFILE = FOLDER / "Containerfile"
CLIENT = """\
import http.client
connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
connection.request("GET", "http://blocked.example/")
print(connection.getresponse().status)
"""


def test_the_containerfile_is_as_hadolint_wants_it() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    # Versions of Debian's packages are the base's; its suite is named there.
    done = subprocess.run(
        [linter, "--ignore", "DL3008", CONTAINERFILE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def compose() -> dict[str, dict[str, dict[str, object]]]:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())  # type: ignore[no-any-return]


def test_compose_names_what_there_is() -> None:
    described = compose()
    services, secrets, volumes = described["services"], described["secrets"], described["volumes"]
    for service in services.values():
        assert set(service.get("secrets", [])) <= set(secrets)
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in volumes or (FOLDER / source).is_file(), volume
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), "nobody else's yet"
    build = services["urlward"]["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).resolve() == CONTAINERFILE
    assert services["urlward"]["read_only"]
    assert services["urlward"]["cap_drop"] == ["ALL"]
    assert services["urlward"]["hostname"], "another node's records with each upgrade"


def test_the_configuration_beside_it_is_one(tmp_path: Path) -> None:
    config = read_config(FOLDER / "urlward.toml")
    services = compose()["services"]
    own = set(services["urlward"]["secrets"]) - set(services["prometheus"]["secrets"])
    mounted = {f"/run/secrets/{name}" for name in own}
    assert config.records is not None
    assert config.admin is not None
    assert {config.records.store[0].url_file, config.admin.token_file} == mounted
    assert config.admin.listen.endswith(":8088")
    started = CONTAINERFILE.read_text().split("--confdir")[-1]
    assert f'"{config.confdir}"' in started, "what `run --check` and `doctor` look at"


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    token = tmp_path / "admin.token"
    token.write_text("token")
    text = (FOLDER / "prometheus.yml").read_text().replace("/run/secrets/prometheus.token", str(token))
    (tmp_path / "prometheus.yml").write_text(text)
    alerts = ROOT / "addon/urlward/records/files/urlward-alerts.yml"
    shutil.copy(alerts, tmp_path)
    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rules = alerts.read_text().count("- alert: ")
    assert f"SUCCESS: {rules} rules found" in done.stdout, "the alert rules"


# -- the image, which has in it what the package's tests see in the other turn

IN_TURN = pytest.mark.turn(0, 2)

DOCUMENTED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all")
"""How the page runs it: with no more of its own to write to, which podman alone would add."""


def test_the_page_says_how_it_is_run_here() -> None:
    (line,) = [line for line in (DOCS / "install.md").read_text().splitlines() if "podman run" in line]
    assert " ".join(DOCUMENTED) in line


CGROUPS = 'umount -qR /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"'
"""Before podman, in a mount namespace: crun wants version 2 alone, which a machine may have beside 1."""


class Podman:
    """podman with a store of images of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._options = [
            "unshare", "--mount", "--propagation", "private", "sh", "-c", CGROUPS, "podman",
            "podman", "--root", str(folder / "store"), "--runroot", str(folder / "run"),
            "--tmpdir", str(folder / "tmp"),
            "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
        ]  # fmt: skip
        # Those that podman would set are beyond what a machine may allow root.
        self.limits = [
            option
            for name, limit in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
            for option in ("--ulimit", "{0}={1}:{1}".format(name, resource.getrlimit(limit)[1]))
        ]

    def run(self, *arguments: object, code: int | None = 0) -> str:
        done = subprocess.run(
            [*self._options, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=400
        )
        assert code is None or done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def ends(self, *arguments: object) -> int:
        return subprocess.run(
            [*self._options, *map(str, arguments)], capture_output=True, check=False, timeout=400
        ).returncode


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    if (reason := without()) or shutil.which("podman") is None:
        pytest.skip(reason or "needs podman")
    if reason := forbidden():
        pytest.xfail(reason)
    made = Podman(tmp_path_factory.mktemp("podman"))
    yield made

    def gone() -> bool:
        # What podman starts at a container's end may be at work yet.
        shutil.rmtree(made.folder, ignore_errors=True)
        return not made.folder.exists()

    wait_for(gone, "the images' folder to be gone")


@pytest.fixture(scope="module")
def image(podman: Podman, base: Path, package: Path) -> str:
    podman.run("import", base, "localhost/base")
    context = podman.folder / "dist"
    context.mkdir()
    (context / package.name).hardlink_to(package)
    podman.run(
        "build", "-q", *podman.limits, "--format", "docker", "--network", "none",
        "--build-arg", "BASE=localhost/base", "-t", "localhost/urlward", "-f", CONTAINERFILE, context,
    )  # fmt: skip
    return "localhost/urlward"


@pytest.fixture(scope="module")
def container(podman: Podman, image: str) -> Iterator[str]:
    podman.run(
        "run", "-d", "--name", "urlward", *DOCUMENTED, "--read-only-tmpfs=false",
        "--security-opt", "no-new-privileges", "--network", "none", "--cgroups", "disabled",
        "--pids-limit=-1", *podman.limits, "-v", "state:/var/lib/urlward", image,
    )  # fmt: skip
    yield "urlward"
    podman.run("rm", "-f", "urlward", code=None)


@pytest.mark.long
@IN_TURN
def test_it_filters_and_is_healthy(podman: Podman, container: str) -> None:
    wait_for(lambda: podman.ends("healthcheck", "run", container) == 0, "it to be healthy")
    assert podman.run("exec", container, "/usr/lib/urlward/bin/python", "-c", CLIENT) == "451\n"
    assert podman.run("exec", container, "urlward", "metrics", "show").count("urlward_blocks_total{") >= 1


@pytest.mark.long
@IN_TURN
def test_it_is_nobody_in_particular_and_changes_nothing_of_its_image(podman: Podman, container: str) -> None:
    (described,) = json.loads(podman.run("inspect", container))
    assert described["Config"]["User"] == "10080:10080"
    assert podman.run("exec", container, "id", "-u") == "10080\n"
    assert podman.ends("exec", container, "touch", "/etc/urlward/x") != 0
    assert "admin.token" in podman.run("exec", container, "ls", "/var/lib/urlward")
    assert "CapEff:\t0000000000000000\n" in podman.run("exec", container, "cat", "/proc/1/status")


@pytest.mark.long
@IN_TURN
def test_it_ends_when_it_is_told_to_and_begins_with_what_it_had(podman: Podman, container: str) -> None:
    token = podman.run("exec", container, "cat", "/var/lib/urlward/admin.token")
    podman.run("stop", "-t", "30", container)
    (described,) = json.loads(podman.run("inspect", container))
    assert described["State"]["ExitCode"] == 0
    podman.run("start", container)
    wait_for(lambda: podman.ends("exec", container, "urlward", "status") == 0, "all to be well")
    assert podman.run("exec", container, "cat", "/var/lib/urlward/admin.token") == token
