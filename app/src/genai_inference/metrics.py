"""Prometheus metrics. Every label has few possible values, whatever clients send."""

import math
import threading
import time
from collections import Counter as Count
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache, partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from .job_metrics import JobMetrics
from .model import ModelCard

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FINE_BUCKETS = (0.0001, 0.00025, 0.0005, *BUCKETS)
DROPPED = ("queue_full", "deadline", "abandoned")
CACHED = ("local_hit", "redis_hit", "miss", "joined", "bypass")
MOST_LABELS = 100  # of a model whose predictions are counted for each label
GONE_SECONDS = 300.0
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one application, in a registry of their own (seconds throughout)."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series, and Prometheus makes nothing of them
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "genai_http_requests", "Requests answered", ["route", "method", "status"], registry=registry
        )
        self._latency = Histogram(
            "genai_http_request_duration_seconds",
            "Time to answer",
            ["route", "method"],
            buckets=BUCKETS,
            registry=registry,
        )
        # Looking the two up by their labels costs more than counting.
        self._series = cache(
            lambda route, method, status: (
                self._requests.labels(route, method, str(status)),
                self._latency.labels(route, method),
            )
        )
        self.in_flight = Gauge("genai_http_requests_in_flight", "Requests being answered", registry=registry)
        self.in_flight_bytes = Gauge(
            "genai_in_flight_bytes",
            "Memory that bodies, and answers nobody has read yet, are counted with",
            registry=registry,
        )
        self._predictions = Counter(
            "genai_predictions",
            f"Instances classified; of a model with more than {MOST_LABELS} labels under none of them",
            ["model", "label", "model_version"],
            registry=registry,
        )
        self._versions: set[tuple[str, str]] = set()  # that are loaded, by name
        self._counted: dict[tuple[str, str], set[str]] = {}  # labels of _predictions
        self._gone: dict[tuple[str, str], float] = {}  # since when, of those in _counted
        self._counting = threading.Lock()
        self._loaded = Gauge("genai_model_info", "A model that is loaded: 1", ["name", "version"], registry=registry)
        self._load = Gauge("genai_model_load_seconds", "Time it took to load the model", ["model"], registry=registry)
        self.load_failures = Counter(
            "genai_model_load_failures", "New configurations of models that could not be loaded", registry=registry
        )
        self._sizes = Histogram(
            "genai_batch_size", "Instances computed together", ["model"], buckets=SIZES, registry=registry
        )
        self._forward = Histogram(
            "genai_forward_seconds", "Time to compute a batch", ["model"], buckets=FINE_BUCKETS, registry=registry
        )
        self._wait = Histogram(
            "genai_queue_wait_seconds",
            "Time from a request's arrival to the start of its batch",
            ["model"],
            buckets=FINE_BUCKETS,
            registry=registry,
        )
        self._depth = Gauge("genai_queue_depth", "Instances that wait for a batch", ["model"], registry=registry)
        self._dropped = Counter(
            "genai_requests_dropped",
            f"Requests not computed: {', '.join(DROPPED)}",
            ["model", "reason"],
            registry=registry,
        )
        self.device_trouble = Gauge("genai_device_trouble", "1 while a device does not compute", registry=registry)
        self._memory = Gauge(
            "genai_device_memory_bytes", "GPU memory that this process holds", ["device"], registry=registry
        )

        self._stores = Counter(
            "genai_store_failures", "Times that Redis or PostgreSQL did not answer", ["store"], registry=registry
        )
        self._utilization = Gauge(
            "genai_gpu_utilization_ratio",
            "Part of the time in which the GPU computed, whoever used it",
            ["device"],
            registry=registry,
        )
        self.audit_written = Counter("genai_audit_written", "Rows of the audit log in PostgreSQL", registry=registry)
        self.audit_dropped = Counter("genai_audit_dropped", "Rows of the audit log that were lost", registry=registry)
        self.jobs = JobMetrics(registry)

        self._cache = Counter(
            "genai_cache_requests",
            f"Predictions of models with a cache: {', '.join(CACHED)}",
            ["model", "result"],
            registry=registry,
        )
        self.cache_bytes = Gauge("genai_cache_local_bytes", "Memory that kept answers take", registry=registry)
        self.rate_limited = Counter(
            "genai_rate_limited", "Requests refused because their client sent too many", registry=registry
        )
        self._degraded = Gauge(
            "genai_degraded", "A part that does not work although requests are answered: 1", ["part"], registry=registry
        )

    def cached(self, model: str, result: str) -> None:
        self._cache.labels(model, result).inc()

    def store_failed(self, store: str) -> None:
        self._stores.labels(store).inc()

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request; `route` is the template of its path, never the path."""
        requests, latency = self._series(route, method if method in METHODS else "other", status)
        requests.inc()
        latency.observe(seconds)

    def predicted(self, card: ModelCard, labels: Sequence[int | str]) -> None:
        """The labels that a model gave."""
        counts = Count(labels) if len(card.labels) <= MOST_LABELS else {"": len(labels)}
        with self._counting:
            counted = self._counted.setdefault((card.name, card.version), set())
            for label, count in counts.items():
                counted.add(str(label))
                self._predictions.labels(card.name, str(label), card.version).inc(count)

    def of_model(self, name: str) -> "ModelMetrics":
        """What the batcher of one model reports to. A new version goes on counting where the old one ended."""
        sizes, forward, wait = (metric.labels(name) for metric in (self._sizes, self._forward, self._wait))
        dropped = cache(partial(self._dropped.labels, name))
        return ModelMetrics(sizes, forward, wait, lambda reason: dropped(reason).inc())

    def loaded(self, name: str, version: str, seconds: float, waiting: Callable[[], int]) -> None:
        """`waiting` is asked for the depth of the model's queue at each scrape."""
        self._versions.add((name, version))
        self._loaded.labels(name, version).set(1)
        self._load.labels(name).set(seconds)
        self._depth.labels(name).set_function(waiting)

    def unloaded(self, name: str, version: str, *, successor: str | None) -> None:
        """The version is gone: `successor` is that of the model which takes its place, None if it is gone for good."""
        if successor == version:
            return
        self._versions.discard((name, version))
        self._loaded.remove(name, version)
        if successor is None:
            for metric in (self._load, self._depth, self._sizes, self._forward, self._wait):
                metric.remove(name)
            for counter, values in ((self._dropped, DROPPED), (self._cache, CACHED)):
                for value in values:
                    with suppress(KeyError):  # where it has none, older releases of the library say so
                        counter.remove(name, value)

    def device(self, name: str, memory: Callable[[], int | None], utilization: Callable[[], float | None]) -> None:
        """Has the memory and the utilization of a GPU measured at each scrape, if they can be known now."""
        if memory() is not None:
            self._memory.labels(name).set_function(lambda: memory() or 0)
        if utilization() is not None:
            self._utilization.labels(name).set_function(lambda: math.nan if (now := utilization()) is None else now)

    def degraded(self, parts: Iterable[str]) -> None:
        """These, and no others, do not work at the moment."""
        self._degraded.clear()
        for part in parts:
            self._degraded.labels(part).set(1)

    def exposition(self) -> bytes:
        """All series. Those of a version that is gone stay for GONE_SECONDS: each scraper shall see its last counts."""
        text = generate_latest(self._registry)
        served = {(name.partition("@")[0], version) for name, version in self._versions.copy()}  # "@": see Copy
        now = self._clock()
        with self._counting:
            gone = self._counted.keys() - served
            self._gone = {key: self._gone.get(key, now) for key in gone}
            for name, version in [key for key, since in self._gone.items() if now - since >= GONE_SECONDS]:
                for label in self._counted.pop((name, version)):
                    self._predictions.remove(name, label, version)
        return text


class ModelMetrics:
    """See batching.Observer."""

    def __init__(self, sizes: Histogram, forward: Histogram, wait: Histogram, dropped: Callable[[str], None]) -> None:
        self._sizes = sizes
        self._forward = forward
        self.waited = wait.observe
        self.dropped = dropped

    def batch(self, items: int, forward: float) -> None:
        self._sizes.observe(items)
        self._forward.observe(forward)
