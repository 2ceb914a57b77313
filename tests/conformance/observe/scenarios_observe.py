"""What a gateway reports: log plugins and metrics, as their receivers see it."""
import json
import os
import time

from conformance import scenario
import sinks
from sinks import call, consumer, entry, of_service, ready, samples, show, wait_file


# ---- file-log

@scenario("file-log")
def appended(g):
    ready(g)
    path = f"/tmp/conformance-file-{os.getpid()}-{time.time_ns()}.log"
    g.keep("plugin", {**g.plugin("file-log", "/services/svc", path=path, custom_fields_by_lua={"mine": "return 'v'"}).json["config"], "path": "<path>"})
    call(g, "/a?__body=ok")
    call(g, "/b?__body=ok")
    text = wait_file(path, 2)
    g.keep("uris", [json.loads(t)["upstream_uri"] for t in text.splitlines()])
    g.keep("ends in newline", text.endswith("}\n"))
    g.keep("entry", entry(g, json.loads(text.splitlines()[0]), exact=("request.size",)))
    g.keep("mode", oct(os.stat(path).st_mode & 0o777))
    sinks.remove(path)
    g.plugin("file-log", "", path="/tmp/", keep="bad path")


# ---- prometheus

@scenario("prometheus")
def everything_on(g):
    name = f"prom{time.time_ns()}"
    g.service(name)
    g.admin("POST", f"/services/{name}/routes", {"name": f"{name}-rt", "paths": ["/"]})
    g.keep("plugin", g.plugin("prometheus", "", status_code_metrics=True, latency_metrics=True, bandwidth_metrics=True, upstream_health_metrics=True, per_consumer=True).json["config"])
    consumer(g, custom_id="b-1")
    for _ in range(2):
        call(g, headers={"apikey": "k"})
    call(g, "/p?__status=404&__body=no", headers={"apikey": "k"})
    call(g)
    total = lambda got: sum(v for (m, _), v in got.items() if m == "kong_http_requests_total")
    count = lambda got: sum(v for (m, _), v in got.items() if m == "kong_request_latency_ms_count")
    mine, got, kinds = of_service(g, name, lambda got: total(got) >= 4 and count(got) >= 4)
    exact = lambda m, l: not (m.endswith("_sum") or l.get("direction") == "egress")
    g.keep("samples", show(mine, name, exact))
    g.keep("types", {k: v for k, v in kinds.items() if k.startswith("kong_") and not k.startswith(("kong_stream_", "kong_wasm_", "kong_ai_"))})
    g.keep("labels", {m: sorted(k for k, _ in labels) for (m, labels) in got if m.startswith("kong_") and m != "kong_upstream_target_health" and not m.startswith(("kong_stream_", "kong_wasm_", "kong_ai_"))})
    g.keep("content type", g.admin("GET", "/metrics").header("content-type"))
    g.keep("states of connections", sorted({dict(l)["state"] for m, l in got if m == "kong_nginx_connections_total"}))
    g.keep("states of timers", sorted({dict(l)["state"] for m, l in got if m == "kong_nginx_timers"}))
    g.keep("datastore", [v for (m, _), v in got.items() if m == "kong_datastore_reachable"])


@scenario("prometheus")
def only_defaults(g):
    name = f"prom{time.time_ns()}"
    g.service(name)
    g.admin("POST", f"/services/{name}/routes", {"name": f"{name}-rt", "paths": ["/"]})
    g.plugin("prometheus", "", keep="plugin")
    call(g)
    time.sleep(1.5)
    got, kinds = samples(g)
    g.keep("of the service", show({k: v for k, v in got.items() if ("service", name) in k[1]}, name, lambda m, l: True))
    g.keep("always there", sorted({m for m, _ in got if m in (
        "kong_datastore_reachable", "kong_memory_lua_shared_dict_bytes", "kong_memory_lua_shared_dict_total_bytes", "kong_memory_workers_lua_vms_bytes",
        "kong_nginx_connections_total", "kong_nginx_metric_errors_total", "kong_nginx_requests_total", "kong_nginx_timers", "kong_node_info")}))


@scenario("prometheus")
def health_of_targets(g):
    name = f"up{time.time_ns()}"
    g.admin("POST", "/upstreams", {"name": name, "healthchecks": {"passive": {"unhealthy": {"http_failures": 1}}}})
    for port in g.ports[:2]:
        g.admin("POST", f"/upstreams/{name}/targets", {"target": f"{g.host}:{port}"})
    g.admin("POST", "/services", {"name": "svc", "host": name})
    g.route()
    g.plugin("prometheus", "", upstream_health_metrics=True)
    g.mode(g.ports[0], 500)
    for _ in range(6):
        call(g)
    end = time.time() + sinks.WAIT
    while time.time() < end:
        got, _ = samples(g)
        mine = {k: v for k, v in got.items() if k[0] == "kong_upstream_target_health" and ("upstream", name) in k[1]}
        if any(v for (_, l), v in mine.items() if ("state", "unhealthy") in l):
            break
        time.sleep(0.2)
    g.keep("samples", [sinks.ports(g, line) for line in show(mine, name, lambda m, l: True)])
