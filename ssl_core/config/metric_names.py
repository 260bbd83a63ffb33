"""Names of the metrics that runs report; `docs/watch.md` says what each is."""

METRIC_NAMES = (
    "knn/top1",
    "linear/top1",
    "online/knn",
    "online/linear",
    "online/top1",
    "train/alignment",
    "train/alpha_req",
    "train/contrastive_top1",
    "train/data_wait",
    "train/grad_norm",
    "train/images_per_second",
    "train/loss",
    "train/lr",
    "train/rankme",
    "train/std",
    "train/uniformity",
)
BASELINE_ENDINGS = ("_pixels", "_random")  # of an evaluation's metrics, for those of its baselines


def list_known() -> list[str]:
    """Return every name that a run can report."""
    baselines = [name + ending for name in METRIC_NAMES if name.endswith("/top1") for ending in BASELINE_ENDINGS]
    return [*METRIC_NAMES, *baselines]
