"""Fixtures: a running service, a browser, and pages that note errors and requests to other hosts."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request, expect, sync_playwright

from tests.browser import chromium
from tests.test_end_to_end import Up, up
from twoviews.demo.digits import Digits, png

expect.set_options(timeout=90_000)  # on a slow machine
HOSTILE = "<img src=x onerror=document.title='hacked'>"  # the name of a class
PER_CLASS = 24
ARGUMENTS = ["--no-sandbox", "--enable-unsafe-swiftshader"]  # WebGL without a GPU


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Up]:
    """`twoviews up` in a folder of its own."""
    with up(tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, stopped with the module: Playwright keeps an event loop running in this thread until then."""
    with sync_playwright() as playwright, _launch(playwright) as browser:
        yield browser


def _launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=chromium.find(playwright), args=ARGUMENTS)


class Visitor:
    """A page of a browser that is signed in, and what it has complained about."""

    def __init__(self, page: Page, service: Up) -> None:
        self.page, self.service = page, service
        self.complaints: list[str] = []
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", self._note_request)
        page.on("dialog", lambda dialog: dialog.accept())

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "the server responded with a status of 4" not in message.text:
            self.complaints.append(f"console: {message.text}")

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith((self.service.url, "blob:", "data:")):
            self.complaints.append(f"request to {request.url}")

    def sign_in(self) -> None:
        with self.service.client() as client:
            self.page.goto(client.keys.sign_in_address())
        self.page.locator("#sign-out").wait_for()

    def open(self, address: str) -> None:
        """Open an address such as `jobs/job_1` of the page."""
        self.page.goto(f"{self.service.url}/#/{address}")
        self.page.get_by_role("heading", level=1).wait_for()


@pytest.fixture
def visitor(browser, service) -> Iterator[Visitor]:
    """A signed-in visitor, who must have had no error when the test ends."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.set_default_timeout(120_000)
        visitor = Visitor(context.new_page(), service)
        visitor.sign_in()
        yield visitor
        assert visitor.complaints == []


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    """Real digits in three classes, one of which has markup as its name, in two splits."""
    path = tmp_path_factory.mktemp("archive") / "digits.zip"
    digits = Digits()
    names = {0: "zero", 1: HOSTILE, 2: "two"}
    with zipfile.ZipFile(path, "w") as target:
        for label, name in names.items():
            images = digits.images[digits.labels == label][: 2 * PER_CLASS]
            for number, image in enumerate(images):
                split = "train" if number < PER_CLASS else "test"
                target.writestr(f"{split}/{name}/{number:03d}.png", png(image))
    return path
