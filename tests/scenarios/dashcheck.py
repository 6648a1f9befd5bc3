"""Owns the rules that a dashboard of ours must keep, beyond what Grafana's types say: places, names, data sources, queries, links.

The rules of Grafana's dashboard-linter are among them, but for its two on `job` and `instance`: ours choose by cluster and service.
`check` needs no server; expressions are parsed by promtool, as rules. What they find is test_dashboards.py's live part.
"""

import json
import re
import subprocess
import tempfile
import urllib.parse

import dashmodel

REQUIRED = ("uid", "title", "description", "tags", "schemaVersion", "version", "editable", "graphTooltip", "time", "timepicker", "refresh", "timezone",
            "templating", "annotations", "links", "panels")
# Panels that show no number of their own.
WITHOUT_UNIT = {"row", "text", "logs", "state-timeline"}
WITH_LEGEND = {"timeseries", "bargauge", "heatmap", "state-timeline"}
SOURCES = {"prometheus": "datasource", "loki": "loki_datasource", "jaeger": "traces_datasource", "cloudwatch": "cloudwatch_datasource"}
# What Grafana itself puts in place of these.
BUILT_IN = {"__rate_interval": "1m", "__interval": "15s", "__range": "1h", "__range_s": "3600", "__url_time_range": "from=now-1h&to=now", "__from": "0",
            "__to": "1"}
# Burn rates are defined over fixed windows, whatever the screen shows.
FIXED_WINDOWS = {"beaufort-slo": {"5m", "30m", "1h", "6h"}}
WINDOWS = {"$__rate_interval", "$__range"}
COUNTER = re.compile(r"\b([a-z_]+_(?:total|bucket|sum|count))\b")
OVER_TIME = re.compile(r"\b(?:rate|irate|increase)\s*\(([^()\[\]]*)\[([^\]]+)\]")
# Families whose every series has a cluster: a query that does not choose one mixes all of them.
OF_A_CLUSTER = re.compile(r"\b(container_\w+|app_\w+|beaufort_(?:service|deployment|instance|load|container|task_stops|scaling)_\w+"
                          r"|beaufort_deployments_total|beaufort_log_(?:events|bytes)_total)\b(\{[^}]*\})?")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")


def flat(board):
    """Every panel, those of collapsed rows included."""
    for panel in board.get("panels", []):
        yield panel
        yield from panel.get("panels", []) if panel.get("type") == "row" else []


def variables(board):
    return board.get("templating", {}).get("list", [])


def used(text):
    return {a or b for a, b in VARIABLE.findall(text)}


def expand(text, values):
    """The text as Grafana would send it."""
    return VARIABLE.sub(lambda m: {**BUILT_IN, **values}.get(m[1] or m[2], m[0]), text)


def label_values(query):
    """(expression or None, label) of a `label_values` query."""
    found = re.fullmatch(r"label_values\((?:(.+), )?(\w+)\)", query)
    return (found[1], found[2]) if found else None


def data_links(panel):
    config = panel.get("fieldConfig", {})
    yield from config.get("defaults", {}).get("links") or []
    for override in config.get("overrides", []):
        for one in override.get("properties", []):
            if one.get("id") == "links":
                yield from one.get("value", [])


def expressions(board):
    """(where, expression) of everything in PromQL."""
    for panel in flat(board):
        for target in panel.get("targets", []):
            if (target.get("datasource") or {}).get("type") == "prometheus":
                yield f"panel {panel.get('title')!r} {target.get('refId')}", target.get("expr", "")
    for one in board.get("annotations", {}).get("list", []):
        if not one.get("builtIn"):
            yield f"annotation {one.get('name')!r}", one.get("expr", "")
    for one in variables(board):
        if one.get("type") == "query" and (one.get("datasource") or {}).get("type") == "prometheus":
            found = label_values((one.get("query") or {}).get("query", ""))
            if found and found[0]:
                yield f"variable {one.get('name')!r}", found[0]


