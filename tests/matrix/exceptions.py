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
