"""The pilot lab: a whole network on one machine, and what a list would have blocked."""
