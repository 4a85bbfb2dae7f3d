"""From a control spec to an adapter bundle."""

import time
from functools import partial
from pathlib import Path

import torch

from dualproc_cli.bundle import Bundle, Outcome, Revisions, VerdictRecord, write_bundle
from dualproc_cli.bundle.layout import ADAPTER
from dualproc_cli.bundle.manifest import library_versions
from dualproc_cli.compiler import CompositeLoss, compile_loss
from dualproc_cli.device import deterministic
from dualproc_cli.drawing import validation_seeds
from dualproc_cli.errors import RunFailed, UserError
from dualproc_cli.evaluation import Album, Comparison, compare_with_base, verdict_of
from dualproc_cli.generator import Generator, write_steering
from dualproc_cli.learning.before_after import draw_before_after
from dualproc_cli.learning.interruption import Interrupted
from dualproc_cli.learning.learner import Learner
from dualproc_cli.learning.output import Output
from dualproc_cli.learning.progress import LearningProgress
from dualproc_cli.learning.run import Ending, run
from dualproc_cli.learning.start import read_start
from dualproc_cli.learning.words import find_words
from dualproc_cli.measures import check_measures, measures_of_evaluation
from dualproc_cli.memory import MemoryPlan, plan_learning
from dualproc_cli.models.source import find_model
from dualproc_cli.preview import first_look
from dualproc_cli.report import Evaluated, report_page
from dualproc_cli.spec import ControlSpec, LoadedSpec
from dualproc_cli.stages import stage
from dualproc_cli.terminal import Console
from dualproc_cli.vlm import Vlm, load_processor


def learn(
    loaded: LoadedSpec,
    output: Path,
    *,
    device: torch.device,
    resume: bool = False,
    overwrite: bool = False,
    keep_best: bool = False,
    start: Bundle | None = None,
    console: Console | None = None,
) -> VerdictRecord | None:
    """Learn the control of ``loaded`` and write its bundle to the folder ``output``.

    It ends with a verdict, by pictures of seeds that are neither learned on nor evaluated.

    The same spec on the same machine gives the same adapter bit for bit (on CUDA as far as its kernels are
    deterministic). Until the bundle is written, a checkpoint lies beside ``output``.

    Args:
        loaded: the spec.
        output: the folder of the bundle.
        device: where both models run.
        resume: go on from the checkpoint of the same spec.
        overwrite: replace a bundle, or the checkpoint of an interrupted run.
        keep_best: if the run ends early, write a bundle of the state with the lowest recent loss.
        start: a bundle whose adapter the new one starts as.
        console: where progress is shown; standard error by default.

    Returns:
        The verdict; None if ``learn.validation_pictures`` is 0.

    Raises:
        SpecError: a measure that the spec names cannot judge its pictures.
        UserError: the output, a model or the spec cannot be used.
        Interrupted: Ctrl-C or SIGTERM; the state is in the checkpoint.
        RunFailed: the loss or its gradient is not finite, memory ran out, or a file could not be written.
    """
    console = console or Console(stderr=True)
    place, started = Output(output), time.monotonic()
    check_measures(loaded)
    started_from = start.manifest.files[ADAPTER] if start else None
    with place.owned() as removed, deterministic():
        for line in removed:
            console.print(line, markup=False, soft_wrap=True)
        checkpoint = place.prepare(loaded.spec, resume=resume, overwrite=overwrite, started_from=started_from)
        first = read_start(start, loaded) if start else None
        console.print(
            f"loading {loaded.spec.generator.model} and {loaded.spec.vlm.model} on {device}", markup=False
        )
        if loaded.spec.vlm.processor:
            load_processor(loaded.spec.vlm)  # a mistake there is told before weights are read
        plan = plan_learning(loaded, device)
        if plan.reason:
            console.print(plan.reason, markup=False, soft_wrap=True)
        generator, vlm = plan.load_generator(), plan.load_vlm()
        generator.add_adapter(loaded.spec.learn.adapter, loaded.spec.learn.seed)
        if first:
            generator.start_from(first)
        if loaded.spec.steered:
            generator.add_steering(loaded.spec.steered, loaded.spec.learn.seed)
        size = loaded.spec.generator.height, loaded.spec.generator.width
        criterion = compile_loss(loaded, vlm, *size)
        if generator.steering:
            generator.steering.words = (
                checkpoint.words if checkpoint else _find_words(loaded.spec, generator, criterion, console)
            )
        learner = Learner(loaded.spec, generator, criterion, keep_best=keep_best, started_from=started_from)
        if checkpoint:
            try:
                learner.restore(checkpoint)
            except ValueError as error:
                raise UserError(
                    f"{place.checkpoint}: {error}; pass --overwrite instead of --resume to start anew"
                ) from error
            console.print(f"resuming after step {checkpoint.step}", markup=False)
        else:
            for line in first_look(loaded.spec, generator, criterion, vlm).lines:
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        with LearningProgress(console, learner.steps, len(learner.metrics)) as progress:
            ending = run(learner, place.checkpoint, progress, plan.next())
        if not ending.early:
            console.print(ending.message, markup=False, soft_wrap=True)
            verdict = _finish(loaded, place, plan, generator, vlm, learner, ending, started, started_from)
            place.checkpoint.unlink(missing_ok=True)
            return verdict
        message = ending.message
        if keep_best and learner.best and learner.phase is learner.phases[-1]:
            generator.load_adapter_state(learner.best.adapter)
            _finish(loaded, place, plan, generator, vlm, learner, ending, started, started_from)
            message += f"; {output} holds the best state so far, of step {learner.best.step}"
        elif keep_best:
            message += "; there is no best state yet"
    raise (Interrupted if ending.reason == "interrupted" else RunFailed)(message)


