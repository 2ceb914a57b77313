"""Authentication plugins beyond their first use: options, challenges, what the upstream is told."""
import base64
import hashlib
import hmac
import time
from email.utils import formatdate

from auth_support import Signer, ready, seen, tampered, told
from conformance import basic, jwt_hs, scenario


# --- basic-auth

@scenario("basic-auth")
def realm_and_shapes(g):
    ready(g)
    g.plugin("basic-auth", "/services/svc", realm="shop", keep="plugin")
    g.admin("PUT", "/consumers/bob", {"custom_id": "b-7"})
    g.admin("POST", "/consumers/bob/basic-auth", {"username": "bob", "password": "p:w"})
    encode = lambda text: base64.b64encode(text.encode()).decode()
    for name, headers in {
        "none": {}, "right": {"Authorization": basic("bob", "p:w")}, "wrong": {"Authorization": basic("bob", "pw")},
        "unknown user": {"Authorization": basic("eve", "p:w")}, "lower case scheme": {"Authorization": "basic " + encode("bob:p:w")},
        "upper case scheme": {"Authorization": "BASIC " + encode("bob:p:w")}, "two spaces": {"Authorization": "Basic  " + encode("bob:p:w")},
        "no colon": {"Authorization": "Basic " + encode("bob")}, "no password": {"Authorization": "Basic " + encode("bob:")},
        "no username": {"Authorization": "Basic " + encode(":p:w")}, "not base64": {"Authorization": "Basic %%%"}, "other scheme": {"Authorization": "Bearer " + encode("bob:p:w")},
        "proxy-authorization": {"Proxy-Authorization": basic("bob", "p:w")}, "proxy-authorization wrong": {"Proxy-Authorization": basic("bob", "x"), "Authorization": basic("bob", "p:w")},
        "scheme alone": {"Authorization": "Basic"}, "empty": {"Authorization": ""},
    }.items():
        g.keep(name, told(g.proxy("GET", "/", headers)))


@scenario("basic-auth")
def credentials_by_admin(g):
    ready(g)
    g.plugin("basic-auth", "/services/svc")
    g.admin("PUT", "/consumers/bob", {})
    made = g.admin("POST", "/consumers/bob/basic-auth", {"username": "bob", "password": "one", "tags": ["t"]})
    body = made.json
    g.keep("made", {"status": made.status, "members": sorted(body), "password hidden": body["password"] != "one", "length": len(body["password"])})
    again = g.admin("POST", "/consumers/bob/basic-auth", {"username": "bob", "password": "two"})
    g.keep("username taken", {"status": again.status, "name": again.json["name"], "fields": again.json["fields"]})
    g.admin("POST", "/consumers/bob/basic-auth", {"username": "bob2"}, keep="no password")
    g.admin("POST", "/consumers/bob/basic-auth", {"password": "x"}, keep="no username")
    g.keep("one", g.proxy("GET", "/", {"Authorization": basic("bob", "one")}).status)
    g.keep("patch", g.admin("PATCH", "/consumers/bob/basic-auth/bob", {"password": "two"}).status)
    g.keep("old password", g.proxy("GET", "/", {"Authorization": basic("bob", "one")}).status)
    g.keep("new password", g.proxy("GET", "/", {"Authorization": basic("bob", "two")}).status)
    g.keep("listed", [g.admin("GET", "/basic-auths").status, len(g.admin("GET", "/basic-auths").json["data"]), g.admin("GET", "/basic-auths/bob/consumer").json["username"]])
    g.keep("delete", g.admin("DELETE", f"/consumers/bob/basic-auth/{body['id']}").status)
    g.keep("after", g.proxy("GET", "/", {"Authorization": basic("bob", "two")}).status)


@scenario("basic-auth")
def hidden_or_not(g):
    ready(g)
    plugin = g.plugin("basic-auth", "/services/svc").json
    g.admin("PUT", "/consumers/bob", {})
    g.admin("POST", "/consumers/bob/basic-auth", {"username": "bob", "password": "pw"})
    sent = {"Authorization": basic("bob", "pw")}
    g.keep("passed on", seen(g.proxy("GET", "/", sent), "authorization"))
    g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"hide_credentials": True}})
    g.keep("hidden", seen(g.proxy("GET", "/", sent), "authorization"))


