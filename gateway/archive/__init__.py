"""Archives that are made while they are sent: one ZIP of many files, of which no byte is stored."""
