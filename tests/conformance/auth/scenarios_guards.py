"""Redirects and guards: options beyond first use."""
from auth_support import ready, told
from conformance import scenario


@scenario("request-termination")
def options(g):
    ready(g)
    plugin = g.plugin("request-termination", "/services/svc", status_code=200, content_type="application/vnd.x+json", body='{"a":1}').json
    patch = lambda **config: g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": config})
    g.proxy("GET", "/", keep="json body")
    g.proxy("HEAD", "/", keep="head")
    patch(body=None, content_type=None, message="héllo \"x\"", status_code=451)
    g.proxy("GET", "/", keep="message quoted")
    patch(status_code=204, message=None)
    g.proxy("GET", "/", keep="no content")
    for code in (301, 404, 413, 429, 500, 502, 599):
        patch(status_code=code)
        answer = g.proxy("GET", "/")
        g.keep(f"default message {code}", [answer.status, (answer.json or {}).get("message")])
    patch(status_code=200, message="m", echo=True)
    body = g.proxy("POST", "/p/q?a=1", {"X-In": "1", "Content-Type": "text/plain"}, body="in").json
    g.keep("echo", {"members": sorted(body), "request": {k: body["request"].get(k) for k in ("method", "path", "query", "body", "raw_body", "uri_captures", "scheme")} if isinstance(body.get("request"), dict) else body.get("request")})
    g.keep("content type without body", g.plugin("request-termination", "/routes/rt", content_type="text/html").status)
    g.plugin("request-termination", "/routes/rt", status_code=99, keep="status too small")
    g.plugin("request-termination", "/routes/rt", message="m", content_type="text/html", keep="message and content type")


@scenario("redirect")
def options(g):
    ready(g, paths=["/r"])
    plugin = g.plugin("redirect", "/routes/rt", location="https://new.test/base?k=v", keep_incoming_path=True).json
    g.proxy("GET", "/r/a%20b?x=1&y", keep="incoming path kept")
    g.proxy("GET", "/r", keep="no query")
    for code in (200, 302, 303, 307, 308, 599):
        g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"status_code": code, "keep_incoming_path": False}})
        g.proxy("POST", "/r?x=1", body="b", keep=f"status {code}")
    g.plugin("redirect", "/services/svc", keep="no location")
    g.plugin("redirect", "/services/svc", location="/relative", keep="relative location")
    g.plugin("redirect", "/services/svc", location="https://x.test", status_code=600, keep="bad status")


@scenario("cors")
def odds(g):
    ready(g)
    plugin = g.plugin("cors", "/services/svc", origins=["http://a.test"], methods=["GET"], headers=["X-One", "X-Two"], exposed_headers=["X-E1", "X-E2"], max_age=0).json
    patch = lambda **config: g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": config})
    ask = {"Origin": "http://a.test", "Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "X-Three"}
    g.proxy("OPTIONS", "/", ask, keep="one origin, preflight")
    g.proxy("GET", "/?__body=x", {"Origin": "http://other.test"}, keep="one origin, other asks")
    g.proxy("GET", "/?__body=x", {"Origin": "HTTP://A.TEST"}, keep="origin in capitals")
    g.proxy("GET", "/?__body=x&__header=Access-Control-Allow-Origin:upstream&__header=Vary:Accept", {"Origin": "http://a.test"}, keep="upstream sets its own")
    patch(origins=["http://a.test", "http://b.test"], headers=None, exposed_headers=None, max_age=None)
    g.proxy("OPTIONS", "/", ask, keep="two origins, preflight")
    g.proxy("GET", "/?__body=x", {"Origin": "http://b.test"}, keep="two origins, second")
    g.proxy("GET", "/?__body=x", {"Origin": "http://c.test"}, keep="two origins, neither")
    g.proxy("GET", "/?__body=x", keep="two origins, no origin")
    patch(origins=[".*\\.a\\.test(:\\d+)?$"])
    g.proxy("GET", "/?__body=x", {"Origin": "http://x.a.test:81"}, keep="pattern")
    g.proxy("GET", "/?__body=x", {"Origin": "http://xa.test"}, keep="pattern misses")
    patch(origins=["*", "http://a.test"])
    g.proxy("GET", "/?__body=x", {"Origin": "http://z.test"}, keep="star in a list")
    patch(origins=["*"], credentials=True)
    g.proxy("OPTIONS", "/", {**ask, "Origin": "null"}, keep="star, credentials, null")
    patch(origins=["http://a.test"], credentials=False, allow_origin_absent=False)
    g.proxy("GET", "/?__body=x", keep="absent origin not allowed")
    g.proxy("OPTIONS", "/", {"Origin": "http://a.test"}, keep="options that is no preflight")
    g.plugin("cors", "/routes/rt", origins=["("], keep="bad pattern")
    g.plugin("cors", "/routes/rt", methods=["PURGE"], keep="unknown method")


@scenario("ip-restriction")
def ranges(g):
    ready(g)
    plugin = g.plugin("ip-restriction", "/services/svc", allow=["127.0.0.1/32", "::1", "2001:db8::/32"], keep="v6 accepted").json
    patch = lambda **config: g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": config})
    g.keep("allowed", told(g.proxy("GET", "/")))
    patch(allow=["2001:db8::/32"])
    g.keep("v6 only", told(g.proxy("GET", "/")))
    patch(allow=["127.0.0.0/8"], deny=["127.0.0.0/30"])
    g.keep("both lists, deny wins", told(g.proxy("GET", "/")))
    patch(deny=["127.0.0.2"])
    g.keep("both lists", told(g.proxy("GET", "/")))
    patch(allow=["0.0.0.0/0"], deny=None)
    g.keep("everybody", told(g.proxy("GET", "/")))
    patch(allow=None, deny=["10.0.0.0/8"])
    g.keep("deny others", told(g.proxy("GET", "/", {"X-Forwarded-For": "10.1.1.1", "X-Real-Ip": "10.1.1.1"})))
    for value in ("127.0.0.1/33", "127.0.0", "::1/129", "localhost", "", "127.0.0.1-127.0.0.9", "::ffff:127.0.0.1", "127.0.0.1/24"):
        answer = g.plugin("ip-restriction", "/routes/rt", allow=[value])
        g.keep(f"config {value}", {"status": answer.status, "fields": (answer.json or {}).get("fields")})
        if answer.status == 201:
            g.admin("DELETE", f"/plugins/{answer.json['id']}")
    g.plugin("ip-restriction", "/routes/rt", keep="neither list")


@scenario("request-size-limiting")
def units(g):
    ready(g)
    plugin = g.plugin("request-size-limiting", "/services/svc", allowed_payload_size=3, size_unit="bytes").json
    patch = lambda **config: g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": config})
    post = lambda n, headers=None: told(g.proxy("POST", "/", headers, body="x" * n))
    g.keep("bytes", [post(3), post(4)])
    patch(size_unit="kilobytes", allowed_payload_size=2)
    g.keep("kilobytes", [post(2048)["status"], post(2049)["status"]])
    patch(size_unit="megabytes", allowed_payload_size=1)
    g.keep("megabytes", [post(1048576)["status"], post(1048577)["status"]])
    patch(size_unit="bytes", allowed_payload_size=3, require_content_length=True)
    g.keep("get without a length", told(g.proxy("GET", "/")))
    g.keep("post without a length", told(g.proxy("POST", "/", [("Transfer-Encoding", "chunked")], body="0\r\n\r\n")))
    g.keep("zero", told(g.proxy("POST", "/", body="")))
    g.plugin("request-size-limiting", "/routes/rt", size_unit="gigabytes", keep="unknown unit")
