"""Models on the way in: where they are, how they are built from a configuration, quantised weights."""
