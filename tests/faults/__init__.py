"""What is promised holds whatever is killed, paused or cut off on the way."""
