"""Jobs, as people see them: what can be told at the door is, and what they ask for happens once."""

import pytest

from service import jobs, leases, models
from service.errors import (
    BatchTooLarge,
    DatasetFailed,
    DatasetNotFound,
    DatasetNotReady,
    InvalidConfig,
    InvalidRequest,
    JobNotFound,
    LabelsNeeded,
    ModelNeeded,
    ModelNotFound,
    ModelNotReady,
    ParentFailed,
)
from ssl_core import config
from tests.service import given


@pytest.fixture
def dataset(database, tenant):
    return given.ready(database, tenant)


def test_a_submitted_job_is_queued_with_its_whole_config(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset, name="first", priority=3, metadata={"team": "birds"})
    shown = given.seen(database, job.id)
    assert (shown.status, shown.queue, shown.priority, shown.name) == ("queued", "train", 3, "first")
    assert shown.config["method"]["temperature"] == 0.2
    assert config.parse(shown.config).batch_size == 32
    assert shown.user_metadata == {"team": "birds"}


def test_every_status_is_in_the_history(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    given.finished(database, given.claimed(database))
    with database.reading() as session:
        changes = jobs.transitions(session, job.id)
        assert [change.data["status"] for change in changes] == ["queued", "running", "succeeded"]
        assert [change.seq for change in changes] == [1, 2, 3]
        assert [change.time for change in changes] == sorted(change.time for change in changes)


def test_the_dataset_must_be_there_and_ready(database, tenant, stranger, dataset):
    with pytest.raises(DatasetNotFound):
        given.submitted(database, stranger, dataset)
    waiting = given.validating(database, tenant, "cd" * 32)
    with pytest.raises(DatasetNotReady):
        given.submitted(database, tenant, waiting.id)
    given.finished(database, given.claimed(database, "data"), "failed", {"code": "not_an_archive", "detail": "No."})
    with pytest.raises(DatasetFailed):
        given.submitted(database, tenant, waiting.id)


@pytest.mark.parametrize(
    ("settings", "error", "pointer"),
    [
        ({"method": {"name": "simclr"}, "batch_size": 101}, BatchTooLarge, "/config/batch_size"),
        ({"method": {"name": "simclr"}, "batch_size": 2, "subset": 101}, InvalidConfig, "/config/subset"),
    ],
)
def test_a_config_that_the_dataset_cannot_feed_is_refused(database, tenant, dataset, settings, error, pointer):
    with pytest.raises(error) as raised:
        given.submitted(database, tenant, dataset, config=settings)
    assert [fault["pointer"] for fault in raised.value.errors] == [pointer]


@pytest.mark.parametrize("classes", [0, 1])
def test_what_learns_from_labels_or_judges_by_them_needs_two_classes(database, tenant, classes):
    bare = given.ready(database, tenant, classes=classes)
    for kind in ("linear_eval", "knn_eval", "supervised", "finetune"):
        with pytest.raises(LabelsNeeded):
            given.submitted(database, tenant, bare, kind, model="mdl_" + "0" * 26)


def test_a_projection_needs_no_labels(database, tenant):
    bare = given.ready(database, tenant, classes=0)
    parent = given.submitted(database, tenant, bare)
    assert given.submitted(database, tenant, bare, "project", model=parent.id).status == "waiting"


def test_a_projection_of_a_split_without_images_is_refused(database, tenant, dataset):
    parent = given.submitted(database, tenant, dataset)
    given.submitted(database, tenant, dataset, "project", model=parent.id, config={"split": "train"})
    with pytest.raises(InvalidConfig) as raised:
        given.submitted(database, tenant, dataset, "project", model=parent.id, config={"split": "test"})
    assert [fault["pointer"] for fault in raised.value.errors] == ["/config/split"]


@pytest.mark.parametrize("kind", ["knn_eval", "linear_eval", "project", "export", "finetune", "distill"])
def test_what_works_on_a_model_needs_one(database, tenant, dataset, kind):
    with pytest.raises(ModelNeeded):
        given.submitted(database, tenant, dataset, kind)


def test_a_baseline_needs_none(database, tenant, dataset):
    assert given.submitted(database, tenant, dataset, "supervised").status == "queued"


@pytest.mark.parametrize("kind", ["pretrain", "supervised", "finetune", "distill"])
def test_what_trains_makes_a_model_that_others_can_wait_for(database, tenant, dataset, kind):
    first = given.submitted(database, tenant, dataset)
    model = first.id if kind in ("finetune", "distill") else None
    maker = given.submitted(database, tenant, dataset, kind, model=model)
    assert given.submitted(database, tenant, dataset, "knn_eval", model=maker.id).parent_id == maker.id


def test_a_student_needs_labels_only_where_they_weigh(database, tenant, dataset):
    bare = given.ready(database, tenant, "cd" * 32, classes=0)
    teacher = given.submitted(database, tenant, dataset, "supervised").id
    assert given.submitted(database, tenant, bare, "distill", model=teacher).status == "waiting"
    with pytest.raises(LabelsNeeded):
        given.submitted(database, tenant, bare, "distill", config={"label_weight": 0.5}, model=teacher)


def test_more_than_all_images_in_a_batch_is_all_of_them_where_labels_are_few(database, tenant, dataset):
    given.submitted(database, tenant, dataset, "supervised", config={"batch_size": 1000})


def test_an_export_needs_a_model_and_no_labels(database, tenant):
    bare = given.ready(database, tenant, classes=0)
    with pytest.raises(ModelNeeded):
        given.submitted(database, tenant, bare, "export")
    parent = given.submitted(database, tenant, bare)
    assert given.submitted(database, tenant, bare, "export", model=parent.id).status == "waiting"


def test_an_unknown_model_is_refused(database, tenant, dataset):
    for model in ("", "mdl_", "mdl_" + "0" * 26, "job_" + "0" * 26, "job_\x00", "../../etc"):
        with pytest.raises(ModelNotFound):
            given.submitted(database, tenant, dataset, "knn_eval", model=model)


def test_another_tenants_job_is_no_model(database, tenant, stranger, dataset):
    theirs = given.submitted(database, tenant, dataset)
    mine = given.ready(database, stranger)
    with pytest.raises(ModelNotFound):
        given.submitted(database, stranger, mine, "knn_eval", model=theirs.id)


def test_an_evaluation_makes_no_model(database, tenant, dataset):
    parent = given.submitted(database, tenant, dataset)
    evaluation = given.submitted(database, tenant, dataset, "knn_eval", model=parent.id)
    with pytest.raises(ModelNotFound):
        given.submitted(database, tenant, dataset, "knn_eval", model=evaluation.id)


def test_a_job_that_names_an_unfinished_one_waits_and_then_gets_its_model(database, tenant, dataset):
    parent = given.submitted(database, tenant, dataset)
    child = given.submitted(database, tenant, dataset, "knn_eval", model=parent.id)
    assert child.status == "waiting"
    claim = given.claimed(database)
    assert claim.job_id == parent.id
    given.recorded(database, claim, given.model())
    given.finished(database, claim)
    assert given.seen(database, child.id).status == "queued"
    assert given.claimed(database).model_path == f"jobs/{parent.id}/a1/model"


def test_a_job_that_names_a_finished_one_is_queued_at_once(database, tenant, dataset):
    parent = given.submitted(database, tenant, dataset)
    claim = given.claimed(database)
    given.recorded(database, claim, given.model())
    with database.reading() as session, pytest.raises(ModelNotReady):
        models.get(session, tenant, given.seen(database, parent.id).made_model_id)
    given.finished(database, claim)
    model = given.seen(database, parent.id).made_model_id
    for name in (parent.id, model):
        job = given.submitted(database, tenant, dataset, "knn_eval", model=name)
        assert (job.status, job.model_id) == ("queued", model)


@pytest.mark.parametrize(
    ("kind", "config", "pointer"),
    [
        ("knn_eval", {"layer": "block4"}, "/config/layer"),
        ("project", {"layer": "block4"}, "/config/layer"),
        ("linear_eval", {"layer": "projection"}, "/config/layer"),
        ("export", {"layer": "projection"}, "/config/layer"),
        ("pretrain", given.PRETRAIN | {"backbone": {"name": "resnet18"}}, "/config/backbone/name"),
        ("pretrain", given.PRETRAIN | {"backbone": {"width": 2.0}}, "/config/backbone/width"),
        ("pretrain", given.PRETRAIN | {"backbone": {"layout": "google"}}, "/config/backbone/layout"),
        ("pretrain", given.PRETRAIN | {"backbone": {"selective_kernel": True}}, "/config/backbone/selective_kernel"),
        ("finetune", {"backbone": {"width": 2.0}}, "/config/backbone/width"),
        ("finetune", {"ft_proj_selector": 3}, "/config/ft_proj_selector"),
        ("distill", {}, "/model"),
    ],
)
def test_what_does_not_go_with_the_model_is_told_at_the_door(database, tenant, dataset, kind, config, pointer):
    parent = given.submitted(database, tenant, dataset)
    claim = given.claimed(database)
    network = {"name": "resnet10", "width": 0.5, "stem": "cifar", "selective_kernel": False, "layout": "torchvision"}
    card = {"layers": {"backbone": 256, "block1": 32}, "backbone": network, "projector": {"widths": [256, 64, 32]}}
    given.recorded(database, claim, given.model(**card))
    given.finished(database, claim)
    with pytest.raises(InvalidConfig) as refused:
        given.submitted(database, tenant, dataset, kind, config=config, model=parent.id)
    assert [fault["pointer"] for fault in refused.value.errors] == [pointer]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("knn_eval", {"layer": "block1"}),
        ("pretrain", given.PRETRAIN | {"backbone": {"name": "resnet10"}}),
        ("finetune", {"ft_proj_selector": 2, "backbone": {"width": 0.5}}),
        ("distill", {"backbone": {"name": "resnet18"}}),
    ],
)
def test_what_goes_with_the_model_is_taken(database, tenant, dataset, kind, config):
    parent = given.submitted(database, tenant, dataset, "supervised")
    claim = given.claimed(database)
    network = {"name": "resnet10", "width": 0.5, "stem": "cifar"}
    card = {"layers": {"backbone": 256, "block1": 32}, "backbone": network, "projector": {"widths": [256, 64, 32]}}
    given.recorded(database, claim, given.model(**card, classifier={"classes": ["cat", "dog"]}))
    given.finished(database, claim)
    assert given.submitted(database, tenant, dataset, kind, config=config, model=parent.id).status == "queued"


