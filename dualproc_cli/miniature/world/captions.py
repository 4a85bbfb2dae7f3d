"""The little language of the miniature's prompts."""

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
    """The prompt of one or two subjects (indices into SUBJECTS, far NOBODY for one) at a place of PLACES."""
    if far != NOBODY:
        return f"a {SUBJECTS[near]} {IN_FRONT} a {SUBJECTS[far]}"
    return f"a {SUBJECTS[near]} {place}".rstrip()


def captions(kind: Tensor, look: Tensor, generator: torch.Generator) -> list[str]:
    """A prompt for each scene, one of the places that look the same drawn at random."""
    alike = {which: [place for place, shown in PLACES.items() if shown == which] for which in PLACES.values()}
    draws = torch.rand(len(look), generator=generator).tolist()
    return [
        caption(near, far, alike[which][int(draw * len(alike[which]))])
        for (near, far), which, draw in zip(kind.tolist(), look.tolist(), draws, strict=True)
    ]


def describe(near: int, far: int) -> str:
    """What is in the picture: "a house", "a ball and a house"."""
    return " and ".join(f"a {SUBJECTS[kind]}" for kind in (near, far) if kind != NOBODY)


def words(prompt: str) -> list[str]:
    """The prompt's words as the tokenizer sees them."""
    return re.findall(r"[a-z]+", prompt.lower())


def unknown_words(prompt: str) -> list[str]:
    """The words of a prompt that the miniature's generator has never seen."""
    return [word for word in words(prompt) if word not in WORDS]


def parse(prompt: str) -> tuple[int, int, int] | None:
    """(near, far, look) of a prompt of the grammar, None for any other text."""
    found = re.fullmatch(rf"a (\w+)(?: {IN_FRONT} a (\w+)| (.+))?", " ".join(words(prompt)))
    if not found or found[1] not in SUBJECTS or (found[2] and found[2] not in SUBJECTS):
        return None
    if (found[3] or "") not in PLACES:
        return None
    far = SUBJECTS.index(found[2]) if found[2] else NOBODY
    return SUBJECTS.index(found[1]), far, PLACES[found[3] or ""]
