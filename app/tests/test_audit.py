"""What the audit log holds of a request; the log itself is tested in tests/services."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from stub import loaded

from genai_inference import middleware
from genai_inference.api import create_app
from genai_inference.audit import is_audited, verdict
from genai_inference.settings import Settings, SettingsError, read_settings

VERDICTS = {200: "ok", 202: "ok", 304: "ok", 401: "refused", 422: "refused", 429: "refused", 499: "failed"}
VERDICTS |= {500: "failed", 503: "failed", 504: "failed"}


@pytest.mark.parametrize(("status", "said"), VERDICTS.items())
def test_verdict(status: int, said: str) -> None:
    assert verdict(status) == said


@pytest.mark.parametrize(
    ("method", "path", "audited"),
    [
        ("POST", "/v1/predict", True),
        ("DELETE", "/v1/jobs/1", True),
        ("GET", "/v1/models", False),
        ("POST", "/health", False),
    ],
)
def test_what_does_something_is_audited(method: str, path: str, audited: bool) -> None:
    assert is_audited({"method": method, "path": path}) is audited
    assert not is_audited({"method": method, "path": path, "unaudited": True})


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}], ids=str)
def test_strangers_cannot_fill_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]) -> None:
    monkeypatch.setattr(middleware, "WRONG_PER_SECOND", 1e-9)
    (tmp_path / "keys").write_text("")
    settings = Settings(api_keys_file=tmp_path / "keys", audit=True, database_url="postgresql://nowhere.test/x")
    app = create_app(settings, lambda _: loaded())
    client = TestClient(app)  # not started, so that rows stay where they are
    for _ in range(middleware.WRONG_BURST + 20):
        assert client.post("/v1/predict", headers=headers).status_code in (401, 429)
    assert len(app.state.service.audit._rows) == middleware.WRONG_BURST


def test_it_needs_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENAI_AUDIT", "true")
    with pytest.raises(SettingsError, match=r"^GENAI_AUDIT='true': .*GENAI_DATABASE_URL is needed with it"):
        read_settings()
    monkeypatch.setenv("GENAI_DATABASE_URL", "postgresql://host/name")
    assert read_settings().audit
    assert not Settings(audit=False).audit
