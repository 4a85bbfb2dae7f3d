"""From a spec's ``generator`` to a frozen pipeline on its device, or one line saying why not."""

import importlib.util
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from diffusers import PipelineQuantizationConfig
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from torch import nn
from transformers.utils import logging as transformers_logging

from dualproc_cli import miniature
from dualproc_cli.device import pick_dtype
from dualproc_cli.errors import UserError
from dualproc_cli.generator.generator import Generator
from dualproc_cli.generator.memo import remember
from dualproc_cli.generator.remedies import LEFT_OUT, apply_remedies
from dualproc_cli.generator.self_test import Conventions, first_line
from dualproc_cli.spec import GeneratorSpec

QUANTIZATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("bitsandbytes_8bit", {"load_in_8bit": True}),
    "nf4": ("bitsandbytes_4bit", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
}
DENOISERS = ("transformer", "unet")
# They warn of a hub that does not answer where the cache does, and of a tiny VAE in place of a large one.
CHATTY = ("diffusers.configuration_utils", "diffusers.pipelines.pipeline_utils")


def load_generator(spec: GeneratorSpec, device: torch.device) -> Generator:
    """Load the pipeline that ``spec`` names, frozen, and let it pass its self-test.

    Only safetensors are read, and code from the model's repository runs only if the spec trusts it.

    Raises:
        UserError: the model is missing, unreadable, gated, no text-to-image pipeline, fails its self-test, or
            needs a package or a device that is not there.
    """
    dtype = pick_dtype(spec.dtype, device)
    quantization = _quantization(spec, device, dtype)
    for log in (diffusers_logging, transformers_logging):
        log.disable_progress_bar()
    try:
        with _quiet(CHATTY):
            folder = _folder(spec)
            left_out = {name: None for name in LEFT_OUT if name in DiffusionPipeline.load_config(folder)}
            pipeline = DiffusionPipeline.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=spec.trust_remote_code,
                quantization_config=quantization,
                **left_out,
            )
    except UserError:  # the miniature says itself what it lacks
        raise
    except Exception as error:
        # Many libraries read files of any origin here: whatever they raise, the model is what is wrong.
        _refuse(spec, error)
    return prepare_generator(pipeline, spec, device, _revision(spec, folder))


def prepare_generator(
    pipeline: DiffusionPipeline,
    spec: GeneratorSpec,
    device: torch.device,
    revision: str | None = None,
    conventions: Conventions | None = None,
) -> Generator:
    """Freeze a pipeline that is in memory, move it to ``device`` and let it pass its self-test.

    Where its ``conventions`` are given, there is no self-test.

    Raises:
        UserError: it is no text-to-image pipeline, or fails its self-test.
    """
    component = _denoiser(spec, pipeline)
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    for name, module in pipeline.components.items():
        if isinstance(module, nn.Module):
            module.requires_grad_(False).eval()
            if name.startswith("text_encoder"):
                remember(module)
    remedies = apply_remedies(pipeline, getattr(pipeline, component))
    return Generator(pipeline, component, spec, device, revision, remedies, conventions)


def _folder(spec: GeneratorSpec) -> Path:
    if spec.model == "miniature":
        return miniature.generator_folder(spec.revision)
    local = Path(spec.model).expanduser()
    if local.is_dir():
        return local
    if spec.model.startswith((".", "/", "~")) or spec.model.count("/") > 1:
        raise FileNotFoundError("no such folder")
    folder = DiffusionPipeline.download(
        spec.model, revision=spec.revision, use_safetensors=True, trust_remote_code=spec.trust_remote_code
    )
    return Path(folder)


@contextmanager
def _quiet(names: tuple[str, ...]) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _revision(spec: GeneratorSpec, folder: Path) -> str | None:
    if spec.model == "miniature":
        return miniature.revision("generator")
    # The hub's cache keeps each commit in a folder of its name.
    return folder.name if folder.parent.name == "snapshots" else None


def _denoiser(spec: GeneratorSpec, pipeline: DiffusionPipeline) -> str:
    found = [name for name in DENOISERS if isinstance(getattr(pipeline, name, None), nn.Module)]
    takes = inspect.signature(type(pipeline).__call__).parameters
    if not found or "prompt" not in takes or "scheduler" not in pipeline.components:
        raise UserError(
            f"generator.model: {spec.model}: {type(pipeline).__name__} is no text-to-image pipeline with a "
            "denoiser and a scheduler of its own; choose another model"
        )
    return found[0]


def _quantization(
    spec: GeneratorSpec, device: torch.device, dtype: torch.dtype
) -> PipelineQuantizationConfig | None:
    if spec.quantization == "none":
        return None
    where = f"generator.quantization: {spec.quantization}"
    if device.type != "cuda":
        raise UserError(f"{where}: needs a CUDA device, and this is {device.type}; set it to none")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{where}: needs the package bitsandbytes: pip install bitsandbytes")
    backend, options = QUANTIZATIONS[spec.quantization]
    if spec.quantization == "nf4":
        options = {**options, "bnb_4bit_compute_dtype": dtype}
    text_encoders = ["text_encoder", *(f"text_encoder_{index}" for index in range(2, 5))]
    return PipelineQuantizationConfig(
        quant_backend=backend, quant_kwargs=options, components_to_quantize=[*DENOISERS, *text_encoders]
    )


def _refuse(spec: GeneratorSpec, error: Exception) -> NoReturn:
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and len(causes) < 10:
        causes.append(cause)  # type: ignore[arg-type]
    reason = first_line(error)
    if _is(causes, GatedRepoError):
        advice = f"gated: accept its licence at https://huggingface.co/{spec.model}, then run `hf auth login`"
    elif _is(causes, RevisionNotFoundError):
        advice = f"no revision {spec.revision!r}; leave generator.revision out, or name a branch or a commit"
    elif _is(causes, RepositoryNotFoundError):
        advice = "no such hub model and no such folder; check the name (a private one needs `hf auth login`)"
    elif _is(causes, LocalEntryNotFoundError) or "not fully cached" in reason:
        advice = "the hub cannot be reached and the local cache has no whole copy; connect, or name a folder"
    elif _is(causes, FileNotFoundError):
        advice = f"{reason}; expected miniature, a hub model or the folder of a diffusers pipeline"
    elif _is(causes, ImportError):
        advice = f"it needs a package that is missing ({reason}); install it"
    elif "trust_remote_code" in str(error):
        advice = "it runs code of its own; if you trust it, set generator.trust_remote_code: true"
    else:
        advice = f"cannot be loaded ({reason}); expected a diffusers text-to-image pipeline in safetensors"
    raise UserError(f"generator.model: {spec.model}: {advice}") from error


def _is(causes: list[Exception], kind: type[Exception]) -> bool:
    return any(isinstance(cause, kind) for cause in causes)
