"""The contract with the C++ programs, in one place: what a start means in settings, which program takes which
setting, the command lines, and the files of a run's folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import USAGE, CompareError, unknown_word
from common.programs import find_program
from common.vocabulary import Vocabulary, read_vocabulary

Settings = dict[str, Any]

SIMULATION, PROCESSES, REMOTE = MODES = ("simulation", "processes", "remote")
LAB, SERVER, CLIENT = "headstart-lab", "headstart-server", "headstart-client"

STUDENTS = ("best", "worst", "untrained")
WEIGHTS = ("adaptive", "equal", "precision", "experts")
# How the teachers become one target, and how T is chosen, beyond the published method.
VARIANTS: dict[str, Settings] = {
    "logits": {"consolidation.average": "logits"},
    "standardised": {"consolidation.standardise": True},
    "normalised": {"consolidation.normalise": True},
    "prior": {"consolidation.divide_label_prior": True},
    "tuned": {"consolidation.tune": "auto"},
}
# Experts' answers are averaged as probabilities, which sum to 1 already; no label prior is rated for them.
NOT_OF_EXPERTS = ("logits", "standardised", "normalised", "prior")


def _kd_starts() -> dict[str, Settings]:
    """The ten cells of the published table, untrained on student data, weights by precision and by sample (experts, on
    public data), and for the best student the variants: kd-TRANSFER[-STUDENT][-equal | -precision | -experts][-VARIANT].
    Beside them kd-answers[-untrained], kd-lifted and kd-joint."""
    starts: dict[str, Settings] = {}
    for transfer in ("public", "student"):
        for student in STUDENTS:
            for weights in WEIGHTS:
                if weights == "experts" and transfer != "public":
                    continue
                name = f"kd-{transfer}" + (f"-{student}" if student != "best" else "")
                name += f"-{weights}" if weights != "adaptive" else ""
                starts[name] = {
                    "start.model": "kd",
                    "consolidation.student": student,
                    "consolidation.weights": weights,
                    "consolidation.transfer": transfer,
                }
                if student != "best":
                    continue
                for variant, settings in VARIANTS.items():
                    if weights == "experts" and variant in NOT_OF_EXPERTS:
                        continue
                    # The label prior is divided out where the server has the teachers' answers.
                    if transfer == "public" or variant != "prior":
                        starts[f"{name}-{variant}"] = starts[name] | settings
    on_public = {"start.model": "kd", "consolidation.transfer": "public"}
    experts = on_public | {"consolidation.weights": "experts"}
    sums = on_public | {"consolidation.weights": "equal", "consolidation.student": "best"}
    return starts | {
        "kd-answers": experts | {"consolidation.exchange": "answers", "consolidation.student": "best"},
        "kd-answers-untrained": experts | {"consolidation.exchange": "answers", "consolidation.student": "untrained"},
        "kd-bounded": experts | {"consolidation.density": "bounded", "consolidation.student": "best"},
        "kd-lifted": sums | {"consolidation.target": "lifted"},
        "kd-joint": sums | {"consolidation.target": "joint"},
    }


# Behind the name of a start: its head is fitted to all silos' samples by sums over them.
HEAD_SUFFIX = "+head"


# The same, and after each round once more.
HEADS_SUFFIX = "+heads"


def _with_heads(starts: dict[str, Settings]) -> dict[str, Settings]:
    with_head = {name + HEAD_SUFFIX: settings | {"start.head": "sums"} for name, settings in starts.items()}
    with_heads = {name + HEADS_SUFFIX: settings | {"start.head": "sums", "rounds.head": "sums"}
                  for name, settings in starts.items()}
    return starts | with_head | with_heads


STARTS: dict[str, Settings] = {
    **_with_heads({"random": {"start.model": "random"}, "best": {"start.model": "best_local"},
                   "average": {"start.model": "average"}, **_kd_starts()}),
    "auto": {"start.model": "auto", "consolidation.weights": "experts"},
    "auto+heads": {"start.model": "auto", "consolidation.weights": "experts", "rounds.head": "sums"},
    "random-feddf": {"start.model": "random", "federation.strategy": "feddf"},
}


def starts_text() -> str:
    """All starts for people, those with heads in one sentence."""
    plain = [name for name in STARTS if "+" not in name]
    with_heads = [name for name in plain if name + HEAD_SUFFIX in STARTS]
    others = [name for name in plain if name not in with_heads]
    return (", ".join(with_heads) + f", each also with {HEAD_SUFFIX} (its head fitted by sums) or {HEADS_SUFFIX} (after "
            f"each round too); {', '.join(others)}, auto{HEADS_SUFFIX}")


# Not a start but the reference that no federation can be: one model, trained on the data of all clients together.
CENTRAL = "central"

# In place of a partition: nothing is drawn, each silo has its own data.
EXISTING = "existing"


def title_of_partition(partition: str) -> str:
    return "silos as they are" if partition == EXISTING else partition


# Starts that hand a silo's weights to other silos, which each client must allow by its own configuration.
PEER_CONSENT: Settings = {"share_model": "peers"}

START_TITLES = {"random": "random start", "random-feddf": "random start, FedDF", "best": "best local model",
                "average": "one-shot average",
                "auto": "the best start by validation",
                "kd-answers": "KD by answers at home", "kd-answers-untrained": "KD by answers at home, untrained student",
                "kd-bounded": "KD, experts with bounded densities",
                "kd-lifted": "KD from a lifted ridge head", "kd-joint": "KD from a joint head",
                "kd-public": "KD, public data", "kd-student": "KD, student data",
                CENTRAL: "centralised training"}


def title_of_start(start: str) -> str:
    if start in START_TITLES:
        return START_TITLES[start]
    if start.endswith(HEADS_SUFFIX):
        return f"{title_of_start(start.removesuffix(HEADS_SUFFIX))}, head from sums each round"
    if start.endswith(HEAD_SUFFIX):
        return f"{title_of_start(start.removesuffix(HEAD_SUFFIX))}, head from sums"
    _, transfer, *rest = start.split("-")
    return f"KD, {transfer} data ({', '.join(rest)})"


def needs_models(start: str) -> bool:
    """True where clients pre-train and hand over their models before round 1."""
    return start != CENTRAL and STARTS[start]["start.model"] != "random"


def needs_peer_consent(start: str) -> bool:
    return STARTS[start]["start.model"] in ("best_local", "average", "kd", "auto")


def public_data_user(start: str, settings: Settings) -> str | None:
    """What of a start or of the plan's settings works on a public set that the server holds; None: nothing."""
    own = STARTS[start]
    if own.get("federation.strategy") == "feddf" or own.get("consolidation.transfer") == "public":
        return f"start {start}"
    if own["start.model"] == "auto" and any(str(candidate).startswith("kd") for candidate in settings.get("start.candidates", ["kd"])):
        return f"start {start}"
    return "federation.strategy=feddf" if settings.get("federation.strategy") == "feddf" else None


