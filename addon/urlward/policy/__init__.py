"""Policy: groups of clients, rules, schedules and temporary allows."""
