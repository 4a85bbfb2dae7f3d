"""Exporting a bundle's adapter for other tools, with ModelSpec's and kohya's metadata.

Sources: https://github.com/Stability-AI/ModelSpec, and the metadata that https://github.com/kohya-ss/sd-scripts
writes.
"""

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor

from dualproc_cli.bundle import Bundle
from dualproc_cli.bundle.layout import GRID, SAMPLES
from dualproc_cli.errors import UserError
from dualproc_cli.files import folder_atomically, write_atomically
from dualproc_cli.generator.adapter_file import AdapterFile
from dualproc_cli.generator.adapter_formats import family_of, kohya_tensors, peft_config, peft_tensors
from dualproc_cli.generator.tensor_file import tensor_file
from dualproc_cli.picture_files import load_picture
from dualproc_cli.pictures import to_pil

Format = Literal["diffusers", "kohya", "peft"]
FORMATS: tuple[Format, ...] = get_args(Format)
THUMBNAIL = 256  # pixels of its longer side
PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"


def export_bundle(
    bundle: Bundle,
    layout: Format,
    output: Path | None = None,
    author: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the adapter of ``bundle`` for other tools, and return what was written.

    Args:
        bundle: an opened bundle.
        layout: ``diffusers``: one file, with the names of diffusers. ``kohya``: one file, with kohya's names.
            ``peft``: a folder for ``PeftModel.from_pretrained``.
        output: the file or folder; by default its name is the control's with the format's.
        author: who made the control, for the metadata.
        overwrite: replace what is there.

    Raises:
        UserError: the format has no names for this generator, or ``output`` exists or cannot be written.
    """
    file = AdapterFile.read(bundle.folder)
    if layout == "kohya":
        tensors, own = kohya_tensors(file), {"format": "pt"}
    elif layout == "peft":
        tensors, own = peft_tensors(file), {"format": "pt"}
    else:
        tensors, own = file.named(), file.metadata()
    weights = tensor_file(tensors, own | _metadata(bundle, file, tensors, author))
    name = f"{bundle.manifest.name}-{layout}"
    if layout == "peft":
        target = output or Path(name)
        with folder_atomically(target, overwrite=overwrite) as folder:
            (folder / PEFT_WEIGHTS).write_bytes(weights)
            config = {**peft_config(file), "base_model_name_or_path": bundle.spec.generator.model}
            (folder / PEFT_CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        return target
    target = output or Path(f"{name}.safetensors")
    if target.exists() and not overwrite:
        raise UserError(
            f"{target}: already exists (pass --overwrite to replace it, or choose another output)"
        )
    try:
        write_atomically(target, weights)
    except OSError as error:
        raise UserError(
            f"{target}: cannot be written ({error.strerror or error}); choose another output with -o"
        ) from error
    return target


def _metadata(
    bundle: Bundle, file: AdapterFile, tensors: Mapping[str, Tensor], author: str | None
) -> dict[str, str]:
    """Return ModelSpec's metadata and those of kohya's that other tools read."""
    spec, family = bundle.spec, family_of(file)
    written = datetime.fromtimestamp(bundle.source.stat().st_mtime, UTC)
    data = tensor_file(tensors, {})
    body = data[8 + int.from_bytes(data[:8], "little") :]
    known = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{family.architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": bundle.manifest.name,
        "modelspec.description": spec.description,
        "modelspec.author": author,
        "modelspec.date": written.date().isoformat(),
        "modelspec.resolution": f"{spec.generator.width}x{spec.generator.height}",
        "modelspec.hash_sha256": f"0x{hashlib.sha256(body).hexdigest()}",
        "modelspec.thumbnail": _thumbnail(bundle.folder),
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(file.rank),
        "ss_network_alpha": str(float(file.rank)),
        "ss_base_model_version": family.version,
        "ss_output_name": bundle.manifest.name,
    }
    return {key: value for key, value in known.items() if value}


def _thumbnail(folder: Path) -> str | None:
    """Return a picture drawn with the control, as a data URI; None if the bundle holds none."""
    drawn = [path for path in sorted((folder / SAMPLES).glob("*.png")) if path != folder / GRID]
    if not drawn:
        return None
    picture = to_pil(load_picture(drawn[0]))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    picture.save(data, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
