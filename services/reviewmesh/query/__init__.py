"""What is known of a running mesh, for the command line and whatever else shows it: records of its
topics, one review's places, dead letters, and whether everything published is accounted for."""
