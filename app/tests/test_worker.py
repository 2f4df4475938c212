"""The worker without Redis; with one, see services/test_worker.py."""

import pytest
from command import start

from genai_inference.worker import pause


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0.0), (1, 0.2), (2, 0.4), (5, 3.2), (9, 20.0), (10**6, 20.0)])
def test_a_worker_on_which_jobs_fail_takes_its_time(failures: int, seconds: float) -> None:
    assert pause(failures, most=20.0) == pytest.approx(seconds)


def test_without_redis_it_ends_with_2_and_one_line() -> None:
    code, stderr = start("worker")
    assert (code, stderr) == (2, "genai-inference: GENAI_REDIS_URL: the worker needs one\n")
