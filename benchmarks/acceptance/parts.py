"""Parts of the acceptance: the stages of each, in order, with their limits in seconds."""

from benchmarks.acceptance.process import Stage
from benchmarks.acceptance.stages import (
    compiled,
    embed,
    evaluation,
    exact,
    images,
    lightly,
    long,
    loss,
    machine,
    methods,
    profile,
    speed,
    views,
)

Part = dict[str, Stage]

# The limits of `first` are 5 minutes together, those of `long` 8.
PARTS: dict[str, Part] = {
    "first": {
        "machine": Stage(machine.measure, 6),
        "images": Stage(images.measure, 40),
        "methods": Stage(methods.measure, 45),
        "exact": Stage(exact.measure, 35),
        "speed": Stage(speed.measure, 30),
        "profile": Stage(profile.measure, 16),
        "compiled": Stage(compiled.measure, 45),
        "lightly": Stage(lightly.measure, 40),
        "evaluation": Stage(evaluation.measure, 15),
        "embed": Stage(embed.measure, 10),
        "views": Stage(views.measure, 10),
        "loss": Stage(loss.measure, 8),
    },
    "long": {
        "images": Stage(images.measure, 40),
        "train": Stage(long.train, 350),
        "knn": Stage(long.evaluate, 25),
        "exact": Stage(compiled.measure_exactness, 65),
    },
}
