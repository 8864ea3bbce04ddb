"""The latest revision of each review as files: Parquet or JSON lines, in a folder or a store."""
