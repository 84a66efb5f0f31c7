"""A headless Chromium that a test steers: the DevTools protocol over a pair of pipes."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = shutil.which("chromium")
PATIENCE = 60
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
         "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"]


class Browser:
    """One page of one browser. `errors`: what its console has had: errors, exceptions, what a policy has blocked."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        to_browser, self.out = os.pipe()
        self.into, from_browser = os.pipe()
        # The browser reads descriptor 3 and writes descriptor 4: high numbers first, as one may be the other's.
        high = [fcntl.fcntl(one, fcntl.F_DUPFD, 20) for one in (to_browser, from_browser)]
        arguments = [CHROMIUM, *FLAGS, f"--user-data-dir={self.folder.name}", "about:blank"]
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, pass_fds=(3, 4), start_new_session=True,
                                        preexec_fn=lambda: (os.dup2(high[0], 3), os.dup2(high[1], 4)))
        for one in (to_browser, from_browser, *high):
            os.close(one)
        self.heard, self.number, self.answers, self.errors, self.session = b"", 0, {}, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(1280, 900)

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(10)
        except (OSError, RuntimeError, AssertionError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.out)
        os.close(self.into)
        shutil.rmtree(self.folder.name, ignore_errors=True)
        self.folder.cleanup()

    def call(self, method: str, **parameters) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while self.number not in self.answers:
            self.hear(end - time.monotonic())
        answer = self.answers.pop(self.number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def hear(self, patience: float) -> None:
        ready, _, _ = select.select([self.into], [], [], max(0, patience))
        if not ready:
            raise AssertionError(f"waited {PATIENCE} s for the browser")
        more = os.read(self.into, 1 << 20)
        if not more:
            raise AssertionError("the browser has ended")
        self.heard += more
        *whole, self.heard = self.heard.split(b"\0")
        for text in whole:
            self.take(json.loads(text))

    def take(self, message: dict) -> None:
        if "id" in message:
            self.answers[message["id"]] = message
            return
        what, said = message["method"], message.get("params", {})
        if what == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(said["exceptionDetails"]))
        elif what == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert", "warning"):
            self.errors.append(json.dumps(said["args"]))
        elif what == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(json.dumps(said["entry"]))

    def open(self, address) -> None:
        self.call("Page.navigate", url=str(address))
        self.wait("document.readyState === 'complete'", "the page")

    def evaluate(self, expression: str):
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise AssertionError(f"{expression}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def wait(self, expression: str, what: str):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            value = self.evaluate(f"Boolean({expression})")
            if value:
                return
            time.sleep(0.05)
        shown = self.evaluate("document.body ? document.body.innerText : ''")
        raise AssertionError(f"waited {PATIENCE} s for {what}: {expression}\n{shown}")

    def text(self, selector: str) -> str:
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, file: Path, whole: bool = False) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(file).write_bytes(base64.b64decode(shot["data"]))
