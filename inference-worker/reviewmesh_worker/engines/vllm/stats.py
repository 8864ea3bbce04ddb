"""vLLM's own statistics: its load with every answer, its metrics beside the worker's.

In one process vLLM registers the metrics of a second engine under the same names and unregisters
the first's. Here each engine has a registry of its own, whose samples get the worker's labels when
they are collected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from reviewmesh_worker.engines.interface import EngineLoad


class EngineStats:
    """The last load that the engine reported."""

    def __init__(self) -> None:
        self.load = EngineLoad(running=0, waiting=0, kv_usage=0.0)


def stat_logger(registry: CollectorRegistry, stats: EngineStats) -> type[Any]:
    """A logger class for vLLM: its Prometheus metrics in `registry`, its load in `stats`."""
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    class WorkerStatLogger(PrometheusStatLogger):
        _gauge_cls = staticmethod(_in_registry(Gauge, registry))
        _counter_cls = staticmethod(_in_registry(Counter, registry))
        _histogram_cls = staticmethod(_in_registry(Histogram, registry))

        def record(self, scheduler_stats: Any, *args: Any, **kwargs: Any) -> None:
            super().record(scheduler_stats, *args, **kwargs)
            if scheduler_stats is not None:
                waiting = scheduler_stats.num_waiting_reqs
                stats.load = EngineLoad(
                    running=scheduler_stats.num_running_reqs,
                    waiting=waiting + scheduler_stats.num_skipped_waiting_reqs,
                    kv_usage=scheduler_stats.kv_cache_usage,
                )

    return WorkerStatLogger


def _in_registry(kind: Any, registry: CollectorRegistry) -> Any:
    def make(**described: Any) -> Any:
        # Gauges name a mode for several processes; there is one.
        return kind(**described, registry=registry)

    return make


class EngineMetrics(Collector):
    """The metrics of every engine of this process, each sample with the labels of its engine."""

    def __init__(self) -> None:
        self._engines: dict[CollectorRegistry, dict[str, str]] = {}

    def add(self, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        self._engines[registry] = dict(labels)

    def remove(self, registry: CollectorRegistry) -> None:
        self._engines.pop(registry, None)

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for registry, labels in list(self._engines.items()):
            for metric in registry.collect():
                family = families.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type)
                )
                family.samples += [
                    sample._replace(labels=sample.labels | labels) for sample in metric.samples
                ]
        return families.values()


ENGINE_METRICS: Final = EngineMetrics()
REGISTRY.register(ENGINE_METRICS)
