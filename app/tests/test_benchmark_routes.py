"""Benchmarks of a service that has no PostgreSQL; with one, see services/."""

from checks import check
from fastapi.testclient import TestClient


def test_without_a_database_there_are_none(client: TestClient) -> None:
    check(client.get("/v1/benchmarks"), 404, "no database is configured (GENAI_DATABASE_URL)")
    catalog = client.get("/v1/models").json()
    assert catalog["degraded"] is None and catalog["models"][0]["benchmarks"] == []
    assert client.get("/v1/models/stub").json()["benchmarks"] == []
