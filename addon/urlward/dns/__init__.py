"""DNS proxy in front of the network's resolver."""
