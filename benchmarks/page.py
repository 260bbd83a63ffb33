"""The page in a browser: its first paint, and a map of 100,000 points.

python -m benchmarks.page [--points 100000] [--rounds 5]
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from tests.browser import chromium
from tests.browser.conftest import ARGUMENTS
from tests.test_end_to_end import up

_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
_MAP = """async (points) => {
    const { MapFrame } = await import(new URL('page/parts/map_frame.js', document.baseURI));
    const element = document.createElement('div');
    element.style.height = '600px';
    document.getElementById('main').replaceChildren(element);
    const map = new MapFrame(element, 'points', {}, new AbortController().signal);
    const rows = Array.from({ length: points }, (_, row) => row);
    const trace = { type: 'scattergl', mode: 'markers', marker: { size: 3 }, customdata: rows,
      x: rows.map(() => Math.random()), y: rows.map(() => Math.random()) };
    const started = performance.now();
    map.draw([trace], { dragmode: 'pan' });
    while (map.frame.dataset.drawn === undefined) await new Promise(requestAnimationFrame);
    return performance.now() - started;
}"""


def measure_paint(browser: Browser, address: str) -> float:
    """Return the milliseconds to the first paint in a browser that has cached nothing."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        page.locator("h1").wait_for()
        return float(page.evaluate(_PAINT))


def measure_map(browser: Browser, address: str, points: int) -> float:
    """Return the milliseconds until a map of random points is drawn, with the script's loading."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        page.locator("h1").wait_for()
        return float(page.evaluate(_MAP, points))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, up(Path(folder) / "data") as service, sync_playwright() as playwright:
        path = chromium.find(playwright)
        with playwright.chromium.launch(executable_path=path, args=ARGUMENTS) as browser:
            rounds = range(arguments.rounds)
            figures["first paint"] = [measure_paint(browser, service.url) for _ in rounds]
            figures[f"{arguments.points:,} points"] = [
                measure_map(browser, service.url, arguments.points) for _ in rounds
            ]
    for name, values in figures.items():
        print(f"{name}: median {statistics.median(values):.0f} ms ({min(values):.0f} to {max(values):.0f})")


if __name__ == "__main__":
    main()
