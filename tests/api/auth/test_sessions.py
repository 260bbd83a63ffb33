"""Sessions: a one-time token is exchanged for a key that expires within a day."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from sqlalchemy import update

from api import schemas
from api.wrong_keys import WrongKeyBrake
from service import keys
from service.db.models import Key, SignInToken
from service.keys.sessions import SESSION_SECONDS, TOKEN_SECONDS
from tests.api.responses import check_body, check_problem


def make_token(client):
    answer = client.post("/sessions/tokens")
    assert answer.headers["cache-control"] == "no-store"
    return check_body(schemas.SignInToken, answer, 201)


def seconds_from_now(text):
    return datetime.fromisoformat(text).timestamp() - time.time()


def open_session(anonymous, token):
    return anonymous.post("/sessions", json={"token": token})


def test_a_token_opens_one_session_with_the_scopes_of_its_key(make_client, anonymous):
    client = make_client(scopes=["read", "admin"])
    token = make_token(client)
    assert 0 < seconds_from_now(token["expires_at"]) <= TOKEN_SECONDS
    opened = check_body(schemas.MadeKey, open_session(anonymous, token["token"]), 201)
    assert opened["scopes"] == ["read", "admin"]
    assert 0 < seconds_from_now(opened["expires_at"]) <= SESSION_SECONDS
    session = {"Authorization": f"Bearer {opened['key']}"}
    assert anonymous.get("/jobs", headers=session).status_code == 200
    check_problem(open_session(anonymous, token["token"]), 401, "wrong_token")
    assert anonymous.delete(f"/keys/{opened['id']}", headers=session).status_code == 204
    check_problem(anonymous.get("/jobs", headers=session), 401, "wrong_key")


def test_a_token_that_is_sent_many_times_at_once_opens_one_session(client, anonymous):
    token = make_token(client)["token"]
    with ThreadPoolExecutor(8) as pool:
        answers = [answer.status_code for answer in pool.map(lambda _: open_session(anonymous, token), range(8))]
    assert sorted(answers) == [201] + [401] * 7


def test_expired_and_revoked_and_invented_tokens_are_401(client, anonymous, database):
    late = make_token(client)["token"]
    with database.writing() as session:
        session.execute(update(SignInToken).values(expires_at=SignInToken.expires_at - TOKEN_SECONDS - 1))
    check_problem(open_session(anonymous, late), 401, "wrong_token")
    made = client.post("/keys", json={"name": "laptop"}).json()
    token = anonymous.post("/sessions/tokens", headers={"Authorization": f"Bearer {made['key']}"}).json()["token"]
    client.delete(f"/keys/{made['id']}")
    check_problem(open_session(anonymous, token), 401, "wrong_token")
    check_problem(open_session(anonymous, "tvs_invented"), 401, "wrong_token")
    check_problem(anonymous.post("/sessions", json={}), 422, "invalid_request")


def test_a_session_does_not_outlive_the_key_that_made_its_token(client, anonymous, database, tenant):
    with database.writing() as session:
        _, secret = keys.create(session, tenant, "short", expires_at=time.time() + 100)
    token = anonymous.post("/sessions/tokens", headers={"Authorization": f"Bearer {secret}"}).json()["token"]
    assert seconds_from_now(open_session(anonymous, token).json()["expires_at"]) <= 100


def test_wrong_tokens_are_braked_like_wrong_keys(app, anonymous):
    app.state.wrong_keys = WrongKeyBrake(3)
    codes = [open_session(anonymous, f"tvs_{number}").json()["code"] for number in range(5)]
    assert codes == ["wrong_token"] * 3 + ["too_many_wrong_keys"] * 2


def test_an_opened_session_is_in_the_audit_trail_and_no_secret_is_stored(client, anonymous, database):
    token = make_token(client)["token"]
    opened = open_session(anonymous, token).json()
    (made,) = client.get("/audit", params={"action": "session.token"}).json()["data"]
    assert made["target"] == made["key"]
    (entry,) = client.get("/audit", params={"action": "session.open"}).json()["data"]
    assert (entry["target"], entry["key_name"], entry["address"]) == (opened["id"], "test", "testclient")
    with database.reading() as session:
        assert session.query(SignInToken).count() == 0
        assert {opened["key"], token}.isdisjoint({key.sha256 for key in session.query(Key)})


def test_unused_tokens_of_a_key_are_bounded(client, database):
    for _ in range(105):
        make_token(client)
    with database.reading() as session:
        assert session.query(SignInToken).count() == 100
