"""What a report is made of: a control, the record of its run, and what its evaluation found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dualproc_cli.bundle import Bundle, Outcome, Revisions
from dualproc_cli.evaluation import Album, Comparison, Verdict
from dualproc_cli.metrics import StepMetrics, Validation
from dualproc_cli.spec import ControlSpec


@dataclass(frozen=True)
class Evaluated:
    """An evaluated control.

    Attributes:
        label: what it is called in the report.
        spec: of the control.
        text: the spec as its author wrote it.
        overrides: the values that ``--set`` gave, by dotted key.
        folder: where the spec's pictures lie.
        metrics: of every step.
        validations: what was found on the way.
        outcome: how the run ended.
        revisions: of the run's models.
        versions: of dualproc, Python and the libraries.
        digest: of the bundle as it was evaluated; None for one that is being written.
        comparison: what was found in the pictures.
        verdict: on them.
        album: some of the pictures.
    """

    label: str
    spec: ControlSpec
    text: str
    overrides: Mapping[str, object]
    folder: Path
    metrics: Sequence[StepMetrics]
    validations: Sequence[Validation]
    outcome: Outcome
    revisions: Revisions
    versions: Mapping[str, str]
    digest: str | None
    comparison: Comparison
    verdict: Verdict
    album: Album

    @property
    def pictures(self) -> str:
        """Which pictures were judged, in words."""
        prompts = self.spec.prompts
        held_out = f", {len(prompts.held_out)} of them held out" if prompts.held_out else ""
        return f"{self.comparison.seeds} seeds of each of {len(prompts.all)} prompts{held_out}"

    @classmethod
    def of(cls, bundle: Bundle, comparison: Comparison, verdict: Verdict, album: Album) -> "Evaluated":
        """Return what there is to say of an evaluated bundle."""
        manifest, loaded = bundle.manifest, bundle.loaded
        return cls(
            label=bundle.source.resolve().name.removesuffix(".zip").removesuffix(".dualproc"),
            spec=loaded.spec,
            text=loaded.text,
            overrides=manifest.overrides,
            folder=loaded.folder,
            metrics=manifest.metrics,
            validations=manifest.validations,
            outcome=manifest.outcome,
            revisions=manifest.revisions,
            versions=manifest.versions,
            digest=manifest.digest,
            comparison=comparison,
            verdict=verdict,
            album=album,
        )
