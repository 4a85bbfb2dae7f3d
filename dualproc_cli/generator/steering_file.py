"""The steering's file, and drawing with it in plain diffusers: ``steering.safetensors``."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors import SafetensorError
from torch import Tensor

from dualproc_cli.errors import UserError
from dualproc_cli.files import write_atomically
from dualproc_cli.generator.steered_call import SteeredCall
from dualproc_cli.generator.steering import Inputs, Steering
from dualproc_cli.generator.tensor_file import cpu_copies, read_tensor_file, tensor_file
from dualproc_cli.generator.wrapping import wrapped

FILE_NAME = "steering.safetensors"
METADATA_KEY = "dualproc_steering"


def write_steering(steering: Steering, folder: Path) -> Path:
    """Write what was learned of the steering into ``folder``, atomically; the same gives the same bytes."""
    built_from = {"inputs": asdict(steering.inputs), "where": steering.where, "words": steering.words}
    # The embeddings keep their order, in which the networks read them.
    metadata = {"format": "pt", METADATA_KEY: json.dumps(built_from)}
    path = folder / FILE_NAME
    write_atomically(path, tensor_file(cpu_copies(dict(steering.named_parameters())), metadata))
    return path


def read_steering(folder: Path) -> Steering:
    """Read the steering of ``folder``, on the CPU.

    Raises:
        UserError: the file is missing or damaged, or was not written by `write_steering`.
    """
    path = folder / FILE_NAME
    try:
        tensors, metadata = read_tensor_file(path)
        built_from = json.loads(metadata[METADATA_KEY])
        found = built_from["inputs"]
        inputs = Inputs(
            latents=None if found["latents"] is None else tuple(found["latents"]),
            sigma=found["sigma"],
            aspect=found["aspect"],
            embeddings={key: tuple(value) for key, value in found["embeddings"].items()},
        )
        steering = Steering(inputs, tuple(built_from["where"]), seed=0)
        for name in [name for name in steering.offsets if f"offsets.{name}" not in tensors]:
            del steering.offsets[name]  # no picture depended on it
        steering.load_state_dict(tensors)
        steering.words = {str(prompt): str(other) for prompt, other in built_from["words"].items()}
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file; expected a bundle that was learned with learn.teach.keep_steering"
        ) from error
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{path}: not the file of a steering, or damaged; learn or copy it again") from error
    return steering.requires_grad_(False)


@contextmanager
def steered(pipeline: DiffusionPipeline, folder: Path | str, pictures: int = 1) -> Iterator[None]:
    """Steer one call of a plain diffusers pipeline inside the block.

    Usage::

        with steered(pipe, "horizon-low"):
            image = pipe("a house").images[0]

    Args:
        pipeline: the pipeline that the steering was learned for, without the adapter.
        folder: a bundle that holds its steering.
        pictures: how many prompts the call draws, one picture each.

    Raises:
        UserError: there is no steering in ``folder``, or it is of colours and ``pipeline`` has no image
            processor.
    """
    steering = read_steering(Path(folder)).to(pipeline.device)
    call = SteeredCall(pipeline, pictures, steering)
    with call.watched():
        if steering.colors is None:
            yield
            return
        processor = getattr(pipeline, "image_processor", None)
        if processor is None:
            raise UserError(
                f"{folder}: {type(pipeline).__name__} has no image processor to recolour pictures in"
            )
        with wrapped(processor, "postprocess", _recoloring(call)):
            yield


def _recoloring(call: SteeredCall) -> Callable[..., Any]:
    def postprocess(original: Callable[..., Any], image: Tensor, *args: Any, **kwargs: Any) -> Any:
        pictures = (image.float() / 2 + 0.5).clamp(0, 1)  # an image processor takes them in [-1, 1]
        return original((2 * call.recolored(pictures) - 1).to(image.dtype), *args, **kwargs)

    return postprocess
