"""Tests of the ingesting child: its events, its exit status, its limits, and that no upload makes it stumble."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ssl_core.events import Failed, Result, Stopped, from_line
from tests.pictures import encoded, jpeg, pixels, png
from tests.worker.uploads import archives_given
from worker.uploads import ingest as module
from worker.uploads.ingest import ingest
from worker.uploads.limits import Limits

LIMITS = Limits(unpacked_bytes=2**28, ratio=200, images=1000, image_bytes=2**22, image_pixels=10**6)
SMALL = {"a/1.png": png(1), "b/2.jpg": jpeg(2)}


def last(path, data, on_bad_file="reject", limits=LIMITS):
    (path / "upload").write_bytes(data)
    *_, event = ingest(path / "upload", path / "out", on_bad_file, limits)
    return event


def run(path, data, *arguments):
    """Run the child as the supervisor does; return its exit status and its events."""
    (path / "upload").write_bytes(data)
    command = [
        sys.executable,
        "-m",
        "worker.uploads.ingest",
        path / "upload",
        "--out",
        path / "out",
        "--events",
        *arguments,
    ]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # each thread of it reserves address space
    child = subprocess.run(command, env=environment, capture_output=True, check=False)
    return child.returncode, [from_line(line) for line in child.stdout.splitlines()]


@pytest.mark.parametrize("kind", archives_given.EVERY_KIND)
def test_every_kind_of_archive_becomes_the_same_dataset(tmp_path, kind):
    event = last(tmp_path, archives_given.EVERY_KIND[kind])
    assert isinstance(event, Result)
    assert event.summary == json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert event.summary["classes"] == ["cat", "dog"]
    assert [split["images"] for split in event.summary["splits"].values()] == [3, 0, 1]
    assert event.summary["ignored"] == 2


def test_npz_becomes_a_labelled_dataset(tmp_path):
    images = np.stack([pixels(seed) for seed in range(4)])
    event = last(tmp_path, archives_given.npz(images=images, labels=np.array([3, 3, 11, -1])))
    assert event.summary["classes"] == ["3", "11"]
    assert event.summary["splits"]["train"] == {"images": 4, "labelled": 3, "per_class": [2, 1]}
    packed = np.load(tmp_path / "out" / "pixels.npy")
    assert sorted(image.tobytes() for image in packed) == sorted(image.tobytes() for image in images)


def test_same_upload_packed_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        last(tmp_path / name, archives_given.EVERY_KIND["tar.xz"])
    for name in ("images.arrow", "pixels.npy", "dataset.json"):
        assert (tmp_path / "one/out" / name).read_bytes() == (tmp_path / "two/out" / name).read_bytes()


def test_corrupt_image_among_good_ones_is_rejected_by_default(tmp_path):
    files = SMALL | {"a/~bad.jpg": jpeg()[:200]}
    event = last(tmp_path, archives_given.zipped(files))
    assert isinstance(event, Failed)
    assert (event.code, event.retry) == ("bad_files", False)
    assert event.data["errors"][0]["pointer"] == "/files/a~1~0bad.jpg"
    assert event.data["errors"][0]["code"] == "corrupt"
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_corrupt_image_among_good_ones_is_skipped_when_asked(tmp_path):
    files = SMALL | {"a/bad.jpg": jpeg()[:200], "a/empty.png": b"", "a/none.jpg": b"no image"}
    event = last(tmp_path, archives_given.zipped(files), "skip")
    assert event.summary["splits"]["train"]["images"] == 2
    assert {fault["name"]: fault["code"] for fault in event.summary["skipped"]} == {
        "a/bad.jpg": "corrupt",
        "a/empty.png": "empty",
        "a/none.jpg": "not_an_image",
    }


LINK = {"a/odd.png": b"/etc/passwd"}
NO_FILES = {
    "symlink": (tarfile.SYMTYPE, 0o120777),
    "device": (tarfile.CHRTYPE, 0o020666),
    "fifo": (tarfile.FIFOTYPE, 0o010666),
}


@pytest.mark.parametrize("code", NO_FILES)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_entry_that_is_no_file_is_rejected_by_default_and_skipped_when_asked(tmp_path, kind, code):
    in_tar, in_zip = NO_FILES[code]
    if kind == "tar":
        data = archives_given.tarred(SMALL, archives_given.entry("a/odd.png", type=in_tar, linkname="/etc/passwd"))
    else:
        data = archives_given.zipped(SMALL | LINK, modes={"a/odd.png": in_zip})
    event = last(tmp_path, data)
    assert (event.code, event.retry) == ("bad_files", False)
    assert [(fault["pointer"], fault["code"]) for fault in event.data["errors"]] == [("/files/a~1odd.png", code)]
    assert not (tmp_path / "out" / "dataset.json").exists()
    event = last(tmp_path, data, "skip")
    assert [(fault["name"], fault["code"]) for fault in event.summary["skipped"]] == [("a/odd.png", code)]
    assert event.summary["splits"]["train"]["images"] == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"not an archive", "not_an_archive"),
        (archives_given.zipped()[:200], "truncated_archive"),
        (archives_given.zipped({"../a.png": png()}), "unsafe_path"),
        (archives_given.zipped({"readme.txt": b"hi"}), "no_images"),
        (archives_given.zipped({}), "no_images"),
        (archives_given.tarred({f"{n}.png": png() for n in range(1001)}), "too_many_images"),
        (archives_given.zipped({"a.png": png(), "A.png": png()}), "bad_files"),
    ],
)
def test_bad_uploads_fail_with_a_code_and_no_retry(tmp_path, data, code):
    event = last(tmp_path, data)
    assert isinstance(event, Failed)
    assert (event.code, event.retry) == (code, False)
    assert event.message.endswith(".")


def test_events_survive_names_that_are_no_text(tmp_path):
    name = "\x01\x1b]0;\u202e" + b"\xff".decode("utf-8", "surrogateescape") + ".jpg"
    event = last(tmp_path, archives_given.tarred(SMALL | {name: b"bad"}), "skip")
    text = json.dumps(event.summary, ensure_ascii=False)
    assert text.encode().isascii()
    assert "\\u0000" not in text
    assert event.summary["skipped"][0]["name"] == "\\x01\\x1b]0;\\x202e\\xff.jpg"


def test_a_folder_or_an_upload_that_cannot_be_opened_is_a_fault_of_ours_and_is_tried_again(tmp_path):
    (tmp_path / "upload").write_bytes(archives_given.zipped(SMALL))
    (tmp_path / "file").write_bytes(b"")
    *_, event = ingest(tmp_path / "upload", tmp_path / "file" / "out", "reject", LIMITS)
    assert (event.code, event.retry) == ("storage", True)
    *_, event = ingest(tmp_path / "missing", tmp_path / "out", "reject", LIMITS)
    assert (event.code, event.retry) == ("storage", True)


def test_a_disk_that_is_full_while_the_upload_is_read_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: open("/dev/full", "w+b"))  # noqa: SIM115
    event = last(tmp_path, archives_given.zipped(SMALL))
    assert (event.code, event.retry) == ("storage_full", True)


def test_mistake_of_ours_is_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module.archives, "read", lambda *_: [None])
    event = last(tmp_path, b"")
    assert (event.code, event.retry) == ("internal", True)
    assert "Traceback" in capsys.readouterr().err


def test_nothing_but_the_dataset_is_left_in_the_folder(tmp_path):
    last(tmp_path, archives_given.zipped(SMALL))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"images.arrow", "pixels.npy", "dataset.json"}
    last(tmp_path, archives_given.zipped({}))
    assert len(list((tmp_path / "out").iterdir())) == 3


# --- the process -----------------------------------------------------------------------------------------------------


def test_child_ends_with_zero_and_a_result(tmp_path):
    status, events = run(tmp_path, archives_given.zipped())
    assert status == 0
    assert isinstance(events[-1], Result)


def test_child_ends_with_one_when_the_upload_is_at_fault(tmp_path):
    status, events = run(tmp_path, b"hello")
    assert (status, len(events)) == (1, 1)
    assert (events[0].code, events[0].retry) == ("not_an_archive", False)


def test_child_takes_its_limits_from_the_command_line(tmp_path):
    status, events = run(tmp_path, archives_given.zipped(), "--max-images", "2")
    assert (status, events[-1].code) == (1, "too_many_images")


@pytest.mark.parametrize("name", ["images.arrow", "pixels.npy", "dataset.tmp"])
def test_a_full_disk_is_a_fault_of_ours_and_is_tried_again(tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to("/dev/full")  # where every write says that the disk is full
    status, events = run(tmp_path, archives_given.zipped(SMALL))
    assert (status, events[-1].code, events[-1].retry) == (70, "storage_full", True)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_dataset_larger_than_a_file_may_be_is_too_much_data(tmp_path):
    files = {f"{n}.bmp": encoded(Image.fromarray(pixels(n, 100, 100)), "BMP") for n in range(9)}  # 30 kB each
    status, events = run(tmp_path, archives_given.zipped(files), "--max-unpacked-bytes", "100000")
    assert (status, events[-1].code) == (1, "too_much_data")


def test_too_little_memory_is_told(tmp_path):
    wall = encoded(Image.new("1", (9000, 9000)))  # 243 MB as RGB
    status, events = run(tmp_path, archives_given.zipped({"wall.png": wall}), "--ingest-memory-bytes", str(700 * 2**20))
    assert (status, events[-1].code) == (1, "out_of_memory")


def test_too_little_time_is_told(tmp_path):
    picture = jpeg(0, 2000, 2000)
    upload = archives_given.zipped({f"{n}.jpg": picture for n in range(200)}, zipfile.ZIP_STORED)
    status, events = run(tmp_path, upload, "--ingest-seconds", "1")
    assert (status, events[-1].code) == (1, "out_of_time")


def test_child_that_is_told_to_stop_says_so(tmp_path):
    os.mkfifo(tmp_path / "upload")  # opening it waits for a writer, who never comes
    command = [
        sys.executable,
        "-m",
        "worker.uploads.ingest",
        tmp_path / "upload",
        "--out",
        tmp_path / "out",
        "--events",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        while not (tmp_path / "out").exists():
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGTERM)
        output, _ = child.communicate(timeout=60)
    assert from_line(output) == Stopped(step=0)
    assert child.returncode == 75


LIMITS_SEEN = """
import json, resource, sys
from pathlib import Path
from worker import sandbox
sandbox.enter(sandbox.Allowance(memory_bytes=2**31, cpu_seconds=60, file_bytes=4096))
names = ["RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE"]
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
try:
    Path(sys.argv[1]).write_bytes(bytes(8192))
