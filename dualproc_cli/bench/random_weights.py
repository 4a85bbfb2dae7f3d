"""Models of known shapes in place of those that would be loaded."""

from collections.abc import Sequence

import torch

from dualproc_cli.device import pick_dtype
from dualproc_cli.generator import Generator, load_generator, prepare_generator
from dualproc_cli.generator.load import DENOISERS, TEXT_ENCODERS
from dualproc_cli.models.build import build_pipeline, build_vlm
from dualproc_cli.models.quantization import quantization
from dualproc_cli.spec import GeneratorSpec, VlmSpec
from dualproc_cli.vlm import Vlm, load_vlm, prepare_vlm


class RandomWeights:
    """Builds models of known shapes, and loads all others."""

    def __init__(self, repos: Sequence[str], said: list[str]) -> None:
        """The tokenizers of ``repos`` know the words that are ``said``."""
        self.repos, self.said = repos, said

    def generator(self, spec: GeneratorSpec, device: torch.device) -> Generator:
        """The generator of a spec.

        Raises:
            UserError: it cannot be loaded, or its quantization is not available here.
        """
        if spec.model not in self.repos:
            return load_generator(spec, device)
        dtype = pick_dtype(spec.dtype, device)
        pipeline = build_pipeline(spec.model, device, dtype, self.said)
        if found := quantization(spec.quantization, device, dtype, "generator"):
            for name in (*DENOISERS, *TEXT_ENCODERS):
                if (part := getattr(pipeline, name, None)) is not None:
                    found.quantize(part)
        return prepare_generator(pipeline, spec, device)

    def vlm(self, spec: VlmSpec, device: torch.device) -> Vlm:
        """The VLM of a spec.

        Raises:
            UserError: it cannot be loaded, or its quantization is not available here.
        """
        if spec.model not in self.repos:
            return load_vlm(spec, device)
        dtype = pick_dtype(spec.dtype, device)
        processor, model = build_vlm(spec.model, device, dtype, self.said)
        if found := quantization(spec.quantization, device, dtype, "vlm"):
            found.quantize(model)
        return prepare_vlm(processor, model, device, spec.image_scale)
