"""What happened, who had an address when, and what is counted: kept as long as it may be, and shown."""
