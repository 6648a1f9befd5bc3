"""Owns how a dashboard is built: panels, queries, variables, annotations, links and the grid. Knows nothing of any one dashboard.

Everything here returns plain dictionaries of Grafana's classic dashboard model, schemaVersion 42. Nothing depends on the time, the
machine or the order of a set, so that the same source always gives the same bytes.
"""

import json
import urllib.parse

# What Grafana knows as the newest classic schema. An older Grafana loads it as it is.
SCHEMA = 42

PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
LOKI = {"type": "loki", "uid": "${loki_datasource}"}
JAEGER = {"type": "jaeger", "uid": "${traces_datasource}"}
CLOUDWATCH = {"type": "cloudwatch", "uid": "${cloudwatch_datasource}"}

# The window of every rate: Grafana makes it four scrapes long or one step, whichever is more.
RATE = "[$__rate_interval]"
# What the two variables choose. A service is only unique within its cluster.
CLUSTER = 'cluster=~"$cluster"'
SERVICE = 'cluster=~"$cluster",service=~"$service"'

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = "green", "yellow", "orange", "red", "blue", "purple", "#808080"

TAG = "beaufort"
TIME = "${__url_time_range}"


def steps(first, *more):
    """Thresholds: the colour below all of them, then (from this value, colour)."""
    return [{"color": first, "value": None}] + [{"color": color, "value": value} for value, color in more]


NEUTRAL = steps(BLUE)
ANY_IS_BAD = steps(GREEN, (1, RED))
ANY_IS_ODD = steps(GREEN, (1, ORANGE))
RATIO = steps(GREEN, (0.7, YELLOW), (0.9, RED))
ERRORS = steps(GREEN, (0.001, YELLOW), (0.01, RED))


# Queries

def query(expr, legend="", instant=False, table=False, heatmap=False, exemplar=False):
    """One PromQL query. `instant` asks for the end of the time range only, `table` also for one row per series.
    What looks back over the whole range is asked once: at each step of a line it would be costly, and wrong."""
    instant = instant or table or "[$__range]" in expr
    target = {"datasource": PROMETHEUS, "editorMode": "code", "expr": expr, "legendFormat": legend, "instant": instant, "range": not instant}
    if table:
        target["format"] = "table"
    elif heatmap:
        target["format"] = "heatmap"
    if exemplar:
        target["exemplar"] = True
    return target


def cloudwatch(metric, statistic, dimensions, label, namespace="AWS/ECS", region="default"):
    """One CloudWatch metric as Grafana's metric builder writes it. Exact dimensions and one value each: Grafana then asks GetMetricData
    with a MetricStat, never with a SEARCH expression, which Beaufort does not serve."""
    return {"datasource": CLOUDWATCH, "queryMode": "Metrics", "metricQueryType": 0, "metricEditorMode": 0, "id": "", "region": region,
            "namespace": namespace, "metricName": metric, "dimensions": dimensions, "matchExact": True, "statistic": statistic,
            "period": "$period", "label": label, "expression": "", "sqlExpression": "", "hide": False}


# Panels

def panel(kind, title, description, targets, width, height, unit=None, thresholds=None, color="thresholds", custom=None, options=None,
          low=None, high=None, decimals=None, no_value=None, mappings=None, links=None, overrides=None, transformations=None):
    """A panel without its place and number, which the board gives."""
    defaults = {"color": {"mode": color}, "mappings": mappings or [], "thresholds": {"mode": "absolute", "steps": thresholds or NEUTRAL}}
    for key, value in (("unit", unit), ("min", low), ("max", high), ("decimals", decimals), ("noValue", no_value), ("links", links),
                       ("custom", custom)):
        if value is not None:
            defaults[key] = value
    targets = [dict(target, refId=chr(ord("A") + n)) for n, target in enumerate(targets)]
    made = {"type": kind, "title": title, "description": description, "datasource": targets[0]["datasource"],
            "gridPos": {"w": width, "h": height}, "targets": targets, "fieldConfig": {"defaults": defaults, "overrides": overrides or []},
            "options": options or {}}
    if transformations:
        made["transformations"] = transformations
    return made


def reduced(calculation="lastNotNull"):
    return {"calcs": [calculation], "fields": "", "values": False}