def chosen(board):
    """A value for each variable that is right in any expression."""
    return {v["name"]: v.get("allValue") or ({"custom": v["query"].split(",")[-1].strip()}.get(v["type"]) if isinstance(v.get("query"), str) else None) or "x"
            for v in variables(board) if "name" in v}


class Check:
    """Findings, each (file, rule, what)."""

    def __init__(self, boards):
        self.boards, self.found = boards, []
        self.by_uid = {board.get("uid"): board for board in boards.values()}

    def run(self, promtool=None, only=None):
        for name, board in self.boards.items():
            if only not in (None, name):
                continue
            self.file, self.board = name, board
            for rule in (self.top, self.identity, self.grid, self.panels, self.sources, self.queries, self.tables, self.variables, self.annotations,
                         self.links, self.model):
                rule()
        if promtool:
            self.syntax(promtool)
        return self.found

    def note(self, rule, what):
        self.found.append((self.file, rule, what))

    def top(self):
        board = self.board
        for key in REQUIRED:
            if key not in board:
                self.note("top-level", f"lacks {key}")
        for key in ("id", "__inputs", "__requires"):
            if key in board:
                self.note("top-level", f"has {key}: provisioning knows nothing of it")
        for key, value in (("schemaVersion", 42), ("editable", False), ("graphTooltip", 1), ("timezone", "browser"), ("timepicker", {})):
            if board.get(key) != value:
                self.note("top-level", f"{key} is {board.get(key)!r} instead of {value!r}")
        if not board.get("description"):
            self.note("top-level", "lacks words about what it answers")

    def identity(self):
        uid = self.board.get("uid", "")
        if not re.fullmatch(r"[a-z][a-z0-9-]{7,39}", uid) or f"{uid.removeprefix('beaufort-')}.json" != self.file:
            self.note("uid", f"{uid!r} is not beaufort- and the file's name, of 8 to 40 characters")
        if [b.get("uid") for b in self.boards.values()].count(uid) > 1:
            self.note("uid", f"{uid!r} is another dashboard's, too")

    def grid(self):
        numbers, cells = set(), {}
        for panel in flat(self.board):
            name, place = panel.get("title"), panel.get("gridPos", {})
            if panel.get("id") in numbers:
                self.note("panel-id", f"{name!r} has the number {panel.get('id')} of another")
            numbers.add(panel.get("id"))
            if not {"x", "y", "w", "h"} <= place.keys() or place["x"] < 0 or place["w"] < 1 or place["h"] < 1 or place["x"] + place["w"] > 24:
                self.note("grid", f"{name!r} is at {place}")
                continue
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    if (x, y) in cells:
                        return self.note("grid", f"{name!r} lies over {cells[x, y]!r}")
                    cells[x, y] = name

    def panels(self):
        titles = set()  # Of the row.
        for panel in flat(self.board):
            kind, name, defaults = panel.get("type"), panel.get("title"), panel.get("fieldConfig", {}).get("defaults", {})
            if kind == "row":
                titles = set()
                if not name or (panel.get("panels") and not panel.get("collapsed")):
                    self.note("row", f"{name!r} has no title, or holds panels and is open")
                continue
            if not name or (kind != "text" and not panel.get("description")):
                self.note("title-description", f"panel {panel.get('id')} {name!r}")
            if name in titles:
                self.note("title-description", f"{name!r} is there twice in its row")
            titles.add(name)
            if kind not in WITHOUT_UNIT and defaults.get("unit") not in dashmodel.UNITS:
                self.note("unit", f"{name!r}: {defaults.get('unit')!r}")
            for override in panel.get("fieldConfig", {}).get("overrides", []):
                for one in override.get("properties", []):
                    if one.get("id") == "unit" and one.get("value") not in dashmodel.UNITS:
                        self.note("unit", f"{name!r}: {one.get('value')!r}")
            steps = [step.get("value") for step in defaults.get("thresholds", {}).get("steps", [])]
            if steps and (steps[0] is not None or None in steps[1:] or steps[1:] != sorted(set(steps[1:]))):
                self.note("thresholds", f"{name!r}: {steps} do not rise from null")

    def sources(self):
        """Nothing is bound to one installation's data source."""
        declared = {v.get("name"): v.get("query") for v in variables(self.board) if v.get("type") == "datasource"}
        for kind, name in declared.items():
            if SOURCES.get(name) != kind:
                self.note("template-datasource", f"variable {kind!r} of type {name!r} is not named {SOURCES.get(name)!r}")
        places = [(f"panel {p.get('title')!r}", p.get("datasource")) for p in flat(self.board) if p.get("type") not in ("row", "text")]
        places += [(f"panel {p.get('title')!r}", t.get("datasource")) for p in flat(self.board) for t in p.get("targets", [])]
        places += [(f"annotation {a.get('name')!r}", a.get("datasource")) for a in self.board.get("annotations", {}).get("list", []) if not a.get("builtIn")]
        places += [(f"variable {v.get('name')!r}", v.get("datasource")) for v in variables(self.board) if v.get("type") == "query"]
        for where, source in places:
            kind, uid = (source or {}).get("type"), (source or {}).get("uid", "")
            name = re.fullmatch(r"\$\{(\w+)\}", uid)
            if not name or declared.get(name[1]) != kind:
                self.note("panel-datasource", f"{where}: {source}")

    def queries(self):
        for panel in flat(self.board):
            kind, targets = panel.get("type"), panel.get("targets", [])
            if kind in ("row", "text"):
                continue
            if not targets:
                self.note("no-targets", f"{panel.get('title')!r}")
            if [t.get("refId") for t in targets] != [chr(ord("A") + n) for n in range(len(targets))]:
                self.note("ref-ids", f"{panel.get('title')!r}: {[t.get('refId') for t in targets]}")
            for target in targets:
                where, source = f"panel {panel.get('title')!r} {target.get('refId')}", (target.get("datasource") or {}).get("type")
                if source == "prometheus":
                    if kind in WITH_LEGEND and not target.get("legendFormat"):
                        self.note("legend", where)
                    if target.get("instant") == target.get("range") or (kind in ("timeseries", "heatmap", "state-timeline") and target.get("instant")):
                        self.note("instant-range", where)
                    if "[$__range]" in target.get("expr", "") and not target.get("instant"):
                        self.note("instant-range", f"{where} looks back over the whole range at each step")
                    if (kind == "table") != (target.get("format") == "table") or (kind == "heatmap") != (target.get("format") == "heatmap"):
                        self.note("format", f"{where}: {target.get('format')!r} in a {kind}")
                elif source == "cloudwatch":
                    self.cloudwatch(where, target)
                elif source == "loki" and not re.match(r'\{\w+=~?"[^"]+"', target.get("expr", "")):
                    self.note("logql", f"{where}: {target.get('expr')!r}")
        for where, expr in expressions(self.board):
            self.promql(where, expr)

    def promql(self, where, expr):
        for window in (window for _, window in OVER_TIME.findall(expr)):
            if window not in WINDOWS | FIXED_WINDOWS.get(self.board.get("uid"), set()):
                self.note("rate-interval", f"{where}: [{window}]")
        if where.startswith("variable "):
            return  # Asks for labels, not for values.
        inside = {name for found, _ in OVER_TIME.findall(expr) for name in COUNTER.findall(found)}
        for name in set(COUNTER.findall(expr)) - inside:
            self.note("counter-agg", f"{where}: {name} without rate or increase")
        metrics = GROUPING.sub("", expr)
        for name, selector in OF_A_CLUSTER.findall(metrics):
            if 'cluster=~"$cluster' not in selector and any(v.get("name") == "cluster" for v in variables(self.board)):
                self.note("label-promql", f"{where}: {name} of which cluster?")
        if "beaufort_lb_" in expr:
            self.note("balancer", f"{where}: there is no load balancer yet")

    def cloudwatch(self, where, target):
        """Only what becomes a MetricStat: Beaufort serves neither SEARCH nor metric math nor Logs Insights."""
        plain = {"queryMode": "Metrics", "metricQueryType": 0, "metricEditorMode": 0, "matchExact": True, "expression": "", "sqlExpression": ""}
        for key, value in plain.items():
            if target.get(key) != value:
                self.note("cloudwatch", f"{where}: {key} is {target.get(key)!r}")
        single = {v.get("name") for v in variables(self.board) if not v.get("multi") and not v.get("includeAll")}
        for key, value in (target.get("dimensions") or {}).items():
            if not isinstance(value, str) or "*" in value or not used(value) <= single:
                self.note("cloudwatch", f"{where}: {key} is not one value")
        if target.get("namespace") not in ("AWS/ECS", "ECS/ContainerInsights") or not target.get("metricName") or not target.get("label"):
            self.note("cloudwatch", f"{where}: which metric?")
        if not re.fullmatch(r"Average|Sum|Minimum|Maximum|SampleCount|p\d{1,2}(\.\d+)?", target.get("statistic", "")):
            self.note("cloudwatch", f"{where}: statistic {target.get('statistic')!r}")

    def tables(self):
        """What transformations and overrides call columns must be columns."""
        for panel in flat(self.board):
            if panel.get("type") != "table" or not any((t.get("datasource") or {}).get("type") == "prometheus" for t in panel.get("targets", [])):
                continue
            steps = {t.get("id"): t.get("options", {}) for t in panel.get("transformations", [])}
            targets = panel["targets"]
            values = {"Value"} if len(targets) == 1 else {f"Value #{t.get('refId')}" for t in targets}
            organize = steps.get("organize", {})
            renamed = organize.get("renameByName", {})
            for name in renamed.keys() - values:
                self.note("table", f"{panel.get('title')!r} renames {name!r}, which no query gives")
            if len(targets) > 1 and "merge" not in steps:
                self.note("table", f"{panel.get('title')!r} has several queries and does not merge them")
            columns = set(organize.get("indexByName", {})) - set(renamed) | set(renamed.values())
            named = {o["matcher"].get("options") for o in panel.get("fieldConfig", {}).get("overrides", [])}
            named |= {s.get("displayName") for s in panel.get("options", {}).get("sortBy", [])}
            for name in named - columns:
                self.note("table", f"{panel.get('title')!r} speaks of a column {name!r} that is not there")
            linked = {m for link in data_links(panel) for m in re.findall(r"__data\.fields\.(\w+)", link.get("url", ""))}
            for name in linked - columns:
                self.note("table", f"{panel.get('title')!r} links by a column {name!r} that is not there")

    def variables(self):
        known = []
        for one in variables(self.board):
            name, kind = one.get("name"), one.get("type")
            if name in known:
                self.note("variable", f"{name!r} is there twice")
            if kind == "query":
                if one.get("refresh") != 2:
                    self.note("template-on-time-change-reload", f"{name!r}")
                text = json.dumps(one.get("query"))
                if not used(text) <= set(known):
                    self.note("variable", f"{name!r} needs {sorted(used(text) - set(known))}, not there before it")
                if (one.get("datasource") or {}).get("type") == "prometheus" and not label_values((one.get("query") or {}).get("query", "")):
                    self.note("variable", f"{name!r}: {one.get('query')!r} is no label_values(metric, label)")
            if bool(one.get("includeAll")) != bool(one.get("allValue")):
                self.note("variable", f"{name!r}: All needs a value of its own")
            if kind == "custom" and [o.get("value") for o in one.get("options", [])] != [v.strip() for v in one.get("query", "").split(",")]:
                self.note("variable", f"{name!r}: options differ from {one.get('query')!r}")
            known.append(name)
        rest = json.dumps([self.board.get("panels"), self.board.get("annotations"), [v.get("query") for v in variables(self.board)],
                           [v.get("datasource") for v in variables(self.board)]])
        for name in set(known) - used(rest):
            self.note("variable", f"{name!r} is used nowhere")
        for name in used(rest) - set(known) - BUILT_IN.keys() - {"__data", "__field"}:
            self.note("variable", f"${name} is not declared")

    def annotations(self):
        listed = self.board.get("annotations", {}).get("list", [])
        if not listed or not listed[0].get("builtIn") or listed[0].get("datasource", {}).get("uid") != "-- Grafana --":
            self.note("annotation", "Grafana's own are missing")
        for one in listed[1:]:
            if not one.get("expr") or not one.get("titleFormat") or not one.get("step"):
                self.note("annotation", f"{one.get('name')!r} lacks its expression, title or step")

    def links(self):
        for link in self.board.get("links", []):
            if link.get("type") == "dashboards" and not any(set(link.get("tags", [])) & set(b.get("tags", [])) for b in self.boards.values()):
                self.note("link", f"no dashboard is tagged {link.get('tags')}")
            if not link.get("keepTime"):
                self.note("link", f"{link.get('title')!r} loses the time")
        for panel in flat(self.board):
            for link in data_links(panel):
                self.link(panel.get("title"), link.get("url", ""))

    def link(self, where, url):
        if url.startswith("/explore?"):
            panes = urllib.parse.parse_qs(url.partition("?")[2]).get("panes", [""])[0]
            try:
                asked = [q["datasource"]["type"] for pane in json.loads(panes).values() for q in pane["queries"]]
            except (ValueError, KeyError, TypeError, AttributeError):
                return self.note("link", f"{where!r}: {url!r} holds no query")
            if not set(asked) <= SOURCES.keys():
                self.note("link", f"{where!r}: Explore of {asked}")
            return None
        target = re.match(r"/d/([a-z0-9-]+)\?", url)
        board = self.by_uid.get(target[1]) if target else None
        if board is None:
            return self.note("link", f"{where!r}: {url!r} leads nowhere")
        names = {v.get("name") for v in variables(board)}
        for name in set(re.findall(r"var-(\w+)=", url)) - names:
            self.note("link", f"{where!r}: {target[1]} has no variable {name!r}")
        if "${__url_time_range}" not in url:
            self.note("link", f"{where!r}: {url!r} loses the time")

    def model(self):
        for what in dashmodel.judge(self.board):
            self.note("model", what)
        try:
            for what in dashmodel.lost(self.board):
                self.note("round-trip", what)
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            self.note("round-trip", f"the SDK cannot read it: {error}")

    def syntax(self, promtool):
        """All expressions at once, as rules; promtool names the rule of each that it does not understand."""
        rows = [(name, where, expand(expr, chosen(board))) for name, board in self.boards.items() for where, expr in expressions(board)]
        for n in unparsed(promtool, [expr for _, _, expr in rows]):
            self.file, where, expr = rows[n]
            self.note("promql", f"{where}: {expr}")


def unparsed(promtool, exprs):
    """Numbers of the expressions that are not PromQL."""
    rules = {"groups": [{"name": "dashboards", "rules": [{"record": f"e{n}", "expr": expr} for n, expr in enumerate(exprs)]}]}
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump(rules, file)  # JSON is YAML.
        file.flush()
        run = subprocess.run([promtool, "check", "rules", file.name], capture_output=True, text=True, timeout=60)
    bad = sorted({int(n) for n in re.findall(r'rule \d+, "e(\d+)"', run.stdout + run.stderr)})
    assert bad or run.returncode == 0, run.stdout + run.stderr
    return bad


def check(boards, promtool=None, only=None):
    """boards: file name -> dashboard. What is wrong, with all of them or with `only` one: (file, rule, what)."""
    return Check(boards).run(promtool, only)
