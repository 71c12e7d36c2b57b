"""What the dashboards' panels are made of."""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "[$__rate_interval]"


def target(expr, legend="", **more):
    return {"expr": expr, "legendFormat": legend or "__auto", **more}


def rates(metric, labels, *by):
    """What is counted in a second, one line for each of `by`."""
    return target(f"sum by ({', '.join(by)}) (rate({metric}{{{labels}}}{RATE}))", " ".join(f"{{{{{it}}}}}" for it in by))


def quantiles(metric, labels="", by="", of=(0.5, 0.95, 0.99)):
    """One line a quantile, with exemplars on the highest."""
    group = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    lines = [
        target(
            f"histogram_quantile({q}, sum by ({group}) (rate({metric}_bucket{{{labels}}}{RATE})))",
            f"{legend}p{round(q * 100)}",
        )
        for q in of
    ]
    lines[-1]["exemplar"] = True
    return lines


def panel(kind, title, unit, targets, width, height, description="", options=None, custom=None, **defaults):
    targets = [targets] if isinstance(targets, dict) else targets
    fields = {"unit": unit, "color": {"mode": "palette-classic"}, "custom": custom or {}, **defaults}
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "editorMode": "code", "range": not it.get("instant"), **it}
            for index, it in enumerate(targets)
        ],
        "fieldConfig": {"defaults": fields, "overrides": []},
        "options": options or {},
        "gridPos": {"w": width, "h": height},
    }


def lines(title, unit, targets, description="", width=8, stacked=False, **defaults):
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    defaults.setdefault("min", 0)
    return panel("timeseries", title, unit, targets, width, 8, description, options, custom, **defaults)


def number(title, unit, expr, description="", thresholds=(), width=3, **defaults):
    """`thresholds`: pairs of a value and the colour from it on; green below the first."""
    steps = [{"color": "green", "value": None}, *({"color": color, "value": value} for value, color in thresholds)]
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "textMode": "auto",
        "orientation": "auto",
        "wideLayout": True,
    }
    found = panel("stat", title, unit, target(expr), width, 4, description, options, **defaults)
    found["fieldConfig"]["defaults"]["color"] = {"mode": "thresholds"}
    found["fieldConfig"]["defaults"]["thresholds"] = {"mode": "absolute", "steps": steps}
    return found


def heatmap(title, metric, labels="", description="", width=8):
    expr = f"sum by (le) (increase({metric}_bucket{{{labels}}}{RATE}))"
    options = {
        "calculate": False,
        "yAxis": {"unit": "s", "axisPlacement": "left"},
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Spectral", "steps": 64, "reverse": True, "exponent": 0.5, "fill": "red"},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
    }
    shown = target(expr, "{{le}}", format="heatmap", exemplar=True)
    return panel("heatmap", title, "s", shown, width, 8, description, options)


def bars(title, unit, expr, legend, description="", width=8, **defaults):
    options = {
        "displayMode": "gradient",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showUnfilled": True,
        "valueMode": "color",
        "namePlacement": "auto",
        "sizing": "auto",
        "minVizHeight": 16,
        "minVizWidth": 8,
    }
    return panel("bargauge", title, unit, target(expr, legend, instant=True), width, 8, description, options, **defaults)


def variable(name, query, label):
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": f"variable-{name}"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0,
        "regex": "",
        "skipUrlSync": False,
    }


DATASOURCE = {
    "name": "datasource",
    "label": "Data source",
    "type": "datasource",
    "query": "prometheus",
    "current": {"text": "Prometheus", "value": "prometheus"},
    "hide": 0,
    "includeAll": False,
    "multi": False,
    "options": [],
    "refresh": 1,
    "regex": "",
    "skipUrlSync": False,
}


def dashboard(name, title, description, variables, rows):
    """`rows`: pairs of a title and its panels, which are laid out from left to right."""
    panels, y, number_of = [], 0, 1
    for heading, shown in rows:
        row = {"type": "row", "title": heading, "collapsed": False, "panels": [], "id": number_of}
        panels.append({**row, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y, x, tallest, number_of = y + 1, 0, 0, number_of + 1
        for it in shown:
            width, height = it["gridPos"]["w"], it["gridPos"]["h"]
            if x + width > 24:
                y, x, tallest = y + tallest, 0, 0
            panels.append({**it, "id": number_of, "gridPos": {"x": x, "y": y, "w": width, "h": height}})
            x, tallest, number_of = x + width, max(tallest, height), number_of + 1
        y += tallest
    alerts = {
        "name": "Alerts",
        "enable": True,
        "iconColor": "red",
        "datasource": SOURCE,
        "expr": 'ALERTS{alertname=~"Tenantry.*", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{tenant}} {{worker}} {{sink}}",
        "step": "60s",
    }
    links = {"type": "dashboards", "title": "Tenantry", "tags": ["tenantry"], "asDropdown": True, "includeVars": True}
    return {
        "uid": f"tenantry-{name}",
        "title": f"Tenantry / {title}",
        "description": description,
        "tags": ["tenantry"],
        "schemaVersion": 41,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{**links, "icon": "external link", "keepTime": True, "targetBlank": False, "tooltip": "", "url": ""}],
        "annotations": {"list": [alerts]},
        "templating": {"list": [DATASOURCE, *variables]},
        "panels": panels,
    }
