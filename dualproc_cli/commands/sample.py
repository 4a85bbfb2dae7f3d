"""``dualproc sample``: draw pictures, with learned controls or without."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualproc_cli.commands.libraries import importing
from dualproc_cli.commands.options import Device
from dualproc_cli.errors import UserError
from dualproc_cli.files import clear_partial_files, locked, require_writable
from dualproc_cli.models.source import require_models
from dualproc_cli.printable import is_utf8
from dualproc_cli.spec.models import MINIATURE
from dualproc_cli.stages import stage
from dualproc_cli.terminal import echo

if TYPE_CHECKING:
    from dualproc_cli.sampling import Job

PICTURES = Path("pictures")
GRID = "grid.png"


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
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Draw only the pictures that do not exist yet.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pictures that exist.")] = False,
    device: Device = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="Generator if no control is given; by default the miniature."
        ),
    ] = None,
) -> None:
    """Draw pictures with controls, or with the base generator.

    Every picture says in its PNG metadata how it was drawn: prompt, seed, generator and controls.

    Example: dualproc sample "a ball in the snow" --control horizon-position.dualproc@0.8 -n 4
    """
    from dualproc_cli.sampling import Control, Job, default_prompts, generator_for

    chosen = [Control.parse(text) for text in controls or ()]
    spec = generator_for(chosen, model)
    wanted = list(dict.fromkeys(prompts or default_prompts(chosen)))
    if any(not prompt.strip() for prompt in wanted):
        raise UserError("an empty prompt (expected a few words, such as 'a house in a field')")
    if not all(map(is_utf8, wanted)):
        raise UserError("a prompt that is not UTF-8 (expected text in the encoding of your terminal)")
    require_models(spec)
    folder = output or PICTURES / ("+".join(control.label for control in chosen) or "base")
    job = Job(spec, chosen, wanted, range(seed, seed + count), steps or spec.steps, folder)
    there = [path for path in job.files.values() if path.exists()]
    if there and not (skip_existing or overwrite):
        raise UserError(
            f"{there[0]}: exists, as {len(there)} of the {len(job.files)} pictures do (pass --skip-existing "
            "to draw the others, --overwrite to draw all again, or choose another folder with -o)"
        )
    if len(there) < len(job.files) or overwrite or grid:
        _draw(job, device, grid, set() if overwrite else set(there))
    if skip_existing and there:
        echo(f"left {len(there)} pictures as they were", err=True)


def _draw(job: "Job", device: str | None, grid: bool, there: set[Path]) -> None:
    """Draw the pictures of ``job`` but those that are ``there``, and the grid of all of them."""
    learned_with = [name for control in job.controls for name in control.bundle.manifest.memory]
    with importing(*([] if learned_with else [job.spec])):
        import torch

        from dualproc_cli.device import pick_device
        from dualproc_cli.drawing import draw_pictures
        from dualproc_cli.memory import plan_drawing
        from dualproc_cli.picture_files import load_picture
        from dualproc_cli.pictures import Section, Strip, labelled_grid, save_png
    from dualproc_cli.sampling import BATCH

    place = pick_device(device)
    with _writable(job.folder):
        spec = job.spec.model_copy(update={"compile": False})  # it pays off after hundreds of pictures only
        more = all(control.bundle.spec.memory == "auto" for control in job.controls)
        plan = plan_drawing(spec, job.prompts, learned_with, min(len(job.seeds), BATCH), place, more)
        if plan.estimate and plan.strategies:
            echo(plan.reason, err=True)
        generator = plan.load_generator()
        if spec.model == MINIATURE:
            _warn_of_unknown_words(job.prompts)
        generator.load_adapters([(control.bundle.folder, control.scale) for control in job.controls])
        for prompt in job.prompts:
            missing = [seed for seed in job.seeds if job.files[prompt, seed] not in there]
            pictures = draw_pictures(generator, prompt, missing, BATCH, job.steps)
            for number, (seed, image) in enumerate(zip(missing, pictures, strict=True), 1):
                stage(f"{prompt}: picture {number} of {len(missing)}")
                path = job.files[prompt, seed]
                save_png(image, path, job.metadata(prompt, seed, generator.revision))
                echo(path)
        if grid:
            rows = [[load_picture(job.files[prompt, seed]) for seed in job.seeds] for prompt in job.prompts]
            pairs = zip(job.prompts, rows, strict=True)
            sections = [Section(prompt, [Strip("", torch.stack(row))]) for prompt, row in pairs]
            save_png(labelled_grid(sections), job.folder / GRID)
            echo(job.folder / GRID)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Make and own ``folder`` for the block, and remove it and the folders around it if they stay empty.

    What killed runs left in it half written is removed.

    Raises:
        UserError: the folder cannot be made or written to, or another run is drawing into it.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]  # the innermost first
    try:
        with locked(folder / GRID):
            require_writable(folder / GRID)
            for line in clear_partial_files(folder, ".png"):
                echo(line, err=True)
            yield
    finally:
        for path in made:
            with suppress(OSError):  # it holds pictures, or was never made
                path.rmdir()


def _warn_of_unknown_words(prompts: Sequence[str]) -> None:
    from dualproc_cli.miniature.world.captions import unknown_words

    for prompt in prompts:
        if words := unknown_words(prompt):
            echo(f"warning: {prompt!r}: the miniature does not know: {', '.join(words)}", err=True)
