"""Finding models, building them from a configuration, and quantising their weights."""
