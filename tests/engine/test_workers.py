import psutil
import pytest

from tfaug.engine import workers

TOTAL = psutil.virtual_memory().total


@pytest.mark.parametrize("content, limit", [("1048576\n", 1 << 20), ("max\n", TOTAL), ("", TOTAL), (None, TOTAL)])
def test_a_container_may_have_less_memory_than_the_machine(tmp_path, monkeypatch, content, limit):
    monkeypatch.setattr(workers, "CGROUP_LIMITS", (tmp_path / "memory.max",))
    if content is not None:
        (tmp_path / "memory.max").write_text(content)
    assert workers.memory_limit() == limit


@pytest.mark.parametrize("memory, number", [(1, 3), (30, 3), (40, 2), (100, 1), (1000, 1)])
def test_as_many_workers_as_cores_and_memory_allow(monkeypatch, memory, number):
    monkeypatch.setattr(workers, "memory_limit", lambda: 100)
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    assert workers.how_many(memory) == number
