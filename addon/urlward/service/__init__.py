"""Service process: delivery of events, alarms and the dashboard."""
