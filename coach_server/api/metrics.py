"""Prometheus figures, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from coach_server.services.costs import CostGovernor
from coach_server.services.figures import LATENCY_BUCKETS_MS, Figures


@dataclass(frozen=True, eq=False)
class Sources(Collector):
    """Where the figures come from."""

    figures: Figures
    governor: CostGovernor
    active_calls: Callable[[], int]
    active_simulations: Callable[[], int]
    sockets: Callable[[], Mapping[str, int]]
    breaker_state: Callable[[], str]
    journal: Callable[[], Mapping[str, int]]

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("coach_active_conversations", "Live conversations here.", self.active_calls())
        simulations = self.active_simulations()
        yield GaugeMetricFamily("coach_active_simulations", "Simulations that run here.", simulations)
        yield from self._calls()
        yield from self._tips()
        yield from self._money()
        yield from self._machinery()

    def _calls(self) -> Iterator[Metric]:
        yield CounterMetricFamily("coach_conversations_started", "Started here.", self.figures.started)
        ended = CounterMetricFamily("coach_conversations_ended", "Ended here.", labels=["status"])
        for status, count in self.figures.ended.items():
            ended.add_metric([status], count)
        yield ended
        yield CounterMetricFamily("coach_utterances", "Final segments heard.", self.figures.utterances)

    def _tips(self) -> Iterator[Metric]:
        tips = CounterMetricFamily("coach_tips", "Tips shown.", labels=["source", "trigger", "degraded"])
        for (source, trigger, degraded), count in self.figures.tips.items():
            tips.add_metric([source, trigger, str(degraded).lower()], count)
        yield tips
        latency = HistogramMetricFamily(
            "coach_tip_latency_seconds", "From the ask to the tip.", labels=["source"]
        )
        for source, seen in self.figures.tip_latency.items():
            running, buckets = 0, []
            for bound, count in zip((*LATENCY_BUCKETS_MS, None), seen.buckets, strict=True):
                running += count
                buckets.append(("+Inf" if bound is None else str(bound / 1000), running))
            latency.add_metric([source], buckets, seen.total_ms / 1000)
        yield latency

    def _money(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily("coach_model_tokens", "Tokens of the model.", labels=["model", "kind"])
        cost = CounterMetricFamily("coach_model_cost_usd", "Cost of the model.", labels=["model"])
        calls = CounterMetricFamily("coach_model_calls", "Answers of the model.", labels=["model"])
        for model, spent in self.governor.totals().items():
            tokens.add_metric([model, "input"], spent.input_tokens)
            tokens.add_metric([model, "cached"], spent.cached_tokens)
            tokens.add_metric([model, "output"], spent.output_tokens)
            cost.add_metric([model], spent.micro_usd / 1e6)
            calls.add_metric([model], spent.calls)
        yield from (tokens, cost, calls)
        yield GaugeMetricFamily(
            "coach_model_cost_today_usd", "Cost of today (UTC).", self.governor.today.micro_usd / 1e6
        )

    def _machinery(self) -> Iterator[Metric]:
        state = GaugeMetricFamily("coach_model_breaker", "1 for the state it is in.", labels=["state"])
        state.add_metric([self.breaker_state()], 1)
        yield state
        yield from _labelled("coach_sockets", "Sockets and refusals.", self.sockets())
        yield from _labelled("coach_journal", "Rows and commits.", self.journal())


def _labelled(name: str, text: str, values: Mapping[str, int]) -> Iterator[Metric]:
    family = GaugeMetricFamily(name, text, labels=["what"])
    for what, value in values.items():
        family.add_metric([what], value)
    yield family


def registry(sources: Sources) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(sources)
    return made
