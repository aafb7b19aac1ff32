"""A few rounds of bench/durability.py, whose full campaign kills writers and servers through 2,000 corrections."""

import pytest
from durability import run_campaign, store_of


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_kills_lose_nothing_that_was_acknowledged(backend, monkeypatch):
    monkeypatch.delenv("OCR_SPRINT_STORE", raising=False)
    with store_of(backend) as (url, server):
        done = run_campaign(url, 40, seed=11, server=server, least_rounds=4)
    assert done.corrections >= 40
    assert done.client_kills == 2 * done.rounds >= 8
    assert done.server_kills == (done.rounds // 4 if backend == "postgresql" else 0)
