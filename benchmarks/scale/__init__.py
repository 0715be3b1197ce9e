"""What a provider of a given size needs, computed from what the other benchmarks have measured."""
