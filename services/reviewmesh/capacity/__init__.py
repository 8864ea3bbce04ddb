"""How many workers a load needs: measured, planned, and tried on arrivals that were."""
