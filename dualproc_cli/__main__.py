"""The command line: ``dualproc``, or ``python -m dualproc_cli``."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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
        preview,
        report,
        sample,
        schema,
        score,
    )
    from dualproc_cli.commands.stage_line import show_stages
    from dualproc_cli.errors import RunFailed, UserError
    from dualproc_cli.files import DISK_FULL
    from dualproc_cli.printable import printable
    from dualproc_cli.terminal import echo

USAGE: Any = typer.BadParameter.__base__  # UsageError of click, which newer versions of Typer contain
GENERAL = ("--quiet", "-q", "--debug")
LIBRARIES = "torch|torchvision|diffusers|transformers|peft|accelerate|huggingface_hub"


class _Commands(TyperGroup):
    """Ends a command that failed for a known reason with one line and its exit status, never a traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _general_first(args))

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _printable_usage():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        stages = show_stages(quiet=ctx.params["quiet"])
        try:
            with _printable_usage():
                return super().invoke(ctx)
        except (KeyboardInterrupt, Exception) as error:
            known = _known(error)
            if known is None:
                raise
            lines, status = known
            stages.stop()
            if ctx.params["debug"]:
                echo(traceback.format_exc(), err=True, nl=False)
            echo("\n".join(map(printable, lines)), err=True)
            raise typer.Exit(status) from error
        finally:
            stages.stop()


def _general_first(args: list[str]) -> list[str]:
    """Move the options of all commands to the front: people write them behind the command as well."""
    end = args.index("--") if "--" in args else len(args)
    general = [arg for arg in args[:end] if arg in GENERAL]
    return [*general, *(arg for arg in args[:end] if arg not in GENERAL), *args[end:]]


def _known(error: BaseException) -> tuple[list[str], int] | None:
    """Return the lines and the exit status of a command that ends with ``error``; None if it is unknown."""
    match error:
        case UserError() | RunFailed():
            return error.lines, error.exit_status
        case KeyboardInterrupt():
            return ["interrupted"], 130
        case BrokenPipeError():  # the reader of a pipe has gone, which Typer ends quietly
            return None
        case OSError():
            full = error.errno in DISK_FULL
            advice = "make room and run the command again" if full else "choose another file or folder"
            return [f"{error.filename or 'output'}: {error.strerror or error}; {advice}"], 1 if full else 2
        case RuntimeError() if _is_out_of_memory(error):
            advice = "try a smaller learn.batch_size, quantization, or --device cpu"
            return [f"the device ran out of memory; {advice}"], 1
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
app.command()(preview.preview)
app.command()(learn.learn)
app.command()(sample.sample)
app.command()(score.score)
app.command()(evaluate.evaluate)
app.command()(report.report)
app.add_typer(bundle.app, name="bundle")
app.command()(models.models)
app.command()(bench.bench)
app.command()(schema.schema)


def _version(wanted: bool) -> None:
    if wanted:
        echo(f"dualproc {__version__}")
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
        echo(printable(f"{record.levelname.lower()}: {record.getMessage()}"), err=True)


@contextmanager
def _printable_usage() -> Iterator[None]:
    """Escape what Typer's messages about a command's arguments repeat of them."""
    try:
        yield
    except USAGE as error:
        error.message = printable(error.message)
        raise


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
