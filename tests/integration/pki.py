# SPDX-License-Identifier: MIT
"""Certificates, keys and tokens for tests, made by openssl as an administrator would."""

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path


def openssl(*args, stdin=None):
    return subprocess.run(["openssl", *[str(a) for a in args]], input=stdin, check=True,
                          capture_output=True).stdout


class Folder:
    """A folder of files that goes at the end."""

    def __enter__(self):
        self.path = Path(tempfile.mkdtemp(prefix="wsbind-pki-"))
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path)

    def write(self, name, content):
        path = self.path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def _request(self, name, cn=None):
        """NAME.key, and the request to sign."""
        key = self.path / f"{name}.key"
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
        return key, openssl("req", "-new", "-key", key, "-subj", f"/CN={cn or name}")

    def certificate(self, name, alt="DNS:localhost,IP:127.0.0.1", issuer=None, days=10, cn=None):
        """NAME.pem and NAME.key; signed by itself, or by an issuer made before."""
        certificate = self.path / f"{name}.pem"
        key, request = self._request(name, cn)
        extensions = self.write(f"{name}.ext", f"subjectAltName={alt}\n" +
                                ("" if issuer else "basicConstraints=critical,CA:TRUE\n"))
        signed = ["-CA", self.path / f"{issuer}.pem", "-CAkey", self.path / f"{issuer}.key",
                  "-CAcreateserial"] if issuer else ["-signkey", key]
        certificate.write_bytes(openssl("x509", "-req", "-days", days, "-extfile", extensions,
                                        *signed, stdin=request))
        return certificate, key

    def expired_certificate(self, name, issuer):
        """
        The same by an issuer, of last year. (x509 of OpenSSL 3.0 knows no dates, that of 3.5 no
        negative days; ca signs what it is told.)
        """
        certificate, index = self.path / f"{name}.pem", self.write("index.txt", "")
        key, request = self._request(name)
        config = self.write("ca.cnf", "[ca]\ndefault_ca=it\n[it]\nrand_serial=yes\n"
                            f"database={index}\ndefault_md=sha256\npolicy=any\n"
                            "[any]\ncommonName=supplied\n")
        year = time.gmtime().tm_year - 1
        openssl("ca", "-batch", "-config", config, "-in", self.write(f"{name}.csr", request),
                "-out", certificate, "-outdir", self.path, "-notext",
                "-cert", self.path / f"{issuer}.pem", "-keyfile", self.path / f"{issuer}.key",
                "-startdate", f"{year}0101000000Z", "-enddate", f"{year}0102000000Z")
        return certificate, key

    def key_pair(self, name, *options):
        """NAME.key and NAME.pub"""
        private, public = self.path / f"{name}.key", self.path / f"{name}.pub"
        openssl("genpkey", "-out", private, *options)
        openssl("pkey", "-in", private, "-pubout", "-out", public)
        return private, public


def base64url(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(secret, claims, **header):
    """HS256, whatever the header says."""
    header = {"alg": "HS256", "typ": "JWT", **header}
    body = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
    return f"{body}.{base64url(hmac.new(secret, body.encode(), hashlib.sha256).digest())}"


def token_rs256(key, claims, **header):
    """Signed by an RSA key in a file."""
    header = {"alg": "RS256", **header}
    body = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
    return f"{body}.{base64url(openssl('dgst', '-sha256', '-sign', key, stdin=body.encode()))}"


def in_seconds(n):
    return int(time.time()) + n
