"""The lag service's arithmetic, without a broker."""
