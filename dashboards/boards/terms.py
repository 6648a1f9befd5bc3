"""Owns the expressions that several dashboards share, so that one thing is asked in one way everywhere."""

from .parts import RATE, SERVICE

# Signals of requests come from the applications' own metrics; their names are here and nowhere else.
REQUESTS, DURATION, IN_FLIGHT = "app_requests_total", "app_request_duration_seconds", "app_in_flight"


def by(*labels, of="sum"):
    return f"{of} by ({', '.join(labels)})" if labels else of


def request_rate(keys=("cluster", "service"), selector=SERVICE, window=RATE):
    return f"{by(*keys)} (rate({REQUESTS}{{{selector}}}{window}))"


def error_ratio(keys=("cluster", "service"), selector=SERVICE, window=RATE):
    """Share of answers with a 5xx. Nothing, and not a zero, where there were no answers: calm and silence are not the same."""
    failed = f'{by(*keys)} (rate({REQUESTS}{{{selector},code=~"5.."}}{window}))'
    answered = request_rate(keys, selector, window)
    return f"({failed} or 0 * {answered}) / ({answered} > 0)"


def latency(quantile, keys=("cluster", "service"), selector=SERVICE, window=RATE):
    return f"histogram_quantile({quantile}, {by(*keys, 'le')} (rate({DURATION}_bucket{{{selector}}}{window})))"


def cpu_used(keys=("cluster", "service"), selector=SERVICE):
    """Cores."""
    return f"{by(*keys)} (rate(container_cpu_usage_seconds_total{{{selector}}}{RATE}))"


def cpu_reserved(keys=("cluster", "service"), selector=SERVICE):
    """Cores. Each container carries its task's whole reservation, so that a task counts once."""
    inner = ", ".join(dict.fromkeys([*keys, "task"]))
    return f"{by(*keys)} (max by ({inner}) (container_spec_cpu_shares{{{selector}}})) / 1024"


def cpu_ratio(keys=("cluster", "service"), selector=SERVICE):
    return f"{cpu_used(keys, selector)} / ({cpu_reserved(keys, selector)} > 0)"


def memory_ratio(keys=("cluster", "service"), selector=SERVICE):
    """Of the container that is nearest to its limit: an average would hide the one that is about to be killed."""
    used = f"container_memory_working_set_bytes{{{selector}}}"
    return f"{by(*keys, of='max')} ({used} / (container_spec_memory_limit_bytes{{{selector}}} > 0))"


def alarm_states(keys, selector):
    """0 is OK, 1 is INSUFFICIENT_DATA, 2 is ALARM."""
    def of(state, weight):
        return f'{weight} * beaufort_alarm_state{{{selector},state="{state}"}}'

    return f"{by(*keys, of='max')} ({of('ALARM', 2)} or {of('INSUFFICIENT_DATA', 1)} or {of('OK', 0)})"
