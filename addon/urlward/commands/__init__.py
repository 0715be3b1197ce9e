"""Commands: one module a command group."""