def test_a_failed_parent_fails_its_children_and_theirs(database, tenant, dataset):
    parent = given.submitted(database, tenant, dataset)
    child = given.submitted(database, tenant, dataset, model=parent.id)
    grandchild = given.submitted(database, tenant, dataset, "knn_eval", model=child.id)
    given.finished(database, given.claimed(database), "failed", {"code": "diverged", "detail": "NaN."})
    for orphan in (child, grandchild):
        shown = given.seen(database, orphan.id)
        assert (shown.status, shown.error["code"]) == ("failed", "parent_failed")
    with pytest.raises(ParentFailed):
        given.submitted(database, tenant, dataset, "knn_eval", model=parent.id)


def test_a_parent_that_leaves_no_model_fails_its_children(database, tenant, dataset):
    parent = given.submitted(database, tenant, dataset)
    child = given.submitted(database, tenant, dataset, "knn_eval", model=parent.id)
    given.finished(database, given.claimed(database))
    assert given.seen(database, child.id).error["code"] == "parent_failed"


def test_cancelling_a_queued_job_ends_it_and_its_children(database, tenant, dataset):
    parent = given.submitted(database, tenant, dataset)
    child = given.submitted(database, tenant, dataset, "knn_eval", model=parent.id)
    with database.writing() as session:
        assert jobs.cancel(session, tenant, parent.id).status == "cancelled"
    assert given.seen(database, child.id).status == "failed"
    with database.writing() as session:
        assert leases.claim(session, "train", "worker-1", 60) is None


