"""The program `auvtool`: joins the commands, sets up the process, turns errors into one line and an exit code."""

import _thread
import errno
import os
import signal
import sys
import threading
import traceback
from importlib import import_module
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from auvtool import __version__, console
from auvtool.atomic import as_output_error
from auvtool.cli.bench import bench
from auvtool.cli.help_text import Command
from auvtool.cli.options import with_common_options
from auvtool.cli.usage_errors import usage_error
from auvtool.command_chain import end_with_chain
from auvtool.errors import AuvtoolError, ExitCode, OutputError, one_line

# In the order of a run, with the line that `auvtool --help` shows. Each name is a module of auvtool.cli with a function
# of that name (a dash as an underscore).
COMMANDS = {
    "demo": "Run the whole chain on phantoms.",
    "convert": "Make an nnU-Net raw data set of a public one.",
    "check": "Report faults of a data set, one line each.",
    "extract": "Run a foundation model over every case.",
    "score": "Rank the cases by how suspect they are.",
    "filter": "Decide which cases to train on.",
    "train": "Train nnU-Net on the kept cases.",
    "predict": "Predict label maps with a trained network.",
    "eval": "Dice and IoU of predictions, by case and class.",
    "correlate": "Correlate scores with Dice or IoU.",
    "report": "Show scores and slices in one HTML file.",
    "corrupt": "Make a share of a data set dirty, with a key.",
    "calibrate": "Learn which cases are dirty, and why.",
    "merge": "Join shards of features, or tables.",
    "info": "Say what a file is; versions, models, rules.",
    "completion": "Print a shell's completion script; the manual.",
}


_UNWINDING_S = 20.0  # less than the half minute that schedulers give between SIGTERM and SIGKILL


class _QuietPipeGroup(TyperGroup):
    """Ends quietly when the reader of stdout has gone (`auvtool score F.h5 | head -1`)."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            console.discard(sys.stdout)
            raise typer.Exit(ExitCode.DONE) from error
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            with as_output_error(error.filename or "standard output"):
                raise
        return result


app = typer.Typer(
    name="auvtool",
    cls=_QuietPipeGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "AUVTOOL"},
)


def _print_version(value: bool) -> None:
    if value:
        print(f"auvtool {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            allow_from_autoenv=False,
            help="Print the version and exit.",
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", show_envvar=False, help="Print the traceback of an error (or set AUVTOOL_DEBUG).")
    ] = False,
) -> None:
    """Find the cases in a medical image segmentation data set that harm training, and train without them.

    \b
    Each command reads and writes files, so they chain:
      auvtool extract Dataset004_Hippocampus -o F.h5
      auvtool score F.h5 -o S.csv
      auvtool filter S.csv --quantile 0.9 -o K.csv
      auvtool train Dataset004_Hippocampus --keep K.csv -o RUN
    `auvtool demo` runs all of them on phantoms.

    An option's default can come from a table of the command's name in a TOML file (--config) and from the environment,
    which wins over the file: AUVTOOL_EXTRACT_JOBS=4 is `auvtool extract --jobs 4`.

    The exit code is 0 when all is done, 2 for wrong usage, 3 for an invalid input, 4 when some cases failed (they stand
    in OUTPUT.failures.csv), 1 for anything else, 130 after Ctrl-C.
    """
    if debug:
        os.environ["AUVTOOL_DEBUG"] = "1"  # where main() and worker processes look


for _name, _line in COMMANDS.items():
    _function = getattr(import_module(f"auvtool.cli.{_name}"), _name)
    app.command(_name, cls=Command, short_help=_line)(with_common_options(_function))
app.add_typer(bench, name="bench", short_help="Experiments on data sets with known dirty cases.")


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    # Where SIGTERM reached all processes, a library may wait for a worker that died in the middle of a message.
    waited_enough = threading.Timer(_UNWINDING_S, os._exit, (ExitCode.TERMINATED,))
    waited_enough.daemon = True
    waited_enough.start()
    raise SystemExit(ExitCode.TERMINATED)  # unwinds, so temporary files are removed


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _end_at_once)
    raise KeyboardInterrupt


def _end_at_once(signal_number: int, frame: FrameType | None) -> None:
    # A second Ctrl-C, somewhere in the unwinding of the first: what that leaves, the next run removes. Workers see that
    # their parent has gone.
    os._exit(ExitCode.INTERRUPTED)


def _send_again(dropped: Any) -> None:
    """A hook for errors in callbacks of garbage collection, which Python drops: an answer to a signal must not be.

    h5py has such a callback for every object that it closes.
    """
    number = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}.get(dropped.exc_type)
    if number is None:
        sys.__unraisablehook__(dropped)
        return
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, _interrupt)
    # Later, and from another thread: here, within the callback, it would be dropped again.
    timer = threading.Timer(0.01, _signal_main_thread, (number,))
    timer.daemon = True
    timer.start()


def _signal_main_thread(number: signal.Signals) -> None:
    if hasattr(signal, "pthread_kill") and (thread := threading.main_thread().ident) is not None:
        signal.pthread_kill(thread, number)  # wakes it, if it waits
    else:
        _thread.interrupt_main(number)


def _hold_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _end_at_once_on_sigterm() -> None:
    # A pool (nnU-Net's) ends its forked workers by SIGTERM and waits for them. A Python handler would not run in a
    # worker that has just begun to wait for its lock: both would wait for ever. The signal is held over the fork, so
    # that none is answered before this.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _release_sigterm()


def prepare_process() -> None:
    """One thread a process, set before torch or numpy load: more only spin against each other."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell or nohup has it ignored
        signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _send_again
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_hold_sigterm, after_in_parent=_release_sigterm, after_in_child=_end_at_once_on_sigterm
        )


def main() -> None:
    """Entry point of the console script."""
    prepare_process()
    end_with_chain()
    if "_AUVTOOL_COMPLETE" in os.environ:
        # What add_completion=True does, without its two options: `auvtool completion` stands for them.
        from typer.completion import completion_init  # type: ignore[attr-defined]  # not in its __all__

        completion_init()
    try:
        sys.exit(app(prog_name="auvtool", standalone_mode=False))
    except TyperException as error:
        _end_on_usage_error(error)
    except AuvtoolError as error:
        if isinstance(error, OutputError):
            console.discard(sys.stdout)
        _print_traceback_if_debugging()
        console.error(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        _print_traceback_if_debugging()
        console.error(
            f"unexpected {type(error).__name__}: {one_line(error)}; run 'auvtool --debug ...' for the traceback"
        )
        sys.exit(ExitCode.UNEXPECTED)


def _end_on_usage_error(error: TyperException) -> None:
    if "\n" in error.message:  # a program without arguments: its help
        print(error.message, file=sys.stderr)
    else:
        console.error(str(usage_error(error)))
    sys.exit(ExitCode.USAGE)


def _print_traceback_if_debugging() -> None:
    if os.environ.get("AUVTOOL_DEBUG", "").lower() not in {"", "0", "false"}:
        traceback.print_exc()
