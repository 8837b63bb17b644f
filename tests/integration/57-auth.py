# SPDX-License-Identifier: MIT
"""Who may come in: tokens in all places, what they grant, and what is tried with them."""

from harness import *
from pki import Folder, base64url, in_seconds, openssl, token, token_rs256

SECRET = b"0123456789abcdef0123456789abcdef"
REFUSED = "websocket_handshakes_refused_total"


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


def status_of(d, path="/", headers=()):
    with RawClient(d, handshake=False) as c:
        c.send(request(path, headers=headers))
        return c.recv_head()[0]


class Guarded(Daemon):
    """Asks for tokens under SECRET."""

    def __init__(self, **more):
        self.keys = Folder()
        self.keys.__enter__()
        self.secret = self.keys.write("secret", SECRET + b"\n")
        super().__init__(**{"auth": "jwt", "jwt_key_file": self.secret, **more})

    def __exit__(self, *args):
        super().__exit__(*args)
        self.keys.__exit__()


async def connect(d, claims, path="/", **options):
    return await Client.connect(d, path, extra_headers=bearer(token(SECRET, claims)), **options)


async def test_a_token_in_each_place():
    with Guarded() as d:
        good = token(SECRET, {"sub": "alice"})
        assert status_of(d) == 403
        assert status_of(d, headers=bearer(good)) == 101
        assert status_of(d, headers={"Authorization": f"bearer  {good} "}) == 101
        assert status_of(d, f"/?access_token={good}") == 101
        assert status_of(d, f"/?a=b&access_token={good}&c") == 101
        with RawClient(d, handshake=False) as c:
            c.send(request(headers={"Sec-WebSocket-Protocol": f"bearer, {good}"}))
            status, headers, _ = c.recv_head()
            assert status == 101 and headers["sec-websocket-protocol"] == "bearer"
        # The first place counts, also when what stands there is no good.
        assert status_of(d, f"/?access_token={good}", bearer("no")) == 403
        assert status_of(d, headers={"Sec-WebSocket-Protocol": "bearer"}) == 403
        assert d.metric(REFUSED, reason="auth") == 3
        # What is no token hides none.
        for other in ("Basic YTpi", "", "Digest username=a", "Bearer", "Bearer "):
            assert status_of(d, f"/?access_token={good}", {"Authorization": other}) == 101, other
        with RawClient(d, handshake=False) as c:
            c.send(request(headers={"Authorization": "Basic YTpi\r\nAuthorization: Bearer " + good}))
            assert c.recv_head()[0] == 101
        assert not [line for line in d.log if line and good[:40] in line]


def test_a_subprotocol_that_is_offered_is_selected_whoever_asks_for_it():
    good = token(SECRET, {"sub": "alice"})
    offers = {"bearer, " + good: "bearer", "wsbind": "wsbind", "chat, wsbind": "wsbind",
              "wsbind, bearer, " + good: "bearer", "chat": None}
    for d in (Guarded(), Daemon()):
        with d:
            for offer, selected in offers.items():
                with RawClient(d, handshake=False) as c:
                    # A proxy may have added the header for a browser that offers another.
                    c.send(request(headers={"Sec-WebSocket-Protocol": offer, **bearer(good)}))
                    status, headers, _ = c.recv_head()
                    assert (status, headers.get("sec-websocket-protocol")) == (101, selected), offer


def test_audience_and_issuer():
    rules = {"jwt_audience": "client", "jwt_issuer": "https://id.example"}
    claims = {"sub": "a", "aud": ["account", "client"], "iss": "https://id.example"}
    with Guarded() as d:
        assert status_of(d, headers=bearer(token(SECRET, claims))) == 403
        d.wait_log("it has an aud, and jwt_audience is not set")
        assert d.reload(**rules).status == 200
        assert status_of(d, headers=bearer(token(SECRET, claims))) == 101
        for change, why in (({"aud": "other"}, "its aud does not hold"),
                            ({"iss": "https://evil.example"}, "its iss is not"),
                            ({"exp": in_seconds(60) * 1000}, "milliseconds")):
            since = len(d.log)
            assert status_of(d, headers=bearer(token(SECRET, {**claims, **change}))) == 403
            d.wait_log(why, since=since)
        made = subprocess.run([str(binary()), "token", "--sub", "alice", "--config", d.config],
                              capture_output=True, text=True, check=True).stdout.strip()
        assert status_of(d, headers=bearer(made)) == 101


