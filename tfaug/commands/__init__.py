"""What users type: one file a command; flags live here and nowhere below."""
