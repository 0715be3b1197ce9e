"""Address assignments: which subscriber had an address or ports when, from leases, accounting and NAT
logs."""
