"""The tracer and its rules would see a writer that is not atomic, leaves files, or syncs too late."""

import ctypes
import errno
import os
import random
import threading
from pathlib import Path

import pytest

from tests.faults.syscalls import durability, ptrace, tracer
from tests.faults.syscalls.calls import Call
from tests.faults.syscalls.explore import choose, explore
from tests.faults.syscalls.writer import Writer

OLD, NEW = "old " * 1000, "new " * 1000


def trace(action, folder, **options):
    return tracer.run(lambda: action(folder) or {}, folder.resolve(), **options)


def write_in_place(folder: Path) -> dict:
    (folder / "file").write_text(NEW)
    return {}


def write_beside(folder: Path, *, sync: bool) -> dict:
    with (folder / ".file.tmp").open("w") as file:
        file.write(NEW)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    (folder / ".file.tmp").replace(folder / "file")
    return {}


def look(folder: Path) -> str:
    return {OLD: "old", NEW: "new"}[(folder / "file").read_text()]


def prepare(folder: Path) -> None:
    (folder / "file").write_text(OLD)


def test_the_calls_on_the_folder_are_recorded_and_no_others(tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()

    def write(folder):
        other.write_text("not counted")
        write_beside(folder, sync=True)

    calls = trace(write, folder, results=True).calls
    assert [call.name for call in calls] == ["openat", "write", "fsync", "close", "rename"]
    assert [call.result for call in calls[1:]] == [len(NEW), 0, 0, 0]
    assert str(calls[-1]) == "rename .file.tmp -> file"


@pytest.mark.parametrize(
    ("fault", "at", "answer", "left"),
    [
        ("kill", 1, None, 0),
        ("torn", 1, None, len(NEW) // 2),
        ("enospc", 0, "No space left", None),
        ("full", 1, "No space left", len(NEW) // 2),
        ("eio", 2, "Input/output", len(NEW)),
        ("eio", 3, "Input/output", len(NEW)),
        ("gone", 2, "Input/output", len(NEW)),
    ],
)
def test_each_fault_happens_at_its_call(tmp_path, fault, at, answer, left):
    run = trace(lambda folder: write_beside(folder, sync=True), tmp_path, fault=fault, at=at)
    assert run.injected
    assert (run.answer is None) == (answer is None)
    assert answer is None or answer in run.answer["raised"]
    temporary = tmp_path / ".file.tmp"
    assert (temporary.stat().st_size if temporary.exists() else None) == left
    assert not (tmp_path / "file").exists()


def test_a_full_disk_stays_full_and_lets_files_be_removed(tmp_path):
    def write(folder):
        try:
            write_in_place(folder)
        except OSError:
            (folder / "file").unlink()
        (folder / "second").write_text("too late")

    run = trace(write, tmp_path, fault="full", at=1)
    assert "No space left" in run.answer["raised"]
    assert list(tmp_path.iterdir()) == []


def test_calls_of_threads_are_counted_and_killed(tmp_path):
    def write(folder):

        thread = threading.Thread(target=write_in_place, args=(folder,))
        thread.start()
        thread.join()

    assert [call.name for call in trace(write, tmp_path).calls] == ["openat", "write", "close"]
    assert trace(write, tmp_path, fault="kill", at=1).answer is None


def test_writing_in_place_falls(tmp_path):
    fell = explore(Writer("naive", "", write_in_place, look, prepare, ("old",)), tmp_path.resolve()).fell
    assert any("cannot be used" in sentence for sentence in fell)
    assert any("it raised OSError" in sentence for sentence in fell)
    assert any("not synced" in sentence for sentence in fell)


def test_renaming_without_a_sync_falls(tmp_path):
    writer = Writer("unsynced", "", lambda folder: write_beside(folder, sync=False), look, prepare, ("old",))
    fell = explore(writer, tmp_path.resolve()).fell
    assert "order of fsync: .file.tmp is renamed to file before it is synced." in fell
    assert "order of fsync: In the end . is not synced after file was renamed." in fell


def test_a_marker_before_the_rest_of_its_folder_is_not_durable():
    write = [Call("openat", "a/images", flags=os.O_CREAT), Call("write", "a/images", size=9)]
    mark = [Call("rename", "a/.t.tmp", "a/dataset.json"), Call("fsync", "a")]
    assert durability.find_faults([*write, Call("fsync", "a/images"), Call("fsync", "a"), *mark]) == []
    assert durability.find_faults([*write, Call("fsync", "a/images"), *mark]) == [
        "a/dataset.json gets its name before the folder is synced after a/images was created."
    ]
    assert durability.find_faults([*write, Call("fsync", "a"), *mark]) == [
        "a/dataset.json gets its name before a/images is synced.",
        "In the end a/images is not synced.",
    ]


def test_a_machine_that_permits_no_tracing_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(ptrace._libc, "ptrace", refuse)
    with pytest.raises(ptrace.NotPermitted, match=r"^PTRACE_TRACEME failed: Operation not permitted\. .*SYS_PTRACE"):
        trace(write_in_place, tmp_path)


def test_a_sample_has_kills_and_failures_of_both_kinds_of_calls():
    calls = [Call("openat", "a", flags=os.O_CREAT), Call("write", "a", size=9), Call("fsync", "a")]
    cases = choose(calls, None, 0)
    assert ("kill", 0) in cases
    assert ("eio", 2) in cases
    assert ("torn", 2) not in cases
    for seed in range(20):
        chosen = choose(calls, random.Random(seed), 4)
        assert len(set(chosen)) == 4
        assert {(fault in tracer.KILLING, calls[place].is_turn) for fault, place in chosen[:1]} == {(True, True)}
        assert len({fault in tracer.KILLING for fault, _ in chosen[:2]}) == 2
