"""The gRPC contract: what is committed is what is generated, and a breaking change is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTO = Path("reviewmesh_protos/inference/v1/inference.proto")
BIN = Path(sys.executable).parent


def test_generated_code_is_that_of_the_proto(tmp_path: Path) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-Iprotos"),
            *(
                f"--{kind}_out={tmp_path}"
                for kind in ("python", "grpc_python", "mypy", "mypy_grpc")
            ),
            f"--plugin=protoc-gen-mypy={BIN / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={BIN / 'protoc-gen-mypy_grpc'}",
            f"protos/{PROTO}",
        ],
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    generated = sorted(path for path in tmp_path.rglob("*_pb2*"))
    assert len(generated) == 4
    for path in generated:
        committed = ROOT / "protos" / path.relative_to(tmp_path)
        assert committed.read_text() == path.read_text(), f"run `make proto`: {path.name} differs"


def breaks(tmp_path: Path, old: str, new: str) -> subprocess.CompletedProcess[str]:
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    proto = tmp_path / "protos" / PROTO
    text = proto.read_text()
    assert old in text
    proto.write_text(text.replace(old, new))
    return subprocess.run(
        [BIN / "buf", "breaking", "protos", "--against", ROOT / "protos" / "baseline.binpb"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_contract_breaks_nothing_of_its_baseline(tmp_path: Path) -> None:
    assert breaks(tmp_path, "string task = 1;", "string task = 1;").returncode == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("string text = 2;", "string text = 9;"),
        ("repeated Item items = 2;", "Item items = 2;"),
        ("rpc Describe(DescribeRequest) returns (DescribeResponse);", ""),
    ],
)
def test_a_breaking_change_is_refused(tmp_path: Path, old: str, new: str) -> None:
    answer = breaks(tmp_path, old, new)
    assert answer.returncode != 0
    assert "inference.proto" in answer.stdout