except OSError as error:
    limits = [resource.getrlimit(getattr(resource, name)) for name in names]
    print(json.dumps([error.errno, status["NoNewPrivs"].strip(), limits]))
"""


def test_sandbox_binds_the_process(tmp_path):
    output = subprocess.check_output([sys.executable, "-c", LIMITS_SEEN, tmp_path / "file"])
    number, no_new_privileges, limits = json.loads(output)
    assert os.strerror(number) == "File too large"
    assert no_new_privileges == "1"
    assert limits == [[2**31] * 2, [60, 70], [4096] * 2, [128] * 2, [0] * 2]


def test_child_imports_no_torch():
    code = "import sys, worker.uploads.ingest; print({'torch', 'torchvision', 'sklearn', 'celery', 'sqlalchemy'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


# --- damage ----------------------------------------------------------------------------------------------------------

VICTIMS = {
    "zip": archives_given.zipped(SMALL),
    "stored zip": archives_given.zipped(SMALL, 0),
    "tar": archives_given.tarred(SMALL)[:5120],
    "gnu tar": archives_given.tarred({"folder/" * 20 + "a.png": png()}, form=1)[:5120],
    "tar.gz": archives_given.gzipped(archives_given.tarred(SMALL)),
    "tar.xz": archives_given.xzipped(archives_given.tarred(SMALL)),
    "tar.zst": archives_given.zstandardised(archives_given.tarred(SMALL)),
    "npz": archives_given.npz(images=np.stack([pixels(1), pixels(2)]), labels=np.array(["a", "b"])),
    "parquet": archives_given.parquet({"image": [png(1), jpeg(2)], "label": [0, 1]}),
}
DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=0, max_size=4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", VICTIMS)
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(flips=DAMAGE, keep=st.one_of(st.just(1.0), st.floats(0, 1)), on_bad_file=st.sampled_from(["reject", "skip"]))
def test_damage_ends_in_a_report_or_in_a_known_error(tmp_path, kind, flips, keep, on_bad_file):
    data = bytearray(VICTIMS[kind])
    for place, bits in flips:
        data[int(place * len(data))] ^= bits
    event = last(tmp_path, bytes(data[: int(keep * len(data))]), on_bad_file)
    assert isinstance(event, Result) or not event.retry, event
    assert isinstance(event, Result) or event.code != "out_of_memory"
