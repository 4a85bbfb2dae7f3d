"""The generator: a frozen diffusers pipeline with an adapter, differentiated through its own ``__call__``.

Usage::

    generator = load_generator(spec.generator, pick_device(None))
    generator.add_adapter(spec.learn.adapter, seed=0)
    images = generator.render(["a house"], seeds=[7], gradient=spec.learn.gradient)  # [1, 3, H, W] in [0, 1]
    loss(images).backward()  # into generator.adapter_parameters()
"""

from dualproc_cli.generator.generator import Generator
from dualproc_cli.generator.load import build_generator, load_generator, prepare_generator
from dualproc_cli.generator.steering import Embeddings, Steering
from dualproc_cli.generator.steering_file import read_steering, steered, write_steering

__all__ = [
    "Embeddings",
    "Generator",
    "Steering",
    "build_generator",
    "load_generator",
    "prepare_generator",
    "read_steering",
    "steered",
    "write_steering",
]
