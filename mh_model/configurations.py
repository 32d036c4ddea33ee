"""Bounds under which the model has to hold. Each search visits every state there is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Configuration:
    """Macros of docs/protocol/bounds.pml as text, and what they are for."""

    name: str
    about: str
    bounds: str

    @property
    def defines(self) -> tuple[str, ...]:
        """The macros, each `NAME` or `NAME=number`."""
        return tuple(self.bounds.split())


STEPS = "SIDES=1 FINE SAME_TERMS LANES=1"  # one helper, step by step, packets as the host likes
PAIR = "SAME_TERMS RINGS=2 LANES=1 PAGES=1"

HELLOS_3 = Configuration(
    "hellos-3", "two helpers, one ring each; three hellos", "RINGS=1 LANES=1 PAGES=1 EPOCHS=1 HELLOS=3"
)
BOTH_LANES = Configuration(
    "both-lanes",
    "two helpers, two rings each, both lanes, two pages; roles and numbers of rings as the host likes",
    "RINGS=2 LANES=2 PAGES=2 EPOCHS=1 NO_RESUME NO_ABORT",
)
ONE_STREAM = Configuration(
    "one-stream", "two helpers, one ring each; two pages", "RINGS=1 LANES=1 PAGES=2 EPOCHS=1 NO_RESUME"
)
RINGS = Configuration(
    "rings", "one helper, two rings step by step; two sessions", f"{STEPS} RINGS=2 PAGES=1 EPOCHS=1 HELLOS=2"
)
EPOCHS = Configuration("epochs", "rings; one session, two epochs", f"{STEPS} RINGS=2 PAGES=1 EPOCHS=2 HELLOS=1")
RESTARTS = Configuration("restarts", "rings; a vCPU is lost at any step", f"{RINGS.bounds} KILLS=1")
FAIR = Configuration(
    "fair",
    "rings; two epochs; from any step on the host is fair",
    f"{STEPS} RINGS=2 PAGES=1 EPOCHS=2 HELLOS=2 FAIR",
)
FAIR_RESTARTS = Configuration("fair-restarts", "restarts; from any step on the host is fair", f"{RESTARTS.bounds} FAIR")

# The longest first: they run side by side.
CONFIGURATIONS = (
    Configuration(
        "hellos",
        "two helpers, one ring each; four hellos, so several sessions on either side",
        "RINGS=1 LANES=1 PAGES=1 EPOCHS=1 HELLOS=4 NO_RESUME",
    ),
    Configuration("lost-twice", "rings; vCPUs are lost twice", f"{RINGS.bounds} KILLS=2"),
    Configuration(
        "fair-pair",
        "two helpers, two rings each, two epochs; from any operation on the host is fair",
        f"{PAIR} EPOCHS=2 HELLOS=4 FAIR",
    ),
    Configuration(
        "pair-steps",
        "two helpers, two rings each, step by step; no pages",
        f"FINE {PAIR} EPOCHS=1 NO_RESUME NO_ABORT".replace("PAGES=1", "PAGES=0"),
    ),
    Configuration(
        "three-rings",
        "one helper, three rings step by step; one session",
        f"{STEPS} RINGS=3 PAGES=1 EPOCHS=1 HELLOS=1 NO_RESUME",
    ),
    Configuration(
        "three-joins",
        "one helper, three rings step by step; two sessions, no pages",
        f"{STEPS} RINGS=3 PAGES=0 EPOCHS=1 HELLOS=2 NO_RESUME",
    ),
    Configuration(
        "terms",
        "rings; both lanes, roles and numbers of rings as the host likes",
        "SIDES=1 FINE RINGS=2 LANES=2 PAGES=1 EPOCHS=1 HELLOS=2",
    ),
    Configuration(
        "two-pages",
        "one helper, two rings step by step; two pages, two epochs",
        f"{STEPS} RINGS=2 PAGES=2 EPOCHS=2 HELLOS=1",
    ),
    RESTARTS,
    FAIR_RESTARTS,
    FAIR,
    Configuration("ends", "two helpers, two rings each; two epochs", f"{PAIR} EPOCHS=2"),
    Configuration(
        "two-lanes",
        "two helpers, one ring each; both lanes, two pages, two epochs",
        "SAME_TERMS RINGS=1 LANES=2 PAGES=2 EPOCHS=2",
    ),
    RINGS,
    EPOCHS,
    BOTH_LANES,
    HELLOS_3,
    ONE_STREAM,
)
