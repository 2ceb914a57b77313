#!/usr/bin/env bash
# The commands of the guide as they are written there, against a node that stands in Kong's place.
#
# Run by tests/guide/mod.rs inside a network namespace of its own, where ports 8000 and 8001 are free and the guide's host
# names lead to local servers. Arguments: the program, a directory for its files.
set -euo pipefail
troop=$1 dir=$2
cd "$dir"

ip link set lo up
printf '127.0.0.1 localhost\n127.0.0.2 mcp-server-langgraph langgraph-1\n127.0.0.3 langgraph-2\n127.0.0.4 langgraph-3 correct-host\n' > hosts
mount --bind hosts /etc/hosts

fail() { echo "FAIL: $*" >&2; exit 1; }
# expect NAME WANTED GOT
expect() { [ "$2" = "$3" ] || fail "$1: wanted '$2', got '$3'"; echo "ok: $1"; }
contains() { case "$3" in *"$2"*) echo "ok: $1" ;; *) fail "$1: wanted '$2' in: $3" ;; esac; }
# until_true NAME COMMAND...: waits for a condition
until_true() {
  local name=$1; shift
  for _ in $(seq 100); do if "$@" > /dev/null 2>&1; then return 0; fi; sleep 0.05; done
  fail "$name did not come about"
}
status() { curl -s -o /dev/null -w '%{http_code}' "$@"; }

