"""End to end: the embedded service as a user runs it, every process real, on real digits over HTTP."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from ssl_core.models import resnet
from tests import logs, shadows
from tests.processes import soon
from twoviews import Client, JobFailed, TwoviewsError
from twoviews.cli import main
from twoviews.demo.digits import png

ROOT = Path(__file__).parent.parent
TINY = {
    "method": {"name": "simclr"},
    "backbone": {"name": "resnet10", "width": 0.125, "stem": "cifar"},
    "image_size": 8,
    "phases": [{"until": 1.0, "image_size": 8}],
    "batch_size": 64,
    "device": "cpu",
    "pictures": False,
}


class Up:
    """A running `twoviews up`."""

    def __init__(self, process, announced, data):
        self.process, self.url, self.data = process, announced["url"], data

    def client(self):
        return Client(data_dir=self.data)

    def family(self):
        """The pids of every process that serves this folder, the first one itself included."""
        mark = f"TWOVIEWS_DATA_DIR={self.data}".encode()
        return {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if mark in environment(pid)}

    def find_pids(self, module):
        """The pids of the processes of this folder that run `python -m module`."""
        return {pid for pid in self.family() if f"\0-m\0{module}\0" in Path(f"/proc/{pid}/cmdline").read_text()}


def environment(pid):
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


@contextmanager
def up(data, cwd=ROOT, stop=signal.SIGTERM, **settings):
    command = [sys.executable, "-P", "-m", "twoviews", "up", "--data", str(data), "--port", "0", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TWOVIEWS_RING_SECONDS": "0.5", "TWOVIEWS_GRACE_SECONDS": "10"}
    environment |= {f"TWOVIEWS_{name.upper()}": value for name, value in settings.items()}
    with subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line, "\n".join(log.read_text()[-2000:] for log in (data / "logs").glob("*.log"))
            yield Up(process, json.loads(line), data)
        finally:
            process.send_signal(stop)
            process.wait(60)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder of 400 digits, as a user would have it."""
    folder = tmp_path_factory.mktemp("digits")
    raw = load_digits()
    for place, (image, label) in enumerate(zip(raw.images[:400], raw.target[:400], strict=True)):
        path = folder / ("train" if place < 300 else "test") / str(label) / f"{place:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png((image * 255 / 16).astype("uint8")))
    return folder


