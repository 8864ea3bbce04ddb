"""What is delivered beside the project's own code: licences, known weaknesses, notices."""
