"""The command line: ``dualproc``, or ``python -m dualproc_cli``."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dualproc_cli import __version__
from dualproc_cli.commands import bench, bundle, check, evaluate, init, learn, models, sample, schema, score
from dualproc_cli.errors import RunFailed, UserError
from dualproc_cli.files import DISK_FULL
from dualproc_cli.printable import printable
from dualproc_cli.terminal import echo

USAGE: Any = typer.BadParameter.__base__  # UsageError of click, which newer versions of Typer contain
LIBRARIES = "torch|torchvision|diffusers|transformers|peft|accelerate|huggingface_hub"


class _Commands(TyperGroup):
    """Ends a command that failed for a known reason with one line and its exit status, never a traceback."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _printable_usage():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _printable_usage():
                return super().invoke(ctx)
        except (UserError, RunFailed) as error:
            _fail("\n".join(map(printable, error.lines)), error.exit_status)
        except KeyboardInterrupt:
            _fail("interrupted", 130)
        except BrokenPipeError:  # the reader of a pipe has gone
            raise
        except OSError as error:
            full = error.errno in DISK_FULL
            advice = "make room and run the command again" if full else "choose another file or folder"
            line = f"{error.filename or 'output'}: {error.strerror or error}; {advice}"
            _fail(printable(line), 1 if full else 2)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            _fail(
                "the device ran out of memory; try a smaller learn.batch_size, quantization, or --device cpu",
                1,
            )


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Teach a text-to-image generator a visual control by asking a vision-language model "
    "about its pictures.",
)
app.command()(init.init)
app.command()(check.check)
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
        echo(f"dualproc {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
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


def _fail(message: str, status: int) -> None:
    echo(message, err=True)
    raise typer.Exit(status)


def _is_out_of_memory(error: RuntimeError) -> bool:
    if "torch" not in sys.modules:  # if torch raised the error, it is already imported
        return False
    from dualproc_cli.device import is_out_of_memory

    return is_out_of_memory(error)


def main() -> None:
    """Run the command line."""
    app(prog_name="dualproc")


if __name__ == "__main__":
    main()
