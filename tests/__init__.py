"""Tests of reviewmesh: unit, contract, integration, end to end, faults."""
