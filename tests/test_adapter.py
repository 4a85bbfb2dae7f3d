"""The adapter: a standard LoRA that plain diffusers loads, composes and weighs as we do."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import save_file
from test_generator import CPU, MAKERS, load, models, plain_picture, with_adapter  # noqa: F401  # fixtures

from dualproc_cli.errors import UserError
from dualproc_cli.generator import Generator, load_generator
from dualproc_cli.generator.adapter import auto_targets
from dualproc_cli.generator.adapter_file import FILE_NAME, AdapterFile
from dualproc_cli.spec import AdapterSpec, GeneratorSpec, GradientSpec
