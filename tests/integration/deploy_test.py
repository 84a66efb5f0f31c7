"""What server/deploy and client/deploy name is there: settings in the programs' help, volumes, secrets and ports in the
manifests. What only a Kubernetes API server or a container engine can say is not asked here."""

import functools
import itertools
import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

try:
    import yaml
except ImportError:  # the manifests are then not read
    yaml = None

BIN = Path(os.environ["HEADSTART_BIN"])
ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "server/deploy"
PEERS = ROOT / "client/deploy"
SITES = ["site-a", "site-b", "site-c"]
KUBERNETES = DEPLOY / "kubernetes"
PROGRAMS = {
    "headstart-server": [BIN / "server/headstart-server"],
    "headstart-client": [BIN / "client/headstart-client"],
    "headstart-peer": [BIN / "client/peer/headstart-peer"],
    "headstart-lab partition": [BIN / "experiments/headstart-lab", "partition"],
    "headstart-lab export": [BIN / "experiments/headstart-lab", "export"],
}


@functools.cache
def settings_of(program: str, *help_options: str) -> set:
    options = help_options or ("--help", "all")
    done = subprocess.run([*map(str, PROGRAMS[program]), *options], capture_output=True, text=True, timeout=60, check=True)
    return set(re.findall(r"^  ([a-z_]+(?:\.[a-z_]+)*)  \(", done.stdout, re.MULTILINE))


def commands_in(text: str):
    """Each call of a program, from its name to the end of its (continued) line."""
    joined = re.sub(r"\\\n", " ", text)
    for line in joined.splitlines():
        for program in PROGRAMS:
            place = line.find(program + " ")
            if place >= 0:
                yield program, line[place:]


def flattened(values: dict, prefix: str = "") -> set:
    keys = set()
    for key, value in values.items():
        keys |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return keys


def scripts() -> list:
    return [script for folder in (DEPLOY, PEERS) for script in sorted(folder.glob("*.sh"))]


def objects(*files: str) -> list:
    return [thing for file in files for thing in yaml.safe_load_all((KUBERNETES / file).read_text())]


class Settings(unittest.TestCase):
    def test_every_setting_that_scripts_and_guide_name_is_one(self):
        known = {program: settings_of(program) for program in PROGRAMS}
        found = 0
        for file in [*scripts(), *(folder / name for folder in (DEPLOY, PEERS) for name in ("README.md", "compose.yaml"))]:
            for program, command in commands_in(file.read_text()):
                for key in re.findall(r"""--set ["']?([a-z_.]+)=""", command):
                    found += 1
                    self.assertIn(key, known[program], f"{file.name}: {command}")
        self.assertGreater(found, 30)

    def test_every_setting_of_the_manifests_is_one(self):
        for file, program in [("server/run.json", "headstart-server"), ("silo/client.json", "headstart-client")]:
            for key in flattened(json.loads((KUBERNETES / file).read_text())):
                self.assertIn(key, settings_of(program), file)

    def test_every_setting_of_the_peers_is_one(self):
        for site in SITES:
            self.assertLessEqual(flattened(json.loads((PEERS / f"{site}.json").read_text())), settings_of("headstart-peer"))
        shared = json.loads((PEERS / "peers.json").read_text())
        self.assertEqual([member["name"] for member in shared.pop("members")], SITES)
        self.assertLessEqual(flattened(shared), settings_of("headstart-peer", "--help-peers"))


class Image(unittest.TestCase):
    def test_it_has_every_program_and_script(self):
        text = (ROOT / "Dockerfile").read_text()
        built = re.search(r"--target ([a-z -]+?) *\\\n", text).group(1).split()
        packaged = re.findall(r"install\(TARGETS ([a-z -]+) RUNTIME", (ROOT / "cmake/packages.cmake").read_text())
        installed = " ".join(packaged).split()
        self.assertEqual(sorted(built), sorted(installed))
        self.assertIn("COPY server/deploy/*.sh client/deploy/*.sh /deploy/", text)
        names = [script.name for script in scripts()]
        self.assertEqual(len(names), len(set(names)))


class Alerts(unittest.TestCase):
    def test_every_metric_of_the_alerts_is_one_of_the_servers(self):
        known = set(re.findall(r'"(headstart_[a-z_]+)"', (DEPLOY.parent / "operations/metrics.cpp").read_text()))
        named = set(re.findall(r"\bheadstart_[a-z_]+", (DEPLOY / "alerts.yaml").read_text()))
        self.assertGreater(len(named), 5)
        self.assertLessEqual(named, known)


