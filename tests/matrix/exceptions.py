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
    **{
        ("generator", name, "steered noise"): Known("it draws its noise in a way of its own", UserError)
        for name in ("ErnieImage", "IF")
    },
    **{
        ("generator", name, "steered conditioning"): Known(
            "its pipeline keeps a gradient from its text embeddings, or has none", UserError
        )
        for name in ("ErnieImage", "IF", "Ideogram4", "Kandinsky3", "LongCatImage", "OmniGen")
    },
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
