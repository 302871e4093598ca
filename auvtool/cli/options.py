"""Options that mean the same in every command."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auvtool import console
from auvtool.atomic import is_stream, refuse_existing
from auvtool.cli.configuration import CONFIG_VARIABLE, set_defaults
from auvtool.cli.help_text import examples_first, metavar_of
from auvtool.errors import UsageError

if TYPE_CHECKING:
    from auvtool.workplace import Workplace

Output = Annotated[Path, typer.Option("-o", "--output", help="File to write; '-' is standard output.")]
Force = Annotated[bool, typer.Option("-f", "--force", help="Replace an existing output.")]
DryRun = Annotated[bool, typer.Option("-n", "--dry-run", help="Say what would be done, and do nothing.")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="FORMAT", help="csv, tsv, json, jsonl or parquet; by default the output's ending."
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="Where to compute: cpu, cuda, cuda:1, ...")]
Jobs = Annotated[int, typer.Option("-j", "--jobs", min=1, help="Cases worked on at once, each on one thread.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="WHERE",
        help="In the place of -j, the workers of a Dask cluster: local:N, file:SCHEDULER.json or tcp://HOST:PORT.",
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="Lower -j so that all processes stay below, as 8GB: the largest case runs first, alone and measured; one "
        "case always runs.",
    ),
]
KeepGoing = Annotated[
    bool,
    typer.Option("--keep-going/--fail-fast", help="Go on after a bad case (exit 4 at the end), or stop at the first."),
]
TrustCheckpoint = Annotated[
    bool,
    typer.Option(
        "--trust-checkpoint",
        help="Load a checkpoint that holds more than tensors. It can run any code: only your own.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random choice.")]


def names_of(text: str | None, option: str) -> list[str]:
    """The names in the text of an option like --classes A,B; none where it was not given.

    Raises:
        UsageError: it was given without a name.
    """
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise UsageError(f"{option}: expected names with commas between them, got '{text}'; leave it out for all")
    return names


def is_typed(context: typer.Context, name: str) -> bool:
    """Whether a parameter stands on the command line, and is no default of a file or the environment."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def workplace_of(
    context: typer.Context, *, jobs: int, cluster: str | None = None, max_memory: str | None = None
) -> "Workplace":
    """Where --jobs, --cluster and --max-memory say that the work is done.

    Of a cluster and jobs, one typed and the other a default of a file or the environment, the typed one counts.

    Raises:
        UsageError: they do not fit each other, or Dask is missing.
    """
    from auvtool.memory import parse_memory, peak_resident_bytes
    from auvtool.workplace import Workplace

    local = is_typed(context, "jobs") or is_typed(context, "max_memory")
    if is_typed(context, "cluster") and not local:
        jobs, max_memory = 1, None
    elif local and not is_typed(context, "cluster"):
        cluster = None
    if cluster is not None:
        from auvtool.cluster import check_cluster

        check_cluster(cluster)
        for option, given in (("--jobs", jobs if jobs > 1 else None), ("--max-memory", max_memory)):
            if given is not None:
                raise UsageError(
                    f"{option}: expected nothing beside --cluster, whose workers are as many and as large as it was "
                    f"started with, got {given}; leave one of them out"
                )
    if max_memory is not None and not peak_resident_bytes():
        raise UsageError(
            "--max-memory: expected a system that tells how much memory a process takes, got one that does not; "
            "choose -j by hand"
        )
    limit = None if max_memory is None else parse_memory(max_memory, "--max-memory")
    return Workplace(jobs, cluster, limit, console.info)


def check_plot_option(plot: Path, output: Path, *, force: bool) -> None:
    """Refuse a --plot that cannot be written, or that -o would replace.

    Raises:
        UsageError: see above.
    """
    from auvtool.plots import check_plot

    check_plot(plot, force=force)
    _check_two_files(plot, "--plot", output)


def check_second_output(path: Path, option: str, output: Path, *, force: bool) -> None:
    """Refuse a second output that cannot be written, or that -o would replace.

    Raises:
        UsageError: see above.
    """
    refuse_existing(path, force=force)
    _check_two_files(path, option, output)


def refuse_input_as_output(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse an output that --force would put in the place of a file that it is made of.

    Raises:
        UsageError: see above.
    """
    for path in inputs:
        if output.exists() and path.exists() and not is_stream(output) and output.samefile(path):
            raise UsageError(f"-o: expected another file than those that are read, got {output}; name a new file")


def _check_two_files(path: Path, option: str, output: Path) -> None:
    if path.absolute() == output.absolute():
        raise UsageError(f"{option}: expected another file than -o, got {path} twice; name two files")


def _set_quiet(value: bool) -> bool:
    if value:
        console.be_quiet()
    return value


def _set_verbose(value: bool) -> bool:
    if value:
        console.be_verbose()
    return value


_QUIET = Annotated[bool, typer.Option("-q", "--quiet", callback=_set_quiet, help="Say nothing but errors.")]
_VERBOSE = Annotated[bool, typer.Option("-v", "--verbose", callback=_set_verbose, help="Say more on stderr.")]
_CONFIG = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=set_defaults,
        is_eager=True,
        envvar=CONFIG_VARIABLE,
        help="TOML file with defaults, a table a command.",
    ),
]


def with_common_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with --quiet, --verbose and --config added; their callbacks do all there is to do."""
    signature = inspect.signature(command)
    common = {"quiet": (_QUIET, False), "verbose": (_VERBOSE, False), "config": (_CONFIG, None)}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in common.items()
    ]
    parameters = [*signature.parameters.values(), *added]
    for parameter in parameters:
        for metadata in getattr(parameter.annotation, "__metadata__", ()):
            metadata.show_envvar = False  # the help of `auvtool` says the rule once
            metadata.metavar = metadata.metavar or metavar_of(parameter.annotation.__origin__)
            metadata.readable = False  # what cannot be read is an input error, said in one line where it is read

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> None:
        command(*args, **{name: value for name, value in options.items() if name not in common})

    wrapped.__doc__ = examples_first(command.__doc__ or "")
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {**command.__annotations__, **{name: kind for name, (kind, _) in common.items()}}
    return wrapped
