"""The page where people watch a run, in a real browser: from a real server, and from the folder of a finished run."""

import hashlib
import json
import math
import random
import re
import signal
import socket
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from tests.integration.browser import CHROMIUM, Browser
from tests.integration.programs import BIN, LAB, ProgramsTest

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token_of~26.characters.x"
FOREIGN = "<img src=x onerror=\"window.injected=1\">"


def write_run(folder: Path, clients: int, rounds: int, pace: float = 1.0, first_name: str = "silo-0") -> None:
    """The folder of a finished run that never was: curves that rise, metrics, a silo that is left out at the end."""
    folder.mkdir()
    draw = random.Random(1)
    names = [first_name] + [f"silo-{i}" for i in range(1, clients)]
    counts = [[int(draw.gammavariate(0.4, 200)) for _ in range(10)] for _ in names]
    (folder / "manifest.json").write_text(json.dumps({"class_counts": counts}))
    config = {"federation": {"rounds": rounds, "clients": clients, "strategy": "fedavg"}, "start": {"model": "random"},
              "targets": {"accuracies": [0.7, 0.8]}, "data": {"manifest": str(folder / "manifest.json")}}
    (folder / "run.json").write_text(json.dumps({
        "version": "0.1.0", "dataset": "digits", "architecture": "cnn", "seed": 1, "config": config,
        "samples": {"classes": [FOREIGN, *"123456789"]}}))
    with open(folder / "rounds.jsonl", "w") as lines:
        for number in range(rounds + 1):
            score = 0.3 + 0.6 * (1 - math.exp(-5 * pace * number / rounds))
            is_last = number == rounds
            lines.write(json.dumps({
                "round": number, "accuracy": score, "loss": 2 - 2 * score, "seconds": 2.5 * number, "class_accuracy": [score] * 10,
                "bytes_up": 1000 * clients, "bytes_down": 1000 * clients, "clients": names[is_last:],
                "excluded": {first_name: FOREIGN} if is_last else {}, "norms": {name: 1.5 for name in names},
                "refused": {names[1]: {"late": 3}}, "federated": {"accuracy": score - 0.02, "loss": 2.1 - 2 * score},
                "metrics": {"central": {"balanced_accuracy": score - 0.1}, "own": {"dice": score / 2}},
                "silo_metrics": {name: {"dice": 0.25} for name in names}}) + "\n")
    with open(folder / "audit.jsonl", "w") as lines:
        for name in names:
            lines.write(json.dumps({"at": "2026-03-01T09:30:00.125Z", "event": "joined", "client": name}) + "\n")
        lines.write(json.dumps({"at": "2026-03-01T09:31:00.000Z", "event": "connection lost", "client": first_name,
                                "reason": FOREIGN}) + "\n")
    (folder / "summary.json").write_text(json.dumps({
        "stopped_because": f"all {rounds} rounds are done", "rounds": rounds, "seconds": 2.5 * rounds,
        "before_rounds": {"bytes_up": 0, "bytes_down": 0, "seconds": 0}}))


class PageTest(ProgramsTest):
    def start_run(self, **settings):
        self.draw()
        settings = {"start.model": "random", "admin.port": 0, **settings}
        server, port = self.start_server(**settings)
        self.admin = int((self.folder / "run/admin-port").read_text())
        return server, port

    def ask(self, path: str, **headers):
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", headers=headers)
        opener = urllib.request.build_opener(NoRedirect)
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.status, answer.headers, b"" if path == "/events" else answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


