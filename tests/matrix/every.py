"""All generator families: the registry, after every module that adds to it."""

import dit  # noqa: F401
import dit_recent  # noqa: F401
import flow  # noqa: F401
import llm  # noqa: F401
import unet  # noqa: F401
from families import FAMILIES

__all__ = ["FAMILIES"]
