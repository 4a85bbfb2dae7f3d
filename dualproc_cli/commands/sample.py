"""``dualproc sample``: draw pictures, with learned controls or without."""

from pathlib import Path
from typing import Annotated

import typer

from dualproc_cli.commands.options import Device
from dualproc_cli.errors import UserError
from dualproc_cli.files import require_writable
from dualproc_cli.models.source import require_models
from dualproc_cli.spec.models import MINIATURE

PICTURES = Path("pictures")


def sample(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROMPT]...",
            help="What to draw; by default the prompts that the control was learned on.",
        ),
    ] = None,
    controls: Annotated[
        list[str] | None,
        typer.Option(
            "--control",
            metavar="BUNDLE[@SCALE]",
            help="A bundle (folder or .zip) and its strength, by default 1; several add up.",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("-n", metavar="N", min=1, max=100_000, help="Pictures per prompt.")
    ] = 1,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**62, metavar="S", help="Seed of the first picture; then S + 1 ..."),
    ] = 0,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=1000, metavar="N", help="Denoising steps; by default the control's."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder of the pictures; by default pictures/<names of the controls>.",
        ),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also write all pictures as one, grid.png.")] = False,
    device: Device = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="Generator if no control is given; by default the miniature."
        ),
    ] = None,
) -> None:
    """Draw pictures with controls, or with the base generator.

    Example: dualproc sample "a ball in the snow" --control horizon-position.dualproc@0.8 -n 4
    """
    from dualproc_cli.sampling import BATCH, Control, default_prompts, generator_for

    chosen = [Control.parse(text) for text in controls or ()]
    spec = generator_for(chosen, model)
    wanted = list(dict.fromkeys(prompts or default_prompts(chosen)))
    if any(not prompt.strip() for prompt in wanted):
        raise UserError("an empty prompt (expected a few words, such as 'a house in a field')")

    require_models(spec)

    import torch  # slow, so after the arguments are checked

    from dualproc_cli.device import pick_device
    from dualproc_cli.drawing import draw_pictures
    from dualproc_cli.memory import plan_drawing
    from dualproc_cli.pictures import Section, Strip, labelled_grid, save_png, slugs

    place = pick_device(device)
    folder = output or PICTURES / ("+".join(control.label for control in chosen) or "base")
    require_writable(folder)
    spec = spec.model_copy(update={"compile": False})  # compiling pays off after hundreds of pictures only
    more = all(control.bundle.spec.memory == "auto" for control in chosen)
    learned_with = [name for control in chosen for name in control.bundle.manifest.memory]
    plan = plan_drawing(spec, wanted, learned_with, min(count, BATCH), place, more)
    if plan.estimate and plan.strategies:
        typer.echo(plan.reason, err=True)
    generator = plan.load_generator()
    if spec.model == MINIATURE:
        _warn_of_unknown_words(wanted)
    generator.load_adapters([(control.bundle.folder, control.scale) for control in chosen])
    names = dict(zip(wanted, slugs(wanted), strict=True))
    drawn: dict[str, list[torch.Tensor]] = {prompt: [] for prompt in wanted}
    seeds = range(seed, seed + count)
    for prompt in wanted:
        for number, image in zip(seeds, draw_pictures(generator, prompt, seeds, BATCH, steps), strict=True):
            path = folder / f"{names[prompt]}-{number}.png"
            save_png(image, path)
            typer.echo(path)
            drawn[prompt].append(image.cpu())
    if grid:
        sections = [Section(prompt, [Strip("", torch.stack(images))]) for prompt, images in drawn.items()]
        save_png(labelled_grid(sections), folder / "grid.png")
        typer.echo(folder / "grid.png")


def _warn_of_unknown_words(prompts: list[str]) -> None:
    from dualproc_cli.miniature.world.captions import unknown_words

    for prompt in prompts:
        if words := unknown_words(prompt):
            typer.echo(f"warning: {prompt!r}: the miniature does not know: {', '.join(words)}", err=True)
