"""What is kept of the pictures of an evaluation: a few for people, the base generator's for other bundles."""

from dataclasses import dataclass, field

from torch import Tensor

from dualproc_cli.spec import ControlSpec, LoadedSpec

TRAINED, HELD_OUT, SEEDS = 3, 2, 4  # prompts of either kind, and pictures of each


@dataclass(frozen=True)
class Page:
    """Pictures of one prompt, at the first held-out seeds.

    Attributes:
        prompt: what was drawn.
        held_out: whether it was never learned on.
        base: [N, 3, H, W] in [0, 1], on the CPU.
        learned: the same with the control.
    """

    prompt: str
    held_out: bool
    base: Tensor
    learned: Tensor


@dataclass
class Album:
    """The first pictures of the first prompts of an evaluation.

    Attributes:
        pages: one for each prompt.
    """

    pages: list[Page] = field(default_factory=list)

    def add(self, prompt: str, held_out: bool, base: Tensor, learned: Tensor) -> None:
        """Keep the first of the pictures [N, 3, H, W] of a prompt, unless there are enough of its kind."""
        kept = sum(page.held_out == held_out for page in self.pages)
        if kept < (HELD_OUT if held_out else TRAINED):
            pictures = (images[:SEEDS].float().cpu() for images in (base, learned))
            self.pages.append(Page(prompt, held_out, *pictures))


@dataclass
class SharedPictures:
    """What the evaluations of several bundles share: their prompts, and the base generator's pictures.

    Attributes:
        prompts: that every bundle draws.
    """

    prompts: tuple[str, ...]
    _drawn: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def spec_of(self, loaded: LoadedSpec) -> ControlSpec:
        """Return the spec with all prompts; those that it was not learned on are held out."""
        prompts = loaded.spec.prompts
        held_out = tuple(one for one in self.prompts if one not in prompts.train)
        return loaded.spec.model_copy(update={"prompts": prompts.model_copy(update={"held_out": held_out})})

    def base_of(self, loaded: LoadedSpec, stands_on: object) -> dict[str, Tensor]:
        """Return the pixels, [N, 3, H, W] uint8 by prompt, that the spec's base generator has drawn.

        Add to it what is drawn anew. ``stands_on`` tells adapters apart that the base carries.
        """
        settings = loaded.spec.generator.model_dump(mode="json", exclude={"adapters", "device", "compile"})
        return self._drawn.setdefault(repr((settings, stands_on)), {})
