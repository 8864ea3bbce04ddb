"""The embedded schema registry: Apicurio, with its Confluent-compatible API.

Schema ids are written into every record, so they must survive a restart: the registry stores them
in an H2 file and writes each change at once. (In memory it would assign the ids again and silently
change the meaning of existing records.)

Apicurio creates its tables at its first start. If that is interrupted, it cannot start with this
database any more. So `python -m reviewmesh.local.registry APICURIO_DIR REGISTRY_DIR` renames such a
database before it becomes the registry: one without a schema, with which the registry was never
ready.
"""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from reviewmesh.local.java import java_command
from reviewmesh.local.ports import HOST
from reviewmesh.settings import RegistrySettings

MAX_HEAP_MB = 256
CONFLUENT_API = "/apis/ccompat/v7"
DATABASE = "registry"
WAS_READY = "was-ready"
ASIDE = "unfinished"
SHELL_HEAP_MB = 64
SHELL_TIMEOUT_S = 120
SHELL_ANSWER = "schemas"
IN_USE = "90020"


def url(port: int, secure: bool) -> str:
    """The base URL that Confluent clients are given."""
    return f"{'https' if secure else 'http'}://{HOST}:{port}{CONFLUENT_API}"


def command(apicurio_dir: Path, registry_dir: Path) -> list[str]:
    """What supervisord runs."""
    return [sys.executable, "-m", "reviewmesh.local.registry", str(apicurio_dir), str(registry_dir)]


def environment(
    registry_dir: Path, port: int, management_port: int, properties: Path | None
) -> dict[str, str]:
    """Apicurio is configured by its environment, and by a file of properties if it has secrets."""
    own = {} if properties is None else {"QUARKUS_CONFIG_LOCATIONS": str(properties)}
    return {
        **own,
        "QUARKUS_HTTP_HOST": HOST,
        "QUARKUS_HTTP_PORT": str(port),
        # By default 0.0.0.0:9000, which a second mesh could not use.
        "QUARKUS_MANAGEMENT_HOST": HOST,
        "QUARKUS_MANAGEMENT_PORT": str(management_port),
        "APICURIO_STORAGE_KIND": "sql",
        "APICURIO_STORAGE_SQL_KIND": "h2",
        # Without WRITE_DELAY=0 a kill loses the last registered schema.
        "APICURIO_DATASOURCE_URL": f"{_address(registry_dir)};WRITE_DELAY=0",
    }


def note_ready(registry_dir: Path) -> None:
    """The database is complete: never rename it from now on."""
    (registry_dir / WAS_READY).touch()


def set_unfinished_aside(apicurio_dir: Path, registry_dir: Path) -> bool:
    """Rename the database of an interrupted first start; returns whether there was one."""
    database = registry_dir / f"{DATABASE}.mv.db"
    if not database.exists() or (registry_dir / WAS_READY).exists():
        return False
    if _holds_schemas(apicurio_dir, registry_dir):
        note_ready(registry_dir)
        return False
    database.replace(database.with_suffix(f".{ASIDE}"))
    return True


def _holds_schemas(apicurio_dir: Path, registry_dir: Path) -> bool:
    """Whether it has schemas, or may have: another process has the database open."""
    [jar] = apicurio_dir.glob("lib/main/com.h2database.h2-*.jar")
    shell = java_command(
        SHELL_HEAP_MB,
        *("-cp", str(jar), "org.h2.tools.Shell", "-user", "sa", "-password", "sa"),
        *("-url", f"{_address(registry_dir)};IFEXISTS=TRUE"),
        *("-sql", f"select '{SHELL_ANSWER}' || (count(*) > 0) from content"),
    )
    done = subprocess.run(
        shell, check=False, capture_output=True, text=True, timeout=SHELL_TIMEOUT_S
    )
    return f"{SHELL_ANSWER}TRUE" in done.stdout or IN_USE in done.stdout + done.stderr


def _address(registry_dir: Path) -> str:
    return f"jdbc:h2:file:{registry_dir}/{DATABASE}"


def is_ready(settings: RegistrySettings, timeout_s: float = 2.0) -> bool:
    """Whether the registry lists its subjects."""
    request = urllib.request.Request(f"{settings.url}/subjects", headers=_login(settings))
    context = settings.ssl_context()
    try:
        with urllib.request.urlopen(
            request,
            timeout=timeout_s,
            context=context if isinstance(context, ssl.SSLContext) else None,
        ) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _login(settings: RegistrySettings) -> dict[str, str]:
    if settings.username is None or settings.password is None:
        return {}
    login = f"{settings.username}:{settings.password.get_secret_value()}"
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def main(apicurio_dir: Path, registry_dir: Path) -> None:
    """Start again after an interrupted first start, then become the registry."""
    if set_unfinished_aside(apicurio_dir, registry_dir):
        print("an earlier first start did not end: its database is set aside", flush=True)
    jar = str(apicurio_dir / "quarkus-run.jar")
    registry = java_command(MAX_HEAP_MB, "-jar", jar, classes_of=apicurio_dir)
    os.execv(registry[0], registry)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
