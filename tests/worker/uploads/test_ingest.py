"""Ingestion: its events, exit codes and limits, and its behaviour on damaged uploads."""

import bz2
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ssl_core.config import Reading
from ssl_core.events import Failed, Result, Stopped, from_line
from tests import sample_archives
from tests.pictures import encoded, jpeg, pixels, png
from worker.uploads import ingest as module
from worker.uploads.ingest import ingest
from worker.uploads.limits import Limits

LIMITS = Limits(unpacked_bytes=2**28, ratio=200, images=1000, image_bytes=2**22, image_pixels=10**6)
SMALL = {"a/1.png": png(1), "b/2.jpg": jpeg(2)}


def ingest_last(path, data, on_bad_file="reject", limits=LIMITS, **fields):
    (path / "upload").write_bytes(data)
    *_, event = ingest(path / "upload", path / "out", Reading(on_bad_file=on_bad_file, **fields), limits)
    return event


def run(path, data, *arguments):
    """Run the process as the supervisor does; return its exit code and its events."""
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
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # each of its threads reserves address space
    child = subprocess.run(command, env=environment, capture_output=True, check=False)
    return child.returncode, [from_line(line) for line in child.stdout.splitlines()]


def test_an_upload_of_another_sha256_is_corrupt_before_it_is_read(tmp_path):
    data = sample_archives.make_zip(SMALL)
    (tmp_path / "upload").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    assert isinstance([*ingest(tmp_path / "upload", tmp_path / "out", Reading(), LIMITS, sha256)][-1], Result)
    (tmp_path / "upload").write_bytes(data[:-1] + b"!")
    (failed,) = ingest(tmp_path / "upload", tmp_path / "again", Reading(), LIMITS, sha256)
    assert (failed.code, failed.retry, failed.data) == ("corrupt", False, {"file": "upload"})
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("kind", sample_archives.EVERY_KIND)
def test_every_format_gives_the_same_dataset(tmp_path, kind):
    event = ingest_last(tmp_path, sample_archives.EVERY_KIND[kind])
    assert isinstance(event, Result)
    assert event.summary == json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert event.summary["classes"] == ["cat", "dog"]
    assert [split["images"] for split in event.summary["splits"].values()] == [3, 0, 1]
    assert event.summary["ignored"] == 2
    files = [file for file in (tmp_path / "out").iterdir() if file.name != "dataset.json"]
    assert event.summary["size_bytes"] == sum(file.stat().st_size for file in files)


def test_npz_gives_a_labelled_dataset(tmp_path):
    images = np.stack([pixels(seed) for seed in range(4)])
    event = ingest_last(tmp_path, sample_archives.make_npz(images=images, labels=np.array([3, 3, 11, -1])))
    assert event.summary["classes"] == ["3", "11"]
    assert event.summary["splits"]["train"] == {"images": 4, "labelled": 3, "per_class": [2, 1]}
    packed = np.load(tmp_path / "out" / "pixels.npy")
    assert sorted(image.tobytes() for image in packed) == sorted(image.tobytes() for image in images)


def test_same_upload_packed_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        ingest_last(tmp_path / name, sample_archives.EVERY_KIND["tar.xz"])
    for name in ("images.arrow", "pixels.npy", "dataset.json"):
        assert (tmp_path / "one/out" / name).read_bytes() == (tmp_path / "two/out" / name).read_bytes()


def test_a_corrupt_image_fails_the_upload_by_default(tmp_path):
    files = SMALL | {"a/~bad.jpg": jpeg()[:200]}
    event = ingest_last(tmp_path, sample_archives.make_zip(files))
    assert isinstance(event, Failed)
    assert (event.code, event.retry) == ("bad_files", False)
    assert event.data["errors"][0]["pointer"] == "/files/a~1~0bad.jpg"
    assert event.data["errors"][0]["code"] == "corrupt"
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_corrupt_image_is_skipped_with_the_option(tmp_path):
    files = SMALL | {"a/bad.jpg": jpeg()[:200], "a/empty.png": b"", "a/none.jpg": b"no image"}
    event = ingest_last(tmp_path, sample_archives.make_zip(files), "skip")
    assert event.summary["splits"]["train"]["images"] == 2
    assert {fault["name"]: fault["code"] for fault in event.summary["skipped"]} == {
        "a/bad.jpg": "corrupt",
        "a/empty.png": "empty",
        "a/none.jpg": "not_an_image",
    }


