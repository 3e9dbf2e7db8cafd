"""What is told of a Prometheus itself and of its metrics, as data and as text. Pure: no client, no clock."""

from typing import Any

from pydantic import BaseModel, Field

_MAX_HELP = 200
# What a histogram or summary adds to its name; the metadata knows only the name.
_SUFFIXES = ("_bucket", "_sum", "_count", "_total", "_created")


class Metric(BaseModel):
    """A metric and what its exporter says of it."""

    name: str
    type: str | None = Field(default=None, description="counter, gauge, histogram, summary, info or stateset")
    help: str | None = None
    unit: str | None = None


class MetricList(BaseModel):
    """Names of metrics, by alphabet."""

    metrics: list[Metric]
    total: int = Field(description="How many match")
    left_out: int = Field(description="How many of them are not shown")
    warnings: list[str] | None = Field(default=None, description="Prometheus' own remarks")
    notes: list[str] | None = Field(default=None, description="What could not be shown, and why")


class Job(BaseModel):
    """The targets of a job."""

    job: str
    up: int
    down: int


class ServerInfo(BaseModel):
    """A Prometheus at a glance; what is missing may not be asked of it."""

    version: str | None = None
    started: str | None = Field(default=None, description="RFC 3339, UTC")
    retention: str | None = Field(default=None, description="How long samples are kept")
    series: int | None = Field(default=None, description="Series in memory")
    config_reloaded: bool | None = Field(default=None, description="Whether the last reload of its settings succeeded")
    targets_up: int | None = Field(default=None, description="Targets that answer, of all jobs")
    targets_down: int | None = Field(default=None, description="Targets that do not, of all jobs")
    jobs: list[Job] | None = Field(default=None, description="What is scraped, worst first")
    jobs_left_out: int | None = None
    down: list[str] | None = Field(default=None, description="Targets that do not answer, at most 20, as job/instance")
    alerts: list[str] | None = Field(default=None, description="Alerts that fire, at most 20")
    notes: list[str] | None = Field(default=None, description="What could not be shown, and why")


def metrics(names: list[str], metadata: dict[str, Any]) -> list[Metric]:
    """Return metrics with what the metadata says of them."""
    told = []
    for name in names:
        base = next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)), name)
        found = metadata.get(name) or metadata.get(base) or [{}]
        about = {key: str(found[0].get(key) or "")[:_MAX_HELP] or None for key in ("type", "help", "unit")}
        told.append(Metric(name=name, **about))
    return told


def metrics_text(told: MetricList) -> str:
    """Return the list as lines."""
    if not told.total:
        lines = ["No metric matches. Use another word, or none for all names."]
    else:
        lines = [f"{told.total} metric{'' if told.total == 1 else 's'}:"]
    for metric in told.metrics:
        kind = f" ({metric.type})" if metric.type else ""
        lines.append(f"{metric.name}{kind}{': ' + metric.help if metric.help else ''}")
    if told.left_out:
        lines.append(f"… and {told.left_out} more, not shown; raise limit, or narrow contains or job")
    return "\n".join([*lines, *(f"Note: {note}" for note in [*(told.warnings or []), *(told.notes or [])])])


def info_text(told: ServerInfo) -> str:
    """Return the server as lines."""
    lines = [f"Prometheus {told.version or '(of unknown version)'}"]
    parts = (("started", told.started), ("keeps samples", told.retention), ("series in memory", told.series))
    if said := [f"{what}: {value}" for what, value in parts if value is not None]:
        lines.append("; ".join(said))
    if told.config_reloaded is False:
        lines.append("The last reload of its settings FAILED; it runs with the settings before")
    if told.jobs is not None:
        more = f", of which {len(told.jobs)} are shown" if told.jobs_left_out else ""
        jobs = len(told.jobs) + (told.jobs_left_out or 0)
        lines.append(f"Targets: {told.targets_up} up, {told.targets_down} down, in {jobs} jobs{more}")
        lines += [f"  {job.job}: {job.up} up, {job.down} down" for job in told.jobs]
    if told.down:
        lines.append(f"Down: {', '.join(told.down)}")
    if told.alerts is not None:
        lines.append(f"Alerts that fire: {', '.join(told.alerts) or 'none'}")
    return "\n".join([*lines, *(f"Note: {note}" for note in told.notes or [])])
