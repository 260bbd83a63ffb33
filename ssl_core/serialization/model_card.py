"""Model cards: a model's `model.json` rendered as Markdown, its `README.md`.

A pure function of the card. Fields that the card lacks, as those of earlier versions may, are omitted.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from ssl_core.config import KINDS
from ssl_core.config.base import Kind
from ssl_core.config.methods import METHODS
from ssl_core.config.requirements import count_channels
from ssl_core.config.views import RGB
from ssl_core.models import other_libraries

Card = Mapping[str, Any]
_MAX_CLASSES = 20  # listed by name
_STEMS = {
    "imagenet": "the ImageNet stem",
    **dict.fromkeys((*other_libraries.SMALL_STEMS, "cifar_no_relu"), "a stem for small images"),
}
_WEIGHTS = {"imagenet": "torchvision's, ImageNet", "imagenet_v1": "torchvision's first, ImageNet"}
_EVALUATIONS = (
    "Later evaluations are jobs and not in this file: `twoviews jobs list --kind linear_eval` and"
    " `GET /jobs?kind=linear_eval` list them, each with its model and its protocol."
)


def render_markdown(card: Card) -> str:
    """Return the Markdown page of a card, ending in a newline."""
    parts = chain(_head(card), _data(card), _training(card), _metrics(card), _provenance(card), _loading(card))
    return "\n\n".join(parts) + "\n"


def _head(card: Card) -> Iterator[str]:
    yield f"# {_cell(card.get('name') or _network(card))}"
    trained = f", trained by {get_method_title(card)}" if card.get("method") else ""
    yield f"An image encoder{trained}: {_network(card)}. It maps an image to {card['dim']:,} features."
    preprocessing = card["preprocessing"]
    side = preprocessing["image_size"]
    layers = ", ".join(f"`{name}` {width:,}" for name, width in card["layers"].items())
    yield _table(
        {
            "input": f"{_channels(card)}, the largest central square resized to {side}×{side} pixels",
            "normalisation": f"values in [0, 1], mean {_format_numbers(preprocessing['mean'])}, standard deviation"
            f" {_format_numbers(preprocessing['std'])}",
            "features of each layer": layers,
        }
    )


def _channels(card: Card) -> str:
    channels = count_channels(card["preprocessing"])
    return "RGB" if channels == RGB else f"{channels} channel{'s' * (channels > 1)}"


def _data(card: Card) -> Iterator[str]:
    data = card.get("dataset")
    if not data:
        return
    kind = _kind(card)
    yield "## Data"
    rows = {
        "dataset": " ".join(part for part in (data.get("name"), f"(`{data['id']}`)" if "id" in data else None) if part),
        "training images": f"{data['images']:,}" if "images" in data else None,
        "classes": _classes(data.get("classes", [])),
        "labels": "not used in training" if kind is not None and not kind.learns_labels else None,
        "licence": data.get("licence") or "not given",
    }
    yield _table(rows)


def _training(card: Card) -> Iterator[str]:
    config = card.get("config")
    if not config:
        return
    yield "## Training"
    rows = {
        "method": get_method_title(card) if card.get("method") else None,
        "epochs": config.get("epochs"),
        "batch size": config.get("batch_size"),
        "optimizer": _optimizer(config),
        "image sizes": ", ".join(f"{phase['image_size']} px" for phase in config.get("phases", [])),
        "seed": config.get("seed"),
        "device": f"{config.get('device')}, {config.get('precision')}" if "device" in config else None,
    }
    yield _table(rows)
    yield "The complete config is `config` in `model.json`."


def _optimizer(config: Card) -> str | None:
    optimizer, scaling = config.get("optimizer"), config.get("schedule", {}).get("lr_scaling")
    if not isinstance(optimizer, Mapping):
        return None
    rate = f"learning rate {optimizer.get('lr')}" + (f" before {scaling} scaling" if scaling != "none" else "")
    return f"{optimizer.get('name')}, {rate}, weight decay {optimizer.get('weight_decay')}"


def _metrics(card: Card) -> Iterator[str]:
    yield "## Metrics"
    measured = {name: value for name, value in card.get("metrics", {}).items() if value is not None}
    reported = [(title, measured[name], protocol) for name, title, protocol in _protocols(card) if name in measured]
    if reported:
        rows = [f"| {title} | {value:.4g} | {protocol} |" for title, value, protocol in reported]
        yield "\n".join(["| metric | value | protocol |", "|---|---|---|", *rows])
    yield _EVALUATIONS


def _protocols(card: Card) -> Iterator[tuple[str, str, str]]:
    """The metrics to list: name, title, protocol."""
    evaluation = card.get("config", {}).get("evaluation", {})
    limit = f"at most {evaluation.get('max_images', 0):,} images of each split"
    features = f"backbone features of un-augmented images at the end of training, {limit}; top-1, 0 to 1"
    k, temperature = evaluation.get("knn_k"), evaluation.get("knn_temperature")
    yield "online/knn", "kNN accuracy", f"cosine, k {k}, votes weighed by exp(similarity / {temperature}); {features}"
    yield "online/linear", "linear accuracy", f"a short logistic regression with fixed settings; {features}"
    yield "top1", "accuracy", "top-1 of the classifier at the end of training, 0 to 1"
    yield "train/loss", "training loss", "of the last batch"
    yield "train/rankme", "RankMe", "effective rank of the last batch's embeddings (arXiv:2210.02885)"


def _kind(card: Card) -> type[Kind] | None:
    """The config class of the run that trained the model; None for imported weights."""
    return KINDS.get(card.get("config", {}).get("kind", ""))


def _provenance(card: Card) -> Iterator[str]:
    lineage, versions = card.get("lineage", []), card.get("versions", {})
    weights = card.get("config", {}).get("backbone", {}).get("weights", "random")
    file = card.get("imported", {}).get("file")
    kind = _kind(card)
    distilled = kind is not None and kind.model_is_teacher  # the last ancestor was the teacher
    initial = "another model's" if lineage and not distilled else _WEIGHTS.get(weights, weights)
    initial = f"of a file, SHA-256 `{file['sha256']}`" if file else initial
    yield "## Provenance"
    yield _table(
        {
            "job": f"`{card['job']}`" if card.get("job") else None,
            "initial weights": initial,
            **{
                "teacher" if distilled and number == 1 else f"ancestor {number}": _ancestor(entry)
                for number, entry in enumerate(lineage, 1)
            },
            "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
        }
    )


def _loading(card: Card) -> Iterator[str]:
    yield "## Loading"
    yield 'With Twoviews installed (`pip install "twoviews[core]"`), with `model` the folder of this file:'
    yield _python(
        "from pathlib import Path\n\n"
        "from ssl_core.data.decode import decode\n"
        "from ssl_core.serialization import saved_model\n\n"
        'encoder = saved_model.load(Path("model"))\n'
        'how = {"channels": encoder.channels, "values": encoder.preprocessing.values}\n'
        'image = encoder.prepare(decode(Path("cat.jpg").read_bytes(), **how))\n'
        f"features = encoder.encode(image[None])  # float32 1×{card['dim']}; `layer=` selects another layer"
    )
    shape = card.get("backbone", {"name": ""})
    if (lines := other_libraries.write_torchvision_code(shape, "weights.safetensors")) is not None:
        yield "The backbone alone, with torchvision:"
        yield _python(lines)
        if count_channels(card["preprocessing"]) == RGB:
            yield "Its preprocessing:"
            yield _python(_transform(card["preprocessing"]))
    if (lines := other_libraries.write_timm_code(shape, "weights.safetensors")) is not None:
        yield "With timm:"
        yield _python(lines)
    yield "A job of kind `export` makes ONNX and `torch.export` files, with the preprocessing inside."


def _transform(preprocessing: Card) -> str:
    side = preprocessing["image_size"]
    return (
        "from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor\n\n"
        f"transform = Compose([Resize({side}), CenterCrop({side}), ToTensor(),"
        f" Normalize({_rounded(preprocessing['mean'])}, {_rounded(preprocessing['std'])})])"
    )


def _network(card: Card) -> str:
    shape = card.get("backbone", {})
    name = str(shape.get("name", "a network")).replace("torchvision_", "torchvision's ")
    if str(shape.get("name", "")).startswith("torchvision_"):
        return name
    stem = _STEMS.get(str(shape.get("stem")))
    wide = f" of width {shape['width']:g}" if shape.get("width", 1) != 1 else ""
    return f"{name}{wide}" + (f" with {stem}" if stem else "")


def get_method_title(card: Card) -> str:
    """Return the title of the method that trained the model, such as `MoCo v2`."""
    name = str(card.get("method", "trained elsewhere"))
    return METHODS[name].title if name in METHODS else name


def _classes(names: list[str]) -> str:
    if not names:
        return "none, the images have no labels"
    more = f" and {len(names) - _MAX_CLASSES:,} more" if len(names) > _MAX_CLASSES else ""
    return f"{len(names):,}: {', '.join(names[:_MAX_CLASSES])}{more}"


def _ancestor(entry: Card) -> str:
    name = entry.get("name") or entry.get("id") or "a model"
    data = entry.get("dataset", {})
    images = f"{data['images']:,} images" if "images" in data else "images unknown"
    of = f" of {data['name']}" if data.get("name") else ""
    licence = f" ({data['licence']})" if data.get("licence") else ""
    return f"{name}, {get_method_title(entry)} on {images}{of}{licence}"


def _table(rows: Mapping[str, Any]) -> str:
    """Two columns; None and "" have no row."""
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value not in (None, "")]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(value: Any) -> str:
    """The text of one cell, with Markdown's own characters escaped."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _format_numbers(values: list[float]) -> str:
    return " / ".join(f"{value:.4f}" for value in values)


def _rounded(values: list[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def _python(text: str) -> str:
    return f"```python\n{text}\n```"