def test_keys_with_names_as_services_make_them():
    names = ("Pb9dHyK4+j/w==", "a/b", "https://id.example/key/1", "x=", "/8=")
    with Guarded() as d:
        files = []
        for i, name in enumerate(names):
            secret = b"%032d" % i
            files.append(f"{name}={d.keys.write(f'key{i}', secret)}")
        assert d.reload(jwt_key_file=" ".join(files)).status == 200
        for i, name in enumerate(names):
            for key, status in ((b"%032d" % i, 101), (b"%032d" % (i + 1), 403)):
                assert status_of(d, headers=bearer(token(key, {"sub": "a"}, kid=name))) == status
        # Keys without names are tried, whatever name a token has.
        assert d.reload(jwt_key_file=" ".join(f.rsplit("=", 1)[1] for f in files)).status == 200
        for i, name in enumerate(names):
            assert status_of(d, headers=bearer(token(b"%032d" % i, {"sub": "a"}, kid=name))) == 101


# What services put into tokens: header, claims beside sub, iss, aud and times, and how aud looks.
TOKENS_OF_SERVICES = {
    "Cognito": ({"kid": "8dYvT1x+o2Zb/Q4kWm0cR7pLs9nGf3hJtUaEiXyKvN0="}, "one",
                {"cognito:username": "3b6e", "cognito:groups": ["a"], "token_use": "id",
                 "email_verified": True, "auth_time": 1700000000, "origin_jti": "77-a"}),
    "Keycloak": ({"typ": "JWT", "kid": "FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"}, "list",
                 {"jti": "f0c4", "typ": "Bearer", "azp": "page", "session_state": "9a", "acr": "1",
                  "allowed-origins": ["https://example.org"],
                  "realm_access": {"roles": ["offline_access", "uma_authorization"]},
                  "resource_access": {"account": {"roles": ["manage-account"]}},
                  "scope": "openid profile", "name": "Åsa 中", "sid": "9a"}),
    "Auth0": ({"typ": "JWT", "kid": "NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg"},
              "list", {"azp": "my_client", "scope": "openid read:all", "gty": "password",
                       "permissions": ["read:all"], "https://example.org/role": None}),
    "Firebase": ({"kid": "d4cbc0e1f1e5c3bbc1c2ad3ae1de2f2e9c4f9a11", "typ": "JWT"}, "one",
                 {"auth_time": 1700000000, "user_id": "x", "firebase": {
                     "identities": {"email": ["a@example.org"]}, "sign_in_provider": "password"}}),
    "Azure": ({"typ": "JWT", "x5t": "i6lGk3FZzxRcUb2C3nEQ7syHJlY", "kid": "i6lGk3FZzxRcUb2C3nEQ7syHJlY"},
              "one", {"aio": "E2RgYHAA==", "azpacr": "1", "oid": "1", "rh": "0.AX", "tid": "2",
                      "roles": ["Send"], "uti": "u", "ver": "2.0", "xms_tcdt": 1600000000}),
}


