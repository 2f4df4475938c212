"""Prometheus metrics. Every label has few possible values, whatever clients send."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from .model import ModelCard
from .schemas import Prediction

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one application, in a registry of their own (seconds throughout)."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
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
        self.in_flight = Gauge("genai_http_requests_in_flight", "Requests being answered", registry=registry)
        self._predictions = Counter(
            "genai_predictions", "Instances classified", ["label", "model_version"], registry=registry
        )
        self._loaded = Gauge("genai_model_info", "The model that is loaded: 1", ["name", "version"], registry=registry)
        self._load = Gauge("genai_model_load_seconds", "Time it took to load the model", registry=registry)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request; `route` is the template of its path, never the path."""
        method = method if method in METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._latency.labels(route, method).observe(seconds)

    def predicted(self, predictions: Sequence[Prediction], version: str) -> None:
        for prediction in predictions:
            self._predictions.labels(str(prediction.label), version).inc()

    def loaded(self, card: ModelCard, seconds: float) -> None:
        self._loaded.labels(card.name, card.version).set(1)
        self._load.set(seconds)

    def exposition(self) -> bytes:
        return generate_latest(self._registry)
