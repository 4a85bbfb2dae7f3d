"""The training of the miniature: ``python -m dualproc_cli.miniature.training NAME``."""
