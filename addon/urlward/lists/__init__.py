"""Lists: reading sources, compiling them, keeping the snapshot in force up to date."""
