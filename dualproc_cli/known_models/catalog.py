"""The models whose configurations come with the package: which they are, and how large. Imports no torch."""

import json
from functools import cache
from pathlib import Path

from dualproc_cli.errors import UserError

SHAPES = Path(__file__).with_name("shapes")
COUNTS = "parameters.json"  # repository -> component -> parameters, as they were counted on the meta device


def known_shapes() -> list[str]:
    """List the hub repositories whose configuration comes with the package."""
    return sorted(folder.name.replace("--", "/") for folder in SHAPES.iterdir() if folder.is_dir())


def shape_folder(repo: str) -> Path:
    """Return the folder with the configuration of ``repo``, laid out as the repository.

    Raises:
        UserError: it does not come with the package.
    """
    if repo not in known_shapes():
        raise UserError(
            f"{repo}: its shape does not come with dualproc (there are: {', '.join(known_shapes())})"
        )
    return SHAPES / repo.replace("/", "--")


def is_generator(repo: str) -> bool:
    """Say whether a known shape is a diffusers pipeline; the others are VLMs.

    Raises:
        UserError: the shape is unknown.
    """
    return (shape_folder(repo) / "model_index.json").is_file()


@cache
def parameter_counts() -> dict[str, dict[str, int]]:
    """Read how many parameters each component of each known shape has."""
    return json.loads((SHAPES / COUNTS).read_text("utf-8"))
