"""Training of the miniature: ``python -m dualproc_cli.miniature.train autoencoder|generator|vlm|reader``."""
