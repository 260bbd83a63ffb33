"""The checker: rules that the history of an experiment keeps, whatever faults there were. Each returns sentences.

Nothing is lost: every acknowledged job is there and has ended, with every metric point and every file. Nothing is
doubled: it has ended once, attempts have followed one another, and a repeated request has made one job.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from service.db.models import Job
from service.db.statuses import HELD, TERMINAL
from tests.faults import baseline, trainer
from tests.faults.nemesis.history import History

CLOCK_SECONDS = 0.01  # resolution of a time in the database
TRANSITIONS = {
    "waiting": {"queued", "failed", "cancelled", "paused"},
    "queued": {"running", "cancelled", "paused"},
    "running": {"queued", "cancelling", "pausing", "succeeded", "failed"},
    "cancelling": {"cancelled", "succeeded", "failed"},
    "pausing": {"paused", "running", "cancelling", "succeeded", "failed"},
    "paused": {"queued", "waiting", "cancelled"},
}
RETRIES = {"failed": {"queued", "waiting"}, "cancelled": {"queued", "waiting"}}  # of jobs whose retry was requested
DATA_KINDS = ("ingest", "import")  # run by the service's own readers


def check(history: History) -> dict[str, list[str]]:
    """Return what is wrong, by the id of the job or dataset; "service" for what belongs to none."""
    found: dict[str, list[str]] = {"service": [*_check_promises(history), *_check_leftovers(history)]}
    for job in history.jobs.values():
        found[job.id] = [sentence for rule in _RULES for sentence in rule(history, job)]
    return {key: sentences for key, sentences in found.items() if sentences}


def check_results(history: History, job: Job) -> list[str]:
    """Return what is wrong with the points and files of a job that has ended; its changes need not be recorded."""
    rules = (_check_sequence, _check_points, _check_files, _check_result)
    temporary = [path for path in _find_temporary(history) if path.startswith(f"jobs/{job.id}/")]
    return [sentence for rule in rules for sentence in rule(history, job)] + [
        f"{job.id}: a temporary file was left: {path}" for path in temporary
    ]


def _check_promises(history: History) -> Iterator[str]:
    """Every acknowledged request has made one job or dataset; a request that was never answered, at most one."""
    jobs = Counter(job.name for job in history.jobs.values() if job.kind != "ingest")
    datasets = Counter(dataset.name for dataset in history.datasets.values())
    for name, count in (jobs + Counter({name: n for name, n in datasets.items() if "number" in name})).items():
        if count > 1:
            yield f"{name} was accepted {count} times"
    for promise in history.promises:
        rows = history.datasets if promise.kind == "ingest" else history.jobs
        if promise.id not in rows:
            yield f"{promise.name} was acknowledged as {promise.id}, which does not exist"
        response = history.responses.get(promise.key)
        if response is None or response.body["id"] != promise.id:
            yield f"the response that is stored for {promise.key} is not that of {promise.id}"


def _check_leftovers(history: History) -> Iterator[str]:
    """Every file is named by a row, alone or by its folder, and no process is left."""
    yield from (f"left behind: {command}" for command in history.processes)
    yield from (f"no row names the file {path}" for path in find_unnamed(history))
    yield from (f"a temporary file was left: {path}" for path in _find_temporary(history))


def find_unnamed(history: History) -> list[str]:
    """Return the files that the next sweep has to remove: a sweep removes or keeps an attempt's folder as a whole."""
    named = {row.path for rows in history.checkpoints.values() for row in rows}
    named |= {row.path for rows in history.artifacts.values() for row in rows}
    named |= {model.path for model in history.models.values()}
    named |= {dataset.path for dataset in history.datasets.values() if dataset.path is not None}
    attempts = {_attempt_folder(path) for path in named}
    return [path for path in sorted(history.files) if _attempt_folder(path) not in attempts]


def _find_temporary(history: History) -> list[str]:
    return [path for path in sorted(history.files) if PurePosixPath(path).name.startswith(".") or path.endswith(".tmp")]


