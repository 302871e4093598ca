"""Processes that train one network together, each on its own device and part of the batch."""

import gc
import os
import socket
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing, nn

from auvtool.errors import AuvtoolError, UsageError


def check_processes(n_processes: int, *, device: str, batch_size: int | None) -> None:
    """Raise if `n_processes` cannot share a batch on `device`.

    Args:
        n_processes: one a GPU; on a CPU any number.
        device: as --device names it.
        batch_size: None: not known yet.

    Raises:
        UsageError: a single GPU is named, there are too few, or the batch has fewer cases.
    """
    if device not in {"cpu", "cuda"}:
        raise UsageError(f"--gpus: expected --device cuda for {n_processes} GPUs, got {device}; leave out its number")
    if device == "cuda" and torch.cuda.device_count() < n_processes:
        raise UsageError(
            f"--gpus: expected at most {torch.cuda.device_count()}, the GPUs of this machine, got {n_processes}; "
            "name fewer"
        )
    if batch_size is not None and batch_size < n_processes:
        raise UsageError(
            f"--gpus: expected at most a batch's {batch_size} cases, got {n_processes}; raise --batch-size"
        )


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return distributed.is_available() and distributed.is_initialized()


def number_of_processes() -> int:
    """How many share a batch."""
    return distributed.get_world_size() if is_distributed() else 1


def own_rank() -> int:
    """Number of this process; the first one, 0, writes."""
    return distributed.get_rank() if is_distributed() else 0


def summed_over_processes(value: Tensor) -> Tensor:
    """The sum of every process's value, without a gradient; the value itself where there is one process."""
    if is_distributed():
        distributed.all_reduce(value)
    return value


def share_gradient(parameter: nn.Parameter) -> None:
    """Average the gradient of a parameter outside the wrapped network over the processes, as that does with its own.

    At once in the backward pass: the gradient scaler looks for infinities next, and all processes must see the same.
    """
    if is_distributed():
        parameter.register_post_accumulate_grad_hook(_average)  # type: ignore[no-untyped-call]


def _average(parameter: Tensor) -> None:
    assert parameter.grad is not None  # noqa: S101  # the hook runs when there is one
    distributed.all_reduce(parameter.grad)
    parameter.grad /= distributed.get_world_size()


def run_processes(
    work: Callable[[Any, torch.device, Callable[[Any], None]], Any],
    job: Any,
    *,
    n_processes: int,
    device: str,
    on_message: Callable[[Any], None],
) -> Any:
    """Run `work(job, device, send)` in processes that know one another, and return what the first one does.

    Args:
        work: a function that a new process can import.
        job: its first argument, which can be pickled.
        n_processes: how many.
        device: cpu (messages by gloo) or cuda (by nccl, process k on GPU k).
        on_message: called here with what the first process sends.

    Raises:
        AuvtoolError: of a process; the others are ended.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    with _rendezvous():
        start = multiprocessing.start_processes  # type: ignore[attr-defined]
        given = (work, job, n_processes, device, queue)
        processes = start(_run, args=(given,), nprocs=n_processes, join=False)  # type: ignore[no-untyped-call]
        result = None
        is_done = False
        try:
            while not is_done:
                try:
                    is_done = processes.join(timeout=_SECONDS_BETWEEN_LOOKS)
                finally:
                    while not queue.empty():
                        kind, content = queue.get()
                        if kind == "error":
                            raise content
                        if kind == "result":
                            result = content
                        else:
                            on_message(content)
        except BaseException:
            for process in processes.processes:
                process.terminate()
            raise
    return result


_SECONDS_BETWEEN_LOOKS = 0.2


class _rendezvous:  # noqa: N801  # used like a function
    """The variables by which the processes find one another, while they start and run."""

    def __enter__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.before = {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT")}
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})

    def __exit__(self, *error: object) -> None:
        for name, value in self.before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run(rank: int, given: tuple[Any, Any, int, str, Any]) -> None:
    work, job, n_processes, device_name, queue = given
    device = torch.device("cpu") if device_name == "cpu" else torch.device("cuda", rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("gloo" if device.type == "cpu" else "nccl", rank=rank, world_size=n_processes)

    def send(message: Any) -> None:
        if rank == 0:
            queue.put(("message", message))

    try:
        result = work(job, device, send)
    except AuvtoolError as error:
        queue.put(("error", error))
        raise
    if rank == 0:
        queue.put(("result", result))
    # A wrapped network is a cycle of references to the group; were it alive at exit, the group's threads would abort.
    gc.collect()
    distributed.destroy_process_group()
