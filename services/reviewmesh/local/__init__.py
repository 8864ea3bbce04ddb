"""The embedded stack: the whole mesh as local processes, without Docker or a system Java.

A real Kafka broker and a real Apicurio registry run from jars that are downloaded once, and
supervisord keeps them, the services and a worker alive. A state folder holds everything that
one such mesh is: its ports, its data, its logs. Nothing in here runs in a deployed mesh.
"""
