"""What several workers cost in memory, and how long a changed list takes to reach all of them.

``urlward run`` over the same list with one, two and four workers, each once as it is and once with
``URLWARD_PRIVATE`` set, which is how it would be if each worker kept lists of its own.
"""
