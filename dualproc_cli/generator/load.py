"""Loading a spec's ``generator`` as a frozen pipeline on its device; errors are one line each."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from dualproc_cli.device import pick_dtype
from dualproc_cli.errors import UserError
from dualproc_cli.generator.carried import DENOISERS, read_adapters
from dualproc_cli.generator.compiling import compile_blocks
from dualproc_cli.generator.conventions import Conventions
from dualproc_cli.generator.generator import Generator
from dualproc_cli.generator.schedulers import changed_scheduler, scheduler_class
from dualproc_cli.generator.self_test import count_idle_timesteps
from dualproc_cli.generator.single_file import from_single_file
from dualproc_cli.generator.text_embedding_cache import cache_text_embeddings
from dualproc_cli.generator.workarounds import apply_workarounds
from dualproc_cli.models.build import LEFT_OUT, Weights, build_pipeline, shape_of
from dualproc_cli.models.load_errors import advice
from dualproc_cli.models.quantization import Quantization, for_pipeline, quantization, quantize
from dualproc_cli.models.quiet import quiet_libraries
from dualproc_cli.models.source import ModelSource, find_model
from dualproc_cli.spec import GeneratorSpec
from dualproc_cli.stages import stage

TEXT_ENCODERS = ("text_encoder", *(f"text_encoder_{index}" for index in range(2, 5)))
# Loggers that warn when the hub does not answer but the cache does, when a pipeline has a tiny VAE, and when
# float32 is used with weights of 8 bits.
CHATTY = (
    "diffusers.configuration_utils",
    "diffusers.pipelines.pipeline_utils",
    "diffusers.quantizers.torchao.torchao_quantizer",
)
CPU = torch.device("cpu")
EXPECTED = "a diffusers text-to-image pipeline in safetensors: a hub id, a folder or miniature"


def load_generator(spec: GeneratorSpec, device: torch.device) -> Generator:
    """Load the pipeline that ``spec`` names, freeze it and run its self-test.

    Only safetensors are read, and code from the model's repository runs only if the spec trusts it.

    Raises:
        UserError: the model is missing, unreadable, gated or not a text-to-image pipeline, fails its
            self-test, or needs a package or a device that is not available.
    """
    dtype = pick_dtype(spec.dtype, device)
    found = quantization(spec.quantization, device, "generator")
    try:
        stage(f"loading {spec.model}")
        with quiet_libraries(CHATTY):
            source = find_model(spec)
            carried = read_adapters(spec)
            if source.file:
                pipeline = from_single_file(source, source.file, spec, dtype)
            else:
                folder = _downloaded(source, spec)
                index: Any = DiffusionPipeline.load_config(folder)
                _check_kind(spec, index)
                pipeline = DiffusionPipeline.from_pretrained(
                    folder,
                    dtype=dtype,
                    use_safetensors=True,
                    trust_remote_code=spec.trust_remote_code,
                    quantization_config=for_pipeline(found, dtype, DENOISERS, TEXT_ENCODERS)
                    if found
                    else None,
                    **{name: None for name in LEFT_OUT if name in index},
                )
    except UserError:
        raise
    except Exception as error:
        # Many libraries read files here and raise many types of errors; in every case, the model is at fault.
        problem = advice(error, "generator", spec.model, spec.revision, EXPECTED)
        raise UserError(f"generator.model: {spec.model}: {problem}") from error
    if source.file and found:
        _quantize(pipeline, found)
    generator = prepare_generator(pipeline, spec, device, source.revision)
    generator.carry(carried)
    return generator


def build_generator(
    spec: GeneratorSpec, device: torch.device, weights: Weights, texts: Sequence[str]
) -> Generator:
    """Build the pipeline that ``spec`` names from its configuration, without its real weights.

    Args:
        spec: names a model whose configuration is packaged, in a local folder, or on the hub.
        device: the device of random weights. A pipeline without weights reports the CPU as its device.
        weights: see `dualproc_cli.models.build`.
        texts: the prompts that will be drawn.

    Raises:
        UserError: the configuration cannot be found or read; also as in `load_generator`.
    """
    dtype, shape = pick_dtype(spec.dtype, device), shape_of(spec, texts)
    with quiet_libraries(CHATTY):
        pipeline = build_pipeline(shape, weights, device, dtype, spec.quantization)
    if weights == "none":
        size = Conventions(width=spec.width, height=spec.height)
        plain = spec.model_copy(update={"compile": False})
        generator = prepare_generator(pipeline, plain, CPU, conventions=size)
        generator.carry(read_adapters(spec))
        generator.conventions = replace(size, idle_timesteps=count_idle_timesteps(generator))
        return generator
    if found := quantization(spec.quantization, device, "generator"):
        _quantize(pipeline, found)
    generator = prepare_generator(pipeline, spec, device)
    generator.carry(read_adapters(spec))
    return generator


def prepare_generator(
    pipeline: DiffusionPipeline,
    spec: GeneratorSpec,
    device: torch.device,
    revision: str | None = None,
    conventions: Conventions | None = None,
) -> Generator:
    """Freeze a pipeline that is in memory, move it to ``device`` and run its self-test.

    If ``conventions`` are given, the self-test is left out.

    Raises:
        UserError: it is not a text-to-image pipeline, fails its self-test, or cannot be compiled.
    """
    component = _denoiser(spec, pipeline)
    if spec.scheduler:
        pipeline.scheduler = changed_scheduler(pipeline.scheduler, spec.scheduler)
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    for name, module in pipeline.components.items():
        if isinstance(module, nn.Module):
            module.requires_grad_(False).eval()
            if name.startswith("text_encoder"):
                cache_text_embeddings(module)
    if conventions is None:
        stage(f"self-test of {spec.model}")
    workarounds = apply_workarounds(pipeline, getattr(pipeline, component))
    generator = Generator(pipeline, component, spec, device, revision, workarounds, conventions)
    if spec.compile:
        compile_blocks(generator.denoiser)
    return generator


def _quantize(pipeline: DiffusionPipeline, found: Quantization) -> None:
    for name in (*DENOISERS, *TEXT_ENCODERS):
        if (part := getattr(pipeline, name, None)) is not None:
            quantize(part, found)


def _downloaded(source: ModelSource, spec: GeneratorSpec) -> Path:
    """Return the folder with all of a pipeline's files; a hub model is downloaded first."""
    if source.folder is not None:
        return source.folder
    folder = DiffusionPipeline.download(
        spec.model,
        revision=spec.revision,
        use_safetensors=True,
        trust_remote_code=spec.trust_remote_code,
        local_files_only=source.local_only,
    )
    return Path(folder)


