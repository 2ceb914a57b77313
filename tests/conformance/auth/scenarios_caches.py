"""Caches: options beyond first use."""
import time

from auth_support import ready
from conformance import scenario


@scenario("proxy-cache")
def wildcards_and_toggles(g):
    ready(g)
    plugin = g.plugin("proxy-cache", "/services/svc", strategy="memory", content_type=["text/*", "application/json"], response_code=[200, 203], cache_ttl=60, ignore_uri_case=True, response_headers={"age": False, "X-Cache-Status": True, "X-Cache-Key": False}, keep="plugin").json
    status = lambda path, method="GET", **k: g.proxy(method, path, **k).header("x-cache-status")
    g.keep("text/html", [status("/a?__body=x&__header=Content-Type:text/html") for _ in range(2)])
    g.keep("text with a parameter", [status("/b?__body=x&__header=Content-Type:text/html;%20charset%3Dutf-8") for _ in range(2)])
    g.keep("json", [status("/c") for _ in range(2)])
    g.keep("json with a charset", [status("/d?__header=Content-Type:application/json;%20charset%3Dutf-8") for _ in range(2)])
    g.keep("xml", [status("/e?__header=Content-Type:application/xml") for _ in range(2)])
    g.keep("203", [status("/f?__status=203") for _ in range(2)])
    g.keep("204", [status("/g?__status=204") for _ in range(2)])
    g.keep("404", [status("/h?__status=404") for _ in range(2)])
    g.keep("other case", [status("/Case?X=1"), status("/case?X=1"), status("/CASE?x=1")])
    answer = g.proxy("GET", "/c")
    g.keep("headers told", {n: answer.header(n) is not None for n in ("age", "x-cache-status", "x-cache-key")})
    g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"response_headers": {"age": True, "X-Cache-Status": False, "X-Cache-Key": True}}})
    answer = g.proxy("GET", "/c")
    g.keep("headers told otherwise", {n: answer.header(n) is not None for n in ("age", "x-cache-status", "x-cache-key")})
    g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"ignore_uri_case": False, "content_type": ["*/*"], "request_method": ["GET", "POST", "HEAD"], "response_headers": {"X-Cache-Status": True}}})
    g.keep("any type", [status("/i?__header=Content-Type:image/png&__body=x") for _ in range(2)])
    g.keep("post", [status("/i?__body=x", "POST", body="1"), status("/i?__body=x", "POST", body="1"), status("/i?__body=x", "POST", body="2")])
    g.keep("head after get", [status("/j?__body=x"), status("/j?__body=x", "HEAD")])
    g.keep("case matters", [status("/Kase?__body=x"), status("/kase?__body=x")])


@scenario("proxy-cache")
def keys_and_vary(g):
    ready(g)
    g.plugin("key-auth", "/services/svc", key_in_header=True, anonymous=g.admin("PUT", "/consumers/nobody", {}).json["id"])
    g.admin("PUT", "/consumers/bob", {})
    g.admin("POST", "/consumers/bob/key-auth", {"key": "k"})
    g.plugin("proxy-cache", "/services/svc", strategy="memory", content_type=["text/plain"], vary_headers=["x-b", "x-a"], vary_query_params=["__body", "q", "a"])
    key = lambda path, headers=None: g.proxy("GET", path, headers).header("x-cache-key")
    base = key("/p?__body=x&q=1&a=2")
    g.keep("same key", {
        "other order": key("/p?a=2&q=1&__body=x") == base, "unlisted argument": key("/p?__body=x&q=1&a=2&z=9") == base, "unlisted header": key("/p?__body=x&q=1&a=2", {"X-Z": "1"}) == base, "listed header": key("/p?__body=x&q=1&a=2", {"X-A": "1"}) == base,
        "listed argument": key("/p?__body=x&q=1&a=3") == base, "consumer": key("/p?__body=x&q=1&a=2", {"apikey": "k"}) == base, "path": key("/p/?__body=x&q=1&a=2") == base, "host": key("/p?__body=x&q=1&a=2", {"Host": "other.test"}) == base})
    g.keep("length", len(base))


@scenario("proxy-cache")
def storage_ttl(g):
    ready(g)
    g.plugin("proxy-cache", "/services/svc", strategy="memory", content_type=["text/plain"], cache_ttl=1, storage_ttl=30)
    call = lambda: g.proxy("GET", "/s?__body=x")
    g.keep("first", [call().header("x-cache-status"), call().header("x-cache-status")])
    time.sleep(3.1)
    g.keep("after the ttl", [call().header("x-cache-status"), call().header("x-cache-status")])
    g.plugin("proxy-cache", "/routes/rt", strategy="disk", keep="unknown strategy")
    g.plugin("proxy-cache", "/routes/rt", keep="no strategy")
    g.plugin("proxy-cache", "/routes/rt", strategy="memory", response_code=[99], keep="bad code")
    g.plugin("proxy-cache", "/routes/rt", strategy="memory", memory={"dictionary_name": "nope"}, keep="unknown dictionary")
    g.plugin("proxy-cache", "/routes/rt", strategy="memory", cache_ttl=0, keep="zero ttl")