def test_upload_train_watch_judge_embed_cancel_and_find_it_all_again(digits, tmp_path):
    cwd = tmp_path / "eigene Module"
    data = cwd / "Daten für %41?"
    imported = shadows.fill(cwd)
    with up(data, cwd) as service, service.client() as client:
        assert (data / "credentials.json").stat().st_mode & 0o777 == 0o600
        dataset = client.datasets.wait(client.datasets.upload(digits, name="digits"), timeout_seconds=60)
        assert {name: part["images"] for name, part in dataset.report["splits"].items() if part["images"]} == {
            "train": 300,
            "test": 100,
        }

        run = client.jobs.submit(dataset=dataset, config=TINY | {"epochs": 3, "pictures": True}, name="tiny")
        judged = client.jobs.submit(
            kind="linear_eval", dataset=dataset, model=run, config={"label_fractions": [0.2], "epochs": 20}
        )
        assert judged.status == "waiting"
        updates = list(client.jobs.watch(run, poll_seconds=0.3))
        assert updates[-1].job.status == "succeeded", updates[-1].job.error
        losses = [value for update in updates for value in update.metrics.series.get("train/loss", NOTHING).value]
        assert losses
        assert all(value > 0 for value in losses)

        result = client.jobs.wait(judged, timeout_seconds=60).summary
        assert 0.2 < result["top1"] <= 1

        left = {item["name"] for item in client.jobs.artifacts(run)}
        assert left == {"views.png", "curves.png", "curves.svg", "events.out.tfevents.twoviews"}
        drawn = client.jobs.submit(kind="project", dataset=dataset, model=run, config={"methods": ["pca"]})
        assert client.jobs.wait(drawn, timeout_seconds=60).summary["images"] == 100
        maps = client.jobs.download(drawn, tmp_path / "maps")
        assert [path.name for path in maps] == ["coordinates.json", "projection.png", "thumbnails.png"]
        assert len(json.loads(client.jobs.artifact(drawn, "coordinates.json"))["points"]) == 100

        images = sorted(digits.glob("test/*/*.png"))[:3]
        rows = client.embed(run, images)
        assert len(rows) == 3
        assert list(rows[1]) == pytest.approx(list(client.embed(run, [images[1]])[0]), abs=1e-4)

        embedded = client.jobs.wait(
            client.embed_dataset(run, dataset, splits=["test"], workers=2, precision="fp32"), timeout_seconds=60
        )
        assert {name: embedded.summary[name] for name in ("rows", "shards")} == {"rows": 100, "shards": 1}
        files = client.jobs.download(embedded, tmp_path / "embeddings")
        assert [path.name for path in files] == ["embeddings-00000.npy", "embeddings-00000.parquet", "embeddings.json"]
        table = pq.read_table(files[1]).to_pylist()
        (same,) = (row["vector"] for row in table if images[1].as_posix().endswith(row["path"]))
        assert same == pytest.approx(list(rows[1]), abs=1e-4)

        short = {name: value for name, value in TINY.items() if name != "method"} | {"epochs": 2}
        alone = client.jobs.submit(kind="supervised", dataset=dataset, config=short | {"label_fraction": 0.5})
        tuned = client.jobs.submit(kind="finetune", dataset=dataset, model=run, config=short | {"ft_proj_selector": 1})
        taught = client.jobs.submit(kind="distill", dataset=dataset, model=tuned, config=short)
        for job, labels in ((alone, 150), (tuned, 300), (taught, 0)):
            summary = client.jobs.wait(job, timeout_seconds=120).summary
            assert (summary["labels"], len(summary["per_class"])) == (labels, 10)
        assert len(client.embed(taught, images[:1], layer="logits")[0]) == 10

        foreign = client.jobs.wait(client.models.create(foreign_weights(tmp_path)), timeout_seconds=120)
        assert client.models.get(foreign.model_id).card["imported"]["matched"] == 72
        assert len(client.embed(foreign.model_id, images[:1])[0]) == 64

        endless = client.jobs.submit(dataset=dataset, config=TINY | {"epochs": 100_000})
        next(update for update in client.jobs.watch(endless, poll_seconds=0.3) if update.metrics.series)
        client.jobs.cancel(endless)
        with pytest.raises(JobFailed, match="was cancelled"):
            client.jobs.wait(endless, timeout_seconds=60)
        assert client.jobs.checkpoints(endless)

        refused = subprocess.run(
            [sys.executable, "-m", "twoviews", "up", "--data", str(data), "--port", "0"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert refused.returncode == 1
        assert "Another `twoviews up`" in " ".join(refused.stderr.split())
        family = service.family()
        assert len(family) >= 6
    assert service.process.returncode == 0
    assert all(gone(pid) for pid in family)
    check_logs(data / "logs", run.id)

    with up(data, cwd, stop=signal.SIGKILL, hung_seconds="8") as service, service.client() as client:
        assert [item.id for item in client.datasets.list()] == [dataset.id]
        assert client.jobs.get(run).status == "succeeded"
        assert list(client.embed(run, images[:1])[0]) == pytest.approx(list(rows[0]), abs=1e-4)
        shown = CliRunner().invoke(main.app, ["--data", str(data), "jobs", "list"])
        assert "tiny" in shown.stdout
        frozen = [pid for name in ("api", "worker.keeper", "worker.encoder") for pid in service.find_pids(name)]
        assert len(frozen) == 3
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        soon(lambda: all(gone(pid) for pid in frozen), 60)
        soon(lambda: service.find_pids("worker.keeper"), 60)
        soon(lambda: embeds(client, run, images[:1]), 60)
        family = service.family()
    deadline = time.monotonic() + 30
    while not all(gone(pid) for pid in family):
        assert time.monotonic() < deadline, "killing `up` left children behind"
        time.sleep(0.05)
    assert not imported.exists(), f"imported from the working directory: {imported.read_text()}"


def check_logs(folder, job):
    """Assert that every line is a record, and that those of the job in the logs of API and worker have its ids."""
    records = {path.stem: logs.read(path) for path in folder.glob("*.log") if path.stem != "valkey"}
    assert {name for name, found in records.items() if found} >= {"api", "keeper", "worker-data", "worker-train"}
    assert (folder / "valkey.log").stat().st_size > 0
    (attempt, *rest) = (record for record in records["worker-train"] if record.get("job") == job)
    assert attempt["message"] == f"Attempt 1 at {job} (pretrain)"
    assert rest[-1]["message"] == f"Attempt 1 at {job} has ended: succeeded"
    created = next(record for record in records["api"] if record.get("method") == "POST" and record["path"] == "/jobs")
    assert (created["route"], created["status"], created["owner"]) == ("/jobs", 202, attempt["owner"])


def embeds(client, model, images):
    """Return whether the API and the encoder answer."""
    try:
        return len(client.embed(model, images)) == len(images)
    except TwoviewsError:
        return False


def foreign_weights(folder):
    """A file of the weights of a network that was trained elsewhere."""
    network = resnet.ResNet("resnet10", width=0.125, stem="cifar")
    torch.save(
        {"state_dict": {f"encoder.{key}": value for key, value in network.state_dict().items()}}, folder / "w.pt"
    )
    return folder / "w.pt"


class NOTHING:
    value = ()


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
