"""A slice of `make fuzz`: random requests to the routes of keys and of the audit trail, on SQLite."""

from tests.api.fuzz.run import fuzz


def test_requests_to_keys_and_audit_give_what_the_schema_says():
    only = ("--include-path", "/keys", "--include-path", "/audit", "--phases", "fuzzing")
    outcome = fuzz("sqlite", 20, 1, 10, *only)
    assert outcome.failures == 0, outcome.log
    assert outcome.cases >= 20
