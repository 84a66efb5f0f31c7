"""The laws of the rooms, read off the #include lines and the sources (CONTRIBUTING.md tells them in words)."""

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ["shared/base", "shared/learn", "shared/wire", "shared/plan", "shared/worker_process", "shared/net", "shared/session", "server", "client",
         "experiments"]
TORCH = re.compile(r"^(torch|ATen|c10)/")

# Room -> what its files may include of the project's own.
MAY_USE = {
    "shared/base": ["shared/base"],
    "shared/learn": ["shared/base", "shared/learn"],
    "shared/wire": ["shared/base", "shared/learn", "shared/wire"],
    "shared/plan": ["shared/base", "shared/learn", "shared/wire", "shared/plan"],
    "shared/worker_process": ["shared/base", "shared/learn", "shared/wire", "shared/worker_process"],
    "shared/net": ["shared/base", "shared/net"],
    "shared/session": ["shared/base", "shared/learn", "shared/wire", "shared/net", "shared/session"],
    "server": ["shared", "server"],
    "server/pki": ["shared/base", "server/pki"],
    "client": ["shared", "client"],
    "experiments": ["shared", "server", "client", "experiments"],
}

# Rooms within a room -> the ones below that each may use; none uses one that is not named.
INNER = {
    "server": {
        "config": ["strategies"],
        "operations": [],
        "strategies": [],
        "uploads": ["operations"],
        "sessions": ["config", "operations", "uploads"],
        "record": ["config", "operations", "uploads", "sessions"],
        "admission": ["config", "operations", "uploads", "sessions"],
        "phases": ["config", "operations", "strategies", "uploads", "sessions", "record"],
        "run": ["config", "operations", "strategies", "uploads", "sessions", "record", "admission", "phases"],
        "pki": [],
    },
    "shared/learn": {
        "core": [],
        "aggregate": ["core"],
        "metrics": ["core"],
        "models": ["core", "aggregate"],
        "data": ["core"],
        "partition": ["core", "data"],
        "train": ["core", "metrics", "models", "data"],
        "distill": ["core", "metrics", "models", "data", "train"],
        "tune": ["core", "metrics", "models", "data", "train", "distill"],
        "peers": ["core", "aggregate", "metrics", "models", "data", "partition", "train", "distill", "tune"],
    },
}


def sources(room: str):
    for path in sorted((ROOT / room).rglob("*")):
        if path.suffix in {".cpp", ".hpp"}:
            yield path, path.read_text()


