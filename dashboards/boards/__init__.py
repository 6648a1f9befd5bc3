"""Owns the list of dashboards. Each module builds one; `parts` knows how, `terms` holds the expressions that they share."""

from . import autoscaling, cloudwatch, control_plane, instances, logs_traces, overview, service, slo, tasks

# The order is the order of a look: everything, one service, why it scaled, where it runs, what it uses, what it says, what it promised, ourselves.
MODULES = (overview, service, autoscaling, instances, tasks, logs_traces, slo, control_plane, cloudwatch)


def files():
    """File name -> dashboard."""
    return {module.__name__.rsplit(".", 1)[1].replace("_", "-") + ".json": module.board().build() for module in MODULES}
