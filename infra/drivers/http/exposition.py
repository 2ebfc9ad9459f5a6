"""Metrics in Prometheus' text format 0.0.4, which every scraper reads; written by prometheus_client (decision 0030)."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Final, NamedTuple

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
PREFIX: Final = "touchfold_"
Labels = tuple[str, ...]
Values = float | Mapping[Labels, float] | None
"""One number, or one per tuple of label values; None: unknown."""


class Told(NamedTuple):
    """A metric's type (counter, gauge or histogram), HELP text and label names."""

    kind: str
    about: str
    labels: Labels = ()


gauge: Final = partial(Told, "gauge")
counter: Final = partial(Told, "counter")


def families(told: Mapping[str, Told], found: Mapping[str, Values]) -> Iterator[Metric]:
    """Counters and gauges, by their names in `told`. Unknown or empty ones are left out."""
    for name, values in found.items():
        if values is None or values == {}:
            continue
        kind, about, labels = told[name]
        made = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        metric = made(PREFIX + name, about, labels=labels)
        for given, value in (values if isinstance(values, Mapping) else {(): values}).items():
            metric.add_metric(given, value)
        yield metric


def histogram(name: str, told: Told, found: Mapping[Labels, tuple[dict[str, int], float]]) -> Metric:
    """`found`: how many values are at or below each bound (the last is +Inf), and their sum."""
    metric = HistogramMetricFamily(PREFIX + name, told.about, labels=told.labels)
    for given, (buckets, total) in found.items():
        metric.add_metric(given, list(buckets.items()), total)
    return metric


class _Collected:
    """The collector interface that `generate_latest` expects."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def text_of(metrics: Iterable[Metric]) -> bytes:
    return generate_latest(_Collected(metrics))
