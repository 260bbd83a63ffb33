"""Pictures of the page for the documentation: a service with real images and runs, looked at in a browser.

python -m tests.browser.screenshots --out docs/page [--images photos.zip]
"""

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser import chromium
from tests.browser.conftest import ARGUMENTS
from tests.test_end_to_end import up
from twoviews import Client
from twoviews.demo.digits import Digits

_SIZE = {"width": 1280, "height": 860}
_PHONE = {"width": 390, "height": 780}
_DRAW_MILLISECONDS = 4000  # charts and thumbnails


def prepare(client: Client, images: Path, epochs: int) -> dict[str, str]:
    """Upload the images and run every kind of job that is shown; return ids by name."""
    dataset = client.datasets.wait(client.datasets.upload(images))
    first = client.jobs.submit(dataset=dataset, config={"method": {"name": "simclr"}, "epochs": epochs}, name="SimCLR")
    second = client.jobs.submit(
        dataset=dataset, config={"method": {"name": "simsiam"}, "epochs": epochs}, name="SimSiam"
    )
    client.jobs.submit(kind="linear_eval", dataset=dataset, model=first, config={"label_fractions": [0.1, 1.0]})
    drawn = client.jobs.submit(kind="project", dataset=dataset, model=first)
    embedded = client.jobs.submit(kind="embed_dataset", dataset=dataset, model=first, name="Every image")
    sweep = client.sweeps.create(
        dataset=dataset,
        config={"method": {"name": "simclr"}, "epochs": max(2, epochs // 4)},
        space={
            "/method/temperature": {"low": 0.05, "high": 1.0, "log": True},
            "/batch_size": {"values": [64, 128, 256]},
        },
        search="random",
        trials=10,
        name="Temperature and batch size",
        pruner={"name": "median"},
    )
    for job in (first, second, drawn, embedded):
        client.jobs.wait(job)
    index = client.indexes.wait(client.indexes.create(embedded, name="All images"))
    model = client.jobs.get(first).model_id
    assert model is not None
    client.sweeps.wait(sweep)
    return {
        "sweep": sweep.id,
        "dataset": dataset.id,
        "first": first.id,
        "second": second.id,
        "model": model,
        "index": index.id,
    }


def draw(page: Page, url: str, ids: dict[str, str], out: Path) -> None:
    """Write one picture for each view."""
    views = {
        "job": f"jobs/{ids['first']}",
        "dataset": f"datasets/{ids['dataset']}",
        "new-job": f"new?dataset={ids['dataset']}",
        "compare": f"compare?ids={ids['first']},{ids['second']}",
        "sweep": f"sweeps/{ids['sweep']}",
        "map": f"map?dataset={ids['dataset']}",
        "search": f"search?index={ids['index']}&row=7",
        "model": f"models/{ids['model']}",
    }
    for name, address in views.items():
        _open(page, url, address)
        page.screenshot(path=out / f"{name}.png")
    page.emulate_media(color_scheme="dark")
    page.get_by_role("button", name="Switch between light and dark").click()
    page.set_viewport_size(_PHONE)  # type: ignore[arg-type]
    _open(page, url, views["job"])
    page.screenshot(path=out / "phone.png")


def _open(page: Page, url: str, address: str) -> None:
    page.goto(f"{url}/#/{address}")
    page.locator("h1").wait_for()
    page.wait_for_timeout(_DRAW_MILLISECONDS)


def main() -> None:
    """Run the service and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/page"))
    parser.add_argument("--images", type=Path, help="an archive; default: scikit-learn's digits")
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, up(Path(folder) / "data") as service, sync_playwright() as playwright:
        images = arguments.images or Digits().write_zip(Path(folder) / "digits.zip")
        with service.client() as client:
            ids = prepare(client, images, arguments.epochs)
            address = client.keys.sign_in_address()
        with playwright.chromium.launch(executable_path=chromium.find(playwright), args=ARGUMENTS) as browser:
            page = browser.new_page(viewport=_SIZE)  # type: ignore[arg-type]
            page.goto(address)
            page.locator("#sign-out").wait_for()
            draw(page, service.url, ids, arguments.out)


if __name__ == "__main__":
    main()
