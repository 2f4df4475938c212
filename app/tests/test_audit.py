"""What the audit log holds of a request; the log itself is tested in tests/services."""

import pytest

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


def test_it_needs_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENAI_AUDIT", "true")
    with pytest.raises(SettingsError, match=r"^GENAI_AUDIT='true': .*GENAI_DATABASE_URL is needed with it"):
        read_settings()
    monkeypatch.setenv("GENAI_DATABASE_URL", "postgresql://host/name")
    assert read_settings().audit
    assert not Settings(audit=False).audit
