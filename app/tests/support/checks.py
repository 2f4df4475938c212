"""What every refusal has to be."""

import httpx


def check(response: httpx.Response, status: int, detail: str) -> None:
    """The response is a problem with this status, and its detail contains `detail`."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "request_id"}
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert detail in problem["detail"]
    assert "Traceback" not in response.text
