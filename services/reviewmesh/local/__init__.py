"""The embedded stack: the whole mesh as local processes, without Docker or a system Java.

A real Kafka broker and a real Apicurio registry run from jars that are downloaded once, and
supervisord runs them, the services and a worker. A state folder holds everything of one such mesh:
its ports, its data, its logs. A deployed mesh uses nothing in here.
"""