def _check_changes(history: History, job: Job) -> Iterator[str]:
    """Statuses follow the allowed transitions, and the job ends once, and once more for each retry."""
    changes = history.changes.get(job.id, [])
    allowed = TRANSITIONS | (RETRIES if job.id in history.retried else {})
    status, attempt = changes[0].old_status if changes else job.status, 0
    for change in changes:
        if (change.old_status, change.old_attempt) != (status, attempt):
            yield f"{job.id} was {status}, attempt {attempt}, and then {change.old_status}, {change.old_attempt}"
        if change.status not in allowed.get(change.old_status, ()):
            yield f"{job.id} went from {change.old_status} to {change.status}"
        status, attempt = change.status, change.attempt
    if (job.status, job.attempt) != (status, attempt):
        yield f"{job.id} is {job.status}, attempt {job.attempt}; its last change was to {status}, attempt {attempt}"
    ends = [change.status for change in changes if change.status in TERMINAL]
    retries = sum(change.old_status in RETRIES for change in changes) if job.id in history.retried else 0
    if len(ends) != 1 + retries:
        yield f"{job.id} has ended {len(ends)} times: {ends or job.status_detail}"


def _check_attempts(history: History, job: Job) -> Iterator[str]:
    """Attempts are numbered without a gap, each is claimed once, and a lease ends before the next begins."""
    for change in history.changes.get(job.id, []):
        is_claim = change.status == "running"
        if change.attempt != change.old_attempt + is_claim:
            yield f"{job.id}: attempt {change.attempt} after attempt {change.old_attempt}, as it became {change.status}"
        leaves = change.old_status in HELD and change.status not in HELD
        if (is_claim or leaves) and (change.old_lease or 0) > change.at + CLOCK_SECONDS:
            left = change.old_lease - change.at
            yield f"{job.id}: attempt {change.old_attempt} had {left:.3f} s of its lease as it became {change.status}"


def _check_log(history: History, job: Job) -> Iterator[str]:
    """The job's own log has no gap, tells of each change once, and its attempts never go back."""
    events = history.events.get(job.id, [])
    if [event.seq for event in events] != list(range(1, job.last_event + 1)):
        yield f"{job.id}: the log has gaps or duplicates: {[event.seq for event in events]}"
    attempts = [event.attempt for event in events]
    if attempts != sorted(attempts):
        yield f"{job.id}: an earlier attempt has written to the log: {attempts}"
    logged = [event.data["status"] for event in events if event.code == "status"]
    happened = [change.status for change in history.changes.get(job.id, [])]
    if logged[1:] != happened:
        yield f"{job.id}: the log has {logged[1:]}, and the row has become {happened}"


def _check_end(history: History, job: Job) -> Iterator[str]:
    """A job succeeds unless it, or a job whose model it needs, was cancelled."""
    if job.status == "failed":
        parent = history.jobs.get(job.parent_id or "")
        if (job.error or {}).get("code") != "parent_failed" or parent is None or parent.status == "succeeded":
            yield f"{job.id} ({job.kind}) has failed: {job.error}"
    elif job.status == "cancelled" and job.id not in history.cancelled:
        yield f"{job.id} ended as cancelled, and its cancellation was not acknowledged"
    elif job.status not in TERMINAL:
        yield f"{job.id} ({job.kind}) is still {job.status}, attempt {job.attempt}: {job.status_detail}"


def _check_sequence(history: History, job: Job) -> Iterator[str]:
    """All points of a job are numbered from 1 without a gap."""
    seqs = sorted(point.seq for points in history.points.get(job.id, {}).values() for point in points)
    if seqs != list(range(1, job.last_point + 1)):
        yield f"{job.id}: the points are not numbered from 1 to {job.last_point} without a gap"


