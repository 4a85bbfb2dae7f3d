"""Going on from a learned control: its adapter is what the new one starts as."""

from pathlib import Path

from dualproc_cli.bundle import Bundle
from dualproc_cli.errors import UserError
from dualproc_cli.files import digest
from dualproc_cli.generator.adapter import misfit, targets
from dualproc_cli.generator.adapter_file import AdapterFile
from dualproc_cli.generator.carried import empty_denoiser
from dualproc_cli.spec import LoadedSpec


def read_start(bundle: Bundle, loaded: LoadedSpec) -> AdapterFile:
    """Read the adapter of ``bundle`` to go on from it with ``loaded``; no weights of models are loaded.

    Raises:
        UserError: it is not an adapter as the spec wants to learn it: made for another generator, on top of
            other adapters, of another rank or in other layers.
    """
    where, file, wanted = (
        f"--from {bundle.source}",
        AdapterFile.read(bundle.folder),
        loaded.spec.learn.adapter,
    )
    _, component, denoiser = empty_denoiser(loaded.generator)
    if why := misfit(component, denoiser, file):
        raise UserError(
            f"{where}: made for another generator than {loaded.spec.generator.model}: {why}; go on with the "
            f"spec's generator set to {bundle.spec.generator.model}"
        )
    carried = [(digest(Path(one.path)), one.scale) for one in loaded.generator.adapters]
    if bundle.stands_on != carried:
        raise UserError(
            f"{where}: learned on top of other adapters; give generator.adapters as its spec.yaml does"
        )
    if (file.type, file.rank) != (wanted.type, wanted.rank):
        raise UserError(
            f"{where}: a {file.type} of rank {file.rank}; set learn.adapter.type and .rank to these"
        )
    if odd := set(file.layers) ^ set(targets(denoiser, wanted.target_modules)):
        raise UserError(
            f"{where}: it adapts other layers ({min(odd)} and {len(odd) - 1} more); set "
            "learn.adapter.target_modules as its spec does"
        )
    return file
