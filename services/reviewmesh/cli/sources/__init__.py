"""Files of reviews: JSON lines, JSON and tables, packed or not, in any encoding, read row by row.

From the bytes of a file to reviews as a producer publishes them. Whatever a file holds, memory is
bounded: by one row of at most MAX_ROW_BYTES.
"""
