"""Writing a bundle, and adding a report to one."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualproc_cli.bundle.bundle import Bundle
from dualproc_cli.bundle.card import model_card, with_verdict
from dualproc_cli.bundle.layout import GRID, MANIFEST, README, REPORT, SAMPLES, SPEC
from dualproc_cli.bundle.manifest import FORMAT, Manifest, Outcome, Revisions, VerdictRecord, library_versions
from dualproc_cli.files import digest, folder_atomically
from dualproc_cli.metrics import StepMetrics, Validation
from dualproc_cli.spec import ImagePrompt, LoadedSpec, canonical, spec_digest
from dualproc_cli.spec.weights_files import adapter_file

if TYPE_CHECKING:
    from PIL import Image


def write_bundle(
    output: Path,
    loaded: LoadedSpec,
    *,
    save_adapter: Callable[[Path], Any],
    save_steering: Callable[[Path], Any] | None = None,
    arguments: Mapping[str, Any],
    revisions: Revisions,
    memory: Sequence[str],
    words: Mapping[str, str] | None = None,
    started_from: str | None = None,
    metrics: Sequence[StepMetrics],
    validations: Sequence[Validation] = (),
    outcome: Outcome,
    verdict: VerdictRecord | None,
    judged: str = "",
    report: str | None = None,
    grid: "Image.Image",
    samples: "Mapping[str, Image.Image]",
) -> None:
    """Write a bundle to the folder ``output``, all of it or nothing; an older one there is replaced.

    Args:
        output: the folder to write.
        loaded: the spec that the control was learned from.
        save_adapter: writes the adapter's file into a given folder.
        save_steering: writes the steering's file into a given folder; None leaves it out.
        arguments: the pipeline's arguments, besides prompt and seed, to draw as dualproc does.
        revisions: the commits that the spec's models were resolved to.
        memory: names of the memory strategies that were used.
        words: the prompts that the adapter was taught to draw as others, and these others, if there are any.
        started_from: the digest of the adapter's file that the run started from.
        metrics: the metrics of every step.
        validations: what was found on the way.
        outcome: how the run ended.
        verdict: what became of the control.
        judged: which pictures the verdict is on, in words.
        report: the report, as HTML; None leaves it out.
        grid: the pictures before and after, side by side.
        samples: pictures drawn with the control, by file name.

    Raises:
        OSError: the disk is full, or a file cannot be written.
    """
    spec = loaded.spec
    with folder_atomically(output, overwrite=True) as folder:
        pictures = [prompt.path for prompt in spec.visual_prompts.values() if isinstance(prompt, ImagePrompt)]
        adapters = [adapter_file(one.path) for one in spec.generator.adapters]
        for path in {*pictures, *adapters}:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(loaded.folder / path, folder / path)
        save_adapter(folder)
        if save_steering:
            save_steering(folder)
        (folder / SPEC).write_text(loaded.text, "utf-8", newline="")
        (folder / SAMPLES).mkdir(exist_ok=True)
        grid.save(folder / GRID)
        for name, picture in samples.items():
            picture.save(folder / SAMPLES / name)
        holds, words = save_steering is not None, dict(words or {})
        card = model_card(spec, metrics, outcome, revisions, arguments, words, steering=holds)
        (folder / README).write_text(with_verdict(card, verdict, judged) if verdict else card, "utf-8")
        if report is not None:
            (folder / REPORT).write_text(report, "utf-8")
        manifest = Manifest.sealed(
            format=FORMAT,
            name=spec.name,
            spec=json.loads(canonical(spec)),
            spec_digest=spec_digest(spec),
            overrides=loaded.overrides,
            origins=loaded.origins,
            revisions=revisions,
            memory=list(memory),
            words=words,
            started_from=started_from,
            versions=library_versions(),
            seed=spec.learn.seed,
            outcome=outcome,
            verdict=verdict,
            metrics=list(metrics),
            validations=list(validations),
            files={path: digest(folder / path) for path in _files(folder)},
        )
        (folder / MANIFEST).write_text(manifest.to_json(), "utf-8")


def add_report(bundle: Bundle, report: str, verdict: VerdictRecord, judged: str) -> Manifest:
    """Write a report into a bundle's folder, and its verdict on the model card; all of it or nothing.

    The bundle's manifest lists the new files, and so gets another digest.

    Args:
        bundle: opened from a folder.
        report: as HTML.
        verdict: on the control.
        judged: which pictures the verdict is on, in words.

    Returns:
        The new manifest.

    Raises:
        OSError: the disk is full, or a file cannot be written.
    """
    path = bundle.folder.resolve()
    with folder_atomically(path, overwrite=True) as folder:
        shutil.copytree(path, folder, symlinks=True, dirs_exist_ok=True)
        card = (folder / README).read_text("utf-8", errors="replace")
        (folder / README).write_text(with_verdict(card, verdict, judged), "utf-8")
        (folder / REPORT).write_text(report, "utf-8")
        files = bundle.manifest.files | {name: digest(folder / name) for name in (README, REPORT)}
        manifest = bundle.manifest.with_files(dict(sorted(files.items())))
        (folder / MANIFEST).write_text(manifest.to_json(), "utf-8")
    return manifest


def _files(folder: Path) -> list[str]:
    return sorted(
        Path(parent, name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
    )
