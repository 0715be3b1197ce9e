"""Dashboard: web pages and API for the filter's state, its history, and operators' actions."""
