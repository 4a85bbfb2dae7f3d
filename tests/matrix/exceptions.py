"""What cannot work, each with the reason. The tests are run nevertheless, and have to fail."""

from typing import NamedTuple

from dualproc_cli.errors import UserError


class Known(NamedTuple):
    """A failure that is understood."""

    reason: str
    raises: type[Exception]


# By kind, name and check of the record.
EXCEPTIONS: dict[tuple[str, str, str], Known] = {
    ("generator", "StableDiffusionSAG", "x0 jump"): Known(
        "it asks the denoiser twice a step, in batches of two sizes, and reads the attention in between, "
        "which cannot be skipped; use last-steps",
        UserError,
    ),
    ("generator", "Ideogram4", "steered conditioning"): Known(
        "its text embeddings cannot be steered: it calls the layers of its text encoder one by one", UserError
    ),
    ("generator", "LongCatImage", "steered conditioning"): Known(
        "its text embeddings cannot be steered: it detaches them", UserError
    ),
    ("generator", "OmniGen", "steered conditioning"): Known(
        "its text embeddings cannot be steered: it has no text encoder", UserError
    ),
    ("scheduler", "IPNDM", "x0 jump"): Known(
        "it says nothing of a clean picture, and has no alphas to compute it from; use last-steps", UserError
    ),
}

# What diffusers itself calls text-to-image, and is in no family here: the reason.
TWO_MODELS = "two pipelines of the years before 2024 in one, each with its scheduler; not tried"
NOT_TRIED: dict[str, str] = {
    "KandinskyCombined": TWO_MODELS,
    "KandinskyV22Combined": TWO_MODELS,
    "WuerstchenCombined": TWO_MODELS,
    "StableCascadeCombined": TWO_MODELS,
    "Helios": "makes videos",
    "HeliosPyramid": "makes videos",
}
