"""The official conformance suite of MCP against the shipping daemon.

Starts a daemon on a directory of its own, with the sample tools under the names that the suite calls, and runs what each
revision requires. The suite cannot show a token, and without one nothing is answered; so it talks to a relay that adds one and
changes nothing else.
"""

import http.client
import http.server
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

REVISIONS = ["2025-11-25", "2026-07-28"]
# What the suite calls, and the sample tool that answers so.
FIXTURES = {
    "test_simple_text": "answer",
    "test_tool_with_progress": "answer",
    "test_logging_tool": "answer",
    "test_error_handling": "failure",
    "json_schema_2020_12_tool": "shape",
    # What whoever uses the client is asked about: a change that a policy has confirmed.
    "test_elicitation": "change",
    "test_streaming_elicitation": "change",
    "test_input_required_result_elicitation": "change",
    "test_input_required_result_request_state": "change",
    "test_input_required_result_tampered_state": "change",
    "text-stats": "text-stats",
}
POLICY = """@id("call")
permit (principal, action in Action::"call", resource);
@id("changes") @confirm
permit (principal, action in Action::"commit", resource);
"""
HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


def relay(target, token):
    """Listen, add the token, pass everything on as it comes; the port."""

    class Relay(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def carry(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            upstream = http.client.HTTPConnection(target, timeout=60)
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            own = self.server.server_address[1]
            for name, value in self.headers.items():
                if name.lower() in ("host", "origin"):
                    value = re.sub(rf"(localhost|127\.0\.0\.1):{own}\b", target, value)
                if name.lower() not in HOP:
                    upstream.putheader(name, value)
            upstream.putheader("content-length", str(len(body)))
            upstream.putheader("Authorization", f"Bearer {token}")
            upstream.endheaders(body)
            answer = upstream.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                while part := answer.read1(65536):
                    self.wfile.write(part)
                    self.wfile.flush()
            except OSError:
                pass
            upstream.close()

        do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = carry

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def furnish(home, tools):
    for folder in ("tools", "policies", "work"):
        (home / folder).mkdir()
    (home / "policies" / "all.cedar").write_text(POLICY)
    (home / "toolkeep.toml").write_text(
        '[daemon]\nstate_dir = "state"\nruntime_dir = "run"\ntools_dir = "tools"\n[http]\nlisten = "127.0.0.1:0"\n'
        '[policy]\ndir = "policies"\n[[workspace]]\nname = "work"\npath = "work"\n'
    )
    for name, component in FIXTURES.items():
        (home / "tools" / f"{component}.wasm").write_bytes((tools / f"{component}.wasm").read_bytes())
        changes = component == "change"
        manifest = f'format = 1\nname = "{name}"\ncomponent = "{component}.wasm"\ntier = {int(changes)}\n'
        if changes:
            manifest += '[[workspace]]\nname = "work"\naccess = "write"\n'
        (home / "tools" / f"{name}.toml").write_text(manifest)


def address(log):
    """Where the HTTP door is, once the daemon says so."""
    for _ in range(600):
        for line in log.read_text().splitlines():
            found = re.search(r'"address":"http://([^"]+)"', line)
            if found:
                return found.group(1)
        time.sleep(0.1)
    sys.exit(f"the daemon does not start:\n{log.read_text()}")


def main(toolkeep, tools, suite, results):
    here = pathlib.Path(__file__).parent
    home = pathlib.Path(tempfile.mkdtemp(prefix="toolkeep-conformance-"))
    furnish(home, pathlib.Path(tools))
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    command = [toolkeep, "--config", "toolkeep.toml"]
    with open(home / "log", "w") as log:
        daemon = subprocess.Popen([*command, "serve", "--log", "json"], cwd=home, env=environment, stderr=log)
    try:
        target = address(home / "log")
        mint = [*command, "-o", "json", "tokens", "mint", "--user", "suite", "--agent", "conformance"]
        minted = subprocess.run(mint, cwd=home, env=environment, check=True, capture_output=True, text=True)
        port = relay(target, json.loads(minted.stdout)["token"])
        failed = 0
        for revision in REVISIONS:
            print(f"== {revision}", flush=True)
            run = ["node", f"{suite}/node_modules/@modelcontextprotocol/conformance/dist/index.js", "server"]
            run += ["--url", f"http://127.0.0.1:{port}/mcp", "--requirements", revision, "-o", f"{results}/{revision}"]
            run += ["--expected-failures", str(here / f"expected-failures-{revision}.yml")]
            path = f"{suite}/node_modules/.bin:{os.environ['PATH']}"
            failed |= subprocess.run(run, env={**os.environ, "PATH": path}).returncode
        sys.exit(failed)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()


main(*sys.argv[1:])
