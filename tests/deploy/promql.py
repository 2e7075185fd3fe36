"""What a query of Prometheus asks for: names of metrics, and the labels that it matches and groups by.

Simple on purpose: it knows the queries that stand in deploy/, and refuses those that it does not understand.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

FUNCTIONS = {
    "absent", "count", "histogram_quantile", "increase", "max", "min", "rate", "sum", "time"
}  # fmt: skip
WORDS = {"and", "by", "or", "unless", "without", "inf", "nan"}
_TOKEN = re.compile(
    r"""(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?P<matchers>\{[^}]*\})?
      | (?P<duration>\[[^\]]*\]) | (?P<number>\d+(\.\d+)?[a-z]*) | (?P<sign>[-+*/()<>=!,]+) | \s+""",
    re.VERBOSE,
)
_MATCHER = re.compile(r'\s*(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*(?:,|$)')


@dataclass(frozen=True)
class Matcher:
    label: str
    operator: str
    value: str


@dataclass(frozen=True)
class Selector:
    """`labels`: those that the query groups by, beside those that it matches."""

    name: str
    matchers: tuple[Matcher, ...]


@dataclass(frozen=True)
class Query:
    selectors: tuple[Selector, ...]
    grouped_by: frozenset[str]


def parse(text: str) -> Query:
    """Raises ValueError where something is not understood."""
    grouped_by = {label.strip() for labels in re.findall(r"\bby\s*\(([^)]*)\)", text) for label in labels.split(",")}
    without_groups = re.sub(r"\bby\s*\([^)]*\)", " ", text)
    return Query(tuple(_selectors(without_groups)), frozenset(grouped_by))


def _selectors(text: str) -> Iterator[Selector]:
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise ValueError(f"not understood: {text[position:]!r}")
        position = token.end()
        name = token["name"]
        if name is None or name in WORDS:
            continue
        if name in FUNCTIONS:
            if token["matchers"] is not None:
                raise ValueError(f"{name} is a function")
            continue
        yield Selector(name, _matchers(token["matchers"] or "{}"))


def _matchers(text: str) -> tuple[Matcher, ...]:
    inner = text[1:-1]
    found = tuple(Matcher(*each) for each in _MATCHER.findall(inner))
    if _MATCHER.sub("", inner).strip():
        raise ValueError(f"not understood: {text!r}")
    return found
