"""Prometheus metrics of jobs: what the API knows of the queues, and what a worker did."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


class JobMetrics:
    """Counts of one process. The depth of a queue is the same in every process that reports it: take their maximum."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ended = Counter("genai_jobs", "Jobs finished by this process", ["kind", "status"], registry=registry)
        self.submitted = Counter("genai_jobs_submitted", "Jobs accepted", ["kind"], registry=registry)
        self.attempts = Counter("genai_job_attempts", "Times that a job was begun", ["kind"], registry=registry)
        self.takeovers = Counter("genai_job_takeovers", "Jobs taken over from a dead worker", registry=registry)
        self.handed_back = Counter(
            "genai_jobs_handed_back", "Jobs handed back by a worker that ends", registry=registry
        )
        self.lost = Counter(
            "genai_job_leases_lost", "Jobs whose result came too late: another worker has them", registry=registry
        )
        self.wait = Histogram(
            "genai_job_wait_seconds",
            "Time from a job's acceptance to its first attempt",
            ["kind"],
            buckets=SECONDS,
            registry=registry,
        )
        self.duration = Histogram(
            "genai_job_duration_seconds", "Time of the last attempt", ["kind"], buckets=SECONDS, registry=registry
        )
        self._waiting = Gauge("genai_jobs_waiting", "Jobs that wait for a worker", ["queue"], registry=registry)
        self._running = Gauge("genai_jobs_running", "Jobs that a worker has", ["queue"], registry=registry)
        self._workers = Gauge("genai_job_workers", "Workers that are at the queue", ["queue"], registry=registry)

    def depth(self, queue: str, waiting: int, running: int, workers: int) -> None:
        self._workers.labels(queue).set(workers)
        self._waiting.labels(queue).set(waiting)
        self._running.labels(queue).set(running)

    def depth_unknown(self) -> None:
        """An old figure would be worse than none: something scales by it."""
        self._waiting.clear()
        self._running.clear()
        self._workers.clear()
