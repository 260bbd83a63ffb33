"""Alert rules and dashboard: what they name is in a scrape of a live API, and an alert fires when it should only.

They are one file, so that the processes start once.
"""

import json
import re
from pathlib import Path

import promql_parser as promql
import pytest
import yaml

from service.settings import Settings
from tests.monitoring.promql import evaluate, grouped_labels, walk

ROOT = Path(__file__).parents[2]
(GROUP,) = yaml.safe_load((ROOT / "docker" / "prometheus" / "alerts.yml").read_text())["groups"]
RULES = {rule["alert"]: rule for rule in GROUP["rules"]}
PAGE = (ROOT / "docs" / "alerts.md").read_text()
DASHBOARD = json.loads((ROOT / "docker" / "grafana" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {
    **{name: rule["expr"] for name, rule in RULES.items()},
    **{f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]},
}
OF_PROMETHEUS = {"job", "instance"}
AWAY = {"TwoviewsEncoderDown", "TwoviewsStorageAway"}
# Situations that a test cannot make: values in place of those of the scrape.
SIMULATED = {
    "TwoviewsApiDown": {"up": 0},
    "TwoviewsDatabaseSlow": {"twoviews_database_answer_seconds": 2},
    "TwoviewsDiskNearlyFull": {"twoviews_storage_free_bytes": 1},
    "TwoviewsOpenFiles": {"process_open_fds": 900, "process_max_fds": 1000},
}


@pytest.mark.parametrize("name", RULES)
def test_no_alert_fires_at_rest(name, scrapes):
    rest = scrapes.rest.replace(twoviews_storage_free_bytes=1, twoviews_storage_size_bytes=2)  # whatever this disk has
    assert evaluate(RULES[name]["expr"], rest, rest) == {}


@pytest.mark.parametrize("name", sorted(RULES.keys() - AWAY - SIMULATED.keys()))
def test_an_alert_fires_in_its_situation(name, scrapes):
    assert evaluate(RULES[name]["expr"], scrapes.trouble, scrapes.rest)


@pytest.mark.parametrize("name", sorted(AWAY))
def test_an_alert_fires_when_what_it_watches_is_away(name, scrapes):
    assert evaluate(RULES[name]["expr"], scrapes.away, scrapes.rest)


@pytest.mark.parametrize("name", SIMULATED)
def test_an_alert_fires_for_the_values_of_its_situation(name, scrapes):
    assert evaluate(RULES[name]["expr"], scrapes.rest.replace(**SIMULATED[name]), scrapes.rest)


@pytest.mark.parametrize("name", RULES)
def test_an_alert_has_what_to_do_and_a_section(name):
    rule = RULES[name]
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert page == "docs/alerts.md"
    assert anchor in [heading.lower().replace(" ", "-") for heading in re.findall(r"^### (.+)$", PAGE, re.MULTILINE)]
    labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    kept = set(re.findall(r"by \((\w+)\)", rule["expr"])) or {"job", "instance"}
    assert labels <= kept


def test_the_scrape_config_is_of_an_existing_route_and_reads_the_rules():
    config = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    (job,) = config["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("twoviews", "/metrics")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    host, port = job["static_configs"][0]["targets"][0].split(":")
    assert compose["services"][host]["ports"][0].endswith(f":{port}")
    (secret,) = compose["services"]["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"


def test_the_files_of_the_containers_exist():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert all((ROOT / config["file"]).is_file() for config in compose["configs"].values())
    used = {config["source"] for name in ("prometheus", "grafana") for config in compose["services"][name]["configs"]}
    assert used == compose["configs"].keys()


def test_thresholds_are_those_of_the_default_settings():
    settings = Settings(_env_file=None)
    late = promql.parse(RULES["TwoviewsLateHeartbeat"]["expr"]).rhs.val
    assert settings.heartbeat_seconds * 2 < late < settings.lease_seconds


def selectors(expression):
    return [node for node in walk(promql.parse(expression)) if isinstance(node, promql.VectorSelector)]


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_selects_samples_of_a_scrape(name, scrapes):
    found = selectors(EXPRESSIONS[name])
    assert found
    labels = set()
    for selector in found:
        of_metric = [dict(key[1]) for key in scrapes.trouble.samples if key[0] == selector.name]
        assert of_metric, f"no sample of {selector.name}"
        known = set().union(*of_metric) | OF_PROMETHEUS
        assert {matcher.name for matcher in selector.matchers.matchers} <= known
        assert scrapes.trouble.select(selector), f"no sample matches {selector.prettify()}"
        labels |= known
    assert grouped_labels(promql.parse(EXPRESSIONS[name])) <= labels


def test_a_wrong_name_would_be_seen(scrapes):
    for wrong in ('sum(twoviews_jobs{state="failed"})', 'twoviews_jobs{status="fialed"}', "twoviews_job"):
        (selector,) = selectors(wrong)
        assert not scrapes.trouble.select(selector)


def test_a_metric_of_an_alert_is_a_counter_where_its_increase_is_taken():
    for name, expression in EXPRESSIONS.items():
        for node in walk(promql.parse(expression)):
            if isinstance(node, promql.Call) and node.func.name in ("rate", "increase"):
                assert re.search(r"_(total|bucket)$", node.args[0].vector_selector.name), name


def test_the_page_has_every_metric_of_the_service_and_links_every_alert(scrapes):
    documented = dict(re.findall(r"^\| `(\w+)` \| (.*) \|.*\|$", PAGE, re.MULTILINE))
    names = {
        re.sub(r"_(bucket|sum|count)$", "", key[0]) for key in scrapes.trouble.samples if key[0][-8:] != "_created"
    }
    ours = {name for name in names if name.startswith("twoviews_")}
    assert {name for name in documented if name.startswith("twoviews_")} == ours
    links = set(re.findall(r"\]\(#([\w-]+)\)", PAGE))
    assert links | {"api-down"} == {rule["annotations"]["runbook_url"].partition("#")[2] for rule in RULES.values()}


def test_panels_fill_the_rows_without_an_overlap():
    cells = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & own
        cells |= own
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert {panel["type"] for panel in PANELS} == {"stat", "timeseries"}
    assert all(target["datasource"]["uid"] == "${datasource}" for panel in PANELS for target in panel["targets"])
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource"]


def test_a_legend_names_labels_of_its_expression():
    for panel in PANELS:
        for target in panel["targets"]:
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert labels <= grouped_labels(promql.parse(target["expr"])) | OF_PROMETHEUS, panel["title"]
