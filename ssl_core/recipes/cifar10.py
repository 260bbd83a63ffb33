"""Recipes for CIFAR-10, one for each method: ResNet-18 with the CIFAR stem, in the setting of lightly's benchmark.

Batch 512, SGD at 0.06·batch/128 (0.12·batch/256) without warm-up, momentum 0.9, weight decay 5e-4 on all parameters,
800 epochs, ImageNet's normalisation, no blur: docs/source/getting_started/benchmarks/cifar10_benchmark.py of lightly.
Its results are kNN with k 200 and temperature 0.1 on backbone features, of the best epoch on the test split. Unlike the
recipes, its ResNet-18 has no ReLU after the stem, and its MoCo has a symmetric loss and batch norm in eight parts.
"""

from typing import Any

from ssl_core.recipes.recipe import Recipe

_LIGHTLY = "lightly's CIFAR-10 benchmark: ResNet-18, batch 512, SGD 0.06·batch/128, weight decay 5e-4"
_SOLO = "solo-learn's CIFAR-10 heads and views, with the optimizer and length of lightly's benchmark"
_VIEWS = {"crop_area": [0.2, 1.0], "jitter_strength": 0.5, "grey": 0.2}
_SIMCLR_VIEWS = {**_VIEWS, "crop_area": [0.08, 1.0]}
_BYOL_VIEW = {**_SIMCLR_VIEWS, "saturation": 0.4}
_BYOL_VIEWS = [{**_BYOL_VIEW, "solarize": 0.0}, {**_BYOL_VIEW, "solarize": 0.2}]
_DINO_VIEWS = [{**view, "crop_area": [0.4, 1.0]} for view in _BYOL_VIEWS]


def _sgd(lr: float, weight_decay: float = 5e-4) -> dict[str, Any]:
    fixed = {"name": "sgd", "momentum": 0.9, "nesterov": False, "decay_norm_and_bias": True}
    return {**fixed, "lr": lr, "weight_decay": weight_decay}


def _make_config(method: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "method": method,
        "backbone": {"name": "resnet18", "width": 1.0, "stem": "cifar", "zero_init_residual": False},
        "image_size": 32,
        "phases": [{"until": 1.0, "image_size": 32}],
        "views": _VIEWS,
        "normalisation": "imagenet",
        "epochs": 800,
        "batch_size": 512,
        "optimizer": _sgd(0.12),
        "schedule": {"lr_scaling": "linear", "warmup_epochs": 0.0, "decay": "cosine"},
        **changes,
    }


def _make_recipe(
    name: str, method: dict[str, Any], paper: str, result: str, *, source: str = _LIGHTLY, **changes: Any
) -> Recipe:
    return Recipe(
        name=name,
        kind="pretrain",
        description=f"{paper} on CIFAR-10.",
        source=source,
        hardware="one GPU",
        duration=f"{changes.get('epochs', 800)} epochs",
        result=result,
        config=_make_config(method, **changes),
    )


CIFAR10 = [
    _make_recipe(
        "simsiam-cifar10",
        {"name": "simsiam", "projector": [2048, 2048], "predictor_hidden": 512},
        "SimSiam (arXiv:2011.10566), heads and learning rate as in its appendix D,",
        "kNN 76.4 % after 200 epochs, 90.4 % after 800 (each run's best epoch)",
        optimizer=_sgd(0.03),  # 0.06 at batch 512, in the paper and in lightly's benchmark
    ),
    _make_recipe(
        "fastsiam-cifar10",
        {"name": "simsiam", "projector": [2048, 2048], "predictor_hidden": 512},
        "FastSiam (Pototzky et al. 2022), SimSiam with four views,",
        "kNN 90.6 % after 200 epochs (the best epoch)",
        views={**_VIEWS, "num_views": 4},
        batch_size=128,
        epochs=200,
    ),
    _make_recipe(
        "byol-cifar10",
        {"name": "byol", "projector": [1024, 256], "predictor_hidden": 1024, "momentum": 0.99},
        "BYOL (arXiv:2006.07733)",
        "kNN 86.8 % after 200 epochs, 91.0 % after 800 (each run's best epoch)",
        views=_BYOL_VIEWS,
        # The paper's loss is four times lightly's: a quarter of the learning rate and four times the weight decay give
        # the same steps.
        optimizer=_sgd(0.03, 2e-3),
    ),
    _make_recipe(
        "moco-v2-cifar10",
        {"name": "moco_v2", "projector": [512, 128], "temperature": 0.1, "queue": 8192, "momentum": 0.99},
        "MoCo v2 (arXiv:2003.04297)",
        "kNN 84.7 % after 200 epochs, 89.9 % after 800 (each run's best epoch)",
        views=_SIMCLR_VIEWS,
    ),
    _make_recipe(
        "moco-v3-cifar10",
        {"name": "moco_v3", "projector": [4096, 256], "predictor_hidden": 4096, "temperature": 0.2, "momentum": 0.99},
        "MoCo v3 (arXiv:2104.02057)",
        "none published in this setting; solo-learn, 1000 epochs with LARS, reports 93.1 % linear",
        source=_SOLO,
        views=_BYOL_VIEWS,
    ),
    _make_recipe(
        "barlow-twins-cifar10",
        {"name": "barlow_twins", "projector": [2048, 2048], "redundancy": 0.005},
        "Barlow Twins (arXiv:2103.03230)",
        "kNN 81.9 % after 200 epochs, 85.9 % after 800 (each run's best epoch)",
        views=_BYOL_VIEWS,
    ),
    _make_recipe(
        "vicreg-cifar10",
        {"name": "vicreg", "projector": [2048, 2048, 2048], "invariance": 25.0, "variance": 25.0, "covariance": 1.0},
        "VICReg (arXiv:2105.04906)",
        "none published in this setting; solo-learn, 1000 epochs with LARS, reports 92.1 % linear",
        source=_SOLO,
        views={**_VIEWS, "saturation": 0.4, "solarize": 0.1},
    ),
    _make_recipe(
        "dino-cifar10",
        {"name": "dino", "projector": [2048, 256], "prototypes": 2048, "momentum": 0.99},
        "DINO (arXiv:2104.14294) with two views, teacher temperature and frozen first epoch as in the paper,",
        "kNN 81.3 % after 200 epochs, 84.8 % after 800 (each run's best epoch; temperature 0.04 throughout)",
        views=_DINO_VIEWS,
    ),
]
