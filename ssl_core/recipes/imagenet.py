"""Recipes for ImageNet, one for each method: ResNet-50 at 224 pixels with the settings of its paper."""

from typing import Any

from ssl_core.recipes.recipe import Recipe

# All have torchvision's normalisation, crops and flips; colour jitter as in MoCo v2 and its successors.
_COLOURS = {"jitter": 0.8, "jitter_strength": 1.0, "brightness": 0.4, "contrast": 0.4}
_MOCO_VIEWS = {"crop_area": [0.2, 1.0], **_COLOURS, "saturation": 0.4, "hue": 0.1, "grey": 0.2, "blur": 0.5}
_BYOL_VIEW = {"crop_area": [0.08, 1.0], **_COLOURS, "saturation": 0.2, "hue": 0.1, "grey": 0.2}
_BYOL_VIEWS = [{**_BYOL_VIEW, "blur": 1.0, "solarize": 0.0}, {**_BYOL_VIEW, "blur": 0.1, "solarize": 0.2}]
_MOCO_V3_VIEWS = [{**view, "crop_area": [0.2, 1.0]} for view in _BYOL_VIEWS]
_GLOBAL = {**_BYOL_VIEW, "crop_area": [0.14, 1.0]}


def _make_config(
    method: dict[str, Any], views: Any, optimizer: dict[str, Any], *, batch: int, epochs: int, warmup: float
) -> dict[str, Any]:
    return {
        "method": method,
        "backbone": {"name": "resnet50", "width": 1.0, "stem": "imagenet"},
        "image_size": 224,
        "phases": [{"until": 1.0, "image_size": 224}],
        "views": views,
        "normalisation": "imagenet",
        "epochs": epochs,
        "batch_size": batch,
        "optimizer": {**optimizer, "momentum": 0.9, "nesterov": False},
        "schedule": {"lr_scaling": "linear", "warmup_epochs": warmup, "decay": "cosine"},
    }


def _make_recipe(name: str, paper: str, result: str, config: dict[str, Any]) -> Recipe:
    return Recipe(
        name=name,
        kind="pretrain",
        description=f"{paper} on ImageNet, ResNet-50.",
        source=f"{paper}: the authors' settings for ResNet-50, from the paper or its code",
        hardware="eight GPUs or more",
        duration=f"{config['epochs']} epochs",
        result=result,
        config=config,
    )


def _lars(lr: float, weight_decay: float) -> dict[str, Any]:
    return {"name": "lars", "lr": lr, "weight_decay": weight_decay, "decay_norm_and_bias": False}


def _sgd(lr: float) -> dict[str, Any]:
    return {"name": "sgd", "lr": lr, "weight_decay": 1e-4, "decay_norm_and_bias": True}


IMAGENET = [
    _make_recipe(
        "simsiam-imagenet",
        "SimSiam (arXiv:2011.10566)",
        "68.1 % linear",
        _make_config(
            {"name": "simsiam", "projector": [2048, 2048, 2048], "predictor_hidden": 512},
            _MOCO_VIEWS, _sgd(0.05), batch=256, epochs=100, warmup=0.0,
        ),
    ),
    _make_recipe(
        "byol-imagenet",
        "BYOL (arXiv:2006.07733)",
        "72.5 % linear",
        _make_config(
            {"name": "byol", "projector": [4096, 256], "predictor_hidden": 4096, "momentum": 0.99},
            [{**view, "brightness_added": True} for view in _BYOL_VIEWS],
            _lars(0.3, 1e-6), batch=4096, epochs=300, warmup=10.0,
        ),
    ),
    _make_recipe(
        "moco-v2-imagenet",
        "MoCo v2 (arXiv:2003.04297)",
        "67.5 % linear",
        _make_config(
            {"name": "moco_v2", "projector": [2048, 128], "temperature": 0.2, "queue": 65536, "momentum": 0.999},
            _MOCO_VIEWS, _sgd(0.03), batch=256, epochs=200, warmup=0.0,
        ),
    ),
    _make_recipe(
        "moco-v3-imagenet",
        "MoCo v3 (arXiv:2104.02057)",
        "68.9 % linear",
        _make_config(
            {"name": "moco_v3", "projector": [4096, 256], "predictor_hidden": 4096, "temperature": 1.0},
            _MOCO_V3_VIEWS, _lars(0.6, 1e-6), batch=4096, epochs=100, warmup=10.0,
        ),
    ),
    _make_recipe(
        "barlow-twins-imagenet",
        "Barlow Twins (arXiv:2103.03230)",
        "73.2 % linear",
        _make_config(
            {"name": "barlow_twins", "projector": [8192, 8192, 8192], "redundancy": 0.005},
            _BYOL_VIEWS, {**_lars(0.2, 1.5e-6), "vector_lr": 0.0048}, batch=2048, epochs=1000, warmup=10.0,
        ),
    ),
    _make_recipe(
        "vicreg-imagenet",
        "VICReg (arXiv:2105.04906)",
        "73.2 % linear",
        _make_config(
            {"name": "vicreg", "projector": [8192, 8192, 8192]},
            _BYOL_VIEWS, _lars(0.2, 1e-6), batch=2048, epochs=1000, warmup=10.0,
        ),
    ),
    _make_recipe(
        "dino-imagenet",
        "DINO (arXiv:2104.14294)",
        "75.3 % linear",
        _make_config(
            {
                "name": "dino",
                "projector": [2048, 2048, 256],
                "prototypes": 60000,
                "momentum": 0.996,
                "teacher_warmup": 0.0625,
            },
            [
                {**_GLOBAL, "blur": 1.0, "solarize": 0.0},
                {**_GLOBAL, "blur": 0.1, "solarize": 0.2},
                {**_BYOL_VIEW, "crop_area": [0.05, 0.14], "blur": 0.5, "size": 0.43, "num_views": 6},
            ],
            _lars(0.3, 1e-6), batch=4080, epochs=800, warmup=10.0,
        ),
    ),
]  # fmt: skip
