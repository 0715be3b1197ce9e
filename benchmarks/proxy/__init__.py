"""What the filter costs in the path of traffic, beside the proxies that could stand there instead.

Every proxy takes turns on one core, in transparent mode, between the same load and the same origin.
`python -m benchmarks.proxy` runs it; ``benchmarks/README.md`` says what is measured.
"""