# --- key-auth

@scenario("key-auth")
def realm_anonymous_preflight(g):
    ready(g)
    g.admin("PUT", "/consumers/nobody", {"custom_id": "n"})
    plugin = g.plugin("key-auth", "/services/svc", realm="shop", key_names=["k1", "k2"], run_on_preflight=False, keep="plugin").json
    g.admin("PUT", "/consumers/bob", {})
    g.admin("POST", "/consumers/bob/key-auth", {"key": "good"})
    g.keep("none", told(g.proxy("GET", "/")))
    g.keep("wrong", told(g.proxy("GET", "/", {"k1": "x"})))
    g.keep("second name", told(g.proxy("GET", "/", {"k2": "good"})))
    g.keep("first name wins", told(g.proxy("GET", "/", {"k1": "bad", "k2": "good"})))
    g.keep("header before query", told(g.proxy("GET", "/?k1=bad", {"k1": "good"})))
    g.keep("query of one, header of other", told(g.proxy("GET", "/?k1=bad", {"k2": "good"})))
    g.keep("empty", told(g.proxy("GET", "/", {"k1": ""})))
    g.keep("name in capitals", told(g.proxy("GET", "/", {"K1": "good"})))
    g.keep("query name in capitals", told(g.proxy("GET", "/?K1=good")))
    g.keep("key twice in query", told(g.proxy("GET", "/?k1=good&k1=good")))
    g.keep("preflight free", g.proxy("OPTIONS", "/").status)
    g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"anonymous": "nobody", "run_on_preflight": True}})
    g.keep("anonymous by username", told(g.proxy("GET", "/")))
    g.keep("wrong is anonymous too", told(g.proxy("GET", "/", {"k1": "x"})))
    g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"anonymous": "missing"}})
    g.keep("no such anonymous", told(g.proxy("GET", "/")))


@scenario("key-auth")
def hidden_everywhere(g):
    ready(g)
    g.plugin("key-auth", "/services/svc", hide_credentials=True, key_in_body=True)
    g.admin("PUT", "/consumers/bob", {})
    g.admin("POST", "/consumers/bob/key-auth", {"key": "good"})
    answer = g.proxy("GET", "/p?a=1&apikey=good&b=2")
    g.keep("query", answer.json["uri"])
    answer = g.proxy("POST", "/p", {"Content-Type": "application/json"}, body='{"apikey":"good","x":1}')
    g.keep("json body", [answer.status, answer.json.get("body")])
    answer = g.proxy("POST", "/p", {"Content-Type": "application/x-www-form-urlencoded"}, body="apikey=good&x=1")
    g.keep("form body", [answer.status, answer.json.get("body")])
    multipart = '--b\r\nContent-Disposition: form-data; name="apikey"\r\n\r\ngood\r\n--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n'
    answer = g.proxy("POST", "/p", {"Content-Type": "multipart/form-data; boundary=b"}, body=multipart)
    g.keep("multipart body", [answer.status, "good" in answer.json.get("body", "")])
    answer = g.proxy("POST", "/p", {"Content-Type": "text/plain"}, body="apikey=good")
    g.keep("plain body", told(answer))


