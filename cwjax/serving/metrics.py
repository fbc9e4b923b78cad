"""What the server counts, in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
QUEUE_SECONDS = (0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
BATCHES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Counters of one server."""

    def __init__(self):
        registry = self._registry = CollectorRegistry()
        self.active = Gauge("cwjax_requests_active", "Requests at work or waiting", registry=registry)
        self.sessions = Gauge("cwjax_sessions_active", "Realtime sessions", registry=registry)
        self.cancelled = Counter("cwjax_requests_cancelled", "Requests whose client went away", registry=registry)
        self.requests = Counter("cwjax_requests", "Requests by how they ended", ["outcome"], registry=registry)
        self.audio_seconds = Counter("cwjax_audio_seconds", "Seconds of audio transcribed", registry=registry)
        self.queue_seconds = Histogram(
            "cwjax_queue_seconds", "Seconds from a whole upload to its turn", buckets=QUEUE_SECONDS, registry=registry
        )
        self.batch_windows = Histogram(
            "cwjax_batch_windows", "Windows decoded together", buckets=BATCHES, registry=registry
        )

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)
