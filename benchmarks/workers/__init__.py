"""What several workers cost in memory, and how long a changed list takes to reach all of them.

``urlward run`` over the same list with one, two and four workers.
"""
