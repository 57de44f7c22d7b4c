"""The decoding pool: its results are in order, its memory is limited, and its processes load few libraries."""

import os
import subprocess
import sys
from functools import partial

import pytest
from store_helpers import SIZE, write_images

from c2l_models.training.store import decode_workers
from c2l_models.training.store.decode_or_refuse import Outcome, decode_chunk
from c2l_models.training.store.decode_workers import AHEAD, decoding_pool


def test_processes_that_cannot_start_say_so_and_refuse_no_file(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from c2l_models.training.store.decode_or_refuse import decode_chunk\n"
        "from c2l_models.training.store.decode_workers import decoding_pool\n"
        "from functools import partial\n"
        "with decoding_pool(2) as mapped:\n    print(list(mapped(partial(decode_chunk, size=4), [['/nowhere']])))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.stdout == ""
    assert "DatasetError: a decoding process cannot start" in done.stderr


def test_processes_give_results_in_order_and_never_run_far_ahead():
    taken = []

    def tasks():
        for number in range(40):
            taken.append(number)
            yield ["/nowhere"] * number

    with decoding_pool(2) as mapped:
        results = mapped(partial(decode_chunk, size=SIZE), tasks())
        first = next(results)
        assert len(taken) <= 2 * AHEAD + 1
        found = [first, *results]
    assert found == [(b"", [Outcome(refused="no such file")] * number) for number in range(40)]


def test_one_worker_is_this_process():
    with decoding_pool(1) as mapped:
        assert list(mapped(lambda task: (b"", [Outcome(task[0])]), [["a"], ["b"]])) == [
            (b"", [Outcome("a")]),
            (b"", [Outcome("b")]),
        ]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system tells no affinity")
def test_by_default_as_many_processes_as_cores_this_one_may_use(monkeypatch):
    given = []

    class Pool:
        def __init__(self, workers: int, **_: object) -> None:
            given.append(workers)

        def shutdown(self, **_: object) -> None: ...

    monkeypatch.setattr(decode_workers, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5})
    for workers in (None, 7):
        with decoding_pool(workers) as mapped:
            assert list(mapped(partial(decode_chunk, size=SIZE), [])) == []
    assert given == [3, 7]


def test_a_worker_loads_only_what_decodes(tmp_path):
    (film,) = write_images(tmp_path, 1).iterdir()
    code = (
        "import sys; from c2l_models.training.store import decode_workers;"
        "from c2l_models.training.store.decode_or_refuse import decode_chunk; decode_chunk([sys.argv[1]], 4);"
        "print({'torch', 'torchvision', 'timm', 'pandas', 'pyarrow', 'rich', 'tyro', 'pydicom'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(film)], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