def test_too_many_pixels_for_the_bytes_of_the_upload_are_refused_before_they_are_decoded(tmp_path):
    header = encoded(Image.new("1", (10_000, 10_000)))[:50]
    limits = replace(LIMITS, image_pixels=10**8)
    event = ingest_last(tmp_path, sample_archives.make_parquet({"image": [header] * 3}), "skip", limits)
    assert (event.code, event.retry) == ("bomb", False)
    assert "pixels for each byte" in event.message
    event = ingest_last(tmp_path, sample_archives.make_parquet({"image": [header] * 2 + [png()]}), "skip", limits)
    assert event.summary["skipped_count"] == 2


LINK = {"a/odd.png": b"/etc/passwd"}
SPECIAL_TYPES = {
    "symlink": (tarfile.SYMTYPE, 0o120777),
    "device": (tarfile.CHRTYPE, 0o020666),
    "fifo": (tarfile.FIFOTYPE, 0o010666),
}


@pytest.mark.parametrize("code", SPECIAL_TYPES)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_special_entry_fails_the_upload_by_default_and_is_skipped_with_the_option(tmp_path, kind, code):
    in_tar, in_zip = SPECIAL_TYPES[code]
    if kind == "tar":
        data = sample_archives.make_tar(
            SMALL, sample_archives.make_tar_entry("a/odd.png", type=in_tar, linkname="/etc/passwd")
        )
    else:
        data = sample_archives.make_zip(SMALL | LINK, modes={"a/odd.png": in_zip})
    event = ingest_last(tmp_path, data)
    assert (event.code, event.retry) == ("bad_files", False)
    assert [(fault["pointer"], fault["code"]) for fault in event.data["errors"]] == [("/files/a~1odd.png", code)]
    assert not (tmp_path / "out" / "dataset.json").exists()
    event = ingest_last(tmp_path, data, "skip")
    assert [(fault["name"], fault["code"]) for fault in event.summary["skipped"]] == [("a/odd.png", code)]
    assert event.summary["splits"]["train"]["images"] == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"not an archive", "not_an_archive"),
        (sample_archives.make_zip()[:200], "truncated_archive"),
        (sample_archives.make_zip({"../a.png": png()}), "unsafe_path"),
        (sample_archives.make_zip({"readme.txt": b"hi"}), "no_images"),
        (sample_archives.make_zip({}), "no_images"),
        (sample_archives.make_tar({f"{n}.png": png() for n in range(1001)}), "too_many_images"),
        (sample_archives.make_zip({"a.png": png(), "A.png": png()}), "bad_files"),
    ],
)
def test_invalid_uploads_fail_with_a_code_and_without_retry(tmp_path, data, code):
    event = ingest_last(tmp_path, data)
    assert isinstance(event, Failed)
    assert (event.code, event.retry) == (code, False)
    assert event.message.endswith(".")


def test_names_of_invalid_utf8_are_escaped_in_events(tmp_path):
    name = "\x01\x1b]0;\u202e" + b"\xff".decode("utf-8", "surrogateescape") + ".jpg"
    event = ingest_last(tmp_path, sample_archives.make_tar(SMALL | {name: b"bad"}), "skip")
    text = json.dumps(event.summary, ensure_ascii=False)
    assert text.encode().isascii()
    assert "\\u0000" not in text
    assert event.summary["skipped"][0]["name"] == "\\x01\\x1b]0;\\x202e\\xff.jpg"


def test_a_folder_or_an_upload_that_cannot_be_opened_is_retried(tmp_path):
    (tmp_path / "upload").write_bytes(sample_archives.make_zip(SMALL))
    (tmp_path / "file").write_bytes(b"")
    *_, event = ingest(tmp_path / "upload", tmp_path / "file" / "out", Reading(), LIMITS)
    assert (event.code, event.retry) == ("storage", True)
    *_, event = ingest(tmp_path / "missing", tmp_path / "out", Reading(), LIMITS)
    assert (event.code, event.retry) == ("storage", True)


