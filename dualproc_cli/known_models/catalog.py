"""The models whose configurations come with the package, and their sizes. Imports no torch."""

import json
from functools import cache
from pathlib import Path

from dualproc_cli.errors import UserError

SHAPES = Path(__file__).with_name("shapes")
COUNTS = "parameters.json"  # repository -> component -> parameters, as they were counted on the meta device


def known_shapes() -> list[str]:
    """Return the hub repositories whose configuration comes with the package, sorted."""
    return sorted(folder.name.replace("--", "/") for folder in SHAPES.iterdir() if folder.is_dir())


def shape_folder(repo: str) -> Path:
    """Return the folder with the configuration of ``repo``, laid out as the repository.

    Raises:
        UserError: the package has no configuration of this repository.
    """
    if repo not in known_shapes():
        raise UserError(
            f"{repo}: its shape does not come with dualproc (expected one of: {', '.join(known_shapes())})"
        )
    return SHAPES / repo.replace("/", "--")


def is_generator(repo: str) -> bool:
    """Return whether a known shape is a diffusers pipeline; the others are VLMs.

    Raises:
        UserError: the package has no configuration of this repository.
    """
    return (shape_folder(repo) / "model_index.json").is_file()


@cache
def parameter_counts() -> dict[str, dict[str, int]]:
    """Return the number of parameters of each component, by repository and component."""
    return json.loads((SHAPES / COUNTS).read_text("utf-8"))
