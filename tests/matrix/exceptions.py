"""What cannot work, each with the reason. The tests are run nevertheless, and have to fail."""

# (kind, name, check): reason.
EXCEPTIONS: dict[tuple[str, str, str], str] = {
    (
        "scheduler",
        "IPNDM",
        "x0 jump",
    ): "it says nothing of a clean picture, and has no alphas to compute it from",
}