class Answers(PageTest):
    """What needs no browser."""

    def test_beyond_loopback_the_page_asks_for_its_token_and_no_log_has_it(self):
        (self.folder / "token").write_text(TOKEN + "\n")
        server, _ = self.start_run(**{"admin.address": "0.0.0.0", "page.token_file": self.folder / "token"})
        for path in ("/", "/events", "/page.js", "/run/run.json"):
            self.assertEqual(self.ask(path)[0], 401, path)
            self.assertEqual(self.ask(path, Authorization="Bearer wrong")[0], 401, path)
            self.assertEqual(self.ask(path, Authorization=f"Bearer {TOKEN}")[0], 200, path)
        for path in ("/healthz", "/readyz", "/metrics"):
            self.assertEqual(self.ask(path)[0], 200, path)
        status, headers, _ = self.ask(f"/?token={TOKEN}")
        self.assertEqual((status, headers["Location"]), (303, "/"))
        cookie = headers["Set-Cookie"].split(";")[0]
        self.assertNotIn(TOKEN, cookie)
        self.assertEqual(self.ask("/", Cookie=cookie)[0], 200)
        self.assertEqual(self.ask("/", Cookie=cookie[:-1])[0], 401)
        server.send_signal(signal.SIGTERM)
        code, out, err = self.finish(server)
        self.assertEqual(code, 130)
        self.assertIn("/?token=TOKEN", out + err)
        for text in [out, err, *(file.read_text() for file in (self.folder / "run").glob("*.json*"))]:
            self.assertNotIn(TOKEN, text)

    def test_beyond_loopback_there_is_no_page_without_a_token(self):
        server, _ = self.start_run(**{"admin.address": "0.0.0.0"})
        self.assertEqual(self.ask("/")[0], 403)
        self.assertEqual(self.ask("/healthz")[0], 200)
        server.send_signal(signal.SIGTERM)
        self.assertIn("page.token_file is not set", "".join(self.finish(server)[1:]))

    def test_a_token_and_a_reference_that_cannot_be_used_are_refused_before_the_run(self):
        self.draw()
        (self.folder / "token").write_text("short")
        done = self.run_program(*self.server_arguments(**{"page.token_file": self.folder / "token"}))
        self.assert_fails(done, 2, "page.token_file", "16 to 128")
        done = self.run_program(*self.server_arguments("other", **{"page.reference": self.folder / "none"}))
        self.assert_fails(done, 3, "page.reference", "none")
        self.assertFalse((self.folder / "run").exists() or (self.folder / "other").exists())

    def test_a_web_site_under_a_name_of_its_own_reads_nothing(self):
        self.start_run()
        self.assertEqual(self.ask("/")[0], 200)
        self.assertEqual(self.ask("/", Host="example.org")[0], 403)
        self.assertEqual(self.ask("/metrics", Host="example.org")[0], 200)

    def test_viewers_that_read_nothing_neither_hold_up_the_run_nor_fill_its_places(self):
        server, port = self.start_run(**{"federation.rounds": 3})
        viewers = []
        for _ in range(16):
            viewers.append(socket.create_connection(("127.0.0.1", self.admin), 10))
            viewers[-1].sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertTrue(viewers[-1].recv(12).endswith(b"200"))
        self.assertEqual(self.ask("/events")[0], 503)
        self.assertEqual(self.ask("/metrics")[0], 200)
        for index in range(3):
            self.start(*self.client_arguments(index, port))
        code, out, err = self.finish(server)
        self.assertEqual(code, 0, out + err)
        last = b""
        while more := viewers[0].recv(1 << 16):
            last += more
        self.assertIn(b'"end":', last)
        for viewer in viewers:
            viewer.close()

    def test_an_event_that_was_seen_is_not_sent_again(self):
        self.start_run()
        first = self.event()
        self.assertTrue(first["first"])
        again = self.event({"Last-Event-ID": first["id"]})
        self.assertNotIn("first", again)
        self.assertNotIn("facts", again)

    def event(self, headers=None) -> dict:
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}/events", headers=headers or {})
        with urllib.request.urlopen(request, timeout=60) as stream:
            name = stream.readline().decode().removeprefix("id: ").strip()
            return {**json.loads(stream.readline().decode().removeprefix("data: ")), "id": name}

    def test_the_report_of_one_run_has_its_curves_and_its_page(self):
        write_run(self.folder / "run", 3, 5)
        done = self.run_program("/usr/bin/python3", ROOT / "experiments/report.py", self.folder / "run", "--bin", BIN)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.split(), [str(self.folder / "run" / name) for name in ("curves.png", "page.html")])
        self.assertTrue((self.folder / "run/curves.png").read_bytes().startswith(b"\x89PNG"))
        self.assertIn("recorded-run", (self.folder / "run/page.html").read_text())

    def test_the_library_of_charts_is_the_one_that_its_page_names(self):
        folder = ROOT / "third_party/uplot"
        named = dict(re.findall(r"^\| package/(?:dist/)?(\S+) \| ([0-9a-f]{64}) \|$", (folder / "README.md").read_text(), re.MULTILINE))
        self.assertEqual(named, {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
                                 for name in ("uPlot.iife.min.js", "uPlot.min.css", "LICENSE")})

    def test_a_folder_that_holds_no_run_is_named(self):
        self.assert_fails(self.run_program(LAB, "page", self.folder), 3, str(self.folder), "run.json")