class Dashboard(unittest.TestCase):
    def test_it_names_the_metrics_of_the_server_all_of_them_and_no_others(self):
        known = set(re.findall(r'"((?:headstart|process)_[a-z_]+)"', (DEPLOY.parent / "operations/metrics.cpp").read_text()))
        dashboard = json.loads((DEPLOY / "grafana.json").read_text())
        asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        named = {name for text in asked for name in re.findall(r"\b(?:headstart|process)_[a-z_]+", text)}
        self.assertEqual(named, known)

    def test_its_panels_lie_side_by_side(self):
        taken = set()
        for panel in json.loads((DEPLOY / "grafana.json").read_text())["panels"]:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells


class Scripts(unittest.TestCase):
    def put(self, text: bytes):
        return subprocess.run(["sh", DEPLOY / "put.sh", self.file], input=text, capture_output=True, timeout=60)

    def test_put_replaces_a_file_whole_and_never_by_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            self.file = Path(folder) / "server.pem"
            refused = self.put(b"")
            self.assertEqual(refused.returncode, 1)
            self.assertIn(f"nothing came for {self.file}", refused.stderr.decode())
            self.assertEqual(list(Path(folder).iterdir()), [])
            self.assertEqual(self.put(b"first").returncode, 0)
            self.assertEqual(self.put(b"").returncode, 1)
            self.assertEqual(self.file.read_bytes(), b"first")
            self.assertEqual(self.put(b"second").returncode, 0)
            self.assertEqual(self.file.read_bytes(), b"second")
            self.assertEqual(list(Path(folder).iterdir()), [self.file])

    def test_the_authority_signs_each_name_for_what_it_is(self):
        """Over a headstart-pki that notes its calls, in a folder that stands for the container's root."""
        def calls(*arguments: str) -> list:
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                for part in ("bin", "pki/authority", "requests"):
                    (root / part).mkdir(parents=True)
                for name in ("authority.key", "authority.pem", "revoked.pem", "signed.pem"):
                    (root / "pki/authority" / name).touch()
                names = [argument for argument in arguments if argument != "--peers"]
                for name in names:
                    (root / f"requests/{name}.csr").touch()
                pki = root / "bin/headstart-pki"
                pki.write_text(f'#!/bin/sh\necho "$*" >> {root}/calls\necho {root}/pki/authority/signed.pem\n')
                pki.chmod(0o755)
                script = re.sub(r"(?<![a-z])/(pki|requests)/", rf"{root}/\1/", (DEPLOY / "authority.sh").read_text())
                done = subprocess.run(["sh", "-c", script, "authority.sh", *arguments], capture_output=True, text=True,
                                      timeout=60, env=os.environ | {"PATH": f"{root}/bin:{os.environ['PATH']}"})
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertTrue(all((root / f"requests/{name}.pem").is_file() for name in names))
                return [line.split(f" --folder {root}/pki/authority")[1].strip()
                        for line in (root / "calls").read_text().splitlines()]

        self.assertEqual(calls("server", "silo-0"), ["--server --host server", ""])
        self.assertEqual(calls("--peers", *SITES), ["--peer"] * 3)

    def test_scripts_parse(self):
        for script in scripts():
            shell = script.read_text().splitlines()[0].removeprefix("#!")
            done = subprocess.run([shell, "-n", script], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)


