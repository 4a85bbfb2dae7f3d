"""File names for prompts."""

import itertools
import re
from collections.abc import Sequence


def slugs(prompts: Sequence[str]) -> list[str]:
    """Return a different file name for each prompt, such as ``a-house-in-a-field``."""
    found: dict[str, None] = {}
    for prompt in prompts:
        words = re.sub(r"\W+", "-", prompt.lower()).strip("-")
        # At most 200 bytes of a prompt: file names may have 255, and the seed follows.
        slug = words.encode()[:200].decode(errors="ignore").strip("-") or "picture"
        names = itertools.chain([slug], (f"{slug}-{count}" for count in itertools.count(2)))
        found[next(name for name in names if name not in found)] = None
    return list(found)
