"""Fleet: several nodes as one, by what they share on Valkey."""
