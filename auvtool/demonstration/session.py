"""One demo from an empty folder to its findings."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass

from auvtool.atomic import as_output_error, holds_anything, write_text
from auvtool.command_chain import run_together
from auvtool.demonstration import findings
from auvtool.demonstration.commands import ALL_CASES, CLEAN_CASES, RANDOM, DemoPlan, step_groups
from auvtool.demonstration.phantom_data import ANSWER_KEY_NAME, write_phantom_dataset
from auvtool.errors import UsageError
from auvtool.experiment_schema import ANSWER_KEY
from auvtool.schema import KEEP_LIST, METRICS, SCORES, Row
from auvtool.tables import read_table

MARKER = "demo.json"


@dataclass(frozen=True)
class Findings:
    """Tables and words.

    Attributes:
        dirty: one row a dirty case, see `findings.dirty_rows`.
        detection: what each quantifier found.
        dice: one row a class, see `findings.dice_rows`.
        comparison: what leaving cases out did.
    """

    dirty: list[Row]
    detection: list[str]
    dice: list[Row]
    comparison: list[str]


def open_folder(plan: DemoPlan, *, force: bool) -> None:
    """Make the demo's folder, or find the same demo in it, to go on with.

    Args:
        plan: what will be run.
        force: remove what an earlier demo left; only a folder that a demo made is ever removed.

    Raises:
        UsageError: the folder holds something else, or a demo with other options.
    """
    marker = plan.folder / MARKER
    # Through JSON, so that tuples compare equal to what is read back; jobs and folder change no result.
    options = json.loads(json.dumps({**asdict(plan), "folder": None, "jobs": None}, default=str))
    if marker.is_file():
        if force:
            shutil.rmtree(plan.folder)
        elif json.loads(marker.read_text(encoding="utf-8")) != options:
            raise UsageError(
                f"{plan.folder}: expected a demo with the same options, got one with others; "
                "name another folder, or add --force to start again"
            )
    elif plan.folder.exists() and (not plan.folder.is_dir() or holds_anything(plan.folder)):
        raise UsageError(f"{plan.folder}: expected no folder yet, got one that no demo made; name another with -o")
    if not plan.folder.parent.is_dir():
        raise UsageError(f"{plan.folder}: expected an existing folder {plan.folder.parent}, got none; create it first")
    with as_output_error(plan.folder):
        plan.folder.mkdir(exist_ok=True)
        if not marker.is_file():  # before all else: a folder that holds other files but not this one is no demo's
            write_text(marker, json.dumps(options, indent=1) + "\n", force=False)
        (plan.folder / "logs").mkdir(exist_ok=True)


def run(plan: DemoPlan, *, show: bool, say: Callable[[str], None]) -> Findings:
    """Write the phantoms, run the commands that are not done yet, and read what they found.

    Args:
        plan: its folder is open (`open_folder`).
        show: let a command that runs alone show its progress.
        say: told what happens.

    Raises:
        StepFailed: a command ended with an error.
    """
    n_steps = len(step_groups(plan)) + 1
    say(f"[1/{n_steps}] CT-like phantoms, some made dirty on purpose: {plan.dataset}")
    if plan.dataset.is_dir():
        say("  (done before)")
    else:
        write_phantom_dataset(plan.folder, plan=plan.data, on_case=lambda _: None)
    for number, (heading, steps) in enumerate(step_groups(plan), start=2):
        say(f"[{number}/{n_steps}] {heading}")
        run_together(steps, logs=plan.folder / "logs", at_once=plan.jobs, show=show, say=say)
    return read_findings(plan)


def read_findings(plan: DemoPlan) -> Findings:
    """The findings of a finished demo, from its files."""
    key = read_table(plan.folder / ANSWER_KEY_NAME, ANSWER_KEY)
    rankings = [
        findings.ranking(name, read_table(plan.scores(name), SCORES), read_table(plan.keep_list(name), KEEP_LIST))
        for name in plan.quantifiers
    ]
    dice = findings.dice_rows({arm: read_table(plan.metrics(arm), METRICS) for arm in plan.arms})
    return Findings(
        findings.dirty_rows(key, rankings),
        findings.detection_text(key, rankings),
        dice,
        findings.dice_text(
            dice,
            key,
            {item.name: item for item in rankings}[plan.quantifiers[0]],
            base=ALL_CASES,
            random=RANDOM,
            clean=CLEAN_CASES,
            n_test=plan.data.n_test,
        ),
    )
