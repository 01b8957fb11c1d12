"""Any body at all: what comes back is GraphQL over HTTP, no mistake of ours. What the worst cost, `python -m bench.attacks` measures."""

import logging
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.server import application
from app.settings import Settings
from app.telemetry import GatewayMetrics
from bench.attacks import asked
from bench.bodies import BODIES, LARGEST
from tests.request.arranged import DEFINITION, MemoryLoader

SETTINGS = Settings(_env_file=None, pages=False, limit_batch=5)  # type: ignore[call-arg]  # pydantic-settings' own
APP = application(SETTINGS, DEFINITION, {"view": MemoryLoader()}, GatewayMetrics())
QUERIES = ["{ __typename }", '{ user(id: "1") { id } }', "query Q($i: ID!) { user(id: $i) { id } }"]
TEXTS = st.one_of(st.text(max_size=50), st.sampled_from(QUERIES))
KEYS = st.sampled_from(["i", "persistedQuery", "sha256Hash", ""])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
REQUESTS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("query", "variables", "operationName", "extensions", "documentId", "doc_id", "more"), TEXTS | JSON)
)


def encoded(value: Any) -> bytes:
    return msgspec.json.encode(value)


@pytest.fixture(autouse=True)
def nothing_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_costs_is_answered_or_refused(name: str) -> None:
    assert len(BODIES[name]) <= LARGEST
    for _ in range(2):
        assert (await asked(APP, BODIES[name]))[0] in {200, 400}


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        REQUESTS.map(encoded),
        st.lists(REQUESTS, max_size=6).map(encoded),
        st.tuples(st.sampled_from(sorted(BODIES)), st.integers(0, LARGEST), st.integers(0, LARGEST), st.binary(max_size=4)).map(
            lambda cut: (BODIES[cut[0]][: cut[1]] + cut[3] + BODIES[cut[0]][cut[2] :])[:LARGEST]
        ),
    )
)
async def test_any_body_is_answered_or_refused(body: bytes) -> None:
    assert (await asked(APP, body))[0] in {200, 400}