def _check_kind(spec: GeneratorSpec, index: dict[str, Any]) -> None:
    # Called before anything large is read. For a class that diffusers lacks, loading raises a better error.
    kind = getattr(diffusers, str(index.get("_class_name")), None)
    if kind is None:
        return
    takes = inspect.signature(kind.__call__).parameters
    if "num_frames" in takes:
        _no_text_to_image(spec, kind, "makes videos")
    if "prompt" not in takes:
        _no_text_to_image(spec, kind, "takes no prompt")
    own = getattr(diffusers, str((index.get("scheduler") or [None, None])[1]), None)
    if own is not None:
        scheduler_class(own, spec.scheduler)


def _denoiser(spec: GeneratorSpec, pipeline: DiffusionPipeline) -> str:
    found = [name for name in DENOISERS if isinstance(getattr(pipeline, name, None), nn.Module)]
    if not found or "scheduler" not in pipeline.components:
        _no_text_to_image(spec, type(pipeline), "has no denoiser and scheduler of its own")
    return found[0]


def _no_text_to_image(spec: GeneratorSpec, kind: type, reason: str) -> NoReturn:
    raise UserError(
        f"generator.model: {spec.model}: {kind.__name__} {reason}; choose a text-to-image model, such as "
        "black-forest-labs/FLUX.1-schnell"
    )
