"""What is known about other people's models: their shapes, what was tried, which pairs suit each other."""
