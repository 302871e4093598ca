"""One fold's training as a process runs it, alone or as one of several."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auvtool.device import torch_device
from auvtool.interrupts import kept_from_children
from auvtool.training.captured_output import captured_output
from auvtool.training.folds import Fold
from auvtool.training.recipe import Recipe
from auvtool.training.workspace import Workspace

if TYPE_CHECKING:
    import torch

FINAL = "checkpoint_final.pth"
LATEST = "checkpoint_latest.pth"


@dataclass(frozen=True)
class Job:
    """What a process needs to know; all of it can be pickled.

    Attributes:
        run: results folder.
        workspace: nnU-Net's folders.
        recipe: all that decides the result.
        plans, dataset_json: as nnU-Net's trainer takes them.
        fold: number and cases.
        class_names: foreground classes, in the order of the network's outputs.
        device: cpu, cuda, cuda:N.
        n_processes: that share each batch.
        threads: of torch, in each process.
        augmentation_workers: of each process; None: nnU-Net's number.
        compile: the network; None: nnU-Net's default.
        validate: on the whole scans in the end.
    """

    run: Path
    workspace: Workspace
    recipe: Recipe
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    fold: Fold
    class_names: tuple[str, ...]
    device: str
    n_processes: int
    threads: int
    augmentation_workers: int | None
    compile: bool | None
    validate: bool

    @property
    def folder(self) -> Path:
        """The fold's."""
        return self.run / f"fold_{self.fold.number}"


def run_job(job: Job, on_epoch: Callable[[dict[str, Any]], None]) -> int | None:
    """Train the fold, as far as it is not done; returns the epoch that it went on from (None: from the start).

    What nnU-Net and its child processes print goes to nnunet_output.log.

    Raises:
        InputError: the loss is not finite, or see `AuvTrainer`.
    """
    with job.workspace.environment(augmentation_workers=job.augmentation_workers, compiles=job.compile):
        if job.n_processes == 1:
            return _train(job, torch_device(job.device), on_epoch)
        from auvtool.training.processes import run_processes

        resumed_at: int | None = run_processes(
            _train, job, n_processes=job.n_processes, device=job.device, on_message=on_epoch
        )
        return resumed_at


def _train(job: Job, device: "torch.device", on_epoch: Callable[[dict[str, Any]], None]) -> int | None:
    with ExitStack() as stack:
        stack.enter_context(captured_output(job.folder / "nnunet_output.log"))
        import torch

        from auvtool.training.trainer import OPTIONS_KEY, AuvTrainer

        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(job.threads)
        options = {
            "recipe": job.recipe.to_dict(),
            "run": str(job.run),
            "train": list(job.fold.train),
            "val": list(job.fold.val),
            "class_names": list(job.class_names),
        }
        trainer = AuvTrainer(
            {**job.plans, "continue_training": False, OPTIONS_KEY: options},
            job.recipe.configuration,
            job.fold.number,
            job.dataset_json,
            device,
        )
        trainer.on_epoch = on_epoch
        trainer.initialize()
        resumed_at = None
        for name in (FINAL, LATEST):
            if (job.folder / name).is_file():
                trainer.load_checkpoint(str(job.folder / name))
                resumed_at = trainer.current_epoch
                break
        if not (job.folder / FINAL).is_file():
            trainer.run_training()
        if job.validate:
            with kept_from_children():  # it has a pool of processes
                trainer.perform_actual_validation()
    return resumed_at
