"""How fast, how large and how smooth the engine is, beside others that could do its work.

Every engine gets the same entries, translated to its own syntax, and the same requests, and says
block or not. `python -m benchmarks.engine` runs it; ``benchmarks/README.md`` says what is measured.
"""