@scenario("key-auth")
def credentials_by_admin(g):
    g.admin("PUT", "/consumers/bob", {})
    made = g.admin("POST", "/consumers/bob/key-auth", {})
    g.keep("generated", {"status": made.status, "members": sorted(made.json), "length": len(made.json["key"])})
    g.admin("POST", "/consumers/bob/key-auth", {"key": "mine", "ttl": 1000, "tags": ["a"]})
    got = g.admin("GET", "/consumers/bob/key-auth/mine").json
    g.keep("by key", {"key": got["key"], "ttl within": 0 < got["ttl"] <= 1000, "tags": got["tags"]})
    again = g.admin("POST", "/consumers/bob/key-auth", {"key": "mine"})
    g.keep("taken", {"status": again.status, "name": again.json["name"], "fields": again.json["fields"]})
    g.keep("consumer of", g.admin("GET", "/key-auths/mine/consumer").json["username"])
    g.keep("put", [g.admin("PUT", "/consumers/bob/key-auth/other", {}).status, g.admin("GET", "/key-auths/other").json["key"]])
    g.keep("by tag", [row["key"] for row in g.admin("GET", "/key-auths?tags=a").json["data"]])
    g.keep("unknown", g.admin("GET", "/consumers/bob/key-auth/none").status)
    g.keep("of unknown consumer", g.admin("POST", "/consumers/eve/key-auth", {"key": "z"}).status)
    g.admin("DELETE", "/consumers/bob")
    g.keep("gone with the consumer", len(g.admin("GET", "/key-auths").json["data"]))


# --- hmac-auth

def signed(g, names, method="GET", path="/", body=None, secret="s3cret", algorithm="hmac-sha256", user="bob", skew=0, header="Authorization", extra=None, date_name="Date", scheme="hmac", proto="HTTP/1.1", date=None):
    date = date or formatdate(time.time() + skew, usegmt=True)
    headers = {date_name: date, **(extra or {})}
    lower = {k.lower(): v for k, v in headers.items()}
    lower["host"] = "h.test"
    lines = []
    for name in names.split(" "):
        if name == "request-line":
            lines.append(f"{method} {path} {proto}")
        elif name == "@request-target":
            lines.append(f"@request-target: {method.lower()} {path}")
        else:
            lines.append(f"{name}: {lower[name]}" if name in lower else f"{name}:")
    digest = getattr(hashlib, algorithm.split("-")[1], hashlib.sha256)
    signature = base64.b64encode(hmac.new(secret.encode(), "\n".join(lines).encode(), digest).digest()).decode()
    headers["Host"] = "h.test"
    headers[header] = f'{scheme} username="{user}", algorithm="{algorithm}", headers="{names}", signature="{signature}"'
    return g.proxy(method, path, headers, body=body)


@scenario("hmac-auth")
def algorithms_and_parts(g):
    ready(g)
    g.plugin("hmac-auth", "/services/svc", keep="plugin")
    g.admin("PUT", "/consumers/bob", {"custom_id": "b-7"})
    g.admin("POST", "/consumers/bob/hmac-auth", {"username": "bob", "secret": "s3cret"})
    for algorithm in ("hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-md5"):
        g.keep(algorithm, told(signed(g, "date", algorithm=algorithm)))
    g.keep("request-line", told(signed(g, "date request-line", path="/a/b?x=1&y=%20z")))
    g.keep("request-target", told(signed(g, "date @request-target", path="/a/b?x=1")))
    g.keep("post request-target", told(signed(g, "@request-target date", method="POST", path="/a", body="x")))
    g.keep("host", told(signed(g, "date host")))
    g.keep("own header", told(signed(g, "date x-own", extra={"X-Own": "v"})))
    g.keep("absent header counts as empty", told(signed(g, "date x-none")))
    g.keep("other order", told(signed(g, "host date")))
    g.keep("x-date", told(signed(g, "x-date", date_name="X-Date")))
    g.keep("proxy-authorization", told(signed(g, "date", header="Proxy-Authorization")))
    g.keep("Hmac", told(signed(g, "date", scheme="Hmac")))
    g.keep("HMAC", told(signed(g, "date", scheme="HMAC")))
    g.keep("wrong secret", told(signed(g, "date", secret="other")))
    g.keep("unknown user", told(signed(g, "date", user="eve")))
    g.keep("no date", told(g.proxy("GET", "/", {"Authorization": 'hmac username="bob", algorithm="hmac-sha256", headers="date", signature="x"'})))
    g.keep("late", told(signed(g, "date", skew=-301)))
    g.keep("early", told(signed(g, "date", skew=310)))
    g.keep("within", signed(g, "date", skew=-200).status)
    g.keep("date is no date", told(signed(g, "date", date="yesterday")))


