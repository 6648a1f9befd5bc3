"""Owns the dashboard of service level objectives: how much of the error budget is left and how fast it burns."""

from . import terms
from .parts import (Board, Column, GREEN, ORANGE, RATE, RED, SERVICE, YELLOW, changes, choice, clusters, data_link, datasource, lines, query, services, stat,
                    steps, table)
from .service import NAME

# Burn rates are defined over fixed windows: a page for 14.4 over an hour (2 % of 30 days' budget), a ticket for less over longer.
WINDOWS = ("5m", "30m", "1h", "6h")
ALLOWED = "(1 - $objective / 100)"
TO_SERVICE = [data_link("Service", "beaufort-service", cluster="${__data.fields.cluster}", service="${__data.fields.service}")]
BUDGET = steps(RED, (0, ORANGE), (0.25, YELLOW), (0.5, GREEN))
BURN = steps(GREEN, (1, YELLOW), (6, ORANGE), (14.4, RED))


def burn(window, keys=("cluster", "service")):
    """How many times faster than allowed the budget goes: 1 uses all of it in exactly the objective's period."""
    return f"({terms.error_ratio(keys, window=f'[{window}]')}) / {ALLOWED}"


def fast(keys=("cluster", "service"), window=RATE):
    """Share of answers within the latency objective."""
    within = f'{terms.by(*keys)} (rate({terms.DURATION}_bucket{{{SERVICE},le="$latency"}}{window}))'
    return f"{within} / ({terms.by(*keys)} (rate({terms.DURATION}_count{{{SERVICE}}}{window})) > 0)"


def board():
    variables = [datasource(), clusters(), services(),
                 choice("objective", "Objective, %", ("99", "99.5", "99.9", "99.95", "99.99"), "99.9", "Share of requests to be answered without a 5xx."),
                 choice("latency", "Within, s", ("0.1", "0.25", "0.5", "2.5"), "0.25", "A bucket's bound of the latency histogram.")]
    made = Board("beaufort-slo", "SLO and burn rate", "Are users served as promised, how much error budget is left, and how fast does it go? "
                 "The period is the time range shown.", variables, changes(), since="now-6h", refresh="30s")
    whole = "[$__range]"
    made.row(
        "In the time shown",
        stat("Availability", "Share of requests answered without a 5xx.", "percentunit", query(f"1 - {terms.error_ratio((), window=whole)}", "availability"),
             steps(RED, (0.99, ORANGE), (0.999, GREEN)), width=5, spark=False, decimals=3, no_value="no requests"),
        stat("Error budget left", "1 is all of it, 0 is none, below 0 is more spent than promised.", "percentunit",
             query(f"1 - ({terms.error_ratio((), window=whole)}) / {ALLOWED}", "left"), BUDGET, width=5, spark=False, decimals=1, no_value="no requests"),
        stat("Fast answers", "Share of requests answered within the chosen time.", "percentunit", query(fast((), whole), "fast"),
             steps(RED, (0.95, ORANGE), (0.99, GREEN)), width=5, spark=False, decimals=3, no_value="no requests"),
        stat("Burn rate, 1 h", "How many times faster than allowed. 14.4 over an hour uses 2 % of a 30 day budget.", "short", query(burn("1h", ()), "burn"),
             BURN, width=5, decimals=2, no_value="no requests"),
        stat("Requests", "Answered.", "short", query(f"sum(increase({terms.REQUESTS}{{{SERVICE}}}{whole}))", "requests"), width=4, spark=False, decimals=0),
    )
    made.row(
        "Error budget",
        lines("Burn rate", "Over four windows. A page is due when 5m and 1h are both above 14.4, or 30m and 6h above 6; short alone is a blip, long alone is "
              "over.", "short", [query(burn(window), f"{NAME} {window}") for window in WINDOWS], width=16, height=9, thresholds=BURN, low=0),
        lines("Errors", "Share of answers with a 5xx, and the share that the objective allows.", "percentunit", [
            query(terms.error_ratio(), NAME), query(ALLOWED, "allowed")], width=8, height=9, low=0),
        lines("Answers within the chosen time", "The latency objective, as it goes.", "percentunit", query(fast(), NAME), width=16, high=1),
        lines("Latency, p99", "The tail behind it.", "s", query(terms.latency(0.99), NAME), width=8, low=0),
        table("Services, worst first", "In the time shown.", ("cluster", "service"), [
            Column("Requests", f"sum by (cluster, service) (increase({terms.REQUESTS}{{{SERVICE}}}{whole}))", decimals=0),
            Column("Availability", f"1 - {terms.error_ratio(window=whole)}", "percentunit", decimals=3),
            Column("Budget left", f"1 - ({terms.error_ratio(window=whole)}) / {ALLOWED}", "percentunit", BUDGET, 1),
            Column("Burn 5m", burn("5m"), thresholds=BURN, decimals=2), Column("Burn 1h", burn("1h"), thresholds=BURN, decimals=2),
            Column("Burn 6h", burn("6h"), thresholds=BURN, decimals=2),
            Column("Fast answers", fast(window=whole), "percentunit", decimals=3)], links=TO_SERVICE, sort="Budget left", descending=False),
    )
    return made
