"""The one typed object of configuration, made at the edge: from the environment (`LETHE_*`) with defaults for one
machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where things are and how large they may get.

    Every path that ends up holding personal data lies under `home`; `lethe status` lists them all.
    """

    model_config = SettingsConfigDict(env_prefix="LETHE_", frozen=True, extra="forbid")

    home: Path = Field(default=Path(".lethe"), description="holds the broker, its data, state, keys and rejects")
    dist_dir: Path | None = Field(default=None, description="downloads to use instead of those below home")
    bootstrap: str = Field(default="127.0.0.1:19092", description="host:port list of the Kafka brokers")
    registry: str = Field(
        default="http://127.0.0.1:18081/apis/ccompat/v7",
        description="base URL of the registry's Confluent-compatible interface",
    )
    security: Literal["tls", "plaintext"] = Field(
        default="tls", description="of the brokers; plaintext: neither TLS nor access control, on loopback only"
    )
    principal: str = Field(default="operator", description="whom a client of the brokers acts for, unless it says so")
    credentials: Path | None = Field(
        default=None, description="folder of ca.crt and <principal>.pem to use instead of the one below keys"
    )
    controller_port: int = Field(default=19093, description="loopback port of the local broker's controller")
    postcodes: Path | None = Field(
        default=None, description="postcode directory (ONSPD, CSV) to find areas by; by default a sample of one borough"
    )
    retention: Path | None = Field(
        default=None, description="retention policy (YAML) to go by; by default the one that comes with Lethe"
    )
    k_anonymity: int = Field(
        default=0, ge=0, description="publish widens areas until so many people share birth year and sex, too; 0: never"
    )
    partitions: int = Field(default=4, ge=1, le=512, description="of every data topic; all alike, or joins break")
    batch_records: int = Field(default=15_000, ge=1, description="most records that one transaction takes in")
    edition: str = Field(
        default="",
        pattern=r"^([a-z][a-z0-9]{0,11})?$",
        description="work in topics of this name beside those in use, such as v2; empty: those in use",
    )
    ends_windows: bool | None = Field(
        default=None,
        description="delete at the source who matches nobody when the linkage window ends; by default, only in the "
        "edition without a name",
    )
    near_matches: bool = Field(default=True, description="hold encodings and link by them; false: match keys alone")
    near_weights: Path | None = Field(
        default=None, description="weights of near matches that `lethe evaluate weights` wrote; by default Lethe's own"
    )
    match_keys_off: str = Field(default="", description="ids of match keys to switch off, with commas between")
    control_port: int = Field(default=19094, ge=0, le=65535, description="loopback port of the control plane")
    metrics_port: int = Field(
        default=19100,
        ge=0,
        le=65000,
        description="first of the loopback ports for /metrics, /live, /ready, ten for each processor; 0: any free ones",
    )
    clock: Literal["wall", "simulated"] = Field(default="wall", description="simulated: nobody but `lethe clock` ticks")
    tick_seconds: float = Field(default=60, gt=0, description="between two ticks of the wall clock")
    heartbeat_seconds: float = Field(default=3600, gt=0, description="between two heartbeats of every partition")
    sweep_seconds: float = Field(
        default=3600, gt=0, description="longest time that deleted bytes stay in a state directory"
    )
    enquiries_per_hour: int = Field(default=60, ge=1, description="that one council may ask")
    accounts: bool = Field(default=True, description="commit counts with the records; false: only to see what it costs")
    session_timeout_ms: int = Field(default=10_000, ge=6_000, description="of a worker's group membership")
    transaction_timeout_ms: int = Field(default=60_000, ge=1_000, description="after which the broker aborts")

    @property
    def base(self) -> Path:
        """`home` as an absolute path."""
        return self.home.expanduser().resolve()

    @property
    def dist(self) -> Path:
        """Downloaded Kafka and registry; no data."""
        return self.dist_dir.expanduser().resolve() if self.dist_dir else self.base / "dist"

    @property
    def run(self) -> Path:
        """Process ids and logs of the local stack; no personal data."""
        return self.base / "run"

    @property
    def broker_data(self) -> Path:
        """The local broker's log segments."""
        return self.base / "data" / "kafka"

    @property
    def registry_data(self) -> Path:
        """The local registry's store."""
        return self.base / "data" / "registry"

    @property
    def state(self) -> Path:
        """RocksDB state: `<processor>[@<edition>]/<instance>/<partition>/`."""
        return self.base / "state"

    @property
    def keys(self) -> Path:
        """Key files, readable by their owner only."""
        return self.base / "keys"

    @property
    def access(self) -> Path:
        """`ca.crt`, and `<principal>.pem` of each principal that acts on this machine, readable by its owner only."""
        return self.credentials.expanduser().resolve() if self.credentials else self.keys / "access"

    def acting_as(self, principal: str) -> Self:
        """The same settings for a client that acts for `principal`; see `stream_processors/access.py`."""
        return self.model_copy(update={"principal": principal})

    @property
    def rejects(self) -> Path:
        """Rejects files: line, field and reason of each rejected row, never a value."""
        return self.base / "rejects"

    def environment(self) -> dict[str, str]:
        """The environment variables that make the same settings in a child process."""
        values = {**self.model_dump(exclude_none=True), "home": self.base, "dist_dir": self.dist}
        return {f"LETHE_{name.upper()}": str(value) for name, value in values.items()}
