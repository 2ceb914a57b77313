"""What the scenarios of authentication and limits share: what a client sees, keys that sign tokens, a Redis."""
import contextlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

TOKEN = re.compile(r"\b(?=[A-Za-z0-9]{32}\b)(?=[A-Za-z0-9]*[G-Zg-z])[A-Za-z0-9]{32}\b")
CONSUMER = ("x-consumer-id", "x-consumer-username", "x-consumer-custom-id", "x-credential-identifier", "x-anonymous-consumer", "x-consumer-groups",
            "x-authenticated-scope", "x-authenticated-userid", "x-authenticated-groups")


def ready(g, **route):
    g.service()
    g.route(**route)


def seen(answer, name):
    return [v for n, v in (answer.json or {}).get("headers", []) if n == name]


def masked(value):
    """Random 32 character keys and salted hashes replaced by what they are."""
    if isinstance(value, dict):
        return {masked(k): masked(v) for k, v in value.items()}
    if isinstance(value, list):
        return [masked(v) for v in value]
    if isinstance(value, str):
        return TOKEN.sub("<32 chars>", value)
    return value


def told(answer, *extra):
    """What a client sees, and what the upstream learnt about who it is."""
    out = {"status": answer.status}
    for name in ("www-authenticate",) + extra:
        if answer.header(name) is not None:
            out[name] = answer.header(name)
    body = answer.json
    if isinstance(body, dict) and {"uri", "headers", "port"} <= set(body):
        out["upstream"] = {n: seen(answer, n) for n in CONSUMER if seen(answer, n)}
    elif answer.raw:
        out["body"] = body if body is not None else answer.text
    return masked(out)


def wait_port(port, up=True, seconds=8):
    end = time.time() + seconds
    while time.time() < end:
        with socket.socket() as s:
            s.settimeout(0.3)
            if (s.connect_ex(("127.0.0.1", port)) == 0) == up:
                return True
        time.sleep(0.05)
    return False


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


class Redis:
    """As much of a client as reading counters needs."""

    def __init__(self, port, password=None, database=0):
        self.s = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.f = self.s.makefile("rb")
        if password:
            self("AUTH", password)
        if database:
            self("SELECT", str(database))

    def __call__(self, *words):
        data = b"*%d\r\n" % len(words)
        for w in words:
            w = str(w).encode()
            data += b"$%d\r\n%s\r\n" % (len(w), w)
        self.s.sendall(data)
        return self.read()

    def read(self):
        line = self.f.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return None if rest == b"-1" else self.f.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        if kind == b":":
            return int(rest)
        return rest.decode()

    def counters(self, g):
        """Each key, its ids named and its window's start replaced, with its value and whether its life fits the window.

        Windows of a second are left out: whether one is still there is a matter of luck."""
        names = {"00000000-0000-0000-0000-000000000000": "<zero>"}
        for kind, field in (("services", "name"), ("routes", "name"), ("consumers", "username"), ("key-auths", "key")):
            for row in g.admin("GET", f"/{kind}").json["data"]:
                names[row["id"]] = f"<{kind} {row[field]}>"
        windows = {"minute": 60, "hour": 3600, "day": 86400, "month": 2592000, "year": 31536000}
        out = []
        for key in self("KEYS", "*"):
            period, ttl, value = key.rsplit(":", 1)[1], self("TTL", key), self("GET", key)
            if period == "second":
                continue
            for i, name in names.items():
                key = key.replace(i, name)
            if re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", key):
                continue  # of an earlier scenario: a late write
            out.append([re.sub(r"(?<=:)\d{10,13}(?=:)", "<start>", key), value, "lives" if 0 <= ttl <= windows.get(period, 0) else f"ttl {ttl}"])
        return sorted(out)


@contextlib.contextmanager
def redis_server(port, *options):
    folder = tempfile.mkdtemp(prefix="golden-redis-")
    process = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder, *options],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if not wait_port(port):
            raise RuntimeError("redis-server did not start")
        yield process
    finally:
        stop(process)
        wait_port(port, up=False)
        shutil.rmtree(folder, ignore_errors=True)


def openssl(*args, data=None):
    return subprocess.run(["openssl", *args], input=data, check=True, capture_output=True).stdout


def raw_signature(der, size):
    """r and s of an ASN.1 ECDSA signature, each in `size` bytes."""
    at = 2 if der[1] < 0x80 else 3
    out = b""
    for _ in range(2):
        length = der[at + 1]
        out += der[at + 2:at + 2 + length].lstrip(b"\0").rjust(size, b"\0")
        at += 2 + length
    return out


class Signer:
    """A fresh key pair for one JWT algorithm."""
    CURVES = {"ES256": ("prime256v1", 32), "ES384": ("secp384r1", 48), "ES512": ("secp521r1", 66)}

    def __init__(self, algorithm, curve=None):
        self.algorithm = algorithm
        self.folder = tempfile.mkdtemp(prefix="golden-jwt-")
        self.key = f"{self.folder}/k.pem"
        if algorithm.startswith("ES"):
            openssl("ecparam", "-name", curve or self.CURVES[algorithm][0], "-genkey", "-noout", "-out", self.key)
        elif algorithm == "EdDSA":
            openssl("genpkey", "-algorithm", curve or "ed25519", "-out", self.key)
        else:
            openssl("genrsa", "-out", self.key, "2048")
        self.public = openssl("pkey", "-in", self.key, "-pubout").decode()

    def sign(self, claims, header=None, algorithm=None):
        from conformance import b64url
        name = algorithm or self.algorithm
        text = b64url({"alg": name, "typ": "JWT", **(header or {})}) + b"." + b64url(claims)
        if name == "EdDSA":
            with open(f"{self.folder}/in", "wb") as f:
                f.write(text)
            signature = openssl("pkeyutl", "-sign", "-inkey", self.key, "-rawin", "-in", f"{self.folder}/in")
        else:
            digest = "-sha" + name[2:]
            pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:-1"] if name.startswith("PS") else []
            signature = openssl("dgst", digest, "-sign", self.key, *pss, data=text)
            if name.startswith("ES"):
                signature = raw_signature(signature, self.CURVES[name][1])
        return (text + b"." + b64url(signature)).decode()

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def tampered(token):
    head, claims, signature = token.split(".")
    return f"{head}.{claims}.{signature[:10]}{'A' if signature[10] != 'A' else 'B'}{signature[11:]}"
