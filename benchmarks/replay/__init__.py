"""What replaying access logs takes, for each kind of log.

    uv run python -m benchmarks.replay [--quick]

Beside it, in the same rounds, the matcher alone: the same requests, split into host and target beforehand,
in as many processes.
"""
