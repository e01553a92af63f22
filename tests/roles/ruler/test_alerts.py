"""The life of an alert as lists of events."""

from __future__ import annotations

import pytest

from mimir_ray.roles.ruler.alerts import RESOLVED_RETENTION_MS, Alert, AlertState, Holding, advance, notify

MINUTE = 60_000
LABELS = (("alertname", "A"),)


def seen(now: int, value: float = 1.0) -> Alert:
    return Alert(LABELS, (), value, now)


def live(events: str, holding: Holding) -> str:
    """States minute by minute: `x` the condition holds, `.` it does not; p f i, or - for nothing."""
    alert: Alert | None = None
    out = ""
    for minute, event in enumerate(events):
        now = minute * MINUTE
        if event == "x" or alert is not None:
            alert = advance(alert, seen(now) if event == "x" else None, holding, now)
        out += "-" if alert is None else alert.state.value[0]
    return out


@pytest.mark.parametrize(
    ("events", "holding", "states"),
    [
        ("x.x", Holding(), "fif"),
        ("xxxx", Holding(2 * MINUTE), "ppff"),
        ("x.xxx", Holding(2 * MINUTE), "p-ppf"),
        ("xxx..x", Holding(2 * MINUTE), "ppfiip"),
        ("x....x", Holding(0, 3 * MINUTE), "ffffif"),
        ("x..x....", Holding(0, 2 * MINUTE), "ffffffii"),
        ("x.", Holding(MINUTE, 5 * MINUTE), "p-"),
        ("x" + "." * 18, Holding(), "f" + "i" * 16 + "--"),
    ],
)
def test_states_follow_the_condition(events: str, holding: Holding, states: str) -> None:
    assert live(events, holding) == states


def test_a_resolved_alert_that_comes_back_is_a_new_one() -> None:
    alert = advance(None, seen(0), Holding(), 0)
    alert = advance(alert, None, Holding(), MINUTE)
    assert alert is not None and alert.resolved_at_ms == MINUTE and not alert.is_active
    alert = advance(alert, seen(2 * MINUTE), Holding(), 2 * MINUTE)
    assert alert is not None
    assert (alert.active_at_ms, alert.fired_at_ms, alert.resolved_at_ms) == (2 * MINUTE, 2 * MINUTE, None)


def test_an_active_alert_takes_new_values_and_keeps_its_beginning() -> None:
    alert = advance(None, seen(0, 1.0), Holding(MINUTE), 0)
    alert = advance(alert, seen(MINUTE, 7.0), Holding(MINUTE), MINUTE)
    assert alert is not None
    assert (alert.value, alert.active_at_ms, alert.fired_at_ms) == (7.0, 0, MINUTE)


def test_a_longer_for_makes_a_firing_alert_pending_again() -> None:
    alert = advance(None, seen(0), Holding(), 0)
    alert = advance(alert, seen(MINUTE), Holding(5 * MINUTE), MINUTE)
    assert alert is not None
    assert (alert.state, alert.fired_at_ms) == (AlertState.PENDING, None)


def test_a_resolved_alert_is_forgotten_after_its_retention() -> None:
    alert = advance(advance(None, seen(0), Holding(), 0), None, Holding(), 1)
    assert advance(alert, None, Holding(), 1 + RESOLVED_RETENTION_MS) == alert
    assert advance(alert, None, Holding(), 2 + RESOLVED_RETENTION_MS) is None


def test_notifications_are_sent_once_per_delay_and_at_once_when_resolved() -> None:
    pending = seen(0)
    assert notify(pending, 0, MINUTE, MINUTE) is None
    firing = advance(None, seen(0), Holding(), 0)
    assert firing is not None
    sent = notify(firing, 0, MINUTE, 2 * MINUTE)
    assert sent is not None and (sent.last_sent_at_ms, sent.valid_until_ms) == (0, 8 * MINUTE)
    assert notify(sent, MINUTE, MINUTE, 2 * MINUTE) is None
    assert notify(sent, MINUTE + 1, MINUTE, 2 * MINUTE) is not None
    resolved = advance(sent, None, Holding(), 30_000)
    assert resolved is not None
    assert notify(resolved, 30_000, MINUTE, MINUTE) is not None
