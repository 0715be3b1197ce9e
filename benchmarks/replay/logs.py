"""Access logs of invented requests."""

import gzip
import random
import subprocess
import time
from itertools import accumulate
from pathlib import Path

from benchmarks.workload import Workload

HOSTS = PATHS = 100_000
CONNECTS = 0.25
"""Of Squid's lines."""

_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML) Chrome/130.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
)


def requests(count: int) -> list[tuple[str, str]]:
    """Pairs of host and target: a few hosts have very many of them, a path goes with any host."""
    r = random.Random(3)
    workload = Workload(2)
    hosts = [("www." if r.random() < 0.3 else "") + workload.host() for _ in range(HOSTS)]
    targets = [workload.path() + (f"?{workload.query()}" if r.random() < 0.4 else "") for _ in range(PATHS)]
    crowds = list(accumulate(1 / (rank + 20) for rank in range(len(hosts))))
    return list(zip(r.choices(hosts, cum_weights=crowds, k=count), r.choices(targets, k=count), strict=True))


def write(folder: Path, pairs: list[tuple[str, str]]) -> dict[str, Path]:
    """One log of each kind, by the name that results have."""
    r = random.Random(4)
    clients = [f"2001:db8::{number:x}" for number in range(4000)]
    names = ("squid", "combined", "csv", "urls")
    paths = {name: folder / f"{name}.log" for name in names}
    files = {name: path.open("w") for name, path in paths.items()}
    files["csv"].write("time,client,url,status\n")
    for number, (host, target) in enumerate(pairs):
        now = 1_795_597_200 + number * 0.04
        client, status, size = r.choice(clients), r.choice((200, 200, 200, 304, 404)), r.randint(100, 99_999)
        peer = f"HIER_DIRECT/203.0.113.{number & 255}"
        if r.random() < CONNECTS:
            line = f"TCP_TUNNEL/200 {size} CONNECT {host}:443 - {peer} -"
        else:
            line = f"TCP_MISS/{status} {size} GET http://{host}{target} - {peer} text/html"
        files["squid"].write(f"{now:.3f} {size % 5000:6} {client} {line}\n")
        when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now))
        files["combined"].write(
            f'{host}:80 {client} - - [{when}] "GET {target} HTTP/1.1" {status} {size} "http://{host}/" '
            f'"{_AGENTS[number & 1]}"\n'
        )
        files["csv"].write(f"{now:.3f},{client},http://{host}{target},{status}\n")
        files["urls"].write(f"http://{host}{target}\n")
    for file in files.values():
        file.close()
    for name in ("squid", "combined"):
        paths[f"{name} gz"] = folder / f"{name}.log.gz"
        paths[f"{name} gz"].write_bytes(gzip.compress(paths[name].read_bytes(), 6))
    paths["squid zst"] = folder / "squid.log.zst"
    subprocess.run(["zstd", "-q", paths["squid"], "-o", paths["squid zst"]], check=True)
    return paths