@unittest.skipUnless(CHROMIUM, "There is no chromium here")
class InABrowser(PageTest):
    def setUp(self):
        super().setUp()
        self.browser = Browser()

    def tearDown(self):
        self.browser.close()
        super().tearDown()

    def waits(self) -> str:
        return self.browser.text("#waits")

    def wait_for_text(self, selector: str, words: str):
        found = f"document.querySelector({json.dumps(selector)}).innerText.includes({json.dumps(words)})"
        self.browser.wait(found, f"{words!r} in {selector}")

    def states(self) -> dict:
        return self.browser.evaluate("Object.fromEntries([...document.querySelectorAll('#silos tbody tr')].map((row) => "
                                     "[row.cells[0].innerText, row.cells[1].firstElementChild.innerText]))")

    def assert_fits(self, width: int):
        self.browser.resize(width, 844)
        self.browser.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self.assertLessEqual(self.browser.evaluate("document.documentElement.scrollWidth"), width)

    def test_a_run_from_the_lobby_over_a_lost_silo_to_its_end(self):
        write_run(self.folder / "earlier", 3, 4)
        server, port = self.start_run(**{"federation.rounds": 4, "targets.accuracies": "[0.5]",
                                         "evaluation.federated": "false",
                                         "page.reference": self.folder / "earlier"})
        self.browser.open(f"http://127.0.0.1:{self.admin}/")
        self.wait_for_text("#waits", "Waits for 3 more of 3 clients to join")
        self.assertIn("against earlier", self.browser.text("#reference-name"))
        clients = [self.start(*self.client_arguments(i, port)) for i in range(2)]
        self.wait_for_text("#waits", "Waits for 1 more of 3 clients")
        # One that stands still keeps round 1 from its end.
        clients[1].send_signal(signal.SIGSTOP)
        clients.append(self.start(*self.client_arguments(2, port)))
        self.wait_for_text("#waits", "Waits for 1 of 3 silos: silo-1")
        self.assertEqual(self.states(), {"silo-0": "ready", "silo-1": "train", "silo-2": "ready"})
        self.wait_for_text("#partition-words", "3 shares")
        clients[2].kill()
        self.browser.wait("document.querySelector('#silos').innerText.includes('connection lost')", "the lost silo")
        clients[1].send_signal(signal.SIGCONT)
        self.wait_for_text("#waits", "silo-2 (connection lost)")
        self.wait_for_text("#phase", "Round 2")
        self.wait_for_text("#log", "silo-2: the connection is lost")
        self.assertEqual(self.browser.evaluate("document.querySelectorAll('.plot canvas').length"), 2)
        self.start(*self.client_arguments(2, port))
        self.wait_for_text("#phase", "The run is finished")
        self.wait_for_text("#waits", "all 4 rounds are done")
        self.wait_for_text("#figures", "4 / 4")
        self.assertEqual(self.finish(server)[0], 0)
        self.wait_for_text("#link", "the server has ended")
        # That the server is gone is an error of the network, and the only one.
        self.assertEqual([error for error in self.browser.errors if "ERR_" not in error], [])
        figures = self.browser.text("#figures").split("Time")[0]
        self.open_recorded("run", "--reference", self.folder / "earlier")
        self.assertEqual(self.browser.text("#figures").split("Time")[0], figures)
        self.assertEqual(self.browser.evaluate("[...document.querySelectorAll('#silos td.name')].map((cell) => cell.innerText)"),
                         ["silo-0", "silo-1", "silo-2"])

    def test_downloads_are_the_files_of_the_run(self):
        _, port = self.start_run()
        self.browser.open(f"http://127.0.0.1:{self.admin}/")
        self.wait_for_text("#files", "run.json")
        links = self.browser.evaluate("[...document.querySelectorAll('#files a')].map((link) => link.getAttribute('href'))")
        self.assertEqual(links, ["run/rounds.jsonl", "run/run.json", None, None])
        status, headers, body = self.ask("/run/run.json")
        self.assertEqual((status, body), (200, (self.folder / "run/run.json").read_bytes()))
        self.assertIn("attachment", headers["Content-Disposition"])
        self.assertEqual(self.ask("/run/summary.json")[0], 404)
        for path in ("/run/journal", "/run/../run.json", "/run/%2e%2e/data", "/run/audit.jsonl"):
            self.assertEqual(self.ask(path)[0], 404, path)

    def test_the_token_in_the_address_opens_the_page_and_goes_from_the_address(self):
        (self.folder / "token").write_text(TOKEN)
        self.start_run(**{"page.token_file": self.folder / "token"})
        self.browser.open(f"http://127.0.0.1:{self.admin}/?token={TOKEN}")
        self.wait_for_text("#waits", "Waits for 3 more")
        self.assertEqual(self.browser.evaluate("location.href"), f"http://127.0.0.1:{self.admin}/")
        self.assertEqual(self.browser.evaluate("document.cookie"), "")
        self.assertEqual(self.browser.errors, [])

    def open_recorded(self, name: str, *options):
        done = self.run_program(LAB, "page", self.folder / name, *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        file = done.stdout.removeprefix("page: ").strip()
        self.browser.open(f"file://{file}")
        self.browser.wait("document.body.dataset.drawn", "the page")

    def test_a_finished_run_from_one_file_with_foreign_text_as_text(self):
        write_run(self.folder / "slow", 4, 20)
        write_run(self.folder / "fast", 4, 20, pace=2, first_name=FOREIGN)
        self.open_recorded("fast", "--reference", self.folder / "slow")
        self.assertEqual(self.browser.text("#phase"), "The run is finished")
        self.assertIn("all 20 rounds are done", self.waits())
        for place in ("#silos", "#log", "#classes"):
            self.assertIn(FOREIGN, self.browser.text(place), place)
        self.assertEqual(self.browser.evaluate("document.querySelectorAll('img').length"), 0)
        self.assertEqual(self.browser.evaluate("typeof window.injected"), "undefined")
        # Targets are reached at half the rounds of the reference: 0.7 at 3 of 5 (5 * pace * n / 20 >= ln 3) and so on.
        rows = self.browser.evaluate("[...document.querySelectorAll('#saved tbody tr')].map((row) => [...row.cells].map((c) => c.innerText))")
        self.assertEqual(rows[0], ["70.00 %", "round 3", "round 5", "2", "2"])
        self.assertEqual(rows[1], ["80.00 %", "round 4", "round 8", "4", "4"])
        self.assertEqual(rows[2][1:], ["round 20", "not in 20", "≥ 0", "≥ 0"])
        self.assertEqual(self.browser.errors, [])

    def test_metrics_can_be_chosen_silos_sorted_and_a_reference_picked(self):
        write_run(self.folder / "slow", 4, 20)
        write_run(self.folder / "fast", 4, 20, pace=2)
        self.open_recorded("fast")
        self.assertEqual(self.browser.evaluate("[...document.querySelectorAll('#metric option')].map((one) => one.value)"),
                         ["accuracy", "balanced_accuracy", "dice"])
        self.browser.evaluate("document.querySelector('#metric').value = 'dice';"
                              "document.querySelector('#metric').dispatchEvent(new Event('change'))")
        self.wait_for_text("#score-key", "silos' own models 0.4500")
        self.browser.evaluate("document.querySelector('#metric').value = 'accuracy';"
                              "document.querySelector('#metric').dispatchEvent(new Event('change'))")
        self.browser.evaluate("[...document.querySelectorAll('#silos th button')].find((one) => one.innerText === 'Refused').click()")
        first = "document.querySelector('#silos tbody tr').cells[0].innerText"
        self.browser.wait(f"{first} === 'silo-1'", "the silo with refusals on top")
        root = self.browser.call("DOM.getDocument")["root"]["nodeId"]
        field = self.browser.call("DOM.querySelector", nodeId=root, selector="#reference-file")["nodeId"]
        self.browser.call("DOM.setFileInputFiles", nodeId=field, files=[
            str(self.folder / "slow/rounds.jsonl"), str(self.folder / "slow/summary.json")])
        self.wait_for_text("#saved", "round 5")
        self.wait_for_text("#score-key", "reference")
        self.browser.evaluate("document.querySelector('#reference-none').click()")
        self.wait_for_text("#saved-words", "Choose the rounds.jsonl")
        root = self.browser.call("DOM.getDocument")["root"]["nodeId"]
        field = self.browser.call("DOM.querySelector", nodeId=root, selector="#reference-file")["nodeId"]
        self.browser.call("DOM.setFileInputFiles", nodeId=field, files=[str(self.folder / "slow/run.json")])
        self.wait_for_text("#saved-words", "There are no rounds in it")
        self.assertEqual(self.browser.errors, [])

    def test_it_fits_a_telephone_and_follows_the_dark_mode(self):
        write_run(self.folder / "run", 12, 30)
        self.open_recorded("run")
        for width in (360, 390, 800, 1280, 1920):
            with self.subTest(width=width):
                self.assert_fits(width)
        ground = "getComputedStyle(document.body).backgroundColor"
        light = self.browser.evaluate(ground)
        self.browser.prefer("dark")
        self.assertNotEqual(self.browser.evaluate(ground), light)
        self.assertEqual(self.browser.errors, [])

    def test_a_hundred_silos_and_a_thousand_rounds(self):
        write_run(self.folder / "large", 100, 1000)
        self.open_recorded("large")
        self.assertEqual(self.browser.evaluate("document.querySelectorAll('#silos tbody tr').length"), 100)
        self.assertEqual(self.browser.text("#figures b"), "1000 / 1000")
        frames = self.browser.evaluate(FRAMES)
        frames.sort()
        print(f"\n100 silos, 1000 rounds: {len(frames)} frames, median {frames[len(frames) // 2]:.1f} ms, "
              f"95 % below {frames[len(frames) * 95 // 100]:.1f} ms, longest {frames[-1]:.1f} ms", end=" ")
        self.assertEqual(self.browser.errors, [])


# Times between frames while the pointer goes over a chart and the page is scrolled.
FRAMES = """new Promise((done) => {
  const times = [];
  const over = document.querySelector("#score .u-over");
  let before = performance.now();
  const step = (now) => {
    times.push(now - before);
    before = now;
    if (times.length > 240) return done(times.slice(1));
    const box = over.getBoundingClientRect();
    over.dispatchEvent(new MouseEvent("mousemove", { bubbles: true, clientX: box.left + (times.length * 7) % box.width, clientY: box.top + 40 }));
    scrollTo(0, (times.length * 13) % 600);
    document.querySelector("#silos").parentElement.scrollTop = (times.length * 11) % 1500;
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""


if __name__ == "__main__":
    unittest.main()
