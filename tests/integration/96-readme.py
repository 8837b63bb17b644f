# SPDX-License-Identifier: MIT
"""The snippets of README.md, run as they stand there, so that they can't rot."""

import json

from harness import *

README = (ROOT / "README.md").read_text()
SETTINGS = {}
URL = "ws://127.0.0.1:8080/"

# What chat.html needs of a browser. Lines of the standard input are typed into its form; what its
# log shows is written out as JSON.
BROWSER = """
const element = () => ({ textContent: "", value: "", disabled: false });
const elements = { form: element(), line: element(), log: element() };
let shown = 0;
globalThis.document = { getElementById: id => elements[id] };
globalThis.WebSocket = class extends require("ws") {
	constructor(...args) {
		super(...args);
		this.on("error", () => {}); // a browser's throws nothing when nobody listens
	}
};
Object.defineProperty(elements.log, "textContent", {
	get: () => "",
	set: line => process.stdout.write(JSON.stringify(line) + "\\n"),
});
require("readline").createInterface({ input: process.stdin }).on("line", line => {
	if (elements.line.disabled)
		throw new Error("nobody could type this");
	elements.line.value = line;
	let prevented = 0;
	elements.form.onsubmit({ preventDefault: () => prevented++ });
	if (!prevented || elements.line.value !== "")
		throw new Error("the form was not handled");
}).on("close", () => process.exit(0));
"""


def snippet(language, daemon):
    """The one code block of a language, with the daemon's address in place of the usual one."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)
    assert len(blocks) == 1, f"{len(blocks)} blocks of {language}"
    assert blocks[0].count(URL) == 1, f"the snippet for {language} has not one URL"
    return blocks[0].replace(URL, daemon.url("/"))


def need_node():
    if not shutil.which("node") or not os.path.exists("/usr/share/nodejs/ws"):
        raise Skip("node-ws is not installed")


class Snippet:
    """A program that runs beside the test until it is left."""

    def __init__(self, folder, *command):
        self.folder, self.command = folder, command

    async def __aenter__(self):
        env = {**os.environ, "NODE_PATH": "/usr/share/nodejs", "PYTHONUNBUFFERED": "1"}
        self.process = await asyncio.create_subprocess_exec(
            *self.command, cwd=self.folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def line(self):
        line = await asyncio.wait_for(self.process.stdout.readline(), DEADLINE)
        assert line, "the snippet ended"
        return line.decode().rstrip("\n")

    async def until(self, wanted):
        while await self.line() != wanted:
            pass

    async def until_begins(self, wanted):
        while not (await self.line()).startswith(wanted):
            pass

    def type(self, text):
        self.process.stdin.write(text.encode() + b"\n")


async def converse(daemon, snippet_, name, hello):
    """A client in the lobby hears the snippet and is heard by it."""
    async with await Client.connect(daemon) as c:
        async with snippet_ as s:
            m = await c.expect_chat(hello)
            assert m.chat.user_id == name, m
            for text in ("good day \u263a", "x" * 1000):
                await c.send_chat(text, user_id="tester")
                await s.until(f"tester: {text}")


async def test_python():
    with Daemon(reconnect_window=0) as d:
        await run_python(d)


async def run_python(daemon):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "hello.py").write_text(snippet("python", daemon))
        command = re.search(r"`(protoc .*?) && (/usr/bin/python3) hello.py`", README)
        assert command, "the command that goes with hello.py"
        subprocess.run(command[1].replace("=proto ", f"={ROOT}/proto "), shell=True, cwd=folder,
                       check=True, timeout=DEADLINE)
        await converse(daemon, Snippet(folder, command[2], "hello.py"), "python",
                       "hello from Python")
        async with Snippet(folder, command[2], "hello.py") as s:
            await until(daemon.clients, "the snippet to connect")
            daemon.process.terminate()
            await s.until_begins("closed: 1012 ")
            assert await asyncio.wait_for(s.process.wait(), DEADLINE) == 0


async def test_node(daemon):
    need_node()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "hello.js").write_text(snippet("js", daemon))
        await converse(daemon, Snippet(folder, "node", "hello.js"), "node", "hello from Node")


async def test_browser_page():
    need_node()
    with Daemon(reconnect_window=0) as d:
        await run_browser_page(d)


async def run_browser_page(daemon):
    page = snippet("html", daemon)
    script = re.search(r"<script>\n(.*)</script>", page, re.S)[1]
    for element in ("form", "line", "log"):
        assert page.count(f'id="{element}"') == 1, element
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "page.js").write_text(BROWSER + script)
        async with await Client.connect(daemon) as c, Snippet(folder, "node", "page.js") as s:
            await s.until(json.dumps("connected\n"))
            s.type("")
            s.type("hello from a page")
            await s.until(json.dumps("browser: hello from a page\n"))
            m = await c.expect_chat("hello from a page")
            assert m.chat.user_id == "browser", m
            await c.send_chat("x" * 1000, user_id="tester")
            await s.until(json.dumps(f"tester: {'x' * 1000}\n"))
            # It comes back by itself, and what is said then arrives.
            daemon.stop()
            await s.until_begins('"closed: 1012 ')
            with Daemon(port=daemon.port) as again:
                await s.until(json.dumps("connected\n"))
                s.type("back again")
                await s.until(json.dumps("browser: back again\n"))
                assert again.metric("websocket_messages_received_total") == 2


def test_settings_and_files():
    """Keys in the configuration example exist; files that are named are there."""
    text = re.search(r"^## Configuration\n(.*?)^## ", README, re.M | re.S)[1]
    settings = re.findall(r"^    (\w+) = (\S+)", text, re.M)
    assert len(settings) >= 5, settings
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "wsbind.conf")
        config.write_text("".join(f"{key} = {value}\n" for key, value in settings))
        done = subprocess.run([binary(), "check-config", config], capture_output=True, text=True,
                              timeout=DEADLINE, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for name in re.findall(r"`((?:src|conf|tests|bench|man)/[\w./-]+)`", README):
        assert (ROOT / name).exists(), name
    commands = subprocess.run([binary(), "--help"], capture_output=True, text=True, check=True)
    for name in re.findall(r"^\| `wsbind ([a-z-]+)", README, re.M):
        assert re.search(rf"^  {name} ", commands.stdout, re.M), name
    targets = (ROOT / "Makefile").read_text()
    for name in re.findall(r"^    make (?:SAN=\S+ )?([a-z0-9-]+)", README, re.M):
        assert re.search(rf"^{name}:", targets, re.M), name