def test_a_full_disk_while_the_upload_is_read_is_retried(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: open("/dev/full", "w+b"))  # noqa: SIM115
    event = ingest_last(tmp_path, sample_archives.make_zip(SMALL))
    assert (event.code, event.retry) == ("storage_full", True)


def test_an_internal_error_is_retried(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module.archives, "read", lambda *_: [None])
    event = ingest_last(tmp_path, b"")
    assert (event.code, event.retry) == ("internal", True)
    assert "Traceback" in capsys.readouterr().err


def test_the_folder_holds_nothing_but_the_dataset(tmp_path):
    ingest_last(tmp_path, sample_archives.make_zip(SMALL))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"images.arrow", "pixels.npy", "blocks.sha256", "dataset.json"}
    ingest_last(tmp_path, sample_archives.make_zip({}))
    assert len(list((tmp_path / "out").iterdir())) == 4


# --- the process -----------------------------------------------------------------------------------------------------


def test_the_process_exits_with_0_and_a_result(tmp_path):
    status, events = run(tmp_path, sample_archives.make_zip())
    assert status == 0
    assert isinstance(events[-1], Result)


def test_the_process_exits_with_1_for_an_invalid_upload(tmp_path):
    status, events = run(tmp_path, b"hello")
    assert (status, len(events)) == (1, 1)
    assert (events[0].code, events[0].retry) == ("not_an_archive", False)


def test_the_command_line_sets_the_limits(tmp_path):
    status, events = run(tmp_path, sample_archives.make_zip(), "--max-images", "2")
    assert (status, events[-1].code) == (1, "too_many_images")


