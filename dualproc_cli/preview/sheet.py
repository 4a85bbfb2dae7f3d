"""The pictures that a VLM would be asked about, with their overlays, as it sees them."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from PIL import Image
from torch import Tensor

from dualproc_cli.compiler import View
from dualproc_cli.pictures import Section, Strip, labelled_grid
from dualproc_cli.preview.altering import altered_views
from dualproc_cli.preview.asking import NOTHING, Asked, nothing
from dualproc_cli.spec import LoadedSpec
from dualproc_cli.vlm import Vlm, seen_by

SHOWN = 6  # pictures in a row


def preview_sheet(asked: Sequence[Asked], images: Tensor, loaded: LoadedSpec, vlm: Vlm) -> Image.Image:
    """Lay out what the VLM sees, a section for each view: base pictures, blank ones, altered visual prompts.

    Under each picture is P(answer) of the view's first question.

    Args:
        asked: the questions, view by view.
        images: the base pictures [N, 3, H, W] in [0, 1].
        loaded: the spec.
        vlm: whose processor resizes the pictures.
    """
    views = [next(group) for _, group in groupby(asked, key=lambda one: id(one.view))]
    return labelled_grid([_section(one, images, loaded, vlm) for one in views])


def _section(asked: Asked, images: Tensor, loaded: LoadedSpec, vlm: Vlm) -> Section:
    strips = list(_strips(asked, images, loaded, vlm))
    height, width = strips[0].images.shape[-2:]
    what = asked.question.visual_prompt or "no visual prompt"
    caption = (
        f"{what}, as the VLM sees it ({width} x {height} pixels); below, P({asked.question.answer}) of "
        f"{asked.question.question}"
    )
    return Section(caption, strips)


def _strips(asked: Asked, images: Tensor, loaded: LoadedSpec, vlm: Vlm) -> Iterator[Strip]:
    view = asked.view
    shown = images[:SHOWN]
    yield Strip("base", _seen([view] * len(shown), shown, vlm), _notes(asked.pictures.probability[0, :SHOWN]))
    if asked.altered:
        others = altered_views(view, loaded)
        answers = torch.stack([asked.altered[how].probability[0, 0] for how in others])
        if view.beside is None:
            yield Strip(
                "altered", _seen(list(others.values()), images[:1], vlm), _notes(answers, list(others))
            )
        else:
            besides = [one.beside for one in (view, *others.values()) if one.beside is not None]
            seen = torch.stack([seen_by(vlm.processor, one).cpu() for one in besides])
            first = asked.pictures.probability[0, :1]
            yield Strip("beside", seen, _notes(torch.cat([first, answers]), ["as it is", *others]))
    yield Strip(
        "nothing", _seen([view] * 2, nothing(images), vlm), _notes(asked.nothing.probability[0], NOTHING)
    )


def _seen(views: Sequence[View], images: Tensor, vlm: Vlm) -> Tensor:
    """Return images, or a single one for all views, as the VLM sees them in ``views``: [N, 3, h, w]."""
    pictures = images.expand(len(views), -1, -1, -1).split(1)
    shown = [view.show(view.overlaid(image))[0] for view, image in zip(views, pictures, strict=True)]
    return torch.stack([seen_by(vlm.processor, one).cpu() for one in shown])


def _notes(probabilities: Tensor, names: Sequence[str] = ()) -> list[str]:
    numbers = [f"{value:.3f}" for value in probabilities.tolist()]
    return [f"{name}: {number}" for name, number in zip(names, numbers, strict=True)] if names else numbers