def _find_words(
    spec: ControlSpec, generator: Generator, criterion: CompositeLoss, console: Console
) -> dict[str, str]:
    """Return `find_words`, and tell what was found."""
    stage("looking for prompts that answer as expected")
    words = find_words(spec, generator, criterion)
    if words:
        changes = {prompt: other for prompt, other in words.items() if prompt != other}
        own = [f"{prompt!r} as {changes[prompt]!r}" for prompt in spec.prompts.train if prompt in changes]
        more = f", and {len(changes) - len(own)} further prompts likewise" if len(changes) > len(own) else ""
        console.print(
            f"nothing need be steered; the adapter is taught to draw {', '.join(own)}{more}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return words


def _finish(
    loaded: LoadedSpec,
    place: Output,
    plan: MemoryPlan,
    generator: Generator,
    vlm: Vlm,
    learner: Learner,
    ending: Ending,
    started: float,
    started_from: str | None,
) -> VerdictRecord | None:
    """Draw the pictures, judge, and write the bundle of the adapter in its present state."""
    stage("drawing pictures before and after")
    pictures = draw_before_after(generator, loaded.spec)
    stage("judging pictures of other seeds")
    album = Album()
    found = _compare(loaded.spec, generator, learner.criterion, album)
    outcome = Outcome(
        reason=ending.reason,
        step=learner.best.step if ending.early and learner.best else len(learner.metrics),
        seconds=round(time.monotonic() - started, 1),
    )
    stage("writing the bundle")
    revisions = Revisions(
        generator=generator.revision, vlm=vlm.revision, evaluate_vlm=_second_revision(loaded)
    )
    judged = _judged(loaded, learner, outcome, revisions, found, album) if found else None
    verdict = VerdictRecord(**judged.verdict.as_json()) if judged else None
    keeps, steering = loaded.spec.learn.teach.keep_steering, generator.steering
    try:
        write_bundle(
            place.bundle,
            loaded,
            save_adapter=generator.save_adapter,
            save_steering=partial(write_steering, steering) if keeps and steering else None,
            arguments=generator.call_arguments(),
            revisions=revisions,
            metrics=learner.metrics,
            validations=learner.validations,
            memory=plan.names,
            words=generator.words,
            started_from=started_from,
            outcome=outcome,
            verdict=verdict,
            judged=judged.pictures if judged else "",
            report=report_page([judged]) if judged else None,
            grid=pictures.grid(),
            samples=pictures.files(),
        )
    except OSError as error:
        raise RunFailed(
            f"{place.bundle}: could not be written ({error.strerror or error}); all that was learned is in "
            f"{place.checkpoint}: make room and go on with --resume"
        ) from error
    return verdict


def _compare(
    spec: ControlSpec, generator: Generator, criterion: CompositeLoss, album: Album
) -> Comparison | None:
    """Return what is found in a few pictures of validation seeds; None if the spec wants none."""
    count = spec.learn.validation_pictures
    if count == 0:
        return None
    seeds = validation_seeds(max(2, count // len(spec.prompts.all)))
    measures = measures_of_evaluation(spec)
    return compare_with_base(spec, generator, criterion, measures, seeds=seeds, album=album)


def _judged(
    loaded: LoadedSpec,
    learner: Learner,
    outcome: Outcome,
    revisions: Revisions,
    found: Comparison,
    album: Album,
) -> Evaluated:
    """Return what the bundle's report is made of."""
    return Evaluated(
        label=loaded.spec.name,
        spec=loaded.spec,
        text=loaded.text,
        overrides=loaded.overrides,
        folder=loaded.folder,
        metrics=learner.metrics,
        validations=learner.validations,
        outcome=outcome,
        revisions=revisions,
        versions=library_versions(),
        digest=None,
        comparison=found,
        verdict=verdict_of(found),
        album=album,
    )


def _second_revision(loaded: LoadedSpec) -> str | None:
    """Return the revision of the second VLM, if it is known without loading it."""
    second = loaded.spec.evaluate.vlm
    try:
        return find_model(second).revision if second else None
    except FileNotFoundError:  # `evaluate` reports it
        return None
