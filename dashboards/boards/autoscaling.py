"""Owns the autoscaling dashboard: metric against target, what was decided and why not, alarms and alerts, and how long each hop took."""

from . import terms
from .parts import (Board, Column, GREEN, GREY, ORANGE, RATE, RED, SERVICE, YELLOW, bargauge, changes, clusters, datasource, dashed, heatmap, lines,
                    query, services, stat, steps, table, variable)
from .service import NAME, alarms, capacity

REACTION = "beaufort_scaling_reaction_seconds"
POLICY = SERVICE + ',policy=~"$policy"'
# From the breach on: seconds are well, a minute is what cloud providers need.
SECONDS = steps(GREEN, (10, YELLOW), (60, RED))


def reaction(quantile, window, keys=("stage",)):
    return f"histogram_quantile({quantile}, {terms.by(*keys, 'le')} (rate({REACTION}_bucket{{{SERVICE}}}{window})))"


def total(quantile):
    return (f'histogram_quantile({quantile}, sum by (le) (rate({REACTION}_bucket{{{SERVICE},stage="total"}}[$__range])))')


def decided(direction):
    found = f'beaufort_scaling_decisions_total{{{POLICY},direction="{direction}",outcome="applied"}}'
    return f"sum(increase({found}[$__range]))"


def heartbeat_age():
    """Of the newest Beaufort that ever had one: 0 is never, and has no age."""
    return "time() - (max(beaufort_webhook_heartbeat_timestamp_seconds) > 0)"


