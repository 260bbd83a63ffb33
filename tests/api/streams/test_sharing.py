"""Listeners of one job share its queries."""

import asyncio

import pytest
from sqlalchemy import event, text

from api.app import create
from api.streams.sources import MetricsSource
from service import jobs
from service.keys import list_
from tests.service import given


@pytest.fixture
def application(settings):
    application = create(settings)
    yield application
    application.state.database.close()


async def open_stream(streams, job, key_id, state):
    """Return the messages of a stream behind its first line."""
    messages = streams.open(MetricsSource(job, None), key_id, state, state.last_point).body_iterator
    assert (await anext(messages)).startswith(b"retry: ")
    return messages


def count_statements(application, database, tenant, job, claim, listeners):
    """Let that many listeners follow the job for three more steps; return how many statements were of points."""
    streams, statements = application.state.streams, []
    with database.reading() as session:
        state, (key,) = jobs.poll(session, tenant, job), list_(session, tenant)
    event.listen(streams.pages._database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    async def run():
        all_of_them = [await open_stream(streams, job, key.id, state) for _ in range(listeners)]
        for _ in range(3):
            step = given.get_job(database, job).last_point
            reading = [asyncio.ensure_future(anext(messages)) for messages in all_of_them]
            await asyncio.sleep(0)
            given.record_events(database, claim, given.metrics(step, loss=1.0))
            assert len(set(await asyncio.gather(*reading))) == 1
        for messages in all_of_them:
            await messages.aclose()

    asyncio.run(run())
    polls = [statement for statement in statements if "last_point" in statement]
    assert len(polls) >= 3
    return len([statement for statement in statements if "points" in statement]), len(polls)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_stream_ends_when_the_database_fails_so_that_its_client_comes_back(
    application, database, tenant, key, job, claim
):
    with database.reading() as session:
        state, (used,) = jobs.poll(session, tenant, job), list_(session, tenant)

    async def run():
        messages = await open_stream(application.state.streams, job, used.id, state)
        with database.writing() as session:
            session.execute(text("ALTER TABLE jobs RENAME TO moved"))
        return [message async for message in messages]

    assert asyncio.run(run()) == []


def test_more_listeners_need_no_more_queries(application, database, tenant, key, job, claim):
    alone, _ = count_statements(application, database, tenant, job, claim, 1)
    assert alone == 3 * 2
    together, polls = count_statements(application, database, tenant, job, claim, 100)
    assert together == alone
    assert polls < 100