@scenario("hmac-auth")
def enforced_realm_anonymous(g):
    ready(g)
    g.admin("PUT", "/consumers/nobody", {})
    plugin = g.plugin("hmac-auth", "/services/svc", realm="shop", enforce_headers=["date", "@request-target", "host"], algorithms=["hmac-sha384"], hide_credentials=True, keep="plugin").json
    g.admin("PUT", "/consumers/bob", {})
    g.admin("POST", "/consumers/bob/hmac-auth", {"username": "bob", "secret": "s3cret"})
    g.keep("all", told(signed(g, "date @request-target host", algorithm="hmac-sha384", path="/p?q=1")))
    g.keep("hidden", seen(signed(g, "host @request-target date", algorithm="hmac-sha384"), "authorization"))
    g.keep("one missing", told(signed(g, "date host", algorithm="hmac-sha384")))
    g.keep("algorithm not allowed", told(signed(g, "date @request-target host")))
    g.keep("none", told(g.proxy("GET", "/")))
    g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"anonymous": "nobody"}})
    g.keep("anonymous", told(g.proxy("GET", "/")))
    g.keep("anonymous for a bad signature", told(signed(g, "date @request-target host", algorithm="hmac-sha384", secret="x")))
    g.plugin("hmac-auth", "/routes/rt", clock_skew=0, keep="skew zero")
    g.plugin("hmac-auth", "/routes/rt", algorithms=["hmac-md5"], keep="unknown algorithm")


@scenario("hmac-auth")
def body_digest(g):
    ready(g)
    g.plugin("hmac-auth", "/services/svc", validate_request_body=True)
    g.admin("PUT", "/consumers/bob", {})
    g.admin("POST", "/consumers/bob/hmac-auth", {"username": "bob", "secret": "s3cret"})
    sha = lambda text, name="sha256": base64.b64encode(getattr(hashlib, name)(text.encode()).digest()).decode()
    call = lambda digest, body, names="date digest", method="POST": told(signed(g, names, method=method, path="/b", body=body, extra={} if digest is None else {"Digest": digest}))
    g.keep("right", call("SHA-256=" + sha("hello"), "hello"))
    g.keep("wrong", call("SHA-256=" + sha("other"), "hello"))
    g.keep("absent with a body", call(None, "hello", "date"))
    g.keep("absent without a body", call(None, None, "date", "GET"))
    g.keep("present without a body", call("SHA-256=" + sha(""), None, "date digest", "GET"))
    g.keep("sha-512", call("SHA-512=" + sha("hello", "sha512"), "hello"))
    g.keep("lower case name", call("sha-256=" + sha("hello"), "hello"))
    g.keep("unsigned digest", call("SHA-256=" + sha("hello"), "hello", "date"))


# --- jwt

@scenario("jwt")
def algorithm_matrix(g):
    ready(g)
    g.plugin("jwt", "/services/svc")
    g.admin("PUT", "/consumers/bob", {"custom_id": "b-7"})
    for algorithm in ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA"):
        signer = Signer(algorithm)
        made = g.admin("POST", "/consumers/bob/jwt", {"key": algorithm, "algorithm": algorithm, "rsa_public_key": signer.public})
        token = signer.sign({"iss": algorithm, "exp": 9999999999})
        g.keep(algorithm, {"made": made.status, "good": told(g.proxy("GET", "/", {"Authorization": f"Bearer {token}"})),
                           "tampered": told(g.proxy("GET", "/", {"Authorization": f"Bearer {tampered(token)}"}))})
        signer.close()
    for digest, algorithm in (("sha256", "HS256"), ("sha384", "HS384"), ("sha512", "HS512")):
        g.admin("POST", "/consumers/bob/jwt", {"key": algorithm, "algorithm": algorithm, "secret": "k" * 40})
        token = jwt_hs("k" * 40, {"iss": algorithm}, digest=digest)
        g.keep(algorithm, {"good": told(g.proxy("GET", "/", {"Authorization": f"Bearer {token}"})), "tampered": told(g.proxy("GET", "/", {"Authorization": f"Bearer {tampered(token)}"}))})


