"""A small PromQL: the value of an expression by two scrapes, parsed by promql-parser.

It has what the alerts use: selectors, `increase`, `min`, `max` and `sum`, division, and comparisons with a number.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import promql_parser as promql
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
OPERATIONS: dict[str, Callable[[float, float], float | bool]] = {
    "/": lambda a, b: a / b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    "==": lambda a, b: a == b,
}
AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max, "sum": sum}


@dataclass(frozen=True)
class Scrape:
    """The samples of one scrape."""

    samples: dict[tuple[str, Labels], float]

    @classmethod
    def parse(cls, text: str) -> "Scrape":
        families = list(text_string_to_metric_families(text))
        samples = {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}
        return cls(samples | {("up", frozenset({("job", "twoviews")})): 1.0})

    def replace(self, **values: float) -> "Scrape":
        """Return a copy in which the samples of these metrics have other values."""
        return Scrape({key: values.get(key[0], value) for key, value in self.samples.items()})

    def select(self, selector: promql.VectorSelector) -> Vector:
        matchers = selector.matchers.matchers
        return {
            labels: value
            for (name, labels), value in self.samples.items()
            if name == selector.name and all(matches(matcher, dict(labels)) for matcher in matchers)
        }


def matches(matcher: promql.Matcher, labels: dict[str, str]) -> bool:
    if matcher.name in ("job", "instance"):  # given by Prometheus
        return True
    value = labels.get(matcher.name, "")
    match matcher.op:
        case promql.MatchOp.Equal:
            return value == matcher.value
        case promql.MatchOp.NotEqual:
            return value != matcher.value
        case promql.MatchOp.Re:
            return re.fullmatch(matcher.value, value) is not None
    raise NotImplementedError(str(matcher.op))


def evaluate(expression: str, now: Scrape, before: Scrape) -> Vector:
    """Return the samples of the result, by their labels; `increase` is that from `before` to `now`."""
    return _evaluate(promql.parse(expression), now, before)


def _evaluate(node: promql.Expr, now: Scrape, before: Scrape) -> Vector:
    match node:
        case promql.NumberLiteral():
            return {frozenset(): node.val}
        case promql.VectorSelector():
            return now.select(node)
        case promql.Call() if node.func.name == "increase":
            selector = node.args[0].vector_selector
            old = before.select(selector)
            return {labels: value - old[labels] for labels, value in now.select(selector).items() if labels in old}
        case promql.AggregateExpr():
            return _aggregate(node, _evaluate(node.expr, now, before))
        case promql.BinaryExpr():
            return _combine(node, _evaluate(node.lhs, now, before), _evaluate(node.rhs, now, before))
    raise NotImplementedError(node.prettify())


def _aggregate(node: promql.AggregateExpr, vector: Vector) -> Vector:
    kept = set(node.modifier.labels) if node.modifier else set()
    groups = defaultdict(list)
    for labels, value in vector.items():
        groups[frozenset(item for item in labels if item[0] in kept)].append(value)
    return {labels: AGGREGATIONS[str(node.op)](values) for labels, values in groups.items()}


def _combine(node: promql.BinaryExpr, left: Vector, right: Vector) -> Vector:
    operation = OPERATIONS[str(node.op)]
    if isinstance(node.rhs, promql.NumberLiteral):
        (number,) = right.values()
        return {labels: value for labels, value in left.items() if operation(value, number)}
    return {labels: operation(value, right[labels]) for labels, value in left.items() if labels in right}


def walk(node: promql.Expr) -> Iterator[promql.Expr]:
    """Yield the node and all nodes below it."""
    yield node
    children = [getattr(node, name) for name in ("lhs", "rhs", "expr", "vector_selector") if hasattr(node, name)]
    for child in [*children, *getattr(node, "args", [])]:
        yield from walk(child)


def grouped_labels(node: promql.Expr) -> set[str]:
    """Return the labels in `by` and `without`."""
    return {
        label
        for found in walk(node)
        if isinstance(found, promql.AggregateExpr) and found.modifier
        for label in found.modifier.labels
    }