@unittest.skipIf(yaml is None, "python3-yaml is not installed")
class Manifests(unittest.TestCase):
    def pods(self):
        for file in ["server/server.yaml", "silo/client.yaml", "fill.yaml"]:
            for thing in objects(file):
                if thing["kind"] in {"Job", "Pod"}:
                    yield file, thing["spec"]["template"] if thing["kind"] == "Job" else thing

    def test_pods_run_with_the_least_they_need(self):
        for file, pod in self.pods():
            with self.subTest(file):
                spec = pod["spec"]
                self.assertIs(spec["securityContext"]["runAsNonRoot"], True)
                self.assertIs(spec["automountServiceAccountToken"], False)
                for container in spec["containers"]:
                    rights = container["securityContext"]
                    self.assertIs(rights["readOnlyRootFilesystem"], True)
                    self.assertIs(rights["allowPrivilegeEscalation"], False)
                    self.assertEqual(rights["capabilities"]["drop"], ["ALL"])

    def test_files_of_the_settings_lie_in_mounted_volumes(self):
        for file, config in [("server/server.yaml", "server/run.json"), ("silo/client.yaml", "silo/client.json")]:
            with self.subTest(file):
                spec = objects(file)[0]["spec"]["template"]["spec"]
                self.assertEqual({mount["name"] for mount in spec["containers"][0]["volumeMounts"]},
                                 {volume["name"] for volume in spec["volumes"]})
                mounted = {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
                text = (KUBERNETES / config).read_text() + " ".join(spec["containers"][0]["command"])
                for path in re.findall(r'(/[a-z]+)(?:/[a-z.]+)?(?:"|\s|$)', text):
                    self.assertIn(path, mounted)

    def test_names_that_one_object_has_of_another(self):
        for room, main in [("server", "server.yaml"), ("silo", "client.yaml")]:
            with self.subTest(room):
                things = objects(f"{room}/namespace.yaml", f"{room}/{main}")
                customization = objects(f"{room}/kustomization.yaml")[0]
                pod = next(thing for thing in things if thing["kind"] == "Job")["spec"]["template"]
                claims = {thing["metadata"]["name"] for thing in things if thing["kind"] == "PersistentVolumeClaim"}
                maps = {made["name"] for made in customization["configMapGenerator"]} | {"headstart-revoked"}
                for volume in pod["spec"]["volumes"]:
                    if "persistentVolumeClaim" in volume:
                        self.assertIn(volume["persistentVolumeClaim"]["claimName"], claims)
                    if "configMap" in volume:
                        self.assertIn(volume["configMap"]["name"], maps)
                ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0].get("ports", [])}
                for thing in things:
                    if thing["kind"] == "NetworkPolicy":
                        self.assertEqual(thing["spec"]["podSelector"]["matchLabels"], pod["metadata"]["labels"])
                    if thing["kind"] == "Service":
                        self.assertEqual(thing["spec"]["selector"], pod["metadata"]["labels"])
                        for port in thing["spec"]["ports"]:
                            self.assertEqual(ports[port["targetPort"]], port["port"])
                for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
                    if probe in pod["spec"]["containers"][0]:
                        self.assertIn(pod["spec"]["containers"][0][probe]["httpGet"]["port"], ports)

    def test_the_silos_of_the_compose_file_share_no_network_and_no_data(self):
        services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
        silos = [service for name, service in services.items() if name.startswith("silo-")]
        self.assertEqual(len(silos), 10)
        networks = [network for silo in silos for network in silo["networks"]]
        self.assertEqual(len(networks), len(set(networks)))
        own = [volume for silo in silos for volume in silo["volumes"] if not re.match("requests:|manifest:", volume)]
        self.assertEqual(len(own), 20)
        self.assertEqual(len(own), len(set(own)))
        self.assertEqual(set(services["server"]["networks"]), set(networks))

    def test_the_sites_of_the_peers_share_no_key_no_data_and_no_state(self):
        document = yaml.safe_load((PEERS / "compose.yaml").read_text())
        services = document["services"]
        self.assertEqual(sorted(services), ["authority", *SITES])
        self.assertEqual(services["authority"]["command"], ["/deploy/authority.sh", "--peers", *SITES])
        own = []
        for share, site in enumerate(SITES):
            service = services[site]
            self.assertEqual(service["command"], ["/deploy/enrol.sh", site, "/deploy/exchange.sh", str(share)])
            self.assertIs(service["read_only"], True)
            mounted = dict(volume.split(":")[1::-1] for volume in service["volumes"])
            self.assertEqual(mounted["/config/site.json"], f"./{site}.json")
            self.assertEqual(mounted["/config/peers.json"], "./peers.json")
            own += [mounted[place] for place in ("/tls", "/data", "/state")]
            text = (PEERS / f"{site}.json").read_text() + (PEERS / "exchange.sh").read_text().split("set -eu")[1]
            for path in set(re.findall(r'[\s"](/[a-z]+)', text)):
                self.assertTrue(any(place.startswith(path) for place in mounted), f"{site}: {path}")
        self.assertEqual(len(own), len(set(own)))
        self.assertLessEqual(set(own), set(document["volumes"]))

    def test_each_pair_of_sites_has_a_network_and_an_address_that_its_certificate_is_for(self):
        services = yaml.safe_load((PEERS / "compose.yaml").read_text())["services"]
        for one, other in itertools.combinations(SITES, 2):
            shared = set(services[one]["networks"]) & set(services[other]["networks"])
            self.assertEqual(len(shared), 1, f"{one}, {other}")
        for member in json.loads((PEERS / "peers.json").read_text())["members"]:
            self.assertEqual(member["address"], f"wss://{member['name']}:9850")
            site = json.loads((PEERS / f"{member['name']}.json").read_text())
            self.assertEqual(site["name"], member["name"])
            self.assertEqual(site["tls"]["certificate"], f"/tls/{member['name']}.pem")


if __name__ == "__main__":
    unittest.main()