def check_start(start: str) -> None:
    if start not in STARTS:
        raise unknown_word("start", start, STARTS)


def parse_assignment(text: str) -> tuple[str, Any]:
    """One key=value as the programs read it: the value is JSON, or else text."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise CompareError(USAGE, f"--set {text}: expected key=value")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def flat(document: dict[str, Any], prefix: str = "") -> Settings:
    result: Settings = {}
    for key, value in document.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def nested(settings: Settings) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        place = document
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise CompareError(USAGE, f"setting {key}: '{part}' is a value in another setting")
        place[last] = value
    return document


DRAW_PREFIXES = ("partition.", "draw.")
DATA_SET_KEYS = ("data.set", "data.path", "data.side", "data.channels", "data.list")
CLIENT_PREFIX, SIMULATION_PREFIX = "client.", "simulate."


def draw_settings(settings: Settings) -> Settings:
    """What `headstart-lab partition` takes."""
    return {key: value for key, value in settings.items()
            if key.startswith(DRAW_PREFIXES) or key in DATA_SET_KEYS}


def federation_settings(settings: Settings, mode: str = SIMULATION) -> Settings:
    """What `headstart-lab simulate` takes, or (other modes) `headstart-server`, which simulates nothing."""
    others = (*DRAW_PREFIXES, CLIENT_PREFIX) + (() if mode == SIMULATION else (SIMULATION_PREFIX,))
    return {key: value for key, value in settings.items() if not key.startswith(others)}


# What the federation's clients have of the settings of `headstart-lab central`.
CENTRAL_PREFIXES = ("model.", "pretrain.")
CENTRAL_KEYS = (*DATA_SET_KEYS, "data.mean", "data.deviation", "data.held_out", "run.threads", "run.device",
                "run.precision")


def central_settings(settings: Settings) -> Settings:
    """What `headstart-lab central` takes: the data, the model, and the optimiser of the pre-training."""
    return {key: value for key, value in settings.items()
            if key.startswith(CENTRAL_PREFIXES) or key in CENTRAL_KEYS}


def client_settings(settings: Settings) -> Settings:
    """What `headstart-client` takes: the data set, and "client.KEY" as KEY."""
    return {key: value for key, value in settings.items() if key in DATA_SET_KEYS} | settings_of_clients(settings)


def settings_of_clients(settings: Settings) -> Settings:
    """ "client.KEY" as KEY."""
    return {key.removeprefix(CLIENT_PREFIX): value for key, value in settings.items() if key.startswith(CLIENT_PREFIX)}


def form_settings(settings: Settings) -> Settings:
    """The form of the data, without their place."""
    return {key: value for key, value in settings.items() if key in DATA_SET_KEYS and key != "data.path"}


@dataclass(frozen=True)
class Programs:
    """Where the programs lie; a build tree keeps each in the folder of its room."""

    folder: Path | None

    def path(self, name: str) -> str:
        return find_program(name, self.folder)

    def needed(self, mode: str) -> list[str]:
        others = {SIMULATION: (), PROCESSES: (SERVER, CLIENT), REMOTE: (SERVER,)}[mode]
        return [self.path(name) for name in (LAB, *others)]

    def vocabulary(self) -> Vocabulary:
        return read_vocabulary(self.path(LAB))

    def partition(self, config: Path, out: Path) -> list[str]:
        return [self.path(LAB), "partition", "--config", str(config), "--out", str(out)]

    def simulate(self, config: Path) -> list[str]:
        return [self.path(LAB), "simulate", "--config", str(config)]

    def central(self, config: Path) -> list[str]:
        return [self.path(LAB), "central", "--config", str(config)]

    def serve(self, config: Path) -> list[str]:
        return [self.path(SERVER), "--config", str(config)]

    def client(self, port: int, name: str, config: Path) -> list[str]:
        return [self.path(CLIENT), "--server", f"ws://127.0.0.1:{port}", "--name", name, "--config", str(config)]

    def client_of_share(self, port: int, index: int, config: Path) -> list[str]:
        return [*self.client(port, f"silo-{index}", config), "--set", f"data.share={index}"]


def port_of(run_folder: Path) -> int | None:
    try:
        return int((run_folder / "port").read_text())
    except (OSError, ValueError):
        return None


def is_finished(run_folder: Path) -> bool:
    return (run_folder / "summary.json").is_file()
