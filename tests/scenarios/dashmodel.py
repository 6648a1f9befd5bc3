"""Owns the typed model of dashboards that tests hold ours against: fields that Grafana does not know, wrong types and wrong enumerations.

The types are those of Grafana's own foundation SDK, read strictly. The SDK itself takes anything and drops what it does not know, so that
its round trip finds only lost fields; here each value is compared with the type that the SDK declares for it. What the SDK leaves open
(`object`) and we use has a type of our own below.
"""

import enum
import inspect
import json
import types
import typing
import warnings

warnings.filterwarnings("ignore", category=DeprecationWarning, module="grafana_foundation_sdk")

from grafana_foundation_sdk.cog import encoder, plugins, variants  # noqa: E402
from grafana_foundation_sdk.models import bargauge, cloudwatch, common, dashboard, heatmap, logs, loki, prometheus, stat, statetimeline  # noqa: E402
from grafana_foundation_sdk.models import table, text, timeseries, units  # noqa: E402

plugins.register_default_plugins()

# Every unit that Grafana has.
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}

Reducer = typing.Literal["lastNotNull", "last", "max", "min", "mean", "sum", "count", "range"]


class Empty(typing.TypedDict):
    pass


class PrometheusValues(typing.TypedDict):
    """A variable's query of label values."""

    query: str
    refId: str


class CloudWatchValues(typing.TypedDict):
    """A variable's query of dimension values, as Grafana's CloudWatch source has it."""

    refId: str
    queryType: typing.Literal["regions", "namespaces", "metrics", "dimensionKeys", "dimensionValues"]
    region: str
    namespace: str
    metricName: str
    dimensionKey: str
    dimensionFilters: dict[str, str]
    attributeName: str
    ec2Filters: Empty
    instanceID: str
    resourceType: str
    tags: Empty


class JaegerQuery(typing.TypedDict):
    """A search for traces."""

    datasource: common.DataSourceRef
    refId: str
    queryType: typing.Literal["search", "dependencyGraph"]
    service: str
    operation: str
    limit: int


class Organize(typing.TypedDict):
    excludeByName: dict[str, bool]
    indexByName: dict[str, int]
    renameByName: dict[str, str]


class Names(typing.TypedDict):
    names: list[str]


class FilterFields(typing.TypedDict):
    include: Names


class LineStyle(typing.TypedDict):
    fill: typing.Literal["solid", "dash", "dot", "square"]
    dash: list[float]


class CellOptions(typing.TypedDict):
    type: typing.Literal["auto", "color-text", "color-background", "gauge"]


# The kinds of panel that ours may have: what their options and the fields of their series are.
PANELS = {
    "stat": (stat.Options, None),
    "timeseries": (timeseries.Options, common.GraphFieldConfig),
    "bargauge": (bargauge.Options, None),
    "heatmap": (heatmap.Options, heatmap.FieldConfig),
    "state-timeline": (statetimeline.Options, statetimeline.FieldConfig),
    "table": (table.Options, common.TableFieldOptions),
    "text": (text.Options, None),
    "logs": (logs.Options, None),
}
TRANSFORMATIONS = {"merge": Empty, "organize": Organize, "filterFieldsByName": FilterFields}
QUERIES = {"prometheus": prometheus.Dataquery, "loki": loki.Dataquery, "cloudwatch": cloudwatch.MetricsQuery, "jaeger": JaegerQuery}
VALUES = {"prometheus": PrometheusValues, "cloudwatch": CloudWatchValues}
MATCHERS = {"byName": str, "byRegexp": str}
# Absent and null are not the same to Grafana. Only the threshold below all others is null.
NULL_IS_WELL = {(dashboard.Threshold, "value")}


def fields(cls):
    """JSON name -> (declared type, constant or None) of one of the SDK's classes."""
    parameters = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
    hints = typing.get_type_hints(cls.__init__)
    probe = cls.__new__(cls)
    marks = {name: object() for name in parameters}
    for name in vars(cls()):
        setattr(probe, name, marks.get(name, getattr(cls(), name)))
    by_mark = {id(mark): name for name, mark in marks.items()}
    out = {}
    for key, value in probe.to_json().items():
        name = by_mark.get(id(value))
        out[key] = (hints[name], None) if name else (object, value)
    return out


