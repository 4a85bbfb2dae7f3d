"""The command line: ``dualproc``, or ``python -m dualproc_cli``."""

import errno
import logging
import os
import sys
import traceback
import warnings
from typing import Annotated, Any

from dualproc_cli.interrupts import quiet_interrupts

with quiet_interrupts():  # these take half a second
    import typer
    from typer.core import TyperGroup

    from dualproc_cli import __version__
    from dualproc_cli.commands import (
        bench,
        bundle,
        check,
        diff,
        evaluate,
        init,
        learn,
        libraries,
        models,
        sample,
        schema,
        score,
    )
    from dualproc_cli.commands.stage_line import show_stages
    from dualproc_cli.errors import RunFailed, UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
LIBRARIES = "torch|torchvision|diffusers|transformers|peft|accelerate|huggingface_hub"


class _Commands(TyperGroup):
    """Ends a command that failed for a known reason with one line and its exit status, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        stages = show_stages(quiet=ctx.params["quiet"])
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Exception) as error:
            known = _known(error)
            if known is None:
                raise
            message, status = known
            stages.stop()
            if ctx.params["debug"]:
                traceback.print_exc()
            typer.echo(message, err=True)
            raise typer.Exit(status) from error
        finally:
            stages.stop()


def _known(error: BaseException) -> tuple[str, int] | None:
    """Return the line and the exit status of a command that ends with ``error``; None if it is unknown."""
    match error:
        case UserError() | RunFailed():
            return str(error), error.exit_status
        case KeyboardInterrupt():
            return "interrupted", 130
        case OSError() if error.errno in DISK_FULL:
            place = error.filename or "output"
            return f"{place}: {error.strerror}; make room and run the command again", 1
        case RuntimeError() if _is_out_of_memory(error):
            advice = "try a smaller learn.batch_size, quantization, or --device cpu"
            return f"the device ran out of memory; {advice}", 1
    return None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Teach a text-to-image generator a visual control by asking a vision-language model "
    "about its pictures.",
)
app.command()(init.init)
app.command()(check.check)
app.command()(diff.diff)
app.command()(learn.learn)
app.command()(sample.sample)
app.command()(score.score)
app.command()(evaluate.evaluate)
app.add_typer(bundle.app, name="bundle")
app.command()(models.models)
app.command()(bench.bench)
app.command()(schema.schema)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dualproc {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print results and errors alone: no progress, no warnings.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="If the command fails, print the traceback as well.")
    ] = False,
) -> None:
    """Silence what the libraries print for their developers, and print the package's own warnings."""
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", module=rf"({LIBRARIES})(\.|$)")
    for name in ("torch.utils._pytree", "bitsandbytes"):  # they warn on importing torchao and bitsandbytes
        logging.getLogger(name).setLevel(logging.ERROR)
    logger = logging.getLogger("dualproc_cli")
    if not any(isinstance(handler, _Echo) for handler in logger.handlers):
        logger.addHandler(_Echo(logging.WARNING))
    logger.setLevel(logging.ERROR if quiet else logging.NOTSET)


class _Echo(logging.Handler):
    """Prints the package's own warnings as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(f"{record.levelname.lower()}: {record.getMessage()}", err=True)


def _is_out_of_memory(error: RuntimeError) -> bool:
    if "torch" not in sys.modules:  # if torch raised the error, it is already imported
        return False
    from dualproc_cli.device import is_out_of_memory

    return is_out_of_memory(error)


def main() -> None:
    """Run the command line."""
    libraries.owns_process = True
    app(prog_name="dualproc")


if __name__ == "__main__":
    main()