def board():
    variables = [datasource(), clusters(), services(),
                 variable("policy", "Policy", f"label_values(beaufort_scaling_decisions_total{{{SERVICE}}}, policy)")]
    made = Board("beaufort-autoscaling", "Autoscaling", "Why did this service scale, why did it not, and how fast was it?", variables, changes(),
                 since="now-30m", refresh="5s")
    made.row(
        "Now",
        stat("Scaled out", "Decisions that raised a desired count, in the time shown.", "short", query(decided("out"), "times"), spark=False, width=3,
             decimals=0),
        stat("Scaled in", "Decisions that lowered a desired count, in the time shown.", "short", query(decided("in"), "times"), spark=False, width=3,
             decimals=0),
        stat("Services at their maximum", "Scaling has no room left: demand beyond this is not served. Raise the maximum or look for the cause.", "short",
             query(f"sum(beaufort_service_desired_tasks{{{SERVICE}}} >= bool beaufort_service_max_tasks{{{SERVICE}}})", "services"),
             steps(GREEN, (1, ORANGE)), 3),
        stat("Headroom", "Tasks that scaling may still add.", "short",
             query(f"sum(beaufort_service_max_tasks{{{SERVICE}}} - beaufort_service_desired_tasks{{{SERVICE}}})", "tasks"), width=3),
        stat("Reaction, median", "From the breach to the last new task being healthy, half of the scale-outs in the time shown.", "s",
             query(total(0.5), "p50"), SECONDS, 4, spark=False, no_value="none yet"),
        stat("Reaction, worst tenth", "From the breach to the last new task being healthy, 90 % of the scale-outs in the time shown.", "s",
             query(total(0.9), "p90"), SECONDS, 4, spark=False, no_value="none yet"),
        stat("Heartbeat of the rules", "Time since Alertmanager last delivered BeaufortWatchdog. Growing: alerts do not arrive, and rules of Prometheus "
             "scale nothing. No value: no such rule was ever seen.", "s", query(heartbeat_age(), "age"), steps(GREEN, (90, ORANGE), (300, RED)), 4,
             no_value="never"),
    )
    made.row(
        "The chain: load, metric, capacity",
        lines("Requests", "What the application answered a second: the load that scaling follows.", "reqps", query(terms.request_rate(), NAME),
              width=8, low=0),
        lines("Metric, of target", "Each target-tracking policy's newest metric divided by its target. Above 1 it scales out, well below it in.",
              "percentunit", query(f"max by (cluster, service, policy) (beaufort_scaling_policy_metric{{{POLICY}}} / "
                                   f"(beaufort_scaling_policy_target{{{POLICY}}} > 0))", NAME + " {{policy}}"), width=8,
              thresholds=steps("transparent", (1, ORANGE)), low=0),
        capacity(8),
        lines("Latency, p95", "What users feel meanwhile.", "s", query(terms.latency(0.95), NAME), width=8, low=0),
        lines("Metric and target", "The same in the metric's own unit, one line for each.", "short", [
            query(f"max by (cluster, service, policy, metric) (beaufort_scaling_policy_metric{{{POLICY}}})", NAME + " {{policy}} {{metric}}"),
            query(f"max by (cluster, service, policy, metric) (beaufort_scaling_policy_target{{{POLICY}}})", NAME + " {{policy}} target")], width=8,
            overrides=[dashed("target$", GREY)], low=0),
        lines("Cooldown left", "While this runs, a policy does not go the same way again, but to add more than it just did.", "s",
              query(f"max by (cluster, service, direction) (beaufort_scaling_cooldown_remaining_seconds{{{SERVICE}}})", NAME + " {{direction}}"),
              width=8, low=0),
    )
    made.row(
        "What was decided",
        lines("Decisions", "Every answer of a policy to an alarm or alert, by outcome. Many cooldowns beside few applied: the cooldown holds it back. "
              "at_max: see the maximum.", "short",
              query(f"sum by (policy, direction, outcome) (increase(beaufort_scaling_decisions_total{{{POLICY}}}{RATE})) > 0",
                    "{{policy}} {{direction}} {{outcome}}"), bars=True, stack=True, calcs=("sum",)),
        lines("Flapping", "How often the desired count changed in a quarter of an hour. Many, out and in by turns: target, cooldown or window are too "
              "tight.", "short", query(f"max by (cluster, service) (changes(beaufort_service_desired_tasks{{{SERVICE}}}[15m]))", NAME), low=0,
              thresholds=steps("transparent", (8, ORANGE))),
        table("Decisions in the time shown", "The answers of each policy, counted.", ("cluster", "service", "policy", "direction", "outcome"), [
            Column("Times", f"sum by (cluster, service, policy, direction, outcome) (increase(beaufort_scaling_decisions_total{{{POLICY}}}[$__range])) > 0",
                   decimals=0)], sort="Times", height=8),
    )
    made.row(
        "Alarms and alerts",
        alarms("Alarms", "Open alarms run their policy. Source prometheus: opened by an alert.", ("cluster", "service", "alarm", "source"),
               "{{source}} {{alarm}}"),
        lines("Alarms that changed, by new state", "Of the whole Beaufort. A steady stream to INSUFFICIENT_DATA: a metric that comes and goes.", "short",
              query(f"sum by (state) (increase(beaufort_alarm_transitions_total{RATE}))", "{{state}}"), width=6, bars=True, stack=True, calcs=("sum",)),
        lines("Alerts from Alertmanager", "What became of each alert of a post. unknown: no such service or policy; expired: no heartbeat for three "
              "repeats.", "short", query(f"sum by (outcome) (increase(beaufort_webhook_alerts_total{RATE}))", "{{outcome}}"), width=6, bars=True,
              stack=True, calcs=("sum",)),
        lines("Posts of Alertmanager, by answer", "200 is taken. 401: the token differs; 400: not a version 4 body; 503: try later.", "short",
              query(f"sum by (code) (increase(beaufort_webhook_posts_total{RATE}))", "{{code}}"), bars=True, stack=True, calcs=("sum",)),
        lines("Time since the last heartbeat and post", "Of the rule BeaufortWatchdog, and of any post at all. No line: never yet.", "s", [
            query(heartbeat_age(), "heartbeat"), query("time() - (max(beaufort_webhook_last_post_timestamp_seconds) > 0)", "post")], low=0),
    )
    made.row(
        "Reaction: from the breach to capacity",
        bargauge("Each hop, 90 %", "alert: breach to alarm; decision: to a desired count; placed: to tasks with an instance; running; healthy. Each is the "
                 "hop alone. The longest is where to work: alert is the rule's window and Alertmanager's grouping, running is pulls and starts.", "s",
                 query(reaction(0.9, "[$__range]"), "{{stage}}", instant=True), thresholds=SECONDS, no_value="no scale-out in the time shown"),
        lines("Each hop, over time", "A mark for each scale-out: mean time of the hop.", "s",
              query(f"sum by (stage) (rate({REACTION}_sum{{{SERVICE}}}{RATE})) / (sum by (stage) (rate({REACTION}_count{{{SERVICE}}}{RATE})) > 0)",
                    "{{stage}}"), points=True, low=0, calcs=("mean", "max")),
        heatmap("Whole reactions", "How many scale-outs took how long, from the breach until the last of their tasks was healthy.", "s",
                query(f'sum by (le) (increase({REACTION}_bucket{{{SERVICE},stage="total"}}{RATE}))', "{{le}}", heatmap=True)),
        table("By service", "Scale-outs in the time shown, and how long they took.", ("cluster", "service"), [
            Column("Scale-outs", f'sum by (cluster, service) (increase({REACTION}_count{{{SERVICE},stage="total"}}[$__range]))', decimals=0),
            Column("Median", f'histogram_quantile(0.5, sum by (cluster, service, le) (rate({REACTION}_bucket{{{SERVICE},stage="total"}}[$__range])))', "s",
                   SECONDS),
            Column("Worst tenth", f'histogram_quantile(0.9, sum by (cluster, service, le) (rate({REACTION}_bucket{{{SERVICE},stage="total"}}'
                                  "[$__range])))", "s", SECONDS)], width=12, height=8, sort="Scale-outs"),
    )
    made.row(
        "Load generator (only while `beaufort load --metrics-listen` is scraped)",
        lines("Offered, answered, failed, dropped", "An open loop: requests leave when they are due, whatever became of the others. Dropped: too many "
              "were under way.", "reqps", [
                  query(f"sum(beaufort_load_wanted_rate{{{SERVICE}}})", "wanted"),
                  *[query(f"sum(rate(beaufort_load_{what}_total{{{SERVICE}}}{RATE}))", what) for what in ("offered", "completed", "failed", "dropped")]],
              width=8, low=0, overrides=[dashed("wanted$", GREY)]),
        lines("Latency from when requests were due", "Waiting included: a slow service cannot hide behind the requests that it held up.", "s",
              [query(f"histogram_quantile({q}, sum by (le) (rate(beaufort_load_request_duration_seconds_bucket{{{SERVICE}}}{RATE})))", f"p{n}")
               for q, n in ((0.5, 50), (0.95, 95), (0.99, 99))], width=8, low=0),
        lines("Under way", "Requests without an answer yet.", "short", query(f"sum(beaufort_load_in_flight{{{SERVICE}}})", "requests"), width=8, low=0),
        collapsed=True,
    )
    return made