@scenario("jwt")
def key_claim_places(g):
    ready(g)
    plugin = g.plugin("jwt", "/services/svc", key_claim_name="kid", realm="shop").json
    for name in ("a", "b"):
        g.admin("PUT", f"/consumers/{name}", {})
        g.admin("POST", f"/consumers/{name}/jwt", {"key": name, "secret": "secret-" + name})
    bearer = lambda *a, **k: {"Authorization": "Bearer " + jwt_hs(*a, **k)}
    g.keep("in the header", told(g.proxy("GET", "/", bearer("secret-a", {"x": 1}, {"kid": "a"}))))
    g.keep("in the claims", told(g.proxy("GET", "/", bearer("secret-b", {"kid": "b"}))))
    g.keep("in both, claims'", told(g.proxy("GET", "/", bearer("secret-b", {"kid": "b"}, {"kid": "a"}))))
    g.keep("in both, header's", told(g.proxy("GET", "/", bearer("secret-a", {"kid": "b"}, {"kid": "a"}))))
    g.keep("nowhere", told(g.proxy("GET", "/", bearer("secret-a", {"iss": "a"}))))
    g.keep("empty", told(g.proxy("GET", "/", bearer("secret-a", {"kid": ""}))))
    g.keep("none at all", told(g.proxy("GET", "/")))
    g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"realm": None}})
    g.keep("no realm", told(g.proxy("GET", "/")))


@scenario("jwt")
def claims(g):
    ready(g)
    g.plugin("jwt", "/services/svc", claims_to_verify=["exp", "nbf"])
    g.admin("PUT", "/consumers/a", {})
    g.admin("POST", "/consumers/a/jwt", {"key": "a", "secret": "s"})
    now = int(time.time())
    for name, claims_ in {"both fine": {"exp": now + 60, "nbf": now - 60}, "no claims": {}, "exp only": {"exp": now + 60}, "expired": {"exp": now - 5, "nbf": now - 60}, "not before": {"exp": now + 99, "nbf": now + 60},
                          "both wrong": {"exp": now - 5, "nbf": now + 60}, "exp is text": {"exp": "soon", "nbf": now - 60}, "exp is digits as text": {"exp": str(now + 60), "nbf": now - 60},
                          "exp with a fraction": {"exp": now + 60.5, "nbf": now - 60}, "exp null": {"exp": None, "nbf": now - 60}}.items():
        g.keep(name, told(g.proxy("GET", "/", {"Authorization": "Bearer " + jwt_hs("s", {"iss": "a", **claims_})})))


@scenario("jwt")
def where_tokens_are_found(g):
    ready(g)
    g.admin("PUT", "/consumers/nobody", {})
    plugin = g.plugin("jwt", "/services/svc", cookie_names=["c1", "c2"], uri_param_names=["jwt", "t"], run_on_preflight=False, keep="plugin").json
    g.admin("PUT", "/consumers/a", {})
    g.admin("POST", "/consumers/a/jwt", {"key": "a", "secret": "s"})
    good, bad = jwt_hs("s", {"iss": "a"}), jwt_hs("x", {"iss": "a"})
    for name, (path, headers) in {
        "first query name": (f"/?jwt={good}", {}), "second query name": (f"/?t={good}", {}), "first cookie": ("/", {"Cookie": f"c1={good}"}), "second cookie": ("/", {"Cookie": f"x=1; c2={good}"}),
        "same token twice": (f"/?jwt={good}", {"Authorization": f"Bearer {good}"}), "two different tokens": (f"/?jwt={bad}", {"Authorization": f"Bearer {good}"}),
        "lower case bearer": ("/", {"Authorization": f"bearer {good}"}), "upper case bearer": ("/", {"Authorization": f"BEARER {good}"}), "no scheme": ("/", {"Authorization": good}), "basic scheme": ("/", {"Authorization": f"Basic {good}"}),
        "empty query": ("/?jwt=", {}), "query twice": (f"/?jwt={good}&jwt={good}", {}), "two parts": ("/", {"Authorization": "Bearer " + good.rsplit(".", 1)[0]}), "four parts": ("/", {"Authorization": f"Bearer {good}.x"}),
    }.items():
        g.keep(name, told(g.proxy("GET", path, headers)))
    g.keep("preflight free", g.proxy("OPTIONS", "/").status)
    g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"anonymous": "nobody"}})
    g.keep("anonymous", told(g.proxy("GET", "/")))
    g.keep("anonymous for a bad one", told(g.proxy("GET", "/", {"Authorization": f"Bearer {bad}"})))


