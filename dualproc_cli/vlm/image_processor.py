"""Options of a VLM's image processor that a spec changes."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from huggingface_hub.dataclasses import validate_typed_dict
from transformers import ProcessorMixin

from dualproc_cli.errors import UserError
from dualproc_cli.models.load_errors import first_line

# How a picture is handed over and what comes back, which the project decides.
OURS = {"data_format", "device", "disable_grouping", "input_data_format", "return_tensors"}


def change_image_processor(processor: ProcessorMixin, options: Mapping[str, Any]) -> None:
    """Give ``processor`` an image processor with other ``options``, those of `VlmSpec.processor`.

    Raises:
        UserError: it has no such option, or refuses a value.
    """
    if not options:
        return
    own = processor.image_processor
    kind, accepted = type(own), getattr(own, "valid_kwargs", None)
    known = set(getattr(accepted, "__annotations__", None) or own.to_dict()) - OURS
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"vlm.processor.{name}: {kind.__name__} has no such option{hint} "
                f"(expected one of {', '.join(sorted(known))})"
            )
    try:
        if accepted is not None:
            validate_typed_dict(accepted, dict(options))
        processor.image_processor = kind.from_dict({**own.to_dict(), **options})
    except Exception as error:  # values are checked in many ways
        raise UserError(
            f"vlm.processor: {kind.__name__} refuses {dict(options)}: {first_line(error)}"
        ) from error
