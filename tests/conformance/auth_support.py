"""What the scenarios of authentication share: what a client sees, keys that sign tokens."""
import re
import shutil
import subprocess
import tempfile

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