@pytest.mark.parametrize("name", ["images.arrow", "pixels.npy"])
def test_a_full_disk_is_retried(tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to("/dev/full")  # every write fails with ENOSPC
    status, events = run(tmp_path, sample_archives.make_zip(SMALL))
    assert (status, events[-1].code, events[-1].retry) == (70, "storage_full", True)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_dataset_above_the_file_size_limit_is_too_much_data(tmp_path):
    files = {f"{n}.bmp": encoded(Image.fromarray(pixels(n, 100, 100)), "BMP") for n in range(9)}  # 30 kB each
    status, events = run(tmp_path, sample_archives.make_zip(files), "--max-unpacked-bytes", "100000")
    assert (status, events[-1].code) == (1, "too_much_data")


def test_the_memory_limit_is_reported(tmp_path):
    wall = encoded(Image.new("1", (9000, 9000)))  # 243 MB as RGB
    status, events = run(
        tmp_path, sample_archives.make_zip({"wall.png": wall}), "--ingest-memory-bytes", str(700 * 2**20)
    )
    assert (status, events[-1].code) == (1, "out_of_memory")


def test_the_cpu_time_limit_is_reported(tmp_path):
    picture = jpeg(0, 2000, 2000)
    upload = sample_archives.make_zip({f"{n}.jpg": picture for n in range(200)}, zipfile.ZIP_STORED)
    status, events = run(tmp_path, upload, "--ingest-seconds", "1")
    assert (status, events[-1].code) == (1, "out_of_time")


def test_sigterm_writes_a_stopped_event_and_exits_with_75(tmp_path):
    os.mkfifo(tmp_path / "upload")
    command = [
        sys.executable,
        "-m",
        "worker.uploads.ingest",
        tmp_path / "upload",
        "--out",
        tmp_path / "out",
        "--events",
    ]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    with child, (tmp_path / "upload").open("wb"):  # once the child has opened it too, which then waits for bytes
        child.send_signal(signal.SIGTERM)
        output, _ = child.communicate(timeout=60)
    assert from_line(output) == Stopped(step=0)
    assert child.returncode == 75


PRINT_LIMITS = """
import json, resource, sys
from pathlib import Path
from worker.uploads import sandbox
sandbox.enter(sandbox.ResourceLimits(memory_bytes=2**31, cpu_seconds=60, file_bytes=4096))
names = ["RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE"]
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
try:
    Path(sys.argv[1]).write_bytes(bytes(8192))
except OSError as error:
    limits = [resource.getrlimit(getattr(resource, name)) for name in names]
    print(json.dumps([error.errno, status["NoNewPrivs"].strip(), limits]))
"""


def test_the_sandbox_limits_the_process(tmp_path):
    output = subprocess.check_output([sys.executable, "-c", PRINT_LIMITS, tmp_path / "file"])
    number, no_new_privileges, limits = json.loads(output)
    assert os.strerror(number) == "File too large"
    assert no_new_privileges == "1"
    assert limits == [[2**31] * 2, [60, 70], [4096] * 2, [128] * 2, [0] * 2]


def test_the_process_imports_no_torch():
    heavy = "{'torch', 'torchvision', 'sklearn', 'celery', 'sqlalchemy'}"
    code = f"import sys, worker.uploads.ingest; print({heavy} & {{*sys.modules}})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


# --- damage ----------------------------------------------------------------------------------------------------------

INTACT = {
    "zip": sample_archives.make_zip(SMALL),
    "stored zip": sample_archives.make_zip(SMALL, 0),
    "tar": sample_archives.make_tar(SMALL)[:5120],
    "gnu tar": sample_archives.make_tar({"folder/" * 20 + "a.png": png()}, tar_format=1)[:5120],
    "tar.gz": sample_archives.compress_gzip(sample_archives.make_tar(SMALL)),
    "tar.xz": sample_archives.compress_xz(sample_archives.make_tar(SMALL)),
    "tar.zst": sample_archives.compress_zstd(sample_archives.make_tar(SMALL)),
    "npz": sample_archives.make_npz(images=np.stack([pixels(1), pixels(2)]), labels=np.array(["a", "b"])),
    "parquet": sample_archives.make_parquet({"image": [png(1), jpeg(2)], "label": [0, 1]}),
    "bzip2 zip": sample_archives.make_zip(SMALL, zipfile.ZIP_BZIP2),
    "lzma zip": sample_archives.make_zip(SMALL, zipfile.ZIP_LZMA),
    "tar.bz2": bz2.compress(sample_archives.make_tar(SMALL)),
    "zip in zip": sample_archives.make_zip({"train.zip": sample_archives.make_zip(SMALL)}, 0),
    "parquet in tar": sample_archives.make_tar(
        {"train-0.parquet": sample_archives.make_parquet({"image": [png(1), jpeg(2)], "label": [0, 1]})}
    )[:5120],
    "npy in zip": sample_archives.make_zip(
        {
            "x.npy": sample_archives.make_npy(np.stack([pixels(1), pixels(2)]) / 255),
            "y.npy": sample_archives.make_npy(np.eye(2)),
            "a.txt": b"",
        },
        0,
    ),
    "idx": sample_archives.make_idx(np.stack([pixels(1), pixels(2)])),
    "idx in zip": sample_archives.make_zip(
        {
            "train-images-idx4-ubyte": sample_archives.make_idx(np.stack([pixels(1), pixels(2)])),
            "train-labels-idx1-ubyte.gz": sample_archives.compress_gzip(
                sample_archives.make_idx(np.array([1, 2], "u1"))
            ),
        },
        0,
    ),
    "cifar": sample_archives.make_cifar_pickle(
        np.frombuffer(pixels(1, 24, 8).tobytes(), np.uint8).reshape(3, 192), labels=[1, 2, 0], label_names=["a", "b"]
    ),
    "pickle": pickle.dumps({"data": np.zeros((2, 192), np.uint8), "labels": ["a", 1]}, 5),
    "cifar binary": sample_archives.make_zip({"data_batch_1.bin": bytes(3073), "batches.meta.txt": b"a\nb"}),
    "webdataset": sample_archives.make_tar({"0.jpg": jpeg(), "0.cls": b"1", "1.json": b'{"cls": 2}', "1.png": png()}),
}
DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=0, max_size=4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", INTACT)
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(flips=DAMAGE, keep=st.one_of(st.just(1.0), st.floats(0, 1)), on_bad_file=st.sampled_from(["reject", "skip"]))
def test_a_damaged_upload_gives_a_result_or_a_known_error(tmp_path, kind, flips, keep, on_bad_file):
    data = bytearray(INTACT[kind])
    for place, bits in flips:
        data[int(place * len(data))] ^= bits
    event = ingest_last(tmp_path, bytes(data[: int(keep * len(data))]), on_bad_file)
    assert isinstance(event, Result) or not event.retry, event
    assert isinstance(event, Result) or event.code != "out_of_memory"
