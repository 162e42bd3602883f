"""A headless browser that a test steers through pipes: sizes, media, scripts and PDFs of pages."""
import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
EXPECTED = "VMAMBA_JAX_EXPECT_BROWSER"  # a missing browser is a failure where this is set
SECONDS = 60  # that an answer may take
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--remote-debugging-pipe")


def browser_or_skip():
    """Path of a browser. Without one the test is skipped, or fails if the environment says that there is one."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and os.environ.get(EXPECTED):
        pytest.fail(f"{EXPECTED}={os.environ[EXPECTED]}: expected a browser on the path, one of {', '.join(NAMES)}; install Debian's package chromium")
    if found is None:
        pytest.skip(f"the browser, a device of this test, is missing: none of {', '.join(NAMES)} is on the path")
    return found


class Browser:
    """One tab, steered by the DevTools protocol: https://chromedevtools.github.io/devtools-protocol."""

    def __init__(self, path):
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (theirs_in, out), (into, theirs_out) = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (theirs_in, theirs_out)]  # away from 3 and 4, where the browser has its pipes
        wired = f'exec "$0" "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
        self._process = subprocess.Popen(["bash", "-c", wired, path, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"], pass_fds=theirs,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for each in (theirs_in, theirs_out, *theirs):
            os.close(each)
        self._in, self._out, self._count, self._left, self._session = into, out, 0, b"", None
        targets = self._call("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._out)
        os.close(self._in)
        self._profile.cleanup()

    def open(self, page, width, height=900):
        """Show a file at a width in CSS pixels, as on a screen."""
        self._call("Emulation.setEmulatedMedia", media="screen")
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._call("Page.navigate", url=page.resolve().as_uri())
        self._until("Page.loadEventFired")

    def as_printed(self, width):
        """Lay the shown page out as for paper whose printable width is `width` CSS pixels."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)
        self._call("Emulation.setEmulatedMedia", media="print")

    def run(self, script):
        """The value of a JavaScript expression, as JSON."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def pdf(self):
        """The shown page as a PDF of A4 paper, in bytes."""
        return base64.b64decode(self._call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)["data"])

    def _call(self, method, **parameters):
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters} | ({"sessionId": self._session} if self._session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._until(None)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _until(self, event):
        """The next event of this name, or without a name the answer to the last command."""
        while True:
            while b"\0" not in self._left:
                ready, _, _ = select.select([self._in], [], [], SECONDS)
                part = os.read(self._in, 1 << 20) if ready else b""
                assert part, f"no answer of the browser within {SECONDS} s"
                self._left += part
            text, _, self._left = self._left.partition(b"\0")
            message = json.loads(text)
            if message.get("method") == event if event else message.get("id") == self._count:
                return message