def stat(title, description, unit, targets, thresholds=None, width=4, spark=True, text="auto", **more):
    """One number, or a few, with a line of how it came to be."""
    options = {"reduceOptions": reduced(), "colorMode": "value", "graphMode": "area" if spark else "none", "justifyMode": "auto",
               "orientation": "auto", "textMode": text, "wideLayout": True, "showPercentChange": False}
    return panel("stat", title, description, listed(targets), width, 4, unit, thresholds, options=options, **more)


def lines(title, description, unit, targets, width=12, height=8, thresholds=None, step=False, stack=False, bars=False, points=False,
          calcs=("lastNotNull", "max"), **more):
    """Time series. `step` for counts that hold until they change, `bars` for how many happened, `points` for what is rare."""
    custom = {"drawStyle": "bars" if bars else "points" if points else "line", "lineInterpolation": "stepAfter" if step else "linear",
              "lineWidth": 1, "fillOpacity": 60 if bars else 25 if stack else 6, "showPoints": "always" if points else "never",
              "pointSize": 6 if points else 4, "spanNulls": False, "stacking": {"mode": "normal" if stack else "none", "group": "A"},
              "thresholdsStyle": {"mode": "line" if thresholds else "off"}}
    options = {"legend": {"showLegend": True, "displayMode": "table", "placement": "bottom", "calcs": list(calcs)},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, description, listed(targets), width, height, unit, thresholds, "palette-classic", custom, options, **more)


def heatmap(title, description, unit, target, width=12, height=8):
    """Where the answers of a histogram fall."""
    options = {"calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Oranges", "fill": "dark-orange", "scale": "exponential",
                                                           "exponent": 0.5, "steps": 64, "reverse": False},
               "yAxis": {"unit": unit, "axisPlacement": "left", "reverse": False}, "rowsFrame": {"layout": "auto"},
               "filterValues": {"le": 1e-9}, "legend": {"show": True}, "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False},
               "exemplars": {"color": "rgba(255,0,255,0.7)"}, "showValue": "never"}
    custom = {"hideFrom": {"legend": False, "tooltip": False, "viz": False}, "scaleDistribution": {"type": "linear"}}
    return panel("heatmap", title, description, [target], width, height, unit, custom=custom, options=options)


def states(title, description, target, values, width=12, height=8):
    """A line per series whose value stands for a state: (value, text, colour)."""
    mapping = {"type": "value", "options": {str(v): {"text": text, "color": color, "index": n} for n, (v, text, color) in enumerate(values)}}
    options = {"showValue": "auto", "rowHeight": 0.85, "mergeValues": True, "alignValue": "left",
               "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}, "tooltip": {"mode": "single", "sort": "none"}}
    return panel("state-timeline", title, description, [target], width, height, mappings=[mapping],
                 custom={"fillOpacity": 75, "lineWidth": 0}, options=options)


def bargauge(title, description, unit, targets, width=12, height=8, thresholds=None, **more):
    """A bar for each series, as it is now."""
    options = {"reduceOptions": reduced(), "displayMode": "basic", "orientation": "horizontal", "valueMode": "color", "namePlacement": "auto",
               "showUnfilled": True, "sizing": "auto", "minVizWidth": 8, "minVizHeight": 16, "maxVizHeight": 300}
    return panel("bargauge", title, description, listed(targets), width, height, unit, thresholds, options=options, **more)


class Column:
    """A value of a table: its query, and how it is shown."""

    def __init__(self, title, expr, unit="short", thresholds=None, decimals=None, mappings=None):
        self.title, self.expr, self.unit, self.thresholds, self.decimals, self.mappings = title, expr, unit, thresholds, decimals, mappings


def table(title, description, keys, columns, width=24, height=9, links=None, sort=None, descending=True):
    """A row for each set of `keys` (labels that every column's query keeps), joined over all columns. `links` goes on each key's cells."""
    one = len(columns) == 1
    values = ["Value" if one else f"Value #{chr(ord('A') + n)}" for n in range(len(columns))]
    order = {name: n for n, name in enumerate([*keys, *values])}
    organize = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": {v: c.title for v, c in zip(values, columns)}}
    overrides = [column_override(c) for c in columns]
    overrides += [{"matcher": {"id": "byName", "options": key}, "properties": [{"id": "links", "value": links}]} for key in keys if links]
    options = {"frameIndex": 0, "showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": sort, "desc": descending}] if sort else []}
    transformations = [{"id": "organize", "options": organize}]
    if not one:
        transformations.insert(0, {"id": "merge", "options": {}})
    return panel("table", title, description, [query(c.expr, table=True) for c in columns], width, height, "short",
                 custom={"align": "auto", "inspect": False, "filterable": True}, options=options, overrides=overrides,
                 transformations=transformations)