cat > upstream.py <<'EOF'
import http.server, json, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        n = int(self.headers.get("Content-Length") or 0)
        body = json.dumps({"at": self.server.server_address[0], "path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "body": self.rfile.read(n).decode()}).encode()
        self.send_response(200); self.send_header("Content-Type", "application/json"); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = do_OPTIONS = answer
    def log_message(self, *a): pass
for at in sys.argv[1:]:
    threading.Thread(target=http.server.ThreadingHTTPServer((at, 8000), Handler).serve_forever).start()
EOF
python3 upstream.py 127.0.0.2 127.0.0.3 127.0.0.4 & upstream=$!
KONG_PREFIX=$dir/prefix KONG_PROXY_LISTEN=127.0.0.1:8000 KONG_ADMIN_LISTEN=0.0.0.0:8001 KONG_STATUS_LISTEN=off "$troop" start > troop.log 2>&1 & node=$!
trap 'kill $node $upstream 2>/dev/null; wait $node 2>/dev/null || true' EXIT
until_true "the node answers" curl -sf http://localhost:8001/
until_true "the upstream answers" curl -sf http://mcp-server-langgraph:8000/health

## Quick start
contains "the welcome" '"version":"3.10.0"' "$(curl -s http://localhost:8001/)"
contains "curl -i" "200 OK" "$(curl -s -i http://localhost:8001/)"

## Add MCP Server as a service
curl -sf -X POST http://localhost:8001/services \
--data name=mcp-server-langgraph \
--data url=http://mcp-server-langgraph:8000 > /dev/null || fail "create service"

## Create route for /message endpoint
curl -sf -X POST http://localhost:8001/services/mcp-server-langgraph/routes \
--data paths[]=/message \
--data methods[]=POST > /dev/null || fail "route /message"
## Create route for /auth
curl -sf -X POST http://localhost:8001/services/mcp-server-langgraph/routes \
--data paths[]=/auth \
--data methods[]=POST > /dev/null || fail "route /auth"
expect "a request goes through" 200 "$(status http://localhost:8000/message -d '{"query":"Hello"}')"
expect "another method does not" 404 "$(status http://localhost:8000/message)"

## Enable JWT plugin
curl -sf -X POST http://localhost:8001/services/mcp-server-langgraph/plugins \
--data name=jwt \
--data config.claims_to_verify=exp \
--data config.key_claim_name=kid \
--data config.secret_is_base64=false > jwt.json || fail "jwt plugin"
## Create consumer
curl -sf -X POST http://localhost:8001/consumers \
--data username=api-client > /dev/null || fail "consumer"
## Add JWT credentials
curl -sf -X POST http://localhost:8001/consumers/api-client/jwt \
--data key=my-key-id \
--data algorithm=HS256 \
--data secret=my-secret-key > /dev/null || fail "jwt credentials"
expect "no token" 401 "$(status http://localhost:8000/message -d '{"query":"Hello"}')"
## Test
TOKEN=$(echo -n '{"kid":"my-key-id","alg":"HS256","typ":"JWT"}' | base64 -w0).$(echo -n '{"iss":"api-client","exp":9999999999}' | base64 -w0)
SIGNATURE=$(echo -n "$TOKEN" | openssl dgst -sha256 -hmac "my-secret-key" -binary | base64 -w0)
contains "the guide's token" '"x-consumer-username": "api-client"' "$(curl -s http://localhost:8000/message \
-H "Authorization: Bearer ${TOKEN}.${SIGNATURE}" \
-d '{"query":"Hello"}')"
expect "another signature" 401 "$(status http://localhost:8000/message -H "Authorization: Bearer ${TOKEN}.AAAA" -d '{}')"
curl -sf -X DELETE "http://localhost:8001/plugins/$(jq -r .id jwt.json)"

## Enable CORS
curl -s -X POST http://localhost:8001/services/mcp-server-langgraph/plugins \
--data name=cors \
--data config.origins=https://yourdomain.com \
--data config.methods=GET,POST,PUT,DELETE \
--data config.headers=Accept,Authorization,Content-Type \
--data config.exposed_headers=X-Auth-Token \
--data config.credentials=true \
--data config.max_age=3600 > cors.json
contains "methods are a list, as Kong says" "expected one of" "$(cat cors.json)"
curl -sf -X POST http://localhost:8001/services/mcp-server-langgraph/plugins -H 'Content-Type: application/json' \
--data '{"name":"cors","config":{"origins":["https://yourdomain.com"],"methods":["GET","POST"],"credentials":true,"max_age":3600}}' > cors.json || fail "cors plugin"
contains "cors" "Access-Control-Allow-Origin: https://yourdomain.com" "$(curl -s -i -H 'Origin: https://yourdomain.com' http://localhost:8000/message -d '{}')"
curl -sf -X DELETE "http://localhost:8001/plugins/$(jq -r .id cors.json)"

## Response caching
curl -sf -X POST http://localhost:8001/services/mcp-server-langgraph/plugins \
--data name=proxy-cache \
--data config.response_code[]=200 \
--data config.response_code[]=301 \
--data config.response_code[]=404 \
--data config.request_method[]=GET \
--data config.content_type[]=application/json \
--data config.cache_ttl=300 \
--data config.strategy=memory \
--data config.vary_headers[]=Authorization > cache.json || fail "proxy-cache plugin"
curl -sf -X POST http://localhost:8001/services/mcp-server-langgraph/routes --data paths[]=/health --data methods[]=GET --data strip_path=false > /dev/null
contains "first answer" "X-Cache-Status: Miss" "$(curl -s -i http://localhost:8000/health)"
contains "second answer" "X-Cache-Status: Hit" "$(curl -s -i http://localhost:8000/health)"
curl -sf -X DELETE "http://localhost:8001/plugins/$(jq -r .id cache.json)"

## Add/modify request headers
curl -sf -X POST http://localhost:8001/services/mcp-server-langgraph/plugins \
--data name=request-transformer \
--data config.add.headers[]=X-API-Version:2.0 \
--data config.add.headers[]=X-Gateway:Kong \
--data config.remove.headers[]=X-Sensitive-Header > /dev/null || fail "request-transformer plugin"
seen=$(curl -s -H 'X-Sensitive-Header: 1' http://localhost:8000/message -d '{}')
contains "a header is added" '"x-api-version": "2.0"' "$seen"
case "$seen" in *x-sensitive-header*) fail "a header is not removed" ;; esac

## File log
curl -sf -X POST http://localhost:8001/plugins \
--data name=file-log \
--data config.path=/tmp/kong.log > log.json || fail "file-log plugin"
rm -f /tmp/kong.log
curl -s http://localhost:8000/message -d '{}' > /dev/null
until_true "the log record" grep -q '"client_ip":"127.0.0.1"' /tmp/kong.log
curl -sf -X DELETE "http://localhost:8001/plugins/$(jq -r .id log.json)"

## Load balancing, as declarative configuration
cat > kong.yaml <<'EOF'
_format_version: "3.0"
upstreams:
- name: langgraph-upstream
  algorithm: round-robin
  slots: 100
  healthchecks:
    active:
      healthy:
        interval: 5
        successes: 2
      unhealthy:
        interval: 5
        http_failures: 3
        timeouts: 3
      http_path: /health
      timeout: 1
      concurrency: 10
    passive:
      healthy:
        successes: 2
      unhealthy:
        http_failures: 3
  targets:
  - target: langgraph-1:8000
    weight: 100
  - target: langgraph-2:8000
    weight: 100
  - target: langgraph-3:8000
    weight: 100
EOF
cat >> kong.yaml << 'EOF'
services:
- name: balanced
  host: langgraph-upstream
  protocol: http
EOF
cat >> kong.yaml << 'EOF'
routes:
- name: balanced
  service: balanced
  paths:
  - /balanced
plugins:
- name: bot-detection
EOF
cat >> kong.yaml << 'EOF'
plugins:
- name: correlation-id
EOF
"$troop" config parse kong.yaml > parsed.txt || fail "config parse: $(cat parsed.txt)"
contains "several lists under one key" "parse successful" "$(cat parsed.txt)"
curl -sf -X POST http://localhost:8001/upstreams -H 'Content-Type: application/json' --data '{"name":"langgraph-upstream","slots":100,"healthchecks":{"active":{"healthy":{"interval":5,"successes":2},"unhealthy":{"interval":5,"http_failures":3,"timeouts":3},"http_path":"/health"}}}' > /dev/null
for i in 1 2 3; do curl -sf -X POST http://localhost:8001/upstreams/langgraph-upstream/targets --data target=langgraph-$i:8000 --data weight=100 > /dev/null; done
curl -sf -X POST http://localhost:8001/services --data name=balanced --data host=langgraph-upstream > /dev/null
curl -sf -X POST http://localhost:8001/services/balanced/routes --data paths[]=/balanced > /dev/null
for _ in $(seq 9); do curl -s http://localhost:8000/balanced | jq -r .at; done | sort | uniq -c | awk '{print $1}' > shares.txt
expect "three targets take turns" "3 3 3" "$(tr '\n' ' ' < shares.txt | sed 's/ $//')"

## Enable Prometheus plugin
curl -sf -X POST http://localhost:8001/plugins \
--data name=prometheus > prometheus.json || fail "prometheus plugin"
curl -sf -X PATCH "http://localhost:8001/plugins/$(jq -r .id prometheus.json)" --data config.status_code_metrics=true --data config.latency_metrics=true --data config.bandwidth_metrics=true > /dev/null
curl -s http://localhost:8000/message -d '{}' > /dev/null
requests_counted() { curl -s http://localhost:8001/metrics | grep -q '^kong_http_requests_total{service="mcp-server-langgraph"'; }
until_true "requests are counted" requests_counted
contains "latency under the guide's name" 'kong_latency_ms_bucket{' "$(curl -s http://localhost:8001/metrics | grep 'type="request"')"
contains "bandwidth under the guide's label" 'type="ingress"' "$(curl -s http://localhost:8001/metrics | grep kong_bandwidth_bytes)"

## Whitelist IPs
curl -sf -X POST http://localhost:8001/services/mcp-server-langgraph/plugins \
--data name=ip-restriction \
--data config.allow[]=10.0.0.0/8 \
--data config.allow[]=172.16.0.0/12 \
--data config.allow[]=192.168.1.100 > ips.json || fail "ip-restriction plugin"
expect "an address that is not in the list" 403 "$(status http://localhost:8000/message -d '{}')"
curl -sf -X DELETE "http://localhost:8001/plugins/$(jq -r .id ips.json)"
## Blacklist IPs
curl -sf -X POST http://localhost:8001/services/mcp-server-langgraph/plugins \
--data name=ip-restriction \
--data config.deny[]=1.2.3.4 > ips.json || fail "ip-restriction plugin"
expect "another address than the denied one" 200 "$(status http://localhost:8000/message -d '{}')"

## Enable bot detection
curl -sf -X POST http://localhost:8001/plugins \
--data name=bot-detection \
--data config.allow[]=googlebot \
--data config.allow[]=bingbot \
--data config.deny[]=malicious-bot > /dev/null || fail "bot-detection plugin"
expect "a bot" 403 "$(status -A 'malicious-bot/1' http://localhost:8000/message -d '{}')"

## Limit request body size
curl -sf -X POST http://localhost:8001/services/mcp-server-langgraph/plugins \
--data name=request-size-limiting \
--data config.allowed_payload_size=10 > /dev/null || fail "request-size-limiting plugin"
head -c 10500000 /dev/zero > big
expect "a body over 10 MB" 413 "$(status -H 'Expect:' --data-binary @big http://localhost:8000/message)"
expect "one that is announced by Expect, as curl does" 417 "$(status --data-binary @big http://localhost:8000/message)"

## Troubleshooting
contains "upstream health" '"health":"HEALTHY"' "$(curl -s http://localhost:8001/upstreams/langgraph-upstream/health)"
contains "check service" '"mcp-server-langgraph"' "$(curl -s http://localhost:8001/services/mcp-server-langgraph)"
contains "test upstream directly" "/health" "$(curl -s http://mcp-server-langgraph:8000/health)"
curl -sf -X PATCH http://localhost:8001/services/mcp-server-langgraph \
--data url=http://correct-host:8000 > /dev/null || fail "patch url"
contains "the new upstream" '"at": "127.0.0.4"' "$(curl -s http://localhost:8000/message -d '{}')"

## Global rate limiting, counted by the node, and the guide's check of it
curl -sf -X POST http://localhost:8001/plugins \
--data name=rate-limiting \
--data config.minute=100 \
--data config.hour=5000 > /dev/null || fail "rate-limiting plugin"
contains "the plugin is there" '"name": "rate-limiting"' "$(curl http://localhost:8001/plugins 2>/dev/null | jq '.data[] | select(.name=="rate-limiting")')"
left=$((60 - $(date +%S | sed 's/^0//'))); [ "$left" -gt 15 ] || sleep "$left"
for i in {1..110}; do
status http://localhost:8000/message -d '{"query":"test"}'; echo
done | sort | uniq -c > limited.txt
contains "100 pass" "100 200" "$(cat limited.txt)"
contains "the rest do not" "10 429" "$(cat limited.txt)"
echo "all of the guide's commands work"
