"""The embedded schema registry: Apicurio, with its Confluent-compatible API.

Schema ids are written into every record, so they must survive a restart: the registry keeps them
in an H2 file and writes each change at once. (In memory it would hand the ids out anew and
silently change the meaning of what Kafka kept.)
"""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from reviewmesh.local.java import java_command
from reviewmesh.local.ports import HOST

MAX_HEAP_MB = 256
CONFLUENT_API = "/apis/ccompat/v7"


def url(port: int) -> str:
    """The base URL that Confluent clients are given."""
    return f"http://{HOST}:{port}{CONFLUENT_API}"


def command(apicurio_dir: Path) -> list[str]:
    """What supervisord runs."""
    jar = str(apicurio_dir / "quarkus-run.jar")
    return java_command(MAX_HEAP_MB, "-jar", jar, classes_of=apicurio_dir)


def environment(registry_dir: Path, port: int, management_port: int) -> dict[str, str]:
    """Apicurio is configured by its environment alone."""
    return {
        "QUARKUS_HTTP_HOST": HOST,
        "QUARKUS_HTTP_PORT": str(port),
        # It would listen on 0.0.0.0:9000, where a second mesh would find it taken.
        "QUARKUS_MANAGEMENT_HOST": HOST,
        "QUARKUS_MANAGEMENT_PORT": str(management_port),
        "APICURIO_STORAGE_KIND": "sql",
        "APICURIO_STORAGE_SQL_KIND": "h2",
        # Without WRITE_DELAY=0 a kill loses the last registered schema.
        "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{registry_dir}/registry;WRITE_DELAY=0",
    }


def is_ready(registry_url: str, timeout_s: float = 2.0) -> bool:
    """Whether the registry lists its subjects."""
    try:
        with urllib.request.urlopen(f"{registry_url}/subjects", timeout=timeout_s) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
