"""The grammar of the miniature's prompts: "a house in a field", "a ball in front of a house"."""

import re

import torch
from torch import Tensor

from dualproc_cli.miniature.world.scene import DAY, NIGHT, NOBODY, SEA, SUBJECTS, WINTER

PLACES = {
    "": DAY,
    "in a field": DAY,
    "in winter": WINTER,
    "in the snow": WINTER,
    "at night": NIGHT,
    "by the sea": SEA,
}
IN_FRONT = "in front of"
WORDS = tuple(sorted({"a", *SUBJECTS, *" ".join([*PLACES, IN_FRONT]).split()}))


def caption(near: int, far: int, place: str) -> str:
    """Return the prompt of one or two subjects.

    Args:
        near: index into SUBJECTS.
        far: index into SUBJECTS, or NOBODY for one subject.
        place: a key of PLACES, for one subject; prompts of two name no place.
    """
    if far != NOBODY:
        return f"a {SUBJECTS[near]} {IN_FRONT} a {SUBJECTS[far]}"
    return f"a {SUBJECTS[near]} {place}".rstrip()


def captions(kind: Tensor, look: Tensor, generator: torch.Generator) -> list[str]:
    """Write a prompt for each scene.

    Args:
        kind: [B, 2] index into SUBJECTS, or NOBODY.
        look: [B] index into LOOKS; of the places that look so, one is drawn at random.
        generator: random numbers, B of which are drawn.
    """
    alike = {which: [place for place, shown in PLACES.items() if shown == which] for which in PLACES.values()}
    draws = torch.rand(len(look), generator=generator).tolist()
    return [
        caption(near, far, alike[which][int(draw * len(alike[which]))])
        for (near, far), which, draw in zip(kind.tolist(), look.tolist(), draws, strict=True)
    ]


def describe(near: int, far: int) -> str:
    """Name the subjects of a picture: "a house", "a ball and a house"."""
    return " and ".join(f"a {SUBJECTS[kind]}" for kind in (near, far) if kind != NOBODY)


def words(prompt: str) -> list[str]:
    """Split a prompt into lower-case words, as the tokenizer does."""
    return re.findall(r"[a-z]+", prompt.lower())


def unknown_words(prompt: str) -> list[str]:
    """Return the words of a prompt that the miniature's generator was not trained on."""
    return [word for word in words(prompt) if word not in WORDS]


def parse(prompt: str) -> tuple[int, int, int] | None:
    """Return (near, far, look) of a prompt of the grammar, None for any other text."""
    found = re.fullmatch(rf"a (\w+)(?: {IN_FRONT} a (\w+)| (.+))?", " ".join(words(prompt)))
    if not found or found[1] not in SUBJECTS or (found[2] and found[2] not in SUBJECTS):
        return None
    if (found[3] or "") not in PLACES:
        return None
    far = SUBJECTS.index(found[2]) if found[2] else NOBODY
    return SUBJECTS.index(found[1]), far, PLACES[found[3] or ""]