def test_tokens_as_services_make_them():
    subs = {"Auth0": "auth0|5f7c8ec7c33c6c004bbafe82", "Azure": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ"}
    with Folder() as f:
        key, public = f.key_pair("rsa", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
        other, _ = f.key_pair("other", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
        certificate = f.write("x509.pem", openssl(
            "req", "-x509", "-key", key, "-subj", "/CN=keys.example.org", "-days", "2"))
        for service, (header, audience, more) in TOKENS_OF_SERVICES.items():
            file = certificate if service == "Firebase" else public
            issuer = f"https://{service.lower()}.example.org/pool/v2.0"
            claims = {"sub": subs.get(service, str(uuid.uuid4())), "iss": issuer,
                      "aud": "my-api" if audience == "one" else ["account", "my-api"],
                      "iat": in_seconds(-5), "exp": in_seconds(3600), **more}
            wrong = ({"aud": "another"}, {"aud": ["account"]}, {"iss": issuer + "/"},
                     {"exp": in_seconds(-300)}, {"exp": in_seconds(3600) * 1000},
                     {"nbf": in_seconds(300)})
            with Guarded(jwt_key_file=f"{header['kid']}={file}", jwt_audience="my-api",
                         jwt_issuer=issuer) as d:
                def answer(claims, key=key, **changes):
                    signed = token_rs256(key, claims, **{**header, **changes})
                    return status_of(d, headers=bearer(signed))

                assert answer(claims) == 101, service
                for bad in wrong:
                    assert answer({**claims, **bad}) == 403, (service, bad)
                assert answer(claims, key=other) == 403, service
                assert answer(claims, kid="another") == 403, service


def test_secrets_as_editors_leave_them():
    with Guarded() as d:
        for added in (b"\n", b"\r\n"):
            for mark in (b"", b"\xef\xbb\xbf"):
                d.keys.write("secret", mark + SECRET + added)
                assert d.ask("POST", "/reload").status == 200
                assert status_of(d, headers=bearer(token(SECRET, {"sub": "a"}))) == 101
        since = len(d.log)
        d.keys.write("secret", SECRET + b" \n")
        answer = d.ask("POST", "/reload")
        assert answer.status == 200 and "begins or ends with a blank" in answer.text
        d.wait_log("begins or ends with a blank", since=since)
        assert status_of(d, headers=bearer(token(SECRET + b" ", {"sub": "a"}))) == 101


def test_a_secret_that_everybody_may_read_is_a_warning():
    with Guarded() as d:
        d.secret.chmod(0o644)
        assert "everybody on this host may read" in d.ask("POST", "/reload").text
        d.secret.chmod(0o640)
        assert "everybody" not in d.ask("POST", "/reload").text


async def test_who_and_where_and_whether():
    with Guarded() as d:
        alice = await connect(d, {"sub": "alice", "channels": ["room/*"]}, "/room/1")
        bob = await connect(d, {"sub": "bob", "publish": False}, "/room/1")
        assert "Welcome alice!" in alice.welcome.chat.content
        await alice.send_chat("hello", user_id="bob")
        assert (await bob.expect_chat("hello")).chat.user_id == "alice"
        sent = chat("unchanged", user_id="alice")
        await alice.send(sent)
        assert (await bob.expect_chat("unchanged")).chat.user_id == "alice"
        refused = await bob.ask(chat("no"))
        assert refused.control.type == ERROR and refused.control.code == 403, describe(refused)
        refused = await alice.ask(control(SUBSCRIBE, channels=["room/2", "hall"]))
        assert refused.control.type == ERROR and refused.control.code == 403, describe(refused)
        await alice.subscribe("room/2")
        assert {c["user_id"] for c in d.clients().values()} == {"alice", "bob"}
        assert status_of(d, "/hall", bearer(token(SECRET, {"sub": "a", "channels": ["room/*"]}))
                         ) == 403
        await alice.close()
        await bob.close()


async def test_expiry_closes():
    with Guarded() as d:
        # Its leeway is a minute: what is over by now has that much less left.
        async with await connect(d, {"sub": "alice", "exp": in_seconds(-58)}) as a:
            await a.expect_close(4003, "authorization")
        d.wait_log("closing with 4003")
        await d.wait_metric("websocket_closes_total", lambda v: v == 1, code="4003")


async def start_client(d, token_file):
    return await asyncio.create_subprocess_exec(
        str(binary()), "client", "-u", d.url("/"), "--token-file", str(token_file),
        "--interval-ms", "20", "--reconnect_delay_ms=20", stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


async def test_the_client_comes_back_with_a_fresh_token():
    with Guarded() as d:
        file = d.keys.write("token", token(SECRET, {"sub": "alice", "exp": in_seconds(-58)}))
        async with await connect(d, {"sub": "watcher"}) as watcher:
            p = await start_client(d, file)
            assert (await watcher.recv()).chat.user_id == "alice"
            d.keys.write("token", token(SECRET, {"sub": "bob"}))
            while (await watcher.recv()).chat.user_id != "bob":
                pass
            p.terminate()
            text = (await asyncio.wait_for(p.communicate(), DEADLINE))[1].decode()
            assert "4003 (authorization has expired)" in text and p.returncode == 0, text


async def test_the_client_brings_no_token_twice():
    with Guarded() as d:
        file = d.keys.write("token", token(SECRET, {"sub": "alice", "exp": in_seconds(-58)}))
        p = await start_client(d, file)
        text = (await asyncio.wait_for(p.communicate(), DEADLINE))[1].decode()
        assert "4003 (authorization has expired); there is no other token\n" in text, text
        assert p.returncode == 1 and d.metric("websocket_total_connections") == 1, text


async def test_a_fresh_token_prolongs():
    """Of the same user; a bad one changes nothing."""
    def renewal(text):
        return control(CONNECT, token=text)

    with Guarded() as d:
        old = {"sub": "alice", "exp": in_seconds(-56)}  # four seconds of its leeway are left
        async with await connect(d, old) as a, await connect(d, old) as b:
            answer = await a.ask(renewal(token(SECRET, {"sub": "alice", "exp": in_seconds(60)})))
            assert answer.control.type == ACKNOWLEDGE, answer
            for bad, code in ((token(SECRET, {"sub": "mallory", "exp": in_seconds(60)}), 403),
                              (token(SECRET, {"sub": "alice", "exp": in_seconds(-100)}), 401),
                              ("rubbish", 401)):
                answer = await b.ask(renewal(bad))
                assert answer.control.type == ERROR and answer.control.code == code, answer
                assert "exp" not in answer.control.reason
            await b.expect_close(4003, "authorization")
            await a.ask(control(CONNECT))


async def test_what_is_tried_with_tokens():
    with Folder() as f:
        private, public = f.key_pair("rsa", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
        tricks = {
            "its algorithm is not that of the key": [
                token(public.read_bytes(), {"sub": "eve"}),
                token(SECRET, {"sub": "eve"}, alg="none"),
                base64url(b'{"alg":"none"}') + "." + base64url(b'{"sub":"eve"}') + "."],
            "its signature is wrong": [token(public.read_bytes(), {"sub": "eve"}, alg="RS256")],
            "it is no signed token": ["a.b.c", "x" * 5000, "..", "a.b"],
        }
        # Lines that clients provoke are limited: each daemon says the first ones.
        for why, tokens in tricks.items():
            with Guarded(jwt_key_file=public) as d:
                for t in tokens:
                    assert status_of(d, headers=bearer(t)) == 403, t
                d.wait_log(f"403 Forbidden: its token is refused: {why}")
                assert d.metric(REFUSED, reason="auth") == len(tokens)
        with Guarded(jwt_key_file=public) as d:
            made = subprocess.run([str(binary()), "token", "--sub", "alice", "--key", private],
                                  capture_output=True, text=True, check=True).stdout.strip()
            assert status_of(d, headers=bearer(made)) == 101
        with Guarded() as d:
            for why, claims, header in (
                    ("it has expired", {"sub": "a", "exp": in_seconds(-61)}, {}),
                    ("it is not valid yet", {"sub": "a", "nbf": in_seconds(90)}, {}),
                    ("its sub is no text", {}, {}),
                    ("its sub is no text", {"sub": "system"}, {}),
                    ("it is no signed token", {"sub": "a"}, {"crit": ["x"]})):
                since = len(d.log)
                assert status_of(d, headers=bearer(token(SECRET, claims, **header))) == 403
                d.wait_log(f"its token is refused: {why}", since=since)


async def test_a_key_that_is_not_in_pem_is_no_secret():
    with Folder() as f:
        _, public = f.key_pair("rsa", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
        der = f.write("public.der", openssl("pkey", "-pubin", "-in", public, "-outform", "DER"))
        jwks = f.write("jwks.json", '{"keys":[{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQm",'
                                    '"e":"AQAB"}]}')
        for file, form in ((der, "DER"), (jwks, "JSON")):
            with Guarded(ready=False, jwt_key_file=file) as d:
                assert d.wait() == 78
                d.wait_log(rf"jwt_key_file: {file}: a key in another form \({form}\): PEM is")
                d.process.returncode = 0


async def test_keys_are_replaced_by_reload():
    new = b"fedcba9876543210fedcba9876543210"
    with Guarded() as d:
        second = d.keys.write("second", new)
        of_new = bearer(token(new, {"sub": "a"}, kid="b"))
        assert status_of(d, headers=of_new) == 403
        async with await connect(d, {"sub": "alice"}) as a:
            assert d.reload(jwt_key_file=f"a={d.secret} b={second}").status == 200
            assert status_of(d, headers=of_new) == 101
            assert status_of(d, headers=bearer(token(SECRET, {"sub": "a"}, kid="a"))) == 101
            for kid in ("c", "../secret", "", "a b"):
                assert status_of(d, headers=bearer(token(SECRET, {"sub": "a"}, kid=kid))) == 403
            assert d.reload(jwt_key_file=f"b={second} {d.secret}").status == 200
            await a.expect_silence()  # whoever's key is there stays, whatever its name
            assert d.reload(jwt_key_file=f"b={second}").status == 200
            await a.expect_close(4003, "authorization was withdrawn")
            d.wait_log("a key that was taken out; closing with 4003")
            assert status_of(d, headers=bearer(token(SECRET, {"sub": "a"}, kid="a"))) == 403
            answer = d.reload(jwt_key_file="/no/such")
            assert answer.status == 422 and "/no/such: No such file" in answer.text
            assert status_of(d, headers=of_new) == 101
            d.write_config(jwt_key_file=second)


async def test_origins():
    with Daemon(allowed_origins="https://example.org *.example.net") as d:
        for origin in ("https://example.org", "https://EXAMPLE.org:443", "http://a.example.net"):
            assert status_of(d, headers={"Origin": origin}) == 101, origin
        assert status_of(d) == 101
        wrong = ("https://example.org.evil.net", "http://example.org", "https://example.org:444",
                 "null", "https://example.net", "https://evil.org/.example.net", "")
        for origin in wrong:
            assert status_of(d, headers={"Origin": origin}) == 403, origin
        assert d.metric(REFUSED, reason="origin") == len(wrong)
        d.wait_log("403 Forbidden: pages of its origin may not connect")


async def test_a_token_of_the_command():
    with Guarded() as d:
        made = subprocess.run([str(binary()), "token", "--sub", "alice", "--channels", "room/*,x",
                               "--exp", "5m", "--receive-only", "--key", str(d.secret)],
                              capture_output=True, text=True, check=True).stdout.strip()
        assert status_of(d, "/room/1", bearer(made)) == 101
        assert status_of(d, "/y", bearer(made)) == 403
        file = d.keys.write("token", token(SECRET, {"sub": "a"}) + "\n")
        done = subprocess.run([str(binary()), "benchmark", "-u", d.url("/room"), "-c", "3", "-m",
                               "20", "--token-file", str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done
