"""What a DNS answer waits for other nodes, and what it takes a node to join."""
