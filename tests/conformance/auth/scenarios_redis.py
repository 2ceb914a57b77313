"""Limits whose counters are in Redis: a redis-server of our own on loopback."""
import time

from auth_support import Redis, ready, redis_server
from conformance import REDIS_PORTS, scenario

PORT, LOCKED, DEAD = REDIS_PORTS


def young(seconds=20):
    left = 60 - time.time() % 60
    if left < seconds:
        time.sleep(left + 0.2)


def limits(answer):
    """Status and limit headers, the moments in them only as sane or not."""
    out = {"status": answer.status}
    for name, value in sorted(answer.headers):
        low = name.lower()
        if low in ("ratelimit-reset", "retry-after"):
            out[low] = 0 < int(value) <= 60
        elif "ratelimit" in low:
            out[low] = value
    if answer.status != 200:
        out["body"] = answer.json if answer.json is not None else answer.text
    return out


def redis_config(**more):
    return {"host": "127.0.0.1", "port": PORT, **more}


def settled(g, *a, **k):
    """A call, and time for its counter to be written."""
    answer = g.proxy(*a, **k)
    time.sleep(0.15)
    return answer


@scenario("rate-limiting-redis")
def counters(g):
    ready(g)
    with redis_server(PORT):
        g.plugin("rate-limiting", "/services/svc", minute=3, hour=100, policy="redis", redis=redis_config(), keep="plugin")
        young()
        for i in range(4):
            g.keep(f"{i}", limits(settled(g, "GET", "/")))
        g.keep("keys", Redis(PORT).counters(g))


@scenario("rate-limiting-redis")
def plugin_on_a_route_and_global(g):
    ready(g)
    with redis_server(PORT):
        plugin = g.plugin("rate-limiting", "/routes/rt", minute=3, policy="redis", redis=redis_config()).json
        young()
        g.keep("on a route", limits(settled(g, "GET", "/")))
        g.keep("its keys", Redis(PORT).counters(g))
        Redis(PORT)("FLUSHALL")
        g.admin("DELETE", f"/plugins/{plugin['id']}")
        g.plugin("rate-limiting", "", minute=3, policy="redis", redis=redis_config())
        g.keep("global", limits(settled(g, "GET", "/")))
        g.keep("its keys too", Redis(PORT).counters(g))


@scenario("rate-limiting-redis")
def limit_by(g):
    ready(g)
    g.admin("PUT", "/consumers/nobody", {})
    g.plugin("key-auth", "/services/svc", anonymous="nobody")
    g.admin("PUT", "/consumers/bob", {})
    g.admin("POST", "/consumers/bob/key-auth", {"key": "k1"})
    g.admin("POST", "/consumers/bob/key-auth", {"key": "k2"})
    with redis_server(PORT):
        plugin = g.plugin("rate-limiting", "/services/svc", minute=9, policy="redis", redis=redis_config()).json
        for by, more in (("consumer", {}), ("credential", {}), ("ip", {}), ("service", {}), ("header", {"header_name": "x-who"}), ("path", {"path": "/here"})):
            g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"limit_by": by, **more}})
            g.settle()
            Redis(PORT)("FLUSHALL")
            young()
            for path, headers in (("/here", {"apikey": "k1"}), ("/here", {"apikey": "k2", "X-Who": "me"}), ("/there", {"X-Who": "me"})):
                settled(g, "GET", path, headers)
            g.keep(by, Redis(PORT).counters(g))


@scenario("rate-limiting-redis")
def redis_down(g):
    ready(g)
    plugin = g.plugin("rate-limiting", "/services/svc", minute=2, policy="redis", redis=redis_config(port=DEAD, timeout=500), fault_tolerant=True).json
    g.keep("tolerated", [limits(g.proxy("GET", "/")) for _ in range(3)])
    g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"fault_tolerant": False}})
    g.keep("not tolerated", limits(g.proxy("GET", "/")))


