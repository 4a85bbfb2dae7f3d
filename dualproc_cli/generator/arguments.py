"""The arguments of a pipeline's call: the spec's values, under the names that the pipeline has for them."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from dualproc_cli.generator.workarounds import CALL_ARGUMENTS
from dualproc_cli.spec import GeneratorSpec


class Arguments:
    """Makes the arguments of one pipeline's ``__call__``: only those that it takes.

    Attributes:
        takes: the parameters of the pipeline's ``__call__``, by name.
        always: arguments that are the same for every picture; None is not passed.
        true_guidance: whether classifier-free guidance is called ``true_cfg_scale``, as in Qwen-Image.
        guided: whether the guidance scale is above 1, where classifier-free guidance begins.
    """

    def __init__(self, pipeline: DiffusionPipeline, spec: GeneratorSpec) -> None:
        self.takes: Mapping[str, inspect.Parameter] = inspect.signature(type(pipeline).__call__).parameters
        self.always = {
            "max_sequence_length": _max_sequence_length(pipeline, self.takes),
            "guidance_scale": spec.guidance_scale,
            "distilled_guidance_scale": spec.guidance_scale,  # HunyuanImage
        }
        # Qwen-Image: if it has a guidance_scale too, that one is for distilled weights.
        self.true_guidance = "true_cfg_scale" in self.takes and self._default("guidance_scale") is None
        if self.true_guidance:
            self.always["true_cfg_scale"] = spec.guidance_scale
            distilled = any(
                getattr(getattr(part, "config", None), "guidance_embeds", False)
                for part in pipeline.components.values()
            )
            if not distilled:
                del self.always["guidance_scale"]
        self.guided = spec.guidance_scale > 1

    def make(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int,
        width: int,
        height: int,
        output_type: str,
        as_list: bool,
    ) -> dict[str, Any]:
        """Return the arguments for one picture per prompt and seed.

        Args:
            prompts: B prompts; exactly one if ``as_list`` is false.
            seeds: B seeds.
            steps: denoising steps.
            width: in pixels.
            height: in pixels.
            output_type: ``pt`` for tensors, ``np`` for arrays.
            as_list: whether the pipeline takes a list of prompts, and so a batch.
        """
        offered = {
            "prompt": list(prompts) if as_list else prompts[0],
            # On the CPU, so that a seed gives the same noise on every device.
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
            "num_inference_steps": steps,
            "width": width,
            "height": height,
            "max_area": width * height,  # FLUX.1 Kontext would draw a megapixel
            "output_type": output_type,
            **{name: value for name, value in self.always.items() if value is not None},
            **CALL_ARGUMENTS,
        }
        if self.true_guidance and self.guided:
            offered["negative_prompt"] = [" "] * len(prompts)  # without one there is no guidance
        return {name: value for name, value in offered.items() if name in self.takes}

    def beside_prompt_and_seed(self, spec: GeneratorSpec) -> dict[str, Any]:
        """Return the other arguments for a picture of ``spec``, which can all be written as Python code."""
        size = {"width": spec.width, "height": spec.height}
        made = self.make([""], [0], steps=spec.steps, output_type="pil", as_list=False, **size)
        return {
            name: value for name, value in made.items() if name not in ("prompt", "generator", "output_type")
        }

    def _default(self, name: str) -> Any:
        return self.takes[name].default if name in self.takes else None


def _max_sequence_length(pipeline: DiffusionPipeline, takes: Mapping[str, inspect.Parameter]) -> int | None:
    """Return the pipeline's limit of prompt tokens, or its longest tokenizer's if that is lower."""
    default = takes["max_sequence_length"].default if "max_sequence_length" in takes else None
    tokenizers = [part for name, part in pipeline.components.items() if name.startswith("tokenizer") and part]
    # A multimodal model's processor holds its tokenizer.
    limits = [getattr(getattr(part, "tokenizer", part), "model_max_length", None) for part in tokenizers]
    known = [limit for limit in limits if limit is not None]
    return min(default, max(known)) if isinstance(default, int) and known else None
