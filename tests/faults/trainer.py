"""A trainer without torch that speaks the event protocol: its "weights" are a hash chain over its steps.

`python tests/faults/trainer.py CONFIG.json --data DIR --out DIR [--model DIR] [--resume FILE] [--events]`. It runs
every kind of job: those that train leave a model, the others an artifact; the chain begins with the weights of the
job's model. The length is `epochs × STEPS_PER_EPOCH` steps of `TWOVIEWS_TEST_STEP_SECONDS` each, with a checkpoint
every `checkpoints.every_steps`. While the file `TWOVIEWS_TEST_HOLD` exists, the last two steps are not made. A config
whose seed is `REAL_SEED` or above is run by `ssl_core`, in the same process. As `ssl_core` does, it goes on without a
checkpoint that a full disk has refused, and ends for a retry at any other error of the disk.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from ssl_core import events as ev
from ssl_core.files import FULL, write_artifact, write_atomic

STEPS_PER_EPOCH = 10
EVALUATION_EPOCHS = 3  # of kinds whose config has no epochs
REAL_SEED = 1_000
TRAINING_KINDS = ("pretrain", "supervised", "finetune", "distill")
CLASSIFYING_KINDS = ("supervised", "finetune", "distill")
ARTIFACT = "result.txt"
_stop_requested = False


def weights(seed: int, steps: int, model: bytes = b"") -> bytes:
    """Return the weights after `steps` of a run that starts from the weights `model`."""
    return chain(seed, hashlib.sha256(f"start {seed}".encode() + model).digest(), 0, steps)


def total_steps(config) -> int:
    """Return the number of steps of a run."""
    return config.get("epochs", EVALUATION_EPOCHS) * STEPS_PER_EPOCH


def chain(seed: int, state: bytes, start: int, steps: int) -> bytes:
    """Return the weights after `steps`, from those after `start`."""
    for step in range(start + 1, steps + 1):
        state = hashlib.sha256(state + f"{seed} {step}".encode()).digest()
    return state


def loss(state: bytes) -> float:
    """Return the loss of a state, in [0, 1)."""
    return int.from_bytes(state[:4], "big") / 2**32


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--provenance", type=Path)
    parser.add_argument("--events", action="store_true")
    arguments = parser.parse_args()
    config = json.loads(arguments.config.read_text())
    if config["seed"] >= REAL_SEED:
        os.execv(sys.executable, [sys.executable, "-m", "ssl_core", "run", *sys.argv[1:]])
    signal.signal(signal.SIGTERM, _request_stop)
    _install_control_page()
    (arguments.out / "pid").write_text(str(os.getpid()))
    model = b"" if arguments.model is None else (arguments.model / "weights.safetensors").read_bytes()
    try:
        for event in _train(config, model, arguments.out, arguments.resume):
            _write_event(event)
            if isinstance(event, ev.Stopped):
                sys.exit(75)
    except OSError as error:
        code = "storage_full" if error.errno in FULL else "storage"
        _write_event(ev.Failed(code, f"A file was not written: {error.strerror}.", retry=True))
        sys.exit(70)


def _install_control_page() -> None:
    if "TWOVIEWS_TEST_CONTROL_PAGE" in os.environ:  # of a test that has the repository on PYTHONPATH
        from tests.faults.nemesis import control

        control.install("trainer")


def _write_event(event: ev.Event) -> None:
    sys.stdout.write(ev.to_line(event))
    sys.stdout.flush()


def _train(config, model: bytes, out: Path, resume: Path | None):
    yield ev.Resolved({key: value for key, value in config.items() if key != "kind"})
    seed, total = config["seed"], total_steps(config)
    every = config.get("checkpoints", {}).get("every_steps") or STEPS_PER_EPOCH
    pause = float(os.environ.get("TWOVIEWS_TEST_STEP_SECONDS", "0.02"))
    step, state = _load(resume) if resume is not None else (0, weights(seed, 0, model))
    while step < total:
        while step >= total - 2 and _is_on_hold() and not _stop_requested:
            time.sleep(pause)
        state = chain(seed, state, step, step + 1)
        step += 1
        time.sleep(pause)
        epoch = step / STEPS_PER_EPOCH
        yield ev.Metrics(step, epoch, time.time(), {"train/loss": loss(state)})
        yield ev.Progress(
            int(epoch), total // STEPS_PER_EPOCH, step, total, 1 / max(pause, 1e-3), (total - step) * pause
        )
        if step % every == 0 or _stop_requested:
            yield _save(out, step, state)
        if _stop_requested and step < total:
            yield ev.Stopped(step)
            return
    if config["kind"] in TRAINING_KINDS:
        yield _model(out, state, config["kind"] in CLASSIFYING_KINDS)
    else:
        yield write_artifact(out, ARTIFACT, state.hex().encode())
    yield ev.Result({"steps": total})


def _is_on_hold() -> bool:
    """Return whether the file of TWOVIEWS_TEST_HOLD exists."""
    hold = os.environ.get("TWOVIEWS_TEST_HOLD")
    return hold is not None and Path(hold).exists()


def _load(path: Path) -> tuple[int, bytes]:
    saved = json.loads(path.read_text())
    return saved["step"], bytes.fromhex(saved["state"])


def _save(out: Path, step: int, state: bytes) -> ev.Checkpoint | ev.Log:
    path = out / f"checkpoint-{step:09d}.pt"
    try:
        file = write_atomic(path, json.dumps({"step": step, "state": state.hex()}).encode())
    except OSError as error:
        if error.errno not in FULL:
            raise
        return ev.Log("warning", f"The checkpoint of step {step} was not written: the disk is full.", "storage_full")
    return ev.Checkpoint(step, step / STEPS_PER_EPOCH, path.name, file.sha256, file.size_bytes)


def _model(out: Path, state: bytes, has_classifier: bool) -> ev.Model:
    (out / "model").mkdir(exist_ok=True)
    card = {"format": 1, "dim": 4} | ({"classifier": {"classes": 2}} if has_classifier else {})
    write_atomic(out / "model" / "heads.safetensors", b"")
    file = write_atomic(out / "model" / "weights.safetensors", state)
    write_atomic(out / "model" / "model.json", json.dumps(card).encode())
    return ev.Model("model", file.sha256, file.size_bytes, 4, card)


def _request_stop(*_: object) -> None:
    global _stop_requested
    _stop_requested = True


if __name__ == "__main__":
    main()
