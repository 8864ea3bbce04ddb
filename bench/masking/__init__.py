"""How much personal data the masking finds, on reviews that are made up."""