@scenario("jwt")
def credentials_by_admin(g):
    g.admin("PUT", "/consumers/bob", {})
    made = g.admin("POST", "/consumers/bob/jwt", {})
    g.keep("generated", {"status": made.status, "members": sorted(made.json), "key": len(made.json["key"]), "secret": len(made.json["secret"]), "algorithm": made.json["algorithm"]})
    g.admin("POST", "/consumers/bob/jwt", {"algorithm": "RS256"}, keep="no public key")
    g.admin("POST", "/consumers/bob/jwt", {"algorithm": "HS1"}, keep="unknown algorithm")
    g.admin("POST", "/consumers/bob/jwt", {"algorithm": "ES256", "key": "es", "secret": "x"}, keep="es256 without a public key")
    g.admin("POST", "/consumers/bob/jwt", {"algorithm": "PS256", "rsa_public_key": "nope"}, keep="ps256 with a broken key")
    g.admin("POST", "/consumers/bob/jwt", {"key": "k", "secret": "s"})
    again = g.admin("POST", "/consumers/bob/jwt", {"key": "k"})
    g.keep("taken", {"status": again.status, "name": again.json["name"], "fields": again.json["fields"]})
    g.keep("endpoints", [g.admin("GET", "/jwts").status, g.admin("GET", "/jwts/k/consumer").json["username"], g.admin("GET", "/consumers/bob/jwt/k").json["secret"], g.admin("DELETE", "/consumers/bob/jwt/k").status])


# --- acl

@scenario("acl")
def groups_by_admin(g):
    g.admin("PUT", "/consumers/bob", {})
    g.admin("POST", "/consumers/bob/acls", {"group": "gold", "tags": ["t"]}, keep="made")
    again = g.admin("POST", "/consumers/bob/acls", {"group": "gold"})
    g.keep("twice", {"status": again.status, "name": again.json["name"], "fields": again.json["fields"]})
    g.admin("POST", "/consumers/bob/acls", {}, keep="no group")
    g.keep("by name", g.admin("GET", "/consumers/bob/acls/gold").json["group"])
    g.admin("PUT", "/consumers/bob/acls/silver", {}, keep="put")
    g.keep("list", sorted(r["group"] for r in g.admin("GET", "/acls").json["data"]))
    g.keep("delete", g.admin("DELETE", "/consumers/bob/acls/gold").status)
    g.plugin("acl", "", keep="neither list")
    g.plugin("acl", "", allow=[], keep="empty list")


@scenario("acl")
def without_a_consumer(g):
    ready(g)
    plugin = g.plugin("acl", "/services/svc", allow=["gold"]).json
    g.keep("no auth plugin, allow", told(g.proxy("GET", "/")))
    g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"allow": None, "deny": ["gold"]}})
    g.keep("no auth plugin, deny", told(g.proxy("GET", "/")))
    g.admin("PUT", "/consumers/nobody", {})
    g.plugin("key-auth", "/services/svc", anonymous="nobody")
    g.keep("anonymous, deny", told(g.proxy("GET", "/")))
    g.admin("POST", "/consumers/nobody/acls", {"group": "gold"})
    g.keep("anonymous is in the denied group", told(g.proxy("GET", "/")))
    g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"allow": ["gold"], "deny": None}})
    g.keep("anonymous is in the allowed group", told(g.proxy("GET", "/")))
    g.admin("PATCH", f"/plugins/{plugin['id']}", {"config": {"hide_groups_header": True}})
    g.keep("groups hidden", told(g.proxy("GET", "/")))
