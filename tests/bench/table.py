"""The table of a run, in Markdown: bench.json in, text out. Used by the run itself and by docs/performance.md."""

HEAD = "| What | Goal | Measured | Least to most | Reference in the same run | Verdict | Grows | How |\n|---|---|---|---|---|---|---|---|"


def number(value):
    if value == 0:
        return "0"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.3f}"


def goal_of(row):
    return "" if row["goal"] is None else f"{'≤' if row['at_most'] else '≥'} {row['goal']:,.10g} {row['unit']}"


def reference_of(row):
    reference = row["reference"]
    if not reference:
        return ""
    value = "" if reference["value"] is None else f": {number(reference['value'])} {reference['unit']}"
    return reference["what"] + value


def spread_of(row):
    values = row["values"]
    return f"{number(min(values))} to {number(max(values))} ({len(values)} runs)" if len(values) > 1 else ""


def line(row):
    cells = [row["what"], goal_of(row), f"{number(row['median'])} {row['unit']}", spread_of(row), reference_of(row), row["verdict"], row["grows"], row["note"]]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def missed(row):
    """By how much."""
    if row["at_most"]:
        by = f"{row['median'] / row['goal']:.2f} times the goal" if row["goal"] else "the goal is none"
    else:
        by = f"{100 * row['median'] / row['goal']:.0f} % of the goal"
    return f"- missed: {row['what']}: {number(row['median'])} {row['unit']} for {goal_of(row)}, {by}"


def table(told):
    """A table for each group, in the order in which the groups come, then what was missed and what could not be measured."""
    about = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in told["machine"].items())
    text = [f"Measured on: {about}."]
    for group in dict.fromkeys(row["group"] for row in told["figures"]):
        rows = [row for row in told["figures"] if row["group"] == group]
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(row["figure"] for row in rows))
        text += ["", f"### {group}", "", f"Figures: {names}.", "", HEAD, *map(line, rows)]
    judged = [row for row in told["figures"] if row["verdict"]]
    late = [row for row in judged if row["verdict"] == "missed"]
    text += ["", f"{len(judged) - len(late)} of {len(judged)} goals are met.", *map(missed, late)]
    text += [f"- not measured: {fault}" for fault in told["not_measured"]]
    return "\n".join(text) + "\n"
