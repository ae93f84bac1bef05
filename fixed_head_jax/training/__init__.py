"""One run: from its config to the trained state."""
