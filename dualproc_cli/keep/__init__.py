"""What holds pictures to the base generator's from the same noise: the terms of ``learn.keep``."""

from dualproc_cli.keep.distance import distance

__all__ = ["distance"]
