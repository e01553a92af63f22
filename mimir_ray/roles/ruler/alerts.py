"""The life of an alert: a function from (state, what the rule sees, now) to the next state. Pure.

    (nothing) → pending → firing → inactive (kept for a while, so that the resolution is sent) → (nothing)

Upstream: rules/alerting.go.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.labels import Labels

RESOLVED_RETENTION_MS = 15 * 60_000
"""How long a resolved alert is remembered. Upstream: resolvedRetention."""


class AlertState(enum.Enum):
    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"


@dataclass(frozen=True, slots=True)
class Alert:
    """One instance of an alerting rule, known by its labels. Times in ms; None: has not happened.

    `keep_firing_since_ms`: since when it only fires because of `keep_firing_for`. `annotations`: sorted; unlike
    labels they may be empty. `valid_until_ms`: what its last notification said.
    """

    labels: Labels
    annotations: tuple[tuple[str, str], ...]
    value: float
    active_at_ms: int
    state: AlertState = AlertState.PENDING
    fired_at_ms: int | None = None
    resolved_at_ms: int | None = None
    last_sent_at_ms: int | None = None
    valid_until_ms: int | None = None
    keep_firing_since_ms: int | None = None

    @property
    def is_active(self) -> bool:
        """Pending or firing. Upstream: ActiveAlerts."""
        return self.resolved_at_ms is None


@dataclass(frozen=True, slots=True)
class Holding:
    """How long: a condition must hold before its alert fires, and an alert fires after its condition is gone."""

    for_ms: int = 0
    keep_firing_for_ms: int = 0


def advance(alert: Alert | None, seen: Alert | None, holding: Holding, now_ms: int) -> Alert | None:
    """The alert after an evaluation; None: forget it. An alert that is not inactive then is to be recorded.

    Args:
        alert: as it was; None: not known yet.
        seen: as the rule's expression has it now, new and pending; None: the expression does not have it.
    """
    if seen is None:
        assert alert is not None
        return _unseen(alert, holding, now_ms)
    if alert is None or alert.state is AlertState.INACTIVE:
        alert = seen
    else:
        alert = replace(alert, value=seen.value, annotations=seen.annotations, keep_firing_since_ms=None)
    return _held(alert, holding, now_ms)


def _held(alert: Alert, holding: Holding, now_ms: int) -> Alert:
    """Pending becomes firing after `for`; and back, should the rule's `for` have grown."""
    old_enough = now_ms - alert.active_at_ms >= holding.for_ms
    if alert.state is AlertState.PENDING and old_enough:
        return replace(alert, state=AlertState.FIRING, fired_at_ms=now_ms)
    if alert.state is AlertState.FIRING and not old_enough:
        return replace(
            alert, state=AlertState.PENDING, fired_at_ms=None, last_sent_at_ms=None, keep_firing_since_ms=None
        )
    return alert


def _unseen(alert: Alert, holding: Holding, now_ms: int) -> Alert | None:
    if alert.state is AlertState.FIRING and holding.keep_firing_for_ms > 0:
        since_ms = now_ms if alert.keep_firing_since_ms is None else alert.keep_firing_since_ms
        alert = replace(alert, keep_firing_since_ms=since_ms)
        if now_ms - since_ms < holding.keep_firing_for_ms:
            return _held(alert, holding, now_ms)
    if alert.state is AlertState.PENDING:
        return None
    if alert.resolved_at_ms is not None and now_ms - alert.resolved_at_ms > RESOLVED_RETENTION_MS:
        return None
    if alert.state is not AlertState.INACTIVE:
        return replace(alert, state=AlertState.INACTIVE, resolved_at_ms=now_ms)
    return alert


def notify(alert: Alert, now_ms: int, resend_delay_ms: int, interval_ms: int) -> Alert | None:
    """The alert as it is to be sent now (and remembered), or None if there is no need to.

    Upstream: needsSending, sendAlerts: valid for four times the longer of both delays, so that two failures do not
    resolve it.
    """
    if alert.state is AlertState.PENDING:
        return None
    last_ms = alert.last_sent_at_ms
    resolved = alert.resolved_at_ms is not None and (last_ms is None or alert.resolved_at_ms > last_ms)
    if not resolved and last_ms is not None and last_ms + resend_delay_ms >= now_ms:
        return None
    return replace(alert, last_sent_at_ms=now_ms, valid_until_ms=now_ms + 4 * max(resend_delay_ms, interval_ms))


def alert_value(value: float | FloatHistogram) -> float:
    """Of a histogram, an alert remembers 0. Upstream: Sample.F."""
    return 0.0 if isinstance(value, FloatHistogram) else value
