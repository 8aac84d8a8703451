"""From finished runs to tables, charts and reports."""