def _check_points(history: History, job: Job) -> Iterator[str]:
    """Every point is there once, with the value of a run without faults; of an unfinished run, those so far."""
    if job.kind in DATA_KINDS:
        return
    series, is_whole = history.points.get(job.id, {}), job.status == "succeeded"
    if is_real(job.kind, job.config):
        wanted = baseline.run_baseline().series
    else:
        wanted = {"train/loss": list(_toy_points(history, job))}
    for name, expected in wanted.items():
        points = [(point.step, point.value) for point in series.get(name, [])]
        steps = [step for step, _ in expected][: None if is_whole else len(points)]
        if [step for step, _ in points] != steps:
            yield f"{job.id}: {name} has gaps or duplicates: {[step for step, _ in points]}"
        elif name not in baseline.TIMING_SERIES and points != expected[: len(points)]:
            yield f"{job.id}: {name} has other values than a run without faults"
    if is_whole and (unknown := set(series) - set(wanted)):
        yield f"{job.id}: {sorted(unknown)} are no series of this run"


def _check_files(history: History, job: Job) -> Iterator[str]:
    """Files that rows name exist and have their SHA-256."""
    rows = [*history.checkpoints.get(job.id, []), *history.artifacts.get(job.id, [])]
    model = history.models.get(job.id)
    named = [(row.path, row.sha256) for row in rows]
    named += [(f"{model.path}/weights.safetensors", model.sha256)] if model is not None else []
    for path, sha256 in named:
        if path not in history.files:
            yield f"{job.id}: {path} is missing"
        elif hashlib.sha256((history.root / path).read_bytes()).hexdigest() != sha256:
            yield f"{job.id}: {path} has another SHA-256"
    if job.status == "succeeded" and job.dataset_id in {promise.id for promise in history.promises}:
        dataset = history.datasets[str(job.dataset_id)]
        if dataset.status != "ready" or f"{dataset.path}/dataset.json" not in history.files:
            yield f"{job.id}: its dataset is {dataset.status}, and has no files"


def _check_result(history: History, job: Job) -> Iterator[str]:
    """A job that has succeeded leaves the model or the artifact of a run without faults; another leaves no model."""
    model = history.models.get(job.id)
    if job.status != "succeeded" or job.kind in DATA_KINDS:
        if job.kind == "import" and (model is None or model.id != job.made_model_id):
            yield f"{job.id}: the import has left no model"
        return
    wanted = baseline.run_baseline().sha256 if is_real(job.kind, job.config) else _hash(_toy_weights(history, job))
    if job.kind in trainer.TRAINING_KINDS:
        if model is None or (model.id, model.sha256) != (job.made_model_id, wanted):
            yield f"{job.id}: the weights differ from those of a run without faults"
        return
    sha256s = {row.name: row.sha256 for row in history.artifacts.get(job.id, [])}
    if sha256s != {trainer.ARTIFACT: _hash(_toy_weights(history, job).hex().encode())}:
        yield f"{job.id}: its artifacts differ from those of a run without faults: {sorted(sha256s)}"


_RULES = (
    _check_changes,
    _check_attempts,
    _check_log,
    _check_end,
    _check_sequence,
    _check_points,
    _check_files,
    _check_result,
)


def is_real(kind: str, config: Mapping[str, Any]) -> bool:
    """Whether `ssl_core` runs the job, not the toy trainer."""
    return kind not in DATA_KINDS and config.get("seed", 0) >= trainer.REAL_SEED


def _toy_points(history: History, job: Job) -> Iterator[tuple[int, float]]:
    seed, state = job.config["seed"], trainer.weights(job.config["seed"], 0, _input_weights(history, job))
    for step in range(1, trainer.total_steps(job.config) + 1):
        state = trainer.chain(seed, state, step - 1, step)
        yield step, trainer.loss(state)


def _toy_weights(history: History, job: Job) -> bytes:
    return trainer.weights(job.config["seed"], trainer.total_steps(job.config), _input_weights(history, job))


def _input_weights(history: History, job: Job) -> bytes:
    """Return the weights of the model that the job has started from, as its maker has to have left them."""
    maker = next((row for row in history.models.values() if row.id == job.model_id), None)
    if maker is None:
        return b""
    parent = history.jobs[maker.job_id]
    if is_real(parent.kind, parent.config):
        return (history.root / maker.path / "weights.safetensors").read_bytes()
    return _toy_weights(history, parent)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _attempt_folder(path: str) -> str:
    """Return `jobs/<job>/a<attempt>`, or that of a dataset, of a path within it."""
    return str(PurePosixPath(*PurePosixPath(path).parts[:3]))
