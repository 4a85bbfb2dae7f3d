"""Models loaded with what the rungs of the ladder ask for."""

from collections.abc import Sequence

import torch

from dualproc_cli.generator import Generator, load_generator
from dualproc_cli.memory.rungs import quantized, second_device, with_rungs
from dualproc_cli.spec import GeneratorSpec, LoadedSpec
from dualproc_cli.vlm import Vlm, load_vlm


def load_models(loaded: LoadedSpec, rungs: Sequence[str], device: torch.device) -> tuple[Generator, Vlm]:
    """Generator and VLM of a spec; the generator makes room before the VLM comes.

    Raises:
        UserError: a model cannot be loaded.
    """
    spec = with_rungs(loaded, rungs).spec
    prompts = [*spec.prompts.train, *spec.prompts.held_out]
    generator = load_thrifty_generator(spec.generator, prompts, rungs, device)
    place = second_device(device) if "two-devices" in rungs else None
    return generator, load_vlm(spec.vlm, place or device)


def load_thrifty_generator(
    spec: GeneratorSpec, prompts: Sequence[str], rungs: Sequence[str], device: torch.device
) -> Generator:
    """The generator that will draw ``prompts``.

    Raises:
        UserError: it cannot be loaded.
    """
    generator = load_generator(quantized(spec, rungs), device)
    generator.economize(rungs)
    if "free-text-encoders" in rungs:
        generator.release_text_encoders(prompts)
    return generator