def test_cancelling_a_running_job_asks_its_runner_once(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    claim = given.claimed(database)
    for _ in range(2):
        with database.writing() as session:
            assert jobs.cancel(session, tenant, job.id).status == "cancelling"
    assert given.recorded(database, claim, given.checkpoint(5)) == "cancel"
    given.finished(database, claim, "cancelled")
    with database.writing() as session:
        assert jobs.cancel(session, tenant, job.id).status == "cancelled"
        history = [change.data["status"] for change in jobs.transitions(session, job.id)]
        assert history == ["queued", "running", "cancelling", "cancelled"]
        assert [kept.step for kept in jobs.checkpoints(session, job.id)] == [5]


def test_cancelling_a_finished_job_changes_nothing(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    given.finished(database, given.claimed(database))
    with database.writing() as session:
        assert jobs.cancel(session, tenant, job.id).status == "succeeded"
        assert len(jobs.transitions(session, job.id)) == 3


def test_another_tenants_job_looks_like_a_missing_one(database, tenant, stranger, dataset):
    job = given.submitted(database, tenant, dataset)
    with database.writing() as session:
        for verb in (jobs.get, jobs.cancel, jobs.poll):
            for name in (job.id, "job_" + "0" * 26, "job_\x00", "\ud800"):
                with pytest.raises(JobNotFound):
                    verb(session, stranger, name)
        assert jobs.list_(session, stranger).items == []


def test_ingestions_are_not_shown_among_jobs(database, tenant):
    given.validating(database, tenant)
    claim = given.claimed(database, "data")
    with database.writing() as session:
        assert jobs.list_(session, tenant).items == []
        for verb in (jobs.get, jobs.cancel):
            with pytest.raises(JobNotFound):
                verb(session, tenant, claim.job_id)


def test_lists_can_be_narrowed(database, tenant, dataset):
    first = given.submitted(database, tenant, dataset)
    second = given.submitted(database, tenant, dataset, "knn_eval", model=first.id)
    with database.reading() as session:
        found = {
            "queued": jobs.list_(session, tenant, status="queued"),
            "knn": jobs.list_(session, tenant, kind="knn_eval"),
            "all": jobs.list_(session, tenant, dataset=dataset),
            "none": jobs.list_(session, tenant, dataset="\x00"),
        }
    ids = {name: [job.id for job in page.items] for name, page in found.items()}
    assert ids["queued"] == [first.id]
    assert ids["knn"] == [second.id]
    assert sorted(ids["all"]) == sorted([first.id, second.id])
    assert ids["none"] == []


UNSTORABLE = [
    {"name": "a\x00b"},
    {"metadata": {"a": "\x00"}},
    {"metadata": {"\ud800": "a"}},
    {"metadata": {str(number): "" for number in range(51)}},
    {"metadata": {"a": "x" * 501}},
    {"metadata": {"a": 5}},
    {"priority": 1001},
]


def test_what_no_database_should_hold_is_refused(database, tenant, dataset):
    for wrong in UNSTORABLE:
        with pytest.raises((InvalidRequest, InvalidConfig)) as raised:
            given.submitted(database, tenant, dataset, **wrong)
        assert raised.value.errors


def test_events_are_read_from_where_the_reader_was(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    claim = given.claimed(database)
    given.recorded(database, claim, *(given.events.Log("info", f"line {n}") for n in range(5)))
    with database.reading() as session:
        first = jobs.events(session, job.id, limit=4)
        rest = jobs.events(session, job.id, after=first.last)
    assert first.has_more
    assert not rest.has_more
    assert [event.seq for event in [*first.items, *rest.items]] == list(range(1, 8))
    assert rest.items[-1].message == "line 4"


def test_a_poll_learns_the_last_point_and_the_status(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    given.recorded(database, given.claimed(database), given.metrics(1, a=1.0, b=2.0))
    with database.reading() as session:
        assert jobs.poll(session, tenant, job.id) == (2, "running")


def test_the_histories_of_many_jobs_are_told_apart(database, tenant, dataset):
    first, second = (given.submitted(database, tenant, dataset, priority=-n).id for n in range(2))
    given.claimed(database)
    with database.reading() as session:
        found = jobs.transitions_by_job(session, [first, second])
    told = {job: [change.data["status"] for change in changes] for job, changes in found.items()}
    assert told == {first: ["queued", "running"], second: ["queued"]}
