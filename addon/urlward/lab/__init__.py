"""The pilot lab: a whole network on one machine."""
