"""The engine: canonical URLs, keyed digests, the automaton, verdicts. Pure: bytes in, verdict out."""