class Judge:
    """Walks a dashboard beside its types and notes what does not fit."""

    def __init__(self):
        self.found = []
        self.known = {}

    def fields(self, cls):
        if cls not in self.known:
            self.known[cls] = fields(cls)
        return self.known[cls]

    def note(self, path, what):
        self.found.append(f"{path}: {what}")

    def dashboard(self, board):
        self.object(board, dashboard.Dashboard, "")
        return self.found

    def value(self, value, hint, path):
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hint in (object, typing.Any):
            return
        if origin in (typing.Union, types.UnionType):
            self.union(value, [a for a in arguments if a is not type(None)], path)
        elif origin is typing.Literal:
            if value not in arguments:
                self.note(path, f"{value!r} is none of {list(arguments)}")
        elif origin is list:
            if not isinstance(value, list):
                return self.note(path, f"{value!r} is no list")
            for n, item in enumerate(value):
                self.value(item, arguments[0], f"{path}/{n}")
        elif origin is dict:
            if not isinstance(value, dict):
                return self.note(path, f"{value!r} is no object")
            for key, item in value.items():
                self.value(item, arguments[1], f"{path}/{key}")
        elif isinstance(hint, type) and issubclass(hint, enum.Enum):
            if isinstance(value, bool) or value not in [member.value for member in hint]:
                self.note(path, f"{value!r} is none of {[member.value for member in hint]}")
        elif typing.is_typeddict(hint):
            self.typed_dict(value, hint, path)
        elif hint in (str, bool, int, float):
            fits = isinstance(value, hint) or (hint is float and isinstance(value, int))
            if not fits or (hint is not bool and isinstance(value, bool)):
                self.note(path, f"{value!r} is no {hint.__name__}")
        else:
            self.object(value, hint, path)

    def union(self, value, choices, path):
        if len(choices) == 1:
            return self.value(value, choices[0], path)
        if dashboard.RowPanel in choices and isinstance(value, dict):
            return self.object(value, dashboard.RowPanel if value.get("type") == "row" else dashboard.Panel, path)
        attempts = []
        for choice in choices:
            judge = Judge()
            judge.known = self.known
            judge.value(value, choice, path)
            if not judge.found:
                return None
            attempts.append(judge.found)
        self.found += min(attempts, key=len)

    def typed_dict(self, value, hint, path):
        hints = typing.get_type_hints(hint)
        if not isinstance(value, dict):
            return self.note(path, f"{value!r} is no object")
        for key in value.keys() - hints.keys():
            self.note(f"{path}/{key}", "is not known")
        for key in hint.__required_keys__ - value.keys():
            self.note(path, f"lacks {key}")
        for key in value.keys() & hints.keys():
            self.value(value[key], hints[key], f"{path}/{key}")

    def object(self, value, cls, path):
        if not isinstance(value, dict):
            return self.note(path, f"{value!r} is no object")
        if cls is variants.Dataquery:
            return self.query(value, path)
        known = self.fields(cls)
        for key, item in value.items():
            at = f"{path}/{key}"
            if key not in known:
                self.note(at, "is not known")
                continue
            hint, constant = known[key]
            if constant is not None:
                if item != constant:
                    self.note(at, f"{item!r} is not {constant!r}")
            elif item is None:
                if (cls, key) not in NULL_IS_WELL:
                    self.note(at, "is null")
            elif not self.open(cls, key, value, item, at):
                self.value(item, hint, at)

    def open(self, cls, key, value, item, path):
        """What the SDK leaves open and is judged by what stands beside it. True when it has been judged."""
        if cls is dashboard.Panel and key == "type":
            if item not in PANELS:
                self.note(path, f"{item!r} is none of {sorted(PANELS)}")
        elif cls is dashboard.Panel and key == "options":
            options, _ = PANELS.get(value.get("type"), (object, None))
            self.value(item, options, path)
        elif cls is dashboard.Panel and key == "fieldConfig":
            self.value(item, dashboard.FieldConfigSource, path)
            _, custom = PANELS.get(value.get("type"), (None, None))
            self.custom((item.get("defaults") or {}).get("custom"), custom, f"{path}/defaults/custom")
            for n, override in enumerate(item.get("overrides", [])):
                for m, chosen in enumerate(override.get("properties", [])):
                    self.property(chosen, custom, f"{path}/overrides/{n}/properties/{m}")
        elif cls is dashboard.DataTransformerConfig and key == "options":
            if value.get("id") not in TRANSFORMATIONS:
                self.note(path, f"transformation {value.get('id')!r} is none of {sorted(TRANSFORMATIONS)}")
            else:
                self.value(item, TRANSFORMATIONS[value["id"]], path)
        elif cls is dashboard.MatcherConfig and key == "options":
            self.value(item, MATCHERS.get(value.get("id"), object), path)
        elif cls is dashboard.MatcherConfig and key == "id":
            if item not in MATCHERS:
                self.note(path, f"{item!r} is none of {sorted(MATCHERS)}")
        elif cls is dashboard.VariableModel and key == "query" and value.get("type") == "query":
            self.value(item, VALUES.get((value.get("datasource") or {}).get("type"), object), path)
        elif cls in (common.VizLegendOptions, common.ReduceDataOptions) and key == "calcs":
            self.value(item, list[Reducer], path)
        else:
            return False
        return True

    def custom(self, value, cls, path):
        if value is None:
            return
        if cls is None:
            self.note(path, "this kind of panel has none")
        else:
            self.value(value, cls, path)

    def property(self, chosen, custom, path):
        name, value = chosen.get("id", ""), chosen.get("value")
        if name.startswith("custom."):
            known = self.fields(custom) if custom else {}
            special = {"lineStyle": LineStyle, "cellOptions": CellOptions}
            field = name.removeprefix("custom.")
            if field not in known:
                self.note(path, f"{name} is not known")
            else:
                self.value(value, special.get(field, known[field][0]), f"{path}/value")
        elif name in self.fields(dashboard.FieldConfig):
            self.value(value, self.fields(dashboard.FieldConfig)[name][0], f"{path}/value")
        else:
            self.note(path, f"{name} is not known")

    def query(self, value, path):
        kind = (value.get("datasource") or {}).get("type")
        if kind not in QUERIES:
            return self.note(path, f"queries of {kind!r} are none of {sorted(QUERIES)}")
        self.value(value, QUERIES[kind], path)


def judge(board):
    """What does not fit Grafana's types."""
    return Judge().dashboard(board)


def lost(board):
    """Fields that do not survive the SDK's own reading and writing."""
    again = json.loads(encoder.JSONEncoder().encode(dashboard.Dashboard.from_json(board)))

    def walk(before, after, path):
        if isinstance(before, dict) and isinstance(after, dict):
            for key in before:
                if key not in after:
                    yield f"{path}/{key}: is lost"
                else:
                    yield from walk(before[key], after[key], f"{path}/{key}")
        elif isinstance(before, list) and isinstance(after, list):
            if len(before) != len(after):
                yield f"{path}: {len(before)} became {len(after)}"
            for n, (one, other) in enumerate(zip(before, after)):
                yield from walk(one, other, f"{path}/{n}")
        elif before != after:
            yield f"{path}: {before!r} became {after!r}"

    return list(walk(board, again, ""))
