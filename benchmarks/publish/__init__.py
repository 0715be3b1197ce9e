"""What a thousand nodes that follow one list cost its server, and when they have a change.

A publisher's folder, an nginx with one worker, and nodes that ask as real ones do. See
`benchmarks/README.md`.
"""
