"""The dashboards are what Grafana takes, and the alerts have all they need; no tool is asked."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.dashboard import DATASOURCES, FOLDER, Dashboard
from engine.stats import AdapterStats, EngineStats
from server.intake import Intake
from server.metrics import Metrics
from tests.server.stub import StubClient, server_config

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
ALERT_TESTS = Path(__file__).parent / "alerts_test.yml"
SERIES = re.compile(r"\b(?:vllm:|bita_)\w+")

every_dashboard = pytest.mark.parametrize(
    "dashboard",
    [Dashboard.read(file) for file in sorted(FOLDER.glob("*.json"))],
    ids=lambda d: d.title,
)


def alerts() -> list[dict[str, Any]]:
    """Every rule."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def exposed() -> set[str]:
    """Names of all samples of /metrics."""
    client = StubClient(stats=EngineStats(adapters={"quick": AdapterStats()}))
    text = Metrics(server_config(ROOT / "model"), client, Intake(1)).exposition().decode()
    return set(re.findall(r"^([^\s#{]+)\{", text, re.MULTILINE))


@every_dashboard
def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: Dashboard) -> None:
    panels = dashboard.panels
    assert len({panel.id for panel in panels}) == len(panels)
    assert len({panel.title for panel in panels}) == len(panels)
    places = [
        (panel.x + column, panel.y + row)
        for panel in panels
        for column, row in itertools.product(range(panel.width), range(panel.height))
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) == 23


@every_dashboard
def test_everything_is_asked_of_the_source_that_is_provisioned(dashboard: Dashboard) -> None:
    (source,) = yaml.safe_load((DATASOURCES / "prometheus.yml").read_text())["datasources"]
    reference = {"type": "prometheus", "uid": source["uid"]}
    document = dashboard.document
    assert document["schemaVersion"] >= 39
    asking = [*document["panels"], *document["templating"]["list"]]
    asking += [target for panel in document["panels"] for target in panel["targets"]]
    assert all(one["datasource"] == reference for one in asking)
    assert [v["name"] for v in document["templating"]["list"]] == ["model_name", "instance"]


@every_dashboard
def test_expressions_ask_for_what_there_is_in_the_way_that_lasts(dashboard: Dashboard) -> None:
    names = exposed()
    for panel in dashboard.panels:
        for target in panel.targets:
            expr = target.expr
            assert set(SERIES.findall(expr)) <= names, panel.title
            selectors = expr.count('model_name=~"$model_name",instance=~"$instance"')
            assert selectors == len(SERIES.findall(expr)), panel.title
            for name in SERIES.findall(expr):  # a lifetime's average tells nothing of now
                cumulative = name.endswith(("_total", "_sum", "_count", "_bucket"))
                bare = re.search(rf"(?<!rate\(){re.escape(name)}\{{", expr)
                assert not (cumulative and bare) or name == "bita_engine_restarts_total", expr
            assert "[" not in expr.replace("[$__rate_interval]", "")


def test_dashboards_are_told_apart() -> None:
    documents = [Dashboard.read(file).document for file in FOLDER.glob("*.json")]
    assert (
        len(documents) == len({d["uid"] for d in documents}) == len({d["title"] for d in documents})
    )


def test_every_alert_asks_for_what_there_is_and_leads_to_its_section() -> None:
    names = exposed()
    sections = re.findall(
        r"^### (\w+)$", (ROOT / "docs" / "monitoring.md").read_text(), re.MULTILINE
    )
    for rule in alerts():
        assert set(SERIES.findall(rule["expr"])) <= names
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/monitoring.md#{rule['alert'].lower()}"
    assert sections == list(dict.fromkeys(rule["alert"] for rule in alerts()))


def test_every_alert_is_tested_to_fire_and_not_to() -> None:
    tests = yaml.safe_load(ALERT_TESTS.read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    fires = {
        (check["alertname"], alert["exp_labels"]["severity"])
        for check in checks
        for alert in check["exp_alerts"]
    }
    silent = {check["alertname"] for check in checks if not check["exp_alerts"]}
    assert fires == {(rule["alert"], rule["labels"]["severity"]) for rule in alerts()}
    assert silent == {rule["alert"] for rule in alerts()}
