"""Where the work on cases is done: in this process, in worker processes, or on a Dask cluster."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from auvtool.worker_pool import MemoryLimit, WorkerDied, run_in_workers

Item = TypeVar("Item")
Result = TypeVar("Result")


def _say_nothing(text: str) -> None:
    pass


@dataclass(frozen=True)
class Workplace:
    """Where, and how many cases at once.

    Attributes:
        jobs: worker processes; 1 works in this one.
        cluster: local:N, file:SCHEDULER.json or tcp://HOST:PORT, in the place of `jobs`.
        max_memory: bytes that this process and its workers may take together, see `worker_pool.MemoryLimit`.
        say: told in a line how many cases are worked on at once and why, and what is odd about a cluster.
    """

    jobs: int = 1
    cluster: str | None = None
    max_memory: int | None = None
    say: Callable[[str], None] = _say_nothing

    def is_here(self, n_items: int) -> bool:
        """Whether that many items are worked on in this process, one after the other."""
        return n_items == 0 or (self.cluster is None and (self.jobs == 1 or n_items == 1))

    def results(
        self,
        task: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        on_worker_died: Callable[[list[Item]], None],
        size: Callable[[Item], int] = lambda item: 0,
        shared: Path | None = None,
    ) -> Generator[tuple[Item, Result | WorkerDied], None, None]:
        """Each item with the result of its task as it finishes.

        Args:
            task: a function of a module; it must not raise but return its errors.
            items: the work.
            on_worker_died: told which items were in work when a process died.
            size: of an item; the larger, the more memory it takes.
            shared: the folder that the tasks write to, which the machines of a cluster must share.

        Raises:
            ClusterError: the cluster cannot be reached or is lost, or its workers do not fit.
        """
        if self.is_here(len(items)):
            for item in items:
                yield item, task(item)
        elif self.cluster is not None:
            from auvtool.cluster_work import run_on_cluster

            with closing(
                run_on_cluster(
                    task, items, cluster=self.cluster, shared=shared, on_worker_died=on_worker_died, say=self.say
                )
            ) as results:
                yield from results
        else:
            limit = None if self.max_memory is None else MemoryLimit(self.max_memory, size, self.say)
            jobs = min(self.jobs, len(items))
            with closing(run_in_workers(task, items, jobs=jobs, on_worker_died=on_worker_died, limit=limit)) as results:
                yield from results


HERE = Workplace()
