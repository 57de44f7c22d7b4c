"""The part of Ray's interface that the engine uses, in this process: tasks run when they are waited for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    """Base class, as in Ray."""


class WorkerCrashedError(RayError):
    """The worker of a task died."""


class RayTaskError(RayError):
    """A task raised `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"Traceback of a task: {cause}")
        self.cause = cause


class StandIn:
    """One node. `dies(task, call)` says whether the worker dies at the n-th call, counted from 0 over all tasks."""

    exceptions = SimpleNamespace(
        RayError=RayError,
        RayTaskError=RayTaskError,
        WorkerCrashedError=WorkerCrashedError,
        NodeDiedError=type("NodeDiedError", (RayError,), {}),
        OutOfMemoryError=type("OutOfMemoryError", (RayError,), {}),
        ObjectLostError=type("ObjectLostError", (RayError,), {}),
    )

    def __init__(self, dies: Callable[[Any, int], bool] = lambda task, call: False) -> None:
        self.dies, self.calls = dies, 0
        self.options: dict[str, float] = {}
        self.most_running, self.running = 0, 0

    def nodes(self) -> list[dict[str, Any]]:
        """One node of two cores, and one that is gone."""
        resources = {"CPU": 2.0, "memory": 64e9, "object_store_memory": 1e9}
        return [{"Alive": True, "Resources": resources}, {"Alive": False, "Resources": {"CPU": 64.0, "memory": 1e12}}]

    def remote(self, **options: float) -> Callable[[Callable[..., Any]], Any]:
        """As `ray.remote(num_cpus=…)`."""
        self.options = options

        def submit(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            return lambda: function(*arguments)

        return lambda function: SimpleNamespace(remote=lambda *arguments: submit(function, *arguments))

    def wait(self, tasks: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        """The task that was submitted last is done first."""
        assert num_returns == 1
        return tasks[-1:], tasks[:-1]

    def get(self, task: Callable[[], Any]) -> Any:
        """Run the task."""
        self.running -= 1
        self.calls += 1
        if self.dies(task, self.calls - 1):
            raise WorkerCrashedError
        try:
            return task()
        except Exception as error:
            raise RayTaskError(error) from error

    @contextmanager
    def cluster(self, address: str | None) -> Iterator["StandIn"]:
        """In place of `ray_cluster`."""
        yield self
