"""Models loaded with what the rungs of the ladder ask for."""

from collections.abc import Callable, Sequence

import torch

from dualproc_cli.generator import Generator, load_generator
from dualproc_cli.memory.strategies import quantized, second_device, with_rungs
from dualproc_cli.spec import GeneratorSpec, LoadedSpec, VlmSpec
from dualproc_cli.vlm import Vlm, load_vlm

ReadGenerator = Callable[[GeneratorSpec, torch.device], Generator]
ReadVlm = Callable[[VlmSpec, torch.device], Vlm]


def load_models(
    loaded: LoadedSpec,
    rungs: Sequence[str],
    device: torch.device,
    read_generator: ReadGenerator = load_generator,
    read_vlm: ReadVlm = load_vlm,
) -> tuple[Generator, Vlm]:
    """Generator and VLM of a spec; the generator makes room before the VLM comes.

    Args:
        loaded: the spec.
        rungs: of the ladder.
        device: of the generator, and of the VLM where it has none of its own.
        read_generator: makes the generator of its part of the spec, on a device.
        read_vlm: likewise the VLM.

    Raises:
        UserError: a model cannot be loaded.
    """
    spec = loaded.spec
    prompts = [*spec.prompts.train, *spec.prompts.held_out]
    generator = load_thrifty_generator(spec.generator, prompts, rungs, device, read_generator)
    place = second_device(device) if "two-devices" in rungs else None
    return generator, read_vlm(with_rungs(loaded, rungs).spec.vlm, place or device)


def load_thrifty_generator(
    spec: GeneratorSpec,
    prompts: Sequence[str],
    rungs: Sequence[str],
    device: torch.device,
    read_generator: ReadGenerator = load_generator,
) -> Generator:
    """The generator that will draw ``prompts``; arguments as `load_models`.

    Raises:
        UserError: it cannot be loaded.
    """
    generator = read_generator(quantized(spec, rungs), device)
    generator.economize(rungs)
    if "free-text-encoders" in rungs:
        generator.release_text_encoders(prompts)
    return generator
