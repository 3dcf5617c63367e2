"""The field's measures, and their reports."""
