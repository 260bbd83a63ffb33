"""The memory of evaluations of many images: little beside the features, of which no copy is made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FEATURES_BYTES = 100_000 * 256 * 4
PRELUDE = """
import re
from pathlib import Path
import torch
from ssl_core.evaluation import knn, logistic_regression
from ssl_core.evaluation.features import Features
from ssl_core.evaluation.logistic_regression import ProbeTraining, Scaling, Setting

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def evaluate(features, labels, classes):
    train, val, test = features.split([len(features) - 500, 0, 500])
    train_labels, test_labels = labels[: len(train)], labels[len(train) :]
    {evaluation}

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
evaluate(torch.randn(5_000, 8, generator=generator), torch.arange(5_000) % 10, 10)  # loads what torch loads when used
features, labels = torch.randn(100_000, 256, generator=generator), torch.arange(100_000) % 250
before = peak()
evaluate(features, labels, 250)
print(peak() - before)
"""
LINEAR = """
    Features(train, val, test).scale_(Scaling.fit(train))
    settings, training = [Setting(0.1, 0.0), Setting(1.0, 0.0)], ProbeTraining(classes, epochs=1)
    rows = torch.arange(len(train))
    setting = logistic_regression.select_setting(train, train_labels, settings, training, 0.1, rows)
    logistic_regression.fit(train, train_labels, [setting], training, rows).score(test, test_labels)
"""
KNN = """
    knn.compute_votes(train, train_labels, test, classes, 200, 0.1, overwrite=True)
"""


# The similarities of a chunk of kNN are 64 MiB, 0.66 of these features.
@pytest.mark.parametrize(("evaluation", "share"), [(LINEAR, 0.25), (KNN, 0.8)], ids=("linear", "knn"))
def test_an_evaluation_needs_little_memory_beside_its_features(evaluation, share):
    code = PRELUDE.replace("{evaluation}", evaluation.strip())
    exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17)}  # glibc returns what is freed, above so many bytes
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=exact, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= share * FEATURES_BYTES
