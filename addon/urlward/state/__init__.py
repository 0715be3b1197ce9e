"""State folder: files written whole, locks, the audit log."""
