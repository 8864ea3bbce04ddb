"""Ports of an embedded mesh: the same each time, and a change is told."""

from __future__ import annotations

import socket

from reviewmesh.local.ports import HOST, choose_ports, moved


def test_a_folder_has_its_ports_also_when_its_data_was_removed() -> None:
    names = ("broker", "registry", "joiner")
    first = choose_ports(names, {}, "/made/up")
    assert choose_ports(names, {}, "/made/up") == first
    assert choose_ports(names, {}, "/another") != first
    assert (
        choose_ports(names, {"broker": first["registry"]}, "/made/up")["broker"]
        == (first["registry"])
    )


def test_a_port_that_was_taken_moves_and_is_named() -> None:
    first = choose_ports(("joiner", "lag"), {}, "/made/up/too")
    with socket.create_server((HOST, first["joiner"])):
        second = choose_ports(("joiner", "lag"), first, "/made/up/too")
    assert moved(first, second) == {"joiner": (first["joiner"], second["joiner"])}
    assert moved({"insights": 1}, first) == {}
