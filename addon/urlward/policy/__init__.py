"""Policy: who is filtered how."""
