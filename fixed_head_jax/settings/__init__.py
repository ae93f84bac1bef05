"""What a user sets: names, options, configs and command lines, and what they may be."""
