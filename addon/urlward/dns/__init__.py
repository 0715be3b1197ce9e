"""Resolver in front of the resolver."""