def column_override(column):
    properties = [{"id": "unit", "value": column.unit}]
    if column.decimals is not None:
        properties.append({"id": "decimals", "value": column.decimals})
    if column.mappings is not None:
        properties.append({"id": "mappings", "value": column.mappings})
    if column.thresholds is not None:
        properties.append({"id": "thresholds", "value": {"mode": "absolute", "steps": column.thresholds}})
        properties.append({"id": "custom.cellOptions", "value": {"type": "color-text"}})
    return {"matcher": {"id": "byName", "options": column.title}, "properties": properties}


def labels_table(title, description, expr, names, width=24, height=8, links=None, linked=None):
    """A row for each series that a query finds now; only these labels are columns."""
    return panel("table", title, description, [query(expr, table=True)], width, height, "short", no_value="none",
                 custom={"align": "auto", "inspect": False, "filterable": True},
                 options={"frameIndex": 0, "showHeader": True, "cellHeight": "sm", "sortBy": []},
                 overrides=[{"matcher": {"id": "byName", "options": linked}, "properties": [{"id": "links", "value": links}]}] if links else [],
                 transformations=[{"id": "filterFieldsByName", "options": {"include": {"names": list(names)}}},
                                  {"id": "organize", "options": {"excludeByName": {}, "indexByName": {n: i for i, n in enumerate(names)},
                                                                 "renameByName": {}}}])


def note(title, text, width=24, height=4):
    """Words, for what no query can say."""
    return {"type": "text", "title": title, "description": "", "gridPos": {"w": width, "h": height}, "targets": [],
            "fieldConfig": {"defaults": {}, "overrides": []}, "options": {"mode": "markdown", "content": text}}


def colored(name, color):
    """One series always in its own colour."""
    return {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}]}


def dashed(pattern, color):
    """A bound beside what it bounds."""
    return {"matcher": {"id": "byRegexp", "options": f"/{pattern}/"}, "properties": [
        {"id": "color", "value": {"mode": "fixed", "fixedColor": color}}, {"id": "custom.fillOpacity", "value": 0},
        {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [6, 4]}}]}


def listed(targets):
    return targets if isinstance(targets, list) else [targets]


# Variables

def datasource(name="datasource", kind="prometheus", label="Data source"):
    return {"type": "datasource", "name": name, "label": label, "query": kind, "refresh": 1, "regex": "", "hide": 0, "multi": False,
            "includeAll": False, "options": [], "current": {"selected": True, "text": "default", "value": "default"}}


def variable(name, label, expr, every=".+", several=True):
    """Values of a label, looked up anew whenever the time range changes."""
    chosen = {"text": ["All"], "value": ["$__all"]} if several else {"text": "", "value": ""}
    made = {"type": "query", "name": name, "label": label, "datasource": PROMETHEUS, "query": {"query": expr, "refId": "values"}, "definition": expr,
            "refresh": 2, "sort": 1, "regex": "", "hide": 0, "multi": several, "includeAll": several, "options": [],
            "current": {"selected": True, **chosen}}
    if several:
        made["allValue"] = every
    return made


def clusters():
    return variable("cluster", "Cluster", "label_values(beaufort_service_desired_tasks, cluster)")


def services(every=".+"):
    return variable("service", "Service", f"label_values(beaufort_service_desired_tasks{{{CLUSTER}}}, service)", every)


def choice(name, label, values, chosen, description=""):
    """One of a few given values."""
    options = [{"selected": v == chosen, "text": v, "value": v} for v in values]
    return {"type": "custom", "name": name, "label": label, "description": description, "query": ",".join(values), "hide": 0, "multi": False,
            "includeAll": False, "options": options, "current": {"selected": True, "text": chosen, "value": chosen}}


# Annotations and links

def annotation(name, expr, title, color, text="", tags=""):
    """Moments, or stretches of time, at which a query has a value."""
    return {"name": name, "datasource": PROMETHEUS, "enable": True, "hide": False, "iconColor": color, "expr": expr, "titleFormat": title,
            "textFormat": text, "tagKeys": tags, "step": "5s", "useValueForTime": False}


BUILT_IN = {"builtIn": 1, "name": "Annotations & Alerts", "type": "dashboard", "datasource": {"type": "grafana", "uid": "-- Grafana --"},
            "enable": True, "hide": True, "iconColor": "rgba(0, 211, 255, 1)"}


