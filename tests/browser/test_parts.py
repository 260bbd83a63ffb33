"""Parts of the page by themselves, run in the browser: series, verdicts, smoothing, snippets, addresses."""

import ast
from itertools import pairwise

import pytest


def run(visitor, script, argument=None):
    """Run the body of an async function, which may import `parts/…`, in the page."""
    loader = "const load = (name) => import(new URL(`page/parts/${name}.js`, document.baseURI));"
    return visitor.page.evaluate(f"async (argument) => {{ {loader} {script} }}", argument)


def judge(visitor, series, codes=()):
    columns = {name: {"step": [*range(len(values))], "value": list(values)} for name, values in series.items()}
    script = """
        const { judge } = await load('verdict');
        return judge(new Map(Object.entries(argument[0])), new Set(argument[1]));
    """
    return run(visitor, script, [columns, list(codes)])


@pytest.mark.parametrize(
    ("series", "codes", "word", "reason"),
    [
        ({"train/loss": [5.0 - 0.01 * step for step in range(100)]}, [], "Learning", "the loss fell by"),
        ({"train/loss": [5.0] * 100}, [], "Flat", "hardly changed"),
        ({"train/loss": [1.0 + step for step in range(100)]}, [], "Getting worse", "rose by"),
        ({"train/loss": [5.0] * 4}, [], "Starting", "too few points"),
        ({"train/loss": [5.0] * 100, "train/std": [0.9, 0.02]}, [], "Collapsing", "std of the embeddings is 0.020"),
        ({"train/loss": [5.0] * 100, "train/rankme": [50.0, 1.2]}, [], "Collapsing", "effective rank"),
        ({"train/loss": [5.0] * 100}, ["collapse"], "Collapsing", "have become alike"),
        ({"train/loss": [5.0, None] * 50}, ["diverging"], "Diverging", "lower the learning rate"),
        ({"train/loss": [5.0] * 100, "online/knn": [0.5, None, 0.9]}, [], "Learning", "rose by 40.0 points"),
    ],
)
def test_a_run_is_judged_by_its_metrics(visitor, series, codes, word, reason):
    found = judge(visitor, series, codes)
    assert found["word"] == word
    assert reason in found["reason"]


def test_points_of_a_long_run_are_thinned_evenly(visitor):
    script = """
        const { KeptSeries } = await load('series');
        const kept = new KeptSeries();
        for (let start = 0; start < 100000; start += 500) {
          const step = Array.from({ length: 500 }, (_, place) => start + place);
          kept.add({ step, epoch: step, value: step });
        }
        return kept.step;
    """
    steps = run(visitor, script)
    assert 2000 <= len(steps) <= 4000
    assert {later - earlier for earlier, later in pairwise(steps)} == {32}
    assert steps[0] == 0


def test_smoothing_keeps_constants_and_gaps(visitor):
    script = (
        "const { smooth } = await load('charts'); return argument.map(([values, weight]) => smooth(values, weight));"
    )
    constant, with_gap, unchanged = run(visitor, script, [[[2.0] * 5, 0.9], [[1.0, None, 1.0], 0.5], [[1.0, 5.0], 0]])
    assert constant == pytest.approx([2.0] * 5)
    assert with_gap[1] is None
    assert unchanged == [1.0, 5.0]


def test_python_of_a_request_has_its_values(visitor):
    body = {
        "kind": "pretrain",
        "name": 'it\'s "quoted"\nand {braced}',
        "config": {"method": {"name": "simclr"}, "pictures": False, "subset": None, "views": [{"flip": 0.5}]},
    }
    script = """
        const { asPython, asCurl } = await load('snippets');
        return [asPython(argument, 'jobs'), asCurl(argument, 'http://x/', 'jobs')];
    """
    python, curl = run(visitor, script, body)
    call = next(node for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Call) and node.keywords)
    assert {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords} == body
    assert "it'\\''s" in curl


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("0.1, 0.2,0.5", {"values": [0.1, 0.2, 0.5]}),
        ("lars, sgd", {"values": ["lars", "sgd"]}),
        ('[{"name": "byol"}, 1]', {"values": [{"name": "byol"}, 1]}),
        ("true", {"values": [True]}),
        ("1,", {"values": [1]}),
        ("0.01..1:log", {"low": 0.01, "high": 1, "log": True}),
        ("64..512:log:int:4", {"low": 64, "high": 512, "log": True, "integer": True, "points": 4}),
        ("-1..1:3", {"low": -1, "high": 1, "points": 3}),
        ("1e-4..1e-2:log", {"low": 0.0001, "high": 0.01, "log": True}),
        ("", {"values": []}),
    ],
)
def test_values_and_ranges_of_a_sweep_are_read(visitor, text, choices):
    """As `twoviews sweeps create --vary` reads them."""
    assert run(visitor, "const { parseChoices } = await load('vary'); return parseChoices(argument);", text) == choices


@pytest.mark.parametrize("address", ["%E0", "constructor", "__proto__/x", "jobs/%E0%A4", "nothing?x=%"])
def test_strange_addresses_show_something(visitor, address):
    visitor.page.goto(f"{visitor.service.url}/#/{address}")
    visitor.page.get_by_role("heading", level=1).wait_for()
    visitor.complaints = [text for text in visitor.complaints if "status of" not in text]