def includes(text: str):
    return re.findall(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', text, re.MULTILINE)


class Laws(unittest.TestCase):
    def check(self, room: str, forbidden, why: str):
        for path, text in sources(room):
            for name in includes(text):
                self.assertFalse(forbidden(name), f"{path.relative_to(ROOT)} includes {name}: {why}")

    def test_there_is_something_to_check(self):
        for room in ROOMS:
            self.assertTrue(list(sources(room)), room)

    def test_rooms_use_only_the_rooms_below_them(self):
        for room, allowed in MAY_USE.items():
            own = lambda name: name.split("/")[0] in {"shared", "server", "client", "experiments", "tests"}
            self.check(room, lambda name: own(name) and not any(name.startswith(a + "/") for a in allowed),
                       f"{room} may use {', '.join(allowed)}")

    def test_inner_rooms_use_only_the_rooms_below_them(self):
        for room, inner in INNER.items():
            folders = {path.name for path in (ROOT / room).iterdir() if path.is_dir() and list(path.rglob("*.cpp"))}
            self.assertEqual(folders, set(inner), f"the rooms of {room}")
            for name, below in inner.items():
                allowed = [f"{room}/{one}/" for one in [name, *below]]
                self.check(f"{room}/{name}", lambda used: used.startswith(room + "/") and not used.startswith(tuple(allowed)),
                           f"{name} may use {', '.join(below) or 'no other room'} of {room}")

    def test_what_decides_reaches_neither_sockets_nor_messages(self):
        """Through all headers: a rule that is pure is tested in milliseconds, and changes rebuild little."""
        reached = {}

        def reach(file: str):
            if file not in reached:
                reached[file] = set()
                for name in includes((ROOT / file).read_text()):
                    reached[file].add(name)
                    if (ROOT / name).is_file():
                        reached[file] |= reach(name)
            return reached[file]

        pure = [path for room in ["server/config", "server/strategies"] for path, _ in sources(room)]
        pure += [ROOT / "server/phases/disclosure.hpp", ROOT / "server/phases/disclosure.cpp",
                 ROOT / "server/phases/round_machine.hpp", ROOT / "server/phases/round_machine.cpp",
                 ROOT / "server/admission/admission_machine.hpp", ROOT / "server/admission/admission_machine.cpp",
                 ROOT / "client/peer/round_machine.hpp", ROOT / "client/peer/round_machine.cpp"]
        for path in pure:
            far_away = ("boost/", "cereal/")
            if "machine" in path.name:
                far_away += ("spdlog/",)
            far = {name for name in reach(str(path.relative_to(ROOT))) if name.startswith(far_away)}
            self.assertEqual(far, set(), str(path.relative_to(ROOT)))

    def test_no_function_of_the_server_is_longer_than_50_lines(self):
        for path, text in sources("server"):
            lines = text.split("\n")
            begin = 0
            for number, line in enumerate(lines, 1):
                # clang-format leaves nothing of a function at the margin but its first lines and its end.
                if re.match(r"[A-Za-z\[]", line) and (number == 1 or re.match(r"$|//|template|}", lines[number - 2])):
                    begin = number
                if line == "}":
                    self.assertLessEqual(number - begin + 1, 50, f"{path.relative_to(ROOT)}:{begin}: split it")

    def test_learn_knows_no_network(self):
        self.check("shared/learn", lambda name: name.startswith("boost/"), "learn knows no sockets")

    def test_net_and_base_know_no_tensors(self):
        for room in ["shared/net", "shared/base"]:
            self.check(room, lambda name: bool(TORCH.match(name)), f"{room} knows no tensors")

    def test_beast_stays_behind_two_faces(self):
        users = [path.name for room in ROOMS for path, text in sources(room)
                 if any(name.startswith("boost/beast") for name in includes(text)) and path.name != "asio_impl.cpp"]
        self.assertEqual(users, ["http.cpp", "websocket.cpp"])

    def test_cereal_stays_in_wire(self):
        for room in ROOMS:
            if room != "shared/wire":
                self.check(room, lambda name: name.startswith("cereal/"), "cereal stays in wire")

    def test_only_main_reads_the_environment_and_the_clock(self):
        pattern = re.compile(r"\b(getenv|system_clock::now\(|steady_clock::now\()")
        for room in ROOMS:
            for path, text in sources(room):
                if path.name == "main.cpp" or "bench" in path.parts:
                    continue
                found = pattern.search(text)
                self.assertIsNone(found, f"{path.relative_to(ROOT)}: {found and found.group()} belongs in main")

    def test_what_waits_goes_by_the_time_of_its_loop(self):
        """Then a test of a time limit waits for none."""
        pattern = re.compile(r"\b(steady_timer|system_timer|high_resolution_timer|sleep_for|sleep_until)\b")
        for room in ["shared/session", "server", "client", "experiments"]:
            for path, text in sources(room):
                found = pattern.search(text) if "bench" not in path.parts else None
                self.assertIsNone(found, f"{path.relative_to(ROOT)}: {found and found.group()}: use net::Timer")

    def test_functions_of_the_file_system_are_called_with_an_error_code(self):
        """Without one they throw what ends a program as a bug; shared/base/files.hpp has those that throw an Error."""
        names = (r"exists|is_directory|is_empty|is_regular_file|status|symlink_status|file_size|create_\w+|remove|remove_all|"
                 r"rename|copy\w*|\w*canonical|absolute|space|permissions|last_write_time|read_symlink|resize_file|"
                 r"(?:recursive_)?directory_iterator(?: \w+)?")
        call = re.compile(rf"std::filesystem::(?:{names})\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)")
        for room in ROOMS:
            for path, text in sources(room):
                for found in call.findall(text) if "bench" not in path.parts else []:
                    self.assertRegex(found, r"\b(code|reason|ignored|unresolved)\)", str(path.relative_to(ROOT)))

    def test_no_header_pulls_in_all_of_torch(self):
        for room in ROOMS:
            for path, text in sources(room):
                if path.suffix == ".hpp":
                    self.assertNotIn("torch/torch.h", includes(text), str(path.relative_to(ROOT)))

    def test_reports_share_only_what_is_common(self):
        reports = {"comparison", "study", "peers"}
        for room in ("common", *sorted(reports)):
            others = "|".join(sorted(reports - {room}))
            scripts = sorted((ROOT / "experiments" / room).glob("*.py"))
            self.assertTrue(scripts, room)
            for path in scripts:
                found = re.search(rf"^\s*(?:from|import) (?:{others})\b", path.read_text(), re.MULTILINE)
                self.assertIsNone(found, f"{path.relative_to(ROOT)}: what several use goes to experiments/common")

    def test_headers_are_guarded(self):
        for room in ROOMS:
            for path, text in sources(room):
                if path.suffix == ".hpp":
                    self.assertIn("#pragma once", text, str(path.relative_to(ROOT)))


if __name__ == "__main__":
    unittest.main()
