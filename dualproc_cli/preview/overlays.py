"""Whether a visual prompt hides too much of the picture, or is too fine for the VLM."""

from collections.abc import Iterator

from dualproc_cli.compiler import View
from dualproc_cli.preview.findings import Finding
from dualproc_cli.spec import ImagePrompt, VisualPromptSpec
from dualproc_cli.vlm import Vlm, seen_by

HIDDEN = 0.1  # share of the picture: what is drawn there is neither judged nor learned
HALF = 0.5  # opacity above which a pixel is hidden: more of the visual prompt is seen than of the picture
# Share of its opacity that a visual prompt must keep somewhere, as the VLM sees it. Half is left of a line of
# one pixel that lies between two rows of pixels.
OPACITY = 0.45


def overlay_findings(view: View, prompt: VisualPromptSpec | None, vlm: Vlm) -> Iterator[Finding]:
    """Yield what is wrong with the visual prompt that a view lays over the picture."""
    name, layer = view.questions[0].visual_prompt, view.layer
    if layer is None or name is None:
        return
    hidden = (view.window.cut(layer[3]) > HALF).double().mean().item()
    if hidden > HIDDEN:
        text = f"hides {hidden:.0%} of what the VLM is shown, more than {HIDDEN:.0%}; make it smaller"
        yield Finding("hidden", name, text)
    seen = seen_by(vlm.processor, view.show(layer[3:].expand(3, -1, -1)[None])[0])
    left = seen.max().item() / full_opacity(prompt)
    if left < OPACITY:
        text = (
            f"hardly visible to the VLM, which sees {seen.shape[2]} x {seen.shape[1]} pixels: at most "
            f"{left:.0%} of its color is left; make it thicker or larger, or move it"
        )
        yield Finding("resolution", name, text)


def full_opacity(prompt: VisualPromptSpec | None) -> float:
    """Return the opacity that a visual prompt has by design."""
    transparent = isinstance(prompt, ImagePrompt) and prompt.mode == "transparent"
    return max(prompt.opacity, 0.01) if transparent else 1.0  # type: ignore[union-attr]
