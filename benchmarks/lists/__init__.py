"""What a changed feed takes until it is in force, in full and as a delta, while requests go on.

A list body's server (nginx) with signed artifacts and deltas, an origin, the filter with the feed, and
a steady load. See `benchmarks/README.md`.
"""
