"""The whole job in a browser, as a person does it: from the upload to the search, without an error in the console."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import HOSTILE, PER_CLASS
from twoviews.demo.digits import Digits, png


def fill(page: Page, label: str, value: str) -> None:
    """Fill in the field of the form that has this label."""
    field = page.get_by_label(label, exact=True).first
    if not field.is_visible():
        for summary in page.locator("#main details:not([open]) > summary").all():
            if summary.is_visible():
                summary.click()
    field.fill(value)


def fill_tiny(page: Page, epochs: int) -> None:
    """Fill in a small network, so that the run takes seconds."""
    page.locator("summary", has_text=re.compile("^backbone$")).click()
    page.locator("fieldset").get_by_label("name", exact=True).first.fill("resnet10")
    fill(page, "width", "0.125")
    fill(page, "epochs", str(epochs))
    fill(page, "batch size", "64")


def start(page: Page) -> str:
    """Submit the form; return the id of the job that is shown then."""
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url(re.compile(r"#/jobs/job_"))
    page.get_by_role("heading", name="Progress").wait_for()
    return page.url.rpartition("/")[2]


def wait_for_status(page: Page, status: str) -> None:
    expect(page.locator("section[aria-label=Progress] .tag")).to_have_text(status, timeout=240_000)


@pytest.fixture(scope="module")
def done() -> dict[str, str]:
    """Ids by what they are, from the tests before."""
    return {}


def test_a_dropped_archive_becomes_a_dataset_with_its_classes_and_images(visitor, archive, done):
    page = visitor.page
    visitor.open("datasets")
    expect(page.get_by_text("No datasets yet")).to_be_visible()
    page.locator("#file").set_input_files(archive)
    link = page.get_by_role("link", name="digits.zip")
    expect(page.locator("tr", has=link).locator(".tag")).to_have_text("ready", timeout=120_000)
    link.click()
    page.get_by_role("heading", name="Images of each class").wait_for()
    done["dataset"] = page.url.rpartition("/")[2]
    expect(page.locator("section[aria-label=Summary]")).to_contain_text(str(6 * PER_CLASS))
    expect(page.locator(".bars .name", has_text=HOSTILE)).to_be_visible()
    images = page.locator(".images img[src]")
    expect(images.nth(11)).to_be_visible()  # those in sight are loaded
    assert images.first.evaluate("image => image.decode().then(() => image.naturalWidth)") >= 8
    page.get_by_label("Class", exact=True).select_option(label="two")
    expect(page.locator(".images figcaption").first).to_have_text("two")
    assert "hacked" not in page.title()


def test_the_faults_of_a_config_are_shown_at_their_fields_and_nothing_is_lost(visitor, done):
    page = visitor.page
    visitor.open(f"new?dataset={done['dataset']}")
    fill(page, "epochs", "0")
    fill(page, "batch size", "many")
    page.get_by_role("button", name="Start", exact=True).click()
    epochs, batch = page.get_by_label("epochs", exact=True), page.get_by_label("batch size", exact=True)
    expect(epochs).to_have_attribute("aria-invalid", "true")
    expect(batch).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".fault", has_text="greater than or equal to 1").first).to_be_visible()
    expect(page.get_by_role("alert").filter(has_text="fields need a change")).to_be_visible()
    expect(epochs).to_have_value("0")
    expect(page.locator("#as-python")).to_contain_text('"epochs": 0')


def test_a_run_is_watched_paused_resumed_and_cancelled(visitor, done):
    page = visitor.page
    visitor.open(f"new?dataset={done['dataset']}")
    fill_tiny(page, 20_000)
    fill(page, "Name", "a long run")
    expect(page.locator("#as-curl")).to_contain_text('"epochs":20000')
    done["long"] = start(page)
    wait_for_status(page, "running")
    loss = page.locator(".curves > div", has_text="Loss").locator(".plot")
    loss.locator("svg.main-svg").first.wait_for(timeout=120_000)
    length = "plot => plot.data[0].x.length"
    before = loss.evaluate(length)
    page.wait_for_function("before => document.querySelector('.curves .plot').data[0].x.length > before", arg=before)
    expect(page.locator("#verdict")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    wait_for_status(page, "paused")
    page.get_by_role("button", name="Resume").click()
    wait_for_status(page, "running")
    paused_at = loss.evaluate(length)
    page.wait_for_function("before => document.querySelector('.curves .plot').data[0].x.length > before", arg=paused_at)
    steps = loss.evaluate("plot => plot.data[0].x")
    assert steps == sorted(steps)
    page.get_by_role("button", name="Cancel").click()
    wait_for_status(page, "cancelled")
    expect(page.locator("ol.log")).to_contain_text("cancelled")


def test_a_run_succeeds_and_its_clone_differs_in_one_field(visitor, done):
    page = visitor.page
    visitor.open(f"new?dataset={done['dataset']}")
    fill_tiny(page, 4)
    fill(page, "Name", "first")
    done["first"] = start(page)
    wait_for_status(page, "succeeded")
    expect(page.get_by_role("heading", name="Results")).to_be_visible()
    page.get_by_role("link", name="Clone").click()
    page.get_by_role("heading", name="Clone of first").wait_for()
    expect(page.get_by_label("epochs", exact=True)).to_have_value("4")
    page.locator("summary", has_text="All other fields").click()
    fill(page, "seed", "7")
    done["second"] = start(page)
    wait_for_status(page, "succeeded")


def test_runs_are_compared_with_the_differences_of_their_configs(visitor, done):
    page = visitor.page
    visitor.open(f"compare?ids={done['first']},{done['second']}")
    table = page.get_by_role("region", name="Differences")
    expect(table.locator("tbody tr")).to_have_count(1)
    expect(table.locator("tbody")).to_contain_text("/seed")
    plot = page.locator(".curves .plot").first
    plot.locator("svg.main-svg").first.wait_for()
    assert plot.evaluate("plot => plot.data.length") == 2


def test_a_sweep_is_started_refused_and_finds_its_best_trial(visitor, done):
    page = visitor.page
    visitor.open(f"new?dataset={done['dataset']}")
    fill_tiny(page, 4)
    fill(page, "Name", "temperatures")
    page.get_by_role("button", name="Vary a field").click()
    values = page.get_by_label("Values", exact=True)
    page.get_by_role("button", name="Start the sweep").click()
    expect(page.locator(".fault", has_text="Name a field")).to_be_visible()
    page.get_by_label("Field", exact=True).fill("/seed")
    values.fill("1, minus")
    expect(page.locator("#as-python")).to_contain_text("client.sweeps.create(")
    page.get_by_role("button", name="Start the sweep").click()
    expect(values).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".fault", has_text="The value is 'minus'.")).to_be_visible()
    values.fill("1, 2")
    page.get_by_role("button", name="Start the sweep").click()
    page.wait_for_url(re.compile(r"#/sweeps/swp_"))
    expect(page.locator("section[aria-label=State] .tag")).to_have_text("succeeded", timeout=240_000)
    trials = page.get_by_role("region", name="Trials")
    expect(trials.locator("tbody .tag")).to_have_text(["succeeded", "succeeded"])
    plot = page.locator(".curves .plot")
    plot.locator("svg.main-svg").first.wait_for()
    assert plot.evaluate("plot => plot.data[0].x") == [1, 2]
    page.get_by_role("link", name="Compare the best").click()
    expect(page.get_by_role("region", name="Differences").locator("tbody")).to_contain_text("/seed")
    visitor.open("sweeps")
    page.get_by_role("link", name="temperatures").click()
    page.get_by_role("link", name="Job of trial 0").click()
    expect(page.locator(".crumbs")).to_contain_text("a trial of swp_")


def test_a_model_is_evaluated_exported_and_downloaded(visitor, done):
    page = visitor.page
    visitor.open("models")
    page.get_by_role("link", name="first", exact=True).click()
    page.get_by_role("heading", name="How to load it").wait_for()
    done["model"] = page.url.rpartition("/")[2]
    with page.expect_download() as downloading:
        page.get_by_role("button", name="card.json").click()
    assert downloading.value.suggested_filename == "card.json"
    page.locator("summary", has_text="In Python").click()
    expect(page.locator("details[open] pre")).to_contain_text("saved_model.load")
    page.get_by_role("link", name="Export").click()
    page.get_by_label("formats", exact=True).fill('["torchvision"]')
    done["export"] = start(page)
    wait_for_status(page, "succeeded")
    with page.expect_download() as downloading:
        page.get_by_role("button", name=re.compile("^Download .*torchvision")).first.click()
    assert downloading.value.path().stat().st_size > 1000
    expect(page.locator("section[aria-label=Lineage]")).to_contain_text("first")


def test_a_map_selects_images_and_shows_neighbours(visitor, done):
    page = visitor.page
    visitor.open(f"new?kind=project&dataset={done['dataset']}&model={done['model']}")
    page.get_by_label("methods", exact=True).fill('["pca"]')
    start(page)
    wait_for_status(page, "succeeded")
    page.get_by_role("link", name="Open the map").click()
    page.locator("#map iframe[data-drawn]").wait_for()
    frame = page.frame(url=re.compile("frame.html"))
    traces = frame.locator("#map").evaluate("plot => plot.data.map((trace) => [trace.type, trace.name])")
    assert ["scattergl", "two"] in traces
    assert frame.get_by_role("button", name=re.compile("Share|Cloud")).count() == 0
    assert frame.evaluate("self.origin") == "null"
    layer = frame.locator("#map .nsewdrag")
    box = layer.bounding_box()
    corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.03)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()
    expect(page.get_by_role("heading", name=re.compile(r"^\d+ selected"))).to_be_visible()
    rows = page.locator("#selected-rows").text_content().split(", ")
    assert len(rows) == len(set(rows)) > PER_CLASS


def test_an_image_finds_images_of_its_class(visitor, done, tmp_path):
    page = visitor.page
    visitor.open("search")
    page.get_by_role("link", name="Embed a dataset").click()
    page.get_by_label("Model", exact=True).select_option(value=done["model"])
    fill(page, "Name", "vectors")
    start(page)
    wait_for_status(page, "succeeded")
    visitor.open("search")
    page.get_by_role("button", name="Build an index").click()
    page.locator("#query-file").wait_for(state="attached", timeout=120_000)
    digits = Digits()
    query = tmp_path / "query.png"
    query.write_bytes(png(digits.images[digits.labels == 0][-1]))
    page.locator("#query-file").set_input_files(query)
    results = page.locator("#results figure")
    expect(results.first).to_be_visible()
    assert results.count() == 24
    assert sum("zero" in text for text in page.locator("#results figcaption").all_inner_texts()[:5]) >= 3
    page.get_by_role("button", name="Outliers").click()
    expect(page.get_by_role("heading", name=re.compile("farthest from their nearest"))).to_be_visible()
    page.get_by_role("button", name="Near-duplicates").click()
    expect(page.locator("#results")).not_to_contain_text("Searching")


def test_an_evaluated_model_is_on_the_leaderboard_of_its_dataset(visitor, done):
    page = visitor.page
    visitor.open(f"models/{done['model']}")
    page.get_by_role("link", name="Evaluate").click()
    start(page)
    wait_for_status(page, "succeeded")
    visitor.open(f"datasets/{done['dataset']}")
    board = page.locator("section[aria-label=Leaderboard]")
    expect(board.get_by_role("link", name="first").first).to_be_visible()
    expect(board.locator("tbody tr").first).to_contain_text("simclr")


def test_a_job_is_deleted_and_one_that_is_used_is_not(visitor, done):
    page = visitor.page
    visitor.open(f"jobs/{done['long']}")
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url(re.compile(r"#/jobs$"))
    expect(page.get_by_role("link", name="a long run")).to_have_count(0)
    visitor.open(f"jobs/{done['first']}")
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#notices")).to_contain_text("delete the model first")
    expect(page.get_by_role("heading", name="first", level=1)).to_be_visible()
