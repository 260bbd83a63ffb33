"""Event handlers: what each event of a run stores, and invalid events."""

import pytest

from service import jobs, models
from service.errors import ArtifactNotFound, ModelNotFound, ModelNotReady
from service.event_handlers import BadEvent
from ssl_core import events
from tests.service import given


@pytest.fixture
def claim(database, tenant):
    given.submit_job(database, tenant, given.create_ready_dataset(database, tenant))
    return given.claim_job(database)


def test_progress_result_and_resolved_config_are_stored(database, claim):
    given.record_events(
        database,
        claim,
        events.Resolved({"epochs": 4}),
        events.Progress(epoch=1, epochs=4, step=25, total_steps=100, images_per_second=99.5, eta_seconds=3.0),
        events.Result({"loss": 0.5, "std": float("nan")}),
    )
    shown = given.get_job(database, claim.job_id)
    assert shown.resolved == {"epochs": 4}
    assert shown.progress["percent"] == 25.0
    assert shown.progress["total_steps"] == 100
    assert shown.summary == {"loss": 0.5, "std": None}


def test_log_events_are_stored_with_data(database, claim):
    given.record_events(database, claim, events.Log("warning", "The features collapsed.", "collapse", {"std": 0.01}))
    with database.reading() as session:
        line = jobs.events(session, claim.job_id).items[-1]
    assert (line.level, line.code, line.message) == ("warning", "collapse", "The features collapsed.")
    assert (line.data, line.attempt) == ({"std": 0.01}, 1)


def test_log_events_are_cleaned(database, claim):
    given.record_events(
        database, claim, events.Log("info", "a\x00b\ud800" + "x" * 9000, data={"k\x00": ["\ud800", 1e999]})
    )
    with database.reading() as session:
        line = jobs.events(session, claim.job_id).items[-1]
    assert line.message.startswith("a\ufffdb?xx")
    assert len(line.message) == 4000
    assert line.data == {"k\ufffd": ["?", None]}


def test_trainer_cannot_log_a_status_change(database, claim):
    given.record_events(database, claim, events.Log("info", "done", "status", {"status": "succeeded"}))
    with database.reading() as session:
        assert [change.data["status"] for change in jobs.transitions(session, claim.job_id)] == ["queued", "running"]


def test_later_artifact_replaces_an_earlier_one(database, claim):
    for size in (1, 2):
        plot = events.Artifact("plots/tsne.png", f"plot{size}.png", "image/png", given.SHA, size)
        given.record_events(database, claim, plot)
    with database.reading() as session:
        found = jobs.artifact(session, claim.job_id, "plots/tsne.png")
        assert (found.path, found.size_bytes) == (f"jobs/{claim.job_id}/a1/plot2.png", 2)
        assert len(jobs.artifacts(session, claim.job_id)) == 1
        for name in ("other", "\x00"):
            with pytest.raises(ArtifactNotFound):
                jobs.artifact(session, claim.job_id, name)


def test_later_model_replaces_an_earlier_one(database, tenant, claim):
    given.record_events(database, claim, given.model())
    first = given.get_job(database, claim.job_id).made_model_id
    given.release_job(database, claim)
    again = given.claim_job(database)
    given.record_events(database, again, given.model())
    given.finish_job(database, again)
    with database.reading() as session:
        model = models.get(session, tenant, claim.job_id)
        assert (model.id, model.path) == (first, f"jobs/{claim.job_id}/a2/model")
        assert models.get(session, tenant, first).sha256 == given.SHA


def test_model_is_visible_after_its_job_has_succeeded(database, tenant, stranger, claim):
    given.record_events(database, claim, given.model())
    made = given.get_job(database, claim.job_id).made_model_id
    with database.reading() as session:
        assert models.list_(session, tenant).items == []
        for name in (made, claim.job_id):
            with pytest.raises(ModelNotReady):
                models.get(session, tenant, name)
    given.finish_job(database, claim)
    with database.reading() as session:
        assert [model.id for model in models.list_(session, tenant).items] == [made]
        assert models.list_(session, stranger).items == []
        for name in (made, claim.job_id, "mdl_\x00"):
            with pytest.raises(ModelNotFound):
                models.get(session, stranger, name)


BAD = [
    events.Checkpoint(1, 0.1, "../../etc/passwd", given.SHA, 1),
    events.Checkpoint(1, 0.1, "/etc/passwd", given.SHA, 1),
    events.Checkpoint(1, 0.1, "a.pt", "not a digest", 1),
    events.Checkpoint(-1, 0.1, "a.pt", given.SHA, 1),
    events.Checkpoint(2**63, 0.1, "a.pt", given.SHA, 1),
    events.Checkpoint(1, float("nan"), "a.pt", given.SHA, 1),
    events.Artifact("a\x00", "a.png", "image/png", given.SHA, 1),
    events.Artifact("a", "", "image/png", given.SHA, 1),
    events.Model("..", given.SHA, 1, 64, {}),
    events.Model("model", given.SHA, 1, 2**31, {}),
    events.Metrics(1, 0.1, float("inf"), {"loss": 1.0}),
    events.Metrics("1", 0.1, 0.0, {"loss": 1.0}),
    events.Metrics(-1, 0.1, 0.0, {"loss": 1.0}),
    events.Metrics(1, 0.1, 0.0, {"loss": "1"}),
    events.Metrics(1, 0.1, 0.0, {"": 1.0}),
    events.Metrics(1, 0.1, 0.0, {"a\x00": 1.0}),
    events.Metrics(1, 0.1, 0.0, {"x" * 101: 1.0}),
    events.Metrics(1, 0.1, 0.0, {f"metric {n}": 1.0 for n in range(501)}),
]


def test_invalid_event_rolls_back_its_batch(database, claim):
    for bad in BAD:
        with pytest.raises(BadEvent):
            given.record_events(database, claim, events.Log("info", "before"), bad)
    with database.reading() as session:
        assert [event.code for event in jobs.events(session, claim.job_id).items] == ["status", "status"]
        assert list(jobs.checkpoints(session, claim.job_id)) == []
