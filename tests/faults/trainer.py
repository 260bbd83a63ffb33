"""A trainer without torch that speaks the event protocol: its "weights" are a hash chain over its steps.

`python tests/faults/trainer.py CONFIG.json --data DIR --out DIR [--resume FILE] [--events]`. The length is
`epochs × STEPS_PER_EPOCH` steps of `TWOVIEWS_TEST_STEP_SECONDS` each, with a checkpoint every
`checkpoints.every_steps`. While the file `TWOVIEWS_TEST_HOLD` exists, the last two steps are not made. A config whose
seed is `REAL_SEED` or above is run by `ssl_core`, in the same process.
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

STEPS_PER_EPOCH = 10
REAL_SEED = 1_000
_stop_requested = False


def weights(seed: int, steps: int) -> bytes:
    """Return the weights after `steps`."""
    return chain(seed, hashlib.sha256(f"start {seed}".encode()).digest(), 0, steps)


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
    (arguments.out / "pid").write_text(str(os.getpid()))
    for event in _train(config, arguments.out, arguments.resume):
        sys.stdout.write(ev.to_line(event))
        sys.stdout.flush()
        if isinstance(event, ev.Stopped):
            sys.exit(75)


def _train(config, out: Path, resume: Path | None):
    yield ev.Resolved({key: value for key, value in config.items() if key != "kind"})
    seed, total = config["seed"], config["epochs"] * STEPS_PER_EPOCH
    every = config["checkpoints"]["every_steps"] or STEPS_PER_EPOCH
    pause = float(os.environ.get("TWOVIEWS_TEST_STEP_SECONDS", "0.02"))
    step, state = _load(resume) if resume is not None else (0, weights(seed, 0))
    saved: list[Path] = []
    while step < total:
        while step >= total - 2 and _is_on_hold() and not _stop_requested:
            time.sleep(pause)
        state = chain(seed, state, step, step + 1)
        step += 1
        time.sleep(pause)
        epoch = step / STEPS_PER_EPOCH
        yield ev.Metrics(step, epoch, time.time(), {"train/loss": loss(state)})
        yield ev.Progress(int(epoch), config["epochs"], step, total, 1 / max(pause, 1e-3), (total - step) * pause)
        if step % every == 0 or _stop_requested:
            yield _save(out, step, state, saved)
        if _stop_requested and step < total:
            yield ev.Stopped(step)
            return
    yield _model(out, state)
    yield ev.Result({"steps": total})


def _is_on_hold() -> bool:
    """Return whether the file of TWOVIEWS_TEST_HOLD exists."""
    hold = os.environ.get("TWOVIEWS_TEST_HOLD")
    return hold is not None and Path(hold).exists()


def _load(path: Path) -> tuple[int, bytes]:
    saved = json.loads(path.read_text())
    return saved["step"], bytes.fromhex(saved["state"])


def _save(out: Path, step: int, state: bytes, saved: list[Path]) -> ev.Checkpoint:
    path = out / f"checkpoint-{step:09d}.pt"
    data = json.dumps({"step": step, "state": state.hex()}).encode()
    _write(path, data)
    saved.append(path)
    while len(saved) > 2:
        saved.pop(0).unlink()
    return ev.Checkpoint(step, step / STEPS_PER_EPOCH, path.name, hashlib.sha256(data).hexdigest(), len(data))


def _model(out: Path, state: bytes) -> ev.Model:
    (out / "model").mkdir(exist_ok=True)
    _write(out / "model" / "weights.safetensors", state)
    return ev.Model("model", hashlib.sha256(state).hexdigest(), len(state), 4, {"format": 1, "dim": 4})


def _write(path: Path, data: bytes) -> None:
    tmp = path.with_suffix(".tmp")
    with tmp.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    tmp.replace(path)


def _request_stop(*_: object) -> None:
    global _stop_requested
    _stop_requested = True


if __name__ == "__main__":
    main()
