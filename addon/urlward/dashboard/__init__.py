"""The dashboard: what the filter does now and did before, and what an operator may change of it."""
