"""Letting measures judge pictures, with one measure's model in memory at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dualproc_cli.errors import UserError
from dualproc_cli.measures.measure import Evidence, Judgement, Measure
from dualproc_cli.stages import stage

if TYPE_CHECKING:  # measures are named without torch
    import torch

    from dualproc_cli.measures.pretrained import Pretrained


def judge_in_turn(
    measures: Sequence[Measure], evidences: Callable[[], Iterable[Evidence]], device: "torch.device"
) -> list[dict[Measure, Judgement]]:
    """Return what every measure finds in every evidence.

    Measures that need the same model take their turn together: it is loaded once, judges everything, and is
    freed before the next one is loaded.

    Args:
        measures: must not refuse the spec of the evidence.
        evidences: returns the same evidence each time; called once for each model.
        device: where models run.

    Returns:
        for each evidence, the judgements by measure.

    Raises:
        UserError: a model cannot be loaded, or fails on the pictures.
    """
    groups: dict[Pretrained | None, list[Measure]] = {None: []}
    for measure in measures:
        groups.setdefault(measure.needs, []).append(measure)
    found: list[dict[Measure, Judgement]] = []
    for needs, group in groups.items():
        with _loaded(needs, group, device):
            judged = [{measure: measure.judge(evidence) for measure in group} for evidence in evidences()]
        found = [before | more for before, more in zip(found or [{}] * len(judged), judged, strict=True)]
    return found


@contextmanager
def _loaded(needs: "Pretrained | None", group: Sequence[Measure], device: "torch.device") -> Iterator[None]:
    """Give ``group`` the model that it needs inside the block."""
    if needs is None:
        yield
        return
    from dualproc_cli.device import is_out_of_memory, release
    from dualproc_cli.measures.pretrained import KEY, load_pretrained
    from dualproc_cli.models.load_errors import first_line

    stage(f"measuring by {needs.model}")
    loaded = load_pretrained(needs, device)
    for measure in group:
        measure.take(loaded)
    del loaded
    try:
        yield
    except Exception as error:  # whatever a model's code raises about a picture
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise UserError(
            f"{KEY}: {needs.model}: cannot judge the pictures ({first_line(error)}); choose another model"
        ) from error
    finally:
        for measure in group:
            measure.take(None)
        release(device)
