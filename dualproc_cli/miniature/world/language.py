"""What the miniature's VLM can be asked: kinds of questions and their wordings, in either polarity.

This module imports no torch, so that `dualproc check` stays fast.
"""

from dataclasses import dataclass

SUBJECTS = ("house", "tree", "ball", "lamp")

# What is true of a subject when its attribute is on, and when it is off.
ATTRIBUTES = {
    "house": ("lit", "dark"),
    "tree": ("bare", "leafy"),
    "ball": ("smiling", "sad"),
    "lamp": ("lit", "unlit"),
}


@dataclass(frozen=True)
class Wording:
    """A wording of a kind of question.

    Attributes:
        text: the question.
        kind: the kind of question, such as ``horizon`` or ``attribute house``.
        sign: 1, or -1 if it asks for the opposite of the kind.
    """

    text: str
    kind: str
    sign: int = 1


Wordings = tuple[tuple[str, ...], tuple[str, ...]]  # asking for a kind, and for its opposite

ABOUT_ALL: dict[str, Wordings] = {
    "horizon": (
        (
            "Is the horizon at the red line?",
            "Does the horizon lie on the red line?",
            "Is the red line at the horizon?",
        ),
        ("Is the horizon away from the red line?", "Is the red line away from the horizon?"),
    ),
    "horizon-above": (("Is the horizon above the red line?",), ("Is the horizon below the red line?",)),
    "palette": (
        (
            "Do the colors match the palette?",
            "Does the picture use the palette?",
            "Are the colors those of the palette?",
        ),
        ("Do the colors differ from the palette?",),
    ),
    "line-weight": (
        (
            "Are the outlines as thick as the red line?",
            "Do the outlines match the red line?",
            "Is the red line as thick as the outlines?",
        ),
        ("Do the outlines differ from the red line?",),
    ),
    "thicker": (
        ("Are the outlines thicker than the red line?",),
        ("Are the outlines thinner than the red line?",),
    ),
    "closer": (
        (
            "Is point A closer than point B?",
            "Is point A nearer than point B?",
            "Is point B farther than point A?",
        ),
        (
            "Is point B closer than point A?",
            "Is point A farther than point B?",
            "Is point B nearer than point A?",
        ),
    ),
    "night": (("Is it night?",), ("Is it day?",)),
    "winter": (("Is it winter?", "Is there snow?"), ("Is it summer?",)),
    "sea": (("Is there the sea?", "Is it by the sea?"), ()),
    "two": (("Are there two subjects?",), ("Is there one subject?",)),
    "clean": (
        ("Is the picture clean?", "Is the picture free of artefacts?", "Is the picture free of artifacts?"),
        ("Does the picture have artefacts?", "Does the picture have artifacts?"),
    ),
}
ABOUT_SUBJECT: dict[str, Wordings] = {  # {} is the subject's name
    "inside {}": (
        ("Is the {} inside the red box?", "Does the red box contain the {}?"),
        ("Is the {} outside the red box?",),
    ),
    "on-line {}": (
        ("Is the {} on the red line?", "Does the red line go through the {}?"),
        ("Is the {} away from the red line?",),
    ),
    "left {}": (("Is the {} left of the red line?",), ("Is the {} right of the red line?",)),
    "exists {}": (("Is there a {}?", "Does the picture show a {}?"), ()),
}
# Besides "Is the house lit?". The last ones need common sense: what suits an hour or a season, unnamed.
ABOUT_ATTRIBUTE: dict[str, Wordings] = {
    "house": (
        ("Is the window lit?", "Does the house look right for the night?"),
        ("Is the window dark?", "Does the house look right for the day?"),
    ),
    "tree": (
        ("Does the tree look right for winter?", "Is the tree as it should be in winter?"),
        ("Does the tree look right for summer?", "Is the tree as it should be in summer?"),
    ),
    "ball": (("Is the ball happy?",), ()),
    "lamp": (
        ("Is the lamp on?", "Does the lamp look right for the night?"),
        ("Is the lamp off?", "Does the lamp look right for the day?"),
    ),
}
OPEN = {
    "what": ("What is in the picture?", "What does the picture show?"),
    "time": ("What time is it?",),
    "season": ("What season is it?",),
    "count": ("How many subjects are there?",),
}


def _about(name: str) -> dict[str, Wordings]:
    """Return the wordings of all yes-no kinds about one subject."""
    found = {
        kind.format(name): (tuple(text.format(name) for text in yes), tuple(text.format(name) for text in no))
        for kind, (yes, no) in ABOUT_SUBJECT.items()
    }
    on, off = ATTRIBUTES[name]
    yes, no = ABOUT_ATTRIBUTE[name]
    found[f"attribute {name}"] = ((f"Is the {name} {on}?", *yes), (f"Is the {name} {off}?", *no))
    for other in SUBJECTS:
        if other != name:
            in_front, behind = f"Is the {name} in front of the {other}?", f"Is the {name} behind the {other}?"
            found[f"front {name} {other}"] = ((in_front,), (behind,))
    return found


def _wordings() -> tuple[Wording, ...]:
    kinds = dict(ABOUT_ALL)
    for name in SUBJECTS:
        kinds |= _about(name)
    yes_no = [
        Wording(text, kind, sign)
        for kind, (yes, no) in kinds.items()
        for sign, texts in ((1, yes), (-1, no))
        for text in texts
    ]
    return (*yes_no, *(Wording(text, kind) for kind, texts in OPEN.items() for text in texts))


WORDINGS = _wordings()
OPEN_KINDS = tuple(OPEN)
YES_NO_KINDS = tuple(dict.fromkeys(w.kind for w in WORDINGS if w.kind not in OPEN))
