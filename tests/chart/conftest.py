"""Tests of the Helm chart. They need helm and kubeconform, which `make chart` builds and runs them
with; elsewhere there is nothing here to run.
"""

from __future__ import annotations

from tests.chart.rendered import HELM

collect_ignore_glob = [] if HELM.exists() else ["test_*.py"]
