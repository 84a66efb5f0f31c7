"""Silos whose people start them elsewhere: what they run, and who has joined."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from .plan import Plan
from .programs import CLIENT, PEER_CONSENT, form_settings, needs_models, needs_peer_consent

EVERY_ADDRESS = ("0.0.0.0", "::")


def what_silos_run(plan: Plan) -> list[str]:
    """For people, before the first run: what each silo starts once, for all runs."""
    address = plan.settings["listen.address"]
    host = "THIS-MACHINE" if address in EVERY_ADDRESS else f"[{address}]" if ":" in address else address
    is_tls = bool(plan.settings.get("tls.certificate"))
    settings = {key: str(value) for key, value in form_settings(plan.settings).items()} | {"data.path": "ITS-FOLDER"}
    if any(needs_models(start.start) for start in plan.start_plans()):
        settings["store.pretrained"] = "A-FOLDER"  # or it would pre-train in each run anew
    if any(needs_peer_consent(start.start) for start in plan.start_plans()):
        settings |= PEER_CONSENT
    if is_tls:
        settings |= {"tls.authority": "AUTHORITY.pem", "tls.certificate": "ITS.pem", "tls.key": "ITS.key"}
    names = [silo.name for silo in plan.silo_list()] or ["NAME"]
    commands = [[CLIENT, "--server", f"{'wss' if is_tls else 'ws'}://{host}:{plan.settings['listen.port']}", "--name", name,
                 *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")), "--forever"]
                for name in names]
    return [f"The people of each of {plan.clients} silos start, once for all runs, and end after the last:",
            *(f"  {shlex.join(command)}" for command in commands)]


class Lobby:
    """Who has joined a run, by the audit log that its server writes."""

    def __init__(self, plan: Plan, run_folder: Path) -> None:
        self._expected = plan.clients
        self._names = [silo.name for silo in plan.silo_list()]
        self._audit = run_folder / "audit.jsonl"
        self._is_full = False

    def text(self) -> str:
        """Who is waited for, and why the last that was refused could not join; empty once all have joined."""
        if self._is_full:
            return ""
        present, refusal = self._read()
        self._is_full = len(present) >= self._expected
        if self._is_full:
            return ""
        missing = [name for name in self._names if name not in present]
        text = f"waiting for {', '.join(missing) if missing else f'{self._expected - len(present)} silos'}; "
        text += f"joined: {', '.join(present) or 'none'}"
        return text + (f"; refused: {refusal}" if refusal else "")

    def _read(self) -> tuple[list[str], str]:
        present: list[str] = []
        refusal = ""
        for event in self._events():
            name = str(event.get("client", ""))
            if event["event"] in ("joined", "returned"):
                present = [*(other for other in present if other != name), name]
                refusal = ""
            elif event["event"] == "connection lost":
                present = [other for other in present if other != name]
            elif event["event"] == "refused":
                refusal = f"{name or event.get('address', '?')} ({event.get('reason', '')})"
        return present, refusal

    def _events(self) -> list[dict[str, Any]]:
        """A line still being written is left for later."""
        try:
            text = self._audit.read_text(errors="replace")
        except OSError:
            return []
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
