"""Who gets in, and for whom the page works: keys and tokens, the keyboard, screen readers, narrow and dark screens."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import Visitor

VIEWS = ["datasets", "jobs", "sweeps", "models", "compare", "map", "search", "new"]


def test_without_a_key_the_page_asks_for_one_and_keeps_it_for_the_tab(browser, service):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(service.url)
        field = page.get_by_label("Key")
        field.fill("tv_wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("This key is unknown or revoked.")
        with service.client() as client:
            key = client.keys.create("typed").key
        field.fill(key)
        page.keyboard.press("Enter")
        expect(page.locator("#sign-out")).to_be_visible()
        page.reload()
        expect(page.locator("#sign-out")).to_be_visible()
        assert page.evaluate("[document.cookie, Object.values(localStorage).join()]") == ["", ""]
        other = context.new_page()
        other.goto(service.url)
        expect(other.get_by_label("Key")).to_be_visible()


def test_a_token_signs_in_once_and_leaves_the_address(browser, service):
    with service.client() as client:
        address = client.keys.sign_in_address()
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        expect(page.locator("#sign-out")).to_be_visible()
        assert "token" not in page.url
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        expect(page.get_by_label("Key")).to_be_visible()
        expect(page.get_by_role("status")).to_contain_text("used or expired")


def test_sign_out_revokes_the_key_of_the_session(visitor):
    page = visitor.page
    key = page.evaluate("sessionStorage.getItem('twoviews.key')")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Key")).to_be_visible()
    status = page.evaluate(
        "key => fetch('usage', { headers: { Authorization: `Bearer ${key}` } }).then((answer) => answer.status)", key
    )
    assert status == 401


def test_a_resource_that_does_not_exist_and_a_service_that_is_away_are_explained(visitor):
    page = visitor.page
    visitor.open("jobs/job_x")
    expect(page.get_by_role("alert")).to_have_text("There is no such job.")
    page.route("**/jobs*", lambda route: route.abort())
    page.goto(f"{visitor.service.url}/#/jobs")
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    page.unroute("**/jobs*")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    visitor.complaints = [text for text in visitor.complaints if "ERR_FAILED" not in text]


def test_empty_lists_say_what_to_do(visitor):
    page = visitor.page
    for view in ("datasets", "jobs", "sweeps", "models", "compare", "map", "new"):
        visitor.open(view)
        expect(page.locator(".empty strong")).to_be_visible()
        assert page.locator(".empty").inner_text().count("\n") >= 1, view


def test_the_keyboard_reaches_every_part(visitor):
    page = visitor.page
    visitor.open("jobs")
    page.reload()
    page.locator("#sign-out").wait_for()
    reached = []
    for _ in range(13):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert reached[0] == "Skip to the content"
    assert [
        name
        for name in ("Datasets", "Jobs", "Sweeps", "Models", "Compare", "Map", "Search", "New job")
        if name not in reached
    ] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_view_is_accessible_and_fits(browser, service, theme, width):
    """By axe-core: names, roles, contrast. Nothing is wider than the screen."""
    with browser.new_context(viewport={"width": width, "height": 844}, color_scheme=theme, bypass_csp=True) as context:
        visitor = Visitor(context.new_page(), service)
        visitor.sign_in()
        for view in VIEWS:
            visitor.open(view)
            expect(visitor.page.locator("#main .wait")).to_have_count(0)
            found = Axe().run(visitor.page)
            assert found.violations_count == 0, f"{view}: {found.generate_report()[:1500]}"
            overflow = visitor.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert overflow <= 0, view
        assert visitor.page.evaluate("document.documentElement.dataset.theme") == theme
        assert [text for text in visitor.complaints if not re.search("Content Security", text)] == []