def changes(selector=SERVICE):
    """What changed services while one looks: deployments as stretches, scaling as moments."""
    def applied(direction):
        found = f'beaufort_scaling_decisions_total{{{selector},direction="{direction}",outcome="applied"}}'
        return f"sum by (cluster, service, policy) (increase({found}{RATE})) > 0"

    return [
        # Over a window, because a deployment may begin and end between two of the moments that are asked for.
        annotation("Deployments", f"max by (cluster, service) (max_over_time(beaufort_deployment_in_progress{{{selector}}}{RATE})) > 0",
                   "Deployment of {{service}}", BLUE, "in {{cluster}}", "service"),
        annotation("Scaled out", applied("out"), "{{service}} scaled out", ORANGE, "by policy {{policy}}", "service,policy"),
        annotation("Scaled in", applied("in"), "{{service}} scaled in", PURPLE, "by policy {{policy}}", "service,policy"),
    ]


def data_link(title, uid, blank=False, **variables):
    """A link from a cell or a series to a dashboard, with variables set and the time kept."""
    chosen = "".join(f"&var-{name}={value}" for name, value in variables.items())
    return {"title": title, "url": f"/d/{uid}?var-datasource=${{datasource}}{chosen}&{TIME}", "targetBlank": blank}


def explore_link(title, datasource_uid, kind, **search):
    """A link to Grafana's Explore with one query of another data source. Braces of variables stay as they are."""
    search = {"refId": "A", "datasource": {"type": kind, "uid": datasource_uid}, **search}
    pane = {"a": {"datasource": datasource_uid, "queries": [search], "range": {"from": "${__from}", "to": "${__to}"}}}
    text = urllib.parse.quote(json_text(pane), safe="${}.:_")
    return {"title": title, "url": f"/explore?schemaVersion=1&panes={text}&orgId=1", "targetBlank": True}


def json_text(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


# The board

class Board:
    """A dashboard: rows of panels, placed from left to right, line by line."""

    def __init__(self, uid, title, description, variables, annotations=(), since="now-1h", refresh="10s", tag=TAG):
        self.uid, self.title, self.description, self.variables = uid, title, description, variables
        self.annotations, self.since, self.refresh, self.tag = list(annotations), since, refresh, tag
        self.rows = []

    def row(self, title, *panels, collapsed=False):
        self.rows.append((title, panels, collapsed))
        return self

    def place(self):
        """Panels with numbers and places. A collapsed row holds its panels, an open one is followed by them."""
        placed, y, number = [], 0, 0
        for title, panels, collapsed in self.rows:
            number += 1
            row = {"id": number, "type": "row", "title": title, "collapsed": collapsed, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []}
            y, x, height = y + 1, 0, 0
            inside = []
            for made in panels:
                size = made["gridPos"]
                if x + size["w"] > 24:
                    y, x, height = y + height, 0, 0
                number += 1
                inside.append({"id": number, **made, "gridPos": {"x": x, "y": y, **size}})
                x, height = x + size["w"], max(height, size["h"])
            y += height
            if collapsed:
                row["panels"] = inside
                placed.append(row)
            else:
                placed += [row, *inside]
        return placed

    def build(self):
        # A dashboard of another data source shares no variable with the others: it takes only the time along.
        shared = self.tag == TAG
        links = [{"type": "dashboards", "title": "Beaufort", "tags": [TAG], "asDropdown": True, "includeVars": shared, "keepTime": True,
                  "icon": "external link", "tooltip": "The other dashboards, with the same variables and time", "url": "", "targetBlank": False}]
        if shared:
            links.append({"type": "dashboards", "title": "CloudWatch", "tags": [TAG + "-cloudwatch"], "asDropdown": False, "includeVars": False,
                          "keepTime": True, "icon": "external link", "tooltip": "The same services through Beaufort's CloudWatch API", "url": "",
                          "targetBlank": False})
        return {"uid": self.uid, "title": "Beaufort / " + self.title, "description": self.description, "tags": [self.tag], "schemaVersion": SCHEMA,
                "version": 1, "editable": False, "graphTooltip": 1, "fiscalYearStartMonth": 0, "time": {"from": self.since, "to": "now"},
                "timepicker": {}, "refresh": self.refresh, "timezone": "browser", "templating": {"list": self.variables},
                "annotations": {"list": [BUILT_IN, *self.annotations]}, "links": links, "panels": self.place()}