@scenario("rate-limiting-redis")
def own_answer_and_hiding(g):
    ready(g)
    with redis_server(PORT):
        plugin = g.plugin("rate-limiting", "/services/svc", minute=1, policy="redis", redis=redis_config(), error_code=403, error_message="enough").json
        young()
        settled(g, "GET", "/")
        g.keep("own answer", limits(g.proxy("GET", "/")))
        g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"hide_client_headers": True}})
        g.keep("hidden", limits(g.proxy("GET", "/")))


@scenario("rate-limiting-redis")
def sync_rate(g):
    ready(g)
    with redis_server(PORT):
        g.plugin("rate-limiting", "/services/svc", minute=5, policy="redis", redis=redis_config(), sync_rate=0.5)
        young(25)
        g.keep("counted", [limits(settled(g, "GET", "/")) for _ in range(3)])
        time.sleep(1.5)
        g.keep("keys", Redis(PORT).counters(g))
        g.keep("goes on", limits(g.proxy("GET", "/")))
        time.sleep(1.2)  # nothing left to be written when this Redis goes away


@scenario("rate-limiting-redis")
def password_and_database(g):
    ready(g)
    with redis_server(LOCKED, "--requirepass", "pw"):
        plugin = g.plugin("rate-limiting", "/services/svc", minute=5, policy="redis", redis=redis_config(port=LOCKED, password="pw", database=3)).json
        g.keep("shown by admin", {k: plugin["config"]["redis"][k] for k in ("host", "port", "password", "database", "username", "ssl", "timeout")})
        young()
        g.keep("counted", limits(settled(g, "GET", "/")))
        g.keep("database 3", Redis(LOCKED, "pw", 3).counters(g))
        g.keep("database 0", Redis(LOCKED, "pw").counters(g))


@scenario("rate-limiting-redis")
def configuration(g):
    ready(g)
    g.plugin("rate-limiting", "/services/svc", minute=5, policy="redis", keep="no host")
    g.plugin("rate-limiting", "/services/svc", policy="local", keep="no window")
    g.plugin("rate-limiting", "/services/svc", minute=5, hour=3, policy="local", keep="larger window, smaller limit")
    g.plugin("rate-limiting", "/services/svc", minute=5, limit_by="header", policy="local", keep="no header name")
    g.plugin("rate-limiting", "/services/svc", minute=5, limit_by="path", policy="local", keep="no path")
    g.plugin("rate-limiting", "/services/svc", minute=0, policy="local", keep="zero")
    g.plugin("rate-limiting", "/services/svc", minute=5, policy="redis", redis_host="127.0.0.1", redis_port=PORT, keep="old names")


@scenario("response-ratelimiting-redis")
def counters_by_upstream(g):
    ready(g)
    with redis_server(PORT):
        g.plugin("response-ratelimiting", "/services/svc", policy="redis", redis=redis_config(), limits={"video": {"minute": 4, "hour": 100}, "sms": {"minute": 2}}, keep="plugin")
        young()
        for i, use in enumerate(("video=1", "video=2,sms=1", "sms=1", "sms=1", "video=9", "video=1", "other=5", "video=x", "video=-2")):
            answer = settled(g, "GET", "/?__header=X-Kong-Limit:" + use.replace("=", "%3D"))
            g.keep(f"{i} {use}", limits(answer))
        upstream = g.proxy("GET", "/").json
        g.keep("upstream told", sorted([n, v] for n, v in upstream["headers"] if "ratelimit" in n) if "headers" in upstream else upstream)
        g.keep("keys", Redis(PORT).counters(g))


@scenario("response-ratelimiting-redis")
def redis_down(g):
    ready(g)
    plugin = g.plugin("response-ratelimiting", "/services/svc", policy="redis", redis=redis_config(port=DEAD, timeout=500), limits={"video": {"minute": 1}}, fault_tolerant=True).json
    g.keep("tolerated", limits(g.proxy("GET", "/?__header=X-Kong-Limit:video%3D1")))
    g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"fault_tolerant": False}})
    g.keep("not tolerated", limits(g.proxy("GET", "/?__header=X-Kong-Limit:video%3D1")))
