"""What cannot work, each with the reason. The tests are run nevertheless, and have to fail."""

# (kind, name, check): reason.
EXCEPTIONS: dict[tuple[str, str, str], str] = {
    (
        "generator",
        "StableDiffusionSAG",
        "x0 jump",
    ): "it reads an attention map that the denoiser, skipped after the jump, has not left; use last-steps",
    (
        "scheduler",
        "IPNDM",
        "x0 jump",
    ): "it says nothing of a clean picture, and has no alphas to compute it from",
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
