"""Expiry of keys by the database's clock, and their last use."""

from datetime import UTC, datetime, timedelta

import pytest

from api import schemas
from service.db.models import Key
from service.db.session import clock
from tests.api.responses import check_body, check_problem, get_pointers

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def read_clock(database):
    with database.reading() as session:
        return clock(session)


def in_days(days):
    return (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")


def test_an_expired_key_is_refused_with_its_own_code(make_client, client, database):
    now = read_clock(database)
    check_problem(make_client(expires_at=now - 1).get("/jobs"), 401, "expired_key")
    assert make_client(expires_at=now + 3600).get("/jobs").status_code == 200
    revoked = make_client(expires_at=now - 1)
    client.delete(f"/keys/{revoked.key_id}")
    check_problem(revoked.get("/jobs"), 401, "wrong_key")


def test_a_key_expires_at_its_time(make_client, database):
    limited = make_client(expires_at=read_clock(database) + 3600)
    assert limited.get("/jobs").status_code == 200
    with database.writing() as session:
        session.get_one(Key, limited.key_id).expires_at = clock(session)
    check_problem(limited.get("/jobs"), 401, "expired_key")
    check_problem(limited.post("/jobs", content=b"{"), 401, "expired_key")


@on_sqlite
def test_the_expiry_of_a_new_key_is_a_number_of_days_or_a_time(client):
    days = check_body(schemas.MadeKey, client.post("/keys", json={"name": "a", "expires_in_days": 30}), 201)
    found = datetime.fromisoformat(days["expires_at"]) - datetime.fromisoformat(days["created_at"])
    assert abs(found - timedelta(days=30)) < timedelta(seconds=5)
    body = {"name": "b", "expires_at": "2999-01-31T12:00:00+02:00"}
    time = check_body(schemas.MadeKey, client.post("/keys", json=body), 201)
    assert time["expires_at"] == "2999-01-31T10:00:00.000Z"
    listed = check_body(schemas.KeyList, client.get("/keys"))["data"]
    assert [key["expires_at"] for key in listed] == [time["expires_at"], days["expires_at"], None]


@on_sqlite
@pytest.mark.parametrize(
    ("expiry", "pointer"),
    [
        ({"expires_in_days": 0}, "/expires_in_days"),
        ({"expires_in_days": 1e30}, "/expires_in_days"),
        ({"expires_at": "2999-01-01"}, "/expires_at"),
        ({"expires_at": "2999-02-30T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "/expires_at"),
        ({"expires_at": 32472144000}, "/expires_at"),
    ],
)
def test_an_invalid_expiry_is_refused(client, expiry, pointer):
    answer = client.post("/keys", json={"name": "laptop", **expiry})
    assert get_pointers(check_problem(answer, 422, "invalid_request")) == [pointer]


@on_sqlite
def test_an_expiry_in_the_past_is_refused_and_of_two_the_sooner_applies(client):
    past = client.post("/keys", json={"name": "laptop", "expires_at": "2020-01-01T00:00:00Z"})
    assert get_pointers(check_problem(past, 409, "expiry_past")) == ["/expires_at"]
    both = client.post("/keys", json={"name": "a", "expires_at": "2999-01-01T00:00:00Z", "expires_in_days": 1}).json()
    assert both["expires_at"] < "2999"


@on_sqlite
def test_a_key_makes_none_that_expires_later_than_itself(make_client, database):
    limited = make_client(expires_at=read_clock(database) + 5 * 86_400)
    own = limited.get("/keys").json()["data"][0]["expires_at"]
    assert limited.post("/keys", json={"name": "same"}).json()["expires_at"] == own
    assert limited.post("/keys", json={"name": "sooner", "expires_in_days": 3}).status_code == 201
    for expiry in ({"expires_in_days": 10}, {"expires_at": in_days(10)}):
        answer = limited.post("/keys", json={"name": "later", **expiry})
        assert get_pointers(check_problem(answer, 403, "expiry_exceeded")) == [f"/{next(iter(expiry))}"]


def test_the_last_use_of_a_key_is_shown(app, client, make_client):
    unused = make_client("unused")
    before = client.get("/keys").json()["data"]
    assert [key["last_used_at"] for key in before] == [None, None]
    app.state.key_uses.store()
    used = {key["name"]: key["last_used_at"] for key in check_body(schemas.KeyList, client.get("/keys"))["data"]}
    assert used["unused"] is None
    assert used["test"] is not None
    assert unused.get("/jobs").status_code == 200
    app.state.key_uses.store()
    again = {key["name"]: key["last_used_at"] for key in client.get("/keys").json()["data"]}
    assert again["unused"] >= used["test"] == again["test"]


@on_sqlite
def test_uses_are_kept_while_the_database_is_away(app, client, database):
    client.get("/jobs")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE keys RENAME TO keys_away")
    app.state.key_uses.store()
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE keys_away RENAME TO keys")
    app.state.key_uses.store()
    assert client.get("/keys").json()["data"][0]["last_used_at"] is not None
